//! The view that keeps tree hashes: the same rows however entries come, few reads and writes, and the right paths.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::LazyLock;

use haldir::format::merkle::TreeHash;
use haldir::format::proof::{Node, Nodes, consistency_path, inclusion_path, peaks, root};
use haldir::store::memory::MemoryPages;
use haldir::store::{Direction, PageStore, Row, StoreError};
use haldir::views::tree::{TreeNodes, Update};
use parking_lot::Mutex;
use proptest::prelude::*;
use tlog_tiles::{prove_record, prove_tree, tree_hash};

use super::REGRESSIONS;
use super::trees::{Levels, leaf, ours, theirs};
use crate::samples::{random_cases, tenant};

const SIZE: u64 = 100_000;
/// Bytes of a full row.
const ROW_LEN: usize = 4096;

static LEVELS: LazyLock<Levels> = LazyLock::new(|| Levels::new(SIZE));
/// The rows of the whole tree, written in one go.
static ROWS: LazyLock<MemoryPages> = LazyLock::new(|| {
    let pages = MemoryPages::default();
    add(&pages, 0..SIZE).unwrap();
    pages
});

fn add(pages: &dyn PageStore, places: Range<u64>) -> Result<(), StoreError> {
    let tenant = tenant();
    let mut update = Update::new(pages, &tenant, places.start);
    for place in places {
        update.add(leaf(place))?;
    }
    pages.write(update.finish())
}

fn rows_of(pages: &dyn PageStore) -> BTreeMap<Vec<u8>, Vec<u8>> {
    pages.scan(&[], Direction::Forward).map(Result::unwrap).collect()
}

/// Counts reads, and holds that a full row is never written again.
#[derive(Default)]
struct Watched {
    pages: MemoryPages,
    reads: Mutex<usize>,
}

impl PageStore for Watched {
    fn write(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        for (key, _) in &rows {
            let before = self.pages.get(key)?;
            assert!(before.is_none_or(|before| before.len() < ROW_LEN), "a full row is written again");
        }
        self.pages.write(rows)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        *self.reads.lock() += 1;
        self.pages.get(key)
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.pages.clear()
    }

    fn page(&self, prefix: &[u8], from: &[u8], count: usize) -> Result<Vec<Row>, StoreError> {
        self.pages.page(prefix, from, count)
    }

    fn scan<'a>(
        &'a self,
        prefix: &[u8],
        direction: Direction,
    ) -> Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a> {
        self.pages.scan(prefix, direction)
    }
}

#[test]
fn rows_are_the_same_however_entries_come_and_are_read_and_written_once() {
    let watched = Watched::default();
    let mut size = 0;
    while size < SIZE {
        let next = (size + 1 + (size * 7919) % 512).min(SIZE);
        *watched.reads.lock() = 0;
        add(&watched, size..next).unwrap();
        // Leaves; and what they fill above, at most two more levels with rows in a tree of this size.
        let levels_reached = 1 + usize::from(size / 128 < next / 128) + usize::from(size >> 14 < next >> 14);
        assert!(*watched.reads.lock() <= levels_reached, "{size} to {next}");
        size = next;
    }
    assert!(rows_of(&watched) == rows_of(&*ROWS), "the rows differ");
    assert!(rows_of(&*ROWS).values().all(|row| row.len() <= ROW_LEN && !row.is_empty()));
}

#[test]
fn rows_that_are_not_there_are_an_error() {
    let tenant = tenant();
    let is_damaged = |error: StoreError| matches!(error, StoreError::Damaged(_));
    let pages = MemoryPages::default();
    add(&pages, 0..200).unwrap();
    // The store does not end where the caller thinks.
    for size in [199, 201, 300, 10_000, u64::MAX] {
        let mut update = Update::new(&pages, &tenant, size);
        assert!(is_damaged(update.add(leaf(0)).unwrap_err()), "{size}");
    }
    let nodes = TreeNodes::new(&pages, &tenant, 200);
    for node in [
        Node { level: 0, index: 200 },
        Node { level: 7, index: 1 },
        Node { level: 0, index: u64::MAX },
        Node { level: 63, index: u64::MAX },
        Node { level: 64, index: 0 },
        Node { level: 255, index: 0 },
    ] {
        assert!(is_damaged(nodes.node(node).unwrap_err()), "{node:?}");
    }
    // The rows have it, but it is not in a tree of that size.
    let smaller = TreeNodes::new(&pages, &tenant, 150);
    smaller.node(Node { level: 0, index: 149 }).unwrap();
    for node in [Node { level: 0, index: 150 }, Node { level: 2, index: 37 }] {
        assert!(is_damaged(smaller.node(node).unwrap_err()), "{node:?}");
    }
    let beyond = TreeNodes::new(&pages, &tenant, 300);
    assert!(is_damaged(root(&beyond, 300).unwrap_err()));
}

proptest! {
    #![proptest_config(random_cases(256, REGRESSIONS))]

    #[test]
    fn paths_out_of_rows_are_those_of_others(size in 1..=SIZE, part in any::<prop::sample::Index>()) {
        let tenant = tenant();
        // The rows are those of a larger tree, as they are when the stream grows while a proof is made.
        let nodes = TreeNodes::new(&*ROWS, &tenant, size);
        prop_assert_eq!(theirs(root(&nodes, size).unwrap()), tree_hash(size, &*LEVELS).unwrap());
        prop_assert_eq!(peaks(&nodes, size).unwrap(), peaks(&*LEVELS, size).unwrap());
        let part = part.index(usize::try_from(size).unwrap()) as u64 + 1;
        let path = inclusion_path(&nodes, part - 1, size).unwrap();
        prop_assert_eq!(path, ours(&prove_record(size, part - 1, &*LEVELS).unwrap()));
        let path = consistency_path(&nodes, part, size).unwrap();
        prop_assert_eq!(path, ours(&prove_tree(size, part, &*LEVELS).unwrap()));
    }

}

proptest! {
    #![proptest_config(random_cases(64, REGRESSIONS))]

    #[test]
    fn any_run_goes_on_where_the_last_one_ended(runs in prop::collection::vec(0..300_u64, 0..8)) {
        let watched = Watched::default();
        let mut size = 0;
        for run in runs {
            add(&watched, size..size + run).unwrap();
            size += run;
        }
        let at_once = MemoryPages::default();
        add(&at_once, 0..size).unwrap();
        prop_assert_eq!(rows_of(&watched), rows_of(&at_once));
        let leaves: Vec<TreeHash> = (0..size).map(leaf).collect();
        let tenant = tenant();
        let nodes = TreeNodes::new(&watched, &tenant, size);
        for (index, leaf) in leaves.iter().enumerate() {
            prop_assert_eq!(&nodes.node(Node { level: 0, index: index as u64 }).unwrap(), leaf);
        }
    }
}
