//! Sealed values in files: `<directory>/<tenant>/<id in hex>`.
//!
//! They are not kept with the ledger, because its files are only ever added to: what was deleted there stays on the disk for
//! long. Here a value has a file of its own, and destroying it writes over its bytes before its name is removed. What that can
//! promise ends at the device: one that writes elsewhere than it is told, as flash does, may keep the old bytes, and so may
//! copies of the file system. That is why only sealed values belong here.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

use super::{Cabinet, StoreError, ValueId};
use crate::domain::id::TenantId;

/// The end of the name of a file that is being written.
const UNFINISHED: &str = ".new";
/// Bytes that are written over at once.
const ERASER_LEN: usize = 16 * 1024;

/// A directory of sealed values.
#[derive(Debug)]
pub struct CabinetFiles {
    dir: PathBuf,
}

impl CabinetFiles {
    /// Keeps values in a directory, which must exist. What a process that was killed had begun to write is destroyed.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the directory cannot be read or cleared.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let cabinet = Self { dir: dir.to_path_buf() };
        for tenant in cabinet.tenants()? {
            let folder = cabinet.folder(&tenant);
            for name in names_in(&folder)? {
                if name.ends_with(UNFINISHED) {
                    erase(&folder.join(name)).map_err(|error| from_io(&error))?;
                }
            }
        }
        Ok(cabinet)
    }

    fn folder(&self, tenant: &TenantId) -> PathBuf {
        self.dir.join(tenant.as_str())
    }

    fn path(&self, tenant: &TenantId, id: &ValueId) -> PathBuf {
        self.folder(tenant).join(HEXLOWER.encode(id))
    }

    fn write(&self, tenant: &TenantId, id: &ValueId, value: &[u8]) -> std::io::Result<()> {
        let folder = self.folder(tenant);
        if !folder.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            File::open(&self.dir)?.sync_all()?;
        }
        replace(&folder, &HEXLOWER.encode(id), value)
    }
}

impl Cabinet for CabinetFiles {
    fn put(&self, tenant: &TenantId, id: &ValueId, value: &[u8]) -> Result<(), StoreError> {
        self.write(tenant, id, value).map_err(|error| from_io(&error))
    }

    fn get(&self, tenant: &TenantId, id: &ValueId) -> Result<Option<Vec<u8>>, StoreError> {
        match fs::read(self.path(tenant, id)) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(from_io(&error)),
        }
    }

    fn destroy(&self, tenant: &TenantId, id: &ValueId) -> Result<bool, StoreError> {
        erase(&self.path(tenant, id)).map_err(|error| from_io(&error))
    }

    fn ids(&self, tenant: &TenantId) -> Result<Vec<ValueId>, StoreError> {
        let names = names_in(&self.folder(tenant))?;
        let id = |name: &String| HEXLOWER.decode(name.as_bytes()).ok()?.try_into().ok();
        let mut ids: Vec<ValueId> = names.iter().filter_map(id).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    fn tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        let mut tenants: Vec<_> =
            names_in(&self.dir)?.iter().filter_map(|name| TenantId::parse(name)).collect();
        tenants.sort_unstable();
        Ok(tenants)
    }
}

/// Writes a file that only its owner may read, durably and all at once, and then writes over what it replaced.
///
/// # Errors
///
/// The operating system's.
pub fn replace(folder: &Path, name: &str, content: &[u8]) -> std::io::Result<()> {
    let path = folder.join(name);
    let temporary = folder.join(format!("{name}{UNFINISHED}"));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    let replaced = match OpenOptions::new().write(true).open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        opened => Some(opened?),
    };
    fs::rename(&temporary, &path)?;
    File::open(folder)?.sync_all()?;
    match replaced {
        // It has no name any more: whoever opens the path from now on finds the new content.
        Some(file) => write_over(&file),
        None => Ok(()),
    }
}

/// The names in a directory, or none if it is not there.
fn names_in(dir: &Path) -> Result<Vec<String>, StoreError> {
    let items = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        items => items.map_err(|error| from_io(&error))?,
    };
    let mut names = Vec::new();
    for item in items {
        names.extend(item.map_err(|error| from_io(&error))?.file_name().into_string().ok());
    }
    Ok(names)
}

/// Writes over a file and removes it. Whether there was one.
fn erase(path: &Path) -> std::io::Result<bool> {
    let file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    write_over(&file)?;
    fs::remove_file(path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(true)
}

/// Writes zeros where a file's bytes are, and waits until the device has them.
fn write_over(mut file: &File) -> std::io::Result<()> {
    let zeros = [0; ERASER_LEN];
    let mut left = file.metadata()?.len();
    while left > 0 {
        let len = left.min(ERASER_LEN as u64);
        file.write_all(&zeros[..usize::try_from(len).unwrap_or(ERASER_LEN)])?;
        left -= len;
    }
    file.sync_data()
}

fn from_io(error: &std::io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full(error.to_string()),
        _ => StoreError::Io(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_destroyed_or_replaced_leaves_no_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let cabinet = CabinetFiles::open(dir.path()).unwrap();
        let tenant = TenantId::parse("t").unwrap();
        let id = [7; 32];
        cabinet.put(&tenant, &id, b"first").unwrap();
        let path = cabinet.path(&tenant, &id);
        let first = File::open(&path).unwrap();
        cabinet.put(&tenant, &id, b"second").unwrap();
        assert_eq!(cabinet.get(&tenant, &id).unwrap().unwrap(), b"second");
        assert_eq!(read(first), [0; 5], "the file that was replaced holds nothing any more");

        let second = File::open(&path).unwrap();
        assert!(cabinet.destroy(&tenant, &id).unwrap());
        assert_eq!(read(second), [0; 6]);
        assert!(!path.exists());
        assert!(!cabinet.destroy(&tenant, &id).unwrap(), "destroying it again is no mistake");
    }

    #[test]
    fn what_was_not_finished_is_gone_after_a_start() {
        let dir = tempfile::tempdir().unwrap();
        let cabinet = CabinetFiles::open(dir.path()).unwrap();
        let tenant = TenantId::parse("t").unwrap();
        cabinet.put(&tenant, &[1; 32], b"whole").unwrap();
        let torn = cabinet.folder(&tenant).join(HEXLOWER.encode(&[2; 32]) + UNFINISHED);
        fs::write(&torn, "half").unwrap();
        assert_eq!(cabinet.ids(&tenant).unwrap(), [[1; 32]]);
        let cabinet = CabinetFiles::open(dir.path()).unwrap();
        assert!(!torn.exists());
        assert_eq!(cabinet.ids(&tenant).unwrap(), [[1; 32]]);
        assert_eq!(cabinet.tenants().unwrap(), [tenant]);
    }

    fn read(mut file: File) -> Vec<u8> {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        bytes
    }
}
