"""The auditor's walk: what a server hands out, judged by two programs that share no code.

`haldir audit verify` and the verifier in `tools`, written from `ledger-format.md` alone, are given the
same files, keys and checkpoints, good ones and bad ones. They must come to the same verdict, which they
say with the same exit code, and it must be the right one.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import verify_ledger as vl
import verify_ledger.cli
from harness import Server, Tenant, created, found, running, verify_apart

SOUND, NOT_SOUND, COULD_NOT_CHECK, UNNAMED_KEY, INCOMPLETE, TRUNCATED, ANOTHER_HISTORY = range(7)

# The forms that `haldir audit verify --file` reads. A form that is not in this list is verified by the
# program in `tools` only.
RUST_READS = ["ledger", "tiles", "proof", "checkpoint", "jsonl", "csv"]
ALL_FORMS = ["ledger", "tiles", "proof", "checkpoint", "jsonl", "csv"]

NO_METERING = ("--meter-interval", "1h")
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGERS_KEY = STRANGER.public_key().public_bytes_raw().hex()


@dataclass
class Evidence:
    """What an auditor collected of one tenant, and the keys to it."""

    tenant: Tenant
    folder: Path
    key: Path
    size: int

    def path(self, name: str) -> Path:
        return self.folder / name

    def both(self, form: str, what: Path, *options: str | Path, key: str | Path | None = "") -> int:
        """The exit code on which both programs agree. `None` names no key."""
        keys: list[str | Path] = [] if key is None else ["--key", key or self.key]
        apart, said = verify_apart(what, *keys, *options, "--json")
        assert "internal error" not in said
        if form in RUST_READS:
            done = self.tenant.server.run("audit", "verify", "--file", what, *keys, *options, "--json")
            told = f"{done.returncode} {done.stdout}{done.stderr}, but in tools: {said}"
            if form == "ledger":
                assert done.returncode == apart, told
            # The document says what is accepted of the other forms, and leaves open how a refusal is called.
            assert (done.returncode == SOUND) == (apart == SOUND), told
            if apart != COULD_NOT_CHECK and done.returncode != COULD_NOT_CHECK:
                agree_on_numbers(form, json.loads(done.stdout), json.loads(said))
        return apart

    def altered(self, name: str, change: Callable[[bytes], bytes]) -> Path:
        """A copy of a file with other bytes."""
        path = self.folder / f"altered-{name}"
        path.write_bytes(change(self.path(name).read_bytes()))
        return path


def agree_on_numbers(form: str, rust: dict[str, Any], apart: dict[str, Any]) -> None:
    """Beside the verdict: how many entries passed, and where they led."""
    assert rust["sound"] == (apart["verdict"] == "sound")
    if form != "ledger" or "size" not in apart:
        return
    (stream,) = rust["streams"]
    assert stream["tenant_id"] == apart["tenant"]
    if apart["verdict"] != "not sound":
        for name in ("from", "size", "head", "root"):
            assert stream.get(name) == apart.get(name), name
        signers = [{name: it[name] for name in ("from", "key_id", "named")} for it in stream["signers"]]
        assert signers == apart["signers"]
    elif stream.get("first_bad_seq") is not None:
        assert stream["first_bad_seq"] == apart["seq"]


def act(tenant: Tenant) -> None:
    """Acts of several kinds, granted and denied."""
    session = tenant.open_session(agent_id="a", spend_limit=5)
    for number in range(6):
        asked = {"session_id": session, "action": f"act {number}", "tool": "mail", "cost_usd": 0.25, "details": {"n": number}}
        created(tenant.post("/v1/audit", asked))
        tenant.post("/v1/payments/authorize", {"session_id": session, "amount": 2})
    found(tenant.delete(f"/v1/sessions/{session}"))
    tenant.post("/v1/audit", {"session_id": session, "action": "too late"})
    key = tenant.mint("audit:read")
    tenant.get("/v1/sessions", key=key)
    found(tenant.delete(f"/v1/keys/{key[:12]}"))


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    """Everything that can be had of a ledger, in all forms."""
    with ExitStack() as stack:
        server = stack.enter_context(running(Server(tmp_path_factory.mktemp("audited"), options=NO_METERING)))
        tenant = server.found_tenant()
        act(tenant)
        folder = tmp_path_factory.mktemp("evidence")
        size = len(tenant.ledger())
        for kept in (0, 1, 5, size):
            (folder / f"checkpoint-{kept}").write_bytes(tenant.get(f"/v1/ledger/checkpoint?size={kept}").content)
        for seq in (0, 5, size - 1):
            (folder / f"proof-{seq}").write_bytes(tenant.get(f"/v1/ledger/proof/{seq}").content)
        for first, last in [(0, size), (0, 9), (4, 9), (4, size), (9, 9), (size, size)]:
            query = {"from_seq": first, "until_seq": last}
            (folder / f"ledger-{first}-{last}").write_bytes(tenant.get("/v1/ledger/export", params=query).content)
        for form, out in [("ledger", "ledger"), ("tiles", "tiles"), ("jsonl", "jsonl"), ("csv", "csv")]:
            exported(tenant, form, folder / out)
        (folder / "jsonl-some").write_bytes(tenant.get("/v1/audit/export?tool=mail&since=2000-01-01").content)
        (folder / "csv.manifest").write_bytes(tenant.get("/v1/audit/export/manifest?format=csv").content)
        yield Evidence(tenant, folder, server.data / "signing.pub", size)


def exported(tenant: Tenant, form: str, out: Path) -> None:
    done = tenant.server.run(
        "--key", tenant.key, "--url", tenant.server.base_url, "audit", "export", "--format", form, "--out", out
    )
    assert done.returncode == 0, done.stderr


# -- What is good ------------------------------------------------------------------------------------


def everything(evidence: Evidence) -> Iterator[tuple[str, Path, list[str | Path], int]]:
    """Every form, the file, the options it needs, and the verdict."""
    size = evidence.size
    yield "ledger", evidence.path("ledger"), [], SOUND
    yield "ledger", evidence.path(f"ledger-0-{size}"), [], SOUND
    for part in [(0, 9), (4, 9), (4, size), (9, 9), (size, size)]:
        yield "ledger", evidence.path(f"ledger-{part[0]}-{part[1]}"), [], INCOMPLETE
    yield "tiles", evidence.path("tiles"), [], SOUND
    for kept in (0, 1, 5, size):
        yield "checkpoint", evidence.path(f"checkpoint-{kept}"), [], SOUND
    for seq in (0, 5, size - 1):
        yield "proof", evidence.path(f"proof-{seq}"), [], SOUND
    yield "jsonl", evidence.path("jsonl"), [], SOUND
    yield "jsonl", evidence.path("jsonl-some"), [], SOUND
    yield "csv", evidence.path("csv"), ["--manifest", evidence.path("csv.manifest")], SOUND


def test_every_form_is_what_it_is(evidence: Evidence) -> None:
    forms = set()
    for form, what, options, code in everything(evidence):
        forms.add(form)
        assert evidence.both(form, what, *options) == code, what
        assert evidence.both(form, what, *options, "--tenant", evidence.tenant.id) == code, what
    assert forms == set(ALL_FORMS)


def test_whoever_names_no_key_or_another_is_told(evidence: Evidence) -> None:
    for form, what, options, code in everything(evidence):
        assert evidence.both(form, what, *options, "--key", STRANGERS_KEY) == code, "one of several keys is enough"
        if code == SOUND:
            assert evidence.both(form, what, *options, key=None) == UNNAMED_KEY, what
            assert evidence.both(form, what, *options, key=STRANGERS_KEY) == UNNAMED_KEY, what


def test_by_whom_it_is_signed_counts_more_than_that_it_is_a_part(evidence: Evidence) -> None:
    for form, what, options, code in everything(evidence):
        if code == INCOMPLETE and form == "ledger":
            assert evidence.both(form, what, *options, key=None) == UNNAMED_KEY, what
            assert evidence.both(form, what, *options, key=STRANGERS_KEY) == UNNAMED_KEY, what


def test_another_tenant_was_expected(evidence: Evidence) -> None:
    for form, what, options, _ in everything(evidence):
        assert evidence.both(form, what, *options, "--tenant", "somebody_else") == NOT_SOUND, what


def test_what_was_written_by_the_running_server_and_by_the_stopped_one_is_the_same(evidence: Evidence) -> None:
    """The files of this module and the data directory: `running` verifies that one at the end."""
    lines = evidence.path("ledger").read_text().splitlines()
    assert lines[1:-1] == evidence.path(f"ledger-0-{evidence.size}").read_text().splitlines()[1:-1]


# -- What is bad -------------------------------------------------------------------------------------


def drop_last_line(data: bytes) -> bytes:
    return data[: data.rstrip(b"\n").rindex(b"\n") + 1]


def without_line(number: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        return b"".join(lines[:number] + lines[number + 1 :])

    return change


def line_changed(number: int, change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        parsed = json.loads(lines[number])
        change(parsed)
        lines[number] = json.dumps(parsed, separators=(",", ":")).encode() + b"\n"
        return b"".join(lines)

    return edit


def flip(line: dict[str, Any], at: int) -> None:
    raw = bytearray(base64.b64decode(line["entry"]))
    raw[at] ^= 4
    line["entry"] = base64.b64encode(raw).decode()


LEDGER_ATTACKS: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "nothing": (lambda data: data, SOUND),
    "no last newline": (lambda data: data[:-1], SOUND),
    "no end": (drop_last_line, INCOMPLETE),
    "cut off within the end": (lambda data: data[:-30], INCOMPLETE),
    "cut off within an entry": (lambda data: data[: len(data) // 2], INCOMPLETE),
    "only the header": (lambda data: data[: data.index(b"\n") + 1], INCOMPLETE),
    "half the header": (lambda data: data[: data.index(b"\n") // 2], COULD_NOT_CHECK),
    "no header": (without_line(0), COULD_NOT_CHECK),
    "empty": (lambda data: b"", COULD_NOT_CHECK),
    "an entry missing": (without_line(4), NOT_SOUND),
    "the first entry missing": (without_line(1), NOT_SOUND),
    "the last entry missing": (lambda data: without_line(-2 % len(data.splitlines()))(data), NOT_SOUND),
    "something after the end": (lambda data: data + b"\n", NOT_SOUND),
    "a line of garbage": (lambda data: data.replace(b"\n", b"\ngarbage\n", 1), NOT_SOUND),
    "a bit of a header": (line_changed(3, lambda line: flip(line, 30)), NOT_SOUND),
    "a bit of a payload": (line_changed(3, lambda line: flip(line, 190)), NOT_SOUND),
    "a bit of a hash": (line_changed(3, lambda line: flip(line, -90)), NOT_SOUND),
    "a bit of a key id": (line_changed(3, lambda line: flip(line, -70)), NOT_SOUND),
    "a bit of the first key id": (line_changed(1, lambda line: flip(line, -70)), NOT_SOUND),
    "a bit of a signature": (line_changed(3, lambda line: flip(line, -60)), NOT_SOUND),
    "another seq on a line": (line_changed(3, lambda line: line.update(seq=3)), NOT_SOUND),
    "another kind on a line": (line_changed(3, lambda line: line.update(kind="key.minted")), NOT_SOUND),
    "another time on a line": (line_changed(3, lambda line: line.update(at=line["at"][:-2] + "xZ")), NOT_SOUND),
    "another hash on a line": (line_changed(3, lambda line: line.update(hash="00" * 32)), NOT_SOUND),
    "another actor on a line": (line_changed(3, lambda line: line.update(actor="system")), NOT_SOUND),
    "another request on a line": (line_changed(3, lambda line: line.update(request_id="x")), NOT_SOUND),
    "other rules on a line": (line_changed(3, lambda line: line.update(rules=2)), NOT_SOUND),
    "another link on a line": (line_changed(3, lambda line: line.update(prev="00" * 32)), NOT_SOUND),
    "another key id on a line": (line_changed(3, lambda line: line.update(key_id="00" * 8)), NOT_SOUND),
    "another signature on a line": (line_changed(3, lambda line: line.update(signature="00" * 64)), NOT_SOUND),
    "a smaller size": (line_changed(-1, lambda line: line.update(size=line["size"] - 1)), NOT_SOUND),
    "a larger size": (line_changed(-1, lambda line: line.update(size=line["size"] + 1)), NOT_SOUND),
    "another head": (line_changed(-1, lambda line: line.update(head="00" * 32)), NOT_SOUND),
    "another root": (line_changed(-1, lambda line: line.update(root="00" * 32)), NOT_SOUND),
    "no checkpoint": (line_changed(-1, lambda line: line.pop("checkpoint")), INCOMPLETE),
    "a checkpoint of garbage": (line_changed(-1, lambda line: line.update(checkpoint="garbage")), NOT_SOUND),
    "a checkpoint that is no text": (line_changed(-1, lambda line: line.update(checkpoint=7)), NOT_SOUND),
    "a forged checkpoint": (
        line_changed(-1, lambda line: line.update(checkpoint=line["checkpoint"][:-20] + "AAAA" + line["checkpoint"][-16:])),
        NOT_SOUND,
    ),
    "a version to come": (line_changed(0, lambda line: line.update(version=2)), COULD_NOT_CHECK),
    "another format": (line_changed(0, lambda line: line.update(format="x")), COULD_NOT_CHECK),
    "another tenant in the header": (line_changed(0, lambda line: line.update(tenant_id="somebody_else")), NOT_SOUND),
    "a larger stream size": (line_changed(0, lambda line: line.update(stream_size=10_000)), INCOMPLETE),
    "no keys in the header": (line_changed(0, lambda line: line.update(public_keys=[])), SOUND),
    "a beginning without peaks": (line_changed(0, lambda line: line.update({"from": 3, "peaks": []})), COULD_NOT_CHECK),
    "a beginning that is not so": (
        line_changed(0, lambda line: line.update({"from": 2, "peaks": ["00" * 32], "prev": "00" * 32})),
        NOT_SOUND,
    ),
    "unknown members": (line_changed(0, lambda line: line.update(more=[1.5, None])), SOUND),
}


@pytest.mark.parametrize("name", LEDGER_ATTACKS)
def test_attacks_on_a_ledger_export(evidence: Evidence, name: str) -> None:
    change, code = LEDGER_ATTACKS[name]
    assert evidence.both("ledger", evidence.altered("ledger", change)) == code


PART_ATTACKS: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "nothing": (lambda data: data, INCOMPLETE),
    "another peak": (line_changed(0, lambda line: line["peaks"].__setitem__(0, "00" * 32)), NOT_SOUND),
    "a peak missing": (line_changed(0, lambda line: line.update(peaks=[])), COULD_NOT_CHECK),
    "no peaks": (line_changed(0, lambda line: line.pop("peaks")), COULD_NOT_CHECK),
    "another link": (line_changed(0, lambda line: line.update(prev="00" * 32)), NOT_SOUND),
    "no link": (line_changed(0, lambda line: line.pop("prev")), COULD_NOT_CHECK),
    "another beginning": (line_changed(0, lambda line: line.update({"from": 8})), NOT_SOUND),
    "a bit of an entry": (line_changed(2, lambda line: flip(line, 190)), NOT_SOUND),
    "no end": (drop_last_line, INCOMPLETE),
}


@pytest.mark.parametrize("name", PART_ATTACKS)
def test_attacks_on_a_part(evidence: Evidence, name: str) -> None:
    change, code = PART_ATTACKS[name]
    assert evidence.both("ledger", evidence.altered("ledger-4-9", change)) == code


# -- What was kept -----------------------------------------------------------------------------------


def note(tenant: str, size: int, root: bytes, signer: Ed25519PrivateKey) -> bytes:
    origin = f"haldir/ledger/{tenant}"
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n".encode()
    signed = vl.note.key_hash(origin, signer.public_key().public_bytes_raw()) + signer.sign(text)
    return text + f"\n— {origin} {base64.b64encode(signed).decode()}\n".encode()


def signing_key(evidence: Evidence) -> Ed25519PrivateKey:
    """The server's own key: what an operator who cheats has."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = (evidence.tenant.server.data / "signing.key").read_bytes()
    try:
        key = load_pem_private_key(data, None)
    except ValueError:
        key = Ed25519PrivateKey.from_private_bytes(data if len(data) == 32 else bytes.fromhex(data.decode().strip()))
    assert isinstance(key, Ed25519PrivateKey)
    return key


def test_checkpoints_that_were_kept(evidence: Evidence, tmp_path: Path) -> None:
    size = evidence.size
    kept = [option for it in (0, 1, 5, size) for option in ("--checkpoint", evidence.path(f"checkpoint-{it}"))]
    assert evidence.both("ledger", evidence.path("ledger"), *kept) == SOUND
    assert evidence.both("tiles", evidence.path("tiles"), *kept) == SOUND
    newest = ("--checkpoint", evidence.path(f"checkpoint-{size}"))
    no_end = evidence.altered("ledger", drop_last_line)
    assert evidence.both("ledger", no_end, *newest) == SOUND, "it takes the place of the missing end"
    assert evidence.both("ledger", no_end, "--checkpoint", evidence.path("checkpoint-5")) == INCOMPLETE

    # A stream that lost its newest entries, with an end to match: whole for whoever kept nothing.
    shorter = tmp_path / "shorter.jsonl"
    change = line_changed(0, lambda line: line.update(stream_size=9))
    shorter.write_bytes(change(evidence.path("ledger-0-9").read_bytes()))
    assert evidence.both("ledger", shorter) == SOUND
    assert evidence.both("ledger", shorter, *newest) == TRUNCATED
    assert evidence.both("ledger", shorter, *newest, key=None) == TRUNCATED
    assert evidence.both("ledger", shorter, "--checkpoint", evidence.path("checkpoint-5")) == SOUND


def test_a_part_that_ends_before_what_was_kept_is_not_truncated(evidence: Evidence) -> None:
    newest = ("--checkpoint", evidence.path(f"checkpoint-{evidence.size}"))
    assert evidence.both("ledger", evidence.path("ledger-4-9"), *newest) == INCOMPLETE
    assert evidence.both("ledger", evidence.path("ledger-0-9"), *newest) == INCOMPLETE


def test_a_history_that_was_shown_to_somebody_else(evidence: Evidence, tmp_path: Path) -> None:
    """The operator signed another root of one size. Whoever kept it finds out, wherever it is."""
    tenant = evidence.tenant.id
    other = tmp_path / "other"
    for size in (1, 5, evidence.size):
        other.write_bytes(note(tenant, size, bytes(32), signing_key(evidence)))
        kept = ("--checkpoint", other)
        assert evidence.both("ledger", evidence.path("ledger"), *kept) == ANOTHER_HISTORY, size
        assert evidence.both("tiles", evidence.path("tiles"), *kept) == ANOTHER_HISTORY, size
    assert evidence.both("checkpoint", evidence.path(f"checkpoint-{evidence.size}"), *kept) == ANOTHER_HISTORY
    assert evidence.both("proof", evidence.path("proof-5"), *kept) == ANOTHER_HISTORY
    assert evidence.both("ledger", evidence.altered("ledger", drop_last_line), *kept) == ANOTHER_HISTORY


@pytest.mark.parametrize("tenant", [None, "somebody_else"])
def test_what_was_kept_cannot_be_left_out(evidence: Evidence, tmp_path: Path, tenant: str | None) -> None:
    """Nobody known signed it, but it is not true; or it is another stream's and cannot be compared."""
    path = tmp_path / "kept"
    signer = signing_key(evidence) if tenant else STRANGER
    path.write_bytes(note(tenant or evidence.tenant.id, 5, bytes(32), signer))
    expected = COULD_NOT_CHECK if tenant else NOT_SOUND
    assert evidence.both("ledger", evidence.path("ledger"), "--checkpoint", path) == expected


def test_what_was_kept_is_no_checkpoint(evidence: Evidence, tmp_path: Path) -> None:
    path = tmp_path / "kept"
    for data in [b"garbage", b"", evidence.path("checkpoint-5").read_bytes()[:-1]]:
        path.write_bytes(data)
        assert evidence.both("ledger", evidence.path("ledger"), "--checkpoint", path) == COULD_NOT_CHECK, data
    missing = ("--checkpoint", tmp_path / "missing")
    assert evidence.both("ledger", evidence.path("ledger"), *missing) == COULD_NOT_CHECK


# -- Root keys ---------------------------------------------------------------------------------------


def certificate(root: Ed25519PrivateKey, key: bytes) -> str:
    public = root.public_key().public_bytes_raw()
    signature = root.sign(vl.primitives.certificate_message(public, key))
    return f"haldir-key-certificate-v1 {public.hex()} {key.hex()} {signature.hex()}"


def test_root_keys(evidence: Evidence) -> None:
    public = signing_key(evidence).public_key().public_bytes_raw()
    good = certificate(STRANGER, public)
    root = ("--root", STRANGERS_KEY)

    def with_certificates(*texts: str) -> Path:
        return evidence.altered("ledger", line_changed(0, lambda line: line.update(certificates=list(texts))))

    assert evidence.both("ledger", with_certificates(good), *root, key=None) == SOUND
    assert evidence.both("ledger", with_certificates("garbage", good), *root, key=None) == SOUND
    assert evidence.both("ledger", with_certificates(), *root, key=None) == UNNAMED_KEY
    assert evidence.both("ledger", with_certificates(good[:-1] + ("0" if good[-1] != "0" else "1")), *root, key=None) == UNNAMED_KEY
    assert evidence.both("ledger", with_certificates(good), key=None) == UNNAMED_KEY
    assert evidence.both("ledger", with_certificates(), *root) == SOUND, "one's own trust counts as much"


# -- The other forms ---------------------------------------------------------------------------------


def flipped_at(at: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[at] ^= 1
        return bytes(changed)

    return change


@pytest.mark.parametrize("name", ["proof-5", "checkpoint-5", "jsonl", "csv"])
def test_every_form_finds_a_wrong_byte(evidence: Evidence, name: str) -> None:
    form = name.partition("-")[0]
    length = evidence.path(name).stat().st_size
    options = ["--manifest", evidence.path("csv.manifest")] if form == "csv" else []
    for at in range(0, length, max(1, length // 60)):
        code = evidence.both(form, evidence.altered(name, flipped_at(at)), *options)
        assert code in (NOT_SOUND, COULD_NOT_CHECK, UNNAMED_KEY), (at, code)


def test_trails_that_were_cut_off(evidence: Evidence) -> None:
    assert evidence.both("jsonl", evidence.altered("jsonl", drop_last_line)) == INCOMPLETE
    assert evidence.both("jsonl", evidence.altered("jsonl", lambda data: data[: len(data) // 2])) == INCOMPLETE
    manifest = ("--manifest", evidence.path("csv.manifest"))
    assert evidence.both("csv", evidence.altered("csv", drop_last_line), *manifest) == NOT_SOUND
    assert evidence.both("csv", evidence.path("csv")) == COULD_NOT_CHECK, "a table needs its manifest"


def test_every_file_of_the_tiles_is_looked_at(evidence: Evidence, tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    shutil.copytree(evidence.path("tiles"), folder)
    for path in [it for it in folder.rglob("*") if it.is_file()]:
        data = path.read_bytes()
        for at in range(0, len(data), max(1, len(data) // 7)):
            path.write_bytes(flipped_at(at)(data))
            assert evidence.both("tiles", folder) in (NOT_SOUND, COULD_NOT_CHECK, UNNAMED_KEY), (path, at)
        path.unlink()
        assert evidence.both("tiles", folder) in (INCOMPLETE, COULD_NOT_CHECK), path
        path.write_bytes(data)
    assert evidence.both("tiles", folder) == SOUND


# -- The data directory, and a server that is asked --------------------------------------------------


def test_the_program_asks_a_server_and_believes_nothing(evidence: Evidence) -> None:
    server, tenant = evidence.tenant.server, evidence.tenant
    remote = ("--key", tenant.key, "--url", server.base_url, "audit", "verify", "--json")
    done = server.run(*remote, "--key", evidence.key)
    assert done.returncode == SOUND, done.stdout + done.stderr
    assert server.run(*remote, "--key", STRANGERS_KEY).returncode == UNNAMED_KEY
    kept = ("--checkpoint", evidence.path("checkpoint-5"))
    assert server.run(*remote, "--key", evidence.key, *kept).returncode == SOUND
