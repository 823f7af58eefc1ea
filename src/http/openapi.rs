//! `/openapi.json`: what the handlers say of themselves, and what all of them have in common.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use serde_json::{Value, json};
use utoipa::openapi::OpenApi as Document;
use utoipa::{OpenApi, ToSchema};

use super::{
    anomalies, approvals, audit, audit_export, budgets, compliance, elsewhere, health, keys, ledger, past,
    payments, policies, proofs, proxy, secrets, sessions, usage, vault, webhooks,
};
use crate::domain::compliance::Cadence;

/// Why a request gets no answer of its own.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what http::error writes")]
struct ErrorEnvelope {
    /// A sentence for people.
    error: String,
    /// The same for programs.
    code: String,
    /// The request, as in the header `X-Request-ID`.
    request_id: String,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Haldir",
        description = "Governance for AI agents on a signed, append-only ledger.",
        license(name = "MIT"),
    ),
    tags(
        (name = "gate", description = "Sessions, permissions and API keys"),
        (name = "vault", description = "Secrets and payments"),
        (name = "watch", description = "Audit trail and ledger"),
        (name = "mcp", description = "The Model Context Protocol"),
        (name = "proxy", description = "Upstream MCP servers, policies and calls"),
        (name = "platform", description = "Probes and usage"),
    ),
    components(schemas(ErrorEnvelope)),
    paths(
        keys::mint, keys::list, keys::revoke,
        sessions::open, sessions::list, sessions::get, sessions::descendants, sessions::revoke, sessions::check,
        secrets::store, secrets::list, secrets::get, secrets::delete, vault::keys, vault::rotate,
        payments::authorize, payments::reserve, payments::settle, payments::release,
        budgets::list, budgets::set, budgets::report,
        approvals::add_rule, approvals::rules, approvals::remove_rule, approvals::request_approval,
        approvals::pending, approvals::get, approvals::approve, approvals::deny,
        audit::log, audit::trail, audit::spend, audit::verify,
        audit_export::export, audit_export::manifest,
        anomalies::add_rule, anomalies::rules, anomalies::remove_rule, anomalies::find,
        proofs::tree_head, proofs::inclusion, proofs::consistency, proofs::tree_head_log, proofs::check_pin,
        proofs::checkpoint, proofs::proof_file, proofs::jwks,
        ledger::export, ledger::events, past::state,
        webhooks::register, webhooks::list, webhooks::remove, webhooks::rotate, webhooks::test,
        webhooks::deliveries, webhooks::dead_letters, webhooks::redeliver,
        proxy::register, proxy::list, proxy::remove, proxy::reconnect, proxy::pins, proxy::accept, proxy::tools,
        proxy::call, proxy::open_calls, proxy::resolve,
        policies::add, policies::list, policies::replace, policies::remove, policies::explain, policies::replay,
        usage::report,
        compliance::evidence, compliance::manifest, compliance::score,
        compliance::create_schedule, compliance::list_schedules, compliance::remove_schedule,
        health::index, health::healthz, health::livez, health::readyz,
        elsewhere::proxy, elsewhere::proxy_stream, elsewhere::proxy_end,
        elsewhere::proxy_upstream, elsewhere::proxy_upstream_stream, elsewhere::proxy_upstream_end,
        elsewhere::call, elsewhere::describe, elsewhere::discovery, elsewhere::card,
        document,
    ),
)]
struct Described;

/// Errors that any operation may answer with: status, name, description.
const COMMON_ERRORS: [(&str, &str, &str); 8] = [
    ("400", "ValidationError", "A field is missing or wrong; `field` and `reason` say which and why"),
    ("401", "Unauthorized", "No key, or one that is not active"),
    ("403", "Forbidden", "The key lacks the scope"),
    ("404", "NotFound", "No such thing for this tenant"),
    ("413", "PayloadTooLarge", "The body has more than 1 MiB"),
    ("422", "IdempotencyMismatch", "The idempotency key was used with another body"),
    ("429", "RateLimited", "A limit is exceeded; `Retry-After` says for how long"),
    ("500", "InternalError", "A fault of the server's"),
];

/// Operations that honour `Idempotency-Key`.
const RETRYABLE: &[&str] = &[
    "post_create_api_key",
    "post_create_session",
    "post_store_secret",
    "post_authorize_payment",
    "post_log_action",
    "post_register_webhook",
    "post_reserve_payment",
    "post_settle_payment",
    "post_release_payment",
    "post_add_approval_rule",
    "post_request_approval",
    "post_approve_request",
    "post_deny_request",
    "post_add_anomaly_rule",
    "post_register_upstream",
    "post_proxy_call",
    "post_add_proxy_policy",
];

/// Bodies in which a field that is not described is most likely a mistake.
const CLOSED: [&str; 4] = ["OpenSessionBody", "PaymentBody", "ScheduleBody", "AnomalyRuleBody"];

/// Describes this API as `OpenAPI` 3.1.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "get_openapi_spec", tag = "platform", security(()),
    responses((status = 200, description = "The description", body = Object)),
)]
pub(super) async fn document() -> HttpResponse {
    HttpResponse::Ok().json(description())
}

/// The description as JSON.
#[must_use]
pub fn description() -> Value {
    let mut document: Document = Described::openapi();
    env!("CARGO_PKG_VERSION").clone_into(&mut document.info.version);
    let mut document = serde_json::to_value(document).unwrap_or_default();
    document["security"] = json!([{ "ApiKeyBearer": [] }]);
    let components = &mut document["components"];
    components["securitySchemes"] = json!({
        "ApiKeyBearer": { "type": "http", "scheme": "bearer", "description": "An API key: `Authorization: Bearer hld_…`" },
        "IdempotencyKey": { "type": "apiKey", "in": "header", "name": "Idempotency-Key" },
    });
    components["parameters"] = json!({
        "IdempotencyKeyHeader": {
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "Retries with the same key and body repeat the first outcome for 24 hours",
            "schema": { "type": "string", "maxLength": 255 },
        },
    });
    components["responses"] = common_responses();
    for name in CLOSED {
        components["schemas"][name]["additionalProperties"] = json!(false);
    }
    let cadences = Cadence::ALL.map(Cadence::name);
    components["schemas"]["ScheduleBody"]["properties"]["cadence"]["enum"] = json!(cadences);
    for_each_operation(&mut document, add_what_is_common);
    document
}

fn common_responses() -> Value {
    let envelope =
        json!({ "application/json": { "schema": { "$ref": "#/components/schemas/ErrorEnvelope" } } });
    let response = |(_, name, description): &(&str, &str, &str)| {
        let mut response = json!({ "description": description, "content": envelope });
        if *name == "RateLimited" {
            let integer = json!({ "schema": { "type": "integer" } });
            let headers = [
                "Retry-After",
                "X-RateLimit-Limit",
                "X-RateLimit-Used",
                "X-RateLimit-Remaining",
                "X-RateLimit-Reset",
                "X-RateLimit-Reset-After",
            ];
            response["headers"] = headers.iter().map(|name| ((*name).to_owned(), integer.clone())).collect();
        }
        ((*name).to_owned(), response)
    };
    COMMON_ERRORS.iter().map(response).collect::<BTreeMap<String, Value>>().into_iter().collect()
}

fn for_each_operation(document: &mut Value, change: impl Fn(&mut Value)) {
    let paths = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    for operation in paths.filter_map(Value::as_object_mut).flat_map(|path| path.values_mut()) {
        change(operation);
    }
}

fn add_what_is_common(operation: &mut Value) {
    let is_retryable = operation["operationId"].as_str().is_some_and(|id| RETRYABLE.contains(&id));
    for (status, name, _) in COMMON_ERRORS {
        if operation["responses"][status].is_null() {
            operation["responses"][status] = json!({ "$ref": format!("#/components/responses/{name}") });
        }
    }
    if is_retryable {
        let header = json!({ "$ref": "#/components/parameters/IdempotencyKeyHeader" });
        match operation["parameters"].as_array_mut() {
            Some(parameters) => parameters.push(header),
            None => operation["parameters"] = json!([header]),
        }
    }
}
