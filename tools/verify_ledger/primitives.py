"""Section 2: primitives."""

from __future__ import annotations

import hashlib

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HASH_CONTEXT = "haldir ledger v1 entry hash"
DETAILS_CONTEXT = "haldir ledger v1 details digest"

# What signed bytes begin with, where they are not text.
ENTRY_FIRST_LINE = b"haldir ledger v1 entry signature\n"
MANIFEST_FIRST_LINE = b"haldir audit export v1\n"
CERTIFICATE_FIRST_LINE = b"haldir ledger v1 key certificate\n"


# --- hashes ---


def entry_hash(data: bytes) -> bytes:
    """ENTRY_HASH."""
    return blake3(data, derive_key_context=HASH_CONTEXT).digest()


def details_digest(salt: bytes, details: bytes) -> bytes:
    """DETAILS_DIGEST (section 5)."""
    return blake3(salt + details, derive_key_context=DETAILS_CONTEXT).digest()


def key_id(public_key: bytes) -> bytes:
    """KEY_ID."""
    return hashlib.sha256(public_key).digest()[:8]


def leaf_hash(data: bytes) -> bytes:
    """LEAF."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """NODE."""
    return hashlib.sha256(b"\x01" + left + right).digest()


# --- what is signed ---


def entry_message(public_key: bytes, digest: bytes) -> bytes:
    """The 73 bytes that SIGN signs."""
    return ENTRY_FIRST_LINE + key_id(public_key) + digest


def manifest_message(public_key: bytes, text: bytes) -> bytes:
    """The 63 bytes that SIGN_MANIFEST signs."""
    return MANIFEST_FIRST_LINE + key_id(public_key) + hashlib.sha256(text).digest()


def certificate_message(root_key: bytes, public_key: bytes) -> bytes:
    """The 73 bytes that CERTIFY signs."""
    return CERTIFICATE_FIRST_LINE + key_id(root_key) + public_key


# --- signatures ---

# Ed25519 (RFC 8032, section 5.1): the field's prime, the order of the group, and the curve's d.
FIELD_PRIME = 2**255 - 19
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
CURVE_D = -121665 * pow(121666, -1, FIELD_PRIME) % FIELD_PRIME

# There are eight points of small order. A point (x, y) of the curve is one of them exactly if
# its y is one of these five: 1 (order 1), -1 (order 2), 0 (order 4), and the two solutions of
# d·y⁴ + 2·y² = 1 (order 8).
Y_OF_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL_ORDER_Y = frozenset({0, 1, FIELD_PRIME - 1, Y_OF_ORDER_8, FIELD_PRIME - Y_OF_ORDER_8})


def signature_problem(public_key: bytes, message: bytes, signature: bytes) -> str | None:
    """Why `signature` is not that of `message` by `public_key`, or None. The check is strict."""
    if len(signature) != 64:
        return "its signature does not have 64 bytes"
    r, s = signature[:32], signature[32:]
    if int.from_bytes(s, "little") >= GROUP_ORDER:
        return "S of its signature is not below the group order"
    if is_of_small_order(r):
        return "R of its signature is of small order"
    if is_of_small_order(public_key):
        return "the public key is of small order"
    try:
        # This recomputes R without the cofactor and compares its bytes.
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return "its signature is not valid"
    return None


def is_of_small_order(point: bytes) -> bool:
    """For an encoded point: its y coordinate and, in the highest bit, the sign of x."""
    y = int.from_bytes(point, "little") % 2**255
    return y % FIELD_PRIME in SMALL_ORDER_Y


def is_on_the_curve(point: bytes) -> bool:
    """Whether 32 bytes encode a point: RFC 8032, section 5.1.3."""
    y = int.from_bytes(point, "little") % 2**255
    if y >= FIELD_PRIME:
        return False
    x_squared = (y * y - 1) * pow(CURVE_D * y * y + 1, -1, FIELD_PRIME) % FIELD_PRIME
    if x_squared == 0:
        return point[31] < 128  # there is no negative zero
    return pow(x_squared, (FIELD_PRIME - 1) // 2, FIELD_PRIME) == 1
