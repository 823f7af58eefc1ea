//! The master keys: the one that wraps now, and those that wrapped before.

use std::fmt;

use data_encoding::{BASE64URL, BASE64URL_NOPAD, HEXLOWER};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::ledger::random::Random;

/// Bytes of a master key.
pub const MASTER_KEY_LEN: usize = 32;
/// Master keys that a ring holds at most. Each is a chance to open something; a rotation leaves two.
pub const RING_LEN_MAX: usize = 16;

/// Names a master key: the first 8 bytes of the SHA-256 of the raw key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MasterKeyId(pub [u8; 8]);

impl fmt::Display for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key under which data keys are wrapped. Shown as its id, overwritten when it is dropped.
#[derive(Clone)]
pub struct MasterKey {
    bytes: Zeroizing<[u8; MASTER_KEY_LEN]>,
    id: MasterKeyId,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id)
    }
}

impl MasterKey {
    /// Takes 32 random bytes.
    #[must_use]
    pub fn new(bytes: Zeroizing<[u8; MASTER_KEY_LEN]>) -> Self {
        let digest: [u8; 32] = Sha256::digest(bytes.as_slice()).into();
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        Self { bytes, id: MasterKeyId(id) }
    }

    /// Reads a key as it is configured: 32 bytes in URL-safe base64, with or without padding.
    ///
    /// # Errors
    ///
    /// What was expected. Never a part of the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let decoded = BASE64URL.decode(text.as_bytes()).or_else(|_| BASE64URL_NOPAD.decode(text.as_bytes()));
        let decoded = Zeroizing::new(decoded.map_err(|_| "expected URL-safe base64 of 32 bytes".to_owned())?);
        let len = decoded.len();
        let bytes = <[u8; MASTER_KEY_LEN]>::try_from(decoded.as_slice());
        let bytes = bytes.map_err(|_| format!("expected URL-safe base64 of 32 bytes, not of {len}"))?;
        Ok(Self::new(Zeroizing::new(bytes)))
    }

    /// The key as it is configured.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64URL.encode(&*self.bytes))
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> MasterKeyId {
        self.id
    }

    pub(super) fn bytes(&self) -> &[u8; MASTER_KEY_LEN] {
        &self.bytes
    }
}

/// The master keys of an installation.
#[derive(Debug, Clone)]
pub struct KeyRing {
    primary: MasterKey,
    retired: Vec<MasterKey>,
}

impl KeyRing {
    /// A ring of one new key.
    #[must_use]
    pub fn generate(random: &dyn Random) -> Self {
        Self { primary: MasterKey::new(Zeroizing::new(random.bytes())), retired: Vec::new() }
    }

    /// A ring that wraps with `primary` and opens with all. Keys that are named twice count once.
    ///
    /// # Errors
    ///
    /// A sentence, when there are too many.
    pub fn new(primary: MasterKey, retired: Vec<MasterKey>) -> Result<Self, String> {
        let mut ring = Self { primary, retired: Vec::new() };
        for key in retired {
            if ring.find(key.id()).is_none() {
                ring.retired.push(key);
            }
        }
        if ring.retired.len() >= RING_LEN_MAX {
            return Err(format!("there can be {RING_LEN_MAX} master keys at most"));
        }
        Ok(ring)
    }

    /// The ring with a new primary key; the old one joins those that only open.
    ///
    /// # Errors
    ///
    /// A sentence, when there are too many.
    pub fn with_new_primary(&self, random: &dyn Random) -> Result<Self, String> {
        let retired = std::iter::once(&self.primary).chain(&self.retired).cloned().collect();
        Self::new(MasterKey::new(Zeroizing::new(random.bytes())), retired)
    }

    /// The ring with its primary key and those others that are in use.
    #[must_use]
    pub fn without_unused(&self, is_used: impl Fn(MasterKeyId) -> bool) -> Self {
        let mut retired = self.retired.clone();
        retired.retain(|key| is_used(key.id()));
        Self { primary: self.primary.clone(), retired }
    }

    /// The key that wraps.
    #[must_use]
    pub const fn primary(&self) -> &MasterKey {
        &self.primary
    }

    /// The keys that wrapped before, the last one first.
    #[must_use]
    pub fn retired(&self) -> &[MasterKey] {
        &self.retired
    }

    /// The key with this id.
    #[must_use]
    pub fn find(&self, id: MasterKeyId) -> Option<&MasterKey> {
        std::iter::once(&self.primary).chain(&self.retired).find(|key| key.id() == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> MasterKey {
        MasterKey::new(Zeroizing::new([byte; MASTER_KEY_LEN]))
    }

    #[test]
    fn a_key_is_named_as_the_contract_names_it() {
        let bytes: [u8; 32] = std::array::from_fn(|index| u8::try_from(index).unwrap());
        let key = MasterKey::new(Zeroizing::new(bytes));
        assert_eq!(key.id().to_string(), "630dcd2966c43366");
        assert_eq!(format!("{key:?}"), "MasterKey(630dcd2966c43366)");
        assert_eq!(MasterKey::parse(&key.to_text()).unwrap().id(), key.id());
        assert_eq!(MasterKey::parse(key.to_text().trim_end_matches('=')).unwrap().id(), key.id());
    }

    #[test]
    fn what_is_no_key_is_not_repeated() {
        for text in ["", "short", "c2hvcnQ=", "not base64 at all!", &"A".repeat(44)] {
            let error = MasterKey::parse(text).unwrap_err();
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_ring_names_each_key_once() {
        let ring = KeyRing::new(key(1), vec![key(2), key(1), key(2), key(3)]).unwrap();
        let ids: Vec<_> = ring.retired().iter().map(MasterKey::id).collect();
        assert_eq!(ids, [key(2).id(), key(3).id()]);
        assert!(ring.find(key(4).id()).is_none());
        let many = (1..=u8::try_from(RING_LEN_MAX).unwrap()).map(key).collect();
        assert!(KeyRing::new(key(0), many).is_err());
    }
}
