//! Writes a stream as a folder of C2SP tlog-tiles. See "Tiles" in ledger-format.md.

use std::fs;
use std::path::{Path, PathBuf};

use crate::format::merkle::{Tree, TreeHash, leaf_hash};
use crate::format::tiles::{Content, TILE_HEIGHT, TILE_WIDTH, Tile, encode_bundle};

/// A folder that is being filled. Memory holds a tile of each level and a bundle.
pub(super) struct TileFolder {
    dir: PathBuf,
    bundle: Vec<Vec<u8>>,
    bundle_count: u64,
    levels: Vec<Level>,
}

/// The tile of a level that is being filled.
#[derive(Default)]
struct Level {
    hashes: Vec<TreeHash>,
    tile_count: u64,
}

impl TileFolder {
    /// Starts with an empty or new folder.
    pub(super) fn create(dir: &Path) -> Result<Self, String> {
        let at = |error: std::io::Error| format!("{}: {error}", dir.display());
        fs::create_dir_all(dir).map_err(at)?;
        if fs::read_dir(dir).map_err(at)?.next().is_some() {
            return Err(format!("{} is not empty", dir.display()));
        }
        Ok(Self { dir: dir.to_path_buf(), bundle: Vec::new(), bundle_count: 0, levels: Vec::new() })
    }

    /// Adds the next entry.
    pub(super) fn add(&mut self, entry: Vec<u8>) -> Result<(), String> {
        let mut node = leaf_hash(&entry);
        self.bundle.push(entry);
        if self.bundle.len() == usize::from(TILE_WIDTH) {
            self.write_bundle()?;
        }
        for level in 0.. {
            if level == self.levels.len() {
                self.levels.push(Level::default());
            }
            self.levels[level].hashes.push(node);
            if self.levels[level].hashes.len() < usize::from(TILE_WIDTH) {
                break;
            }
            // A full tile is the subtree below one hash of the next level.
            let mut subtree = Tree::default();
            self.levels[level].hashes.iter().for_each(|hash| subtree.push(*hash));
            node = subtree.root();
            self.write_hashes(level)?;
        }
        Ok(())
    }

    /// Writes the tiles that are not full, and the checkpoint.
    pub(super) fn close(&mut self, checkpoint: &str) -> Result<(), String> {
        if !self.bundle.is_empty() {
            self.write_bundle()?;
        }
        for level in 0..self.levels.len() {
            if !self.levels[level].hashes.is_empty() {
                self.write_hashes(level)?;
            }
        }
        self.write("checkpoint", checkpoint.as_bytes())
    }

    fn write_bundle(&mut self) -> Result<(), String> {
        let bytes = encode_bundle(&self.bundle).ok_or("an entry is longer than an entry can be")?;
        let tile =
            Tile { content: Content::Entries, index: self.bundle_count, width: width_of(self.bundle.len()) };
        self.bundle.clear();
        self.bundle_count += 1;
        self.write(&tile.path(), &bytes)
    }

    fn write_hashes(&mut self, level: usize) -> Result<(), String> {
        let row = &mut self.levels[level];
        let bytes = row.hashes.iter().flat_map(|hash| hash.0).collect::<Vec<u8>>();
        let content = Content::Hashes { level: u8::try_from(level).unwrap_or(u8::MAX) };
        let tile = Tile { content, index: row.tile_count, width: width_of(row.hashes.len()) };
        row.hashes.clear();
        row.tile_count += 1;
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

fn width_of(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(TILE_WIDTH)
}

const _: () =
    assert!(1_u32 << TILE_HEIGHT == TILE_WIDTH as u32, "a tile is as wide as its subtree has leaves");
