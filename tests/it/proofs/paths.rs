//! Inclusion and consistency paths, against `ct-merkle` (RFC 6962) and `tlog_tiles`.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof};
use haldir::format::merkle::TreeHash;
use haldir::format::proof::{
    CONSISTENCY_PATH_LEN_MAX, ConsistencyError, INCLUSION_PATH_LEN_MAX, InclusionError, Node, Nodes,
    PathError, check_consistency, check_inclusion, consistency_path, inclusion_path, peaks, root,
};
use proptest::prelude::*;
use sha2::Sha256;
use tlog_tiles::{check_record, check_tree, prove_record, prove_tree, tree_hash};

use super::REGRESSIONS;
use super::trees::{Levels, Uniform, datum, joined, leaf, ours, roots, theirs};
use crate::samples::random_cases;

/// Every tree up to this size is tried with everything that can be proved about it.
const SIZE_MAX: u64 = 300;

#[test]
fn every_inclusion_in_every_small_tree_is_proved_like_others_do() {
    let levels = Levels::new(SIZE_MAX);
    let mut ct = MemoryBackedTree::<Sha256, [u8; 8]>::new();
    for size in 1..=SIZE_MAX {
        ct.push(datum(size - 1));
        let root = root(&levels, size).unwrap();
        assert_eq!(ct.root().as_bytes()[..], root.0, "{size}");
        assert_eq!(tree_hash(size, &levels).unwrap(), theirs(root), "{size}");
        for index in 0..size {
            let path = inclusion_path(&levels, index, size).unwrap();
            let place = format!("{index} of {size}");

            // Theirs makes, ours checks.
            let of_ct = ct.prove_inclusion(usize::try_from(index).unwrap());
            assert_eq!(of_ct.as_bytes(), joined(&path), "{place}");
            let of_tlog = ours(&prove_record(size, index, &levels).unwrap());
            assert_eq!(check_inclusion(&leaf(index), index, size, &of_tlog, &root), Ok(()), "{place}");

            // Ours makes, theirs checks.
            let for_ct = InclusionProof::try_from_bytes(joined(&path)).unwrap();
            ct.root().verify_inclusion(&datum(index), index, &for_ct).expect(&place);
            let for_tlog = path.iter().copied().map(theirs).collect();
            check_record(&for_tlog, size, theirs(root), index, theirs(leaf(index))).expect(&place);
        }
    }
}

#[test]
fn every_consistency_of_every_small_tree_is_proved_like_others_do() {
    let levels = Levels::new(SIZE_MAX);
    let roots = roots(SIZE_MAX);
    let root_of = |size: u64| roots[usize::try_from(size).unwrap()];
    let mut ct = MemoryBackedTree::<Sha256, [u8; 8]>::new();
    let mut ct_roots = vec![ct.root()];
    for second in 1..=SIZE_MAX {
        ct.push(datum(second - 1));
        ct_roots.push(ct.root());
        for first in 1..=second {
            let path = consistency_path(&levels, first, second).unwrap();
            let sizes = format!("{first} to {second}");

            // Theirs makes, ours checks.
            let of_ct = ct.prove_consistency(usize::try_from(second - first).unwrap());
            assert_eq!(of_ct.as_bytes(), joined(&path), "{sizes}");
            let of_tlog = ours(&prove_tree(second, first, &levels).unwrap());
            let checked = check_consistency(first, second, &root_of(first), &root_of(second), &of_tlog);
            assert_eq!(checked, Ok(()), "{sizes}");

            // Ours makes, theirs checks.
            let for_ct = ConsistencyProof::try_from_bytes(joined(&path)).unwrap();
            let first_of_ct = &ct_roots[usize::try_from(first).unwrap()];
            ct.root().verify_consistency(first_of_ct, &for_ct).expect(&sizes);
            let for_tlog = path.iter().copied().map(theirs).collect();
            check_tree(&for_tlog, second, theirs(root_of(second)), first, theirs(root_of(first)))
                .expect(&sizes);
        }
    }
}

/// Every path that one change makes of this one: a hash more, less, or in another place, and every bit flipped.
fn changed(path: &[TreeHash]) -> Vec<Vec<TreeHash>> {
    let mut all = vec![[path, &[leaf(7)]].concat(), [&[leaf(7)], path].concat()];
    for at in 0..path.len() {
        let mut one_less = path.to_vec();
        one_less.remove(at);
        let mut one_twice = path.to_vec();
        one_twice.insert(at, path[at]);
        all.extend([one_less, one_twice]);
        if at > 0 {
            let mut swapped = path.to_vec();
            swapped.swap(at - 1, at);
            all.push(swapped);
        }
        for bit in 0..256 {
            let mut flipped = path.to_vec();
            flipped[at] = with_bit_flipped(path[at], bit);
            all.push(flipped);
        }
    }
    all
}

fn with_bit_flipped(hash: TreeHash, bit: usize) -> TreeHash {
    let mut hash = hash;
    hash.0[bit / 8] ^= 1 << (bit % 8);
    hash
}

#[test]
fn every_single_change_to_a_path_is_refused() {
    let levels = Levels::new(13);
    let roots = roots(13);
    for size in [1, 2, 3, 7, 8, 13_u64] {
        let root = roots[usize::try_from(size).unwrap()];
        for place in 0..size {
            let path = inclusion_path(&levels, place, size).unwrap();
            for other in changed(&path) {
                let error = check_inclusion(&leaf(place), place, size, &other, &root).unwrap_err();
                assert_eq!(error == InclusionError::Length, other.len() != path.len());
            }
            for bit in 0..256 {
                let other_leaf = with_bit_flipped(leaf(place), bit);
                let other_root = with_bit_flipped(root, bit);
                for (leaf, root) in [(other_leaf, root), (leaf(place), other_root)] {
                    assert_eq!(check_inclusion(&leaf, place, size, &path, &root), Err(InclusionError::Root));
                }
            }
            for other in (0..size + 2).filter(|other| *other != place) {
                check_inclusion(&leaf(place), other, size, &path, &root).unwrap_err();
            }

            let first = place + 1;
            let first_root = roots[usize::try_from(first).unwrap()];
            let path = consistency_path(&levels, first, size).unwrap();
            for other in changed(&path) {
                let error = check_consistency(first, size, &first_root, &root, &other).unwrap_err();
                assert_eq!(error == ConsistencyError::Length, other.len() != path.len());
            }
            for bit in 0..256 {
                let (other_first, other_second) =
                    (with_bit_flipped(first_root, bit), with_bit_flipped(root, bit));
                check_consistency(first, size, &other_first, &root, &path).unwrap_err();
                check_consistency(first, size, &first_root, &other_second, &path).unwrap_err();
            }
        }
    }
}

#[test]
fn what_is_out_of_range_has_no_path_and_no_check() {
    let levels = Levels::new(8);
    for (index, size) in [(0, 0), (8, 8), (9, 8), (u64::MAX, 8)] {
        assert_eq!(inclusion_path(&levels, index, size), Err(PathError::Range));
        assert_eq!(check_inclusion(&leaf(0), index, size, &[], &leaf(0)), Err(InclusionError::Range));
    }
    for (first, second) in [(0, 0), (0, 8), (8, 7), (u64::MAX, 8)] {
        assert_eq!(consistency_path(&levels, first, second), Err(PathError::Range));
        let checked = check_consistency(first, second, &leaf(0), &leaf(0), &[]);
        assert_eq!(checked, Err(ConsistencyError::Range));
    }
    // What the source does not have is its error.
    assert_eq!(inclusion_path(&levels, 0, 16), Err(PathError::Nodes(Node { level: 3, index: 1 })));
    assert_eq!(root(&levels, u64::MAX), Err(Node { level: 63, index: 0 }));
}

#[test]
fn equal_sizes_want_an_empty_path_and_equal_roots() {
    let (root, other) = (leaf(1), leaf(2));
    assert_eq!(check_consistency(5, 5, &root, &root, &[]), Ok(()));
    assert_eq!(check_consistency(5, 5, &root, &other, &[]), Err(ConsistencyError::SecondRoot));
    assert_eq!(check_consistency(5, 5, &root, &root, &[root]), Err(ConsistencyError::Length));
    assert_eq!(check_consistency(4, 5, &root, &root, &[]), Err(ConsistencyError::Length));
}

fn any_size() -> impl Strategy<Value = u64> {
    prop_oneof![1..=u64::MAX, (0..64_u32, 0..3_u64).prop_map(|(bit, more)| (1 << bit) | more)]
}

proptest! {
    #![proptest_config(random_cases(512, REGRESSIONS))]

    #[test]
    fn a_tree_of_any_size_needs_few_nodes(size in any_size(), part in any_size()) {
        let tree = Uniform::new();
        let part = part.min(size);
        let (root_of_all, root_of_part) = (root(&tree, size).unwrap(), root(&tree, part).unwrap());
        prop_assert_eq!(peaks(&tree, size).unwrap().len(), size.count_ones() as usize);

        tree.asked.set(0);
        let path = inclusion_path(&tree, part - 1, size).unwrap();
        prop_assert!(path.len() <= INCLUSION_PATH_LEN_MAX && tree.asked.get() <= 2 * INCLUSION_PATH_LEN_MAX);
        let leaf = tree.node(Node { level: 0, index: 0 }).unwrap();
        prop_assert_eq!(check_inclusion(&leaf, part - 1, size, &path, &root_of_all), Ok(()));

        tree.asked.set(0);
        let path = consistency_path(&tree, part, size).unwrap();
        prop_assert!(path.len() <= CONSISTENCY_PATH_LEN_MAX && tree.asked.get() <= 2 * CONSISTENCY_PATH_LEN_MAX);
        prop_assert_eq!(check_consistency(part, size, &root_of_part, &root_of_all, &path), Ok(()));
    }

    #[test]
    fn no_argument_makes_a_check_panic(
        sizes in any::<(u64, u64)>(),
        path in prop::collection::vec(any::<[u8; 32]>().prop_map(TreeHash), 0..80),
    ) {
        let (small, large) = (sizes.0.min(sizes.1), sizes.0.max(sizes.1));
        for (first, second) in [sizes, (small, large), (small % 99, large % 99), (large, large)] {
            prop_assert!(check_inclusion(&leaf(0), first, second, &path, &leaf(1)).is_err());
            prop_assert!(check_consistency(first, second, &leaf(0), &leaf(1), &path).is_err());
        }
    }
}
