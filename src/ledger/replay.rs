//! Rebuilds the state from the streams, and refuses to start on a ledger that is not what was written.

use super::Committed;
use super::world::World;
use crate::domain::id::TenantId;
use crate::format::chain::{KeyId, PublicKey};
use crate::format::verify::{Flaw, Trust, Verifier};
use crate::store::{EventStore, StoreError};

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

/// Walks every stream, checks its chain and the signature of its last entry, and folds it.
///
/// The last signature covers its entry's hash, and through the chain every entry before: one check a stream tells a
/// history of ours from one that was rewritten without our key. `haldir audit verify` checks every signature.
///
/// # Errors
///
/// [`OpenError`]; the store is then unchanged.
pub(super) fn replay(store: &dyn EventStore, key: PublicKey) -> Result<World, OpenError> {
    let missing = store.missing();
    if missing > 0 {
        return Err(OpenError::Missing(missing));
    }
    let mut world = World::default();
    let mut tails = Vec::new();
    for (tenant, head) in store.heads()? {
        let mut verifier = Verifier::new(tenant.clone(), Trust::ChainOnly);
        let not_sound = |seq, flaw| OpenError::NotSound { tenant: tenant.clone(), seq, flaw };
        let mut last = None;
        while verifier.next_seq() < head.size {
            let wanted = usize::try_from(head.size - verifier.next_seq()).unwrap_or(PAGE_LEN).min(PAGE_LEN);
            let page = store.read(&tenant, verifier.next_seq(), wanted)?;
            if page.is_empty() {
                break;
            }
            for bytes in page {
                let entry = verifier.push(&bytes).map_err(|flaw| not_sound(verifier.next_seq(), flaw))?;
                last = Some((entry.key_id, entry.hash, entry.signature));
                world.apply(&Committed {
                    tenant: tenant.clone(),
                    recorded: entry.recorded,
                    hash: entry.hash,
                });
            }
        }
        verifier.check_end(head.size, &head.hash).map_err(|flaw| not_sound(verifier.next_seq(), flaw))?;
        if let Some((key_id, hash, signature)) = last {
            if key_id != key.id() {
                return Err(OpenError::Foreign { tenant, key_id });
            }
            if !key.has_signed(&hash, &signature) {
                return Err(not_sound(head.size - 1, Flaw::Signature));
            }
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
