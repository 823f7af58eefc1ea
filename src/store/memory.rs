//! The reference store: what a store means, in a screenful of maps. It can also fail as planned.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{
    Cabinet, Direction, EventStore, Head, PageStore, Row, SideKind, SnapshotStore, StoreError, StreamAppend,
    ValueId,
};
use crate::domain::id::TenantId;

/// A store that lives as long as the process, and a disk that survives [`MemoryStore::crash`].
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What reads see: everything that was appended.
    live: Content,
    /// What a crash leaves: everything that was synchronised.
    durable: Content,
    plan: Option<Planned>,
    faulted: bool,
    /// Whether there is no room for more.
    is_full: bool,
}

#[derive(Debug, Clone, Default)]
struct Content {
    streams: BTreeMap<TenantId, Stream>,
    side: BTreeMap<(TenantId, SideKind, Vec<u8>), Vec<u8>>,
}

#[derive(Debug, Clone, Default)]
struct Stream {
    entries: Vec<Vec<u8>>,
    head: Option<Head>,
}

/// The steps of a commit at which a fault can be planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// While the batch is written.
    Append,
    /// While the batch is made durable.
    Sync,
}

/// What can go wrong at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An error is reported and nothing of the batch survives.
    Lost,
    /// An error is reported and the entries survive without the new heads, the last of them cut in half: a store that
    /// promised atomic batches and did not keep it.
    Torn,
    /// An error is reported although the whole batch survives.
    DoneButReportedFailed,
}

#[derive(Debug, Clone, Copy)]
struct Planned {
    step: Step,
    fault: Fault,
    /// Steps of this kind that succeed before the fault.
    after: u32,
}

impl MemoryStore {
    /// Plans a fault for the `after + 1`-th time that `step` is reached.
    pub fn fail_at(&self, step: Step, fault: Fault, after: u32) {
        self.inner.lock().plan = Some(Planned { step, fault, after });
    }

    /// Takes all room away, or gives it back.
    pub fn set_full(&self, is_full: bool) {
        self.inner.lock().is_full = is_full;
    }

    /// Loses everything that was not synchronised, as a power cut does. Planned faults are over.
    pub fn crash(&self) {
        let mut inner = self.inner.lock();
        inner.live = inner.durable.clone();
        inner.plan = None;
        inner.faulted = false;
    }

    /// Changes the stored bytes of one entry behind everybody's back.
    pub fn corrupt(&self, tenant: &TenantId, seq: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.inner.lock();
        if let Some(entry) = inner.live.streams.get_mut(tenant).and_then(|it| it.entries.get_mut(seq)) {
            change(entry);
        }
        inner.durable = inner.live.clone();
    }
}

impl Inner {
    /// The fault that is due at this step, if any.
    fn due(&mut self, step: Step) -> Option<Fault> {
        let plan = self.plan.as_mut().filter(|plan| plan.step == step)?;
        if plan.after > 0 {
            plan.after -= 1;
            return None;
        }
        self.faulted = true;
        self.plan.take().map(|plan| plan.fault)
    }
}

impl Content {
    fn append(&mut self, batch: &[StreamAppend]) {
        for append in batch {
            let stream = self.streams.entry(append.tenant.clone()).or_default();
            stream.entries.extend(append.entries.iter().cloned());
            stream.head = Some(append.head);
            for row in &append.side {
                self.side.insert((append.tenant.clone(), row.kind, row.id.clone()), row.value.clone());
            }
        }
    }

    fn append_torn(&mut self, batch: &[StreamAppend]) {
        for append in batch {
            let stream = self.streams.entry(append.tenant.clone()).or_default();
            stream.entries.extend(append.entries.iter().cloned());
            // What was there before is not torn.
            if let Some(last) = stream.entries.last_mut().filter(|_| !append.entries.is_empty()) {
                last.truncate(last.len() / 2);
            }
        }
    }
}

fn planned() -> StoreError {
    StoreError::Io("planned fault".to_owned())
}

impl EventStore for MemoryStore {
    fn append(&self, batch: &[StreamAppend]) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        if inner.faulted {
            return Err(planned());
        }
        for append in batch {
            let head = inner.live.streams.get(&append.tenant).and_then(|stream| stream.head);
            if head != append.expected {
                return Err(StoreError::Conflict(append.tenant.clone()));
            }
        }
        if inner.is_full {
            return Err(StoreError::Full("as planned".to_owned()));
        }
        match inner.due(Step::Append) {
            None => {
                inner.live.append(batch);
                Ok(())
            }
            Some(fault) => {
                match fault {
                    Fault::Lost => {}
                    Fault::Torn => inner.durable.append_torn(batch),
                    Fault::DoneButReportedFailed => inner.durable.append(batch),
                }
                Err(planned())
            }
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        if inner.faulted {
            return Err(planned());
        }
        match inner.due(Step::Sync) {
            None => {
                inner.durable = inner.live.clone();
                Ok(())
            }
            Some(fault) => {
                match fault {
                    Fault::Lost => {}
                    Fault::Torn => {
                        let heads = inner.durable.clone();
                        inner.durable = inner.live.clone();
                        for (tenant, stream) in &mut inner.durable.streams {
                            let before = heads.streams.get(tenant);
                            stream.head = before.and_then(|it| it.head);
                            let is_longer = stream.entries.len() > before.map_or(0, |it| it.entries.len());
                            if let Some(last) = stream.entries.last_mut().filter(|_| is_longer) {
                                last.truncate(last.len() / 2);
                            }
                        }
                    }
                    Fault::DoneButReportedFailed => inner.durable = inner.live.clone(),
                }
                Err(planned())
            }
        }
    }

    fn missing(&self) -> u64 {
        0
    }

    fn heads(&self) -> Result<Vec<(TenantId, Head)>, StoreError> {
        let inner = self.inner.lock();
        let head = |stream: &Stream| {
            stream.head.unwrap_or(Head { size: 0, hash: crate::format::chain::EntryHash::GENESIS })
        };
        Ok(inner.live.streams.iter().map(|(tenant, stream)| (tenant.clone(), head(stream))).collect())
    }

    fn read(&self, tenant: &TenantId, from: u64, count: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let inner = self.inner.lock();
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let entries = inner.live.streams.get(tenant).map_or(&[][..], |stream| &stream.entries);
        Ok(entries.iter().skip(from).take(count).cloned().collect())
    }

    fn cut(&self, tenant: &TenantId, size: u64) -> Result<u64, StoreError> {
        let mut inner = self.inner.lock();
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let mut dropped = 0;
        if let Some(stream) = inner.live.streams.get_mut(tenant) {
            dropped = stream.entries.len().saturating_sub(size) as u64;
            stream.entries.truncate(size);
            if size == 0 {
                inner.live.streams.remove(tenant);
            }
        }
        inner.durable = inner.live.clone();
        Ok(dropped)
    }

    fn side(&self, tenant: &TenantId, kind: SideKind, id: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.inner.lock().live.side.get(&(tenant.clone(), kind, id.to_vec())).cloned())
    }

    fn sides(
        &self,
        tenant: &TenantId,
        kind: SideKind,
        after: Option<&[u8]>,
        direction: Direction,
        count: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let inner = self.inner.lock();
        let rows = inner.live.side.range((tenant.clone(), kind, Vec::new())..);
        let rows = rows.take_while(|((of, of_kind, _), _)| of == tenant && *of_kind == kind);
        let rows = rows.map(|((_, _, id), value)| (id.clone(), value.clone()));
        let mut rows: Vec<Row> = match (direction, after) {
            (_, None) => rows.collect(),
            (Direction::Forward, Some(after)) => rows.filter(|(id, _)| id.as_slice() > after).collect(),
            (Direction::Reverse, Some(after)) => rows.filter(|(id, _)| id.as_slice() < after).collect(),
        };
        if direction == Direction::Reverse {
            rows.reverse();
        }
        rows.truncate(count);
        Ok(rows)
    }
}

/// Snapshots in a map.
#[derive(Debug, Default)]
pub struct MemorySnapshots {
    snapshots: Mutex<BTreeMap<(TenantId, u64), Vec<u8>>>,
}

impl SnapshotStore for MemorySnapshots {
    fn sizes(&self, tenant: &TenantId) -> Result<Vec<u64>, StoreError> {
        let snapshots = self.snapshots.lock();
        Ok(snapshots.keys().filter(|(of, _)| of == tenant).map(|(_, size)| *size).collect())
    }

    fn load(&self, tenant: &TenantId, size: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.snapshots.lock().get(&(tenant.clone(), size)).cloned())
    }

    fn save(&self, tenant: &TenantId, size: u64, snapshot: &[u8]) -> Result<(), StoreError> {
        self.snapshots.lock().insert((tenant.clone(), size), snapshot.to_vec());
        Ok(())
    }

    fn remove(&self, tenant: &TenantId, size: u64) -> Result<(), StoreError> {
        self.snapshots.lock().remove(&(tenant.clone(), size));
        Ok(())
    }
}

/// Sealed values in a map.
#[derive(Debug, Default)]
pub struct MemoryCabinet {
    values: Mutex<BTreeMap<(TenantId, ValueId), Vec<u8>>>,
}

impl Cabinet for MemoryCabinet {
    fn put(&self, tenant: &TenantId, id: &ValueId, value: &[u8]) -> Result<(), StoreError> {
        self.values.lock().insert((tenant.clone(), *id), value.to_vec());
        Ok(())
    }

    fn get(&self, tenant: &TenantId, id: &ValueId) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.values.lock().get(&(tenant.clone(), *id)).cloned())
    }

    fn destroy(&self, tenant: &TenantId, id: &ValueId) -> Result<bool, StoreError> {
        Ok(self.values.lock().remove(&(tenant.clone(), *id)).is_some())
    }

    fn ids(&self, tenant: &TenantId) -> Result<Vec<ValueId>, StoreError> {
        let values = self.values.lock();
        Ok(values.keys().filter(|(of, _)| of == tenant).map(|(_, id)| *id).collect())
    }

    fn tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        let mut tenants: Vec<_> = self.values.lock().keys().map(|(tenant, _)| tenant.clone()).collect();
        tenants.dedup();
        Ok(tenants)
    }
}

/// Rows in a map.
#[derive(Debug, Default)]
pub struct MemoryPages {
    rows: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl PageStore for MemoryPages {
    fn write(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        self.rows.lock().extend(rows);
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows.lock().get(key).cloned())
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.rows.lock().clear();
        Ok(())
    }

    fn page(&self, prefix: &[u8], from: &[u8], count: usize) -> Result<Vec<Row>, StoreError> {
        let rows = self.rows.lock();
        let found = rows.range(from.max(prefix).to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(found.take(count).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn scan<'a>(
        &'a self,
        prefix: &[u8],
        direction: Direction,
    ) -> Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a> {
        let rows = self.rows.lock();
        let found = rows.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        let mut found: Vec<_> = found.map(|(key, value)| Ok((key.clone(), value.clone()))).collect();
        if direction == Direction::Reverse {
            found.reverse();
        }
        Box::new(found.into_iter())
    }
}
