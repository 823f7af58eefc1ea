//! Reading a data directory without a server: on a copy, because evidence must not change by being looked at.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};

use super::installation::Installation;
use crate::domain::id::TenantId;
use crate::store::Head;
use crate::store::embedded::EmbeddedStore;

/// A data directory's ledger, for reading only.
pub struct OfflineLedger {
    /// A copy of it.
    pub store: Arc<EmbeddedStore>,
    /// Keeps servers out while we read.
    pub installation: Installation,
    _copy: WorkingCopy,
}

impl OfflineLedger {
    /// Opens a copy of the ledger. The store repairs what it takes for a torn end as it opens a log.
    ///
    /// # Errors
    ///
    /// A sentence, when there is no ledger, or a server uses it.
    pub fn open(dir: &Path) -> Result<Self, String> {
        let ledger = dir.join("ledger");
        if !ledger.join("db").exists() {
            return Err(format!("{} holds no ledger", dir.display()));
        }
        let installation = Installation::open(dir)?;
        let copy = WorkingCopy::of(&ledger, dir.join(format!("verify-{}", std::process::id())))?;
        let store = EmbeddedStore::open(&copy.0).map_err(|error| format!("{}: {error}", ledger.display()))?;
        Ok(Self { store: Arc::new(store), installation, _copy: copy })
    }
}

/// The stream that was named, or the only one.
///
/// # Errors
///
/// A sentence that lists the tenants there are.
pub fn pick(heads: Vec<(TenantId, Head)>, named: Option<&str>) -> Result<(TenantId, Head), String> {
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

/// A bar on a terminal, nothing elsewhere. Without a length, a spinner.
#[must_use]
pub fn progress(len: u64) -> ProgressBar {
    if len == 0 {
        return ProgressBar::new_spinner();
    }
    let style = ProgressStyle::with_template("{bar:40} {percent}% {human_pos}/{human_len} {per_sec} {eta}");
    let bar = ProgressBar::new(len);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
