"""Section 8: ledger exports, whole and in part."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, BinaryIO, NamedTuple

from .entry import NO_HASH, SHORT_TEXTS, TENANT_FORM, Entry, kind_of
from .keys import Trust
from .lines import Pairs, hash_in, is_text, list_in, number_in, parse_object, text_in
from .note import read_note, strict_base64
from .primitives import key_id
from .stream import WRONG_END, End, Pin, Start, Walk
from .verdict import CannotCheck, Malformed, NotSound, Outcome, Verdict

LONGEST_LINE = 524_288
UNSIGNED_END = "the end is not signed: there is no checkpoint on the last line"
EXPORT_FORMAT = "haldir-ledger"
EXPORT_VERSION = 1

NOT_DERIVED = "decisions were not derived again, from the first entry on: this program has no rules"


class Incomplete(Exception):
    """The export stops before its last line. The message says where."""


class ExportHeader(NamedTuple):
    tenant: str
    public_keys: list[bytes]
    certificates: list[str]
    start: Start
    stream_size: int | None


def verify_export(
    source: BinaryIO,
    trust: Trust,
    tenant: str | None = None,
    end: End = End(),
    pins: Iterable[Pin] = (),
) -> Verdict:
    """Verify an export against what is known from elsewhere."""
    header = read_export_header(source.readline(LONGEST_LINE))
    for certificate in header.certificates:
        trust.take_certificate(certificate)
    for key in header.public_keys:
        trust.offer(key)
    notes = [NOT_DERIVED]
    if tenant is None:
        notes.append("the tenant is the one that the export names; --tenant if you know it")
    walk = None
    try:
        walk = walk_for(header, trust, tenant, pins)
        missing = check_lines(source, walk, header)
        if missing in (None, UNSIGNED_END):
            walk.check_end(end, "end")
        outcome, detail = walk.conclude(missing, header.stream_size)
        notes += walk.notes_on_pins()
    except NotSound as fault:
        return Verdict(fault.outcome, str(fault), facts_of(walk, header), notes, fault)
    if outcome in (Outcome.SOUND, Outcome.UNNAMED_KEY) and end.head is None:
        notes.append(
            "only the export itself says where the stream ends, so its newest entries may be"
            " missing; --checkpoint, or --size and --head, if you know its end from elsewhere"
        )
    return Verdict(outcome, detail, facts_of(walk, header), notes)


def walk_for(
    header: ExportHeader, trust: Trust, tenant: str | None, pins: Iterable[Pin]
) -> Walk:
    wanted = header.tenant if tenant is None else tenant
    if header.tenant != wanted:
        raise NotSound(0, "export", "foreign", f"it is that of tenant {header.tenant}")
    pins = list(pins)
    for pin in pins:
        if pin.checkpoint is not None and pin.checkpoint.tenant != wanted:
            raise CannotCheck(f"the checkpoint that was kept is of tenant {pin.checkpoint.tenant}")
    return Walk(wanted, trust, pins, header.start)


def facts_of(walk: Walk | None, header: ExportHeader) -> dict[str, Any]:
    """Size, head and root are those of the entries that passed. Of the entry before a part, only
    the header says what its hash is."""
    if walk is None:
        return {"tenant": header.tenant}
    knows_head = walk.size > walk.start.seq or walk.start.seq == 0
    return {
        "tenant": walk.tenant,
        "from": walk.start.seq,
        "size": walk.size,
        **({"head": walk.previous_hash.hex()} if knows_head else {}),
        "root": walk.tree.root().hex(),
        "signers": [
            {"from": it.seq, "key_id": key_id(it.key).hex(), "named": it.is_named}
            for it in walk.signers
        ],
    }


def read_export_header(line: bytes) -> ExportHeader:
    """The first line. Without such a line, nothing is known of the rest."""
    if not line:
        raise CannotCheck("the export is empty")
    try:
        header = parse_line(line)
        if header.get("type") != "header" or header.get("format") != EXPORT_FORMAT:
            raise Malformed(f"there is no header of the format {EXPORT_FORMAT}")
        if number_in(header, "version") != EXPORT_VERSION:
            raise Malformed("the version is not one that is known")
        return ExportHeader(
            text_in(header, "tenant_id", TENANT_FORM),
            [key for it in list_in(header, "public_keys") if (key := offered_key(it))],
            texts_in(header, "certificates"),
            read_start(header),
            number_in(header, "stream_size") if "stream_size" in header else None,
        )
    except (Malformed, Incomplete) as problem:
        raise CannotCheck(f"this is not a ledger export: on the first line, {problem}") from None


def offered_key(item: Any) -> bytes | None:
    """What the list of public keys holds is not checked: what is no key is passed over."""
    if not isinstance(item, Pairs):
        return None
    try:
        return hash_in(dict(item), "public_key")
    except Malformed:
        return None


def texts_in(header: dict[str, Any], key: str) -> list[str]:
    texts = list_in(header, key) if key in header else []
    if not all(map(is_text, texts)):
        raise Malformed(f"{key} is not a list of texts")
    return texts


def read_start(header: dict[str, Any]) -> Start:
    """Where a part of a stream begins: one peak for each set bit of its first seq."""
    first = number_in(header, "from") if "from" in header else 0
    is_part = first > 0
    previous = hash_in(header, "prev") if is_part or "prev" in header else NO_HASH
    listed = list_in(header, "peaks") if is_part or "peaks" in header else []
    peaks = tuple(hash_in({"peaks": peak}, "peaks") for peak in listed)
    if not is_part:
        return Start()
    if len(peaks) != first.bit_count():
        raise Malformed(f"there are {len(peaks)} peaks before seq {first}")
    return Start(first, previous, peaks)


def check_lines(source: BinaryIO, walk: Walk, header: ExportHeader) -> str | None:
    """Every line after the first. Gives why this is not the whole stream, if it is not."""
    while line := source.readline(LONGEST_LINE):
        try:
            parsed = parse_line(line)
            if parsed.get("type") == "end":
                is_signed = check_last_line(parsed, source, walk)
                return why_in_part(header, walk, None if is_signed else UNSIGNED_END)
            raw = entry_in(parsed)
        except Malformed as problem:
            walk.fail("export", "malformed", str(problem))
        except Incomplete as problem:
            return why_in_part(header, walk, str(problem))
        entry = walk.check(raw)
        check_labels(parsed, entry, walk)
        walk.accept(raw, entry)
    no_end = f"after {walk.size} entries that are sound, it ends without its last line"
    return why_in_part(header, walk, no_end)


def why_in_part(header: ExportHeader, walk: Walk, flaw: str | None) -> str | None:
    """Why this is not the whole stream. `flaw` says why it does not show its end itself."""
    size = walk.size
    if flaw is not None and not walk.is_end_kept():
        return flaw
    if header.start.seq > 0:
        return f"it is a part of the stream: it begins at seq {header.start.seq}"
    if header.stream_size is not None and size < header.stream_size:
        return f"it is a part of the stream, which had {header.stream_size} entries"
    return None


def parse_line(line: bytes) -> dict[str, Any]:
    if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
        raise Malformed(f"a line has more than {LONGEST_LINE} bytes")
    try:
        return parse_object(line)
    except ValueError:
        if not line.endswith(b"\n"):
            raise Incomplete("it breaks off within a line") from None
        raise Malformed("a line cannot be read as JSON in UTF-8") from None


def entry_in(line: dict[str, Any]) -> bytes:
    """The bytes on the line of an entry. What is there for people must be of its type."""
    if line.get("type") != "entry":
        raise Malformed("a line is neither an entry nor the end")
    number_in(line, "seq")
    for label in ("kind", "at", "hash"):
        text_in(line, label)
    for label in ("actor", "request_id", "prev", "key_id", "signature"):
        if label in line:
            text_in(line, label)
    if "rules" in line:
        number_in(line, "rules")
    if "event" in line and not isinstance(line["event"], Pairs):
        raise Malformed("there is no event of the right form")
    return strict_base64(text_in(line, "entry"), "the entry on a line")


def check_labels(line: dict[str, Any], entry: Entry, walk: Walk) -> None:
    """What a line says of its entry must agree with it. (How `event` is written is not said.)"""
    header = entry.header
    labels = {
        "seq": header.seq,
        "kind": kind_of(header).name,
        "at": utc(header.time),
        "hash": entry.hash.hex(),
        "actor": short_text_of(entry, "actor"),
        "request_id": short_text_of(entry, "request_id"),
        "rules": header.rules_revision,
        "prev": header.previous_hash.hex(),
        "key_id": entry.key_id.hex(),
        "signature": entry.signature.hex(),
    }
    for name, value in labels.items():
        if name in line:
            said = number_in(line, name) if isinstance(value, int) else line[name]
            if said != value:
                detail = f"{name} on its line is not that of the entry"
                walk.fail("export", "mislabelled", detail)


def short_text_of(entry: Entry, name: str) -> str:
    found = SHORT_TEXTS[name].fullmatch(getattr(entry.header, name))
    assert found  # step 4
    return found[1].decode("ascii")


def utc(time: int) -> str:
    """Microseconds since the epoch as a date and time of day."""
    moment = datetime(1970, 1, 1) + timedelta(microseconds=time)
    return moment.isoformat(timespec="microseconds") + "Z"


def check_last_line(line: dict[str, Any], source: BinaryIO, walk: Walk) -> bool:
    """Where the stream, or the part, ended when the export was made; whether that is signed."""
    size, head, root = number_in(line, "size"), hash_in(line, "head"), hash_in(line, "root")
    checkpoint = text_in(line, "checkpoint") if "checkpoint" in line else None
    walk.check_end(End(size, head), "last line")
    if walk.tree.root() != root:
        walk.fail("last line", WRONG_END, f"the root should be {root.hex()}")
    if checkpoint is not None:
        walk.check_checkpoint(read_note(checkpoint.encode("utf-8", "replace")), "last line")
    if source.read(1):
        walk.fail("export", "malformed", "something follows the last line")
    return checkpoint is not None
