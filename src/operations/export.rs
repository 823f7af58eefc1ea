//! The ledger export: every entry's exact bytes, line by line. See "Ledger export" in ledger-format.md.

use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER};
use serde_json::json;

use crate::domain::id::TenantId;
use crate::format::chain::PublicKey;
use crate::format::entry;
use crate::format::merkle::{Tree, leaf_hash};
use crate::ledger::replay::PAGE_LEN;
use crate::store::{EventStore, Head, StoreError};

/// The lines of an export, made as they are asked for: a page of entries is in memory, never the stream.
pub struct ExportLines {
    store: Arc<dyn EventStore>,
    tenant: TenantId,
    head: Head,
    tree: Tree,
    page: std::vec::IntoIter<Vec<u8>>,
    next: Next,
    key: PublicKey,
}

#[derive(Clone, Copy)]
enum Next {
    Header,
    Entry(u64),
    Done,
}

impl ExportLines {
    /// Exports a stream up to `head`. Entries that come later are left out.
    #[must_use]
    pub fn new(store: Arc<dyn EventStore>, tenant: TenantId, head: Head, key: PublicKey) -> Self {
        Self {
            store,
            tenant,
            head,
            tree: Tree::default(),
            page: Vec::new().into_iter(),
            next: Next::Header,
            key,
        }
    }

    fn header(&self) -> String {
        json!({
            "type": "header",
            "format": "haldir-ledger",
            "version": entry::FORMAT_VERSION,
            "tenant_id": self.tenant.as_str(),
            "public_keys": [{
                "key_id": self.key.id().to_string(),
                "public_key": HEXLOWER.encode(&self.key.to_bytes()),
            }],
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
        self.tree.push(leaf_hash(&bytes));
        Ok(json!({
            "type": "entry",
            "seq": entry.recorded.seq,
            "kind": entry.recorded.event.kind_name(),
            "at": entry.recorded.at.to_string(),
            "hash": entry.hash.to_string(),
            "entry": BASE64.encode(&bytes),
        })
        .to_string())
    }

    fn read_on(&mut self, seq: u64) -> Result<Vec<u8>, StoreError> {
        let wanted = usize::try_from(self.head.size - seq).unwrap_or(PAGE_LEN).min(PAGE_LEN);
        self.page = self.store.read(&self.tenant, seq, wanted)?.into_iter();
        self.page.next().ok_or_else(|| StoreError::Damaged(format!("entry {seq} is missing")))
    }

    fn end(&self) -> String {
        json!({
            "type": "end",
            "size": self.head.size,
            "head": self.head.hash.to_string(),
            "root": self.tree.root().to_string(),
        })
        .to_string()
    }
}

impl Iterator for ExportLines {
    type Item = Result<String, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (line, next) = match self.next {
            Next::Done => return None,
            Next::Header => (Ok(self.header()), Next::Entry(0)),
            Next::Entry(seq) if seq == self.head.size => (Ok(self.end()), Next::Done),
            Next::Entry(seq) => (self.entry(seq), Next::Entry(seq + 1)),
        };
        // An export that cannot go on ends without its last line, and so shows that it is incomplete.
        self.next = if line.is_ok() { next } else { Next::Done };
        Some(line)
    }
}
