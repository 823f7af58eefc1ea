//! Checkpoints: the size and root of a stream's tree, signed. C2SP `tlog-checkpoint` in C2SP `signed-note`.
//!
//! A note is the text, an empty line, and signature lines. The text names the stream (its origin), the size and the root.
//! Others may add signatures of theirs, a witness for example: lines of unknown keys are ignored, as the specification
//! demands.

use data_encoding::{BASE64, HEXLOWER};
use sha2::{Digest as _, Sha256};

use super::chain::{PublicKey, Signer};
use super::merkle::TreeHash;
use crate::domain::id::TenantId;

/// What the origin of every stream begins with; the tenant's id follows.
pub const ORIGIN_PREFIX: &str = "haldir/ledger/";
/// Bytes of the longest note that is read.
pub const NOTE_LEN_MAX: usize = 64 * 1024;
/// Signatures of a note at most; as many as the specification asks a reader to accept.
pub const SIGNATURE_COUNT_MAX: usize = 16;

/// What a signature line begins with: an em dash and a space.
const SIGNATURE_MARK: &str = "\u{2014} ";
/// The signature type of Ed25519 over the note's text.
const ED25519: u8 = 1;
/// Bytes of a key hash.
const KEY_HASH_LEN: usize = 4;

/// The size and root of a stream's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose stream.
    pub tenant: TenantId,
    /// Entries in the stream.
    pub size: u64,
    /// Root of the tree over them.
    pub root: TreeHash,
}

/// A note that says what a checkpoint says. Who signed it is not known before [`SignedCheckpoint::signed_by`] is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// Lines of the text after the root, which are signed and not interpreted. Haldir writes none.
    pub extensions: Vec<String>,
    note: String,
    text_len: usize,
    signatures: Vec<NoteSignature>,
}

/// A signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NoteSignature {
    name: String,
    key_hash: [u8; KEY_HASH_LEN],
    signature: Vec<u8>,
}

/// Why a text is not a signed checkpoint of a Haldir stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Longer than [`NOTE_LEN_MAX`].
    #[error("longer than {NOTE_LEN_MAX} bytes")]
    TooLong,
    /// A character below U+0020 other than a newline.
    #[error("contains a control character")]
    ControlCharacter,
    /// No empty line between text and signatures, or no newline at the end.
    #[error("is not a text, an empty line and signature lines")]
    Form,
    /// A signature line that is none, or none at all.
    #[error("a signature line is malformed")]
    Signature,
    /// More than [`SIGNATURE_COUNT_MAX`] signatures.
    #[error("more than {SIGNATURE_COUNT_MAX} signatures")]
    TooManySignatures,
    /// The first line is not the origin of a Haldir stream.
    #[error("the first line is not {ORIGIN_PREFIX} and a tenant")]
    Origin,
    /// The second line is not a number of entries.
    #[error("the second line is not a tree size")]
    Size,
    /// The third line is not a hash.
    #[error("the third line is not a root hash")]
    Root,
    /// An extension line is empty.
    #[error("an extension line is empty")]
    Extension,
}

/// The name of a tenant's stream among all logs of the world, and of the keys that sign its checkpoints.
#[must_use]
pub fn origin(tenant: &TenantId) -> String {
    format!("{ORIGIN_PREFIX}{tenant}")
}

/// The verifier key of C2SP signed-note: what other programs take to check a tenant's checkpoints.
#[must_use]
pub fn vkey(key: PublicKey, tenant: &TenantId) -> String {
    let name = origin(tenant);
    let hash = HEXLOWER.encode(&key_hash(key, &name));
    format!("{name}+{hash}+{}", BASE64.encode(&typed_key(key)))
}

impl Checkpoint {
    /// What is signed: origin, size and root, a line each.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", origin(&self.tenant), self.size, BASE64.encode(&self.root.0))
    }

    /// The note: the text and one signature.
    #[must_use]
    pub fn sign(&self, signer: &Signer) -> String {
        let (name, text) = (origin(&self.tenant), self.text());
        let hash = key_hash(signer.public_key(), &name);
        let signature = [&hash[..], &signer.sign_checkpoint(&text)].concat();
        format!("{text}\n{SIGNATURE_MARK}{name} {}\n", BASE64.encode(&signature))
    }
}

impl SignedCheckpoint {
    /// Reads a note. Strict: of all ways to write a line one is accepted.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`].
    pub fn parse(note: &str) -> Result<Self, CheckpointError> {
        if note.len() > NOTE_LEN_MAX {
            return Err(CheckpointError::TooLong);
        }
        if note.bytes().any(|byte| byte < b' ' && byte != b'\n') {
            return Err(CheckpointError::ControlCharacter);
        }
        // Text and signatures are separated by the last empty line; the text keeps its newline.
        let text_len = note.rfind("\n\n").ok_or(CheckpointError::Form)? + 1;
        let (text, signatures) = (&note[..text_len], &note[text_len + 1..]);
        let signatures = parse_signatures(signatures)?;

        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Form)?.split('\n');
        let mut line = || lines.next().unwrap_or_default();
        let tenant = line().strip_prefix(ORIGIN_PREFIX).and_then(TenantId::parse);
        let tenant = tenant.ok_or(CheckpointError::Origin)?;
        let size = parse_decimal(line()).ok_or(CheckpointError::Size)?;
        let root = parse_hash(line()).ok_or(CheckpointError::Root)?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(CheckpointError::Extension);
        }
        let checkpoint = Checkpoint { tenant, size, root };
        Ok(Self { checkpoint, extensions, note: note.to_owned(), text_len, signatures })
    }

    /// The whole note, byte by byte as it was read.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// What its signatures sign.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.note[..self.text_len]
    }

    /// Which of these keys signed it in the stream's own name; the first line of such a key counts. `None` when none
    /// did, and also when a line claims to be of one of them and its signature is wrong.
    #[must_use]
    pub fn signed_by(&self, keys: &[PublicKey]) -> Option<PublicKey> {
        let name = origin(&self.checkpoint.tenant);
        let mut signer = None;
        for line in self.signatures.iter().filter(|line| line.name == name) {
            // A key hash is short: several keys can share it.
            let mut named = keys.iter().filter(|key| key_hash(**key, &name) == line.key_hash).peekable();
            if named.peek().is_none() {
                continue;
            }
            let signature = line.signature.as_slice().try_into().ok()?;
            let signed = named.find(|key| key.has_signed_checkpoint(self.text(), signature))?;
            signer = signer.or(Some(*signed));
        }
        signer
    }
}

fn parse_signatures(lines: &str) -> Result<Vec<NoteSignature>, CheckpointError> {
    let lines = lines.strip_suffix('\n').ok_or(CheckpointError::Form)?;
    let mut signatures = Vec::new();
    for line in lines.split('\n') {
        if signatures.len() == SIGNATURE_COUNT_MAX {
            return Err(CheckpointError::TooManySignatures);
        }
        signatures.push(parse_signature(line).ok_or(CheckpointError::Signature)?);
    }
    Ok(signatures)
}

fn parse_signature(line: &str) -> Option<NoteSignature> {
    let (name, signature) = line.strip_prefix(SIGNATURE_MARK)?.split_once(' ')?;
    if name.is_empty() || name.contains(|it: char| it == '+' || it.is_whitespace()) {
        return None;
    }
    let bytes = parse_base64(signature)?;
    let (key_hash, signature) = bytes.split_first_chunk()?;
    let signature = (!signature.is_empty()).then(|| signature.to_vec())?;
    Some(NoteSignature { name: name.to_owned(), key_hash: *key_hash, signature })
}

/// A number in decimal without sign and leading zeros.
pub(super) fn parse_decimal(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_plain { text.parse().ok() } else { None }
}

/// A hash in standard base64.
pub(super) fn parse_hash(text: &str) -> Option<TreeHash> {
    parse_base64(text)?.try_into().ok().map(TreeHash)
}

/// Bytes in standard base64, with padding at the end and nowhere else, and without stray bits.
#[must_use]
pub fn parse_base64(text: &str) -> Option<Vec<u8>> {
    // The decoder also takes pieces with a padding of their own, one after the other.
    BASE64.decode(text.as_bytes()).ok().filter(|bytes| BASE64.encode(bytes) == text)
}

/// What signature lines call a key, beside its name: 4 bytes of SHA-256.
fn key_hash(key: PublicKey, name: &str) -> [u8; KEY_HASH_LEN] {
    let digest = Sha256::digest([name.as_bytes(), b"\n", &typed_key(key)].concat());
    let mut hash = [0; KEY_HASH_LEN];
    hash.copy_from_slice(&digest[..KEY_HASH_LEN]);
    hash
}

/// The signature type and the raw key.
fn typed_key(key: PublicKey) -> Vec<u8> {
    [&[ED25519][..], &key.to_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::format::merkle::leaf_hash;

    fn signer(seed: u8) -> Signer {
        Signer::new(SigningKey::from_bytes(&[seed; 32]))
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { tenant: TenantId::parse("acme").unwrap(), size: 12, root: leaf_hash(b"12") }
    }

    #[test]
    fn a_note_is_read_back_and_its_signer_is_found() {
        let note = checkpoint().sign(&signer(1));
        let signed = SignedCheckpoint::parse(&note).unwrap();
        assert_eq!((&signed.checkpoint, signed.note()), (&checkpoint(), note.as_str()));
        assert_eq!(signed.text(), checkpoint().text());
        assert!(signed.extensions.is_empty());
        let (ours, other) = (signer(1).public_key(), signer(2).public_key());
        assert_eq!(signed.signed_by(&[other, ours]), Some(ours));
        assert_eq!(signed.signed_by(&[other]), None);
        assert_eq!(signed.signed_by(&[]), None);
    }

    #[test]
    fn lines_of_others_are_ignored_and_wrong_lines_of_ours_are_not() {
        let note = checkpoint().sign(&signer(1));
        let keys = [signer(1).public_key(), signer(2).public_key()];
        let line_of = |note: &str| note.lines().last().unwrap().to_owned();
        let ours = line_of(&note);

        // A witness, and somebody who uses the name of our key or its hash, but not both.
        let witness = "\u{2014} witness.example AAAAAAA=";
        let our_name = ours.rsplit_once(' ').unwrap().0.to_owned() + " AAAAAAA=";
        let our_hash = ours.replacen("haldir", "example", 1);
        let with_others = format!("{note}{witness}\n{our_name}\n{our_hash}\n");
        let signed = SignedCheckpoint::parse(&with_others).unwrap();
        assert_eq!(signed.signed_by(&keys), Some(keys[0]));

        // A line of a known key over another text spoils the note.
        let other = Checkpoint { size: 13, ..checkpoint() }.sign(&signer(2));
        let spoiled = SignedCheckpoint::parse(&format!("{note}{}\n", line_of(&other))).unwrap();
        assert_eq!(spoiled.signed_by(&keys), None);
        assert_eq!(spoiled.signed_by(&keys[..1]), Some(keys[0]));
        let cut = SignedCheckpoint::parse(&note.replace(&ours, &ours[..ours.len() - 4])).unwrap();
        assert_eq!(cut.signed_by(&keys), None);
    }

    #[test]
    fn extensions_are_signed_and_kept() {
        let text = checkpoint().text() + "an extension\n";
        let bytes =
            [&key_hash(signer(1).public_key(), "haldir/ledger/acme")[..], &signer(1).sign_checkpoint(&text)];
        let line = format!("\u{2014} haldir/ledger/acme {}\n", BASE64.encode(&bytes.concat()));
        let signed = SignedCheckpoint::parse(&format!("{text}\n{line}")).unwrap();
        assert_eq!(signed.extensions, ["an extension"]);
        assert!(signed.signed_by(&[signer(1).public_key()]).is_some());
        let without = SignedCheckpoint::parse(&format!("{}\n{line}", checkpoint().text())).unwrap();
        assert_eq!(without.signed_by(&[signer(1).public_key()]), None);
    }

    #[test]
    fn every_deviation_is_refused() {
        let note = checkpoint().sign(&signer(1));
        let line = note.lines().last().unwrap().to_owned() + "\n";
        let root = BASE64.encode(&checkpoint().root.0);
        let in_pieces =
            BASE64.encode(&checkpoint().root.0[..16]) + &BASE64.encode(&checkpoint().root.0[16..]);
        let replaced = |from: &str, to: &str| note.replacen(from, to, 1);
        for (note, expected) in [
            (String::new(), CheckpointError::Form),
            ("\n\n".to_owned(), CheckpointError::Form),
            (checkpoint().text(), CheckpointError::Form),
            (checkpoint().text() + "\n", CheckpointError::Form),
            (note.trim_end().to_owned(), CheckpointError::Form),
            (note.clone() + "\n", CheckpointError::Form),
            (note.clone() + "more\n", CheckpointError::Signature),
            (note.clone() + &line.repeat(SIGNATURE_COUNT_MAX), CheckpointError::TooManySignatures),
            (note.clone() + &" ".repeat(NOTE_LEN_MAX), CheckpointError::TooLong),
            (replaced("\n", "\r\n"), CheckpointError::ControlCharacter),
            (replaced("\u{2014}", "-"), CheckpointError::Signature),
            (replaced("\u{2014} haldir", "\u{2014} hal+dir"), CheckpointError::Signature),
            (replaced("\u{2014} haldir", "\u{2014} hal\u{2003}dir"), CheckpointError::Signature),
            (replaced("\u{2014} haldir", "\u{2014}  haldir"), CheckpointError::Signature),
            (replaced("acme", "Acme"), CheckpointError::Origin),
            (replaced("haldir", "other"), CheckpointError::Origin),
            (replaced("\n12\n", "\n012\n"), CheckpointError::Size),
            (replaced("\n12\n", "\n+12\n"), CheckpointError::Size),
            (replaced("\n12\n", "\n18446744073709551616\n"), CheckpointError::Size),
            (replaced("\n12\n", "\n\n"), CheckpointError::Size),
            (replaced(&root, &root[..40]), CheckpointError::Root),
            (replaced(&root, root.trim_end_matches('=')), CheckpointError::Root),
            // The same 32 bytes in two pieces with a padding each.
            (replaced(&root, &in_pieces), CheckpointError::Root),
            (replaced(&(root + "\n"), ""), CheckpointError::Root),
            (replaced("\n\n", "\n\n\n"), CheckpointError::Extension),
        ] {
            assert_eq!(SignedCheckpoint::parse(&note), Err(expected), "{note:?}");
        }
    }
}
