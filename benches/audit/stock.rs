//! A data directory as a busy installation leaves it: made by the operations themselves, with views and snapshots.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use haldir::cli::installation::Installation;
use haldir::domain::id::{RequestId, TenantId};
use haldir::ledger::clock::SystemClock;
use haldir::ledger::handle::{LedgerHandle, Parts, Sizes};
use haldir::ledger::random::OsRandom;
use haldir::ledger::snapshots::{SNAPSHOT_EVERY, Snapshots};
use haldir::operations::audit::{self, LogRequest};
use haldir::operations::call_facts::Patterns;
use haldir::operations::deliveries::Pauses;
use haldir::operations::keys::{self, Minter};
use haldir::operations::limits::{Limits, Windows};
use haldir::operations::open_calls::OnTheirWay;
use haldir::operations::payments::{self, PaymentRequest};
use haldir::operations::sessions::{self, OpenSessionRequest};
use haldir::operations::upstreams::UpstreamHealth;
use haldir::operations::usage::Meter;
use haldir::operations::verification::Scrubbed;
use haldir::operations::{App, Caller};
use haldir::outbound::client::Client;
use haldir::outbound::names::SystemNames;
use haldir::proxy::settings::UpstreamSettings;
use haldir::proxy::upstreams::Upstreams;
use haldir::store::embedded::{EmbeddedPages, EmbeddedStore};
use haldir::store::snapshots::SnapshotFiles;
use haldir::store::{EventStore as _, Head};
use haldir::vault::Vault;
use haldir::views::follower::Views;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::measure::{rate, row, title};

/// Agents that ask at once. Commits are as large as they may be.
const AGENT_COUNT: u64 = 1000;
/// Entries for each session: one opens it, 24 are checks, 17 actions, 8 payments.
const SESSION_LEN: u64 = 50;
/// Seconds that sessions live: longer than the benchmark.
const TTL_S: u64 = 86_400;

/// Fills the directory with this many entries, unless there is a ledger already.
pub(crate) fn fill(dir: &Path, entries: u64) {
    title("data directory");
    if !dir.join("ledger").join("db").exists() {
        let started = Instant::now();
        let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
        runtime.block_on(make(dir, entries));
        let time = started.elapsed();
        row("made in", &format!("{:.1} s, {:.0} entries/s", time.as_secs_f64(), rate(entries, time)));
    }
    let (_, head) = head(dir);
    row("entries", &head.size.to_string());
    for part in ["ledger", "views", "snapshots"] {
        row(part, &format!("{} MiB", len_of(&dir.join(part)) >> 20));
    }
}

/// The tenant of a directory, and where its stream ends.
pub(crate) fn head(dir: &Path) -> (TenantId, Head) {
    let store = open_store(dir);
    let heads = store.heads().expect("the ledger is sound");
    heads.into_iter().next().expect("the directory has a tenant")
}

/// The ledger of a directory that no server uses.
pub(crate) fn open_store(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(&dir.join("ledger")).expect("nobody else uses the ledger")
}

/// The API key of a directory.
pub(crate) fn api_key(dir: &Path) -> String {
    let text = std::fs::read_to_string(dir.join("config.json")).expect("the directory was filled");
    let config: Value = serde_json::from_str(&text).expect("the file is JSON");
    config["api_key"].as_str().expect("it names a key").to_owned()
}

async fn make(dir: &Path, entries: u64) {
    let installation = Installation::open_or_create(dir).expect("the directory can be made");
    let app = Arc::new(open(&installation));
    let snapshots = Snapshots::start(&app.ledger, SNAPSHOT_EVERY).expect("threads can be started");
    let caller = mint_key(&app, &installation).await;

    let session_count = entries.div_ceil(SESSION_LEN);
    let opened = Arc::new(AtomicU64::new(0));
    let agent = |number: u64| {
        let (app, caller, opened) = (Arc::clone(&app), caller.clone(), Arc::clone(&opened));
        async move {
            while opened.fetch_add(1, Ordering::Relaxed) < session_count {
                live(&app, &caller, number).await;
            }
        }
    };
    let agents: Vec<_> = (0..AGENT_COUNT).map(|number| tokio::spawn(agent(number))).collect();
    for agent in agents {
        agent.await.expect("no agent panics");
    }

    let (tenant, size) =
        (caller.tenant, app.ledger.read().streams().map(|(_, stream)| stream.head.size).sum());
    while app.views.wait_for(&tenant, size).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    app.ledger.close();
    app.views.close();
    snapshots.close();
}

fn open(installation: &Installation) -> App {
    let dir = |dir: Result<_, String>| -> std::path::PathBuf { dir.expect("the directory can be made") };
    let random = Arc::new(OsRandom::default());
    let signer = installation.signer(&*random).expect("a new installation gets a key");
    let retry_secret = installation.retry_secret(&*random).expect("a new installation gets a secret");
    let store = EmbeddedStore::open(&dir(installation.ledger_dir())).expect("the ledger is empty");
    let store = Arc::new(store);
    let parts = Parts {
        store: store.clone(),
        snapshots: Arc::new(SnapshotFiles::new(&dir(installation.snapshots_dir()))),
        signer,
        former_keys: Vec::new(),
        clock: Arc::new(SystemClock),
        random,
        sizes: Sizes::default(),
    };
    let (ledger, feed) = LedgerHandle::open(parts).expect("the ledger is empty");
    let pages = EmbeddedPages::open(&dir(installation.views_dir())).expect("there are no views");
    let views = Views::open(Arc::new(pages), store, feed).expect("there are no views");
    let client = Client::new(Arc::new(SystemNames), false).expect("TLS can be set up");
    App {
        ledger,
        views,
        vault: Vault::in_memory(),
        outbound: client.clone(),
        upstreams: Upstreams::new(client, UpstreamSettings::default(), [0; 32])
            .expect("threads can be started"),
        upstream_health: UpstreamHealth::default(),
        on_their_way: OnTheirWay::default(),
        patterns: Patterns::default(),
        pauses: Pauses::default(),
        meter: Meter::default(),
        windows: Windows::default(),
        limits: Limits::default(),
        retry_secret,
        former_keys: Vec::new(),
        certificates: Vec::new(),
        scrubbed: Scrubbed::default(),
        public_url: std::sync::OnceLock::new(),
        bootstrap_token_hash: None,
        is_stopping: watch::Sender::new(false),
    }
}

/// Founds the tenant and leaves its key where the command line finds it.
async fn mint_key(app: &App, installation: &Installation) -> Caller {
    let request_id = RequestId::issue(app.ledger.random().bytes());
    let request = keys::mint_request("benchmark".to_owned(), vec!["*".to_owned()]).expect("all is a scope");
    let minted = keys::mint(app, Minter::Operator(None), &request_id, request, None).await;
    let key = minted.expect("a new ledger takes its first key").key;
    let config = json!({ "api_key": key }).to_string();
    installation.write_private("config.json", config.as_bytes()).expect("the directory can be written to");
    app.authenticate(&key, &request_id).expect("the key is active")
}

/// An agent opens a session and does what agents do.
async fn live(app: &App, caller: &Caller, number: u64) {
    let caller = Caller { request_id: RequestId::issue(app.ledger.random().bytes()), ..caller.clone() };
    let request = OpenSessionRequest {
        scopes_are_default: false,
        parent_session_id: String::new(),
        agent_id: format!("research-agent-{number}"),
        scopes: ["read", "search", "spend:2"].map(str::to_owned).to_vec(),
        ttl: TTL_S,
        spend_limit_nanos: None,
    };
    let opened = sessions::open(app, &caller, request, None).await.expect("agents are not limited");
    let session_id = opened.session_id;
    for step in 1..SESSION_LEN {
        match step % 6 {
            0 | 2 | 4 => {
                // Now and then an agent asks for what it was not given.
                let scope = if step % 24 == 0 { "delete" } else { "search" };
                sessions::check(app, &caller, &session_id, scope).await.expect("every check has an answer");
            }
            1 | 3 => {
                let request = LogRequest {
                    session_id: session_id.clone(),
                    action: "search".to_owned(),
                    tool: "browser".to_owned(),
                    cost_nanos: 12_000_000,
                    details: Some(format!(
                        "{{\"query\":\"prices of part {step}\",\"results\":{}}}",
                        step * 7
                    )),
                };
                audit::log(app, &caller, request, None).await.expect("the session is live");
            }
            _ => {
                // The last ones exceed the budget and are denied.
                let request = PaymentRequest {
                    tool: String::new(),
                    action: String::new(),
                    approval_id: String::new(),
                    session_id: session_id.clone(),
                    amount_nanos: 300_000_000,
                    currency: "USD".to_owned(),
                    description: "API credits".to_owned(),
                };
                payments::authorize(app, &caller, request, None).await.expect("every payment has an answer");
            }
        }
    }
}

fn len_of(dir: &Path) -> u64 {
    let Ok(items) = std::fs::read_dir(dir) else { return 0 };
    let len = |item: std::io::Result<std::fs::DirEntry>| match item {
        Ok(item) if item.path().is_dir() => len_of(&item.path()),
        Ok(item) => item.metadata().map_or(0, |metadata| metadata.len()),
        Err(_) => 0,
    };
    items.map(len).sum()
}
