//! The write path. One thread owns the write state, the store and the signing key, and does one thing after the other.

use std::sync::Arc;

use crossbeam_channel::Receiver;
use tokio::sync::watch;

use super::clock::Clock;
use super::feed::CommitFeed;
use super::handle::Health;
use super::stage::{CheckpointAt, CheckpointReply, Means, Reply, Stage};
use super::world::World;
use super::{LedgerError, Request};
use crate::domain::id::TenantId;
use crate::format::chain::Signer;
use crate::store::{EventStore, StoreError};

/// What the writer is told.
pub(super) enum Message {
    /// Carry out a request and answer.
    Submit(Box<Request>, Reply),
    /// Sign and record a checkpoint, and hand it over.
    Checkpoint(TenantId, CheckpointAt, CheckpointReply),
    /// Finish what was submitted before, and end.
    Stop,
}

/// The writer's own things.
pub(super) struct Writer {
    pub(super) inbox: Receiver<Message>,
    pub(super) store: Arc<dyn EventStore>,
    pub(super) signer: Arc<Signer>,
    pub(super) clock: Arc<dyn Clock>,
    /// The write state. May run one batch ahead of what is durable; nobody else sees it.
    pub(super) world: World,
    /// What readers see: only what is durable.
    pub(super) published: watch::Sender<World>,
    pub(super) health: Arc<Health>,
    /// Told after each commit.
    pub(super) feed: Arc<CommitFeed>,
    /// Requests in one commit at most.
    pub(super) batch_len_max: usize,
}

impl Writer {
    /// Serves requests until told to stop, or until a write fails.
    pub(super) fn run(mut self) {
        while let Ok(message) = self.inbox.recv() {
            let (stage, is_last) = self.gather(message);
            if self.commit(stage).is_err() || is_last {
                return;
            }
        }
    }

    /// Decides the first request and whatever else is waiting, in order.
    fn gather(&mut self, first: Message) -> (Stage, bool) {
        let mut stage = Stage::default();
        let mut next = Some(first);
        let mut count = 0;
        let Self { world, clock, signer, store, .. } = self;
        let with = Means { clock: &**clock, signer, store: &**store };
        while let Some(message) = next {
            match message {
                Message::Submit(request, reply) => {
                    stage.add(world, *request, reply, with);
                }
                Message::Checkpoint(tenant, at, reply) => {
                    stage.add_checkpoint(world, &tenant, &at, reply, with);
                }
                Message::Stop => return (stage, true),
            }
            count += 1;
            next = if count < self.batch_len_max { self.inbox.try_recv().ok() } else { None };
        }
        (stage, false)
    }

    /// Makes a batch durable, then visible, then answers.
    fn commit(&mut self, mut stage: Stage) -> Result<(), StoreError> {
        if stage.is_empty() {
            stage.answer();
            return Ok(());
        }
        // IMPORTANT: entries, heads and what stands beside them go in one batch. A crash then leaves all or none.
        let appends = stage.take_appends();
        let written = self.store.append(&appends).and_then(|()| self.store.sync());
        if let Err(StoreError::Full(why)) = written {
            // Nothing was written: the batch never happened, and the next one may.
            self.world = self.published.borrow().clone();
            stage.answer_all(&LedgerError::Full(why));
            return Ok(());
        }
        if let Err(error) = written {
            // The batch may or may not be on disk. No caller may hear a success, and no later batch may build on it.
            self.health.poison(&error.to_string());
            stage.answer_all(&LedgerError::Poisoned);
            return Err(error);
        }

        // Commit point. Before this line nothing happened; after it, it did, and replay will agree.
        self.published.send_replace(self.world.clone());
        stage.answer();
        self.feed.announce(&appends);
        Ok(())
    }
}

impl Drop for Writer {
    /// However the writer ends: whoever still waits is turned away, and nobody waits in vain from here on.
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A bug. Whatever was left half done must not be built upon.
            self.health.poison("the writer panicked");
        }
        self.health.end();
        // A request that comes after this look at the queue is turned away by whoever put it there.
        turn_away(&self.inbox);
        self.feed.end();
    }
}

/// Drops what waits in the queue. A reply that is dropped tells its caller that the writer never began.
pub(super) fn turn_away(inbox: &Receiver<Message>) {
    while inbox.try_recv().is_ok() {}
}
