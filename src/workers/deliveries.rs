//! Delivers notifications: watches what is outstanding, and gives each webhook a lane of its own.
//!
//! What is to be delivered stands in the ledger's state and nowhere else, so a process that ends, however it ends, is
//! followed by one that goes on. Lanes only hold what is under way: a webhook that answers gets a few deliveries at once, one
//! that fails gets a single one, with growing pauses, and nobody else waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{Id, JoinError, JoinSet};

use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use crate::ledger::world::Stream;
use crate::operations::deliveries::{Due, attempt, destroy_retired, record};
use crate::operations::{App, OperationError};

/// Deliveries at once to a webhook that answers.
const LANE_WIDTH: usize = 8;
/// Deliveries at once to webhooks that answer, and as many to those that fail, so that these do not take the others' places.
const POOL_LEN: usize = 256;
/// The pause after the second failure of a webhook in a row; each further one doubles it. A single one is taken for chance.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long to rest when there is news: under load there is some every fraction of a millisecond. Nobody rests when a
/// delivery has ended, because its place is free.
const REST: Duration = Duration::from_millis(5);
/// How long to wait for news at most. Nothing depends on it: clocks that jump are caught up with.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How long deliveries that are under way may take when the server stops. They are sent again after the next start.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before an outcome that the ledger has no room for is offered to it again.
const RECORD_PAUSE: Duration = Duration::from_millis(250);

/// Delivers until told to end.
pub async fn run(app: Arc<App>, mut end: oneshot::Receiver<()>) {
    let mut news = app.ledger.watch();
    let mut dispatcher =
        Dispatcher { app, lanes: BTreeMap::new(), running: BTreeMap::new(), destroyed: BTreeSet::new() };
    let mut tasks = JoinSet::new();
    loop {
        news.mark_unchanged();
        let wait = dispatcher.dispatch(&mut tasks).await;
        tokio::select! {
            _ = &mut end => break,
            Some(done) = tasks.join_next_with_id() => {
                dispatcher.book(done);
                while let Some(done) = tasks.try_join_next_with_id() {
                    dispatcher.book(done);
                }
            }
            changed = news.changed() => match changed {
                Ok(()) => tokio::time::sleep(REST).await,
                Err(_) => break,
            },
            () = tokio::time::sleep(wait) => {}
        }
        if dispatcher.app.ledger.health().failure().is_some() {
            // What cannot be recorded must not be sent over and over.
            tracing::error!("nothing is delivered any more: the ledger accepts no writes");
            break;
        }
    }
    let ended = tokio::time::timeout(STOP_TIMEOUT, async { while tasks.join_next().await.is_some() {} });
    if ended.await.is_err() {
        tracing::info!(
            count = tasks.len(),
            "deliveries under way are left, and made again after the next start"
        );
    }
}

/// A webhook.
type LaneKey = (TenantId, u64);

/// What is under way to one webhook.
#[derive(Default)]
struct Lane {
    under_way: BTreeSet<u64>,
    /// One less than how many deliveries may be under way: it grows with each answer, and each failure halves it.
    opened: usize,
    /// Failures since the last answer.
    failures: u32,
    /// Until when nothing is sent.
    paused_until: Timestamp,
}

/// What came of a delivery, as far as its lane cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The receiver answered, and is there.
    Answered,
    /// It did not answer, or said that it cannot now.
    Failed,
    /// There was nothing to do any more.
    Gone,
}

struct Dispatcher {
    app: Arc<App>,
    lanes: BTreeMap<LaneKey, Lane>,
    running: BTreeMap<Id, (LaneKey, u64)>,
    /// Secrets whose sealed values were destroyed since the start.
    destroyed: BTreeSet<(TenantId, [u8; 32])>,
}

impl Lane {
    fn width(&self) -> usize {
        1 + self.opened
    }

    fn is_idle(&self, now: Timestamp) -> bool {
        self.under_way.is_empty() && self.failures == 0 && self.paused_until <= now
    }

    fn end(&mut self, ended: Ended, now: Timestamp) {
        match ended {
            Ended::Answered => {
                self.opened = (self.opened + 1).min(LANE_WIDTH - 1);
                self.failures = 0;
            }
            Ended::Failed => {
                self.opened /= 2;
                if self.failures > 0 {
                    let pause = PAUSE_FIRST.saturating_mul(1 << (self.failures - 1).min(16)).min(PAUSE_MAX);
                    self.paused_until = later(now, pause);
                }
                self.failures = self.failures.saturating_add(1);
            }
            Ended::Gone => {}
        }
    }
}

impl Dispatcher {
    /// Starts what is due, and tells how long there is nothing else to start.
    async fn dispatch(&mut self, tasks: &mut JoinSet<Ended>) -> Duration {
        let now = self.app.ledger.clock().now();
        let world = self.app.ledger.read().clone();
        let mut next = later(now, WAIT_MAX);
        self.lanes.retain(|_, lane| !lane.is_idle(now) || lane.opened > 0);
        for (tenant, stream) in world.streams() {
            next = next.min(self.start_due(tenant, stream, now, tasks));
            next = next.min(self.destroy_secrets(tenant, stream, now).await);
        }
        Duration::from_micros(next.micros().saturating_sub(now.micros()))
    }

    fn start_due(
        &mut self,
        tenant: &TenantId,
        stream: &Stream,
        now: Timestamp,
        tasks: &mut JoinSet<Ended>,
    ) -> Timestamp {
        let webhooks = &stream.tenant.webhooks;
        let mut next = Timestamp::from_micros(u64::MAX);
        if webhooks.outstanding_count() == 0 {
            return next;
        }
        for (webhook_id, _) in webhooks.live() {
            let key = (tenant.clone(), webhook_id);
            let is_failing = self.lanes.get(&key).is_some_and(|lane| lane.failures > 0);
            let mut room = POOL_LEN.saturating_sub(self.pool_len(is_failing));
            let lane = self.lanes.entry(key.clone()).or_default();
            if lane.paused_until > now {
                next = next.min(lane.paused_until);
                continue;
            }
            for (due_at, source_seq) in webhooks.due(webhook_id) {
                if due_at > now {
                    next = next.min(due_at);
                    break;
                }
                // Whatever ends wakes us: there is no need to know when there is room again.
                if lane.under_way.len() >= lane.width() || room == 0 {
                    break;
                }
                if lane.under_way.insert(source_seq) {
                    room -= 1;
                    let due = Due { tenant: tenant.clone(), webhook_id, source_seq };
                    let task = tasks.spawn(deliver(Arc::clone(&self.app), due));
                    self.running.insert(task.id(), (key.clone(), source_seq));
                }
            }
        }
        next
    }

    /// Deliveries under way to webhooks that fail, or to those that do not.
    fn pool_len(&self, is_failing: bool) -> usize {
        let lanes = self.lanes.values().filter(|lane| (lane.failures > 0) == is_failing);
        lanes.map(|lane| lane.under_way.len()).sum()
    }

    /// Books the end of a delivery, also of one that panicked.
    fn book(&mut self, done: Result<(Id, Ended), JoinError>) {
        let (id, ended) = match done {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "a delivery failed in an unexpected way");
                (error.id(), Ended::Failed)
            }
        };
        let now = self.app.ledger.clock().now();
        if let Some((key, source_seq)) = self.running.remove(&id)
            && let Some(lane) = self.lanes.get_mut(&key)
        {
            lane.under_way.remove(&source_seq);
            lane.end(ended, now);
        }
    }

    /// Destroys the sealed values of secrets that sign no more, and tells when the next one is due.
    async fn destroy_secrets(&mut self, tenant: &TenantId, stream: &Stream, now: Timestamp) -> Timestamp {
        let webhooks = &stream.tenant.webhooks;
        let is_new = |digest: &&[u8; 32]| !self.destroyed.contains(&(tenant.clone(), **digest));
        let retired: Vec<[u8; 32]> = webhooks.retired(now).filter(is_new).copied().collect();
        if !retired.is_empty() {
            match destroy_retired(&self.app, tenant, retired.clone()).await {
                Ok(()) => self.destroyed.extend(retired.into_iter().map(|digest| (tenant.clone(), digest))),
                Err(error) => tracing::warn!(%tenant, %error, "old webhook secrets wait to be destroyed"),
            }
        }
        webhooks.next_retirement(now).unwrap_or(Timestamp::from_micros(u64::MAX))
    }
}

/// One attempt, and its record.
async fn deliver(app: Arc<App>, due: Due) -> Ended {
    let attempt = match attempt(&app, &due).await {
        Ok(Some(attempt)) => attempt,
        Ok(None) => return Ended::Gone,
        Err(error) => {
            tracing::error!(tenant = %due.tenant, due.webhook_id, due.source_seq, %error, "a delivery cannot be made");
            return Ended::Failed;
        }
    };
    loop {
        match record(&app, &attempt).await {
            Ok(()) if attempt.is_receiver_there => return Ended::Answered,
            Ok(()) => return Ended::Failed,
            Err(OperationError::Busy | OperationError::Full) => tokio::time::sleep(RECORD_PAUSE).await,
            Err(error) => {
                tracing::error!(tenant = %due.tenant, due.webhook_id, %error, "a delivery was not recorded");
                return Ended::Failed;
            }
        }
    }
}

fn later(now: Timestamp, wait: Duration) -> Timestamp {
    let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
    Timestamp::from_micros(now.micros().saturating_add(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_opens_as_long_as_it_is_answered_and_closes_when_it_is_not() {
        let mut lane = Lane::default();
        let widths: Vec<usize> = (0..10)
            .map(|_| {
                let width = lane.width();
                lane.end(Ended::Answered, Timestamp::default());
                width
            })
            .collect();
        assert_eq!(widths, [1, 2, 3, 4, 5, 6, 7, 8, 8, 8]);
        let failed: Vec<(usize, u64)> = (0..9)
            .map(|_| {
                lane.end(Ended::Failed, Timestamp::default());
                (lane.width(), lane.paused_until.micros() / 1000)
            })
            .collect();
        let (widths, pauses): (Vec<_>, Vec<_>) = failed.into_iter().unzip();
        assert_eq!(widths, [4, 2, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(pauses, [0, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        lane.end(Ended::Answered, Timestamp::default());
        assert_eq!((lane.width(), lane.failures), (2, 0));
    }
}
