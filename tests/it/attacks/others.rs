//! Attacks on every form but the ledger export.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use haldir::domain::money::Money;
use haldir::format::proof_file::ProofFile;
use haldir::operations::evidence::Verdict::{
    Equivocation, Incomplete, NotSound, Sound, Truncated, UnnamedKey,
};
use haldir::operations::wire::Usd;
use serde_json::{Value, json};

use super::trail::Trail;
use super::world::*;
use super::{Attack, KNOWS_OURS, Knows, Make, Original, pin_5, pin_10};

const KNOWS_PIN: Knows = Knows { pins: &[pin_10], ..KNOWS_OURS };
const KNOWS_PINS: Knows = Knows { pins: &[pin_5, pin_10], ..KNOWS_OURS };
const KNOWS_MANIFEST: Knows = Knows { manifest: Some("original.csv.manifest.json"), ..KNOWS_OURS };

pub(super) const ORIGINALS: &[Original] = &[
    ("original.ocsf.jsonl", KNOWS_PIN, || ocsf(|_| {}), Sound),
    ("original-open.ocsf.jsonl", KNOWS_OURS, || ocsf(|_| {}), Incomplete),
    ("original-range.ocsf.jsonl", KNOWS_OURS, || ocsf(|lines| drop(lines.drain(..5))), Incomplete),
    ("original.tiles.json", KNOWS_PIN, || folder(&Story::honest().tiles()), Sound),
    ("original-bare.tiles.json", KNOWS_OURS, || tiles(|files| drop(files.remove("checkpoint"))), Incomplete),
    ("original.trail.jsonl", KNOWS_OURS, || rows(false).json_lines().into_bytes(), Sound),
    ("original.csv", KNOWS_MANIFEST, || rows(true).content().into_bytes(), Sound),
    ("original.tlog-proof", KNOWS_PIN, || proof().render().into_bytes(), Sound),
    ("original.checkpoint", KNOWS_PIN, || Story::honest().checkpoint(10).into_bytes(), Sound),
    ("original.sth.json", KNOWS_PIN, || text(&Story::honest().tree_head()), Sound),
    ("original.inclusion.json", KNOWS_PIN, || text(&Story::honest().inclusion(2)), Sound),
    ("original.consistency.json", KNOWS_PINS, || text(&Story::honest().consistency(5)), Sound),
];

/// Manifests that lie beside CSV exports.
pub(super) const MANIFESTS: &[(&str, Make)] = &[
    ("original.csv.manifest.json", || rows(true).manifest().into_bytes()),
    ("manifest-altered.csv.manifest.json", || {
        rows(true).manifest().replace("\"count\":2", "\"count\":1").into_bytes()
    }),
];

/// The history that the operator shows to somebody else.
fn fork() -> Story {
    Story::of(ACME, OURS, "2")
}

fn rows(is_csv: bool) -> Trail {
    Trail::of(&Story::honest(), is_csv)
}

fn proof() -> ProofFile {
    Story::honest().proof_file(2)
}

fn ocsf(change: impl FnOnce(&mut Vec<String>)) -> Vec<u8> {
    let mut lines = Story::honest().ocsf();
    change(&mut lines);
    lines.concat().into_bytes()
}

/// A folder in one file: paths and their bytes in base64.
fn folder(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let files: BTreeMap<_, _> = files.iter().map(|(path, bytes)| (path, BASE64.encode(bytes))).collect();
    serde_json::to_vec_pretty(&files).unwrap()
}

fn tiles(change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Vec<u8> {
    let mut files = Story::honest().tiles();
    change(&mut files);
    folder(&files)
}

fn text(document: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(document).unwrap()
}

/// A document with one member changed.
fn with(mut document: Value, member: &str, value: Value) -> Vec<u8> {
    *document.pointer_mut(member).unwrap() = value;
    text(&document)
}

pub(super) const ATTACKS: &[Attack] = &[
    (
        "label.ocsf.jsonl",
        "original.ocsf.jsonl",
        KNOWS_PIN,
        "changes what a line says of its entry, not the entry",
        || ocsf(|lines| lines[2] = lines[2].replace("\"amount\":\"3.0\"", "\"amount\":\"1\"")),
        (NotSound, Some(2), "mislabelled"),
    ),
    (
        "label-twice.ocsf.jsonl",
        "original.ocsf.jsonl",
        KNOWS_PIN,
        "says something twice",
        || ocsf(|lines| lines[2] = lines[2].replacen('{', "{\"activity_id\":2,", 1)),
        (NotSound, Some(2), "stands twice"),
    ),
    (
        "truncated.ocsf.jsonl",
        "original-open.ocsf.jsonl",
        KNOWS_OURS,
        "leaves out the last lines",
        || ocsf(|lines| lines.truncate(7)),
        (Incomplete, None, "nothing says that the stream ended after 7 entries"),
    ),
    (
        "truncated-pinned.ocsf.jsonl",
        "original.ocsf.jsonl",
        KNOWS_PIN,
        "the same, for an auditor who kept a checkpoint",
        || ocsf(|lines| lines.truncate(8)),
        (Truncated, None, "and 8 are here"),
    ),
    (
        "left-out.ocsf.jsonl",
        "original.ocsf.jsonl",
        KNOWS_PIN,
        "leaves out a line in the middle",
        || ocsf(|lines| drop(lines.remove(4))),
        (NotSound, Some(4), "says that it is entry 5"),
    ),
    (
        "wrong-key.ocsf.jsonl",
        "original.ocsf.jsonl",
        KNOWS_PIN,
        "signs with a key of their own",
        || Story::of(ACME, STRANGER, "3").ocsf().concat().into_bytes(),
        (NotSound, Some(0), "which is not trusted"),
    ),
    (
        "forked.ocsf.jsonl",
        "original.ocsf.jsonl",
        KNOWS_PIN,
        "the operator shows another history",
        || fork().ocsf().concat().into_bytes(),
        (Equivocation, None, "the pinned checkpoint of size 10 is of another history"),
    ),
    (
        "hash.tiles.json",
        "original.tiles.json",
        KNOWS_OURS,
        "changes a hash in a tile",
        || tiles(|files| files.get_mut("tile/0/000.p/10").unwrap()[3 * 32] ^= 1),
        (NotSound, Some(3), "tile/0/000.p/10 does not hold the hashes of the entries"),
    ),
    (
        "entry.tiles.json",
        "original.tiles.json",
        KNOWS_OURS,
        "changes an entry in a bundle",
        || tiles(|files| files.get_mut("tile/entries/000.p/10").unwrap()[900] ^= 1),
        (NotSound, Some(2), "hash does not match the content"),
    ),
    (
        "missing-tile.tiles.json",
        "original.tiles.json",
        KNOWS_OURS,
        "leaves out a hash tile",
        || tiles(|files| drop(files.remove("tile/0/000.p/10"))),
        (NotSound, Some(0), "tile/0/000.p/10 is missing"),
    ),
    (
        "short-tile.tiles.json",
        "original.tiles.json",
        KNOWS_OURS,
        "cuts a hash tile off",
        || tiles(|files| files.get_mut("tile/0/000.p/10").unwrap().truncate(9 * 32)),
        (NotSound, Some(0), "tile/0/000.p/10 is not 320 bytes long"),
    ),
    (
        "long-tile.tiles.json",
        "original.tiles.json",
        KNOWS_OURS,
        "adds a hash to a tile",
        || tiles(|files| files.get_mut("tile/0/000.p/10").unwrap().extend([0; 32])),
        (NotSound, Some(0), "tile/0/000.p/10 is not 320 bytes long"),
    ),
    (
        "surplus-tile.tiles.json",
        "original.tiles.json",
        KNOWS_OURS,
        "adds a tile that the tree does not have",
        || tiles(|files| drop(files.insert("tile/1/000.p/1".to_owned(), vec![0; 32]))),
        (NotSound, Some(10), "tile/1/000.p/1 is no tile of a tree of 10 entries"),
    ),
    (
        "short-bundle.tiles.json",
        "original.tiles.json",
        KNOWS_OURS,
        "cuts a bundle off",
        || tiles(|files| files.get_mut("tile/entries/000.p/10").unwrap().truncate(3000)),
        (NotSound, Some(0), "tile/entries/000.p/10: the bundle is cut off"),
    ),
    (
        "long-bundle.tiles.json",
        "original.tiles.json",
        KNOWS_OURS,
        "adds bytes to a bundle",
        || tiles(|files| files.get_mut("tile/entries/000.p/10").unwrap().extend([0, 0])),
        (NotSound, Some(0), "tile/entries/000.p/10: the bundle goes on after its last entry"),
    ),
    (
        "truncated.tiles.json",
        "original.tiles.json",
        KNOWS_OURS,
        "takes the tiles of an earlier size, and keeps the checkpoint",
        || {
            let mut files = Story::honest_until(7).tiles();
            files.insert("checkpoint".to_owned(), Story::honest().checkpoint(10).into_bytes());
            folder(&files)
        },
        (NotSound, Some(7), "the stream ends here, but is known to hold 10 entries"),
    ),
    (
        "emptied.tiles.json",
        "original.tiles.json",
        KNOWS_OURS,
        "leaves out the entries",
        || tiles(|files| drop(files.remove("tile/entries/000.p/10"))),
        (NotSound, Some(0), "the stream ends here, but is known to hold 10 entries"),
    ),
    (
        "forked-checkpoint.tiles.json",
        "original.tiles.json",
        KNOWS_OURS,
        "puts in the checkpoint of another history",
        || tiles(|files| drop(files.insert("checkpoint".to_owned(), fork().checkpoint(10).into_bytes()))),
        (NotSound, Some(10), "the root is not that of the entries"),
    ),
    (
        "foreign-checkpoint.tiles.json",
        "original.tiles.json",
        KNOWS_OURS,
        "signs the checkpoint with a key of their own",
        || {
            tiles(|files| {
                files.insert(
                    "checkpoint".to_owned(),
                    Story::honest().checkpoint_by(STRANGER, 10).into_bytes(),
                );
            })
        },
        (NotSound, Some(10), "the closing checkpoint is not signed by a key of this stream"),
    ),
    (
        "rolled-back.tiles.json",
        "original.tiles.json",
        KNOWS_PIN,
        "hands over the folder as it was before",
        || folder(&Story::honest_until(7).tiles()),
        (Truncated, None, "and 7 are here"),
    ),
    (
        "row.trail.jsonl",
        "original.trail.jsonl",
        KNOWS_OURS,
        "changes a cost in a row",
        || {
            String::from_utf8(rows(false).json_lines().into_bytes())
                .unwrap()
                .replacen("0.002", "0.001", 1)
                .into_bytes()
        },
        (NotSound, Some(0), "the rows are not the ones that the manifest signs"),
    ),
    (
        "row-left-out.trail.jsonl",
        "original.trail.jsonl",
        KNOWS_OURS,
        "leaves out the last row",
        || {
            let mut fewer = rows(false);
            fewer.rows.pop();
            (fewer.content() + &rows(false).manifest() + "\n").into_bytes()
        },
        (NotSound, Some(1), "the manifest is of 2 rows, and 1 are here"),
    ),
    (
        "unlinked.trail.jsonl",
        "original.trail.jsonl",
        KNOWS_OURS,
        "the operator leaves out a row, and signs the rest",
        || {
            let mut fewer = rows(false);
            fewer.rows.remove(0);
            fewer.json_lines().into_bytes()
        },
        (NotSound, Some(0), "does not follow the row before it"),
    ),
    (
        "manifest.trail.jsonl",
        "original.trail.jsonl",
        KNOWS_OURS,
        "says in the manifest that only some rows were asked for",
        || {
            rows(false)
                .json_lines()
                .replace("\"filters\":{}", "\"filters\":{\"tool\":\"email\"}")
                .into_bytes()
        },
        (NotSound, Some(2), "the signature of the manifest is wrong"),
    ),
    (
        "manifest-of-other-rows.trail.jsonl",
        "original.trail.jsonl",
        KNOWS_OURS,
        "puts the genuine manifest of another export behind the rows",
        || (rows(false).content() + &Trail::of(&fork(), false).manifest() + "\n").into_bytes(),
        (NotSound, Some(1), "the last hash is not that of the manifest"),
    ),
    (
        "no-manifest.trail.jsonl",
        "original.trail.jsonl",
        KNOWS_OURS,
        "leaves out the manifest",
        || rows(false).content().into_bytes(),
        (Incomplete, None, "it ends without the manifest that signs its rows"),
    ),
    (
        "after-the-manifest.trail.jsonl",
        "original.trail.jsonl",
        KNOWS_OURS,
        "adds a row behind the manifest",
        || (rows(false).json_lines() + rows(false).content().lines().next().unwrap() + "\n").into_bytes(),
        (NotSound, Some(2), "something follows the manifest"),
    ),
    (
        "wrong-key.trail.jsonl",
        "original.trail.jsonl",
        KNOWS_OURS,
        "changes rows, and signs them with a key of their own",
        || {
            let mut cheaper = rows(false);
            cheaper.key = STRANGER;
            cheaper.rows[0].cost_usd = Usd(Money::ZERO);
            cheaper.json_lines().into_bytes()
        },
        (UnnamedKey, None, "which you did not name"),
    ),
    (
        "row.csv",
        "original.csv",
        KNOWS_MANIFEST,
        "changes a cost in a row",
        || rows(true).content().replacen("0.002", "0.001", 1).into_bytes(),
        (NotSound, Some(0), "the rows are not the ones that the manifest signs"),
    ),
    (
        "manifest-altered.csv",
        "original.csv",
        Knows { manifest: Some("manifest-altered.csv.manifest.json"), ..KNOWS_OURS },
        "leaves out a row, and changes the number of rows in the manifest",
        || {
            let mut fewer = rows(true);
            fewer.rows.pop();
            fewer.content().into_bytes()
        },
        (NotSound, Some(1), "the signature of the manifest is wrong"),
    ),
    (
        "other-tree.tlog-proof",
        "original.tlog-proof",
        KNOWS_OURS,
        "proves that the entry is in another tree",
        || ProofFile { path: fork().proof_file(2).path, ..proof() }.render().into_bytes(),
        (NotSound, Some(2), "not included: the path does not lead to the root"),
    ),
    (
        "other-entry.tlog-proof",
        "original.tlog-proof",
        KNOWS_OURS,
        "puts another history's entry into the proof",
        || ProofFile { entry: fork().proof_file(2).entry, ..proof() }.render().into_bytes(),
        (NotSound, Some(2), "not included: the path does not lead to the root"),
    ),
    (
        "other-index.tlog-proof",
        "original.tlog-proof",
        KNOWS_OURS,
        "names another place",
        || ProofFile { index: 3, ..proof() }.render().into_bytes(),
        (NotSound, Some(3), "the entry says that it is entry 2"),
    ),
    (
        "wrong-key.tlog-proof",
        "original.tlog-proof",
        KNOWS_OURS,
        "signs the checkpoint of a made-up stream themselves",
        || Story::of(ACME, STRANGER, "1").proof_file(2).render().into_bytes(),
        (NotSound, Some(2), "the checkpoint is not signed by a key that you named"),
    ),
    (
        "forked.tlog-proof",
        "original.tlog-proof",
        KNOWS_PIN,
        "the operator proves an entry of another history",
        || fork().proof_file(2).render().into_bytes(),
        (Equivocation, None, "the pinned checkpoint of size 10 is of another history"),
    ),
    (
        "forked.checkpoint",
        "original.checkpoint",
        KNOWS_PIN,
        "the operator signs another root of the same size",
        || fork().checkpoint(10).into_bytes(),
        (Equivocation, None, "the pinned checkpoint of size 10 is of another history"),
    ),
    (
        "smaller.checkpoint",
        "original.checkpoint",
        KNOWS_OURS,
        "changes the size",
        || Story::honest().checkpoint(10).replacen("\n10\n", "\n9\n", 1).into_bytes(),
        (NotSound, Some(9), "the checkpoint is not signed by a key that you named"),
    ),
    (
        "other-tenant.checkpoint",
        "original.checkpoint",
        KNOWS_OURS,
        "hands over another tenant's",
        || Story::of(EMCA, OURS, "3").checkpoint(10).into_bytes(),
        (NotSound, Some(0), "belongs to tenant emca"),
    ),
    (
        "root.sth.json",
        "original.sth.json",
        KNOWS_OURS,
        "changes the root",
        || with(Story::honest().tree_head(), "/root_hash", fork().tree_head()["root_hash"].clone()),
        (NotSound, Some(10), "the signature of the tree head is wrong"),
    ),
    (
        "forked.sth.json",
        "original.sth.json",
        KNOWS_PIN,
        "the operator signs another root of the same size",
        || text(&fork().tree_head()),
        (Equivocation, None, "the pinned checkpoint of size 10 is of another history"),
    ),
    (
        "wrong-key.sth.json",
        "original.sth.json",
        KNOWS_OURS,
        "signs with a key of their own",
        || text(&Story::of(ACME, STRANGER, "3").tree_head()),
        (UnnamedKey, None, "which you did not name"),
    ),
    (
        "key-name.sth.json",
        "original.sth.json",
        KNOWS_OURS,
        "signs with a key of their own under the name of the right one",
        || with(Story::of(ACME, STRANGER, "3").tree_head(), "/key_id", named(OURS)["key_id"].clone()),
        (NotSound, Some(10), "the tree head names key "),
    ),
    (
        "other-tree.inclusion.json",
        "original.inclusion.json",
        KNOWS_OURS,
        "proves that the entry is in another tree",
        || with(fork().inclusion(2), "/sth", Story::honest().tree_head()),
        (NotSound, Some(2), "the proof is for another tree than its tree head"),
    ),
    (
        "leaf.inclusion.json",
        "original.inclusion.json",
        KNOWS_OURS,
        "puts another entry's hash into the proof",
        || with(Story::honest().inclusion(2), "/leaf_hash", fork().inclusion(2)["leaf_hash"].clone()),
        (NotSound, Some(2), "not included: the path does not lead to the root"),
    ),
    (
        "forked.inclusion.json",
        "original.inclusion.json",
        KNOWS_PIN,
        "the operator proves an entry of another history",
        || text(&fork().inclusion(2)),
        (Equivocation, None, "the pinned checkpoint of size 10 is of another history"),
    ),
    (
        "path.consistency.json",
        "original.consistency.json",
        KNOWS_PINS,
        "changes the path",
        || with(Story::honest().consistency(5), "/consistency_path/0", json!("00".repeat(32))),
        (NotSound, Some(5), "not consistent: "),
    ),
    (
        "forked.consistency.json",
        "original.consistency.json",
        KNOWS_PINS,
        "the operator leads to another history",
        || text(&fork().consistency(5)),
        (Equivocation, None, "it leads to another root than the pinned checkpoint of size 5 has"),
    ),
];
