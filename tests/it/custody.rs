//! Do streams pass from one signing key to the next, whole or not at all, and to nobody else?

use std::fs;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use haldir::cli::installation::{Installation, read_public_key, read_signer};
use haldir::domain::custody::RotateSigner;
use haldir::domain::{Command, Event};
use haldir::format::chain::PublicKey;
use haldir::ledger::clock::SystemClock;
use haldir::ledger::random::OsRandom;
use serde_json::Value;

use crate::recovery::site::{
    TENANTS, entries, fill, free, go_on, ledger, serve_and_write, sizes, sound_sizes, verify, with_ledger,
};
use crate::recovery::tokio_test;
use crate::server::Home;
use crate::writing::ledger::{request, tenant_id, wait};

#[test]
fn a_ledger_passes_from_key_to_key_and_is_verified_along() {
    let home = filled();
    let first = public_pem(&home, "first.pub");
    let firsts_private = fs::read(home.data_dir().join("signing.key")).unwrap();
    rotates(&home);
    assert_eq!(sound_sizes(&home), sizes(&[("alpha", 6), ("beta", 8), ("gamma", 10)]));
    let second = public_pem(&home, "second.pub");
    tokio_test(serve_and_write(&home, &TENANTS));
    rotates(&home);
    let third = public_pem(&home, "third.pub");
    go_on(&home);
    sound_sizes(&home);
    assert_eq!(rotations(&home), [2, 2, 2]);
    assert_eq!(known(&home), [&first, &second, &third].map(|path| read_public_key(path).unwrap()));

    // Whoever named the first key is led to the others. Whoever knows a later one alone cannot begin.
    for (keys, expected) in [
        (vec![&first], Some(0)),
        (vec![&first, &second], Some(0)),
        (vec![&first, &second, &third], Some(0)),
        (vec![&second], Some(1)),
        (vec![&third], Some(1)),
        (vec![&second, &third], Some(1)),
    ] {
        let named: Vec<&str> = keys.iter().flat_map(|key| ["--key", key.as_str()]).collect();
        let (code, reports) = verify(&home, &named);
        assert_eq!(code, expected, "{keys:?}: {reports:#?}");
        if expected == Some(0) {
            for report in reports.values() {
                let signers = report["signers"].as_array().unwrap();
                assert_eq!(signers.len(), 3, "{report}");
                assert!(signers.iter().all(|signer| signer["named"] == true), "{report}");
            }
        }
    }
    // A key whose turn is over signs nothing more.
    fs::write(home.data_dir().join("signing.key"), firsts_private).unwrap();
    fs::copy(&first, home.data_dir().join("signing.pub")).unwrap();
    let refused = home.try_serve(&[], &[]).err().expect("a former key signs again");
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("which is not this installation's key"), "{refused:#?}");
}

#[test]
fn an_export_and_a_backup_of_a_rotated_ledger_are_as_good_as_the_ledger() {
    let home = filled();
    let first = public_pem(&home, "first.pub");
    rotates(&home);
    go_on(&home);
    rotates(&home);
    let export = crate::recovery::site::export(&home, "beta").to_string_lossy().into_owned();
    let verified = home.run(&["audit", "verify", "--file", &export, "--key", &first]);
    assert_eq!(verified.code, Some(0), "{verified:#?}");
    let backup = crate::recovery::site::back_up(&home, "backup", &["--with-keys"]);
    let restored = Home::new();
    let done = ledger(&restored, "restore", &["--from", &backup.to_string_lossy(), "--key", &first]);
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert_eq!(sound_sizes(&restored), sound_sizes(&home));
    go_on(&restored);
    rotates(&restored);
    assert_eq!(rotations(&restored), [3, 3, 3]);
    sound_sizes(&restored);
}

#[test]
fn a_root_key_vouches_for_the_keys_that_it_certified_and_no_others() {
    let home = filled();
    let roots = ["root", "other"].map(|name| {
        let out = home.root().join(name).to_string_lossy().into_owned();
        assert_eq!(home.run(&["ledger", "root", "new", "--out", &out]).code, Some(0));
        out
    });
    let certify = |root: &str, of: &str| {
        let (root, of) = (format!("{root}/root.key"), of.to_owned());
        let done = home.run(&["ledger", "root", "certify", "--root", &root, "--key", &of]);
        assert_eq!(done.code, Some(0), "{done:#?}");
        let line = done.stdout.trim().to_owned();
        let dir = home.data_dir().to_string_lossy().into_owned();
        let added = home.run(&["ledger", "root", "add", "--data-dir", &dir, &line]);
        assert_eq!(added.code, Some(0), "{added:#?}");
    };
    let by_root = |root: &str| verify(&home, &["--root", &format!("{root}/root.pub")]).0;
    assert_eq!(by_root(&roots[0]), Some(1), "nothing is certified yet");
    let first = public_pem(&home, "first.pub");
    certify(&roots[0], &first);
    assert_eq!((by_root(&roots[0]), by_root(&roots[1])), (Some(0), Some(1)));
    rotates(&home);
    go_on(&home);
    assert_eq!(by_root(&roots[0]), Some(3), "the second key was not certified: sound, but by whom?");
    certify(&roots[1], &public_pem(&home, "second.pub"));
    assert_eq!(by_root(&roots[0]), Some(3), "by another root");
    let both: Vec<String> = roots.iter().map(|root| format!("{root}/root.pub")).collect();
    assert_eq!(verify(&home, &["--root", &both[0], "--root", &both[1]]).0, Some(0));
    certify(&roots[0], &public_pem(&home, "second.pub"));
    assert_eq!(by_root(&roots[0]), Some(0));
    // With a root, a key that is named counts as certified.
    rotates(&home);
    go_on(&home);
    let third = public_pem(&home, "third.pub");
    assert_eq!(verify(&home, &["--root", &both[0], "--key", &third]).0, Some(0));
    assert_eq!(by_root(&roots[0]), Some(3));
    let told = ledger(&home, "keys", &["--json"]);
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    let certified: Vec<usize> = told["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["certified_by"].as_array().unwrap().len())
        .collect();
    assert_eq!(certified, [1, 2, 0]);
}

/// Where a rotation can be cut short, as the files then stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The next key is being written.
    NextKeyTorn,
    /// The next key is there, and nothing else has happened.
    NextKeyWritten,
    /// The streams have been handed over, and the old key is still in its place.
    HandedOver,
    /// The old key is on the list of former ones, and still in its place.
    FormerWritten,
    /// The new key is in its place, and the public key is the old one.
    KeyPromoted,
    /// Everything is done but for the removal of what was begun with.
    NextKeyLeftOver,
}

#[test]
fn a_rotation_that_was_cut_short_is_finished_by_the_next_start() {
    use Cut::{FormerWritten, HandedOver, KeyPromoted, NextKeyLeftOver, NextKeyTorn, NextKeyWritten};
    for cut in [NextKeyTorn, NextKeyWritten, HandedOver, FormerWritten, KeyPromoted, NextKeyLeftOver] {
        for by_hand in [false, true] {
            let home = filled();
            let first = public_pem(&home, "first.pub");
            let next = cut_short(&home, cut);
            // Whoever only looks is not disturbed, and changes nothing.
            sound_sizes(&home);
            let named = verify(&home, &["--key", &first]);
            assert_eq!(named.0, Some(0), "{cut:?}: {named:#?}");
            let is_pending = cut != NextKeyTorn;
            assert_eq!(home.data_dir().join("signing.next").exists(), is_pending, "{cut:?}");

            let first = read_public_key(&first).unwrap();
            if by_hand {
                rotates(&home);
                let keys = known(&home);
                let expected = if is_pending { vec![first, next] } else { vec![first] };
                assert_eq!(keys[..keys.len() - 1], expected, "{cut:?}: what was begun comes first");
            } else {
                tokio_test(serve_and_write(&home, &TENANTS));
                let expected = if is_pending { vec![first, next] } else { vec![first] };
                assert_eq!(known(&home), expected, "{cut:?}");
            }
            let count = usize::from(is_pending) + usize::from(by_hand);
            assert_eq!(rotations(&home), [count; 3], "{cut:?}: each stream is handed over once");
            assert!(!home.data_dir().join("signing.next").exists(), "{cut:?}");
            let signer = read_signer(&home.data_dir().join("signing.key")).unwrap();
            assert_eq!(known(&home).last(), Some(&signer.public_key()), "{cut:?}");
            sound_sizes(&home);
            tokio_test(serve_and_write(&home, &TENANTS));
            assert_eq!(verify(&home, &["--key", &public_hex(first)]).0, Some(0), "{cut:?}");
        }
    }
}

#[test]
fn a_ledger_that_a_foreign_key_signed_last_is_not_served() {
    let (home, stranger) = (filled(), filled());
    let keys = ["signing.key", "signing.pub"];
    for name in keys {
        fs::copy(home.data_dir().join(name), home.root().join(name)).unwrap();
        fs::copy(stranger.data_dir().join(name), home.data_dir().join(name)).unwrap();
    }
    let refused = home.try_serve(&[], &[]).err().expect("the stranger's key serves");
    assert!(refused.stderr.contains("which is not this installation's key"), "{refused:#?}");
    let refused = ledger(&home, "rotate-key", &[]);
    // Nothing that a stranger's key signs may be added either.
    let now = entries(&home.data_dir().join("ledger"), "alpha").len();
    for name in keys {
        fs::copy(home.root().join(name), home.data_dir().join(name)).unwrap();
    }
    assert_eq!(refused.code, Some(2), "the stranger's key hands the ledger over: {refused:#?}");
    assert_eq!(now, 5);
    sound_sizes(&home);
}

#[test]
fn a_stream_that_was_handed_to_a_key_takes_no_other() {
    let home = filled();
    let other = SigningKey::from_bytes(&[0x31; 32]);
    let named = PublicKey::new(other.verifying_key());
    // The streams are handed over, but the key in the installation is that of before, and nothing says that a rotation
    // is under way.
    hand_over(&home, named);
    let refused = home.try_serve(&[], &[]).err().expect("the old key goes on");
    assert!(refused.stderr.contains("which is not this installation's key"), "{refused:#?}");
    // With the new key and the old one on the list it is served.
    let (old, pem) = (known(&home)[0], other.to_pkcs8_pem(LineEnding::LF).unwrap());
    let installation = Installation::open(&home.data_dir()).unwrap();
    installation.write_private("signing.next", pem.as_bytes()).unwrap();
    installation.promote_next_signer(old).unwrap();
    drop(installation);
    assert_eq!(known(&home), [old, named]);
    go_on(&home);
    sound_sizes(&home);
}

fn filled() -> Home {
    let home = Home::new();
    fill(&home, &[("alpha", 3), ("beta", 5), ("gamma", 7)]);
    home
}

#[track_caller]
fn rotates(home: &Home) {
    let done = ledger(home, "rotate-key", &[]);
    assert_eq!(done.code, Some(0), "{done:#?}");
}

/// Takes a rotation as far as it had come when it was cut short. The key that is to sign next.
fn cut_short(home: &Home, cut: Cut) -> PublicKey {
    let random = OsRandom::default();
    let data = home.data_dir();
    let keep = |name: &str| fs::read(data.join(name)).ok();
    let before = ["signing.key", "signing.pub", "signing.former"].map(keep);
    let installation = Installation::open(&data).unwrap();
    installation.write_next_signer(&random).unwrap();
    let next_pem = fs::read(data.join("signing.next")).unwrap();
    let next = installation.next_signer().unwrap().unwrap().public_key();
    match cut {
        Cut::NextKeyTorn => {
            fs::remove_file(data.join("signing.next")).unwrap();
            fs::write(data.join("signing.next.new"), &next_pem[..next_pem.len() / 2]).unwrap();
            return next;
        }
        Cut::NextKeyWritten => return next,
        Cut::HandedOver | Cut::FormerWritten | Cut::KeyPromoted | Cut::NextKeyLeftOver => {}
    }
    drop(installation);
    hand_over(home, next);
    let installation = Installation::open(&data).unwrap();
    let old = read_signer(&data.join("signing.key")).unwrap().public_key();
    installation.promote_next_signer(old).unwrap();
    let put_back: &[usize] = match cut {
        Cut::HandedOver => &[0, 1, 2],
        Cut::FormerWritten => &[0, 1],
        Cut::KeyPromoted => &[1],
        Cut::NextKeyLeftOver | Cut::NextKeyTorn | Cut::NextKeyWritten => &[],
    };
    for index in put_back {
        let path = data.join(["signing.key", "signing.pub", "signing.former"][*index]);
        match &before[*index] {
            Some(content) => fs::write(path, content).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
    }
    installation.write_private("signing.next", &next_pem).unwrap();
    next
}

/// Has the old key sign every stream over to the next, and nothing more.
fn hand_over(home: &Home, next: PublicKey) {
    with_ledger(home, Arc::new(SystemClock), |ledger| {
        for name in TENANTS {
            let command = Command::RotateSigner(RotateSigner { public_key: next.to_bytes() });
            wait(ledger.submit(request(name, command))).unwrap();
        }
    });
}

/// How many rotations are on record in each stream.
fn rotations(home: &Home) -> [usize; 3] {
    free(home);
    let is_one = |event: &Event| matches!(event, Event::SignerRotated(_));
    TENANTS.map(|name| {
        let entries = entries(&home.data_dir().join("ledger"), name);
        assert_eq!(tenant_id(name).as_str(), name);
        entries.iter().filter(|recorded| is_one(&recorded.event)).count()
    })
}

fn known(home: &Home) -> Vec<PublicKey> {
    Installation::known_keys(&home.data_dir()).unwrap()
}

/// A copy of the public key as it is now.
fn public_pem(home: &Home, name: &str) -> String {
    let path = home.root().join(name);
    fs::copy(home.data_dir().join("signing.pub"), &path).unwrap();
    path.to_string_lossy().into_owned()
}

fn public_hex(key: PublicKey) -> String {
    data_encoding::HEXLOWER.encode(&key.to_bytes())
}
