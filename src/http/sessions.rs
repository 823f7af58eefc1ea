//! `/v1/sessions`.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::ToSchema;

use super::body::Fields;
use super::caller::{Authorized, SessionsRead, SessionsWrite};
use super::error::ApiError;
use super::past::answer;
use super::query::Query;
use super::retry::retry_of;
use crate::domain::limits::{AGENT_ID_CHARS_MAX, SCOPE_CHARS_MAX, SESSION_ID_CHARS_MAX, SESSION_TTL_S_MAX};
use crate::domain::money::Money;
use crate::operations::sessions::{
    self, CheckedPermission, DEFAULT_SCOPES, DEFAULT_TTL_S, Descendants, LIST_LEN_DEFAULT, LIST_LEN_MAX,
    OpenSessionRequest, OpenedSession, RevokedSession, SessionFilter, SessionList, SessionView,
};
use crate::operations::{App, OperationError};

/// A session to be opened.
#[derive(Debug, ToSchema)]
pub(super) struct OpenSessionBody {
    /// The agent that will act.
    #[schema(max_length = 128)]
    pub(super) agent_id: String,
    /// What it may do. `spend:<number>` sets the budget, unless `spend_limit` does.
    #[schema(default = json!(["read", "browse"]), required = false, max_items = 64)]
    pub(super) scopes: Vec<String>,
    /// Seconds until the session expires; 0 is never.
    #[schema(default = 3600, minimum = 0, maximum = 2_592_000, required = false)]
    pub(super) ttl: u64,
    /// The most it may spend. Absent is no limit; 0 is nothing.
    #[schema(value_type = f64, minimum = 0, maximum = 1_000_000_000_000_i64, required = false)]
    pub(super) spend_limit: Option<Money>,
    /// The session to open it below, which it can never exceed in scopes, budget or life; empty for a root.
    #[schema(max_length = 128, default = "", required = false)]
    pub(super) parent_session_id: String,
    #[schema(ignore)]
    scopes_are_default: bool,
}

impl OpenSessionBody {
    /// Fields are looked at in the order of their declaration; the first failure wins.
    fn read(fields: &Fields) -> Result<Self, OperationError> {
        let agent_id = fields.field("agent_id");
        let agent_id = agent_id.required(agent_id.text(AGENT_ID_CHARS_MAX))?;
        let scopes = fields.field("scopes").texts()?.unwrap_or_default();
        let ttl = fields.field("ttl").int(0..=SESSION_TTL_S_MAX)?;
        let spend_limit = fields.field("spend_limit").money(Money::ZERO..=Money::INPUT_MAX)?;
        let parent_session_id = fields.field("parent_session_id").text(SESSION_ID_CHARS_MAX)?;
        let defaults = || DEFAULT_SCOPES.map(str::to_owned).to_vec();
        let scopes_are_default = scopes.is_empty();
        Ok(Self {
            agent_id,
            scopes: if scopes.is_empty() { defaults() } else { scopes },
            ttl: ttl.unwrap_or(DEFAULT_TTL_S),
            spend_limit,
            parent_session_id: parent_session_id.unwrap_or_default(),
            scopes_are_default,
        })
    }
}

/// Opens a session for an agent.
#[utoipa::path(
    post, path = "/v1/sessions", operation_id = "post_create_session", tag = "gate",
    request_body = OpenSessionBody,
    responses((status = 201, description = "The session", body = OpenedSession)),
)]
pub(super) async fn open(
    app: web::Data<Arc<App>>,
    caller: Authorized<SessionsWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let body = OpenSessionBody::read(&fields)?;
    let to_open = OpenSessionRequest {
        agent_id: body.agent_id,
        scopes: body.scopes,
        ttl: body.ttl,
        spend_limit_nanos: body.spend_limit.map(Money::nanos),
        scopes_are_default: body.scopes_are_default,
        parent_session_id: body.parent_session_id,
    };
    let retry = retry_of(&app, &caller, &request, &to_open)?;
    let opened = sessions::open(&app, &caller, to_open, retry.as_ref()).await?;
    Ok(HttpResponse::Created().json(opened))
}

/// Lists the tenant's sessions, newest first.
#[utoipa::path(
    get, path = "/v1/sessions", operation_id = "get_list_sessions", tag = "gate",
    params(
        ("agent_id" = Option<String>, Query, description = "Only of this agent"),
        ("include_revoked" = Option<bool>, Query, description = "`true` lists revoked ones too"),
        ("roots_only" = Option<bool>, Query, description = "`true` leaves out delegated ones"),
        ("limit" = Option<u32>, Query, description = "At most this many, 1 to 500; 100 unless given"),
        ("as_of" = Option<String>, Query, description = "As they were: unix seconds, ISO 8601 or `seq:N`"),
    ),
    responses((status = 200, description = "The sessions", body = SessionList)),
)]
pub(super) async fn list(
    app: web::Data<Arc<App>>,
    caller: Authorized<SessionsRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let limit = query.int("limit", 0..=usize::MAX)?.unwrap_or(LIST_LEN_DEFAULT).clamp(1, LIST_LEN_MAX);
    let include_revoked = query.is_true("include_revoked");
    let roots_only = query.is_true("roots_only");
    let filter = SessionFilter { agent_id: query.text("agent_id"), include_revoked, roots_only, limit };
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &sessions::list(&moment, &filter))
}

/// Looks a live session up.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}", operation_id = "get_get_session", tag = "gate",
    params(
        ("session_id" = String, Path, description = "The session"),
        ("as_of" = Option<String>, Query, description = "As it was: unix seconds, ISO 8601 or `seq:N`"),
    ),
    responses((status = 200, description = "The session", body = SessionView)),
)]
pub(super) async fn get(
    app: web::Data<Arc<App>>,
    caller: Authorized<SessionsRead>,
    request: HttpRequest,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let session_id = request.match_info().query("session_id");
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &sessions::get(&moment, session_id)?)
}

/// Tells which sessions stand below one.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/descendants", operation_id = "get_session_descendants", tag = "gate",
    params(
        ("session_id" = String, Path, description = "The session"),
        ("include_revoked" = Option<bool>, Query, description = "`true` lists ended ones too"),
        ("as_of" = Option<String>, Query, description = "As it was: unix seconds, ISO 8601 or `seq:N`"),
    ),
    responses((status = 200, description = "The sessions below it", body = Descendants)),
)]
pub(super) async fn descendants(
    app: web::Data<Arc<App>>,
    caller: Authorized<SessionsRead>,
    request: HttpRequest,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let session_id = request.match_info().query("session_id");
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &sessions::descendants(&moment, session_id, query.is_true("include_revoked"))?)
}

/// Ends a session, and every session below it.
#[utoipa::path(
    delete, path = "/v1/sessions/{session_id}", operation_id = "delete_revoke_session", tag = "gate",
    params(
        ("session_id" = String, Path, description = "The session"),
        ("cascade" = Option<bool>, Query, description = "`true` tells which sessions below it ended with it"),
    ),
    responses((status = 200, description = "Ended", body = RevokedSession)),
)]
pub(super) async fn revoke(
    app: web::Data<Arc<App>>,
    caller: Authorized<SessionsWrite>,
    request: HttpRequest,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let session_id = request.match_info().query("session_id");
    let revoked = sessions::revoke(&app, &caller, session_id, query.is_true("cascade")).await?;
    Ok(HttpResponse::Ok().json(revoked))
}

/// A permission to be checked.
#[derive(Debug, ToSchema)]
pub(super) struct CheckBody {
    /// The scope asked for.
    #[schema(min_length = 1, max_length = 128)]
    pub(super) scope: String,
}

/// Checks whether a session may do something. Unknown and ended sessions may nothing.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/check", operation_id = "post_check_permission", tag = "gate",
    params(("session_id" = String, Path, description = "The session")),
    request_body = CheckBody,
    responses((status = 200, description = "The answer", body = CheckedPermission)),
)]
pub(super) async fn check(
    app: web::Data<Arc<App>>,
    caller: Authorized<SessionsRead>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let scope = fields.field("scope");
    let body = CheckBody { scope: scope.required(scope.or_null().text(SCOPE_CHARS_MAX))? };
    if body.scope.is_empty() {
        return Err(OperationError::invalid("scope", "required field is empty").into());
    }
    let session_id = request.match_info().query("session_id");
    Ok(HttpResponse::Ok().json(sessions::check(&app, &caller, session_id, &body.scope).await?))
}
