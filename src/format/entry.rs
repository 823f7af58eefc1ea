//! One entry: header, payload, hash and signature. See "Entry" in ledger-format.md.

use super::chain::{EntryHash, HASH_LEN, KEY_ID_LEN, KeyId, SIGNATURE_LEN, Signer};
use super::payload;
use crate::domain::Recorded;
use crate::domain::id::{Actor, REQUEST_ID_LEN_MAX, RequestId, SHORT_NAME_LEN_MAX, TenantId};
use crate::domain::time::Timestamp;

/// Bytes that every entry starts with.
pub const MAGIC: [u8; 4] = *b"HLDR";
/// The version of the layout described in this file.
pub const FORMAT_VERSION: u16 = 1;

// Header, little-endian. See "Header" in ledger-format.md.
const MAGIC_AT: usize = 0;
const FORMAT_VERSION_AT: usize = MAGIC_AT + MAGIC.len();
const KIND_AT: usize = FORMAT_VERSION_AT + size_of::<u16>();
const SCHEMA_AT: usize = KIND_AT + size_of::<u16>();
const RESERVED_AT: usize = SCHEMA_AT + size_of::<u16>();
const RULES_AT: usize = RESERVED_AT + size_of::<u16>();
const SEQ_AT: usize = RULES_AT + size_of::<u32>();
const TIME_AT: usize = SEQ_AT + size_of::<u64>();
const TENANT_AT: usize = TIME_AT + size_of::<u64>();
const ACTOR_AT: usize = TENANT_AT + SHORT_NAME_LEN_MAX;
const REQUEST_ID_AT: usize = ACTOR_AT + SHORT_NAME_LEN_MAX;
const PREV_AT: usize = REQUEST_ID_AT + REQUEST_ID_LEN_MAX;
const PAYLOAD_LEN_AT: usize = PREV_AT + HASH_LEN;
/// Bytes of the header; the payload starts here.
pub const HEADER_LEN: usize = PAYLOAD_LEN_AT + size_of::<u32>();
const _: () = assert!(HEADER_LEN == 180, "see ledger-format.md");

/// Microseconds since the epoch that an entry's time can be at most: the end of the year 9998.
pub const TIME_MAX_US: u64 = 253_370_764_799_999_999;

/// Bytes after the payload: hash, key id, signature.
pub const TRAILER_LEN: usize = HASH_LEN + KEY_ID_LEN + SIGNATURE_LEN;
const _: () = assert!(TRAILER_LEN == 104, "see ledger-format.md");

/// Bytes of the longest entry. Fits the 16-bit length that tile-based logs put before an entry.
pub const ENTRY_LEN_MAX: usize = u16::MAX as usize;
/// Bytes of the longest payload.
pub const PAYLOAD_LEN_MAX: usize = ENTRY_LEN_MAX - HEADER_LEN - TRAILER_LEN;

/// A decoded entry. Its bytes were well-formed and its hash is right; its signature and its place in the chain are not
/// yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The tenant whose stream it belongs to.
    pub tenant: TenantId,
    /// What it says.
    pub recorded: Recorded,
    /// The hash of the entry before it.
    pub prev: EntryHash,
    /// Its own hash.
    pub hash: EntryHash,
    /// Who signed it.
    pub key_id: KeyId,
    /// The signature.
    pub signature: [u8; SIGNATURE_LEN],
}

/// An entry as it goes to disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedEntry {
    /// All its bytes.
    pub bytes: Vec<u8>,
    /// Its hash, which the next entry names.
    pub hash: EntryHash,
}

/// Why bytes are not an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Longer or shorter than its header says, or than an entry can be.
    #[error("length {len} does not fit the entry")]
    Length {
        /// Bytes that were there.
        len: usize,
    },
    /// Does not start with the magic bytes.
    #[error("does not start with HLDR")]
    Magic,
    /// A layout this program does not know.
    #[error("unknown format version {0}")]
    FormatVersion(u16),
    /// A kind of event, or a schema version of it, that this program does not know.
    #[error("unknown event kind {kind}, schema {schema}")]
    Kind {
        /// The event kind.
        kind: u16,
        /// The schema version.
        schema: u16,
    },
    /// A header field that does not hold what it may hold.
    #[error("header field {0} is malformed")]
    Header(&'static str),
    /// The payload is not the encoding of an event, or not its only one.
    #[error("payload is malformed: {0}")]
    Payload(String),
    /// The content does not have the hash that the entry names.
    #[error("hash does not match the content")]
    Hash,
}

/// Encodes, hashes and signs an event as the successor of `prev`.
///
/// # Errors
///
/// [`EntryError::Length`] when the event is larger than an entry can hold; the limits in `domain` exclude it.
pub fn seal(
    tenant: &TenantId,
    recorded: &Recorded,
    prev: &EntryHash,
    signer: &Signer,
) -> Result<SealedEntry, EntryError> {
    let (kind, schema, payload) = payload::encode(recorded)?;
    if recorded.at.micros() > TIME_MAX_US {
        return Err(EntryError::Header("time"));
    }
    let payload_len = payload.len();
    if payload_len > PAYLOAD_LEN_MAX {
        return Err(EntryError::Length { len: HEADER_LEN + payload_len + TRAILER_LEN });
    }

    let mut bytes = Vec::with_capacity(HEADER_LEN + payload_len + TRAILER_LEN);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&schema.to_le_bytes());
    bytes.extend_from_slice(&0_u16.to_le_bytes());
    bytes.extend_from_slice(&recorded.rules.to_le_bytes());
    bytes.extend_from_slice(&recorded.seq.to_le_bytes());
    bytes.extend_from_slice(&recorded.at.micros().to_le_bytes());
    bytes.extend_from_slice(&padded::<SHORT_NAME_LEN_MAX>(tenant.as_str()));
    bytes.extend_from_slice(&padded::<SHORT_NAME_LEN_MAX>(&recorded.actor.to_string()));
    bytes.extend_from_slice(&padded::<REQUEST_ID_LEN_MAX>(recorded.request_id.as_str()));
    bytes.extend_from_slice(&prev.0);
    bytes.extend_from_slice(&u32::try_from(payload_len).unwrap_or(u32::MAX).to_le_bytes());
    debug_assert_eq!(bytes.len(), HEADER_LEN);
    bytes.extend_from_slice(&payload);

    let hash = EntryHash::of(&bytes);
    bytes.extend_from_slice(&hash.0);
    bytes.extend_from_slice(&signer.id().0);
    bytes.extend_from_slice(&signer.sign(&hash));
    Ok(SealedEntry { bytes, hash })
}

/// Reads an entry. Accepts exactly the bytes that [`seal`] can produce, and no others.
///
/// # Errors
///
/// The first [`EntryError`] on the way through the bytes.
pub fn open(bytes: &[u8]) -> Result<Entry, EntryError> {
    let len = bytes.len();
    if !(HEADER_LEN + TRAILER_LEN..=ENTRY_LEN_MAX).contains(&len) {
        return Err(EntryError::Length { len });
    }
    if bytes[MAGIC_AT..FORMAT_VERSION_AT] != MAGIC {
        return Err(EntryError::Magic);
    }
    let format_version = u16::from_le_bytes(array_at(bytes, FORMAT_VERSION_AT));
    if format_version != FORMAT_VERSION {
        return Err(EntryError::FormatVersion(format_version));
    }
    let payload_len = u32::from_le_bytes(array_at(bytes, PAYLOAD_LEN_AT)) as usize;
    if len - HEADER_LEN - TRAILER_LEN != payload_len {
        return Err(EntryError::Length { len });
    }

    let hash_at = len - TRAILER_LEN;
    let hash = EntryHash(array_at(bytes, hash_at));
    if EntryHash::of(&bytes[..hash_at]) != hash {
        return Err(EntryError::Hash);
    }
    if bytes[RESERVED_AT..RULES_AT] != [0, 0] {
        return Err(EntryError::Header("reserved"));
    }
    let at = u64::from_le_bytes(array_at(bytes, TIME_AT));
    if at > TIME_MAX_US {
        return Err(EntryError::Header("time"));
    }
    let text = |at, len, field| unpadded(&bytes[at..at + len]).ok_or(EntryError::Header(field));
    let tenant = TenantId::parse(text(TENANT_AT, SHORT_NAME_LEN_MAX, "tenant")?);
    let actor = Actor::parse(text(ACTOR_AT, SHORT_NAME_LEN_MAX, "actor")?);
    let request_id = RequestId::parse(text(REQUEST_ID_AT, REQUEST_ID_LEN_MAX, "request id")?);
    let kind = u16::from_le_bytes(array_at(bytes, KIND_AT));
    let schema = u16::from_le_bytes(array_at(bytes, SCHEMA_AT));
    let (idempotency, event) = payload::decode(kind, schema, &bytes[HEADER_LEN..hash_at])?;

    Ok(Entry {
        tenant: tenant.ok_or(EntryError::Header("tenant"))?,
        recorded: Recorded {
            seq: u64::from_le_bytes(array_at(bytes, SEQ_AT)),
            at: Timestamp::from_micros(at),
            rules: u32::from_le_bytes(array_at(bytes, RULES_AT)),
            actor: actor.ok_or(EntryError::Header("actor"))?,
            request_id: request_id.ok_or(EntryError::Header("request id"))?,
            idempotency,
            event,
        },
        prev: EntryHash(array_at(bytes, PREV_AT)),
        hash,
        key_id: KeyId(array_at(bytes, hash_at + HASH_LEN)),
        signature: array_at(bytes, hash_at + HASH_LEN + KEY_ID_LEN),
    })
}

fn array_at<const LEN: usize>(bytes: &[u8], at: usize) -> [u8; LEN] {
    let mut array = [0; LEN];
    array.copy_from_slice(&bytes[at..at + LEN]);
    array
}

/// Text in a field of fixed length, filled up with zero bytes.
fn padded<const LEN: usize>(text: &str) -> [u8; LEN] {
    let mut field = [0; LEN];
    field[..text.len()].copy_from_slice(text.as_bytes());
    field
}

/// The text before the zero bytes; `None` when something other than zero bytes follows, or when it is not UTF-8.
fn unpadded(field: &[u8]) -> Option<&str> {
    let len = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let is_zero_filled = field[len..].iter().all(|&byte| byte == 0);
    if is_zero_filled { std::str::from_utf8(&field[..len]).ok() } else { None }
}
