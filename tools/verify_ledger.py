#!/usr/bin/env python3
"""Verify a Haldir ledger export, without Haldir.

This program follows the document `ledger-format.md` and nothing else: it shares no code with
the server that writes ledgers, so that neither can hide a mistake of the other. The numbers in
the comments ("section 7, step 3") are those of the document. Read top-down, it goes the same
way as the document does:

    primitives (2) · entry (3) · payload types (4.1) · events (4.2, 4.3) · tree (6)
    · verification (7) · export (8) · command line

Usage:

    python3 verify_ledger.py EXPORT.jsonl --key PUBKEY [--key PUBKEY2]
                             [--tenant ID] [--size N] [--head HEX] [--json]

EXPORT may be `-` for standard input. It is read line by line; memory does not grow with it.
PUBKEY is a PEM file (SubjectPublicKeyInfo) of an Ed25519 public key, or its 64 hex digits. Get
it from somewhere else than the export: a key that comes with the data proves nothing. The same
holds for the tenant, and for size and head, which say where the stream must end.

Exit code: 0 sound, 1 not sound, 2 could not check (no readable export, no usable key, bad
arguments, or an export whose last line is missing). `size`, `head` and `root` in the output
are those of the entries that passed, up to the first that did not.

Needs Python 3.10 and the packages `blake3` and `cryptography`.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, BinaryIO, NoReturn

try:
    from blake3 import blake3
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_public_key,
    )
except ImportError as missing:
    if __name__ != "__main__":
        raise
    print(f"could not check: {missing}", file=sys.stderr)
    sys.exit(2)


# ---------------------------------------------------------------------------------------------
# Section 2: primitives
# ---------------------------------------------------------------------------------------------

HASH_CONTEXT = "haldir ledger v1 entry hash"
DETAILS_CONTEXT = "haldir ledger v1 details digest"
SIGNATURE_FIRST_LINE = b"haldir ledger v1 entry signature\n"

# Ed25519 (RFC 8032, section 5.1): the field's prime and the order of the group.
FIELD_PRIME = 2**255 - 19
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493

# There are eight points of small order. A point (x, y) of the curve is one of them exactly if
# its y is one of these five: 1 (order 1), -1 (order 2), 0 (order 4), and the two solutions of
# d·y⁴ + 2·y² = 1 (order 8).
Y_OF_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL_ORDER_Y = frozenset({0, 1, FIELD_PRIME - 1, Y_OF_ORDER_8, FIELD_PRIME - Y_OF_ORDER_8})


def entry_hash(data: bytes) -> bytes:
    """ENTRY_HASH."""
    return blake3(data, derive_key_context=HASH_CONTEXT).digest()


def details_digest(salt: bytes, details: bytes) -> bytes:
    """DETAILS_DIGEST, as section 5 uses it."""
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


def signed_message(public_key: bytes, digest: bytes) -> bytes:
    """The 73 bytes that SIGN signs."""
    return SIGNATURE_FIRST_LINE + key_id(public_key) + digest


def point_problem(encoded: bytes) -> str | None:
    """Why an encoded point must not be used, or None.

    An encoding is the y coordinate and, in its highest bit, the sign of x. RFC 8032 (5.1.3)
    allows no y above the prime; section 2 of the document allows no point of small order.
    """
    y = int.from_bytes(encoded, "little") & (2**255 - 1)
    if y >= FIELD_PRIME:
        return "is not encoded canonically"
    if y in SMALL_ORDER_Y:
        return "is of small order"
    return None


def signature_problem(public_key: bytes, digest: bytes, signature: bytes) -> str | None:
    """Why `signature` is not that of `digest` by `public_key`, or None. The check is strict."""
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    if s >= GROUP_ORDER:
        return "S of its signature is not below the group order"
    if problem := point_problem(r):
        return f"R of its signature {problem}"
    if problem := point_problem(public_key):
        return f"the public key {problem}"
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(signature, signed_message(public_key, digest))
    except (InvalidSignature, ValueError):
        return "its signature is not valid"
    return None


# ---------------------------------------------------------------------------------------------
# Section 3: entry
# ---------------------------------------------------------------------------------------------

HEADER_LENGTH = 180
SHORTEST_ENTRY = 284
LONGEST_ENTRY = 65_535
LONGEST_PAYLOAD = LONGEST_ENTRY - SHORTEST_ENTRY

MAGIC = b"HLDR"
FORMAT_VERSION = 1
NO_HASH = bytes(32)

# Section 3.2, row by row. "<" is little-endian without padding.
HEADER_LAYOUT = struct.Struct("<4s H H H H I Q Q 24s 24s 64s 32s I")

TENANT = re.compile(r"[a-z0-9_]{1,24}")
ACTOR = re.compile(r"key:[\x21-\x7e]{12}|operator|bootstrap|first-caller|system")
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,64}")


class Malformed(Exception):
    """Bytes that are not what the document says they must be. The message says why."""


@dataclass(frozen=True)
class Header:
    """The header as it stands, in the order of section 3.2; texts still have their padding."""

    magic: bytes
    format_version: int
    kind: int
    schema_version: int
    reserved: int
    rules_revision: int
    seq: int
    time: int
    raw_tenant: bytes
    raw_actor: bytes
    raw_request_id: bytes
    previous_hash: bytes
    payload_length: int

    @property
    def tenant(self) -> str:
        return short_text(self.raw_tenant, TENANT, "tenant")

    @property
    def actor(self) -> str:
        return short_text(self.raw_actor, ACTOR, "actor")

    @property
    def request_id(self) -> str:
        return short_text(self.raw_request_id, REQUEST_ID, "request id")


def read_header(entry: bytes) -> Header:
    """The header of an entry of at least 180 bytes."""
    return Header(*HEADER_LAYOUT.unpack_from(entry))


def write_header(header: Header) -> bytes:
    """The 180 bytes of a header."""
    return HEADER_LAYOUT.pack(
        header.magic,
        header.format_version,
        header.kind,
        header.schema_version,
        header.reserved,
        header.rules_revision,
        header.seq,
        header.time,
        header.raw_tenant,
        header.raw_actor,
        header.raw_request_id,
        header.previous_hash,
        header.payload_length,
    )


def short_text(raw: bytes, form: re.Pattern[str], name: str) -> str:
    """Section 3.3: the text, then only zero bytes; and what section 3.2 says of its bytes."""
    text = raw.rstrip(b"\x00").decode("latin-1")  # one character for every byte
    if "\x00" in text:
        raise Malformed(f"its {name} has a zero byte before the end of the text")
    if not form.fullmatch(text):
        raise Malformed(f"its {name} is not one that is allowed")
    return text


# ---------------------------------------------------------------------------------------------
# Section 4.1: the types that payloads are made of
# ---------------------------------------------------------------------------------------------


class Reader:
    """Takes bytes from the front of a payload."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.position:
            raise Malformed("its payload ends too early")
        start, self.position = self.position, self.position + count
        return self.data[start : self.position]

    def at_end(self) -> bool:
        return self.position == len(self.data)


class Type:
    """One row of the table in section 4.1: how a value is read and how it is written."""

    def read(self, reader: Reader) -> Any:
        raise NotImplementedError

    def write(self, value: Any) -> bytes:
        raise NotImplementedError


@dataclass(frozen=True)
class Unsigned(Type):
    """`u8` `u16` `u64` `u128`"""

    width: int

    def read(self, reader: Reader) -> int:
        return int.from_bytes(reader.take(self.width), "little")

    def write(self, value: int) -> bytes:
        return value.to_bytes(self.width, "little")


@dataclass(frozen=True)
class ThirtyTwoBytes(Type):
    """`[32]`"""

    def read(self, reader: Reader) -> bytes:
        return reader.take(32)

    def write(self, value: bytes) -> bytes:
        return value


@dataclass(frozen=True)
class Text(Type):
    """`text`"""

    def read(self, reader: Reader) -> str:
        data = reader.take(U64.read(reader))
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed("a text in its payload is not UTF-8") from None

    def write(self, value: str) -> bytes:
        data = value.encode("utf-8")
        return U64.write(len(data)) + data


@dataclass(frozen=True)
class Option(Type):
    """`T?`; an absent value is None"""

    item: Type

    def read(self, reader: Reader) -> Any:
        first = reader.take(1)
        if first == b"\x00":
            return None
        if first == b"\x01":
            return self.item.read(reader)
        raise Malformed("the first byte of an optional value in its payload is not 0 or 1")

    def write(self, value: Any) -> bytes:
        return b"\x00" if value is None else b"\x01" + self.item.write(value)


@dataclass(frozen=True)
class Many(Type):
    """`T*`"""

    item: Type

    def read(self, reader: Reader) -> list[Any]:
        # Every item takes bytes, so a count that is too high runs into the payload's end.
        return [self.item.read(reader) for _ in range(U64.read(reader))]

    def write(self, value: list[Any]) -> bytes:
        return U64.write(len(value)) + b"".join(map(self.item.write, value))


U8 = Unsigned(1)
U16 = Unsigned(2)
U64 = Unsigned(8)
U128 = Unsigned(16)
BYTES_32 = ThirtyTwoBytes()
TEXT = Text()


# ---------------------------------------------------------------------------------------------
# Sections 4.2 and 4.3: events
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """What the document says of a field's value beyond its type."""

    words: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Field:
    """One row of a table in section 4.3."""

    name: str
    type: Type
    rule: Rule | None = None


@dataclass(frozen=True)
class Record(Type):
    """Fields one after the other; read as a dict from name to value."""

    fields: tuple[Field, ...]

    def read(self, reader: Reader) -> dict[str, Any]:
        return {each.name: self.read_field(each, reader) for each in self.fields}

    def read_field(self, wanted: Field, reader: Reader) -> Any:
        value = wanted.type.read(reader)
        if wanted.rule and not wanted.rule.holds(value):
            raise Malformed(f"its payload's {wanted.name} is not {wanted.rule.words}")
        return value

    def write(self, value: dict[str, Any]) -> bytes:
        return b"".join(each.type.write(value[each.name]) for each in self.fields)


def one_of(count: int) -> Rule:
    return Rule(f"one of 0 to {count - 1}", lambda value: value < count)


def between(low: int, high: int) -> Rule:
    return Rule(f"between {low} and {high}", lambda value: low <= value <= high)


def at_most_characters(count: int) -> Rule:
    return Rule(f"at most {count} characters", lambda value: len(value) <= count)


def is_key_prefix(prefix: str) -> bool:
    return re.fullmatch(r"[\x21-\x7e]{12}", prefix) is not None


KEY_SCOPE = re.compile(
    r"\*|vault:rotate"
    r"|(sessions|vault|audit|payments|webhooks|proxy|approvals|admin):(read|write|\*)"
)


def are_key_scopes(scopes: list[str]) -> bool:
    """At least one, each of the known form, sorted by bytes and without duplicates."""
    all_known = all(KEY_SCOPE.fullmatch(scope) for scope in scopes)
    ascending = all(a.encode() < b.encode() for a, b in zip(scopes, scopes[1:]))
    return bool(scopes) and all_known and ascending


KEY_PREFIX = Rule("12 bytes from 0x21 to 0x7e", is_key_prefix)
KEY_SCOPES = Rule("a sorted list of known scopes", are_key_scopes)
UP_TO_128 = at_most_characters(128)

# Section 4.2: every payload starts with this.
IDEMPOTENCY = Field(
    "idempotency",
    Option(Record((Field("key_digest", BYTES_32), Field("fingerprint", BYTES_32)))),
)

READING = Record((Field("prefix", TEXT), Field("calls", U64), Field("last", U64)))


@dataclass(frozen=True)
class Kind:
    """A kind of event in one schema version."""

    name: str
    fields: tuple[Field, ...]

    @property
    def payload(self) -> Record:
        return Record((IDEMPOTENCY, *self.fields))


# Section 4.3, by event kind and schema version.
KINDS: dict[tuple[int, int], Kind] = {
    (1, 1): Kind(
        "key.minted",
        (
            Field("prefix", TEXT, KEY_PREFIX),
            Field("hash", BYTES_32),
            Field("name", TEXT),
            Field("scopes", Many(TEXT), KEY_SCOPES),
        ),
    ),
    (2, 1): Kind(
        "key.revoked",
        (Field("prefix", TEXT),),
    ),
    (3, 1): Kind(
        "access.denied",
        (
            Field("required", TEXT),
            Field("operation", TEXT),
        ),
    ),
    (16, 1): Kind(
        "session.opened",
        (
            Field("session_id", TEXT, UP_TO_128),
            Field("agent_id", TEXT, UP_TO_128),
            Field("scopes", Many(TEXT)),
            Field("cap", Option(U128)),
            Field("ttl", U64),
            Field("expires_at", Option(U64)),
            Field("agent_limit", Option(U64)),
        ),
    ),
    (17, 1): Kind(
        "session.revoked",
        (Field("session_id", TEXT),),
    ),
    (18, 1): Kind(
        "session.denied",
        (
            Field("agent_id", TEXT),
            Field("agent_limit", U64),
            Field("agents_live", U64),
        ),
    ),
    (19, 1): Kind(
        "permission.checked",
        (
            Field("session_id", TEXT),
            Field("scope", TEXT),
            Field("verdict", U8, one_of(5)),
        ),
    ),
    (32, 1): Kind(
        "payment.authorized",
        (
            Field("authorization_id", TEXT),
            Field("session_id", TEXT),
            Field("agent_id", TEXT),
            Field("amount", U128),
            Field("currency", TEXT),
            Field("description", TEXT),
            Field("remaining", Option(U128)),
        ),
    ),
    (33, 1): Kind(
        "payment.denied",
        (
            Field("authorization_id", TEXT),
            Field("session_id", TEXT),
            Field("agent_id", TEXT),
            Field("amount", U128),
            Field("currency", TEXT),
            Field("description", TEXT),
            Field("remaining", Option(U128)),
            Field("reason", U8, one_of(4)),
        ),
    ),
    (48, 1): Kind(
        "action.logged",
        (
            Field("entry_id", TEXT),
            Field("session_id", TEXT),
            Field("agent_id", TEXT),
            Field("action", TEXT),
            Field("tool", TEXT),
            Field("cost", U128),
            Field("details_digest", Option(BYTES_32)),
            Field("flag", Option(TEXT)),
        ),
    ),
    (49, 1): Kind(
        "action.rejected",
        (
            Field("session_id", TEXT),
            Field("action", TEXT),
            Field("tool", TEXT),
            Field("reason", U8, one_of(2)),
        ),
    ),
    (64, 1): Kind(
        "usage.metered",
        (
            Field("year", U16, between(1970, 9999)),
            Field("month", U8, between(1, 12)),
            Field("keys", Many(READING)),
        ),
    ),
}


def kind_of(header: Header) -> Kind:
    """The kind that a header names."""
    kind = KINDS.get((header.kind, header.schema_version))
    if kind is None:
        raise Malformed(
            f"kind {header.kind} with schema version {header.schema_version} is not known"
        )
    return kind


def encode_payload(kind: Kind, event: dict[str, Any]) -> bytes:
    """The one encoding of an event."""
    return kind.payload.write(event)


def decode_payload(kind: Kind, payload: bytes) -> dict[str, Any]:
    """The event that a payload encodes."""
    reader = Reader(payload)
    event = kind.payload.read(reader)
    if not reader.at_end():
        raise Malformed("its payload goes on after the last field")
    if encode_payload(kind, event) != payload:
        raise Malformed("its payload is not the encoding of the event it holds")
    return event


@dataclass(frozen=True)
class Entry:
    """An entry that is well-formed by itself (section 7, steps 1 to 4)."""

    seq: int
    kind: str
    time: int
    tenant: str
    actor: str
    request_id: str
    rules_revision: int
    previous_hash: bytes
    event: dict[str, Any]
    hash: bytes
    key_id: bytes
    signature: bytes


# ---------------------------------------------------------------------------------------------
# Section 6: tree
# ---------------------------------------------------------------------------------------------


class Tree:
    """The Merkle tree of RFC 6962, grown leaf by leaf.

    Kept are only the roots of the full subtrees that the leaves so far make up: one for every 1
    in the binary form of their number, largest first.
    """

    def __init__(self) -> None:
        self.size = 0
        self.subtrees: list[bytes] = []

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


# ---------------------------------------------------------------------------------------------
# Section 7: verification
# ---------------------------------------------------------------------------------------------


class Reason(str, Enum):
    """Why a stream is not sound, in the words of the document (the last is our own)."""

    MALFORMED = "malformed"
    ALTERED = "altered"
    FOREIGN = "foreign"
    OUT_OF_PLACE = "out of place"
    BROKEN_LINK = "broken link"
    TIME_WENT_BACK = "time went back"
    UNTRUSTED = "signed by somebody you did not name"
    FORGED = "forged"
    TRUNCATED = "truncated"
    WRONG_END = "does not end where it should"
    MISLABELLED = "mislabelled"  # section 8: what the export says of an entry is not so


@dataclass(frozen=True)
class Fault:
    """The first step that failed, and where."""

    seq: int
    step: str
    reason: Reason
    detail: str

    def __str__(self) -> str:
        return f"not sound at seq {self.seq}: {self.reason.value} ({self.step}: {self.detail})"


class NotSound(Exception):
    """Stops a verification."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


@dataclass(frozen=True)
class Verdict:
    """The outcome. Size, head and root are those of the entries that passed."""

    size: int
    head: bytes
    root: bytes
    fault: Fault | None = None

    @property
    def sound(self) -> bool:
        return self.fault is None


class Verifier:
    """Walks one stream. Give it every entry in order, then its end."""

    def __init__(self, tenant: str, keys: Iterable[bytes]) -> None:
        self.tenant = tenant
        self.keys = by_key_id(keys)
        self.tree = Tree()
        self.previous_hash = NO_HASH
        self.previous_time: int | None = None

    @property
    def size(self) -> int:
        """`n` of section 7: how many entries passed, and the seq that comes next."""
        return self.tree.size

    def fail(self, step: str, reason: Reason, detail: str) -> NoReturn:
        raise NotSound(Fault(self.size, step, reason, detail))

    def check(self, raw: bytes) -> Entry:
        """Steps 1 to 10, in order, for the next entry. Changes nothing."""
        # Step 1
        if not SHORTEST_ENTRY <= len(raw) <= LONGEST_ENTRY:
            self.fail("step 1", Reason.MALFORMED, f"it has {len(raw)} bytes")
        header = read_header(raw)
        if header.magic != MAGIC:
            self.fail("step 1", Reason.MALFORMED, "it does not start with the magic bytes")
        if header.format_version != FORMAT_VERSION:
            self.fail("step 1", Reason.MALFORMED, f"its format version is {header.format_version}")

        # Step 2
        if len(raw) != SHORTEST_ENTRY + header.payload_length:
            self.fail(
                "step 2",
                Reason.MALFORMED,
                f"it has {len(raw)} bytes and names {header.payload_length} as its payload length",
            )
        hashed, rest = raw[: HEADER_LENGTH + header.payload_length], raw[-104:]
        payload = hashed[HEADER_LENGTH:]
        own_hash, own_key_id, signature = rest[:32], rest[32:40], rest[40:]

        # Step 3
        if own_hash != entry_hash(hashed):
            self.fail("step 3", Reason.ALTERED, "its hash is not that of its bytes")

        # Step 4
        try:
            entry = decode_entry(header, payload, own_hash, own_key_id, signature)
        except Malformed as problem:
            self.fail("step 4", Reason.MALFORMED, str(problem))

        # Step 5
        if entry.tenant != self.tenant:
            self.fail("step 5", Reason.FOREIGN, f"it belongs to tenant {entry.tenant}")

        # Step 6
        if entry.seq != self.size:
            self.fail("step 6", Reason.OUT_OF_PLACE, f"its seq is {entry.seq}")

        # Step 7
        if entry.previous_hash != self.previous_hash:
            self.fail("step 7", Reason.BROKEN_LINK, "it does not follow the entry before it")

        # Step 8
        if self.previous_time is not None and entry.time <= self.previous_time:
            self.fail("step 8", Reason.TIME_WENT_BACK, "it is not later than the entry before it")

        # Step 9
        public_key = self.keys.get(entry.key_id)
        if public_key is None:
            self.fail("step 9", Reason.UNTRUSTED, f"its key id is {entry.key_id.hex()}")

        # Step 10
        flaw = signature_problem(public_key, entry.hash, entry.signature)
        if flaw is not None:
            self.fail("step 10", Reason.FORGED, flaw)

        return entry

    def accept(self, raw: bytes, entry: Entry) -> None:
        """Step 11, for an entry that has passed `check`."""
        self.tree.add(leaf_hash(raw))
        self.previous_hash = entry.hash
        self.previous_time = entry.time

    def check_end(self, size: int | None, head: bytes | None, step: str = "end") -> None:
        """After the last entry, if the end is known."""
        if size is not None and self.size < size:
            self.fail(step, Reason.TRUNCATED, f"there should be {size} entries")
        if size is not None and self.size > size:
            self.fail(step, Reason.WRONG_END, f"there should be only {size} entries")
        if head is not None and self.previous_hash != head:
            self.fail(step, Reason.WRONG_END, f"the head should be {head.hex()}")

    def verdict(self, fault: Fault | None = None) -> Verdict:
        return Verdict(self.size, self.previous_hash, self.tree.root(), fault)


def by_key_id(keys: Iterable[bytes]) -> dict[bytes, bytes]:
    """The trusted keys by their ids. Two keys with one id cannot be told apart in an entry."""
    found: dict[bytes, bytes] = {}
    for key in keys:
        if found.setdefault(key_id(key), key) != key:
            raise ValueError(f"two different keys have the key id {key_id(key).hex()}")
    return found


def decode_entry(
    header: Header, payload: bytes, own_hash: bytes, own_key_id: bytes, signature: bytes
) -> Entry:
    """Step 4: everything in an entry that has a form of its own."""
    if header.reserved != 0:
        raise Malformed("its reserved field is not 0")
    tenant, actor, request_id = header.tenant, header.actor, header.request_id
    kind = kind_of(header)
    return Entry(
        seq=header.seq,
        kind=kind.name,
        time=header.time,
        tenant=tenant,
        actor=actor,
        request_id=request_id,
        rules_revision=header.rules_revision,
        previous_hash=header.previous_hash,
        event=decode_payload(kind, payload),
        hash=own_hash,
        key_id=own_key_id,
        signature=signature,
    )


def verify_stream(
    entries: Iterable[bytes],
    tenant: str,
    keys: Iterable[bytes],
    size: int | None = None,
    head: bytes | None = None,
) -> Verdict:
    """Section 7 as a whole. `keys` are raw public keys of 32 bytes."""
    verifier = Verifier(tenant, keys)
    try:
        for raw in entries:
            verifier.accept(raw, verifier.check(raw))
        verifier.check_end(size, head)
    except NotSound as stop:
        return verifier.verdict(stop.fault)
    return verifier.verdict()


# ---------------------------------------------------------------------------------------------
# Section 8: ledger export
# ---------------------------------------------------------------------------------------------

# The document sets no limit for a line. The longest entry makes 87,380 characters of base64;
# this leaves ample room for keys that later versions may add.
LONGEST_LINE = 1024 * 1024

EXPORT_FORMAT = "haldir-ledger"
EXPORT_VERSION = 1


class CannotCheck(Exception):
    """There is nothing to say about the stream. The message says why."""


@dataclass(frozen=True)
class ExportVerdict:
    """The outcome for an export: of the stream, and what its reader should know besides."""

    stream: Verdict
    tenant: str
    notes: list[str]


@dataclass(frozen=True)
class ExportHeader:
    """The first line."""

    tenant: str
    public_keys: list[tuple[str, str]]  # key id and public key, both hex


def verify_export(
    source: BinaryIO,
    keys: Iterable[bytes],
    tenant: str | None = None,
    size: int | None = None,
    head: bytes | None = None,
) -> ExportVerdict:
    """Verify an export. Tenant, size and head, if given, count more than what it says itself."""
    lines = read_lines(source)
    header = read_export_header(next(lines, b""))
    verifier = Verifier(header.tenant if tenant is None else tenant, keys)
    notes = notes_for(header, verifier, tenant, size, head)
    try:
        check_export_header(header, verifier)
        end = check_entry_lines(lines, verifier)
        check_end_line(end, verifier)
        if next(lines, None) is not None:
            verifier.fail("export", Reason.MALFORMED, "there are lines after the last")
        verifier.check_end(size, head)
    except NotSound as stop:
        return ExportVerdict(verifier.verdict(stop.fault), verifier.tenant, notes)
    return ExportVerdict(verifier.verdict(), verifier.tenant, notes)


def notes_for(
    header: ExportHeader,
    verifier: Verifier,
    tenant: str | None,
    size: int | None,
    head: bytes | None,
) -> list[str]:
    """What a verdict rests on, where that is not the reader's own knowledge."""
    notes = []
    if tenant is None:
        notes.append(
            "the tenant is the one that the export names; --tenant to say which you expect"
        )
    if head is None:
        notes.append(
            "only the export itself says where the stream ends, so its newest entries may be"
            " missing; --size and --head if you know its end from elsewhere"
        )
    trusted = {key.hex() for key in verifier.keys.values()}
    unknown = [
        listed_id for listed_id, listed_key in header.public_keys if listed_key not in trusted
    ]
    if unknown:
        notes.append(f"the export names keys that you did not: {', '.join(unknown)}")
    return notes


# --- lines ---


def read_lines(source: BinaryIO) -> Iterator[bytes]:
    """Lines with their newline. One that is too long comes without its end, as the last."""
    try:
        while line := source.readline(LONGEST_LINE):
            yield line
            if is_too_long(line):
                return
    except OSError as problem:
        raise CannotCheck(f"the export cannot be read: {problem!a}") from None


def is_too_long(line: bytes) -> bool:
    return len(line) == LONGEST_LINE and not line.endswith(b"\n")


def parse_line(line: bytes) -> dict[str, Any]:
    """The JSON object on a line."""
    if is_too_long(line):
        raise Malformed(f"a line is longer than {LONGEST_LINE} bytes")
    try:
        value = json.loads(
            line.decode("utf-8"),
            object_pairs_hook=without_duplicates,
            parse_constant=refuse_constant,
        )
    except RecursionError:
        raise Malformed("a line is nested too deeply") from None
    except ValueError:
        raise Malformed("a line is not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise Malformed("a line is not an object")
    return value


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. Readers differ on which of two equal keys counts, so there may not be two."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Malformed("a line has the same key twice")
    return value


def refuse_constant(name: str) -> None:
    """NaN and Infinity, which Python would read, are not JSON."""
    raise ValueError(name)


def text_of(line: dict[str, Any], key: str) -> str:
    value = line.get(key)
    if not isinstance(value, str):
        raise Malformed(f"a line has no text {key}")
    return value


def number_of(line: dict[str, Any], key: str) -> int:
    value = line.get(key)
    if type(value) is not int or value < 0:  # `True` is an int, too
        raise Malformed(f"a line has no whole number {key}")
    return value


def hex_of(line: dict[str, Any], key: str, length: int) -> str:
    value = text_of(line, key)
    if not re.fullmatch(f"[0-9a-f]{{{2 * length}}}", value):
        raise Malformed(f"a line's {key} is not {length} bytes in lower-case hex")
    return value


def base64_of(line: dict[str, Any], key: str) -> bytes:
    """Standard base64 with padding; of several texts for the same bytes, the canonical one."""
    value = text_of(line, key)
    try:
        data = base64.b64decode(value, validate=True)
    except ValueError:
        data = None
    if data is None or base64.b64encode(data) != value.encode("ascii"):
        raise Malformed(f"a line's {key} is not base64")
    return data


# --- first line ---


def read_export_header(line: bytes) -> ExportHeader:
    """What the first line says. Without it, nothing is known of the rest."""
    if not line:
        raise CannotCheck("the export is empty")
    try:
        return parse_export_header(parse_line(line))
    except Malformed as problem:
        raise CannotCheck(f"this is not a ledger export: on the first line, {problem}") from None


def parse_export_header(header: dict[str, Any]) -> ExportHeader:
    if text_of(header, "type") != "header" or text_of(header, "format") != EXPORT_FORMAT:
        raise Malformed(f"there is no header of the format {EXPORT_FORMAT}")
    if number_of(header, "version") != EXPORT_VERSION:
        raise Malformed("the version is not one that is known")
    tenant = text_of(header, "tenant_id")
    if not TENANT.fullmatch(tenant):
        raise Malformed("tenant_id is not one that is allowed")
    keys = header.get("public_keys")
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise Malformed("there is no list public_keys")
    return ExportHeader(
        tenant, [(hex_of(key, "key_id", 8), hex_of(key, "public_key", 32)) for key in keys]
    )


def check_export_header(header: ExportHeader, verifier: Verifier) -> None:
    if header.tenant != verifier.tenant:
        verifier.fail("export", Reason.FOREIGN, f"it is of tenant {header.tenant}")
    for listed_id, listed_key in header.public_keys:
        if key_id(bytes.fromhex(listed_key)).hex() != listed_id:
            verifier.fail("export", Reason.MISLABELLED, f"{listed_id} is not the id of its key")


# --- one line for each entry ---


def check_entry_lines(lines: Iterator[bytes], verifier: Verifier) -> dict[str, Any]:
    """Every entry up to the end line, which is returned."""
    for line in lines:
        try:
            parsed = parse_export_line(line)
            if parsed["type"] == "end":
                return parsed
            raw = base64_of(parsed, "entry")
            entry = verifier.check(raw)
            check_labels(parsed, entry, verifier)
            verifier.accept(raw, entry)
        except Malformed as problem:
            verifier.fail("export", Reason.MALFORMED, str(problem))
    raise incomplete(verifier)


def parse_export_line(line: bytes) -> dict[str, Any]:
    """An entry line or the end line."""
    try:
        parsed = parse_line(line)
    except Malformed:
        if was_cut_off(line):
            raise CannotCheck("the export is incomplete: it breaks off within a line") from None
        raise
    if text_of(parsed, "type") not in ("entry", "end"):
        raise Malformed("a line is neither an entry nor the end")
    return parsed


def was_cut_off(line: bytes) -> bool:
    """Whether the input ended within this line."""
    return not line.endswith(b"\n") and not is_too_long(line)


def incomplete(verifier: Verifier) -> CannotCheck:
    return CannotCheck(
        f"the export is incomplete: after {verifier.size} entries that are sound,"
        " it ends without its last line"
    )


def check_labels(line: dict[str, Any], entry: Entry, verifier: Verifier) -> None:
    """What a line says of its entry must agree with it."""
    said = (
        number_of(line, "seq"),
        text_of(line, "kind"),
        text_of(line, "at"),
        text_of(line, "hash"),
    )
    true = (entry.seq, entry.kind, rfc3339(entry.time), entry.hash.hex())
    for name, a, b in zip(("seq", "kind", "at", "hash"), said, true):
        if a != b:
            verifier.fail(
                "export", Reason.MISLABELLED, f"{name} on its line is not that of the entry"
            )


def rfc3339(time: int) -> str | None:
    """Microseconds since the epoch as RFC 3339 in UTC, or None after the year 9999."""
    try:
        moment = datetime(1970, 1, 1) + timedelta(microseconds=time)
    except OverflowError:
        return None
    return moment.isoformat(timespec="microseconds") + "Z"


# --- last line ---


def check_end_line(end: dict[str, Any], verifier: Verifier) -> None:
    """Where the stream ended when the export was made, as the last line has it."""
    try:
        size, head, root = number_of(end, "size"), hex_of(end, "head", 32), hex_of(end, "root", 32)
    except Malformed as problem:
        verifier.fail("export", Reason.MALFORMED, str(problem))
    verifier.check_end(size, bytes.fromhex(head), "last line")
    if root != verifier.tree.root().hex():
        verifier.fail("last line", Reason.WRONG_END, f"the root should be {root}")


# ---------------------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------------------

SOUND, NOT_SOUND, COULD_NOT_CHECK = 0, 1, 2

LONGEST_KEY_FILE = 64 * 1024


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        keys = load_keys(options.key)
        with open_export(options.export) as source:
            outcome = verify_export(source, keys, options.tenant, options.size, options.head)
    except CannotCheck as problem:
        return report_could_not_check(str(problem), options.json)
    except Exception as problem:  # a mistake in this program must not look like a verdict
        return report_could_not_check(f"internal error: {problem!a}", options.json)
    return report(outcome, options.json)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="verify_ledger.py",
        description="Verify a Haldir ledger export against public keys that you trust.",
        epilog="Exit code: 0 sound, 1 not sound, 2 could not check.",
    )
    parser.add_argument("export", metavar="EXPORT", help="the export; - for standard input")
    parser.add_argument(
        "--key",
        metavar="PUBKEY",
        action="append",
        required=True,
        help="an Ed25519 public key that you trust: a PEM file or 64 hex digits; may be repeated",
    )
    parser.add_argument(
        "--tenant", type=tenant_argument, metavar="ID", help="whose stream it must be"
    )
    parser.add_argument(
        "--size", type=size_argument, metavar="N", help="how many entries there must be"
    )
    parser.add_argument(
        "--head", type=head_argument, metavar="HEX", help="what the last hash must be"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def tenant_argument(text: str) -> str:
    if not TENANT.fullmatch(text):
        raise argparse.ArgumentTypeError("not a tenant id")
    return text


def size_argument(text: str) -> int:
    if not re.fullmatch("[0-9]{1,20}", text):
        raise argparse.ArgumentTypeError("not a number of entries")
    return int(text)


def head_argument(text: str) -> bytes:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError("not 64 hex digits")
    return bytes.fromhex(text)


def load_keys(texts: list[str]) -> list[bytes]:
    keys = [load_key(text) for text in texts]
    try:
        by_key_id(keys)
    except ValueError as problem:
        raise CannotCheck(str(problem)) from None
    return keys


def load_key(text: str) -> bytes:
    """The 32 bytes of a public key, given as hex or as the path of a PEM file."""
    if re.fullmatch("[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    try:
        with open(text, "rb") as file:
            key = load_pem_public_key(file.read(LONGEST_KEY_FILE))
    except (OSError, ValueError, UnsupportedAlgorithm) as problem:
        raise CannotCheck(f"no public key in {text!a}: {problem!a}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise CannotCheck(f"the key in {text!a} is not an Ed25519 key")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def open_export(path: str) -> BinaryIO:
    if path == "-":
        return sys.stdin.buffer
    try:
        return open(path, "rb")
    except (OSError, ValueError) as problem:
        raise CannotCheck(f"the export cannot be read: {problem!a}") from None


def report(outcome: ExportVerdict, as_json: bool) -> int:
    if as_json:
        print(json.dumps(outcome_as_json(outcome)))
    else:
        print("\n".join(outcome_as_lines(outcome)))
    return SOUND if outcome.stream.sound else NOT_SOUND


def outcome_as_lines(outcome: ExportVerdict) -> list[str]:
    stream = outcome.stream
    return [
        "sound" if stream.fault is None else str(stream.fault),
        f"tenant {outcome.tenant}",
        f"size   {stream.size}",
        f"head   {stream.head.hex()}",
        f"root   {stream.root.hex()}",
        *(f"note: {note}" for note in outcome.notes),
    ]


def outcome_as_json(outcome: ExportVerdict) -> dict[str, Any]:
    stream, fault = outcome.stream, outcome.stream.fault
    value: dict[str, Any] = {
        "verdict": "sound" if fault is None else "not sound",
        "tenant": outcome.tenant,
        "size": stream.size,
        "head": stream.head.hex(),
        "root": stream.root.hex(),
        "notes": outcome.notes,
    }
    if fault is not None:
        value |= {
            "seq": fault.seq,
            "reason": fault.reason.value,
            "step": fault.step,
            "detail": fault.detail,
        }
    return value


def report_could_not_check(problem: str, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"verdict": "could not check", "detail": problem}))
    else:
        print(f"could not check: {problem}", file=sys.stderr)
    return COULD_NOT_CHECK


if __name__ == "__main__":
    sys.exit(main())
