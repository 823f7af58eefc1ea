//! The past of a stream: how long it was at a moment, and what was true then.

use super::replay::PAGE_LEN;
use super::snapshot;
use super::world::Stream;
use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use crate::format::entry;
use crate::format::verify::{Flaw, Trust, Verifier};
use crate::store::{EventStore, SnapshotStore, StoreError};

/// Why the past cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PastError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stream is not what was written.
    #[error("the stream is not sound at seq {seq}: {flaw}")]
    NotSound {
        /// Where.
        seq: u64,
        /// Why.
        flaw: Flaw,
    },
}

/// How many of the first `size` entries of a stream were recorded at or before `at`. Reads as many as it takes to halve
/// `size` down to one.
///
/// # Errors
///
/// [`PastError`].
pub fn size_at(
    store: &dyn EventStore,
    tenant: &TenantId,
    size: u64,
    at: Timestamp,
) -> Result<u64, PastError> {
    let (mut earlier, mut later) = (0, size);
    while earlier < later {
        let middle = earlier + (later - earlier) / 2;
        let page = store.read(tenant, middle, 1)?;
        let bytes = page.first().ok_or(PastError::NotSound { seq: middle, flaw: Flaw::Truncated(size) })?;
        let entry =
            entry::open(bytes).map_err(|error| PastError::NotSound { seq: middle, flaw: error.into() })?;
        if entry.recorded.at <= at {
            earlier = middle + 1;
        } else {
            later = middle;
        }
    }
    Ok(earlier)
}

/// What was true of a tenant after the first `size` entries of its stream: the nearest snapshot, and what came after it.
/// `None` for no entries.
///
/// # Errors
///
/// [`PastError`].
pub fn stream_at(
    store: &dyn EventStore,
    snapshots: &dyn SnapshotStore,
    tenant: &TenantId,
    size: u64,
) -> Result<Option<Stream>, PastError> {
    let mut verifier = match snapshot::newest(snapshots, store, tenant, size)? {
        Some(stream) => Verifier::at(tenant.clone(), Trust::ChainOnly, stream.into()),
        None => Verifier::new(tenant.clone(), Trust::ChainOnly),
    };
    while verifier.next_seq() < size {
        let wanted = usize::try_from(size - verifier.next_seq()).unwrap_or(PAGE_LEN).min(PAGE_LEN);
        let page = store.read(tenant, verifier.next_seq(), wanted)?;
        if page.is_empty() {
            return Err(PastError::NotSound { seq: verifier.next_seq(), flaw: Flaw::Truncated(size) });
        }
        for bytes in page {
            let seq = verifier.next_seq();
            verifier.push(&bytes).map_err(|flaw| PastError::NotSound { seq, flaw })?;
        }
    }
    Ok(Stream::at(verifier.standpoint()))
}
