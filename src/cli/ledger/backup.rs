//! `haldir ledger backup`.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use crate::cli::audit::export::plan_offline;
use crate::cli::offline::{OfflineLedger, progress};
use crate::config;
use crate::ledger::clock::{Clock as _, SystemClock};
use crate::operations::backup::BackupWriter;
use crate::operations::export::Range;
use crate::store::EventStore;
use crate::workers::control::SOCKET;

/// What to back up, and where to.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The data directory [default: ~/.haldir]
    #[arg(long, env = "HALDIR_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// The file to write
    #[arg(long)]
    out: PathBuf,
    /// Put the private signing key and the retry secret into the backup too: whoever has it can then sign
    #[arg(long)]
    with_keys: bool,
}

/// Files of an installation that anybody may see.
const PUBLIC_FILES: [&str; 3] = ["signing.pub", "signing.former", "certificates"];
/// Files of an installation that nobody else may see.
const PRIVATE_FILES: [&str; 2] = ["signing.key", "retry.secret"];

/// Writes a backup.
pub(super) fn run(arguments: &BackupArgs) -> Result<(), String> {
    let dir = config::data_dir(arguments.data_dir.clone())?;
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", arguments.out.display());
    // Beside its place first: a backup that broke off never looks like one.
    let mut temporary = arguments.out.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let files = files_of(&dir, arguments.with_keys)?;
    let write = || -> Result<(), String> {
        let file = private_file(&temporary).map_err(|error| at(&error))?;
        match UnixStream::connect(dir.join(SOCKET)) {
            Ok(server) => from_server(server, &file, &files)?,
            Err(_) => from_directory(&dir, &file, &files)?,
        }
        file.sync_all().map_err(|error| at(&error))?;
        std::fs::rename(&temporary, &arguments.out).map_err(|error| at(&error))
    };
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })?;
    anstream::println!("wrote {}", arguments.out.display());
    anstream::println!(
        "  without the master keys of the vault: keep master.keys, or HALDIR_ENCRYPTION_KEY, elsewhere"
    );
    if !arguments.with_keys {
        anstream::println!(
            "  without signing.key and retry.secret: keep those two files elsewhere, or use --with-keys"
        );
    }
    Ok(())
}

fn private_file(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)
}

fn files_of(dir: &Path, with_keys: bool) -> Result<Vec<(&'static str, String)>, String> {
    let private = PRIVATE_FILES.into_iter().filter(|_| with_keys);
    let mut files = Vec::new();
    for name in PUBLIC_FILES.into_iter().chain(private) {
        let path = dir.join(name);
        if path.exists() {
            let content =
                std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            files.push((name, content));
        }
    }
    Ok(files)
}

/// Takes the streams from a running server, as they were at one moment.
fn from_server(server: UnixStream, file: &File, files: &[(&str, String)]) -> Result<(), String> {
    let broke = |error: &dyn std::fmt::Display| format!("the backup broke off: {error}");
    let mut server = server;
    writeln!(server, "backup").map_err(|error| broke(&error))?;
    let mut lines = BackupCopy::begin(file);
    let bar = progress(0);
    for line in BufReader::with_capacity(1 << 20, server).lines() {
        lines.take(&line.map_err(|error| broke(&error))?).map_err(|error| broke(&error))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    lines.finish(files).map_err(|error| broke(&error))
}

/// Copies a backup, and puts files before its last line.
struct BackupCopy<'a> {
    out: BufWriter<&'a File>,
    digest: sha2::Sha256,
    is_done: bool,
}

impl<'a> BackupCopy<'a> {
    fn begin(file: &'a File) -> Self {
        Self { out: BufWriter::new(file), digest: sha2::Digest::new(), is_done: false }
    }

    fn take(&mut self, line: &str) -> std::io::Result<()> {
        if line.starts_with("{\"sha256\":") {
            let told: serde_json::Value = serde_json::from_str(line)?;
            let digest = data_encoding::HEXLOWER.encode(&sha2::Digest::finalize(self.digest.clone()));
            self.is_done = told["sha256"] == digest;
            return Ok(());
        }
        self.write(line)
    }

    fn write(&mut self, line: &str) -> std::io::Result<()> {
        sha2::Digest::update(&mut self.digest, line);
        sha2::Digest::update(&mut self.digest, b"\n");
        writeln!(self.out, "{line}")
    }

    fn finish(mut self, files: &[(&str, String)]) -> std::io::Result<()> {
        if !self.is_done {
            return Err(std::io::Error::other("the server did not finish it; its log says why"));
        }
        for (name, content) in files {
            self.write(&serde_json::json!({ "type": "file", "name": name, "content": content }).to_string())?;
        }
        let digest = data_encoding::HEXLOWER.encode(&sha2::Digest::finalize(self.digest.clone()));
        writeln!(self.out, "{}", serde_json::json!({ "type": "done", "sha256": digest }))?;
        self.out.flush()
    }
}

/// Takes the streams from a directory that nobody uses.
fn from_directory(dir: &Path, file: &File, files: &[(&str, String)]) -> Result<(), String> {
    let ledger = OfflineLedger::open(dir)?;
    let store: Arc<dyn EventStore> = ledger.store.clone();
    if store.missing() > 0 {
        return Err(format!("{} acknowledged entries are missing: repair the ledger first", store.missing()));
    }
    let unwritten = |error: std::io::Error| format!("the backup cannot be written: {error}");
    let cabinet = ledger.installation.cabinet()?;
    let mut writer = BackupWriter::begin(BufWriter::new(file), SystemClock.now()).map_err(unwritten)?;
    for (tenant, head) in store.heads().map_err(|error| error.to_string())? {
        let of = tenant.clone();
        let plan = plan_offline(&ledger, tenant, head, Range::default())?;
        writer.stream(&store, plan).map_err(unwritten)?;
        writer.sealed(&cabinet, &of).map_err(unwritten)?;
    }
    for (name, content) in files {
        writer.file(name, content).map_err(unwritten)?;
    }
    writer.finish().map_err(unwritten)
}
