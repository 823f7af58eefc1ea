"""Proofs, tree heads and checkpoints, asked for and checked by programs that others wrote.

The published client and its command line check what the server proves, `cryptography` checks its
signatures, and the independent verifier of `tools` its checkpoints and proof files.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from haldir import (
    HaldirNotFoundError,
    verify_consistency_proof,
    verify_inclusion_proof,
    verify_sth,
)

import verify_ledger.note as verify_ledger_note
from harness import PATIENCE_S, Server, Tenant, created, found, refusal, running, verify_apart

StartServer = Callable[..., Server]
NO_METERING = ("--meter-interval", "1h")
SIZES = 20


def log(tenant: Tenant, session: str, action: str = "act") -> str:
    return created(tenant.post("/v1/audit", {"session_id": session, "action": action}))["entry_id"]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that records nothing on its own, so that sizes are what the tests made them."""
    with ExitStack() as stack:
        yield stack.enter_context(running(Server(tmp_path_factory.mktemp("quiet"), options=NO_METERING)))


@pytest.fixture
def owner(quiet: Server) -> Tenant:
    return quiet.found_tenant()


@pytest.fixture
def grown(owner: Tenant) -> Tenant:
    """A tenant with exactly `SIZES` entries."""
    session = owner.open_session()
    for number in range(SIZES - 2):
        log(owner, session, f"act {number}")
    assert len(owner.ledger()) == SIZES
    return owner


# -- The published client ----------------------------------------------------------------------------


def test_every_size_of_a_growing_ledger(owner: Tenant) -> None:
    """At each size: a signed head, a proof of every logged action, and of every size before."""
    session = owner.open_session()
    roots: dict[int, str] = {}
    ids: list[str] = []
    with owner.client() as client:
        for size in range(2, SIZES):
            head = client.get_tree_head()
            assert head["tree_size"] == size and head["tenant_id"] == owner.id
            assert verify_sth(head)
            assert not verify_sth(head | {"tree_size": size + 1})
            assert not verify_sth(head | {"root_hash": "00" * 32})
            roots[size] = head["root_hash"]
            for number, entry_id in enumerate(ids):
                proof = client.get_inclusion_proof(entry_id)
                assert verify_inclusion_proof(proof), proof
                assert (proof["leaf_index"], proof["tree_size"]) == (number + 2, size)
                assert proof["root_hash"] == head["root_hash"] == proof["sth"]["root_hash"]
                assert proof["entry_id"] == entry_id and verify_sth(proof["sth"])
                assert not verify_inclusion_proof(proof | {"leaf_index": number})
            for first, root in roots.items():
                proof = client.get_consistency_proof(first, size)
                assert verify_consistency_proof(proof), proof
                assert (proof["first_root"], proof["second_root"]) == (root, head["root_hash"])
                assert (proof["first_size"], proof["second_size"]) == (first, size)
                assert (proof["consistency_path"] == []) == (first == size)
                assert not verify_consistency_proof(proof | {"first_root": "00" * 32})
            ids.append(log(owner, session))


def test_every_pair_of_sizes(grown: Tenant) -> None:
    with grown.client() as client:
        for second in range(1, SIZES + 1):
            for first in range(1, second + 1):
                proof = client.get_consistency_proof(first, second)
                assert verify_consistency_proof(proof)
                if proof["consistency_path"]:
                    spoiled = ["00" * 32, *proof["consistency_path"][1:]]
                    assert not verify_consistency_proof(proof | {"consistency_path": spoiled})


def test_every_entry_by_its_seq(grown: Tenant) -> None:
    """Entries of every kind have proofs, not only those of the audit trail."""
    entries = grown.ledger()
    for seq in range(SIZES):
        proof = found(grown.get(f"/v1/audit/inclusion-proof/{seq}"))
        assert verify_inclusion_proof(proof) and proof["leaf_index"] == seq
        assert proof["leaf_hash"] == leaf_of(entries[seq].raw).hex()


def leaf_of(raw: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + raw).digest()


def test_the_asynchronous_client(grown: Tenant) -> None:
    async def ask() -> None:
        async with grown.async_client() as client:
            assert verify_sth(await client.get_tree_head())
            entry = found(grown.get("/v1/audit"))["entries"][0]["entry_id"]
            assert verify_inclusion_proof(await client.get_inclusion_proof(entry))
            assert verify_consistency_proof(await client.get_consistency_proof(3, SIZES))

    asyncio.run(ask())


def test_an_unknown_entry_is_an_error_of_the_client(grown: Tenant) -> None:
    with grown.client() as client, pytest.raises(HaldirNotFoundError):
        client.get_inclusion_proof("aud_unknown")


def test_the_key_of_a_head_is_the_one_that_is_published(grown: Tenant, tmp_path: Path) -> None:
    head = found(grown.get("/v1/audit/tree-head"))
    (published,) = found(grown.server.call("GET", "/.well-known/jwks.json"))["keys"]
    assert (published["kty"], published["crv"], published["alg"], published["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")
    raw = base64.urlsafe_b64decode(published["x"] + "=" * (-len(published["x"]) % 4))
    assert "=" not in published["x"] and len(raw) == 32
    assert raw.hex() == head["public_key"] and published["kid"] == head["key_id"]
    key = Ed25519PublicKey.from_public_bytes(raw)
    text = f"sth:{head['tree_size']}:{head['root_hash']}:{head['signed_at']}".encode()
    key.verify(bytes.fromhex(head["signature"]), text)
    with pytest.raises(InvalidSignature):
        key.verify(bytes.fromhex(head["signature"]), text + b"0")


def test_every_head_that_comes_with_jwks_is_one_that_pyjwt_reads(grown: Tenant) -> None:
    keys = jwt.PyJWKSet.from_dict(found(grown.server.call("GET", "/.well-known/jwks.json")))
    assert [key.key_id for key in keys.keys] == [found(grown.get("/v1/audit/tree-head"))["key_id"]]


# -- The published command line ----------------------------------------------------------------------


def haldir(tenant: Tenant, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("haldir")
    environment = {**os.environ, "HALDIR_API_KEY": tenant.key, "HALDIR_BASE_URL": tenant.server.base_url, "HOME": str(folder)}
    return subprocess.run(
        [program, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def test_the_published_program_checks_proofs(grown: Tenant, tmp_path: Path) -> None:
    entry = found(grown.get("/v1/audit"))["entries"][3]["entry_id"]
    path = tmp_path / "proof.json"
    made = haldir(grown, tmp_path, "audit", "prove", entry, "--out", path)
    assert made.returncode == 0, made.stderr
    checked = haldir(grown, tmp_path, "audit", "verify-proof", path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    proof = json.loads(path.read_text())
    proof["audit_path"][0] = "00" * 32
    path.write_text(json.dumps(proof))
    assert haldir(grown, tmp_path, "audit", "verify-proof", path).returncode == 1

    for first, second in [(1, SIZES), (7, 13), (8, 16), (SIZES, SIZES)]:
        done = haldir(grown, tmp_path, "audit", "consistency", str(first), str(second))
        assert done.returncode == 0, done.stdout + done.stderr
    assert haldir(grown, tmp_path, "audit", "consistency", "1", str(SIZES + 1)).returncode == 1
    head = haldir(grown, tmp_path, "audit", "tree-head", "--json")
    assert head.returncode == 0 and verify_sth(json.loads(head.stdout))
    assert str(SIZES) in haldir(grown, tmp_path, "audit", "tree-head").stdout
    assert haldir(grown, tmp_path, "audit", "prove", "aud_unknown").returncode == 1


# -- The log of heads --------------------------------------------------------------------------------


def test_the_log_of_heads(owner: Tenant) -> None:
    session = owner.open_session()
    empty = found(owner.get("/v1/audit/sth-log"))
    assert (empty["count"], empty["earliest"], empty["latest"], empty["sths"]) == (0, None, None, [])
    heads = []
    for _ in range(6):
        heads.append(found(owner.get("/v1/audit/tree-head")))
        found(owner.get("/v1/audit/tree-head"))  # the first observation of a size stays
        log(owner, session)
    told = found(owner.get("/v1/audit/sth-log"))
    assert told["count"] == 6 and told["tenant_id"] == owner.id
    assert [row["tree_size"] for row in told["sths"]] == [head["tree_size"] for head in heads] == [*range(2, 8)]
    assert (told["earliest"], told["latest"]) == (told["sths"][0], told["sths"][-1])
    for row, head in zip(told["sths"], heads):
        assert verify_sth(row)
        same = ["tree_size", "root_hash", "algorithm", "signature", "signed_at", "key_id", "public_key", "tenant_id"]
        assert {name: row[name] for name in same} == {name: head[name] for name in same}
        assert isinstance(row["recorded_at"], (int, float))
    for since in range(9):
        some = found(owner.get("/v1/audit/sth-log", params={"since": since}))
        assert [row["tree_size"] for row in some["sths"]] == [size for size in range(2, 8) if size > since]
    limited = found(owner.get("/v1/audit/sth-log", params={"limit": 2, "since": 3}))
    assert [row["tree_size"] for row in limited["sths"]] == [4, 5]
    for limit, rows in [("0", 1), ("10001", 6), ("1", 1)]:
        assert len(found(owner.get("/v1/audit/sth-log", params={"limit": limit}))["sths"]) == rows
    for bad in [{"since": "x"}, {"limit": "x"}, {"since": "-1"}, {"since": "1.5"}, {"limit": "9" * 30}]:
        refusal(owner.get("/v1/audit/sth-log", params=bad), 400, "invalid_argument")


def test_a_head_that_was_kept_is_compared_with_the_log(owner: Tenant, stranger: Tenant) -> None:
    head = found(owner.get("/v1/audit/tree-head"))
    size, root = head["tree_size"], head["root_hash"]

    def ask(**query: Any) -> dict[str, Any]:
        return found(owner.get("/v1/audit/sth-log/verify", params=query))

    for text in [root, root.upper(), f" {root} "]:
        match = ask(pinned_size=size, pinned_root=text)
        assert (match["verified"], match["reason"]) == (True, "match")
        assert (match["pinned_tree_size"], match["pinned_root_hash"]) == (size, root)
        assert match["recorded"]["signature"] == head["signature"]
    other = ask(pinned_size=size, pinned_root="ab" * 32)
    assert (other["verified"], other["reason"]) == (False, "equivocation")
    assert other["recorded_root_hash"] == root and other["recorded"]["root_hash"] == root and other["note"]
    ahead = ask(pinned_size=size + 1, pinned_root=root)
    assert (ahead["verified"], ahead["reason"]) == (False, "not_in_log") and ahead["note"]
    assert "recorded" not in ahead
    for query in [
        {},
        {"pinned_size": size},
        {"pinned_root": root},
        {"pinned_size": "x", "pinned_root": root},
        {"pinned_size": -1, "pinned_root": root},
        {"pinned_size": size, "pinned_root": ""},
    ]:
        refusal(owner.get("/v1/audit/sth-log/verify", params=query), 400, "invalid_argument")
    assert found(stranger.get("/v1/audit/sth-log"))["count"] == 0, "nobody sees another tenant's heads"


def test_the_log_of_heads_survives_a_kill(start_server: StartServer) -> None:
    server = start_server(options=NO_METERING)
    tenant = server.found_tenant()
    heads = [found(tenant.get("/v1/audit/tree-head"))]
    tenant.open_session()
    heads.append(found(tenant.get("/v1/audit/tree-head")))
    server.kill()
    server.start()
    told = found(tenant.get("/v1/audit/sth-log"))["sths"]
    assert [row["signature"] for row in told] == [head["signature"] for head in heads]


# -- What is refused ---------------------------------------------------------------------------------


def test_refusals(grown: Tenant, stranger: Tenant) -> None:
    path = "/v1/audit/inclusion-proof/"
    foreign = created(stranger.post("/v1/audit", {"session_id": stranger.open_session(), "action": "x"}))["entry_id"]
    for unknown in ["aud_unknown", str(SIZES), "99999999999999999999999", "-1", "%20", "a%2Fb", "1e3", foreign]:
        said = refusal(grown.get(path + unknown), 404, "not_found")
        assert said["request_id"] and "entry_id" in said
        refusal(grown.get("/v1/ledger/proof/" + unknown), 404, "not_found")
    consistency = "/v1/audit/consistency-proof"
    for query in [{}, {"first": 1}, {"second": 1}, {"first": "x", "second": 2}, {"first": 1.5, "second": 2}, {"first": "", "second": 2}]:
        assert refusal(grown.get(consistency, params=query), 400, "invalid_argument")["request_id"]
    for first, second in [(0, 1), (2, 1), (1, SIZES + 1), (SIZES + 1, SIZES + 1)]:
        said = refusal(grown.get(consistency, params={"first": first, "second": second}), 400, "invalid_range")
        assert (said["first"], said["second"]) == (first, second)
    for size in [SIZES + 1, "x", -1, 2**64, "1.0"]:
        refusal(grown.get("/v1/ledger/checkpoint", params={"size": size}), 400)
    reader = grown.mint("sessions:read")
    for path in ["/v1/audit/tree-head", "/v1/audit/inclusion-proof/1", f"{consistency}?first=1&second=2", "/v1/audit/sth-log",
                 "/v1/ledger/checkpoint", "/v1/ledger/proof/1", "/v1/ledger/export", "/v1/ledger/events"]:  # fmt: skip
        refusal(grown.get(path, key=reader), 403, "insufficient_scope")
        refusal(grown.server.call("GET", path), 401)


# -- While writes go on ------------------------------------------------------------------------------


def test_proofs_stay_right_while_others_write(owner: Tenant) -> None:
    session = owner.open_session()
    ids = [log(owner, session)]
    stop = threading.Event()

    def write(number: int) -> None:
        while not stop.is_set() and len(ids) < 2000:
            ids.append(log(owner, session, f"{number}"))

    with ThreadPoolExecutor(4) as pool, owner.client() as client:
        writers = [pool.submit(write, number) for number in range(3)]
        try:
            earlier = client.get_tree_head()
            for round in range(60):
                head = client.get_tree_head()
                assert verify_sth(head) and head["tree_size"] >= earlier["tree_size"]
                proof = client.get_consistency_proof(earlier["tree_size"], head["tree_size"])
                assert verify_consistency_proof(proof)
                assert (proof["first_root"], proof["second_root"]) == (earlier["root_hash"], head["root_hash"])
                proof = client.get_inclusion_proof(ids[round % len(ids)])
                assert verify_inclusion_proof(proof) and verify_sth(proof["sth"])
                assert proof["root_hash"] == proof["sth"]["root_hash"] and proof["tree_size"] == proof["sth"]["tree_size"]
                assert verify_inclusion_proof(client.get_inclusion_proof(ids[-1])), "what was acknowledged can be proved"
                earlier = head
        finally:
            stop.set()
        for writer in writers:
            writer.result()


# -- Checkpoints and proof files ---------------------------------------------------------------------


def test_checkpoints_and_proof_files_of_every_size(grown: Tenant, tmp_path: Path) -> None:
    public = grown.server.data / "signing.pub"
    known = ("--key", public, "--tenant", grown.id)
    kept = []
    for size in range(SIZES + 1):
        answer = grown.get("/v1/ledger/checkpoint", params={"size": size})
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
        path = tmp_path / f"checkpoint-{size}"
        path.write_bytes(answer.content)
        code, said = verify_apart(path, *known, "--json")
        assert (code, json.loads(said)["size"]) == (0, size), said
        if size:
            proof = found(grown.get("/v1/audit/consistency-proof", params={"first": size, "second": SIZES}))
            assert proof["first_root"] == json.loads(said)["root"]
        kept += ["--checkpoint", path]
    assert grown.get("/v1/ledger/checkpoint").content == answer.content
    export = tmp_path / "export.jsonl"
    export.write_bytes(grown.get("/v1/ledger/export").content)
    code, said = verify_apart(export, *known, *kept)
    assert code == 0, said

    path = tmp_path / "proof"
    actions = {row["entry_id"] for row in found(grown.get("/v1/audit"))["entries"]}
    for name in [*map(str, range(SIZES)), *actions]:
        answer = grown.get(f"/v1/ledger/proof/{name}")
        assert answer.status_code == 200
        assert f'filename="{name}.tlog-proof"' in answer.headers["content-disposition"]
        path.write_bytes(answer.content)
        code, said = verify_apart(path, *known, "--checkpoint", tmp_path / f"checkpoint-{SIZES}", "--json")
        assert code == 0, said
        if name.isdigit():
            assert json.loads(said)["index"] == int(name)


def test_a_checkpoint_does_not_change(grown: Tenant) -> None:
    """One size has one root, however often it is asked for and whatever comes after."""
    before = {size: text_of(grown, size) for size in range(SIZES + 1)}
    log(grown, grown.open_session())
    assert {size: text_of(grown, size) for size in range(SIZES + 1)} == before


def text_of(tenant: Tenant, size: int) -> str:
    answer = tenant.get("/v1/ledger/checkpoint", params={"size": size})
    assert answer.status_code == 200
    return answer.text.partition("\n\n")[0]
