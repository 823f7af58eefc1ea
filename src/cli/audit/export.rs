//! `haldir audit export`.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::PathBuf;

use clap::Args;

use crate::cli::client::{self, Connection};
use crate::cli::offline::{OfflineLedger, pick, progress};
use crate::config;
use crate::operations::export::ExportLines;
use crate::store::EventStore as _;

/// What to export.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
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

/// Exports.
pub(super) fn run(arguments: &ExportArgs, url: Option<String>, key: Option<String>) -> Result<(), String> {
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
        let mut source = download(&connection, "")?;
        written(std::io::copy(&mut source, &mut out).map(|_| ()))?;
        return written(out.flush());
    };
    let _ = (&mut out, dir, pick, progress, ExportLines::new);
    let _ = OfflineLedger::open;
    todo_export()
}

fn todo_export() -> Result<(), String> {
    Err(String::new())
}

/// The ledger export of a server, as it arrives.
pub(super) fn download(connection: &Connection, query: &str) -> Result<impl Read + use<>, String> {
    let key = connection.key.as_deref().ok_or("no API key: use --key, HALDIR_API_KEY or config.json")?;
    client::get(&format!("{}/v1/ledger/export{query}", connection.url), key)
}
