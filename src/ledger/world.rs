//! The state of all tenants, as the streams tell it.

use std::sync::Arc;

use super::Committed;
use crate::domain::id::{KeyPrefix, TenantId};
use crate::domain::keys::Key;
use crate::domain::table::Table;
use crate::domain::time::Timestamp;
use crate::domain::{Event, Tenant, apply};
use crate::format::merkle::Tree;
use crate::store::Head;

/// All tenants, and what must be found without knowing the tenant. A copy costs nothing and never changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct World {
    streams: Table<TenantId, Arc<Stream>>,
    /// The owner of every key ever minted, by the SHA-256 of the key.
    keys: Table<[u8; 32], (TenantId, KeyPrefix)>,
    /// Tenants founded with the bootstrap token or by the first caller, by idempotency digest: a retry cannot name its
    /// tenant.
    founded: Table<[u8; 32], TenantId>,
}

/// One tenant's state and where its stream ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// The fold of the stream.
    pub tenant: Tenant,
    /// Where the stream ends.
    pub head: Head,
    /// The time of the last entry.
    pub last_at: Timestamp,
    /// The Merkle tree over all entries.
    pub tree: Tree,
}

impl World {
    /// A tenant's state; `None` when it never did anything.
    #[must_use]
    pub fn stream(&self, tenant: &TenantId) -> Option<&Arc<Stream>> {
        self.streams.get(tenant)
    }

    /// All tenants.
    pub fn streams(&self) -> impl Iterator<Item = (&TenantId, &Arc<Stream>)> {
        self.streams.into_iter()
    }

    /// Whether no key was ever minted.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.keys.len() == 0
    }

    /// The key with this SHA-256, if it is active.
    #[must_use]
    pub fn active_key(&self, hash: &[u8; 32]) -> Option<(&TenantId, &KeyPrefix, &Key)> {
        let (tenant, prefix) = self.keys.get(hash)?;
        let key = self.streams.get(tenant)?.tenant.keys.get(prefix)?;
        (!key.is_revoked).then_some((tenant, prefix, key))
    }

    /// The tenant that an earlier request with this idempotency digest founded, while retries repeat that.
    #[must_use]
    pub fn founded_by(&self, idempotency_key: &[u8; 32], at: Timestamp) -> Option<&TenantId> {
        let tenant = self.founded.get(idempotency_key)?;
        let replays = &self.streams.get(tenant)?.tenant.replays;
        replays.repeats(idempotency_key, at).then_some(tenant)
    }

    /// Adds a stream that was folded elsewhere.
    pub fn insert(&mut self, tenant: &TenantId, stream: Stream) {
        for (prefix, key) in stream.tenant.keys.newest_first() {
            self.keys.insert_cow(key.hash, (tenant.clone(), prefix.clone()));
        }
        if let Some(founding) = stream.tenant.replays.founding() {
            self.founded.insert_cow(*founding, tenant.clone());
        }
        self.streams.insert_cow(tenant.clone(), Arc::new(stream));
    }

    /// Folds one more event in.
    pub fn apply(&mut self, committed: &Committed) {
        let Committed { tenant, recorded, hash, leaf } = committed;
        let head = Head { size: recorded.seq + 1, hash: *hash };
        let stream = self.streams.get_or_insert_cow(tenant.clone(), || {
            let (state, tree) = (Tenant::default(), Tree::default());
            Arc::new(Stream { tenant: state, head, last_at: recorded.at, tree })
        });
        let stream = Arc::make_mut(stream);
        stream.head = head;
        stream.last_at = recorded.at;
        stream.tree.push(*leaf);
        apply(&mut stream.tenant, recorded);

        if let Event::KeyMinted(minted) = &recorded.event {
            self.keys.insert_cow(minted.hash, (tenant.clone(), minted.prefix.clone()));
            if let Some(founding) = stream.tenant.replays.founding() {
                self.founded.insert_cow(*founding, tenant.clone());
            }
        }
    }
}
