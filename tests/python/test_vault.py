"""Secrets: stored, read through sessions, erased; and the master keys, rotated while everybody reads.

What a secret's value is, nobody finds out from the files: neither while it is stored nor afterwards. The
files are opened here as "Sealed values" in ledger-format.md describes them, without the program.
"""

from __future__ import annotations

import base64
import json
import os
import random
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blake3
import httpx
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from haldir import HaldirAuthError, HaldirNotFoundError, HaldirPermissionError

from harness import Server, Tenant, at_once, created, found, refusal

ODD_NAMES = [
    "a/b",
    "a/b/c.d",
    "two words",
    " leading and trailing ",
    "100%",
    "%2F",
    "%zz",
    "a+b",
    "why?",
    "#1",
    "a&b=c;d",
    "ключ",
    "鍵🔑",
    "e\u0301",
    "\u202e",
    "..hidden",
    "...",
    ".env",
    "a\\b",
    "'\"<>{}|^`",
    "x" * 256,
    "\U0001f511" * 256,
]

IMPOSSIBLE_NAMES = ["", ".", "..", "/", "a/", "/a", "a//b", "a/../b", "./a", "\n", "a\0b", "\x7f", "\x85", "x" * 257]


def path_of(name: str, *, keep: str = "") -> str:
    return "/v1/secrets/" + urllib.parse.quote(name, safe=keep)


def store(tenant: Tenant, name: str, value: str, scope: str = "read", **options: Any) -> dict[str, Any]:
    return created(tenant.post("/v1/secrets", {"name": name, "value": value, "scope_required": scope}, **options))


def read(tenant: Tenant, name: str, session: str, **params: Any) -> httpx.Response:
    return tenant.get(path_of(name), headers={"X-Session-ID": session}, params=params)


def details(tenant: Tenant) -> list[dict[str, Any]]:
    return found(tenant.get("/v1/secrets", params={"details": "true"}))["details"]


def events(tenant: Tenant, *kinds: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in tenant.get("/v1/ledger/export").text.splitlines()]
    return [{"kind": line["kind"], **line["event"]} for line in lines if line.get("kind") in kinds]


# ---------------------------------------------------------------------------------------------
# The wire
# ---------------------------------------------------------------------------------------------


def test_the_published_client_keeps_secrets(tenant: Tenant) -> None:
    client = tenant.client()
    session = client.create_session("reader", scopes=["read"])["session_id"]
    assert client.store_secret("stripe", "sk_live_1")["stored"] is True
    assert client.get_secret("stripe", session_id=session)["value"] == "sk_live_1"
    assert client.list_secrets() == {"secrets": ["stripe"], "count": 1}
    client.store_secret("deploy/key", "sk_live_2", scope_required="deploy")
    with pytest.raises(HaldirPermissionError):
        client.get_secret("deploy/key", session_id=session)
    with pytest.raises(HaldirAuthError):
        client.get_secret("stripe", session_id="ses_nobody")
    with pytest.raises(HaldirNotFoundError):
        client.get_secret("paypal", session_id=session)
    assert client.delete_secret("stripe")["deleted"] is True
    with pytest.raises(HaldirNotFoundError):
        client.delete_secret("stripe")
    assert client.list_secrets() == {"secrets": ["deploy/key"], "count": 1}


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_a_name_comes_back_as_it_was_given(tenant: Tenant, name: str) -> None:
    session = tenant.open_session(scopes=["read"])
    store(tenant, name, f"value of {name}")
    assert found(tenant.get("/v1/secrets"))["secrets"] == [name]
    for address in {path_of(name), path_of(name, keep="/"), path_of(name, keep="/+&=;'")}:
        body = found(tenant.get(address, headers={"X-Session-ID": session}))
        assert (body["name"], body["value"]) == (name, f"value of {name}"), address
    assert found(tenant.delete(path_of(name)))["name"] == name
    assert found(tenant.get("/v1/secrets")) == {"secrets": [], "count": 0}


@pytest.mark.parametrize("name", IMPOSSIBLE_NAMES, ids=ascii)
def test_a_name_that_cannot_be_addressed_is_refused_at_once(tenant: Tenant, name: str) -> None:
    before = tenant.record()
    body = refusal(tenant.post("/v1/secrets", {"name": name, "value": "v"}), 400, "invalid_request")
    assert body["field"] == "name"
    assert tenant.record() == before


def test_names_are_text_and_nothing_else(tenant: Tenant) -> None:
    before = tenant.record()
    for body in [
        {"name": 5, "value": "v"},
        {"name": ["a"], "value": "v"},
        {"name": None, "value": "v"},
        {"value": "v"},
        {"name": "a"},
        {"name": "a", "value": ""},
        {"name": "a", "value": None},
        {"name": "a", "value": 1},
        {"name": "a", "value": {"a": 1}},
        {"name": "a", "value": "v", "scope_required": 1},
        {"name": "a", "value": "v", "scope_required": "s" * 129},
        {"name": "a", "value": "v", "scope_required": "a\nb"},
    ]:
        refusal(tenant.post("/v1/secrets", body), 400, "invalid_request")
    for raw in [b'{"name":"a","value":"\\ud800"}', b'{"name":"a","name":"b","value":"v"}', b'{"name":"a","value":"\xff"}']:
        headers = {"Content-Type": "application/json"}
        refusal(tenant.call("POST", "/v1/secrets", content=raw, headers=headers), 400)
    for path in ["/v1/secrets/%ff", "/v1/secrets/%", "/v1/secrets/%0a", "/v1/secrets/a%00"]:
        refusal(tenant.get(path, headers={"X-Session-ID": "s"}), 400)
    for version in ["-1", "x", "1.5", str(2**64)]:
        refusal(tenant.get("/v1/secrets/a", params={"version": version}, headers={"X-Session-ID": "s"}), 400)
    assert tenant.record() == before


def test_checks_come_in_the_order_of_the_contract_and_each_denial_is_on_record(tenant: Tenant) -> None:
    weak, gone = tenant.open_session(scopes=["browse"]), tenant.open_session(scopes=["read"])
    over = tenant.open_session(scopes=["read"], ttl=1)
    tenant.delete(f"/v1/sessions/{gone}")
    store(tenant, "s", "value")
    time.sleep(1.2)
    refusal(tenant.get(path_of("s")), 400)
    refusal(tenant.get(path_of("nothing")), 400)
    for session in ["ses_nobody", gone, over]:
        refusal(read(tenant, "nothing", session), 401)
        refusal(read(tenant, "s", session), 401)
    refusal(read(tenant, "nothing", weak), 404)
    assert refusal(read(tenant, "s", weak), 403)["required"] == "read"
    refusal(read(tenant, "s", weak, version=2), 404)
    denied = events(tenant, "secret.denied")
    reasons = [event["reason"] for event in denied]
    assert reasons == ["unknown_session"] * 2 + ["revoked"] * 2 + ["expired"] * 2 + [
        "unknown_secret",
        "scope_missing",
        "unknown_secret",
    ]
    assert [event["agent_id"] for event in denied] == [None, None] + ["agent"] * 7
    assert denied[7]["required_scope"] == "read"


def test_a_session_is_named_in_the_header_or_in_the_query(tenant: Tenant) -> None:
    session = tenant.open_session(scopes=["read"])
    store(tenant, "s", "value")
    by_query = tenant.get(path_of("s"), params={"session_id": session})
    assert found(by_query)["value"] == "value"
    assert by_query.headers["Cache-Control"] == "no-store"
    both = tenant.get(path_of("s"), params={"session_id": session}, headers={"X-Session-ID": "ses_nobody"})
    refusal(both, 401)
    empty = tenant.get(path_of("s"), params={"session_id": session}, headers={"X-Session-ID": ""})
    assert found(empty)["value"] == "value"


def test_scopes_are_enforced_as_sessions_hold_them(tenant: Tenant) -> None:
    for scope, holders, strangers in [
        ("read", ["read", "admin"], ["write", "read:only"]),
        ("db:prod", ["db", "db:prod", "admin"], ["db:test", "prod"]),
        ("", ["admin"], ["read", "*"]),
    ]:
        store(tenant, "s", "value", scope)
        for holder in holders:
            found(read(tenant, "s", tenant.open_session(scopes=[holder])))
        for stranger in strangers:
            refusal(read(tenant, "s", tenant.open_session(scopes=[stranger])), 403)


def test_keys_need_the_rights_of_the_vault(tenant: Tenant) -> None:
    session = tenant.open_session(scopes=["read"])
    store(tenant, "s", "value")
    reader, writer, rotator = tenant.mint("vault:read"), tenant.mint("vault:write"), tenant.mint("vault:rotate")
    header = {"X-Session-ID": session}
    found(tenant.get(path_of("s"), key=reader, headers=header))
    found(tenant.get("/v1/vault/keys", key=reader))
    refusal(tenant.get(path_of("s"), key=rotator, headers=header), 403, "insufficient_scope")
    refusal(tenant.get("/v1/secrets", key=tenant.mint("sessions:*")), 403, "insufficient_scope")
    refusal(tenant.delete(path_of("s"), key=reader), 403, "insufficient_scope")
    refusal(tenant.post("/v1/secrets", {"name": "a", "value": "v"}, key=reader), 403, "insufficient_scope")
    refusal(tenant.post("/v1/vault/rotate", key=writer), 403, "insufficient_scope")
    found(tenant.post("/v1/vault/rotate", key=rotator))
    found(tenant.delete(path_of("s"), key=writer))


def test_tenants_do_not_see_each_other(tenant: Tenant, stranger: Tenant) -> None:
    mine, theirs = tenant.open_session(scopes=["admin"]), stranger.open_session(scopes=["admin"])
    store(tenant, "s", "mine")
    refusal(read(tenant, "s", theirs), 401)
    refusal(read(stranger, "s", mine), 401)
    refusal(read(stranger, "s", theirs), 404)
    refusal(stranger.delete(path_of("s")), 404)
    assert found(stranger.get("/v1/secrets"))["count"] == 0
    assert found(stranger.get("/v1/vault/keys"))["total_blobs"] == 0
    assert found(stranger.post("/v1/vault/rotate"))["already_current"] == []
    store(stranger, "s", "theirs")
    assert found(read(tenant, "s", mine))["value"] == "mine"
    assert found(read(stranger, "s", theirs))["value"] == "theirs"


def test_versions_are_kept_and_the_eleventh_pushes_the_first_out(tenant: Tenant) -> None:
    session = tenant.open_session(scopes=["read"])
    for number in range(1, 12):
        assert store(tenant, "s", f"value {number}")["version"] == number
    assert found(read(tenant, "s", session))["value"] == "value 11"
    refusal(read(tenant, "s", session, version=1), 404)
    assert found(read(tenant, "s", session, version=2)) == {"name": "s", "version": 2, "value": "value 2"}
    [row] = details(tenant)
    assert [version["version"] for version in row["versions"]] == list(range(2, 12))
    assert (row["read_count"], row["required_scope"]) == (2, "read")
    assert len(files(tenant)) == 10
    assert found(tenant.delete(path_of("s"), params={"version": 11}))["versions"] == [11]
    refusal(tenant.delete(path_of("s"), params={"version": 11}), 404)
    assert found(read(tenant, "s", session))["value"] == "value 10"
    assert store(tenant, "s", "again")["version"] == 12
    found(tenant.delete(path_of("s")))
    assert files(tenant) == []
    assert store(tenant, "s", "anew")["version"] == 1


def test_an_older_version_keeps_the_scope_it_was_stored_with(tenant: Tenant) -> None:
    session = tenant.open_session(scopes=["read"])
    store(tenant, "s", "for admins", "admin")
    store(tenant, "s", "for readers", "read")
    assert found(read(tenant, "s", session))["value"] == "for readers"
    refusal(read(tenant, "s", session, version=1), 403)


def test_retries_store_once_and_leave_nothing_behind(tenant: Tenant) -> None:
    body = {"name": "s", "value": "once"}
    headers = {"Idempotency-Key": "k"}
    answers = at_once(8, lambda _: tenant.post("/v1/secrets", body, headers=headers))
    assert {created(answer)["version"] for answer in answers} == {1}
    assert len(files(tenant)) == 1
    refusal(tenant.post("/v1/secrets", body | {"value": "twice"}, headers=headers), 422)
    refusal(tenant.post("/v1/secrets", body | {"scope_required": "x"}, headers=headers), 422)
    assert len(files(tenant)) == 1
    assert tenant.record().count("secret.stored") == 1


@pytest.mark.parametrize(
    "value",
    [
        "\0",
        "line\r\nline\u2028\u0085",
        "'\"\\/{}%00",
        "\U0010ffff\ufeff\ufffe",
        "x" * (1_048_576 - len('{"name":"s","value":""}')),
        "é" * ((1_048_576 - len('{"name":"s","value":""}')) // 2),
    ],
    ids=["nul", "line ends", "quotes", "astral", "as large as fits", "as large as fits in two bytes"],
)
def test_any_text_comes_back_byte_for_byte(tenant: Tenant, value: str) -> None:
    session = tenant.open_session(scopes=["read"])
    raw = json.dumps({"name": "s", "value": value}, separators=(",", ":"), ensure_ascii=False).encode()
    answer = tenant.call("POST", "/v1/secrets", content=raw, headers={"Content-Type": "application/json"})
    created(answer)
    assert found(read(tenant, "s", session))["value"] == value


def test_a_value_that_does_not_fit_is_refused_and_leaves_no_trace(tenant: Tenant) -> None:
    before = tenant.record()
    body = refusal(tenant.post("/v1/secrets", {"name": "s", "value": "x" * 1_048_576}), 413, "payload_too_large")
    assert body["max_bytes"] == 1_048_576
    assert tenant.record() == before
    assert files(tenant) == []


def test_when_a_session_is_revoked_no_later_read_succeeds(tenant: Tenant) -> None:
    store(tenant, "s", "value")
    for _ in range(5):
        session = tenant.open_session(scopes=["read"])
        is_revoked, late = threading.Event(), []

        def reads(_: int, session: str = session, is_revoked: threading.Event = is_revoked) -> int:
            count = 0
            for _ in range(200):
                was_revoked = is_revoked.is_set()
                answer = read(tenant, "s", session)
                if answer.status_code == 401:
                    return count
                found(answer)
                assert not was_revoked, "read after the revocation was answered"
                count += 1
            raise AssertionError("never revoked")

        def revokes(_: int, session: str = session, is_revoked: threading.Event = is_revoked) -> int:
            time.sleep(0.05)
            found(tenant.delete(f"/v1/sessions/{session}"))
            is_revoked.set()
            return 0

        late = at_once(4, lambda number: revokes(0) if number == 0 else reads(number))
        kinds = [
            event["kind"]
            for event in events(tenant, "secret.read", "session.revoked")
            if event["session_id"] == session
        ]
        assert kinds == ["secret.read"] * sum(late) + ["session.revoked"]


def test_storing_reading_and_erasing_at_once_never_gives_a_wrong_value(tenant: Tenant) -> None:
    session = tenant.open_session(scopes=["read"])
    names = ["a", "b"]

    def act(number: int) -> None:
        dice = random.Random(number)
        for turn in range(30):
            name = dice.choice(names)
            match dice.choice(["store", "read", "read", "delete"]):
                case "store":
                    store(tenant, name, f"{name}:{number}:{turn}")
                case "read":
                    answer = read(tenant, name, session)
                    if answer.status_code != 404:
                        assert found(answer)["value"].startswith(name + ":")
                case _:
                    assert tenant.delete(path_of(name)).status_code in (200, 404)

    at_once(8, act)
    kept = {version["digest"] for row in details(tenant) for version in row["versions"]}
    assert {file.name for file in files(tenant)} == kept


def test_the_past_knows_which_secrets_there_were(tenant: Tenant) -> None:
    store(tenant, "s", "value")
    size = len(tenant.ledger())
    found(tenant.delete(path_of("s")))
    then = found(tenant.get("/v1/secrets", params={"as_of": f"seq:{size - 1}"}))
    assert then["secrets"] == ["s"]
    state = found(tenant.get("/v1/ledger/state", params={"as_of": f"seq:{size - 1}"}))
    assert [row["name"] for row in state["secrets"]] == ["s"]
    assert found(tenant.get("/v1/ledger/state"))["secrets"] == []


# ---------------------------------------------------------------------------------------------
# The files
# ---------------------------------------------------------------------------------------------


def files(tenant: Tenant) -> list[Path]:
    """The sealed values of a tenant."""
    folder = tenant.server.data / "vault" / tenant.id
    return sorted(folder.iterdir()) if folder.exists() else []


def master_keys(data: Path) -> list[bytes]:
    return [base64.urlsafe_b64decode(line) for line in (data / "master.keys").read_text().split()]


def opened(sealed: bytes, tenant: str, keys: list[bytes]) -> bytes | None:
    """The value, if one of the keys opens it: "Sealed values" in ledger-format.md."""
    head, body = sealed[:73], sealed[73:]
    if head[:5] != b"HDLV\x01":
        return None
    key_id, wrap_nonce, wrapped = head[5:13], head[13:25], head[25:73]
    drawer, (name_len,) = body[:1], struct.unpack_from("<H", body, 1)
    name, nonce, ciphertext = body[3 : 3 + name_len], body[3 + name_len :][:12], body[15 + name_len :]
    place = drawer + b"".join(struct.pack("<Q", len(it)) + it for it in [tenant.encode(), name])
    digest = blake3.blake3(body, derive_key_context="haldir vault v1 sealed value digest").digest()
    for key in keys:
        try:
            aad = b"haldir vault v1 data key\n" + key_id + place + digest
            data_key = AESGCMSIV(key).decrypt(wrap_nonce, wrapped, aad)
            return AESGCMSIV(data_key).decrypt(nonce, ciphertext, b"haldir vault v1 value\n" + place)
        except InvalidTag:
            continue
    return None


def test_the_sealed_value_of_the_document_opens() -> None:
    document = (Path(__file__).parents[2] / "ledger-format.md").read_text()
    sealed = bytes.fromhex(document.split("sealed_value = ")[1].split()[0])
    assert opened(sealed, "tenant1", [b"\x01" * 32]) == b"sk_test"
    assert opened(sealed, "tenant2", [b"\x01" * 32]) is None
    assert opened(sealed, "tenant1", [b"\x02" * 32]) is None


def test_what_is_erased_does_not_open_although_the_master_key_is_there(start_server: Callable[..., Server]) -> None:
    server = start_server()
    tenant = server.found_tenant()
    for number in range(3):
        store(tenant, "s", f"erased {number}")
    store(tenant, "kept", "kept")
    keys = master_keys(server.data)
    before = {path.name: path.read_bytes() for path in files(tenant)}
    values = sorted(opened(sealed, tenant.id, keys) or b"" for sealed in before.values())
    assert values == [b"erased 0", b"erased 1", b"erased 2", b"kept"], "this test can open what is there"
    held = [path.open("rb") for path in files(tenant)]
    found(tenant.delete(path_of("s"), params={"version": 2}))
    found(tenant.delete(path_of("s")))
    # The bytes are gone from the disk, not only the names: whoever had a file open sees nothing but zeros.
    left = [file.read() for file in held]
    assert sum(set(content) == {0} for content in left) == 3
    ciphertexts = [sealed[-20:] for sealed in before.values() if opened(sealed, tenant.id, keys) != b"kept"]
    for path, content in every_file(server.directory):
        assert not any(ciphertext in content for ciphertext in ciphertexts), path
        if path.parent.name == tenant.id:
            assert opened(content, tenant.id, keys) == b"kept", path
    server.restart()
    assert len(files(tenant)) == 1


def every_file(directory: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield path, path.read_bytes()


def forms_of(value: str) -> dict[str, bytes]:
    """What a value could look like in a file: itself, and however programs write bytes."""
    raw = value.encode()
    forms = {
        "as it is": raw,
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "JSON": json.dumps(value)[1:-1].encode(),
        "JSON in UTF-8": json.dumps(value, ensure_ascii=False)[1:-1].encode(),
        "URL": urllib.parse.quote(value, safe="").encode(),
        "form": urllib.parse.quote_plus(value).encode(),
        "UTF-16": value.encode("utf-16-le"),
        "reversed": raw[::-1],
    }
    for offset in range(3):
        # Base64 of the value somewhere within other bytes: the part that only it decides.
        inner = base64.b64encode(b"\0" * offset + raw)[4 if offset else 0 : -4]
        forms[f"base64 +{offset}"] = inner
        forms[f"base64url +{offset}"] = inner.replace(b"+", b"-").replace(b"/", b"_")
    return forms


def leaks(directory: Path, values: list[str]) -> list[str]:
    """Where any form of a value is: in names and contents of all files."""
    wanted = [(value, form, needle) for value in values for form, needle in forms_of(value).items()]
    leaks = []
    for path, content in every_file(directory):
        content += os.fsencode(path)
        leaks += [f"{path.name}: {value[:24]!r} {form}" for value, form, needle in wanted if needle in content]
    return leaks


def test_no_byte_of_a_value_is_in_any_file(start_server: Callable[..., Server], tmp_path: Path) -> None:
    server = start_server(options=["--log-level", "trace"])
    tenant = server.found_tenant()
    session = tenant.open_session(scopes=["read"])
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    dice = random.Random(seed)
    alphabet = "abcXYZ019 +/=%&\"\\'<>\n\té鍵🔑\u2028"
    values = ["sk_live_" + "".join(dice.choices(alphabet, k=dice.randrange(12, 60))) for _ in range(40)]
    values += ["9" * 16 + str(seed), "long" + "".join(dice.choices(alphabet, k=20_000))]
    for number, value in enumerate(values):
        name = f"name {number % 9}"
        store(tenant, name, value, headers={"Idempotency-Key": str(number)})
        assert found(read(tenant, name, session))["value"] == value
        store(tenant, name, value, headers={"Idempotency-Key": str(number)})
        refusal(tenant.post("/v1/secrets", {"name": name, "value": value, "scope_required": 7}), 400)
        refusal(tenant.post("/v1/secrets", {"name": "", "value": value}), 400)
        refusal(tenant.post("/v1/secrets", {"name": name, "value": [value]}), 400)
        refusal(tenant.post("/v1/secrets", {"name": name, "value": value}, headers={"Idempotency-Key": "0"}), 422) if number else None
        refusal(tenant.post("/v1/secrets", {"name": name, "value": value}, key="hld_unknown"), 401)
        refusal(read(tenant, name, "ses_nobody"), 401)
    refusal(tenant.post("/v1/secrets", {"name": "large", "value": values[0] * 40_000}), 413)
    broken = '{"name":"x","value":' + json.dumps(values[1]) + ',"value":1}'
    refusal(tenant.call("POST", "/v1/secrets", content=broken.encode(), headers={"Content-Type": "application/json"}), 400)
    found(tenant.delete(path_of("name 1")))
    found(tenant.post("/v1/vault/rotate"))
    assert server.run("vault", "rotate", "--data-dir", server.data).returncode == 0
    for number, path in enumerate(
        ["/v1/ledger/export", "/v1/ledger/export?format=ocsf", "/v1/audit/export", "/v1/ledger/events", "/v1/ledger/state", "/v1/audit"]
    ):
        (server.directory / f"export-{number}").write_bytes(tenant.get(path).content)
    backup = server.run("ledger", "backup", "--data-dir", server.data, "--with-keys", "--out", server.directory / "backup")
    assert backup.returncode == 0, backup.stderr
    assert leaks(server.directory, values) == []
    server.kill()
    assert leaks(server.directory, values) == []
    server.start()
    assert found(read(tenant, "name 2", session))["value"] in values
    server.stop()
    assert leaks(server.directory, values) == []

    # The search finds what is there.
    planted = tmp_path / "planted"
    planted.mkdir()
    for form, needle in forms_of(values[0]).items():
        (planted / form.replace(" ", "_")).write_bytes(b"before" + needle + b"after")
    assert len({leak.split(":")[0] for leak in leaks(planted, values)}) == len(forms_of(values[0]))
    assert leaks(server.directory, [session]) != []
    server.start()


# ---------------------------------------------------------------------------------------------
# The master keys
# ---------------------------------------------------------------------------------------------


def new_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def test_a_new_master_key_under_load_fails_no_read(start_server: Callable[..., Server]) -> None:
    server = start_server()
    tenant = server.found_tenant()
    session = tenant.open_session(scopes=["read"])
    names = [f"name {number}" for number in range(12)]
    for name in names:
        store(tenant, name, f"value of {name}")
    first = master_keys(server.data)
    is_over = threading.Event()

    def reads(number: int) -> int:
        count = 0
        dice = random.Random(number)
        while not is_over.is_set():
            name = dice.choice(names)
            assert found(read(tenant, name, session))["value"] == f"value of {name}"
            count += 1
        return count

    def stores(_: int) -> int:
        count = 0
        while not is_over.is_set():
            store(tenant, "stored meanwhile", f"{count}")
            count += 1
        return count

    def rotates(_: int) -> int:
        try:
            for _ in range(6):
                done = server.run("vault", "rotate", "--json", "--data-dir", server.data)
                assert done.returncode == 0, done.stderr
                told = json.loads(done.stdout)
                assert told["failed"] == {} and told["rotated"] >= len(names)
                assert told["previous_key_id"] in told["destroyed_key_ids"]
                found(tenant.post("/v1/vault/rotate"))
        finally:
            is_over.set()
        return 0

    done = at_once(8, lambda number: [rotates, stores][number](number) if number < 2 else reads(number))
    print(f"{sum(done[2:])} reads and {done[1]} stores during 6 rotations")
    assert all(done[1:])
    keys = master_keys(server.data)
    assert len(keys) == 1 and keys != first
    assert all(opened(path.read_bytes(), tenant.id, keys) is not None for path in files(tenant))
    assert all(opened(path.read_bytes(), tenant.id, first) is None for path in files(tenant))
    report = found(tenant.get("/v1/vault/keys"))
    assert [key["role"] for key in report["keys"]] == ["primary"]
    assert list(report["blobs_by_key"]) == [report["keys"][0]["key_id"]]
    assert len(events(tenant, "vault.rotated")) == 12
    assert not any(first[0] in content for _, content in every_file(server.directory))
    assert not any(base64.urlsafe_b64encode(first[0]) in content for _, content in every_file(server.directory))


def test_a_configured_key_is_rotated_without_entering_a_secret_again(start_server: Callable[..., Server]) -> None:
    old, new = new_key(), new_key()
    server = start_server(options=["--encryption-key", old])
    tenant = server.found_tenant()
    session = tenant.open_session(scopes=["read"])
    store(tenant, "s", "one")
    store(tenant, "s", "two")
    assert not (server.data / "master.keys").exists()
    [before] = found(tenant.get("/v1/vault/keys"))["keys"]

    server.stop()
    server._options[-2:] = ["--encryption-key", new, "--encryption-key-previous", old]
    server.start()
    assert found(read(tenant, "s", session))["value"] == "two"
    report = found(tenant.get("/v1/vault/keys"))
    assert [key["role"] for key in report["keys"]] == ["primary", "retired"]
    assert report["blobs_by_key"] == {before["key_id"]: 2} and report["total_blobs"] == 2
    dry = found(tenant.post("/v1/vault/rotate", params={"dry_run": "true"}))
    assert dry["dry_run"] is True and dry["summary"] == {"rotated": 2, "already_current": 0, "failed": 0}
    assert found(tenant.get("/v1/vault/keys")) == report, "a dry run changes nothing"
    done = found(tenant.post("/v1/vault/rotate"))
    assert [(row["name"], row["version"]) for row in sorted(done["rotated"], key=lambda row: row["version"])] == [("s", 1), ("s", 2)]
    assert found(tenant.post("/v1/vault/rotate"))["summary"] == {"rotated": 0, "already_current": 2, "failed": 0}
    told = events(tenant, "vault.rotated")
    assert told[0]["from"] == [{"key_id": before["key_id"], "count": 2}] and told[1]["from"] == []

    server.stop()
    server._options[-4:] = ["--encryption-key", new]
    server.start()
    assert found(read(tenant, "s", session, version=1))["value"] == "one"
    said = server.run("vault", "rotate", "--data-dir", server.data)
    assert said.returncode == 0 and "HALDIR_ENCRYPTION_KEY" in said.stdout


def test_without_its_master_key_a_secret_stays_sealed_and_the_server_says_so(start_server: Callable[..., Server]) -> None:
    lost, other = new_key(), new_key()
    server = start_server(options=["--encryption-key", lost])
    tenant = server.found_tenant()
    session = tenant.open_session(scopes=["read"])
    store(tenant, "s", "value")
    server.stop()
    server._options[-1] = other
    server.start()
    body = refusal(read(tenant, "s", session), 503, "secret_sealed")
    lost_id = next(iter(found(tenant.get("/v1/vault/keys"))["blobs_by_key"]))
    assert lost_id in body["error"]
    assert "secret.read" not in tenant.record()
    for params in [{}, {"dry_run": "true"}]:
        answer = tenant.post("/v1/vault/rotate", params=params)
        assert answer.status_code == 207
        assert [row["name"] for row in answer.json()["failed"]] == ["s"]
    log = (server.directory / "stderr.log").read_text()
    assert any(lost_id in line and '"count":1' in line for line in log.splitlines() if "ERROR" in line)
    assert lost not in log and other not in log
    store(tenant, "new", "sealed under the other key")
    assert found(read(tenant, "new", session))["value"] == "sealed under the other key"
    server.stop()
    server._options[-1] = lost
    server.start()
    assert found(read(tenant, "s", session))["value"] == "value"


@pytest.mark.parametrize("key", ["", "short", "AAAA", "A" * 44, "!" * 44, "A" * 86 + "=="], ids=repr)
def test_a_master_key_of_another_length_does_not_start(tmp_path: Path, key: str) -> None:
    server = Server(tmp_path, options=["--encryption-key", key])
    if not key:
        server.start().stop()
        return
    with pytest.raises(AssertionError):
        server.start()
    said = (tmp_path / "stderr.log").read_text()
    assert "encryption-key" in said and key not in said


def test_the_operator_rotates_without_a_server_too(start_server: Callable[..., Server]) -> None:
    server = start_server()
    tenant, other = server.found_tenant(), server.found_tenant()
    session = tenant.open_session(scopes=["read"])
    store(tenant, "s", "value")
    store(other, "s", "other value")
    server.stop()
    first = master_keys(server.data)
    told = json.loads(server.run("vault", "rotate", "--json", "--data-dir", server.data).stdout)
    assert told["rotated"] == 2 and len(told["destroyed_key_ids"]) == 1
    assert not set(master_keys(server.data)) & set(first)
    keys = json.loads(server.run("vault", "keys", "--json", "--data-dir", server.data).stdout)
    assert keys["blobs_by_key"] == {told["new_key_id"]: 2}
    server.start()
    assert found(read(tenant, "s", session))["value"] == "value"
    assert [len(events(it, "vault.rotated")) for it in (tenant, other)] == [1, 1]


# ---------------------------------------------------------------------------------------------
# Crashes and backups
# ---------------------------------------------------------------------------------------------


def test_what_a_crash_leaves_is_completed_at_the_next_start(start_server: Callable[..., Server]) -> None:
    server = start_server()
    tenant = server.found_tenant()
    session = tenant.open_session(scopes=["read"])
    store(tenant, "kept", "kept")
    store(tenant, "erased", "erased")
    [kept] = [row["versions"][0]["digest"] for row in details(tenant) if row["name"] == "kept"]
    folder = server.data / "vault" / tenant.id
    sealed = {path.name: path.read_bytes() for path in folder.iterdir()}
    found(tenant.delete(path_of("erased")))
    server.kill()
    # As if it had been killed between the record and the destruction, and while it sealed something.
    for name, content in sealed.items():
        (folder / name).write_bytes(content)
    (folder / ("0" * 64)).write_bytes(sealed[kept])
    (folder / ("1" * 64 + ".new")).write_bytes(b"half")
    nobodys = server.data / "vault" / "nobody"
    nobodys.mkdir()
    (nobodys / ("2" * 64)).write_bytes(sealed[kept])
    server.start()
    assert [path.name for path in folder.iterdir()] == [kept]
    assert list(nobodys.iterdir()) == []
    assert found(read(tenant, "kept", session))["value"] == "kept"


def test_killed_at_any_moment_it_keeps_what_it_acknowledged_and_nothing_else(start_server: Callable[..., Server]) -> None:
    server = start_server()
    tenant = server.found_tenant()
    session = tenant.open_session(scopes=["read"], ttl=0)
    acknowledged: dict[str, str] = {}
    erased: set[str] = set()
    dice = random.Random(7)
    for life in range(6):
        moment = time.monotonic() + dice.uniform(0.05, 0.6)
        killer = threading.Timer(moment - time.monotonic(), server.kill)
        killer.start()
        asked = ""
        try:
            for turn in range(1_000):
                asked = f"{life}-{turn}"
                store(tenant, asked, f"value {asked}")
                acknowledged[asked] = f"value {asked}"
                if turn % 3 == 2:
                    asked = dice.choice(sorted(acknowledged))
                    erased.add(asked)
                    found(tenant.delete(path_of(asked)))
                    del acknowledged[asked]
        except httpx.HTTPError:
            acknowledged.pop(asked, None)
        killer.join()
        server.start()
        for name, value in acknowledged.items():
            assert found(read(tenant, name, session))["value"] == value
        kept = {version["digest"] for row in details(tenant) for version in row["versions"]}
        assert {file.name for file in files(tenant)} == kept
    assert acknowledged and erased


def test_a_backup_has_the_sealed_values_and_not_the_keys(start_server: Callable[..., Server], tmp_path: Path) -> None:
    server = start_server()
    tenant = server.found_tenant()
    session = tenant.open_session(scopes=["read"])
    store(tenant, "s", "value")
    backup, place = tmp_path / "backup", tmp_path / "restored"
    for is_running in [True, False]:
        if not is_running:
            server.stop()
        done = server.run("ledger", "backup", "--data-dir", server.data, "--with-keys", "--out", backup)
        assert done.returncode == 0, done.stderr
        text = backup.read_text()
        assert text.count('"type":"sealed"') == 1
        assert (server.data / "master.keys").read_text().strip() not in text
    restored = Server(place)
    done = server.run("ledger", "restore", "--from", backup, "--data-dir", restored.data)
    assert done.returncode == 0, done.stderr
    assert "master.keys" in done.stdout
    (restored.data / "master.keys").write_bytes((server.data / "master.keys").read_bytes())
    restored.start()
    try:
        assert found(read(restored.adopt(tenant.key), "s", session))["value"] == "value"
    finally:
        restored.check()
    server.start()
