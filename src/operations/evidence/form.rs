//! Which form a piece of evidence has, by its first line, and who verifies that form.

use std::io::{BufRead, BufReader, Cursor, Read};

use serde_json::Value;

use super::rows::ROW_LEN_MAX;
use super::{CouldNotCheck, Expected, Report, json, ledger_export, ocsf_lines, proofs, rows};
use crate::format::checkpoint::ORIGIN_PREFIX;
use crate::format::proof_file::PROOF_FILE_LEN_MAX;

/// Bytes of the longest document that is not read line by line.
pub const DOCUMENT_LEN_MAX: usize = 1 << 20;
const _: () = assert!(DOCUMENT_LEN_MAX > PROOF_FILE_LEN_MAX, "a proof file is a document");

/// The forms of evidence that are one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// JSON lines with every entry's exact bytes.
    LedgerExport,
    /// OCSF events, one JSON line each.
    Ocsf,
    /// Rows of the audit trail as JSON lines.
    AuditJsonLines,
    /// Rows of the audit trail as CSV.
    AuditCsv,
    /// A C2SP `tlog-proof`.
    ProofFile,
    /// A C2SP `tlog-checkpoint`.
    Checkpoint,
    /// The contract's signed tree head.
    TreeHead,
    /// The contract's inclusion proof.
    Inclusion,
    /// The contract's consistency proof.
    Consistency,
}

impl Form {
    /// Tells a text's form by its first line, or all of it when it is a JSON document of several lines.
    #[must_use]
    pub fn of(text: &[u8]) -> Option<Self> {
        if text.starts_with(b"c2sp.org/tlog-proof@") {
            return Some(Self::ProofFile);
        }
        if text.starts_with(ORIGIN_PREFIX.as_bytes()) {
            return Some(Self::Checkpoint);
        }
        if text.starts_with(b"entry_id,timestamp,") {
            return Some(Self::AuditCsv);
        }
        let object: Value = serde_json::from_slice(text).ok()?;
        let has = |key: &str| object.get(key).is_some();
        match object["type"].as_str() {
            Some("header" | "entry" | "end") => Some(Self::LedgerExport),
            Some("manifest") => Some(Self::AuditJsonLines),
            _ if has("raw_data") => Some(Self::Ocsf),
            _ if has("audit_path") => Some(Self::Inclusion),
            _ if has("consistency_path") => Some(Self::Consistency),
            _ if has("tree_size") && has("root_hash") => Some(Self::TreeHead),
            _ if has("entry_id") && has("entry_hash") => Some(Self::AuditJsonLines),
            _ => None,
        }
    }
}

/// Verifies a piece of evidence that is one file, whatever its form is. `manifest` is that of a CSV export.
///
/// # Errors
///
/// [`CouldNotCheck`] for what has no form that is known, cannot be read, or brings no keys when none are named.
pub fn verify(
    source: impl Read + Send,
    manifest: Option<&str>,
    expected: Expected,
) -> Result<Report, CouldNotCheck> {
    let cannot = |error| CouldNotCheck(format!("it cannot be read: {error}"));
    let mut source = BufReader::with_capacity(1 << 20, source);
    let mut first = Vec::new();
    (&mut source).take(ROW_LEN_MAX).read_until(b'\n', &mut first).map_err(cannot)?;
    if first.is_empty() {
        return Err(CouldNotCheck("it is empty".to_owned()));
    }
    let mut form = Form::of(&first);
    if form.is_none() && first.starts_with(b"{") {
        // A JSON document on several lines.
        (&mut source).take(DOCUMENT_LEN_MAX as u64).read_to_end(&mut first).map_err(cannot)?;
        form = Form::of(&first);
    }
    let form = form.ok_or_else(|| unknown(&first))?;
    if manifest.is_some() && form != Form::AuditCsv {
        return Err(CouldNotCheck("it is not CSV, and a manifest beside it says nothing".to_owned()));
    }
    let mut source = Cursor::new(first).chain(source);
    match form {
        Form::LedgerExport => ledger_export::verify(&mut source, expected),
        Form::Ocsf => ocsf_lines::verify(&mut source, &expected),
        Form::AuditJsonLines => rows::json_lines(&mut source, &expected),
        Form::AuditCsv => rows::csv(&mut source, manifest, &expected),
        Form::ProofFile => proofs::proof_file(&text(source)?, &expected),
        Form::Checkpoint => proofs::checkpoint(&text(source)?, &expected),
        Form::TreeHead => proofs::tree_head(document(source)?, &expected),
        Form::Inclusion => proofs::inclusion(document(source)?, &expected),
        Form::Consistency => proofs::consistency(document(source)?, &expected),
    }
}

/// A backup holds streams of several tenants, and no verdict is about several: who holds one is told what checks it.
fn unknown(text: &[u8]) -> CouldNotCheck {
    let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let object: Value = serde_json::from_slice(first).unwrap_or_default();
    CouldNotCheck(if object["type"] == "backup" {
        "it is a backup: `haldir ledger restore` verifies it while it makes a data directory of it".to_owned()
    } else {
        "it has no form that is known".to_owned()
    })
}

fn text(source: impl Read) -> Result<String, CouldNotCheck> {
    let mut bytes = Vec::new();
    let read = source.take(DOCUMENT_LEN_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| CouldNotCheck(format!("it cannot be read: {error}")))?;
    if bytes.len() > DOCUMENT_LEN_MAX {
        return Err(CouldNotCheck(format!("it is longer than {DOCUMENT_LEN_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| CouldNotCheck("it is not UTF-8".to_owned()))
}

fn document(source: impl Read) -> Result<Value, CouldNotCheck> {
    let text = text(source)?;
    json::parse(text.as_bytes())
        .map_err(|error| CouldNotCheck(format!("it is not one JSON document: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_apart() {
        for (text, form) in [
            ("{\"type\":\"header\",\"format\":\"haldir-ledger\"}\n", Some(Form::LedgerExport)),
            ("{\"activity_id\":1,\"raw_data\":\"SExEUg==\"}\n", Some(Form::Ocsf)),
            (
                "{\"entry_id\":\"aud_1\",\"prev_hash\":\"\",\"entry_hash\":\"00\"}\n",
                Some(Form::AuditJsonLines),
            ),
            ("{\"type\":\"manifest\",\"format_version\":1}\n", Some(Form::AuditJsonLines)),
            ("entry_id,timestamp,timestamp_iso\n", Some(Form::AuditCsv)),
            ("c2sp.org/tlog-proof@v1\n", Some(Form::ProofFile)),
            ("haldir/ledger/acme\n", Some(Form::Checkpoint)),
            ("{\n \"tree_size\": 1,\n \"root_hash\": \"00\"\n}\n", Some(Form::TreeHead)),
            (
                "{\"entry_id\":\"aud_1\",\"audit_path\":[],\"tree_size\":1,\"root_hash\":\"\"}",
                Some(Form::Inclusion),
            ),
            ("{\"consistency_path\":[]}", Some(Form::Consistency)),
            ("", None),
            ("{}", None),
            ("{", None),
            ("[1]", None),
            ("haldir", None),
        ] {
            assert_eq!(Form::of(text.as_bytes()), form, "{text}");
        }
    }
}
