//! `haldir serve`: make or open the installation, listen, serve, drain.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::client::{read_config, write_config};
use super::complain;
use super::installation::Installation;
use super::ledger::custody;
use crate::config::{MailServer, Settings, Sources, UpstreamTrust};
use crate::domain::id::{RequestId, TenantId};
use crate::http::server::{Connections, serve};
use crate::ledger::clock::SystemClock;
use crate::ledger::handle::{LedgerHandle, Parts, Sizes};
use crate::ledger::random::{OsRandom, Random};
use crate::ledger::snapshots::Snapshots;
use crate::mcp::access::Access;
use crate::mcp::routes::Endpoints;
use crate::operations::call_facts::Patterns;
use crate::operations::deliveries::Pauses;
use crate::operations::keys::{self, Minter, hash_of};
use crate::operations::limits::{Limits, Windows};
use crate::operations::open_calls::OnTheirWay;
use crate::operations::upstreams::UpstreamHealth;
use crate::operations::usage::Meter;
use crate::operations::verification::Scrubbed;
use crate::operations::{App, secrets, vault};
use crate::outbound::client::Client;
use crate::outbound::mail::{MailSettings, Mailer};
use crate::outbound::names::SystemNames;
use crate::proxy::settings::UpstreamSettings;
use crate::proxy::upstreams::{IDLE_CONNECTION_COUNT_MAX, Upstreams};
use crate::store::embedded::{EmbeddedPages, EmbeddedStore};
use crate::store::snapshots::SnapshotFiles;
use crate::telemetry;
use crate::views::follower::Views;
use crate::workers;
use crate::workers::control::Control;
use crate::workers::scrub::Scrubber;

/// How long upstreams may take to end when the server stops.
const UPSTREAMS_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the server until it is told to stop.
#[must_use]
pub fn run(sources: Sources) -> ExitCode {
    let outcome = sources.resolve().and_then(|settings| {
        telemetry::init(&settings.log_level, settings.log_json)?;
        rt::System::new().block_on(start(&settings))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

async fn start(settings: &Settings) -> Result<(), String> {
    let mailer = settings.mail.as_ref().map(mailer).transpose()?;
    let installation = Installation::open_or_create(&settings.data_dir)?;
    let app = Arc::new(open_app(settings, &installation)?);
    tidy_vault(&app)?;
    let snapshots = Snapshots::start(&app.ledger, settings.snapshot_every)
        .map_err(|error| format!("snapshots: {error}"))?;
    let listener = TcpListener::bind((settings.host.as_str(), settings.port))
        .map_err(|error| format!("cannot listen on {}:{}: {error}", settings.host, settings.port))?;
    // Before anybody is told that the server listens: whoever reads that may stop it at once.
    let stop = stop_signal()?;
    let connections = Connections { workers: settings.workers, shutdown_timeout: settings.shutdown_timeout };
    let url = base_url(&listener)?;
    app.public_url.get_or_init(|| settings.public_url.clone().unwrap_or_else(|| url.clone()));
    let endpoints = endpoints(&app, settings, &listener)?;
    let (others, ending) = (endpoints.clone(), endpoints.clone());
    let (server, address) =
        serve(Arc::clone(&app), listener, connections, move |config: &mut _| others.configure(config))
            .map_err(|error| format!("cannot serve: {error}"))?;

    let admin = if settings.no_key { AdminKey::None } else { admin_key(&app, &installation).await? };
    let new_key = if let AdminKey::New(key) = &admin { Some(key.as_str()) } else { None };
    if !settings.no_key {
        write_config(&installation, new_key, &url)?;
    }
    greet(&app, &installation, &url, address, &admin);

    let scrubber = Scrubber::start(Arc::clone(&app), settings.scrub_interval)
        .map_err(|error| format!("the scrub cannot start: {error}"))?;
    let control = Control::open(Arc::clone(&app), installation.dir());
    if let Err(error) = &control {
        tracing::warn!(%error, "no control socket: backups need the server to be stopped");
    }
    let (end_expiry, expiry_ends) = oneshot::channel();
    let expiry = rt::spawn(workers::expiry::run(Arc::clone(&app), expiry_ends));
    let (end_checkpoints, checkpoints_end) = oneshot::channel();
    let checkpoints =
        rt::spawn(workers::checkpoints::run(Arc::clone(&app), settings.checkpoint_interval, checkpoints_end));
    let (end_deliveries, deliveries_end) = oneshot::channel();
    let deliveries = rt::spawn(workers::deliveries::run(Arc::clone(&app), deliveries_end));
    let (end_looks, looks_end) = oneshot::channel();
    let looks = rt::spawn(workers::upstreams::run(Arc::clone(&app), settings.upstreams.interval, looks_end));
    let (end_metering, metering_ends) = oneshot::channel();
    let metering = rt::spawn(record_usage(Arc::clone(&app), settings.meter_interval, metering_ends));
    let (end_schedules, schedules_end) = oneshot::channel();
    let schedules = settings.compliance_interval.map(|interval| {
        rt::spawn(workers::schedules::run(Arc::clone(&app), mailer, interval, schedules_end))
    });
    let handle = server.handle();
    let stopping = Arc::clone(&app);
    rt::spawn(async move {
        stop.await;
        stopping.is_stopping.send_replace(true);
        endpoints.stop();
        handle.stop(true).await;
    });
    let served = server.await.map_err(|error| format!("the server failed: {error}"));
    ending.end(UPSTREAMS_TIMEOUT).await;
    app.upstreams.close_all(UPSTREAMS_TIMEOUT).await;
    // Ended and not aborted: between a reading's commit and its being forgotten here it would be recorded twice.
    let _ = end_metering.send(());
    let _ = end_checkpoints.send(());
    let _ = end_schedules.send(());
    if let Some(schedules) = schedules {
        let _ = schedules.await;
    }
    let _ = end_deliveries.send(());
    let _ = end_looks.send(());
    let _ = end_expiry.send(());
    let _ = metering.await;
    let _ = checkpoints.await;
    let _ = deliveries.await;
    let _ = expiry.await;
    let _ = looks.await;
    scrubber.close();
    if let Ok(control) = control {
        control.close();
    }
    drain(&app).await;
    snapshots.close();
    served
}

/// Completes what a crash left undone in the vault, before anybody stores; and says what is missing, meanwhile.
fn tidy_vault(app: &Arc<App>) -> Result<(), String> {
    let swept = secrets::sweep(app).map_err(|error| format!("vault: {error}"))?;
    if swept.destroyed > 0 {
        tracing::info!(count = swept.destroyed, "sealed values that the ledger does not keep were destroyed");
    }
    if swept.missing > 0 {
        tracing::error!(count = swept.missing, "sealed values are missing: their secrets cannot be read");
    }
    let app = Arc::clone(app);
    let look = move || vault::report_missing_keys(&app);
    std::thread::Builder::new().name("vault".to_owned()).spawn(look).map_err(|error| error.to_string())?;
    Ok(())
}

fn mailer(server: &MailServer) -> Result<Mailer, String> {
    let MailServer { host, port, login, from, uses_tls } = server.clone();
    Mailer::new(&MailSettings { host, port, login, from, uses_tls })
}

/// Waits for SIGTERM or SIGINT, which are caught from this call on.
fn stop_signal() -> Result<impl Future<Output = ()>, String> {
    let caught = |kind| signal(kind).map_err(|error| format!("cannot catch signals: {error}"));
    let (mut terminate, mut interrupt) = (caught(SignalKind::terminate())?, caught(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("stopping on SIGTERM"),
            _ = interrupt.recv() => tracing::info!("stopping on SIGINT"),
        }
    })
}

/// Opens ledger and views.
pub(super) fn open_app(settings: &Settings, installation: &Installation) -> Result<App, String> {
    let random: Arc<dyn Random> = Arc::new(OsRandom::default());
    custody::finish_rotation(installation)?;
    let signer = installation.signer(&*random)?;
    let retry_secret = installation.retry_secret(&*random)?;
    let store =
        EmbeddedStore::open(&installation.ledger_dir()?).map_err(|error| format!("ledger: {error}"))?;
    let store = Arc::new(store.leaving_free(settings.disk_reserve));
    let sizes = Sizes { queue_len: settings.queue_len, batch_len_max: settings.batch_len_max };
    let snapshots = Arc::new(SnapshotFiles::new(&installation.snapshots_dir()?));
    let clock = Arc::new(SystemClock);
    let former_keys = installation.former_keys()?;
    let vault = installation.vault(&settings.master_keys, Arc::clone(&random))?;
    let parts = Parts { store: store.clone(), snapshots, signer, former_keys, clock, random, sizes };
    let (ledger, feed) = LedgerHandle::open(parts).map_err(|error| {
        format!(
            "the ledger is not served: {error}\nrestore a backup; copy the directory before anything else looks at it, because \
             the store may overwrite what it takes for a torn end"
        )
    })?;
    let pages = EmbeddedPages::open(&installation.views_dir()?).map_err(|error| format!("views: {error}"))?;
    let views = Views::open(Arc::new(pages), store, feed).map_err(|error| format!("views: {error}"))?;
    let outbound = Client::new(Arc::new(SystemNames), settings.allow_private_outbound)?;
    let upstreams = upstreams(settings, ledger.random().bytes())?;
    Ok(App {
        ledger,
        views,
        vault,
        outbound,
        upstreams,
        upstream_health: UpstreamHealth::default(),
        on_their_way: OnTheirWay::default(),
        patterns: Patterns::default(),
        pauses: settings.webhook_pauses.clone().map_or_else(Pauses::default, Pauses::new),
        meter: Meter::default(),
        windows: Windows::default(),
        limits: Limits {
            requests_per_hour: settings.requests_per_hour,
            requests_per_month: settings.requests_per_month,
            agents: settings.agents,
        },
        retry_secret,
        former_keys: installation.former_keys()?,
        certificates: installation.certificates()?,
        scrubbed: Scrubbed::default(),
        is_stopping: watch::Sender::new(false),
        public_url: std::sync::OnceLock::new(),
        bootstrap_token_hash: settings.bootstrap_token.as_deref().map(hash_of),
    })
}

fn upstreams(settings: &Settings, digest_key: [u8; 32]) -> Result<Upstreams, String> {
    let UpstreamTrust { commands, timeout, timeout_max, answer_len_max, child_count_max, .. } =
        settings.upstreams.clone();
    let trust = UpstreamSettings {
        commands,
        call_timeout: timeout,
        call_timeout_max: timeout_max,
        answer_len_max,
        child_count_max,
    };
    let names = Arc::new(SystemNames);
    let client = Client::with_idle(names, settings.allow_private_outbound, IDLE_CONNECTION_COUNT_MAX)?;
    Upstreams::new(client, trust, digest_key)
}

/// The key that the CLI uses.
enum AdminKey {
    /// None was wanted.
    None,
    /// The one that the CLI has.
    Known(String),
    /// A new one.
    New(String),
}

/// The CLI's key if it works; else a new one, for the first tenant there is.
async fn admin_key(app: &App, installation: &Installation) -> Result<AdminKey, String> {
    let request_id = RequestId::issue(app.ledger.random().bytes());
    let config = read_config(installation.dir());
    if let Some(caller) =
        config.get("api_key").and_then(|key| key.as_str()).and_then(|key| app.authenticate(key, &request_id))
    {
        return Ok(AdminKey::Known(caller.prefix.to_string()));
    }
    let request =
        keys::mint_request("local".to_owned(), vec!["*".to_owned()]).map_err(|error| error.to_string())?;
    let minted = keys::mint(app, Minter::Operator(first_tenant(app)), &request_id, request, None).await;
    Ok(AdminKey::New(minted.map_err(|error| error.to_string())?.key))
}

/// The tenant whose first key is the oldest.
fn first_tenant(app: &App) -> Option<TenantId> {
    let world = app.ledger.read();
    let founded = world.streams().filter_map(|(tenant, stream)| {
        let oldest = stream.tenant.keys.newest_first().last().map(|(_, key)| key.created_at);
        Some((oldest?, tenant.clone()))
    });
    founded.min().map(|(_, tenant)| tenant)
}

/// What clients of the Model Context Protocol reach.
fn endpoints(app: &Arc<App>, settings: &Settings, listener: &TcpListener) -> Result<Endpoints, String> {
    let cannot = |error| format!("cannot serve /mcp: {error}");
    let address = listener.local_addr().map_err(cannot)?;
    let access = Access::new(address, settings.public_url.as_deref(), &settings.mcp_hosts);
    Endpoints::start(app, access).map_err(cannot)
}

/// How clients on this machine reach the server.
fn base_url(listener: &TcpListener) -> Result<String, String> {
    let address = listener.local_addr().map_err(|error| format!("cannot serve: {error}"))?;
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    Ok(format!("http://{host}:{}", address.port()))
}

fn greet(app: &App, installation: &Installation, url: &str, address: SocketAddr, admin: &AdminKey) {
    let dir = installation.dir().display();
    anstream::println!("Haldir {} listens on {url}", env!("CARGO_PKG_VERSION"));
    anstream::println!("  data         {dir}");
    anstream::println!("  signed by    {} (public key: {dir}/signing.pub)", app.ledger.public_key().id());
    match admin {
        AdminKey::None => anstream::println!("  admin key    none (--no-key)"),
        AdminKey::Known(prefix) => anstream::println!("  admin key    {prefix}… (in {dir}/config.json)"),
        AdminKey::New(key) => {
            anstream::println!("  admin key    {key}");
            anstream::println!("               shown this once, and kept in {dir}/config.json for the CLI");
        }
    }
    anstream::println!();
    anstream::println!("Try next:");
    match admin {
        AdminKey::New(key) => anstream::println!("  export HALDIR_API_KEY={key}"),
        AdminKey::Known(_) => anstream::println!("  export HALDIR_API_KEY=…   # the key in config.json"),
        AdminKey::None => {
            anstream::println!("  curl -s -X POST {url}/v1/keys   # the first key is free from this machine");
        }
    }
    anstream::println!("  curl -s {url}/v1/sessions -H \"Authorization: Bearer $HALDIR_API_KEY\" \\");
    anstream::println!("       -d '{{\"agent_id\":\"my-agent\",\"scopes\":[\"read\",\"spend:5\"]}}'");
    anstream::println!("  haldir --url {url} audit verify");
    if !address.ip().is_loopback() {
        anstream::println!();
        anstream::println!(
            "Everyone who reaches {address} can talk to this server, without TLS. Put TLS in front of it."
        );
    }
    // Whoever started the server may be waiting for these lines.
    let _ = std::io::Write::flush(&mut std::io::stdout());
}

/// Records metered calls now and then, until told to end.
async fn record_usage(app: Arc<App>, interval: Duration, mut end: oneshot::Receiver<()>) {
    let mut ticks = rt::time::interval(interval);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut end => return,
        }
        if let Err(error) = app.meter.record_all(&app).await {
            tracing::warn!(%error, "metered calls wait to be recorded");
        }
    }
}

/// Records what is left, and waits until everything that was accepted is on disk.
async fn drain(app: &App) {
    if let Err(error) = app.meter.record_all(app).await {
        tracing::warn!(%error, "metered calls were not recorded");
    }
    app.ledger.close();
    app.views.close();
    tracing::info!("stopped");
}
