//! Retries: a request that carries an idempotency key is carried out once, and its first outcome is repeated.
//!
//! The key is recorded in the event that settled the request, so repeats survive a restart, and because one thread
//! decides in order, of simultaneous first uses exactly one is carried out.

use serde::{Deserialize, Serialize};

use super::id::Actor;
use super::limits::IDEMPOTENCY_TTL_S;
use super::table::Table;
use super::time::Timestamp;
use super::{Envelope, Recorded, Refusal};

/// A caller's wish that retries repeat the first outcome.
///
/// Both values are keyed digests: neither the caller's key nor its request can be read from the ledger.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Idempotency {
    /// Digest of the caller's scope, the endpoint and the idempotency key.
    pub key: [u8; 32],
    /// Digest of what was asked.
    pub fingerprint: [u8; 32],
}

/// Outcomes that retries repeat, for [`IDEMPOTENCY_TTL_S`] seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replays {
    by_key: Table<[u8; 32], Settled>,
    by_expiry: Table<(Timestamp, [u8; 32]), ()>,
    /// The key under which the tenant was founded by somebody who had no key of its: a retry cannot name the tenant.
    founding: Option<[u8; 32]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Settled {
    fingerprint: [u8; 32],
    seq: u64,
    expires_at: Timestamp,
}

impl Replays {
    /// Whether an outcome under this key is still repeated at `at`.
    #[must_use]
    pub fn repeats(&self, key: &[u8; 32], at: Timestamp) -> bool {
        self.by_key.get(key).is_some_and(|settled| at < settled.expires_at)
    }

    /// The key under which the tenant was founded, if it was founded by a request that may be repeated.
    #[must_use]
    pub const fn founding(&self) -> Option<&[u8; 32]> {
        self.founding.as_ref()
    }

    fn first_to_expire(&self) -> Option<(Timestamp, [u8; 32])> {
        self.by_expiry.into_iter().next().map(|(first, ())| *first)
    }
}

/// Finds the event that settled the same request before.
///
/// # Errors
///
/// [`Refusal::IdempotencyMismatch`] when the key settled another request.
pub(super) fn find(replays: &Replays, envelope: &Envelope) -> Result<Option<u64>, Refusal> {
    let Some(idempotency) = &envelope.idempotency else {
        return Ok(None);
    };
    match replays.by_key.get(&idempotency.key) {
        Some(settled) if envelope.at >= settled.expires_at => Ok(None),
        Some(settled) if settled.fingerprint == idempotency.fingerprint => Ok(Some(settled.seq)),
        Some(_) => Err(Refusal::IdempotencyMismatch),
        None => Ok(None),
    }
}

pub(super) fn apply(replays: &mut Replays, recorded: &Recorded) {
    // Expired outcomes leave here, by the time of the event, so that every replay forgets them at the same point.
    while let Some(first) = replays.first_to_expire().filter(|(expires_at, _)| recorded.at >= *expires_at) {
        replays.by_expiry.remove_cow(&first);
        replays.by_key.remove_cow(&first.1);
    }
    if let Some(idempotency) = &recorded.idempotency {
        let expires_at = recorded.at.plus_seconds(IDEMPOTENCY_TTL_S);
        let settled = Settled { fingerprint: idempotency.fingerprint, seq: recorded.seq, expires_at };
        replays.by_key.insert_cow(idempotency.key, settled);
        replays.by_expiry.insert_cow((expires_at, idempotency.key), ());
        if matches!(recorded.actor, Actor::Bootstrap | Actor::FirstCaller) {
            replays.founding = Some(idempotency.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::budgets::{AuthorizePayment, PaymentDenial, PaymentDenied};
    use crate::domain::id::ApprovalId;
    use crate::domain::keys::tests::{
        Story, agent_id, authorization_id, given, key, key_revoked, mint, minted, moment, opened, paid,
        revoke_key, session_id, session_revoked, usd,
    };
    use crate::domain::sessions::{CheckPermission, PermissionChecked, Verdict};
    use crate::domain::{Command, Event};

    use super::*;

    #[test]
    fn the_first_outcome_is_repeated_for_a_day() {
        let first = moment(10);
        let end = first.plus_seconds(IDEMPOTENCY_TTL_S);
        let just_before = Timestamp::from_micros(end.micros() - 1);
        let story = with_session().when(pay("1")).once(1, 1).at(first).then([paid("s", "1", Some("9"))]);
        let story = story.when(pay("1")).once(1, 1).at(first.next()).replays(1);
        let story = story.when(pay("2")).once(1, 2).at(just_before).refused(Refusal::IdempotencyMismatch);
        let story = story.when(pay("1")).once(1, 1).at(just_before).replays(1);
        let story = story.when(pay("2")).once(1, 2).at(end).then([paid("s", "2", Some("7"))]);
        let story = story.when(pay("2")).once(1, 2).at(end.next()).replays(2);
        story.when(pay("1")).once(1, 1).at(end.next()).refused(Refusal::IdempotencyMismatch);
    }

    #[test]
    fn a_denial_by_the_budget_is_repeated_too() {
        let story =
            with_session().when(pay("11")).once(1, 1).then([denied("11", PaymentDenial::BudgetExceeded)]);
        story.when(pay("11")).once(1, 1).replays(1);
    }

    #[test]
    fn what_settles_nothing_is_asked_anew() {
        let check = CheckPermission { session_id: session_id("s"), scope: "spend".to_owned() };
        let checked = |verdict| {
            let (session_id, scope) = (session_id("s"), "spend".to_owned());
            Event::PermissionChecked(PermissionChecked { session_id, scope, verdict })
        };
        let ask = |story: Story| story.when(Command::CheckPermission(check.clone())).once(1, 1);
        let story = ask(with_session()).then([checked(Verdict::Allowed)]);
        let revoked = given([Event::SessionOpened(opened("s", Some("10"))), session_revoked("s")]);
        let story = ask(story).then([checked(Verdict::Allowed)]);
        assert_eq!(story.state().replays, Replays::default());

        let story = revoked.when(pay("1")).once(1, 1).then([denied("1", PaymentDenial::SessionRevoked)]);
        // Not even the content has to be the same: nothing was settled under this key.
        let story = story.when(pay("2")).once(1, 2).then([denied("2", PaymentDenial::SessionRevoked)]);
        assert_eq!(story.state().replays, Replays::default());
    }

    #[test]
    fn a_request_without_an_idempotency_key_is_carried_out_each_time() {
        let story = with_session().when(pay("1")).then([paid("s", "1", Some("9"))]);
        let story = story.when(pay("1")).then([paid("s", "1", Some("8"))]);
        assert_eq!(story.state().replays, Replays::default());
    }

    #[test]
    fn a_caller_without_standing_is_not_even_told_what_happened_before() {
        given([minted("k", "*")])
            .when(mint("l", "*"))
            .by(key("k"))
            .once(1, 1)
            .then([minted("l", "*")])
            .when(mint("l", "*"))
            .by(key("k"))
            .once(1, 1)
            .replays(1)
            .when(revoke_key("k"))
            .then([key_revoked("k")])
            .when(mint("l", "*"))
            .by(key("k"))
            .once(1, 1)
            .refused(Refusal::ActorInactive)
            .when(mint("l", "*"))
            .by(key("l"))
            .once(1, 1)
            .replays(1);
    }

    #[test]
    fn outcomes_that_nobody_can_ask_for_any_more_take_no_room() {
        let mut story = with_session();
        for number in 0..30_u8 {
            let (day, second) = (u64::from(number / 3), u64::from(number % 3));
            let at = moment(100 + day * IDEMPOTENCY_TTL_S + second);
            story = story.when(pay("0")).once(number, 0).at(at).then([paid("s", "0", Some("10"))]);
        }
        let replays = &story.state().replays;
        assert_eq!((replays.by_key.len(), replays.by_expiry.len()), (3, 3));
    }

    fn with_session() -> Story {
        given([Event::SessionOpened(opened("s", Some("10")))])
    }

    fn pay(amount: &str) -> Command {
        Command::AuthorizePayment(AuthorizePayment {
            authorization_id: authorization_id(),
            session_id: session_id("s"),
            amount: usd(amount),
            currency: "USD".to_owned(),
            description: "what for".to_owned(),
            tool: String::new(),
            action: String::new(),
            approval_id: None,
            request_id: ApprovalId::parse("").unwrap(),
        })
    }

    fn denied(amount: &str, reason: PaymentDenial) -> Event {
        Event::PaymentDenied(PaymentDenied {
            authorization_id: authorization_id(),
            session_id: session_id("s"),
            agent_id: agent_id("agent"),
            amount: usd(amount),
            currency: "USD".to_owned(),
            description: "what for".to_owned(),
            remaining: Some(usd("10")),
            reason,
            tool: String::new(),
            action: String::new(),
            bound: None,
            approval_id: None,
        })
    }
}
