//! Rebuilds the state from the streams, and refuses to start on a ledger that is not what was written.

use super::snapshot;
use super::world::{Stream, World};
use crate::domain::id::TenantId;
use crate::format::chain::{KeyId, PublicKey};
use crate::format::verify::{Flaw, Trust, Verifier, examine};
use crate::store::{EventStore, SnapshotStore, StoreError};

/// Entries read from the store at once.
pub const PAGE_LEN: usize = 1024;

/// Why the ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stream is not what was written.
    #[error("the stream of tenant {tenant} is not sound at seq {seq}: {flaw}")]
    NotSound {
        /// Whose stream.
        tenant: TenantId,
        /// Where.
        seq: u64,
        /// Why.
        flaw: Flaw,
    },
    /// Entries that callers were told of are gone.
    #[error(
        "{0} entries that were acknowledged are missing: the ledger's files were damaged or replaced; restore a backup"
    )]
    Missing(u64),
    /// A stream ends in an entry of somebody else's.
    #[error("the stream of tenant {tenant} is signed by key {key_id}, which is not this installation's key")]
    Foreign {
        /// Whose stream.
        tenant: TenantId,
        /// The key that signed its last entry.
        key_id: KeyId,
    },
}

/// Walks every stream from its newest snapshot, checks its chain and the signature of its last entry, and folds it.
///
/// The last signature covers its entry's hash, and through the chain every entry before: one check a stream tells a
/// history of ours from one that was rewritten without our key. What lies before the snapshot is looked at by the scrub, and
/// `haldir audit verify` checks everything.
///
/// # Errors
///
/// [`OpenError`]; the store is then unchanged.
pub(super) fn replay(
    store: &dyn EventStore,
    snapshots: &dyn SnapshotStore,
    key: PublicKey,
    former_keys: &[PublicKey],
) -> Result<World, OpenError> {
    let missing = store.missing();
    if missing > 0 {
        return Err(OpenError::Missing(missing));
    }
    let mut world = World::default();
    let mut tails = Vec::new();
    for (tenant, head) in store.heads()? {
        let mut verifier = match snapshot::newest(snapshots, store, &tenant, head.size)? {
            Some(stream) => Verifier::at(tenant.clone(), Trust::ChainOnly, stream.into()),
            None => Verifier::new(tenant.clone(), Trust::ChainOnly),
        };
        let not_sound = |seq, flaw| OpenError::NotSound { tenant: tenant.clone(), seq, flaw };
        while verifier.next_seq() < head.size {
            let wanted = usize::try_from(head.size - verifier.next_seq()).unwrap_or(PAGE_LEN).min(PAGE_LEN);
            let page = store.read(&tenant, verifier.next_seq(), wanted)?;
            if page.is_empty() {
                break;
            }
            for bytes in page {
                verifier.push(&bytes).map_err(|flaw| not_sound(verifier.next_seq(), flaw))?;
            }
        }
        verifier.check_end(head.size, &head.hash).map_err(|flaw| not_sound(verifier.next_seq(), flaw))?;
        if head.size > 0 {
            let last = store.read(&tenant, head.size - 1, 1)?;
            let last = last.first().ok_or_else(|| not_sound(head.size - 1, Flaw::Truncated(head.size)))?;
            let last = examine(last).map_err(|flaw| not_sound(head.size - 1, flaw))?.entry;
            // A stream that was just handed over ends in an entry of the key before.
            let handed_to = verifier.state().and_then(|state| state.custody.signer());
            let is_ours = handed_to.map_or(last.key_id == key.id(), |signer| *signer == key.to_bytes());
            let signed_by = former_keys.iter().chain([&key]).find(|it| it.id() == last.key_id);
            let Some(signed_by) = signed_by.filter(|_| is_ours) else {
                return Err(OpenError::Foreign { tenant, key_id: last.key_id });
            };
            if !signed_by.has_signed(&last.hash, &last.signature) {
                return Err(not_sound(head.size - 1, Flaw::Signature));
            }
        }
        if let Some(stream) = Stream::at(verifier.standpoint()) {
            world.insert(&tenant, stream);
        }
        tails.push((tenant, head.size));
    }

    // Entries beyond a head were never acknowledged: a store wrote them and stopped before the head.
    for (tenant, size) in tails {
        let dropped = store.cut(&tenant, size)?;
        if dropped > 0 {
            tracing::warn!(%tenant, size, dropped, "dropped entries that were never acknowledged");
        }
    }
    Ok(world)
}
