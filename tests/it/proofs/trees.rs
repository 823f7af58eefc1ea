//! Trees to make proofs over.

use std::cell::Cell;

use haldir::format::merkle::{Tree, TreeHash, leaf_hash, node_hash};
use haldir::format::proof::{Node, Nodes};
use tlog_tiles::{Error, Hash, HashReader, split_stored_hash_index};

/// What stands in a leaf.
pub(crate) fn datum(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

/// The leaf of a place.
pub(crate) fn leaf(index: u64) -> TreeHash {
    leaf_hash(&datum(index))
}

/// Every node of a tree in memory.
pub(crate) struct Levels(Vec<Vec<TreeHash>>);

impl Levels {
    /// The tree over the leaves of the first `size` places.
    pub(crate) fn new(size: u64) -> Self {
        let mut levels = vec![(0..size).map(leaf).collect::<Vec<_>>()];
        while levels[levels.len() - 1].len() > 1 {
            let below = levels[levels.len() - 1].chunks_exact(2);
            levels.push(below.map(|pair| node_hash(&pair[0], &pair[1])).collect());
        }
        Self(levels)
    }
}

impl Nodes for Levels {
    type Error = Node;

    fn node(&self, node: Node) -> Result<TreeHash, Node> {
        let index = usize::try_from(node.index).unwrap();
        self.0.get(usize::from(node.level)).and_then(|level| level.get(index)).copied().ok_or(node)
    }
}

impl HashReader for Levels {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        let read = |index: &u64| {
            let (level, index) = split_stored_hash_index(*index);
            self.node(Node { level, index }).map(theirs).map_err(|_| Error::IndexesNotInTree)
        };
        indexes.iter().map(read).collect()
    }
}

/// A tree of up to 2⁶⁴ − 1 leaves that are all the same, so that a node's hash depends on its level alone.
pub(crate) struct Uniform {
    levels: Vec<TreeHash>,
    /// How many nodes were asked for.
    pub(crate) asked: Cell<usize>,
}

impl Uniform {
    pub(crate) fn new() -> Self {
        let next = |below: &TreeHash| Some(node_hash(below, below));
        let levels = std::iter::successors(Some(leaf(0)), next).take(64).collect();
        Self { levels, asked: Cell::new(0) }
    }
}

impl Nodes for Uniform {
    type Error = Node;

    fn node(&self, node: Node) -> Result<TreeHash, Node> {
        self.asked.set(self.asked.get() + 1);
        if node.leaves().is_none() {
            return Err(node);
        }
        Ok(self.levels[usize::from(node.level)])
    }
}

/// The roots of the trees of 0, 1, … up to `size` leaves.
pub(crate) fn roots(size: u64) -> Vec<TreeHash> {
    let mut tree = Tree::default();
    let mut roots = vec![tree.root()];
    for index in 0..size {
        tree.push(leaf(index));
        roots.push(tree.root());
    }
    roots
}

/// Our hash as theirs.
pub(crate) fn theirs(hash: TreeHash) -> Hash {
    Hash(hash.0)
}

/// Their path as ours.
pub(crate) fn ours(path: &[Hash]) -> Vec<TreeHash> {
    path.iter().map(|hash| TreeHash(hash.0)).collect()
}

/// A path's hashes one after the other.
pub(crate) fn joined(path: &[TreeHash]) -> Vec<u8> {
    path.iter().flat_map(|hash| hash.0).collect()
}
