//! When there is no room on the disk, does nothing happen by halves, and does everything go on when there is room again?

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use haldir::domain::Refusal;
use haldir::ledger::{LedgerError, Receipt};
use haldir::operations::OperationError;
use proptest::prelude::*;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::crash::rounds::{say, verify_offline};
use crate::samples::random_cases;
use crate::server::{Client, Home, send};
use crate::writing::ledger::{
    TestLedger, answers, event, mint, once, open_session, pay, request, tenant_id, wait,
};
use crate::writing::model::any_history;

proptest! {
    #![proptest_config(random_cases(128, "proptest-regressions/full.txt"))]

    #[test]
    fn what_does_not_fit_never_happened(history in any_history(), moments in prop::collection::vec(any::<bool>(), 40)) {
        let mut moments = moments.into_iter();
        let mut told: Vec<Receipt> = Vec::new();
        let ledger = history.play(TestLedger::new(), |ledger, requests| {
            let is_full = moments.next().unwrap_or(false);
            ledger.store.disk.set_full(is_full);
            let before = ledger.handle.read().clone();
            for answer in answers(ledger.queue(requests)) {
                match answer {
                    Ok(receipt) if is_full => {
                        assert!(receipt.is_replay || receipt.events.is_empty(), "{receipt:?} on a full disk");
                    }
                    Ok(receipt) => told.push(receipt),
                    Err(LedgerError::Refused(_)) => {}
                    Err(LedgerError::Full(_)) => assert!(is_full, "there is room"),
                    Err(other) => panic!("{other}"),
                }
            }
            if is_full {
                assert!(*ledger.handle.read() == before, "something happened");
            }
            assert_eq!(ledger.handle.health().failure(), None);
        });
        ledger.store.disk.set_full(false);
        ledger.check();
        for receipt in told.iter().filter(|receipt| !receipt.is_replay) {
            for told in &receipt.events {
                let entry = &ledger.entries(told.tenant.as_str())[usize::try_from(told.recorded.seq).unwrap()];
                prop_assert_eq!((&entry.recorded, entry.hash), (&told.recorded, told.hash));
            }
        }
        let ledger = ledger.crash_and_restart();
        ledger.check();
    }
}

#[test]
fn a_batch_that_does_not_fit_changes_nothing_and_is_told_so() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 10))).unwrap();
    let first = ledger.submit(once(1, 1, request("t", pay("s", 1)))).unwrap();
    let checkpoint = wait(ledger.handle.checkpoint(&tenant_id("t"))).unwrap();
    let before = ledger.handle.read().clone();
    ledger.store.disk.set_full(true);
    for _ in 0..2 {
        // More than the budget holds: were one of them carried out, another would be denied later.
        let asked = (0..5).map(|_| once(2, 2, request("t", pay("s", 9))));
        for answer in ledger.submit_as_one_batch(asked.chain([request("new", mint(1))])) {
            assert!(matches!(answer, Err(LedgerError::Full(_))), "{answer:?}");
        }
        assert!(*ledger.handle.read() == before);
        // What needs no room goes on.
        let again = ledger.submit(once(1, 1, request("t", pay("s", 1)))).unwrap();
        assert!(again.is_replay && again.events == first.events);
        let refused = ledger.submit(request("t", pay("nobody", 1)));
        assert_eq!(refused.unwrap_err(), LedgerError::Refused(Refusal::SessionUnknown));
        assert_eq!(wait(ledger.handle.checkpoint(&tenant_id("t"))), Ok(checkpoint.clone()));
        ledger.check();
    }
    let error = ledger.submit(request("t", pay("s", 9))).unwrap_err();
    assert_eq!(OperationError::from(error), OperationError::Full);
    ledger.store.disk.set_full(false);
    let paid = ledger.submit(once(2, 2, request("t", pay("s", 9))));
    assert!(event(&paid).kind_name().contains("authorized"), "{paid:?}: the budget was not touched");
    event(&ledger.submit(request("new", mint(1))));
    assert!(wait(ledger.handle.checkpoint(&tenant_id("t"))).unwrap().size == 3);
    ledger.crash_and_restart().check();
}

#[test]
fn a_new_checkpoint_needs_room_and_is_not_half_signed_without() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 10))).unwrap();
    ledger.store.disk.set_full(true);
    let tenant = tenant_id("t");
    assert!(matches!(wait(ledger.handle.checkpoint(&tenant)), Err(LedgerError::Full(_))));
    ledger.store.disk.set_full(false);
    let kept = wait(ledger.handle.checkpoint(&tenant)).unwrap();
    assert_eq!((kept.size, kept.root), (1, ledger.handle.read().stream(&tenant).unwrap().tree.root()));
    ledger.check();
}

#[tokio::test]
async fn a_server_without_room_refuses_writes_and_answers_reads() {
    let home = Home::new();
    let server = home.serve();
    let client = server.client();
    let session = session(&client).await;
    log(&client, &session, "before").await.unwrap();
    server.stop();
    // More than any disk has.
    let server = home.serve_with(&["--disk-reserve", "9000000000000000000"], &[]);
    let client = server.client();
    for (method, path, body) in [
        (Method::POST, "/v1/sessions", json!({ "agent_id": "a", "scopes": ["read"], "ttl": 0 })),
        (Method::POST, "/v1/audit", json!({ "session_id": session, "action": "no" })),
        (Method::POST, "/v1/payments/authorize", json!({ "session_id": session, "amount": 1 })),
        (Method::POST, "/v1/secrets", json!({ "name": "no", "value": "no" })),
        (Method::POST, "/v1/keys", json!({ "name": "no", "scopes": ["audit:read"] })),
        (Method::DELETE, &format!("/v1/sessions/{session}"), json!({})),
    ] {
        let answer = send(client.request(method, path).json(&body)).await.unwrap();
        let told = answer.expect(503);
        assert_eq!(told["code"], "disk_full", "{path}: {told}");
        assert!(told["error"].as_str().unwrap().contains("disk is full") && told["request_id"].is_string());
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!(seconds >= 1);
    }
    let trail = client.get("/v1/audit").await.expect(200);
    assert_eq!(trail["entries"].as_array().unwrap().len(), 1, "{trail}");
    client.get(&format!("/v1/sessions/{session}")).await.expect(200);
    assert_eq!(client.get("/v1/audit/verify").await.expect(200)["verified"], true);
    server.stop();
    let server = home.serve();
    log(&server.client(), &session, "after").await.unwrap();
    server.stop();
    assert_eq!(verify_offline(&home).0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disk_that_fills_up_and_is_cleared_loses_nothing_and_needs_no_restart() {
    let home = Home::new();
    let data = home.data_dir();
    let _disk = match SmallDisk::new(&data) {
        Ok(disk) => disk,
        Err(why) => return say(&format!("not tried: {why}")),
    };
    let server = home.serve_with(&["--disk-reserve", "8388608"], &[]);
    let client = server.client();
    let session = session(&client).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let (granted, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut writers = JoinSet::new();
    for number in 0..4 {
        let (client, session, is_over) = (server.client(), session.clone(), Arc::clone(&is_over));
        let (granted, refused) = (Arc::clone(&granted), Arc::clone(&refused));
        writers.spawn(async move {
            let mut told = Vec::new();
            for round in 0.. {
                if is_over.load(Ordering::SeqCst) {
                    break;
                }
                let action = format!("{number}-{round}");
                match log(&client, &session, &action).await {
                    Ok(()) => {
                        granted.fetch_add(1, Ordering::SeqCst);
                        told.push(action);
                    }
                    Err(body) => {
                        assert_eq!(body["code"], "disk_full", "{body}");
                        refused.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }
            told
        });
    }
    for _ in 0..3 {
        grows(&granted).await;
        let filler = data.join("filler");
        fill_to(&filler, 2 << 20);
        grows(&refused).await;
        let (before, trail) = (granted.load(Ordering::SeqCst), client.get("/v1/audit?limit=1").await);
        trail.expect(200);
        client.get("/readyz").await.expect(200);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(granted.load(Ordering::SeqCst), before, "something was written to a full disk");
        fs::remove_file(filler).unwrap();
    }
    grows(&granted).await;
    is_over.store(true, Ordering::SeqCst);
    let mut told: Vec<String> = Vec::new();
    while let Some(of_one) = writers.join_next().await {
        told.extend(of_one.unwrap());
    }
    let trail = client.get("/v1/audit?limit=100000").await.expect(200);
    let mut kept: BTreeMap<&str, u32> = BTreeMap::new();
    for entry in trail["entries"].as_array().unwrap() {
        *kept.entry(entry["action"].as_str().unwrap()).or_default() += 1;
    }
    assert_eq!(kept.len(), told.len(), "what was refused is there, or what was granted is not");
    assert!(told.iter().all(|action| kept[action.as_str()] == 1));
    server.kill();
    let server = home.serve_with(&["--disk-reserve", "8388608"], &[]);
    let trail = server.client().get("/v1/audit?limit=100000").await.expect(200);
    assert_eq!(trail["entries"].as_array().unwrap().len(), told.len());
    server.stop();
}

async fn session(client: &Client) -> String {
    let body = json!({ "agent_id": "agent", "scopes": ["read", "spend"], "ttl": 0 });
    client.post("/v1/sessions", &body).await.expect(201)["session_id"].as_str().unwrap().to_owned()
}

/// Logs an action, or says why it was refused.
async fn log(client: &Client, session: &str, action: &str) -> Result<(), Value> {
    let body = json!({ "session_id": session, "action": action, "details": { "text": "x".repeat(500) } });
    let answer = client.post("/v1/audit", &body).await;
    if answer.status == 201 { Ok(()) } else { Err(answer.expect(503)) }
}

/// Waits until a count has grown by a few.
async fn grows(count: &AtomicU64) {
    let (start, deadline) = (count.load(Ordering::SeqCst), Instant::now() + Duration::from_secs(60));
    while count.load(Ordering::SeqCst) < start + 10 {
        assert!(Instant::now() < deadline, "nothing goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Makes a file so large that only so many bytes are left on its disk.
fn fill_to(path: &Path, left: u64) {
    let disk = rustix::fs::statvfs(path.parent().unwrap()).unwrap();
    let mut len = (disk.f_bavail * disk.f_frsize).saturating_sub(left);
    let mut file = File::create(path).unwrap();
    let block = vec![0; 1 << 20];
    while len > 0 {
        let part = usize::try_from(len.min(1 << 20)).unwrap();
        file.write_all(&block[..part]).unwrap();
        len -= part as u64;
    }
}

/// A file system in memory, with little room. It ends with its mount.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(on: &Path) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can mount".to_owned());
        }
        fs::create_dir(on).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m,mode=700", "none"]).arg(on).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(on.to_path_buf())),
            Ok(output) => {
                fs::remove_dir(on).unwrap();
                Err(String::from_utf8_lossy(&output.stderr).into_owned())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
