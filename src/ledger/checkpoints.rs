//! Checkpoints that were signed: which there are, and how they are kept.
//!
//! A checkpoint is recorded before anybody is given it, durably and once for each size of a stream. So the log of
//! checkpoints holds everything that this ledger ever signed about its size and root.

use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use crate::format::chain::{PublicKey, SIGNATURE_LEN, Signer};
use crate::format::checkpoint::Checkpoint;
use crate::format::merkle::TreeHash;
use crate::store::{Direction, EventStore, Row, SideKind, SideRow, StoreError};

/// Checkpoints that are read at once to be counted.
const COUNT_PAGE_LEN: usize = 1000;

/// A checkpoint as it is kept and given away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptCheckpoint {
    /// Entries in the stream.
    pub size: u64,
    /// Root of the tree over them.
    pub root: TreeHash,
    /// When it was signed.
    pub signed_at: Timestamp,
    /// Who signed it.
    pub key: PublicKey,
    /// The signature of the contract's signed tree head, over size, root and the second of `signed_at`.
    pub tree_head_signature: [u8; SIGNATURE_LEN],
    /// The C2SP signed note.
    pub note: String,
}

impl KeptCheckpoint {
    /// Signs the size and root of a stream.
    pub(super) fn sign(tenant: &TenantId, size: u64, root: TreeHash, at: Timestamp, signer: &Signer) -> Self {
        let checkpoint = Checkpoint { tenant: tenant.clone(), size, root };
        Self {
            size,
            root,
            signed_at: at,
            key: signer.public_key(),
            tree_head_signature: signer.sign_tree_head(size, &root, at.seconds()),
            note: checkpoint.sign(signer),
        }
    }

    pub(super) fn row(&self) -> SideRow {
        let at = self.signed_at.micros().to_be_bytes();
        let value =
            [&self.root.0[..], &at, &self.key.to_bytes(), &self.tree_head_signature, self.note.as_bytes()];
        SideRow { kind: SideKind::Checkpoint, id: self.size.to_be_bytes().to_vec(), value: value.concat() }
    }

    pub(super) fn of_row(row: &SideRow) -> Option<Self> {
        Self::read(&(row.id.clone(), row.value.clone()))
    }

    fn read((id, value): &Row) -> Option<Self> {
        let (root, rest) = value.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_first_chunk()?;
        let (signature, note) = rest.split_first_chunk()?;
        Some(Self {
            size: u64::from_be_bytes(id.as_slice().try_into().ok()?),
            root: TreeHash(*root),
            signed_at: Timestamp::from_micros(u64::from_be_bytes(*at)),
            key: PublicKey::from_bytes(key)?,
            tree_head_signature: *signature,
            note: String::from_utf8(note.to_vec()).ok()?,
        })
    }
}

/// The checkpoint of a stream at a size, if one was ever signed.
///
/// # Errors
///
/// [`StoreError`].
pub fn at_size(
    store: &dyn EventStore,
    tenant: &TenantId,
    size: u64,
) -> Result<Option<KeptCheckpoint>, StoreError> {
    let id = size.to_be_bytes();
    let value = store.side(tenant, SideKind::Checkpoint, &id)?;
    value.map(|value| KeptCheckpoint::read(&(id.to_vec(), value)).ok_or_else(damaged)).transpose()
}

/// At most `count` checkpoints of a stream by their size, ascending or descending, beginning after the size `after`, or with
/// the first.
///
/// # Errors
///
/// [`StoreError`].
pub fn list(
    store: &dyn EventStore,
    tenant: &TenantId,
    after: Option<u64>,
    direction: Direction,
    count: usize,
) -> Result<Vec<KeptCheckpoint>, StoreError> {
    let after = after.map(u64::to_be_bytes);
    let after = after.as_ref().map(<[u8; 8]>::as_slice);
    let rows = store.sides(tenant, SideKind::Checkpoint, after, direction, count)?;
    rows.iter().map(|row| KeptCheckpoint::read(row).ok_or_else(damaged)).collect()
}

/// How many checkpoints of a stream were signed. Reads them page by page.
///
/// # Errors
///
/// [`StoreError`].
pub fn count(store: &dyn EventStore, tenant: &TenantId) -> Result<usize, StoreError> {
    let (mut count, mut after) = (0, None);
    loop {
        let page = list(store, tenant, after, Direction::Forward, COUNT_PAGE_LEN)?;
        let Some(last) = page.last() else {
            return Ok(count);
        };
        count += page.len();
        after = Some(last.size);
    }
}

fn damaged() -> StoreError {
    StoreError::Damaged("a kept checkpoint is malformed".to_owned())
}
