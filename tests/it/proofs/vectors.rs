//! The test vectors of ledger-format.md that are about proofs, computed.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use haldir::format::checkpoint::{SignedCheckpoint, vkey};
use haldir::format::merkle::TreeHash;
use haldir::format::proof::{check_consistency, check_inclusion, consistency_path};
use haldir::format::proof_file::ProofFile;
use haldir::views::tree::TreeNodes;

use super::files::{proof_of, tree_over};
use crate::samples::{signer, stream, tenant};

/// When the tree head of the vectors was seen.
const SIGNED_AT_S: u64 = 1_700_000_010;

/// Every vector about proofs over the document's stream: name and hex, or name and text for the verifier key.
pub(crate) fn proof_vectors() -> BTreeMap<String, String> {
    let (stream, tenant, signer) = (stream(), tenant(), signer());
    let (tree, pages) = tree_over(&stream);
    let nodes = TreeNodes::new(&pages, &tenant, tree.size());
    let file = proof_of(&stream, 5);
    let consistency = consistency_path(&nodes, 5, 12).unwrap();
    let head_signature = signer.sign_tree_head(tree.size(), &tree.root(), SIGNED_AT_S);
    let text = |name: &str, text: &str| (name.to_owned(), HEXLOWER.encode(text.as_bytes()));
    BTreeMap::from([
        ("vkey".to_owned(), vkey(signer.public_key(), &tenant)),
        text("checkpoint_12_utf8", &file.checkpoint),
        ("inclusion_path_05_12".to_owned(), hex_of(&file.path)),
        ("consistency_path_05_12".to_owned(), hex_of(&consistency)),
        text("tlog_proof_05_utf8", &file.render()),
        ("tree_head_12_signed_at".to_owned(), SIGNED_AT_S.to_string()),
        ("tree_head_12_signature".to_owned(), HEXLOWER.encode(&head_signature)),
    ])
}

fn hex_of(path: &[TreeHash]) -> String {
    path.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn path_of(hex: &str) -> Vec<TreeHash> {
    let hash = |word: &str| TreeHash(HEXLOWER.decode(word.as_bytes()).unwrap().try_into().unwrap());
    hex.split(' ').map(hash).collect()
}

fn text_of(hex: &str) -> String {
    String::from_utf8(HEXLOWER.decode(hex.as_bytes()).unwrap()).unwrap()
}

#[test]
fn the_vectors_about_proofs_hold() {
    let vectors = proof_vectors();
    for (name, value) in &vectors {
        #[expect(clippy::print_stdout, reason = "what goes into the document is read off here")]
        {
            println!("{name} = {value}");
        }
    }
    let key = signer().public_key();
    let stream = stream();
    let root = |size: usize| tree_over(&stream[..size]).0.root();

    let note = text_of(&vectors["checkpoint_12_utf8"]);
    let signed = SignedCheckpoint::parse(&note).unwrap();
    assert_eq!(signed.signed_by(&[key]), Some(key));
    assert_eq!((signed.checkpoint.size, signed.checkpoint.root), (12, root(12)));

    let path = path_of(&vectors["inclusion_path_05_12"]);
    let leaf = haldir::format::merkle::leaf_hash(&stream[5]);
    assert_eq!(check_inclusion(&leaf, 5, 12, &path, &root(12)), Ok(()));
    let path = path_of(&vectors["consistency_path_05_12"]);
    assert_eq!(check_consistency(5, 12, &root(5), &root(12), &path), Ok(()));

    let file = ProofFile::parse(&text_of(&vectors["tlog_proof_05_utf8"])).unwrap();
    assert_eq!((file.entry.as_slice(), file.checkpoint.as_str()), (stream[5].as_slice(), note.as_str()));
    assert_eq!(file.check(), Ok(signed));
    let signature = HEXLOWER.decode(vectors["tree_head_12_signature"].as_bytes()).unwrap();
    assert!(key.has_signed_tree_head(12, &root(12), SIGNED_AT_S, &signature.try_into().unwrap()));
}
