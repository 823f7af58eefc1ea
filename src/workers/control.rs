//! The operator's door: a Unix socket in the data directory, `control.sock`. Whoever may open it may read everything anyway, so
//! it asks for no key.
//!
//! One connection is one request: a line with a word or two, then the answer until the end of the connection. `backup` answers a
//! backup; one that ends without its last line broke off. `vault keys` and `vault rotate` answer one line of JSON.

use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::operations::backup::BackupWriter;
use crate::operations::export::{self, Range};
use crate::operations::{App, OperationError, vault};

/// The socket's name.
pub const SOCKET: &str = "control.sock";
/// How long a visitor may take to say its request, or to take the next piece of the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The thread that waits at the door.
pub struct Control {
    path: PathBuf,
    is_over: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Control {
    /// Opens the door in a data directory that this process holds.
    ///
    /// # Errors
    ///
    /// The operating system's, for example for a path that is too long for a socket.
    pub fn open(app: Arc<App>, dir: &Path) -> std::io::Result<Self> {
        let path = dir.join(SOCKET);
        // What a process that was killed left behind. Nobody listens there: we hold the directory.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            for visitor in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let answered = visitor.and_then(|visitor| answer(&app, visitor));
                if let Err(error) = answered {
                    tracing::warn!(%error, "a request of the operator's was not answered");
                }
            }
        })?;
        Ok(Self { path, is_over, thread: Mutex::new(Some(thread)) })
    }

    /// Closes the door.
    pub fn close(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        // The thread waits for a visitor: this one comes to tell it.
        let _ = UnixStream::connect(&self.path);
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

fn answer(app: &Arc<App>, visitor: UnixStream) -> std::io::Result<()> {
    visitor.set_read_timeout(Some(PATIENCE))?;
    visitor.set_write_timeout(Some(PATIENCE))?;
    let mut word = String::new();
    BufReader::new(&visitor).read_line(&mut word)?;
    let mut out = BufWriter::with_capacity(1 << 20, visitor);
    match word.trim() {
        "backup" => backup(app, out),
        "vault keys" => in_one_line(out, vault::report(app, None)),
        "vault rotate" => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            in_one_line(out, runtime.block_on(vault::rotate_primary(Arc::clone(app))))
        }
        "" => Ok(()),
        _ => writeln!(out, "unknown request").and_then(|()| out.flush()),
    }
}

/// What is answered in one line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<T> {
    /// It was done, and this came of it.
    Done(T),
    /// It was not done, and why.
    Error(String),
}

fn in_one_line<T: Serialize>(
    mut out: BufWriter<UnixStream>,
    done: Result<T, OperationError>,
) -> std::io::Result<()> {
    let answer = done.map_or_else(|error| Answer::Error(error.to_string()), Answer::Done);
    serde_json::to_writer(&mut out, &answer)?;
    writeln!(out)?;
    out.flush()
}

fn backup(app: &Arc<App>, out: BufWriter<UnixStream>) -> std::io::Result<()> {
    // One look at the world: every stream as it was at one moment.
    let world = app.ledger.read().clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut writer = BackupWriter::begin(out, app.ledger.clock().now())?;
    for (tenant, stream) in world.streams() {
        let range = Range { until_seq: Some(stream.head.size), ..Range::default() };
        let mut plan = runtime.block_on(export::plan(app, tenant, range)).map_err(std::io::Error::other)?;
        // What came after that moment is not missing from the backup.
        plan.stream_size = stream.head.size;
        writer.stream(app.ledger.store(), plan)?;
        writer.sealed(app.vault.cabinet(), tenant)?;
    }
    writer.finish()
}
