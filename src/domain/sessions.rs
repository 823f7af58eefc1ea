//! Sessions: a named agent's permission to act, for a time, within scopes and a budget.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::budgets::Budget;
use super::id::{AgentId, SessionId};
use super::money::Money;
use super::table::Table;
use super::time::Timestamp;
use super::{Event, Refusal, delegation, scope};

/// Open a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSession {
    /// The new session's id.
    pub session_id: SessionId,
    /// The agent that will act.
    pub agent_id: AgentId,
    /// What it may do and spend. Below another session no cap asks for what is left there.
    pub grant: scope::Grant,
    /// Whether the scopes were not asked for: below another session only those count that it holds itself.
    pub scopes_are_default: bool,
    /// Seconds until it expires; 0 is never. Below another session never longer than that one.
    pub ttl_s: u64,
    /// The session that it is opened below; `None` for a root.
    pub parent: Option<SessionId>,
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
    /// The session that it was opened below; `None` for a root.
    pub parent: Option<SessionId>,
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    by_id: Table<SessionId, Arc<Session>>,
    /// Sessions by the position of their opening, for listing in order.
    by_seq: Table<u64, SessionId>,
    /// Sessions by the one that they were opened below, and the position of their opening.
    children: Table<(SessionId, u64), SessionId>,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Whether it was revoked itself. What is above it counts too: see [`Sessions::standing`].
    pub is_revoked: bool,
    /// The session that it was opened below; `None` for a root.
    pub parent: Option<SessionId>,
    /// How many sessions stand above it.
    pub depth: u8,
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
    /// Whether the session itself can be used at `at`. The moment of expiry itself still counts as live.
    fn own_standing(&self, at: Timestamp) -> Standing {
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
        self.by_id.get(id).map(|session| &**session)
    }

    /// Whether a session can be used at `at`: whether it and every session above it can. The moment of expiry itself still
    /// counts as live.
    #[must_use]
    pub fn standing(&self, session: &Session, at: Timestamp) -> Standing {
        let above = session.parent.iter().flat_map(|parent| self.lineage(parent)).map(|(_, it)| it);
        let ended = |it: &Session| Some(it.own_standing(at)).filter(|standing| *standing != Standing::Live);
        [session].into_iter().chain(above).find_map(ended).unwrap_or(Standing::Live)
    }

    /// A session and every session above it, the root last.
    pub fn lineage<'a>(&'a self, id: &'a SessionId) -> impl Iterator<Item = (&'a SessionId, &'a Session)> {
        let first = self.get(id).map(|session| (id, session));
        std::iter::successors(first, |(_, session)| {
            let parent = session.parent.as_ref()?;
            self.get(parent).map(|above| (parent, above))
        })
    }

    /// What a session may still spend, as far as the caps go that it and the sessions above it were opened with; `None` when
    /// none of them has one.
    #[must_use]
    pub fn remaining(&self, id: &SessionId) -> Option<Money> {
        self.lineage(id).filter_map(|(_, session)| session.budget.remaining()).min()
    }

    /// The sessions that were opened directly below one, in the order of their opening.
    pub fn children(&self, id: &SessionId) -> impl Iterator<Item = (&SessionId, &Session)> {
        let range = (id.clone(), 0)..=(id.clone(), u64::MAX);
        self.children.range(range).filter_map(|(_, child)| Some((child, self.get(child)?)))
    }

    /// Every session below one, level by level.
    #[must_use]
    pub fn descendants(&self, id: &SessionId) -> Vec<(&SessionId, &Session)> {
        let mut found: Vec<_> = self.children(id).collect();
        let mut next = 0;
        while let Some((child, _)) = found.get(next).copied() {
            found.extend(self.children(child));
            next += 1;
        }
        found
    }

    /// The session with this id, for the areas that change a part of it.
    pub(super) fn get_mut(&mut self, id: &SessionId) -> Option<&mut Session> {
        self.by_id.get_mut_cow(id).map(Arc::make_mut)
    }

    /// All sessions, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = (&SessionId, &Session)> {
        let newest_first = self.by_seq.into_iter().rev();
        newest_first.filter_map(|(_, id)| self.by_id.get(id).map(|session| (id, &**session)))
    }

    /// The agents that hold a live session at `at`.
    #[must_use]
    pub fn live_agents(&self, at: Timestamp) -> BTreeSet<&AgentId> {
        self.live(at).map(|session| &session.agent_id).collect()
    }

    fn live(&self, at: Timestamp) -> impl Iterator<Item = &Session> {
        let sessions = self.by_id.into_iter().map(|(_, session)| &**session);
        sessions.filter(move |session| self.standing(session, at) == Standing::Live)
    }
}

pub(super) fn open(sessions: &Sessions, at: Timestamp, command: &OpenSession) -> Result<Vec<Event>, Refusal> {
    if sessions.get(&command.session_id).is_some() {
        return Err(Refusal::SessionIdTaken);
    }
    if let Some(parent) = &command.parent {
        return delegation::open(sessions, at, command, parent);
    }
    if let Some(agent_limit) = command.agent_limit {
        // Agents that only hold sessions below others are not counted, but they are no newcomers either.
        let live_agents = sessions.live_agents(at);
        let roots = sessions.live(at).filter(|session| session.parent.is_none());
        let agents_live = roots.map(|session| &session.agent_id).collect::<BTreeSet<_>>().len() as u64;
        if !live_agents.contains(&command.agent_id) && agents_live >= agent_limit {
            return Ok(vec![Event::SessionDenied(SessionDenied {
                agent_id: command.agent_id.clone(),
                agent_limit,
                agents_live,
            })]);
        }
    }
    Ok(vec![Event::SessionOpened(SessionOpened {
        session_id: command.session_id.clone(),
        agent_id: command.agent_id.clone(),
        scopes: command.grant.scopes.clone(),
        cap: command.grant.cap,
        ttl_s: command.ttl_s,
        expires_at: (command.ttl_s > 0).then(|| at.plus_seconds(command.ttl_s)),
        agent_limit: command.agent_limit,
        parent: None,
    })])
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
        Some(session) => match sessions.standing(session, at) {
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
        budget: Budget::of(event.cap),
        created_at: at,
        expires_at: event.expires_at,
        is_revoked: false,
        parent: event.parent.clone(),
        depth: event
            .parent
            .as_ref()
            .and_then(|parent| sessions.get(parent))
            .map_or(0, |above| above.depth + 1),
    };
    sessions.by_id.insert_cow(event.session_id.clone(), Arc::new(session));
    sessions.by_seq.insert_cow(seq, event.session_id.clone());
    if let Some(parent) = &event.parent {
        sessions.children.insert_cow((parent.clone(), seq), event.session_id.clone());
    }
}

pub(super) fn apply_revoked(sessions: &mut Sessions, event: &SessionRevoked) {
    if let Some(session) = sessions.get_mut(&event.session_id) {
        session.is_revoked = true;
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::Command;
    use crate::domain::keys::tests::{agent_id, given, moment, opened, session_id, session_revoked, usd};

    use super::*;

    #[test]
    fn a_session_lives_as_long_as_it_was_opened_for() {
        let asked = OpenSession { ttl_s: 60, ..open("s", "agent") };
        let expected = SessionOpened { ttl_s: 60, expires_at: Some(moment(70)), ..opened("s", Some("5")) };
        let story = given([]).when(Command::OpenSession(asked)).at(moment(10));
        let story = story.then([Event::SessionOpened(expected)]);
        let session = story.state().sessions.get(&session_id("s")).unwrap();
        assert_eq!((session.created_at, session.expires_at), (moment(10), Some(moment(70))));
        assert_eq!(
            session.own_standing(moment(70)),
            Standing::Live,
            "the moment of expiry itself still counts"
        );
        assert_eq!(session.own_standing(moment(70).next()), Standing::Expired);

        let asked = Command::OpenSession(open("s", "agent"));
        let story = given([]).when(asked).then([Event::SessionOpened(opened("s", Some("5")))]);
        let session = story.state().sessions.get(&session_id("s")).unwrap();
        assert_eq!(
            session.own_standing(Timestamp::from_micros(u64::MAX)),
            Standing::Live,
            "no ttl is for ever"
        );
    }

    #[test]
    fn a_session_is_not_opened_twice() {
        let story = given([Event::SessionOpened(opened("s", Some("5"))), session_revoked("s")]);
        let again = Command::OpenSession(open("s", "agent"));
        story.when(again).refused(Refusal::SessionIdTaken);
    }

    #[test]
    fn as_many_agents_as_may_hold_live_sessions() {
        let limited = |agent, limit| {
            Command::OpenSession(OpenSession { agent_limit: Some(limit), ..open("new", agent) })
        };
        let allowed = |agent, limit| {
            let session = SessionOpened { agent_limit: Some(limit), ..of_agent("new", agent) };
            Event::SessionOpened(session)
        };
        let denied = |agent, agent_limit, agents_live| {
            Event::SessionDenied(SessionDenied { agent_id: agent_id(agent), agent_limit, agents_live })
        };
        let until = |seconds, session| SessionOpened { expires_at: Some(moment(seconds)), ..session };
        let story = given([
            Event::SessionOpened(of_agent("s1", "one")),
            Event::SessionOpened(of_agent("s2", "one")),
            Event::SessionOpened(until(60, of_agent("s3", "two"))),
            Event::SessionOpened(of_agent("s4", "three")),
            session_revoked("s4"),
        ]);
        let ask = |agent, limit| story.clone().when(limited(agent, limit));
        ask("four", 2).then([denied("four", 2, 2)]);
        ask("three", 2).then([denied("three", 2, 2)]);
        ask("four", 3).then([allowed("four", 3)]);
        ask("one", 1).then([allowed("one", 1)]);
        ask("four", 0).then([denied("four", 0, 2)]);
        ask("four", 2).at(moment(60)).then([denied("four", 2, 2)]);
        ask("four", 2).at(moment(60).next()).then([allowed("four", 2)]);
        ask("two", 1).at(moment(61)).then([denied("two", 1, 1)]);
    }

    #[test]
    fn a_session_is_revoked_once() {
        let revoke = |name| Command::RevokeSession(RevokeSession { session_id: session_id(name) });
        let ended = SessionOpened { expires_at: Some(moment(5)), ..opened("s", None) };
        let story = given([Event::SessionOpened(ended)]);
        let story = story.when(revoke("t")).refused(Refusal::SessionUnknown);
        let story = story.when(revoke("s")).at(moment(9)).then([session_revoked("s")]);
        story.when(revoke("s")).at(moment(10)).then([]);
    }

    #[test]
    fn every_check_is_answered_and_the_worst_is_said_first() {
        let session = SessionOpened {
            expires_at: Some(moment(60)),
            scopes: vec!["read".to_owned(), "stripe:refund".to_owned()],
            ..opened("s", None)
        };
        let live = given([Event::SessionOpened(session.clone())]);
        let revoked = given([Event::SessionOpened(session), session_revoked("s")]);
        for (story, name, scope, seconds, verdict) in [
            (&live, "s", "read", 60, Verdict::Allowed),
            (&live, "s", "stripe:refund:partial", 60, Verdict::Allowed),
            (&live, "s", "stripe", 60, Verdict::ScopeMissing),
            (&live, "s", "", 60, Verdict::ScopeMissing),
            (&live, "s", "write", 61, Verdict::SessionExpired),
            (&revoked, "s", "write", 61, Verdict::SessionRevoked),
            (&revoked, "t", "read", 60, Verdict::SessionUnknown),
        ] {
            let check = CheckPermission { session_id: session_id(name), scope: scope.to_owned() };
            let checked =
                PermissionChecked { session_id: session_id(name), scope: scope.to_owned(), verdict };
            let question = story.clone().when(Command::CheckPermission(check)).at(moment(seconds));
            let after = question.then([Event::PermissionChecked(checked)]);
            assert_eq!(after.state(), story.state(), "a question changes nothing");
        }
    }

    #[test]
    fn sessions_are_listed_newest_first() {
        let names = ["b", "c", "a"];
        let story = given(names.map(|name| Event::SessionOpened(opened(name, None))));
        let listed: Vec<_> = story.state().sessions.newest_first().map(|(id, _)| id.to_string()).collect();
        assert_eq!(listed, ["a", "c", "b"]);
    }

    fn open(name: &str, agent: &str) -> OpenSession {
        let grant = scope::Grant { scopes: vec!["spend".to_owned()], cap: Some(usd("5")) };
        let (session_id, agent_id) = (session_id(name), agent_id(agent));
        let (scopes_are_default, parent) = (false, None);
        OpenSession { session_id, agent_id, grant, scopes_are_default, ttl_s: 0, parent, agent_limit: None }
    }

    fn of_agent(name: &str, agent: &str) -> SessionOpened {
        SessionOpened { agent_id: agent_id(agent), ..opened(name, Some("5")) }
    }
}
