//! Snapshots: a stream's folded state at some size, so that a start and a look into the past need not fold from the first
//! entry.
//!
//! A snapshot is a shortcut and never the truth: one that is damaged, of another layout or not of this stream is passed
//! over, and the fold begins earlier.

use serde::{Deserialize, Serialize};

use super::world::Stream;
use crate::domain::id::TenantId;
use crate::domain::rederive::Due;
use crate::domain::time::Timestamp;
use crate::domain::{RULES_REVISION, Tenant};
use crate::format::chain::{EntryHash, HASH_LEN};
use crate::format::entry;
use crate::format::merkle::{Tree, TreeHash};
use crate::format::verify::Standpoint;
use crate::store::{EventStore, Head, SnapshotStore, StoreError};

/// Bytes that every snapshot starts with.
const MAGIC: [u8; 8] = *b"HLDSNAP\n";
/// The layout of the state below. A change of any state in `domain` gets a new one; a test holds this.
const LAYOUT: u32 = 3;
/// BLAKE3 key-derivation context of the checksum at the end.
const CHECKSUM_CONTEXT: &str = "haldir snapshot v1 checksum";

#[derive(Serialize, Deserialize)]
struct Content {
    tenant_id: TenantId,
    size: u64,
    head: [u8; HASH_LEN],
    last_at: Timestamp,
    peaks: Vec<[u8; HASH_LEN]>,
    state: Tenant,
}

/// The bytes of a snapshot.
///
/// # Errors
///
/// [`StoreError::Damaged`] when the state cannot be encoded, which no state of ours is.
pub fn encode(tenant: &TenantId, stream: &Stream) -> Result<Vec<u8>, StoreError> {
    let content = Content {
        tenant_id: tenant.clone(),
        size: stream.head.size,
        head: stream.head.hash.0,
        last_at: stream.last_at,
        peaks: stream.tree.peaks().iter().map(|peak| peak.0).collect(),
        state: stream.tenant.clone(),
    };
    let mut bytes = [&MAGIC[..], &LAYOUT.to_le_bytes(), &RULES_REVISION.to_le_bytes()].concat();
    let body = bincode::serde::encode_to_vec(&content, bincode::config::legacy());
    bytes.extend(body.map_err(|error| StoreError::Damaged(error.to_string()))?);
    bytes.extend(blake3::derive_key(CHECKSUM_CONTEXT, &bytes));
    Ok(bytes)
}

/// Reads a snapshot; `None` when it is not a whole one of this program's.
#[must_use]
pub fn decode(tenant: &TenantId, bytes: &[u8]) -> Option<Stream> {
    let (signed, checksum) = bytes.split_last_chunk::<HASH_LEN>()?;
    let start = [&MAGIC[..], &LAYOUT.to_le_bytes(), &RULES_REVISION.to_le_bytes()].concat();
    let body = signed.strip_prefix(start.as_slice())?;
    if blake3::derive_key(CHECKSUM_CONTEXT, signed) != *checksum {
        return None;
    }
    let decoded = bincode::serde::decode_from_slice::<Content, _>(body, bincode::config::legacy());
    let (content, len) = decoded.ok()?;
    if len != body.len() || content.tenant_id != *tenant {
        return None;
    }
    Some(Stream {
        tenant: content.state,
        head: Head { size: content.size, hash: EntryHash(content.head) },
        last_at: content.last_at,
        tree: Tree::from_peaks(content.size, content.peaks.into_iter().map(TreeHash).collect())?,
    })
}

/// The newest snapshot of a stream at or before `size` that can be built upon.
///
/// # Errors
///
/// [`StoreError`] when the ledger cannot be read. A snapshot that cannot be read is passed over.
pub fn newest(
    snapshots: &dyn SnapshotStore,
    store: &dyn EventStore,
    tenant: &TenantId,
    size: u64,
) -> Result<Option<Stream>, StoreError> {
    let sizes = snapshots.sizes(tenant).unwrap_or_default();
    for candidate in sizes.into_iter().rev().filter(|it| (1..=size).contains(it)) {
        let snapshot = snapshots.load(tenant, candidate).ok().flatten();
        let stream = snapshot.and_then(|bytes| decode(tenant, &bytes)).filter(|it| it.head.size == candidate);
        if let Some(stream) = stream
            && belongs_to(&stream, store, tenant)?
        {
            return Ok(Some(stream));
        }
        tracing::warn!(%tenant, size = candidate, "a snapshot is passed over: it is not one of this ledger");
    }
    Ok(None)
}

/// Whether the ledger holds the entry that a snapshot was taken after.
fn belongs_to(snapshot: &Stream, store: &dyn EventStore, tenant: &TenantId) -> Result<bool, StoreError> {
    let last = store.read(tenant, snapshot.head.size - 1, 1)?;
    let last = last.first().and_then(|bytes| entry::open(bytes).ok());
    Ok(last.is_some_and(|entry| entry.hash == snapshot.head.hash))
}

impl From<Stream> for Standpoint {
    fn from(stream: Stream) -> Self {
        Self {
            size: stream.head.size,
            head: stream.head.hash,
            last_at: Some(stream.last_at),
            tree: stream.tree,
            state: Some(stream.tenant),
            due: Due::default(),
            signer: None,
        }
    }
}

impl Stream {
    /// The stream as a walk found it; `None` for a walk that saw nothing, or lost track of the state.
    #[must_use]
    pub fn at(standpoint: Standpoint) -> Option<Self> {
        Some(Self {
            tenant: standpoint.state?,
            head: Head { size: standpoint.size, hash: standpoint.head },
            last_at: standpoint.last_at?,
            tree: standpoint.tree,
        })
    }
}
