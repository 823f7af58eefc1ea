//! Exports of the audit trail: every matching action from the oldest on, and a signed manifest that says what was exported.
//! See "Export manifest" in ledger-format.md.

use std::ops::Range;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::audit::{TrailEntry, trail_entry};
use super::audit_rows::{CSV_HEADER, csv_record, json_line};
use super::wire::Epoch;
use super::{App, Caller, OperationError, blocking};
use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use crate::format::chain::Signer;
use crate::views::audit::{Filter, FoundAction};

/// The version of the exports described here.
pub const EXPORT_VERSION: u32 = 1;
/// Rows looked at in one read. Each action is below 64 KiB; details are read one by one.
const PAGE_LEN: usize = 256;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line; the last line is the manifest.
    Jsonl,
    /// Comma-separated values; the manifest is asked for separately.
    Csv,
}

impl Format {
    /// Reads a format's name in any case; JSONL unless one is given.
    ///
    /// # Errors
    ///
    /// [`OperationError::InvalidFormat`].
    pub fn parse(name: Option<&str>) -> Result<Self, OperationError> {
        match name.map(str::to_ascii_lowercase).as_deref() {
            None | Some("jsonl") => Ok(Self::Jsonl),
            Some("csv") => Ok(Self::Csv),
            Some(_) => Err(OperationError::InvalidFormat {
                expected: "jsonl or csv",
                got: name.unwrap_or_default().to_owned(),
            }),
        }
    }

    /// The format's name, which also ends the names of files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
        }
    }
}

/// What to export.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Which actions.
    pub filter: Filter,
    /// Only from this moment on.
    pub since: Option<Timestamp>,
    /// Only before this moment.
    pub until: Option<Timestamp>,
}

/// What an export holds. Signed: whoever has the file and the public key can check it without the server.
#[derive(Debug, Serialize, ToSchema)]
pub struct Manifest {
    /// Always `manifest`.
    #[serde(rename = "type")]
    #[schema(example = "manifest")]
    kind: &'static str,
    /// Always 1.
    format_version: u32,
    /// Whose audit trail.
    tenant_id: String,
    /// When the export began, RFC 3339 in UTC.
    #[schema(example = "2026-11-21T08:02:08.000001Z")]
    generated_at: String,
    /// What was asked for; only filters that were given.
    filters: Filters,
    /// How many actions were exported.
    count: u64,
    /// When the first of them was audited.
    first_timestamp: Option<Epoch>,
    /// When the last of them was audited.
    last_timestamp: Option<Epoch>,
    /// Hash of the ledger entry of the last of them; empty when there is none.
    last_chain_hash: String,
    /// SHA-256 of the entry ids in the order of the export, a line feed after each.
    sha256: String,
    /// `jsonl` or `csv`.
    format: &'static str,
    /// SHA-256 of all bytes of a CSV export, or of all bytes of a JSONL export before the line of the manifest.
    content_sha256: String,
    /// The key that signed, the first 16 hex digits of the SHA-256 of the public key.
    key_id: String,
    /// The Ed25519 public key. Compare it with one that you trust.
    public_key: String,
    /// Ed25519 signature over this object's text as it is written here, without this member.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    signature: Option<String>,
}

/// The filters of an export.
#[derive(Debug, Serialize, ToSchema)]
struct Filters {
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flagged_only: Option<bool>,
}

/// An export in progress: blocks of bytes, made as they are asked for. A page of actions is in memory, never the trail.
pub struct AuditExport {
    app: Arc<App>,
    tenant: TenantId,
    selection: Selection,
    format: Format,
    generated_at: Timestamp,
    /// What is still to be read. Fixed when the export begins: what is audited later does not belong to it.
    rest: Range<u64>,
    page: std::vec::IntoIter<FoundAction>,
    next: Next,
    tally: Tally,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Header,
    Rows,
    Manifest,
    Nothing,
}

/// What was exported so far.
#[derive(Default)]
struct Tally {
    count: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    last_hash: String,
    ids: Sha256,
    content: Sha256,
}

/// Begins an export of everything that is durable now.
///
/// # Errors
///
/// [`OperationError::Busy`] when the view is behind.
pub async fn begin(
    app: Arc<App>,
    caller: &Caller,
    selection: Selection,
    format: Format,
) -> Result<AuditExport, OperationError> {
    let tenant = caller.tenant.clone();
    let generated_at = app.ledger.clock().now();
    app.views_caught_up(&tenant).await?;
    blocking(move || {
        let rest = app.views.window(&tenant, selection.since, selection.until)?;
        Ok(AuditExport {
            app,
            tenant,
            selection,
            format,
            generated_at,
            rest,
            page: Vec::new().into_iter(),
            next: if format == Format::Csv { Next::Header } else { Next::Rows },
            tally: Tally::default(),
        })
    })
    .await
}

/// The manifest that the same export would have, as one line of JSON.
///
/// # Errors
///
/// [`OperationError::Busy`] when the view is behind, [`OperationError::Unavailable`] when something cannot be read.
pub async fn manifest(
    app: Arc<App>,
    caller: &Caller,
    selection: Selection,
    format: Format,
) -> Result<String, OperationError> {
    let mut export = begin(app, caller, selection, format).await?;
    blocking(move || {
        while let Some(block) = export.content() {
            block?;
        }
        export.manifest()
    })
    .await
}

impl AuditExport {
    /// When the export began.
    #[must_use]
    pub const fn generated_at(&self) -> Timestamp {
        self.generated_at
    }

    /// The next block of what the manifest speaks of.
    fn content(&mut self) -> Option<Result<Vec<u8>, OperationError>> {
        let block = match self.next {
            Next::Header => {
                self.next = Next::Rows;
                Ok(CSV_HEADER.to_owned())
            }
            Next::Rows => {
                let Some(row) = self.row().transpose() else {
                    self.next = Next::Manifest;
                    return None;
                };
                row
            }
            Next::Manifest | Next::Nothing => return None,
        };
        Some(block.map(|block| {
            self.tally.content.update(&block);
            block.into_bytes()
        }))
    }

    fn row(&mut self) -> Result<Option<String>, OperationError> {
        let Some(found) = self.next_action()? else {
            return Ok(None);
        };
        let at = found.recorded.at;
        let entry = trail_entry(&**self.app.ledger.store(), &self.tenant, found)?;
        let row = match self.format {
            Format::Jsonl => json_line(&self.tenant, &entry)?,
            Format::Csv => csv_record(&self.tenant, &entry),
        };
        self.tally.add(at, &entry);
        Ok(Some(row))
    }

    fn next_action(&mut self) -> Result<Option<FoundAction>, OperationError> {
        loop {
            if let Some(found) = self.page.next() {
                return Ok(Some(found));
            }
            if self.rest.is_empty() {
                return Ok(None);
            }
            let window = self.rest.clone();
            let page = self.app.views.page(&self.tenant, &self.selection.filter, window, PAGE_LEN)?;
            self.rest = page.rest;
            self.page = page.actions.into_iter();
        }
    }

    /// What was exported, signed, as one line of JSON without its line end.
    fn manifest(&self) -> Result<String, OperationError> {
        let signer = self.app.ledger.signer();
        let filter = self.selection.filter.clone();
        let tally = &self.tally;
        let manifest = Manifest {
            kind: "manifest",
            format_version: EXPORT_VERSION,
            tenant_id: self.tenant.to_string(),
            generated_at: self.generated_at.to_string(),
            filters: Filters {
                session_id: filter.session_id,
                agent_id: filter.agent_id,
                tool: filter.tool,
                since: self.selection.since.map(Epoch),
                until: self.selection.until.map(Epoch),
                flagged_only: filter.flagged_only.then_some(true),
            },
            count: tally.count,
            first_timestamp: tally.first.map(Epoch),
            last_timestamp: tally.last.map(Epoch),
            last_chain_hash: tally.last_hash.clone(),
            sha256: HEXLOWER.encode(&tally.ids.clone().finalize()),
            format: self.format.name(),
            content_sha256: HEXLOWER.encode(&tally.content.clone().finalize()),
            key_id: signer.id().to_string(),
            public_key: HEXLOWER.encode(&signer.public_key().to_bytes()),
            signature: None,
        };
        manifest.signed(signer)
    }
}

impl Iterator for AuditExport {
    type Item = Result<Vec<u8>, OperationError>;

    fn next(&mut self) -> Option<Self::Item> {
        let block = self.content().or_else(|| {
            let is_due = self.next == Next::Manifest && self.format == Format::Jsonl;
            self.next = Next::Nothing;
            is_due.then(|| self.manifest().map(|line| (line + "\n").into_bytes()))
        });
        if let Some(Err(_)) = block {
            // An export that cannot go on ends without its manifest, and so shows that it is incomplete.
            self.next = Next::Nothing;
        }
        block
    }
}

impl Tally {
    fn add(&mut self, at: Timestamp, entry: &TrailEntry) {
        self.count += 1;
        self.first.get_or_insert(at);
        self.last = Some(at);
        self.last_hash.clone_from(&entry.entry_hash);
        self.ids.update(&entry.entry_id);
        self.ids.update("\n");
    }
}

impl Manifest {
    fn signed(mut self, signer: &Signer) -> Result<String, OperationError> {
        let internal = |error: serde_json::Error| OperationError::Internal(error.to_string());
        let text = serde_json::to_string(&self).map_err(internal)?;
        self.signature = Some(HEXLOWER.encode(&signer.sign_manifest(text.as_bytes())));
        serde_json::to_string(&self).map_err(internal)
    }
}
