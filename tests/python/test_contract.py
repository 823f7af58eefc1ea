"""The HTTP contract, spoken in plain requests: keys, tenants, sessions, errors, headers, probes, description.

Who may call and for what; that tenants cannot see each other; and the shapes that clients of every
kind rely on. Retries have a file of their own, `test_idempotency.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from harness import BOOTSTRAP_TOKEN, Server, Tenant, created, found, pairs_of, refusal

StartServer = Callable[..., Server]

RESOURCES = ["sessions", "vault", "audit", "payments", "webhooks", "proxy", "approvals", "admin"]
LONG_BODY = b'{"agent_id": "' + b"x" * 2 * 1024 * 1024 + b'"}'


# -- The first key -------------------------------------------------------------------------------


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


# -- Keys ----------------------------------------------------------------------------------------


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
    ids=str,
)
def test_key_scopes_are_read_in_every_usual_spelling(tenant: Tenant, asked: dict[str, Any], stored: list[str]) -> None:
    minted = created(tenant.post("/v1/keys", {"name": "spelled", **asked}))
    assert sorted(set(minted["scopes"])) == stored
    listed = found(tenant.get("/v1/keys"))["keys"][0]
    assert listed["prefix"] == minted["prefix"] and listed["scopes"] == stored


@pytest.mark.parametrize(
    "scopes",
    [[], [""], ["audit"], ["audit:delete"], ["audits:read"], ["audit:read:x"], ["*", "nonsense"], "[]", "audit:read;*"],
    ids=str,
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
    ids=str,
)
def test_a_key_mints_only_what_it_holds(
    tenant: Tenant, held: list[str], wanted: list[str] | None, status: int
) -> None:
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


# -- Authentication and key scopes ---------------------------------------------------------------

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


# -- Tenants -------------------------------------------------------------------------------------


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


# -- Sessions ------------------------------------------------------------------------------------


def test_sessions_are_listed_newest_first(tenant: Tenant) -> None:
    ids = [tenant.open_session(agent_id=f"agent-{n}", scopes=["read", "spend"], spend_limit=n) for n in range(1, 4)]
    created(tenant.post("/v1/audit", {"session_id": ids[0], "action": "a"}))
    found(tenant.post("/v1/payments/authorize", {"session_id": ids[1], "amount": 0.5}))

    listed = found(tenant.get("/v1/sessions"))
    assert listed["count"] == 3
    assert [row["session_id"] for row in listed["sessions"]] == ids[::-1]
    row = listed["sessions"][1]
    assert row["agent_id"] == "agent-2" and row["scopes"] == ["read", "spend"]
    assert row["spent"] == 0.5 and row["spend_limit"] == 2.0
    assert row["parent_session_id"] == "" and row["revoked"] is False
    assert row["expires_at"] == pytest.approx(row["created_at"] + 3600, abs=0.001)
    for newer, older in pairs_of(listed["sessions"]):
        assert newer["created_at"] > older["created_at"]


@pytest.mark.parametrize(
    ("query", "agents"),
    [
        ({}, ["b", "a"]),
        ({"include_revoked": "true"}, ["b", "gone", "a"]),
        ({"include_revoked": "True"}, ["b", "a"]),
        ({"agent_id": "a"}, ["a"]),
        ({"agent_id": "gone"}, []),
        ({"agent_id": "gone", "include_revoked": "true"}, ["gone"]),
        ({"roots_only": "true"}, ["b", "a"]),
        ({"limit": "1"}, ["b"]),
        ({"limit": "0"}, ["b"]),
        ({"limit": "501"}, ["b", "a"]),
    ],
    ids=str,
)
def test_the_session_list_is_filtered_as_asked(tenant: Tenant, query: dict[str, str], agents: list[str]) -> None:
    for agent in ["a", "gone", "b"]:
        session_id = tenant.open_session(agent_id=agent)
        if agent == "gone":
            found(tenant.delete(f"/v1/sessions/{session_id}"))
    listed = found(tenant.get("/v1/sessions", params=query))
    assert [row["agent_id"] for row in listed["sessions"]] == agents
    assert listed["count"] == len(agents)


def test_a_limit_that_is_no_number_is_refused(tenant: Tenant) -> None:
    for path in ["/v1/sessions", "/v1/audit"]:
        refusal(tenant.get(path, params={"limit": "many"}), 400)


def test_a_session_under_an_unknown_parent_is_not_opened(tenant: Tenant) -> None:
    asked = {"agent_id": "child", "parent_session_id": "ses_unknown"}
    refusal(tenant.post("/v1/sessions", asked), 400)
    assert found(tenant.get("/v1/sessions"))["count"] == 0


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ({}, "agent_id", "required"),
        ({"agent_id": 7}, "agent_id", "str"),
        ({"agent_id": None}, "agent_id", "str"),
        ({"agent_id": "x" * 129}, "agent_id", ""),
        ({"agent_id": "a", "scopes": "read"}, "scopes", "list"),
        ({"agent_id": "a", "scopes": None}, "scopes", "list"),
        ({"agent_id": "a", "scopes": [1]}, "scopes", ""),
        ({"agent_id": "a", "ttl": "60"}, "ttl", "int"),
        ({"agent_id": "a", "ttl": 60.0}, "ttl", "int"),
        ({"agent_id": "a", "ttl": True}, "ttl", "int"),
        ({"agent_id": "a", "ttl": None}, "ttl", "int"),
        ({"agent_id": "a", "ttl": -1}, "ttl", ""),
        ({"agent_id": "a", "ttl": 2_592_001}, "ttl", ""),
        ({"agent_id": "a", "spend_limit": "5"}, "spend_limit", "float"),
        ({"agent_id": "a", "spend_limit": False}, "spend_limit", "float"),
        ({"agent_id": "a", "spend_limit": None}, "spend_limit", "float"),
        ({"agent_id": "a", "spend_limit": -0.01}, "spend_limit", ""),
        ({"agent_id": 7, "ttl": "x"}, "agent_id", "str"),
    ],
    ids=str,
)
def test_the_first_wrong_field_of_a_session_is_named(
    tenant: Tenant, body: dict[str, Any], field: str, reason: str
) -> None:
    said = refusal(tenant.post("/v1/sessions", body), 400, "invalid_request")
    assert said["field"] == field and reason in said["reason"]
    assert tenant.record() == ["key.minted"]


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"session_id": ...}, "session_id", "required"),
        ({"session_id": 1}, "session_id", "str"),
        ({"amount": ...}, "amount", "required"),
        ({"amount": "1"}, "amount", "float"),
        ({"amount": True}, "amount", "float"),
        ({"amount": None}, "amount", "float"),
        ({"amount": 0}, "amount", ""),
        ({"amount": 0.009}, "amount", ""),
        ({"amount": -1}, "amount", ""),
        ({"amount": 1_000_000.01}, "amount", ""),
        ({"amount": 1.0000000001}, "amount", ""),
        ({"currency": 978}, "currency", "str"),
        ({"currency": "x" * 9}, "currency", ""),
        ({"description": None}, "description", "str"),
        ({"description": "x" * 501}, "description", ""),
    ],
    ids=str,
)
def test_the_first_wrong_field_of_a_payment_is_named(
    tenant: Tenant, change: dict[str, Any], field: str, reason: str
) -> None:
    session_id = tenant.open_session(spend_limit=10)
    asked = {"session_id": session_id, "amount": 1, **change}
    body = {key: value for key, value in asked.items() if value is not ...}
    said = refusal(tenant.post("/v1/payments/authorize", body), 400, "invalid_request")
    assert said["field"] == field and reason in said["reason"]
    assert tenant.record() == ["key.minted", "session.opened"]


@pytest.mark.parametrize("text", ["", "x" * 128, "é☃😀" * 42, "a|b", " "], ids=len)
def test_an_agent_may_have_any_name_of_up_to_128_characters(tenant: Tenant, text: str) -> None:
    session = created(tenant.post("/v1/sessions", {"agent_id": text}))
    assert session["agent_id"] == text
    assert found(tenant.get(f"/v1/sessions/{session['session_id']}"))["agent_id"] == text


@pytest.mark.parametrize("content", [b"", b" ", b"{}", b"null"])
def test_a_body_that_says_nothing_counts_as_empty(tenant: Tenant, content: bytes) -> None:
    for headers in [{}, {"Content-Type": "application/json"}]:
        answer = tenant.call("POST", "/v1/sessions", content=content, headers=headers)
        assert refusal(answer, 400, "invalid_request")["field"] == "agent_id"


# -- Audit ---------------------------------------------------------------------------------------


def test_the_own_check_of_the_chain_counts_what_was_logged(tenant: Tenant) -> None:
    empty = found(tenant.get("/v1/audit/verify"))
    assert empty["verified"] is True and empty["entries_checked"] == 0 and isinstance(empty["message"], str)

    session_id = tenant.open_session()
    for n in range(3):
        created(tenant.post("/v1/audit", {"session_id": session_id, "action": f"a{n}", "details": {"n": n}}))
    full = found(tenant.get("/v1/audit/verify"))
    assert full["verified"] is True and full["entries_checked"] == 3


@pytest.mark.parametrize(("cost", "kept"), [("0.25", 0.25), ("1e-3", 0.001), (0, 0.0), (None, ...), ("", ...)])
def test_a_cost_can_be_a_number_in_quotes_but_not_nothing(tenant: Tenant, cost: Any, kept: Any) -> None:
    answer = tenant.post("/v1/audit", {"session_id": tenant.open_session(), "action": "a", "cost_usd": cost})
    if kept is ...:
        refusal(answer, 400)
    else:
        created(answer)
        assert found(tenant.get("/v1/audit"))["entries"][0]["cost_usd"] == kept


@pytest.mark.parametrize(
    "change",
    [
        {"session_id": ...},
        {"session_id": ""},
        {"session_id": 7},
        {"action": ...},
        {"action": ""},
        {"action": None},
        {"tool": 5},
        {"cost_usd": -0.01},
        {"cost_usd": "cheap"},
        {"cost_usd": [1]},
        {"cost_usd": "nan"},
        {"cost_usd": "Infinity"},
        {"cost_usd": 1e-10},
    ],
    ids=str,
)
def test_an_action_that_cannot_be_recorded_is_refused(tenant: Tenant, change: dict[str, Any]) -> None:
    asked = {"session_id": tenant.open_session(), "action": "act", **change}
    refusal(tenant.post("/v1/audit", {key: value for key, value in asked.items() if value is not ...}), 400)
    assert tenant.record() == ["key.minted", "session.opened"]


@pytest.mark.parametrize("quiet", [{"tool": None}, {"details": None}, {"details": []}, {"details": ""}], ids=str)
def test_optional_parts_of_an_action_may_be_empty(tenant: Tenant, quiet: dict[str, Any]) -> None:
    created(tenant.post("/v1/audit", {"session_id": tenant.open_session(), "action": "act", **quiet}))
    entry = found(tenant.get("/v1/audit"))["entries"][0]
    assert entry["tool"] == "" and entry["details"] == {}


# -- Usage ---------------------------------------------------------------------------------------


def test_every_call_with_a_key_is_counted_whatever_came_of_it(tenant: Tenant) -> None:
    before = found(tenant.get("/v1/usage"))
    assert before["tenant_id"] == tenant.id
    assert re.fullmatch(r"\d{4}-\d{2}", before["month"]) and isinstance(before.get("tier", ""), str)

    narrow = tenant.mint("audit:read")  # minting is not counted
    found(tenant.get("/v1/audit"))
    refusal(tenant.get("/v1/sessions/ses_unknown"), 404)
    refusal(tenant.post("/v1/sessions", {}), 400)
    refusal(tenant.get("/v1/usage", key=narrow), 403)
    refusal(tenant.server.call("GET", "/v1/usage"), 401)  # nobody to count it for

    after = found(tenant.get("/v1/usage"))
    assert after["action_count"] - before["action_count"] == 5, "the first question and four calls"
    assert found(tenant.get("/v1/usage", params={"month": "1999-12"}))["action_count"] == 0


def test_usage_survives_a_restart(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()
    for _ in range(20):
        found(tenant.get("/v1/audit"))
    server.restart()
    assert found(tenant.get("/v1/usage"))["action_count"] == 20


# -- Headers -------------------------------------------------------------------------------------

EVERYWHERE = [
    ("GET", "/healthz", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/v1", 200),
    ("GET", "/v1/audit", 200),
    ("POST", "/v1/sessions", 400),
    ("GET", "/v1/sessions/ses_unknown", 404),
    ("GET", "/nowhere", 404),
    ("GET", "/v1/nowhere", 404),
    ("PATCH", "/v1/audit", 405),
    ("HEAD", "/v1/audit", 200),
    ("OPTIONS", "/v1/audit", 200),
]


def assert_hardened(answer: httpx.Response) -> None:
    expected = {
        "strict-transport-security": "max-age=31536000; includeSubDomains",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "strict-origin-when-cross-origin",
        "permissions-policy": "camera=(), microphone=(), geolocation=()",
    }
    assert {name: answer.headers.get(name) for name in expected} == expected
    assert answer.headers.get("x-request-id")


@pytest.mark.parametrize(("method", "path", "status"), EVERYWHERE)
def test_every_answer_carries_the_security_headers(tenant: Tenant, method: str, path: str, status: int) -> None:
    answer = tenant.call(method, path)
    assert answer.status_code == status, answer.text
    assert_hardened(answer)


def test_even_unauthenticated_and_oversized_requests_get_the_security_headers(tenant: Tenant) -> None:
    assert_hardened(tenant.server.call("GET", "/v1/audit"))
    assert_hardened(tenant.call("POST", "/v1/sessions", content=LONG_BODY))
    assert_hardened(tenant.call("GET", "/v1/keys", key=tenant.mint("audit:read")))


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        ("req-1", "req-1"),
        ("x" * 64, "x" * 64),
        ("y" * 100, "y" * 64),
        (None, None),
        ("", None),
    ],
)
@pytest.mark.parametrize("path", ["/healthz", "/v1/audit", "/nowhere"])
def test_a_request_id_is_repeated_or_made_up(tenant: Tenant, path: str, sent: str | None, received: str | None) -> None:
    answer = tenant.get(path, headers={} if sent is None else {"X-Request-ID": sent})
    given = answer.headers["x-request-id"]
    if received is None:
        assert re.fullmatch("[0-9a-f]{32}", given)
    else:
        assert given == received
    if answer.status_code >= 400:
        assert answer.json()["request_id"] == given


def test_browsers_on_other_origins_may_call_the_api(tenant: Tenant) -> None:
    plain = tenant.get("/v1/audit")
    assert plain.headers["access-control-allow-origin"] == "*"
    named = tenant.get("/v1/audit", headers={"Origin": "https://app.example"})
    assert named.headers["access-control-allow-origin"] == "https://app.example"
    assert "origin" in named.headers["vary"].lower()
    turned_away = tenant.server.call("GET", "/v1/audit", headers={"Origin": "https://app.example"})
    assert turned_away.headers["access-control-allow-origin"] == "https://app.example", "or no script sees the 401"
    assert "access-control-allow-credentials" not in named.headers
    elsewhere = tenant.get("/healthz", headers={"Origin": "https://app.example"})
    assert "access-control-allow-origin" not in elsewhere.headers


def test_a_preflight_is_answered_without_a_key(server: Server) -> None:
    wanted = "authorization, content-type, idempotency-key"
    answer = server.call(
        "OPTIONS",
        "/v1/sessions",
        headers={
            "Origin": "https://app.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": wanted,
        },
    )
    assert answer.status_code == 200 and answer.content == b""
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    methods = {method.strip() for method in answer.headers["access-control-allow-methods"].split(",")}
    assert {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"} <= methods
    headers = {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}
    assert set(wanted.split(", ")) <= headers


HOURLY = ["limit", "used", "remaining", "reset", "reset-after"]
MONTHLY = ["monthly-limit", "monthly-used", "monthly-remaining", "monthly-reset", "monthly-reset-after"]


def test_calls_with_a_key_are_told_where_they_stand_with_the_limits(tenant: Tenant) -> None:
    answers = [tenant.get("/v1/audit"), tenant.get("/v1/sessions/ses_unknown"), tenant.post("/v1/sessions", {})]
    for used, answer in enumerate(answers, start=1):
        told = {name: int(answer.headers[f"x-ratelimit-{name}"]) for name in HOURLY + MONTHLY}
        assert told["used"] == used
        assert told["remaining"] == max(0, told["limit"] - used)
        assert 0 <= told["reset-after"] <= 3600
        assert told["monthly-remaining"] == max(0, told["monthly-limit"] - told["monthly-used"])
        assert told["monthly-reset"] > time.time() - 60
        assert answer.headers["x-ratelimit-resource"] == "hourly"
        assert "retry-after" not in answer.headers


def test_calls_without_a_key_and_mintings_are_not_told_about_limits(tenant: Tenant) -> None:
    for answer in [tenant.server.call("GET", "/v1/audit"), tenant.post("/v1/keys", {}), tenant.get("/healthz")]:
        assert not [name for name in answer.headers if name.startswith("x-ratelimit")]


# -- Routing and envelopes -----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/nowhere", "/v1/nowhere", "/v1/audit/", "/v1/sessions/a/b", "/v1/keys/a/b"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unknown_path_is_a_404_in_the_envelope(tenant: Tenant, method: str, path: str) -> None:
    for answer in [tenant.call(method, path), tenant.server.call(method, path)]:
        body = refusal(answer, 404, "not_found")
        assert body["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/v1/keys"), ("DELETE", "/v1/audit"), ("GET", "/v1/payments/authorize"), ("POST", "/healthz")],
)
def test_the_wrong_method_is_a_405_in_the_envelope(tenant: Tenant, method: str, path: str) -> None:
    answer = tenant.call(method, path)
    body = refusal(answer, 405, "method_not_allowed")
    assert body["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1/keys", "/v1/sessions", "/v1/payments/authorize", "/v1/audit"])
def test_a_body_over_a_mebibyte_is_a_413_in_the_envelope(tenant: Tenant, path: str) -> None:
    answer = tenant.call("POST", path, content=LONG_BODY, headers={"Content-Type": "application/json"})
    body = refusal(answer, 413, "payload_too_large")
    assert body["max_bytes"] == 1_048_576 and body["request_id"] == answer.headers["x-request-id"]
    assert tenant.record() == ["key.minted"]


def test_a_body_of_exactly_a_mebibyte_is_read(tenant: Tenant) -> None:
    text = json.dumps({"session_id": tenant.open_session(), "action": "a", "details": {"text": ""}})
    full = text.replace('"text": ""', f'"text": "{"x" * (1_048_576 - len(text))}"')
    assert len(full) == 1_048_576
    as_json = {"Content-Type": "application/json"}
    created(tenant.call("POST", "/v1/audit", content=full, headers=as_json))
    one_more = tenant.call("POST", "/v1/audit", content=full + " ", headers=as_json)
    refusal(one_more, 413, "payload_too_large")


def test_who_has_no_key_is_told_so_before_the_body_is_looked_at(server: Server) -> None:
    refusal(server.call("POST", "/v1/sessions", content=LONG_BODY), 401)
    refusal(server.call("POST", "/v1/sessions", content=b"{nonsense"), 401)


@pytest.mark.parametrize("path", ["/v1/audit", "/v1/sessions", "/v1/usage", "/healthz", "/v1", "/openapi.json"])
def test_head_is_get_without_the_body(tenant: Tenant, path: str) -> None:
    head, get = tenant.call("HEAD", path), tenant.get(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]
    if path.startswith("/v1/"):
        assert tenant.server.call("HEAD", path).status_code == 401


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/keys", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("/v1/sessions/ses_unknown", {"GET", "HEAD", "DELETE", "OPTIONS"}),
        ("/v1/payments/authorize", {"POST", "OPTIONS"}),
        ("/healthz", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_options_says_what_a_path_allows(server: Server, path: str, methods: set[str]) -> None:
    answer = server.call("OPTIONS", path)
    assert answer.status_code == 200 and answer.content == b""
    assert {method.strip() for method in answer.headers["allow"].split(",")} == methods


# -- Probes and description ----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/healthz", "/health"])
def test_the_health_probe_says_who_is_alive(server: Server, path: str) -> None:
    body = found(server.call("GET", path))
    assert body["alive"] is True and body["service"] == "haldir" and body["status"] == "ok"
    assert type(body["checked_at"]) is int and re.match(r"\d+\.\d+", body["version"])


def test_the_liveness_probe_needs_nothing(server: Server) -> None:
    body = found(server.call("GET", "/livez"))
    assert body["alive"] is True and body["service"] == "haldir" and type(body["checked_at"]) is int


def test_the_readiness_probe_names_what_it_checked(server: Server) -> None:
    body = found(server.call("GET", "/readyz"))
    assert body["ready"] is True and body["service"] == "haldir" and type(body["checked_at"]) is int
    assert {check["name"] for check in body["checks"]} == {"database", "migrations", "encryption_key"}
    for check in body["checks"]:
        assert check["ok"] is True and isinstance(check["message"], str) and type(check["duration_ms"]) is int
    messages = {check["name"]: check["message"] for check in body["checks"]}
    assert re.search("configured|ephemeral", messages["encryption_key"])


def test_the_index_names_the_service_and_its_parts(server: Server) -> None:
    body = found(server.call("GET", "/v1"))
    assert body["service"] == "haldir" and isinstance(body["docs"], str)
    assert body["version"] == found(server.call("GET", "/healthz"))["version"]
    assert {"sessions", "payments", "audit", "keys"} <= set(body["endpoints"])


OPERATIONS = {
    ("post", "/v1/keys"): "post_create_api_key",
    ("get", "/v1/keys"): "get_list_api_keys",
    ("delete", "/v1/keys/{prefix}"): "delete_revoke_api_key",
    ("post", "/v1/sessions"): "post_create_session",
    ("get", "/v1/sessions/{session_id}"): "get_get_session",
    ("delete", "/v1/sessions/{session_id}"): "delete_revoke_session",
    ("post", "/v1/sessions/{session_id}/check"): "post_check_permission",
    ("post", "/v1/payments/authorize"): "post_authorize_payment",
    ("post", "/v1/audit"): "post_log_action",
    ("get", "/v1/audit"): "get_get_audit_trail",
    ("get", "/v1/audit/spend"): "get_get_spend",
    ("get", "/v1/audit/verify"): "get_verify_audit_chain",
    ("get", "/v1/usage"): "get_get_usage",
    ("get", "/healthz"): "get_healthz",
    ("get", "/livez"): "get_livez",
    ("get", "/readyz"): "get_readyz",
    ("get", "/v1"): "get_api_index",
}


def test_the_description_keeps_the_published_operation_names(server: Server) -> None:
    document = found(server.call("GET", "/openapi.json"))
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "Haldir"
    described = {
        (method, path): document["paths"].get(path, {}).get(method, {}).get("operationId")
        for method, path in OPERATIONS
    }
    assert described == OPERATIONS


def test_the_description_has_no_loose_ends(server: Server) -> None:
    document = found(server.call("GET", "/openapi.json"))
    operations = [
        (path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in {"get", "post", "put", "patch", "delete"}
    ]
    names = [operation["operationId"] for _, operation in operations]
    assert len(names) == len(set(names)), "every operation has a name of its own"
    for path, operation in operations:
        declared = {p["name"] for p in operation.get("parameters", []) if p.get("in") == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path)), path
        assert operation["responses"], path
    for reference in set(re.findall(r'"\$ref": ?"#/([^"]+)"', json.dumps(document))):
        target: Any = document
        for step in reference.split("/"):
            assert step in target, f"#/{reference} leads nowhere"
            target = target[step]


# -- The ledger ----------------------------------------------------------------------------------


def test_the_export_over_http_and_from_the_stopped_server_tell_the_same_history(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()
    session_id = tenant.open_session(spend_limit=1)
    created(tenant.post("/v1/audit", {"session_id": session_id, "action": "a"}))
    refused = tenant.post("/v1/payments/authorize", {"session_id": session_id, "amount": 2})
    assert refused.status_code == 403

    online = [line for line in tenant.get("/v1/ledger/export").text.splitlines() if '"entry"' in line]
    assert tenant.record() == ["key.minted", "session.opened", "action.logged", "payment.denied"]
    server.stop()
    offline = [line for line in server.export(tenant).read_text().splitlines() if '"entry"' in line]
    assert offline[: len(online)] == online
