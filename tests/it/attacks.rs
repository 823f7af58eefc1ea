//! What somebody could hand to an auditor instead of the truth, and what the auditor is told.
//!
//! Each attack is one file in `tests/vectors/attacks`, made by the function beside it in the tables of [`ledger`],
//! [`operator`] and [`others`]. With `HALDIR_WRITE_ATTACKS` set, the files are written; otherwise they must be what the functions give.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use haldir::format::checkpoint::SignedCheckpoint;
use haldir::operations::evidence::{CouldNotCheck, Expected, Report, Verdict, form, tiles};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use crate::samples::random_cases;
use world::{ACME, NEXT, OURS, ROOT, STRANGER, Story, public, tenant};

mod anomalies;
mod ledger;
mod operator;
mod others;
mod trail;
mod world;

const REGRESSIONS: &str = "proptest-regressions/attacks.txt";

/// What an auditor brings.
#[derive(Clone, Copy)]
struct Knows {
    keys: &'static [u8],
    roots: &'static [u8],
    tenant: Option<&'static str>,
    pins: &'static [fn() -> String],
    manifest: Option<&'static str>,
}

/// What makes a file.
type Make = fn() -> Vec<u8>;
/// A file, what its auditor knows, who makes it, and the best that can be said of it.
type Original = (&'static str, Knows, Make, Verdict);
/// A file, its original, what its auditor knows, what the attacker did, who makes it, and verdict, place and reason.
type Attack = (&'static str, &'static str, Knows, &'static str, Make, Found);
type Found = (Verdict, Option<u64>, &'static str);

const KNOWS_OURS: Knows = Knows { keys: &[OURS], roots: &[], tenant: Some(ACME), pins: &[], manifest: None };
const KNOWS_NEXT: Knows = Knows { keys: &[NEXT], ..KNOWS_OURS };
const KNOWS_ROOT: Knows = Knows { keys: &[], roots: &[ROOT], ..KNOWS_OURS };

fn pin_5() -> String {
    Story::honest().checkpoint(5)
}

fn pin_10() -> String {
    Story::honest().checkpoint(10)
}

impl Knows {
    fn expected(&self) -> Expected {
        Expected {
            keys: self.keys.iter().map(|key| public(*key)).collect(),
            roots: self.roots.iter().map(|key| public(*key)).collect(),
            tenant: self.tenant.map(tenant),
            pins: self.pins.iter().map(|pin| SignedCheckpoint::parse(&pin()).unwrap()).collect(),
        }
    }
}

fn path_of(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/attacks").join(file)
}

/// Every file of the corpus with the function that makes it.
fn corpus() -> impl Iterator<Item = (&'static str, Make)> {
    let originals = originals().map(|(file, _, make, _)| (*file, *make));
    let attacks = attacks().map(|(file, _, _, _, make, _)| (*file, *make));
    originals.chain(attacks).chain(others::MANIFESTS.iter().copied())
}

/// Writes the corpus anew, if that is wanted.
static WRITTEN: LazyLock<()> = LazyLock::new(|| {
    if std::env::var_os("HALDIR_WRITE_ATTACKS").is_some() {
        let _ = fs::remove_dir_all(path_of(""));
        fs::create_dir_all(path_of("")).unwrap();
        corpus().for_each(|(file, make)| fs::write(path_of(file), make()).unwrap());
    }
});

/// The committed file, which is what its function gives.
fn committed(file: &str, make: Make) -> Vec<u8> {
    LazyLock::force(&WRITTEN);
    let bytes = fs::read(path_of(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert!(
        bytes == make(),
        "{file} is not what its function gives: set HALDIR_WRITE_ATTACKS to write it anew"
    );
    bytes
}

fn verify(file: &str, bytes: &[u8], knows: &Knows) -> Result<Report, CouldNotCheck> {
    if !file.ends_with(".tiles.json") {
        let manifest = knows.manifest.map(|file| fs::read_to_string(path_of(file)).unwrap());
        return form::verify(bytes, manifest.as_deref(), knows.expected());
    }
    let dir = tempfile::tempdir().unwrap();
    let files: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes).unwrap();
    for (path, bytes) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, data_encoding::BASE64.decode(bytes.as_str().unwrap().as_bytes()).unwrap()).unwrap();
    }
    assert!(tiles::is_folder(dir.path()));
    tiles::verify(dir.path(), &knows.expected(), |_| {})
}

fn originals() -> impl Iterator<Item = &'static Original> {
    ledger::ORIGINALS.iter().chain(anomalies::ORIGINALS).chain(others::ORIGINALS)
}

fn attacks() -> impl Iterator<Item = &'static Attack> {
    let by_key_holders = operator::ATTACKS.iter().chain(anomalies::ATTACKS);
    ledger::ATTACKS.iter().chain(by_key_holders).chain(others::ATTACKS)
}

#[test]
fn what_nobody_changed_is_accepted() {
    for (file, make) in others::MANIFESTS {
        committed(file, *make);
    }
    for (file, knows, make, verdict) in originals() {
        let report =
            verify(file, &committed(file, *make), knows).unwrap_or_else(|why| panic!("{file}: {why}"));
        assert_eq!(report.verdict, *verdict, "{file}: {report:#?}");
        assert_eq!(report.tenant_id, ACME, "{file}");
    }
}

#[test]
fn every_attack_is_found_for_what_it_is() {
    let mut wrong = Vec::new();
    for (file, original, knows, did, make, (verdict, seq, reason)) in attacks() {
        let bytes = committed(file, *make);
        // Not for what the auditor knows is it refused, but for what was done.
        let (_, of_original, make_original, best) = originals().find(|(name, ..)| name == original).unwrap();
        let with_pins = Knows { pins: knows.pins, ..*of_original };
        let untouched = verify(original, &make_original(), &with_pins).unwrap();
        assert_eq!(untouched.verdict, *best, "{file}: the original is refused, too: {untouched:#?}");
        assert!(bytes != make_original(), "{file}: nothing was done");
        match verify(file, &bytes, knows) {
            Ok(report) => {
                let found = (report.verdict, report.first_bad_seq, report.reason.as_str());
                let is_right = found.0 == *verdict && found.1 == *seq && found.2.contains(reason);
                let is_proof = (report.conflict.len() == 2) == (*verdict == Verdict::Equivocation)
                    || file.contains("ocsf")
                    || file.starts_with("resealed");
                if !is_right || !is_proof {
                    wrong.push(format!("{file} ({did}): {found:?} with {} notes", report.conflict.len()));
                }
            }
            Err(why) => wrong.push(format!("{file} ({did}): {why}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_of_the_corpus_has_its_place_in_a_table() {
    LazyLock::force(&WRITTEN);
    let mut named: Vec<&str> = corpus().map(|(file, _)| file).collect();
    named.sort_unstable();
    let files =
        fs::read_dir(path_of("")).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = files.collect();
    files.sort_unstable();
    assert_eq!(files, named);
}

#[test]
fn without_a_key_what_brings_none_cannot_be_checked() {
    for (file, knows, make, _) in others::ORIGINALS {
        let found = verify(file, &make(), &Knows { keys: &[], ..*knows });
        let brings_key = ["trail", "csv", "sth", "inclusion"].iter().any(|form| file.contains(form));
        match found {
            Ok(report) if brings_key => assert_eq!(report.verdict, Verdict::UnnamedKey, "{file}"),
            Ok(report) => {
                assert!(file.contains("consistency") && report.verdict == Verdict::Incomplete, "{file}");
            }
            Err(why) => assert!(why.0.contains("--key") && !brings_key, "{file}: {why}"),
        }
    }
}

#[test]
fn a_pin_closes_an_export_that_breaks_off_exactly_there() {
    let cut_of = |stream_size: u64| -> Vec<u8> {
        let export = Story::honest().export().but(|it| {
            it.lines.truncate(5);
            it.header["stream_size"] = json!(stream_size);
        });
        export.split_inclusive(|it| *it == b'\n').take(6).flatten().copied().collect()
    };
    let cut = cut_of(5);
    let pinned = Knows { pins: &[pin_5], ..KNOWS_OURS };
    assert_eq!(verify("", &cut, &pinned).unwrap().verdict, Verdict::Sound);
    assert_eq!(
        verify("", &cut_of(6), &pinned).unwrap().verdict,
        Verdict::Incomplete,
        "it admits that there is more"
    );
    assert_eq!(verify("", &cut, &KNOWS_OURS).unwrap().verdict, Verdict::Incomplete);
    let by_stranger = Knows { pins: &[|| Story::honest().checkpoint_by(STRANGER, 5)], ..KNOWS_OURS };
    assert_eq!(verify("", &cut, &by_stranger).unwrap().verdict, Verdict::Incomplete);
}

#[test]
fn what_vouches_for_rows_and_roots_must_be_there() {
    let (_, knows, make, _) = originals().find(|(name, ..)| *name == "original.csv").unwrap();
    let report = verify("", &make(), &Knows { manifest: None, ..*knows }).unwrap();
    assert_eq!(report.verdict, Verdict::Incomplete, "{report:#?}");
    let (_, knows, make, _) = originals().find(|(name, ..)| name.contains("consistency")).unwrap();
    let pinned: [&'static [fn() -> String]; 3] = [&[], &[pin_5], &[pin_10]];
    for pins in pinned {
        let report = verify("", &make(), &Knows { pins, ..*knows }).unwrap();
        assert_eq!(report.verdict, Verdict::Incomplete, "{report:#?}");
    }
}

#[test]
fn a_line_that_is_too_long_hides_nothing() {
    let export = Story::honest().export();
    for filler in ["x", " "] {
        let bytes = export.clone().but(|it| it.lines[3] = filler.repeat(524_288) + &it.lines[3]);
        let report = verify("", &bytes, &KNOWS_OURS).unwrap();
        assert_eq!((report.verdict, report.first_bad_seq), (Verdict::NotSound, Some(3)), "{report:#?}");
    }
}

#[test]
fn a_folder_of_many_tiles_is_verified() {
    let mut story = Story::honest();
    while story.size() < 600 {
        story.tell(world::admin(), world::check("t"));
    }
    let files = story.tiles();
    let render = |files: &std::collections::BTreeMap<String, Vec<u8>>| {
        let files: std::collections::BTreeMap<_, _> =
            files.iter().map(|(path, bytes)| (path, data_encoding::BASE64.encode(bytes))).collect();
        serde_json::to_vec(&files).unwrap()
    };
    let report = verify(".tiles.json", &render(&files), &KNOWS_OURS).unwrap();
    assert_eq!((report.verdict, report.size), (Verdict::Sound, 600), "{report:#?}");
    for path in files.keys() {
        let mut altered = files.clone();
        *altered.get_mut(path).unwrap().last_mut().unwrap() ^= 1;
        let report = verify(".tiles.json", &render(&altered), &KNOWS_OURS).unwrap();
        assert_eq!(report.verdict, Verdict::NotSound, "{path} altered");
        let mut fewer = files.clone();
        fewer.remove(path);
        let report = verify(".tiles.json", &render(&fewer), &KNOWS_OURS).unwrap();
        let expected = if path == "checkpoint" { Verdict::Incomplete } else { Verdict::NotSound };
        assert_eq!(report.verdict, expected, "{path} missing: {report:#?}");
    }
}

/// A change of one place in a file.
#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Remove(Index),
    Insert(Index, u8),
    Repeat(Index),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Set(at, value) => *at.get_mut(bytes) = *value,
            Self::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
            Self::Insert(at, value) => bytes.insert(at.index(bytes.len() + 1), *value),
            Self::Repeat(at) => {
                let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
                let at = at.index(lines.len());
                *bytes = [&lines[..=at], &lines[at..]].concat().concat();
            }
        }
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    // Bytes that mean something in JSON and base64 are the interesting ones.
    let value = || prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\ \n\r09aAz+/=-".to_vec())];
    prop_oneof![
        6 => (any::<Index>(), value()).prop_map(|(at, value)| Change::Set(at, value)),
        2 => any::<Index>().prop_map(Change::Remove),
        2 => (any::<Index>(), value()).prop_map(|(at, value)| Change::Insert(at, value)),
        1 => any::<Index>().prop_map(Change::Repeat),
    ]
}

proptest! {
    #![proptest_config(random_cases(1024, REGRESSIONS))]

    #[test]
    fn no_change_of_one_place_makes_another_history_sound(
        original in prop::sample::select(vec!["original.jsonl", "original-rotated.jsonl", "original-certified.jsonl"]),
        change in any_change(),
    ) {
        let (file, knows, make, _) = originals().find(|(name, ..)| *name == original).unwrap();
        let bytes = make();
        let expected = verify(file, &bytes, knows).unwrap();
        let mut changed = bytes;
        change.apply(&mut changed);
        if let Ok(report) = verify(file, &changed, knows)
            && report.verdict == Verdict::Sound
        {
            let content = |report: &Report| (report.size, report.head.clone(), report.root.clone());
            prop_assert_eq!(content(&report), content(&expected));
        }
    }
}
