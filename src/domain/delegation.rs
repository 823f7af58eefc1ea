//! Delegation: sessions below other sessions. A child can never do more, spend more or live longer than its parent.
//!
//! Narrowing is checked once, when the child is opened; afterwards nothing can widen either of them. What the child spends
//! counts against every session above it ([`super::accounts`]), and it ends with the first of them that ends
//! ([`Sessions::standing`]).

use super::id::{AgentId, SessionId};
use super::limits::DELEGATION_DEPTH_MAX;
use super::money::Money;
use super::scope;
use super::sessions::{OpenSession, SessionOpened, Sessions, Standing};
use super::time::Timestamp;
use super::{Event, Refusal};

/// A session was not opened below another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelegationDenied {
    /// The session below which it would have been.
    pub parent: SessionId,
    /// The agent that would have acted.
    pub agent_id: AgentId,
    /// What it would have been allowed to do.
    pub scopes: Vec<String>,
    /// The most that it would have been allowed to spend; `None` is what is left above it.
    pub cap: Option<Money>,
    /// Why not.
    pub reason: DelegationDenial,
}

/// Why a session is not opened below another one, in the order in which the reasons are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelegationDenial {
    /// The parent, or a session above it, was revoked.
    ParentRevoked,
    /// The time of the parent is over.
    ParentExpired,
    /// There would be too many sessions above it.
    TooDeep,
    /// It would hold a scope that the parent does not.
    ScopeBeyondParent,
    /// It could spend more than is left above it.
    BudgetBeyondParent,
}

pub(super) fn open(
    sessions: &Sessions,
    at: Timestamp,
    command: &OpenSession,
    parent_id: &SessionId,
) -> Result<Vec<Event>, Refusal> {
    let parent = sessions.get(parent_id).ok_or(Refusal::ParentUnknown)?;
    let asked = &command.grant;
    let left_above = sessions.remaining(parent_id);
    let is_held = |scope: &&String| scope::grants(&parent.scopes, scope);
    let scopes: Vec<String> = if command.scopes_are_default {
        asked.scopes.iter().filter(is_held).cloned().collect()
    } else {
        asked.scopes.clone()
    };
    let denial = match sessions.standing(parent, at) {
        Standing::Revoked => Some(DelegationDenial::ParentRevoked),
        Standing::Expired => Some(DelegationDenial::ParentExpired),
        Standing::Live if parent.depth >= DELEGATION_DEPTH_MAX => Some(DelegationDenial::TooDeep),
        Standing::Live if !scopes.iter().all(|scope| is_held(&scope)) => {
            Some(DelegationDenial::ScopeBeyondParent)
        }
        Standing::Live if asked.cap.zip(left_above).is_some_and(|(cap, left)| cap > left) => {
            Some(DelegationDenial::BudgetBeyondParent)
        }
        Standing::Live => None,
    };
    if let Some(reason) = denial {
        return Ok(vec![Event::DelegationDenied(DelegationDenied {
            parent: parent_id.clone(),
            agent_id: command.agent_id.clone(),
            scopes,
            cap: asked.cap,
            reason,
        })]);
    }
    let own_end = (command.ttl_s > 0).then(|| at.plus_seconds(command.ttl_s));
    Ok(vec![Event::SessionOpened(SessionOpened {
        session_id: command.session_id.clone(),
        agent_id: command.agent_id.clone(),
        scopes,
        cap: asked.cap.or(left_above),
        ttl_s: command.ttl_s,
        expires_at: own_end.into_iter().chain(parent.expires_at).min(),
        agent_limit: command.agent_limit,
        parent: Some(parent_id.clone()),
    })])
}

#[cfg(test)]
mod tests;
