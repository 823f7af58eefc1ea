//! Reads backups and ledger exports: what streams are restored and repaired from.
//!
//! A backup is a text of JSON lines: a header (`"type":"backup"`); for each stream its ledger export, closed by a checkpoint,
//! and then what stands beside its entries (`"type":"side"`) and its sealed values (`"type":"sealed"`); files of the installation (`"type":"file"`); and a last line
//! (`"type":"done"`) with the SHA-256 of everything before it. A ledger export alone is read as a backup of one stream.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use data_encoding::{BASE64, HEXLOWER};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::domain::id::TenantId;
use crate::operations::evidence::ledger_export::ExportCheck;
use crate::operations::evidence::{Expected, Report};
use crate::store::{SideKind, SideRow, ValueId};
use crate::vault::digest_of;

/// Bytes of a line at most: details of an action have up to a mebibyte, and grow in base64.
const LINE_LEN_MAX: u64 = 4 << 20;

/// Files of an installation that a backup may bring.
const FILES: [&str; 5] = ["signing.pub", "signing.former", "certificates", "signing.key", "retry.secret"];

/// What a line of a backup holds.
pub(super) enum Item {
    /// The start of a stream.
    Stream(TenantId),
    /// The bytes of the next entry of the stream that was begun last.
    Entry(Vec<u8>),
    /// What stands beside an entry of that stream.
    Side(SideRow),
    /// A sealed value of that stream's tenant, and its digest.
    Sealed(ValueId, Vec<u8>),
    /// A file of the installation.
    File { name: &'static str, content: String },
}

/// What a backup amounts to.
pub(super) struct Checked {
    /// A report of each stream.
    pub(super) streams: Vec<Report>,
    /// Whether it is whole: a backup with its last line, or an export with its own.
    pub(super) is_whole: bool,
}

/// Verifies everything in a backup.
pub(super) fn check(path: &Path, expected: &Expected) -> Result<Checked, String> {
    let mut streams = Vec::new();
    let mut export: Option<ExportCheck> = None;
    let (mut is_backup, mut is_done) = (false, false);
    let mut digest = Sha256::new();
    let finish = |export: Option<ExportCheck>, streams: &mut Vec<Report>| -> Result<(), String> {
        if let Some(export) = export {
            streams.push(export.finish().map_err(|why| format!("{}: {why}", path.display()))?);
        }
        Ok(())
    };
    for_each_line(path, |line, parsed| {
        if is_done {
            return Err(format!("{}: something was added after the last line", path.display()));
        }
        match parsed["type"].as_str() {
            Some("backup") => {
                is_backup = true;
                if parsed["format"] != "haldir-backup" || parsed["version"] != 1 {
                    return Err(format!("{}: a backup of an unknown version", path.display()));
                }
            }
            Some("header") => {
                finish(export.take(), &mut streams)?;
                let mut check = ExportCheck::new(expected.clone());
                check.line(line.to_vec()).map_err(|why| format!("{}: {why}", path.display()))?;
                export = Some(check);
            }
            Some("entry" | "end") => {
                let check =
                    export.as_mut().ok_or_else(|| format!("{}: an entry of no stream", path.display()))?;
                check.line(line.to_vec()).map_err(|why| format!("{}: {why}", path.display()))?;
            }
            Some("done") => {
                let told = parsed["sha256"].as_str().unwrap_or_default();
                is_done = HEXLOWER.encode(&digest.clone().finalize()) == told;
                if !is_done {
                    return Err(format!("{}: the backup was altered or is torn", path.display()));
                }
            }
            Some("side" | "sealed" | "file") => drop(item(path, &parsed)?),
            _ => return Err(format!("{}: neither a backup nor a ledger export", path.display())),
        }
        digest.update(line);
        Ok(())
    })?;
    finish(export, &mut streams)?;
    if streams.is_empty() && !is_done {
        return Err(format!("{}: neither a backup nor a ledger export", path.display()));
    }
    Ok(Checked { streams, is_whole: !is_backup || is_done })
}

/// Goes through a backup that was checked.
pub(super) fn for_each_item(
    path: &Path,
    mut take: impl FnMut(Item) -> Result<(), String>,
) -> Result<(), String> {
    for_each_line(path, |_, parsed| item(path, &parsed)?.map_or(Ok(()), &mut take))
}

/// What a line holds; `None` for one that only frames others.
fn item(path: &Path, parsed: &Value) -> Result<Option<Item>, String> {
    let malformed = || format!("{}: a malformed line", path.display());
    let bytes = |value: &Value| value.as_str().and_then(|text| BASE64.decode(text.as_bytes()).ok());
    Ok(Some(match parsed["type"].as_str() {
        Some("header") => {
            let tenant = parsed["tenant_id"].as_str().and_then(TenantId::parse);
            Item::Stream(tenant.ok_or_else(malformed)?)
        }
        Some("entry") => Item::Entry(bytes(&parsed["entry"]).ok_or_else(malformed)?),
        Some("side") => Item::Side(SideRow {
            kind: parsed["kind"].as_str().and_then(SideKind::parse).ok_or_else(malformed)?,
            id: bytes(&parsed["id"]).ok_or_else(malformed)?,
            value: bytes(&parsed["value"]).ok_or_else(malformed)?,
        }),
        Some("sealed") => {
            let digest = parsed["digest"].as_str().and_then(|text| HEXLOWER.decode(text.as_bytes()).ok());
            let digest = digest.and_then(|digest| digest.try_into().ok()).ok_or_else(malformed)?;
            let value = bytes(&parsed["value"]).filter(|value| digest_of(value) == Some(digest));
            Item::Sealed(digest, value.ok_or_else(malformed)?)
        }
        Some("file") => {
            let name = parsed["name"].as_str().unwrap_or_default();
            // No other name is written, wherever it may point.
            let name = FILES.into_iter().find(|known| *known == name).ok_or_else(|| {
                format!("the backup brings a file {name:?}, which is none of an installation's")
            })?;
            Item::File { name, content: parsed["content"].as_str().ok_or_else(malformed)?.to_owned() }
        }
        _ => return Ok(None),
    }))
}

fn for_each_line(
    path: &Path,
    mut take: impl FnMut(&[u8], Value) -> Result<(), String>,
) -> Result<(), String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut source = BufReader::with_capacity(1 << 20, File::open(path).map_err(|error| at(&error))?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut source).take(LINE_LEN_MAX).read_until(b'\n', &mut line).map_err(|error| at(&error))? == 0 {
            return Ok(());
        }
        let Ok(parsed) = serde_json::from_slice(&line) else {
            // The last line of a file that was cut off: what comes before it may still be of use.
            return if line.ends_with(b"\n") { Err(at(&"a line that is not JSON")) } else { Ok(()) };
        };
        take(&line, parsed)?;
    }
}
