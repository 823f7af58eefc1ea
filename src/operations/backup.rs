//! Backups: every stream as its signed ledger export, what stands beside the entries, and sealed values. See `cli/ledger/source.rs` for the
//! form.

use std::io::{self, Write};
use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::export::{ExportLines, Plan};
use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use crate::store::{Cabinet, Direction, EventStore, SideKind};
use crate::vault::sealed_bytes;

/// Values that stand beside entries, read at once. One may have a mebibyte.
const SIDE_PAGE_LEN: usize = 64;

/// Writes a backup line by line, and keeps the digest of what it wrote.
pub struct BackupWriter<W> {
    out: W,
    digest: Sha256,
}

impl<W: Write> BackupWriter<W> {
    /// Begins a backup.
    ///
    /// # Errors
    ///
    /// That of the output.
    pub fn begin(out: W, at: Timestamp) -> io::Result<Self> {
        let mut writer = Self { out, digest: Sha256::new() };
        writer.line(&json!({
            "type": "backup", "format": "haldir-backup", "version": 1, "at": at.to_string(),
            "haldir": env!("CARGO_PKG_VERSION"),
        }))?;
        Ok(writer)
    }

    /// Writes a stream and what stands beside it.
    ///
    /// # Errors
    ///
    /// That of the output, or of the store.
    pub fn stream(&mut self, store: &Arc<dyn EventStore>, plan: Plan) -> io::Result<()> {
        let tenant = plan.tenant.clone();
        for line in ExportLines::new(Arc::clone(store), plan) {
            self.text(&line.map_err(io::Error::other)?)?;
        }
        for kind in SideKind::ALL {
            self.side(&**store, &tenant, kind)?;
        }
        Ok(())
    }

    fn side(&mut self, store: &dyn EventStore, tenant: &TenantId, kind: SideKind) -> io::Result<()> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = store.sides(tenant, kind, after.as_deref(), Direction::Forward, SIDE_PAGE_LEN);
            let page = page.map_err(io::Error::other)?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            for (id, value) in &page {
                self.line(&json!({
                    "type": "side", "kind": kind.name(), "id": BASE64.encode(id), "value": BASE64.encode(value),
                }))?;
            }
        }
    }

    /// Writes a tenant's sealed values, after its stream. The master keys that open them are never in a backup.
    ///
    /// # Errors
    ///
    /// That of the output, or of the vault.
    pub fn sealed(&mut self, cabinet: &dyn Cabinet, tenant: &TenantId) -> io::Result<()> {
        for digest in cabinet.ids(tenant).map_err(io::Error::other)? {
            // One that was erased meanwhile is not to be found in a backup either.
            if let Some(bytes) = sealed_bytes(cabinet, tenant, &digest).map_err(io::Error::other)? {
                self.line(&json!({
                    "type": "sealed", "digest": HEXLOWER.encode(&digest), "value": BASE64.encode(&bytes),
                }))?;
            }
        }
        Ok(())
    }

    /// Writes a file of the installation.
    ///
    /// # Errors
    ///
    /// That of the output.
    pub fn file(&mut self, name: &str, content: &str) -> io::Result<()> {
        self.line(&json!({ "type": "file", "name": name, "content": content }))
    }

    /// Closes the backup. One without its last line is known to be torn.
    ///
    /// # Errors
    ///
    /// That of the output.
    pub fn finish(mut self) -> io::Result<()> {
        let digest = HEXLOWER.encode(&self.digest.clone().finalize());
        self.line(&json!({ "type": "done", "sha256": digest }))?;
        self.out.flush()
    }

    fn line(&mut self, line: &serde_json::Value) -> io::Result<()> {
        self.text(&line.to_string())
    }

    fn text(&mut self, line: &str) -> io::Result<()> {
        self.digest.update(line);
        self.digest.update(b"\n");
        self.out.write_all(line.as_bytes())?;
        self.out.write_all(b"\n")
    }
}
