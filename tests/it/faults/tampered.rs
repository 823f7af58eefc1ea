//! Stores that lie, and what lies on a disk that no store has written.

use std::path::Path;
use std::sync::Arc;

use haldir::domain::id::TenantId;
use haldir::store::memory::MemoryStore;
use haldir::store::{Direction, EventStore, Head, Row, SideKind, StoreError, StreamAppend};
use parking_lot::RwLock;

use crate::stores::{entry_part_key, once_free};

/// Writes one part of an entry into a closed store, past the store. The first part of an entry says how many there are.
pub(crate) fn plant(dir: &Path, name: &str, seq: u64, part: u16, part_count: u16, len: usize) {
    let db = once_free(|| sled::open(dir).map_err(|_| StoreError::InUse)).unwrap();
    let mut bytes = vec![0xa5; len];
    if part == 0 {
        bytes[..2].copy_from_slice(&part_count.to_be_bytes());
    }
    db.insert(entry_part_key(name, seq, part), bytes).unwrap();
    db.flush().unwrap();
}

/// A store in front of another, that lies or breaks when it is told to.
pub(crate) struct Tampered {
    inner: Arc<MemoryStore>,
    /// What becomes of a batch before it is appended.
    pub(crate) on_append: RwLock<Option<Check>>,
    /// Makes something else of what is read from a seq on.
    pub(crate) on_read: RwLock<Option<Reading>>,
    pub(crate) missing: RwLock<u64>,
    pub(crate) broken: RwLock<Option<StoreError>>,
}

type Check = fn() -> Result<(), StoreError>;
type Reading = Box<dyn Fn(u64, Vec<Vec<u8>>) -> Vec<Vec<u8>> + Send + Sync>;

impl Tampered {
    pub(crate) fn new(inner: Arc<MemoryStore>) -> Self {
        Self {
            inner,
            on_append: RwLock::default(),
            on_read: RwLock::default(),
            missing: RwLock::default(),
            broken: RwLock::default(),
        }
    }
}

impl EventStore for Tampered {
    fn append(&self, batch: &[StreamAppend]) -> Result<(), StoreError> {
        if let Some(on_append) = &*self.on_append.read() {
            on_append()?;
        }
        self.inner.append(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.inner.sync()
    }

    fn missing(&self) -> u64 {
        *self.missing.read()
    }

    fn heads(&self) -> Result<Vec<(TenantId, Head)>, StoreError> {
        self.inner.heads()
    }

    fn read(&self, tenant: &TenantId, from: u64, count: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        if let Some(error) = &*self.broken.read() {
            return Err(error.clone());
        }
        let read = self.inner.read(tenant, from, count)?;
        match &*self.on_read.read() {
            Some(on_read) => Ok(on_read(from, read)),
            None => Ok(read),
        }
    }

    fn cut(&self, tenant: &TenantId, size: u64) -> Result<u64, StoreError> {
        self.inner.cut(tenant, size)
    }

    fn side(&self, tenant: &TenantId, kind: SideKind, id: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.side(tenant, kind, id)
    }

    fn sides(
        &self,
        tenant: &TenantId,
        kind: SideKind,
        after: Option<&[u8]>,
        direction: Direction,
        count: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.inner.sides(tenant, kind, after, direction, count)
    }
}
