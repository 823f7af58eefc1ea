//! Is the past what the first entries say, whatever shortcuts lie around?

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use haldir::domain::custody::{LedgerRepaired, SignerRotated};
use haldir::domain::id::{Actor, TenantId};
use haldir::domain::replays::Idempotency;
use haldir::domain::time::Timestamp;
use haldir::domain::{Event, Recorded, Tenant, apply};
use haldir::format::entry;
use haldir::format::merkle::{Tree, leaf_hash};
use haldir::format::verify::Flaw;
use haldir::ledger::clock::ManualClock;
use haldir::ledger::handle::{LedgerHandle, Parts, Sizes};
use haldir::ledger::past::{PastError, size_at, stream_at};
use haldir::ledger::random::OsRandom;
use haldir::ledger::snapshot;
use haldir::ledger::world::Stream;
use haldir::store::memory::MemorySnapshots;
use haldir::store::snapshots::SnapshotFiles;
use haldir::store::{EventStore, Head, SnapshotStore};
use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;

use crate::samples::{self, random_cases, signer};
use crate::writing::ledger::{START_S, TestLedger, answers, open_session, pay, request, seconds, tenant_id};
use crate::writing::model::any_history;

/// The digest of the snapshot of the state below, in the layout that its first bytes name.
const LAYOUT_DIGEST: &str = "39641554f516b9d569b5fcdec05d69068c4687b53bdc7c8b9d537c87434e76e8";

/// What is kept as the snapshot of a stream at a size.
#[derive(Debug, Clone)]
enum Kept {
    Right,
    WrongBit(Index, u8),
    Cut(Index),
    Extended(u8),
    Rubbish(Vec<u8>),
    /// That of another size of the stream.
    Misplaced(Index),
    /// That of a stream of the same tenant in another ledger.
    OfAnotherHistory,
    OfAnotherTenant,
    /// Right, but said to be of a stream that is longer than this one.
    TooLarge(u64),
}

proptest! {
    #![proptest_config(random_cases(96, "proptest-regressions/past.txt"))]

    #[test]
    fn the_past_is_the_fold_of_the_first_entries_whatever_snapshots_there_are(
        history in any_history(),
        other in any_history(),
        kept in prop::collection::vec((any::<Index>(), any_kept()), 0..12),
    ) {
        let ledger = played(history, START_S);
        let other = played(other, START_S + 7);
        let snapshots = Arc::new(MemorySnapshots::default());
        let store = &*ledger.store;
        for (tenant, head) in store.heads().unwrap() {
            let streams = folds(store, &tenant);
            prop_assert_eq!(streams.len() as u64, head.size);
            for (at, kept) in kept.iter().filter(|_| head.size > 0) {
                let others = folds(&*other.store, &tenant);
                keep(&snapshots, &tenant, &streams, &others, *at, kept);
            }
            prop_assert_eq!(stream_at(store, &*snapshots, &tenant, 0), Ok(None));
            for (size, expected) in (1..).zip(&streams) {
                let found = stream_at(store, &*snapshots, &tenant, size).unwrap().unwrap();
                prop_assert!(found == *expected, "after {} of {}: {:?}", size, head.size, kept);
                prop_assert_eq!(found.tree.root(), expected.tree.root());
            }
            let beyond = stream_at(store, &*snapshots, &tenant, head.size + 1);
            let end = PastError::NotSound { seq: head.size, flaw: Flaw::Truncated(head.size + 1) };
            prop_assert_eq!(beyond, Err(end));
        }
        // A start is a look at the end.
        let fresh = start(&ledger, snapshots);
        prop_assert!(*fresh.read() == *ledger.handle.read(), "{:?}", kept);
        fresh.close();
    }

    #[test]
    fn a_moment_has_the_size_that_the_entries_up_to_it_have(history in any_history()) {
        let ledger = played(history, START_S);
        for (tenant, head) in ledger.store.heads().unwrap() {
            let times: Vec<u64> = ledger.entries(tenant.as_str()).iter().map(|it| it.recorded.at.micros()).collect();
            let around = times.iter().flat_map(|&at| [at - 1, at, at + 1]);
            for at in around.chain([0, u64::MAX]) {
                for size in [head.size, head.size / 2, 0] {
                    let until = times.iter().zip(0..size).filter(|(time, _)| **time <= at).count() as u64;
                    let found = size_at(&*ledger.store, &tenant, size, Timestamp::from_micros(at));
                    prop_assert_eq!(found, Ok(until), "at {} of the first {}", at, size);
                }
            }
        }
    }
}

#[test]
fn a_snapshot_spares_the_entries_before_it_and_none_after_it() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 1000))).unwrap();
    for _ in 0..30 {
        ledger.submit(request("t", pay("s", 1))).unwrap();
    }
    let (store, tenant) = (&*ledger.store, tenant_id("t"));
    let streams = folds(store, &tenant);
    let snapshots = MemorySnapshots::default();
    for size in [10, 20] {
        save(&snapshots, &tenant, size, &streams[usize::try_from(size).unwrap() - 1]);
    }
    let at = |snapshots: &dyn SnapshotStore, size| stream_at(store, snapshots, &tenant, size);
    store.disk.corrupt(&tenant, 15, |bytes| bytes[200] ^= 1);
    for size in [20, 21, 31] {
        let expected = streams[usize::try_from(size).unwrap() - 1].clone();
        assert!(at(&snapshots, size) == Ok(Some(expected)), "{size}: folded from the snapshot of 20");
    }
    for size in [16, 17, 19] {
        assert!(matches!(at(&snapshots, size), Err(PastError::NotSound { seq: 15, .. })), "{size}");
    }
    assert!(matches!(at(&MemorySnapshots::default(), 31), Err(PastError::NotSound { seq: 15, .. })));
    // The entry that a snapshot was taken after is what binds the two: without it the snapshot is nobody's.
    store.disk.corrupt(&tenant, 19, |bytes| bytes[200] ^= 1);
    assert!(matches!(at(&snapshots, 31), Err(PastError::NotSound { seq: 15, .. })));
}

#[test]
fn a_snapshot_of_another_layout_gets_another_number() {
    let stream = stream_of_everything();
    let bytes = snapshot::encode(&samples::tenant(), &stream).unwrap();
    assert_eq!(snapshot::decode(&samples::tenant(), &bytes), Some(stream));
    assert_eq!(snapshot::decode(&tenant_id("somebody"), &bytes), None);
    let digest = blake3::hash(&bytes).to_string();
    assert_eq!(
        digest, LAYOUT_DIGEST,
        "snapshots are laid out in another way than those that are on disks: give LAYOUT in src/ledger/snapshot.rs a new \
         number, and then set LAYOUT_DIGEST in tests/it/past.rs to {digest}"
    );
}

#[test]
fn snapshot_files_are_there_as_a_whole_or_not_at_all() {
    let dir = TempDir::new().unwrap();
    let files = SnapshotFiles::new(&dir.path().join("snapshots"));
    let (tenant, other) = (tenant_id("t"), tenant_id("t_"));
    assert_eq!(files.sizes(&tenant), Ok(vec![]), "nobody has made the directory yet");
    assert_eq!(files.load(&tenant, 5), Ok(None));
    files.remove(&tenant, 5).unwrap();
    for size in [300, 5, 10] {
        files.save(&tenant, size, format!("snapshot of {size}").as_bytes()).unwrap();
    }
    files.save(&other, 7, b"another's").unwrap();
    // What a process left that was killed while it wrote, and what other people put there.
    let place = dir.path().join("snapshots/t");
    for name in ["8.new", "9.snapshot.new", "x.snapshot", ".snapshot", "11", "-1.snapshot", "1.5.snapshot"] {
        fs::write(place.join(name), "torn").unwrap();
    }
    assert_eq!(files.sizes(&tenant), Ok(vec![5, 10, 300]));
    assert_eq!(files.sizes(&other), Ok(vec![7]));
    assert_eq!(files.load(&tenant, 10).unwrap().unwrap(), b"snapshot of 10");
    assert_eq!(files.load(&tenant, 7), Ok(None));
    assert_eq!(files.load(&tenant, 8), Ok(None));
    files.save(&tenant, 8, b"eight").unwrap();
    files.save(&tenant, 10, b"ten").unwrap();
    assert_eq!(files.load(&tenant, 8).unwrap().unwrap(), b"eight", "over the torn beginning of one");
    assert_eq!(files.load(&tenant, 10).unwrap().unwrap(), b"ten");
    for _ in 0..2 {
        files.remove(&tenant, 300).unwrap();
    }
    assert_eq!(SnapshotFiles::new(&dir.path().join("snapshots")).sizes(&tenant), Ok(vec![5, 8, 10]));
    let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("snapshots/t"), mode("snapshots/t/10.snapshot")), (0o700, 0o600));
    // A directory in the place of a file is an error, not a snapshot and not a missing one.
    fs::create_dir(place.join("12.snapshot")).unwrap();
    assert!(files.load(&tenant, 12).is_err());
}

#[test]
fn snapshot_files_that_are_damaged_cost_time_and_nothing_else() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 1000))).unwrap();
    for _ in 0..20 {
        ledger.submit(request("t", pay("s", 1))).unwrap();
    }
    let (tenant, streams) = (tenant_id("t"), folds(&*ledger.store, &tenant_id("t")));
    let dir = TempDir::new().unwrap();
    let files = Arc::new(SnapshotFiles::new(dir.path()));
    for size in [4, 8, 12, 16, 20] {
        save(&*files, &tenant, size, &streams[usize::try_from(size).unwrap() - 1]);
    }
    let path = |size: u64| dir.path().join(format!("t/{size}.snapshot"));
    fs::write(path(20), "").unwrap();
    fs::remove_file(path(16)).unwrap();
    fs::create_dir(path(16)).unwrap();
    fs::copy(path(4), path(12)).unwrap();
    let fresh = start(&ledger, files.clone());
    assert!(*fresh.read() == *ledger.handle.read());
    fresh.close();
    assert!(stream_at(&*ledger.store, &*files, &tenant, 21) == Ok(streams.last().cloned()));
}

/// Starts another ledger from the same store, with snapshots.
fn start(ledger: &TestLedger, snapshots: Arc<dyn SnapshotStore>) -> LedgerHandle {
    let parts = Parts {
        store: ledger.store.clone(),
        snapshots,
        signer: signer(),
        former_keys: Vec::new(),
        clock: Arc::new(ManualClock::default()),
        random: Arc::new(OsRandom::default()),
        sizes: Sizes::default(),
    };
    LedgerHandle::open(parts).unwrap().0
}

fn played(history: crate::writing::model::History, start_s: u64) -> TestLedger {
    let ledger = TestLedger::new();
    ledger.clock.set(seconds(start_s));
    history.play(ledger, |ledger, requests| drop(answers(ledger.queue(requests))))
}

/// What is true after each entry, folded here from the first one on.
fn folds(store: &dyn EventStore, tenant: &TenantId) -> Vec<Stream> {
    let (mut state, mut tree) = (Tenant::default(), Tree::default());
    let entries = store.read(tenant, 0, usize::MAX).unwrap();
    let fold = |bytes: Vec<u8>| {
        let entry = entry::open(&bytes).unwrap();
        apply(&mut state, &entry.recorded);
        tree.push(leaf_hash(&bytes));
        let head = Head { size: entry.recorded.seq + 1, hash: entry.hash };
        Stream { tenant: state.clone(), head, last_at: entry.recorded.at, tree: tree.clone() }
    };
    entries.into_iter().map(fold).collect()
}

fn save(snapshots: &dyn SnapshotStore, tenant: &TenantId, size: u64, stream: &Stream) {
    snapshots.save(tenant, size, &snapshot::encode(tenant, stream).unwrap()).unwrap();
}

fn keep(
    snapshots: &MemorySnapshots,
    tenant: &TenantId,
    streams: &[Stream],
    others: &[Stream],
    at: Index,
    kept: &Kept,
) {
    let stream = &streams[at.index(streams.len())];
    let size = stream.head.size;
    let right = snapshot::encode(tenant, stream).unwrap();
    let (size, bytes) = match kept {
        Kept::Right => (size, right),
        Kept::WrongBit(at, bit) => {
            let (mut bytes, at) = (right.clone(), at.index(right.len()));
            bytes[at] ^= 1 << bit;
            (size, bytes)
        }
        Kept::Cut(at) => (size, right[..at.index(right.len())].to_vec()),
        Kept::Extended(byte) => (size, [&right[..], &[*byte]].concat()),
        Kept::Rubbish(bytes) => (size, bytes.clone()),
        Kept::Misplaced(at) => (streams[at.index(streams.len())].head.size, right),
        Kept::OfAnotherHistory => match others.get(usize::try_from(size).unwrap() - 1) {
            Some(other) => (size, snapshot::encode(tenant, other).unwrap()),
            None => return,
        },
        Kept::OfAnotherTenant => (size, snapshot::encode(&tenant_id("another"), stream).unwrap()),
        Kept::TooLarge(by) => {
            let last = &streams[streams.len() - 1];
            let size = last.head.size + by;
            let mut longer = Stream { head: Head { size, ..last.head }, ..stream.clone() };
            longer.tree = last.tree.clone();
            for number in 0..*by {
                longer.tree.push(leaf_hash(&number.to_be_bytes()));
            }
            (size, snapshot::encode(tenant, &longer).unwrap())
        }
    };
    snapshots.save(tenant, size, &bytes).unwrap();
}

fn any_kept() -> impl Strategy<Value = Kept> {
    prop_oneof![
        3 => Just(Kept::Right),
        2 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Kept::WrongBit(at, bit)),
        1 => any::<Index>().prop_map(Kept::Cut),
        1 => any::<u8>().prop_map(Kept::Extended),
        1 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Kept::Rubbish),
        2 => any::<Index>().prop_map(Kept::Misplaced),
        2 => Just(Kept::OfAnotherHistory),
        1 => Just(Kept::OfAnotherTenant),
        1 => (1..9_u64).prop_map(Kept::TooLarge),
    ]
}

/// A stream whose state has something in every place where a state can have something.
fn stream_of_everything() -> Stream {
    let mut events = samples::events();
    events.push(Event::SignerRotated(SignerRotated { public_key: [0x44; 32] }));
    events.push(Event::LedgerRepaired(LedgerRepaired {
        kept: 1,
        restored: 2,
        lost: 3,
        damage: "d".to_owned(),
        source: "s".to_owned(),
    }));
    events.extend(samples::compliance_events().split_off(1));
    // Stored twice and read, and not erased.
    events.extend(samples::secrets::vault_events().drain(2..5));
    // Before the session ends and the key is revoked, so that both kinds are there.
    let live = samples::events();
    events.splice(6..6, [live[1].clone(), live[3].clone()]);
    // Rules of every type, and after them what agents are known for.
    let rules = samples::anomaly_events().into_iter();
    events.splice(2..2, rules.filter(|it| matches!(it, Event::AnomalyRuleAdded(_))));
    // Up to a call without an outcome.
    let proxy = samples::proxy::recorded_proxy().into_iter().map(|recorded| recorded.event);
    events.extend(proxy.take(26).skip(1));
    let (mut tenant, mut tree) = (Tenant::default(), Tree::default());
    let mut last: Option<(Recorded, entry::SealedEntry)> = None;
    let mut recorded = samples::recorded(events);
    recorded[0].idempotency = Some(Idempotency { key: [0x55; 32], fingerprint: [0x66; 32] });
    recorded[0].actor = Actor::Bootstrap;
    for recorded in recorded {
        let prev = last.as_ref().map_or(haldir::format::chain::EntryHash::GENESIS, |(_, entry)| entry.hash);
        let entry = entry::seal(&samples::tenant(), &recorded, &prev, &signer()).unwrap();
        apply(&mut tenant, &recorded);
        tree.push(leaf_hash(&entry.bytes));
        last = Some((recorded, entry));
    }
    let (recorded, entry) = last.unwrap();
    Stream { tenant, head: Head { size: recorded.seq + 1, hash: entry.hash }, last_at: recorded.at, tree }
}
