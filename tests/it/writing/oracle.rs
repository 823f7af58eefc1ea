//! Whether a ledger is what a ledger must be, whatever happened to it before.

use std::collections::BTreeMap;
use std::sync::Arc;

use haldir::domain::audit::LogAction;
use haldir::domain::budgets::AuthorizePayment;
use haldir::domain::id::{Actor, EntryId, SessionId};
use haldir::domain::keys::{DenyAccess, MintKey, RevokeKey};
use haldir::domain::money::Money;
use haldir::domain::scope::Grant;
use haldir::domain::sessions::{CheckPermission, OpenSession, RevokeSession};
use haldir::domain::usage::MeterUsage;
use haldir::domain::{Command, Decision, Envelope, Event, Recorded, Tenant, apply, decide, record};
use haldir::format::verify::{Trust, Verifier};
use haldir::ledger::clock::ManualClock;
use haldir::ledger::handle::{LedgerHandle, Sizes};

use super::ledger::open;

/// Every hash, link, time and signature is right; every event is decided again from the stream alone; no budget is
/// overspent; and what readers see is what a start from the stored bytes gives.
pub(crate) fn check(handle: &LedgerHandle) {
    let store = handle.store();
    for (tenant, head) in store.heads().unwrap() {
        let mut verifier = Verifier::new(tenant.clone(), Trust::Keys(vec![handle.public_key()]));
        let mut state = Tenant::default();
        let mut budgets = Budgets::default();
        for bytes in store.read(&tenant, 0, usize::MAX).unwrap() {
            let entry = verifier.push(&bytes);
            let recorded =
                entry.unwrap_or_else(|flaw| panic!("seq {}: {flaw}", verifier.next_seq())).recorded;
            check_decided_again(&state, &recorded);
            budgets.check(&recorded.event);
            apply(&mut state, &recorded);
        }
        verifier.check_end(head.size, &head.hash).unwrap();
    }
    let (fresh, _) = open(Arc::clone(store), Arc::new(ManualClock::default()), Sizes::default()).unwrap();
    assert!(*fresh.read() == *handle.read(), "readers see something else than a start from the store");
    fresh.close();
}

/// Rebuilds the command from the event that it led to, and decides again.
fn check_decided_again(state: &Tenant, recorded: &Recorded) {
    let envelope = Envelope {
        at: recorded.at,
        actor: recorded.actor.clone(),
        request_id: recorded.request_id.clone(),
        idempotency: recorded.idempotency.clone(),
        is_deployment_new: recorded.actor == Actor::FirstCaller,
        command: command_of(&recorded.event),
    };
    match decide(state, &envelope) {
        Ok(Decision::Events(events)) => {
            let again: Vec<_> =
                events.into_iter().map(|event| record(&envelope, recorded.seq, event)).collect();
            assert_eq!(again, std::slice::from_ref(recorded));
        }
        other => panic!("{recorded:?} is decided again as {other:?}"),
    }
}

fn command_of(event: &Event) -> Command {
    let event = event.clone();
    // What a denial does not record made no difference to it.
    let unknown_session = || SessionId::parse("").unwrap();
    let unknown_entry = || EntryId::parse("").unwrap();
    match event {
        Event::KeyMinted(it) => {
            Command::MintKey(MintKey { prefix: it.prefix, hash: it.hash, name: it.name, scopes: it.scopes })
        }
        Event::KeyRevoked(it) => Command::RevokeKey(RevokeKey { prefix: it.prefix }),
        Event::AccessDenied(it) => {
            Command::DenyAccess(DenyAccess { required: it.required, operation: it.operation })
        }
        Event::SessionOpened(it) => Command::OpenSession(OpenSession {
            session_id: it.session_id,
            agent_id: it.agent_id,
            grant: Grant { scopes: it.scopes, cap: it.cap },
            ttl_s: it.ttl_s,
            agent_limit: it.agent_limit,
        }),
        Event::SessionDenied(it) => Command::OpenSession(OpenSession {
            session_id: unknown_session(),
            agent_id: it.agent_id,
            grant: Grant { scopes: vec![], cap: None },
            ttl_s: 0,
            agent_limit: Some(it.agent_limit),
        }),
        Event::SessionRevoked(it) => Command::RevokeSession(RevokeSession { session_id: it.session_id }),
        Event::PermissionChecked(it) => {
            Command::CheckPermission(CheckPermission { session_id: it.session_id, scope: it.scope })
        }
        Event::PaymentAuthorized(it) => Command::AuthorizePayment(AuthorizePayment {
            authorization_id: it.authorization_id,
            session_id: it.session_id,
            amount: it.amount,
            currency: it.currency,
            description: it.description,
        }),
        Event::PaymentDenied(it) => Command::AuthorizePayment(AuthorizePayment {
            authorization_id: it.authorization_id,
            session_id: it.session_id,
            amount: it.amount,
            currency: it.currency,
            description: it.description,
        }),
        Event::ActionLogged(it) => Command::LogAction(LogAction {
            entry_id: it.entry_id,
            session_id: it.session_id,
            action: it.action,
            tool: it.tool,
            cost: it.cost,
            details_digest: it.details_digest,
        }),
        Event::ActionRejected(it) => Command::LogAction(LogAction {
            entry_id: unknown_entry(),
            session_id: it.session_id,
            action: it.action,
            tool: it.tool,
            cost: Money::ZERO,
            details_digest: None,
        }),
        Event::UsageMetered(it) => Command::MeterUsage(MeterUsage { month: it.month, keys: it.keys }),
    }
}

/// Caps and sums, kept without the rules that are tested.
#[derive(Default)]
struct Budgets(BTreeMap<SessionId, (Option<u128>, u128)>);

impl Budgets {
    fn check(&mut self, event: &Event) {
        match event {
            Event::SessionOpened(opened) => {
                self.0.insert(opened.session_id.clone(), (opened.cap.map(Money::nanos), 0));
            }
            Event::PaymentAuthorized(paid) => {
                let (cap, spent) = self.0.get_mut(&paid.session_id).unwrap();
                *spent += paid.amount.nanos();
                assert!(cap.is_none_or(|cap| *spent <= cap), "overspent: {spent} of {cap:?}");
                assert_eq!(paid.remaining.map(Money::nanos), cap.map(|cap| cap - *spent));
            }
            Event::PaymentDenied(denied) => {
                let (cap, spent) = self.0[&denied.session_id];
                assert_eq!(denied.remaining.map(Money::nanos), cap.map(|cap| cap - spent));
            }
            _ => {}
        }
    }
}
