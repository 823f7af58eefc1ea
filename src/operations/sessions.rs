//! Sessions: open, look up, list, revoke, check.

use serde::Serialize;
use utoipa::ToSchema;

use super::past::Moment;
use super::retries::Retry;
use super::wire::{Epoch, Usd};
use super::{App, Caller, OperationError, only_event};
use crate::domain::delegation::DelegationDenial;
use crate::domain::id::{AgentId, SessionId};
use crate::domain::limits::{DELEGATION_DEPTH_MAX, SCOPE_CHARS_MAX, SESSION_ID_CHARS_MAX};
use crate::domain::money::Money;
use crate::domain::scope::resolve;
use crate::domain::sessions::{CheckPermission, OpenSession, RevokeSession, Session, Standing, Verdict};
use crate::domain::{Command, Event, Tenant};

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
    /// Whether nobody asked for these scopes.
    #[serde(skip)]
    pub scopes_are_default: bool,
    /// Seconds until it expires; 0 is never.
    pub ttl: u64,
    /// The most it may spend, in billionths; `None` is no limit beside one in the scopes.
    pub spend_limit_nanos: Option<u128>,
    /// The session that it is opened below; empty for a root. Servers that did not know it digested requests without it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parent_session_id: String,
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
    pub parent_session_id: String,
    /// How many sessions stand above it.
    pub delegation_depth: u8,
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
    /// What it spent, with every session below it.
    pub spent: Usd,
    /// What it spent itself.
    pub own_spent: Usd,
    /// What is set aside for it and every session below it.
    pub held: Usd,
    /// What it may still spend, as far as it and the sessions above it go; `0.0` when there is no limit.
    pub remaining_budget: Usd,
    /// Always true: ended sessions are not found.
    pub is_valid: bool,
    /// When it was opened.
    pub created_at: Epoch,
    /// When it expires; `0.0` is never.
    pub expires_at: Epoch,
    /// The session that opened it; empty for a root.
    pub parent_session_id: String,
    /// How many sessions stand above it.
    pub delegation_depth: u8,
}

/// The sessions below one.
#[derive(Debug, Serialize, ToSchema)]
pub struct Descendants {
    /// The session that was asked about.
    pub root: SessionNode,
    /// How many are listed below it.
    pub descendant_count: usize,
    /// How many sessions may stand above one.
    pub max_delegation_depth: u8,
}

/// A session in a tree of sessions.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionNode {
    /// Its id.
    pub session_id: String,
    /// The agent that acts.
    pub agent_id: String,
    /// The session that opened it; empty for a root.
    pub parent_session_id: String,
    /// Whether it, or a session above it, was revoked.
    pub revoked: bool,
    /// Whether it can be used.
    pub is_valid: bool,
    /// What it spent itself.
    pub spent: Usd,
    /// The most it may spend; `0.0` together with `unlimited: true` is no limit.
    pub spend_limit: Usd,
    /// Whether there is no limit.
    pub unlimited: bool,
    /// When it was opened.
    pub created_at: Epoch,
    /// When it expires; `0.0` is never.
    pub expires_at: Epoch,
    /// What it and the sessions listed below it spent.
    pub subtree_spent: Usd,
    /// How many sessions are listed below it.
    pub subtree_sessions: usize,
    /// The sessions directly below it, in the order of their opening.
    #[schema(no_recursion)]
    pub children: Vec<SessionNode>,
}

/// Which sessions to list.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// Of this agent.
    pub agent_id: Option<String>,
    /// Whether revoked ones are listed too.
    pub include_revoked: bool,
    /// Whether those below others are left out.
    pub roots_only: bool,
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
    pub parent_session_id: String,
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
    /// The sessions below it that ended with it, level by level; only when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cascade_revoked: Option<Vec<String>>,
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
    let parent = || {
        let unknown = || OperationError::invalid("parent_session_id", "expected a live session");
        SessionId::parse(&request.parent_session_id).ok_or_else(unknown)
    };
    let command = Command::OpenSession(OpenSession {
        session_id: SessionId::issue(app.ledger.random().bytes()),
        agent_id,
        grant,
        scopes_are_default: request.scopes_are_default,
        ttl_s: request.ttl,
        parent: (!request.parent_session_id.is_empty()).then(parent).transpose()?,
        agent_limit: app.limits.agents,
    });
    let receipt = app.submit(caller, command, retry, vec![]).await?;
    let recorded = &only_event(&receipt)?.recorded;
    match &recorded.event {
        Event::SessionOpened(opened) => Ok(OpenedSession {
            session_id: opened.session_id.to_string(),
            agent_id: opened.agent_id.to_string(),
            scopes: opened.scopes.clone(),
            spend_limit: Usd::or_zero(opened.cap),
            unlimited: opened.cap.is_none(),
            expires_at: Epoch::or_zero(opened.expires_at),
            ttl: opened.expires_at.map_or(0, |end| (end.micros() - recorded.at.micros()).div_ceil(1_000_000)),
            parent_session_id: parent_name(opened.parent.as_ref()),
            delegation_depth: app.with_tenant(&caller.tenant, |tenant| {
                tenant.sessions.get(&opened.session_id).map_or(0, |session| session.depth)
            })?,
        }),
        Event::DelegationDenied(denied) => Err(match denied.reason {
            DelegationDenial::ParentRevoked | DelegationDenial::ParentExpired => {
                OperationError::invalid("parent_session_id", "expected a live session")
            }
            DelegationDenial::TooDeep => OperationError::invalid(
                "parent_session_id",
                format!("expected a session with fewer than {DELEGATION_DEPTH_MAX} sessions above it"),
            ),
            DelegationDenial::ScopeBeyondParent => {
                OperationError::invalid("scopes", "expected only scopes that the parent session holds")
            }
            DelegationDenial::BudgetBeyondParent => {
                OperationError::invalid("spend_limit", "expected at most what is left in the sessions above")
            }
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
        own_spent: Usd(session.budget.own_spent),
        held: Usd(session.budget.tally.held),
        remaining_budget: Usd::or_zero(moment.stream.tenant.sessions.remaining(&session_id)),
        is_valid: true,
        created_at: Epoch(session.created_at),
        expires_at: Epoch::or_zero(session.expires_at),
        parent_session_id: parent_name(session.parent.as_ref()),
        delegation_depth: session.depth,
    })
}

fn parent_name(parent: Option<&SessionId>) -> String {
    parent.map(SessionId::to_string).unwrap_or_default()
}

/// Tells which sessions stand below one.
///
/// # Errors
///
/// [`OperationError::NotFound`] for sessions that never existed, and for ended ones unless those are asked for.
pub fn descendants(
    moment: &Moment,
    session_id: &str,
    include_revoked: bool,
) -> Result<Descendants, OperationError> {
    let sessions = &moment.stream.tenant.sessions;
    let not_found = || OperationError::NotFound("session");
    let session_id = SessionId::parse(session_id).ok_or_else(not_found)?;
    let session = sessions.get(&session_id).ok_or_else(not_found)?;
    if !include_revoked && moment.standing_of(session) != Standing::Live {
        return Err(not_found());
    }
    let root = node(moment, &session_id, session, include_revoked);
    let (descendant_count, max_delegation_depth) = (root.subtree_sessions, DELEGATION_DEPTH_MAX);
    Ok(Descendants { root, descendant_count, max_delegation_depth })
}

/// A session and what is listed below it. Nothing hides what stands below a session that is not listed itself: it has ended
/// with it.
fn node(moment: &Moment, session_id: &SessionId, session: &Session, include_revoked: bool) -> SessionNode {
    let is_listed = |session: &Session| include_revoked || moment.standing_of(session) != Standing::Revoked;
    let children = moment.stream.tenant.sessions.children(session_id);
    let children: Vec<SessionNode> = children
        .filter(|(_, child)| is_listed(child))
        .map(|(id, child)| node(moment, id, child, include_revoked))
        .collect();
    let below = children.iter().map(|child| child.subtree_spent.0);
    let own_spent = session.budget.own_spent;
    SessionNode {
        session_id: session_id.to_string(),
        agent_id: session.agent_id.to_string(),
        parent_session_id: parent_name(session.parent.as_ref()),
        revoked: moment.standing_of(session) == Standing::Revoked,
        is_valid: moment.standing_of(session) == Standing::Live,
        spent: Usd(own_spent),
        spend_limit: Usd::or_zero(session.budget.cap),
        unlimited: session.budget.cap.is_none(),
        created_at: Epoch(session.created_at),
        expires_at: Epoch::or_zero(session.expires_at),
        subtree_spent: Usd(below.fold(own_spent, |sum, spent| sum.plus(spent).unwrap_or(sum))),
        subtree_sessions: children.iter().map(|child| 1 + child.subtree_sessions).sum(),
        children,
    }
}

/// Lists sessions, newest first. Expired ones are listed; revoked ones if asked for.
#[must_use]
pub fn list(moment: &Moment, filter: &SessionFilter) -> SessionList {
    let is_wanted = |session: &Session| {
        filter.agent_id.as_ref().is_none_or(|agent_id| session.agent_id.as_str() == agent_id)
            && (filter.include_revoked || moment.standing_of(session) != Standing::Revoked)
            && (!filter.roots_only || session.parent.is_none())
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
        parent_session_id: parent_name(session.parent.as_ref()),
        scopes: session.scopes.clone(),
        spent: Usd(session.budget.spent()),
        spend_limit: Usd::or_zero(session.budget.cap),
        unlimited: session.budget.cap.is_none(),
        revoked: moment.standing_of(session) == Standing::Revoked,
        is_valid: moment.standing_of(session) == Standing::Live,
        created_at: Epoch(session.created_at),
        expires_at: Epoch::or_zero(session.expires_at),
    }
}

/// Ends a session, and with it every session below it. Ending it again is the same as ending it once.
///
/// # Errors
///
/// [`OperationError::NotFound`] for sessions that never existed.
pub async fn revoke(
    app: &App,
    caller: &Caller,
    session_id: &str,
    tells_cascade: bool,
) -> Result<RevokedSession, OperationError> {
    let session_id = SessionId::parse(session_id).ok_or(OperationError::NotFound("session"))?;
    let now = app.ledger.clock().now();
    let live_below = |tenant: &Tenant| {
        let below = tenant.sessions.descendants(&session_id).into_iter();
        let live = below.filter(|(_, session)| tenant.sessions.standing(session, now) == Standing::Live);
        live.map(|(id, _)| id.to_string()).collect()
    };
    let cascade_revoked =
        if tells_cascade { Some(app.with_tenant(&caller.tenant, live_below)?) } else { None };
    let command = Command::RevokeSession(RevokeSession { session_id: session_id.clone() });
    app.submit(caller, command, None, vec![]).await?;
    Ok(RevokedSession { revoked: true, session_id: session_id.to_string(), cascade_revoked })
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
