//! Is every decision given again from what was recorded of it, whatever is asked in whatever order?
//!
//! Everything that spends or lets somebody act is asked for at random: sessions below each other, caps, payments and
//! reservations, rules and approvals, secrets, and the proxy's upstreams, policies and calls.

mod ask;

use std::collections::BTreeMap;

use haldir::domain::id::{Actor, RequestId, SessionId};
use haldir::domain::money::Money;
use haldir::domain::rederive::{Due, Rederived, rederive};
use haldir::domain::replays::Idempotency;
use haldir::domain::time::Timestamp;
use haldir::domain::{
    Command, Decision, Envelope, Event, Recorded, Refusal, Tenant, apply, decide, due, record,
};
use haldir::format::verify::{Trust, Verifier};
use proptest::prelude::*;

use crate::samples::{random_cases, sealed, signer, tenant};
use ask::any_ask;

proptest! {
    #![proptest_config(random_cases(256, "proptest-regressions/decisions.txt"))]

    #[test]
    fn every_decision_is_given_again_and_no_budget_is_exceeded(
        asks in prop::collection::vec((any_ask(), any_pause(), any_retry()), 1..60),
    ) {
        let mut play = Play::default();
        for (ask, pause_us, retry) in asks {
            play.at = Timestamp::from_micros(play.at.micros() + pause_us);
            let command = ask.command(&play.state, play.stream.len());
            // What is refused changes nothing, and what is decided is recorded and checked.
            let _ = play.ask(Actor::Operator, retry, command);
            play.check_caps();
            play.check_what_is_held();
        }
        play.check_approvals();
        play.check_bytes();
        play.end_everything();
    }
}

/// Mostly moments, sometimes until windows, limits and waiting are over.
fn any_pause() -> impl Strategy<Value = u64> {
    const SECOND: u64 = 1_000_000;
    let pauses = [1, SECOND, 5 * SECOND, 59 * SECOND, 60 * SECOND, 1800 * SECOND, 86_400 * SECOND];
    prop_oneof![8 => Just(1), 2 => prop::sample::select(pauses.to_vec())]
}

fn any_retry() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![4 => Just(None), 1 => (0..3_u8).prop_map(Some)]
}

/// A stream as it comes about.
struct Play {
    state: Tenant,
    stream: Vec<Recorded>,
    due: Due,
    at: Timestamp,
}

impl Default for Play {
    fn default() -> Self {
        let at = Timestamp::from_micros(1_700_000_000_000_000);
        let mut play = Self { state: Tenant::default(), stream: vec![], due: Due::default(), at };
        for command in ask::beginning() {
            play.ask(Actor::Operator, None, command).unwrap();
        }
        play
    }
}

impl Play {
    /// Asks as the ledger does: first for what the passing of time leads to.
    fn ask(&mut self, actor: Actor, retry: Option<u8>, command: Command) -> Result<(), Refusal> {
        while let Some(command) = due(&self.state, self.now()) {
            self.decide(Actor::System, None, command).unwrap();
        }
        self.decide(actor, retry, command)
    }

    fn now(&self) -> Timestamp {
        let last = self.stream.last().map_or(0, |recorded| recorded.at.micros());
        Timestamp::from_micros(self.at.micros().max(last + 1))
    }

    fn decide(&mut self, actor: Actor, retry: Option<u8>, command: Command) -> Result<(), Refusal> {
        let envelope = Envelope {
            seq: self.stream.len() as u64,
            at: self.now(),
            actor,
            request_id: RequestId::parse(&format!("request-{}", self.stream.len())).unwrap(),
            idempotency: retry.map(|key| Idempotency { key: [key; 32], fingerprint: [key; 32] }),
            is_deployment_new: false,
            command,
        };
        let Decision::Events(events) = decide(&self.state, &envelope)? else { return Ok(()) };
        for recorded in record(&envelope, events) {
            let again = rederive(&self.state, &mut self.due, &recorded);
            assert_eq!(again, Rederived::Same, "{recorded:?}");
            apply(&mut self.state, &recorded);
            self.stream.push(recorded);
        }
        assert_eq!(self.due.next(), None, "the decision is whole");
        Ok(())
    }

    /// What a session and those below it spent and hold never exceeds its cap.
    fn check_caps(&self) {
        for (session_id, session) in self.state.sessions.newest_first() {
            let tally = &session.budget.tally;
            let used = tally.spent.plus(tally.held).unwrap();
            assert!(session.budget.cap.is_none_or(|cap| used <= cap), "{session_id}: {session:?}");
        }
    }

    /// What is held is what open calls and reservations may come to, at every level.
    fn check_what_is_held(&self) {
        let calls = self.state.calls.open();
        let calls = calls.map(|(_, call)| (call.session_id.clone(), call.price.unwrap_or(Money::ZERO)));
        let reservations = self.state.reservations.open().map(|(_, it)| (it.session_id.clone(), it.amount));
        let mut expected = BTreeMap::new();
        let mut in_all = Money::ZERO;
        for (session_id, amount) in calls.chain(reservations) {
            in_all = in_all.plus(amount).unwrap();
            let above = |session_id: &SessionId| self.state.sessions.get(session_id)?.parent.clone();
            for payer in std::iter::successors(Some(session_id), above) {
                let held = expected.entry(payer).or_insert(Money::ZERO);
                *held = held.plus(amount).unwrap();
            }
        }
        for (session_id, session) in self.state.sessions.newest_first() {
            let expected = expected.get(session_id).copied().unwrap_or(Money::ZERO);
            assert_eq!(session.budget.tally.held, expected, "{session_id}");
        }
        assert_eq!(self.state.accounts.tenant().held, in_all);
    }

    /// No approval is used twice, and none that nobody gave.
    fn check_approvals(&self) {
        let mut used: BTreeMap<_, u32> = BTreeMap::new();
        for recorded in &self.stream {
            let approval_id = match &recorded.event {
                Event::CallAuthorized(it) => it.approval_id.as_ref(),
                Event::PaymentAuthorized(it) => it.approval_id.as_ref(),
                Event::PaymentReserved(it) => it.approval_id.as_ref(),
                _ => None,
            };
            if let Some(approval_id) = approval_id {
                *used.entry(approval_id.clone()).or_default() += 1;
            }
        }
        for (approval_id, times) in used {
            let approval = self.state.approvals.get(&approval_id).unwrap();
            assert_eq!(times, 1, "{approval_id}");
            assert!(approval.used_by.is_some() && !approval.approved_by.is_empty(), "{approval:?}");
        }
    }

    /// Whoever reads the bytes comes to the same state, and derives every decision again.
    fn check_bytes(&self) {
        let mut verifier = Verifier::new(tenant(), Trust::keys(vec![signer().public_key()]));
        for entry in sealed(&tenant(), &self.stream) {
            verifier.push(&entry.bytes).unwrap();
        }
        assert_eq!(verifier.summary().decided, (0, self.stream.len() as u64));
        assert!(verifier.state() == Some(&self.state), "the fold of the bytes is another one");
    }

    /// When every call has an outcome and every reservation is over, nothing is held.
    fn end_everything(mut self) {
        let calls: Vec<_> = self.state.calls.open().map(|(id, _)| id.clone()).collect();
        let ends = calls.into_iter().map(ask::not_sent);
        let reservations: Vec<_> = self.state.reservations.open().map(|(id, _)| id.clone()).collect();
        let ends: Vec<Command> = ends.chain(reservations.into_iter().map(ask::release)).collect();
        for command in ends {
            // Some may have become due by now.
            let _ = self.ask(Actor::Operator, None, command);
        }
        self.check_what_is_held();
        assert_eq!(self.state.calls.open().count() + self.state.reservations.open().count(), 0);
        assert_eq!(self.state.accounts.tenant().held, Money::ZERO);
    }
}
