//! Do the bytes say exactly what was meant, and is every change to them found?

use std::collections::BTreeSet;
use std::ops::Range;

use ed25519_dalek::SigningKey;
use haldir::domain::id::{Actor, KeyPrefix, RequestId, TenantId};
use haldir::domain::keys::AccessDenied;
use haldir::domain::replays::Idempotency;
use haldir::domain::sessions::SessionOpened;
use haldir::domain::time::Timestamp;
use haldir::domain::usage::UsageMetered;
use haldir::domain::{Event, Recorded};
use haldir::format::chain::{EntryHash, HASH_LEN, KEY_ID_LEN, PublicKey, Signer};
use haldir::format::entry::{
    self, ENTRY_LEN_MAX, EntryError, PAYLOAD_LEN_MAX, TIME_MAX_US, TRAILER_LEN, seal,
};
use haldir::format::merkle::{Tree, leaf_hash};
use haldir::format::verify::{Flaw, Summary, Trust, Verifier};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::samples::{self, random_cases, recorded, sealed, sealed_by, signer, tenant};

mod any;
mod forge;
mod largest;
mod payments;
mod proxy;

use any::{any_event, any_recorded, any_tenant};

const REGRESSIONS: &str = "proptest-regressions/bytes.txt";

proptest! {
    #![proptest_config(random_cases(256, REGRESSIONS))]

    #[test]
    fn an_event_is_read_back_as_it_was_and_written_back_to_the_same_bytes(
        tenant in any_tenant(),
        recorded in any_recorded(),
        prev in any::<[u8; HASH_LEN]>().prop_map(EntryHash),
    ) {
        let sealed = seal(&tenant, &recorded, &prev, &signer()).unwrap();
        let entry = entry::open(&sealed.bytes).unwrap();
        prop_assert_eq!(&entry.tenant, &tenant);
        prop_assert_eq!(&entry.recorded, &recorded);
        prop_assert_eq!((entry.prev, entry.hash, entry.key_id), (prev, sealed.hash, signer().id()));
        let again = seal(&entry.tenant, &entry.recorded, &entry.prev, &signer()).unwrap();
        prop_assert_eq!(again.bytes, sealed.bytes);
    }

    #[test]
    fn a_flipped_bit_in_any_entry_is_found(recorded in any_recorded(), at in any::<prop::sample::Index>()) {
        let recorded = Recorded { seq: 0, ..recorded };
        let mut bytes = sealed(&tenant(), &[recorded]).remove(0).bytes;
        flip(&mut bytes, at.index(ENTRY_LEN_MAX * 8));
        prop_assert!(verify(&[bytes], None).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_no_entry(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(entry::open(&bytes).is_err());
    }

    #[test]
    fn what_can_be_written_can_be_read_even_beyond_the_limits_of_the_domain(
        scope_len in 0..20_usize, scope_count in 0..8_000_usize, readings in 0..2_000_usize,
    ) {
        let scopes = vec!["s".repeat(scope_len); scope_count];
        let Event::SessionOpened(opened) = samples::events().remove(1) else { unreachable!() };
        let opened = Event::SessionOpened(SessionOpened { scopes, ..opened });
        let Event::UsageMetered(metered) = samples::events().remove(10) else { unreachable!() };
        let keys = vec![metered.keys[0].clone(); readings];
        let metered = Event::UsageMetered(UsageMetered { keys, ..metered });
        for recorded in recorded(vec![opened, metered]) {
            match seal(&tenant(), &recorded, &EntryHash::GENESIS, &signer()) {
                Ok(sealed) => {
                    let read = entry::open(&sealed.bytes).map(|entry| entry.recorded == recorded);
                    prop_assert_eq!(read, Ok(true));
                }
                Err(error) => prop_assert_eq!(name_of(&error), "length"),
            }
        }
    }
}

proptest! {
    #![proptest_config(random_cases(96, REGRESSIONS))]

    #[test]
    fn tampering_with_any_stream_is_located(
        events in prop::collection::vec(any_event().prop_filter("one key signs here", |event| !matches!(event, Event::SignerRotated(_))), 2..8),
        tampering in 0..6_usize,
        at in any::<prop::sample::Index>(),
        bit in any::<prop::sample::Index>(),
    ) {
        let mut stream: Vec<_> = sealed(&tenant(), &recorded(events)).into_iter().map(|it| it.bytes).collect();
        let end = verify(&stream, None).unwrap();
        let at = at.index(stream.len() - 1);
        let found_at = match tampering {
            0 => { stream.truncate(at); at }
            1 => { stream.remove(at); at }
            2 => { stream.insert(at, stream[at].clone()); at + 1 }
            3 => { stream.swap(at, at + 1); at }
            4 => { stream[at].pop(); at }
            _ => { flip(&mut stream[at], bit.index(ENTRY_LEN_MAX * 8)); at }
        };
        prop_assert_eq!(verify(&stream, Some(&end)).map_err(|(seq, _)| seq), Err(found_at as u64));
    }

    #[test]
    fn the_root_is_that_of_rfc_6962_for_random_trees(
        leaves in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..1500),
    ) {
        let mut tree = Tree::default();
        for leaf in &leaves {
            tree.push(leaf_hash(leaf));
        }
        prop_assert_eq!((tree.size(), tree.root().0), (leaves.len() as u64, rfc_6962_root(&leaves)));
    }
}

#[test]
fn every_flipped_bit_of_an_entry_of_every_kind_is_found() {
    for event in samples::events() {
        let name = event.kind_name();
        let bytes = sealed(&tenant(), &recorded(vec![event])).remove(0).bytes;
        let hash_at = bytes.len() - TRAILER_LEN;
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flip(&mut flipped, bit);
            let at = bit / 8;
            let flaw = verify(&[flipped], None).expect_err("a flipped bit");
            let is_as_expected = match flaw {
                (0, Flaw::Malformed(EntryError::Magic)) => at < 4,
                (0, Flaw::Malformed(EntryError::FormatVersion(_))) => (4..6).contains(&at),
                (0, Flaw::Malformed(EntryError::Length { .. })) => PAYLOAD_LEN.contains(&at),
                (0, Flaw::Malformed(EntryError::Hash)) => (6..hash_at + HASH_LEN).contains(&at),
                (0, Flaw::Signer(_) | Flaw::NotCurrent { .. }) => {
                    (hash_at + HASH_LEN..).take(KEY_ID_LEN).any(|byte| byte == at)
                }
                (0, Flaw::Signature) => at >= hash_at + HASH_LEN + KEY_ID_LEN,
                _ => false,
            };
            assert!(is_as_expected, "bit {bit} of {name}: {flaw:?}");
        }
    }
}

#[test]
fn whatever_is_cut_dropped_doubled_or_moved_is_located() {
    let stream = samples::stream();
    let end = verify(&stream, None).unwrap();
    assert_eq!(verify(&stream, Some(&end)), Ok(end.clone()));
    let len = stream.len();
    let tampered = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut stream = stream.clone();
        change(&mut stream);
        verify(&stream, Some(&end)).unwrap_err()
    };

    for at in 0..len {
        let seq = at as u64;
        assert_eq!(tampered(&|it| it.truncate(at)), (seq, Flaw::Truncated(len as u64)));
        assert_eq!(tampered(&|it| it.insert(at, it[at].clone())), (seq + 1, Flaw::Seq(seq)));
        for other in at + 1..len {
            assert_eq!(tampered(&|it| it.swap(at, other)), (seq, Flaw::Seq(other as u64)));
        }
        if at + 1 < len {
            assert_eq!(tampered(&|it| drop(it.remove(at))), (seq, Flaw::Seq(seq + 1)));
        }
        for entry_len in 0..stream[at].len() {
            let flaw = Flaw::Malformed(EntryError::Length { len: entry_len });
            assert_eq!(tampered(&|it| it[at].truncate(entry_len)), (seq, flaw));
        }
        let flaw = Flaw::Malformed(EntryError::Length { len: stream[at].len() + 1 });
        assert_eq!(tampered(&|it| it[at].push(0)), (seq, flaw));
    }
}

#[test]
fn entries_of_another_tenant_key_or_history_are_located() {
    let stream = samples::stream();
    let end = verify(&stream, None).unwrap();
    let other_tenant = TenantId::parse("somebody_else").unwrap();
    let other_signer = Signer::new(SigningKey::from_bytes(&[0xee; 32]));
    let bytes = |entries: Vec<entry::SealedEntry>| entries.into_iter().map(|it| it.bytes).collect::<Vec<_>>();
    let of_other_tenant = bytes(sealed(&other_tenant, &recorded(samples::events())));
    let by_other_key = bytes(sealed_by(&other_signer, &tenant(), &recorded(samples::events())));
    let later = |it: Recorded| Recorded { at: it.at.plus_seconds(1), ..it };
    let of_other_history: Vec<_> = recorded(samples::events()).into_iter().map(later).collect();
    let of_other_history = bytes(sealed(&tenant(), &of_other_history));

    for at in 0..stream.len() {
        let seq = at as u64;
        let with = |entry: &[u8]| {
            let mut spliced = stream.clone();
            spliced[at] = entry.to_vec();
            verify(&spliced, Some(&end)).unwrap_err()
        };
        assert_eq!(with(&of_other_tenant[at]), (seq, Flaw::Tenant(other_tenant.clone())));
        let (found, current) = (other_signer.id(), signer().id());
        let flaw = if at == 0 { Flaw::Signer(found) } else { Flaw::NotCurrent { found, current } };
        assert_eq!(with(&by_other_key[at]), (seq, flaw));
        // The other key's signature under our key's name.
        let mut forged = by_other_key[at].clone();
        let key_id_at = forged.len() - TRAILER_LEN + HASH_LEN;
        forged[key_id_at..][..KEY_ID_LEN].copy_from_slice(&signer().id().0);
        assert_eq!(with(&forged), (seq, Flaw::Signature));
        // Nothing is wrong with a first entry of another history, until the second does not follow it.
        assert_eq!(with(&of_other_history[at]), (seq.max(1), Flaw::Link));

        let mut other_ending = stream[..at].to_vec();
        other_ending.extend_from_slice(&of_other_history[at..]);
        let found = verify(&other_ending, Some(&end)).unwrap_err();
        assert_eq!(found, if at == 0 { (12, Flaw::Head) } else { (seq, Flaw::Link) });
    }

    let mut longer = recorded(samples::events());
    longer.extend(recorded([samples::events(), samples::events()].concat()).into_iter().skip(12).take(1));
    let longer = bytes(sealed(&tenant(), &longer));
    assert_eq!(verify(&longer, Some(&end)), Err((13, Flaw::Head)), "an entry after the known end");
}

#[test]
fn a_signature_has_one_form_and_a_weak_key_signs_nothing() {
    let hash = EntryHash([7; HASH_LEN]);
    let signature = signer().sign(&hash);
    assert!(signer().public_key().has_signed(&hash, &signature));
    // The same signature with the group's order added to S: true by the equation, but another text.
    let order = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut malleated = signature;
    let mut carry = 0;
    for (byte, add) in malleated[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + add + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert!(!signer().public_key().has_signed(&hash, &malleated));

    // The neutral point as a public key and as R, and nothing as S: by the equation a signature of everything.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut of_everything = [0; 64];
    of_everything[0] = 1;
    let weak = PublicKey::from_bytes(&neutral).expect("a point of the curve");
    assert!(!weak.has_signed(&hash, &of_everything));
}

#[test]
fn times_that_do_not_advance_are_located() {
    for at in 1..12 {
        for micros_back in [1, 2, 1_000_000] {
            let mut stream = recorded(samples::events());
            stream[at].at = Timestamp::from_micros(stream[at].at.micros() - micros_back);
            let stream: Vec<_> = sealed(&tenant(), &stream).into_iter().map(|it| it.bytes).collect();
            assert_eq!(verify(&stream, None), Err((at as u64, Flaw::Time)));
        }
    }
}

#[test]
fn the_largest_event_of_every_kind_fits_an_entry() {
    let largest = [largest::largest_events(), largest::largest_webhook_events()].concat();
    let kinds = |events: &[Event]| events.iter().map(Event::kind_name).collect::<BTreeSet<_>>();
    let told = [samples::payments::recorded_payments(), samples::proxy::recorded_proxy()].concat();
    let told = told.into_iter().map(|recorded| recorded.event);
    let every: Vec<Event> = [
        samples::events(),
        samples::compliance_events(),
        samples::secrets::vault_events(),
        samples::webhooks::webhook_events(),
        samples::anomaly_events(),
    ]
    .concat()
    .into_iter()
    .chain(told)
    .collect();
    assert!(kinds(&largest).is_superset(&kinds(&every)), "a kind is missing");
    for event in largest {
        let name = event.kind_name();
        let recorded = Recorded {
            seq: u64::MAX,
            at: Timestamp::from_micros(TIME_MAX_US),
            rules: u32::MAX,
            actor: Actor::Key(KeyPrefix::parse("hld_AAAAAAAA").unwrap()),
            request_id: RequestId::parse(&"r".repeat(64)).unwrap(),
            idempotency: Some(Idempotency { key: [0xff; 32], fingerprint: [0xff; 32] }),
            event,
        };
        let tenant = TenantId::parse(&"t".repeat(24)).unwrap();
        let sealed = seal(&tenant, &recorded, &EntryHash::GENESIS, &signer()).expect(name);
        assert!(sealed.bytes.len() <= ENTRY_LEN_MAX, "{name}");
        assert_eq!(entry::open(&sealed.bytes).map(|entry| entry.recorded), Ok(recorded), "{name}");
    }
}

#[test]
fn an_event_that_does_not_fit_is_refused_and_one_that_just_fits_is_not() {
    let of_len = |operation_len: usize| {
        let denied = AccessDenied { required: String::new(), operation: "o".repeat(operation_len) };
        recorded(vec![Event::AccessDenied(denied)]).remove(0)
    };
    let overhead = 1 + size_of::<u64>() * 2;
    let fits = of_len(PAYLOAD_LEN_MAX - overhead);
    let sealed = seal(&tenant(), &fits, &EntryHash::GENESIS, &signer()).unwrap();
    assert_eq!(sealed.bytes.len(), ENTRY_LEN_MAX);
    assert_eq!(entry::open(&sealed.bytes).map(|entry| entry.recorded), Ok(fits));

    let too_long = of_len(PAYLOAD_LEN_MAX - overhead + 1);
    let refused = seal(&tenant(), &too_long, &EntryHash::GENESIS, &signer());
    assert_eq!(refused, Err(EntryError::Length { len: ENTRY_LEN_MAX + 1 }));
    let mut bytes = sealed.bytes;
    bytes.push(0);
    assert_eq!(entry::open(&bytes), Err(EntryError::Length { len: ENTRY_LEN_MAX + 1 }));
}

#[test]
fn the_root_is_that_of_rfc_6962_for_every_small_tree() {
    let mut tree = Tree::default();
    let mut leaves: Vec<Vec<u8>> = Vec::new();
    for size in 0..=200_u8 {
        assert_eq!(tree.root().0, rfc_6962_root(&leaves), "{size} leaves");
        leaves.push(vec![size; usize::from(size % 7)]);
        tree.push(leaf_hash(leaves.last().unwrap()));
    }
}

/// Where the payload's length stands in an entry.
const PAYLOAD_LEN: Range<usize> = 176..180;

/// What the oracle says of a stream of the sample tenant, trusting the sample key.
fn verify(entries: &[Vec<u8>], end: Option<&Summary>) -> Result<Summary, (u64, Flaw)> {
    let mut verifier = Verifier::without_decisions(tenant(), Trust::keys(vec![signer().public_key()]));
    for bytes in entries {
        verifier.push(bytes).map_err(|flaw| (verifier.next_seq(), flaw))?;
    }
    if let Some(end) = end {
        verifier.check_end(end.size, &end.head).map_err(|flaw| (verifier.next_seq(), flaw))?;
    }
    Ok(verifier.summary())
}

fn flip(bytes: &mut [u8], bit: usize) {
    let at = bit / 8 % bytes.len();
    bytes[at] ^= 1 << (bit % 8);
}

fn name_of(error: &EntryError) -> &'static str {
    match error {
        EntryError::Length { .. } => "length",
        EntryError::Magic => "magic",
        EntryError::FormatVersion(_) => "format version",
        EntryError::Kind { .. } => "kind",
        EntryError::Header(field) => field,
        EntryError::Payload(_) => "payload",
        EntryError::Hash => "hash",
    }
}

/// Section 2.1 of RFC 6962, word for word.
fn rfc_6962_root(leaves: &[Vec<u8>]) -> [u8; 32] {
    match leaves {
        [] => Sha256::digest([]).into(),
        [leaf] => Sha256::digest([&[0], &leaf[..]].concat()).into(),
        _ => {
            let mut k = 1;
            while k * 2 < leaves.len() {
                k *= 2;
            }
            let (left, right) = leaves.split_at(k);
            Sha256::digest([&[1][..], &rfc_6962_root(left), &rfc_6962_root(right)].concat()).into()
        }
    }
}
