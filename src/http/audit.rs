//! `/v1/audit`.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::ToSchema;

use super::body::Fields;
use super::caller::{AuditRead, AuditWrite, Authorized};
use super::error::ApiError;
use super::past::answer;
use super::query::Query;
use super::retry::retry_of;
use crate::domain::limits::{ACTION_CHARS_MAX, SESSION_ID_CHARS_MAX, TOOL_CHARS_MAX};
use crate::domain::money::Money;
use crate::operations::audit::{
    self, LogRequest, LoggedAction, SpendReport, TRAIL_LEN_DEFAULT, TRAIL_LEN_MAX, Trail,
};
use crate::operations::verification::{self, VerifyReport};
use crate::operations::{App, OperationError};
use crate::views::audit::Filter;

/// An action to be logged.
#[derive(Debug, ToSchema)]
pub(super) struct LogBody {
    /// The session that acted.
    #[schema(max_length = 128)]
    pub(super) session_id: String,
    /// What was done.
    #[schema(min_length = 1, max_length = 512)]
    pub(super) action: String,
    /// With which tool.
    #[schema(default = "", max_length = 256, required = false)]
    pub(super) tool: String,
    /// What it cost, with at most nine decimal places.
    #[schema(value_type = f64, default = 0, minimum = 0, maximum = 1_000_000_000_000_i64, required = false)]
    pub(super) cost_usd: Money,
    /// Anything else. Kept beside the ledger, bound to it by a salted digest.
    #[schema(value_type = serde_json::Value, required = false)]
    pub(super) details: Option<String>,
}

impl LogBody {
    fn read(fields: &Fields) -> Result<Self, OperationError> {
        let session_id = fields.field("session_id");
        let action = fields.field("action");
        let body = Self {
            session_id: session_id.required(session_id.or_null().text(SESSION_ID_CHARS_MAX))?,
            action: action.required(action.or_null().text(ACTION_CHARS_MAX))?,
            tool: fields.field("tool").or_null().text(TOOL_CHARS_MAX)?.unwrap_or_default(),
            cost_usd: fields
                .field("cost_usd")
                .lenient_money(Money::ZERO..=Money::INPUT_MAX)?
                .unwrap_or(Money::ZERO),
            details: fields.field("details").raw().filter(|raw| !is_falsy(raw)).map(str::to_owned),
        };
        for (name, value) in [("session_id", &body.session_id), ("action", &body.action)] {
            if value.is_empty() {
                return Err(OperationError::invalid(name, "required field is empty"));
            }
        }
        Ok(body)
    }
}

/// Details that say nothing are the same as none.
fn is_falsy(raw: &str) -> bool {
    let is_empty = |open, close| {
        raw.strip_prefix(open)
            .and_then(|rest| rest.strip_suffix(close))
            .is_some_and(|it| it.trim().is_empty())
    };
    matches!(raw, "null" | "false" | "0" | "0.0" | "\"\"") || is_empty('{', '}') || is_empty('[', ']')
}

/// Logs what an agent did.
#[utoipa::path(
    post, path = "/v1/audit", operation_id = "post_log_action", tag = "watch",
    request_body = LogBody,
    responses((status = 201, description = "Logged", body = LoggedAction)),
)]
pub(super) async fn log(
    app: web::Data<Arc<App>>,
    caller: Authorized<AuditWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let body = LogBody::read(&fields)?;
    let to_log = LogRequest {
        session_id: body.session_id,
        action: body.action,
        tool: body.tool,
        cost_nanos: body.cost_usd.nanos(),
        details: body.details,
    };
    let retry = retry_of(&app, &caller, &request, &to_log)?;
    let logged = audit::log(&app, &caller, to_log, retry.as_ref()).await?;
    Ok(HttpResponse::Created().json(logged))
}

/// Finds logged actions, newest first.
#[utoipa::path(
    get, path = "/v1/audit", operation_id = "get_get_audit_trail", tag = "watch",
    params(
        ("session_id" = Option<String>, Query, description = "Only of this session"),
        ("agent_id" = Option<String>, Query, description = "Only of this agent"),
        ("tool" = Option<String>, Query, description = "Only with this tool"),
        ("flagged" = Option<bool>, Query, description = "`true` finds only flagged ones"),
        ("limit" = Option<u32>, Query, description = "At most this many, 0 to 100000; 100 unless given"),
        ("as_of" = Option<String>, Query, description = "As it was: unix seconds, ISO 8601 or `seq:N`"),
    ),
    responses((status = 200, description = "The trail", body = Trail)),
)]
pub(super) async fn trail(
    app: web::Data<Arc<App>>,
    caller: Authorized<AuditRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let limit = query.int("limit", 0..=TRAIL_LEN_MAX)?.unwrap_or(TRAIL_LEN_DEFAULT);
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    let filter = Filter {
        size: moment.standing.as_ref().map(|standing| standing.size),
        session_id: query.text("session_id"),
        agent_id: query.text("agent_id"),
        tool: query.text("tool"),
        flagged_only: query.is_true("flagged"),
    };
    answer(&moment, &audit::trail(Arc::clone(&app), &caller, filter, limit).await?)
}

/// Sums up what logged actions cost.
#[utoipa::path(
    get, path = "/v1/audit/spend", operation_id = "get_get_spend", tag = "watch",
    params(
        ("session_id" = Option<String>, Query, description = "Only of this session"),
        ("agent_id" = Option<String>, Query, description = "Only of this agent"),
        ("as_of" = Option<String>, Query, description = "As they were: unix seconds, ISO 8601 or `seq:N`"),
    ),
    responses((status = 200, description = "The sums", body = SpendReport)),
)]
pub(super) async fn spend(
    app: web::Data<Arc<App>>,
    caller: Authorized<AuditRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let (session_id, agent_id) = (query.text("session_id"), query.text("agent_id"));
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    let size = moment.standing.as_ref().map(|standing| standing.size);
    answer(&moment, &audit::spend(Arc::clone(&app), &caller, session_id, agent_id, size).await?)
}

/// Verifies the tenant's stream: chain, every signature, every decision, details.
#[utoipa::path(
    get, path = "/v1/audit/verify", operation_id = "get_verify_audit_chain", tag = "watch",
    params(("full" = Option<bool>, Query, description = "`true` verifies again what the scrub verified")),
    responses((status = 200, description = "Whether the stream is sound", body = VerifyReport)),
)]
pub(super) async fn verify(
    app: web::Data<Arc<App>>,
    caller: Authorized<AuditRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let report = verification::verify(Arc::clone(&app), caller.tenant.clone(), query.is_true("full")).await?;
    Ok(HttpResponse::Ok().json(report))
}
