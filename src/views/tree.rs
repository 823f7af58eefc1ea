//! The hashes of each stream's Merkle tree, so that a proof costs a few reads whatever the stream's size.
//!
//! | Key | Value |
//! |---|---|
//! | `t` tenant level block | up to 128 hashes of 32 bytes |
//!
//! A row holds neighbouring nodes of one level: those from `128 × block` on that the stream has so far. Rows stand at the
//! levels 0, 7, 14 and so on: a full row is the subtree below one node of the next level with rows, and a node between
//! is folded from at most 64 hashes of the row below it. A row that is full is never written again.

use std::cell::RefCell;

use super::audit::tenant_key;
use crate::domain::id::TenantId;
use crate::format::merkle::{TreeHash, node_hash};
use crate::format::proof::{Node, Nodes};
use crate::store::{PageStore, Row, StoreError};

const HASHES: u8 = b't';
/// Bytes of a hash.
const HASH_LEN: usize = 32;
/// Levels of the tree from one level with rows to the next.
const ROW_HEIGHT: u8 = 7;
/// Hashes of a full row; 4 KiB.
const ROW_WIDTH: u64 = 1 << ROW_HEIGHT;
/// Bytes of a full row.
const ROW_LEN: usize = HASH_LEN << ROW_HEIGHT;

/// Rows to be written for a run of entries of one tenant.
pub struct Update<'a> {
    pages: &'a dyn PageStore,
    tenant: &'a TenantId,
    /// Entries that the rows in the store cover.
    size: u64,
    /// The row at the right edge of each level, as far as it was touched.
    edge: Vec<EdgeRow>,
    full: Vec<Row>,
}

/// The row of a level that is being filled.
struct EdgeRow {
    block: u64,
    hashes: Vec<u8>,
}

impl<'a> Update<'a> {
    /// Starts after `size` entries.
    #[must_use]
    pub fn new(pages: &'a dyn PageStore, tenant: &'a TenantId, size: u64) -> Self {
        Self { pages, tenant, size, edge: Vec::new(), full: Vec::new() }
    }

    /// Adds an entry by the hash of its leaf. Each row that is gone on with is read once.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when such a row cannot be read or is not as long as it should be. The update is then to be dropped.
    pub fn add(&mut self, leaf: TreeHash) -> Result<(), StoreError> {
        let mut node = leaf;
        for step in 0.. {
            if step == self.edge.len() {
                self.edge.push(self.read_edge(step)?);
            }
            let row = &mut self.edge[step];
            row.hashes.extend_from_slice(&node.0);
            if row.hashes.len() < ROW_LEN {
                break;
            }
            // The row is full: its root is the next node of the level above.
            node = fold(&row.hashes).ok_or_else(|| damaged("a row without hashes"))?;
            let key = row_key(self.tenant, level_of(step), row.block);
            self.full.push((key, std::mem::take(&mut row.hashes)));
            row.block += 1;
        }
        Ok(())
    }

    /// The row that the entries so far ended in, at the level of this step.
    fn read_edge(&self, step: usize) -> Result<EdgeRow, StoreError> {
        let level = level_of(step);
        // Only every 128th entry of the level below reaches this one: what it has, it had at the start.
        let count = self.size.checked_shr(level.into()).unwrap_or(0);
        let (block, rest) = (count / ROW_WIDTH, count % ROW_WIDTH);
        let mut hashes = Vec::new();
        if rest > 0 {
            let row = self.pages.get(&row_key(self.tenant, level, block))?;
            hashes = row.ok_or_else(|| damaged("a row is missing"))?;
        }
        if hashes.len() as u64 != rest * HASH_LEN as u64 {
            return Err(damaged("a row is not as long as the stream"));
        }
        Ok(EdgeRow { block, hashes })
    }

    /// The rows.
    #[must_use]
    pub fn finish(self) -> Vec<Row> {
        let mut rows = self.full;
        for (step, row) in self.edge.into_iter().enumerate() {
            if !row.hashes.is_empty() {
                rows.push((row_key(self.tenant, level_of(step), row.block), row.hashes));
            }
        }
        rows
    }
}

/// The nodes of a tenant's tree of one size, out of the rows. The rows may be of a larger tree.
pub struct TreeNodes<'a> {
    pages: &'a dyn PageStore,
    tenant: &'a TenantId,
    size: u64,
    /// The row that was read last: neighbouring nodes of a path stand in one row.
    last: RefCell<Option<Row>>,
}

impl<'a> TreeNodes<'a> {
    /// The tree over the first `size` entries.
    #[must_use]
    pub fn new(pages: &'a dyn PageStore, tenant: &'a TenantId, size: u64) -> Self {
        Self { pages, tenant, size, last: RefCell::new(None) }
    }

    /// Entries in the tree.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }
}

impl Nodes for TreeNodes<'_> {
    type Error = StoreError;

    fn node(&self, node: Node) -> Result<TreeHash, StoreError> {
        if node.leaves().is_none_or(|leaves| leaves.end > self.size) {
            return Err(damaged("a node beyond the tree was asked for"));
        }
        let height = node.level % ROW_HEIGHT;
        let first = node.index << height;
        let key = row_key(self.tenant, node.level - height, first / ROW_WIDTH);
        let mut last = self.last.borrow_mut();
        if last.as_ref().is_none_or(|(last_key, _)| *last_key != key) {
            let hashes = self.pages.get(&key)?.ok_or_else(|| damaged("a row is missing"))?;
            *last = Some((key, hashes));
        }
        let hashes = last.as_ref().map_or(&[][..], |(_, hashes)| hashes);
        let from = usize::try_from(first % ROW_WIDTH).unwrap_or(usize::MAX).saturating_mul(HASH_LEN);
        let to = from.saturating_add(HASH_LEN << height);
        hashes.get(from..to).and_then(fold).ok_or_else(|| damaged("a row is too short"))
    }
}

/// The root over a power of two of hashes; `None` over none.
fn fold(hashes: &[u8]) -> Option<TreeHash> {
    let (hashes, _) = hashes.as_chunks::<HASH_LEN>();
    let mut level: Vec<TreeHash> = hashes.iter().copied().map(TreeHash).collect();
    while level.len() > 1 {
        level = level.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    level.pop()
}

/// The tree's level that the rows of this step stand at. A stream has fewer than 2⁶⁴ entries, so a level is at most 63.
fn level_of(step: usize) -> u8 {
    u8::try_from(step).unwrap_or(u8::MAX).saturating_mul(ROW_HEIGHT)
}

fn row_key(tenant: &TenantId, level: u8, block: u64) -> Vec<u8> {
    let mut key = tenant_key(HASHES, tenant);
    key.push(level);
    key.extend_from_slice(&block.to_be_bytes());
    key
}

fn damaged(why: &str) -> StoreError {
    StoreError::Damaged(format!("tree view: {why}"))
}
