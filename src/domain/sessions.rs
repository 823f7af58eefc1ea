//! Sessions: a named agent's permission to act, for a time, within scopes and a budget.

use std::collections::{BTreeMap, BTreeSet};

use super::budgets::Budget;
use super::id::{AgentId, SessionId};
use super::money::Money;
use super::time::Timestamp;
use super::{Event, Refusal, scope};

/// Open a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSession {
    /// The new session's id.
    pub session_id: SessionId,
    /// The agent that will act.
    pub agent_id: AgentId,
    /// What it may do and spend.
    pub grant: scope::Grant,
    /// Seconds until it expires; 0 is never.
    pub ttl_s: u64,
    /// How many agents may hold live sessions at once; `None` is any number.
    pub agent_limit: Option<u64>,
}

/// End a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokeSession {
    /// Which session.
    pub session_id: SessionId,
}

/// Ask whether a session may do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckPermission {
    /// Which session; it need not exist.
    pub session_id: SessionId,
    /// The scope asked for.
    pub scope: String,
}

/// A session was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOpened {
    /// The new session's id.
    pub session_id: SessionId,
    /// The agent that acts.
    pub agent_id: AgentId,
    /// What it may do.
    pub scopes: Vec<String>,
    /// The most it may spend; `None` is no cap.
    pub cap: Option<Money>,
    /// Seconds until it expires; 0 is never.
    pub ttl_s: u64,
    /// When it expires; `None` is never.
    pub expires_at: Option<Timestamp>,
    /// The limit of live agents at that time.
    pub agent_limit: Option<u64>,
}

/// A session was not opened: too many agents hold live sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionDenied {
    /// The agent for whom it was asked.
    pub agent_id: AgentId,
    /// How many agents may hold live sessions.
    pub agent_limit: u64,
    /// How many did.
    pub agents_live: u64,
}

/// A session was ended before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRevoked {
    /// Which session.
    pub session_id: SessionId,
}

/// A permission was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermissionChecked {
    /// The session as asked for; it need not exist.
    pub session_id: SessionId,
    /// The scope asked for.
    pub scope: String,
    /// The answer.
    pub verdict: Verdict,
}

/// The answer to a permission check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The session may.
    Allowed,
    /// There is no such session.
    SessionUnknown,
    /// The session was revoked.
    SessionRevoked,
    /// The session's time is over.
    SessionExpired,
    /// The session does not hold the scope.
    ScopeMissing,
}

/// The tenant's sessions, ended ones included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sessions {
    by_id: BTreeMap<SessionId, Session>,
    /// Sessions by the position of their opening, for listing in order.
    by_seq: BTreeMap<u64, SessionId>,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The agent that acts.
    pub agent_id: AgentId,
    /// What it may do.
    pub scopes: Vec<String>,
    /// What it may spend and has spent.
    pub budget: Budget,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it expires; `None` is never.
    pub expires_at: Option<Timestamp>,
    /// Whether it was revoked.
    pub is_revoked: bool,
}

/// Whether a session can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It can.
    Live,
    /// It was revoked.
    Revoked,
    /// Its time is over.
    Expired,
}

impl Session {
    /// Whether the session can be used at `at`. The moment of expiry itself still counts as live.
    #[must_use]
    pub fn standing(&self, at: Timestamp) -> Standing {
        if self.is_revoked {
            Standing::Revoked
        } else if self.expires_at.is_some_and(|end| at > end) {
            Standing::Expired
        } else {
            Standing::Live
        }
    }

    /// Whether the session holds a scope that grants `requested`. Says nothing about its standing.
    #[must_use]
    pub fn grants(&self, requested: &str) -> bool {
        scope::grants(&self.scopes, requested)
    }
}

impl Sessions {
    /// The session with this id, ended or not.
    #[must_use]
    pub fn get(&self, id: &SessionId) -> Option<&Session> {
        self.by_id.get(id)
    }

    /// The session with this id, for the areas that change a part of it.
    pub(super) fn get_mut(&mut self, id: &SessionId) -> Option<&mut Session> {
        self.by_id.get_mut(id)
    }

    /// All sessions, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = (&SessionId, &Session)> {
        self.by_seq.values().rev().filter_map(|id| self.by_id.get_key_value(id))
    }

    /// The agents that hold a live session at `at`.
    #[must_use]
    pub fn live_agents(&self, at: Timestamp) -> BTreeSet<&AgentId> {
        self.by_id
            .values()
            .filter(|session| session.standing(at) == Standing::Live)
            .map(|session| &session.agent_id)
            .collect()
    }
}

pub(super) fn open(sessions: &Sessions, at: Timestamp, command: &OpenSession) -> Vec<Event> {
    if let Some(agent_limit) = command.agent_limit {
        let live_agents = sessions.live_agents(at);
        let agents_live = live_agents.len() as u64;
        if !live_agents.contains(&command.agent_id) && agents_live >= agent_limit {
            return vec![Event::SessionDenied(SessionDenied {
                agent_id: command.agent_id.clone(),
                agent_limit,
                agents_live,
            })];
        }
    }
    vec![Event::SessionOpened(SessionOpened {
        session_id: command.session_id.clone(),
        agent_id: command.agent_id.clone(),
        scopes: command.grant.scopes.clone(),
        cap: command.grant.cap,
        ttl_s: command.ttl_s,
        expires_at: (command.ttl_s > 0).then(|| at.plus_seconds(command.ttl_s)),
        agent_limit: command.agent_limit,
    })]
}

pub(super) fn revoke(sessions: &Sessions, command: &RevokeSession) -> Result<Vec<Event>, Refusal> {
    let session = sessions.get(&command.session_id).ok_or(Refusal::SessionUnknown)?;
    if session.is_revoked {
        return Ok(vec![]);
    }
    Ok(vec![Event::SessionRevoked(SessionRevoked { session_id: command.session_id.clone() })])
}

pub(super) fn check(sessions: &Sessions, at: Timestamp, command: &CheckPermission) -> Vec<Event> {
    let verdict = match sessions.get(&command.session_id) {
        None => Verdict::SessionUnknown,
        Some(session) => match session.standing(at) {
            Standing::Revoked => Verdict::SessionRevoked,
            Standing::Expired => Verdict::SessionExpired,
            Standing::Live if session.grants(&command.scope) => Verdict::Allowed,
            Standing::Live => Verdict::ScopeMissing,
        },
    };
    vec![Event::PermissionChecked(PermissionChecked {
        session_id: command.session_id.clone(),
        scope: command.scope.clone(),
        verdict,
    })]
}

pub(super) fn apply_opened(sessions: &mut Sessions, seq: u64, at: Timestamp, event: &SessionOpened) {
    let session = Session {
        agent_id: event.agent_id.clone(),
        scopes: event.scopes.clone(),
        budget: Budget { cap: event.cap, spent: Money::ZERO },
        created_at: at,
        expires_at: event.expires_at,
        is_revoked: false,
    };
    sessions.by_id.insert(event.session_id.clone(), session);
    sessions.by_seq.insert(seq, event.session_id.clone());
}

pub(super) fn apply_revoked(sessions: &mut Sessions, event: &SessionRevoked) {
    if let Some(session) = sessions.by_id.get_mut(&event.session_id) {
        session.is_revoked = true;
    }
}
