//! The ledger export: every entry's exact bytes, line by line. See "Ledger export" in ledger-format.md.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::decoded::entry_text;
use super::proofs::{checkpoint_at, tree_caught_up};
use super::{App, OperationError, blocking, ocsf};
use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use crate::format::certificate::KeyCertificate;
use crate::format::chain::{EntryHash, PublicKey};
use crate::format::entry;
use crate::format::merkle::{Tree, leaf_hash};
use crate::format::proof::peaks;
use crate::ledger::past::size_at;
use crate::ledger::replay::PAGE_LEN;
use crate::store::{EventStore, StoreError};

/// Which part of a stream is wanted. Absent bounds are the stream's own; of two lower or two upper bounds the narrower counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    /// The first seq.
    pub from_seq: Option<u64>,
    /// The seq after the last.
    pub until_seq: Option<u64>,
    /// The first moment.
    pub since: Option<Timestamp>,
    /// The moment after the last.
    pub until: Option<Timestamp>,
}

/// Everything that an export says beside its entries.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Whose stream.
    pub tenant: TenantId,
    /// The first entry.
    pub from: u64,
    /// The seq after the last entry.
    pub size: u64,
    /// Entries in the stream as the export is made.
    pub stream_size: u64,
    /// Hash of the entry before the first.
    pub prev: EntryHash,
    /// The tree over the entries before the first.
    pub tree: Tree,
    /// Keys that sign.
    pub keys: Vec<PublicKey>,
    /// Certificates of them.
    pub certificates: Vec<KeyCertificate>,
    /// The signed checkpoint of `size`.
    pub checkpoint: String,
}

/// Plans the export of a part of a tenant's stream, and has the checkpoint signed that closes it.
///
/// # Errors
///
/// [`OperationError::Invalid`] for a part that ends before it begins.
pub async fn plan(app: &Arc<App>, tenant: &TenantId, range: Range) -> Result<Plan, OperationError> {
    let stream_size = app.with_stream(tenant, |stream| stream.head.size)?;
    let (from, size) = {
        let (app, tenant) = (Arc::clone(app), tenant.clone());
        blocking(move || resolve(&**app.ledger.store(), &tenant, stream_size, range)).await?
    };
    tree_caught_up(app, tenant, stream_size).await?;
    let checkpoint = checkpoint_at(app, tenant, size).await?.note;
    let (app, tenant) = (Arc::clone(app), tenant.clone());
    blocking(move || {
        let nodes = app.views.tree(&tenant, from);
        let tree = Tree::from_peaks(from, peaks(&nodes, from)?);
        Ok(Plan {
            from,
            size,
            stream_size,
            prev: hash_before(&**app.ledger.store(), &tenant, from)?,
            tree: tree.ok_or_else(|| OperationError::Internal("a tree of another size".to_owned()))?,
            keys: app.keys(),
            certificates: app.certificates.clone(),
            checkpoint,
            tenant,
        })
    })
    .await
}

/// The first seq of a range, and the one after its last.
///
/// # Errors
///
/// [`OperationError::Invalid`] for a range that ends before it begins.
pub fn resolve(
    store: &dyn EventStore,
    tenant: &TenantId,
    size: u64,
    range: Range,
) -> Result<(u64, u64), OperationError> {
    // As many entries as were recorded before a moment.
    let before = |moment: Timestamp| match moment.micros() {
        0 => Ok(0),
        micros => size_at(store, tenant, size, Timestamp::from_micros(micros - 1)),
    };
    let from = range.from_seq.unwrap_or(0).max(range.since.map(before).transpose()?.unwrap_or(0));
    let until = range.until_seq.unwrap_or(size).min(range.until.map(before).transpose()?.unwrap_or(size));
    if range.from_seq.is_some_and(|from| from > size) {
        return Err(OperationError::invalid("from_seq", format!("the stream has {size} entries")));
    }
    let until = until.min(size);
    if from > until {
        return Err(OperationError::invalid("until", "the range ends before it begins"));
    }
    Ok((from, until))
}

/// The hash of the entry before a seq.
///
/// # Errors
///
/// [`StoreError`].
pub fn hash_before(store: &dyn EventStore, tenant: &TenantId, seq: u64) -> Result<EntryHash, StoreError> {
    if seq == 0 {
        return Ok(EntryHash::GENESIS);
    }
    let page = store.read(tenant, seq - 1, 1)?;
    let entry = page.first().and_then(|bytes| entry::open(bytes).ok());
    Ok(entry.ok_or_else(|| StoreError::Damaged(format!("entry {} cannot be read", seq - 1)))?.hash)
}

/// The lines of an export, made as they are asked for: a page of entries is in memory, never the stream.
pub struct ExportLines {
    store: Arc<dyn EventStore>,
    plan: Plan,
    /// Hash of the last entry that was given.
    last: EntryHash,
    page: std::vec::IntoIter<Vec<u8>>,
    next: Next,
}

#[derive(Clone, Copy)]
enum Next {
    Header,
    Entry(u64),
    Done,
}

impl ExportLines {
    /// Exports what was planned. Entries that come later are left out.
    #[must_use]
    pub fn new(store: Arc<dyn EventStore>, plan: Plan) -> Self {
        Self { store, last: plan.prev, plan, page: Vec::new().into_iter(), next: Next::Header }
    }

    fn header(&self) -> String {
        let Plan { tenant, from, stream_size, prev, tree, keys, certificates, .. } = &self.plan;
        let key = |key: &PublicKey| -> Value {
            json!({ "key_id": key.id().to_string(), "public_key": HEXLOWER.encode(&key.to_bytes()) })
        };
        json!({
            "type": "header",
            "format": "haldir-ledger",
            "version": entry::FORMAT_VERSION,
            "tenant_id": tenant.as_str(),
            "stream_size": stream_size,
            "from": from,
            "prev": prev.to_string(),
            "peaks": tree.peaks().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "public_keys": keys.iter().map(key).collect::<Vec<_>>(),
            "certificates": certificates.iter().map(KeyCertificate::line).collect::<Vec<_>>(),
        })
        .to_string()
    }

    fn entry(&mut self, seq: u64) -> Result<String, StoreError> {
        let bytes = match self.page.next() {
            Some(bytes) => bytes,
            None => self.read_on(seq)?,
        };
        let entry =
            entry::open(&bytes).map_err(|error| StoreError::Damaged(format!("entry {seq}: {error}")))?;
        self.plan.tree.push(leaf_hash(&bytes));
        self.last = entry.hash;
        Ok(entry_text(&entry, &bytes))
    }

    fn read_on(&mut self, seq: u64) -> Result<Vec<u8>, StoreError> {
        let wanted = usize::try_from(self.plan.size - seq).unwrap_or(PAGE_LEN).min(PAGE_LEN);
        self.page = self.store.read(&self.plan.tenant, seq, wanted)?.into_iter();
        self.page.next().ok_or_else(|| StoreError::Damaged(format!("entry {seq} is missing")))
    }

    fn end(&self) -> String {
        json!({
            "type": "end",
            "size": self.plan.size,
            "head": self.last.to_string(),
            "root": self.plan.tree.root().to_string(),
            "checkpoint": self.plan.checkpoint,
        })
        .to_string()
    }
}

/// The lines of an export for a SIEM: one OCSF event for each entry, and nothing else.
pub struct OcsfLines {
    store: Arc<dyn EventStore>,
    tenant: TenantId,
    next: u64,
    size: u64,
    page: std::vec::IntoIter<Vec<u8>>,
}

impl OcsfLines {
    /// Exports what was planned.
    #[must_use]
    pub fn new(store: Arc<dyn EventStore>, plan: &Plan) -> Self {
        Self {
            store,
            tenant: plan.tenant.clone(),
            next: plan.from,
            size: plan.size,
            page: Vec::new().into_iter(),
        }
    }

    fn line(&mut self) -> Result<String, StoreError> {
        if self.page.len() == 0 {
            let wanted = usize::try_from(self.size - self.next).unwrap_or(PAGE_LEN).min(PAGE_LEN);
            self.page = self.store.read(&self.tenant, self.next, wanted)?.into_iter();
        }
        let damaged = |why: &str| StoreError::Damaged(format!("entry {}: {why}", self.next));
        let bytes = self.page.next().ok_or_else(|| damaged("is missing"))?;
        let entry = entry::open(&bytes).map_err(|error| damaged(&error.to_string()))?;
        self.next += 1;
        Ok(ocsf::line(&entry, &bytes))
    }
}

impl Iterator for OcsfLines {
    type Item = Result<String, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.size {
            return None;
        }
        let line = self.line();
        if line.is_err() {
            self.next = self.size;
        }
        Some(line)
    }
}

impl Iterator for ExportLines {
    type Item = Result<String, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (line, next) = match self.next {
            Next::Done => return None,
            Next::Header => (Ok(self.header()), Next::Entry(self.plan.from)),
            Next::Entry(seq) if seq == self.plan.size => (Ok(self.end()), Next::Done),
            Next::Entry(seq) => (self.entry(seq), Next::Entry(seq + 1)),
        };
        // An export that cannot go on ends without its last line, and so shows that it is incomplete.
        self.next = if line.is_ok() { next } else { Next::Done };
        Some(line)
    }
}
