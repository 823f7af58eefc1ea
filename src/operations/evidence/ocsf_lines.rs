//! Verifies OCSF lines: each carries the entry that it is made of, and must be, letter for letter, what is made of it.
//!
//! They bring no keys and say nowhere that the stream ended. Only a pinned checkpoint of exactly their number does.

use std::io::{BufRead, Read as _};

use data_encoding::BASE64;

use super::claim::keys_must_be_named;
use super::ledger_export::LINE_LEN_MAX;
use super::walk::{Ending, Objection, Start, Walk};
use super::{CouldNotCheck, Expected, Report, json};
use crate::format::checkpoint::parse_base64;
use crate::format::verify::{Examined, examine};
use crate::ledger::walk::Reading;
use crate::operations::ocsf;

/// Verifies lines up to the end of the source.
///
/// # Errors
///
/// [`CouldNotCheck`] when no key was named, or the first line holds no entry.
pub fn verify(source: &mut impl BufRead, expected: &Expected) -> Result<Report, CouldNotCheck> {
    keys_must_be_named(expected)?;
    let mut walk: Option<Walk<Vec<u8>>> = None;
    let mut is_cut = false;
    while walk.as_ref().is_none_or(|walk| !walk.is_over()) {
        let mut line = Vec::new();
        let read = source.take(LINE_LEN_MAX).read_until(b'\n', &mut line);
        match read {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(CouldNotCheck(format!("it cannot be read: {error}"))),
        }
        let walk = match &mut walk {
            Some(walk) => walk,
            None => walk.insert(start(&line, expected)?),
        };
        if is_cut || line.len() as u64 >= LINE_LEN_MAX {
            walk.verify(read_line);
            walk.object("malformed line: longer than a line can be");
        } else if !line.ends_with(b"\n") && json::parse(&line).is_err() {
            // The last line was cut off. Nothing says that there was none after it either.
            is_cut = true;
        } else {
            walk.add(line, read_line);
        }
    }
    let mut walk = walk.ok_or_else(|| CouldNotCheck("it is empty".to_owned()))?;
    walk.verify(read_line);
    Ok(walk.finish(&if is_cut { Ending::BrokenOff(None) } else { Ending::Unsaid }))
}

fn start(line: &[u8], expected: &Expected) -> Result<Walk<Vec<u8>>, CouldNotCheck> {
    let first = read_any(line)
        .map_err(|Objection(why)| CouldNotCheck(format!("its first line does not hold an entry: {why}")))?;
    let entry = first.examined.entry;
    let start = match entry.recorded.seq {
        0 => Start::First,
        size => Start::Middle { size, prev: entry.prev },
    };
    Ok(Walk::new(entry.tenant, expected, expected.trust(Vec::new(), &[]), start))
}

#[expect(clippy::ptr_arg, reason = "a piece of the walk is what the walk holds")]
fn read_line(line: &Vec<u8>) -> Result<Reading<Objection>, Objection> {
    match read_canonical(line) {
        Some(examined) => Ok(Reading { examined, objection: None }),
        None => read_any(line),
    }
}

/// The entry of a line that is the one made of it.
fn read_canonical(line: &[u8]) -> Option<Examined> {
    let text = str::from_utf8(line).ok()?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let (_, rest) = text.split_once("\"raw_data\":\"")?;
    let (encoded, _) = rest.split_once('"')?;
    let bytes = BASE64.decode(encoded.as_bytes()).ok()?;
    let examined = examine(&bytes).ok()?;
    (text == ocsf::line(&examined.entry, &bytes)).then_some(examined)
}

/// The entry of a line that is not, or not yet known to be.
fn read_any(line: &[u8]) -> Result<Reading<Objection>, Objection> {
    let malformed = |why: &dyn std::fmt::Display| Objection(format!("malformed line: {why}"));
    let given = json::parse(line).map_err(|error| malformed(&error))?;
    let bytes = given["raw_data"].as_str().and_then(parse_base64);
    let bytes = bytes.ok_or_else(|| malformed(&"raw_data is not base64"))?;
    let examined = examine(&bytes)?;
    let objection =
        Some(Objection("mislabelled: the line is not the one that is made of its entry".to_owned()));
    Ok(Reading { examined, objection })
}
