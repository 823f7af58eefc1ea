"""Tests of `tools/verify_ledger` against the test vectors of `ledger-format.md`.

The vectors are read from section 19 of the document itself. First the verifier must agree with
every one of them; then an export made of them is attacked in every way that the document lets
one think of, and each attack must be found at the right place and for the right reason.

Where an attack is about one step only, the entries are hashed, signed and linked again with the
private key of the vectors, so that nothing else about them is wrong.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import io
import json
import random
import re
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENT = PROJECT / "ledger-format.md"
PROGRAM = PROJECT / "tools" / "verify_ledger"

sys.path.insert(0, str(PROGRAM.parent))
import verify_ledger as vl
import verify_ledger.cli
import verify_ledger.tree_head

# ---------------------------------------------------------------------------------------------
# The vectors
# ---------------------------------------------------------------------------------------------

TENANT = "9e881bd609994b5e"


def section(number: int) -> str:
    """The text of one section of the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found = re.search(rf"^## {number}\. .*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"the document has no section {number}"
    return found.group()


def read_vectors() -> dict[str, bytes]:
    """Those that are hex. Paths, the verifier key and the certificate are in `TEXTS`."""
    return {name: bytes.fromhex(value) for name, value in TEXTS.items() if is_hex(value)}


def is_hex(value: str) -> bool:
    return re.fullmatch("(?:[0-9a-f]{2})+", value) is not None


TEXTS = dict(re.findall(r"^(\w+) = (.+)$", section(19), re.MULTILINE))


VECTORS = read_vectors()
ENTRIES = [VECTORS[name] for name in sorted(VECTORS) if name.startswith("entry_")]
ANOMALIES = [VECTORS[name] for name in sorted(VECTORS) if name.startswith("anomaly_entry_")]
CUSTODY = [VECTORS[name] for name in sorted(VECTORS) if name.startswith("custody_entry_")]
COMPLIANCE = [VECTORS[name] for name in sorted(VECTORS) if name.startswith("compliance_entry_")]
PROXY = [VECTORS[name] for name in sorted(VECTORS) if name.startswith("proxy_entry_")]
VAULT = [VECTORS[name] for name in sorted(VECTORS) if name.startswith("vault_entry_")]
ROOTS = [VECTORS[name] for name in sorted(VECTORS) if name.startswith("root_")]
HEAD = VECTORS["head"]
COUNT = len(ENTRIES)

SIGNER = Ed25519PrivateKey.from_private_bytes(VECTORS["private_key"])
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(100, 132)))


def raw_public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


PUBLIC = raw_public(SIGNER)
STRANGERS_PUBLIC = raw_public(STRANGER)

# ---------------------------------------------------------------------------------------------
# Making entries and streams
# ---------------------------------------------------------------------------------------------

Draft = tuple[vl.entry.Header, bytes]
Edit = Callable[[vl.entry.Header, bytes], Draft]


def open_entry(entry: bytes) -> Draft:
    """Header and payload of an entry."""
    parts = vl.entry.split_entry(entry)
    return parts.header, parts.payload


def hash_of(entry: bytes) -> bytes:
    return entry[-104:-72]


def event_of(entry: bytes) -> dict[str, Any]:
    header, payload = open_entry(entry)
    return vl.entry.read_event(vl.entry.kind_of(header), payload)


def encode(form: str, value: Any) -> bytes:
    """A value in one of the types of section 4.1."""
    if form.endswith("?"):
        return b"\x00" if value is None else b"\x01" + encode(form[:-1], value)
    if form.endswith("*"):
        return encode("u64", len(value)) + b"".join(encode(form[:-1], item) for item in value)
    if form in vl.entry.RECORDS:
        return encode_fields(vl.entry.RECORDS[form], value)
    if form == "text":
        return text(value.encode())
    if form.startswith("["):
        return value
    return value.to_bytes(int(form[1:]) // 8, "little")


def text(value: bytes) -> bytes:
    return len(value).to_bytes(8, "little") + value


def encode_fields(fields: list[vl.entry.Field], values: dict[str, Any]) -> bytes:
    return b"".join(encode(field.type, values[field.name]) for field in fields)


def encode_event(kind: vl.entry.Kind, event: dict[str, Any]) -> bytes:
    return encode_fields([vl.entry.FIRST_FIELD, *kind.fields], event)


def seal(header: vl.entry.Header, payload: bytes, signer: Ed25519PrivateKey = SIGNER) -> bytes:
    """An entry with the right length, hash, key id and signature."""
    body = vl.entry.HEADER_LAYOUT.pack(*header._replace(payload_length=len(payload))) + payload
    digest = vl.primitives.entry_hash(body)
    public = raw_public(signer)
    return body + digest + vl.primitives.key_id(public) + signer.sign(vl.primitives.entry_message(public, digest))


def relink(entries: Iterable[bytes]) -> list[bytes]:
    """The same events, hashed, linked and signed again."""
    linked: list[bytes] = []
    previous = vl.entry.NO_HASH
    for entry in entries:
        header, payload = open_entry(entry)
        linked.append(seal(header._replace(previous_hash=previous), payload))
        previous = hash_of(linked[-1])
    return linked


def edited(seq: int, edit: Edit) -> list[bytes]:
    """The vectors' stream with another header or payload at `seq`; all else is in order."""
    return relink(seal(*edit(*open_entry(e))) if n == seq else e for n, e in enumerate(ENTRIES))


def with_header(**changes: Any) -> Edit:
    return lambda header, payload: (header._replace(**changes), payload)


def with_payload(change: Callable[[bytes], bytes]) -> Edit:
    return lambda header, payload: (header, change(payload))


def with_event(**changes: Any) -> Edit:
    """Other values in the event, whether they are allowed or not."""

    def edit(header: vl.entry.Header, payload: bytes) -> Draft:
        kind = vl.entry.kind_of(header)
        event = vl.entry.read_event(kind, payload) | changes
        return header, encode_event(kind, event)

    return edit


def replaced(entries: list[bytes], seq: int, entry: bytes) -> list[bytes]:
    return [*entries[:seq], entry, *entries[seq + 1 :]]


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# ---------------------------------------------------------------------------------------------
# Making exports
# ---------------------------------------------------------------------------------------------

Line = dict[str, Any]


def header_line(tenant: str = TENANT, key: bytes = PUBLIC) -> Line:
    return {
        "type": "header",
        "format": "haldir-ledger",
        "version": 1,
        "tenant_id": tenant,
        "public_keys": [{"key_id": vl.primitives.key_id(key).hex(), "public_key": key.hex()}],
    }


def entry_line(seq: int, entry: bytes) -> Line:
    """The line of an entry. Labels that cannot be read from it are left plausible."""
    line = {
        "type": "entry",
        "seq": seq,
        "kind": "key.minted",
        "at": "2023-11-14T22:13:20.000000Z",
        "hash": hash_of(entry).hex(),
        "entry": base64.b64encode(entry).decode("ascii"),
    }
    with contextlib.suppress(vl.verdict.Malformed, struct.error, OverflowError):
        header = vl.entry.split_entry(entry).header
        line |= {"at": vl.export.utc(header.time), "kind": vl.entry.kind_of(header).name}
    return line


def tree_of(entries: Iterable[bytes]) -> vl.tree.Tree:
    tree = vl.tree.Tree()
    for entry in entries:
        tree.add(vl.primitives.leaf_hash(entry))
    return tree


def note(size: int, root: bytes, signer: Ed25519PrivateKey = SIGNER, tenant: str = TENANT) -> bytes:
    """A checkpoint as section 9 has it."""
    origin = f"haldir/ledger/{tenant}"
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n".encode()
    signed = vl.note.key_hash(origin, raw_public(signer)) + signer.sign(text)
    return text + b"\n" + f"— {origin} {base64.b64encode(signed).decode()}\n".encode()


def end_line(entries: list[bytes], tenant: str = TENANT, signer: Ed25519PrivateKey = SIGNER) -> Line:
    head = hash_of(entries[-1]) if entries else vl.entry.NO_HASH
    root = tree_of(entries).root()
    checkpoint = note(len(entries), root, signer, tenant).decode()
    return {"type": "end", "size": len(entries), "head": head.hex(), "root": root.hex(), "checkpoint": checkpoint}


def export_lines(
    entries: list[bytes], tenant: str = TENANT, signer: Ed25519PrivateKey = SIGNER
) -> list[Line]:
    """`signer` is the one that signs where the stream ends."""
    middle = [entry_line(seq, entry) for seq, entry in enumerate(entries)]
    return [header_line(tenant), *middle, end_line(entries, tenant, signer)]


def as_text(lines: Iterable[Line]) -> bytes:
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)


def export(entries: list[bytes], signer: Ed25519PrivateKey = SIGNER) -> bytes:
    return as_text(export_lines(entries, signer=signer))


def unsigned(lines: list[Line]) -> list[Line]:
    """Without the checkpoint on the last line."""
    end = {name: value for name, value in lines[-1].items() if name != "checkpoint"}
    return [*lines[:-1], end]


def entry_number(lines: list[Line], seq: int) -> Line:
    return lines[seq + 1]


# ---------------------------------------------------------------------------------------------
# Running the verifier
# ---------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Run:
    code: int
    out: str
    err: str

    @property
    def outcome(self) -> dict[str, Any]:
        return json.loads(self.out)


class Cli:
    """Runs the command line: within this process, which is quick, or in one of its own."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.path = folder / "export.jsonl"
        self.capture = capture

    def __call__(self, data: bytes, *options: str, key: str = PUBLIC.hex()) -> Run:
        self.path.write_bytes(data)
        return self.arguments(str(self.path), "--key", key, *options)

    def arguments_for(self, data: bytes, *options: str) -> Run:
        """Without a key."""
        self.path.write_bytes(data)
        return self.arguments(str(self.path), *options)

    def json(self, data: bytes, *options: str, key: str = PUBLIC.hex()) -> Run:
        return self(data, "--json", *options, key=key)

    def arguments(self, *arguments: str) -> Run:
        try:
            code = vl.cli.main(list(arguments))
        except SystemExit as stop:  # argparse
            code = stop.code
        captured = self.capture.readouterr()
        assert "internal error" not in captured.out + captured.err
        return Run(code, captured.out, captured.err)


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(tmp_path, capsys)


def in_own_process(*arguments: str, stdin: bytes = b"", python: tuple[str, ...] = ()) -> Run:
    done = subprocess.run(
        [sys.executable, *python, str(PROGRAM), *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    return Run(done.returncode, done.stdout.decode(), done.stderr.decode())


def assert_sound(run: Run) -> None:
    assert run.code == 0, run
    assert run.outcome["verdict"] == "sound"


def assert_not_sound(run: Run, seq: int, step: str, reason: str, detail: str = "") -> None:
    assert run.code == 1, run
    outcome = run.outcome
    found = (outcome["verdict"], outcome["seq"], outcome["step"], outcome["reason"])
    assert found == ("not sound", seq, step, reason), outcome
    assert detail in outcome["detail"]


UNTRUSTED = "signed by somebody you did not name"
WRONG_SIGNER = "signed by a key that does not sign here"


def assert_outcome(run: Run, code: int, verdict: str, detail: str = "") -> None:
    assert run.code == code, run
    assert run.outcome["verdict"] == verdict
    assert detail in run.outcome["detail"]


def assert_unnamed(run: Run, detail: str = "") -> None:
    assert_outcome(run, 3, "signed by a key that you did not name", detail)


def assert_incomplete(run: Run, detail: str = "") -> None:
    assert_outcome(run, 4, "incomplete", detail)


def assert_truncated(run: Run, detail: str = "") -> None:
    assert_outcome(run, 5, "truncated", detail)


def assert_another_history(run: Run, seq: int) -> None:
    assert_outcome(run, 6, "another history", "that was kept of size")
    assert (run.outcome["seq"], run.outcome["step"]) == (seq, "kept end")


def assert_could_not_check(run: Run, detail: str = "") -> None:
    assert run.code == 2, run
    assert run.outcome["verdict"] == "could not check"
    assert detail in run.outcome["detail"]


def assert_fault(fault: vl.verdict.NotSound | None, seq: int, step: str, reason: str) -> None:
    assert fault is not None
    assert (fault.seq, fault.step, fault.reason) == (seq, step, reason), fault


def fault_of(
    entries: Iterable[bytes], tenant: str = TENANT, keys: Iterable[bytes] = (PUBLIC,)
) -> vl.verdict.NotSound | None:
    """Section 7 without an export and without a known end."""
    verifier = vl.stream.Walk(tenant, vl.keys.Trust(keys))
    try:
        for entry in entries:
            verifier.accept(entry, verifier.check(entry))
    except vl.verdict.NotSound as fault:
        return fault
    return None


# ---------------------------------------------------------------------------------------------
# The vectors are what the document says
# ---------------------------------------------------------------------------------------------


def test_the_document_has_all_vectors() -> None:
    assert COUNT == 12
    assert len(ROOTS) == COUNT + 1
    assert [f"entry_{n:02}" in VECTORS for n in range(COUNT)] == [True] * COUNT
    assert [f"root_{n:02}" in VECTORS for n in range(COUNT + 1)] == [True] * (COUNT + 1)


def test_keys() -> None:
    assert VECTORS["public_key"] == PUBLIC
    assert VECTORS["key_id"] == vl.primitives.key_id(PUBLIC)


def test_details_digest() -> None:
    salted = VECTORS["details_salt"] + VECTORS["details_utf8"]
    digest = blake3(salted, derive_key_context="haldir ledger v1 details digest").digest()
    assert digest == VECTORS["details_digest"]
    assert event_of(ENTRIES[5])["details_digest"] == digest
    assert json.loads(VECTORS["details_utf8"]) == {"to": "ops@example.com"}


def test_there_is_a_vector_for_every_kind() -> None:
    headers = [open_entry(entry)[0] for name, entry in VECTORS.items() if "entry_" in name]
    assert {(header.kind, header.schema_version) for header in headers} == set(vl.entry.KINDS)


START = 1_700_000_000_000_000
KEY = "hld_AAAAAAAA"
SESSION = "ses_" + base64.b64encode(bytes([7] * 24)).decode()
IDEMPOTENCY = {"key_digest": b"\x22" * 32, "fingerprint": b"\x33" * 32}

EXPECTED_EVENTS: list[tuple[str, str, dict[str, Any]]] = [
    (
        "key.minted",
        "first-caller",
        {"prefix": KEY, "hash": b"\x11" * 32, "name": "first", "scopes": ["*"]},
    ),
    (
        "session.opened",
        f"key:{KEY}",
        {
            "idempotency": IDEMPOTENCY,
            "session_id": SESSION,
            "agent_id": "agent-1",
            "scopes": ["read", "spend"],
            "cap": 100_000_000_000,
            "ttl": 1800,
            "expires_at": START + 1 + 1_800_000_000,
            "agent_limit": None,
        },
    ),
    (
        "permission.checked",
        f"key:{KEY}",
        {"session_id": SESSION, "scope": "delete", "verdict": 4},
    ),
    (
        "payment.authorized",
        f"key:{KEY}",
        {
            "idempotency": IDEMPOTENCY,
            "authorization_id": "auth_AQEBAQEBAQEBAQEBAQEBAQ",
            "session_id": SESSION,
            "agent_id": "agent-1",
            "amount": 29_990_000_000,
            "currency": "USD",
            "description": "API crédits",
            "remaining": 70_010_000_000,
        },
    ),
    (
        "payment.denied",
        f"key:{KEY}",
        {
            "authorization_id": "auth_AgICAgICAgICAgICAgICAg",
            "session_id": SESSION,
            "agent_id": "agent-1",
            "amount": 70_020_000_000,
            "currency": "USD",
            "description": "",
            "remaining": 70_010_000_000,
            "reason": 3,
        },
    ),
    (
        "action.logged",
        f"key:{KEY}",
        {
            "entry_id": "aud_AwMDAwMDAwMDAwMDAwMDAw",
            "session_id": SESSION,
            "agent_id": "agent-1",
            "action": "send",
            "tool": "email",
            "cost": 2_000_000,
            "details_digest": VECTORS["details_digest"],
            "flag": None,
        },
    ),
    ("session.revoked", f"key:{KEY}", {"session_id": SESSION}),
    (
        "action.rejected",
        f"key:{KEY}",
        {"session_id": SESSION, "action": "send", "tool": "", "reason": 0},
    ),
    (
        "session.denied",
        f"key:{KEY}",
        {"agent_id": "agent-1", "agent_limit": 1, "agents_live": 1},
    ),
    (
        "access.denied",
        f"key:{KEY}",
        {"required": "audit:write", "operation": "POST /v1/audit"},
    ),
    (
        "usage.metered",
        "system",
        {
            "year": 2023,
            "month": 11,
            "keys": [{"prefix": KEY, "calls": 9, "last": START + 9_000_000}],
        },
    ),
    ("key.revoked", f"key:{KEY}", {"prefix": KEY}),
]


@pytest.mark.parametrize("seq", range(COUNT))
def test_entry_decodes_to_the_fields_expected(seq: int) -> None:
    kind, actor, event = EXPECTED_EVENTS[seq]
    parts = vl.entry.split_entry(ENTRIES[seq])
    header = parts.header
    vl.entry.check_header(header)
    assert (header.seq, header.time, header.rules_revision) == (seq, START + seq, 1)
    assert header.tenant == padded(TENANT.encode())
    assert header.actor == padded(actor.encode())
    assert header.request_id == padded(f"request-{seq}".encode(), 64)
    assert vl.entry.kind_of(header).name == kind
    assert vl.entry.read_event(vl.entry.kind_of(header), parts.payload) == {"idempotency": None} | event
    assert parts.key_id == VECTORS["key_id"]


def test_rules_and_what_they_found_are_read() -> None:
    kinds = [vl.entry.kind_of(open_entry(entry)[0]).name for entry in ANOMALIES]
    assert kinds[2:10] == ["anomaly_rule.added"] * 8
    assert event_of(ANOMALIES[6]) == {
        "idempotency": None,
        "rule_id": 5,
        "rule_type": 4,
        "threshold": 3_500_000_000,
        "tools": [],
        "look_back": 0,
        "min_samples": 10,
        "reason": None,
    }
    found = [event_of(entry) for entry, kind in zip(ANOMALIES, kinds, strict=True) if kind == "anomaly.detected"]
    assert [(it["rule_id"], it["reason"]) for it in found] == [(1, "spend_per_action exceeded 10.0"), (3, "no shells")]
    assert event_of(ANOMALIES[10])["flag"] == found[0]["reason"]
    assert all(it["subject"] == 10 and it["evidence"] == [10] for it in found)
    for entry in ANOMALIES:
        header, payload = open_entry(entry)
        assert encode_event(vl.entry.kind_of(header), event_of(entry)) == payload


@pytest.mark.parametrize(
    ("seq", "changes"),
    [
        (2, {"tools": ["x"]}),
        (2, {"look_back": 1}),
        (2, {"min_samples": 1}),
        (3, {"look_back": 60}),
        (3, {"threshold": 2**64}),
        (4, {"threshold": 1}),
        (6, {"threshold": 2**64}),
        (6, {"look_back": 1}),
        (7, {"threshold": 1}),
        (9, {"min_samples": 1}),
        (9, {"rule_type": 8}),
        (11, {"rule_type": 8}),
        (11, {"agent_id": "a" * 129}),
        (11, {"session_id": "s" * 129}),
    ],
)
def test_a_rule_has_the_parameters_of_its_type(seq: int, changes: dict[str, Any]) -> None:
    header, payload = with_event(**changes)(*open_entry(ANOMALIES[seq]))
    with pytest.raises(vl.verdict.Malformed):
        vl.entry.read_event(vl.entry.kind_of(header), payload)


def padded(value: bytes, length: int = 24) -> bytes:
    return value.ljust(length, b"\x00")


@pytest.mark.parametrize("seq", range(COUNT))
def test_entry_encodes_to_the_same_bytes(seq: int) -> None:
    header, payload = open_entry(ENTRIES[seq])
    assert encode_event(vl.entry.kind_of(header), event_of(ENTRIES[seq])) == payload
    assert seal(header, payload) == ENTRIES[seq]


def test_linking_the_events_again_gives_the_same_stream() -> None:
    assert relink(ENTRIES) == ENTRIES


@pytest.mark.parametrize("size", range(COUNT + 1))
def test_root(size: int) -> None:
    assert tree_of(ENTRIES[:size]).root() == ROOTS[size]
    assert root_by_definition(ENTRIES[:size]) == ROOTS[size]


def root_by_definition(entries: list[bytes]) -> bytes:
    """Section 6 as it is written."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return vl.primitives.leaf_hash(entries[0])
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return vl.primitives.node_hash(root_by_definition(entries[:k]), root_by_definition(entries[k:]))


def test_tree_grows_as_defined() -> None:
    leaves = [n.to_bytes(2, "little") for n in range(300)]
    tree = vl.tree.Tree()
    for n, leaf in enumerate(leaves):
        assert tree.root() == root_by_definition(leaves[:n])
        assert len(tree.subtrees) == n.bit_count()
        tree.add(vl.primitives.leaf_hash(leaf))


@pytest.mark.parametrize("size", range(COUNT + 1))
def test_every_beginning_of_the_stream_is_sound(cli: Cli, size: int) -> None:
    run = cli.json(export(ENTRIES[:size]))
    assert_sound(run)
    head = hash_of(ENTRIES[size - 1]) if size else vl.entry.NO_HASH
    found = (run.outcome["size"], run.outcome["head"], run.outcome["root"])
    assert found == (size, head.hex(), ROOTS[size].hex())


# --- the tables of section 4.3 ---


def tables_in(text: str) -> list[tuple[str | None, str, list[vl.entry.Field]]]:
    """The tables of a part of section 4: the number, which records do not have, the name and the fields."""
    parts = re.split(r"^\*\*(?:(\d+) )?`([a-z._]+)`\*\*", text, flags=re.MULTILINE)[1:]
    tables = []
    for number, name, table in zip(parts[::3], parts[1::3], parts[2::3]):
        rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|", table, re.MULTILINE)
        fields = [vl.entry.Field(row[0], row[1].replace(" ", "_")) for row in rows if row[0] != "Type"]
        tables.append((number, name, fields))
    return tables


def kinds_in(text: str) -> dict[int, tuple[str, list[vl.entry.Field]]]:
    """The kinds of a part of section 4, by their numbers."""
    return {int(number): (name, fields) for number, name, fields in tables_in(text) if number}


def test_the_kinds_are_those_of_the_document() -> None:
    first_version, second_version = section(4).split("### 4.4 Kinds, schema version 2")
    first = kinds_in(first_version)
    documented = {(number, 1): vl.entry.Kind(name, fields) for number, (name, fields) in first.items()}
    for number, (name, fields) in kinds_in(second_version).items():
        assert name == first[number][0]
        documented[number, 2] = vl.entry.Kind(name, [*first[number][1], *fields], 2)
    assert vl.entry.KINDS == documented
    records = {name: fields for number, name, fields in tables_in(first_version) if number is None}
    assert records.keys() == {"policy", "facts"}
    assert records.items() <= vl.entry.RECORDS.items()


# ---------------------------------------------------------------------------------------------
# A sound export
# ---------------------------------------------------------------------------------------------


def test_sound_export(cli: Cli) -> None:
    run = cli(export(ENTRIES))
    assert run.code == 0
    assert run.out.splitlines()[:6] == [
        "sound",
        f"tenant {TENANT}",
        "from   0",
        f"size   {COUNT}",
        f"head   {HEAD.hex()}",
        f"root   {ROOTS[-1].hex()}",
    ]


def test_sound_export_as_json(cli: Cli) -> None:
    run = cli.json(export(ENTRIES))
    assert_sound(run)
    outcome = run.outcome
    assert (outcome["tenant"], outcome["size"]) == (TENANT, COUNT)
    assert (outcome["head"], outcome["root"]) == (HEAD.hex(), ROOTS[-1].hex())


def test_sound_export_in_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "export.jsonl"
    path.write_bytes(export(ENTRIES))
    run = in_own_process(str(path), "--key", PUBLIC.hex())
    assert (run.code, run.out.splitlines()[0], run.err) == (0, "sound", "")


def test_export_from_standard_input() -> None:
    run = in_own_process("-", "--key", PUBLIC.hex(), stdin=export(ENTRIES))
    assert (run.code, run.out.splitlines()[0]) == (0, "sound")
    run = in_own_process("-", "--key", PUBLIC.hex(), stdin=export(ENTRIES[:3] + ENTRIES[4:]))
    assert run.code == 1
    assert run.out.startswith("not sound at seq 3: out of place (step 6: its seq is 4)\n")


def test_failure_in_words(cli: Cli) -> None:
    altered = replaced(ENTRIES, 4, flipped(ENTRIES[4], 8 * 200))
    run = cli(export(altered))
    assert run.code == 1
    assert run.out.splitlines()[:6] == [
        "not sound at seq 4: altered (step 3: its hash is not that of its bytes)",
        f"tenant {TENANT}",
        "from   0",
        "size   4",
        f"head   {hash_of(ENTRIES[3]).hex()}",
        f"root   {ROOTS[4].hex()}",
    ]


def test_empty_stream(cli: Cli) -> None:
    assert_sound(cli.json(export([])))
    assert_sound(cli.json(export([]), "--size", "0", "--head", "00" * 32))
    assert_not_sound(cli.json(export([]), "--size", "1"), 0, "end", "truncated")


def test_key_from_a_pem_file(cli: Cli, tmp_path: Path) -> None:
    pem = tmp_path / "key.pem"
    pem.write_bytes(public_pem(SIGNER.public_key()))
    assert_sound(cli.json(export(ENTRIES), key=str(pem)))


def public_pem(key: Any) -> bytes:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_one_of_several_keys_is_enough(cli: Cli) -> None:
    assert_sound(cli.json(export(ENTRIES), "--key", STRANGERS_PUBLIC.hex()))
    assert_sound(cli.json(export(ENTRIES), "--key", PUBLIC.hex().upper()))


def test_a_stream_may_not_change_its_key_on_its_own(cli: Cli) -> None:
    """Both keys are trusted, but no entry hands the stream from one to the other."""
    entries = [*ENTRIES[:-1], seal(*open_entry(ENTRIES[-1]), signer=STRANGER)]
    run = cli.json(export(entries), "--key", STRANGERS_PUBLIC.hex())
    assert_not_sound(run, 11, "step 9", WRONG_SIGNER)


def test_end_and_tenant_known_from_elsewhere(cli: Cli) -> None:
    run = cli.json(export(ENTRIES), "--tenant", TENANT, "--size", str(COUNT), "--head", HEAD.hex())
    assert_sound(run)
    (decisions,) = run.outcome["notes"]
    assert "decisions were not derived again" in decisions


def test_an_end_that_is_not_signed_is_incomplete(cli: Cli) -> None:
    for entries in (ENTRIES, ENTRIES[:1], []):
        data = as_text(unsigned(export_lines(entries)))
        assert_incomplete(cli.json(data), "the end is not signed")
        assert_incomplete(cli.json(data, "--size", str(len(entries))), "the end is not signed")
        run = cli.json(data, "--size", "20")
        assert_not_sound(run, len(entries), "end", "truncated", "there should be 20 entries")
    assert_unnamed(cli.json(as_text(unsigned(export_lines(ENTRIES))), key=STRANGERS_PUBLIC.hex()))


def test_notes_say_what_the_verdict_rests_on(cli: Cli) -> None:
    run = cli.json(export(ENTRIES))
    _, tenant, end = run.outcome["notes"]
    assert "--tenant" in tenant
    assert "newest entries may be missing" in end
    assert "note: only the export itself says" in cli(export(ENTRIES)).out


def test_the_tenant_known_from_elsewhere_counts_more_than_that_of_the_export(cli: Cli) -> None:
    run = cli.json(as_text(export_lines(ENTRIES, tenant="somebody_else")), "--tenant", TENANT)
    assert_not_sound(run, 0, "export", "foreign", "somebody_else")


@pytest.mark.parametrize(
    "keys",
    [
        [],
        ["x", {}],
        header_line(key=STRANGERS_PUBLIC)["public_keys"],
        [{"key_id": "00" * 8, "public_key": PUBLIC.hex()}],
    ],
)
def test_public_keys_of_the_export_are_not_checked(cli: Cli, keys: Any) -> None:
    lines = export_lines(ENTRIES)
    lines[0]["public_keys"] = keys
    assert_sound(cli.json(as_text(lines)))


@pytest.mark.parametrize("keys", [None, {}, "x"])
def test_header_without_a_list_of_public_keys(cli: Cli, keys: Any) -> None:
    lines = export_lines(ENTRIES)
    lines[0]["public_keys"] = keys
    assert_could_not_check(cli.json(as_text(lines)), "no list public_keys")


@pytest.mark.parametrize(
    "more",
    [
        b'"x":{"y":[1.5,null,true,"\\ud800",-3]}',
        b'"x":' + b"9" * 10_000,
        b'"x":[-0,1e999999999,18446744073709551616]',
        b'"x":[{"y":1,"y":1}]',
        b'"":"\xc3\xa9"',
    ],
)
def test_unknown_keys_are_ignored(cli: Cli, more: bytes) -> None:
    assert_sound(cli.json(export(ENTRIES).replace(b"}\n", b"," + more + b"}\n")))


def test_spaces_and_order_of_keys_do_not_matter(cli: Cli) -> None:
    lines = [dict(reversed(line.items())) for line in export_lines(ENTRIES)]
    text = b"".join(json.dumps(line).encode() + b" \r\n" for line in lines)
    assert_sound(cli.json(text))


def test_last_newline_does_not_matter(cli: Cli) -> None:
    """Without it, the last line can still be read."""
    assert_sound(cli.json(export(ENTRIES).removesuffix(b"\n")))


def test_longest_line(cli: Cli) -> None:
    for seq in range(-1, COUNT + 1):
        lines = export(ENTRIES).splitlines(keepends=True)
        lines[seq + 1] = filled_to(524_288, lines[seq + 1])
        assert_sound(cli.json(b"".join(lines)))


def filled_to(length: int, line: bytes) -> bytes:
    """A line with spaces before its newline, up to this length."""
    return line[:-1].ljust(length - 1) + b"\n"


def test_longest_entry_is_sound(cli: Cli) -> None:
    entries = edited(5, fill_entry_to(vl.entry.LONGEST_ENTRY))
    assert len(entries[5]) == 65_535
    assert_sound(cli.json(export(entries)))


def fill_entry_to(length: int) -> Edit:
    """A longer `action` in an action.logged, for an entry of that many bytes."""

    def edit(header: vl.entry.Header, payload: bytes) -> Draft:
        more = length - vl.entry.SHORTEST_ENTRY - len(payload)
        action = vl.entry.read_event(vl.entry.kind_of(header), payload)["action"]
        return with_event(action=action + "x" * more)(header, payload)

    return edit


def test_amounts_may_be_as_large_as_their_type(cli: Cli) -> None:
    assert_sound(cli.json(export(edited(3, with_event(amount=2**128 - 1, remaining=None)))))


def test_memory_does_not_grow(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    write_long_export(path, 2000)
    assert path.stat().st_size > 1_500_000
    with path.open("rb") as source:
        tracemalloc.start()
        verdict = vl.export.verify_export(source, vl.keys.Trust([PUBLIC]))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert verdict.outcome is vl.verdict.Outcome.SOUND
    assert verdict.facts["size"] == 2000
    assert peak < 200_000


def write_long_export(path: Path, size: int) -> None:
    header, payload = open_entry(ENTRIES[3])
    entries: list[bytes] = []
    for seq in range(size):
        previous = hash_of(entries[-1]) if entries else vl.entry.NO_HASH
        changes = {"seq": seq, "time": START + seq, "previous_hash": previous}
        entries.append(seal(header._replace(**changes), payload))
    path.write_bytes(export(entries))


# ---------------------------------------------------------------------------------------------
# Flipped bits
# ---------------------------------------------------------------------------------------------


def fault_of_flip(seq: int, entry: bytes, byte: int) -> tuple[str, str]:
    """Which step finds a wrong bit in this byte of an entry."""
    end = len(entry)
    if byte < 6:
        return "step 1", "malformed"
    if 176 <= byte < 180:
        return "step 2", "malformed"
    if byte < end - 72:
        return "step 3", "altered"
    if byte < end - 64:
        return "step 9", WRONG_SIGNER if seq else UNTRUSTED
    return "step 10", "forged"


@pytest.mark.parametrize("seq", [0, 11])
def test_every_bit_of_an_entry_counts(seq: int) -> None:
    entry = ENTRIES[seq]
    for bit in range(8 * len(entry)):
        fault = fault_of(replaced(ENTRIES, seq, flipped(entry, bit)))
        assert_fault(fault, seq, *fault_of_flip(seq, entry, bit // 8))


@pytest.mark.parametrize("seq", range(COUNT))
def test_bits_of_all_entries_count_in_an_export(cli: Cli, seq: int) -> None:
    entry = ENTRIES[seq]
    chance = random.Random(seq)
    for bit in chance.sample(range(8 * len(entry)), 40):
        lines = export_lines(ENTRIES)
        entry_number(lines, seq)["entry"] = base64.b64encode(flipped(entry, bit)).decode()
        run = cli.json(as_text(lines))
        assert_not_sound(run, seq, *fault_of_flip(seq, entry, bit // 8))


# ---------------------------------------------------------------------------------------------
# Entries that are missing, moved or of another stream
# ---------------------------------------------------------------------------------------------


def test_missing_end_line_is_incomplete(cli: Cli) -> None:
    for count in range(COUNT + 1):
        run = cli.json(as_text(export_lines(ENTRIES)[: 1 + count]))
        assert_incomplete(run, f"after {count} entries that are sound")
        assert run.outcome["size"] == count


def test_every_beginning_of_an_export_is_incomplete(cli: Cli) -> None:
    data = export(ENTRIES)
    header = data.index(b"\n")
    for length in [*range(0, len(data) - 1, 41), len(data) - 2]:
        run = cli.json(data[:length])
        assert_could_not_check(run) if length < header else assert_incomplete(run)


def test_a_fault_counts_more_than_a_missing_end(cli: Cli) -> None:
    lines = export_lines(replaced(ENTRIES, 2, flipped(ENTRIES[2], 8 * 60)))[:6]
    assert_not_sound(cli.json(as_text(lines)), 2, "step 3", "altered")


@pytest.mark.parametrize("kept", range(COUNT))
def test_truncation_before_the_end_line(cli: Cli, kept: int) -> None:
    lines = export_lines(ENTRIES)
    run = cli.json(as_text([*lines[: 1 + kept], lines[-1]]))
    assert_not_sound(run, kept, "last line", "truncated", "there should be 12 entries")


def test_truncation_with_an_end_line_to_match(cli: Cli) -> None:
    """A checkpoint of that size was once true: only who knows a later end finds this."""
    shorter = export(ENTRIES[:9])
    assert_sound(cli.json(shorter))
    run = cli.json(shorter, "--size", str(COUNT), "--head", HEAD.hex())
    assert_not_sound(run, 9, "end", "truncated")
    assert_not_sound(
        cli.json(shorter, "--head", HEAD.hex()), 9, "end", "does not end where it should"
    )


def test_more_entries_than_there_should_be(cli: Cli) -> None:
    run = cli.json(export(ENTRIES), "--size", "9", "--head", hash_of(ENTRIES[8]).hex())
    assert_not_sound(run, COUNT, "end", "does not end where it should", "only 9 entries")
    run = cli.json(export(ENTRIES), "--size", "9")
    assert_not_sound(run, COUNT, "end", "does not end where it should")


def test_another_history_with_the_same_key(cli: Cli) -> None:
    other = edited(3, with_event(description="something else"))
    assert_sound(cli.json(export(other)))
    run = cli.json(export(other), "--size", str(COUNT), "--head", HEAD.hex())
    assert_not_sound(run, COUNT, "end", "does not end where it should", "the head should be")


def kept(size: int, head: bytes) -> tuple[str, ...]:
    return ("--kept-size", str(size), "--kept-head", head.hex())


@pytest.mark.parametrize("size", range(1, COUNT + 1))
def test_older_end_that_was_kept(cli: Cli, size: int) -> None:
    head = hash_of(ENTRIES[size - 1])
    assert_sound(cli.json(export(ENTRIES), *kept(size, head)))

    other = edited(0, with_event(name="something else"))
    assert_sound(cli.json(export(other)))
    run = cli.json(export(other), *kept(size, head))
    assert_another_history(run, size - 1)


def test_stream_that_is_shorter_than_it_once_was(cli: Cli) -> None:
    shorter = export(ENTRIES[:7])
    run = cli.json(shorter, *kept(8, hash_of(ENTRIES[7])))
    assert_truncated(run, "there once were 8 entries")
    assert_truncated(cli.json(export([]), *kept(1, bytes(32))))
    assert_sound(cli.json(shorter, *kept(7, hash_of(ENTRIES[6]))))


def test_an_incomplete_export_may_still_be_another_history(cli: Cli) -> None:
    cut = export_lines(ENTRIES)[:6]
    lines = as_text(cut)
    assert_incomplete(cli.json(lines, *kept(3, hash_of(ENTRIES[2]))))
    assert_truncated(cli.json(lines, *kept(9, hash_of(ENTRIES[8]))), "there once were 9 entries")
    assert_another_history(cli.json(lines, *kept(3, hash_of(ENTRIES[3]))), 2)
    # A header that says how far the stream went admits that there was more.
    admits = as_text([cut[0] | {"stream_size": 9}, *cut[1:]])
    assert_incomplete(cli.json(admits, *kept(9, hash_of(ENTRIES[8]))))
    assert_truncated(cli.json(admits, *kept(10, hash_of(ENTRIES[9]))), "there once were 10 entries")


def test_a_fault_counts_more_than_another_history(cli: Cli) -> None:
    other = kept(3, hash_of(ENTRIES[3]))
    run = cli.json(export(replaced(ENTRIES, 8, flipped(ENTRIES[8], 8 * 60))), *other)
    assert_not_sound(run, 8, "step 3", "altered")
    lines = export_lines(ENTRIES)
    lines[-1]["root"] = "00" * 32
    run = cli.json(as_text(lines), *other)
    assert_not_sound(run, COUNT, "last line", "does not end where it should")


def swap(entries: list[bytes]) -> list[bytes]:
    return [*entries[:3], entries[4], entries[3], *entries[5:]]


def duplicate(entries: list[bytes]) -> list[bytes]:
    return [*entries[:4], entries[3], *entries[4:]]


def drop(entries: list[bytes]) -> list[bytes]:
    return [*entries[:5], *entries[6:]]


def drop_first(entries: list[bytes]) -> list[bytes]:
    return entries[1:]


def splice(entries: list[bytes]) -> list[bytes]:
    other = edited(2, with_event(scope="something else"))
    return [*entries[:6], *other[6:]]


def append_first_again(entries: list[bytes]) -> list[bytes]:
    return [*entries, entries[0]]


@pytest.mark.parametrize(
    ("attack", "seq", "step", "reason"),
    [
        (swap, 3, "step 6", "out of place"),
        (duplicate, 4, "step 6", "out of place"),
        (drop, 5, "step 6", "out of place"),
        (drop_first, 0, "step 6", "out of place"),
        (splice, 6, "step 7", "broken link"),
        (append_first_again, 12, "step 6", "out of place"),
    ],
)
def test_rearranged_stream(
    cli: Cli, attack: Callable[[list[bytes]], list[bytes]], seq: int, step: str, reason: str
) -> None:
    attacked = attack(ENTRIES)
    assert_not_sound(cli.json(export(attacked)), seq, step, reason)
    assert_fault(fault_of(attacked), seq, step, reason)


def test_labels_do_not_help_a_dropped_entry(cli: Cli) -> None:
    lines = export_lines(drop(ENTRIES))
    assert entry_number(lines, 5)["seq"] == 5
    assert_not_sound(cli.json(as_text(lines)), 5, "step 6", "out of place", "its seq is 6")


# ---------------------------------------------------------------------------------------------
# Step by step: entries that are wrong in one way only
# ---------------------------------------------------------------------------------------------


def test_too_short_entry(cli: Cli) -> None:
    for length in (0, 1, 179, 180, 283):
        run = cli.json(export(replaced(ENTRIES, 1, ENTRIES[1][:length])))
        assert_not_sound(run, 1, "step 1", "malformed", f"it has {length} bytes")


def test_too_long_entry(cli: Cli) -> None:
    entries = edited(5, fill_entry_to(vl.entry.LONGEST_ENTRY + 1))
    assert_not_sound(cli.json(export(entries)), 5, "step 1", "malformed", "it has 65536 bytes")


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"magic": b"HLDX"}, "magic"),
        ({"format_version": 2}, "format version is 2"),
        ({"format_version": 0}, "format version is 0"),
        ({"format_version": 256}, "format version is 256"),
    ],
)
def test_not_an_entry_of_this_format(cli: Cli, change: dict[str, Any], detail: str) -> None:
    entries = edited(7, with_header(**change))
    assert_not_sound(cli.json(export(entries)), 7, "step 1", "malformed", detail)


def test_bytes_after_an_entry(cli: Cli) -> None:
    run = cli.json(export(replaced(ENTRIES, 2, ENTRIES[2] + b"\x00")))
    assert_not_sound(run, 2, "step 2", "malformed")


def test_payload_length_beyond_the_entry(cli: Cli) -> None:
    for length in (0, 84, 86, 65_251, 2**32 - 1):
        entry = ENTRIES[0][:176] + length.to_bytes(4, "little") + ENTRIES[0][180:]
        run = cli.json(export(replaced(ENTRIES, 0, entry)))
        assert_not_sound(run, 0, "step 2", "malformed")


MALFORMED_HEADERS: list[tuple[dict[str, Any], str]] = [
    ({"reserved": 1}, "reserved"),
    ({"time": 253_370_764_800_000_000}, "time is after the year 9998"),
    ({"time": 2**64 - 1}, "time is after the year 9998"),
    ({"kind": 0}, "kind 0 with schema version 1 is not known"),
    ({"kind": 4}, "kind 4 with schema version 1 is not known"),
    ({"kind": 0x0100}, "kind 256 with schema version 1 is not known"),
    ({"schema_version": 0}, "kind 3 with schema version 0 is not known"),
    ({"schema_version": 2}, "kind 3 with schema version 2 is not known"),
    ({"tenant": padded(b"")}, "tenant is not one"),
    ({"tenant": padded(b"9e88 bd6")}, "tenant is not one"),
    ({"tenant": padded(b"9E881BD609994B5E")}, "tenant is not one"),
    ({"tenant": padded(TENANT.encode() + b"\n")}, "tenant is not one"),
    ({"tenant": padded("9e881bd609994b5é".encode())}, "tenant is not one"),
    ({"tenant": padded(TENANT.encode() + b"\x00x")}, "tenant is not one"),
    ({"tenant": b"\x00" + TENANT.encode() + b"\x00" * 7}, "tenant is not one"),
    ({"tenant": TENANT.encode() + b"\x00" * 7 + b"x"}, "tenant is not one"),
    ({"actor": padded(b"")}, "actor is not one"),
    ({"actor": padded(b"root")}, "actor is not one"),
    ({"actor": padded(b"systems")}, "actor is not one"),
    ({"actor": padded(b"key:hld_AAAAAAA")}, "actor is not one"),
    ({"actor": padded(b"key:hld_AAAAAAAAA")}, "actor is not one"),
    ({"actor": padded(b"key:hld_AAAA AAA")}, "actor is not one"),
    ({"actor": padded(b"key:hld_AAAA\x00AAA")}, "actor is not one"),
    ({"actor": padded(b"key:hld_AAAA\xffAAA")}, "actor is not one"),
    ({"actor": padded(b"system\x00system")}, "actor is not one"),
    ({"request_id": padded(b"", 64)}, "request_id is not one"),
    ({"request_id": padded(b"a b", 64)}, "request_id is not one"),
    ({"request_id": padded(b"a\x7f", 64)}, "request_id is not one"),
    ({"request_id": b"a" * 62 + b"\x00b"}, "request_id is not one"),
]


@pytest.mark.parametrize(("change", "detail"), MALFORMED_HEADERS)
def test_malformed_header(cli: Cli, change: dict[str, Any], detail: str) -> None:
    entries = edited(9, with_header(**change))
    assert_not_sound(cli.json(export(entries)), 9, "step 4", "malformed", detail)


@pytest.mark.parametrize(
    "change",
    [
        {"rules_revision": 0},
        {"rules_revision": 2**32 - 1},
        {"actor": padded(b"operator")},
        {"actor": padded(b"bootstrap")},
        {"actor": padded(b"key:!~!~!~!~!~!~")},
        {"request_id": b"~" * 64},
        {"request_id": padded(b"!", 64)},
    ],
)
def test_other_headers_that_are_allowed(cli: Cli, change: dict[str, Any]) -> None:
    assert_sound(cli.json(export(edited(9, with_header(**change)))))


def test_longest_tenant() -> None:
    tenant = "a_" * 12
    entries = relink(
        seal(*with_header(tenant=tenant.encode())(*open_entry(entry))) for entry in ENTRIES
    )
    assert fault_of(entries, tenant) is None


def at(position: int, new: bytes) -> Callable[[bytes], bytes]:
    """Overwrites bytes of a payload."""
    return lambda payload: payload[:position] + new + payload[position + len(new) :]


def instead_of(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """Replaces bytes that a payload has exactly once."""

    def change(payload: bytes) -> bytes:
        assert payload.count(old) == 1
        return payload.replace(old, new)

    return change


HUGE = (2**64 - 1).to_bytes(8, "little")

READING = {"prefix": KEY, "calls": 1, "last": 0}

MALFORMED_PAYLOADS: dict[str, tuple[int, Edit, str]] = {
    "option byte 2, first field": (0, with_payload(at(0, b"\x02")), "optional value"),
    "option byte 255": (6, with_payload(at(0, b"\xff")), "optional value"),
    "option byte 2, last field": (
        3,
        with_payload(lambda payload: payload[:-17] + b"\x02" + payload[-16:]),
        "optional value",
    ),
    "one byte after the last field": (
        6,
        with_payload(lambda payload: payload + b"\x00"),
        "goes on after",
    ),
    "an item after the last field": (
        0,
        with_payload(lambda payload: payload + text(b"admin:read")),
        "goes on after",
    ),
    "one byte too few": (6, with_payload(lambda payload: payload[:-1]), "ends too early"),
    "no payload": (6, with_payload(lambda _: b""), "ends too early"),
    "value of an option missing": (6, with_payload(lambda _: b"\x01"), "ends too early"),
    "bad UTF-8": (11, with_payload(instead_of(b"hld_", b"hl\xff_")), "not UTF-8"),
    "half a character": (3, with_payload(instead_of("é".encode(), b"\xc3d")), "not UTF-8"),
    "overlong UTF-8": (11, with_payload(instead_of(b"hld_", b"hl\xc1\x9f")), "not UTF-8"),
    "surrogate in UTF-8": (11, with_payload(instead_of(b"hld_", b"\xed\xa0\x80_")), "not UTF-8"),
    "beyond Unicode": (11, with_payload(instead_of(b"hld_", b"\xf4\x90\x80\x80")), "not UTF-8"),
    "huge length of a text": (11, with_payload(at(1, HUGE)), "ends too early"),
    "huge number of scopes": (
        0,
        with_payload(instead_of(b"\x01" + bytes(7) + text(b"*"), HUGE + text(b"*"))),
        "ends too early",
    ),
    "huge number of readings": (10, with_payload(at(4, HUGE)), "ends too early"),
    "scopes unsorted": (0, with_event(scopes=["vault:read", "audit:read"]), "scopes in"),
    "scopes sorted but for the star": (0, with_event(scopes=["audit:read", "*"]), "scopes in"),
    "scope twice": (0, with_event(scopes=["audit:read", "audit:read"]), "scopes in"),
    "no scope": (0, with_event(scopes=[]), "scopes in"),
    "scope of an unknown resource": (0, with_event(scopes=["keys:read"]), "scopes in"),
    "scope of an unknown action": (0, with_event(scopes=["audit:rotate"]), "scopes in"),
    "scope with a newline": (0, with_event(scopes=["audit:read\n"]), "scopes in"),
    "empty scope": (0, with_event(scopes=[""]), "scopes in"),
    "prefix too short": (0, with_event(prefix="hld_AAAAAAA"), "prefix in"),
    "prefix too long": (0, with_event(prefix="hld_AAAAAAAAA"), "prefix in"),
    "prefix with a space": (0, with_event(prefix="hld_AAAA AAA"), "prefix in"),
    "prefix beyond ASCII": (0, with_event(prefix="hld_AAAAAAAé"), "prefix in"),
    "65 scopes": (0, with_event(scopes=["*"] * 65), "scopes in"),
    "prefix of a revoked key": (11, with_event(prefix="hld_"), "prefix in"),
    "prefix of a reading": (10, with_event(keys=[READING, READING | {"prefix": ""}]), "prefix in"),
    "unknown verdict": (2, with_event(verdict=5), "verdict in its payload"),
    "unknown reason of a denial": (4, with_event(reason=4), "reason in its payload"),
    "unknown reason of a rejection": (7, with_event(reason=2), "reason in its payload"),
    "year too early": (10, with_event(year=1969), "year in its payload"),
    "year too late": (10, with_event(year=10_000), "year in its payload"),
    "month 0": (10, with_event(month=0), "month in its payload"),
    "month 13": (10, with_event(month=13), "month in its payload"),
    "payload of another kind": (6, with_header(kind=19), "ends too early"),
}


@pytest.mark.parametrize("name", MALFORMED_PAYLOADS)
def test_malformed_payload(cli: Cli, name: str) -> None:
    seq, edit, detail = MALFORMED_PAYLOADS[name]
    run = cli.json(export(edited(seq, edit)))
    assert_not_sound(run, seq, "step 4", "malformed", detail)


EVERY_SCOPE = sorted(
    ["*", "vault:rotate"]
    + [
        f"{resource}:{action}"
        for resource in "sessions vault audit payments webhooks proxy approvals admin".split()
        for action in ("read", "write", "*")
    ]
)

LONGEST_TEXTS = {"session_id": 128, "agent_id": 128, "entry_id": 64, "authorization_id": 64}

LIMITED_TEXTS = [
    (seq, name, LONGEST_TEXTS[name])
    for seq, (_, _, event) in enumerate(EXPECTED_EVENTS)
    for name in event
    if name in LONGEST_TEXTS
]


@pytest.mark.parametrize(("seq", "name", "limit"), LIMITED_TEXTS)
def test_texts_with_a_limit(cli: Cli, seq: int, name: str, limit: int) -> None:
    """The limit is in characters, not in bytes, and is the same in every kind."""
    for value in ("x" * limit, "\U0001f600" * limit, ""):
        assert_sound(cli.json(export(edited(seq, with_event(**{name: value})))))
    run = cli.json(export(edited(seq, with_event(**{name: "x" * (limit + 1)}))))
    assert_not_sound(run, seq, "step 4", "malformed", f"{name} in its payload")


def test_all_kinds_with_a_limited_text_were_tested() -> None:
    assert len(LIMITED_TEXTS) == 15
    kinds = [vl.entry.kind_of(open_entry(entry)[0]) for entry in ENTRIES]
    names = [field.name for kind in kinds for field in kind.fields]
    assert len([name for name in names if name in LONGEST_TEXTS]) == 15


def test_the_stream_about_secrets_is_sound(cli: Cli) -> None:
    assert_sound(cli.json(export(VAULT)))


# Every entry of the stream about secrets that names a secret.
NAMING_A_SECRET = [2, 4, 5, 8]


@pytest.mark.parametrize("seq", NAMING_A_SECRET)
def test_names_of_secrets(cli: Cli, seq: int) -> None:
    def with_name(name: str) -> list[bytes]:
        edit = with_event(name=name)
        return relink(seal(*edit(*open_entry(e))) if n == seq else e for n, e in enumerate(VAULT))

    for name in ["a", "a/b", " ", "...", "\U0001f600" * 256]:
        assert_sound(cli.json(export(with_name(name))))
    for name in ["", "/", "a/", "a//b", ".", "a/../b", "a\n", "\x85", "x" * 257]:
        run = cli.json(export(with_name(name)))
        assert_not_sound(run, seq, "step 4", "malformed", "name in its payload")


def test_the_stream_about_the_proxy_is_sound(cli: Cli) -> None:
    assert_sound(cli.json(export(PROXY)))


def proxy_event(name: str, nth: int = 0) -> tuple[int, dict[str, Any]]:
    """Where the nth event of a kind stands in the stream about the proxy, and what it says."""
    kinds = [vl.entry.kind_of(open_entry(entry)[0]).name for entry in PROXY]
    seq = [seq for seq, kind in enumerate(kinds) if kind == name][nth]
    return seq, event_of(PROXY[seq])


def edited_proxy(seq: int, **changes: Any) -> list[bytes]:
    edit = with_event(**changes)
    return relink(seal(*edit(*open_entry(e))) if n == seq else e for n, e in enumerate(PROXY))


# By the type of the policy: what it cannot have.
WRONG_POLICIES: list[tuple[int, dict[str, Any]]] = [
    (0, {"tools": []}),
    (0, {"tools": ["a", "b"]}),
    (0, {"policy_type": 10}),
    (1, {"amount": 0}),
    (2, {"arguments": ["a"]}),
    (3, {"amount": None}),
    (3, {"tools": ["a"]}),
    (4, {"days": 1}),
    (5, {"count": 1}),
    (6, {"count": 256}),
    (6, {"zone": "UTC"}),
    (7, {"arguments": []}),
    (7, {"amount": 1}),
    (8, {"arguments": ["a"]}),
    (9, {"arguments": []}),
    (9, {"arguments": ["a", "b"]}),
    (9, {"amount": 1}),
    (9, {"test": 4}),
    (9, {"test": 0}),
    (10, {"pattern": "a"}),
    (11, {"pattern": "a"}),
    (11, {"start": 1}),
]


@pytest.mark.parametrize(("nth", "change"), WRONG_POLICIES)
def test_parameters_of_policies(cli: Cli, nth: int, change: dict[str, Any]) -> None:
    seq, event = proxy_event("policy.added", nth)
    run = cli.json(export(edited_proxy(seq, policy=event["policy"] | change)))
    assert_not_sound(run, seq, "step 4", "malformed", "policy in its payload")


WRONG_PROXY_EVENTS: list[tuple[str, str, Any]] = [
    ("upstream.registered", "name", "a.b"),
    ("upstream.registered", "name", ""),
    ("upstream.registered", "transport", 2),
    ("upstream.registered", "args", ["a"]),
    ("upstream.removed", "name", "x" * 65),
    ("tools.observed", "tools", [{"tool": "a", "digest": bytes(32), "is_trusted": 2}]),
    ("tool.accepted", "name", "é"),
    ("call.authorized", "call_id", "x" * 61),
    ("call.authorized", "method", 3),
    ("call.authorized", "upstream", ""),
    ("call.authorized", "secrets", [{"name": "", "digest": None}]),
    ("call.denied", "reason", 12),
    ("call.denied", "secret", "a//b"),
    ("call.denied", "upstream", "a b"),
    ("call.completed", "outcome", 8),
]


@pytest.mark.parametrize(("kind", "name", "value"), WRONG_PROXY_EVENTS)
def test_values_in_the_stream_about_the_proxy(cli: Cli, kind: str, name: str, value: Any) -> None:
    seq, _ = proxy_event(kind)
    run = cli.json(export(edited_proxy(seq, **{name: value})))
    assert_not_sound(run, seq, "step 4", "malformed", f"{name} in its payload")


@pytest.mark.parametrize(
    "amount", [{"kind": 0, "nanos": 1}, {"kind": 1, "nanos": None}, {"kind": 3, "nanos": None}]
)
@pytest.mark.parametrize("which", ["amount", "price"])
def test_what_arguments_say_about_money(cli: Cli, which: str, amount: dict[str, Any]) -> None:
    seq, event = proxy_event("call.denied")
    run = cli.json(export(edited_proxy(seq, facts=event["facts"] | {which: amount})))
    assert_not_sound(run, seq, "step 4", "malformed", "facts in its payload")


ALLOWED_EVENTS: list[tuple[int, dict[str, Any]]] = [
    (0, {"scopes": ["*", "admin:*", "audit:read", "vault:read", "vault:rotate"]}),
    (0, {"scopes": EVERY_SCOPE}),
    (0, {"name": "x" * 1000, "prefix": "!~!~!~!~!~!~"}),
    (1, {"scopes": [], "cap": None, "ttl": 0, "expires_at": 1, "agent_limit": 2**64 - 1}),
    (1, {"scopes": ["z", "a", "a", ""] * 100, "ttl": 2**64 - 1, "expires_at": None}),
    (2, {"verdict": 0, "session_id": "", "scope": "\x00\n\U0010ffff"}),
    (3, {"remaining": 2**128 - 1, "currency": "", "description": "x" * 1000}),
    (4, {"remaining": None, "reason": 0}),
    (5, {"details_digest": None, "flag": "", "cost": 0}),
    (9, {"required": "", "operation": "x" * 1000}),
    (10, {"year": 9999, "month": 12, "keys": []}),
    (10, {"year": 1970, "month": 1, "keys": [READING | {"last": 2**64 - 1}, READING, READING]}),
]


@pytest.mark.parametrize(("seq", "change"), ALLOWED_EVENTS)
def test_other_events_that_are_allowed(cli: Cli, seq: int, change: dict[str, Any]) -> None:
    assert_sound(cli.json(export(edited(seq, with_event(**change)))))


def test_entry_of_another_tenant(cli: Cli) -> None:
    entries = edited(6, with_header(tenant=padded(b"somebody_else")))
    run = cli.json(export(entries))
    assert_not_sound(run, 6, "step 5", "foreign", "it belongs to tenant somebody_else")


def test_stream_of_another_tenant(cli: Cli) -> None:
    relabelled = as_text(export_lines(ENTRIES, tenant="somebody_else"))
    assert_not_sound(cli.json(relabelled), 0, "step 5", "foreign")
    other = ("--tenant", "somebody_else")
    assert_not_sound(cli.json(relabelled, *other), 0, "step 5", "foreign")
    assert_not_sound(cli.json(export(ENTRIES), *other), 0, "export", "foreign")


def test_wrong_seq(cli: Cli) -> None:
    for seq in (3, 5, 2**64 - 1):
        entries = edited(4, with_header(seq=seq))
        assert_not_sound(cli.json(export(entries)), 4, "step 6", "out of place", f"is {seq}")


def test_wrong_previous_hash(cli: Cli) -> None:
    header, payload = open_entry(ENTRIES[4])
    wrong = seal(header._replace(previous_hash=vl.entry.NO_HASH), payload)
    run = cli.json(export(replaced(ENTRIES, 4, wrong)))
    assert_not_sound(run, 4, "step 7", "broken link")


def test_first_entry_with_a_previous_hash(cli: Cli) -> None:
    header, payload = open_entry(ENTRIES[0])
    first = seal(header._replace(previous_hash=HEAD), payload)
    assert_not_sound(cli.json(export([first])), 0, "step 7", "broken link")


def test_time_must_go_forward(cli: Cli) -> None:
    for time in (START + 4, START + 3, 0):
        entries = edited(5, with_header(time=time))
        assert_not_sound(cli.json(export(entries)), 5, "step 8", "time went back")


def test_first_time_may_be_zero(cli: Cli) -> None:
    entries = edited(0, with_header(time=0))
    assert_sound(cli.json(export(entries)))
    assert export_lines(entries)[1]["at"] == "1970-01-01T00:00:00.000000Z"


def test_latest_time(cli: Cli) -> None:
    entries = edited(11, with_header(time=253_370_764_799_999_999))
    assert_sound(cli.json(export(entries)))
    assert export_lines(entries)[12]["at"] == "9998-12-31T23:59:59.999999Z"


@pytest.mark.parametrize("broken", range(1, 11))
def test_the_first_failing_step_gives_the_reason(broken: int) -> None:
    """An entry that fails at this step and at all later ones."""
    fault = fault_of(replaced(ENTRIES, 4, entry_failing_from(broken)))
    assert fault is not None
    assert (fault.seq, fault.step) == (4, f"step {broken}")


def entry_failing_from(step: int) -> bytes:
    def wrong(number: int, value: Any, right: Any) -> Any:
        return value if number >= step else right

    header, payload = open_entry(ENTRIES[4])
    header = header._replace(
        magic=wrong(1, b"????", header.magic),
        payload_length=wrong(2, 0, header.payload_length),
        reserved=wrong(4, 7, header.reserved),
        tenant=wrong(5, padded(b"foreign"), header.tenant),
        seq=wrong(6, 40, header.seq),
        previous_hash=wrong(7, bytes(32), header.previous_hash),
        time=wrong(8, 0, header.time),
    )
    body = vl.entry.HEADER_LAYOUT.pack(*header) + payload
    digest = wrong(3, bytes(32), vl.primitives.entry_hash(body))
    signer_id = wrong(9, bytes(8), vl.primitives.key_id(PUBLIC))
    signature = SIGNER.sign(vl.primitives.entry_message(PUBLIC, digest))
    return body + digest + signer_id + wrong(10, bytes(64), signature)


# ---------------------------------------------------------------------------------------------
# Signatures
# ---------------------------------------------------------------------------------------------

def test_another_key_is_trusted(cli: Cli) -> None:
    run = cli.json(export(ENTRIES), key=STRANGERS_PUBLIC.hex())
    assert_unnamed(run, VECTORS["key_id"].hex())


def test_no_key_is_named(cli: Cli) -> None:
    run = cli.arguments_for(export(ENTRIES), "--json")
    assert_unnamed(run, VECTORS["key_id"].hex())
    assert run.outcome["signers"] == [{"from": 0, "key_id": VECTORS["key_id"].hex(), "named": False}]
    forged = ENTRIES[4][:-64] + bytes(64)
    run = cli.arguments_for(export(replaced(ENTRIES, 4, forged)), "--json")
    assert_not_sound(run, 4, "step 10", "forged")


def test_neither_is_the_key_in_the_data(cli: Cli) -> None:
    lines = export_lines(ENTRIES)
    lines[0]["public_keys"] = []
    run = cli.arguments_for(as_text(lines), "--json")
    assert_not_sound(run, 0, "step 9", UNTRUSTED, VECTORS["key_id"].hex())


def test_a_key_in_the_export_is_not_trusted_for_that(cli: Cli) -> None:
    entries = [*ENTRIES[:-1], seal(*open_entry(ENTRIES[-1]), signer=STRANGER)]
    lines = export_lines(entries)
    lines[0]["public_keys"] += header_line(key=STRANGERS_PUBLIC)["public_keys"]
    assert_not_sound(cli.json(as_text(lines)), 11, "step 9", WRONG_SIGNER)


def test_no_key_is_trusted() -> None:
    assert_fault(fault_of(ENTRIES, keys=[]), 0, "step 9", UNTRUSTED)


def test_signed_by_another_key_under_the_trusted_ones_id(cli: Cli) -> None:
    entry = ENTRIES[8]
    digest = hash_of(entry)
    forged = entry[:-64] + STRANGER.sign(vl.primitives.entry_message(PUBLIC, digest))
    run = cli.json(export(replaced(ENTRIES, 8, forged)))
    assert_not_sound(run, 8, "step 10", "forged", "signature is not valid")


def test_key_id_of_another_trusted_key() -> None:
    for seq, step, reason in [(0, "step 10", "forged"), (8, "step 9", WRONG_SIGNER)]:
        entry = ENTRIES[seq]
        swapped = entry[:-72] + vl.primitives.key_id(STRANGERS_PUBLIC) + entry[-64:]
        fault = fault_of(replaced(ENTRIES, seq, swapped), keys=[PUBLIC, STRANGERS_PUBLIC])
        assert_fault(fault, seq, step, reason)


def test_signature_of_the_hash_alone_is_not_enough() -> None:
    entry = ENTRIES[8]
    for message in (hash_of(entry), entry[:-104], vl.primitives.key_id(PUBLIC) + hash_of(entry)):
        forged = entry[:-64] + SIGNER.sign(message)
        assert_fault(fault_of(replaced(ENTRIES, 8, forged)), 8, "step 10", "forged")


# --- strictness ---

# Just enough of Ed25519 (RFC 8032, 5.1) to make signatures that careless verifiers accept.

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
IDENTITY: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    product = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, P)
    return x % P, y % P


def times(factor: int, point: Point) -> Point:
    result = IDENTITY
    for bit in bin(factor)[2:]:
        result = add(result, result)
        if bit == "1":
            result = add(result, point)
    return result


def encode_point(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def x_of(y: int) -> int | None:
    """One x of the curve's points with this y, if there are any."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    for candidate in (x, x * pow(2, (P - 1) // 4, P) % P):
        if candidate * candidate % P == square:
            return candidate
    return None


BASE_Y = 4 * pow(5, -1, P) % P
BASE_X = x_of(BASE_Y)
assert BASE_X is not None
BASE: Point = (BASE_X if BASE_X % 2 == 0 else P - BASE_X, BASE_Y)


def small_order_points() -> list[Point]:
    """All points of order 1, 2, 4 and 8: the multiples of one of order 8."""
    start = 2
    while True:
        x = x_of(start)
        if x is not None:
            generator = times(L, (x, start))
            points = [times(n, generator) for n in range(8)]
            if len(set(points)) == 8:
                return points
        start += 1


def secret_scalar(key: Ed25519PrivateKey) -> int:
    digest = bytearray(hashlib.sha512(key.private_bytes_raw()).digest()[:32])
    digest[0] &= 248
    digest[31] = digest[31] & 127 | 64
    return int.from_bytes(digest, "little")


def challenge(r: bytes, public: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % L


def decode_point(encoded: bytes) -> Point:
    y = int.from_bytes(encoded, "little") % 2**255
    x = x_of(y)
    assert x is not None
    return x if x & 1 == encoded[31] >> 7 else P - x, y


def satisfies_the_equation(public: Point, r: Point, s: int, k: int, cofactor: int = 1) -> bool:
    """S·B = R + k·A, and nothing more: what a careless verifier checks."""
    return times(cofactor * s, BASE) == times(cofactor, add(r, times(k, public)))


DIGEST = hash_of(ENTRIES[8])
MESSAGE = vl.primitives.entry_message(PUBLIC, DIGEST)


def problem_of(r: bytes, s: int, public: bytes = PUBLIC) -> str | None:
    message = vl.primitives.entry_message(public, DIGEST)
    return vl.primitives.signature_problem(public, message, r + s.to_bytes(32, "little"))


def test_the_arithmetic_of_these_tests() -> None:
    assert times(L, BASE) == IDENTITY
    assert encode_point(times(secret_scalar(SIGNER), BASE)) == PUBLIC
    assert decode_point(PUBLIC) == times(secret_scalar(SIGNER), BASE)


def test_points_of_small_order() -> None:
    points = small_order_points()
    assert all(times(8, point) == IDENTITY for point in points)
    assert {point[1] for point in points} == vl.primitives.SMALL_ORDER_Y
    encodings = {
        (y | sign << 255).to_bytes(32, "little")
        for _, reduced in points
        for y in (reduced, reduced + P)
        for sign in (0, 1)
        if y < 2**255
    }
    assert len(encodings) == 14
    assert all(map(vl.primitives.is_of_small_order, encodings))
    assert not any(map(vl.primitives.is_of_small_order, (encode_point(BASE), PUBLIC, b"\xff" * 32)))


def test_signature_with_s_beyond_the_group_order() -> None:
    """S + L solves the same equation, so it would be a second signature of the same entry."""
    entry = ENTRIES[8]
    r, s = entry[-64:-32], int.from_bytes(entry[-32:], "little") + L
    k = challenge(r, PUBLIC, MESSAGE)
    assert satisfies_the_equation(decode_point(PUBLIC), decode_point(r), s, k)

    fault = fault_of(replaced(ENTRIES, 8, entry[:-32] + s.to_bytes(32, "little")))
    assert_fault(fault, 8, "step 10", "forged")
    assert "group order" in str(fault)
    assert problem_of(r, s - L) is None


@pytest.mark.parametrize("r_y", [1, 1 + P])
@pytest.mark.parametrize("sign", [0, 1])
def test_signature_with_r_of_small_order(r_y: int, sign: int) -> None:
    """R = 0, S = k·a: solves the equation, though only the key's holder can make it."""
    r = (r_y | sign << 255).to_bytes(32, "little")
    k = challenge(r, PUBLIC, MESSAGE)
    s = k * secret_scalar(SIGNER) % L
    assert satisfies_the_equation(decode_point(PUBLIC), IDENTITY, s, k)
    assert problem_of(r, s) == "R of its signature is of small order"

    forged = ENTRIES[8][:-64] + r + s.to_bytes(32, "little")
    assert_fault(fault_of(replaced(ENTRIES, 8, forged)), 8, "step 10", "forged")


def test_signature_that_is_valid_only_with_the_cofactor() -> None:
    """R = r·B + T with a T of small order, which multiplying by 8 makes vanish."""
    public, secret = decode_point(PUBLIC), secret_scalar(SIGNER)
    for torsion in small_order_points():
        r = add(times(12345, BASE), torsion)
        k = challenge(encode_point(r), PUBLIC, MESSAGE)
        s = (12345 + k * secret) % L
        assert satisfies_the_equation(public, r, s, k, cofactor=8)
        expected = None if torsion == IDENTITY else "its signature is not valid"
        assert problem_of(encode_point(r), s) == expected


def test_public_key_with_a_part_of_small_order() -> None:
    """A = a·B + T is not of small order; without the cofactor, k·T must vanish by itself."""
    secret = secret_scalar(SIGNER)
    torsion = next(point for point in small_order_points() if times(4, point) != IDENTITY)
    point = add(times(secret, BASE), torsion)
    public = encode_point(point)
    verdicts = set()
    for nonce in range(1, 33):
        r = times(nonce, BASE)
        k = challenge(encode_point(r), public, vl.primitives.entry_message(public, DIGEST))
        s = (nonce + k * secret) % L
        assert satisfies_the_equation(point, r, s, k, cofactor=8)
        is_valid = problem_of(encode_point(r), s, public) is None
        assert is_valid == satisfies_the_equation(point, r, s, k) == (k % 8 == 0)
        verdicts.add(is_valid)
    assert verdicts == {True, False}


def test_public_key_of_small_order() -> None:
    """Under the key 0, R = S·B solves the equation for every message."""
    weak = encode_point(IDENTITY)
    s = 12345
    r = times(s, BASE)
    assert satisfies_the_equation(IDENTITY, r, s, k=6789)
    assert problem_of(encode_point(r), s, weak) == "the public key is of small order"

    forged = ENTRIES[0][:-72] + vl.primitives.key_id(weak) + encode_point(r) + s.to_bytes(32, "little")
    assert_fault(fault_of([forged], keys=[PUBLIC, weak]), 0, "step 10", "forged")


def test_public_key_that_is_no_point() -> None:
    y = next(y for y in range(2, 100) if x_of(y) is None)
    public = y.to_bytes(32, "little")
    entry = ENTRIES[0][:-72] + vl.primitives.key_id(public) + ENTRIES[0][-64:]
    assert_fault(fault_of([entry], keys=[public]), 0, "step 10", "forged")


# ---------------------------------------------------------------------------------------------
# The lines of an export
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("seq", 5),
        ("kind", "payment.denied"),
        ("kind", "\ud800\x1b[2J"),
        ("at", "2023-11-14T22:13:20.000003"),
        ("at", "2023-11-14T22:13:20.000004Z"),
        ("at", "2023-11-14T22:13:20.000003+00:00"),
        ("at", "2023-11-14T22:13:20.00000300Z"),
        ("hash", "00" * 32),
        ("hash", hash_of(ENTRIES[3]).hex().upper()),
    ],
)
def test_label_that_is_not_so(cli: Cli, label: str, value: Any) -> None:
    lines = export_lines(ENTRIES)
    assert entry_number(lines, 3)["at"] == "2023-11-14T22:13:20.000003Z"
    entry_number(lines, 3)[label] = value
    run = cli.json(as_text(lines))
    assert_not_sound(run, 3, "export", "mislabelled", f"{label} on its line")


@pytest.mark.parametrize("label", ["seq", "kind", "at", "hash", "entry", "type"])
@pytest.mark.parametrize("value", [None, True, 3.0, -1, 2**64, [], {}, "missing"])
def test_label_of_a_wrong_type(cli: Cli, label: str, value: Any) -> None:
    lines = export_lines(ENTRIES)
    if value == "missing":
        del entry_number(lines, 3)[label]
    else:
        entry_number(lines, 3)[label] = value
    assert_not_sound(cli.json(as_text(lines)), 3, "export", "malformed")


@pytest.mark.parametrize(("seq", "value"), [(0, False), (1, True), (0, "0"), (1, 1.0)])
def test_seq_that_only_python_takes_for_a_number(cli: Cli, seq: int, value: Any) -> None:
    lines = export_lines(ENTRIES)
    entry_number(lines, seq)["seq"] = value
    assert_not_sound(cli.json(as_text(lines)), seq, "export", "malformed")


def test_labels_are_looked_at_last(cli: Cli) -> None:
    forged = ENTRIES[4][:-64] + bytes(64)
    lines = export_lines(replaced(ENTRIES, 4, forged))
    entry_number(lines, 4)["kind"] = "payment.authorized"
    assert_not_sound(cli.json(as_text(lines)), 4, "step 10", "forged")


BAD_BASE64: dict[str, Callable[[str], str]] = {
    "no padding": lambda text: text.rstrip("="),
    "half the padding": lambda text: text[:-1],
    "too much padding": lambda text: text + "=",
    "only padding": lambda text: "====",
    "newline at the end": lambda text: text + "\n",
    "newline within": lambda text: text[:40] + "\n" + text[40:],
    "space before": lambda text: " " + text,
    "padding within": lambda text: text[:40] + "==" + text[40:],
    "of the URL alphabet": lambda text: text[:40] + "-" + text[41:],
    "of no alphabet": lambda text: text[:40] + "*" + text[41:],
    "beyond ASCII": lambda text: text[:40] + "é" + text[41:],
    "half a surrogate pair": lambda text: text[:40] + "\ud800" + text[41:],
    "bits set that do not count": lambda text: text[:-3] + chr(ord(text[-3]) + 1) + "==",
}


@pytest.mark.parametrize("name", BAD_BASE64)
def test_bad_base64(cli: Cli, name: str) -> None:
    lines = export_lines(ENTRIES)
    line = entry_number(lines, 0)
    assert line["entry"].endswith("==")
    line["entry"] = BAD_BASE64[name](line["entry"])
    assert_not_sound(cli.json(as_text(lines)), 0, "export", "malformed", "is not base64")


def test_base64_of_fewer_bytes(cli: Cli) -> None:
    lines = export_lines(ENTRIES)
    line = entry_number(lines, 0)
    line["entry"] = line["entry"][:-4]
    assert_not_sound(cli.json(as_text(lines)), 0, "step 2", "malformed")


NOT_JSON = "cannot be read as JSON"
TOO_LONG = "more than 524288 bytes"

GARBAGE_LINES: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"garbage", NOT_JSON),
    "nothing": (b"", NOT_JSON),
    "spaces": (b"   ", NOT_JSON),
    "zero bytes": (b"\x00" * 100, NOT_JSON),
    "not UTF-8": (b'{"type":"entry","kind":"\xff"}', NOT_JSON),
    "UTF-16": ('{"type":"end"}'.encode("utf-16"), NOT_JSON),
    "byte order mark": (b'\xef\xbb\xbf{"type":"end"}', NOT_JSON),
    "cut off": (b'{"type":"entry","seq":', NOT_JSON),
    "two objects": (b'{"type":"entry"}{"type":"entry"}', NOT_JSON),
    "NaN": (b'{"type":"entry","x":NaN}', NOT_JSON),
    "Infinity": (b'{"type":"entry","x":-Infinity}', NOT_JSON),
    "comment": (b'{"type":"entry"} // comment', NOT_JSON),
    "comma too many": (b'{"type":"entry",}', NOT_JSON),
    "single quotes": (b"{'type':'entry'}", NOT_JSON),
    "control character in a text": (b'{"type":"entry","x":"\t"}', NOT_JSON),
    "leading zero": (b'{"type":"entry","x":01}', NOT_JSON),
    "deeply nested": (b'{"type":"entry","x":' + b"[" * 60_000 + b"]" * 60_000 + b"}", NOT_JSON),
    "deeply nested, not closed": (b'{"x":' * 20_000, NOT_JSON),
    "text": (b'"entry"', "not an object"),
    "list": (b"[]", "not an object"),
    "null": (b"null", "not an object"),
    "no type": (b"{}", "neither an entry nor the end"),
    "unknown type": (b'{"type":"comment"}', "neither an entry nor the end"),
    "second header": (as_text([header_line()]).strip(), "neither an entry nor the end"),
    "same key twice": (b'{"type":"entry","type":"end"}', "same key twice"),
    "same key twice, written differently": (b'{"x":1,"\\u0078":1}', "same key twice"),
    "very long number": (b'{"type":"entry","seq":' + b"9" * 100_000 + b"}", "no whole number seq"),
    "one byte too many": (filled_to(524_289, b'{"type":"end"}\n')[:-1], TOO_LONG),
    "huge base64": (b'{"type":"entry","entry":"' + b"A" * 4_000_000 + b'"}', TOO_LONG),
    "huge line": (b" " * 5_000_000, TOO_LONG),
}


@pytest.mark.parametrize("name", GARBAGE_LINES)
def test_garbage_instead_of_a_line(cli: Cli, name: str) -> None:
    garbage, detail = GARBAGE_LINES[name]
    lines = export(ENTRIES).splitlines(keepends=True)
    lines[1 + 3] = garbage + b"\n"
    assert_not_sound(cli.json(b"".join(lines)), 3, "export", "malformed", detail)


def test_entry_that_is_too_long_but_fits_on_a_line(cli: Cli) -> None:
    lines = export_lines(ENTRIES)
    entry_number(lines, 3)["entry"] = base64.b64encode(bytes(98_000)).decode()
    run = cli.json(as_text(lines))
    assert_not_sound(run, 3, "step 1", "malformed", "it has 98000 bytes")


@pytest.mark.parametrize("name", GARBAGE_LINES)
def test_garbage_instead_of_the_first_line(cli: Cli, name: str) -> None:
    garbage, _ = GARBAGE_LINES[name]
    if name == "second header":
        return
    rest = export(ENTRIES).split(b"\n", 1)[1]
    assert_could_not_check(cli.json(garbage + b"\n" + rest), "not a ledger export")


@pytest.mark.parametrize(
    "change",
    [
        {"type": "entry"},
        {"format": "haldir-audit"},
        {"version": 2},
        {"version": True},
        {"version": "1"},
        {"tenant_id": None},
        {"tenant_id": ""},
        {"tenant_id": "A" * 16},
        {"tenant_id": "a" * 25},
        {"tenant_id": "a\n"},
        {"version": 1.0},
        {"version": None},
    ],
)
def test_first_line_that_is_not_understood(cli: Cli, change: Line) -> None:
    lines = export_lines(ENTRIES)
    lines[0] |= change
    assert_could_not_check(cli.json(as_text(lines)), "not a ledger export")


def test_export_without_its_first_line(cli: Cli) -> None:
    assert_could_not_check(cli.json(as_text(export_lines(ENTRIES)[1:])), "not a ledger export")


WRONG_END = "does not end where it should"


@pytest.mark.parametrize(
    ("change", "step", "reason"),
    [
        ({"size": 13}, "last line", "truncated"),
        ({"size": 2**64 - 1}, "last line", "truncated"),
        ({"size": 2**64}, "export", "malformed"),
        ({"size": 11}, "last line", WRONG_END),
        ({"size": 0}, "last line", WRONG_END),
        ({"head": "00" * 32}, "last line", WRONG_END),
        ({"root": "00" * 32}, "last line", WRONG_END),
        ({"root": ROOTS[11].hex()}, "last line", WRONG_END),
        ({"size": None}, "export", "malformed"),
        ({"size": "12"}, "export", "malformed"),
        ({"size": 12.0}, "export", "malformed"),
        ({"size": -12}, "export", "malformed"),
        ({"head": HEAD.hex().upper()}, "export", "malformed"),
        ({"head": HEAD.hex()[:-1]}, "export", "malformed"),
        ({"head": HEAD.hex() + "\n"}, "export", "malformed"),
        ({"root": None}, "export", "malformed"),
    ],
)
def test_last_line_that_is_not_so(cli: Cli, change: Line, step: str, reason: str) -> None:
    lines = export_lines(ENTRIES)
    lines[-1] |= change
    assert_not_sound(cli.json(as_text(lines)), COUNT, step, reason)


@pytest.mark.parametrize(
    "after",
    [b"\n", b"garbage\n", b"x", as_text([end_line(ENTRIES)]), as_text([entry_line(0, ENTRIES[0])])],
)
def test_lines_after_the_last(cli: Cli, after: bytes) -> None:
    run = cli.json(export(ENTRIES) + after)
    assert_not_sound(run, COUNT, "export", "malformed", "something follows")


def test_last_line_that_is_wrong_and_has_no_newline(cli: Cli) -> None:
    """It can be read, so that it was not cut off."""
    for change in ({"size": 11}, {"root": "00" * 32}, {"head": None}, {"type": "entry"}):
        lines = export_lines(ENTRIES)
        lines[-1] |= change
        run = cli.json(as_text(lines).removesuffix(b"\n"))
        assert (run.code, run.outcome["seq"]) == (1, COUNT)


def test_line_that_is_too_long_and_has_no_newline(cli: Cli) -> None:
    run = cli.json(as_text(export_lines(ENTRIES)[:4]) + b" " * 524_288)
    assert_not_sound(run, 3, "export", "malformed", TOO_LONG)
    run = cli.json(as_text(export_lines(ENTRIES)[:4]) + b" " * 524_287)
    assert_incomplete(run, "breaks off within a line")


def checked_positions(data: bytes) -> range:
    """Where a byte counts: not in `public_keys`, with which the header ends here."""
    assert data.index(b'"public_keys"') < data.index(b"\n")
    return range(data.index(b"\n"), len(data) - 1)


def test_random_changes_of_an_export_are_found(cli: Cli) -> None:
    data = export(ENTRIES)
    positions = [*range(data.index(b'"public_keys"')), *checked_positions(data)]
    chance = random.Random(8)
    for position in chance.sample(positions, 1000):
        changed = bytearray(data)
        changed[position] = chance.choice([b for b in range(256) if b != data[position]])
        assert cli.json(bytes(changed)).code in (1, 2, 4), position


def test_random_cuts_and_copies_of_an_export_are_found(cli: Cli) -> None:
    data = export(ENTRIES)
    chance = random.Random(9)
    for _ in range(300):
        start, end = sorted(chance.sample(checked_positions(data), 2))
        cut = data[:start] + data[end:]
        doubled = data[:end] + data[start:]
        assert cli.json(cut).code in (1, 2, 4), (start, end)
        assert cli.json(doubled).code in (1, 2, 4), (start, end)


def test_random_bytes_are_no_export(cli: Cli) -> None:
    chance = random.Random(10)
    for length in (1, 10, 1000, 100_000):
        assert_could_not_check(cli.json(chance.randbytes(length)))


# ---------------------------------------------------------------------------------------------
# Random entries: a verdict, whatever the bytes are
# ---------------------------------------------------------------------------------------------


def random_payloads(seed: int, count: int) -> Iterator[tuple[int, bytes]]:
    """Payloads of the vectors with random bytes changed, cut out or put in."""
    chance = random.Random(seed)
    for _ in range(count):
        seq = chance.randrange(COUNT)
        payload = bytearray(open_entry(ENTRIES[seq])[1])
        for _ in range(chance.randint(1, 3)):
            position = chance.randrange(len(payload))
            new = chance.randbytes(chance.choice([0, 1, 1, 1, 8]))
            payload[position : position + chance.choice([0, 1, len(new)])] = new
            payload = payload or bytearray(1)
        yield seq, bytes(payload)


def test_random_payloads_decode_to_one_event_or_none() -> None:
    """Whatever decodes must encode to the same bytes; nothing else may be raised."""
    decoded = 0
    for seq, payload in random_payloads(11, 5000):
        kind = vl.entry.kind_of(open_entry(ENTRIES[seq])[0])
        try:
            event = vl.entry.read_event(kind, payload)
        except vl.verdict.Malformed:
            continue
        decoded += 1
        assert encode_event(kind, event) == payload
    assert decoded > 100


# ---------------------------------------------------------------------------------------------
# What cannot be checked
# ---------------------------------------------------------------------------------------------


def test_empty_export(cli: Cli) -> None:
    assert_could_not_check(cli.json(b""), "empty")


def test_export_that_cannot_be_read(cli: Cli, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", "zero\x00byte"):
        run = cli.arguments(str(path), "--key", PUBLIC.hex(), "--json")
        assert_could_not_check(run, "cannot be read")
    run = cli.arguments(str(tmp_path), "--key", PUBLIC.hex(), "--json")
    assert_could_not_check(run, "not a folder of tiles")


def test_export_that_breaks_off_with_an_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 2000:
                raise OSError("the disk is gone")
            return super().readline(size)

    monkeypatch.setattr(vl.cli, "open_input", lambda path: Broken(export(ENTRIES)))
    assert_could_not_check(cli.json(b""), "the disk is gone")


def test_unusable_keys(cli: Cli, tmp_path: Path) -> None:
    files = {
        "empty": b"",
        "garbage": b"\xff" * 1000,
        "broken": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "private": SIGNER.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        "other": public_pem(x25519.X25519PrivateKey.generate().public_key()),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert_could_not_check(cli.json(export(ENTRIES), key=str(tmp_path / name)), "key")
    for text in ("nowhere", str(tmp_path), PUBLIC.hex()[:-1], PUBLIC.hex() + "0", "", "x\x00y"):
        assert_could_not_check(cli.json(export(ENTRIES), key=text), "no public key in")


def test_two_keys_with_one_id(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vl.keys, "key_id", lambda key: bytes(8))
    run = cli.json(export(ENTRIES), "--key", STRANGERS_PUBLIC.hex())
    assert_could_not_check(run, "two different keys have the key id")


@pytest.mark.parametrize(
    "options",
    [
        ["--key"],
        ["--size", "-1"],
        ["--size", "twelve"],
        ["--size", "9" * 5000],
        ["--head", "00"],
        ["--head", "zz" * 32],
        ["--tenant", ""],
        ["--tenant", "\ud800"],
        ["--what"],
        ["--kept-size", "3"],
        ["--kept-head", "00" * 32],
        ["--kept-size", "0", "--kept-head", "00" * 32],
        ["another"],
    ],
)
def test_bad_arguments(cli: Cli, options: list[str]) -> None:
    run = cli.arguments("export.jsonl", "--key", PUBLIC.hex(), *options)
    assert run.code == 2
    assert "usage:" in run.err


def test_could_not_check_in_words(cli: Cli) -> None:
    run = cli(as_text(export_lines(ENTRIES)[1:]))
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("could not check: this is not a ledger export")


def test_packages_are_missing() -> None:
    """Without site-packages: this must not look like a verdict."""
    run = in_own_process("-", "--key", PUBLIC.hex(), python=("-I", "-S"))
    assert run.code == 2
    assert run.err.startswith("could not check: No module named")


def test_a_mistake_in_the_program_is_no_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vl.stream, "leaf_hash", lambda data: 1 // 0)
    path = tmp_path / "export.jsonl"
    path.write_bytes(export([]).replace(b"\n", b"\n" + as_text([entry_line(0, ENTRIES[0])]), 1))
    assert vl.cli.main([str(path), "--key", PUBLIC.hex()]) == 2
    assert "could not check: internal error" in capsys.readouterr().err


def test_hostile_export_in_a_process_of_its_own() -> None:
    """The same over a pipe: an exit code and a verdict, never a traceback."""
    first = as_text([header_line()])
    for garbage in (b"\xff\xfe" * 1000, b"[" * 300_000, b'{"a":' * 100_000, b"9" * 400_000):
        run = in_own_process("-", "--key", PUBLIC.hex(), "--json", stdin=first + garbage + b"\n")
        assert_not_sound(run, 0, "export", "malformed")
