//! The key ring in a file: one key a line in URL-safe base64, the primary first. Mode 0600; whoever has it can open everything.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::ring::{KeyRing, MasterKey};
use crate::ledger::random::Random;
use crate::store::cabinet::replace;

/// The file's name in the data directory.
pub const RING_FILE: &str = "master.keys";

/// The file in which an installation keeps the master keys that it made for itself.
#[derive(Debug, Clone)]
pub struct RingFile {
    dir: PathBuf,
}

/// Where the master keys of a process come from.
#[derive(Debug, Clone)]
pub enum RingSource {
    /// From the configuration: whoever runs the process changes them there.
    Configured,
    /// From a file that the installation keeps itself.
    File(RingFile),
}

impl RingFile {
    /// The ring file of a data directory.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    /// The keys in it.
    ///
    /// # Errors
    ///
    /// A sentence, when it cannot be read or a line is no key. `None` when there is no file.
    pub fn load(&self) -> Result<Option<KeyRing>, String> {
        let path = self.path();
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.map(Zeroizing::new).map_err(|error| at(&path, &error))?,
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let keys: Result<Vec<_>, String> = lines.map(MasterKey::parse).collect();
        let mut keys = keys.map_err(|error| at(&path, &error))?.into_iter();
        let primary = keys.next().ok_or_else(|| at(&path, &"expected a key"))?;
        KeyRing::new(primary, keys.collect()).map(Some).map_err(|error| at(&path, &error))
    }

    /// The keys in it; a new one when there is no file yet.
    ///
    /// # Errors
    ///
    /// A sentence, when it cannot be read or written.
    pub fn load_or_create(&self, random: &dyn Random) -> Result<KeyRing, String> {
        if let Some(ring) = self.load()? {
            return Ok(ring);
        }
        let ring = KeyRing::generate(random);
        self.save(&ring)?;
        Ok(ring)
    }

    /// Keeps these keys, durably; others that were in the file are overwritten.
    ///
    /// # Errors
    ///
    /// A sentence, when it cannot be written.
    pub fn save(&self, ring: &KeyRing) -> Result<(), String> {
        let mut text = Zeroizing::new(String::with_capacity(64 * (1 + ring.retired().len())));
        for key in std::iter::once(ring.primary()).chain(ring.retired()) {
            text.push_str(&key.to_text());
            text.push('\n');
        }
        replace(&self.dir, RING_FILE, text.as_bytes()).map_err(|error| at(&self.path(), &error))
    }

    fn path(&self) -> PathBuf {
        self.dir.join(RING_FILE)
    }
}

fn at(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use crate::vault::tests::{Counting, ring};

    use super::*;

    #[test]
    fn what_was_saved_is_loaded_in_the_same_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = RingFile::of(dir.path());
        assert!(file.load().unwrap().is_none());
        let first = file.load_or_create(&Counting::default()).unwrap();
        assert_eq!(file.load_or_create(&Counting::default()).unwrap().primary().id(), first.primary().id());
        let saved = ring(3, &[2, 1]);
        file.save(&saved).unwrap();
        let loaded = file.load().unwrap().unwrap();
        assert_eq!(loaded.primary().id(), saved.primary().id());
        let ids = |ring: &KeyRing| ring.retired().iter().map(MasterKey::id).collect::<Vec<_>>();
        assert_eq!(ids(&loaded), ids(&saved));
        fs::write(dir.path().join(RING_FILE), "\n").unwrap();
        assert!(file.load().unwrap_err().contains(RING_FILE));
    }
}
