//! Is everything that was asked done once, in order, and as told?

use std::sync::Arc;

use haldir::domain::budgets::PaymentDenial;
use haldir::domain::id::Actor;
use haldir::domain::money::Money;
use haldir::domain::time::Timestamp;
use haldir::domain::{Event, Refusal};
use haldir::ledger::handle::Sizes;
use haldir::ledger::{LedgerError, Request};
use haldir::store::{EventStore as _, SideKind, SideRow};

pub(crate) mod ledger;
pub(crate) mod model;
pub(crate) mod oracle;
mod views;

use ledger::{
    START_S, TestLedger, answers, by, event, log, meter, mint, once, open_session, pay, prefix, request,
    revoke_key, revoke_session, seconds, tenant_id, wait,
};

const DAY_S: u64 = 86_400;

#[test]
fn two_hundred_parallel_payments_get_exactly_what_the_budget_holds() {
    for (cap, amount, authorized) in [
        (100_000_000_000, 3_370_000_001, 29),
        (1_000_000_007, 7_000_003, 142),
        (999, 333, 3),
        (999, 334, 2),
        (5, 6, 0),
        (u128::from(u64::MAX), 1, 200),
    ] {
        let ledger = TestLedger::new();
        ledger.submit(request("t", open_session("s", cap))).unwrap();
        let paid = in_parallel(&ledger, 200, |_| request("t", pay("s", amount)));
        let granted =
            paid.iter().filter(|answer| matches!(event(answer), Event::PaymentAuthorized(_))).count();
        assert_eq!(granted, authorized, "{amount} of {cap}");
        assert_eq!(spent(&ledger, "s"), amount * authorized as u128);
        ledger.check();
    }
}

#[test]
fn parallel_payments_of_odd_amounts_are_denied_only_when_the_budget_holds_less() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 50_000_000_001))).unwrap();
    let amount = |number: usize| 1_000_000_007 + (number as u128 * 7919 % 101) * 10_000_019;
    let paid = in_parallel(&ledger, 200, |number| request("t", pay("s", amount(number))));
    let mut sum = 0;
    for answer in &paid {
        match event(answer) {
            Event::PaymentAuthorized(paid) => sum += paid.amount.nanos(),
            Event::PaymentDenied(denied) => {
                assert_eq!(denied.reason, PaymentDenial::BudgetExceeded);
                assert!(denied.remaining < Some(denied.amount), "{denied:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(spent(&ledger, "s"), sum);
    ledger.check();
}

#[test]
fn of_simultaneous_first_uses_of_an_idempotency_key_one_is_carried_out() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 1000))).unwrap();
    let pay_once = || once(1, 1, request("t", pay("s", 10)));
    // From many threads, however they fall into batches; and for certain within one batch.
    let mut paid = in_parallel(&ledger, 40, |_| pay_once());
    paid.extend(ledger.submit_as_one_batch((0..40).map(|_| once(2, 2, request("t", pay("s", 10))))));
    for paid in [&paid[..40], &paid[40..]] {
        let receipts: Vec<_> = paid.iter().map(|answer| answer.as_ref().unwrap()).collect();
        assert_eq!(receipts.iter().filter(|receipt| !receipt.is_replay).count(), 1);
        assert!(receipts.iter().all(|receipt| receipt.events == receipts[0].events));
    }
    assert_eq!(spent(&ledger, "s"), 20);
    assert_eq!(ledger.events("t").len(), 3);
    ledger.check();
}

#[test]
fn retries_in_the_batch_of_the_first_use_find_the_outcome_of_their_own_tenant() {
    let ledger = TestLedger::new();
    let names = ["t", "u"];
    for name in names {
        ledger.submit(request(name, open_session("s", 1000))).unwrap();
    }
    // The same idempotency key and the same seq, in two streams.
    let ask = || names.map(|name| once(1, 1, request(name, pay("s", 10))));
    let answers = ledger.submit_as_one_batch([ask(), ask()].concat());
    for (number, answer) in answers.iter().enumerate() {
        let receipt = answer.as_ref().unwrap();
        assert_eq!(receipt.is_replay, number >= 2);
        assert_eq!(receipt.events[0].tenant, tenant_id(names[number % 2]));
    }
    ledger.check();
}

#[test]
fn a_retry_gets_the_first_receipt_even_after_a_restart() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 1000))).unwrap();
    let asked = [
        once(1, 1, request("t", pay("s", 10))),
        once(2, 2, request("t", pay("s", 5000))),
        once(3, 3, request("t", log("s", "aud_1"))),
        once(4, 4, request("t", open_session("s2", 1))),
        once(5, 5, request("t", mint(1))),
    ];
    let first: Vec<_> = asked.iter().map(|it| ledger.submit(it.clone()).unwrap()).collect();
    let size = ledger.entries("t").len();
    let ledger = ledger.restart();
    for (asked, first) in asked.into_iter().zip(first) {
        let again = ledger.submit(asked).unwrap();
        assert!(again.is_replay && !first.is_replay);
        assert_eq!(again.events, first.events);
    }
    assert_eq!(ledger.entries("t").len(), size, "a retry leaves no trace");
    ledger.check();
}

#[test]
fn an_outcome_that_is_not_final_is_not_repeated() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 1000))).unwrap();
    ledger.submit(request("t", revoke_session("s"))).unwrap();
    for _ in 0..2 {
        let paid = ledger.submit(once(1, 1, request("t", pay("s", 10))));
        assert!(
            matches!(event(&paid), Event::PaymentDenied(it) if it.reason == PaymentDenial::SessionRevoked)
        );
        let logged = ledger.submit(once(2, 2, request("t", log("s", "aud_1"))));
        assert!(matches!(event(&logged), Event::ActionRejected(_)));
    }
    // Refused, so the key is free for another request.
    let refused = ledger.submit(once(3, 3, request("t", pay("nobody", 10))));
    assert_eq!(refused.unwrap_err(), LedgerError::Refused(Refusal::SessionUnknown));
    event(&ledger.submit(once(3, 4, request("t", open_session("s3", 10)))));
    ledger.check();
}

#[test]
fn an_idempotency_key_with_other_content_is_refused_without_a_trace() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 1000))).unwrap();
    ledger.submit(once(1, 1, request("t", pay("s", 10)))).unwrap();
    let size = ledger.entries("t").len();
    for _ in 0..2 {
        let refused = ledger.submit(once(1, 2, request("t", pay("s", 11))));
        assert_eq!(refused.unwrap_err(), LedgerError::Refused(Refusal::IdempotencyMismatch));
    }
    assert_eq!((ledger.entries("t").len(), spent(&ledger, "s")), (size, 10));
    // Another tenant's keys are its own.
    ledger.submit(request("u", open_session("s", 1000))).unwrap();
    event(&ledger.submit(once(1, 2, request("u", pay("s", 11)))));
    ledger.check();
}

#[test]
fn a_first_outcome_is_repeated_for_a_day_and_no_longer() {
    let mut ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 1000))).unwrap();
    let pay_once = |fingerprint| once(1, fingerprint, request("t", pay("s", 10)));
    let first = ledger.submit(pay_once(1)).unwrap();
    let end = first.events[0].recorded.at.plus_seconds(DAY_S);
    for restarted in [false, true] {
        if restarted {
            ledger = ledger.restart();
        }
        ledger.clock.set(Timestamp::from_micros(end.micros() - 1));
        assert!(ledger.submit(pay_once(1)).unwrap().is_replay);
    }
    ledger.clock.set(end);
    let second = ledger.submit(pay_once(2)).unwrap();
    assert!(!second.is_replay, "even with other content");
    assert!(ledger.submit(pay_once(2)).unwrap().is_replay, "and then for a day again");
    assert_eq!(ledger.submit(pay_once(1)).unwrap_err(), LedgerError::Refused(Refusal::IdempotencyMismatch));
    assert_eq!(spent(&ledger, "s"), 20);
    ledger.check();
}

#[test]
fn times_advance_although_the_clock_stands_still_or_steps_back() {
    let ledger = TestLedger::new();
    for clock_s in [START_S, START_S, START_S - 1000, 0, START_S + 5, START_S + 4, START_S + 5] {
        ledger.clock.set(seconds(clock_s));
        ledger.submit(request("t", meter())).unwrap();
        answers(ledger.queue((0..3).map(|_| request("t", meter()))));
    }
    let times: Vec<_> = ledger.entries("t").iter().map(|entry| entry.recorded.at).collect();
    assert_eq!(times.len(), 28);
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    // As early as can be: the clock when it is ahead, a microsecond later when it is not.
    assert_eq!(times[..4], [0, 1, 2, 3].map(|micros| Timestamp::from_micros(START_S * 1_000_000 + micros)));
    assert_eq!(times[16], seconds(START_S + 5));
    // Each stream has its own time.
    ledger.submit(request("u", meter())).unwrap();
    assert_eq!(ledger.entries("u")[0].recorded.at, seconds(START_S + 5));
    let ledger = ledger.restart();
    ledger.clock.set(seconds(1));
    ledger.submit(request("t", meter())).unwrap();
    ledger.check();
}

#[test]
fn a_full_queue_turns_requests_away_and_they_leave_no_trace() {
    let ledger = TestLedger::with_sizes(Sizes { queue_len: 3, batch_len_max: 2 });
    ledger.submit(request("t", open_session("s", 1000))).unwrap();
    let asked = ledger.hold_writer(|| {
        let asked = ledger.queue((0..5).map(|_| once(1, 1, request("t", pay("s", 10)))));
        let answered: Vec<_> = asked.iter().map(ledger::Asked::is_answered).collect();
        assert_eq!(answered, [false, false, false, true, true], "turned away at once");
        asked
    });
    let answers = answers(asked);
    assert!(answers[..3].iter().all(Result::is_ok));
    assert!(answers[3..].iter().all(|answer| matches!(answer, Err(LedgerError::Busy))));
    assert_eq!((ledger.entries("t").len(), spent(&ledger, "s")), (2, 10));
    ledger.submit(request("t", pay("s", 1))).expect("there is room again");
    ledger.check();
}

#[test]
fn a_batch_is_as_large_as_it_may_be_and_no_larger() {
    let ledger = TestLedger::with_sizes(Sizes { queue_len: 100, batch_len_max: 4 });
    for answer in ledger.submit_as_one_batch((0..10).map(|_| request("t", meter()))) {
        event(&answer);
    }
    let lens: Vec<_> = ledger.store.batches().iter().map(|batch| batch[0].1).collect();
    assert_eq!(lens, [1, 4, 4, 2], "the first is the request that held the writer");
    ledger.check();
}

#[test]
fn closing_carries_out_what_was_accepted_and_nothing_after_it() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 1000))).unwrap();
    let (asked, closing) = ledger.hold_writer(|| {
        let asked = ledger.queue((0..20).map(|_| request("t", pay("s", 10))));
        let handle = ledger.handle.clone();
        (asked, std::thread::spawn(move || handle.close()))
    });
    closing.join().unwrap();
    for answer in answers(asked) {
        event(&answer);
    }
    assert_eq!(ledger.submit(request("t", pay("s", 10))).unwrap_err(), LedgerError::Closed);
    ledger.handle.close();
    assert_eq!(ledger.handle.health().failure(), None);
    assert_eq!(spent(&ledger, "s"), 200);
    ledger.check();
}

#[test]
fn a_ledger_that_nobody_holds_any_more_carries_out_what_was_accepted() {
    let ledger = TestLedger::new();
    let (store, clock) = (Arc::clone(&ledger.store), Arc::clone(&ledger.clock));
    let asked = ledger.hold_writer(|| ledger.queue((0..20).map(|_| request("t", meter()))));
    drop(ledger);
    for answer in answers(asked) {
        event(&answer);
    }
    let (handle, _) = ledger::open(store, clock, Sizes::default()).unwrap();
    assert_eq!(handle.read().stream(&tenant_id("t")).unwrap().head.size, 20);
    oracle::check(&handle);
}

#[test]
fn a_batch_may_hold_several_tenants_and_keeps_them_apart() {
    let ledger = TestLedger::new();
    let names = ["a", "a0", "a_", "b"];
    let asked = |round| names.map(|name| request(name, open_session(&format!("{name}{round}"), round)));
    let requests: Vec<_> = (0..5).flat_map(asked).collect();
    for answer in ledger.submit_as_one_batch(requests) {
        event(&answer);
    }
    let expected: Vec<_> = names.iter().map(|name| (tenant_id(name), 5)).collect();
    assert_eq!(ledger.store.batches()[1], expected, "one append for all of them");
    for name in names {
        let opened = ledger.events(name).into_iter().map(|event| match event {
            Event::SessionOpened(opened) => opened.session_id.to_string(),
            other => panic!("{other:?}"),
        });
        assert_eq!(opened.collect::<Vec<_>>(), (0..5).map(|it| format!("{name}{it}")).collect::<Vec<_>>());
    }
    ledger.check();
}

#[test]
fn a_key_that_is_revoked_in_a_batch_is_refused_in_the_rest_of_it() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", mint(1))).unwrap();
    let ask = |command| by(Actor::Key(prefix(1)), request("t", command));
    let answers = ledger.submit_as_one_batch([
        ask(open_session("s", 100)),
        ask(pay("s", 1)),
        ask(revoke_key(1)),
        ask(pay("s", 1)),
        once(1, 1, ask(pay("s", 1))),
        request("t", pay("s", 1)),
    ]);
    let refused: Vec<_> = answers.iter().map(|answer| answer.as_ref().err()).collect();
    let inactive = Some(&LedgerError::Refused(Refusal::ActorInactive));
    assert_eq!(refused, [None, None, None, inactive, inactive, None]);
    assert_eq!(spent(&ledger, "s"), 2);
    assert!(ledger.handle.read().active_key(&key_hash(1)).is_none());
    let ledger = ledger.restart();
    assert_eq!(ledger.submit(ask(pay("s", 1))).unwrap_err(), LedgerError::Refused(Refusal::ActorInactive));
    ledger.check();
}

#[test]
fn what_is_refused_leaves_no_trace() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", mint(1))).unwrap();
    let before = ledger.handle.read().clone();
    for (asked, refusal) in [
        (by(Actor::Key(prefix(2)), request("t", meter())), Refusal::ActorInactive),
        (by(Actor::Key(prefix(1)), request("u", meter())), Refusal::ActorInactive),
        (by(Actor::FirstCaller, request("u", mint(3))), Refusal::NotFirstCaller),
        (request("t", mint(1)), Refusal::KeyPrefixTaken),
        (request("t", revoke_key(2)), Refusal::KeyUnknown),
        (request("t", pay("s", 1)), Refusal::SessionUnknown),
        (request("t", revoke_session("s")), Refusal::SessionUnknown),
        (request("t", log("s", "aud_1")), Refusal::SessionUnknown),
    ] {
        assert_eq!(ledger.submit(asked).unwrap_err(), LedgerError::Refused(refusal));
    }
    assert!(*ledger.handle.read() == before);
    assert_eq!(ledger.store.batches().len(), 1, "nothing was even sent to the store");
    ledger.check();
}

#[test]
fn of_simultaneous_first_callers_one_gets_the_first_key() {
    let ledger = TestLedger::new();
    let ask = |number: u32| by(Actor::FirstCaller, request(&format!("t{number}"), mint(number)));
    let mut answers = ledger.submit_as_one_batch((0..10).map(ask));
    answers.extend(in_parallel(&ledger, 10, |number| ask(10 + u32::try_from(number).unwrap())));
    event(&answers[0]);
    for answer in &answers[1..] {
        assert!(matches!(answer, Err(LedgerError::Refused(Refusal::NotFirstCaller))), "{answer:?}");
    }
    let ledger = ledger.restart();
    assert_eq!(ledger.submit(ask(99)).unwrap_err(), LedgerError::Refused(Refusal::NotFirstCaller));
    ledger.check();
}

#[test]
fn a_retry_of_a_founding_finds_the_tenant_that_was_founded() {
    for actor in [Actor::FirstCaller, Actor::Bootstrap] {
        let ledger = TestLedger::new();
        // A founder cannot name the tenant: each try comes with a new key and the tenant that would be named after it.
        let found = |number: u32| by(actor.clone(), once(1, 1, request(&format!("t{number}"), mint(number))));
        let first = ledger.submit(found(1)).unwrap();
        let mut again = ledger.submit_as_one_batch([found(2), found(3)]);
        let ledger = ledger.restart();
        again.push(ledger.submit(found(4)));
        for again in again {
            let again = again.unwrap();
            assert!(again.is_replay);
            assert_eq!(again.events, first.events);
        }
        for nobody in ["t2", "t3", "t4"] {
            assert!(ledger.handle.read().stream(&tenant_id(nobody)).is_none());
        }
        ledger.check();
    }
}

#[test]
fn a_founding_that_is_no_retry_any_more_founds_another_tenant() {
    let ledger = TestLedger::new();
    let found = |number: u32| by(Actor::Bootstrap, once(1, 1, request(&format!("t{number}"), mint(number))));
    ledger.submit(found(1)).unwrap();
    ledger.clock.set(seconds(START_S + DAY_S));
    let second = ledger.submit(found(2)).unwrap();
    assert!(!second.is_replay);
    assert_eq!(second.events[0].tenant, tenant_id("t2"), "a key of t1's would have been given away");
    ledger.check();
}

#[test]
fn what_stands_beside_an_entry_is_kept_only_if_the_entry_is() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 10))).unwrap();
    let of_kind = |kind, id: &str| SideRow { kind, id: id.into(), value: id.as_bytes().repeat(1000) };
    let side = |id: &str| of_kind(SideKind::Details, id);
    let with_side = |id: &str, request| Request { side: vec![side(id)], ..request };
    let kept_of_kind = |kind, id: &str| ledger.store.side(&tenant_id("t"), kind, id.as_bytes()).unwrap();
    let kept = |id: &str| kept_of_kind(SideKind::Details, id);

    event(&ledger.submit(with_side("logged", request("t", log("s", "aud_1")))));
    assert_eq!(kept("logged"), Some(side("logged").value));
    // Of what is handed over, each event keeps what it needs.
    let minted = of_kind(SideKind::MintedKey, "minted");
    let both = vec![side("minted"), minted.clone()];
    event(&ledger.submit(Request { side: both, ..request("t", mint(1)) }));
    assert_eq!(kept_of_kind(SideKind::MintedKey, "minted"), Some(minted.value));
    assert_eq!(kept("minted"), None);

    event(&ledger.submit(with_side("denied", request("t", pay("s", 11)))));
    assert_eq!(kept("denied"), None);
    ledger.submit(with_side("refused", request("t", log("nobody", "aud_2")))).unwrap_err();
    assert_eq!(kept("refused"), None);
    ledger.submit(once(1, 1, request("t", log("s", "aud_3")))).unwrap();
    let replay = ledger.submit(with_side("retried", once(1, 1, request("t", log("s", "aud_4")))));
    assert!(replay.unwrap().is_replay);
    assert_eq!(kept("retried"), None);
    ledger.check();
}

#[test]
fn readers_never_see_what_is_not_durable() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 1000))).unwrap();
    ledger.store.close();
    let paid = ledger.queue([request("t", pay("s", 10))]);
    ledger.store.wait_for_writer();
    assert_eq!(ledger.handle.read().stream(&tenant_id("t")).unwrap().head.size, 1);
    assert_eq!(spent(&ledger, "s"), 0, "decided and signed, but not yet on disk");
    ledger.store.open();
    event(&answers(paid)[0]);
    assert_eq!(spent(&ledger, "s"), 10, "who was answered reads its own write");
    ledger.check();
}

#[test]
fn a_caller_that_goes_away_is_not_missed() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 1000))).unwrap();
    ledger.hold_writer(|| drop(ledger.queue((0..5).map(|_| request("t", pay("s", 10))))));
    event(&ledger.submit(request("t", pay("s", 10))));
    assert_eq!(spent(&ledger, "s"), 60);
    ledger.check();
}

#[test]
fn the_feed_tells_of_every_stream_at_first_and_then_of_every_commit() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", meter())).unwrap();
    ledger.submit(request("u", meter())).unwrap();
    let ledger = ledger.restart();
    let sizes =
        |expected: &[(&str, u64)]| expected.iter().map(|(name, size)| (tenant_id(name), *size)).collect();
    assert_eq!(ledger.feed.next(), Some(sizes(&[("t", 1), ("u", 1)])));
    ledger.submit(request("u", meter())).unwrap();
    assert_eq!(ledger.feed.next(), Some(sizes(&[("u", 2)])));
    ledger.handle.close();
    assert_eq!(ledger.feed.next(), None);
    ledger.check();
}

/// Asks from several threads at once.
fn in_parallel(
    ledger: &TestLedger,
    count: usize,
    ask: impl Fn(usize) -> Request + Sync,
) -> Vec<Result<haldir::ledger::Receipt, LedgerError>> {
    const THREADS: usize = 8;
    let (ask, handle) = (&ask, &ledger.handle);
    std::thread::scope(|scope| {
        let thread = |first| {
            scope.spawn(move || -> Vec<_> {
                (first..count).step_by(THREADS).map(|number| wait(handle.submit(ask(number)))).collect()
            })
        };
        let threads: Vec<_> = (0..THREADS).map(thread).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// What a session of the tenant `t` has spent, as readers see it.
fn spent(ledger: &TestLedger, session: &str) -> u128 {
    let world = ledger.handle.read();
    let sessions = &world.stream(&tenant_id("t")).unwrap().tenant.sessions;
    sessions.get(&ledger::session_id(session)).map_or(Money::ZERO, |it| it.budget.spent()).nanos()
}

fn key_hash(number: u32) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&number.to_le_bytes());
    hash
}
