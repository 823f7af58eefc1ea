//! Does ledger-format.md say what the program does?

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use haldir::domain::Recorded;
use haldir::format::certificate::KeyCertificate;
use haldir::format::chain::EntryHash;
use haldir::format::entry;
use haldir::format::merkle::{Tree, leaf_hash};
use haldir::format::verify::{Trust, Verifier};

use crate::samples;

const DOCUMENT: &str = include_str!("../../ledger-format.md");

/// Every `name = hex` line of section 19.
fn vectors_in_the_document() -> BTreeMap<String, String> {
    let (_, section) = DOCUMENT.split_once("## 19. Test vectors").unwrap();
    section
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, hex)| (name.trim().to_owned(), hex.trim().to_owned()))
        .collect()
}

/// The same, computed.
fn vectors_of_the_program() -> BTreeMap<String, String> {
    let public_key = samples::signer().public_key();
    let stream = samples::stream();
    let mut vectors = BTreeMap::from([
        ("private_key".to_owned(), HEXLOWER.encode(&samples::PRIVATE_KEY)),
        ("public_key".to_owned(), HEXLOWER.encode(&public_key.to_bytes())),
        ("key_id".to_owned(), public_key.id().to_string()),
        ("details_salt".to_owned(), HEXLOWER.encode(&samples::DETAILS_SALT)),
        ("details_utf8".to_owned(), HEXLOWER.encode(samples::DETAILS.as_bytes())),
        (
            "details_digest".to_owned(),
            HEXLOWER.encode(&haldir::format::chain::details_digest(
                &samples::DETAILS_SALT,
                samples::DETAILS.as_bytes(),
            )),
        ),
    ]);
    let mut tree = Tree::default();
    vectors.insert("root_00".to_owned(), tree.root().to_string());
    for (seq, bytes) in stream.iter().enumerate() {
        tree.push(leaf_hash(bytes));
        vectors.insert(format!("entry_{seq:02}"), HEXLOWER.encode(bytes));
        vectors.insert(format!("root_{:02}", seq + 1), tree.root().to_string());
    }
    let head = entry::open(stream.last().unwrap()).unwrap().hash;
    vectors.insert("head".to_owned(), head.to_string());
    for (seq, bytes) in samples::custody_stream().iter().enumerate() {
        vectors.insert(format!("custody_entry_{seq:02}"), HEXLOWER.encode(bytes));
    }
    for (seq, bytes) in samples::compliance_stream().iter().enumerate() {
        vectors.insert(format!("compliance_entry_{seq:02}"), HEXLOWER.encode(bytes));
    }
    for (area, stream) in told_streams() {
        for (seq, entry) in samples::sealed(&samples::tenant(), &stream).iter().enumerate() {
            vectors.insert(format!("{area}_entry_{seq:02}"), HEXLOWER.encode(&entry.bytes));
        }
    }
    for (seq, bytes) in samples::webhooks::webhook_stream().iter().enumerate() {
        vectors.insert(format!("webhook_entry_{seq:02}"), HEXLOWER.encode(bytes));
    }
    let (root, next) = (samples::signer(), samples::next_signer().public_key());
    vectors.insert("certificate".to_owned(), KeyCertificate::sign(&root, next).line());
    vectors.extend(crate::proofs::vectors::proof_vectors());
    vectors
}

/// The streams that the rules give, each with the name of its vectors.
fn told_streams() -> Vec<(&'static str, Vec<Recorded>)> {
    vec![
        ("payments", samples::payments::recorded_payments()),
        ("vault", samples::recorded(samples::secrets::vault_events())),
        ("anomaly", samples::recorded_anomalies()),
        ("proxy", samples::proxy::recorded_proxy()),
    ]
}

#[test]
fn every_stream_that_the_rules_gave_is_given_again() {
    for (area, stream) in told_streams() {
        let mut verifier =
            Verifier::new(samples::tenant(), Trust::keys(vec![samples::signer().public_key()]));
        for entry in samples::sealed(&samples::tenant(), &stream) {
            verifier.push(&entry.bytes).unwrap_or_else(|flaw| panic!("{area}: {flaw}"));
        }
        assert_eq!(verifier.summary().decided, (0, stream.len() as u64), "{area}");
    }
}

#[test]
fn the_vectors_in_the_document_are_those_of_the_program() {
    let program = vectors_of_the_program();
    let document = vectors_in_the_document();
    let as_lines = |vectors: &BTreeMap<String, String>| {
        vectors.iter().map(|(name, hex)| format!("{name} = {hex}")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(document, program, "the program says:\n{}", as_lines(&program));
}

#[test]
fn every_entry_in_the_document_is_read_back() {
    let document = vectors_in_the_document();
    let mut prev = EntryHash::GENESIS;
    for (seq, expected) in samples::recorded(samples::events()).into_iter().enumerate() {
        let bytes = HEXLOWER.decode(document[&format!("entry_{seq:02}")].as_bytes()).unwrap();
        let entry = entry::open(&bytes).unwrap();
        assert_eq!(entry.recorded, expected);
        assert_eq!(entry.prev, prev);
        assert_eq!(entry.tenant, samples::tenant());
        prev = entry.hash;
    }
}

#[test]
fn the_second_stream_is_sound_and_changes_hands() {
    let keys = vec![samples::signer().public_key()];
    let mut verifier = Verifier::new(samples::tenant(), Trust::keys(keys));
    for bytes in samples::custody_stream() {
        verifier.push(&bytes).unwrap();
    }
    let signings = verifier.summary().signings;
    assert_eq!(signings.iter().map(|it| (it.from, it.is_named)).collect::<Vec<_>>(), [(0, true), (3, true)]);
    assert_eq!(signings[1].key, samples::next_signer().public_key());
}

#[test]
fn the_stream_about_a_webhook_is_sound_and_every_decision_is_derived_again() {
    let mut verifier = Verifier::new(samples::tenant(), Trust::keys(vec![samples::signer().public_key()]));
    for bytes in samples::webhooks::webhook_stream() {
        verifier.push(&bytes).unwrap();
    }
}

#[test]
fn the_stream_about_evidence_packs_is_sound_to_the_last_decision() {
    let mut verifier = Verifier::new(samples::tenant(), Trust::keys(vec![samples::signer().public_key()]));
    for bytes in samples::compliance_stream() {
        verifier.push(&bytes).unwrap();
    }
    let schedules = verifier.state().unwrap().schedules.newest_first().len();
    assert_eq!(schedules, 1);
}
