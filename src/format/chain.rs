//! Hashing and signing, each under a name of its own so that no value can pass for another.

use std::fmt;

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use super::manifest;
use super::merkle::TreeHash;

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
/// First bytes of what a root key signs. See "Root keys" in ledger-format.md.
const KEY_CERTIFICATE_DOMAIN: &[u8] = b"haldir ledger v1 key certificate\n";
/// BLAKE3 key-derivation context of the digest of an action's details. See "Details" in ledger-format.md.
const DETAILS_DIGEST_CONTEXT: &str = "haldir ledger v1 details digest";
/// BLAKE3 key-derivation context of the digest of a receiver's answer. See "Excerpts" in ledger-format.md.
const EXCERPT_DIGEST_CONTEXT: &str = "haldir ledger v1 excerpt digest";
/// BLAKE3 key-derivation context of the digest of a tool's definition. See "Tools" in ledger-format.md.
const TOOL_DIGEST_CONTEXT: &str = "haldir ledger v1 tool definition";
/// Bytes of the salt before an excerpt.
pub const EXCERPT_SALT_LEN: usize = 16;
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

/// The private key that signs entries, checkpoints and tree heads.
///
/// What it signs begins in three ways, none of which is the beginning of another: an entry with
/// `haldir ledger v1 entry signature` and a newline, the text of a checkpoint with `haldir/ledger/`, a tree head with
/// `sth:`. So no signature of one kind passes for one of another kind.
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

    /// Signs the text of a checkpoint. Nobody but `checkpoint` may call this, so that nothing else is ever signed so.
    #[must_use]
    pub(super) fn sign_checkpoint(&self, text: &str) -> [u8; SIGNATURE_LEN] {
        debug_assert!(text.starts_with(super::checkpoint::ORIGIN_PREFIX), "{text}");
        self.key.sign(text.as_bytes()).to_bytes()
    }

    /// Signs the size and root of a tree, seen `signed_at_s` seconds after the epoch. See "Signed tree head" in
    /// ledger-format.md.
    #[must_use]
    pub fn sign_tree_head(&self, size: u64, root: &TreeHash, signed_at_s: u64) -> [u8; SIGNATURE_LEN] {
        self.key.sign(tree_head_text(size, root, signed_at_s).as_bytes()).to_bytes()
    }

    /// Certifies a signing key, as a root key. See "Root keys" in ledger-format.md.
    #[must_use]
    pub fn sign_key(&self, subject: PublicKey) -> [u8; SIGNATURE_LEN] {
        self.key.sign(&certified_bytes(self.id, subject)).to_bytes()
    }

    /// Signs the text of an export's manifest.
    #[must_use]
    pub fn sign_manifest(&self, text: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.key.sign(&manifest::signed_bytes(self.id, text)).to_bytes()
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
        self.has_signed_bytes(&signed_bytes(self.id(), hash), signature)
    }

    /// Whether this key signed the text of a checkpoint, newline at its end included. As strict as
    /// [`PublicKey::has_signed`].
    #[must_use]
    pub fn has_signed_checkpoint(self, text: &str, signature: &[u8; SIGNATURE_LEN]) -> bool {
        self.has_signed_bytes(text.as_bytes(), signature)
    }

    /// Whether this key signed the size and root of a tree, seen `signed_at_s` seconds after the epoch. As strict as
    /// [`PublicKey::has_signed`].
    #[must_use]
    pub fn has_signed_tree_head(
        self,
        size: u64,
        root: &TreeHash,
        signed_at_s: u64,
        signature: &[u8; SIGNATURE_LEN],
    ) -> bool {
        self.has_signed_bytes(tree_head_text(size, root, signed_at_s).as_bytes(), signature)
    }

    /// Whether this key, as a root key, certified a signing key. As strict as [`PublicKey::has_signed`].
    #[must_use]
    pub fn has_signed_key(self, subject: Self, signature: &[u8; SIGNATURE_LEN]) -> bool {
        self.has_signed_bytes(&certified_bytes(self.id(), subject), signature)
    }

    fn has_signed_bytes(self, bytes: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.0.verify_strict(bytes, &signature).is_ok()
    }

    /// Whether this key signed the text of an export's manifest. Strict like [`PublicKey::has_signed`].
    #[must_use]
    pub fn has_signed_manifest(self, text: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.0.verify_strict(&manifest::signed_bytes(self.id(), text), &signature).is_ok()
    }
}

fn certified_bytes(root: KeyId, subject: PublicKey) -> Vec<u8> {
    [KEY_CERTIFICATE_DOMAIN, &root.0, &subject.to_bytes()].concat()
}

/// One signature to be checked with others.
#[derive(Debug, Clone, Copy)]
pub struct SignedHash {
    /// The key that must have signed.
    pub key: PublicKey,
    /// What it must have signed.
    pub hash: EntryHash,
    /// The signature.
    pub signature: [u8; SIGNATURE_LEN],
}

/// Whether every one of many entries' hashes was signed by its key, at a fraction of the cost of checking each.
///
/// One random linear combination of all signature equations is checked. It holds if each of them does. If one does not, it
/// fails except with negligible probability; only a holder of the private key can make a signature that passes here with
/// a probability of up to 1/8 and fails [`PublicKey::has_signed`], by hiding a point of small order in it, and gains nothing
/// by it: what is signed stays the same.
#[must_use]
pub fn have_all_signed(signed: &[SignedHash]) -> bool {
    // Whole streams are signed by one key: what concerns the key alone is done once for a run of the same.
    let by_key = || signed.chunk_by(|one, other| one.key == other.key);
    if by_key().any(|run| run[0].key.0.is_weak()) {
        return false;
    }
    let messages_of = |run: &[SignedHash]| -> Vec<Vec<u8>> {
        let id = run[0].key.id();
        run.iter().map(|it| signed_bytes(id, &it.hash)).collect()
    };
    let messages: Vec<Vec<u8>> = by_key().flat_map(messages_of).collect();
    let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let signatures: Vec<_> =
        signed.iter().map(|it| ed25519_dalek::Signature::from_bytes(&it.signature)).collect();
    let keys: Vec<_> = signed.iter().map(|it| it.key.0).collect();
    ed25519_dalek::verify_batch(&messages, &signatures, &keys).is_ok()
}

fn signed_bytes(key_id: KeyId, hash: &EntryHash) -> Vec<u8> {
    [ENTRY_SIGNATURE_DOMAIN, &key_id.0, &hash.0].concat()
}

/// What is signed of a tree head: ASCII, numbers in decimal, the root in lower-case hex.
fn tree_head_text(size: u64, root: &TreeHash, signed_at_s: u64) -> String {
    format!("sth:{size}:{root}:{signed_at_s}")
}

/// The digest that binds an event to the details kept beside the ledger.
#[must_use]
pub fn details_digest(salt: &[u8; DETAILS_SALT_LEN], details: &[u8]) -> [u8; HASH_LEN] {
    salted_digest(DETAILS_DIGEST_CONTEXT, salt, details)
}

/// The digest that binds the beginning of a receiver's answer to the attempt that it answered. Salted like details.
#[must_use]
pub fn excerpt_digest(salt: &[u8; EXCERPT_SALT_LEN], excerpt: &[u8]) -> [u8; HASH_LEN] {
    salted_digest(EXCERPT_DIGEST_CONTEXT, salt, excerpt)
}

/// The digest by which a tool of an upstream is pinned: of its definition as JSON with sorted keys and without spaces.
#[must_use]
pub fn tool_digest(definition: &[u8]) -> [u8; HASH_LEN] {
    blake3::derive_key(TOOL_DIGEST_CONTEXT, definition)
}

fn salted_digest(context: &str, salt: &[u8], content: &[u8]) -> [u8; HASH_LEN] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(salt);
    hasher.update(content);
    *hasher.finalize().as_bytes()
}
