//! What the rest of the program holds of the ledger: submit a request, read what is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TrySendError, bounded};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use super::checkpoints::KeptCheckpoint;
use super::clock::Clock;
use super::feed::CommitFeed;
use super::random::Random;
use super::replay::{OpenError, replay};
use super::stage::CheckpointAt;
use super::world::World;
use super::writer::{Message, Writer, turn_away};
use super::{LedgerError, Receipt, Request};
use crate::domain::id::TenantId;
use crate::format::chain::{PublicKey, Signer};
use crate::format::merkle::TreeHash;
use crate::store::{EventStore, SnapshotStore};

/// How much the writer takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Requests that may wait. A request beyond them is turned away at once.
    pub queue_len: usize,
    /// Requests in one commit at most.
    pub batch_len_max: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { queue_len: 4096, batch_len_max: 512 }
    }
}

/// What the ledger is made of.
pub struct Parts {
    /// Where the bytes go.
    pub store: Arc<dyn EventStore>,
    /// Where folded states are kept.
    pub snapshots: Arc<dyn SnapshotStore>,
    /// The key that signs entries.
    pub signer: Signer,
    /// Keys that signed before it.
    pub former_keys: Vec<PublicKey>,
    /// The source of time.
    pub clock: Arc<dyn Clock>,
    /// The source of randomness.
    pub random: Arc<dyn Random>,
    /// How much the writer takes on.
    pub sizes: Sizes,
}

/// Whether the writer still works, and if not, why.
#[derive(Debug, Default)]
pub struct Health {
    poisoned: RwLock<Option<String>>,
    has_ended: AtomicBool,
}

impl Health {
    pub(super) fn poison(&self, why: &str) {
        tracing::error!(why, "a write failed; the ledger accepts nothing more until a restart");
        *self.poisoned.write() = Some(why.to_owned());
    }

    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
    }

    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    /// Why the writer stopped; `None` while it works.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.poisoned.read().clone()
    }
}

/// A running ledger. Cloned freely; all clones speak to one writer.
#[derive(Clone)]
pub struct LedgerHandle {
    inner: Arc<Inner>,
}

struct Inner {
    inbox: Sender<Message>,
    /// The writer's end of the queue, for what is put there after the writer has gone.
    orphans: Receiver<Message>,
    published: watch::Receiver<World>,
    store: Arc<dyn EventStore>,
    snapshots: Arc<dyn SnapshotStore>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    signer: Arc<Signer>,
    health: Arc<Health>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl LedgerHandle {
    /// Replays the streams and starts the writer. The feed tells views what to catch up with.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when the store cannot be read or holds what we did not write.
    pub fn open(parts: Parts) -> Result<(Self, Arc<CommitFeed>), OpenError> {
        let public_key = parts.signer.public_key();
        let world = replay(&*parts.store, &*parts.snapshots, public_key, &parts.former_keys)?;
        let (published, committed) = watch::channel(world.clone());
        let signer = Arc::new(parts.signer);
        let feed = Arc::new(CommitFeed::starting_from(&world));
        let health = Arc::new(Health::default());
        let (inbox, messages) = bounded(parts.sizes.queue_len);
        let orphans = messages.clone();
        let writer = Writer {
            inbox: messages,
            store: Arc::clone(&parts.store),
            signer: Arc::clone(&signer),
            clock: Arc::clone(&parts.clock),
            world,
            published,
            health: Arc::clone(&health),
            feed: Arc::clone(&feed),
            batch_len_max: parts.sizes.batch_len_max,
        };
        let thread = std::thread::Builder::new().name("ledger-writer".to_owned()).spawn(move || writer.run());
        let thread = thread.map_err(|error| crate::store::StoreError::Io(error.to_string()))?;
        let inner = Inner {
            inbox,
            orphans,
            published: committed,
            store: parts.store,
            snapshots: parts.snapshots,
            clock: parts.clock,
            random: parts.random,
            signer,
            health,
            writer: Mutex::new(Some(thread)),
        };
        Ok((Self { inner: Arc::new(inner) }, feed))
    }

    /// Hands a request to the writer and waits until what it did is durable.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]. After [`LedgerError::Poisoned`] only a restart can tell whether it happened; after any other error
    /// it did not.
    pub async fn submit(&self, request: Request) -> Result<Receipt, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Submit(Box::new(request), reply))?;
        // A reply that was dropped belongs to a request that the writer never began.
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn gone(&self) -> LedgerError {
        if self.inner.health.failure().is_some() { LedgerError::Poisoned } else { LedgerError::Closed }
    }

    /// Signs and records a checkpoint of a stream as it is when the writer comes to it.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]; [`LedgerError::Unknown`] for a stream that does not exist.
    pub async fn checkpoint(&self, tenant: &TenantId) -> Result<KeptCheckpoint, LedgerError> {
        self.ask_checkpoint(tenant, CheckpointAt::Now).await
    }

    /// Signs and records a checkpoint of a stream at an earlier size. `path` is the consistency path from `size` and `root`
    /// to the tree of the checkpoint of size `later_size`, which must have been recorded before.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]; [`LedgerError::Unknown`] when the path does not lead there.
    pub async fn checkpoint_at(
        &self,
        tenant: &TenantId,
        size: u64,
        root: TreeHash,
        later_size: u64,
        path: Vec<TreeHash>,
    ) -> Result<KeptCheckpoint, LedgerError> {
        let at = CheckpointAt::Earlier { size, root, later_size, path };
        self.ask_checkpoint(tenant, at).await
    }

    async fn ask_checkpoint(
        &self,
        tenant: &TenantId,
        at: CheckpointAt,
    ) -> Result<KeptCheckpoint, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Checkpoint(tenant.clone(), at, reply))?;
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn send(&self, message: Message) -> Result<(), LedgerError> {
        if self.inner.health.has_ended() {
            return Err(self.gone());
        }
        match self.inner.inbox.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(LedgerError::Busy),
            Err(TrySendError::Disconnected(_)) => return Err(self.gone()),
        }
        // IMPORTANT: after the message is in the queue. The writer looks there once more after it says that it has ended,
        // so either it finds the message or we find that it has ended.
        if self.inner.health.has_ended() {
            turn_away(&self.inner.orphans);
        }
        Ok(())
    }

    /// The durable state of all tenants. Hold it briefly: the writer waits. A copy of it costs nothing.
    #[must_use]
    pub fn read(&self) -> watch::Ref<'_, World> {
        self.inner.published.borrow()
    }

    /// The durable state of all tenants, for those who wait for it to change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<World> {
        self.inner.published.clone()
    }

    /// The store, for reading entries.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn EventStore> {
        &self.inner.store
    }

    /// Where folded states are kept.
    #[must_use]
    pub fn snapshots(&self) -> &Arc<dyn SnapshotStore> {
        &self.inner.snapshots
    }

    /// The one clock.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.inner.clock
    }

    /// The one random source.
    #[must_use]
    pub fn random(&self) -> &dyn Random {
        &*self.inner.random
    }

    /// The key that signs this ledger.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.inner.signer
    }

    /// The key that checks this ledger's signatures.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.inner.signer.public_key()
    }

    /// Whether the writer works.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.inner.health
    }

    /// Lets the writer finish what was submitted, and waits for it. Requests after this are turned away.
    pub fn close(&self) {
        // While the queue is full the writer is emptying it, unless it has gone.
        while !self.inner.health.has_ended() {
            match self.inner.inbox.send_timeout(Message::Stop, Duration::from_millis(50)) {
                Err(SendTimeoutError::Timeout(_)) => {}
                Ok(()) | Err(SendTimeoutError::Disconnected(_)) => break,
            }
        }
        if let Some(writer) = self.inner.writer.lock().take() {
            let _ = writer.join();
        }
    }
}
