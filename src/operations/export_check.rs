//! Reads a ledger export line by line and verifies it. See "Ledger export" in ledger-format.md.

use data_encoding::{BASE64, HEXLOWER};
use serde::Deserialize;

use crate::domain::id::TenantId;
use crate::format::chain::{EntryHash, PublicKey};
use crate::format::verify::{Summary, Trust, Verifier};

/// Why an export is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportError {
    /// It is not what Haldir would have written.
    NotSound {
        /// Where.
        seq: u64,
        /// Why.
        reason: String,
    },
    /// It is not a complete export, so that nothing can be said.
    Unreadable(String),
}

/// An export as far as it was read.
pub struct ExportCheck {
    trusted: Vec<PublicKey>,
    is_pinned: bool,
    verifier: Option<Verifier>,
    tenant: String,
    end: Option<Summary>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line {
    Header {
        format: String,
        version: u16,
        tenant_id: String,
        public_keys: Vec<NamedKey>,
    },
    Entry {
        seq: u64,
        kind: String,
        at: String,
        hash: String,
        entry: String,
    },
    End {
        size: u64,
        head: String,
        root: String,
    },
}

#[derive(Deserialize)]
struct NamedKey {
    public_key: String,
}

impl ExportCheck {
    /// Trusts these keys. With none, the key that the export names is believed, and [`ExportCheck::unpinned_key`] says so.
    #[must_use]
    pub fn new(trusted: Vec<PublicKey>) -> Self {
        let is_pinned = !trusted.is_empty();
        Self {
            trusted,
            is_pinned,
            verifier: None,
            tenant: String::new(),
            end: None,
        }
    }

    /// The tenant that the export names.
    #[must_use]
    pub fn tenant(&self) -> String {
        self.tenant.clone()
    }

    /// The key that was trusted only because the export named it.
    #[must_use]
    pub fn unpinned_key(&self) -> Option<String> {
        self.trusted
            .first()
            .filter(|_| !self.is_pinned)
            .map(|key| key.id().to_string())
    }

    /// Reads the next line.
    ///
    /// # Errors
    ///
    /// [`ExportError`].
    pub fn line(&mut self, line: &str) -> Result<(), ExportError> {
        let line = serde_json::from_str(line)
            .map_err(|error| self.unreadable(&format!("a line is not of this form: {error}")))?;
        match line {
            Line::Header {
                format,
                version,
                tenant_id,
                public_keys,
            } => {
                if self.verifier.is_some() || format != "haldir-ledger" || version != 1 {
                    return Err(self.unreadable("not a ledger export of version 1"));
                }
                self.start(tenant_id, &public_keys)
            }
            Line::Entry {
                seq,
                kind,
                at,
                hash,
                entry,
            } => self.entry(seq, &kind, &at, &hash, &entry),
            Line::End { size, head, root } => self.end(size, &head, &root),
        }
    }

    fn start(&mut self, tenant: String, named: &[NamedKey]) -> Result<(), ExportError> {
        let parsed =
            TenantId::parse(&tenant).ok_or_else(|| self.unreadable("the tenant is not a tenant's id"))?;
        self.tenant = tenant;
        if !self.is_pinned {
            let key = |named: &NamedKey| {
                let bytes = HEXLOWER.decode(named.public_key.as_bytes()).ok()?;
                PublicKey::from_bytes(&bytes.try_into().ok()?)
            };
            self.trusted = named.iter().filter_map(key).collect();
        }
        self.verifier = Some(Verifier::new(parsed, Trust::Keys(self.trusted.clone())));
        Ok(())
    }

    fn entry(&mut self, seq: u64, kind: &str, at: &str, hash: &str, entry: &str) -> Result<(), ExportError> {
        let no_header = self.unreadable("an entry before the header, or after the end");
        let verifier = self
            .verifier
            .as_mut()
            .filter(|_| self.end.is_none())
            .ok_or(no_header)?;
        let expected_seq = verifier.next_seq();
        let not_sound = |reason: String| ExportError::NotSound {
            seq: expected_seq,
            reason,
        };
        let bytes = BASE64
            .decode(entry.as_bytes())
            .map_err(|error| not_sound(format!("not an entry: not base64: {error}")))?;
        let entry = verifier
            .push(&bytes)
            .map_err(|flaw| not_sound(flaw.to_string()))?;
        let agrees = seq == entry.recorded.seq
            && kind == entry.recorded.event.kind_name()
            && at == entry.recorded.at.to_string()
            && hash == entry.hash.to_string();
        if agrees {
            Ok(())
        } else {
            Err(not_sound("the line does not agree with its entry".to_owned()))
        }
    }

    fn end(&mut self, size: u64, head: &str, root: &str) -> Result<(), ExportError> {
        let no_header = self.unreadable("an end before the header, or a second one");
        let verifier = self
            .verifier
            .as_ref()
            .filter(|_| self.end.is_none())
            .ok_or(no_header)?;
        let seq = verifier.next_seq();
        let not_sound = |reason: String| ExportError::NotSound { seq, reason };
        let head_hash = HEXLOWER
            .decode(head.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok());
        let head_hash = head_hash
            .map(EntryHash)
            .ok_or_else(|| not_sound("the head is not a hash".to_owned()))?;
        verifier
            .check_end(size, &head_hash)
            .map_err(|flaw| not_sound(flaw.to_string()))?;
        let summary = verifier.summary();
        if summary.root.to_string() != root {
            return Err(not_sound("the root is not that of the entries".to_owned()));
        }
        self.end = Some(summary);
        Ok(())
    }

    /// What the export amounts to.
    ///
    /// # Errors
    ///
    /// [`ExportError::Unreadable`] when its last line is missing.
    pub fn finish(self) -> Result<Summary, ExportError> {
        self.end
            .clone()
            .ok_or_else(|| self.unreadable("its last line is missing: the export is incomplete"))
    }

    fn unreadable(&self, why: &str) -> ExportError {
        let read = self.verifier.as_ref().map_or(0, Verifier::next_seq);
        ExportError::Unreadable(format!(
            "the export cannot be checked after {read} entries: {why}"
        ))
    }
}
