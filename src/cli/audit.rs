//! `haldir audit`: verify and export the ledger, from a server, a file, or a data directory.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::client::Connection;
use super::complain;
use super::installation::{Installation, read_public_key};
use crate::config;
use crate::domain::id::TenantId;
use crate::format::chain::PublicKey;
use crate::format::verify::{Summary, Trust, Verifier};
use crate::ledger::replay::PAGE_LEN;
use crate::operations::export::ExportLines;
use crate::operations::export_check::{Expected, ExportCheck, ExportError, LINE_LEN_MAX};
use crate::store::embedded::EmbeddedStore;
use crate::store::{EventStore, Head};

/// What to do with the ledger.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Verify every entry: chain, signatures, tree
    ///
    /// Asks the server for the ledger and verifies it here, without trusting the server. With --data-dir, verifies what
    /// is on disk (the server must be stopped); with --file, an export.
    ///
    /// Exit codes: 0 sound, 1 not sound, 2 could not check.
    Verify(VerifyArgs),
    /// Write every entry's exact bytes, one JSON line each
    Export(ExportArgs),
}

/// What to verify.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Verify the streams in this data directory, offline
    #[arg(long, conflicts_with = "file")]
    data_dir: Option<PathBuf>,
    /// Verify this ledger export, offline; `-` reads standard input
    #[arg(long)]
    file: Option<PathBuf>,
    /// Trust this public key: a PEM file or 64 hex digits; may be repeated [default: signing.pub in the data directory]
    #[arg(long = "key", value_name = "PUBLIC KEY")]
    keys: Vec<String>,
    /// Expect this tenant's stream; with --data-dir, verify only this one
    #[arg(long)]
    tenant: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

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
    #[arg(long, value_parser = ["ledger"], default_value = "ledger")]
    format: String,
    /// Write to this file instead of standard output
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Does it.
#[must_use]
pub fn run(command: AuditCommand, url: Option<String>, key: Option<String>) -> ExitCode {
    let outcome = match command {
        AuditCommand::Verify(arguments) => verify(&arguments, url, key),
        AuditCommand::Export(arguments) => export(&arguments, url, key).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|why| {
        complain(&why);
        ExitCode::from(2)
    })
}

/// What became of one stream.
struct Verdict {
    tenant: String,
    outcome: Result<Summary, (u64, String)>,
    /// Keys that were trusted only because the export named them.
    believed_keys: Vec<String>,
}

fn verify(arguments: &VerifyArgs, url: Option<String>, key: Option<String>) -> Result<ExitCode, String> {
    let tenant = arguments
        .tenant
        .as_deref()
        .map(|tenant| TenantId::parse(tenant).ok_or_else(|| format!("{tenant:?} is not a tenant's id")));
    let tenant = tenant.transpose()?;
    let verdicts = match (&arguments.data_dir, &arguments.file) {
        (Some(dir), _) => verify_data_dir(dir, &trusted_keys(&arguments.keys, dir)?, tenant.as_ref())?,
        (None, Some(file)) => {
            let keys =
                arguments.keys.iter().map(|key| read_public_key(key)).collect::<Result<Vec<_>, _>>()?;
            let source: Box<dyn Read> = if file == Path::new("-") {
                Box::new(std::io::stdin())
            } else {
                Box::new(File::open(file).map_err(|error| format!("{}: {error}", file.display()))?)
            };
            let len = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
            vec![verify_export(source, len, Expected { keys, tenant })?]
        }
        (None, None) => {
            let dir = config::data_dir(None)?;
            let keys = trusted_keys(&arguments.keys, &dir)?;
            let connection = Connection::find(url, key, &dir);
            vec![verify_export(download(&connection)?, 0, Expected { keys, tenant })?]
        }
    };
    if arguments.json {
        print_json(&verdicts);
    } else {
        print_text(&verdicts);
    }
    let is_sound = verdicts.iter().all(|verdict| verdict.outcome.is_ok());
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// The keys that were named, or the installation's own.
fn trusted_keys(named: &[String], dir: &Path) -> Result<Vec<PublicKey>, String> {
    let own = dir.join("signing.pub");
    if named.is_empty() && own.exists() {
        return Ok(vec![read_public_key(&own.to_string_lossy())?]);
    }
    read_public_keys(named)
}

/// Keys that can be told apart by the ids that entries name.
fn read_public_keys(named: &[String]) -> Result<Vec<PublicKey>, String> {
    let mut keys: Vec<PublicKey> = Vec::with_capacity(named.len());
    for name in named {
        let key = read_public_key(name)?;
        match keys.iter().find(|other| other.id() == key.id()) {
            None => keys.push(key),
            Some(same) if *same == key => {}
            Some(_) => return Err(format!("two different keys have the key id {}", key.id())),
        }
    }
    Ok(keys)
}

fn verify_data_dir(
    dir: &Path,
    keys: &[PublicKey],
    wanted: Option<&TenantId>,
) -> Result<Vec<Verdict>, String> {
    if keys.is_empty() {
        return Err(format!("{}/signing.pub is missing: name the public key with --key", dir.display()));
    }
    let ledger = open_store(dir)?;
    let store = &*ledger.store;
    let mut heads = store.heads().map_err(|error| error.to_string())?;
    if let Some(wanted) = wanted {
        heads.retain(|(tenant, _)| tenant == wanted);
        if heads.is_empty() {
            return Err(format!("no stream of tenant {wanted} here"));
        }
    }
    let progress = progress(heads.iter().map(|(_, head)| head.size).sum());
    let mut verdicts = Vec::with_capacity(heads.len());
    for (tenant, head) in heads {
        let outcome = verify_stream(store, &tenant, &head, keys, &progress)?;
        verdicts.push(Verdict { tenant: tenant.to_string(), outcome, believed_keys: Vec::new() });
    }
    progress.finish_and_clear();
    if store.missing() > 0 {
        let why =
            format!("{} entries that were acknowledged are missing from this directory", store.missing());
        let size =
            verdicts.iter().filter_map(|it| it.outcome.as_ref().ok()).map(|summary| summary.size).sum();
        let tenant = "(any)".to_owned();
        verdicts.push(Verdict { tenant, outcome: Err((size, why)), believed_keys: Vec::new() });
    }
    Ok(verdicts)
}

fn verify_stream(
    store: &dyn EventStore,
    tenant: &TenantId,
    head: &Head,
    keys: &[PublicKey],
    progress: &ProgressBar,
) -> Result<Result<Summary, (u64, String)>, String> {
    let mut verifier = Verifier::new(tenant.clone(), Trust::keys(keys.to_vec()));
    loop {
        let page = store.read(tenant, verifier.next_seq(), PAGE_LEN).map_err(|error| error.to_string())?;
        if page.is_empty() {
            break;
        }
        for bytes in &page {
            if let Err(flaw) = verifier.push(bytes) {
                return Ok(Err((verifier.next_seq(), flaw.to_string())));
            }
        }
        progress.inc(page.len() as u64);
    }
    let end = verifier.check_end(head.size, &head.hash);
    Ok(end.map(|()| verifier.summary()).map_err(|flaw| (verifier.next_seq(), flaw.to_string())))
}

fn verify_export(source: impl Read, len: u64, expected: Expected) -> Result<Verdict, String> {
    let progress = if len > 0 { progress(len) } else { ProgressBar::new_spinner() };
    let mut check = ExportCheck::new(expected);
    let checked = check_lines(&mut check, BufReader::new(progress.wrap_read(source)));
    progress.finish_and_clear();
    let (tenant, believed_keys) = (check.tenant(), check.believed_keys());
    let outcome = match checked.and_then(|()| check.finish()) {
        Ok(summary) => Ok(summary),
        Err(ExportError::NotSound { seq, reason }) => Err((seq, reason)),
        Err(ExportError::CouldNotCheck(why)) => return Err(why),
    };
    Ok(Verdict { tenant, outcome, believed_keys })
}

fn check_lines(check: &mut ExportCheck, mut source: impl BufRead) -> Result<(), ExportError> {
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line that is too long is read up to the limit and then found to be malformed.
        let read = (&mut source).take(LINE_LEN_MAX).read_until(b'\n', &mut line);
        match read {
            Ok(0) => return Ok(()),
            Ok(_) => check.line(&line)?,
            Err(error) => {
                return Err(ExportError::CouldNotCheck(format!("the export cannot be read: {error}")));
            }
        }
    }
}

fn print_text(verdicts: &[Verdict]) {
    if verdicts.is_empty() {
        anstream::println!("no streams: nothing was ever recorded");
    }
    let green = anstyle::AnsiColor::Green.on_default().bold();
    let red = anstyle::AnsiColor::Red.on_default().bold();
    for verdict in verdicts {
        match &verdict.outcome {
            Ok(summary) => {
                anstream::println!("tenant {}: {green}sound{green:#}", verdict.tenant);
                anstream::println!("  size  {}", summary.size);
                anstream::println!("  head  {}", summary.head);
                anstream::println!("  root  {}", summary.root);
            }
            Err((seq, reason)) => {
                anstream::println!("tenant {}: {red}not sound{red:#} at seq {seq}: {reason}", verdict.tenant);
            }
        }
        for key_id in &verdict.believed_keys {
            anstream::println!(
                "  signed by key {key_id}, which you did not name: use --key to say whom you trust"
            );
        }
    }
}

fn print_json(verdicts: &[Verdict]) {
    let stream = |verdict: &Verdict| -> Value {
        let mut stream = match &verdict.outcome {
            Ok(summary) => json!({
                "sound": true, "size": summary.size,
                "head": summary.head.to_string(), "root": summary.root.to_string(),
            }),
            Err((seq, reason)) => json!({ "sound": false, "first_bad_seq": seq, "reason": reason }),
        };
        stream["tenant_id"] = json!(verdict.tenant);
        stream["believed_keys"] = json!(verdict.believed_keys);
        stream
    };
    let is_sound = verdicts.iter().all(|verdict| verdict.outcome.is_ok());
    let streams: Vec<Value> = verdicts.iter().map(stream).collect();
    anstream::println!("{}", json!({ "sound": is_sound, "streams": streams }));
}

fn export(arguments: &ExportArgs, url: Option<String>, key: Option<String>) -> Result<(), String> {
    let mut out: Box<dyn Write> = match &arguments.out {
        Some(path) => Box::new(BufWriter::new(
            File::create(path).map_err(|error| format!("{}: {error}", path.display()))?,
        )),
        None => Box::new(BufWriter::new(std::io::stdout())),
    };
    let written = |result: std::io::Result<()>| {
        result.map_err(|error| format!("the export cannot be written: {error}"))
    };
    let Some(dir) = &arguments.data_dir else {
        let connection = Connection::find(url, key, &config::data_dir(None)?);
        let mut source = download(&connection)?;
        written(std::io::copy(&mut source, &mut out).map(|_| ()))?;
        return written(out.flush());
    };
    let public_key = read_public_key(&dir.join("signing.pub").to_string_lossy())?;
    let ledger = open_store(dir)?;
    let heads = ledger.store.heads().map_err(|error| error.to_string())?;
    let (tenant, head) = pick(heads, arguments.tenant.as_deref())?;
    let progress = progress(head.size);
    for line in ExportLines::new(ledger.store.clone(), tenant, head, public_key) {
        let line = line.map_err(|error| error.to_string())?;
        written(writeln!(out, "{line}"))?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    written(out.flush())
}

/// The stream that was named, or the only one.
fn pick(heads: Vec<(TenantId, Head)>, named: Option<&str>) -> Result<(TenantId, Head), String> {
    let tenants: Vec<String> = heads.iter().map(|(tenant, _)| tenant.to_string()).collect();
    let mut matching =
        heads.into_iter().filter(|(tenant, _)| named.is_none_or(|named| named == tenant.as_str()));
    match (matching.next(), matching.next()) {
        (Some(only), None) => Ok(only),
        (None, _) if named.is_some() => Err(format!("no such tenant; there are: {}", tenants.join(", "))),
        (None, _) => Err("nothing was ever recorded here".to_owned()),
        (Some(_), Some(_)) => Err(format!("several tenants; name one with --tenant: {}", tenants.join(", "))),
    }
}

/// A data directory's ledger, for reading only.
struct OfflineLedger {
    store: Arc<EmbeddedStore>,
    /// Keeps servers out while we read.
    _installation: Installation,
    _copy: WorkingCopy,
}

/// Opens a copy of the ledger. The store repairs what it takes for a torn end as it opens a log, and evidence must not
/// change by being looked at.
fn open_store(dir: &Path) -> Result<OfflineLedger, String> {
    let ledger = dir.join("ledger");
    if !ledger.join("db").exists() {
        return Err(format!("{} holds no ledger", dir.display()));
    }
    let installation = Installation::open(dir)?;
    let copy = WorkingCopy::of(&ledger, dir.join(format!("verify-{}", std::process::id())))?;
    let store = EmbeddedStore::open(&copy.0).map_err(|error| format!("{}: {error}", ledger.display()))?;
    Ok(OfflineLedger { store: Arc::new(store), _installation: installation, _copy: copy })
}

/// A copy of a directory, which goes when this does.
struct WorkingCopy(PathBuf);

impl WorkingCopy {
    fn of(source: &Path, path: PathBuf) -> Result<Self, String> {
        let at = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
        let copy = Self(path);
        copy_dir(source, &copy.0).map_err(|error| at(source, error))?;
        Ok(copy)
    }
}

impl Drop for WorkingCopy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn copy_dir(source: &Path, target: &Path) -> std::io::Result<()> {
    std::fs::create_dir(target)?;
    for entry in std::fs::read_dir(source)? {
        let entry = entry?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_dir(&from, &to)?;
        } else {
            std::fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

/// A bar on a terminal, nothing elsewhere.
fn progress(len: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {percent}% {human_pos}/{human_len} {per_sec} {eta}");
    let bar = ProgressBar::new(len);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The ledger export of a server, as it arrives.
fn download(connection: &Connection) -> Result<impl Read + use<>, String> {
    let key = connection.key.as_deref().ok_or("no API key: use --key, HALDIR_API_KEY or config.json")?;
    let url = format!("{}/v1/ledger/export", connection.url);
    super::client::get(&url, key)
}
