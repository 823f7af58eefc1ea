//! What somebody with the signing key could write: anything, under the right hash and signature.
//!
//! The hash keeps accidents away from the decoder. Only such a somebody can send it bytes of their choice.

use std::ops::Range;

use haldir::domain::limits::SESSION_ID_CHARS_MAX;
use haldir::format::chain::EntryHash;
use haldir::format::entry::{self, HEADER_LEN, TIME_MAX_US, TRAILER_LEN, seal};
use haldir::format::verify::Flaw;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{PAYLOAD_LEN, REGRESSIONS, name_of, verify};
use crate::samples::{self, random_cases, signer};

// Places in an entry, as numbers: the document has them so, and the program's own sums are what is tested.
const MAGIC: Range<usize> = 0..4;
const FORMAT_VERSION: Range<usize> = 4..6;
const KIND: Range<usize> = 6..8;
const SCHEMA: Range<usize> = 8..10;
const RESERVED: Range<usize> = 10..12;
const TIME: Range<usize> = 24..32;
const TENANT: Range<usize> = 32..56;
const ACTOR: Range<usize> = 56..80;
const REQUEST_ID: Range<usize> = 80..144;
/// The first byte of the payload says whether there is an idempotency key; no sample that is used here has one.
const IDEMPOTENCY: usize = 180;
const FIRST_FIELD: usize = IDEMPOTENCY + 1;
/// Where the scopes of the minted key start: after prefix, hash and the name `first`.
const SCOPES: usize = FIRST_FIELD + (8 + 12) + 32 + (8 + 5);

// Places of events among the samples.
const MINTED: usize = 0;
const CHECKED: usize = 2;
const DENIED: usize = 4;
const LOGGED: usize = 5;
const SESSION_REVOKED: usize = 6;
const REJECTED: usize = 7;
const METERED: usize = 10;
const KEY_REVOKED: usize = 11;

proptest! {
    #![proptest_config(random_cases(1024, REGRESSIONS))]

    #[test]
    fn what_is_read_from_a_forged_entry_is_still_written_back_to_the_same_bytes(
        sample in any::<Index>(), edits in any_edits(),
    ) {
        let every = every_sample();
        let forged = forged_from(every[sample.index(every.len())].clone(), |bytes| {
            for edit in &edits {
                edit.apply(bytes);
            }
        });
        if let Ok(entry) = entry::open(&forged) {
            let again = seal(&entry.tenant, &entry.recorded, &entry.prev, &signer()).unwrap();
            prop_assert_eq!(again.bytes, forged);
        }
    }
}

#[test]
fn a_payload_that_is_not_the_one_encoding_of_an_event_is_refused() {
    for (name, bytes) in [
        ("option byte 2, first field", with_byte(MINTED, IDEMPOTENCY, 2)),
        ("option byte 255", with_byte(MINTED, IDEMPOTENCY, 255)),
        ("option byte 2, last field", with_last_byte(LOGGED, 2)),
        ("trailing byte", forged(MINTED, |bytes| bytes.push(0))),
        ("missing byte", forged(MINTED, |bytes| bytes.truncate(bytes.len() - 1))),
        ("no payload", forged(MINTED, |bytes| bytes.truncate(HEADER_LEN))),
        ("scopes not sorted", with_scopes(&["vault:rotate", "*"])),
        ("scopes doubled", with_scopes(&["*", "*"])),
        ("no scopes", with_scopes(&[])),
        ("scope of no vocabulary", with_scopes(&["everything"])),
        ("hostile text length", forged(MINTED, |bytes| bytes[FIRST_FIELD..][..8].fill(0xff))),
        ("hostile list length", forged(MINTED, |bytes| bytes[SCOPES..][..8].fill(0x7f))),
        ("text that is no UTF-8", with_byte(MINTED, SCOPES - 1, 0xff)),
        ("prefix too short", with_first_text(KEY_REVOKED, "hld_AAAAAAA")),
        ("prefix too long", with_first_text(KEY_REVOKED, "hld_AAAAAAAAA")),
        ("prefix with a space", with_first_text(KEY_REVOKED, "hld_AAAA AAA")),
        ("session id too long", with_first_text(SESSION_REVOKED, &"é".repeat(SESSION_ID_CHARS_MAX + 1))),
        ("verdict 5", with_last_byte(CHECKED, 5)),
        ("payment denial 4", with_last_byte(DENIED, 4)),
        ("action rejection 2", with_last_byte(REJECTED, 2)),
        ("month 0", with_byte(METERED, FIRST_FIELD + 2, 0)),
        ("month 13", with_byte(METERED, FIRST_FIELD + 2, 13)),
        ("year 1969", with_field(METERED, FIRST_FIELD..FIRST_FIELD + 2, &1969_u16.to_le_bytes())),
        ("payload of another kind", with_byte(MINTED, KIND.start, 32)),
    ] {
        assert_refused(name, bytes, "payload");
    }
}

#[test]
fn a_header_that_holds_what_it_may_not_is_refused() {
    for (name, bytes, part) in [
        ("another magic", with_byte(MINTED, MAGIC.start, b'h'), "magic"),
        ("format version 0", with_byte(MINTED, FORMAT_VERSION.start, 0), "format version"),
        ("format version 2", with_byte(MINTED, FORMAT_VERSION.start, 2), "format version"),
        ("kind 0", with_byte(MINTED, KIND.start, 0), "kind"),
        ("kind 257", with_byte(MINTED, KIND.start + 1, 1), "kind"),
        ("schema 0", with_byte(MINTED, SCHEMA.start, 0), "kind"),
        ("schema 2", with_byte(MINTED, SCHEMA.start, 2), "kind"),
        ("reserved, low byte", with_byte(MINTED, RESERVED.start, 1), "reserved"),
        ("reserved, high byte", with_byte(MINTED, RESERVED.end - 1, 1), "reserved"),
        ("a time without a date", with_field(MINTED, TIME, &(TIME_MAX_US + 1).to_le_bytes()), "time"),
        ("no tenant", with_field(MINTED, TENANT, b""), "tenant"),
        ("tenant with a hole", with_field(MINTED, TENANT, b"a\0b"), "tenant"),
        ("tenant in capitals", with_field(MINTED, TENANT, b"TENANT"), "tenant"),
        ("tenant that is no UTF-8", with_field(MINTED, TENANT, &[0xff]), "tenant"),
        ("a byte at the end of the tenant", with_byte(MINTED, TENANT.end - 1, b'x'), "tenant"),
        ("no actor", with_field(MINTED, ACTOR, b""), "actor"),
        ("an actor that is none", with_field(MINTED, ACTOR, b"nobody"), "actor"),
        ("a key that is none", with_field(MINTED, ACTOR, b"key:short"), "actor"),
        ("a byte at the end of the actor", with_byte(MINTED, ACTOR.end - 1, b'x'), "actor"),
        ("no request id", with_field(MINTED, REQUEST_ID, b""), "request id"),
        ("request id with a space", with_field(MINTED, REQUEST_ID, b"a b"), "request id"),
        ("request id with a control byte", with_field(MINTED, REQUEST_ID, b"a\x7f"), "request id"),
        ("a byte at the end of the request id", with_byte(MINTED, REQUEST_ID.end - 1, b'x'), "request id"),
    ] {
        assert_refused(name, bytes, part);
    }
}

#[test]
fn the_forger_is_good_enough() {
    for (sample, entry) in samples::stream().into_iter().enumerate() {
        assert_eq!(forged(sample, |_| {}), entry, "what changes nothing forges nothing");
    }
    for ok in [
        with_scopes(&["*", "vault:rotate"]),
        with_first_text(SESSION_REVOKED, &"é".repeat(SESSION_ID_CHARS_MAX)),
        with_first_text(KEY_REVOKED, "hld_~!~!~!~!"),
        with_last_byte(CHECKED, 0),
        with_byte(METERED, FIRST_FIELD + 2, 12),
        with_field(METERED, FIRST_FIELD..FIRST_FIELD + 2, &9999_u16.to_le_bytes()),
        with_field(MINTED, TIME, &TIME_MAX_US.to_le_bytes()),
        with_field(MINTED, TENANT, &[b'a'; 24]),
        with_field(MINTED, ACTOR, b"system"),
        with_field(MINTED, REQUEST_ID, &[b'~'; 64]),
    ] {
        assert_eq!(entry::open(&ok).map(|_| ()), Ok(()));
    }
}

fn assert_refused(name: &str, bytes: Vec<u8>, part: &str) {
    let found = entry::open(&bytes).expect_err(name);
    assert_eq!(name_of(&found), part, "{name}: {found}");
    assert_eq!(verify(&[bytes], None), Err((0, Flaw::Malformed(found))), "{name}");
}

/// A sample with another header or payload, under the right length, hash and signature.
fn forged(sample: usize, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    forged_from(samples::stream().swap_remove(sample), change)
}

/// The entries of all samples.
fn every_sample() -> Vec<Vec<u8>> {
    let told = [
        samples::payments::recorded_payments(),
        samples::recorded(samples::secrets::vault_events()),
        samples::recorded_anomalies(),
        samples::proxy::recorded_proxy(),
    ];
    let told = told.iter().flat_map(|stream| samples::sealed(&samples::tenant(), stream));
    let mut every = samples::stream();
    every.extend(samples::compliance_stream());
    every.extend(samples::webhooks::webhook_stream());
    every.extend(told.map(|entry| entry.bytes));
    every
}

fn forged_from(mut bytes: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    bytes.truncate(bytes.len() - TRAILER_LEN);
    change(&mut bytes);
    let payload_len = u32::try_from(bytes.len() - HEADER_LEN).unwrap();
    bytes[PAYLOAD_LEN].copy_from_slice(&payload_len.to_le_bytes());
    let hash = EntryHash::of(&bytes);
    bytes.extend_from_slice(&hash.0);
    bytes.extend_from_slice(&signer().id().0);
    bytes.extend_from_slice(&signer().sign(&hash));
    bytes
}

fn with_byte(sample: usize, at: usize, value: u8) -> Vec<u8> {
    forged(sample, |bytes| bytes[at] = value)
}

fn with_last_byte(sample: usize, value: u8) -> Vec<u8> {
    forged(sample, |bytes| *bytes.last_mut().unwrap() = value)
}

/// The content at the start of the field, and zero bytes up to its end.
fn with_field(sample: usize, field: Range<usize>, content: &[u8]) -> Vec<u8> {
    forged(sample, |bytes| {
        let field = &mut bytes[field];
        field.fill(0);
        field[..content.len()].copy_from_slice(content);
    })
}

/// For events whose only field is a text.
fn with_first_text(sample: usize, text: &str) -> Vec<u8> {
    forged(sample, |bytes| {
        bytes.truncate(FIRST_FIELD);
        bytes.extend_from_slice(&text_bytes(text));
    })
}

fn with_scopes(words: &[&str]) -> Vec<u8> {
    forged(MINTED, |bytes| {
        bytes.truncate(SCOPES);
        bytes.extend_from_slice(&(words.len() as u64).to_le_bytes());
        for word in words {
            bytes.extend_from_slice(&text_bytes(word));
        }
    })
}

fn text_bytes(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A change of kind or payload.
#[derive(Debug, Clone)]
enum Edit {
    Kind(u16),
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index),
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let payload_len = bytes.len() - HEADER_LEN;
        match self {
            Self::Kind(kind) => bytes[KIND].copy_from_slice(&kind.to_le_bytes()),
            Self::Insert(at, value) => bytes.insert(HEADER_LEN + at.index(payload_len + 1), *value),
            Self::Set(..) | Self::Remove(_) if payload_len == 0 => {}
            Self::Set(at, value) => bytes[HEADER_LEN + at.index(payload_len)] = *value,
            Self::Remove(at) => {
                bytes.remove(HEADER_LEN + at.index(payload_len));
            }
        }
    }
}

fn any_edits() -> impl Strategy<Value = Vec<Edit>> {
    // Small values are the interesting ones: lengths, options, codes.
    let value = || prop_oneof![0..=3_u8, any::<u8>()];
    let kind = prop_oneof![4 => select(vec![1, 2, 3, 16, 17, 18, 19, 32, 33, 48, 49, 64, 176, 178, 184, 192, 193, 194]), 1 => any::<u16>()];
    let edit = prop_oneof![
        1 => kind.prop_map(Edit::Kind),
        4 => (any::<Index>(), value()).prop_map(|(at, value)| Edit::Set(at, value)),
        1 => (any::<Index>(), value()).prop_map(|(at, value)| Edit::Insert(at, value)),
        1 => any::<Index>().prop_map(Edit::Remove),
    ];
    prop::collection::vec(edit, 0..4)
}
