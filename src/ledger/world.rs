//! The state of all tenants, as the streams tell it.

use std::collections::{BTreeMap, HashMap};

use super::Committed;
use crate::domain::id::{Actor, KeyPrefix, TenantId};
use crate::domain::keys::Key;
use crate::domain::time::Timestamp;
use crate::domain::{Event, Tenant, apply};
use crate::store::Head;

/// All tenants, and what must be found without knowing the tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct World {
    streams: BTreeMap<TenantId, Stream>,
    /// The owner of every key ever minted, by the SHA-256 of the key.
    keys: HashMap<[u8; 32], (TenantId, KeyPrefix)>,
    /// Tenants founded with the bootstrap token or by the first caller, by idempotency digest: a retry cannot name its
    /// tenant.
    founded: HashMap<[u8; 32], TenantId>,
}

/// One tenant's state and where its stream ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// The fold of the stream.
    pub tenant: Tenant,
    /// Where the stream ends.
    pub head: Head,
    /// The time of the last entry.
    pub last_at: Timestamp,
}

impl World {
    /// A tenant's state; `None` when it never did anything.
    #[must_use]
    pub fn stream(&self, tenant: &TenantId) -> Option<&Stream> {
        self.streams.get(tenant)
    }

    /// All tenants.
    pub fn streams(&self) -> impl Iterator<Item = (&TenantId, &Stream)> {
        self.streams.iter()
    }

    /// Whether no key was ever minted.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.keys.is_empty()
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

    /// Folds one more event in.
    pub fn apply(&mut self, committed: &Committed) {
        let Committed { tenant, recorded, hash } = committed;
        let head = Head { size: recorded.seq + 1, hash: *hash };
        let stream = self.streams.entry(tenant.clone()).or_insert_with(|| Stream {
            tenant: Tenant::default(),
            head,
            last_at: recorded.at,
        });
        stream.head = head;
        stream.last_at = recorded.at;
        apply(&mut stream.tenant, recorded);

        if let Event::KeyMinted(minted) = &recorded.event {
            self.keys.insert(minted.hash, (tenant.clone(), minted.prefix.clone()));
            if let (Actor::Bootstrap | Actor::FirstCaller, Some(idempotency)) =
                (&recorded.actor, &recorded.idempotency)
            {
                self.founded.insert(idempotency.key, tenant.clone());
            }
        }
    }
}
