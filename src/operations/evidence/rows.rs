//! Verifies an audit export, JSON lines or CSV, by its signed manifest. See "Export manifest" in ledger-format.md.
//!
//! Rows are what the server wrote and signed, not entries: a sound export is one that nobody changed since. The manifest
//! names its key, so that the signature can be checked, for what it is worth, with no key named.
//!
//! In the [`Report`], places are rows from 0, and the size is their number.

use std::io::{BufRead, Read as _};

use data_encoding::HEXLOWER;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{CouldNotCheck, Expected, Report, Signer, Verdict, json};
use crate::format::chain::PublicKey;
use crate::format::manifest;
use crate::operations::audit_export::{EXPORT_VERSION, Format};
use crate::operations::audit_rows::CSV_HEADER;

/// Bytes of the longest row: details of 1 MiB, every byte of which may be written as several.
pub const ROW_LEN_MAX: u64 = 8 << 20;
/// What the line of a manifest begins with.
pub const MANIFEST_START: &[u8] = b"{\"type\":\"manifest\",";

const CELL_COUNT: usize = 14;

/// What is read of a manifest.
#[derive(Deserialize)]
struct Manifest {
    format_version: u32,
    tenant_id: String,
    filters: Map<String, Value>,
    count: u64,
    first_timestamp: Option<Box<RawValue>>,
    last_timestamp: Option<Box<RawValue>>,
    last_chain_hash: String,
    sha256: String,
    format: String,
    content_sha256: String,
    key_id: String,
    public_key: String,
}

/// What is read of a row.
#[derive(Deserialize)]
struct Row {
    entry_id: String,
    timestamp: Box<RawValue>,
    tenant_id: String,
    prev_hash: String,
    entry_hash: String,
}

/// What was read so far.
#[derive(Default)]
struct Tally {
    count: u64,
    first: Option<u64>,
    last: Option<u64>,
    last_hash: String,
    ids: Sha256,
    content: Sha256,
    tenant: Option<String>,
    /// The first row that cannot be one of any export.
    wrong: Option<(u64, String)>,
    /// The first row that does not name the row before it, which rows of a filtered export need not.
    unlinked: Option<u64>,
}

/// Verifies JSON lines, of which the last is the manifest.
///
/// # Errors
///
/// [`CouldNotCheck`] when they cannot be read.
pub fn json_lines(source: &mut impl BufRead, expected: &Expected) -> Result<Report, CouldNotCheck> {
    let mut tally = Tally::default();
    let mut signed: Option<String> = None;
    while let Some(line) = next_line(source)? {
        if let Some(signed) = &signed {
            return Ok(not_sound(expected, Some(signed), tally.count, "something follows the manifest"));
        }
        if line.starts_with(MANIFEST_START) {
            let text = String::from_utf8(line).unwrap_or_default();
            signed = Some(text.strip_suffix('\n').unwrap_or(&text).to_owned());
            continue;
        }
        tally.content.update(&line);
        match json_row(&line) {
            Ok(row) => {
                let at = micros(row.timestamp.get());
                tally.add(&row.entry_id, at, &row.tenant_id, &row.prev_hash, row.entry_hash);
            }
            Err(why) => tally.object(format!("malformed row: {why}")),
        }
    }
    tally.judge(expected, signed.as_deref(), Format::Jsonl)
}

/// Verifies CSV with the manifest that came beside it.
///
/// # Errors
///
/// [`CouldNotCheck`] when it cannot be read.
pub fn csv(
    source: &mut impl BufRead,
    manifest: Option<&str>,
    expected: &Expected,
) -> Result<Report, CouldNotCheck> {
    let mut tally = Tally::default();
    let header = next_line(source)?.unwrap_or_default();
    tally.content.update(&header);
    if header != CSV_HEADER.as_bytes() {
        tally.object("malformed row: the columns have other names".to_owned());
    }
    while let Some(record) = next_record(source)? {
        tally.content.update(&record);
        match cells(&record) {
            Some(cells) => {
                let [id, at, _, tenant, _, _, _, _, _, _, _, _, prev, hash] = cells;
                tally.add(&id, micros(&at), &tenant, &prev, hash);
            }
            None => tally.object(format!("malformed row: not {CELL_COUNT} cells")),
        }
    }
    let manifest = manifest.map(|text| text.strip_suffix('\n').unwrap_or(text));
    tally.judge(expected, manifest, Format::Csv)
}

impl Tally {
    fn add(&mut self, id: &str, at: Option<u64>, tenant: &str, prev: &str, hash: String) {
        match at {
            None => self.object("malformed row: the timestamp is none".to_owned()),
            Some(at) if self.last.is_some_and(|last| at <= last) => {
                self.object("is not later than the row before it".to_owned());
            }
            Some(_) => {}
        }
        if self.tenant.get_or_insert_with(|| tenant.to_owned()) != tenant {
            self.object(format!("belongs to tenant {tenant}"));
        }
        if prev != self.last_hash {
            self.unlinked.get_or_insert(self.count);
        }
        self.first = self.first.or(at);
        self.last = at.or(self.last);
        self.last_hash = hash;
        self.ids.update(id);
        self.ids.update("\n");
        self.count += 1;
    }

    fn object(&mut self, why: String) {
        self.wrong.get_or_insert((self.count, why));
    }

    fn judge(
        mut self,
        expected: &Expected,
        signed: Option<&str>,
        format: Format,
    ) -> Result<Report, CouldNotCheck> {
        let Some(signed) = signed else {
            let tenant = self.tenant.as_deref().unwrap_or("(unknown)");
            let mut report = report(tenant, self.count);
            report.verdict = Verdict::Incomplete;
            report.reason = match format {
                Format::Jsonl => "it ends without the manifest that signs its rows".to_owned(),
                Format::Csv => "nothing signs its rows: name their manifest with --manifest".to_owned(),
            };
            return Ok(report);
        };
        let bad = |seq, why: &str| Ok(not_sound(expected, Some(signed), seq, why));
        let manifest = match read_manifest(signed) {
            Ok(manifest) => manifest,
            Err(why) => return bad(self.count, &format!("malformed manifest: {why}")),
        };
        if manifest.format_version != EXPORT_VERSION {
            let why = format!("its manifest is of version {}", manifest.format_version);
            return Err(CouldNotCheck(why));
        }
        let Some(key) = key_of(&manifest.public_key) else {
            return bad(self.count, "malformed manifest: the public key is none");
        };
        if !manifest::is_signed_by(signed, key) {
            return bad(self.count, "the signature of the manifest is wrong");
        }
        if key.id().to_string() != manifest.key_id {
            return bad(self.count, "the manifest names another key than the one it brings");
        }
        if expected.tenant.as_ref().is_some_and(|tenant| tenant.as_str() != manifest.tenant_id) {
            return bad(0, &format!("belongs to tenant {}", manifest.tenant_id));
        }
        if let Some((row, why)) = self.disagreement(&manifest, format) {
            return bad(row, &why);
        }

        let mut report = report(&manifest.tenant_id, self.count);
        let named = expected.keys.contains(&key);
        report.signers = vec![Signer { key_id: manifest.key_id, from: 0, named }];
        if !named {
            report.verdict = Verdict::UnnamedKey;
            report.reason = format!("signed by key {}, which you did not name", key.id());
        }
        if !manifest.filters.is_empty() {
            let filters = Value::Object(manifest.filters);
            report.limits.push(format!("it holds the rows that these filters let through: {filters}"));
        }
        if !expected.pins.is_empty() {
            report.limits.push("no pinned checkpoint was compared: rows have no tree".to_owned());
        }
        Ok(report)
    }

    /// In what the rows are not those of the manifest, and from which row on.
    fn disagreement(&mut self, manifest: &Manifest, format: Format) -> Option<(u64, String)> {
        let all = |why: &str| Some((0, why.to_owned()));
        let time = |text: &Option<Box<RawValue>>| text.as_ref().map(|text| micros(text.get()));
        let digest = |hasher: &mut Sha256| HEXLOWER.encode(&std::mem::take(hasher).finalize());
        if manifest.format != format.name() {
            return all(&format!("the manifest is of the form {}", manifest.format));
        }
        if manifest.count != self.count {
            let (here, signed) = (self.count, manifest.count);
            return Some((
                here.min(signed),
                format!("the manifest is of {signed} rows, and {here} are here"),
            ));
        }
        if let Some(wrong) = self.wrong.take() {
            return Some(wrong);
        }
        if self.tenant.as_ref().is_some_and(|tenant| *tenant != manifest.tenant_id) {
            return all("belongs to another tenant than the manifest");
        }
        if let Some(row) = self.unlinked.filter(|_| manifest.filters.is_empty()) {
            return Some((row, "does not follow the row before it".to_owned()));
        }
        if digest(&mut self.ids) != manifest.sha256 {
            return all("the ids of the rows are not those of the manifest");
        }
        let are_times = time(&manifest.first_timestamp) == self.first.map(Some)
            && time(&manifest.last_timestamp) == self.last.map(Some);
        if !are_times {
            return all("the first or last time is not that of the manifest");
        }
        if manifest.last_chain_hash != self.last_hash {
            return Some((
                self.count.saturating_sub(1),
                "the last hash is not that of the manifest".to_owned(),
            ));
        }
        if digest(&mut self.content) != manifest.content_sha256 {
            return all("the rows are not the ones that the manifest signs");
        }
        None
    }
}

fn report(tenant: &str, count: u64) -> Report {
    let mut report = Report::not_sound(tenant.to_owned(), count, String::new());
    (report.verdict, report.first_bad_seq) = (Verdict::Sound, None);
    report.limits.push(
        "these are rows as the server wrote and signed them, not the ledger's entries: an export with --format \
         ledger proves more"
            .to_owned(),
    );
    report
}

fn not_sound(expected: &Expected, signed: Option<&str>, row: u64, why: &str) -> Report {
    let claimed = signed.and_then(|signed| read_manifest(signed).ok()).map(|manifest| manifest.tenant_id);
    let tenant = expected.tenant.as_ref().map(ToString::to_string).or(claimed);
    Report::not_sound(tenant.unwrap_or_else(|| "(unknown)".to_owned()), row, why.to_owned())
}

fn read_manifest(line: &str) -> Result<Manifest, serde_json::Error> {
    json::parse(line.as_bytes())?;
    serde_json::from_str(line)
}

fn json_row(line: &[u8]) -> Result<Row, serde_json::Error> {
    json::parse(line)?;
    serde_json::from_slice(line)
}

fn key_of(hex: &str) -> Option<PublicKey> {
    PublicKey::from_bytes(&HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()?)
}

/// Seconds with up to six decimal places, exactly.
fn micros(seconds: &str) -> Option<u64> {
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain(whole) || !is_plain(fraction) || fraction.len() > 6 {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<6}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(fraction)
}

fn next_line(source: &mut impl BufRead) -> Result<Option<Vec<u8>>, CouldNotCheck> {
    let mut line = Vec::new();
    let read = source.take(ROW_LEN_MAX).read_until(b'\n', &mut line);
    let len = read.map_err(|error| CouldNotCheck(format!("it cannot be read: {error}")))?;
    Ok((len > 0).then_some(line))
}

/// A record of CSV: lines up to one after which every quote is closed.
fn next_record(source: &mut impl BufRead) -> Result<Option<Vec<u8>>, CouldNotCheck> {
    let mut record = Vec::new();
    while let Some(line) = next_line(source)? {
        record.extend(line);
        let is_closed = record.iter().fold(true, |is_closed, byte| is_closed != (*byte == b'"'));
        if is_closed || record.len() as u64 > ROW_LEN_MAX {
            break;
        }
    }
    Ok((!record.is_empty()).then_some(record))
}

/// The cells of a record (RFC 4180, but LF at its end).
fn cells(record: &[u8]) -> Option<[String; CELL_COUNT]> {
    let mut rest = str::from_utf8(record).ok()?.strip_suffix('\n')?;
    let mut cells = Vec::with_capacity(CELL_COUNT);
    loop {
        let mut cell = String::new();
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted;
            loop {
                let (part, after) = rest.split_once('"')?;
                cell.push_str(part);
                rest = after;
                // A quote in a cell stands twice.
                match rest.strip_prefix('"') {
                    Some(after) => rest = after,
                    None => break,
                }
                cell.push('"');
            }
        } else {
            let len = rest.find(',').unwrap_or(rest.len());
            cell.push_str(&rest[..len]);
            rest = &rest[len..];
        }
        cells.push(cell);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.is_empty() => return cells.try_into().ok(),
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_exactly() {
        for (text, expected) in [
            ("1700000000.25", Some(1_700_000_000_250_000)),
            ("1700000000.250000", Some(1_700_000_000_250_000)),
            ("1700000000.0", Some(1_700_000_000_000_000)),
            ("5", Some(5_000_000)),
            ("0.000001", Some(1)),
            ("0.0000001", None),
            ("-1", None),
            ("1e3", None),
            ("", None),
            ("18446744073710", None),
        ] {
            assert_eq!(micros(text), expected, "{text}");
        }
    }

    #[test]
    fn cells_are_taken_apart_at_commas_outside_of_quotes() {
        let record = |first: &str| format!("{first}{}\n", ",x".repeat(CELL_COUNT - 1)).into_bytes();
        let first = |text: &str| cells(&record(text)).map(|cells| cells[0].clone());
        assert_eq!(first("a").as_deref(), Some("a"));
        assert_eq!(first("").as_deref(), Some(""));
        assert_eq!(first("\"a,\"\"b\"\"\n\"").as_deref(), Some("a,\"b\"\n"));
        for bad in ["a,b", "\"a", "\"a\"b", "\"a\"\"\"\""] {
            assert_eq!(first(bad), None, "{bad}");
        }
    }
}
