//! The audit trail: what agents say they did.
//!
//! The free-form details of an action are kept beside the ledger, so that they can be erased; the event holds their
//! salted digest, which binds them to it.

use serde::{Deserialize, Serialize};

use super::id::{AgentId, EntryId, SessionId};
use super::money::Money;
use super::sessions::{Sessions, Standing};
use super::time::Timestamp;
use super::{Event, Refusal};

/// Record what an agent did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogAction {
    /// The id that the entry gets.
    pub entry_id: EntryId,
    /// The session that acted.
    pub session_id: SessionId,
    /// What was done.
    pub action: String,
    /// With which tool; may be empty.
    pub tool: String,
    /// What it cost. Not debited from the session's budget.
    pub cost: Money,
    /// Salted digest of the details; `None` when there are none.
    pub details_digest: Option<[u8; 32]>,
}

/// An agent's action was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionLogged {
    /// The entry.
    pub entry_id: EntryId,
    /// The session that acted.
    pub session_id: SessionId,
    /// The session's agent.
    pub agent_id: AgentId,
    /// What was done.
    pub action: String,
    /// With which tool; may be empty.
    pub tool: String,
    /// What it cost.
    pub cost: Money,
    /// Salted digest of the details; `None` when there are none.
    pub details_digest: Option<[u8; 32]>,
    /// Why the action was flagged; `None` when it was not.
    pub flag: Option<String>,
}

/// An agent's action was not accepted, because its session had ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionRejected {
    /// The session that had ended.
    pub session_id: SessionId,
    /// What the agent says was done.
    pub action: String,
    /// With which tool; may be empty.
    pub tool: String,
    /// How the session had ended.
    pub reason: ActionRejection,
}

/// Why an action is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionRejection {
    /// The session was revoked.
    SessionRevoked,
    /// The session's time is over.
    SessionExpired,
}

/// How much the tenant logged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Actions recorded.
    pub logged: u64,
}

pub(super) fn log(sessions: &Sessions, at: Timestamp, command: &LogAction) -> Result<Vec<Event>, Refusal> {
    let session = sessions.get(&command.session_id).ok_or(Refusal::SessionUnknown)?;
    let rejected = |reason| {
        Event::ActionRejected(ActionRejected {
            session_id: command.session_id.clone(),
            action: command.action.clone(),
            tool: command.tool.clone(),
            reason,
        })
    };
    let event = match sessions.standing(session, at) {
        Standing::Revoked => rejected(ActionRejection::SessionRevoked),
        Standing::Expired => rejected(ActionRejection::SessionExpired),
        Standing::Live => Event::ActionLogged(ActionLogged {
            entry_id: command.entry_id.clone(),
            session_id: command.session_id.clone(),
            agent_id: session.agent_id.clone(),
            action: command.action.clone(),
            tool: command.tool.clone(),
            cost: command.cost,
            details_digest: command.details_digest,
            flag: None,
        }),
    };
    Ok(vec![event])
}

pub(super) fn apply_logged(audit: &mut Audit) {
    audit.logged += 1;
}

#[cfg(test)]
mod tests {
    use crate::domain::Command;
    use crate::domain::keys::tests::{
        agent_id, given, moment, opened, paid, session_id, session_revoked, usd,
    };
    use crate::domain::sessions::SessionOpened;

    use super::*;

    #[test]
    fn what_a_live_session_did_is_recorded_and_debits_nothing() {
        let story = given([Event::SessionOpened(opened("s", Some("5"))), paid("s", "5", Some("0"))]);
        let story = story.when(log()).then([logged()]).when(log()).then([logged()]);
        assert_eq!(story.state().audit.logged, 2);
        let budget = &story.state().sessions.get(&session_id("s")).unwrap().budget;
        assert_eq!(budget.spent(), usd("5"));
    }

    #[test]
    fn what_an_ended_session_did_is_rejected_with_the_reason() {
        let until = |seconds, session| SessionOpened { expires_at: Some(moment(seconds)), ..session };
        let session = Event::SessionOpened(until(60, opened("s", None)));
        given([session.clone()]).when(log()).at(moment(60)).then([logged()]);
        for (history, reason) in [
            (vec![session.clone()], ActionRejection::SessionExpired),
            (vec![session, session_revoked("s")], ActionRejection::SessionRevoked),
        ] {
            let rejected = ActionRejected {
                session_id: session_id("s"),
                action: "act".to_owned(),
                tool: "tool".to_owned(),
                reason,
            };
            let story = given(history).when(log()).at(moment(61)).then([Event::ActionRejected(rejected)]);
            assert_eq!(story.state().audit.logged, 0);
        }
    }

    #[test]
    fn nothing_is_recorded_of_a_session_that_never_was() {
        given([Event::SessionOpened(opened("t", None))]).when(log()).refused(Refusal::SessionUnknown);
    }

    fn log() -> Command {
        Command::LogAction(LogAction {
            entry_id: EntryId::parse("aud").unwrap(),
            session_id: session_id("s"),
            action: "act".to_owned(),
            tool: "tool".to_owned(),
            cost: usd("0.1"),
            details_digest: Some([7; 32]),
        })
    }

    fn logged() -> Event {
        Event::ActionLogged(ActionLogged {
            entry_id: EntryId::parse("aud").unwrap(),
            session_id: session_id("s"),
            agent_id: agent_id("agent"),
            action: "act".to_owned(),
            tool: "tool".to_owned(),
            cost: usd("0.1"),
            details_digest: Some([7; 32]),
            flag: None,
        })
    }
}
