//! Sessions: open, look up, list, revoke, check.

use serde::Serialize;
use utoipa::ToSchema;

use super::past::Moment;
use super::retries::Retry;
use super::wire::{Epoch, Usd};
use super::{App, Caller, OperationError, only_event};
use crate::domain::id::{AgentId, SessionId};
use crate::domain::limits::{SCOPE_CHARS_MAX, SESSION_ID_CHARS_MAX};
use crate::domain::money::Money;
use crate::domain::scope::resolve;
use crate::domain::sessions::{CheckPermission, OpenSession, RevokeSession, Session, Standing, Verdict};
use crate::domain::{Command, Event};

/// Scopes of a session for which none were asked.
pub const DEFAULT_SCOPES: [&str; 2] = ["read", "browse"];
/// Seconds that a session lives when nothing else was asked.
pub const DEFAULT_TTL_S: u64 = 3600;
/// Sessions listed when nothing else was asked.
pub const LIST_LEN_DEFAULT: usize = 100;
/// Sessions listed at most.
pub const LIST_LEN_MAX: usize = 500;

/// A session to be opened, every default filled in.
#[derive(Debug, Clone, Serialize)]
pub struct OpenSessionRequest {
    /// The agent that will act.
    pub agent_id: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Seconds until it expires; 0 is never.
    pub ttl: u64,
    /// The most it may spend, in billionths; `None` is no limit beside one in the scopes.
    pub spend_limit_nanos: Option<u128>,
}

/// An opened session.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenedSession {
    /// Its id.
    #[schema(example = "ses_…")]
    pub session_id: String,
    /// The agent that acts.
    pub agent_id: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// The most it may spend; `0.0` together with `unlimited: true` is no limit.
    pub spend_limit: Usd,
    /// Whether there is no limit.
    pub unlimited: bool,
    /// When it expires; `0.0` is never.
    pub expires_at: Epoch,
    /// Seconds it lives.
    pub ttl: u64,
    /// The session that opened it; empty for a root.
    pub parent_session_id: &'static str,
    /// How many sessions stand above it.
    pub delegation_depth: u32,
}

/// A live session.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionView {
    /// Its id.
    pub session_id: String,
    /// The agent that acts.
    pub agent_id: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// The most it may spend; `0.0` together with `unlimited: true` is no limit.
    pub spend_limit: Usd,
    /// Whether there is no limit.
    pub unlimited: bool,
    /// What it spent.
    pub spent: Usd,
    /// What it may still spend; `0.0` when there is no limit.
    pub remaining_budget: Usd,
    /// Always true: ended sessions are not found.
    pub is_valid: bool,
    /// When it was opened.
    pub created_at: Epoch,
    /// When it expires; `0.0` is never.
    pub expires_at: Epoch,
    /// The session that opened it; empty for a root.
    pub parent_session_id: &'static str,
    /// How many sessions stand above it.
    pub delegation_depth: u32,
}

/// Which sessions to list.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// Of this agent.
    pub agent_id: Option<String>,
    /// Whether revoked ones are listed too.
    pub include_revoked: bool,
    /// How many at most.
    pub limit: usize,
}

/// A session in the list.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionRow {
    /// Its id.
    pub session_id: String,
    /// The agent that acts.
    pub agent_id: String,
    /// The session that opened it; empty for a root.
    pub parent_session_id: &'static str,
    /// What it may do.
    pub scopes: Vec<String>,
    /// What it spent.
    pub spent: Usd,
    /// The most it may spend; `0.0` together with `unlimited: true` is no limit.
    pub spend_limit: Usd,
    /// Whether there is no limit.
    pub unlimited: bool,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Whether it can be used now.
    pub is_valid: bool,
    /// When it was opened.
    pub created_at: Epoch,
    /// When it expires; `0.0` is never.
    pub expires_at: Epoch,
}

/// The tenant's sessions.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionList {
    /// How many are listed.
    pub count: usize,
    /// Newest first.
    pub sessions: Vec<SessionRow>,
}

/// A revoked session.
#[derive(Debug, Serialize, ToSchema)]
pub struct RevokedSession {
    /// Always true.
    pub revoked: bool,
    /// Which session.
    pub session_id: String,
}

/// The answer to a permission check.
#[derive(Debug, Serialize, ToSchema)]
pub struct CheckedPermission {
    /// Whether the session may.
    pub allowed: bool,
    /// The session asked about.
    pub session_id: String,
    /// The scope asked for.
    pub scope: String,
    /// Why not: `unknown_session`, `revoked`, `expired` or `scope_missing`; empty when allowed.
    pub reason: &'static str,
}

/// Opens a session.
///
/// # Errors
///
/// [`OperationError::Invalid`] for scopes that cannot be granted, [`OperationError::AgentLimit`] when as many agents as
/// may hold live sessions.
pub async fn open(
    app: &App,
    caller: &Caller,
    request: OpenSessionRequest,
    retry: Option<&Retry>,
) -> Result<OpenedSession, OperationError> {
    let agent_id = AgentId::parse(&request.agent_id)
        .ok_or_else(|| OperationError::invalid("agent_id", "expected at most 128 characters"))?;
    let grant = resolve(&request.scopes, request.spend_limit_nanos.map(Money::from_nanos))
        .map_err(|error| OperationError::invalid("scopes", error.to_string()))?;
    let command = Command::OpenSession(OpenSession {
        session_id: SessionId::issue(app.ledger.random().bytes()),
        agent_id,
        grant,
        scopes_are_default: false,
        ttl_s: request.ttl,
        parent: None,
        agent_limit: app.limits.agents,
    });
    let receipt = app.submit(caller, command, retry, vec![]).await?;
    match &only_event(&receipt)?.recorded.event {
        Event::SessionOpened(opened) => Ok(OpenedSession {
            session_id: opened.session_id.to_string(),
            agent_id: opened.agent_id.to_string(),
            scopes: opened.scopes.clone(),
            spend_limit: Usd::or_zero(opened.cap),
            unlimited: opened.cap.is_none(),
            expires_at: Epoch::or_zero(opened.expires_at),
            ttl: opened.ttl_s,
            parent_session_id: "",
            delegation_depth: 0,
        }),
        Event::SessionDenied(denied) => {
            Err(OperationError::AgentLimit { limit: denied.agent_limit, current: denied.agents_live })
        }
        _ => Err(OperationError::unexpected(&receipt)),
    }
}

/// Looks a live session up.
///
/// # Errors
///
/// [`OperationError::NotFound`] for sessions that do not exist or have ended.
pub fn get(moment: &Moment, session_id: &str) -> Result<SessionView, OperationError> {
    let found = SessionId::parse(session_id).and_then(|session_id| {
        let session = moment.stream.tenant.sessions.get(&session_id)?;
        (moment.standing_of(session) == Standing::Live).then_some((session_id, session))
    });
    let (session_id, session) = found.ok_or(OperationError::NotFound("session"))?;
    Ok(SessionView {
        session_id: session_id.to_string(),
        agent_id: session.agent_id.to_string(),
        scopes: session.scopes.clone(),
        spend_limit: Usd::or_zero(session.budget.cap),
        unlimited: session.budget.cap.is_none(),
        spent: Usd(session.budget.spent()),
        remaining_budget: Usd::or_zero(session.budget.remaining()),
        is_valid: true,
        created_at: Epoch(session.created_at),
        expires_at: Epoch::or_zero(session.expires_at),
        parent_session_id: "",
        delegation_depth: 0,
    })
}

/// Lists sessions, newest first. Expired ones are listed; revoked ones if asked for.
#[must_use]
pub fn list(moment: &Moment, filter: &SessionFilter) -> SessionList {
    let is_wanted = |session: &Session| {
        filter.agent_id.as_ref().is_none_or(|agent_id| session.agent_id.as_str() == agent_id)
            && (filter.include_revoked || !session.is_revoked)
    };
    let row = |(session_id, session)| row(moment, session_id, session);
    let sessions = moment.stream.tenant.sessions.newest_first();
    let wanted = sessions.filter(|(_, session)| is_wanted(session));
    let sessions: Vec<SessionRow> = wanted.take(filter.limit).map(row).collect();
    SessionList { count: sessions.len(), sessions }
}

/// A session as lists show it.
#[must_use]
pub fn row(moment: &Moment, session_id: &SessionId, session: &Session) -> SessionRow {
    SessionRow {
        session_id: session_id.to_string(),
        agent_id: session.agent_id.to_string(),
        parent_session_id: "",
        scopes: session.scopes.clone(),
        spent: Usd(session.budget.spent()),
        spend_limit: Usd::or_zero(session.budget.cap),
        unlimited: session.budget.cap.is_none(),
        revoked: session.is_revoked,
        is_valid: moment.standing_of(session) == Standing::Live,
        created_at: Epoch(session.created_at),
        expires_at: Epoch::or_zero(session.expires_at),
    }
}

/// Ends a session. Ending it again is the same as ending it once.
///
/// # Errors
///
/// [`OperationError::NotFound`] for sessions that never existed.
pub async fn revoke(app: &App, caller: &Caller, session_id: &str) -> Result<RevokedSession, OperationError> {
    let session_id = SessionId::parse(session_id).ok_or(OperationError::NotFound("session"))?;
    let command = Command::RevokeSession(RevokeSession { session_id: session_id.clone() });
    app.submit(caller, command, None, vec![]).await?;
    Ok(RevokedSession { revoked: true, session_id: session_id.to_string() })
}

/// Checks whether a session may do something, and records the answer.
///
/// # Errors
///
/// [`OperationError::Invalid`] for texts that are too long to record.
pub async fn check(
    app: &App,
    caller: &Caller,
    session_id: &str,
    scope: &str,
) -> Result<CheckedPermission, OperationError> {
    let session_id = SessionId::parse(session_id).ok_or_else(|| {
        OperationError::invalid("session_id", format!("expected at most {SESSION_ID_CHARS_MAX} characters"))
    })?;
    if scope.chars().count() > SCOPE_CHARS_MAX {
        let reason = format!("expected at most {SCOPE_CHARS_MAX} characters");
        return Err(OperationError::invalid("scope", reason));
    }
    let command = Command::CheckPermission(CheckPermission { session_id, scope: scope.to_owned() });
    let receipt = app.submit(caller, command, None, vec![]).await?;
    let Event::PermissionChecked(checked) = &only_event(&receipt)?.recorded.event else {
        return Err(OperationError::unexpected(&receipt));
    };
    Ok(CheckedPermission {
        allowed: checked.verdict == Verdict::Allowed,
        session_id: checked.session_id.to_string(),
        scope: checked.scope.clone(),
        reason: match checked.verdict {
            Verdict::Allowed => "",
            Verdict::SessionUnknown => "unknown_session",
            Verdict::SessionRevoked => "revoked",
            Verdict::SessionExpired => "expired",
            Verdict::ScopeMissing => "scope_missing",
        },
    })
}
