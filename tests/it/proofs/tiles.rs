//! Tiles and entry bundles, against `tlog_tiles`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use haldir::format::proof::root;
use haldir::format::tiles::{BundleError, Content, TILE_WIDTH, Tile, decode_bundle, encode_bundle, tiles};
use proptest::prelude::*;
use tlog_tiles::{Error, TileHashReader, TileReader, check_record, prove_record, prove_tree, tree_hash};

use super::REGRESSIONS;
use super::trees::{Levels, leaf, ours, theirs};
use crate::samples::random_cases;

const SIZE: u64 = 70_000;
static LEVELS: LazyLock<Levels> = LazyLock::new(|| Levels::new(SIZE));

/// Our tile as theirs, which knows tiles of other heights, too.
fn as_theirs(tile: &Tile) -> tlog_tiles::Tile {
    match tile.content {
        Content::Entries => tlog_tiles::Tile::new(8, 0, tile.index, tile.width.into(), true),
        Content::Hashes { level } => tlog_tiles::Tile::new(8, level, tile.index, tile.width.into(), false),
    }
}

/// The path that the specification has for a tile that theirs calls so.
fn path_of_theirs(tile: &tlog_tiles::Tile) -> String {
    tile.path().replacen("tile/8/data/", "tile/entries/", 1).replacen("tile/8/", "tile/", 1)
}

/// A log that serves the files of ours.
struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    fn of(size: u64) -> Self {
        Self(tiles(size).map(|tile| (tile.path(), tile.read(&*LEVELS).unwrap())).collect())
    }
}

impl TileReader for Files {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, Error> {
        tiles
            .iter()
            .map(|tile| self.0.get(&path_of_theirs(tile)).cloned().ok_or(Error::InvalidTile))
            .collect()
    }

    fn save_tiles(&self, _: &[tlog_tiles::Tile], _: &[Vec<u8>]) {}
}

#[test]
fn others_prove_everything_out_of_our_tiles() {
    for size in [1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, SIZE] {
        let files = Files::of(size);
        let root = theirs(root(&*LEVELS, size).unwrap());
        // This reader checks every tile that it reads against the root.
        let reader = TileHashReader::new(size, root, &files);
        assert_eq!(tree_hash(size, &reader).unwrap(), root);
        for index in [0, size / 3, size / 2, size - 1] {
            let path = prove_record(size, index, &reader).unwrap();
            check_record(&path, size, root, index, theirs(leaf(index))).unwrap();
            let path = prove_tree(size, index + 1, &reader).unwrap();
            assert_eq!(ours(&path), ours(&prove_tree(size, index + 1, &*LEVELS).unwrap()));
        }
    }
}

proptest! {
    #![proptest_config(random_cases(64, REGRESSIONS))]

    #[test]
    fn a_tree_has_the_tiles_that_others_say(size in prop_oneof![0..2_000_u64, 0..300_000_u64]) {
        let expected: BTreeSet<String> =
            tlog_tiles::Tile::new_tiles(8, 0, size).iter().map(path_of_theirs).collect();
        let is_bundle = |tile: &Tile| tile.content == Content::Entries;
        let (bundles, hashes): (Vec<Tile>, Vec<Tile>) = tiles(size).partition(is_bundle);
        let paths: BTreeSet<String> = hashes.iter().map(Tile::path).collect();
        prop_assert_eq!((&paths, paths.len()), (&expected, hashes.len()));
        // A bundle for every hash tile of the leaves, of the same width.
        let of_leaves = hashes.iter().filter(|tile| tile.content == Content::Hashes { level: 0 });
        let shape = |tile: &Tile| (tile.index, tile.width);
        prop_assert!(bundles.iter().map(shape).eq(of_leaves.map(shape)));
    }

    #[test]
    fn a_tile_has_the_path_and_hashes_that_others_say(
        index in any::<u64>(), level in 0..8_u8, width in 1..=TILE_WIDTH, at in any::<prop::sample::Index>(),
    ) {
        for index in [index, index >> 32, index % 5000] {
            for content in [Content::Entries, Content::Hashes { level }] {
                let tile = Tile { content, index, width };
                prop_assert_eq!(tile.path(), path_of_theirs(&as_theirs(&tile)));
            }
        }
        let tiles: Vec<Tile> = tiles(SIZE).filter(|tile| tile.content != Content::Entries).collect();
        let tile = at.get(&tiles);
        prop_assert_eq!(tile.read(&*LEVELS).unwrap(), as_theirs(tile).read_data(&*LEVELS).unwrap());
    }

    #[test]
    fn a_bundle_is_read_back_and_only_as_it_was(
        entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..=256),
        cut in any::<prop::sample::Index>(),
    ) {
        let bundle = encode_bundle(&entries).unwrap();
        let width = u16::try_from(entries.len()).unwrap();
        prop_assert_eq!(decode_bundle(&bundle, width).unwrap(), entries);
        prop_assert_eq!(decode_bundle(&bundle[..cut.index(bundle.len())], width), Err(BundleError::Cut));
        prop_assert_eq!(decode_bundle(&bundle, width - 1), Err(BundleError::Surplus));
        prop_assert_eq!(decode_bundle(&bundle, width + 1), Err(BundleError::Cut));
    }

    #[test]
    fn whatever_is_read_as_a_bundle_is_written_back_to_the_same_bytes(
        bytes in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..200), width in 0..20_u16,
    ) {
        if let Ok(entries) = decode_bundle(&bytes, width) {
            prop_assert_eq!(encode_bundle(&entries), Some(bytes.clone()));
        }
    }
}
