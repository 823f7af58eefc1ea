//! Signed checkpoints, against `signed_note` and `tlog_tiles`.

use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use haldir::domain::id::TenantId;
use haldir::format::chain::{PublicKey, Signer};
use haldir::format::checkpoint::{Checkpoint, SignedCheckpoint, origin, vkey};
use haldir::format::merkle::TreeHash;
use proptest::prelude::*;
use signed_note::{Note, StandardSigner, StandardVerifier, VerifierList};

use super::REGRESSIONS;
use super::trees::theirs;
use crate::samples::random_cases;

pub(crate) fn any_checkpoint() -> impl Strategy<Value = Checkpoint> {
    let tenant = "[a-z0-9_]{1,24}".prop_map(|text| TenantId::parse(&text).unwrap());
    let size = prop_oneof![0..10_u64, any::<u64>()];
    (tenant, size, any::<[u8; 32]>()).prop_map(|(tenant, size, root)| Checkpoint {
        tenant,
        size,
        root: TreeHash(root),
    })
}

fn signer(seed: [u8; 32]) -> Signer {
    Signer::new(SigningKey::from_bytes(&seed))
}

/// Their verifier of our key.
pub(crate) fn verifiers(key: PublicKey, tenant: &TenantId) -> VerifierList {
    VerifierList::new(vec![Box::new(StandardVerifier::new(&vkey(key, tenant)).unwrap())])
}

/// Their signer with our key.
fn their_signer(seed: [u8; 32], tenant: &TenantId) -> StandardSigner {
    let vkey = vkey(signer(seed).public_key(), tenant);
    let hash = vkey.split('+').nth(1).unwrap();
    let key = BASE64.encode(&[&[1][..], &seed].concat());
    StandardSigner::new(&format!("PRIVATE+KEY+{}+{hash}+{key}", origin(tenant))).unwrap()
}

/// Texts that look like notes, and others.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\n".to_owned()),
        Just("\n\n".to_owned()),
        Just("\u{2014} haldir/ledger/acme ".to_owned()),
        Just("haldir/ledger/acme\n12\n".to_owned()),
        Just("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n".to_owned()),
        "[ -~]{0,12}",
        any::<String>(),
    ];
    prop_oneof![any::<String>(), prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())]
}

/// One change to a text: a byte changed, removed or inserted, or the text cut off.
pub(crate) fn with_one_change(text: &str, at: usize, byte: u8, how: u8) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    let at = at % bytes.len();
    match how % 4 {
        0 => bytes[at] ^= 1 << (byte % 8),
        1 => drop(bytes.remove(at)),
        2 => bytes.insert(at, byte),
        _ => bytes.truncate(at),
    }
    String::from_utf8(bytes).ok().filter(|changed| changed != text)
}

proptest! {
    #![proptest_config(random_cases(256, REGRESSIONS))]

    #[test]
    fn our_notes_are_read_and_verified_by_others(checkpoint in any_checkpoint(), seed in any::<[u8; 32]>()) {
        let signer = signer(seed);
        let note = checkpoint.sign(&signer);
        let read = Note::from_bytes(note.as_bytes()).unwrap();
        let (verified, unverified) = read.verify(&verifiers(signer.public_key(), &checkpoint.tenant)).unwrap();
        prop_assert_eq!((verified.len(), unverified.len()), (1, 0));
        let body = tlog_tiles::Checkpoint::from_bytes(read.text()).unwrap();
        prop_assert_eq!(body.origin(), origin(&checkpoint.tenant));
        prop_assert_eq!((body.size(), body.hash()), (checkpoint.size, &theirs(checkpoint.root)));
        prop_assert_eq!(body.extension(), "");
    }

    #[test]
    fn notes_of_others_are_read_and_verified_by_us(
        checkpoint in any_checkpoint(),
        seed in any::<[u8; 32]>(),
        extension in "([ -~]{1,30}\n){0,3}",
    ) {
        let name = origin(&checkpoint.tenant);
        let body =
            tlog_tiles::Checkpoint::new(&name, checkpoint.size, theirs(checkpoint.root), &extension).unwrap();
        let mut note = Note::new(&body.to_bytes(), &[]).unwrap();
        note.add_sigs(&[&their_signer(seed, &checkpoint.tenant)]).unwrap();
        let note = String::from_utf8(note.to_bytes()).unwrap();

        let signed = SignedCheckpoint::parse(&note).unwrap();
        let key = signer(seed).public_key();
        prop_assert_eq!(signed.signed_by(&[key]), Some(key));
        prop_assert_eq!(signed.extensions.len(), extension.lines().count());
        prop_assert_eq!((signed.text().as_bytes(), signed.note()), (&body.to_bytes()[..], note.as_str()));
        prop_assert_eq!(&signed.checkpoint, &checkpoint);
        if extension.is_empty() {
            prop_assert_eq!(checkpoint.sign(&signer(seed)), note);
        }
    }

    #[test]
    fn a_changed_note_is_refused_or_means_the_same(
        checkpoint in any_checkpoint(),
        seeds in any::<([u8; 32], [u8; 32])>(),
        at in any::<usize>(),
        byte in any::<u8>(),
        how in any::<u8>(),
    ) {
        // Two signatures, so that one can be spoiled while the other still counts.
        let other_line = checkpoint.sign(&signer(seeds.1));
        let note = checkpoint.sign(&signer(seeds.0)) + other_line.rsplit_once("\n\n").unwrap().1;
        let keys = [signer(seeds.0).public_key(), signer(seeds.1).public_key()];
        prop_assert!(SignedCheckpoint::parse(&note).unwrap().signed_by(&keys).is_some());
        if let Some(changed) = with_one_change(&note, at, byte, how)
            && let Ok(signed) = SignedCheckpoint::parse(&changed)
            && signed.signed_by(&keys).is_some()
        {
            prop_assert_eq!(&signed.checkpoint, &checkpoint);
            prop_assert!(signed.extensions.is_empty());
        }
    }

    #[test]
    fn whatever_we_read_others_read_too(
        text in any_text(),
        checkpoint in any_checkpoint(),
        change in any::<(usize, u8, u8)>(),
    ) {
        let changed = with_one_change(&checkpoint.sign(&signer([1; 32])), change.0, change.1, change.2);
        for text in [Some(text), changed].into_iter().flatten() {
            if let Ok(signed) = SignedCheckpoint::parse(&text) {
                let read = Note::from_bytes(text.as_bytes()).unwrap();
                prop_assert_eq!(read.text(), signed.text().as_bytes());
                let body = tlog_tiles::Checkpoint::from_bytes(read.text()).unwrap();
                prop_assert_eq!((body.size(), body.hash().0), (signed.checkpoint.size, signed.checkpoint.root.0));
            }
        }
    }

    #[test]
    fn a_tree_head_is_signed_as_the_contract_says_and_as_nothing_else(
        seed in any::<[u8; 32]>(),
        size in any::<u64>(),
        root in any::<[u8; 32]>().prop_map(TreeHash),
        signed_at_s in any::<u64>(),
    ) {
        let signer = signer(seed);
        let signature = signer.sign_tree_head(size, &root, signed_at_s);
        let key = signer.public_key();
        prop_assert!(key.has_signed_tree_head(size, &root, signed_at_s, &signature));
        let text = format!("sth:{size}:{root}:{signed_at_s}");
        let raw = SigningKey::from_bytes(&seed).verifying_key();
        let of_contract = ed25519_dalek::Signature::from_bytes(&signature);
        prop_assert!(raw.verify_strict(text.as_bytes(), &of_contract).is_ok());

        let other_root = TreeHash(root.0.map(|byte| !byte));
        prop_assert!(!key.has_signed_tree_head(size ^ 1, &root, signed_at_s, &signature));
        prop_assert!(!key.has_signed_tree_head(size, &other_root, signed_at_s, &signature));
        prop_assert!(!key.has_signed_tree_head(size, &root, signed_at_s ^ 1, &signature));
        let mut flipped = signature;
        flipped[usize::from(root.0[0] % 64)] ^= 1;
        prop_assert!(!key.has_signed_tree_head(size, &root, signed_at_s, &flipped));
    }
}
