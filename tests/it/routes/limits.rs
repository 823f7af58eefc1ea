//! Limits: as the document states them, as the program defines them, and as the wire holds them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use haldir::domain::compliance::Cadence;
use haldir::domain::id::REQUEST_ID_LEN_MAX;
use haldir::domain::limits::{
    ACTION_CHARS_MAX, AGENT_ID_CHARS_MAX, ANOMALY_REASON_CHARS_MAX, ANOMALY_RULE_TOOL_COUNT_MAX,
    ANOMALY_SAMPLE_COUNT_MAX, APPROVAL_TTL_S_MAX, APPROVERS_MAX, CALL_NAME_CHARS_MAX, CURRENCY_CHARS_MAX,
    DECIDER_CHARS_MAX, DELIVERY_CHARS_MAX, DESCRIPTION_CHARS_MAX, KEY_NAME_CHARS_MAX, NOTE_CHARS_MAX,
    REASON_CHARS_MAX, RESERVATION_TTL_S_MAX, RULE_KIND_CHARS_MAX, RULE_TOOL_COUNT_MAX,
    SCHEDULE_NAME_CHARS_MAX, SCOPE_CHARS_MAX, SECRET_NAME_CHARS_MAX, SESSION_ID_CHARS_MAX,
    SESSION_SCOPE_COUNT_MAX, SESSION_TTL_S_MAX, TOOL_CHARS_MAX, UPSTREAM_NAME_LEN_MAX, UPSTREAM_TEXT_LEN_MAX,
    URL_CHARS_MAX, WEBHOOK_EVENT_COUNT_MAX, WEBHOOK_NAME_CHARS_MAX,
};
use haldir::domain::money::Money;
use haldir::domain::webhooks::ALL;
use haldir::http::error::BODY_LEN_MAX;
use haldir::operations::anomalies::{ANOMALIES_LEN_DEFAULT, ANOMALIES_LEN_MAX, MIN_SAMPLES_DEFAULT};
use haldir::operations::audit::{TRAIL_LEN_DEFAULT, TRAIL_LEN_MAX};
use haldir::operations::payments::{AMOUNT_MAX, AMOUNT_MIN, DEFAULT_CURRENCY};
use haldir::operations::retries::IDEMPOTENCY_KEY_CHARS_MAX;
use haldir::operations::secrets::DEFAULT_REQUIRED_SCOPE;
use haldir::operations::sessions::{DEFAULT_SCOPES, DEFAULT_TTL_S, LIST_LEN_DEFAULT, LIST_LEN_MAX};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Answer, Client, Home, answer};

/// What a schema may say to limit a value, or what it says when the value is left out.
const KEYWORDS: [&str; 8] =
    ["minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "enum", "default"];
/// Lists and objects within each other, the body itself included.
const DEPTH_MAX: usize = 64;

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one line for each limit")]
async fn the_document_states_the_programs_limits_and_no_others() {
    let server = Home::new().serve();
    let document = server.client().get("/openapi.json").await.expect(200);
    let schemas = &document["components"]["schemas"];
    let mut unexplained = stated_limits(schemas);
    let usd = |amount: Money| serde_json::from_str::<f64>(&amount.to_string()).unwrap();
    for (place, expected) in [
        ("OpenSessionBody.agent_id.maxLength", json!(AGENT_ID_CHARS_MAX)),
        ("OpenSessionBody.scopes.maxItems", json!(SESSION_SCOPE_COUNT_MAX)),
        ("OpenSessionBody.scopes.default", json!(DEFAULT_SCOPES)),
        ("OpenSessionBody.ttl.minimum", json!(0)),
        ("OpenSessionBody.ttl.maximum", json!(SESSION_TTL_S_MAX)),
        ("OpenSessionBody.ttl.default", json!(DEFAULT_TTL_S)),
        ("OpenSessionBody.spend_limit.minimum", json!(usd(Money::ZERO))),
        ("OpenSessionBody.spend_limit.maximum", json!(usd(Money::INPUT_MAX))),
        ("PaymentBody.session_id.maxLength", json!(SESSION_ID_CHARS_MAX)),
        ("PaymentBody.amount.minimum", json!(usd(AMOUNT_MIN))),
        ("PaymentBody.amount.maximum", json!(usd(AMOUNT_MAX))),
        ("PaymentBody.currency.maxLength", json!(CURRENCY_CHARS_MAX)),
        ("PaymentBody.currency.default", json!(DEFAULT_CURRENCY)),
        ("PaymentBody.description.maxLength", json!(DESCRIPTION_CHARS_MAX)),
        ("PaymentBody.description.default", json!("")),
        ("BudgetBody.limit.maximum", json!(usd(Money::INPUT_MAX))),
        ("BudgetBody.limit.minimum", json!(usd(Money::ZERO))),
        ("BudgetBody.name.default", json!("")),
        ("BudgetBody.name.maxLength", json!(SESSION_ID_CHARS_MAX)),
        ("BudgetBody.window.default", json!("life")),
        ("DecisionBody.decided_by.default", json!("")),
        ("DecisionBody.decided_by.maxLength", json!(DECIDER_CHARS_MAX)),
        ("DecisionBody.note.default", json!("")),
        ("DecisionBody.note.maxLength", json!(NOTE_CHARS_MAX)),
        ("DecisionBody.ttl.maximum", json!(APPROVAL_TTL_S_MAX)),
        ("DecisionBody.ttl.minimum", json!(1)),
        ("OpenSessionBody.parent_session_id.default", json!("")),
        ("OpenSessionBody.parent_session_id.maxLength", json!(SESSION_ID_CHARS_MAX)),
        ("PaymentBody.action.default", json!("")),
        ("PaymentBody.action.maxLength", json!(ACTION_CHARS_MAX)),
        ("PaymentBody.approval_id.default", json!("")),
        ("PaymentBody.approval_id.maxLength", json!(64)),
        ("PaymentBody.tool.default", json!("")),
        ("PaymentBody.tool.maxLength", json!(TOOL_CHARS_MAX)),
        ("RequestBody.action.default", json!("")),
        ("RequestBody.action.maxLength", json!(ACTION_CHARS_MAX)),
        ("RequestBody.amount.default", json!(0)),
        ("RequestBody.currency.default", json!("")),
        ("RequestBody.currency.maxLength", json!(CURRENCY_CHARS_MAX)),
        ("RequestBody.reason.default", json!("")),
        ("RequestBody.reason.maxLength", json!(REASON_CHARS_MAX)),
        ("RequestBody.required_approvals.default", json!(1)),
        ("RequestBody.required_approvals.maximum", json!(APPROVERS_MAX)),
        ("RequestBody.required_approvals.minimum", json!(1)),
        ("RequestBody.session_id.maxLength", json!(SESSION_ID_CHARS_MAX)),
        ("RequestBody.tool.default", json!("")),
        ("RequestBody.tool.maxLength", json!(TOOL_CHARS_MAX)),
        ("RequestBody.ttl.default", json!(3600)),
        ("RequestBody.ttl.maximum", json!(APPROVAL_TTL_S_MAX)),
        ("RequestBody.ttl.minimum", json!(0)),
        ("ReservationBody.ttl.default", json!(900)),
        ("ReservationBody.ttl.maximum", json!(RESERVATION_TTL_S_MAX)),
        ("ReservationBody.ttl.minimum", json!(1)),
        ("RuleBody.required_approvals.default", json!(1)),
        ("RuleBody.required_approvals.maximum", json!(APPROVERS_MAX)),
        ("RuleBody.required_approvals.minimum", json!(1)),
        ("RuleBody.threshold.default", json!(0)),
        ("RuleBody.tools.default", json!(Vec::<String>::new())),
        ("RuleBody.tools.maxItems", json!(RULE_TOOL_COUNT_MAX)),
        ("RuleBody.type.maxLength", json!(RULE_KIND_CHARS_MAX)),
        ("SettlementBody.amount.maximum", json!(usd(AMOUNT_MAX))),
        ("SettlementBody.amount.minimum", json!(usd(Money::ZERO))),
        ("StoreSecretBody.name.minLength", json!(1)),
        ("StoreSecretBody.name.maxLength", json!(SECRET_NAME_CHARS_MAX)),
        ("StoreSecretBody.value.minLength", json!(1)),
        ("StoreSecretBody.scope_required.maxLength", json!(SCOPE_CHARS_MAX)),
        ("StoreSecretBody.scope_required.default", json!(DEFAULT_REQUIRED_SCOPE)),
        ("LogBody.session_id.maxLength", json!(SESSION_ID_CHARS_MAX)),
        ("LogBody.action.minLength", json!(1)),
        ("LogBody.action.maxLength", json!(ACTION_CHARS_MAX)),
        ("LogBody.tool.maxLength", json!(TOOL_CHARS_MAX)),
        ("LogBody.tool.default", json!("")),
        ("LogBody.cost_usd.minimum", json!(usd(Money::ZERO))),
        ("LogBody.cost_usd.maximum", json!(usd(Money::INPUT_MAX))),
        ("LogBody.cost_usd.default", json!(usd(Money::ZERO))),
        ("CheckBody.scope.minLength", json!(1)),
        ("CheckBody.scope.maxLength", json!(SCOPE_CHARS_MAX)),
        ("MintKeyBody.name.maxLength", json!(KEY_NAME_CHARS_MAX)),
        ("MintKeyBody.name.default", json!("default")),
        ("MintKeyBody.scopes.default", json!(["*"])),
        ("ScheduleBody.name.maxLength", json!(SCHEDULE_NAME_CHARS_MAX)),
        ("ScheduleBody.cadence.enum", json!(Cadence::ALL.map(Cadence::name))),
        ("ScheduleBody.delivery.maxLength", json!(DELIVERY_CHARS_MAX)),
        ("RegisterWebhookBody.url.maxLength", json!(URL_CHARS_MAX)),
        ("RegisterWebhookBody.name.maxLength", json!(WEBHOOK_NAME_CHARS_MAX)),
        ("RegisterWebhookBody.name.default", json!("")),
        ("RegisterWebhookBody.events.maxItems", json!(WEBHOOK_EVENT_COUNT_MAX)),
        ("RegisterWebhookBody.events.default", json!([ALL])),
        ("AnomalyRuleBody.tools.maxItems", json!(ANOMALY_RULE_TOOL_COUNT_MAX)),
        ("AnomalyRuleBody.min_samples.minimum", json!(1)),
        ("AnomalyRuleBody.min_samples.maximum", json!(ANOMALY_SAMPLE_COUNT_MAX)),
        ("AnomalyRuleBody.min_samples.default", json!(MIN_SAMPLES_DEFAULT)),
        ("AnomalyRuleBody.reason.maxLength", json!(ANOMALY_REASON_CHARS_MAX)),
        ("UpstreamBody.name.maxLength", json!(UPSTREAM_NAME_LEN_MAX)),
        ("UpstreamBody.url.maxLength", json!(URL_CHARS_MAX)),
        ("UpstreamBody.command.maxLength", json!(UPSTREAM_TEXT_LEN_MAX)),
        ("UpstreamBody.session_id.maxLength", json!(SESSION_ID_CHARS_MAX)),
        ("CallBody.tool.maxLength", json!(CALL_NAME_CHARS_MAX)),
        ("CallBody.session_id.maxLength", json!(SESSION_ID_CHARS_MAX)),
        ("CallBody.approval_id.maxLength", json!(64)),
        ("ExplainBody.tool.maxLength", json!(CALL_NAME_CHARS_MAX)),
        ("ExplainBody.session_id.maxLength", json!(SESSION_ID_CHARS_MAX)),
        ("AcceptBody.digest.minLength", json!(64)),
        ("AcceptBody.digest.maxLength", json!(64)),
        ("AcceptBody.decided_by.maxLength", json!(DECIDER_CHARS_MAX)),
        ("AcceptBody.note.maxLength", json!(NOTE_CHARS_MAX)),
        ("PolicyBody.type.maxLength", json!(64)),
        ("PolicySetBody.revision.minimum", json!(0)),
    ] {
        let [schema, field, keyword] = place.split('.').collect::<Vec<_>>()[..] else { panic!("{place}") };
        let stated = &schemas[schema]["properties"][field][keyword];
        assert!(is_same(stated, &expected), "{place}: the document says {stated}, the program {expected}");
        unexplained.remove(place);
    }
    assert!(unexplained.is_empty(), "the document states limits that nothing here explains: {unexplained:?}");

    let header = &document["components"]["parameters"]["IdempotencyKeyHeader"]["schema"];
    assert_eq!(header["maxLength"], IDEMPOTENCY_KEY_CHARS_MAX);
    for (path, text) in [
        ("/v1/sessions", format!("1 to {LIST_LEN_MAX}; {LIST_LEN_DEFAULT} unless given")),
        ("/v1/anomalies", format!("0 to {ANOMALIES_LEN_MAX}; {ANOMALIES_LEN_DEFAULT} unless given")),
        ("/v1/audit", format!("0 to {TRAIL_LEN_MAX}; {TRAIL_LEN_DEFAULT} unless given")),
    ] {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap();
        let limit = parameters.iter().find(|parameter| parameter["name"] == "limit").unwrap();
        let description = limit["description"].as_str().unwrap_or_default();
        assert!(description.contains(&text), "{path}: {description:?} does not say {text:?}");
    }
}

#[tokio::test]
async fn each_limit_is_reached_but_not_passed_and_what_passes_it_leaves_no_trace() {
    let home = Home::new();
    let server = home.serve_with(&["--meter-interval", "1h"], &[]);
    let client = server.client();
    let session = open(&client, &json!({ "agent_id": "agent", "scopes": ["spend"] })).await;
    for case in cases(&session) {
        let before = ledger_size(&client).await;
        let at = client.call(&case.path, &case.at).await;
        assert!(at.status < 400, "{} at its limit: {at:?}", case.field);
        assert_eq!(ledger_size(&client).await, before + 1, "{} at its limit is recorded", case.field);

        let over = client.call(&case.path, &case.over).await;
        let body = over.expect(400);
        assert_eq!(
            (&body["code"], &body["field"]),
            (&json!("invalid_request"), &json!(case.field)),
            "{body}"
        );
        assert!(body["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{body}");
        assert_eq!(ledger_size(&client).await, before + 1, "{} past its limit left a trace", case.field);
    }
}

#[tokio::test]
async fn ids_in_paths_and_headers_have_limits_too() {
    let server = Home::new().serve();
    let client = server.client();
    let scope = r#"{"scope":"read"}"#;
    let longest = "x".repeat(SESSION_ID_CHARS_MAX);
    let checked = client.call(&format!("/v1/sessions/{longest}/check"), scope).await.expect(200);
    assert_eq!(checked["allowed"], false);
    let refused = client.call(&format!("/v1/sessions/{longest}x/check"), scope).await.expect(400);
    assert_eq!(refused["field"], "session_id");
    for session in [longest.clone(), longest + "x"] {
        client.get(&format!("/v1/sessions/{session}")).await.expect(404);
        client.delete(&format!("/v1/sessions/{session}")).await.expect(404);
    }
    client.delete(&format!("/v1/keys/{}", "x".repeat(64))).await.expect(404);
    assert_eq!(
        client.delete(&format!("/v1/keys/{}", "x".repeat(65))).await.expect(400)["code"],
        "invalid_prefix"
    );

    let open_with = async |key: String| {
        let request = client.request(Method::POST, "/v1/sessions").header("Idempotency-Key", key);
        answer(request.json(&json!({ "agent_id": "agent" }))).await
    };
    open_with("k".repeat(IDEMPOTENCY_KEY_CHARS_MAX)).await.expect(201);
    let refused = open_with("k".repeat(IDEMPOTENCY_KEY_CHARS_MAX + 1)).await.expect(400);
    assert_eq!(refused["field"], "Idempotency-Key");

    let echo = async |id: String| {
        let answer = answer(client.request(Method::GET, "/livez").header("X-Request-ID", id)).await;
        answer.header("x-request-id").unwrap().to_owned()
    };
    let longest = "r".repeat(REQUEST_ID_LEN_MAX);
    assert_eq!(echo(longest.clone()).await, longest);
    assert_eq!(echo(format!("{longest}x")).await, longest, "a longer one is cut");
    assert_eq!(echo("two words".to_owned()).await.len(), 32, "what cannot be one is replaced");
}

#[tokio::test]
async fn lists_are_as_long_as_asked_within_their_limits() {
    let server = Home::new().serve();
    let client = server.client();
    let session = open(&client, &json!({ "agent_id": "agent" })).await;
    for _ in 0..=TRAIL_LEN_DEFAULT {
        client.post("/v1/audit", &json!({ "session_id": session, "action": "a" })).await.expect(201);
    }
    let count = async |path: String| client.get(&path).await.expect(200)["count"].as_u64().unwrap();
    assert_eq!(count("/v1/audit".to_owned()).await, TRAIL_LEN_DEFAULT as u64);
    assert_eq!(count("/v1/audit?limit=0".to_owned()).await, 0);
    assert_eq!(count(format!("/v1/audit?limit={TRAIL_LEN_MAX}")).await, TRAIL_LEN_DEFAULT as u64 + 1);
    for wrong in [(TRAIL_LEN_MAX + 1).to_string(), "-1".to_owned(), "ten".to_owned()] {
        assert_eq!(client.get(&format!("/v1/audit?limit={wrong}")).await.expect(400)["field"], "limit");
    }

    for _ in 1..=LIST_LEN_MAX {
        open(&client, &json!({ "agent_id": "agent" })).await;
    }
    assert_eq!(count("/v1/sessions".to_owned()).await, LIST_LEN_DEFAULT as u64);
    assert_eq!(count(format!("/v1/sessions?limit={LIST_LEN_MAX}")).await, LIST_LEN_MAX as u64);
    assert_eq!(count(format!("/v1/sessions?limit={}", LIST_LEN_MAX + 1)).await, LIST_LEN_MAX as u64);
    assert_eq!(count("/v1/sessions?limit=0".to_owned()).await, 1, "at least one");
}

#[tokio::test]
async fn bodies_have_a_largest_size_and_a_deepest_nesting() {
    let server = Home::new().serve();
    let client = server.client();
    let session = open(&client, &json!({ "agent_id": "agent" })).await;
    let body = |details: &str| format!(r#"{{"session_id":"{session}","action":"a","details":{details}}}"#);
    let frame = body("\"\"").len();
    let of_len = |len: usize| body(&format!("\"{}\"", "x".repeat(len - frame)));
    assert_eq!(of_len(BODY_LEN_MAX).len(), BODY_LEN_MAX);
    client.call("/v1/audit", &of_len(BODY_LEN_MAX)).await.expect(201);
    let refused = client.call("/v1/audit", &of_len(BODY_LEN_MAX + 1)).await.expect(413);
    assert_eq!(
        (&refused["code"], &refused["max_bytes"]),
        (&json!("payload_too_large"), &json!(BODY_LEN_MAX))
    );

    let nested = |depth: usize| body(&("[".repeat(depth - 1) + &"]".repeat(depth - 1)));
    client.call("/v1/audit", &nested(DEPTH_MAX)).await.expect(201);
    assert_eq!(client.call("/v1/audit", &nested(DEPTH_MAX + 1)).await.expect(400)["field"], "details");
    let trail = client.get("/v1/audit").await.expect(200);
    assert_eq!(trail["count"], 2);
    assert_eq!(trail["entries"][1]["details"].as_str().unwrap().len(), BODY_LEN_MAX - frame, "kept as sent");
}

/// A field that is good at its limit and bad just past it.
struct Case {
    path: String,
    field: &'static str,
    at: String,
    over: String,
}

/// Each limit of a field, from both sides of it. Long texts are of two bytes a character: characters are what counts.
fn cases(session: &str) -> Vec<Case> {
    let chars = |count: usize| format!("\"{}\"", "é".repeat(count));
    let scopes = |count: usize, chars: usize| json!(vec!["s".repeat(chars); count]).to_string();
    let nano = |amount: Money| Money::from_nanos(amount.nanos() + 1).to_string();
    let open = "/v1/sessions";
    let pay = "/v1/payments/authorize";
    let store = "/v1/secrets";
    let log = "/v1/audit";
    let check = format!("/v1/sessions/{session}/check");
    let check = check.as_str();
    let mint = "/v1/keys";
    let plan = "/v1/compliance/schedules";
    let delivery = |count: usize| format!("\"webhook:{}\"", "é".repeat(count - "webhook:".len()));
    let rows: Vec<(&str, &'static str, String, String)> = vec![
        (open, "agent_id", chars(AGENT_ID_CHARS_MAX), chars(AGENT_ID_CHARS_MAX + 1)),
        (open, "scopes", scopes(SESSION_SCOPE_COUNT_MAX, 1), scopes(SESSION_SCOPE_COUNT_MAX + 1, 1)),
        (open, "scopes", scopes(1, SCOPE_CHARS_MAX), scopes(1, SCOPE_CHARS_MAX + 1)),
        (open, "ttl", "0".into(), "-1".into()),
        (open, "ttl", SESSION_TTL_S_MAX.to_string(), (SESSION_TTL_S_MAX + 1).to_string()),
        (open, "spend_limit", "0".into(), "-0.000000001".into()),
        (open, "spend_limit", Money::INPUT_MAX.to_string(), nano(Money::INPUT_MAX)),
        (open, "spend_limit", "0.000000001".into(), "0.0000000001".into()),
        (pay, "amount", AMOUNT_MIN.to_string(), "0.009999999".into()),
        (pay, "amount", AMOUNT_MAX.to_string(), nano(AMOUNT_MAX)),
        (pay, "currency", chars(CURRENCY_CHARS_MAX), chars(CURRENCY_CHARS_MAX + 1)),
        (pay, "description", chars(DESCRIPTION_CHARS_MAX), chars(DESCRIPTION_CHARS_MAX + 1)),
        (store, "name", chars(1), chars(0)),
        (store, "name", chars(SECRET_NAME_CHARS_MAX), chars(SECRET_NAME_CHARS_MAX + 1)),
        (store, "value", chars(1), chars(0)),
        (store, "scope_required", chars(SCOPE_CHARS_MAX), chars(SCOPE_CHARS_MAX + 1)),
        (log, "action", chars(1), chars(0)),
        (log, "action", chars(ACTION_CHARS_MAX), chars(ACTION_CHARS_MAX + 1)),
        (log, "tool", chars(TOOL_CHARS_MAX), chars(TOOL_CHARS_MAX + 1)),
        (log, "cost_usd", "0".into(), "-0.000000001".into()),
        (log, "cost_usd", Money::INPUT_MAX.to_string(), nano(Money::INPUT_MAX)),
        (check, "scope", chars(1), chars(0)),
        (check, "scope", chars(SCOPE_CHARS_MAX), chars(SCOPE_CHARS_MAX + 1)),
        (mint, "name", chars(KEY_NAME_CHARS_MAX), chars(KEY_NAME_CHARS_MAX + 1)),
        (plan, "name", chars(SCHEDULE_NAME_CHARS_MAX), chars(SCHEDULE_NAME_CHARS_MAX + 1)),
        (plan, "delivery", delivery(DELIVERY_CHARS_MAX), delivery(DELIVERY_CHARS_MAX + 1)),
    ];
    let others = |path: &str| match path {
        "/v1/sessions" => json!({ "agent_id": "agent" }),
        "/v1/payments/authorize" => json!({ "session_id": session, "amount": 1 }),
        "/v1/secrets" => json!({ "name": "name", "value": "value" }),
        "/v1/audit" => json!({ "session_id": session, "action": "a" }),
        "/v1/compliance/schedules" => json!({ "name": "n", "cadence": "daily", "delivery": "webhook:all" }),
        _ => json!({}),
    };
    rows.into_iter()
        .map(|(path, field, at, over)| {
            let with = |value: &str| body_with(&others(path), field, value);
            Case { path: path.to_owned(), field, at: with(&at), over: with(&over) }
        })
        .collect()
}

/// A body with one field given as JSON text, so that numbers arrive digit by digit.
fn body_with(others: &Value, field: &str, value: &str) -> String {
    let mut body = format!("{{\"{field}\":{value}");
    for (name, other) in others.as_object().unwrap().iter().filter(|(name, _)| *name != field) {
        write!(body, ",\"{name}\":{other}").unwrap();
    }
    body + "}"
}

/// Every limit that the schemas of request bodies state, as `schema.field.keyword`.
fn stated_limits(schemas: &Value) -> BTreeSet<String> {
    let mut stated = BTreeSet::new();
    for (schema, description) in
        schemas.as_object().unwrap().iter().filter(|(name, _)| name.ends_with("Body"))
    {
        for (field, property) in description["properties"].as_object().unwrap() {
            for keyword in KEYWORDS.iter().filter(|keyword| !property[**keyword].is_null()) {
                stated.insert(format!("{schema}.{field}.{keyword}"));
            }
        }
    }
    stated
}

/// `0` and `0.0` are the same number.
fn is_same(stated: &Value, expected: &Value) -> bool {
    match (stated.as_f64(), expected.as_f64()) {
        (Some(stated), Some(expected)) => stated.total_cmp(&expected).is_eq(),
        _ => stated == expected,
    }
}

async fn open(client: &Client, body: &Value) -> String {
    client.post("/v1/sessions", body).await.expect(201)["session_id"].as_str().unwrap().to_owned()
}

async fn ledger_size(client: &Client) -> u64 {
    client.get("/v1/audit/verify").await.expect(200)["events_checked"].as_u64().unwrap()
}

impl Client {
    /// Posts a body as it is.
    async fn call(&self, path: &str, body: &str) -> Answer {
        let request = self.request(Method::POST, path).header("Content-Type", "application/json");
        answer(request.body(body.to_owned())).await
    }
}
