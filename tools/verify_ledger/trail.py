"""Section 14: exports of the audit trail, and the manifest that says what they hold."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, BinaryIO, NamedTuple, NoReturn

from .entry import TENANT_FORM
from .keys import Trust
from .lines import Number, Pairs, hash_in, number_in, parse_object, text_in
from .primitives import key_id, manifest_message, signature_problem
from .verdict import CannotCheck, Malformed, NotSound, Outcome, Verdict

MANIFEST_START = b'{"type":"manifest",'
MANIFEST_END = re.compile(rb',"signature":"([0-9a-f]{128})"}\Z')

# The details of an action have at most 1 MiB as they are sent; escapes make at most three bytes
# of one. The document sets no limit to a line of a trail: this one only keeps memory bounded.
LONGEST_ROW = 8 * 1024 * 1024

JSONL_MEMBERS = (
    "entry_id timestamp tenant_id session_id agent_id tool action cost_usd flagged flag_reason"
    " details prev_hash entry_hash"
).split()
CSV_COLUMNS = (
    "entry_id timestamp timestamp_iso tenant_id session_id agent_id tool action cost_usd flagged"
    " flag_reason details_json prev_hash entry_hash"
).split()


class Manifest(NamedTuple):
    members: dict[str, Any]
    tenant: str
    count: int
    signed_text: bytes
    public_key: bytes
    signature: bytes

    @property
    def has_filters(self) -> bool:
        return bool(self.members["filters"])


class Row(NamedTuple):
    entry_id: str
    timestamp: str
    tenant: str
    previous: str
    hash: str


class Trail:
    """The rows so far, and what the manifest must say of them."""

    def __init__(self) -> None:
        self.count = 0
        self.ids = hashlib.sha256()
        self.content = hashlib.sha256()
        self.first: Row | None = None
        self.last: Row | None = None
        self.tenants: set[str] = set()
        self.first_gap: int | None = None

    def fail(self, step: str, reason: str, detail: str) -> NoReturn:
        raise NotSound(self.count, step, reason, detail)

    def add(self, row: Row) -> None:
        if row.previous != (self.last.hash if self.last else "") and self.first_gap is None:
            self.first_gap = self.count
        self.ids.update(row.entry_id.encode("utf-8", "surrogatepass") + b"\n")
        self.tenants.add(row.tenant)
        self.first = self.first or row
        self.last = row
        self.count += 1


def verify_trail(source: BinaryIO, trust: Trust, tenant: str | None = None) -> Verdict:
    """A JSONL export: rows, and the manifest as the last line."""
    trail = Trail()
    try:
        while line := source.readline(LONGEST_ROW):
            if not line.endswith(b"\n"):
                if len(line) == LONGEST_ROW:
                    trail.fail("export", "malformed", f"a line has more than {LONGEST_ROW} bytes")
                break
            if line.startswith(MANIFEST_START):
                if source.read(1):
                    trail.fail("export", "malformed", "something follows the manifest")
                return judge(trail, line.removesuffix(b"\n"), "jsonl", trust, tenant)
            try:
                row = read_row(line)
            except Malformed as problem:
                trail.fail("export", "malformed", str(problem))
            trail.content.update(line)
            trail.add(row)
    except NotSound as fault:
        return Verdict(fault.outcome, str(fault), fault=fault)
    return Verdict(Outcome.INCOMPLETE, f"after {trail.count} actions, it ends without a manifest")


def verify_table(
    source: BinaryIO, manifest: bytes, trust: Trust, tenant: str | None = None
) -> Verdict:
    """A CSV export and its manifest, which is a file of its own."""
    trail = Trail()
    try:
        try:
            read_table(source, trail)
        except (csv.Error, ValueError) as problem:
            trail.fail("export", "malformed", f"a record cannot be read: {problem}")
        return judge(trail, manifest.removesuffix(b"\n"), "csv", trust, tenant)
    except NotSound as fault:
        return Verdict(fault.outcome, str(fault), fault=fault)


# --- rows ---


def read_row(line: bytes) -> Row:
    try:
        row = parse_object(line)
    except ValueError:
        raise Malformed("a line cannot be read as JSON in UTF-8") from None
    if list(row) != JSONL_MEMBERS:
        raise Malformed("a line does not have the members of an action in their order")
    timestamp = row["timestamp"]
    if not isinstance(timestamp, Number):
        raise Malformed("there is no timestamp of the right form")
    names = ["tenant_id", "prev_hash", "entry_hash"]
    return Row(text_in(row, "entry_id"), timestamp, *(text_in(row, name) for name in names))


def read_table(source: BinaryIO, trail: Trail) -> None:
    csv.field_size_limit(LONGEST_ROW)
    records = csv.reader(lines_of(source, trail), strict=True)
    if next(records, None) != CSV_COLUMNS:
        trail.fail("export", "malformed", "the first record does not name the columns")
    for record in records:
        if len(record) != len(CSV_COLUMNS):
            trail.fail("export", "malformed", f"a record has {len(record)} cells")
        cells = dict(zip(CSV_COLUMNS, record))
        names = ["entry_id", "timestamp", "tenant_id", "prev_hash", "entry_hash"]
        trail.add(Row(*(cells[name] for name in names)))


def lines_of(source: BinaryIO, trail: Trail) -> Iterator[str]:
    while line := source.readline(LONGEST_ROW):
        trail.content.update(line)
        yield line.decode("utf-8")


# --- the manifest ---


def read_manifest(line: bytes) -> Manifest:
    """Step 1. The text that is signed is cut out of the line, never written anew."""
    found = MANIFEST_END.search(line)
    if not found:
        raise Malformed("the manifest does not end in a signature")
    try:
        members = parse_object(line)
    except ValueError:
        raise Malformed("the manifest cannot be read as JSON in UTF-8") from None
    if members.get("type") != "manifest" or number_in(members, "format_version") != 1:
        raise Malformed("it is not a manifest of a version that is known")
    if not isinstance(members.get("filters"), Pairs):
        raise Malformed("there are no filters")
    return Manifest(
        members,
        text_in(members, "tenant_id", TENANT_FORM),
        number_in(members, "count"),
        line[: found.start()] + b"}",
        hash_in(members, "public_key"),
        bytes.fromhex(found[1].decode()),
    )


def judge(
    trail: Trail, line: bytes, form: str, trust: Trust, tenant: str | None
) -> Verdict:
    try:
        manifest = read_manifest(line)
    except Malformed as problem:
        trail.fail("step 1", "malformed", str(problem))
    key = manifest.public_key
    if text_of(manifest, "key_id") != key_id(key).hex():
        trail.fail("step 2", "forged", "key_id is not that of public_key")
    flaw = signature_problem(key, manifest_message(key, manifest.signed_text), manifest.signature)
    if flaw is not None:
        trail.fail("step 2", "forged", flaw)
    if tenant not in (None, manifest.tenant):
        trail.fail("step 2", "foreign", f"the manifest is of tenant {manifest.tenant}")

    if text_of(manifest, "format") != form:
        trail.fail("step 3", "altered", f"the manifest is not of a {form} export")
    if text_of(manifest, "content_sha256") != trail.content.hexdigest():
        trail.fail("step 3", "altered", "content_sha256 is not that of the bytes")
    compare_with_rows(trail, manifest)
    if not manifest.has_filters and trail.first_gap is not None:
        detail = "prev_hash is not entry_hash of the row before"
        raise NotSound(trail.first_gap, "step 5", "broken link", detail)

    notes = ["an entry_hash is that of an entry of the ledger, which a trail does not hold"]
    if tenant is None:
        notes.append("the tenant is the one that the manifest names; --tenant if you know it")
    if manifest.has_filters:
        notes.append("the export has filters: what they left out cannot be seen")
    facts = {
        "tenant": manifest.tenant,
        "count": trail.count,
        "filters": dict(manifest.members["filters"]),
        "key_id": key_id(key).hex(),
    }
    if not trust.is_named(key):
        return Verdict(Outcome.UNNAMED_KEY, key_id(key).hex(), facts, notes)
    return Verdict(Outcome.SOUND, "", facts, notes)


def compare_with_rows(trail: Trail, manifest: Manifest) -> None:
    """Step 4."""
    said = {
        "count": manifest.count == trail.count,
        "sha256": text_of(manifest, "sha256") == trail.ids.hexdigest(),
        "first_timestamp": is_moment_of(manifest.members.get("first_timestamp"), trail.first),
        "last_timestamp": is_moment_of(manifest.members.get("last_timestamp"), trail.last),
        "last_chain_hash": text_of(manifest, "last_chain_hash")
        == (trail.last.hash if trail.last else ""),
        "tenant_id": trail.tenants <= {manifest.tenant},
    }
    for name, is_so in said.items():
        if not is_so:
            trail.fail("step 4", "altered", f"{name} is not that of the rows")


def is_moment_of(said: Any, row: Row | None) -> bool:
    """Exact decimals, in whatever way they are written; null when there is no row."""
    if row is None:
        return said is None
    try:
        return isinstance(said, Number) and Decimal(said) == Decimal(row.timestamp)
    except InvalidOperation:
        return False


def text_of(manifest: Manifest, name: str) -> str:
    try:
        return text_in(manifest.members, name)
    except Malformed as problem:
        raise NotSound(0, "step 1", "malformed", str(problem)) from None


def manifest_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1024 * 1024)
    except (OSError, ValueError) as problem:
        raise CannotCheck(f"the manifest cannot be read: {problem!a}") from None
