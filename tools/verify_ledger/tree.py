"""Section 6: the tree. Section 10: paths in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from .primitives import node_hash


class Tree:
    """The Merkle tree of RFC 6962, grown leaf by leaf.

    Kept are only the roots of the full subtrees that the leaves so far make up: one for every 1
    in the binary form of their number, largest first. (Section 8 calls them peaks.)
    """

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self.subtrees = list(peaks)

    def add(self, leaf: bytes) -> None:
        """A leaf joins subtrees of its own size from the right, like a carry when counting."""
        carry, number = leaf, self.size
        while number % 2 == 1:
            carry = node_hash(self.subtrees.pop(), carry)
            number //= 2
        self.subtrees.append(carry)
        self.size += 1

    def root(self) -> bytes:
        """The subtrees, joined from the right: so the left one always has 2^k leaves."""
        if not self.subtrees:
            return hashlib.sha256(b"").digest()
        *others, root = self.subtrees
        for subtree in reversed(others):
            root = node_hash(subtree, root)
        return root


# --- section 10: paths. Each check gives what is wrong, or None. ---


def inclusion_problem(
    leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes
) -> str | None:
    """Whether the leaf is at this index of the tree of this size and root."""
    if index >= size:
        return "the index is out of range"
    first, second, reached = index, size - 1, leaf
    for step in path:
        if second == 0:
            return "the path is too long"
        if first % 2 == 1 or first == second:
            reached = node_hash(step, reached)
            while first % 2 == 0 and first != 0:
                first, second = first // 2, second // 2
        else:
            reached = node_hash(reached, step)
        first, second = first // 2, second // 2
    if second != 0:
        return "the path is too short"
    return None if reached == root else "the path does not lead to the root"


def consistency_problem(
    old_size: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]
) -> str | None:
    """Whether the tree of this size and root goes on from the older one."""
    if not 0 < old_size <= size:
        return "the sizes are out of range"
    if old_size == size:
        if path:
            return "the path should be empty"
        return None if old_root == root else "two roots of one size"
    if not path:
        return "the path is too short"
    is_power_of_two = old_size & (old_size - 1) == 0
    hashes = [old_root, *path] if is_power_of_two else list(path)
    first, second = old_size - 1, size - 1
    while first % 2 == 1:
        first, second = first // 2, second // 2
    old_reached = reached = hashes[0]
    for step in hashes[1:]:
        if second == 0:
            return "the path is too long"
        if first % 2 == 1 or first == second:
            old_reached, reached = node_hash(step, old_reached), node_hash(step, reached)
            while first % 2 == 0 and first != 0:
                first, second = first // 2, second // 2
        else:
            reached = node_hash(reached, step)
        first, second = first // 2, second // 2
    if second != 0:
        return "the path is too short"
    if old_reached != old_root:
        return "the path does not lead to the older root"
    return None if reached == root else "the path does not lead to the root"
