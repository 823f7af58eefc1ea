//! Verifies every stream from its first entry, over and over, so that a wrong byte is found while a backup still has the right
//! one.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::operations::App;
use crate::operations::verification::{resume_scrub, scrub};

/// Of the time of all cores, what the scrub leaves to others: it rests four times as long as it works.
const REST_FACTOR: u32 = 4;

/// The thread, until it is waited for.
pub struct Scrubber {
    thread: Mutex<Option<JoinHandle<()>>>,
    bell: Arc<Bell>,
}

/// Ends rests early.
#[derive(Default)]
struct Bell {
    is_over: Mutex<bool>,
    rung: Condvar,
}

impl Scrubber {
    /// Starts scrubbing: a pass over all streams now, and another one each `interval` after the end of the last.
    ///
    /// # Errors
    ///
    /// The operating system's, when there can be no thread.
    pub fn start(app: Arc<App>, interval: Duration) -> std::io::Result<Self> {
        let bell = Arc::new(Bell::default());
        let rung = Arc::clone(&bell);
        let thread =
            std::thread::Builder::new().name("scrub".to_owned()).spawn(move || run(&app, interval, &rung))?;
        Ok(Self { thread: Mutex::new(Some(thread)), bell })
    }

    /// Ends, in the middle of a pass if need be.
    pub fn close(&self) {
        *self.bell.is_over.lock() = true;
        self.bell.rung.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

fn run(app: &App, interval: Duration, bell: &Bell) {
    let tenants = || -> Vec<_> { app.ledger.read().streams().map(|(tenant, _)| tenant.clone()).collect() };
    for tenant in tenants() {
        if let Err(error) = resume_scrub(app, &tenant) {
            tracing::warn!(%tenant, %error, "what was verified before this start is verified again");
        }
    }
    loop {
        for tenant in tenants() {
            let now = || app.ledger.clock().now().micros();
            let mut started = now();
            let scrubbed = scrub(app, &tenant, || {
                let worked = Duration::from_micros(now().saturating_sub(started));
                let is_over = bell.rest(worked * REST_FACTOR);
                started = now();
                if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            if let Err(error) = scrubbed {
                tracing::error!(%tenant, %error, "a stream could not be verified");
            }
        }
        if bell.rest(interval) {
            return;
        }
    }
}

impl Bell {
    /// Rests, unless it is over. Whether it is.
    fn rest(&self, how_long: Duration) -> bool {
        let mut is_over = self.is_over.lock();
        if !*is_over {
            self.rung.wait_for(&mut is_over, how_long);
        }
        *is_over
    }
}
