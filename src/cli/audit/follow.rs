//! `haldir audit export --follow`: subscribes to a server's events and never loses or repeats one.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::lines::{Resumed, download, ocsf_line, written};
use crate::cli::client::{self, Connection};
use crate::cli::complain;

/// How long to wait before trying again a server that went away, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// Writes every event from `from_seq` on, or from where the file stops, until interrupted.
pub(super) fn run(
    connection: &Connection,
    out: Option<&Path>,
    from_seq: Option<u64>,
    is_ocsf: bool,
) -> Result<(), String> {
    let mut next_seq = from_seq.unwrap_or(0);
    let mut sink: Box<dyn Write> = match out {
        None => Box::new(std::io::stdout()),
        Some(path) if holds_something(path) && is_ocsf => {
            let (file, next) = resume_ocsf(path)?;
            next_seq = next.unwrap_or(next_seq);
            Box::new(file)
        }
        Some(path) if holds_something(path) => {
            let resumed = Resumed::open(path)?;
            next_seq = resumed.next_seq;
            Box::new(resumed.file)
        }
        Some(path) => {
            let mut file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
            if !is_ocsf {
                written(write_header(connection, next_seq, &mut file)?)?;
            }
            Box::new(file)
        }
    };
    let mut pause = PAUSES[0];
    loop {
        let before = next_seq;
        let broke_off = subscribe(connection, &mut next_seq, |event| {
            let line = if is_ocsf { ocsf_line(event)? } else { event.to_string() };
            written(writeln!(sink, "{line}").and_then(|()| sink.flush()))
        });
        match broke_off {
            Err(Stop::Fatal(why)) => return Err(why),
            Err(Stop::Lost(why)) => {
                complain(&format!("{why}; trying again in {}", humantime::format_duration(pause)));
            }
            Ok(()) => complain("the server closed the stream; trying again"),
        }
        std::thread::sleep(pause);
        pause = if next_seq > before { PAUSES[0] } else { (pause * 2).min(PAUSES[1]) };
    }
}

/// Whether there is a file to go on with. An empty one was left by a run that was killed before it began.
fn holds_something(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0)
}

/// Why a subscription ended.
enum Stop {
    /// There is no point in trying again.
    Fatal(String),
    /// The server went away.
    Lost(String),
}

/// Hands over events from `next_seq` on as they come.
fn subscribe(
    connection: &Connection,
    next_seq: &mut u64,
    mut take: impl FnMut(&Value) -> Result<(), String>,
) -> Result<(), Stop> {
    let url = format!("{}/v1/ledger/events", connection.url);
    let mut headers = vec![("Accept", "text/event-stream".to_owned())];
    if let Some(last) = next_seq.checked_sub(1) {
        headers.push(("Last-Event-ID", last.to_string()));
    }
    let key = connection.key().map_err(Stop::Fatal)?;
    let source = client::get(&url, key, &headers).map_err(|why| {
        // A server that answers "no" will not think otherwise a moment later.
        if why.contains(" answered 4") { Stop::Fatal(why) } else { Stop::Lost(why) }
    })?;
    for line in BufReader::new(source).lines() {
        let line = line.map_err(|error| Stop::Lost(format!("the connection broke: {error}")))?;
        let Some(data) = line.strip_prefix("data: ") else {
            continue;
        };
        let event: Value = serde_json::from_str(data).map_err(|error| Stop::Lost(error.to_string()))?;
        let seq = event["seq"].as_u64();
        if seq != Some(*next_seq) {
            return Err(Stop::Lost(format!("expected seq {next_seq} and got {seq:?}")));
        }
        take(&event).map_err(Stop::Fatal)?;
        *next_seq += 1;
    }
    Ok(())
}

/// The header of an export that begins at `next_seq`, as the server writes it.
fn write_header(
    connection: &Connection,
    next_seq: u64,
    file: &mut File,
) -> Result<std::io::Result<()>, String> {
    let source = download(connection, &format!("?from_seq={next_seq}&until_seq={next_seq}"))?;
    let header = BufReader::new(source).lines().next();
    let header = header.ok_or("the server sent nothing")?.map_err(|error| error.to_string())?;
    Ok(writeln!(file, "{header}"))
}

/// An OCSF file to go on with: cut after its last whole line, and the seq that comes next.
fn resume_ocsf(path: &Path) -> Result<(File, Option<u64>), String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut file = OpenOptions::new().read(true).append(true).open(path).map_err(|error| at(&error))?;
    let (mut kept_len, mut len, mut next) = (0, 0, None);
    let mut reader = BufReader::new(&mut file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).map_err(|error| at(&error))? > 0 {
        len += line.len() as u64;
        let parsed = line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice::<Value>(line).ok());
        let Some(seq) = parsed.and_then(|event| event["metadata"]["sequence"].as_u64()) else {
            break;
        };
        (kept_len, next) = (len, Some(seq + 1));
        line.clear();
    }
    file.set_len(kept_len).map_err(|error| at(&error))?;
    Ok((file, next))
}
