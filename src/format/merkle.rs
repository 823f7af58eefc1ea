//! The Merkle tree over a stream's entries, RFC 6962 section 2.1, with SHA-256.

use std::fmt;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// A node of the tree, or its root.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TreeHash(pub [u8; 32]);

impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The hash of a leaf: SHA-256 of `0x00` and the entry's bytes.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> TreeHash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(entry);
    TreeHash(hasher.finalize().into())
}

/// The hash of an inner node: SHA-256 of `0x01` and both children.
#[must_use]
pub fn node_hash(left: &TreeHash, right: &TreeHash) -> TreeHash {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left.0);
    hasher.update(right.0);
    TreeHash(hasher.finalize().into())
}

/// The root over perfect subtrees, the largest first; over none the SHA-256 of nothing.
#[must_use]
pub(super) fn root_of_peaks(peaks: &[TreeHash]) -> TreeHash {
    let mut smallest_first = peaks.iter().rev();
    match smallest_first.next() {
        None => TreeHash(Sha256::digest(b"").into()),
        Some(smallest) => smallest_first.fold(*smallest, |right, left| node_hash(left, &right)),
    }
}

/// A tree that only grows. Holds the roots of its perfect subtrees, at most 64 hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    /// Roots of perfect subtrees, the largest first: one for every set bit of `size`.
    peaks: Vec<TreeHash>,
}

impl Tree {
    /// The tree of `size` leaves with these [`Tree::peaks`]; `None` when a tree of that size has more or fewer.
    #[must_use]
    pub fn from_peaks(size: u64, peaks: Vec<TreeHash>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// Adds a leaf at the right edge. A tree holds at most 2⁶⁴ − 1 leaves.
    pub fn push(&mut self, leaf: TreeHash) {
        let mut node = leaf;
        // Every trailing set bit of the old size is a perfect subtree as large as the one that is being carried.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                node = node_hash(&left, &node);
            }
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// Leaves in the tree.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The roots of its perfect subtrees, the largest first: one for every set bit of its size.
    #[must_use]
    pub fn peaks(&self) -> &[TreeHash] {
        &self.peaks
    }

    /// The root; of an empty tree the SHA-256 of nothing.
    #[must_use]
    pub fn root(&self) -> TreeHash {
        root_of_peaks(&self.peaks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_agree_with_the_published_vectors() {
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "40766b2033429026f53d54502679a839706b4741f8dcaf3a8bba5f41b5ffe075",
            "2f27a5082c1d42afa488ac350a9fc4390c084f54f71ecdff859e98db8429b479",
            "a64bf26e09128f6fe2fe6f8b2d8c801e166b57c047a7cd9b2b809e7a96a2f1cb",
            "",
            "1aa68d3074905a581f84cbbd0f753794904fd80451bc4c13e69d9a53bc59502c",
            "",
            "9139601cc1ca8ab2a7a0c2c134c04845f2b1ba549a83d6c845cfcda439cc585d",
            "dfcc13b9b0ca932c68de3d59eaaa8fe266a9c8091c0300e8405ebfeb0d0e5832",
        ];
        let mut tree = Tree::default();
        for (size, root) in roots.iter().enumerate() {
            if !root.is_empty() {
                assert_eq!(tree.root().to_string(), *root, "{size} leaves");
            }
            tree.push(leaf_hash(format!("entry-{size}").as_bytes()));
        }
    }

    #[test]
    fn a_tree_goes_on_from_its_peaks() {
        let mut tree = Tree::default();
        for size in 0..40_u8 {
            let mut taken_up = Tree::from_peaks(tree.size(), tree.peaks().to_vec()).unwrap();
            tree.push(leaf_hash(&[size]));
            taken_up.push(leaf_hash(&[size]));
            assert_eq!(taken_up, tree);
        }
        let too_few = tree.peaks()[1..].to_vec();
        assert_eq!(Tree::from_peaks(tree.size(), too_few), None);
        assert_eq!(Tree::from_peaks(0, vec![leaf_hash(b"")]), None);
        assert_eq!(Tree::from_peaks(0, Vec::new()), Some(Tree::default()));
    }
}
