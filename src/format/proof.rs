//! Proofs over the tree: that an entry is in it, and that one tree is the beginning of another.
//!
//! Paths are made as RFC 6962 sections 2.1.1 and 2.1.2 say and checked as RFC 9162 sections 2.1.3.2 and 2.1.4.2 say. A
//! path is a list of hashes from the leaf to the root. For given sizes exactly one path passes: a hash too many or too few
//! is refused like a wrong one.

use std::ops::Range;

use super::merkle::{TreeHash, node_hash, root_of_peaks};

/// Hashes of the longest inclusion path: one for each level of a tree of 2⁶⁴ − 1 leaves.
pub const INCLUSION_PATH_LEN_MAX: usize = u64::BITS as usize;
/// Hashes of the longest consistency path: an inclusion path and the node that it starts from.
pub const CONSISTENCY_PATH_LEN_MAX: usize = INCLUSION_PATH_LEN_MAX + 1;

/// A perfect subtree: the one over the leaves `index << level .. (index + 1) << level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Levels above the leaves, 0 to 63.
    pub level: u8,
    /// Its place among the nodes of its level, from 0.
    pub index: u64,
}

impl Node {
    /// The leaves below it; `None` when no tree has them.
    #[must_use]
    pub fn leaves(self) -> Option<Range<u64>> {
        let width = 1_u64.checked_shl(self.level.into())?;
        let first = self.index.checked_mul(width)?;
        Some(first..first.checked_add(width)?)
    }
}

/// Where the hashes of nodes come from.
pub trait Nodes {
    /// Why a hash cannot be had.
    type Error;

    /// The root of a perfect subtree.
    ///
    /// # Errors
    ///
    /// When the node cannot be read, or reaches beyond the tree.
    fn node(&self, node: Node) -> Result<TreeHash, Self::Error>;
}

/// Why there is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError<E> {
    /// The leaf is not in the tree, or the first tree is empty or larger than the second.
    #[error("out of range")]
    Range,
    /// A node cannot be read.
    #[error("{0}")]
    Nodes(E),
}

/// Why an inclusion path does not prove what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InclusionError {
    /// A tree of that size does not have that leaf.
    #[error("the tree has no such leaf")]
    Range,
    /// More or fewer hashes than lead from the leaf to the root.
    #[error("the path has a wrong number of hashes")]
    Length,
    /// The path leads to another root.
    #[error("the path does not lead to the root")]
    Root,
}

/// Why a consistency path does not prove what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConsistencyError {
    /// The first tree is empty, which proves nothing, or larger than the second.
    #[error("the sizes are out of range")]
    Range,
    /// More or fewer hashes than these two sizes need.
    #[error("the path has a wrong number of hashes")]
    Length,
    /// The path leads to another root of the first tree.
    #[error("the path does not lead to the first root")]
    FirstRoot,
    /// The path leads to another root of the second tree.
    #[error("the path does not lead to the second root")]
    SecondRoot,
}

/// The roots of the perfect subtrees of a tree, the largest first: what [`super::merkle::Tree`] goes on from.
///
/// # Errors
///
/// That of `nodes`.
pub fn peaks<N: Nodes>(nodes: &N, size: u64) -> Result<Vec<TreeHash>, N::Error> {
    peaks_of(nodes, 0..size)
}

/// The root of the tree over the first `size` leaves.
///
/// # Errors
///
/// That of `nodes`.
pub fn root<N: Nodes>(nodes: &N, size: u64) -> Result<TreeHash, N::Error> {
    root_of(nodes, 0..size)
}

/// The path from a leaf to the root of the tree over the first `size` leaves.
///
/// # Errors
///
/// [`PathError::Range`] when `index` is not below `size`, or that of `nodes`.
pub fn inclusion_path<N: Nodes>(
    nodes: &N,
    index: u64,
    size: u64,
) -> Result<Vec<TreeHash>, PathError<N::Error>> {
    if index >= size {
        return Err(PathError::Range);
    }
    let mut path = Vec::new();
    let mut tree = 0..size;
    while tree.end - tree.start > 1 {
        let (left, right) = halves(&tree);
        let (here, beside) = if index < left.end { (left, right) } else { (right, left) };
        path.push(root_of(nodes, beside).map_err(PathError::Nodes)?);
        tree = here;
    }
    path.reverse();
    Ok(path)
}

/// The path that leads both to the root over the first `first` and to the root over the first `second` leaves.
///
/// # Errors
///
/// [`PathError::Range`] unless 0 < `first` ≤ `second`, or that of `nodes`.
pub fn consistency_path<N: Nodes>(
    nodes: &N,
    first: u64,
    second: u64,
) -> Result<Vec<TreeHash>, PathError<N::Error>> {
    if first == 0 || first > second {
        return Err(PathError::Range);
    }
    let mut path = Vec::new();
    let mut tree = 0..second;
    while tree.end != first {
        let (left, right) = halves(&tree);
        let (here, beside) = if first <= left.end { (left, right) } else { (right, left) };
        path.push(root_of(nodes, beside).map_err(PathError::Nodes)?);
        tree = here;
    }
    // Whoever checks knows the root of the first tree, so it is left out when it is where the path starts.
    if tree.start > 0 {
        path.push(root_of(nodes, tree).map_err(PathError::Nodes)?);
    }
    path.reverse();
    Ok(path)
}

/// Checks that the tree of this size and root has this leaf at this place.
///
/// # Errors
///
/// [`InclusionError`].
pub fn check_inclusion(
    leaf: &TreeHash,
    index: u64,
    size: u64,
    path: &[TreeHash],
    root: &TreeHash,
) -> Result<(), InclusionError> {
    if index >= size {
        return Err(InclusionError::Range);
    }
    // The node that was reached, and the last node of its level.
    let (mut node, mut last) = (index, size - 1);
    let mut reached = *leaf;
    for beside in path {
        if last == 0 {
            return Err(InclusionError::Length);
        }
        if node & 1 == 1 || node == last {
            reached = node_hash(beside, &reached);
            // At the right edge a node without a sibling stands for its parent, too.
            (node, last) = above_lone_nodes(node, last);
        } else {
            reached = node_hash(&reached, beside);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if last != 0 {
        return Err(InclusionError::Length);
    }
    if reached == *root { Ok(()) } else { Err(InclusionError::Root) }
}

/// Checks that the tree of size `first` is the beginning of that of size `second`. Equal sizes want an empty path and
/// equal roots.
///
/// # Errors
///
/// [`ConsistencyError`].
pub fn check_consistency(
    first: u64,
    second: u64,
    first_root: &TreeHash,
    second_root: &TreeHash,
    path: &[TreeHash],
) -> Result<(), ConsistencyError> {
    if first == 0 || first > second {
        return Err(ConsistencyError::Range);
    }
    if first == second {
        return match path {
            [] if first_root == second_root => Ok(()),
            [] => Err(ConsistencyError::SecondRoot),
            _ => Err(ConsistencyError::Length),
        };
    }
    let (start, path) = match path.split_first() {
        None => return Err(ConsistencyError::Length),
        // The first tree is perfect: its root is where the path starts.
        Some(_) if first.is_power_of_two() => (first_root, path),
        Some(start_and_rest) => start_and_rest,
    };

    let lone_levels = (first - 1).trailing_ones();
    let (mut node, mut last) = ((first - 1) >> lone_levels, (second - 1) >> lone_levels);
    let (mut reached_first, mut reached_second) = (*start, *start);
    for beside in path {
        if last == 0 {
            return Err(ConsistencyError::Length);
        }
        if node & 1 == 1 || node == last {
            reached_first = node_hash(beside, &reached_first);
            reached_second = node_hash(beside, &reached_second);
            (node, last) = above_lone_nodes(node, last);
        } else {
            reached_second = node_hash(&reached_second, beside);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if last != 0 {
        return Err(ConsistencyError::Length);
    }
    if reached_first != *first_root {
        return Err(ConsistencyError::FirstRoot);
    }
    if reached_second == *second_root { Ok(()) } else { Err(ConsistencyError::SecondRoot) }
}

/// Goes up to the level at which `node` is a right child, or to the root.
fn above_lone_nodes(node: u64, last: u64) -> (u64, u64) {
    let levels = if node == 0 { 0 } else { node.trailing_zeros() };
    (node >> levels, last >> levels)
}

/// The two subtrees of the tree over these leaves, of which there are at least two: the left one is perfect and as large
/// as it can be while something is left for the right one.
fn halves(leaves: &Range<u64>) -> (Range<u64>, Range<u64>) {
    let count = leaves.end - leaves.start;
    let middle = leaves.start + (1 << (count - 1).ilog2());
    (leaves.start..middle, middle..leaves.end)
}

fn root_of<N: Nodes>(nodes: &N, leaves: Range<u64>) -> Result<TreeHash, N::Error> {
    Ok(root_of_peaks(&peaks_of(nodes, leaves)?))
}

/// The perfect subtrees below a node of a tree: `leaves` starts at a multiple of a power of two that is not below its
/// length.
fn peaks_of<N: Nodes>(nodes: &N, leaves: Range<u64>) -> Result<Vec<TreeHash>, N::Error> {
    let mut peaks = Vec::new();
    let mut start = leaves.start;
    while start < leaves.end {
        let level = (leaves.end - start).ilog2();
        #[expect(clippy::cast_possible_truncation, reason = "a logarithm of 64 bits is at most 63")]
        peaks.push(nodes.node(Node { level: level as u8, index: start >> level })?);
        start += 1 << level;
    }
    Ok(peaks)
}
