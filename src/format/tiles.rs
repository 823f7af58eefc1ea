//! Tree and entries cut into files that never change once they are full. C2SP `tlog-tiles`.
//!
//! A hash tile holds up to 256 neighbouring nodes of one level; tiles stand at every eighth level. An entry bundle holds the
//! entries below a hash tile of level 0. Only the last tile of a level can be partial.

use super::entry::ENTRY_LEN_MAX;
use super::merkle::{Tree, TreeHash};
use super::proof::{Node, Nodes};

/// Hashes of a full tile, and entries of a full bundle.
pub const TILE_WIDTH: u16 = 256;
/// Levels of the tree from one level of tiles to the next.
pub const TILE_HEIGHT: u8 = 8;
const _: () =
    assert!(1_u32 << TILE_HEIGHT == TILE_WIDTH as u32, "a tile is as wide as its subtree has leaves");
/// Levels of tiles that a tree of 2⁶⁴ − 1 leaves has.
const TILE_LEVEL_COUNT: u8 = 8;
/// Decimal digits of a tile's place that make one element of its path.
const DIGITS: u64 = 1000;

/// What a tile is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Content {
    /// Entries.
    Entries,
    /// Nodes of the tree's level `8 × level`.
    Hashes {
        /// The level of tiles, 0 to 7.
        level: u8,
    },
}

/// One file: a hash tile or an entry bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    /// What it is made of.
    pub content: Content,
    /// Its place among the tiles of its level, from 0.
    pub index: u64,
    /// Hashes or entries in it, 1 to 256.
    pub width: u16,
}

/// Why bytes are not an entry bundle of the expected width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The bytes end within an entry, or there are fewer entries.
    #[error("the bundle is cut off")]
    Cut,
    /// Something follows the last entry.
    #[error("the bundle goes on after its last entry")]
    Surplus,
}

/// Every tile of a tree with `size` leaves: entry bundles first, then hash tiles from the leaves up.
pub fn tiles(size: u64) -> impl Iterator<Item = Tile> {
    let hashes = (0..TILE_LEVEL_COUNT)
        .flat_map(move |level| row(Content::Hashes { level }, size >> (level * TILE_HEIGHT)));
    row(Content::Entries, size).chain(hashes)
}

/// The tiles that `count` hashes or entries of one level make.
fn row(content: Content, count: u64) -> impl Iterator<Item = Tile> {
    let (full, rest) = (count >> TILE_HEIGHT, count % u64::from(TILE_WIDTH));
    let width = u16::try_from(rest).unwrap_or(TILE_WIDTH);
    let partial = (rest > 0).then_some(Tile { content, index: full, width });
    (0..full).map(move |index| Tile { content, index, width: TILE_WIDTH }).chain(partial)
}

/// Cuts a growing tree into its hash tiles. Memory holds the last tile of each level.
#[derive(Debug, Default)]
pub struct HashTiles {
    levels: Vec<TileRow>,
}

/// The last tile of one level, while it is filled.
#[derive(Debug, Default)]
struct TileRow {
    hashes: Vec<TreeHash>,
    tile_count: u64,
}

impl HashTiles {
    /// Adds the next leaf. Gives the tiles that it filled with their bytes, from the leaves up: none as a rule.
    pub fn push(&mut self, leaf: TreeHash) -> Vec<(Tile, Vec<u8>)> {
        let mut node = leaf;
        let mut filled = Vec::new();
        for level in 0..TILE_LEVEL_COUNT {
            let place = usize::from(level);
            if place == self.levels.len() {
                self.levels.push(TileRow::default());
            }
            let row = &mut self.levels[place];
            row.hashes.push(node);
            if row.hashes.len() < usize::from(TILE_WIDTH) {
                break;
            }
            // A full tile is the subtree below one hash of the next level.
            let mut subtree = Tree::default();
            row.hashes.iter().for_each(|hash| subtree.push(*hash));
            node = subtree.root();
            filled.push(row.cut(level));
        }
        filled
    }

    /// Gives the tiles that are not full, from the leaves up.
    #[must_use]
    pub fn close(self) -> Vec<(Tile, Vec<u8>)> {
        let rows = (0..TILE_LEVEL_COUNT).zip(self.levels);
        rows.filter(|(_, row)| !row.hashes.is_empty()).map(|(level, mut row)| row.cut(level)).collect()
    }
}

impl TileRow {
    /// Takes what is there as a tile, and begins the next one.
    fn cut(&mut self, level: u8) -> (Tile, Vec<u8>) {
        let hashes = std::mem::take(&mut self.hashes);
        let width = u16::try_from(hashes.len()).unwrap_or(TILE_WIDTH);
        let tile = Tile { content: Content::Hashes { level }, index: self.tile_count, width };
        self.tile_count += 1;
        (tile, hashes.iter().flat_map(|hash| hash.0).collect())
    }
}

impl Tile {
    /// Where the tile stands below the log's root, for example `tile/0/x001/x234/067.p/12`.
    #[must_use]
    pub fn path(&self) -> String {
        let mut place = format!("{:03}", self.index % DIGITS);
        let mut rest = self.index / DIGITS;
        while rest > 0 {
            place = format!("x{:03}/{place}", rest % DIGITS);
            rest /= DIGITS;
        }
        let row = match self.content {
            Content::Entries => "entries".to_owned(),
            Content::Hashes { level } => level.to_string(),
        };
        if self.width < TILE_WIDTH {
            format!("tile/{row}/{place}.p/{}", self.width)
        } else {
            format!("tile/{row}/{place}")
        }
    }

    /// The place of its first hash or entry in its level.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.index << TILE_HEIGHT
    }

    /// The first entry below its hash or entry at `place`, 0 to 255.
    #[must_use]
    pub const fn entry_at(&self, place: usize) -> u64 {
        let level = match self.content {
            Content::Entries => 0,
            Content::Hashes { level } => level,
        };
        (self.first() + place as u64) << (level * TILE_HEIGHT)
    }

    /// The bytes of a hash tile: its hashes, 32 bytes each. Empty for an entry bundle, which [`encode_bundle`] makes.
    ///
    /// # Errors
    ///
    /// That of `nodes`.
    pub fn read<N: Nodes>(&self, nodes: &N) -> Result<Vec<u8>, N::Error> {
        let mut bytes = Vec::new();
        if let Content::Hashes { level } = self.content {
            for place in 0..u64::from(self.width) {
                let node = Node { level: level * TILE_HEIGHT, index: self.first() + place };
                bytes.extend_from_slice(&nodes.node(node)?.0);
            }
        }
        Ok(bytes)
    }
}

/// Puts entries into a bundle, each after its length in two bytes, big-endian. `None` when one is longer than an entry
/// can be.
#[must_use]
pub fn encode_bundle<E: AsRef<[u8]>>(entries: &[E]) -> Option<Vec<u8>> {
    let mut bundle = Vec::new();
    for entry in entries {
        let entry = entry.as_ref();
        bundle.extend_from_slice(&u16::try_from(entry.len()).ok()?.to_be_bytes());
        bundle.extend_from_slice(entry);
    }
    Some(bundle)
}
const _: () = assert!(ENTRY_LEN_MAX == u16::MAX as usize, "every entry fits a bundle");

/// Takes `width` entries out of a bundle. What they are is not looked at.
///
/// # Errors
///
/// [`BundleError`].
pub fn decode_bundle(bundle: &[u8], width: u16) -> Result<Vec<&[u8]>, BundleError> {
    let mut entries = Vec::new();
    let mut rest = bundle;
    for _ in 0..width {
        let (len, after) = rest.split_first_chunk().ok_or(BundleError::Cut)?;
        let len = u16::from_be_bytes(*len).into();
        let (entry, after) = after.split_at_checked(len).ok_or(BundleError::Cut)?;
        entries.push(entry);
        rest = after;
    }
    if rest.is_empty() { Ok(entries) } else { Err(BundleError::Surplus) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(size: u64) -> Vec<String> {
        tiles(size).map(|tile| tile.path()).collect()
    }

    #[test]
    fn tiles_are_those_of_the_specifications_examples() {
        assert!(paths(0).is_empty());
        assert_eq!(paths(1), ["tile/entries/000.p/1", "tile/0/000.p/1"]);
        assert_eq!(paths(256), ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]);
        let paths = paths(70_000);
        assert_eq!(paths.iter().filter(|path| path.starts_with("tile/0/")).count(), 274);
        assert_eq!(paths[273], "tile/entries/273.p/112");
        assert_eq!(paths[547..], ["tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"]);
        let tile = Tile { content: Content::Entries, index: 1_234_067, width: TILE_WIDTH };
        assert_eq!(tile.path(), "tile/entries/x001/x234/067");
    }

    #[test]
    fn the_largest_tree_has_tiles_without_end_but_no_panic() {
        let first = tiles(u64::MAX).next().unwrap();
        assert_eq!((first.content, first.index, first.width), (Content::Entries, 0, TILE_WIDTH));
        let last = row(Content::Hashes { level: 7 }, u64::MAX >> 56).last().unwrap();
        assert_eq!((last.path(), last.first()), ("tile/7/000.p/255".to_owned(), 0));
    }

    #[test]
    fn bundles_hold_exactly_what_was_put_into_them() {
        let entries = [&b"one"[..], b"", b"three"];
        let bundle = encode_bundle(&entries).unwrap();
        assert_eq!(bundle, b"\0\x03one\0\0\0\x05three");
        assert_eq!(decode_bundle(&bundle, 3).unwrap(), entries);
        assert_eq!(decode_bundle(&bundle, 2), Err(BundleError::Surplus));
        assert_eq!(decode_bundle(&bundle, 4), Err(BundleError::Cut));
        assert_eq!(decode_bundle(&bundle[..bundle.len() - 1], 3), Err(BundleError::Cut));
        assert_eq!(encode_bundle(&[vec![0; ENTRY_LEN_MAX + 1]]), None);
    }
}
