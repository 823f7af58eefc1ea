//! The lines of a ledger export on their way to a file.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;

use serde_json::Value;

use crate::cli::client::{self, Connection};
use crate::format::entry;
use crate::operations::ocsf;

/// The ledger export of a server, as it arrives.
pub(super) fn download(connection: &Connection, query: &str) -> Result<impl Read + Send + use<>, String> {
    client::get(&format!("{}/v1/ledger/export{query}", connection.url), connection.key()?, &[])
}

/// A file of an earlier export, cut after its last whole entry.
pub(super) struct Resumed {
    /// The file, at its end.
    pub(super) file: File,
    /// The entry that comes next.
    pub(super) next_seq: u64,
}

impl Resumed {
    /// Opens the file and cuts off its end: a last line that is not whole, and the line that closes it.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(|error| at(&error))?;
        let mut reader = BufReader::new(&mut file);
        let (mut kept_len, mut len, mut next_seq) = (0, 0, None);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).map_err(|error| at(&error))? > 0 {
            len += line.len() as u64;
            let parsed = line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice::<Value>(line).ok());
            let Some(parsed) = parsed else {
                break;
            };
            match parsed["type"].as_str() {
                Some("header") => next_seq = Some(parsed["from"].as_u64().unwrap_or(0)),
                Some("entry") => next_seq = parsed["seq"].as_u64().map(|seq| seq + 1),
                _ => break,
            }
            kept_len = len;
            line.clear();
        }
        let next_seq = next_seq.ok_or_else(|| at(&"not a ledger export"))?;
        file.set_len(kept_len).map_err(|error| at(&error))?;
        file.seek(SeekFrom::End(0)).map_err(|error| at(&error))?;
        Ok(Self { file, next_seq })
    }
}

/// The exact bytes in a line of a ledger export.
pub(super) fn entry_bytes(parsed: &Value) -> Result<Vec<u8>, String> {
    let encoded = parsed["entry"].as_str().unwrap_or_default();
    data_encoding::BASE64
        .decode(encoded.as_bytes())
        .map_err(|error| format!("an entry is not base64: {error}"))
}

/// The OCSF line of an entry.
pub(super) fn ocsf_line(parsed: &Value) -> Result<String, String> {
    let bytes = entry_bytes(parsed)?;
    let entry = entry::open(&bytes).map_err(|error| error.to_string())?;
    Ok(ocsf::line(&entry, &bytes))
}

pub(super) fn written(result: std::io::Result<()>) -> Result<(), String> {
    result.map_err(|error| format!("the export cannot be written: {error}"))
}
