//! `haldir ledger repair` on every kind of damage, with and without a source.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use haldir::ledger::clock::SystemClock;
use serde_json::{Value, json};

use super::site::{alter_entry, free, with_ledger};
use super::{
    TENANTS, back_up, client_of, content_of, export, fill, filled, ledger, repairs, serve_and_write, sizes,
    sound_sizes, tokio_test,
};
use crate::server::{Finished, Home};
use crate::writing::ledger::{pay, request, tenant_id, wait};

/// What a repair comes to for the tenant `beta`: where it is recorded, and how much was kept, restored and lost.
type Numbers = (u64, u64, u64, u64);

#[test]
fn an_altered_entry_is_cut_off_or_replaced() {
    let home = filled();
    let backup = text(&back_up(&home, "backup", &[]));
    fill(&home, &[("beta", 5)]);
    let export = text(&export(&home, "beta"));
    // 27 entries now, 22 in the backup.
    let (none, backup, export, both) =
        (vec![], vec![backup.as_str()], vec![export.as_str()], vec![backup.as_str(), export.as_str()]);
    let cases: [(u64, &[&str], Numbers); 9] = [
        (0, &none, (0, 0, 0, 27)),
        (10, &none, (10, 10, 0, 17)),
        (26, &none, (26, 26, 0, 1)),
        (10, &backup, (22, 10, 12, 5)),
        (24, &backup, (24, 24, 0, 3)),
        (0, &export, (27, 0, 27, 0)),
        (10, &export, (27, 10, 17, 0)),
        (26, &export, (27, 26, 1, 0)),
        (10, &both, (27, 10, 17, 0)),
    ];
    for (seq, sources, numbers) in cases {
        let home = Home::copy_of(&home);
        alter_entry(&home, "beta", seq);
        let why = format!("seq {seq}, from {sources:?}");
        repairs_beta(&home, sources, numbers, &why);
        for name in ["alpha", "gamma"] {
            assert!(repairs(&home, name).is_empty(), "{why}: nothing happened to {name}");
        }
        let expected = [("alpha", 12), ("beta", numbers.0 + 1), ("gamma", 32)];
        assert_eq!(sound_sizes(&home), sizes(&expected), "{why}");
        // Without its first entries the tenant has no key and no session.
        let others = if numbers.1 + numbers.2 > 2 { &TENANTS[..] } else { &["alpha", "gamma"] };
        tokio_test(serve_and_write(&home, others));
        sound_sizes(&home);
        assert_eq!(run(&home, &[]).code, Some(0), "{why}: there is nothing left to repair");
        assert_eq!(repairs(&home, "beta").len(), 1, "{why}: and so nothing more is recorded");
    }
}

#[test]
fn a_store_that_lost_its_end_is_not_rebuilt_without_a_word() {
    let home = filled();
    let backup = text(&back_up(&home, "backup", &[]));
    let log = fs::read(home.data_dir().join("ledger/db")).unwrap();
    let used = log.len() - log.iter().rev().take_while(|byte| **byte == 0).count();
    for keep in [used * 9 / 10, used / 2, used / 10, 512, 0] {
        let home = Home::copy_of(&home);
        fs::write(home.data_dir().join("ledger/db"), &log[..keep]).unwrap();
        let why = format!("{keep} of {used} bytes");
        let before = content_of(&home.data_dir().join("ledger"));
        for more in [&["--dry-run"][..], &[]] {
            let refused = run(&home, more);
            assert!(matches!(refused.code, Some(1 | 2)), "{why} {more:?}: {refused:#?}");
            assert_eq!(content_of(&home.data_dir().join("ledger")), before, "{why} {more:?}");
        }
        let done = run(&home, &["--from", &backup]);
        assert_eq!(done.code, Some(0), "{why}: everything is in the backup: {done:#?}");
        let sizes = sound_sizes(&home);
        let of_repairs: u64 = TENANTS.iter().map(|name| repairs(&home, name).len() as u64).sum();
        assert_eq!(sizes.values().sum::<u64>(), 12 + 22 + 32 + of_repairs, "{why}");
        assert!(of_repairs > 0, "{why}: nothing is on record");
        for name in TENANTS {
            for (seq, kept, restored, lost) in repairs(&home, name) {
                assert_eq!((kept + restored, lost), (seq, 0), "{why}");
            }
        }
        is_kept(&home, &before);
        tokio_test(serve_and_write(&home, &TENANTS));
        sound_sizes(&home);
    }
}

#[test]
fn a_store_that_lost_its_end_is_rebuilt_as_far_as_it_goes_if_that_is_accepted() {
    let home = filled();
    let log = fs::read(home.data_dir().join("ledger/db")).unwrap();
    let used = log.len() - log.iter().rev().take_while(|byte| **byte == 0).count();
    fs::write(home.data_dir().join("ledger/db"), &log[..used * 9 / 10]).unwrap();
    let refused = home.try_serve(&[], &[]).err().expect("a ledger that lost something");
    assert!(refused.stderr.contains("acknowledged are missing"), "{refused:#?}");
    let done = run(&home, &["--accept-loss"]);
    assert_eq!(done.code, Some(0), "{done:#?}");
    sound_sizes(&home);
    let on_record: Vec<_> = TENANTS.iter().flat_map(|name| repairs(&home, name)).collect();
    assert!(!on_record.is_empty());
    tokio_test(serve_and_write(&home, &["alpha"]));
}

#[test]
fn a_ledger_that_is_gone_comes_back_from_a_backup() {
    let home = filled();
    let (backup, export) = (text(&back_up(&home, "backup", &[])), text(&export(&home, "beta")));
    fs::remove_dir_all(home.data_dir().join("ledger")).unwrap();
    for more in [&[][..], &["--dry-run"], &["--accept-loss"]] {
        let refused = run(&home, more);
        assert_eq!(refused.code, Some(2), "{refused:#?}");
        assert!(!home.data_dir().join("ledger").exists());
    }
    let of_one = Home::copy_of(&home);
    let done = run(&of_one, &["--from", &export]);
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert_eq!(sound_sizes(&of_one), sizes(&[("beta", 23)]));
    assert_eq!(repairs(&of_one, "beta"), [(22, 0, 22, 0)]);

    assert_eq!(run(&home, &["--from", &backup, "--dry-run"]).code, Some(1));
    assert!(!home.data_dir().join("ledger").exists());
    let done = run(&home, &["--from", &backup]);
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert_eq!(sound_sizes(&home), sizes(&[("alpha", 13), ("beta", 23), ("gamma", 33)]));
    assert_eq!(repairs(&home, "beta"), [(22, 0, 22, 0)]);
    tokio_test(serve_and_write(&home, &TENANTS));
}

#[test]
fn a_source_with_another_history_is_refused() {
    let home = Home::new();
    fill(&home, &[("alpha", 1), ("beta", 1)]);
    // From here on there are two, with the same key.
    let other = Home::copy_of(&home);
    fill(&home, &[("alpha", 5), ("beta", 20)]);
    fill(&other, &[("beta", 15)]);
    pays_otherwise(&other);
    let (theirs, their_export) = (text(&back_up(&other, "backup", &[])), text(&export(&other, "beta")));
    let stranger = filled();
    let strangers = text(&back_up(&stranger, "backup", &[]));
    for seq in [22, 20, 19] {
        let home = Home::copy_of(&home);
        alter_entry(&home, "beta", seq);
        let before = content_of(&home.data_dir().join("ledger"));
        for source in [&theirs, &their_export, &strangers] {
            for more in [&[][..], &["--accept-loss"], &["--dry-run"]] {
                let refused = run(&home, &[&["--from", source], more].concat());
                assert_eq!(refused.code, Some(2), "{seq} {source}: {refused:#?}");
                assert_eq!(content_of(&home.data_dir().join("ledger")), before);
            }
        }
        let refused = run(&home, &["--from", &their_export]);
        assert!(refused.stderr.contains("another history"), "{refused:#?}");
    }
}

#[test]
fn a_checkpoint_of_what_was_lost_is_not_given_out_for_what_came_after() {
    let home = Home::new();
    fill(&home, &[("beta", 4)]);
    // Signed at six entries, of which two are lost; then the stream grows to six again.
    alter_entry(&home, "beta", 4);
    assert_eq!(run(&home, &["--accept-loss"]).code, Some(0));
    with_ledger(&home, Arc::new(SystemClock), |ledger| {
        let tenant = tenant_id("beta");
        wait(ledger.submit(request("beta", pay("s", 1)))).unwrap();
        let stream = ledger.read().stream(&tenant).unwrap().clone();
        assert_eq!(stream.head.size, 6);
        let kept = wait(ledger.checkpoint(&tenant)).unwrap();
        assert_eq!(kept.root, stream.tree.root(), "a checkpoint of another history");
    });
}

/// Repairs the tenant `beta`, and insists on the numbers.
fn repairs_beta(home: &Home, sources: &[&str], numbers: Numbers, why: &str) {
    let (seq, kept, restored, lost) = numbers;
    let from: Vec<&str> = sources.iter().flat_map(|source| ["--from", source]).collect();
    let before = content_of(&home.data_dir().join("ledger"));
    let dry = run(home, &[&["--dry-run", "--json"], &from[..]].concat());
    assert_eq!(dry.code, Some(1), "{why}: {dry:#?}");
    let told: Value = serde_json::from_str(&dry.stdout).unwrap();
    for stream in told["streams"].as_array().unwrap() {
        let is_beta = stream["tenant_id"] == "beta";
        assert_eq!(stream["sound"], !is_beta, "{why}: {stream}");
        if is_beta {
            let found = ["kept", "restorable", "lost"].map(|name| stream[name].as_u64().unwrap());
            assert_eq!(found, [kept, restored, lost], "{why}: {stream}");
        }
    }
    if lost > 0 {
        let refused = run(home, &from);
        assert_eq!(refused.code, Some(2), "{why}: {refused:#?}");
        assert!(refused.stderr.contains(&format!("{lost} entries would be lost")), "{why}: {refused:#?}");
    }
    assert_eq!(content_of(&home.data_dir().join("ledger")), before, "{why}: nothing was changed yet");
    let accept = if lost > 0 { &["--accept-loss"][..] } else { &[] };
    let done = run(home, &[&from[..], accept].concat());
    assert_eq!(done.code, Some(0), "{why}: {done:#?}");
    assert_eq!(repairs(home, "beta"), [(seq, kept, restored, lost)], "{why}");
    is_kept(home, &before);
}

/// Insists that the damaged ledger is kept, as it was.
fn is_kept(home: &Home, before: &BTreeMap<PathBuf, Vec<u8>>) {
    let beside = fs::read_dir(home.data_dir()).unwrap().map(|item| item.unwrap().path());
    let is_damaged =
        |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("ledger.damaged-");
    let kept: Vec<PathBuf> = beside.filter(is_damaged).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    let kept: Vec<_> = content_of(&kept[0]).into_values().collect();
    assert!(kept.iter().eq(before.values()), "the damaged ledger was changed");
}

/// Lets the tenant `beta` pay what it did not pay elsewhere.
fn pays_otherwise(home: &Home) {
    tokio_test(async {
        let server = home.serve();
        let body = json!({ "session_id": "s", "amount": 2 });
        for _ in 0..10 {
            let client = client_of(&server, "beta");
            client.post("/v1/payments/authorize", &body).await.expect(200);
        }
        server.stop();
    });
    free(home);
}

fn run(home: &Home, more: &[&str]) -> Finished {
    ledger(home, "repair", more)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
