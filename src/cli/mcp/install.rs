//! `haldir mcp install`: adds Haldir to a client's configuration file, and keeps what was there beside it.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::clients::{Client, NAME};
use super::config::name_of;
use super::document::with_entry;
use super::{Access, InstallArgs};
use crate::cli::installation::Installation;

/// Backups of one file at most.
const BACKUP_COUNT_MAX: usize = 1000;

/// Adds the entry.
///
/// # Errors
///
/// A sentence, when there is no key, or the file cannot be read, changed or written.
pub(super) fn run(arguments: &InstallArgs, url: Option<String>, key: Option<String>) -> Result<(), String> {
    let client = arguments.client;
    let access = Access::find(url, key, arguments.data_dir.clone())?;
    let path = resolved(&arguments.path.clone().map_or_else(|| usual_file(client), Ok)?);
    // Applications are not started with the search path of a shell.
    let command = std::env::current_exe().map_err(|error| format!("where is this program: {error}"))?;
    let command = command.to_string_lossy();
    let way = arguments.reaches.way();
    let before = read(&path)?;
    let text = before.clone().unwrap_or_default();
    let refused = |why: String| {
        format!(
            "{}: {why}; nothing was changed. Add what this prints by hand: haldir mcp config --client {}",
            path.display(),
            name_of(client)
        )
    };
    let entry = client.entry(way, &command, &access.url, &access.key)?;
    let after = with_entry(&text, client.servers(), NAME, &entry).map_err(refused)?;
    if arguments.dry_run {
        let shown = client.entry(way, &command, &access.url, &masked(&access.key))?;
        let shown = serde_json::to_string_pretty(&shown).map_err(|error| error.to_string())?;
        anstream::println!("{} would get, as {:?} in {:?}:", path.display(), NAME, client.servers());
        anstream::println!("{shown}");
        return Ok(());
    }
    if before.as_ref() == Some(&after) {
        anstream::println!("{} has it already; nothing was changed.", path.display());
        return Ok(());
    }
    let backup = before.map(|before| back_up(&path, &before)).transpose()?;
    write(&path, &after)?;
    anstream::println!("Haldir was added to {}.", path.display());
    if let Some(backup) = backup {
        anstream::println!("What was there before is in {}.", backup.display());
    }
    anstream::println!("Restart {} to see its tools.", client.title());
    if let Some(warning) = access.warning() {
        anstream::println!("{warning}");
    }
    Ok(())
}

fn usual_file(client: Client) -> Result<PathBuf, String> {
    let home = std::env::home_dir().ok_or("no home directory: name the file with --path")?;
    Ok(home.join(client.file()))
}

/// The file itself, when the path leads to it by links.
fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

/// The file's text; `None` when there is no file.
fn read(path: &Path) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Writes what was there beside the file, under the first name that is free.
fn back_up(path: &Path, text: &str) -> Result<PathBuf, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let numbered = (1..BACKUP_COUNT_MAX).map(|number| format!("{name}.bak.{number}"));
    for backup in std::iter::once(format!("{name}.bak")).chain(numbered).map(|name| path.with_file_name(name))
    {
        let failed = |error: std::io::Error| format!("{}: {error}; nothing was changed", backup.display());
        match OpenOptions::new().create_new(true).write(true).mode(0o600).open(&backup) {
            Ok(mut file) => {
                file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
                return Ok(backup);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(format!("{} has too many backups beside it; nothing was changed", path.display()))
}

/// Writes the file whole, for its owner alone: there is a key in it.
fn write(path: &Path, text: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(failed)?;
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("--path: not a file's name")?;
    Installation::write_in(dir, name, text.as_bytes())
}

/// A key as it may be shown.
fn masked(key: &str) -> String {
    let handle: String = key.chars().take(12).collect();
    format!("{handle}…")
}
