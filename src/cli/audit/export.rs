//! `haldir audit export`.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use serde_json::Value;

use super::follow;
use super::lines::{Resumed, download, entry_bytes, ocsf_line, written};
use super::tiles::TileFolder;
use crate::cli::client::{self, Connection};
use crate::cli::offline::{OfflineLedger, pick, progress};
use crate::config;
use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use crate::format::checkpoint::Checkpoint;
use crate::format::merkle::{Tree, leaf_hash};
use crate::ledger::replay::PAGE_LEN;
use crate::operations::export::{ExportLines, Plan, Range, hash_before, resolve};
use crate::store::{EventStore, Head};

/// What to export.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Export from this data directory, offline
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Which tenant's stream, when the directory holds several
    #[arg(long, requires = "data_dir")]
    tenant: Option<String>,
    /// The form of the export
    #[arg(long, value_enum, default_value = "ledger")]
    format: Format,
    /// Write to this file, or for tiles this folder, instead of standard output
    #[arg(long)]
    out: Option<PathBuf>,
    /// Go on with a file that an earlier export left, complete or not (ledger)
    #[arg(long, requires = "out")]
    resume: bool,
    /// Go on with every new event until interrupted, and where the file stopped when started again (ledger, ocsf)
    #[arg(long, conflicts_with_all = ["data_dir", "until_seq", "until"])]
    follow: bool,
    /// The first seq (ledger, ocsf, tiles)
    #[arg(long)]
    from_seq: Option<u64>,
    /// The seq after the last (ledger, ocsf, tiles)
    #[arg(long)]
    until_seq: Option<u64>,
    /// The first moment: unix seconds or ISO 8601
    #[arg(long)]
    since: Option<String>,
    /// The moment after the last
    #[arg(long)]
    until: Option<String>,
    /// Only actions of this session (jsonl, csv)
    #[arg(long)]
    session: Option<String>,
    /// Only actions of this agent (jsonl, csv)
    #[arg(long)]
    agent: Option<String>,
    /// Only actions with this tool (jsonl, csv)
    #[arg(long)]
    tool: Option<String>,
    /// Only flagged actions (jsonl, csv)
    #[arg(long)]
    flagged: bool,
}

/// The forms of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Every event's exact bytes and what they mean, one JSON line each, closed by a signed checkpoint
    Ledger,
    /// The same entries as a folder in the C2SP tlog-tiles layout
    Tiles,
    /// OCSF events, one JSON line each, for a SIEM
    Ocsf,
    /// Audited actions, one JSON line each, closed by a signed manifest
    Jsonl,
    /// Audited actions as CSV; the signed manifest is written beside the file
    Csv,
}

/// Exports.
pub(super) fn run(arguments: &ExportArgs, url: Option<String>, key: Option<String>) -> Result<(), String> {
    let connection =
        || -> Result<Connection, String> { Ok(Connection::find(url, key, &config::data_dir(None)?)) };
    match (arguments.format, &arguments.data_dir) {
        (Format::Ledger | Format::Ocsf, None) if arguments.follow => {
            let is_ocsf = arguments.format == Format::Ocsf;
            follow::run(&connection()?, arguments.out.as_deref(), arguments.from_seq, is_ocsf)
        }
        (_, _) if arguments.follow => Err("--follow writes the forms ledger and ocsf".to_owned()),
        (Format::Ledger | Format::Tiles | Format::Ocsf, _) if arguments.selects_actions() => {
            Err("--session, --agent, --tool and --flagged select actions, for the forms jsonl and csv; a ledger is exported with \
                 everything that proves it"
                .to_owned())
        }
        (Format::Jsonl | Format::Csv, None) => export_audit(arguments, &connection()?),
        (Format::Jsonl | Format::Csv, Some(_)) => {
            Err("the forms jsonl and csv come from a server: they hold details that a copy does not check"
                .to_owned())
        }
        (Format::Ledger | Format::Tiles | Format::Ocsf, None) => {
            let mut range = arguments.range_query();
            let resumed = arguments.resumed()?;
            if let Some(resumed) = &resumed {
                range = format!("?from_seq={}", resumed.next_seq);
            }
            let source = BufReader::with_capacity(1 << 20, download(&connection()?, &range)?);
            let lines =
                source.lines().map(|line| line.map_err(|error| format!("the export broke off: {error}")));
            write(arguments, lines, resumed)
        }
        (Format::Ledger | Format::Tiles | Format::Ocsf, Some(dir)) => {
            let ledger = OfflineLedger::open(dir)?;
            let heads = ledger.store.heads().map_err(|error| error.to_string())?;
            let (tenant, head) = pick(heads, arguments.tenant.as_deref())?;
            let plan = plan_offline(&ledger, tenant, head, arguments.range()?)?;
            let lines = ExportLines::new(ledger.store.clone(), plan);
            write(arguments, lines.map(|line| line.map_err(|error| error.to_string())), None)
        }
    }
}

impl ExportArgs {
    fn selects_actions(&self) -> bool {
        self.flagged || self.session.is_some() || self.agent.is_some() || self.tool.is_some()
    }

    fn range_query(&self) -> String {
        let number = |name, value: Option<u64>| value.map(|value| format!("{name}={value}"));
        let text = |name, value: &Option<String>| {
            value.as_ref().map(|value| format!("{name}={}", client::percent_encoded(value)))
        };
        let parts = [
            number("from_seq", self.from_seq),
            number("until_seq", self.until_seq),
            text("since", &self.since),
            text("until", &self.until),
            text("session_id", &self.session),
            text("agent_id", &self.agent),
            text("tool", &self.tool),
            self.flagged.then(|| "flagged=true".to_owned()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
    }

    fn range(&self) -> Result<Range, String> {
        let time = |text: &Option<String>| {
            let parse = |text: &String| {
                Timestamp::parse(text)
                    .ok_or_else(|| format!("{text:?}: expected unix seconds or an ISO 8601 time"))
            };
            text.as_ref().map(parse).transpose()
        };
        Ok(Range {
            from_seq: self.from_seq,
            until_seq: self.until_seq,
            since: time(&self.since)?,
            until: time(&self.until)?,
        })
    }

    /// Where an earlier export left its file.
    fn resumed(&self) -> Result<Option<Resumed>, String> {
        match (&self.out, self.resume) {
            (Some(path), true) if path.exists() && self.format == Format::Ledger => {
                Resumed::open(path).map(Some)
            }
            (_, true) if self.format != Format::Ledger => {
                Err("--resume goes on with the form ledger".to_owned())
            }
            _ => Ok(None),
        }
    }
}

/// Writes the lines of a ledger export in the wanted form.
fn write(
    arguments: &ExportArgs,
    lines: impl Iterator<Item = Result<String, String>>,
    resumed: Option<Resumed>,
) -> Result<(), String> {
    let is_resumed = resumed.is_some();
    let mut sink = Sink::open(arguments, resumed)?;
    let mut bar: Option<ProgressBar> = None;
    let mut is_closed = false;
    for line in lines {
        let line = line?;
        let parsed: Value =
            serde_json::from_str(&line).map_err(|error| format!("not a ledger export: {error}"))?;
        match parsed["type"].as_str() {
            Some("header") => {
                let size = parsed["stream_size"].as_u64().unwrap_or_default();
                bar = Some(progress(size.saturating_sub(parsed["from"].as_u64().unwrap_or_default())));
                if !is_resumed {
                    sink.header(&line, &parsed)?;
                }
            }
            Some("entry") => {
                sink.entry(&line, &parsed)?;
                if let Some(bar) = &bar {
                    bar.inc(1);
                }
            }
            Some("end") => {
                sink.end(&line, &parsed)?;
                is_closed = true;
            }
            _ => return Err("not a ledger export: a line of an unknown type".to_owned()),
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    sink.flush()?;
    if is_closed {
        return Ok(());
    }
    Err("the export broke off before its end; what there is was written: go on with --resume".to_owned())
}

/// Where the entries go.
enum Sink {
    Lines { out: Box<dyn Write>, is_ocsf: bool },
    Tiles(TileFolder),
}

impl Sink {
    fn open(arguments: &ExportArgs, resumed: Option<Resumed>) -> Result<Self, String> {
        let is_ocsf = arguments.format == Format::Ocsf;
        if arguments.format == Format::Tiles {
            let dir = arguments.out.as_deref().ok_or("tiles are written to a folder: name it with --out")?;
            return TileFolder::create(dir).map(Self::Tiles);
        }
        let out: Box<dyn Write> = match (resumed, &arguments.out) {
            (Some(resumed), _) => Box::new(BufWriter::new(resumed.file)),
            (None, Some(path)) => Box::new(BufWriter::new(
                File::create(path).map_err(|error| format!("{}: {error}", path.display()))?,
            )),
            (None, None) => Box::new(BufWriter::new(std::io::stdout())),
        };
        Ok(Self::Lines { out, is_ocsf })
    }

    fn header(&mut self, line: &str, parsed: &Value) -> Result<(), String> {
        match self {
            Self::Lines { out, is_ocsf: false } => written(writeln!(out, "{line}")),
            Self::Tiles(_) if parsed["from"] != 0 => {
                Err("tiles hold a stream from its first entry on".to_owned())
            }
            Self::Lines { .. } | Self::Tiles(_) => Ok(()),
        }
    }

    fn entry(&mut self, line: &str, parsed: &Value) -> Result<(), String> {
        match self {
            Self::Lines { out, is_ocsf: false } => written(writeln!(out, "{line}")),
            Self::Lines { out, is_ocsf: true } => written(writeln!(out, "{}", ocsf_line(parsed)?)),
            Self::Tiles(folder) => folder.add(entry_bytes(parsed)?),
        }
    }

    fn end(&mut self, line: &str, parsed: &Value) -> Result<(), String> {
        match self {
            Self::Lines { out, is_ocsf: false } => written(writeln!(out, "{line}")),
            Self::Lines { is_ocsf: true, .. } => Ok(()),
            Self::Tiles(folder) => folder.close(parsed["checkpoint"].as_str().unwrap_or_default()),
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        match self {
            Self::Lines { out, .. } => written(out.flush()),
            Self::Tiles(_) => Ok(()),
        }
    }
}

/// Everything that an export says, out of a data directory. The checkpoint is signed with the key in it.
pub(crate) fn plan_offline(
    ledger: &OfflineLedger,
    tenant: TenantId,
    head: Head,
    range: Range,
) -> Result<Plan, String> {
    let store: Arc<dyn EventStore> = ledger.store.clone();
    let (from, size) = resolve(&*store, &tenant, head.size, range).map_err(|error| error.to_string())?;
    let (mut tree, mut tree_of_all) = (Tree::default(), Tree::default());
    while tree_of_all.size() < size {
        let next = tree_of_all.size();
        let wanted = usize::try_from(size - next).unwrap_or(PAGE_LEN).min(PAGE_LEN);
        let page = store.read(&tenant, next, wanted).map_err(|error| error.to_string())?;
        if page.is_empty() {
            return Err(format!("entry {next} is missing"));
        }
        for bytes in page {
            if tree_of_all.size() == from {
                tree = tree_of_all.clone();
            }
            tree_of_all.push(leaf_hash(&bytes));
        }
    }
    if from == size {
        tree = tree_of_all.clone();
    }
    let signer = ledger.installation.existing_signer()?;
    let checkpoint = Checkpoint { tenant: tenant.clone(), size, root: tree_of_all.root() };
    let mut keys = ledger.installation.former_keys()?;
    keys.push(signer.public_key());
    Ok(Plan {
        prev: hash_before(&*store, &tenant, from).map_err(|error| error.to_string())?,
        tenant,
        from,
        size,
        stream_size: head.size,
        tree,
        keys,
        certificates: ledger.installation.certificates()?,
        checkpoint: checkpoint.sign(&signer),
    })
}

/// Audited actions in the contract's forms, as the server writes them.
fn export_audit(arguments: &ExportArgs, connection: &Connection) -> Result<(), String> {
    let range = arguments.range_query();
    let is_csv = arguments.format == Format::Csv;
    let query = format!(
        "{}format={}",
        if range.is_empty() { "?".to_owned() } else { range + "&" },
        if is_csv { "csv" } else { "jsonl" }
    );
    let fetch = |path: &str| client::get(&format!("{}{path}{query}", connection.url), connection.key()?, &[]);
    let copy = |mut source: Box<dyn Read>, path: Option<&Path>| match path {
        Some(path) => {
            let mut file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
            written(std::io::copy(&mut source, &mut file).map(|_| ()))
        }
        None => written(std::io::copy(&mut source, &mut std::io::stdout()).map(|_| ())),
    };
    let out = arguments.out.as_deref();
    copy(Box::new(fetch("/v1/audit/export")?), out)?;
    if let (true, Some(out)) = (is_csv, out) {
        let mut manifest = out.as_os_str().to_owned();
        manifest.push(".manifest.json");
        copy(Box::new(fetch("/v1/audit/export/manifest")?), Some(Path::new(&manifest)))?;
    }
    Ok(())
}
