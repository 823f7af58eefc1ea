//! Values that nobody but Haldir may read: sealed in a [`Cabinet`], opened in memory, destroyed on request.
//!
//! Each value is encrypted with AES-256-GCM-SIV under a random key of its own, and that key is wrapped by the primary key of the
//! [`ring`]. What is encrypted is bound to its [`Place`]: whose it is, in which drawer and under which name. A value is found by
//! the [`Digest`] of its ciphertext, which the ledger records: so the ledger says which ciphertext is which version of what, and
//! a file that was exchanged for another, an older version for example, does not open.
//!
//! The calls here read and write files and wait for the disk: they belong off the threads that serve connections.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use zeroize::Zeroizing;

use crate::domain::id::TenantId;
use crate::ledger::random::{OsRandom, Random};
use crate::store::memory::MemoryCabinet;
use crate::store::{Cabinet, StoreError};

pub mod ring;
pub mod ring_file;
mod sealed;

use ring::{KeyRing, MasterKey, MasterKeyId};
use ring_file::RingSource;
use sealed::Sealed;

/// Names a sealed value: BLAKE3 of its ciphertext and of what surrounds it. Stays the same when the master key changes.
pub type Digest = [u8; 32];

/// Where a value belongs. It does not open anywhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Whose it is.
    pub tenant: TenantId,
    /// What it is used for.
    pub drawer: Drawer,
    /// Its name in the drawer, 65,535 bytes at most. Not secret.
    pub name: String,
}

/// What values are used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawer {
    /// Secrets that agents read.
    Secret,
    /// Keys with which webhook deliveries are signed.
    Webhook,
}

impl Drawer {
    const fn code(self) -> u8 {
        match self {
            Self::Secret => 1,
            Self::Webhook => 2,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Secret),
            2 => Some(Self::Webhook),
            _ => None,
        }
    }
}

/// A value that is sealed and on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Its name, to be recorded.
    pub digest: Digest,
    /// Bytes of its ciphertext: those of the value and 16 more.
    pub sealed_len: u64,
}

/// Why the vault did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// There is no such sealed value: it was destroyed, or a backup without it was restored.
    #[error("the sealed value is not there")]
    Missing,
    /// It is wrapped by a master key that this process was not given.
    #[error("it is sealed under the master key {0}, which is not in the key ring")]
    KeyMissing(MasterKeyId),
    /// The bytes are not what was sealed for this place.
    #[error("the sealed value is damaged")]
    Damaged,
    /// A name has more bytes than a sealed value can hold.
    #[error("the name is too long to seal a value under")]
    NameTooLong,
    /// The medium failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the key ring was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The keys are configured: whoever runs the process changes them there.
    #[error(
        "put a new key into HALDIR_ENCRYPTION_KEY and the old one into HALDIR_ENCRYPTION_KEY_PREVIOUS, and restart"
    )]
    Configured,
    /// The ring file could not be read or written, or holds too many keys.
    #[error("{0}")]
    Failed(String),
}

/// A sealed value as the key ring sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub digest: Digest,
    /// Where it says that it belongs, and which master key wraps it; `None` when the bytes are no sealed value.
    pub content: Option<(Place, MasterKeyId)>,
}

/// The digest that names these bytes, if they are a sealed value.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> Option<Digest> {
    Sealed::parse(bytes).map(|sealed| sealed.digest())
}

/// The bytes of a sealed value, for a copy of it; `None` when it is not there or damaged.
///
/// # Errors
///
/// [`StoreError`].
pub fn sealed_bytes(
    cabinet: &dyn Cabinet,
    tenant: &TenantId,
    digest: &Digest,
) -> Result<Option<Vec<u8>>, StoreError> {
    // It may be replaced while it is read, by one with another head; hardly twice.
    for _ in 0..3 {
        match cabinet.get(tenant, digest)? {
            None => return Ok(None),
            Some(bytes) if digest_of(&bytes) == Some(*digest) => return Ok(Some(bytes)),
            Some(_) => {}
        }
    }
    Ok(None)
}

/// Sealed values and the keys to them.
pub struct Vault {
    cabinet: Arc<dyn Cabinet>,
    ring: RwLock<Arc<KeyRing>>,
    source: RingSource,
    random: Arc<dyn Random>,
    /// Held while a value is replaced or destroyed, so that what was destroyed does not come back.
    replacing: Mutex<()>,
}

impl Vault {
    /// A vault on a cabinet.
    #[must_use]
    pub fn new(
        cabinet: Arc<dyn Cabinet>,
        ring: KeyRing,
        source: RingSource,
        random: Arc<dyn Random>,
    ) -> Self {
        Self { cabinet, ring: RwLock::new(Arc::new(ring)), source, random, replacing: Mutex::new(()) }
    }

    /// A vault that forgets everything when the process ends.
    #[must_use]
    pub fn in_memory() -> Self {
        let random: Arc<dyn Random> = Arc::new(OsRandom::default());
        let ring = KeyRing::generate(&*random);
        Self::new(Arc::new(MemoryCabinet::default()), ring, RingSource::Configured, random)
    }

    /// The master keys as they are now.
    #[must_use]
    pub fn ring(&self) -> Arc<KeyRing> {
        Arc::clone(&self.ring.read())
    }

    /// Makes a new primary key and wraps with it from now on. It is in the ring file before it is used.
    ///
    /// # Errors
    ///
    /// [`RingError`].
    pub fn make_primary(&self) -> Result<MasterKeyId, RingError> {
        let RingSource::File(file) = &self.source else {
            return Err(RingError::Configured);
        };
        // Waits for whoever is sealing with the old key: after this, nobody is.
        let mut ring = self.ring.write();
        let next = ring.with_new_primary(&*self.random).map_err(RingError::Failed)?;
        file.save(&next).map_err(RingError::Failed)?;
        let made = next.primary().id();
        *ring = Arc::new(next);
        Ok(made)
    }

    /// Destroys the retired keys of the ring file under which nothing is sealed any more. Which ones.
    ///
    /// # Errors
    ///
    /// [`RingError`].
    pub fn destroy_unused_keys(&self) -> Result<Vec<MasterKeyId>, RingError> {
        let RingSource::File(file) = &self.source else {
            return Err(RingError::Configured);
        };
        let mut used = BTreeSet::new();
        let unread = |error: VaultError| RingError::Failed(error.to_string());
        for tenant in self.tenants().map_err(unread)? {
            let listed = self.list(&tenant).map_err(unread)?;
            used.extend(listed.into_iter().filter_map(|listed| Some(listed.content?.1)));
        }
        let mut ring = self.ring.write();
        let kept = ring.without_unused(|id| used.contains(&id));
        let is_gone = |id: &MasterKeyId| kept.find(*id).is_none();
        let gone: Vec<_> = ring.retired().iter().map(MasterKey::id).filter(is_gone).collect();
        if !gone.is_empty() {
            file.save(&kept).map_err(RingError::Failed)?;
            *ring = Arc::new(kept);
        }
        Ok(gone)
    }

    /// Seals a value and keeps it, durably. To be called before the event that names the digest is committed; if that does
    /// not come to be, the value is to be destroyed.
    ///
    /// # Errors
    ///
    /// [`VaultError::Store`], [`VaultError::NameTooLong`].
    pub fn seal_and_keep(&self, place: &Place, value: &[u8]) -> Result<Kept, VaultError> {
        // Held until the value is there, so that a key is not taken for unused meanwhile.
        let ring = self.ring.read();
        let (bytes, digest) = sealed::seal(place, value, ring.primary(), &*self.random)?;
        self.cabinet.put(&place.tenant, &digest, &bytes)?;
        Ok(Kept { digest, sealed_len: (value.len() + sealed::CIPHERTEXT_EXTRA_LEN) as u64 })
    }

    /// Opens the value with this digest, if it belongs to this place.
    ///
    /// # Errors
    ///
    /// Every [`VaultError`].
    pub fn open(&self, place: &Place, digest: &Digest) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let first = self.open_once(place, digest);
        if first.is_ok() {
            return first;
        }
        // It may have been replaced while it was read. With the lock it is not.
        let _replacing = self.replacing.lock();
        self.open_once(place, digest)
    }

    fn open_once(&self, place: &Place, digest: &Digest) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let bytes = self.cabinet.get(&place.tenant, digest)?.ok_or(VaultError::Missing)?;
        Sealed::parse(&bytes).ok_or(VaultError::Damaged)?.open(place, digest, &self.ring())
    }

    /// Destroys a value: its ciphertext and its wrapped key. Destroying it again is no mistake.
    ///
    /// # Errors
    ///
    /// [`VaultError::Store`].
    pub fn destroy(&self, tenant: &TenantId, digest: &Digest) -> Result<(), VaultError> {
        let _replacing = self.replacing.lock();
        self.cabinet.destroy(tenant, digest)?;
        Ok(())
    }

    /// Tenants that have sealed values, or had some.
    ///
    /// # Errors
    ///
    /// [`VaultError::Store`].
    pub fn tenants(&self) -> Result<Vec<TenantId>, VaultError> {
        Ok(self.cabinet.tenants()?)
    }

    /// The digests of a tenant's sealed values, as their files are named.
    ///
    /// # Errors
    ///
    /// [`VaultError::Store`].
    pub fn digests(&self, tenant: &TenantId) -> Result<Vec<Digest>, VaultError> {
        Ok(self.cabinet.ids(tenant)?)
    }

    /// The drawer of a sealed value; `None` when it is not there or damaged.
    ///
    /// # Errors
    ///
    /// [`VaultError::Store`].
    pub fn drawer_of(&self, tenant: &TenantId, digest: &Digest) -> Result<Option<Drawer>, VaultError> {
        let listed = self.look_at(tenant, *digest)?;
        Ok(listed.and_then(|listed| Some(listed.content?.0.drawer)))
    }

    /// Where the sealed values are.
    #[must_use]
    pub fn cabinet(&self) -> &dyn Cabinet {
        &*self.cabinet
    }

    /// A tenant's sealed values, without opening any.
    ///
    /// # Errors
    ///
    /// [`VaultError::Store`].
    pub fn list(&self, tenant: &TenantId) -> Result<Vec<Listed>, VaultError> {
        let mut listed = Vec::new();
        for digest in self.cabinet.ids(tenant)? {
            if let Some(one) = self.look_at(tenant, digest)? {
                listed.push(one);
            }
        }
        Ok(listed)
    }

    fn look_at(&self, tenant: &TenantId, digest: Digest) -> Result<Option<Listed>, VaultError> {
        let content_of = |bytes: &[u8]| {
            let sealed = Sealed::parse(bytes).filter(|sealed| sealed.digest() == digest)?;
            Some((sealed.place(tenant), sealed.key_id()))
        };
        let content = self.cabinet.get(tenant, &digest)?.and_then(|bytes| content_of(&bytes));
        if content.is_some() {
            return Ok(Some(Listed { digest, content }));
        }
        // As in `open`: only what is still so with the lock is so.
        let _replacing = self.replacing.lock();
        let bytes = self.cabinet.get(tenant, &digest)?;
        Ok(bytes.map(|bytes| Listed { digest, content: content_of(&bytes) }))
    }

    /// Wraps a value's data key under the primary master key. Readers are not disturbed. Returns the key that wrapped it
    /// before; `None` when it was the primary already, or the value was destroyed meanwhile.
    ///
    /// # Errors
    ///
    /// Every [`VaultError`] but [`VaultError::Missing`].
    pub fn rewrap(&self, tenant: &TenantId, digest: &Digest) -> Result<Option<MasterKeyId>, VaultError> {
        let _replacing = self.replacing.lock();
        let Some(bytes) = self.cabinet.get(tenant, digest)? else {
            return Ok(None);
        };
        let ring = self.ring();
        let sealed = Sealed::parse(&bytes).ok_or(VaultError::Damaged)?;
        if sealed.key_id() == ring.primary().id() {
            return Ok(None);
        }
        let rewrapped = sealed.rewrap(tenant, digest, &ring, &*self.random)?;
        self.cabinet.put(tenant, digest, &rewrapped)?;
        Ok(Some(sealed.key_id()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::ring::MASTER_KEY_LEN;
    use super::ring_file::RingFile;
    use super::*;

    /// Counts upwards: the same bytes in every run.
    #[derive(Default)]
    pub(crate) struct Counting(AtomicU8);

    impl Random for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            for byte in bytes {
                *byte = self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn key(byte: u8) -> MasterKey {
        MasterKey::new(Zeroizing::new([byte; MASTER_KEY_LEN]))
    }

    pub(crate) fn ring(primary: u8, retired: &[u8]) -> KeyRing {
        KeyRing::new(key(primary), retired.iter().copied().map(key).collect()).unwrap()
    }

    pub(crate) fn place(tenant: &str, drawer: Drawer, name: &str) -> Place {
        Place { tenant: TenantId::parse(tenant).unwrap(), drawer, name: name.to_owned() }
    }

    fn vault() -> (Arc<MemoryCabinet>, Vault) {
        let cabinet = Arc::new(MemoryCabinet::default());
        let vault =
            Vault::new(cabinet.clone(), ring(1, &[]), RingSource::Configured, Arc::new(Counting::default()));
        (cabinet, vault)
    }

    #[test]
    fn what_is_destroyed_does_not_open_any_more() {
        let (_, vault) = vault();
        let there = place("t", Drawer::Secret, "a");
        let kept = vault.seal_and_keep(&there, b"value").unwrap();
        assert_eq!(kept.sealed_len, 21);
        assert_eq!(*vault.open(&there, &kept.digest).unwrap(), b"value");
        vault.destroy(&there.tenant, &kept.digest).unwrap();
        assert_eq!(vault.open(&there, &kept.digest).unwrap_err(), VaultError::Missing);
        assert_eq!(vault.rewrap(&there.tenant, &kept.digest), Ok(None));
        vault.destroy(&there.tenant, &kept.digest).unwrap();
    }

    /// Shows every value half overwritten to whoever looks first, as a reader sees it in the middle of a replacement.
    #[derive(Default)]
    struct Torn {
        cabinet: MemoryCabinet,
        looks: AtomicU8,
    }

    impl Cabinet for Torn {
        fn put(&self, tenant: &TenantId, id: &Digest, value: &[u8]) -> Result<(), StoreError> {
            self.cabinet.put(tenant, id, value)
        }

        fn get(&self, tenant: &TenantId, id: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
            let is_torn = self.looks.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
            let tear = |mut value: Vec<u8>| {
                let half = value.len() / 2;
                value[..half].fill(0);
                value
            };
            Ok(self.cabinet.get(tenant, id)?.map(|value| if is_torn { tear(value) } else { value }))
        }

        fn destroy(&self, tenant: &TenantId, id: &Digest) -> Result<bool, StoreError> {
            self.cabinet.destroy(tenant, id)
        }

        fn ids(&self, tenant: &TenantId) -> Result<Vec<Digest>, StoreError> {
            self.cabinet.ids(tenant)
        }

        fn tenants(&self) -> Result<Vec<TenantId>, StoreError> {
            self.cabinet.tenants()
        }
    }

    #[test]
    fn who_looks_in_the_middle_of_a_replacement_looks_again() {
        let cabinet = Arc::new(Torn::default());
        let vault =
            Vault::new(cabinet.clone(), ring(1, &[]), RingSource::Configured, Arc::new(Counting::default()));
        let there = place("t", Drawer::Secret, "a");
        let kept = vault.seal_and_keep(&there, b"value").unwrap();
        assert_eq!(*vault.open(&there, &kept.digest).unwrap(), b"value");
        assert!(vault.list(&there.tenant).unwrap()[0].content.is_some());
        let copied = sealed_bytes(&*cabinet, &there.tenant, &kept.digest).unwrap();
        assert_eq!(digest_of(&copied.unwrap()), Some(kept.digest));
        assert_eq!(vault.drawer_of(&there.tenant, &kept.digest), Ok(Some(Drawer::Secret)));
    }

    #[test]
    fn one_version_does_not_pass_for_another() {
        let (cabinet, vault) = vault();
        let there = place("t", Drawer::Secret, "a");
        let old = vault.seal_and_keep(&there, b"old").unwrap();
        let new = vault.seal_and_keep(&there, b"new").unwrap();
        let bytes = cabinet.get(&there.tenant, &old.digest).unwrap().unwrap();
        cabinet.put(&there.tenant, &new.digest, &bytes).unwrap();
        assert_eq!(vault.open(&there, &new.digest).unwrap_err(), VaultError::Damaged);
    }

    #[test]
    fn keys_change_and_values_stay() {
        let dir = tempfile::tempdir().unwrap();
        let file = RingFile::of(dir.path());
        let cabinet = Arc::new(MemoryCabinet::default());
        let open = |ring| {
            let source = RingSource::File(file.clone());
            Vault::new(cabinet.clone(), ring, source, Arc::new(Counting::default()))
        };
        let vault = open(ring(200, &[]));
        let there = place("t", Drawer::Secret, "a");
        let kept = vault.seal_and_keep(&there, b"value").unwrap();
        let new = vault.make_primary().unwrap();
        assert_eq!(*vault.open(&there, &kept.digest).unwrap(), b"value");
        assert_eq!(vault.destroy_unused_keys(), Ok(vec![]), "the old key still opens something");
        assert_eq!(vault.rewrap(&there.tenant, &kept.digest), Ok(Some(key(200).id())));
        assert_eq!(vault.rewrap(&there.tenant, &kept.digest), Ok(None));
        let listed = vault.list(&there.tenant).unwrap();
        assert_eq!(listed, [Listed { digest: kept.digest, content: Some((there.clone(), new)) }]);
        assert_eq!(vault.destroy_unused_keys(), Ok(vec![key(200).id()]));

        let again = open(file.load().unwrap().unwrap());
        assert!(again.ring().retired().is_empty());
        assert_eq!(*again.open(&there, &kept.digest).unwrap(), b"value");
        let stranger = open(ring(3, &[]));
        assert_eq!(stranger.open(&there, &kept.digest).unwrap_err(), VaultError::KeyMissing(new));
        assert_eq!(stranger.rewrap(&there.tenant, &kept.digest), Err(VaultError::KeyMissing(new)));
        let (_, configured) = self::vault();
        assert_eq!(configured.make_primary(), Err(RingError::Configured));
    }
}
