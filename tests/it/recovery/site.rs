//! An installation of several tenants, written without a server, and what the command line says of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use haldir::cli::installation::Installation;
use haldir::domain::id::TenantId;
use haldir::domain::keys::MintKey;
use haldir::domain::scope::KeyScopes;
use haldir::domain::{Command, Event, Recorded};
use haldir::format::entry;
use haldir::ledger::clock::{Clock, ManualClock, SystemClock};
use haldir::ledger::handle::{LedgerHandle, Parts, Sizes};
use haldir::ledger::random::OsRandom;
use haldir::operations::keys::hash_of;
use haldir::store::EventStore as _;
use haldir::store::embedded::EmbeddedStore;
use haldir::store::memory::MemorySnapshots;
use serde_json::{Value, json};

use crate::server::{Client, Finished, Home, Server};
use crate::stores::{entry_part_key, once_free};
use crate::writing::ledger::{START_S, open_session, pay, prefix, request, seconds, tenant_id, wait};

/// The tenants that most tests use.
pub(crate) const TENANTS: [&str; 3] = ["alpha", "beta", "gamma"];

/// Lets every tenant mint its key and open a session, once, and then pay so many times. A tenant's stream then has two
/// entries more than payments. Its size and root are signed in the end.
pub(crate) fn fill(home: &Home, payments: &[(&str, u64)]) {
    with_ledger(home, Arc::new(ManualClock::at(seconds(START_S))), |ledger| {
        for (number, (name, count)) in (0..).zip(payments) {
            if ledger.read().stream(&tenant_id(name)).is_none() {
                let mint = MintKey {
                    prefix: prefix(number),
                    hash: hash_of(&key_of(name)),
                    name: String::new(),
                    scopes: KeyScopes::all(),
                };
                wait(ledger.submit(request(name, Command::MintKey(mint)))).unwrap();
                wait(ledger.submit(request(name, open_session("s", 1_000_000_000_000)))).unwrap();
            }
            for _ in 0..*count {
                wait(ledger.submit(request(name, pay("s", 1_000_000_000)))).unwrap();
            }
            wait(ledger.checkpoint(&tenant_id(name))).unwrap();
        }
    });
}

/// Does something with the ledger of an installation that nobody uses, as a server does.
pub(crate) fn with_ledger(home: &Home, clock: Arc<dyn Clock>, work: impl FnOnce(&LedgerHandle)) {
    let random = Arc::new(OsRandom::default());
    let installation = Installation::open_or_create(&home.data_dir()).unwrap();
    let signer = installation.signer(&*random).unwrap();
    installation.retry_secret(&*random).unwrap();
    let store = once_free(|| EmbeddedStore::open(&installation.ledger_dir().unwrap())).unwrap();
    let parts = Parts {
        store: Arc::new(store),
        snapshots: Arc::new(MemorySnapshots::default()),
        signer,
        former_keys: installation.former_keys().unwrap(),
        clock,
        random,
        sizes: Sizes::default(),
    };
    let (ledger, _) = LedgerHandle::open(parts).unwrap();
    work(&ledger);
    ledger.close();
    drop(ledger);
    free(home);
}

/// Lets every tenant pay once more, now.
pub(crate) fn go_on(home: &Home) {
    with_ledger(home, Arc::new(SystemClock), |ledger| {
        for name in TENANTS {
            wait(ledger.submit(request(name, pay("s", 1_000_000_000)))).unwrap();
        }
    });
}

/// Waits until the store's own threads have let go of its files.
pub(crate) fn free(home: &Home) {
    let log = home.data_dir().join("ledger/db");
    while fs::File::open(&log).is_ok_and(|log| log.try_lock().is_err()) {
        std::thread::yield_now();
    }
}

/// The text of a tenant's API key.
pub(crate) fn key_of(name: &str) -> String {
    format!("hld_key-of-{name}")
}

/// A client with a tenant's key.
pub(crate) fn client_of(server: &Server, name: &str) -> Client {
    server.client().with_key(&key_of(name))
}

/// The data directory as an argument.
pub(crate) fn dir(home: &Home) -> String {
    home.data_dir().to_string_lossy().into_owned()
}

/// Runs a command of `haldir ledger` on the data directory.
pub(crate) fn ledger(home: &Home, command: &str, more: &[&str]) -> Finished {
    home.run(&[&["ledger", command, "--data-dir", &dir(home)], more].concat())
}

/// A backup of the installation as it is, beside it.
pub(crate) fn back_up(home: &Home, name: &str, more: &[&str]) -> PathBuf {
    let path = home.root().join(name);
    let finished = ledger(home, "backup", &[&["--out", &path.to_string_lossy()], more].concat());
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    path
}

/// A ledger export of a tenant, beside the installation.
pub(crate) fn export(home: &Home, tenant: &str) -> PathBuf {
    let path = home.root().join(format!("{tenant}.export"));
    let out = path.to_string_lossy().into_owned();
    let finished =
        home.run(&["audit", "export", "--data-dir", &dir(home), "--tenant", tenant, "--out", &out]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    path
}

/// What `haldir audit verify` says of the data directory: the exit code, and the report of each tenant.
pub(crate) fn verify(home: &Home, more: &[&str]) -> (Option<i32>, BTreeMap<String, Value>) {
    let finished = home.run(&[&["audit", "verify", "--json", "--data-dir", &dir(home)], more].concat());
    let said: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:#?}"));
    let reports = said["streams"].as_array().cloned().unwrap_or_default();
    let name = |report: &Value| report["tenant_id"].as_str().unwrap().to_owned();
    (finished.code, reports.into_iter().map(|report| (name(&report), report)).collect())
}

/// Insists that every stream is sound, and tells their sizes.
#[track_caller]
pub(crate) fn sound_sizes(home: &Home) -> BTreeMap<String, u64> {
    let (code, reports) = verify(home, &[]);
    assert_eq!(code, Some(0), "{reports:#?}");
    reports.into_iter().map(|(name, report)| (name, report["size"].as_u64().unwrap())).collect()
}

/// Sizes by tenant, as they are expected.
pub(crate) fn sizes(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
    of.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect()
}

/// Every entry of a tenant's stream, out of a copy of a ledger.
pub(crate) fn entries(ledger: &Path, tenant: &str) -> Vec<Recorded> {
    let copy = tempfile::tempdir().unwrap();
    for item in fs::read_dir(ledger).unwrap().map(Result::unwrap) {
        if item.path().is_file() {
            fs::copy(item.path(), copy.path().join(item.file_name())).unwrap();
        }
    }
    let store = once_free(|| EmbeddedStore::open(copy.path())).unwrap();
    let entries = store.read(&TenantId::parse(tenant).unwrap(), 0, usize::MAX).unwrap();
    entries.iter().map(|bytes| entry::open(bytes).unwrap().recorded).collect()
}

/// The repairs on record in a tenant's stream: where, and how much was kept, restored and lost.
pub(crate) fn repairs(home: &Home, tenant: &str) -> Vec<(u64, u64, u64, u64)> {
    let entries = entries(&home.data_dir().join("ledger"), tenant);
    let repair = |recorded: Recorded| match recorded.event {
        Event::LedgerRepaired(it) => Some((recorded.seq, it.kept, it.restored, it.lost)),
        _ => None,
    };
    entries.into_iter().filter_map(repair).collect()
}

/// Flips a bit of an entry, past the store, whose own checksums then vouch for it.
pub(crate) fn alter_entry(home: &Home, tenant: &str, seq: u64) {
    let path = home.data_dir().join("ledger");
    let db = once_free(|| sled::open(&path).map_err(|_| haldir::store::StoreError::InUse)).unwrap();
    let key = entry_part_key(tenant, seq, 0);
    let mut bytes = db.get(&key).unwrap().expect("there is such an entry").to_vec();
    bytes[190] ^= 1;
    db.insert(key, bytes).unwrap();
    db.flush().unwrap();
    drop(db);
    free(home);
}

/// Starts a server and lets every tenant write something, and insists that the server finds its ledger sound.
pub(crate) async fn serve_and_write(home: &Home, tenants: &[&str]) {
    let server = home.serve();
    for name in tenants {
        let client = client_of(&server, name);
        let body = json!({ "session_id": "s", "amount": 1 });
        client.post("/v1/payments/authorize", &body).await.expect(200);
        let verdict = client.get("/v1/audit/verify?full=true").await.expect(200);
        assert_eq!(verdict["verified"], true, "{name}: {verdict}");
    }
    server.client().get("/readyz").await.expect(200);
    server.stop();
    free(home);
}
