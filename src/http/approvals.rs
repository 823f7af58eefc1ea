//! `/v1/approvals`.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::ToSchema;

use super::body::{Field, Fields};
use super::caller::{ApprovalsRead, ApprovalsWrite, Authorized};
use super::error::ApiError;
use super::past::answer;
use super::query::Query;
use super::retry::retry_of;
use crate::domain::approvals::{Rule, Verdict};
use crate::domain::limits::{
    ACTION_CHARS_MAX, AGENT_ID_CHARS_MAX, APPROVAL_TTL_S_MAX, APPROVERS_MAX, CURRENCY_CHARS_MAX,
    DECIDER_CHARS_MAX, NOTE_CHARS_MAX, REASON_CHARS_MAX, RULE_KIND_CHARS_MAX, RULE_TOOL_COUNT_MAX,
    SESSION_ID_CHARS_MAX, TOOL_CHARS_MAX,
};
use crate::domain::money::Money;
use crate::operations::approvals::{
    self, AddedRule, ApprovalRequest, ApprovalView, DecidedApproval, Decision, PENDING_LEN_MAX, PendingList,
    RemovedRule, RequestedApproval, RuleList, WAIT_MAX,
};
use crate::operations::{App, OperationError};

/// Seconds for which a request waits unless something else is said.
const REQUEST_TTL_S: u64 = 3600;

/// What needs an approval.
#[derive(Debug, ToSchema)]
pub(super) struct RuleBody {
    /// `all`, `spend_over`, `tool_blocked` or `destructive`. A rule of another type is kept and never applies.
    #[schema(max_length = 64)]
    pub(super) r#type: String,
    /// The amount over which `spend_over` applies.
    #[schema(value_type = f64, default = 0, required = false)]
    pub(super) threshold: Money,
    /// The tools to which `tool_blocked` applies.
    #[schema(default = json!([]), max_items = 32, required = false)]
    pub(super) tools: Vec<String>,
    /// How many must approve.
    #[schema(default = 1, minimum = 1, maximum = 16, required = false)]
    pub(super) required_approvals: u8,
}

impl RuleBody {
    /// Fields are looked at in the order of their declaration; the first failure wins.
    fn read(fields: &Fields) -> Result<Self, OperationError> {
        let (kind, tools) = (fields.field("type"), fields.field("tools"));
        let body = Self {
            r#type: not_empty("type", kind.required(kind.or_null().text(RULE_KIND_CHARS_MAX))?)?,
            threshold: amount(fields.field("threshold"))?,
            tools: tools.or_null().texts()?.unwrap_or_default(),
            required_approvals: required_approvals(fields)?,
        };
        let is_short = |tool: &String| tool.chars().count() <= TOOL_CHARS_MAX;
        if body.tools.len() > RULE_TOOL_COUNT_MAX || !body.tools.iter().all(is_short) {
            let expected =
                format!("expected at most {RULE_TOOL_COUNT_MAX} tools of {TOOL_CHARS_MAX} characters");
            return Err(OperationError::invalid("tools", expected));
        }
        Ok(body)
    }
}

fn amount(field: Field<'_>) -> Result<Money, OperationError> {
    Ok(field.or_null().lenient_money(Money::ZERO..=Money::INPUT_MAX)?.unwrap_or(Money::ZERO))
}

fn required_approvals(fields: &Fields) -> Result<u8, OperationError> {
    let required = fields.field("required_approvals").or_null().int(1..=u64::from(APPROVERS_MAX))?;
    Ok(required.and_then(|required| u8::try_from(required).ok()).unwrap_or(1))
}

fn not_empty(field: &str, text: String) -> Result<String, OperationError> {
    if text.is_empty() {
        return Err(OperationError::invalid(field, "required field is empty"));
    }
    Ok(text)
}

/// An approval to be asked for.
#[derive(Debug, ToSchema)]
pub(super) struct RequestBody {
    /// The session that asks.
    #[schema(max_length = 128)]
    pub(super) session_id: String,
    /// With which tool.
    #[schema(default = "", max_length = 256, required = false)]
    pub(super) tool: String,
    /// What it wants to do.
    #[schema(default = "", max_length = 512, required = false)]
    pub(super) action: String,
    /// How much.
    #[schema(value_type = f64, default = 0, required = false)]
    pub(super) amount: Money,
    /// The currency code.
    #[schema(default = "", max_length = 8, required = false)]
    pub(super) currency: String,
    /// Why.
    #[schema(default = "", max_length = 2000, required = false)]
    pub(super) reason: String,
    /// The arguments.
    #[schema(value_type = Object, required = false)]
    pub(super) details: Option<String>,
    /// Seconds until it expires; 0 is never. `expires_in_s` is another name for it.
    #[schema(default = 3600, minimum = 0, maximum = 2_592_000, required = false)]
    pub(super) ttl: u64,
    /// How many must approve, unless a rule wants more.
    #[schema(default = 1, minimum = 1, maximum = 16, required = false)]
    pub(super) required_approvals: u8,
}

impl RequestBody {
    /// Fields are looked at in the order of their declaration; the first failure wins.
    fn read(fields: &Fields) -> Result<Self, OperationError> {
        let session_id = fields.field("session_id");
        let ttl = |name| fields.field(name).or_null().int(0..=APPROVAL_TTL_S_MAX);
        Ok(Self {
            session_id: not_empty(
                "session_id",
                session_id.required(session_id.or_null().text(SESSION_ID_CHARS_MAX))?,
            )?,
            tool: fields.field("tool").or_null().text(TOOL_CHARS_MAX)?.unwrap_or_default(),
            action: fields.field("action").or_null().text(ACTION_CHARS_MAX)?.unwrap_or_default(),
            amount: amount(fields.field("amount"))?,
            currency: fields.field("currency").or_null().text(CURRENCY_CHARS_MAX)?.unwrap_or_default(),
            reason: fields.field("reason").or_null().lines(REASON_CHARS_MAX)?.unwrap_or_default(),
            details: details(fields)?,
            ttl: match ttl("ttl")? {
                Some(ttl) => ttl,
                None => ttl("expires_in_s")?.unwrap_or(REQUEST_TTL_S),
            },
            required_approvals: required_approvals(fields)?,
        })
    }
}

/// The arguments in one spelling, so that the same arguments are the same request.
fn details(fields: &Fields) -> Result<Option<String>, OperationError> {
    Ok(fields.field("details").or_null().canonical()?.filter(|details| details != "{}"))
}

/// A decision.
#[derive(Debug, ToSchema)]
pub(super) struct DecisionBody {
    /// Who decides; the key's prefix unless given. Several deciders must differ in this.
    #[schema(default = "", max_length = 128, required = false)]
    pub(super) decided_by: String,
    /// What they say about it. `reason` is another name for it.
    #[schema(default = "", max_length = 2000, required = false)]
    pub(super) note: String,
    /// Approve at most so much, instead of what was asked for.
    #[schema(value_type = f64, required = false)]
    pub(super) amount: Option<Money>,
    /// Approve only for so many seconds.
    #[schema(minimum = 1, maximum = 2_592_000, required = false)]
    pub(super) ttl: Option<u64>,
}

impl DecisionBody {
    /// Fields are looked at in the order of their declaration; the first failure wins.
    fn read(fields: &Fields) -> Result<Self, OperationError> {
        let note = |name| fields.field(name).or_null().lines(NOTE_CHARS_MAX);
        Ok(Self {
            decided_by: fields.field("decided_by").or_null().text(DECIDER_CHARS_MAX)?.unwrap_or_default(),
            note: match note("note")? {
                Some(note) => note,
                None => note("reason")?.unwrap_or_default(),
            },
            amount: fields.field("amount").or_null().money(Money::ZERO..=Money::INPUT_MAX)?,
            ttl: fields.field("ttl").or_null().int(1..=APPROVAL_TTL_S_MAX)?,
        })
    }
}

/// Adds a rule about what needs an approval.
#[utoipa::path(
    post, path = "/v1/approvals/rules", operation_id = "post_add_approval_rule", tag = "gate",
    request_body = RuleBody,
    responses((status = 201, description = "The rule", body = AddedRule)),
)]
pub(super) async fn add_rule(
    app: web::Data<Arc<App>>,
    caller: Authorized<ApprovalsWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let RuleBody { r#type: kind, threshold, tools, required_approvals: required } = RuleBody::read(&fields)?;
    let retry = retry_of(&app, &caller, &request, &(&kind, threshold.nanos(), &tools, required))?;
    let rule = Rule { kind, threshold, tools, required };
    Ok(HttpResponse::Created().json(approvals::add_rule(&app, &caller, rule, retry.as_ref()).await?))
}

/// Lists the rules.
#[utoipa::path(
    get, path = "/v1/approvals/rules", operation_id = "get_list_approval_rules", tag = "gate",
    params(("as_of" = Option<String>, Query, description = "As they were: unix seconds, ISO 8601 or `seq:N`")),
    responses((status = 200, description = "The rules", body = RuleList)),
)]
pub(super) async fn rules(
    app: web::Data<Arc<App>>,
    caller: Authorized<ApprovalsRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &approvals::rules(&moment))
}

/// Removes a rule.
#[utoipa::path(
    delete, path = "/v1/approvals/rules/{rule_id}", operation_id = "delete_approval_rule", tag = "gate",
    params(("rule_id" = u64, Path, description = "The rule")),
    responses((status = 200, description = "Removed", body = RemovedRule)),
)]
pub(super) async fn remove_rule(
    app: web::Data<Arc<App>>,
    caller: Authorized<ApprovalsWrite>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let rule_id = request.match_info().query("rule_id").parse();
    let rule_id = rule_id.map_err(|_| OperationError::NotFound("rule"))?;
    Ok(HttpResponse::Ok().json(approvals::remove_rule(&app, &caller, rule_id).await?))
}

/// Asks for an approval. The same asked again while nobody has decided gives the same request.
#[utoipa::path(
    post, path = "/v1/approvals/request", operation_id = "post_request_approval", tag = "gate",
    request_body = RequestBody,
    responses((status = 201, description = "The request", body = RequestedApproval)),
)]
pub(super) async fn request_approval(
    app: web::Data<Arc<App>>,
    caller: Authorized<ApprovalsWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let body = RequestBody::read(&fields)?;
    let to_ask = ApprovalRequest {
        session_id: body.session_id,
        tool: body.tool,
        action: body.action,
        amount_nanos: body.amount.nanos(),
        currency: body.currency,
        reason: body.reason,
        details: body.details,
        ttl: body.ttl,
        required_approvals: body.required_approvals,
    };
    let retry = retry_of(&app, &caller, &request, &to_ask)?;
    Ok(HttpResponse::Created().json(approvals::request(&app, &caller, to_ask, retry.as_ref()).await?))
}

/// Lists requests that wait for a decision.
#[utoipa::path(
    get, path = "/v1/approvals/pending", operation_id = "get_pending_approvals", tag = "gate",
    params(
        ("agent_id" = Option<String>, Query, description = "Only of this agent"),
        ("limit" = Option<u32>, Query, description = "At most this many, 1 to 10000; 10000 unless given"),
        ("as_of" = Option<String>, Query, description = "As they were: unix seconds, ISO 8601 or `seq:N`"),
    ),
    responses((status = 200, description = "The requests", body = PendingList)),
)]
pub(super) async fn pending(
    app: web::Data<Arc<App>>,
    caller: Authorized<ApprovalsRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let limit = query.int("limit", 1..=PENDING_LEN_MAX)?.unwrap_or(PENDING_LEN_MAX);
    let agent_id = query.text("agent_id").filter(|agent| agent.chars().count() <= AGENT_ID_CHARS_MAX);
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &approvals::pending(&moment, agent_id.as_deref(), limit))
}

/// Tells what became of a request, and with `wait` waits until it is decided.
#[utoipa::path(
    get, path = "/v1/approvals/{request_id}", operation_id = "get_check_approval", tag = "gate",
    params(
        ("request_id" = String, Path, description = "The request"),
        ("wait" = Option<String>, Query, description = "Answer when it is decided, or after this time at most: `30s`, up to `60s`"),
        ("as_of" = Option<String>, Query, description = "As it was: unix seconds, ISO 8601 or `seq:N`"),
    ),
    responses((status = 200, description = "The request", body = ApprovalView)),
)]
pub(super) async fn get(
    app: web::Data<Arc<App>>,
    caller: Authorized<ApprovalsRead>,
    request: HttpRequest,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let id = request.match_info().query("request_id");
    if let Some(at_most) = query.text("wait") {
        approvals::wait(&app, &caller.tenant, id, wait_of(&at_most)?).await;
    }
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &approvals::get(&app, &caller.tenant, &moment, id)?)
}

fn wait_of(text: &str) -> Result<Duration, OperationError> {
    let wait = text.parse().map(Duration::from_secs).ok().or_else(|| humantime::parse_duration(text).ok());
    let expected = || OperationError::invalid("wait", "expected a time such as 30s, at most 60s");
    wait.filter(|wait| *wait <= WAIT_MAX).ok_or_else(expected)
}

/// Approves a request, perhaps within narrower bounds.
#[utoipa::path(
    post, path = "/v1/approvals/{request_id}/approve", operation_id = "post_approve_request", tag = "gate",
    params(("request_id" = String, Path, description = "The request")),
    request_body = DecisionBody,
    responses(
        (status = 200, description = "Approved", body = DecidedApproval),
        (status = 409, description = "Somebody decided before"),
    ),
)]
pub(super) async fn approve(
    app: web::Data<Arc<App>>,
    caller: Authorized<ApprovalsWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let DecisionBody { decided_by, note, amount, ttl } = DecisionBody::read(&fields)?;
    let decision = Decision { verdict: Verdict::Approve { amount, ttl_s: ttl }, decided_by, note };
    decide(&app, &caller, &request, decision).await
}

/// Denies a request.
#[utoipa::path(
    post, path = "/v1/approvals/{request_id}/deny", operation_id = "post_deny_request", tag = "gate",
    params(("request_id" = String, Path, description = "The request")),
    request_body = DecisionBody,
    responses(
        (status = 200, description = "Denied", body = DecidedApproval),
        (status = 409, description = "Somebody decided before"),
    ),
)]
pub(super) async fn deny(
    app: web::Data<Arc<App>>,
    caller: Authorized<ApprovalsWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let DecisionBody { decided_by, note, .. } = DecisionBody::read(&fields)?;
    decide(&app, &caller, &request, Decision { verdict: Verdict::Deny, decided_by, note }).await
}

async fn decide(
    app: &App,
    caller: &Authorized<ApprovalsWrite>,
    request: &HttpRequest,
    decision: Decision,
) -> Result<HttpResponse, ApiError> {
    let id = request.match_info().query("request_id");
    let narrowed = match &decision.verdict {
        Verdict::Approve { amount, ttl_s } => (amount.map(Money::nanos), *ttl_s),
        Verdict::Deny => (None, None),
    };
    let retry = retry_of(app, caller, request, &(&decision.decided_by, &decision.note, narrowed))?;
    Ok(HttpResponse::Ok().json(approvals::decide(app, caller, id, decision, retry.as_ref()).await?))
}
