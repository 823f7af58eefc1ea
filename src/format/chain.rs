//! Hashing and signing, each under a name of its own so that no value can pass for another.

use std::fmt;

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

/// Bytes of a hash.
pub const HASH_LEN: usize = 32;
/// Bytes of a key id.
pub const KEY_ID_LEN: usize = 8;
/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// BLAKE3 key-derivation context of the entry hash. See "Hash" in ledger-format.md.
const ENTRY_HASH_CONTEXT: &str = "haldir ledger v1 entry hash";
/// First bytes of what is signed. See "Signature" in ledger-format.md.
const ENTRY_SIGNATURE_DOMAIN: &[u8] = b"haldir ledger v1 entry signature\n";
/// BLAKE3 key-derivation context of the digest of an action's details. See "Details" in ledger-format.md.
const DETAILS_DIGEST_CONTEXT: &str = "haldir ledger v1 details digest";
/// Bytes of the salt before the details.
pub const DETAILS_SALT_LEN: usize = 16;

/// The BLAKE3 hash of an entry, the link of the chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryHash(pub [u8; HASH_LEN]);

impl EntryHash {
    /// What the first entry of a stream names as the entry before it.
    pub const GENESIS: Self = Self([0; HASH_LEN]);

    /// The hash of an entry's header and payload.
    #[must_use]
    pub fn of(header_and_payload: &[u8]) -> Self {
        Self(blake3::derive_key(ENTRY_HASH_CONTEXT, header_and_payload))
    }
}

impl fmt::Display for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names a signing key: the first 8 bytes of the SHA-256 of the raw public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; KEY_ID_LEN]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The private key that signs entries.
pub struct Signer {
    key: SigningKey,
    id: KeyId,
}

impl Signer {
    /// Takes an Ed25519 private key (RFC 8032).
    #[must_use]
    pub fn new(key: SigningKey) -> Self {
        let id = PublicKey(key.verifying_key()).id();
        Self { key, id }
    }

    /// The matching public key.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.key.verifying_key())
    }

    /// The id of the matching public key.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Signs an entry's hash.
    #[must_use]
    pub fn sign(&self, hash: &EntryHash) -> [u8; SIGNATURE_LEN] {
        self.key.sign(&signed_bytes(self.id, hash)).to_bytes()
    }
}

impl fmt::Debug for Signer {
    /// Names the key, never shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.id)
    }
}

/// A public key that somebody trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Takes an Ed25519 public key.
    #[must_use]
    pub const fn new(key: VerifyingKey) -> Self {
        Self(key)
    }

    /// Takes the 32 raw bytes of RFC 8032; `None` when they are not a point of the curve.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        VerifyingKey::from_bytes(bytes).ok().map(Self)
    }

    /// The 32 raw bytes of RFC 8032.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The key's name.
    #[must_use]
    pub fn id(self) -> KeyId {
        let digest = Sha256::digest(self.0.as_bytes());
        let mut id = [0; KEY_ID_LEN];
        id.copy_from_slice(&digest[..KEY_ID_LEN]);
        KeyId(id)
    }

    /// Whether this key signed an entry's hash. Strict: refuses weak keys and malleable signatures.
    #[must_use]
    pub fn has_signed(self, hash: &EntryHash, signature: &[u8; SIGNATURE_LEN]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.0.verify_strict(&signed_bytes(self.id(), hash), &signature).is_ok()
    }
}

fn signed_bytes(key_id: KeyId, hash: &EntryHash) -> Vec<u8> {
    [ENTRY_SIGNATURE_DOMAIN, &key_id.0, &hash.0].concat()
}

/// The digest that binds an event to the details kept beside the ledger.
#[must_use]
pub fn details_digest(salt: &[u8; DETAILS_SALT_LEN], details: &[u8]) -> [u8; HASH_LEN] {
    let mut hasher = blake3::Hasher::new_derive_key(DETAILS_DIGEST_CONTEXT);
    hasher.update(salt);
    hasher.update(details);
    *hasher.finalize().as_bytes()
}
