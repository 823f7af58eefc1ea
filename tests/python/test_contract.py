"""The HTTP contract, spoken in plain requests: sessions, payments, the audit trail, usage, the ledger.

The shapes that clients of every kind rely on, and what is refused and why. Keys and tenants are in
`test_keys.py`, retries in `test_idempotency.py`, headers, errors and probes in `test_edges.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from harness import Server, Tenant, created, found, refusal, short

StartServer = Callable[..., Server]


# -- Sessions ----------------------------------------------------------------------------------------


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
    for newer, older in pairwise(listed["sessions"]):
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
    ids=short,
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
    ids=short,
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
    ids=short,
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


# -- Audit -------------------------------------------------------------------------------------------


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
    ids=short,
)
def test_an_action_that_cannot_be_recorded_is_refused(tenant: Tenant, change: dict[str, Any]) -> None:
    asked = {"session_id": tenant.open_session(), "action": "act", **change}
    refusal(tenant.post("/v1/audit", {key: value for key, value in asked.items() if value is not ...}), 400)
    assert tenant.record() == ["key.minted", "session.opened"]


@pytest.mark.parametrize("quiet", [{"tool": None}, {"details": None}, {"details": []}, {"details": ""}], ids=short)
def test_optional_parts_of_an_action_may_be_empty(tenant: Tenant, quiet: dict[str, Any]) -> None:
    created(tenant.post("/v1/audit", {"session_id": tenant.open_session(), "action": "act", **quiet}))
    entry = found(tenant.get("/v1/audit"))["entries"][0]
    assert entry["tool"] == "" and entry["details"] == {}


# -- Usage -------------------------------------------------------------------------------------------


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


# -- The ledger --------------------------------------------------------------------------------------


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


def test_a_restart_changes_nothing_that_can_be_read(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()
    spent, revoked = (tenant.open_session(agent_id=agent, spend_limit=1) for agent in ("spender", "gone"))
    found(tenant.post("/v1/payments/authorize", {"session_id": spent, "amount": 0.25}))
    created(tenant.post("/v1/audit", {"session_id": spent, "tool": "t", "action": "a", "details": {"b": 1, "a": "é"}}))
    found(tenant.delete(f"/v1/sessions/{revoked}"))
    found(tenant.delete(f"/v1/keys/{tenant.mint('*', name='gone')[:12]}"))

    def everything() -> list[Any]:
        paths = ["/v1/sessions?include_revoked=true", f"/v1/sessions/{spent}", "/v1/audit", "/v1/audit/spend"]
        keys = found(tenant.get("/v1/keys"))["keys"]
        return [found(tenant.get(path)) for path in paths] + [{**key, "last_used": None} for key in keys]

    before = everything()
    server.restart()
    assert everything() == before
    refusal(tenant.get(f"/v1/sessions/{revoked}"), 404)


def test_two_servers_never_share_a_ledger(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()
    second = server.run("serve", "--host", "127.0.0.1", "--port", "0", "--data-dir", server.data)
    assert second.returncode != 0, "the second one must give up"
    assert second.stdout + second.stderr != "", "and say why"
    tenant.open_session()
