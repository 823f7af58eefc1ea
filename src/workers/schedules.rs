//! Runs schedules of evidence packs that are due, now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::operations::App;
use crate::operations::compliance::runs::run_due;
use crate::outbound::mail::Mailer;

/// Looks for schedules that are due at once and every `interval`, until told to end. A run that has begun is left: what was
/// submitted happens, and what was not is due again.
pub async fn run(app: Arc<App>, mailer: Option<Mailer>, interval: Duration, mut end: oneshot::Receiver<()>) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut end => return,
        }
        tokio::select! {
            () = run_due(&app, mailer.as_ref()) => {}
            _ = &mut end => return,
        }
    }
}
