//! Is a backup that is taken while clients write one moment of the ledger?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use super::{TENANTS, back_up, client_of, fill, public_key, restore, serve_and_write, sound_sizes};
use crate::server::{Client, Home};

/// Clients that write to one tenant and then to the next, over and over.
const CLIENTS: u64 = 6;
/// Backups that are taken of the same running server.
const BACKUPS: usize = 3;

#[test]
fn a_backup_that_is_taken_while_clients_write_is_one_moment() {
    let home = Home::new();
    fill(&home, &TENANTS.map(|name| (name, 1)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(back_up_while_clients_write(home));
}

async fn back_up_while_clients_write(home: Home) {
    let server = home.serve();
    let is_over = Arc::new(AtomicBool::new(false));
    let told: Vec<Arc<AtomicU64>> = (0..CLIENTS).map(|_| Arc::default()).collect();
    let mut clients = JoinSet::new();
    for (number, told) in told.iter().enumerate() {
        let tenants = TENANTS.map(|name| client_of(&server, name));
        clients.spawn(write(number, tenants, Arc::clone(told), Arc::clone(&is_over)));
    }
    let mut backups = Vec::new();
    for number in 0..BACKUPS {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before: Vec<u64> = told.iter().map(|told| told.load(Ordering::SeqCst)).collect();
        // Runs on this thread; the clients have their own.
        let path = back_up(&home, &format!("backup-{number}"), &["--with-keys"]);
        let after: Vec<u64> = told.iter().map(|told| told.load(Ordering::SeqCst)).collect();
        assert!(after.iter().zip(&before).any(|(after, before)| after > before), "nobody wrote meanwhile");
        backups.push((path, before));
    }
    is_over.store(true, Ordering::SeqCst);
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    let key = public_key(&home);
    for (path, before) in backups {
        let restored = Home::new();
        let finished = restore(&restored, &path, &["--key", &key]);
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        sound_sizes(&restored);
        let served = restored.serve();
        let mut counts = Vec::new();
        for name in TENANTS {
            let client = client_of(&served, name);
            let verdict = client.get("/v1/audit/verify").await.expect(200);
            assert_eq!(verdict["verified"], true, "with the details: {verdict}");
            counts.push(counts_of(&client).await);
        }
        for (number, before) in before.into_iter().enumerate() {
            let [first, second, third] = [counts[0][number], counts[1][number], counts[2][number]];
            assert!(
                third >= before,
                "client {number} was told of {before} rounds, and {third} are in the backup"
            );
            // A client writes to the tenants in turn: what is there is what was there at some moment between two writes.
            let is_a_moment = first >= second && second >= third && first <= third + 1;
            assert!(is_a_moment, "client {number}: {first}, {second}, {third}");
        }
        served.stop();
        serve_and_write(&restored, &TENANTS).await;
    }
    server.stop();
    sound_sizes(&home);
}

async fn write(number: usize, tenants: [Client; 3], told: Arc<AtomicU64>, is_over: Arc<AtomicBool>) {
    while !is_over.load(Ordering::SeqCst) {
        for client in &tenants {
            let details = json!({ "text": "x".repeat(200) });
            let body = json!({ "session_id": "s", "action": format!("client {number}"), "details": details });
            client.post("/v1/audit", &body).await.expect(201);
        }
        told.fetch_add(1, Ordering::SeqCst);
    }
}

/// How many actions of each client there are.
async fn counts_of(client: &Client) -> Vec<u64> {
    let trail = client.get("/v1/audit?limit=100000").await.expect(200);
    let actions = trail["entries"].as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap());
    let mut counts = vec![0; usize::try_from(CLIENTS).unwrap()];
    for action in actions {
        let number: usize = action.strip_prefix("client ").unwrap().parse().unwrap();
        counts[number] += 1;
    }
    counts
}
