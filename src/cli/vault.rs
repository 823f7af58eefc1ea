//! `haldir vault`: the master keys, for the operator.
//!
//! A running server is asked at its door in the data directory; without one, the directory is opened here.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::complain;
use super::installation::Installation;
use super::serve::open_app;
use crate::config::{Concealed, Sources, data_dir};
use crate::operations::vault::{KeyReport, OperatorRotation, report, rotate_primary};
use crate::operations::{App, OperationError};
use crate::vault::RingError;
use crate::workers::control::{Answer, SOCKET};

/// The commands about master keys.
#[derive(Debug, Subcommand)]
pub enum VaultCommand {
    /// List the master keys, and how many sealed values each one wraps
    Keys(VaultArgs),
    /// Make a new master key, wrap everything under it, and destroy the old one
    ///
    /// Works while the server runs: no read fails, and no secret is stored again. With the key in `HALDIR_ENCRYPTION_KEY`, it wraps
    /// everything under that one, and says how to change it.
    Rotate(VaultArgs),
}

/// Which installation.
#[derive(Debug, Args)]
pub struct VaultArgs {
    /// The data directory [default: ~/.haldir]
    #[arg(long, env = "HALDIR_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Master key of the vault, when no server runs
    #[arg(long, env = "HALDIR_ENCRYPTION_KEY", hide_env_values = true)]
    encryption_key: Option<Concealed>,
    /// Master keys that sealed before, when no server runs
    #[arg(long, env = "HALDIR_ENCRYPTION_KEY_PREVIOUS", hide_env_values = true)]
    encryption_key_previous: Option<Concealed>,
}

/// Does what the command line says.
#[must_use]
pub fn run(command: VaultCommand) -> ExitCode {
    let done = match command {
        VaultCommand::Keys(arguments) => keys(&arguments),
        VaultCommand::Rotate(arguments) => rotate(&arguments),
    };
    match done {
        Ok(code) => code,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

fn keys(arguments: &VaultArgs) -> Result<ExitCode, String> {
    let found: KeyReport = match ask(arguments, "vault keys")? {
        Some(found) => found,
        None => offline(arguments, async |app| report(&app, None))?,
    };
    if arguments.json {
        return print_json(&found);
    }
    for key in &found.keys {
        let count = found.blobs_by_key.get(&key.key_id).copied().unwrap_or(0);
        anstream::println!("{}  {:8} {count} sealed values", key.key_id, key.role);
    }
    for (key_id, count) in &found.blobs_by_key {
        if !found.keys.iter().any(|key| key.key_id == *key_id) {
            anstream::println!("{key_id}  missing  {count} sealed values cannot be opened");
        }
    }
    if found.unreadable_blobs > 0 {
        anstream::println!("{} files in the vault are damaged", found.unreadable_blobs);
    }
    Ok(ExitCode::SUCCESS)
}

fn rotate(arguments: &VaultArgs) -> Result<ExitCode, String> {
    let done: OperatorRotation = match ask(arguments, "vault rotate")? {
        Some(done) => done,
        None => offline(arguments, rotate_primary)?,
    };
    let code = if done.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if arguments.json {
        print_json(&done)?;
        return Ok(code);
    }
    if done.new_key_id == done.previous_key_id {
        anstream::println!(
            "{} seals, as configured; to change it: {}",
            done.new_key_id,
            RingError::Configured
        );
    } else {
        anstream::println!("{} seals now, in place of {}", done.new_key_id, done.previous_key_id);
    }
    anstream::println!("  {} sealed values were wrapped anew", done.rotated);
    for (error, count) in &done.failed {
        anstream::println!("  {count} were not: {error}");
    }
    for key_id in &done.destroyed_key_ids {
        anstream::println!("  {key_id} is destroyed: backups that it sealed need a copy of it");
    }
    Ok(code)
}

fn print_json(value: &impl Serialize) -> Result<ExitCode, String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    anstream::println!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// Asks a running server; `None` when there is none.
fn ask<T: DeserializeOwned>(arguments: &VaultArgs, word: &str) -> Result<Option<T>, String> {
    let dir = data_dir(arguments.data_dir.clone())?;
    let Ok(mut server) = UnixStream::connect(dir.join(SOCKET)) else {
        return Ok(None);
    };
    let broke = |error: &dyn std::fmt::Display| format!("the server's answer broke off: {error}");
    writeln!(server, "{word}").map_err(|error| broke(&error))?;
    let mut line = String::new();
    BufReader::new(server).read_line(&mut line).map_err(|error| broke(&error))?;
    match serde_json::from_str(&line).map_err(|error| broke(&error))? {
        Answer::Done(done) => Ok(Some(done)),
        Answer::Error(why) => Err(why),
    }
}

/// Does it here, in a directory that nobody uses.
fn offline<T>(
    arguments: &VaultArgs,
    work: impl AsyncFnOnce(Arc<App>) -> Result<T, OperationError>,
) -> Result<T, String> {
    let sources = Sources {
        data_dir: arguments.data_dir.clone(),
        encryption_key: arguments.encryption_key.clone(),
        encryption_key_previous: arguments.encryption_key_previous.clone(),
        ..Sources::default()
    };
    let settings = sources.resolve()?;
    let installation = Installation::open(&settings.data_dir)?;
    if !installation.has_ledger() {
        return Err(format!("{} holds no ledger", settings.data_dir.display()));
    }
    let app = Arc::new(open_app(&settings, &installation)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(|error| error.to_string())?.block_on(work(Arc::clone(&app)));
    app.ledger.close();
    app.views.close();
    done.map_err(|error| error.to_string())
}
