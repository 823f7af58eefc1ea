//! Proof files: read back as they were written, checked with other people's code, and refused when anything is changed.

use data_encoding::BASE64;
use haldir::domain::Event;
use haldir::domain::id::TenantId;
use haldir::format::checkpoint::Checkpoint;
use haldir::format::merkle::{Tree, TreeHash, leaf_hash};
use haldir::format::proof::{InclusionError, Node, Nodes, check_inclusion, inclusion_path};
use haldir::format::proof_file::{ProofFile, ProofFileError};
use haldir::store::PageStore as _;
use haldir::store::memory::MemoryPages;
use haldir::views::tree::{TreeNodes, Update};
use proptest::prelude::*;
use signed_note::Note;
use tlog_tiles::check_record;

use super::REGRESSIONS;
use super::notes::{verifiers, with_one_change};
use super::trees::ours;
use crate::samples::{self, random_cases, recorded, sealed, signer, tenant};

/// The tree over entries, one after the other and in the view.
pub(crate) fn tree_over(stream: &[Vec<u8>]) -> (Tree, MemoryPages) {
    let (mut tree, pages, tenant) = (Tree::default(), MemoryPages::default(), tenant());
    let mut update = Update::new(&pages, &tenant, 0);
    for entry in stream {
        tree.push(leaf_hash(entry));
        update.add(leaf_hash(entry)).unwrap();
    }
    let rows = update.finish();
    pages.write(rows).unwrap();
    (tree, pages)
}

/// The proof of an entry in the stream as it is.
pub(crate) fn proof_of(stream: &[Vec<u8>], index: usize) -> ProofFile {
    let (tree, pages) = tree_over(stream);
    let (size, tenant) = (stream.len() as u64, tenant());
    let path = inclusion_path(&TreeNodes::new(&pages, &tenant, size), index as u64, size).unwrap();
    let checkpoint = Checkpoint { tenant: tenant.clone(), size, root: tree.root() }.sign(&signer());
    ProofFile { entry: stream[index].clone(), index: index as u64, path, checkpoint }
}

/// A stream of so many entries.
fn stream_of(size: usize) -> Vec<Vec<u8>> {
    let events: Vec<Event> = samples::events().into_iter().cycle().take(size).collect();
    sealed(&tenant(), &recorded(events)).into_iter().map(|entry| entry.bytes).collect()
}

/// The file, if its proof holds and our key signed its checkpoint.
fn accepted(text: &str) -> Option<ProofFile> {
    let file = ProofFile::parse(text).ok()?;
    file.check().ok()?.signed_by(&[signer().public_key()])?;
    Some(file)
}

#[test]
fn every_entry_of_a_stream_has_a_proof_that_others_check() {
    for size in 1..=20 {
        let stream = stream_of(size);
        for (index, entry) in stream.iter().enumerate() {
            let text = proof_of(&stream, index).render();
            assert!(accepted(&text).is_some(), "{index} of {size}");

            // By hand, with nothing of ours but the text.
            let (proof, note) = text.split_once("\n\n").unwrap();
            let mut lines = proof.lines();
            assert_eq!(lines.next(), Some("c2sp.org/tlog-proof@v1"));
            assert_eq!(lines.next(), Some(format!("extra {}", BASE64.encode(entry)).as_str()));
            assert_eq!(lines.next(), Some(format!("index {index}").as_str()));
            let path = lines.map(|line| tlog_tiles::Hash::parse_hash(line).unwrap()).collect();
            let note = Note::from_bytes(note.as_bytes()).unwrap();
            note.verify(&verifiers(signer().public_key(), &tenant())).unwrap();
            let body = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
            let leaf = tlog_tiles::record_hash(entry);
            check_record(&path, body.size(), *body.hash(), index as u64, leaf).unwrap();
        }
    }
}

#[test]
fn a_proof_of_something_else_is_refused() {
    let stream = stream_of(12);
    let file = proof_of(&stream, 5);
    let other_place = ProofFile { index: 4, ..file.clone() };
    assert_eq!(other_place.check().unwrap_err(), ProofFileError::Seq(5));
    let other_entry = ProofFile { entry: stream[4].clone(), ..file.clone() };
    assert_eq!(other_entry.check().unwrap_err(), ProofFileError::Seq(4));
    let longer = ProofFile { path: [&file.path[..], &file.path[..1]].concat(), ..file.clone() };
    assert_eq!(longer.check().unwrap_err(), ProofFileError::Inclusion(InclusionError::Length));

    // The same size and root under another tenant's name, rightly signed.
    let stranger = TenantId::parse("stranger").unwrap();
    let (tree, _) = tree_over(&stream);
    let checkpoint = Checkpoint { tenant: stranger, size: 12, root: tree.root() }.sign(&signer());
    let other_stream = ProofFile { checkpoint, ..file.clone() };
    assert_eq!(other_stream.check().unwrap_err(), ProofFileError::Tenant(tenant()));

    // An older checkpoint that does not reach the entry.
    let (tree, _) = tree_over(&stream[..5]);
    let checkpoint = Checkpoint { tenant: tenant(), size: 5, root: tree.root() }.sign(&signer());
    let too_old = ProofFile { checkpoint, ..file.clone() };
    assert_eq!(too_old.check().unwrap_err(), ProofFileError::Inclusion(InclusionError::Range));

    // An inner node shown as an entry.
    let (tree, pages) = tree_over(&stream);
    let tenant = tenant();
    let nodes = TreeNodes::new(&pages, &tenant, 12);
    let children = [4, 5].map(|index| nodes.node(Node { level: 0, index }).unwrap().0);
    let forged = ProofFile { entry: [&[1][..], &children.concat()].concat(), ..file.clone() };
    assert!(matches!(forged.check(), Err(ProofFileError::Entry(_))));
    assert_eq!(
        check_inclusion(&leaf_hash(&forged.entry), 2, 6, &file.path[1..], &tree.root()),
        Err(InclusionError::Root)
    );

    // A key of somebody else.
    let signed = file.check().unwrap();
    let nobody = ed25519_dalek::SigningKey::from_bytes(&[9; 32]).verifying_key();
    assert_eq!(signed.signed_by(&[haldir::format::chain::PublicKey::new(nobody)]), None);
}

#[test]
fn every_flipped_bit_of_a_proof_is_refused() {
    let text = proof_of(&stream_of(12), 5).render();
    let mut tried = 0;
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            if let Ok(changed) = String::from_utf8(bytes) {
                tried += 1;
                assert!(accepted(&changed).is_none(), "bit {bit} of byte {at}");
            }
        }
    }
    assert!(tried > 7 * text.len() / 8, "{tried}");
}

fn any_file() -> impl Strategy<Value = ProofFile> {
    let entry = prop::collection::vec(any::<u8>(), 0..400);
    let path = prop::collection::vec(any::<[u8; 32]>().prop_map(TreeHash), 0..=64);
    let checkpoint = prop_oneof![any::<String>(), "([ -~]{0,20}\n){0,6}"];
    (entry, any::<u64>(), path, checkpoint).prop_map(|(entry, index, path, checkpoint)| ProofFile {
        entry,
        index,
        path,
        checkpoint,
    })
}

proptest! {
    #![proptest_config(random_cases(256, REGRESSIONS))]

    #[test]
    fn a_proof_file_is_read_back_as_it_was(file in any_file()) {
        prop_assert_eq!(ProofFile::parse(&file.render()), Ok(file));
    }

    #[test]
    fn what_is_read_is_written_back_to_the_same_text(
        file in any_file(), at in any::<usize>(), byte in any::<u8>(), how in any::<u8>(), text in any::<String>(),
    ) {
        for text in [with_one_change(&file.render(), at, byte, how), Some(text)].into_iter().flatten() {
            if let Ok(file) = ProofFile::parse(&text) {
                prop_assert_eq!(file.render(), text);
                prop_assert!(file.check().is_err());
            }
        }
    }

    #[test]
    fn a_changed_proof_is_refused_or_means_the_same(
        size in 1..40_usize, index in any::<prop::sample::Index>(),
        at in any::<usize>(), byte in any::<u8>(), how in any::<u8>(),
    ) {
        let file = proof_of(&stream_of(size), index.index(size));
        if let Some(changed) = with_one_change(&file.render(), at, byte, how)
            && let Some(read) = accepted(&changed)
        {
            prop_assert_eq!(read, file);
        }
    }

    #[test]
    fn paths_of_others_make_proof_files(size in 1..40_u64, index in any::<prop::sample::Index>()) {
        let stream = stream_of(usize::try_from(size).unwrap());
        let index = index.index(stream.len());
        let leaves: Vec<tlog_tiles::Hash> = stream.iter().map(|entry| tlog_tiles::record_hash(entry)).collect();
        let stored = Stored::over(&leaves);
        let root = tlog_tiles::tree_hash(size, &stored).unwrap();
        let path = tlog_tiles::prove_record(size, index as u64, &stored).unwrap();
        let checkpoint = Checkpoint { tenant: tenant(), size, root: TreeHash(root.0) }.sign(&signer());
        let file = ProofFile { entry: stream[index].clone(), index: index as u64, path: ours(&path), checkpoint };
        prop_assert!(accepted(&file.render()).is_some());
    }
}

/// Their tree, in their order.
struct Stored(Vec<tlog_tiles::Hash>);

impl Stored {
    fn over(leaves: &[tlog_tiles::Hash]) -> Self {
        let mut stored = Self(Vec::new());
        for (index, leaf) in leaves.iter().enumerate() {
            let more = tlog_tiles::stored_hashes_for_record_hash(index as u64, *leaf, &stored).unwrap();
            stored.0.extend(more);
        }
        stored
    }
}

impl tlog_tiles::HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0[usize::try_from(*index).unwrap()]).collect())
    }
}

#[test]
fn the_longest_proof_fits() {
    let entry = vec![7; haldir::format::entry::ENTRY_LEN_MAX];
    let checkpoint = "x".repeat(haldir::format::checkpoint::NOTE_LEN_MAX);
    let file = ProofFile { entry, index: u64::MAX, path: vec![leaf_hash(b""); 64], checkpoint };
    assert_eq!(ProofFile::parse(&file.render()), Ok(file.clone()));
    let longer = ProofFile { path: vec![leaf_hash(b""); 65], ..file };
    assert_eq!(ProofFile::parse(&longer.render()), Err(ProofFileError::Path));
}
