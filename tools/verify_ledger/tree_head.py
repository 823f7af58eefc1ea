"""Section 13: signed tree heads."""

from __future__ import annotations

from .primitives import signature_problem


def tree_head_text(size: int, root: bytes, signed_at: int) -> bytes:
    return f"sth:{size}:{root.hex()}:{signed_at}".encode("ascii")


def tree_head_problem(
    public_key: bytes, size: int, root: bytes, signed_at: int, signature: bytes
) -> str | None:
    """Why the key did not sign this tree head, or None. Nobody's stream is named in one."""
    return signature_problem(public_key, tree_head_text(size, root, signed_at), signature)
