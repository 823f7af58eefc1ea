//! Haldir's HTTP server with the fixture mounted on it, where otherwise its own tools are.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use haldir::cli::installation::Installation;
use haldir::domain::id::RequestId;
use haldir::http::server::{self, Connections};
use haldir::ledger::clock::SystemClock;
use haldir::ledger::handle::{LedgerHandle, Parts, Sizes};
use haldir::ledger::random::OsRandom;
use haldir::mcp::access::Access;
use haldir::mcp::bridge::{self, Endpoint, Mode};
use haldir::operations::App;
use haldir::operations::call_facts::Patterns;
use haldir::operations::deliveries::Pauses;
use haldir::operations::keys::{self, Minter};
use haldir::operations::limits::{Limits, Windows};
use haldir::operations::open_calls::OnTheirWay;
use haldir::operations::upstreams::UpstreamHealth;
use haldir::operations::usage::Meter;
use haldir::operations::verification::Scrubbed;
use haldir::outbound::client::Client;
use haldir::outbound::names::SystemNames;
use haldir::proxy::settings::UpstreamSettings;
use haldir::proxy::upstreams::Upstreams;
use haldir::store::embedded::{EmbeddedPages, EmbeddedStore};
use haldir::store::snapshots::SnapshotFiles;
use haldir::vault::Vault;
use haldir::views::follower::Views;
use tempfile::TempDir;

use crate::fixture::Fixture;

/// Where the fixture is mounted.
pub(crate) const PATH: &str = "/mcp";

/// A server that runs until the process ends.
pub(crate) struct Mounted {
    pub(crate) address: SocketAddr,
    /// A key that may do everything.
    pub(crate) key: String,
    _dir: TempDir,
}

/// Starts the server on a free port.
pub(crate) fn serve(mode: Mode) -> Mounted {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let app = Arc::new(open(dir.path()));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let (started, key) = mpsc::channel();
    let fixture = Fixture::new();
    let endpoint = Arc::new(Endpoint::new(move || fixture.clone(), Access::loopback(), mode));
    let address = listener.local_addr().expect("it listens");
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            started.send(mint(&app).await).expect("somebody waits for the key");
            let connections = Connections { workers: 2, shutdown_timeout: Duration::ZERO };
            let mount = move |config: &mut actix_web::web::ServiceConfig| {
                config.service(bridge::resource(PATH, &endpoint));
            };
            let (server, _) = server::serve(app, listener, connections, mount).expect("it listens");
            server.await.expect("it serves until the process ends");
        });
    });
    Mounted { address, key: key.recv().expect("the server starts"), _dir: dir }
}

async fn mint(app: &App) -> String {
    let request_id = RequestId::issue(app.ledger.random().bytes());
    let request = keys::mint_request("conformance".to_owned(), vec!["*".to_owned()]).expect("all is a scope");
    let minted = keys::mint(app, Minter::Operator(None), &request_id, request, None).await;
    minted.expect("a new ledger takes its first key").key
}

fn open(dir: &Path) -> App {
    let installation = Installation::open_or_create(dir).expect("the directory can be made");
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
    let outbound = Client::new(Arc::new(SystemNames), false).expect("TLS can be set up");
    let upstreams = Upstreams::new(outbound.clone(), UpstreamSettings::default(), ledger.random().bytes());
    App {
        ledger,
        views: Views::open(Arc::new(pages), store, feed).expect("there are no views"),
        vault: Vault::in_memory(),
        outbound,
        upstreams: upstreams.expect("threads can be started"),
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
        is_stopping: tokio::sync::watch::Sender::new(false),
        public_url: std::sync::OnceLock::new(),
        bootstrap_token_hash: None,
    }
}
