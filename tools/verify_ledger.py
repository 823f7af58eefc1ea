#!/usr/bin/env python3
"""Verify a Haldir ledger export, without Haldir.

This program follows the document `ledger-format.md` and nothing else: it shares no code with
the server that writes ledgers, so that neither can hide a mistake of the other. The numbers in
the comments ("section 7, step 3") are those of the document. Read top-down, it goes the same
way as the document does:

    primitives (2) · entry (3) · payloads (4) · tree (6) · verification (7) · export (8)
    · command line

Usage:

    python3 verify_ledger.py EXPORT.jsonl --key PUBKEY [--key PUBKEY2] [--tenant ID]
                             [--size N] [--head HEX] [--kept-size S --kept-head HEX] [--json]

EXPORT may be `-` for standard input. It is read line by line; memory does not grow with it.
PUBKEY is a PEM file (SubjectPublicKeyInfo) of an Ed25519 public key, or its 64 hex digits. Get
it from somewhere else than the export: a key that comes with the data proves nothing. The same
holds for the tenant; for size and head, which say where the stream must end; and for an older
end that you kept, which the stream must still contain.

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
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, BinaryIO, NamedTuple, NoReturn

try:
    from blake3 import blake3
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
except ImportError as missing:
    if __name__ != "__main__":
        raise
    print(f"could not check: {missing}", file=sys.stderr)
    sys.exit(2)


# ---------------------------------------------------------------------------------------------
# Section 2: primitives
# ---------------------------------------------------------------------------------------------

HASH_CONTEXT = "haldir ledger v1 entry hash"
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


def signature_problem(public_key: bytes, digest: bytes, signature: bytes) -> str | None:
    """Why `signature` is not that of `digest` by `public_key`, or None. The check is strict."""
    r, s = signature[:32], signature[32:]
    if int.from_bytes(s, "little") >= GROUP_ORDER:
        return "S of its signature is not below the group order"
    if is_of_small_order(r):
        return "R of its signature is of small order"
    if is_of_small_order(public_key):
        return "the public key is of small order"
    try:
        # This recomputes R without the cofactor and compares its bytes.
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(signature, signed_message(public_key, digest))
    except (InvalidSignature, ValueError):
        return "its signature is not valid"
    return None


def is_of_small_order(point: bytes) -> bool:
    """For an encoded point: its y coordinate and, in the highest bit, the sign of x."""
    y = int.from_bytes(point, "little") % 2**255
    return y % FIELD_PRIME in SMALL_ORDER_Y


# ---------------------------------------------------------------------------------------------
# Section 3: entry
# ---------------------------------------------------------------------------------------------

HEADER_LENGTH = 180
SHORTEST_ENTRY = 284
LONGEST_ENTRY = 65_535

MAGIC = b"HLDR"
FORMAT_VERSION = 1
LATEST_TIME = 253_370_764_799_999_999
NO_HASH = bytes(32)

# Section 3.2, row by row. "<" is little-endian without padding.
HEADER_LAYOUT = struct.Struct("<4s H H H H I Q Q 24s 24s 64s 32s I")


class Header(NamedTuple):
    """The header, row by row; short texts are as they stand, with their zero bytes."""

    magic: bytes
    format_version: int
    kind: int
    schema_version: int
    reserved: int
    rules_revision: int
    seq: int
    time: int
    tenant: bytes
    actor: bytes
    request_id: bytes
    previous_hash: bytes
    payload_length: int


class Entry(NamedTuple):
    """The parts of an entry (section 3.1)."""

    header: Header
    payload: bytes
    hash: bytes
    key_id: bytes
    signature: bytes


def split_entry(raw: bytes) -> Entry:
    """The parts of an entry that is not too short. Nothing is checked."""
    header = Header(*HEADER_LAYOUT.unpack_from(raw))
    return Entry(header, raw[HEADER_LENGTH:-104], raw[-104:-72], raw[-72:-64], raw[-64:])


def short_text(form: str) -> re.Pattern[bytes]:
    """Section 3.3: a text of this form, then only zero bytes."""
    return re.compile(rb"(%b)\x00*" % form.encode("ascii"))


TENANT_FORM = r"[a-z0-9_]{1,24}"
KEY_PREFIX_FORM = r"[\x21-\x7e]{12}"

SHORT_TEXTS = {
    "tenant": short_text(TENANT_FORM),
    "actor": short_text(f"key:{KEY_PREFIX_FORM}|operator|bootstrap|first-caller|system"),
    "request_id": short_text(r"[\x21-\x7e]{1,64}"),
}


class Malformed(Exception):
    """Bytes that are not what the document says they must be. The message says why."""


def check_header(header: Header) -> None:
    """What is in the header for itself (section 7, step 4)."""
    if header.reserved != 0:
        raise Malformed("its reserved field is not 0")
    if header.time > LATEST_TIME:
        raise Malformed("its time is after the year 9998")
    for name, form in SHORT_TEXTS.items():
        if not form.fullmatch(getattr(header, name)):
            raise Malformed(f"its {name} is not one that is allowed")


# ---------------------------------------------------------------------------------------------
# Sections 4.1 to 4.3: payloads
# ---------------------------------------------------------------------------------------------


class Field(NamedTuple):
    """One row of a table in section 4.3. The type is in the words of section 4.1."""

    type: str
    name: str


class Kind(NamedTuple):
    """A kind of event in one schema version."""

    name: str
    fields: list[Field]


def fields(rows: str) -> list[Field]:
    return [Field(*row.split()) for row in rows.split(",")]


def kind(name: str, *rows: str) -> Kind:
    return Kind(name, fields(",".join(rows)))


# Types that are made of fields.
RECORDS = {
    "idempotency": fields("[32] key_digest, [32] fingerprint"),
    "reading": fields("text prefix, u64 calls, u64 last"),
}

# Section 4.2: what every payload starts with.
FIRST_FIELD = Field("idempotency?", "idempotency")

# Section 4.3, by event kind and schema version.
KINDS = {
    (1, 1): kind("key.minted", "text prefix, [32] hash, text name, text* scopes"),
    (2, 1): kind("key.revoked", "text prefix"),
    (3, 1): kind("access.denied", "text required, text operation"),
    (16, 1): kind(
        "session.opened",
        "text session_id, text agent_id, text* scopes, u128? cap",
        "u64 ttl, u64? expires_at, u64? agent_limit",
    ),
    (17, 1): kind("session.revoked", "text session_id"),
    (18, 1): kind("session.denied", "text agent_id, u64 agent_limit, u64 agents_live"),
    (19, 1): kind("permission.checked", "text session_id, text scope, u8 verdict"),
    (32, 1): kind(
        "payment.authorized",
        "text authorization_id, text session_id, text agent_id",
        "u128 amount, text currency, text description, u128? remaining",
    ),
    (33, 1): kind(
        "payment.denied",
        "text authorization_id, text session_id, text agent_id",
        "u128 amount, text currency, text description, u128? remaining, u8 reason",
    ),
    (48, 1): kind(
        "action.logged",
        "text entry_id, text session_id, text agent_id, text action, text tool",
        "u128 cost, [32]? details_digest, text? flag",
    ),
    (49, 1): kind("action.rejected", "text session_id, text action, text tool, u8 reason"),
    (64, 1): kind("usage.metered", "u16 year, u8 month, reading* keys"),
}


def kind_of(header: Header) -> Kind:
    """The kind that a header names."""
    found = KINDS.get((header.kind, header.schema_version))
    if found is None:
        named = f"kind {header.kind} with schema version {header.schema_version}"
        raise Malformed(f"{named} is not known")
    return found


class Payload:
    """Reads the bytes of a payload from the front.

    Section 4.1 leaves no choice in writing a value, and nothing else is read as that value: so
    encoding an event again gives the same bytes.
    """

    def __init__(self, data: bytes) -> None:
        self.rest = memoryview(data)

    def take(self, count: int) -> bytes:
        if count > len(self.rest):
            raise Malformed("its payload ends too early")
        taken, self.rest = self.rest[:count], self.rest[count:]
        return bytes(taken)

    def value(self, form: str) -> Any:
        """The table of section 4.1. An absent value is None."""
        if form.endswith("?"):
            return self.value(form[:-1]) if self.is_present() else None
        if form.endswith("*"):
            # Every item takes bytes, so a count that is too high runs into the payload's end.
            return [self.value(form[:-1]) for _ in range(self.number(64))]
        if form in RECORDS:
            return self.record(RECORDS[form])
        if form == "text":
            return self.text()
        if form == "[32]":
            return self.take(32)
        return self.number(int(form.removeprefix("u")))

    def record(self, wanted: list[Field]) -> dict[str, Any]:
        return {field.name: self.value(field.type) for field in wanted}

    def number(self, bits: int) -> int:
        return int.from_bytes(self.take(bits // 8), "little")

    def text(self) -> str:
        try:
            return self.take(self.number(64)).decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed("a text in its payload is not UTF-8") from None

    def is_present(self) -> bool:
        first = self.number(8)
        if first > 1:
            raise Malformed("the first byte of an optional value in its payload is not 0 or 1")
        return first == 1


def read_event(kind: Kind, data: bytes) -> dict[str, Any]:
    """The event that a payload encodes."""
    payload = Payload(data)
    event = payload.record([FIRST_FIELD, *kind.fields])
    if payload.rest:
        raise Malformed("its payload goes on after the last field")
    check_values(kind, event)
    return event


# ---------------------------------------------------------------------------------------------
# Section 4.4: values
# ---------------------------------------------------------------------------------------------

KEY_SCOPE_FORM = (
    r"\*|vault:rotate"
    r"|(sessions|vault|audit|payments|webhooks|proxy|approvals|admin):(read|write|\*)"
)


def is_key_prefix(text: str) -> bool:
    return re.fullmatch(KEY_PREFIX_FORM, text) is not None


def are_key_scopes(scopes: list[str]) -> bool:
    """They are ASCII, so that sorted by characters is sorted by bytes."""
    all_known = all(re.fullmatch(KEY_SCOPE_FORM, scope) for scope in scopes)
    return 1 <= len(scopes) <= 64 and all_known and scopes == sorted(set(scopes))


def at_most_characters(count: int) -> Callable[[str], bool]:
    return lambda text: len(text) <= count


def between(low: int, high: int) -> Callable[[int], bool]:
    return lambda number: low <= number <= high


# By the name of the field; where that is not enough, by the kind and the name.
ALLOWED_VALUES: dict[str, Callable[[Any], bool]] = {
    "prefix": is_key_prefix,
    "key.minted scopes": are_key_scopes,
    "session_id": at_most_characters(128),
    "agent_id": at_most_characters(128),
    "entry_id": at_most_characters(64),
    "authorization_id": at_most_characters(64),
    "permission.checked verdict": between(0, 4),
    "payment.denied reason": between(0, 3),
    "action.rejected reason": between(0, 1),
    "year": between(1970, 9999),
    "month": between(1, 12),
}


def check_values(kind: Kind, record: dict[str, Any]) -> None:
    for name, value in record.items():
        allowed = ALLOWED_VALUES.get(name) or ALLOWED_VALUES.get(f"{kind.name} {name}")
        if allowed and not allowed(value):
            raise Malformed(f"{name} in its payload has a value that is not allowed")
    for reading in record.get("keys", []):
        check_values(kind, reading)


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

WRONG_END = "does not end where it should"
ANOTHER_HISTORY = "another history"


class CannotCheck(Exception):
    """There is nothing to say about the stream. The message says why."""


@dataclass(eq=False)
class NotSound(Exception):
    """The first step that failed, and where. Reasons are in the words of the document."""

    seq: int
    step: str
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"not sound at seq {self.seq}: {self.reason} ({self.step}: {self.detail})"


class End(NamedTuple):
    """What is known of where a stream ends, or of where it once ended."""

    size: int | None = None
    head: bytes | None = None


class Verifier:
    """Walks one stream. Give it every entry in order, then its end."""

    def __init__(self, tenant: str, keys: Iterable[bytes], kept: End = End()) -> None:
        self.tenant = tenant
        self.keys = by_key_id(keys)
        self.kept = kept
        self.tree = Tree()
        self.previous_hash = NO_HASH
        self.previous_time: int | None = None

    @property
    def size(self) -> int:
        """`n` of section 7: how many entries passed, and the seq that comes next."""
        return self.tree.size

    def fail(self, step: str, reason: str, detail: str) -> NoReturn:
        raise NotSound(self.size, step, reason, detail)

    def check(self, raw: bytes) -> Entry:
        """Steps 1 to 10, in order, for the next entry. Changes nothing."""
        if not SHORTEST_ENTRY <= len(raw) <= LONGEST_ENTRY:
            self.fail("step 1", "malformed", f"it has {len(raw)} bytes")
        entry = split_entry(raw)
        header = entry.header
        if header.magic != MAGIC:
            self.fail("step 1", "malformed", "it does not start with the magic bytes")
        if header.format_version != FORMAT_VERSION:
            self.fail("step 1", "malformed", f"its format version is {header.format_version}")

        if len(raw) != SHORTEST_ENTRY + header.payload_length:
            detail = f"it has {len(raw)} bytes with a payload of {header.payload_length}"
            self.fail("step 2", "malformed", detail)

        if entry.hash != entry_hash(raw[:-104]):
            self.fail("step 3", "altered", "its hash is not that of its bytes")

        try:
            check_header(header)
            read_event(kind_of(header), entry.payload)
        except Malformed as problem:
            self.fail("step 4", "malformed", str(problem))

        tenant = header.tenant.rstrip(b"\x00").decode("ascii")
        if tenant != self.tenant:
            self.fail("step 5", "foreign", f"it belongs to tenant {tenant}")

        if header.seq != self.size:
            self.fail("step 6", "out of place", f"its seq is {header.seq}")

        if header.previous_hash != self.previous_hash:
            self.fail("step 7", "broken link", "it does not follow the entry before it")

        if self.previous_time is not None and header.time <= self.previous_time:
            self.fail("step 8", "time went back", "it is not later than the entry before it")

        if entry.key_id not in self.keys:
            detail = f"its key id is {entry.key_id.hex()}"
            self.fail("step 9", "signed by somebody you did not name", detail)

        flaw = signature_problem(self.keys[entry.key_id], entry.hash, entry.signature)
        if flaw is not None:
            self.fail("step 10", "forged", flaw)
        return entry

    def accept(self, raw: bytes, entry: Entry) -> None:
        """Step 11, for an entry that has passed `check`."""
        if self.size + 1 == self.kept.size and entry.hash != self.kept.head:
            self.fail("kept end", ANOTHER_HISTORY, "its hash is not the head that was kept")
        self.previous_hash = entry.hash
        self.previous_time = entry.header.time
        self.tree.add(leaf_hash(raw))

    def check_end(self, end: End, step: str) -> None:
        """After the last entry, if the end is known."""
        size, head = end
        if size is not None and self.size < size:
            self.fail(step, "truncated", f"there should be {size} entries")
        if size is not None and self.size > size:
            self.fail(step, WRONG_END, f"there should be only {size} entries")
        if head is not None and self.previous_hash != head:
            self.fail(step, WRONG_END, f"the head should be {head.hex()}")

    def check_kept_end(self) -> None:
        """After the last entry: whether it came as far as the older end that was kept."""
        if self.kept.size is not None and self.size < self.kept.size:
            self.fail("kept end", ANOTHER_HISTORY, f"there once were {self.kept.size} entries")


def by_key_id(keys: Iterable[bytes]) -> dict[bytes, bytes]:
    """The trusted keys by their ids. Two keys with one id cannot be told apart in an entry."""
    found: dict[bytes, bytes] = {}
    for key in keys:
        if found.setdefault(key_id(key), key) != key:
            raise CannotCheck(f"two different keys have the key id {key_id(key).hex()}")
    return found


# ---------------------------------------------------------------------------------------------
# Section 8: ledger export
# ---------------------------------------------------------------------------------------------

LONGEST_LINE = 131_072
EXPORT_FORMAT = "haldir-ledger"
EXPORT_VERSION = 1


@dataclass(frozen=True)
class Verdict:
    """The outcome, if there is one. Size, head and root are those of the entries that passed."""

    tenant: str
    size: int
    head: bytes
    root: bytes
    fault: NotSound | None
    notes: list[str]


def verify_export(
    source: BinaryIO,
    keys: Iterable[bytes],
    tenant: str | None = None,
    end: End = End(),
    kept: End = End(),
) -> Verdict:
    """Verify an export against what is known from elsewhere."""
    named_tenant = read_export_header(source.readline(LONGEST_LINE))
    verifier = Verifier(named_tenant if tenant is None else tenant, keys, kept)
    fault = None
    try:
        if named_tenant != verifier.tenant:
            verifier.fail("export", "foreign", f"it is that of tenant {named_tenant}")
        check_lines(source, verifier)
        verifier.check_kept_end()
        verifier.check_end(end, "end")
    except NotSound as found:
        fault = found
    return Verdict(
        verifier.tenant,
        verifier.size,
        verifier.previous_hash,
        verifier.tree.root(),
        fault,
        notes_on(tenant, end),
    )


def notes_on(tenant: str | None, end: End) -> list[str]:
    """What a verdict rests on, where that is not the reader's own knowledge."""
    notes = []
    if tenant is None:
        notes.append("the tenant is the one that the export names; --tenant if you know it")
    if end.head is None:
        notes.append(
            "only the export itself says where the stream ends, so its newest entries may be"
            " missing; --size and --head if you know its end from elsewhere"
        )
    return notes


def read_export_header(line: bytes) -> str:
    """The tenant that the first line names. Without such a line, nothing is known of the rest."""
    if not line:
        raise CannotCheck("the export is empty")
    try:
        header = parse_line(line)
        if header.get("type") != "header" or header.get("format") != EXPORT_FORMAT:
            raise Malformed(f"there is no header of the format {EXPORT_FORMAT}")
        if number_in(header, "version") != EXPORT_VERSION:
            raise Malformed("the version is not one that is known")
        if type(header.get("public_keys")) is not list:  # an object is a list, too: `Pairs`
            raise Malformed("there is no list public_keys")
        return text_in(header, "tenant_id", TENANT_FORM)
    except Malformed as problem:
        raise CannotCheck(f"this is not a ledger export: on the first line, {problem}") from None


def check_lines(source: BinaryIO, verifier: Verifier) -> None:
    """Every line after the first."""
    while line := source.readline(LONGEST_LINE):
        try:
            parsed = parse_line(line)
            if parsed.get("type") == "end":
                return check_last_line(parsed, source, verifier)
            raw = entry_in(parsed)
        except Malformed as problem:
            verifier.fail("export", "malformed", str(problem))
        entry = verifier.check(raw)
        check_labels(parsed, entry, verifier)
        verifier.accept(raw, entry)
    raise CannotCheck(
        f"the export is incomplete: after {verifier.size} entries that are sound,"
        " it ends without its last line"
    )


def check_labels(line: dict[str, Any], entry: Entry, verifier: Verifier) -> None:
    """What a line says of its entry must agree with it."""
    labels = {
        "seq": entry.header.seq,
        "kind": kind_of(entry.header).name,
        "at": utc(entry.header.time),
        "hash": entry.hash.hex(),
    }
    for name, value in labels.items():
        if line[name] != value:
            detail = f"{name} on its line is not that of the entry"
            verifier.fail("export", "mislabelled", detail)


def utc(time: int) -> str:
    """Microseconds since the epoch as a date and time of day."""
    moment = datetime(1970, 1, 1) + timedelta(microseconds=time)
    return moment.isoformat(timespec="microseconds") + "Z"


def check_last_line(line: dict[str, Any], source: BinaryIO, verifier: Verifier) -> None:
    """Where the stream ended when the export was made."""
    size = number_in(line, "size")
    head, root = (bytes.fromhex(text_in(line, name, "[0-9a-f]{64}")) for name in ("head", "root"))
    verifier.check_end(End(size, head), "last line")
    if verifier.tree.root() != root:
        verifier.fail("last line", WRONG_END, f"the root should be {root.hex()}")
    if source.read(1):
        verifier.fail("export", "malformed", "something follows the last line")


# --- lines and what is in them ---


class Pairs(list[tuple[str, Any]]):
    """The keys of an object and their values, as they stand."""


def parse_line(line: bytes) -> dict[str, Any]:
    """The JSON object on a line."""
    if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
        raise Malformed(f"a line has more than {LONGEST_LINE} bytes")
    try:
        pairs = json.loads(
            line.decode("utf-8"),
            object_pairs_hook=Pairs,
            parse_int=whole_number,
            parse_constant=refuse_constant,
        )
    except (ValueError, RecursionError):
        if not line.endswith(b"\n"):
            raise CannotCheck("the export is incomplete: it breaks off within a line") from None
        raise Malformed("a line cannot be read as JSON in UTF-8") from None
    if not isinstance(pairs, Pairs):
        raise Malformed("a line is not an object")
    if len(pairs) != len(dict(pairs)):
        raise Malformed("a line has the same key twice")
    return dict(pairs)


def whole_number(text: str) -> int | None:
    """A number up to 2^64 - 1. Others have no place in an export, unless they are ignored."""
    is_whole = text.isdigit() and len(text) <= 20 and int(text) < 2**64
    return int(text) if is_whole else None


def refuse_constant(name: str) -> NoReturn:
    """NaN and Infinity, which Python would read, are not JSON."""
    raise ValueError(name)


def number_in(line: dict[str, Any], key: str) -> int:
    value = line.get(key)
    if type(value) is not int:  # `True` is an int, too
        raise Malformed(f"there is no whole number {key}")
    return value


def text_in(line: dict[str, Any], key: str, form: str = "(?s:.*)") -> str:
    value = line.get(key)
    if not isinstance(value, str) or not re.fullmatch(form, value):
        raise Malformed(f"there is no {key} of the right form")
    return value


def entry_in(line: dict[str, Any]) -> bytes:
    """Standard base64 with padding; of several texts for the same bytes, the canonical one."""
    if line.get("type") != "entry":
        raise Malformed("a line is neither an entry nor the end")
    number_in(line, "seq")
    for label in ("kind", "at", "hash"):
        text_in(line, label)
    text = text_in(line, "entry")
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raw = b""
    if base64.b64encode(raw).decode("ascii") != text:
        raise Malformed("the entry on a line is not base64")
    return raw


# ---------------------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------------------

SOUND, NOT_SOUND, COULD_NOT_CHECK = 0, 1, 2

LONGEST_KEY_FILE = 64 * 1024


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        verdict = verify_file(options)
    except CannotCheck as problem:
        return report_could_not_check(str(problem), options.json)
    except Exception as problem:  # a mistake in this program must not look like a verdict
        return report_could_not_check(f"internal error: {problem!a}", options.json)
    return report(verdict, options.json)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="verify_ledger.py",
        description="Verify a Haldir ledger export against public keys that you trust.",
        epilog="Exit code: 0 sound, 1 not sound, 2 could not check.",
    )
    tenant = argument(TENANT_FORM, str)
    size = argument("[0-9]{1,20}", int)
    older_size = argument("[1-9][0-9]{0,19}", int)
    head = argument("[0-9a-fA-F]{64}", bytes.fromhex)

    add = parser.add_argument
    add("export", metavar="EXPORT", help="the export; - for standard input")
    add(
        "--key",
        metavar="PUBKEY",
        action="append",
        required=True,
        help="an Ed25519 public key that you trust: a PEM file or 64 hex digits; may be repeated",
    )
    add("--tenant", metavar="ID", type=tenant, help="whose stream it must be")
    add("--size", metavar="N", type=size, help="how many entries there must be")
    add("--head", metavar="HEX", type=head, help="what the last hash must be")
    add("--kept-size", metavar="S", type=older_size, help="how many entries there once were")
    add("--kept-head", metavar="HEX", type=head, help="what the last hash then was")
    add("--json", action="store_true", help="print one JSON object")

    options = parser.parse_args(arguments)
    if (options.kept_size is None) != (options.kept_head is None):
        parser.error("--kept-size and --kept-head belong together")
    return options


def argument(form: str, convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type of arguments: texts of this form."""

    def read(text: str) -> Any:
        if not re.fullmatch(form, text):
            raise argparse.ArgumentTypeError(f"not of the form {form}")
        return convert(text)

    return read


def verify_file(options: argparse.Namespace) -> Verdict:
    keys = [load_key(text) for text in options.key]
    end = End(options.size, options.head)
    kept = End(options.kept_size, options.kept_head)
    try:
        with open_export(options.export) as source:
            return verify_export(source, keys, options.tenant, end, kept)
    except OSError as problem:
        raise CannotCheck(f"the export cannot be read: {problem!a}") from None


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
    return key.public_bytes_raw()


def open_export(path: str) -> BinaryIO:
    try:
        return sys.stdin.buffer if path == "-" else open(path, "rb")
    except ValueError as problem:  # a zero byte in the path
        raise OSError(problem) from None


def report(verdict: Verdict, as_json: bool) -> int:
    if as_json:
        print(json.dumps(verdict_as_json(verdict)))
    else:
        print("\n".join(verdict_as_lines(verdict)))
    return SOUND if verdict.fault is None else NOT_SOUND


def verdict_as_lines(verdict: Verdict) -> list[str]:
    return [
        str(verdict.fault or "sound"),
        f"tenant {verdict.tenant}",
        f"size   {verdict.size}",
        f"head   {verdict.head.hex()}",
        f"root   {verdict.root.hex()}",
        *(f"note: {note}" for note in verdict.notes),
    ]


def verdict_as_json(verdict: Verdict) -> dict[str, Any]:
    fault = verdict.fault
    return {
        "verdict": "not sound" if fault else "sound",
        "tenant": verdict.tenant,
        "size": verdict.size,
        "head": verdict.head.hex(),
        "root": verdict.root.hex(),
        "notes": verdict.notes,
        **(vars(fault) if fault else {}),
    }


def report_could_not_check(problem: str, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"verdict": "could not check", "detail": problem}))
    else:
        print(f"could not check: {problem}", file=sys.stderr)
    return COULD_NOT_CHECK


if __name__ == "__main__":
    sys.exit(main())
