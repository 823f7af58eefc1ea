"""Sections 3 and 4: entries, and the events in them."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from .verdict import Malformed

HEADER_LENGTH = 180
SHORTEST_ENTRY = 284
LONGEST_ENTRY = 65_535

MAGIC = b"HLDR"
FORMAT_VERSION = 1
LATEST_TIME = 253_370_764_799_999_999
NO_HASH = bytes(32)
SIGNER_ROTATED = 80

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


def check_header(header: Header) -> None:
    """What is in the header for itself (section 7, step 4)."""
    if header.reserved != 0:
        raise Malformed("its reserved field is not 0")
    if header.time > LATEST_TIME:
        raise Malformed("its time is after the year 9998")
    for name, form in SHORT_TEXTS.items():
        if not form.fullmatch(getattr(header, name)):
            raise Malformed(f"its {name} is not one that is allowed")


# --- Sections 4.1 to 4.3: payloads ---


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
    "pack": fields("[32] digest, u64 size"),
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
    (80, 1): kind("signer.rotated", "[32] public_key"),
    (81, 1): kind("ledger.repaired", "u64 kept, u64 restored, u64 lost, text damage, text source"),
    (160, 1): kind(
        "schedule.created", "text schedule_id, text name, u8 cadence, text delivery"
    ),
    (161, 1): kind("schedule.removed", "text schedule_id"),
    (162, 1): kind(
        "schedule.ran",
        "text schedule_id, u64 period_start, u64 period_end, u8 outcome, text error, pack? pack",
    ),
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


# --- Section 4.4: values ---

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
    "schedule_id": at_most_characters(64),
    "delivery": lambda text: text.startswith(("webhook:", "email:")),
    "schedule.created cadence": between(0, 3),
    "schedule.ran outcome": between(0, 5),
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
