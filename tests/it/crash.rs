//! Does what was answered survive? The real binary under `kill -9`, SIGTERM, and damage to its files.

#![expect(clippy::unwrap_used, reason = "what cannot be unwrapped here is a failed test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use crate::server::{Client, Home, Server};

mod book;
pub(crate) mod evidence;
pub(crate) mod load;
pub(crate) mod rounds;

use evidence::History;
use load::{DETAILS_LENS, Dice, Load, Memory};
use rounds::{Rounds, TASKS, dice_with_printed_seed, setting, verify_offline};

/// Times the server is killed, unless `HALDIR_CRASH_ROUNDS` says otherwise.
const ROUNDS: u64 = 20;
/// Damaged copies of a ledger that each kind of ending is tried with.
const DAMAGES: u64 = 30;
/// Bytes that a disk loses at once.
const SECTOR_LEN: usize = 512;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_answered_survives_kill_9_at_any_moment() {
    let mut dice = dice_with_printed_seed("HALDIR_CRASH_SEED");
    let (home, mut rounds) = (Home::new(), Rounds::default());
    let mut server = home.serve();
    for _ in 0..setting("HALDIR_CRASH_ROUNDS").unwrap_or(ROUNDS) {
        let seen = rounds.load_until(server, &mut dice, Server::kill).await;
        if dice.below(4) == 0 {
            kill_while_starting(&home, 200, &mut dice);
        }
        server = home.serve();
        rounds.check(&server.client(), seen, &mut dice).await;
    }
    rounds.check_end(&home, server).await;
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_says_that_it_is_in_use() {
    let home = Home::new();
    let server = home.serve();
    let refused = home.try_serve(&[], &[]).err().expect("two servers on one ledger");
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("another haldir process uses"), "{refused:#?}");
    assert!(refused.stderr.contains("--data-dir"), "{refused:#?}");
    let (code, _) = verify_offline(&home);
    assert_eq!(code, Some(2), "a ledger in use cannot be verified on disk");
    server.client().get("/readyz").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sigterm_answers_what_runs_and_keeps_what_it_answered() {
    let home = Home::new();
    let server = home.serve();
    let client = server.client();
    let session = open_session(&client).await;
    let is_stopping = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let load = Load {
            client: server.client(),
            dice: Dice(task),
            name: format!("drain-{task}"),
            shared: session.clone(),
            own: vec![],
            details_lens: &DETAILS_LENS,
            clock: Arc::new(|| 0),
            is_killed: Arc::clone(&is_stopping),
        };
        tasks.spawn(load.run());
    }
    // One request is half sent when the signal arrives, and so certainly runs.
    let body = json!({ "session_id": session, "action": "half" }).to_string();
    let mut half_sent = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let (key, len) = (server.key(), body.len());
    let head = format!(
        "POST /v1/audit HTTP/1.1\r\nHost: haldir\r\nConnection: close\r\n\
         Authorization: Bearer {key}\r\nContent-Length: {len}\r\n\r\n"
    );
    half_sent.write_all(head.as_bytes()).await.unwrap();
    half_sent.write_all(&body.as_bytes()[..10]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;

    is_stopping.store(true, Ordering::SeqCst);
    server.ask_to_stop();
    tokio::time::sleep(Duration::from_millis(100)).await;
    half_sent.write_all(&body.as_bytes()[10..]).await.unwrap();
    let mut text = String::new();
    half_sent.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 201"), "the request that was running got {text:?}");
    let mut memory = Memory::default();
    while let Some(of_one) = tasks.join_next().await {
        memory.add(of_one.unwrap());
    }
    assert!(server.wait().success());
    assert!(!memory.told.is_empty(), "nothing ran when the signal came");

    let server = home.serve();
    let mut history = History::default();
    history.read_on(&server.client().get("/v1/ledger/export").await.body);
    history.check(&memory);
    let trail = server.client().get("/v1/audit?limit=100000").await.expect(200);
    let trail = trail["entries"].as_array().unwrap().iter().filter(|entry| entry["action"] == "half");
    assert_eq!(trail.count(), 1);
}

#[tokio::test]
async fn a_ledger_without_its_signing_key_is_not_continued_under_a_new_one() {
    let home = Home::new();
    let server = home.serve();
    open_session(&server.client()).await;
    server.stop();
    fs::remove_file(home.data_dir().join("signing.key")).unwrap();
    let refused = home.try_serve(&[], &[]).err().expect("a new key for an old ledger");
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("signing.key is missing although there is a ledger"), "{refused:#?}");
    assert!(!home.data_dir().join("signing.key").exists());
}

#[tokio::test]
async fn nobody_but_the_owner_can_look_into_the_data_directory() {
    let home = Home::new();
    // Twice, because sled makes more files when it opens a ledger that is there.
    for _ in 0..2 {
        let server = home.serve();
        let session = open_session(&server.client()).await;
        log_actions(&server.client(), &session, 3).await;
        server.stop();
    }
    let mut too_open = Vec::new();
    for_each_path_in(&home.data_dir(), &mut |path| {
        let metadata = fs::metadata(path).unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        if mode != if metadata.is_dir() { 0o700 } else { 0o600 } {
            too_open.push(format!("{mode:o} {}", path.strip_prefix(home.data_dir()).unwrap().display()));
        }
    });
    assert!(too_open.is_empty(), "{too_open:#?}");
}

#[tokio::test]
async fn a_server_that_says_it_listens_can_be_told_to_stop_at_once() {
    let home = Home::new();
    for _ in 0..5 {
        home.serve().stop();
    }
}

#[tokio::test]
async fn a_first_start_that_was_killed_can_be_repeated() {
    let mut dice = dice_with_printed_seed("HALDIR_CRASH_SEED");
    for _ in 0..15 {
        let home = Home::new();
        kill_while_starting(&home, 50, &mut dice);
        let server = home.serve();
        let verdict = server.client().get("/v1/audit/verify").await.expect(200);
        assert_eq!(verdict["verified"], true, "{verdict}");
    }
}

#[tokio::test]
async fn damage_to_the_ledger_is_found_after_a_clean_stop() {
    damage_copies_of_a_ledger(Ending::Stopped).await;
}

#[tokio::test]
async fn damage_to_the_ledger_is_found_after_a_kill() {
    damage_copies_of_a_ledger(Ending::Killed).await;
}

#[tokio::test]
async fn damage_to_the_ledger_is_found_after_a_restart() {
    damage_copies_of_a_ledger(Ending::Restarted).await;
}

/// How the last server on a ledger ended. The store finds its log in another state after each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Stopped,
    Killed,
    Restarted,
}

/// Damages copies of a ledger, each in one place. No copy may pass for a ledger that is shorter, or other.
async fn damage_copies_of_a_ledger(ending: Ending) {
    let mut dice = dice_with_printed_seed("HALDIR_CRASH_SEED");
    let home = Home::new();
    let server = home.serve();
    let session = open_session(&server.client()).await;
    log_actions(&server.client(), &session, 40).await;
    match ending {
        Ending::Stopped => server.stop(),
        Ending::Killed => server.kill(),
        Ending::Restarted => {
            server.stop();
            let again = home.serve();
            again.client().get("/readyz").await.expect(200);
            again.stop();
        }
    }
    // Verifying opens the store, and opening may write: the original stays as the server left it.
    let (code, original) = verify_offline(&Home::copy_of(&home));
    assert_eq!(code, Some(0), "{original}");
    assert!(original["size"].as_u64().is_some_and(|size| size > 40), "{original}");

    let log = fs::read(home.data_dir().join("ledger/db")).unwrap();
    let mut wrong = Vec::new();
    for number in 0..DAMAGES {
        let (damaged, what) = damage(&log, number, &mut dice);
        let copy = Home::copy_of(&home);
        fs::write(copy.data_dir().join("ledger/db"), &damaged).unwrap();
        match verify_offline(&copy) {
            (Some(0), stream) if stream["size"] == original["size"] && stream["head"] == original["head"] => {
            }
            (Some(1 | 2), _) => {}
            (code, stream) => wrong.push(format!("{what}: verify exits {code:?}: {stream}")),
        }
        let copy = Home::copy_of(&home);
        fs::write(copy.data_dir().join("ledger/db"), &damaged).unwrap();
        match copy.try_serve(&[], &[]) {
            Ok(server) => {
                // Damage that is read only later may still be found then: served, but not as sound.
                let verdict = server.client().get("/v1/audit/verify").await.json();
                if verdict["verified"] == true && verdict["head"] != original["head"] {
                    wrong.push(format!("{what}: another history is served as sound: {verdict}"));
                }
            }
            // A panic exits with 101 and explains nothing.
            Err(refused) if refused.code == Some(1) && refused.stderr.contains("error:") => {}
            Err(refused) => wrong.push(format!("{what}: serve: {refused:#?}")),
        }
    }
    assert!(wrong.is_empty(), "{ending:?}: {wrong:#?}\nof {original}");
}

/// Damages a copy of the store's log: a wrong bit, a lost sector, a lost end.
fn damage(log: &[u8], number: u64, dice: &mut Dice) -> (Vec<u8>, String) {
    let used = log.len() - log.iter().rev().take_while(|byte| **byte == 0).count();
    let entries: Vec<usize> =
        log.windows(4).enumerate().filter(|(_, it)| it == b"HLDR").map(|(at, _)| at).collect();
    assert!(entries.len() > 40, "entries are not stored as they are any more: do the damage elsewhere");
    let mut damaged = log.to_vec();
    let what = match number % 4 {
        0 | 1 => {
            let in_an_entry = entries[dice.index(entries.len())] + dice.index(284);
            let at = if number.is_multiple_of(2) { in_an_entry } else { dice.index(used) };
            damaged[at] ^= 1 << dice.below(8);
            format!("a wrong bit in byte {at}")
        }
        2 => {
            let at = dice.index(used) / SECTOR_LEN * SECTOR_LEN;
            let end = damaged.len().min(at + SECTOR_LEN);
            damaged[at..end].fill(0);
            format!("bytes {at} to {end} are zero")
        }
        _ => {
            damaged.truncate(dice.index(used));
            format!("only {} bytes are left", damaged.len())
        }
    };
    (damaged, format!("{what} of {used}"))
}

/// Kills a server in its first milliseconds, whatever it is doing.
fn kill_while_starting(home: &Home, millis_max: u64, dice: &mut Dice) {
    let mut starting = home.spawn(&[], &[]);
    std::thread::sleep(Duration::from_millis(dice.below(millis_max)));
    starting.kill().unwrap();
    starting.wait().unwrap();
}

async fn open_session(client: &Client) -> String {
    let body = json!({ "agent_id": "agent", "scopes": ["read", "spend"], "ttl": 0 });
    let opened = client.post("/v1/sessions", &body).await.expect(201);
    opened["session_id"].as_str().unwrap().to_owned()
}

async fn log_actions(client: &Client, session: &str, count: usize) {
    for number in 0..count {
        let details = json!({ "number": number, "text": "x".repeat(number * 100) });
        let body = json!({ "session_id": session, "action": format!("action {number}"), "details": details });
        client.post("/v1/audit", &body).await.expect(201);
    }
}

fn for_each_path_in(dir: &Path, see: &mut impl FnMut(&Path)) {
    see(dir);
    for item in fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            for_each_path_in(&path, see);
        } else {
            see(&path);
        }
    }
}
