//! Whether a ledger is what a ledger must be, whatever happened to it before.

use std::collections::BTreeMap;
use std::sync::Arc;

use haldir::domain::Event;
use haldir::domain::id::SessionId;
use haldir::domain::money::Money;
use haldir::format::verify::{Trust, Verifier};
use haldir::ledger::clock::ManualClock;
use haldir::ledger::handle::{LedgerHandle, Sizes};

use super::ledger::open;

/// Every hash, link, time and signature is right; every event is decided again from the stream alone; no budget is
/// overspent; and what readers see is what a start from the stored bytes gives.
pub(crate) fn check(handle: &LedgerHandle) {
    let store = handle.store();
    for (tenant, head) in store.heads().unwrap() {
        let mut verifier = Verifier::new(tenant.clone(), Trust::keys(vec![handle.public_key()]));
        let mut budgets = Budgets::default();
        for bytes in store.read(&tenant, 0, usize::MAX).unwrap() {
            let entry = verifier.push(&bytes);
            let recorded =
                entry.unwrap_or_else(|flaw| panic!("seq {}: {flaw}", verifier.next_seq())).recorded;
            budgets.check(&recorded.event);
        }
        verifier.check_end(head.size, &head.hash).unwrap();
        assert_eq!(verifier.summary().decided, (0, head.size));
    }
    let (fresh, _) = open(Arc::clone(store), Arc::new(ManualClock::default()), Sizes::default()).unwrap();
    assert!(*fresh.read() == *handle.read(), "readers see something else than a start from the store");
    fresh.close();
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
