//! Do all stores mean the same, and is what they were given what they give back?

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use haldir::domain::id::TenantId;
use haldir::format::chain::EntryHash;
use haldir::store::embedded::{EmbeddedPages, EmbeddedStore};
use haldir::store::memory::{MemoryPages, MemoryStore};
use haldir::store::{
    Direction, EventStore, Head, PageStore, Row, SideKind, SideRow, StoreError, StreamAppend,
};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::samples::random_cases;

const REGRESSIONS: &str = "proptest-regressions/stores.txt";
/// A value longer than this is stored in parts.
const PART_LEN: usize = 4096;

#[test]
fn what_was_appended_is_read_in_order_and_in_any_portion() {
    on_every_store(|store| {
        let entries = [value(1, 300), value(2, 5000), value(3, 1), value(4, PART_LEN)];
        let head = append(store, "a", None, &entries[..2]);
        append(store, "a", Some(head), &entries[2..]);
        store.sync().unwrap();
        for from in 0..6 {
            for count in 0..6 {
                let expected: Vec<_> = entries.iter().skip(from).take(count).cloned().collect();
                assert_eq!(store.read(&tenant("a"), from as u64, count), Ok(expected), "{count} from {from}");
            }
        }
        assert_eq!(store.read(&tenant("a"), u64::MAX, usize::MAX), Ok(vec![]));
        assert_eq!(store.read(&tenant("nobody"), 0, 10), Ok(vec![]));
    });
}

#[test]
fn a_stream_that_moved_is_a_conflict_and_nothing_of_the_batch_is_written() {
    on_every_store(|store| {
        let head = append(store, "b", None, &[value(1, 100)]);
        let before = (store.heads(), store.read(&tenant("b"), 0, 10));
        let other = Head { hash: EntryHash([0xff; 32]), ..head };
        for (name, wrong) in [("b", None), ("b", Some(other)), ("a", Some(head)), ("c", Some(head))] {
            let side = SideRow { kind: SideKind::Details, id: b"id".to_vec(), value: value(7, 10) };
            let fine = StreamAppend { side: vec![side], ..stream_append("d", None, &[value(2, 5000)]) };
            // First, last or alone, a conflict is a conflict.
            let conflicting = stream_append(name, wrong, &[value(3, 9000)]);
            for batch in [
                vec![conflicting.clone()],
                vec![conflicting.clone(), fine.clone()],
                vec![fine.clone(), conflicting.clone()],
            ] {
                assert_eq!(store.append(&batch), Err(StoreError::Conflict(tenant(name))));
            }
            assert_eq!((store.heads(), store.read(&tenant("b"), 0, 10)), before);
            assert_eq!(store.read(&tenant("d"), 0, 10), Ok(vec![]));
            assert_eq!(store.side(&tenant("d"), SideKind::Details, b"id"), Ok(None));
        }
        append(store, "b", Some(head), &[value(4, 100)]);
    });
}

#[test]
fn values_of_any_length_come_back_and_neighbours_are_not_mixed_up() {
    on_every_store(|store| {
        let lens = [1, PART_LEN - 1, PART_LEN, PART_LEN + 1, 2 * PART_LEN, 2 * PART_LEN + 1, 65_535];
        let entries: Vec<_> = (1..).zip(lens).map(|(fill, len)| value(fill, len)).collect();
        let long = [SideKind::Details, SideKind::MintedKey].map(|kind| SideRow {
            kind,
            id: b"aud_AwMDAwMDAwMDAwMDAwMDAw".to_vec(),
            value: value(kind as u8, (1 << 20) + 16),
        });
        let short = SideRow {
            kind: SideKind::Details,
            id: b"aud_AwMDAwMDAwMDAwMDAwMDAx".to_vec(),
            value: value(9, 3),
        };
        let side: Vec<_> = long.into_iter().chain([short]).collect();
        let append = StreamAppend { side: side.clone(), ..stream_append("a", None, &entries) };
        store.append(&[append]).unwrap();
        store.sync().unwrap();

        assert_eq!(store.read(&tenant("a"), 0, 100).as_ref(), Ok(&entries));
        for (seq, entry) in entries.iter().enumerate() {
            assert_eq!(store.read(&tenant("a"), seq as u64, 1), Ok(vec![entry.clone()]));
        }
        for row in side {
            let found = store.side(&tenant("a"), row.kind, &row.id).unwrap();
            assert!(found == Some(row.value), "{:?} of {} bytes", row.kind, found.map_or(0, |it| it.len()));
        }
    });
}

#[test]
fn tenants_whose_names_start_alike_are_kept_apart() {
    on_every_store(|store| {
        let names =
            ["a", "a0", "a00", "a_", "aa", "0", "_", "aaaaaaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaaaaaaaa"];
        let mut heads: Vec<Option<Head>> = vec![None; names.len()];
        let row = |name: &str| SideRow {
            kind: SideKind::Details,
            id: b"one id for all".to_vec(),
            value: name.as_bytes().to_vec(),
        };
        for round in 0..3 {
            for (name, head) in names.iter().zip(&mut heads) {
                let entries = [value(round, 10), format!("{round} of {name}").into_bytes()];
                let append = StreamAppend { side: vec![row(name)], ..stream_append(name, *head, &entries) };
                store.append(std::slice::from_ref(&append)).unwrap();
                *head = Some(append.head);
            }
        }
        for name in names {
            let entry = |round: u8| [value(round, 10), format!("{round} of {name}").into_bytes()];
            assert_eq!(store.read(&tenant(name), 0, 10), Ok((0..3).flat_map(entry).collect()), "{name}");
            let side = store.side(&tenant(name), SideKind::Details, b"one id for all");
            assert_eq!(side, Ok(Some(name.as_bytes().to_vec())));
        }
        let mut sorted: Vec<_> =
            names.iter().map(|name| tenant(name)).zip(heads.into_iter().flatten()).collect();
        sorted.sort_by(|(left, _), (right, _)| left.cmp(right));
        assert_eq!(store.heads(), Ok(sorted), "all streams, by tenant");
    });
}

#[test]
fn side_values_are_told_apart_by_tenant_kind_and_id() {
    on_every_store(|store| {
        let row = |kind, id: &[u8], fill| SideRow { kind, id: id.to_vec(), value: value(fill, 10) };
        let rows = [
            row(SideKind::Details, b"one", 1),
            row(SideKind::MintedKey, b"one", 2),
            row(SideKind::Details, b"two", 3),
        ];
        store
            .append(&[StreamAppend { side: rows.to_vec(), ..stream_append("a", None, &[value(1, 1)]) }])
            .unwrap();
        for row in rows {
            assert_eq!(store.side(&tenant("a"), row.kind, &row.id), Ok(Some(row.value)));
            assert_eq!(store.side(&tenant("b"), row.kind, &row.id), Ok(None));
        }
        assert_eq!(store.side(&tenant("a"), SideKind::MintedKey, b"two"), Ok(None));
    });
}

#[test]
fn side_values_whose_ids_start_alike_are_kept_apart() {
    on_every_store(|store| {
        let ids: [&[u8]; 7] = [b"x", b"xy", b"xyz", b"x\0", b"x\0\0", b"x\0\0\0", b"x\xff\xff"];
        let row = |id: &&[u8]| SideRow {
            kind: SideKind::Details,
            id: id.to_vec(),
            value: [b"value of ", *id].concat(),
        };
        let side: Vec<_> = ids.iter().map(row).collect();
        store.append(&[StreamAppend { side, ..stream_append("a", None, &[value(1, 1)]) }]).unwrap();
        for id in &ids {
            assert_eq!(store.side(&tenant("a"), SideKind::Details, id), Ok(Some(row(id).value)));
        }
    });
}

#[test]
fn a_side_value_is_replaced_as_a_whole_and_may_be_empty() {
    on_every_store(|store| {
        let mut head = None;
        for len in [3 * PART_LEN, 10, PART_LEN + 1, 0] {
            let row = SideRow { kind: SideKind::MintedKey, id: b"id".to_vec(), value: value(1, len) };
            let append = StreamAppend { side: vec![row], ..stream_append("a", head, &[value(1, 1)]) };
            store.append(std::slice::from_ref(&append)).unwrap();
            head = Some(append.head);
            let found = store.side(&tenant("a"), SideKind::MintedKey, b"id").unwrap();
            assert_eq!(found.map(|value| value.len()), Some(len));
        }
    });
}

#[test]
fn entries_beyond_a_head_are_cut_and_no_others() {
    on_every_store(|store| {
        let kept = append(store, "a", None, &[value(1, 10), value(2, 9000)]);
        append(store, "a_", None, &[value(3, 10), value(4, 10), value(5, 10)]);
        // A head that names fewer entries than there are: what a store leaves that stopped half-way.
        let beyond = [value(6, 9000), value(7, 10), value(8, 70_000)];
        let torn = StreamAppend { head: kept, ..stream_append("a", Some(kept), &beyond) };
        store.append(&[torn]).unwrap();
        assert_eq!(store.read(&tenant("a"), 0, 10).unwrap().len(), 5);

        assert_eq!(store.cut(&tenant("a"), kept.size), Ok(3));
        assert_eq!(store.cut(&tenant("a"), kept.size), Ok(0));
        assert_eq!(store.cut(&tenant("nobody"), 7), Ok(0));
        assert_eq!(store.read(&tenant("a"), 0, 10), Ok(vec![value(1, 10), value(2, 9000)]));
        assert_eq!(store.read(&tenant("a_"), 0, 10).unwrap().len(), 3);
        // Nothing of a long entry that was cut shines through a short one at its place.
        append(store, "a", Some(kept), &[value(9, 10), value(10, 10), value(11, 10)]);
        let after = vec![value(1, 10), value(2, 9000), value(9, 10), value(10, 10), value(11, 10)];
        assert_eq!(store.read(&tenant("a"), 0, 10), Ok(after));
    });
}

#[test]
fn a_ledger_on_disk_is_the_same_when_it_is_opened_again() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(dir.path()).unwrap();
    let row = SideRow { kind: SideKind::Details, id: b"id".to_vec(), value: value(5, 10_000) };
    let first =
        StreamAppend { side: vec![row], ..stream_append("a", None, &[value(1, 10), value(2, 65_535)]) };
    store.append(&[first.clone(), stream_append("b", None, &[value(3, 10)])]).unwrap();
    store.sync().unwrap();
    let content = |store: &EmbeddedStore| {
        (
            store.heads(),
            store.read(&tenant("a"), 0, 10),
            store.read(&tenant("b"), 0, 10),
            store.side(&tenant("a"), SideKind::Details, b"id"),
            store.missing(),
        )
    };
    let before = content(&store);
    drop(store);
    let store = open_again(dir.path());
    assert!(content(&store) == before);
    append(&store, "a", Some(first.head), &[value(4, 10)]);
}

#[test]
fn a_directory_is_open_once_at_a_time() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(dir.path()).unwrap();
    assert_eq!(EmbeddedStore::open(dir.path()).err(), Some(StoreError::InUse));
    append(&store, "a", None, &[value(1, 10)]);
    drop(store);
    let store = open_again(dir.path());
    assert_eq!(store.read(&tenant("a"), 0, 1), Ok(vec![value(1, 10)]));

    let dir = TempDir::new().unwrap();
    let _pages = EmbeddedPages::open(dir.path()).unwrap();
    assert_eq!(EmbeddedPages::open(dir.path()).err(), Some(StoreError::InUse));
}

#[test]
fn an_entry_on_disk_that_lacks_a_part_is_a_gap() {
    let entries = [value(1, 10), value(2, 3 * PART_LEN), value(3, 10)];
    for part in 0..3 {
        let dir = TempDir::new().unwrap();
        append(&EmbeddedStore::open(dir.path()).unwrap(), "a", None, &entries);
        let db = once_free(|| sled::open(dir.path()).map_err(|_| StoreError::InUse)).unwrap();
        db.remove(entry_part_key("a", 1, part)).unwrap().expect("the part is there");
        drop(db);
        let store = open_again(dir.path());
        assert_eq!(store.read(&tenant("a"), 0, 10), Ok(vec![value(1, 10)]), "part {part}");
        assert_eq!(store.read(&tenant("a"), 1, 1), Ok(vec![]), "part {part}");
        assert_eq!(store.read(&tenant("a"), 2, 1), Ok(vec![value(3, 10)]));
    }
}

#[test]
fn a_head_that_cannot_be_read_is_damage() {
    for (key, head) in [
        (&b"ha\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..], vec![0; 39]),
        (&b"ha\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..], vec![]),
        (&b"hNO TENANT\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..], vec![0; 40]),
    ] {
        let dir = TempDir::new().unwrap();
        let db = sled::open(dir.path()).unwrap();
        db.insert(key, head).unwrap();
        drop(db);
        let found = once_free(|| EmbeddedStore::open(dir.path())).and_then(|store| store.heads());
        assert!(matches!(found, Err(StoreError::Damaged(_))), "{found:?}");
    }
}

proptest! {
    #![proptest_config(random_cases(128, REGRESSIONS))]

    #[test]
    fn whatever_is_done_the_store_on_disk_answers_like_the_one_in_memory(
        operations in prop::collection::vec(any_operation(), 1..40),
    ) {
        let dir = TempDir::new().unwrap();
        let memory = MemoryStore::default();
        let mut embedded = EmbeddedStore::open(dir.path()).unwrap();
        for operation in operations {
            if let Operation::Reopen = operation {
                drop(embedded);
                embedded = open_again(dir.path());
                prop_assert_eq!(embedded.missing(), 0);
            }
            prop_assert_eq!(operation.run(&memory), operation.run(&embedded), "{:?}", operation);
        }
        for name in NAMES {
            let read = |store: &dyn EventStore| store.read(&tenant(name), 0, 1000);
            prop_assert_eq!(read(&memory), read(&embedded));
        }
    }
}

proptest! {
    #![proptest_config(random_cases(96, REGRESSIONS))]

    #[test]
    fn pages_are_found_in_order_forward_and_in_reverse(
        writes in prop::collection::vec(prop::collection::vec((any_page_key(), prop::collection::vec(any::<u8>(), 0..50)), 0..20), 1..6),
        prefixes in prop::collection::vec(any_page_key(), 10),
        from in any_page_key(), count in 0..8_usize,
    ) {
        let dir = TempDir::new().unwrap();
        let embedded = EmbeddedPages::open(dir.path()).unwrap();
        let memory = MemoryPages::default();
        let mut rows = std::collections::BTreeMap::new();
        for write in writes {
            memory.write(write.clone()).unwrap();
            embedded.write(write.clone()).unwrap();
            rows.extend(write);
        }
        for store in [&memory as &dyn PageStore, &embedded] {
            for prefix in prefixes.iter().chain([&vec![]]) {
                let mut expected: Vec<Row> =
                    rows.clone().into_iter().filter(|(key, _)| key.starts_with(prefix)).collect();
                prop_assert_eq!(&scan(store, prefix, Direction::Forward), &expected);
                for from in [&from, prefix, &[&prefix[..], &from].concat()] {
                    let page = expected.iter().filter(|(key, _)| key >= from).take(count);
                    prop_assert_eq!(store.page(prefix, from, count), Ok(page.cloned().collect()));
                }
                expected.reverse();
                prop_assert_eq!(&scan(store, prefix, Direction::Reverse), &expected);
                prop_assert_eq!(store.get(prefix), Ok(rows.get(prefix).cloned()));
            }
            store.clear().unwrap();
            prop_assert_eq!(scan(store, &[], Direction::Forward), vec![]);
        }
    }
}

#[test]
fn views_on_disk_that_cannot_be_read_are_thrown_away() {
    let dir = TempDir::new().unwrap();
    let pages = EmbeddedPages::open(dir.path()).unwrap();
    pages.write(vec![(b"key".to_vec(), b"value".to_vec())]).unwrap();
    drop(pages);
    let rubbish = |path: &Path| std::fs::write(path, [0xa5; 4096]).unwrap();
    rubbish(&dir.path().join("conf"));
    let pages = once_free(|| EmbeddedPages::open(dir.path())).unwrap();
    assert_eq!(scan(&pages, &[], Direction::Forward), vec![]);
    pages.write(vec![(b"key".to_vec(), b"value".to_vec())]).unwrap();
}

fn on_every_store(suite: impl Fn(&dyn EventStore)) {
    let dir = TempDir::new().unwrap();
    let embedded = EmbeddedStore::open(dir.path()).unwrap();
    for (name, store) in [("memory", &MemoryStore::default() as &dyn EventStore), ("embedded", &embedded)] {
        let outcome = catch_unwind(AssertUnwindSafe(|| suite(store)));
        assert!(outcome.is_ok(), "the {name} store failed");
    }
}

/// sled's own threads may hold its files for a moment after a store is gone.
pub(crate) fn once_free<T>(open: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    for _ in 0..1000 {
        match open() {
            Err(StoreError::InUse) => std::thread::sleep(Duration::from_millis(5)),
            opened => return opened,
        }
    }
    Err(StoreError::InUse)
}

/// Where the store on disk keeps one part of an entry.
pub(crate) fn entry_part_key(name: &str, seq: u64, part: u16) -> Vec<u8> {
    let mut key = [b"e", name.as_bytes()].concat();
    key.resize(1 + 24, 0);
    key.extend_from_slice(&seq.to_be_bytes());
    key.extend_from_slice(&part.to_be_bytes());
    key
}

fn open_again(dir: &Path) -> EmbeddedStore {
    once_free(|| EmbeddedStore::open(dir)).unwrap()
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

/// Bytes that tell where they come from and where in the value they stand.
fn value(fill: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| fill.wrapping_add(u8::try_from(at / 7 % 256).unwrap())).collect()
}

/// Stores do not know what an entry means, so any bytes and any hash will do.
fn stream_append(name: &str, expected: Option<Head>, entries: &[Vec<u8>]) -> StreamAppend {
    let size = expected.map_or(0, |head| head.size) + entries.len() as u64;
    let hash = EntryHash::of(&[name.as_bytes(), &entries.concat()].concat());
    StreamAppend {
        tenant: tenant(name),
        expected,
        entries: entries.to_vec(),
        head: Head { size, hash },
        side: Vec::new(),
    }
}

fn append(store: &dyn EventStore, name: &str, expected: Option<Head>, entries: &[Vec<u8>]) -> Head {
    let append = stream_append(name, expected, entries);
    store.append(std::slice::from_ref(&append)).unwrap();
    append.head
}

fn scan(store: &dyn PageStore, prefix: &[u8], direction: Direction) -> Vec<Row> {
    store.scan(prefix, direction).collect::<Result<_, _>>().unwrap()
}

const NAMES: [&str; 4] = ["a", "a0", "a_", "b"];

/// What is asked of both stores.
#[derive(Debug, Clone)]
enum Operation {
    /// To some tenants, with entries of these lengths; with a wrong idea of where the second stream ends.
    Append {
        lens: Vec<(usize, Vec<usize>)>,
        side: Vec<(usize, usize)>,
        is_stale: bool,
    },
    Sync,
    Reopen,
    Read {
        tenant: usize,
        from: u64,
        count: usize,
    },
    Side {
        tenant: usize,
        id: usize,
    },
    Heads,
    /// Beyond the head, where nothing is.
    Cut {
        tenant: usize,
        beyond: u64,
    },
}

#[derive(Debug, PartialEq)]
enum Answer {
    Done(Result<(), StoreError>),
    Entries(Result<Vec<Vec<u8>>, StoreError>),
    Value(Result<Option<Vec<u8>>, StoreError>),
    Heads(Result<Vec<(TenantId, Head)>, StoreError>),
    Dropped(Result<u64, StoreError>),
}

impl Operation {
    fn run(&self, store: &dyn EventStore) -> Answer {
        match self {
            Self::Append { lens, side, is_stale } => {
                let mut batch: Vec<StreamAppend> = Vec::new();
                for (number, (at, lens)) in lens.iter().enumerate() {
                    let head = head_of(store, NAMES[*at]);
                    let fill = u8::try_from(head.map_or(0, |it| it.size) % 251).unwrap();
                    let entries: Vec<_> = lens.iter().map(|len| value(fill, *len)).collect();
                    let expected = if *is_stale && number == 1 { None } else { head };
                    batch.push(stream_append(NAMES[*at], expected, &entries));
                }
                let rows = side.iter().map(|(id, len)| side_row(*id, value(7, *len)));
                if let Some(first) = batch.first_mut() {
                    first.side = rows.collect();
                }
                Answer::Done(store.append(&batch))
            }
            Self::Sync => Answer::Done(store.sync()),
            Self::Reopen => Answer::Done(Ok(())),
            Self::Read { tenant: at, from, count } => {
                Answer::Entries(store.read(&tenant(NAMES[*at]), *from, *count))
            }
            Self::Side { tenant: at, id } => {
                let row = side_row(*id, vec![]);
                Answer::Value(store.side(&tenant(NAMES[*at]), row.kind, &row.id))
            }
            Self::Heads => Answer::Heads(store.heads()),
            Self::Cut { tenant: at, beyond } => {
                let size = head_of(store, NAMES[*at]).map_or(0, |head| head.size);
                Answer::Dropped(store.cut(&tenant(NAMES[*at]), size.max(1) + beyond))
            }
        }
    }
}

fn head_of(store: &dyn EventStore, name: &str) -> Option<Head> {
    store.heads().unwrap().into_iter().find(|(owner, _)| *owner == tenant(name)).map(|(_, head)| head)
}

/// Few ids, some of which start alike.
fn side_row(id: usize, value: Vec<u8>) -> SideRow {
    let kind = if id.is_multiple_of(2) { SideKind::Details } else { SideKind::MintedKey };
    SideRow { kind, id: [b"id", &b"\0\0\x01\0"[..id / 2]].concat(), value }
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let len = || prop_oneof![8 => 1..300_usize, 2 => PART_LEN - 1..PART_LEN + 2, 1 => 1..30_000_usize];
    let tenants = prop::sample::subsequence((0..NAMES.len()).collect::<Vec<_>>(), 1..=NAMES.len());
    let entries = prop::collection::vec(prop::collection::vec(len(), 1..4), NAMES.len());
    let lens = (tenants, entries).prop_map(|(tenants, entries)| tenants.into_iter().zip(entries).collect());
    let side = prop::collection::vec((0..8_usize, prop_oneof![1 => Just(0), 9 => len()]), 0..3);
    let tenant = || 0..NAMES.len();
    prop_oneof![
        8 => (lens, side, prop::bool::weighted(0.1))
            .prop_map(|(lens, side, is_stale)| Operation::Append { lens, side, is_stale }),
        2 => Just(Operation::Sync),
        1 => Just(Operation::Reopen),
        4 => (tenant(), 0..20_u64, 0..10_usize)
            .prop_map(|(tenant, from, count)| Operation::Read { tenant, from, count }),
        4 => (tenant(), 0..8_usize).prop_map(|(tenant, id)| Operation::Side { tenant, id }),
        1 => Just(Operation::Heads),
        1 => (tenant(), 0..3_u64).prop_map(|(tenant, beyond)| Operation::Cut { tenant, beyond }),
    ]
}

/// Short keys of few bytes, so that many start alike; also at the end of the alphabet.
fn any_page_key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0, 1, b'a', 0xfe, 0xff]), 0..5)
}
