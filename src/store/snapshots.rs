//! Snapshots in files: `<directory>/<tenant>/<size>.snapshot`.
//!
//! A snapshot is written beside its place, synchronised and then renamed, so that it is there as a whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{SnapshotStore, StoreError};
use crate::domain::id::TenantId;

/// The end of a snapshot's file name.
const SUFFIX: &str = ".snapshot";

/// A directory of snapshots.
#[derive(Debug)]
pub struct SnapshotFiles {
    dir: PathBuf,
}

impl SnapshotFiles {
    /// Keeps snapshots in `dir`, which need not exist.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    fn path(&self, tenant: &TenantId, size: u64) -> PathBuf {
        self.dir.join(tenant.as_str()).join(format!("{size}{SUFFIX}"))
    }
}

impl SnapshotStore for SnapshotFiles {
    fn sizes(&self, tenant: &TenantId) -> Result<Vec<u64>, StoreError> {
        let files = match fs::read_dir(self.dir.join(tenant.as_str())) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            files => files.map_err(|error| from_io(&error))?,
        };
        let mut sizes = Vec::new();
        for file in files {
            let name = file.map_err(|error| from_io(&error))?.file_name();
            let size = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            sizes.extend(size.and_then(|size| size.parse::<u64>().ok()));
        }
        sizes.sort_unstable();
        Ok(sizes)
    }

    fn load(&self, tenant: &TenantId, size: u64) -> Result<Option<Vec<u8>>, StoreError> {
        match fs::read(self.path(tenant, size)) {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(from_io(&error)),
        }
    }

    fn save(&self, tenant: &TenantId, size: u64, snapshot: &[u8]) -> Result<(), StoreError> {
        let path = self.path(tenant, size);
        let temporary = path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let dir = self.dir.join(tenant.as_str());
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            let mut options = OpenOptions::new();
            let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
            file.write_all(snapshot)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&dir)?.sync_all()
        };
        write().map_err(|error| from_io(&error))
    }

    fn remove(&self, tenant: &TenantId, size: u64) -> Result<(), StoreError> {
        match fs::remove_file(self.path(tenant, size)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(from_io(&error)),
            _ => Ok(()),
        }
    }
}

fn from_io(error: &std::io::Error) -> StoreError {
    StoreError::Io(error.to_string())
}
