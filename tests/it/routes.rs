//! Is the HTTP surface what it says it is? Routes, the OpenAPI document and the contract's index, held against each other.

#![expect(clippy::unwrap_used, reason = "what cannot be unwrapped here is a failed test")]

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Answer, Client, Home, answer};

mod limits;
mod settings;

/// The tables of routes, one for each edge.
const TABLES: [&str; 2] = [include_str!("../../src/http/routes.rs"), include_str!("../../src/mcp/routes.rs")];

/// Routes that are answered and deliberately not described, and how: other names of described ones, and pages for people.
const UNDESCRIBED: [(&str, &str, u16); 3] = [
    ("GET", "/health", 200),
    ("GET", "/approvals/{request_id}", 403),
    ("POST", "/approvals/{request_id}", 403),
];

/// Every method that HTTP clients and scanners send, and one that nobody has heard of.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"];

/// The contract's index, section 2: what clients may rely on where it is there.
const CONTRACT: &str = "
    POST /v1/keys post_create_api_key
    GET /v1/keys get_list_api_keys
    DELETE /v1/keys/{prefix} delete_revoke_api_key
    POST /v1/demo/key post_create_demo_key
    POST /v1/sessions post_create_session
    GET /v1/sessions/{session_id} get_get_session
    DELETE /v1/sessions/{session_id} delete_revoke_session
    POST /v1/sessions/{session_id}/check post_check_permission
    POST /v1/secrets post_store_secret
    GET /v1/secrets get_list_secrets
    GET /v1/secrets/{name} get_get_secret
    DELETE /v1/secrets/{name} delete_delete_secret
    POST /v1/payments/authorize post_authorize_payment
    POST /v1/audit post_log_action
    GET /v1/audit get_get_audit_trail
    GET /v1/audit/spend get_get_spend
    GET /v1/audit/verify get_verify_audit_chain
    GET /v1/audit/export get_export_audit_trail
    GET /v1/audit/export/manifest get_export_audit_manifest
    GET /v1/audit/tree-head get_get_audit_tree_head
    GET /v1/audit/inclusion-proof/{entry_id} get_get_audit_inclusion_proof
    GET /v1/audit/consistency-proof get_get_audit_consistency_proof
    GET /v1/audit/sth-log get_get_audit_sth_log
    GET /v1/audit/sth-log/verify get_verify_audit_sth_log
    GET /v1/audit/sth-log/mirror/receipts get_get_sth_mirror_receipts
    GET /v1/audit/sth-log/mirror/receipts/{receipt_id}/verify get_verify_sth_mirror_receipt
    POST /v1/approvals/rules post_add_approval_rule
    POST /v1/approvals/request post_request_approval
    GET /v1/approvals/pending get_pending_approvals
    GET /v1/approvals/{request_id} get_check_approval
    POST /v1/approvals/{request_id}/approve post_approve_request
    POST /v1/approvals/{request_id}/deny post_deny_request
    POST /v1/webhooks post_register_webhook
    GET /v1/webhooks get_list_webhooks
    POST /v1/webhooks/{webhook_id}/rotate-secret post_rotate_webhook_secret
    GET /v1/webhooks/deliveries get_list_webhook_deliveries
    POST /v1/proxy/upstreams post_register_upstream
    GET /v1/proxy/upstreams get_list_upstreams
    GET /v1/proxy/tools get_proxy_tools
    POST /v1/proxy/call post_proxy_call
    POST /v1/proxy/policies post_add_proxy_policy
    GET /v1/proxy/policies get_list_proxy_policies
    GET /v1/usage get_get_usage
    GET /v1/metrics get_metrics
    GET /v1/admin/overview get_admin_overview
    GET /v1/compliance/evidence get_compliance_evidence
    GET /v1/compliance/evidence/manifest get_compliance_evidence_manifest
    GET /v1/compliance/score get_compliance_score
    POST /v1/compliance/schedules post_create_compliance_schedule
    GET /v1/compliance/schedules get_list_compliance_schedules
    DELETE /v1/compliance/schedules/{schedule_id} delete_delete_compliance_schedule
    GET /healthz get_healthz
    GET /livez get_livez
    GET /readyz get_readyz
    GET /metrics get_prometheus_metrics
    GET /v1/status get_status_json
    GET /v1 get_api_index
    GET /openapi.json get_openapi_spec
    POST /mcp post_mcp_jsonrpc
    GET /mcp get_mcp_info
    GET /.well-known/jwks.json get_jwks_json
    GET /.well-known/mcp/mcp.json get_mcp_discovery
    GET /.well-known/mcp/server-card.json get_mcp_server_card
    GET /.well-known/agent.json get_agent_json
    GET /.well-known/ai-plugin.json get_ai_plugin
    GET /.well-known/ai.txt get_ai_txt
    GET /.well-known/security.txt get_security_txt
";

/// Operations that the contract does not know.
const BEYOND_THE_CONTRACT: &str = "
    GET /v1/sessions get_list_sessions
    GET /v1/sessions/{session_id}/descendants get_session_descendants
    POST /v1/payments/reserve post_reserve_payment
    POST /v1/payments/{authorization_id}/settle post_settle_payment
    POST /v1/payments/{authorization_id}/release post_release_payment
    GET /v1/budgets get_list_budgets
    PUT /v1/budgets put_budget
    GET /v1/budgets/report get_budget_report
    GET /v1/approvals/rules get_list_approval_rules
    DELETE /v1/approvals/rules/{rule_id} delete_approval_rule
    GET /v1/vault/keys get_vault_keys
    POST /v1/vault/rotate post_vault_rotate
    GET /v1/ledger/export get_export_ledger
    GET /v1/ledger/events get_ledger_events
    GET /v1/ledger/state get_ledger_state
    GET /v1/ledger/checkpoint get_checkpoint
    GET /v1/ledger/proof/{entry} get_ledger_proof
    DELETE /v1/webhooks/{webhook_id} delete_webhook
    POST /v1/webhooks/{webhook_id}/test post_test_webhook
    GET /v1/webhooks/dead-letters get_list_dead_letters
    POST /v1/webhooks/deliveries/{event_id}/redeliver post_redeliver_event
    DELETE /v1/proxy/upstreams/{name} delete_upstream
    POST /v1/proxy/upstreams/{name}/reconnect post_reconnect_upstream
    GET /v1/proxy/upstreams/{name}/tools get_upstream_tools
    POST /v1/proxy/upstreams/{name}/tools/{tool}/accept post_accept_tool
    GET /v1/proxy/calls get_open_calls
    POST /v1/proxy/calls/{call_id}/resolve post_resolve_call
    PUT /v1/proxy/policies put_proxy_policies
    POST /v1/proxy/policies/explain post_explain_proxy_policy
    POST /v1/proxy/policies/replay post_replay_proxy_policies
    DELETE /v1/proxy/policies/{policy_id} delete_proxy_policy
    POST /mcp/proxy post_mcp_proxy
    GET /mcp/proxy get_mcp_proxy
    DELETE /mcp/proxy delete_mcp_proxy
    POST /mcp/proxy/{upstream} post_mcp_proxy_upstream
    GET /mcp/proxy/{upstream} get_mcp_proxy_upstream
    DELETE /mcp/proxy/{upstream} delete_mcp_proxy_upstream
    GET /v1/anomalies get_list_anomalies
    POST /v1/anomalies/rules post_add_anomaly_rule
    GET /v1/anomalies/rules get_list_anomaly_rules
    DELETE /v1/anomalies/rules/{rule_id} delete_remove_anomaly_rule
";

/// A method and a path template.
type Operation = (String, String);

#[tokio::test]
async fn every_described_operation_is_routed_and_no_other_method_is() {
    let server = Home::new().serve();
    let client = server.client().without_key();
    let document = client.get("/openapi.json").await.expect(200);
    let described = described(&document);
    let paths: BTreeSet<&String> = described.keys().map(|(_, path)| path).collect();
    for path in paths {
        for method in METHODS {
            let asked_as = if method == "HEAD" { "GET" } else { method };
            let is_described = described.get(&(asked_as.to_owned(), path.clone()));
            let answer = ask(&client, method, &filled(path)).await;
            match is_described {
                Some(operation) => check_routed(method, path, operation, &answer),
                None => check_envelope(&answer, 405, "method_not_allowed", method),
            }
        }
        let options = ask(&client, "OPTIONS", &filled(path)).await;
        assert_eq!((options.status, options.body.as_str()), (200, ""), "OPTIONS {path}");
        let allowed: BTreeSet<&str> = options.header("allow").unwrap_or_default().split(", ").collect();
        let is_allowed = |method: &&str| {
            let asked_as = if *method == "HEAD" { "GET" } else { method };
            *method == "OPTIONS" || described.contains_key(&(asked_as.to_owned(), path.clone()))
        };
        let expected = METHODS.into_iter().chain(["OPTIONS"]).filter(is_allowed).collect();
        assert_eq!(allowed, expected, "OPTIONS {path}");
    }
}

#[tokio::test]
async fn paths_that_do_not_exist_are_told_apart_from_methods_that_do_not() {
    let server = Home::new().serve();
    for client in [server.client(), server.client().without_key()] {
        for path in ["/", "/v2", "/v1/", "/v1/session", "/v1/sessions/", "/v1/keys/a/b", "/openapi.yaml"] {
            for method in ["GET", "HEAD", "POST", "OPTIONS", "BREW"] {
                check_envelope(&ask(&client, method, path).await, 404, "not_found", method);
            }
        }
        let doubled = ask(&client, "GET", "/v1//sessions?limit=1").await;
        assert_eq!((doubled.status, doubled.header("location")), (308, Some("/v1/sessions?limit=1")));
    }
}

#[tokio::test]
async fn the_table_of_routes_and_the_document_name_the_same_operations() {
    let server = Home::new().serve();
    let document = server.client().get("/openapi.json").await.expect(200);
    let described: BTreeSet<Operation> = described(&document).into_keys().collect();
    let mut routed: BTreeSet<Operation> = TABLES.iter().flat_map(|table| routes_in(table).unwrap()).collect();
    for (method, path, status) in UNDESCRIBED {
        assert!(
            routed.remove(&(method.to_owned(), path.to_owned())),
            "{method} {path} is gone: strike it off"
        );
        assert_eq!(ask(&server.client(), method, path).await.status, status, "{method} {path}");
    }
    assert_eq!(routed, described, "left: src/http/routes.rs and src/mcp/routes.rs, right: /openapi.json");
}

#[tokio::test]
async fn operations_have_the_contracts_names() {
    let server = Home::new().serve();
    let document = server.client().get("/openapi.json").await.expect(200);
    let promised: BTreeMap<Operation, &str> = index(CONTRACT).chain(index(BEYOND_THE_CONTRACT)).collect();
    let mut seen = BTreeSet::new();
    for (operation, description) in described(&document) {
        let name = description["operationId"].as_str().unwrap_or_default().to_owned();
        assert_eq!(promised.get(&operation), Some(&name.as_str()), "{operation:?}");
        assert!(seen.insert(name.clone()), "{name} names two operations");
    }
    for (operation, name) in index(BEYOND_THE_CONTRACT) {
        assert!(seen.contains(name), "{operation:?} is gone: strike it off");
    }
}

#[tokio::test]
async fn operations_say_whether_they_need_a_key_and_what_can_go_wrong() {
    let server = Home::new().serve();
    let document = server.client().get("/openapi.json").await.expect(200);
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["security"], json!([{ "ApiKeyBearer": [] }]));
    let retryable = [
        "/v1/keys",
        "/v1/sessions",
        "/v1/secrets",
        "/v1/payments/authorize",
        "/v1/webhooks",
        "/v1/payments/reserve",
        "/v1/payments/{authorization_id}/settle",
        "/v1/payments/{authorization_id}/release",
        "/v1/approvals/rules",
        "/v1/approvals/request",
        "/v1/approvals/{request_id}/approve",
        "/v1/approvals/{request_id}/deny",
        "/v1/audit",
        "/v1/anomalies/rules",
        "/v1/proxy/upstreams",
        "/v1/proxy/call",
        "/v1/proxy/policies",
    ];
    for ((method, path), operation) in described(&document) {
        let what = format!("{method} {path}");
        for status in ["400", "401", "403", "404", "413", "422", "429", "500"] {
            assert!(!operation["responses"][status].is_null(), "{what} does not describe {status}");
        }
        let header = json!({ "$ref": "#/components/parameters/IdempotencyKeyHeader" });
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let is_retryable = method == "POST" && retryable.contains(&path.as_str());
        assert_eq!(parameters.contains(&header), is_retryable, "{what}");
        for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
            let is_it = |it: &&Value| it["name"] == name && it["in"] == "path" && it["required"] == true;
            assert_eq!(parameters.iter().filter(is_it).count(), 1, "{what} does not describe {name}");
        }
    }
    check_references(&document, &document);
}

#[test]
fn routes_are_read_from_the_table_and_an_unknown_form_is_an_error() {
    let table = r#"
        .service(path("/a/{id}").post(a::make).get(a::show).done())
        .service(
            path("/b")
                .delete(b::drop)
                .done(),
        )
        .default_service(web::to(unknown));
    "#;
    let expected = [("DELETE", "/b"), ("GET", "/a/{id}"), ("POST", "/a/{id}")];
    let expected = expected.map(|(method, path)| (method.to_owned(), path.to_owned()));
    assert_eq!(routes_in(table), Ok(BTreeSet::from(expected)));
    for unknown in [
        r#".service(path("/a").brew(a::tea).done())"#,
        r#".service(path("/a").done())"#,
        r#".service(path("/a").get(a::show))"#,
        r#".service(web::resource("/a").get(a::show).done())"#,
        "",
    ] {
        assert!(routes_in(unknown).is_err(), "{unknown}");
    }
}

/// The operations that a table of routes sets up.
fn routes_in(table: &str) -> Result<BTreeSet<Operation>, String> {
    let (_, services) = table.split_once(".service(").ok_or("no .service(…)")?;
    let end = services.find(".default_service(").or_else(|| services.find(';')).unwrap_or(services.len());
    let services = &services[..end];
    let mut routes = BTreeSet::new();
    for service in services.split(".service(") {
        let service = service.trim_start();
        let rest = service.strip_prefix("path(\"").or_else(|| service.strip_prefix("rest_of_path(\""));
        let rest = rest.ok_or(format!("not a path: {service}"))?;
        let (path, methods) = rest.split_once('"').ok_or("an open string")?;
        let (methods, _) = methods.split_once(".done()").ok_or(format!("{path} is never done"))?;
        let before = routes.len();
        for call in methods.trim_start_matches(')').split('.').filter(|call| !call.trim().is_empty()) {
            let method = call.split('(').next().unwrap_or_default().to_uppercase();
            if !["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str()) {
                return Err(format!("{path} has a route for {method}"));
            }
            routes.insert((method, path.to_owned()));
        }
        if routes.len() == before {
            return Err(format!("{path} has no routes"));
        }
    }
    Ok(routes)
}

/// The operations of an `OpenAPI` document.
fn described(document: &Value) -> BTreeMap<Operation, Value> {
    let mut operations = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().expect("a document has paths") {
        for (method, operation) in methods.as_object().expect("a path has methods") {
            operations.insert((method.to_uppercase(), path.clone()), operation.clone());
        }
    }
    assert!(!operations.is_empty());
    operations
}

fn index(lines: &'static str) -> impl Iterator<Item = (Operation, &'static str)> {
    lines.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (method, path, name) = (words.next()?, words.next()?, words.next()?);
        Some(((method.to_owned(), path.to_owned()), name))
    })
}

/// A path with something in the place of each parameter. What is there does not exist.
fn filled(template: &str) -> String {
    let part = |part: &str| if part.starts_with('{') { "bogus".to_owned() } else { part.to_owned() };
    template.split('/').map(part).collect::<Vec<_>>().join("/")
}

async fn ask(client: &Client, method: &str, path: &str) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).expect("a method is a word");
    answer(client.request(method, path)).await
}

/// Without a key, an operation that needs one says so, and one that does not does its work.
fn check_routed(method: &str, path: &str, operation: &Value, answer: &Answer) {
    let is_open = operation["security"] == json!([{}]);
    if is_open {
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
    } else {
        check_envelope(answer, 401, "unauthorized", method);
    }
}

fn check_envelope(answer: &Answer, status: u16, code: &str, method: &str) {
    assert_eq!(answer.status, status, "{method}: {answer:?}");
    let request_id = answer.header("x-request-id").expect("every answer names its request");
    if method == "HEAD" {
        assert_eq!(answer.body, "");
        return;
    }
    let body = answer.json();
    assert_eq!(body["code"], code, "{method}: {body}");
    assert_eq!(body["request_id"], request_id, "{method}: {body}");
    assert!(body["error"].is_string(), "{method}: {body}");
}

/// Whether every `$ref` leads somewhere.
fn check_references(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().filter(|_| name == "$ref") {
                    Some(target) => {
                        let place = target.strip_prefix('#').expect("references stay in the document");
                        assert!(document.pointer(place).is_some(), "{target} leads nowhere");
                    }
                    None => check_references(document, value),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| check_references(document, item)),
        _ => {}
    }
}
