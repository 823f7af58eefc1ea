//! A bare server to compare Haldir with: the same framework, threads, queue, store and group commit, and nothing else.
//! `tools/load` drives both in one run.
//!
//! - `GET /bare` answers with the JSON of `GET /v1/sessions/{id}`, from a value that is always the same.
//! - `POST /bare` does only what cannot be avoided: one thread chains the body, signs it, appends it and syncs, for
//!   all bodies that wait at once, and then answers with as much JSON as `POST /v1/audit` does.
//!
//! There is no key, no check, no state, no view, no middleware.
//!
//! `cargo bench --bench bare_route -- --port 0 [--data-dir DIR] [--workers N]` prints the address and serves until it is
//! told to stop. Without `--port`, it says how it is used and ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use actix_web::error::{ErrorInternalServerError, ErrorServiceUnavailable};
use actix_web::{App, HttpResponse, HttpServer, rt, web};
use crossbeam_channel::{Receiver, Sender, bounded};
use haldir::domain::id::TenantId;
use haldir::domain::money::Money;
use haldir::domain::time::Timestamp;
use haldir::format::chain::{EntryHash, Signer};
use haldir::ledger::handle::Sizes;
use haldir::operations::audit::LoggedAction;
use haldir::operations::sessions::SessionView;
use haldir::operations::wire::{Epoch, Usd};
use haldir::store::embedded::EmbeddedStore;
use haldir::store::{EventStore as _, Head, StreamAppend};
use tokio::sync::oneshot;

#[allow(dead_code, reason = "each benchmark uses its part")]
mod fixture;

/// As long as in Haldir.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// A body, and where its answer goes.
type Message = (web::Bytes, oneshot::Sender<EntryHash>);

/// What the command line says.
#[derive(Default)]
struct Arguments {
    port: Option<u16>,
    data_dir: Option<PathBuf>,
    workers: Option<usize>,
}

impl Arguments {
    /// Reads the command line. Whatever `cargo` adds for other benchmarks is not looked at.
    fn read() -> Self {
        let mut arguments = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--port" => arguments.port = words.next().and_then(|port| port.parse().ok()),
                "--data-dir" => arguments.data_dir = words.next().map(PathBuf::from),
                "--workers" => arguments.workers = words.next().and_then(|count| count.parse().ok()),
                _ => {}
            }
        }
        arguments
    }
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::read();
    let Some(port) = arguments.port else {
        anstream::println!(
            "usage: cargo bench --bench bare_route -- --port PORT [--data-dir DIR] [--workers N]"
        );
        return Ok(());
    };
    let temporary = arguments.data_dir.is_none().then(fixture::directory);
    let data_dir = arguments
        .data_dir
        .or_else(|| temporary.as_ref().map(|dir| dir.path().to_path_buf()))
        .unwrap_or_default();
    let workers = arguments
        .workers
        .or_else(|| thread::available_parallelism().ok().map(std::num::NonZero::get))
        .unwrap_or(1);

    let store = EmbeddedStore::open(&data_dir).expect("the data directory is empty and nobody else uses it");
    let sizes = Sizes::default();
    let (inbox, messages) = bounded(sizes.queue_len);
    let writer = thread::spawn(move || write(&messages, &store, &fixture::signer(), sizes.batch_len_max));
    rt::System::new().block_on(serve(port, workers, inbox))?;
    writer.join().expect("the writer does not panic");
    Ok(())
}

async fn serve(port: u16, workers: usize, inbox: Sender<Message>) -> std::io::Result<()> {
    let inbox = web::Data::new(inbox);
    let session = web::Data::new(Arc::new(session()));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(inbox.clone())
            .app_data(session.clone())
            .service(web::resource("/bare").route(web::get().to(read)).route(web::post().to(append)))
    });
    let server = server.workers(workers).keep_alive(KEEP_ALIVE).bind(("127.0.0.1", port))?;
    for address in server.addrs() {
        anstream::println!("bare routes on http://{address}");
    }
    server.run().await
}

async fn read(session: web::Data<Arc<SessionView>>) -> HttpResponse {
    HttpResponse::Ok().json(&**session.get_ref())
}

async fn append(inbox: web::Data<Sender<Message>>, body: web::Bytes) -> actix_web::Result<HttpResponse> {
    let (reply, answer) = oneshot::channel();
    inbox.try_send((body, reply)).map_err(|_| ErrorServiceUnavailable("busy"))?;
    let hash = answer.await.map_err(ErrorInternalServerError)?;
    Ok(HttpResponse::Ok().json(LoggedAction {
        logged: true,
        entry_id: format!("aud_{}", &hash.to_string()[..22]),
        flagged: false,
        flag_reason: String::new(),
    }))
}

/// Haldir's writer without its rules: chains, signs, appends and syncs whatever waits, then answers.
fn write(messages: &Receiver<Message>, store: &EmbeddedStore, signer: &Signer, batch_len_max: usize) {
    let tenant: TenantId = fixture::tenant_id();
    let mut end: Option<Head> = None;
    while let Ok(first) = messages.recv() {
        let waiting = messages.try_iter().take(batch_len_max - 1);
        let mut head = end.unwrap_or(Head { size: 0, hash: EntryHash::GENESIS });
        let mut entries = Vec::new();
        let mut answers = Vec::new();
        for (body, reply) in std::iter::once(first).chain(waiting) {
            let mut entry = [&head.hash.0[..], &body].concat();
            let hash = EntryHash::of(&entry);
            entry.extend_from_slice(&hash.0);
            entry.extend_from_slice(&signer.sign(&hash));
            entries.push(entry);
            answers.push((reply, hash));
            head = Head { size: head.size + 1, hash };
        }
        let batch = [StreamAppend { tenant: tenant.clone(), expected: end, entries, head, side: Vec::new() }];
        let written = store.append(&batch).and_then(|()| store.sync());
        written.expect("the disk works and nobody else appends");
        end = Some(head);
        for (reply, hash) in answers {
            // A caller that went away is not missed.
            let _ = reply.send(hash);
        }
    }
}

/// A session as `tools/load` opens one.
fn session() -> SessionView {
    let created_at = Timestamp::from_micros(1_795_000_000_123_456);
    SessionView {
        session_id: fixture::session_id(0).to_string(),
        agent_id: "load".to_owned(),
        scopes: vec!["read".to_owned(), "spend".to_owned()],
        spend_limit: Usd(Money::ZERO),
        unlimited: true,
        spent: Usd(Money::from_nanos(1_234_560_000_000)),
        remaining_budget: Usd(Money::ZERO),
        is_valid: true,
        created_at: Epoch(created_at),
        expires_at: Epoch(created_at.plus_seconds(86_400)),
        parent_session_id: String::new(),
        own_spent: Usd(Money::ZERO),
        held: Usd(Money::ZERO),
        delegation_depth: 0,
    }
}
