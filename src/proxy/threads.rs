//! The threads that connections live on.
//!
//! Each connection stays on one thread, where its messages keep their order.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::mpsc;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::address::Line;

/// Threads at most: connections wait for others most of the time.
const COUNT_MAX: usize = 4;

/// The threads. They end when this is dropped, and with them whatever still runs there.
pub(super) struct Threads {
    running: Vec<(Handle, oneshot::Sender<()>)>,
}

impl Threads {
    /// Starts one for each core, a few at most.
    ///
    /// # Errors
    ///
    /// A sentence, when a thread cannot be started.
    pub(super) fn start() -> Result<Self, String> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let running = (0..cores.min(COUNT_MAX)).map(|_| start_one()).collect::<Result<_, _>>();
        Ok(Self { running: running.map_err(|error| format!("threads for upstreams: {error}"))? })
    }

    /// The thread of a connection.
    pub(super) fn of(&self, line: &Line) -> &Handle {
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        let count = u64::try_from(self.running.len()).unwrap_or(1).max(1);
        let index = usize::try_from(hasher.finish() % count).unwrap_or(0);
        &self.running[index].0
    }

    /// Any of them.
    pub(super) fn any(&self) -> &Handle {
        &self.running[0].0
    }
}

fn start_one() -> std::io::Result<(Handle, oneshot::Sender<()>)> {
    let (end, ended) = oneshot::channel::<()>();
    let (started, starting) = mpsc::channel();
    let run = move || {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        let _ = started.send(Ok(runtime.handle().clone()));
        let _ = runtime.block_on(ended);
        // A look-up of a name may still be under way, and nobody waits for it.
        runtime.shutdown_background();
    };
    std::thread::Builder::new().name("upstreams".to_owned()).spawn(run)?;
    let handle = starting.recv().map_err(std::io::Error::other)??;
    Ok((handle, end))
}
