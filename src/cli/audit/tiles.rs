//! Writes a stream as a folder of C2SP tlog-tiles. See "Tiles" in ledger-format.md.

use std::fs;
use std::path::{Path, PathBuf};

use crate::format::merkle::leaf_hash;
use crate::format::tiles::{Content, HashTiles, TILE_WIDTH, Tile, encode_bundle};

/// A folder that is being filled. Memory holds a tile of each level and a bundle.
pub(super) struct TileFolder {
    dir: PathBuf,
    bundle: Vec<Vec<u8>>,
    bundle_count: u64,
    hash_tiles: HashTiles,
}

impl TileFolder {
    /// Starts with an empty or new folder.
    pub(super) fn create(dir: &Path) -> Result<Self, String> {
        let at = |error: std::io::Error| format!("{}: {error}", dir.display());
        fs::create_dir_all(dir).map_err(at)?;
        if fs::read_dir(dir).map_err(at)?.next().is_some() {
            return Err(format!("{} is not empty", dir.display()));
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            bundle: Vec::new(),
            bundle_count: 0,
            hash_tiles: HashTiles::default(),
        })
    }

    /// Adds the next entry.
    pub(super) fn add(&mut self, entry: Vec<u8>) -> Result<(), String> {
        let leaf = leaf_hash(&entry);
        self.bundle.push(entry);
        if self.bundle.len() == usize::from(TILE_WIDTH) {
            self.write_bundle()?;
        }
        for (tile, bytes) in self.hash_tiles.push(leaf) {
            self.write(&tile.path(), &bytes)?;
        }
        Ok(())
    }

    /// Writes the tiles that are not full, and the checkpoint.
    pub(super) fn close(&mut self, checkpoint: &str) -> Result<(), String> {
        if !self.bundle.is_empty() {
            self.write_bundle()?;
        }
        for (tile, bytes) in std::mem::take(&mut self.hash_tiles).close() {
            self.write(&tile.path(), &bytes)?;
        }
        self.write("checkpoint", checkpoint.as_bytes())
    }

    fn write_bundle(&mut self) -> Result<(), String> {
        let bytes = encode_bundle(&self.bundle).ok_or("an entry is longer than an entry can be")?;
        let width = u16::try_from(self.bundle.len()).unwrap_or(TILE_WIDTH);
        let tile = Tile { content: Content::Entries, index: self.bundle_count, width };
        self.bundle.clear();
        self.bundle_count += 1;
        self.write(&tile.path(), &bytes)
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), String> {
        let path = self.dir.join(path);
        let write = || -> std::io::Result<()> {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&path, bytes)
        };
        write().map_err(|error| format!("{}: {error}", path.display()))
    }
}
