//! Verifies a folder of C2SP tlog-tiles: a checkpoint, entry bundles and hash tiles. See "Tiles" in ledger-format.md.
//!
//! The entries are a whole stream and are walked as one, a bundle at a time. Every hash tile must be what they give, and no
//! tile may be missing or left over. The folder brings no keys.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use super::claim::keys_must_be_named;
use super::stream::read;
use super::walk::{Closing, End, Ending, Start, Walk};
use super::{CouldNotCheck, Expected, Report};
use crate::domain::id::TenantId;
use crate::format::checkpoint::{NOTE_LEN_MAX, SignedCheckpoint};
use crate::format::entry::{self, ENTRY_LEN_MAX};
use crate::format::merkle::{TreeHash, leaf_hash};
use crate::format::tiles::{Content, HashTiles, TILE_HEIGHT, TILE_WIDTH, Tile, decode_bundle};

/// Bytes of the longest entry bundle.
const BUNDLE_LEN_MAX: usize = TILE_WIDTH as usize * (size_of::<u16>() + ENTRY_LEN_MAX);

/// Whether a path is a folder of tiles.
#[must_use]
pub fn is_folder(path: &Path) -> bool {
    path.join("tile").is_dir()
}

/// Verifies a folder. `progress` is told how many entries were read.
///
/// # Errors
///
/// [`CouldNotCheck`] when no key was named, a file cannot be read, or nothing says whose stream it is.
pub fn verify(
    dir: &Path,
    expected: &Expected,
    mut progress: impl FnMut(u64),
) -> Result<Report, CouldNotCheck> {
    keys_must_be_named(expected)?;
    let folder = Folder { dir };
    let checkpoint = match folder.read("checkpoint", NOTE_LEN_MAX)? {
        None => None,
        Some(note) => match String::from_utf8(note).map(|note| SignedCheckpoint::parse(&note)) {
            Ok(Ok(signed)) => Some(signed),
            Ok(Err(error)) => return Ok(malformed(expected, &error)),
            Err(error) => return Ok(malformed(expected, &error)),
        },
    };
    let size = checkpoint.as_ref().map(|signed| signed.checkpoint.size);
    let mut bundles = Bundles { folder, size, index: 0 };
    let mut bundle = bundles.next()?;
    let tenant = match (&checkpoint, &bundle) {
        (Some(signed), _) => signed.checkpoint.tenant.clone(),
        (None, Some(bundle)) => tenant_of(bundle)?,
        (None, None) => return Err(CouldNotCheck("it holds neither a checkpoint nor entries".to_owned())),
    };
    let mut walk: Walk<Vec<u8>> = Walk::new(tenant, expected, expected.trust(Vec::new(), &[]), Start::First);
    let mut rows = Rows { folder, tiles: HashTiles::default(), wrong: None };
    while let Some(Bundle { tile, bytes }) = bundle {
        let entries = match decode_bundle(&bytes, tile.width) {
            Ok(entries) => entries,
            Err(error) => {
                walk.verify(|bytes| read(bytes));
                walk.object(&format!("{}: {error}", tile.path()));
                break;
            }
        };
        for entry in entries {
            rows.add(leaf_hash(entry))?;
            walk.add(entry.to_vec(), |bytes| read(bytes));
        }
        progress(tile.width.into());
        if walk.is_over() {
            break;
        }
        bundle = bundles.next()?;
    }
    walk.verify(|bytes| read(bytes));
    let found = walk.next_seq();
    if !walk.is_over() && size.is_none_or(|size| size == found) {
        // Of a stream that is cut short, the missing entries are what matters.
        let wrong = match rows.close()? {
            Some(wrong) => Some(wrong),
            None => folder.surplus(found)?,
        };
        if let Some((seq, reason)) = wrong {
            walk.object_at(seq, reason);
        }
    }
    let ending = match checkpoint {
        None => Ending::Unsaid,
        Some(signed) => {
            let (size, root) = (signed.checkpoint.size, signed.checkpoint.root);
            if size == found && root != walk.root() {
                walk.object("the root is not that of the entries");
            }
            let closing = Closing::Checkpoint(signed);
            Ending::Said(Box::new(End { size, head: None, root, closing, stream_size: None }))
        }
    };
    Ok(walk.finish(&ending))
}

fn malformed(expected: &Expected, error: &dyn std::fmt::Display) -> Report {
    let tenant = expected.tenant.as_ref().map_or("(unknown)".to_owned(), ToString::to_string);
    Report::not_sound(tenant, 0, format!("malformed: the checkpoint {error}"))
}

/// The tenant that the first entry names. If it cannot be read, nothing says whose stream it is.
fn tenant_of(bundle: &Bundle) -> Result<TenantId, CouldNotCheck> {
    let unknown =
        || CouldNotCheck("without a checkpoint, and without a first entry, it is of nobody".to_owned());
    let (len, rest) = bundle.bytes.split_first_chunk().ok_or_else(unknown)?;
    let entry = rest.get(..u16::from_be_bytes(*len).into()).ok_or_else(unknown)?;
    Ok(entry::open(entry).map_err(|_| unknown())?.tenant)
}

#[derive(Clone, Copy)]
struct Folder<'dir> {
    dir: &'dir Path,
}

impl Folder<'_> {
    /// A file's bytes, up to one more than `len_max`; `None` when it does not exist.
    fn read(self, path: &str, len_max: usize) -> Result<Option<Vec<u8>>, CouldNotCheck> {
        let cannot = |error| CouldNotCheck(format!("{path} cannot be read: {error}"));
        let file = match File::open(self.dir.join(path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(cannot)?,
        };
        let mut bytes = Vec::new();
        file.take(len_max as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
        Ok(Some(bytes))
    }

    /// The names in a folder below this one; none when it does not exist.
    fn names(self, path: &str) -> Result<Vec<(String, bool)>, CouldNotCheck> {
        let cannot = |error| CouldNotCheck(format!("{path} cannot be read: {error}"));
        let items = match fs::read_dir(self.dir.join(path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            items => items.map_err(cannot)?,
        };
        let mut names = Vec::new();
        for item in items {
            let item = item.map_err(cannot)?;
            names.push((item.file_name().to_string_lossy().into_owned(), item.path().is_dir()));
        }
        names.sort();
        Ok(names)
    }

    /// A file that a tree of this size does not have.
    fn surplus(self, size: u64) -> Result<Option<(u64, String)>, CouldNotCheck> {
        let mut folders = vec!["tile".to_owned()];
        while let Some(folder) = folders.pop() {
            for (name, is_dir) in self.names(&folder)? {
                let path = format!("{folder}/{name}");
                if is_dir {
                    folders.push(path);
                } else if !parse_path(&path).is_some_and(|tile| is_of_tree(tile, size)) {
                    return Ok(Some((size, format!("{path} is no tile of a tree of {size} entries"))));
                }
            }
        }
        Ok(None)
    }
}

/// The tile that stands at a path, if there is one that does.
fn parse_path(path: &str) -> Option<Tile> {
    let (row, place) = path.strip_prefix("tile/")?.split_once('/')?;
    let content = match row {
        "entries" => Content::Entries,
        level => Content::Hashes { level: level.parse().ok()? },
    };
    let (place, width) = match place.split_once(".p/") {
        Some((place, width)) => (place, width.parse().ok()?),
        None => (place, TILE_WIDTH),
    };
    let index = place.replace(['/', 'x'], "").parse().ok()?;
    let tile = Tile { content, index, width };
    (tile.path() == path).then_some(tile)
}

/// Whether a tree of this size has the tile.
fn is_of_tree(tile: Tile, size: u64) -> bool {
    let count = match tile.content {
        Content::Entries => size,
        Content::Hashes { level } => size.checked_shr(u32::from(level) * u32::from(TILE_HEIGHT)).unwrap_or(0),
    };
    let before = u128::from(tile.index) << TILE_HEIGHT;
    let rest = u128::from(count).saturating_sub(before).min(TILE_WIDTH.into());
    tile.width > 0 && rest == u128::from(tile.width)
}

/// An entry bundle as it was found.
struct Bundle {
    tile: Tile,
    bytes: Vec<u8>,
}

/// Entry bundles, one after the other. The size says which there must be; what there is in their place is given, so that
/// the walk finds where it ends.
struct Bundles<'dir> {
    folder: Folder<'dir>,
    size: Option<u64>,
    index: u64,
}

impl Bundles<'_> {
    fn next(&mut self) -> Result<Option<Bundle>, CouldNotCheck> {
        let of_width = |width| Tile { content: Content::Entries, index: self.index, width };
        let rest = self.size.map(|size| size.saturating_sub(self.index << TILE_HEIGHT));
        if rest == Some(0) {
            return Ok(None);
        }
        let width = rest.map_or(TILE_WIDTH, |rest| u16::try_from(rest).unwrap_or(TILE_WIDTH).min(TILE_WIDTH));
        let mut tile = of_width(width);
        let mut bytes = self.folder.read(&tile.path(), BUNDLE_LEN_MAX)?;
        if bytes.is_none() {
            let partial = of_width(1).path();
            let names = self.folder.names(partial.trim_end_matches("/1"))?;
            let widths = names.iter().filter_map(|(name, _)| name.parse().ok());
            let Some(found) = widths.filter(|found| (1..width).contains(found)).max() else {
                return Ok(None);
            };
            tile = of_width(found);
            bytes = self.folder.read(&tile.path(), BUNDLE_LEN_MAX)?;
            // What comes after a bundle that is not full is not looked for.
            self.size = Some(self.index << TILE_HEIGHT);
        }
        self.index += 1;
        Ok(bytes.map(|bytes| Bundle { tile, bytes }))
    }
}

/// The hash tiles that the entries give, held against those that are there.
struct Rows<'dir> {
    folder: Folder<'dir>,
    tiles: HashTiles,
    /// The first tile that is wrong, and from which entry on.
    wrong: Option<(u64, String)>,
}

impl Rows<'_> {
    fn add(&mut self, leaf: TreeHash) -> Result<(), CouldNotCheck> {
        for (tile, bytes) in self.tiles.push(leaf) {
            self.compare(tile, &bytes)?;
        }
        Ok(())
    }

    /// Compares the tiles that are not full, and says what was wrong.
    fn close(mut self) -> Result<Option<(u64, String)>, CouldNotCheck> {
        for (tile, bytes) in std::mem::take(&mut self.tiles).close() {
            self.compare(tile, &bytes)?;
        }
        Ok(self.wrong)
    }

    fn compare(&mut self, tile: Tile, expected: &[u8]) -> Result<(), CouldNotCheck> {
        if self.wrong.is_some() {
            return Ok(());
        }
        let path = tile.path();
        let leaf = |place| tile.entry_at(place);
        self.wrong = match self.folder.read(&path, expected.len())? {
            None => Some((leaf(0), format!("{path} is missing"))),
            Some(found) if found.len() != expected.len() => {
                Some((leaf(0), format!("{path} is not {} bytes long", expected.len())))
            }
            Some(found) => {
                let mut pairs = found.chunks(32).zip(expected.chunks(32));
                let place = pairs.position(|(found, expected)| found != expected);
                place.map(|place| (leaf(place), format!("{path} does not hold the hashes of the entries")))
            }
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tiles::tiles;

    #[test]
    fn every_tile_of_a_tree_is_found_at_its_path_and_no_other_is() {
        for size in [0, 1, 255, 256, 257, 70_000] {
            for tile in tiles(size) {
                assert_eq!(parse_path(&tile.path()), Some(tile));
                assert!(is_of_tree(tile, size), "{tile:?} of {size}");
                assert!(!is_of_tree(Tile { width: tile.width % 256 + 1, ..tile }, size));
                assert!(
                    !is_of_tree(Tile { index: tile.index + 1, ..tile }, size) || tile.width == TILE_WIDTH
                );
            }
        }
        for path in
            ["tile/0/0", "tile/0/000.p/0x1", "tile/00/000", "tile/0/001/x000", "tile/9/000", "tile/0", "x"]
        {
            let found = parse_path(path);
            assert!(found.is_none_or(|tile| !is_of_tree(tile, 70_000)), "{path}: {found:?}");
        }
    }
}
