//! `haldir audit verify`.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use indicatif::ProgressBarIter;
use serde_json::json;

use crate::cli::client::Connection;
use crate::cli::installation::{Installation, read_public_key};
use crate::cli::offline::{OfflineLedger, progress};
use crate::config;
use crate::domain::id::TenantId;
use crate::format::chain::PublicKey;
use crate::format::checkpoint::SignedCheckpoint;
use crate::operations::evidence::stream::verify_stream;
use crate::operations::evidence::{CouldNotCheck, Expected, Report, Verdict, form, ledger_export, tiles};
use crate::store::EventStore as _;

/// What to verify.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Verify the streams in this data directory, offline
    #[arg(long, conflicts_with = "file")]
    data_dir: Option<PathBuf>,
    /// Verify this, offline: an export in any form, a folder of tiles, a proof, a tree head, a checkpoint; `-` reads
    /// standard input
    ///
    /// The form is told by the first line. A ledger export proves the most: every entry, signature and decision. Tiles and
    /// OCSF lines hold the same entries, but bring no keys: name one with --key. An audit export (JSON lines, or CSV with
    /// --manifest) shows only that its rows are as the server signed them. A proof shows one entry.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Trust this public key: a PEM file or 64 hex digits; may be repeated [default: signing.pub in the data directory]
    #[arg(long = "key", value_name = "PUBLIC KEY")]
    keys: Vec<String>,
    /// Trust every signing key that this root key certified: a PEM file or 64 hex digits; may be repeated
    #[arg(long = "root", value_name = "PUBLIC KEY")]
    roots: Vec<String>,
    /// Compare with this checkpoint, which you kept; may be repeated
    #[arg(long = "checkpoint", value_name = "FILE")]
    pins: Vec<PathBuf>,
    /// The manifest of a CSV export
    #[arg(long, requires = "file", value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Expect this tenant's stream; with --data-dir, verify only this one
    #[arg(long)]
    tenant: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Verifies, and says so.
pub(super) fn run(
    arguments: &VerifyArgs,
    url: Option<String>,
    key: Option<String>,
) -> Result<ExitCode, String> {
    let expected = expected(arguments)?;
    let pinned: Vec<String> = expected.pins.iter().map(|pin| pin.checkpoint.tenant.to_string()).collect();
    let reports = match (&arguments.data_dir, &arguments.file) {
        (Some(dir), _) => verify_data_dir(dir, expected)?,
        (None, Some(file)) => vec![verify_file(file, arguments.manifest.as_deref(), expected)?],
        (None, None) => vec![verify_server(url, key, expected)?],
    };
    check_pins_used(&reports, &arguments.pins, &pinned)?;
    if arguments.json {
        let is_sound = reports.iter().all(|report| report.verdict == Verdict::Sound);
        anstream::println!("{}", json!({ "sound": is_sound, "streams": reports }));
    } else {
        print_text(&reports);
    }
    Ok(ExitCode::from(worst(&reports).map_or(0, Verdict::exit_code)))
}

fn expected(arguments: &VerifyArgs) -> Result<Expected, String> {
    let tenant = arguments
        .tenant
        .as_deref()
        .map(|tenant| TenantId::parse(tenant).ok_or_else(|| format!("{tenant:?} is not a tenant's id")));
    let pin = |path: &PathBuf| {
        let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let note = std::fs::read_to_string(path).map_err(|error| at(&error))?;
        SignedCheckpoint::parse(&note).map_err(|error| at(&error))
    };
    Ok(Expected {
        keys: read_public_keys(&arguments.keys)?,
        roots: read_public_keys(&arguments.roots)?,
        tenant: tenant.transpose()?,
        pins: arguments.pins.iter().map(pin).collect::<Result<_, _>>()?,
    })
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

/// Trusts the installation's own keys if none were named.
fn trust_installation(expected: &mut Expected, dir: &Path) -> Result<(), String> {
    if expected.keys.is_empty() && expected.roots.is_empty() {
        expected.keys = Installation::known_keys(dir)?;
    }
    Ok(())
}

fn verify_data_dir(dir: &Path, mut expected: Expected) -> Result<Vec<Report>, String> {
    trust_installation(&mut expected, dir)?;
    if expected.keys.is_empty() && expected.roots.is_empty() {
        return Err(format!("{}/signing.pub is missing: name the public key with --key", dir.display()));
    }
    let ledger = OfflineLedger::open(dir)?;
    let certificates = ledger.installation.certificates()?;
    let mut heads = ledger.store.heads().map_err(|error| error.to_string())?;
    if let Some(wanted) = &expected.tenant {
        heads.retain(|(tenant, _)| tenant == wanted);
        if heads.is_empty() {
            return Err(format!("no stream of tenant {wanted} here"));
        }
    }
    let progress = progress(heads.iter().map(|(_, head)| head.size).sum());
    let mut reports = Vec::with_capacity(heads.len());
    for (tenant, head) in heads {
        let report = verify_stream(&*ledger.store, &tenant, head, &expected, &certificates, |count| {
            progress.inc(count);
        });
        reports.push(report.map_err(|error| error.to_string())?);
    }
    progress.finish_and_clear();
    let missing = ledger.store.missing();
    if missing > 0 {
        let size = reports.iter().map(|report| report.size).sum();
        let why = format!("{missing} entries that were acknowledged are missing from this directory");
        reports.push(Report::not_sound("(any)".to_owned(), size, why));
    }
    Ok(reports)
}

fn verify_file(file: &Path, manifest: Option<&Path>, expected: Expected) -> Result<Report, String> {
    let at = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let read = |path| std::fs::read_to_string(path).map_err(|error| at(path, &error));
    let manifest = manifest.map(read).transpose()?;
    if file == Path::new("-") {
        return verify_source(std::io::stdin(), 0, |source| {
            form::verify(source, manifest.as_deref(), expected)
        });
    }
    if tiles::is_folder(file) {
        let progress = progress(0);
        let verified = tiles::verify(file, &expected, |count| progress.inc(count));
        progress.finish_and_clear();
        return verified.map_err(|why| at(file, &why));
    }
    let len = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
    let source = File::open(file).map_err(|error| at(file, &error))?;
    verify_source(source, len, |source| form::verify(source, manifest.as_deref(), expected))
        .map_err(|why| at(file, &why))
}

/// A server is asked for a ledger export, and nothing else that it sends will do.
fn verify_server(url: Option<String>, key: Option<String>, mut expected: Expected) -> Result<Report, String> {
    let dir = config::data_dir(None)?;
    trust_installation(&mut expected, &dir)?;
    let connection = Connection::find(url, key, &dir);
    let source = super::lines::download(&connection, "")?;
    verify_source(source, 0, |source| {
        ledger_export::verify(&mut BufReader::with_capacity(1 << 20, source), expected)
    })
    .map_err(|why| format!("the export {why}"))
}

fn verify_source<R: Read + Send>(
    source: R,
    len: u64,
    verify: impl FnOnce(ProgressBarIter<R>) -> Result<Report, CouldNotCheck>,
) -> Result<Report, String> {
    let progress = progress(len);
    let verified = verify(progress.wrap_read(source));
    progress.finish_and_clear();
    verified.map_err(|why| why.to_string())
}

/// A checkpoint that somebody kept must not be passed over without a word.
fn check_pins_used(reports: &[Report], paths: &[PathBuf], pinned: &[String]) -> Result<(), String> {
    let is_bad = |report: &Report| matches!(report.verdict, Verdict::NotSound | Verdict::Equivocation);
    let unused =
        paths.iter().zip(pinned).find(|(_, tenant)| reports.iter().all(|it| it.tenant_id != **tenant));
    match unused {
        Some((path, tenant)) if !reports.iter().any(is_bad) => {
            Err(format!("{} is a checkpoint of tenant {tenant}, whose stream is not here", path.display()))
        }
        _ => Ok(()),
    }
}

/// The verdict that matters most.
fn worst(reports: &[Report]) -> Option<Verdict> {
    let order = [
        Verdict::NotSound,
        Verdict::Equivocation,
        Verdict::Truncated,
        Verdict::UnnamedKey,
        Verdict::Incomplete,
    ];
    order.into_iter().find(|verdict| reports.iter().any(|report| report.verdict == *verdict))
}

fn print_text(reports: &[Report]) {
    if reports.is_empty() {
        anstream::println!("no streams: nothing was ever recorded");
    }
    let green = anstyle::AnsiColor::Green.on_default().bold();
    let red = anstyle::AnsiColor::Red.on_default().bold();
    let yellow = anstyle::AnsiColor::Yellow.on_default().bold();
    for report in reports {
        let tenant = &report.tenant_id;
        let reason = &report.reason;
        match (report.verdict, report.first_bad_seq) {
            (Verdict::Sound, _) => anstream::println!("tenant {tenant}: {green}sound{green:#}"),
            (Verdict::NotSound, seq) => {
                let seq = seq.unwrap_or_default();
                anstream::println!("tenant {tenant}: {red}not sound{red:#} at seq {seq}: {reason}");
            }
            (Verdict::UnnamedKey, _) => {
                anstream::println!("tenant {tenant}: {yellow}sound, but by whom?{yellow:#} {reason}");
                anstream::println!("  use --key to say whom you trust");
            }
            (Verdict::Incomplete, _) => {
                anstream::println!("tenant {tenant}: {yellow}sound, but incomplete{yellow:#}: {reason}");
            }
            (Verdict::Truncated, _) => anstream::println!("tenant {tenant}: {red}truncated{red:#}: {reason}"),
            (Verdict::Equivocation, _) => {
                anstream::println!("tenant {tenant}: {red}equivocation{red:#}: {reason}");
                for note in &report.conflict {
                    anstream::println!("\n{note}");
                }
            }
        }
        if !matches!(report.verdict, Verdict::NotSound | Verdict::Equivocation) {
            let range = if report.from > 0 { format!(" (from seq {})", report.from) } else { String::new() };
            anstream::println!("  size    {}{range}", report.size);
        }
        if let Some(head) = &report.head {
            anstream::println!("  head    {head}");
        }
        if let Some(root) = &report.root {
            anstream::println!("  root    {root}");
        }
        for signer in &report.signers {
            let named = if signer.named { "" } else { " (not named)" };
            anstream::println!("  signed  by {} from seq {}{named}", signer.key_id, signer.from);
        }
        for limit in &report.limits {
            anstream::println!("  note    {limit}");
        }
    }
}
