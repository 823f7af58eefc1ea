//! Reads a ledger export line by line and verifies it. See "Ledger export" in ledger-format.md.

use std::io::{BufRead, Read as _};
use std::thread;

use crossbeam_channel::{Sender, bounded};
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::walk::{Closing, End, Ending, Objection, Start, Walk};
use super::{CouldNotCheck, Expected, Report, json};
use crate::domain::id::TenantId;
use crate::domain::rederive::Due;
use crate::format::certificate::KeyCertificate;
use crate::format::chain::{EntryHash, PublicKey};
use crate::format::checkpoint::{SignedCheckpoint, parse_base64};
use crate::format::merkle::{Tree, TreeHash};
use crate::format::verify::{Examined, Standpoint, examine};
use crate::ledger::walk::{Reading, WINDOW_LEN};
use crate::operations::decoded::{entry_json, entry_text};

/// Bytes of a line at most, its end included.
pub const LINE_LEN_MAX: u64 = 524_288;
/// Lines that are read at once.
const BLOCK_LEN: usize = 1024;

/// An export as far as it was read.
pub struct ExportCheck {
    expected: Expected,
    walk: Option<Walk<Vec<u8>>>,
    stream_size: Option<u64>,
    end: Option<End>,
    /// Whether a line was cut off, so that nothing can follow.
    is_cut: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line {
    Header(Header),
    Entry {
        #[expect(dead_code, reason = "must be there")]
        seq: u64,
        #[expect(dead_code, reason = "must be there")]
        kind: String,
        #[expect(dead_code, reason = "must be there")]
        at: String,
        #[expect(dead_code, reason = "must be there")]
        hash: String,
        entry: String,
    },
    End {
        size: u64,
        head: String,
        root: String,
        #[serde(default, deserialize_with = "present")]
        checkpoint: Option<String>,
    },
}

#[derive(Deserialize)]
struct Header {
    format: String,
    version: u16,
    tenant_id: String,
    public_keys: Vec<Value>,
    #[serde(default)]
    certificates: Vec<String>,
    #[serde(default)]
    from: u64,
    #[serde(default, deserialize_with = "present")]
    prev: Option<String>,
    #[serde(default)]
    peaks: Vec<String>,
    #[serde(default, deserialize_with = "present")]
    stream_size: Option<u64>,
}

/// A key that may be absent. One that is there holds what it should, not `null`.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl ExportCheck {
    /// Starts before the first line.
    #[must_use]
    pub const fn new(expected: Expected) -> Self {
        Self { expected, walk: None, stream_size: None, end: None, is_cut: false }
    }

    /// Whether something is wrong already, so that reading on is of no use.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.walk.as_ref().is_some_and(Walk::is_over)
    }

    /// Reads the next line, with its end.
    ///
    /// # Errors
    ///
    /// [`CouldNotCheck`] for a first line that is not the header of a ledger export.
    pub fn line(&mut self, line: Vec<u8>) -> Result<(), CouldNotCheck> {
        let Some(walk) = &mut self.walk else {
            return self.start(&line);
        };
        if self.end.is_some() {
            walk.object("something follows the last line");
            return Ok(());
        }
        if self.is_cut || line.len() as u64 >= LINE_LEN_MAX {
            self.object_after("malformed line: longer than a line can be");
            return Ok(());
        }
        if !line.ends_with(b"\n") && parse(&line).is_err() {
            // The last line was cut off: what comes before it is an export that breaks off.
            self.is_cut = true;
            return Ok(());
        }
        // Entries are by far the most lines, and are parsed on all cores.
        if line.starts_with(b"{\"actor\":") {
            walk.add(line, |line| read_entry(line));
            return Ok(());
        }
        match parse(&line) {
            Ok(Line::Entry { .. }) => walk.add(line, |line| read_entry(line)),
            Ok(Line::End { size, head, root, checkpoint }) => {
                walk.verify(|line| read_entry(line));
                let end = end_of(size, &head, &root, checkpoint.as_deref());
                match end {
                    Ok(end) => self.end = Some(End { stream_size: self.stream_size, ..end }),
                    Err(why) => walk.object(&why),
                }
            }
            Ok(Line::Header(_)) => self.object_after("malformed line: a second header"),
            Err(error) => self.object_after(&format!("malformed line: {error}")),
        }
        Ok(())
    }

    fn object_after(&mut self, reason: &str) {
        if let Some(walk) = &mut self.walk {
            walk.verify(|line| read_entry(line));
            walk.object(reason);
        }
    }

    fn start(&mut self, line: &[u8]) -> Result<(), CouldNotCheck> {
        let no_header =
            || CouldNotCheck("it does not begin with the header of a ledger export of version 1".to_owned());
        let Ok(Line::Header(header)) = parse(line) else {
            return Err(no_header());
        };
        if header.format != "haldir-ledger" || header.version != 1 {
            return Err(no_header());
        }
        let tenant = TenantId::parse(&header.tenant_id)
            .ok_or_else(|| CouldNotCheck("its tenant is not a tenant's id".to_owned()))?;
        let key = |named: &Value| {
            let bytes = HEXLOWER.decode(named["public_key"].as_str()?.as_bytes()).ok()?;
            PublicKey::from_bytes(&bytes.try_into().ok()?)
        };
        let offered = header.public_keys.iter().filter_map(key).collect();
        let certificates: Vec<_> =
            header.certificates.iter().filter_map(|line| KeyCertificate::parse(line)).collect();
        let start =
            if header.from == 0 { Start::First } else { Start::After(Box::new(standpoint(&header)?)) };
        if header.prev.as_deref().is_some_and(|prev| hash(prev).is_none()) {
            return Err(CouldNotCheck("its header names no hash before the first entry".to_owned()));
        }
        let trust = self.expected.trust(offered, &certificates);
        self.stream_size = header.stream_size;
        self.walk = Some(Walk::new(tenant, &self.expected, trust, start));
        Ok(())
    }

    /// What the export amounts to.
    ///
    /// # Errors
    ///
    /// [`CouldNotCheck`] when nothing was read.
    pub fn finish(mut self) -> Result<Report, CouldNotCheck> {
        let mut walk = self.walk.take().ok_or_else(|| CouldNotCheck("it is empty".to_owned()))?;
        if self.end.is_none() {
            walk.verify(|line| read_entry(line));
        }
        let said = |end| Ending::Said(Box::new(end));
        Ok(walk.finish(&self.end.map_or(Ending::BrokenOff(self.stream_size), said)))
    }
}

/// Verifies an export up to the end of the source, or the first thing that is wrong.
///
/// # Errors
///
/// [`CouldNotCheck`] when it cannot be read, or does not begin with the header of a ledger export.
pub fn verify(source: &mut (impl BufRead + Send), expected: Expected) -> Result<Report, CouldNotCheck> {
    let mut check = ExportCheck::new(expected);
    thread::scope(|scope| {
        // As many as the next window needs while this one is verified.
        let (blocks, ahead) = bounded(WINDOW_LEN / BLOCK_LEN);
        scope.spawn(move || read_blocks(source, &blocks));
        for line in ahead.into_iter().flatten() {
            check.line(line.map_err(|error| CouldNotCheck(format!("it cannot be read: {error}")))?)?;
            if check.is_over() {
                break;
            }
        }
        Ok(())
    })?;
    check.finish()
}

/// Reads lines ahead of those that are verified, until nobody takes them.
fn read_blocks(source: &mut impl BufRead, blocks: &Sender<Vec<std::io::Result<Vec<u8>>>>) {
    let mut next_line = || {
        let mut line = Vec::new();
        // A line that is too long is read up to the limit and then found to be malformed.
        let read = source.take(LINE_LEN_MAX).read_until(b'\n', &mut line);
        read.map(|len| (len > 0).then_some(line)).transpose()
    };
    loop {
        let mut block = Vec::with_capacity(BLOCK_LEN);
        while block.len() < BLOCK_LEN && block.last().is_none_or(Result::is_ok) {
            let Some(line) = next_line() else { break };
            block.push(line);
        }
        let is_last = block.len() < BLOCK_LEN;
        if blocks.send(block).is_err() || is_last {
            return;
        }
    }
}

/// Where a range begins: what its header says of the entries before. That it is true shows at the end, when the tree over
/// those and these has the root that the checkpoint signs.
fn standpoint(header: &Header) -> Result<Standpoint, CouldNotCheck> {
    let malformed = || CouldNotCheck("its header does not say what comes before the first entry".to_owned());
    let peaks = header.peaks.iter().map(|peak| hash(peak).map(TreeHash)).collect::<Option<Vec<_>>>();
    let tree = Tree::from_peaks(header.from, peaks.ok_or_else(malformed)?).ok_or_else(malformed)?;
    let prev = header.prev.as_deref().and_then(hash).ok_or_else(malformed)?;
    let (size, head) = (header.from, EntryHash(prev));
    Ok(Standpoint { size, head, last_at: None, tree, state: None, due: Due::default(), signer: None })
}

fn end_of(size: u64, head: &str, root: &str, checkpoint: Option<&str>) -> Result<End, String> {
    let head = hash(head).ok_or("malformed line: the head is not a hash")?;
    let root = hash(root).ok_or("malformed line: the root is not a hash")?;
    let parse = |note: &str| {
        SignedCheckpoint::parse(note).map_err(|error| format!("malformed line: the checkpoint: {error}"))
    };
    let closing = checkpoint.map(parse).transpose()?.map_or(Closing::Nobody, Closing::Checkpoint);
    Ok(End { size, head: Some(EntryHash(head)), root: TreeHash(root), closing, stream_size: None })
}

/// A line without doubled keys.
fn parse(line: &[u8]) -> Result<Line, serde_json::Error> {
    serde_json::from_value(json::parse(line)?)
}

fn read_entry(line: &[u8]) -> Result<Reading<Objection>, Objection> {
    match read_canonical(line) {
        Some(examined) => Ok(Reading { examined, objection: None }),
        None => read_any(line),
    }
}

/// The entry of a line that is, letter for letter, the one that Haldir writes for it. Nearly every line is, and needs no
/// parsing.
fn read_canonical(line: &[u8]) -> Option<Examined> {
    const BEFORE: &str = "\"entry\":\"";
    let text = str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (_, rest) = text.split_once(BEFORE)?;
    let (encoded, _) = rest.split_once('"')?;
    let bytes = BASE64.decode(encoded.as_bytes()).ok()?;
    let examined = examine(&bytes).ok()?;
    (text == entry_text(&examined.entry, &bytes)).then_some(examined)
}

/// The entry of any other line, and what the line says wrongly of it.
fn read_any(line: &[u8]) -> Result<Reading<Objection>, Objection> {
    let malformed = |why: &dyn std::fmt::Display| Objection(format!("malformed line: {why}"));
    let given = json::parse(line).map_err(|error| malformed(&error))?;
    let parsed = serde_json::from_value(given.clone()).map_err(|error| malformed(&error))?;
    let Line::Entry { entry, .. } = parsed else {
        return Err(malformed(&"not an entry"));
    };
    let bytes = parse_base64(&entry).ok_or_else(|| malformed(&"the entry is not base64"))?;
    let examined = examine(&bytes)?;
    // Whatever else the line says, in keys that we know, must be what the entry says.
    let expected = entry_json(&examined.entry, &bytes);
    let given = given.as_object().into_iter().flatten();
    let mut agrees = true;
    for (key, value) in given {
        agrees &= expected.get(key).is_none_or(|expected| expected == value);
    }
    let objection =
        (!agrees).then(|| Objection("mislabelled: the line does not agree with its entry".to_owned()));
    Ok(Reading { examined, objection })
}

fn hash(hex: &str) -> Option<[u8; 32]> {
    HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}
