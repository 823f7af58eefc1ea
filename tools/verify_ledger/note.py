"""Section 9: checkpoints."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

from .entry import TENANT_FORM
from .primitives import signature_problem
from .verdict import Malformed

LONGEST_NOTE = 65_536
MOST_SIGNATURES = 16
ORIGIN_START = "haldir/ledger/"
ED25519 = b"\x01"


class SignatureLine(NamedTuple):
    name: str
    key_hash: bytes
    signature: bytes


class Checkpoint(NamedTuple):
    """A signed statement of a stream's size and root. Nothing of it is to be believed before
    `signer_among` names a key that is trusted."""

    origin: str
    tenant: str
    size: int
    root: bytes
    text: bytes
    signatures: list[SignatureLine]


class Forged(Exception):
    """A signature line of a known key, with a wrong signature. The message says why."""


def read_note(note: bytes) -> Checkpoint:
    """A note, or why it must be refused."""
    if len(note) > LONGEST_NOTE:
        raise Malformed(f"the checkpoint has more than {LONGEST_NOTE} bytes")
    if any(byte < 0x20 and byte != 0x0A for byte in note):
        raise Malformed("the checkpoint contains a control character")
    try:
        whole = note.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("the checkpoint is not UTF-8") from None
    text, separator, signatures = whole.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise Malformed("the checkpoint has no signature line at its end")
    signature_lines = signatures.removesuffix("\n").split("\n")
    if len(signature_lines) > MOST_SIGNATURES:
        raise Malformed(f"the checkpoint has more than {MOST_SIGNATURES} signature lines")
    return read_text(text + "\n", [read_signature_line(line) for line in signature_lines])


def read_text(text: str, signatures: list[SignatureLine]) -> Checkpoint:
    lines = text.removesuffix("\n").split("\n")
    if len(lines) < 3 or "" in lines:
        raise Malformed("the text of the checkpoint does not have three lines")
    origin, size, root = lines[:3]
    tenant = origin.removeprefix(ORIGIN_START)
    if tenant == origin or not re.fullmatch(TENANT_FORM, tenant):
        raise Malformed("the checkpoint's origin is not that of a stream")
    return Checkpoint(
        origin,
        tenant,
        decimal(size, "the checkpoint's size"),
        hash_in_base64(root, "the checkpoint's root"),
        text.encode(),
        signatures,
    )


def read_signature_line(line: str) -> SignatureLine:
    """Mark, name and base64, one space between."""
    found = re.fullmatch("— ([^ ]+) ([^ ]+)", line)
    if not found:
        raise Malformed("a signature line of the checkpoint is not of the right form")
    name, text = found.groups()
    if "+" in name or any(letter.isspace() for letter in name):
        raise Malformed("the name on a signature line of the checkpoint is not allowed")
    data = strict_base64(text, "a signature of the checkpoint")
    if len(data) < 5:
        raise Malformed("a signature of the checkpoint is too short")
    return SignatureLine(name, data[:4], data[4:])


def key_hash(name: str, public_key: bytes) -> bytes:
    """KEY_HASH."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public_key).digest()[:4]


def verifier_key(name: str, public_key: bytes) -> str:
    """How other programs are told the key."""
    encoded = base64.b64encode(ED25519 + public_key).decode()
    return f"{name}+{key_hash(name, public_key).hex()}+{encoded}"


def signer_among(checkpoint: Checkpoint, keys: Iterable[bytes]) -> bytes | None:
    """The first of the keys that signed, or None. A wrong signature by any of them spoils all."""
    signers = []
    for key in keys:
        wanted = (checkpoint.origin, key_hash(checkpoint.origin, key))
        for line in checkpoint.signatures:
            if (line.name, line.key_hash) != wanted:
                continue
            problem = signature_problem(key, checkpoint.text, line.signature)
            if problem is not None:
                raise Forged(problem)
            signers.append(key)
    return signers[0] if signers else None


# --- what numbers and hashes look like in a note, and in a proof file ---


def decimal(text: str, what: str) -> int:
    """Without sign and leading zeros, up to 2^64 - 1."""
    if not re.fullmatch("0|[1-9][0-9]{0,19}", text) or int(text) >= 2**64:
        raise Malformed(f"{what} is not a number of the right form")
    return int(text)


def strict_base64(text: str, what: str) -> bytes:
    """Standard base64 with padding; of several texts for the same bytes, the canonical one."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:  # UnicodeEncodeError among them
        data = b""
    if base64.b64encode(data).decode("ascii") != text:
        raise Malformed(f"{what} is not base64")
    return data


def hash_in_base64(text: str, what: str) -> bytes:
    data = strict_base64(text, what)
    if len(data) != 32:
        raise Malformed(f"{what} does not have 32 bytes")
    return data
