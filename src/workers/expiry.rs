//! Records what the passing of time leads to while nobody asks: reservations that are given back, requests that nobody
//! decided.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::operations::App;
use crate::operations::timers::do_what_is_due;

/// Between two looks. Whoever asks for anything finds it done all the same: the writer looks before it decides.
const INTERVAL: Duration = Duration::from_secs(1);

/// Records what is due every second, until told to end.
pub async fn run(app: Arc<App>, mut end: oneshot::Receiver<()>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut end => return,
        }
        if let Err(error) = do_what_is_due(&app).await {
            tracing::warn!(%error, "what is due waits to be recorded");
        }
    }
}
