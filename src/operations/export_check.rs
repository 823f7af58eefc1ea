//! Reads a ledger export line by line and verifies it. See "Ledger export" in ledger-format.md.

use data_encoding::{BASE64, HEXLOWER};
use serde::Deserialize;

use crate::domain::id::TenantId;
use crate::format::chain::{EntryHash, PublicKey};
use crate::format::verify::{Flaw, Summary, Trust, Verifier};

/// Bytes of a line at most, its end included.
pub const LINE_LEN_MAX: u64 = 131_072;

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
    CouldNotCheck(String),
}

/// What the reader of an export knows from elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Keys that are trusted. With none, those that the export names are believed.
    pub keys: Vec<PublicKey>,
    /// The tenant whose stream it must be.
    pub tenant: Option<TenantId>,
}

/// An export as far as it was read.
pub struct ExportCheck {
    expected: Expected,
    verifier: Option<Verifier>,
    tenant: String,
    believed: Vec<PublicKey>,
    end: Option<Summary>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line {
    Header { format: String, version: u16, tenant_id: String, public_keys: Vec<serde_json::Value> },
    Entry { seq: u64, kind: String, at: String, hash: String, entry: String },
    End { size: u64, head: String, root: String },
}

impl ExportCheck {
    /// Starts before the first line.
    #[must_use]
    pub const fn new(expected: Expected) -> Self {
        Self { expected, verifier: None, tenant: String::new(), believed: Vec::new(), end: None }
    }

    /// The tenant that the export names.
    #[must_use]
    pub fn tenant(&self) -> String {
        self.tenant.clone()
    }

    /// Keys that were trusted only because the export named them.
    #[must_use]
    pub fn believed_keys(&self) -> Vec<String> {
        self.believed.iter().map(|key| key.id().to_string()).collect()
    }

    /// Reads the next line, with its end.
    ///
    /// # Errors
    ///
    /// [`ExportError`].
    pub fn line(&mut self, line: &[u8]) -> Result<(), ExportError> {
        let parsed = serde_json::from_slice(line);
        let Some(verifier) = &mut self.verifier else {
            return match parsed {
                Ok(Line::Header { format, version: 1, tenant_id, public_keys })
                    if format == "haldir-ledger" =>
                {
                    self.start(tenant_id, &public_keys)
                }
                _ => {
                    Err(could_not_check("it does not begin with the header of a ledger export of version 1"))
                }
            };
        };
        let seq = verifier.next_seq();
        let not_sound = |reason: &str| ExportError::NotSound { seq, reason: reason.to_owned() };
        match parsed {
            _ if self.end.is_some() => Err(not_sound("something follows the last line")),
            Err(_) if !line.ends_with(b"\n") => Err(incomplete(seq)),
            Err(error) => Err(not_sound(&format!("malformed line: {error}"))),
            Ok(Line::Header { .. }) => Err(not_sound("malformed line: a second header")),
            Ok(Line::Entry { seq: named_seq, kind, at, hash, entry }) => {
                let bytes = BASE64.decode(entry.as_bytes());
                let bytes =
                    bytes.map_err(|error| not_sound(&format!("malformed line: not base64: {error}")))?;
                let entry = verifier.push(&bytes).map_err(|flaw| not_sound(&flaw.to_string()))?;
                let agrees = named_seq == entry.recorded.seq
                    && kind == entry.recorded.event.kind_name()
                    && at == entry.recorded.at.to_string()
                    && hash == entry.hash.to_string();
                if agrees {
                    Ok(())
                } else {
                    Err(not_sound("mislabelled: the line does not agree with its entry"))
                }
            }
            Ok(Line::End { size, head, root }) => {
                let head = HEXLOWER.decode(head.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
                let head = head.ok_or_else(|| not_sound("malformed line: the head is not a hash"))?;
                verifier.check_end(size, &EntryHash(head)).map_err(|flaw| not_sound(&flaw.to_string()))?;
                let summary = verifier.summary();
                if summary.root.to_string() != root {
                    return Err(not_sound("the root is not that of the entries"));
                }
                self.end = Some(summary);
                Ok(())
            }
        }
    }

    fn start(&mut self, tenant: String, named: &[serde_json::Value]) -> Result<(), ExportError> {
        let parsed =
            TenantId::parse(&tenant).ok_or_else(|| could_not_check("its tenant is not a tenant's id"))?;
        let mut keys = self.expected.keys.clone();
        if keys.is_empty() {
            let key = |named: &serde_json::Value| {
                let bytes = HEXLOWER.decode(named["public_key"].as_str()?.as_bytes()).ok()?;
                PublicKey::from_bytes(&bytes.try_into().ok()?)
            };
            self.believed = named.iter().filter_map(key).collect();
            keys.clone_from(&self.believed);
        }
        self.tenant = tenant;
        if self.expected.tenant.as_ref().is_some_and(|expected| *expected != parsed) {
            return Err(ExportError::NotSound { seq: 0, reason: Flaw::Tenant(parsed).to_string() });
        }
        self.verifier = Some(Verifier::new(parsed, Trust::keys(keys)));
        Ok(())
    }

    /// What the export amounts to.
    ///
    /// # Errors
    ///
    /// [`ExportError::CouldNotCheck`] when its last line is missing.
    pub fn finish(self) -> Result<Summary, ExportError> {
        let read = self.verifier.as_ref().map_or(0, Verifier::next_seq);
        self.end.ok_or_else(|| incomplete(read))
    }
}

fn could_not_check(why: &str) -> ExportError {
    ExportError::CouldNotCheck(format!("the export could not be checked: {why}"))
}

fn incomplete(read: u64) -> ExportError {
    could_not_check(&format!("it is incomplete: its last line is missing after {read} entries"))
}
