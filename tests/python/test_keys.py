"""API keys and tenants: who gets a key, what a key may do, and what stays hidden from other tenants.

The first key of an installation, minting and revoking, the scopes that every route asks for, and
the wall between tenants.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
import time
from collections.abc import Callable
from typing import Any

import pytest

from harness import BOOTSTRAP_TOKEN, Server, Tenant, at_once, created, found, refusal, short

StartServer = Callable[..., Server]

RESOURCES = ["sessions", "vault", "audit", "payments", "webhooks", "proxy", "approvals", "admin"]


# -- The first key -----------------------------------------------------------------------------------


def test_the_first_key_is_free_from_this_machine_and_only_the_first(start_server: StartServer) -> None:
    server = start_server(token=None)
    for header in ("X-Forwarded-For", "Forwarded"):
        value = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}[header]
        refusal(server.call("POST", "/v1/keys", json={}, headers={header: value}), 401)

    first = created(server.call("POST", "/v1/keys", json={"name": "mine"}))
    tenant = server.adopt(first["key"])
    assert first["scopes"] == ["*"] and first["name"] == "mine"
    assert found(tenant.get("/v1/usage"))["tenant_id"] == tenant.id

    refusal(server.call("POST", "/v1/keys", json={}), 401)
    server.restart()
    refusal(server.call("POST", "/v1/keys", json={}), 401)
    assert found(tenant.get("/v1/keys"))["count"] == 1


def test_of_sixteen_first_callers_one_gets_the_free_key(start_server: StartServer) -> None:
    server = start_server(token=None)
    answers = at_once(16, lambda _: server.call("POST", "/v1/keys", json={}))
    assert sorted(answer.status_code for answer in answers) == [201] + [401] * 15
    for answer in answers:
        if answer.status_code == 201:
            server.adopt(answer.json()["key"])


def test_revoking_every_key_does_not_make_the_next_one_free(start_server: StartServer) -> None:
    server = start_server(token=None)
    tenant = server.adopt(created(server.call("POST", "/v1/keys", json={}))["key"])
    found(tenant.delete(f"/v1/keys/{tenant.prefix}"))
    refusal(server.call("POST", "/v1/keys", json={}), 401)


def test_with_a_bootstrap_token_configured_no_key_is_free(start_server: StartServer) -> None:
    server = start_server()
    for wrong in [{}, {"json": {"bootstrap_token": "guess"}}, {"headers": {"X-Bootstrap-Token": "guess"}}]:
        refusal(server.call("POST", "/v1/keys", **{"json": {}, **wrong}), 401)

    by_header = server.found_tenant()
    by_body = created(server.call("POST", "/v1/keys", json={"bootstrap_token": BOOTSTRAP_TOKEN}))["key"]
    assert server.adopt(by_body).id != by_header.id, "each use of the token founds a tenant"


def test_without_a_configured_token_an_empty_one_opens_nothing(start_server: StartServer) -> None:
    server = start_server(token=None)
    server.adopt(created(server.call("POST", "/v1/keys", json={}))["key"])
    for attempt in [{"json": {"bootstrap_token": ""}}, {"json": {}, "headers": {"X-Bootstrap-Token": ""}}]:
        refusal(server.call("POST", "/v1/keys", **attempt), 401)


def test_a_server_mints_its_own_first_key_once_and_keeps_it_private(start_server: StartServer) -> None:
    server = start_server(mints_key=True, token=None)
    path = server.data / "config.json"
    config = json.loads(path.read_text())
    assert config["base_url"] == server.base_url
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    tenant = server.adopt(config["api_key"])
    assert found(tenant.get("/v1/keys"))["keys"][0]["scopes"] == ["*"]

    server.restart()
    assert json.loads(path.read_text()) == {**config, "base_url": server.base_url}
    assert found(tenant.get("/v1/keys"))["count"] == 1, "a restart mints no second key"


# -- Keys --------------------------------------------------------------------------------------------


def test_a_minted_key_has_the_published_form_and_belongs_to_its_minter(tenant: Tenant) -> None:
    minted = created(tenant.post("/v1/keys", {"name": "worker", "scopes": ["audit:read"], "tier": "pro"}))
    assert re.fullmatch(r"hld_[A-Za-z0-9_-]{43}", minted["key"])
    assert minted["prefix"] == minted["key"][:12]
    assert minted["name"] == "worker" and minted["scopes"] == ["audit:read"]
    assert isinstance(minted["tier"], str) and isinstance(minted["message"], str)

    tenant.open_session(agent_id="seen by both keys")
    worker_sees = tenant.get("/v1/audit/spend", key=minted["key"])
    assert found(worker_sees)["action_count"] == 0
    assert [row["name"] for row in found(tenant.get("/v1/keys"))["keys"]] == ["worker", "default"]


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ({}, ["*"]),
        ({"scopes": None}, ["*"]),
        ({"scopes": ""}, ["*"]),
        ({"scopes": "  "}, ["*"]),
        ({"scopes": ["*"]}, ["*"]),
        ({"scopes": [" audit:read ", "", "admin:*"]}, ["admin:*", "audit:read"]),
        ({"scopes": ["vault:write", "audit:read", "vault:write"]}, ["audit:read", "vault:write"]),
        ({"scopes": "sessions:write, audit:read,"}, ["audit:read", "sessions:write"]),
        ({"scopes": '["payments:write"]'}, ["payments:write"]),
    ],
    ids=short,
)
def test_key_scopes_are_read_in_every_usual_spelling(tenant: Tenant, asked: dict[str, Any], stored: list[str]) -> None:
    minted = created(tenant.post("/v1/keys", {"name": "spelled", **asked}))
    assert sorted(set(minted["scopes"])) == stored
    listed = found(tenant.get("/v1/keys"))["keys"][0]
    assert listed["prefix"] == minted["prefix"] and listed["scopes"] == stored


@pytest.mark.parametrize(
    "scopes",
    [[], [""], ["audit"], ["audit:delete"], ["audits:read"], ["audit:read:x"], ["*", "nonsense"], "[]", "audit:read;*"],
    ids=short,
)
def test_scopes_outside_the_vocabulary_mint_nothing(tenant: Tenant, scopes: Any) -> None:
    refusal(tenant.post("/v1/keys", {"scopes": scopes}), 400, "invalid_scope")
    assert found(tenant.get("/v1/keys"))["count"] == 1


@pytest.mark.parametrize(
    ("held", "wanted", "status"),
    [
        (["audit:read"], ["*"], 403),
        (["audit:read"], None, 403),
        (["audit:read"], ["audit:write"], 403),
        (["audit:write"], ["audit:*"], 403),
        (["audit:read", "vault:read"], ["audit:read", "vault:write"], 403),
        (["admin:*"], ["*"], 403),
        (["audit:read"], ["audit:read"], 201),
        (["audit:write"], ["audit:read"], 201),
        (["audit:*"], ["audit:read", "audit:write"], 201),
    ],
    ids=short,
)
def test_a_key_mints_only_what_it_holds(tenant: Tenant, held: list[str], wanted: list[str] | None, status: int) -> None:
    narrow = tenant.mint(*held)
    answer = tenant.post("/v1/keys", {"scopes": wanted}, key=narrow)
    assert answer.status_code == status, answer.text
    if status == 403:
        refusal(answer, 403, "insufficient_scope")
    assert found(tenant.get("/v1/keys"))["count"] == (3 if status == 201 else 2)


def test_neither_a_key_nor_its_hash_is_ever_shown_again(tenant: Tenant) -> None:
    other = tenant.mint("*", name="other")
    tenant.open_session()
    history = b"".join(entry.raw for entry in tenant.ledger())
    for path in ["/v1/keys", "/v1/usage", "/v1/sessions", "/v1/audit", "/v1/audit/verify"]:
        text = tenant.get(path).text
        for key in (tenant.key, other):
            assert key not in text and key[12:] not in text, path
            assert hashlib.sha256(key.encode()).hexdigest() not in text, path
            assert key.encode() not in history and key[12:].encode() not in history


def test_keys_are_listed_newest_first_with_their_last_use(tenant: Tenant) -> None:
    used, unused = tenant.mint("audit:read", name="used"), tenant.mint("audit:read", name="unused")
    before = time.time() - 60
    found(tenant.get("/v1/audit", key=used))

    listed = found(tenant.get("/v1/keys"))
    assert listed["count"] == 3
    rows = {row["name"]: row for row in listed["keys"]}
    assert list(rows) == ["unused", "used", "default"]
    assert rows["used"]["prefix"] == used[:12] and rows["used"]["last_used"] > before
    assert rows["unused"]["prefix"] == unused[:12] and rows["unused"]["last_used"] == 0.0
    for row in rows.values():
        assert row["revoked"] is False and type(row["created_at"]) is float and isinstance(row["tier"], str)


def test_a_revoked_key_stops_at_once_and_stays_in_the_list(tenant: Tenant) -> None:
    key = tenant.mint("*", name="short-lived")
    found(tenant.get("/v1/usage", key=key))
    revoked = found(tenant.delete(f"/v1/keys/{key[:12]}"))
    assert revoked["revoked"] is True and revoked["prefix"] == key[:12] and revoked["audit_recorded"] is True

    refusal(tenant.get("/v1/usage", key=key), 401)
    refusal(tenant.post("/v1/keys", {}, key=key), 401)
    refusal(tenant.delete(f"/v1/keys/{key[:12]}"), 404, "not_found")
    states = {row["name"]: row["revoked"] for row in found(tenant.get("/v1/keys"))["keys"]}
    assert states == {"short-lived": True, "default": False}


def test_a_key_may_revoke_itself(tenant: Tenant) -> None:
    key = tenant.mint("admin:write")
    found(tenant.delete(f"/v1/keys/{key[:12]}", key=key))
    refusal(tenant.delete(f"/v1/keys/{key[:12]}", key=key), 401)


def test_prefixes_that_name_no_key_of_ones_own_are_refused(tenant: Tenant, stranger: Tenant) -> None:
    refusal(tenant.delete("/v1/keys/hld_nobodys_"), 404, "not_found")
    refusal(tenant.delete(f"/v1/keys/{stranger.prefix}"), 404, "not_found")
    refusal(tenant.delete(f"/v1/keys/{'x' * 65}"), 400, "invalid_prefix")
    assert found(stranger.get("/v1/usage"))["tenant_id"] == stranger.id, "the stranger's key still works"


# -- Authentication and key scopes -------------------------------------------------------------------


GUARDED = [
    ("GET", "/v1/keys", "admin:read"),
    ("DELETE", "/v1/keys/hld_nobodys_", "admin:write"),
    ("POST", "/v1/sessions", "sessions:write"),
    ("GET", "/v1/sessions", "sessions:read"),
    ("GET", "/v1/sessions/ses_unknown", "sessions:read"),
    ("DELETE", "/v1/sessions/ses_unknown", "sessions:write"),
    ("POST", "/v1/sessions/ses_unknown/check", "sessions:read"),
    ("POST", "/v1/payments/authorize", "payments:write"),
    ("POST", "/v1/audit", "audit:write"),
    ("GET", "/v1/audit", "audit:read"),
    ("GET", "/v1/audit/spend", "audit:read"),
    ("GET", "/v1/audit/verify", "audit:read"),
    ("GET", "/v1/ledger/export", "audit:read"),
    ("GET", "/v1/usage", "admin:read"),
]


@pytest.mark.parametrize(("method", "path", "scope"), GUARDED)
def test_nothing_answers_without_a_key(server: Server, method: str, path: str, scope: str) -> None:
    for headers in [{}, {"Authorization": "Bearer hld_unknown"}, {"Authorization": "Basic eA=="}, {"X-API-Key": "no"}]:
        answer = server.call(method, path, headers=headers)
        refusal(answer, 401)
        assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize(("method", "path", "scope"), GUARDED)
def test_a_key_does_what_its_scope_says_and_nothing_else(tenant: Tenant, method: str, path: str, scope: str) -> None:
    resource, action = scope.split(":")
    without = [f"{other}:*" for other in RESOURCES if other != resource]
    if action == "write":
        without.append(f"{resource}:read")
    body = refusal(tenant.call(method, path, key=tenant.mint(*without)), 403, "insufficient_scope")
    assert body["required"] == scope
    assert body["granted"] == sorted(without)
    assert isinstance(body["request_id"], str)
    assert "access.denied" in [entry.kind for entry in tenant.ledger()], "being turned away is on record"

    enough = [scope, f"{resource}:*", "*"] + ([f"{resource}:write"] if action == "read" else [])
    for granted in enough:
        answer = tenant.call(method, path, key=tenant.mint(granted))
        assert answer.status_code not in (401, 403), f"{granted}: {answer.text}"


def test_a_key_can_come_in_either_header(tenant: Tenant) -> None:
    for headers in [
        {"Authorization": f"Bearer {tenant.key}"},
        {"Authorization": tenant.key},
        {"X-API-Key": tenant.key},
        {"X-API-Key": tenant.key, "Authorization": ""},
    ]:
        assert tenant.server.call("GET", "/v1/usage", headers=headers).status_code == 200, list(headers)
    wins = {"Authorization": "Bearer hld_unknown", "X-API-Key": tenant.key}
    refusal(tenant.server.call("GET", "/v1/usage", headers=wins), 401)


def test_a_key_in_the_query_is_not_a_key(tenant: Tenant) -> None:
    refusal(tenant.server.call("GET", "/v1/usage", params={"key": tenant.key, "api_key": tenant.key}), 401)


# -- Tenants -----------------------------------------------------------------------------------------


def test_a_foreign_session_is_like_none_at_all(tenant: Tenant, stranger: Tenant) -> None:
    theirs = stranger.open_session(agent_id="theirs", spend_limit=100)

    def answers(session_id: str) -> list[tuple[int, str]]:
        by_body = {"session_id": session_id}
        received = [
            tenant.get(f"/v1/sessions/{session_id}"),
            tenant.delete(f"/v1/sessions/{session_id}"),
            tenant.post(f"/v1/sessions/{session_id}/check", {"scope": "read"}),
            tenant.post("/v1/payments/authorize", {**by_body, "amount": 1}),
            tenant.post("/v1/audit", {**by_body, "action": "spy"}),
            tenant.get("/v1/audit", params=by_body),
            tenant.get("/v1/audit/spend", params=by_body),
        ]
        return [
            (answer.status_code, re.sub(r'"request_id": ?"[^"]*"', "", answer.text.replace(session_id, "…")))
            for answer in received
        ]

    stranger.post("/v1/audit", {"session_id": theirs, "action": "private", "cost_usd": 1})
    assert answers(theirs) == answers("ses_" + "x" * 32), "not even its existence shows"
    assert [status for status, _ in answers(theirs)] == [404, 404, 200, 401, 401, 200, 200]

    session = found(stranger.get(f"/v1/sessions/{theirs}"))
    assert session["spent"] == 0.0 and session["is_valid"] is True
    assert [entry["action"] for entry in found(stranger.get("/v1/audit"))["entries"]] == ["private"]


def test_what_one_tenant_has_another_does_not_see(tenant: Tenant, stranger: Tenant) -> None:
    session_id = stranger.open_session(agent_id="theirs")
    stranger.post("/v1/audit", {"session_id": session_id, "tool": "t", "action": "private", "cost_usd": 5})
    stranger.mint("audit:read", name="theirs")

    assert found(tenant.get("/v1/audit"))["count"] == 0
    assert found(tenant.get("/v1/audit/spend"))["action_count"] == 0
    assert found(tenant.get("/v1/audit/verify"))["entries_checked"] == 0
    assert found(tenant.get("/v1/sessions"))["count"] == 0
    assert found(tenant.get("/v1/keys"))["count"] == 1
    assert found(tenant.get("/v1/usage"))["tenant_id"] == tenant.id
    assert tenant.record() == ["key.minted"]
