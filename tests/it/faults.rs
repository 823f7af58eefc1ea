//! When something breaks, is what was answered still true, and is what is damaged found?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use haldir::domain::Recorded;
use haldir::format::chain::{KEY_ID_LEN, SIGNATURE_LEN, Signer};
use haldir::format::entry::{self, EntryError};
use haldir::format::verify::{Flaw, Trust, Verifier};
use haldir::ledger::clock::ManualClock;
use haldir::ledger::handle::{LedgerHandle, Parts, Sizes};
use haldir::ledger::random::OsRandom;
use haldir::ledger::replay::OpenError;
use haldir::ledger::{Committed, LedgerError, Request};
use haldir::store::embedded::EmbeddedStore;
use haldir::store::memory::{Fault, MemorySnapshots, MemoryStore, Step};
use haldir::store::{EventStore, Head, StoreError, StreamAppend};
use tempfile::TempDir;

use crate::samples::{self, sealed_by, signer, tenant};
use crate::stores::once_free;
use crate::writing::ledger::{
    START_S, TestLedger, answers, event, log, meter, mint, once, open, open_session, pay, request, seconds,
    session_id, tenant_id, wait,
};
use crate::writing::oracle;

mod damaged;
pub(crate) mod tampered;

use tampered::{Tampered, plant};

/// Every fault that the store can have at a commit.
const FAULTS: [(Step, Fault); 6] = [
    (Step::Append, Fault::Lost),
    (Step::Append, Fault::Torn),
    (Step::Append, Fault::DoneButReportedFailed),
    (Step::Sync, Fault::Lost),
    (Step::Sync, Fault::Torn),
    (Step::Sync, Fault::DoneButReportedFailed),
];

#[test]
fn whatever_fails_and_whenever_nothing_that_was_answered_is_lost_or_done_twice() {
    for (step, fault) in FAULTS {
        for after in 0..8 {
            let why = format!("{fault:?} at {step:?} {after}");
            let ledger = TestLedger::new();
            ledger.store.disk.fail_at(step, fault, after);
            let mut told: Vec<Arc<Committed>> = Vec::new();
            let mut has_failed = false;
            for requests in work() {
                for answer in answers(ledger.queue(requests)) {
                    match answer {
                        Ok(receipt) if !has_failed => told.extend(receipt.events),
                        Err(LedgerError::Poisoned) => has_failed = true,
                        other => panic!("{why}: {other:?}"),
                    }
                }
            }
            assert_eq!(size_that_readers_see(&ledger), told.len() as u64, "{why}");
            assert_eq!(has_failed, ledger.store.batches().len() > after as usize, "{why}: the fault was due");
            assert_eq!(ledger.handle.health().failure().is_some(), has_failed, "{why}");

            let ledger = ledger.crash_and_restart();
            ledger.check();
            for committed in &told {
                let found = ledger.store.read(&committed.tenant, committed.recorded.seq, 1).unwrap();
                assert_eq!(found.len(), 1, "{why}: entry {} was told of", committed.recorded.seq);
                let entry = entry::open(&found[0]).unwrap();
                assert_eq!((&entry.recorded, entry.hash), (&committed.recorded, committed.hash), "{why}");
            }
            let kept = size_that_readers_see(&ledger);
            match fault {
                Fault::Lost | Fault::Torn => assert_eq!(kept, told.len() as u64, "{why}"),
                Fault::DoneButReportedFailed => assert_eq!(kept > told.len() as u64, has_failed, "{why}"),
            }

            // Everybody tries everything again, with the same idempotency keys.
            for answer in work().into_iter().flat_map(|requests| answers(ledger.queue(requests))) {
                answer.expect(&why);
            }
            assert_eq!(spent(&ledger), [("t", 1 + 2 + 3 + 7), ("u", 4 + 5)].into(), "{why}");
            assert_eq!(size_that_readers_see(&ledger), work_len(), "{why}");
            ledger.check();
        }
    }
}

#[test]
fn a_tail_that_was_torn_off_is_cut_at_the_next_start() {
    for step in [Step::Append, Step::Sync] {
        let ledger = TestLedger::new();
        ledger.submit(request("t", open_session("s", 100))).unwrap();
        ledger.store.disk.fail_at(step, Fault::Torn, 1);
        let asked = ["t", "t", "u"].map(|name| request(name, meter()));
        for answer in ledger.submit_as_one_batch(asked) {
            assert_eq!(answer.unwrap_err(), LedgerError::Poisoned);
        }
        ledger.handle.close();
        ledger.store.disk.crash();
        let stored = |name| ledger.store.read(&tenant_id(name), 0, 10).unwrap();
        assert_eq!((stored("t").len(), stored("u").len()), (3, 1), "torn entries are on the disk");
        assert!(entry::open(&stored("t")[2]).is_err());

        let ledger = ledger.restart();
        assert_eq!((ledger.entries("t").len(), ledger.entries("u").len()), (1, 0));
        for name in ["t", "u", "t"] {
            event(&ledger.submit(request(name, meter())));
        }
        let ledger = ledger.crash_and_restart();
        assert_eq!((ledger.entries("t").len(), ledger.entries("u").len()), (3, 1));
        ledger.check();
    }
}

#[test]
fn after_a_fault_nobody_waits_and_nobody_hears_of_a_success() {
    for (step, fault) in FAULTS {
        let ledger = TestLedger::new();
        ledger.submit(request("t", open_session("s", 1_000_000))).unwrap();
        ledger.store.disk.fail_at(step, fault, 5);
        let handle = &ledger.handle;
        let told = std::thread::scope(|scope| {
            let ask_until_it_fails = || {
                let mut told = 0;
                loop {
                    match wait(handle.submit(request("t", pay("s", 1)))) {
                        Ok(_) => told += 1,
                        Err(LedgerError::Poisoned) => break,
                        Err(other) => panic!("{other}"),
                    }
                }
                for _ in 0..20 {
                    let again = wait(handle.submit(request("t", pay("s", 1))));
                    assert_eq!(again.unwrap_err(), LedgerError::Poisoned);
                }
                told
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask_until_it_fails)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u128>()
        });
        assert!(ledger.handle.health().failure().is_some());
        assert_eq!(spent(&ledger)["t"], told);
        let ledger = ledger.crash_and_restart();
        let kept = spent(&ledger)["t"];
        assert!(kept == told || (kept > told && fault == Fault::DoneButReportedFailed), "{kept} of {told}");
        ledger.check();
    }
}

#[test]
fn what_waits_in_the_queue_when_a_write_fails_did_not_happen() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 100))).unwrap();
    ledger.store.disk.fail_at(Step::Append, Fault::DoneButReportedFailed, 0);
    let asked = ledger.hold_writer(|| ledger.queue((0..10).map(|_| request("t", pay("s", 1)))));
    for answer in answers(asked) {
        assert_eq!(answer.unwrap_err(), LedgerError::Poisoned);
    }
    let ledger = ledger.crash_and_restart();
    assert_eq!((ledger.entries("somebody").len(), ledger.entries("t").len()), (1, 1));
    ledger.check();
}

#[test]
fn a_stream_that_somebody_else_moved_stops_the_ledger() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 100))).unwrap();
    let (name, head) = ledger.store.heads().unwrap().remove(0);
    let entries = ledger.store.read(&name, 0, 1).unwrap();
    let moved = Head { size: 2, ..head };
    let append = StreamAppend { tenant: name, expected: Some(head), entries, head: moved, side: vec![] };
    ledger.store.disk.append(&[append]).unwrap();
    assert_eq!(ledger.submit(request("t", pay("s", 1))).unwrap_err(), LedgerError::Poisoned);
    assert_eq!(ledger.submit(request("u", meter())).unwrap_err(), LedgerError::Poisoned);
    assert_eq!(ledger.handle.health().failure().unwrap(), StoreError::Conflict(tenant_id("t")).to_string());
}

#[test]
fn a_store_that_panics_stops_the_ledger() {
    for _ in 0..20 {
        let store = Arc::new(Tampered::new(Arc::new(MemoryStore::default())));
        let handle = open_on(&store).unwrap();
        wait(handle.submit(request("t", open_session("s", 100)))).unwrap();
        *store.on_append.write() = Some(|| panic!("planned"));
        for _ in 0..10 {
            let answer = wait(handle.submit(request("t", pay("s", 1))));
            assert_eq!(answer.unwrap_err(), LedgerError::Poisoned);
        }
        assert!(is_poisoned_soon(&handle));
    }
}

#[test]
fn a_store_that_recovers_does_not_bring_the_ledger_back() {
    let store = Arc::new(Tampered::new(Arc::new(MemoryStore::default())));
    let handle = open_on(&store).unwrap();
    wait(handle.submit(request("t", open_session("s", 100)))).unwrap();
    *store.on_append.write() = Some(|| Err(StoreError::Io("planned".to_owned())));
    assert_eq!(wait(handle.submit(request("t", pay("s", 1)))).unwrap_err(), LedgerError::Poisoned);
    *store.on_append.write() = None;
    for name in ["t", "u"] {
        assert_eq!(wait(handle.submit(request(name, meter()))).unwrap_err(), LedgerError::Poisoned);
    }
    oracle::check(&handle);
    let handle = open_on(&store).unwrap();
    wait(handle.submit(request("t", pay("s", 1)))).unwrap();
    assert_eq!(handle.read().streams().map(|(_, stream)| stream.head.size).sum::<u64>(), 2);
    oracle::check(&handle);
}

#[test]
fn a_request_that_meets_the_end_of_the_ledger_is_done_or_turned_away() {
    // The moment between the writer's last look at its queue and its end is short; hence the rounds.
    for _ in 0..2000 {
        let ledger = TestLedger::new();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let end = loop {
                        match wait(ledger.handle.submit(request("t", meter()))) {
                            Ok(receipt) => assert_eq!(receipt.events.len(), 1),
                            Err(error) => break error,
                        }
                    };
                    assert_eq!(end, LedgerError::Closed, "nothing is uncertain about what never began");
                });
            }
            scope.spawn(|| ledger.handle.close());
        });
    }
}

#[test]
fn the_ledger_says_that_it_has_stopped_before_anybody_hears_of_it() {
    for _ in 0..300 {
        let ledger = TestLedger::new();
        ledger.store.disk.fail_at(Step::Sync, Fault::Lost, 0);
        assert_eq!(ledger.submit(request("t", meter())).unwrap_err(), LedgerError::Poisoned);
        assert!(ledger.handle.health().failure().is_some());
    }
}

#[test]
fn a_changed_byte_in_the_store_is_found_at_the_next_start() {
    let store = samples_in_store();
    let entries = store.read(&tenant(), 0, 100).unwrap();
    let last = entries.len() - 1;
    for (seq, entry) in entries.iter().enumerate() {
        let signed_at = entry.len() - KEY_ID_LEN - SIGNATURE_LEN;
        for at in 0..entry.len() {
            store.corrupt(&tenant(), seq, |bytes| bytes[at] ^= 1 << (at % 8));
            let found = open_on(&store).map(|handle| handle.close());
            let verdict = verify_every_signature(&store);
            store.corrupt(&tenant(), seq, |bytes| bytes[at] ^= 1 << (at % 8));
            match found {
                Err(OpenError::NotSound { tenant: name, seq: found, flaw }) => {
                    assert_eq!((name, found), (tenant(), seq as u64), "byte {at}");
                    assert!(at < signed_at || flaw == Flaw::Signature, "byte {at} of {seq}: {flaw}");
                }
                Err(OpenError::Foreign { .. }) => {
                    assert!(seq == last && (signed_at..signed_at + KEY_ID_LEN).contains(&at), "byte {at}");
                }
                // A start looks at the newest signature of a stream alone; an audit looks at all.
                Ok(()) => assert!(seq < last && at >= signed_at, "byte {at} of {seq}"),
                Err(other) => panic!("{other}"),
            }
            assert_eq!(verdict.map_err(|(seq, _)| seq), Err(seq as u64), "byte {at}");
        }
    }
    open_on(&store).expect("every byte is as it was").close();
}

#[test]
fn damage_is_located_in_streams_of_many_pages() {
    let event = samples::events().remove(2);
    let store = in_store(&samples::recorded(vec![event; 2500]));
    open_on(&store).unwrap().close();
    for seq in [0, 1023, 1024, 1025, 2047, 2048, 2498, 2499] {
        store.corrupt(&tenant(), seq, |bytes| bytes[200] ^= 1);
        assert_eq!(flaw(&store), (seq as u64, Flaw::Malformed(EntryError::Hash)));
        store.corrupt(&tenant(), seq, |bytes| bytes[200] ^= 1);
    }
    for size in [2499, 2048, 2047, 1025, 1024, 1023, 1] {
        store.cut(&tenant(), size).unwrap();
        assert_eq!(flaw(&store), (size, Flaw::Truncated(2500)));
    }
}

#[test]
fn entries_that_are_cut_short_or_gone_are_found_at_the_next_start() {
    let store = samples_in_store();
    for at in 0..12 {
        let whole = store.read(&tenant(), at, 1).unwrap().remove(0);
        for len in [0, 1, 283, 284, whole.len() - 1] {
            store.corrupt(&tenant(), usize::try_from(at).unwrap(), |bytes| bytes.truncate(len));
            assert_eq!(flaw(&store), (at, Flaw::Malformed(EntryError::Length { len })));
            store.corrupt(&tenant(), usize::try_from(at).unwrap(), |bytes| bytes.clone_from(&whole));
        }
    }
    for size in (1..12).rev() {
        store.cut(&tenant(), size).unwrap();
        assert_eq!(flaw(&store), (size, Flaw::Truncated(12)));
    }
}

#[test]
fn a_store_that_reads_other_than_it_was_given_is_found_out() {
    type Change = fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>;
    let other = tenant_id("other");
    let cases: [(Change, u64, Flaw); 7] = [
        (|_| vec![], 0, Flaw::Truncated(12)),
        (|read| read[..7].to_vec(), 7, Flaw::Truncated(12)),
        (|read| read[1..].to_vec(), 0, Flaw::Seq(1)),
        (|read| [&read[..4], &read[5..]].concat(), 4, Flaw::Seq(5)),
        (|read| [&read[..4], &read[3..11]].concat(), 4, Flaw::Seq(3)),
        (|_| stream_of("other"), 0, Flaw::Tenant(other)),
        (|read| [&later_stream()[..1], &read[1..]].concat(), 1, Flaw::Link),
    ];
    for (change, seq, expected) in cases {
        let store = Arc::new(Tampered::new(samples_in_store()));
        // A page is read once; asked again for what is missing, the store has nothing more.
        *store.on_read.write() =
            Some(Box::new(move |from, read| if from == 0 { change(read) } else { vec![] }));
        assert_eq!(flaw(&store), (seq, expected));
    }
    let store = Arc::new(Tampered::new(samples_in_store()));
    *store.on_read.write() = Some(Box::new(|_, _| later_stream()));
    assert_eq!(flaw(&store), (12, Flaw::Head), "a whole other history of ours");
}

#[test]
fn a_history_of_another_key_is_foreign() {
    let store = samples_in_store();
    let other = SigningKey::from_bytes(&[0xee; 32]);
    let opened = open_signed_by(&store, Signer::new(other.clone()));
    assert!(
        matches!(&opened, Err(OpenError::Foreign { tenant: name, key_id }) if *name == tenant() && *key_id == signer().id()),
        "{:?}",
        opened.err()
    );
    // Somebody rewrites history with a key of their own, and names it after ours.
    let forger = Signer::new(other);
    let mut forged = sealed_by(&forger, &tenant(), &samples::recorded(samples::events()));
    for (seq, entry) in forged.iter_mut().enumerate() {
        let key_id_at = entry.bytes.len() - SIGNATURE_LEN - KEY_ID_LEN;
        entry.bytes[key_id_at..][..KEY_ID_LEN].copy_from_slice(&signer().id().0);
        store.corrupt(&tenant(), seq, |bytes| bytes.clone_from(&entry.bytes));
    }
    assert_eq!(flaw(&store), (11, Flaw::Signature));
    // A ledger without entries is anybody's.
    open_signed_by(&Arc::new(MemoryStore::default()), forger).unwrap().close();
}

#[test]
fn a_store_that_misses_what_was_acknowledged_or_cannot_be_read_is_not_opened() {
    let store = Arc::new(Tampered::new(samples_in_store()));
    *store.missing.write() = 3;
    assert!(matches!(open_on(&store), Err(OpenError::Missing(3))));
    *store.missing.write() = 0;
    *store.broken.write() = Some(StoreError::Damaged("planned".to_owned()));
    assert!(matches!(open_on(&store), Err(OpenError::Store(StoreError::Damaged(_)))));
    *store.broken.write() = None;
    open_on(&store).unwrap().close();
}

#[test]
fn a_retry_whose_first_outcome_cannot_be_read_is_told_so_and_nothing_stops() {
    let store = Arc::new(Tampered::new(Arc::new(MemoryStore::default())));
    let handle = open_on(&store).unwrap();
    wait(handle.submit(request("t", open_session("s", 100)))).unwrap();
    let paid = || wait(handle.submit(once(1, 1, request("t", pay("s", 1)))));
    let first = paid().unwrap();
    for reading in [(|_, _| vec![]) as fn(u64, Vec<Vec<u8>>) -> Vec<Vec<u8>>, |_, mut read| {
        read[0][190] ^= 1;
        read
    }] {
        *store.on_read.write() = Some(Box::new(reading));
        assert!(matches!(paid(), Err(LedgerError::Unreadable(_))));
        wait(handle.submit(request("t", pay("s", 1)))).expect("other requests are carried out");
    }
    *store.on_read.write() = None;
    assert_eq!(paid().unwrap().events, first.events);
    oracle::check(&handle);
}

#[test]
fn whatever_stands_beyond_a_head_on_disk_does_not_come_back() {
    // Each row: how far beyond the head, part, number of parts as the first part says, bytes.
    let whole = vec![(0, 0, 1, 300)];
    let whole_in_parts = vec![(0, 0, 3, 4096), (0, 1, 3, 4096), (0, 2, 3, 17), (1, 0, 1, 300)];
    let torn = vec![(0, 0, 1, 300), (1, 0, 3, 4096), (1, 1, 3, 4096)];
    let first_part_missing = vec![(0, 1, 2, 300)];
    let gap = vec![(1, 1, 2, 300), (3, 0, 1, 300)];
    let rubbish = vec![(0, 0, 0xa5a5, 300)];
    let tails = [whole, whole_in_parts, torn, first_part_missing, gap, rubbish];
    for (name, rows) in tails.iter().flat_map(|rows| [("t", rows), ("u", rows)]) {
        let dir = TempDir::new().unwrap();
        let with_ledger = |requests: &[Request]| {
            let store = once_free(|| EmbeddedStore::open(dir.path())).unwrap();
            let clock = Arc::new(ManualClock::at(seconds(START_S)));
            let (handle, _) = open(Arc::new(store), clock, Sizes::default())
                .unwrap_or_else(|error| panic!("{name} {rows:?}: {error}"));
            let size = handle.read().stream(&tenant_id(name)).map_or(0, |stream| stream.head.size);
            let beyond = handle.store().read(&tenant_id(name), size, 10);
            assert_eq!(beyond, Ok(vec![]), "{name} {rows:?}");
            for request in requests {
                wait(handle.submit(request.clone())).unwrap();
            }
            oracle::check(&handle);
            handle.close();
        };
        with_ledger(&[request("t", open_session("s", 100)), request("t", pay("s", 1))]);
        let size = if name == "t" { 2 } else { 0 };
        for &(beyond, part, part_count, len) in rows {
            plant(dir.path(), name, size + beyond, part, part_count, len);
        }
        with_ledger(&[]);
        with_ledger(&[request(name, meter()), request(name, meter())]);
        with_ledger(&[request(name, meter())]);
    }
}

/// Work in portions, each of which may become one batch or several. Done once or twice, it comes to the same.
fn work() -> Vec<Vec<Request>> {
    vec![
        vec![once(1, 0, request("t", mint(1))), once(2, 0, request("t", open_session("s", 1000)))],
        vec![once(3, 0, request("u", open_session("s", 1000)))],
        vec![
            once(4, 0, request("t", pay("s", 1))),
            once(5, 0, request("u", pay("s", 4))),
            once(6, 0, request("t", pay("s", 2))),
            once(7, 0, request("u", pay("s", 5))),
            once(8, 0, request("t", pay("s", 3))),
        ],
        vec![once(9, 0, request("t", log("s", "aud_1"))), once(10, 0, request("u", log("s", "aud_2")))],
        vec![once(11, 0, request("t", pay("s", 7)))],
    ]
}

fn work_len() -> u64 {
    work().iter().map(Vec::len).sum::<usize>() as u64
}

fn size_that_readers_see(ledger: &TestLedger) -> u64 {
    ledger.handle.read().streams().map(|(_, stream)| stream.head.size).sum()
}

/// What the session of each tenant has spent.
fn spent(ledger: &TestLedger) -> BTreeMap<&'static str, u128> {
    let world = ledger.handle.read();
    let spent = |name: &'static str| {
        let session = world.stream(&tenant_id(name))?.tenant.sessions.get(&session_id("s"))?;
        Some((name, session.budget.spent().nanos()))
    };
    ["t", "u"].into_iter().filter_map(spent).collect()
}

/// Whether the ledger says that it has stopped. A panic unwinds past its callers before anybody can say so.
fn is_poisoned_soon(handle: &LedgerHandle) -> bool {
    for _ in 0..1000 {
        if handle.health().failure().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    false
}

/// A store with the document's sample stream.
fn samples_in_store() -> Arc<MemoryStore> {
    in_store(&samples::recorded(samples::events()))
}

fn in_store(stream: &[Recorded]) -> Arc<MemoryStore> {
    let store = MemoryStore::default();
    let entries = samples::sealed(&tenant(), stream);
    let head = Head { size: entries.len() as u64, hash: entries[entries.len() - 1].hash };
    let entries = entries.into_iter().map(|entry| entry.bytes).collect();
    store.append(&[StreamAppend { tenant: tenant(), expected: None, entries, head, side: vec![] }]).unwrap();
    store.sync().unwrap();
    Arc::new(store)
}

/// The sample events in another tenant's stream.
fn stream_of(name: &str) -> Vec<Vec<u8>> {
    let entries = samples::sealed(&tenant_id(name), &samples::recorded(samples::events()));
    entries.into_iter().map(|entry| entry.bytes).collect()
}

/// The sample events a second later: as sound as the samples, but not what was written.
fn later_stream() -> Vec<Vec<u8>> {
    let mut stream = samples::recorded(samples::events());
    for recorded in &mut stream {
        recorded.at = recorded.at.plus_seconds(1);
    }
    samples::sealed(&tenant(), &stream).into_iter().map(|entry| entry.bytes).collect()
}

fn open_on<S: EventStore + 'static>(store: &Arc<S>) -> Result<LedgerHandle, OpenError> {
    open_signed_by(store, signer())
}

fn open_signed_by<S: EventStore + 'static>(
    store: &Arc<S>,
    signer: Signer,
) -> Result<LedgerHandle, OpenError> {
    let (clock, random) = (Arc::new(ManualClock::at(seconds(START_S))), Arc::new(OsRandom::default()));
    let sizes = Sizes::default();
    let snapshots = Arc::new(MemorySnapshots::default());
    LedgerHandle::open(Parts {
        store: store.clone(),
        snapshots,
        signer,
        former_keys: Vec::new(),
        clock,
        random,
        sizes,
    })
    .map(|(handle, _)| handle)
}

/// Why a store is not opened.
fn flaw<S: EventStore + 'static>(store: &Arc<S>) -> (u64, Flaw) {
    match open_on(store).map(|_| ()) {
        Err(OpenError::NotSound { tenant: name, seq, flaw }) => {
            assert_eq!(name, tenant());
            (seq, flaw)
        }
        other => panic!("{other:?}"),
    }
}

fn verify_every_signature(store: &MemoryStore) -> Result<(), (u64, Flaw)> {
    let mut verifier = Verifier::without_decisions(tenant(), Trust::keys(vec![signer().public_key()]));
    for bytes in store.read(&tenant(), 0, usize::MAX).unwrap() {
        verifier.push(&bytes).map_err(|flaw| (verifier.next_seq(), flaw))?;
    }
    Ok(())
}
