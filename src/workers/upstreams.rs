//! Asks upstreams now and then whether they are there, and whether their tools are still what they were.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use crate::operations::App;
use crate::operations::upstreams::check_all;

/// Looks at every upstream at every interval, until told to end.
pub async fn run(app: Arc<App>, interval: Duration, mut end: oneshot::Receiver<()>) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut end => return,
        }
        tokio::select! {
            () = check_all(&app) => {}
            _ = &mut end => return,
        }
    }
}
