//! Takes snapshots of streams as they grow, on a thread of its own. Nobody waits for it.
//!
//! A stream is snapshotted when it has grown enough since its last snapshot that folding the rest would be felt, and by so
//! much that all snapshots together stay smaller than the stream. They are kept: the past is folded from them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::handle::LedgerHandle;
use super::snapshot;
use super::world::{Stream, World};
use crate::domain::id::TenantId;
use crate::store::{SnapshotStore, StoreError};

/// Entries after which a snapshot is worth its while. Folding as many takes some tens of milliseconds.
pub const SNAPSHOT_EVERY: u64 = 16_384;
/// Entries after which a snapshot is worth its while as the process ends, so that the next start has less to do.
const SNAPSHOT_AT_END: u64 = 1024;
/// Bytes of an entry at least. Snapshots of a stream take at most a third of what its entries take.
const ENTRY_LEN_MIN: u64 = 300;

/// The thread, until it is waited for.
pub struct Snapshots {
    thread: Mutex<Option<JoinHandle<()>>>,
    end: watch::Sender<bool>,
}

/// What is known of a stream's newest snapshot.
#[derive(Clone, Copy, Default)]
struct Taken {
    size: u64,
    len: u64,
}

impl Snapshots {
    /// Starts taking snapshots.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] when there can be no thread.
    pub fn start(ledger: &LedgerHandle, every: u64) -> Result<Self, StoreError> {
        let (end, ended) = watch::channel(false);
        let (world, snapshots) = (ledger.watch(), Arc::clone(ledger.snapshots()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| StoreError::Io(error.to_string()))?;
        let thread = std::thread::Builder::new()
            .name("snapshots".to_owned())
            .spawn(move || runtime.block_on(follow(world, ended, &*snapshots, every)))
            .map_err(|error| StoreError::Io(error.to_string()))?;
        Ok(Self { thread: Mutex::new(Some(thread)), end })
    }

    /// Takes the last snapshots and ends. The ledger must be closed first.
    pub fn close(&self) {
        let _ = self.end.send(true);
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

async fn follow(
    mut world: watch::Receiver<World>,
    mut ended: watch::Receiver<bool>,
    snapshots: &dyn SnapshotStore,
    every: u64,
) {
    let mut taken = BTreeMap::new();
    let mut is_over = false;
    loop {
        let now = world.borrow_and_update().clone();
        let due = if is_over { SNAPSHOT_AT_END.min(every) } else { every };
        take(&now, snapshots, &mut taken, due);
        if is_over {
            return;
        }
        tokio::select! {
            changed = world.changed() => is_over = changed.is_err(),
            _ = ended.changed() => is_over = true,
        }
    }
}

fn take(world: &World, snapshots: &dyn SnapshotStore, taken: &mut BTreeMap<TenantId, Taken>, due: u64) {
    for (tenant, stream) in world.streams() {
        let last = taken.entry(tenant.clone()).or_insert_with(|| newest(snapshots, tenant));
        let grown = stream.head.size.saturating_sub(last.size);
        if grown < due || grown.saturating_mul(ENTRY_LEN_MIN) < last.len.saturating_mul(3) {
            continue;
        }
        match save(snapshots, tenant, stream) {
            Ok(saved) => *last = saved,
            Err(error) => {
                tracing::warn!(%tenant, %error, "no snapshot was taken; the next start takes longer");
                // Tried again after as many entries, not after the next one.
                last.size = stream.head.size;
            }
        }
    }
}

fn newest(snapshots: &dyn SnapshotStore, tenant: &TenantId) -> Taken {
    let size = snapshots.sizes(tenant).unwrap_or_default().into_iter().next_back().unwrap_or(0);
    let len = snapshots.load(tenant, size).ok().flatten().map_or(0, |bytes| bytes.len() as u64);
    Taken { size, len }
}

fn save(snapshots: &dyn SnapshotStore, tenant: &TenantId, stream: &Stream) -> Result<Taken, StoreError> {
    let bytes = snapshot::encode(tenant, stream)?;
    snapshots.save(tenant, stream.head.size, &bytes)?;
    Ok(Taken { size: stream.head.size, len: bytes.len() as u64 })
}
