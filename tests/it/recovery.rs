//! What is lost or damaged, does it come back from backups and exports, and is it put on record?

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::server::{Finished, Home};

mod backup;
mod repair;
pub(crate) mod site;

use site::{TENANTS, back_up, client_of, export, fill, ledger, repairs, serve_and_write, sizes, sound_sizes};

#[test]
fn a_backup_is_restored_as_it_was_and_goes_on() {
    let home = filled();
    let (plain, with_keys) = (back_up(&home, "plain", &[]), back_up(&home, "with-keys", &["--with-keys"]));
    for secret in ["signing.key", "retry.secret"] {
        let content = fs::read_to_string(home.data_dir().join(secret)).unwrap();
        let secret = content.lines().find(|line| !line.starts_with('-')).unwrap();
        assert!(!fs::read_to_string(&plain).unwrap().contains(secret));
        assert!(fs::read_to_string(&with_keys).unwrap().contains(secret));
    }
    for backup in [&plain, &with_keys] {
        let restored = Home::new();
        let finished = restore(&restored, backup, &["--key", &public_key(&home)]);
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        assert_eq!(sound_sizes(&restored), sound_sizes(&home));
        for name in TENANTS {
            assert!(repairs(&restored, name).is_empty());
        }
        if backup == &plain {
            let refused = restored.try_serve(&[], &[]).err().expect("a ledger without its key");
            assert!(refused.stderr.contains("signing.key is missing"), "{refused:#?}");
            for secret in ["signing.key", "retry.secret"] {
                fs::copy(home.data_dir().join(secret), restored.data_dir().join(secret)).unwrap();
            }
        }
        tokio_test(serve_and_write(&restored, &TENANTS));
        assert!(sound_sizes(&restored)["beta"] > sound_sizes(&home)["beta"]);
        // And what is restored can be backed up.
        let again = Home::new();
        let backup = back_up(&restored, "again", &["--with-keys"]);
        assert_eq!(restore(&again, &backup, &[]).code, Some(0));
        assert_eq!(sound_sizes(&again), sound_sizes(&restored));
    }
}

#[test]
fn a_ledger_export_is_restored_like_a_backup_of_one_stream() {
    let home = filled();
    let restored = Home::new();
    let finished = restore(&restored, &export(&home, "beta"), &["--key", &public_key(&home)]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(sound_sizes_with(&restored, &public_key(&home)), sizes(&[("beta", 22)]));
}

#[test]
fn a_ledger_that_is_there_is_not_restored_over() {
    let home = filled();
    let backup = back_up(&home, "backup", &["--with-keys"]);
    fill(&home, &[("alpha", 1)]);
    let before = content_of(&home.data_dir().join("ledger"));
    let refused = restore(&home, &backup, &[]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert!(refused.stderr.contains("holds a ledger already"), "{refused:#?}");
    assert_eq!(content_of(&home.data_dir().join("ledger")), before);
}

#[test]
fn a_backup_is_no_evidence_and_names_the_command_that_checks_it() {
    let home = filled();
    let backup = back_up(&home, "backup", &[]).to_string_lossy().into_owned();
    let refused = home.run(&["audit", "verify", "--file", &backup, "--key", &public_key(&home)]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert!(refused.stderr.contains("haldir ledger restore"), "{refused:#?}");
}

#[test]
fn a_backup_that_is_torn_is_refused() {
    let home = filled();
    let backup = fs::read(back_up(&home, "backup", &["--with-keys"])).unwrap();
    let line_ends: Vec<usize> =
        backup.iter().enumerate().filter(|(_, it)| **it == b'\n').map(|(at, _)| at + 1).collect();
    let last_line = line_ends[line_ends.len() - 2];
    let cuts = [0, 1, line_ends[0], line_ends[1], line_ends[30], backup.len() / 2, last_line - 1, last_line];
    for cut in cuts.into_iter().chain([last_line + 1, backup.len() - 3]) {
        refuses(&home, &backup[..cut], &format!("{cut} of {} bytes", backup.len()));
    }
}

#[test]
fn a_backup_that_was_altered_is_refused() {
    let home = filled();
    let text = fs::read_to_string(back_up(&home, "backup", &["--with-keys"])).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    // Whoever alters a backup can compute its digest again, but cannot sign.
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
        change(&mut lines);
        lines
    };
    let entry = lines.iter().position(|line| kind_of(line) == "entry").unwrap() + 5;
    let side = lines.iter().position(|line| kind_of(line) == "side").unwrap();
    let end = lines.iter().position(|line| kind_of(line) == "end").unwrap();
    let flipped = |line: &str| {
        let at = ["\"entry\":\"", "\"value\":\""].iter().find_map(|field| line.find(field)).unwrap() + 200;
        let other = if line.as_bytes()[at] == b'A' { "B" } else { "A" };
        format!("{}{other}{}", &line[..at], &line[at + 1..])
    };
    for (what, altered) in [
        ("an entry", with(&|lines| lines[entry] = flipped(&lines[entry]))),
        ("an entry is missing", with(&|lines| drop(lines.remove(entry)))),
        ("an entry is there twice", with(&|lines| lines.insert(entry, lines[entry].clone()))),
        ("two entries changed places", with(&|lines| lines.swap(entry, entry + 1))),
        ("the last entries are missing", with(&|lines| drop(lines.drain(end - 3..end)))),
        ("the end of a stream is missing", with(&|lines| drop(lines.remove(end)))),
        ("another version", with(&|lines| lines[0] = lines[0].replace("\"version\":1", "\"version\":2"))),
        ("a line of another kind", with(&|lines| lines.insert(1, "{\"type\":\"other\"}".to_owned()))),
        ("a line that is not JSON", with(&|lines| lines.insert(side, "{".to_owned()))),
    ] {
        refuses(&home, altered.join("\n").as_bytes(), what);
        refuses(&home, resealed(&altered).as_bytes(), &format!("{what}, with a digest of its own"));
    }
    for (what, altered) in [
        ("what stands beside an entry", with(&|lines| lines[side] = flipped(&lines[side]))),
        ("a line after the last", with(&|lines| lines.push(lines[side].clone()))),
        ("a whole stream is missing", with(&|lines| drop(lines.drain(1..=end)))),
    ] {
        refuses(&home, (altered.join("\n") + "\n").as_bytes(), what);
    }
    // The same, resealed and unaltered, is fine: it is the alterations that are refused.
    assert_eq!(resealed(&with(&|_| {})), text);
}

#[test]
fn a_backup_is_restored_for_the_keys_that_are_named_alone() {
    let (home, other) = (filled(), filled());
    let backup = back_up(&home, "backup", &["--with-keys"]);
    let restored = Home::new();
    let refused = restore(&restored, &backup, &["--key", &public_key(&other)]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert!(!restored.data_dir().join("ledger").exists(), "nothing was made");
    let done = restore(&restored, &backup, &["--key", &public_key(&other), "--key", &public_key(&home)]);
    assert_eq!(done.code, Some(0), "{done:#?}");
}

#[test]
fn a_backup_brings_no_file_but_those_of_an_installation() {
    let home = filled();
    let text = fs::read_to_string(back_up(&home, "backup", &[])).unwrap();
    let root = home.root().join("planted").to_string_lossy().into_owned();
    for name in
        ["../planted", &root, "ledger/db", "lock", "haldir.toml", "config.json", "", ".", "signing.key/x"]
    {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let file = json!({ "type": "file", "name": name, "content": "x" }).to_string();
        lines.insert(lines.len() - 1, file);
        let restored = refuses(&home, resealed(&lines).as_bytes(), name);
        assert!(!Path::new(&root).exists() && !restored.root().join("planted").exists(), "{name}");
    }
}

/// Insists that a backup is refused, and that nothing passes for a ledger afterwards.
#[track_caller]
fn refuses(home: &Home, backup: &[u8], what: &str) -> Home {
    let restored = Home::new();
    let path = restored.root().join("backup");
    fs::write(&path, backup).unwrap();
    let refused = restore(&restored, &path, &["--key", &public_key(home)]);
    assert_eq!(refused.code, Some(2), "{what}: {refused:#?}");
    assert!(refused.stderr.contains("error:"), "{what}: {refused:#?}");
    assert!(!restored.data_dir().join("ledger/db").exists(), "{what}: there is a ledger: {refused:#?}");
    restored
}

fn restore(home: &Home, from: &Path, more: &[&str]) -> Finished {
    ledger(home, "restore", &[&["--from", &from.to_string_lossy()], more].concat())
}

fn filled() -> Home {
    let home = Home::new();
    fill(&home, &[("alpha", 10), ("beta", 20), ("gamma", 30)]);
    home
}

fn public_key(home: &Home) -> String {
    home.data_dir().join("signing.pub").to_string_lossy().into_owned()
}

#[track_caller]
fn sound_sizes_with(home: &Home, key: &str) -> BTreeMap<String, u64> {
    let (code, reports) = site::verify(home, &["--key", key]);
    assert_eq!(code, Some(0), "{reports:#?}");
    reports.into_iter().map(|(name, report)| (name, report["size"].as_u64().unwrap())).collect()
}

/// The lines, closed by a last line with a digest that is right.
fn resealed(lines: &[String]) -> String {
    let body: Vec<&str> = lines.iter().map(String::as_str).filter(|line| kind_of(line) != "done").collect();
    let body = body.join("\n") + "\n";
    let digest = HEXLOWER.encode(&Sha256::digest(&body));
    format!("{body}{}\n", json!({ "type": "done", "sha256": digest }))
}

fn kind_of(line: &str) -> String {
    let parsed: Value = serde_json::from_str(line).unwrap_or_default();
    parsed["type"].as_str().unwrap_or_default().to_owned()
}

/// The files of a directory, byte for byte.
fn content_of(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(path).unwrap().map(|item| item.unwrap().path()).filter(|path| path.is_file());
    files.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

pub(crate) fn tokio_test(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work);
}
