"""The published Python client, sync and async, against every answer Haldir can give it.

Both clients have the same methods. A test that takes `call` runs twice: once with each.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from haldir import (
    HaldirAPIError,
    HaldirAuthError,
    HaldirClient,
    HaldirNotFoundError,
    HaldirPermissionError,
)

from harness import Server, Tenant, short

Call = Callable[..., Any]

# A session with this life is over after that pause.
BRIEF_TTL_S = 1
BRIEF_PAUSE_S = 1.3


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, tenant: Tenant) -> Call:
    """Calls a method of the client by name: `call("get_session", id)`."""

    def sync_call(method: str, *arguments: Any, **options: Any) -> Any:
        with tenant.client() as client:
            return getattr(client, method)(*arguments, **options)

    def async_call(method: str, *arguments: Any, **options: Any) -> Any:
        async def run() -> Any:
            async with tenant.async_client() as client:
                return await getattr(client, method)(*arguments, **options)

        return asyncio.run(run())

    return sync_call if request.param == "sync" else async_call


@pytest.fixture
def client(tenant: Tenant) -> HaldirClient:
    return tenant.client()


# -- A life of a session --------------------------------------------------------------------------


def test_both_clients_can_open_use_and_end_a_session(call: Call) -> None:
    session = call("create_session", "agent", scopes=["read", "spend"], ttl=60, spend_limit=2.5)
    session_id = session["session_id"]
    checked = call("check_permission", session_id, "read")
    assert checked["allowed"] is True and checked["session_id"] == session_id and checked["scope"] == "read"
    payment = call("authorize_payment", session_id, 1.25, currency="EUR", description="bread")
    assert payment["authorized"] is True
    assert payment["authorization_id"].startswith("auth_")
    assert {key: payment[key] for key in ("session_id", "agent_id", "amount", "currency", "description")} == {
        "session_id": session_id,
        "agent_id": "agent",
        "amount": 1.25,
        "currency": "EUR",
        "description": "bread",
    }
    assert payment["remaining_budget"] == 1.25
    logged = call("log_action", session_id, tool="shop", action="buy", cost_usd=1.25, details={"item": "bread"})
    assert logged["logged"] is True and logged["flagged"] is False and logged["flag_reason"] == ""
    trail = call("get_audit_trail", session_id=session_id)
    assert [entry["entry_id"] for entry in trail["entries"]] == [logged["entry_id"]]
    assert call("get_spend", session_id=session_id)["by_tool"] == {"shop": 1.25}
    assert call("revoke_session", session_id) == {"revoked": True, "session_id": session_id}


def test_get_session_says_what_create_session_said(client: HaldirClient) -> None:
    created = client.create_session("agent", scopes=["read", "stripe:refund"], ttl=60, spend_limit=5)
    session = client.get_session(created["session_id"])
    same = ("session_id", "agent_id", "scopes", "spend_limit", "expires_at", "parent_session_id", "delegation_depth")
    assert {key: session[key] for key in same} == {key: created[key] for key in same}
    assert created["parent_session_id"] == "" and created["delegation_depth"] == 0
    assert session["spent"] == 0.0 and session["remaining_budget"] == 5.0 and session["is_valid"] is True
    assert session["expires_at"] == pytest.approx(session["created_at"] + 60, abs=0.001)


def test_a_closed_client_sends_nothing_more(tenant: Tenant) -> None:
    with tenant.client() as client:
        client.get_spend()
    with pytest.raises(RuntimeError):
        client.get_spend()

    async def use_after_close() -> None:
        async with tenant.async_client() as client:
            await client.get_spend()
        await client.get_spend()

    with pytest.raises(RuntimeError):
        asyncio.run(use_after_close())


def test_one_async_client_carries_many_calls_at_once(tenant: Tenant) -> None:
    async def open_many() -> list[dict[str, Any]]:
        async with tenant.async_client() as client:
            return await asyncio.gather(*(client.create_session(f"agent-{n}") for n in range(50)))

    sessions = asyncio.run(open_many())
    assert [session["agent_id"] for session in sessions] == [f"agent-{n}" for n in range(50)]
    assert len({session["session_id"] for session in sessions}) == 50


# -- Defaults ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scopes", [None, []])
def test_a_session_without_scopes_may_read_and_browse(client: HaldirClient, scopes: list[str] | None) -> None:
    session = client.create_session("agent", scopes=scopes)
    assert session["scopes"] == ["read", "browse"]
    assert client.check_permission(session["session_id"], "browse")["allowed"] is True
    assert client.check_permission(session["session_id"], "write")["allowed"] is False


def test_a_session_without_a_ttl_lives_an_hour(client: HaldirClient) -> None:
    session = client.create_session("agent")
    assert session["ttl"] == 3600
    assert abs(session["expires_at"] - (time.time() + 3600)) < 120


def test_no_spend_limit_is_no_cap_and_says_so(client: HaldirClient) -> None:
    created = client.create_session("agent", scopes=["spend"])
    for amount in [0.01, 1_000_000]:
        assert client.authorize_payment(created["session_id"], amount)["remaining_budget"] == 0.0
    session = client.get_session(created["session_id"])
    for answer in (created, session):
        assert answer["spend_limit"] == 0.0
        assert answer["unlimited"] is True
    assert session["spent"] == 1_000_000.01
    assert session["remaining_budget"] == 0.0


@pytest.mark.parametrize("terms", [{"spend_limit": 0}, {"spend_limit": 0.0}, {"scopes": ["spend:0"]}], ids=short)
def test_a_limit_of_nothing_lets_nothing_be_spent(client: HaldirClient, terms: dict[str, Any]) -> None:
    created = client.create_session("agent", **{"scopes": ["spend"], **terms})
    assert created["spend_limit"] == 0.0
    assert not created.get("unlimited", False)
    with pytest.raises(HaldirPermissionError, match=r"(?i)budget"):
        client.authorize_payment(created["session_id"], 0.01)
    assert client.get_session(created["session_id"])["spent"] == 0.0


@pytest.mark.parametrize(
    ("scopes", "limit", "granted"),
    [
        (["spend:50"], None, 50.0),
        (["spend:1", "spend:2.5"], None, 2.5),
        (["spend:1e1"], None, 10.0),
        (["spend:50"], 7.25, 7.25),
    ],
)
def test_a_limit_can_come_with_the_scope(
    client: HaldirClient, scopes: list[str], limit: float | None, granted: float
) -> None:
    session = client.create_session("agent", scopes=scopes, spend_limit=limit)
    assert session["scopes"] == ["spend"] * len(scopes)
    assert session["spend_limit"] == granted


# -- Scopes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "asked", "allowed"),
    [
        ("read", "read", True),
        ("stripe", "stripe:refund", True),
        ("stripe:refund", "stripe:refund", True),
        ("stripe:refund", "stripe:charge", False),
        ("stripe:refund", "stripe", False),
        ("admin", "anything:at:all", True),
        ("write", "read", False),
        ("*", "read", False),
        ("Read", "read", False),
    ],
)
def test_a_scope_grants_itself_and_what_is_narrower(client: HaldirClient, held: str, asked: str, allowed: bool) -> None:
    session = client.create_session("agent", scopes=[held])
    assert client.check_permission(session["session_id"], asked)["allowed"] is allowed


def test_paying_needs_the_scope_spend(client: HaldirClient) -> None:
    session = client.create_session("agent", scopes=["read"], spend_limit=10)
    with pytest.raises(HaldirPermissionError) as refused:
        client.authorize_payment(session["session_id"], 1.0)
    assert refused.value.body["authorized"] is False
    assert client.get_session(session["session_id"])["spent"] == 0.0


# -- Errors --------------------------------------------------------------------------------------


def test_an_unknown_key_is_an_auth_error(server: Server) -> None:
    client = HaldirClient(api_key="hld_" + "x" * 43, base_url=server.base_url)
    with client, pytest.raises(HaldirAuthError) as refused:
        client.get_spend()
    assert refused.value.status_code == 401
    assert refused.value.body["error"] == str(refused.value)


@pytest.mark.parametrize(
    ("method", "arguments", "kind", "status"),
    [
        ("get_session", ("ses_unknown",), HaldirNotFoundError, 404),
        ("revoke_session", ("ses_unknown",), HaldirNotFoundError, 404),
        ("authorize_payment", ("ses_unknown", 1.0), HaldirAuthError, 401),
        ("log_action", ("ses_unknown", "tool", "action"), HaldirAuthError, 401),
        ("create_session", (7,), HaldirAPIError, 400),
        ("log_action", ("", "tool", "action"), HaldirAPIError, 400),
        ("log_action", ("ses_unknown", "tool", ""), HaldirAPIError, 400),
        ("check_permission", ("ses_unknown", ""), HaldirAPIError, 400),
    ],
)
def test_each_refusal_has_its_exception(
    call: Call, method: str, arguments: tuple[Any, ...], kind: type[HaldirAPIError], status: int
) -> None:
    with pytest.raises(HaldirAPIError) as refused:
        call(method, *arguments)
    assert type(refused.value) is kind
    assert refused.value.status_code == status
    assert refused.value.body["error"] == str(refused.value)


def test_a_denied_payment_is_a_permission_error_with_its_reason(call: Call) -> None:
    session = call("create_session", "agent", scopes=["spend"], spend_limit=1.0)
    with pytest.raises(HaldirPermissionError, match=r"(?i)budget") as refused:
        call("authorize_payment", session["session_id"], 1.01)
    assert refused.value.status_code == 403
    assert refused.value.body["authorized"] is False
    assert refused.value.body["reason"] in str(refused.value) or refused.value.body["error"] == str(refused.value)


def test_a_key_without_the_scope_is_a_permission_error(tenant: Tenant) -> None:
    with tenant.client(tenant.mint("audit:read")) as client, pytest.raises(HaldirPermissionError) as refused:
        client.create_session("agent")
    assert refused.value.body["code"] == "insufficient_scope"


def test_a_body_that_is_too_large_is_a_plain_api_error(call: Call) -> None:
    session = call("create_session", "agent")
    with pytest.raises(HaldirAPIError) as refused:
        call("log_action", session["session_id"], "tool", "action", details={"text": "x" * 2_000_000})
    assert type(refused.value) is HaldirAPIError
    assert refused.value.status_code == 413
    assert refused.value.body["max_bytes"] == 1_048_576


def test_a_server_that_is_gone_is_the_transports_error() -> None:
    client = HaldirClient(api_key="hld_x", base_url="http://127.0.0.1:9", timeout=5)
    with client, pytest.raises(httpx.ConnectError):
        client.get_spend()


# -- Time ----------------------------------------------------------------------------------------


def test_a_ttl_of_zero_never_ends(client: HaldirClient) -> None:
    created = client.create_session("agent", ttl=0)
    assert created["ttl"] == 0 and created["expires_at"] == 0
    time.sleep(BRIEF_PAUSE_S)
    session = client.get_session(created["session_id"])
    assert session["is_valid"] is True and session["expires_at"] == 0


def test_an_expired_session_is_over_for_every_call(client: HaldirClient) -> None:
    session_id = client.create_session("agent", scopes=["read", "spend"], ttl=BRIEF_TTL_S)["session_id"]
    assert client.check_permission(session_id, "read")["allowed"] is True
    time.sleep(BRIEF_PAUSE_S)

    assert client.check_permission(session_id, "read")["allowed"] is False
    with pytest.raises(HaldirNotFoundError):
        client.get_session(session_id)
    with pytest.raises(HaldirAuthError):
        client.authorize_payment(session_id, 1.0)
    with pytest.raises(HaldirAuthError):
        client.log_action(session_id, action="late")
    assert client.get_audit_trail()["count"] == 0
    assert client.revoke_session(session_id)["revoked"] is True, "an expired session can still be revoked"


# -- Money ---------------------------------------------------------------------------------------


def test_three_times_a_tenth_is_exactly_three_tenths(client: HaldirClient) -> None:
    session_id = client.create_session("agent", scopes=["spend"], spend_limit=0.30)["session_id"]
    left = [client.authorize_payment(session_id, 0.1)["remaining_budget"] for _ in range(3)]
    assert left == [0.2, 0.1, 0.0]
    with pytest.raises(HaldirPermissionError, match=r"(?i)budget"):
        client.authorize_payment(session_id, 0.01)
    session = client.get_session(session_id)
    assert session["spent"] == 0.3 and session["remaining_budget"] == 0.0


def test_an_amount_with_binary_noise_is_refused_rather_than_rounded(client: HaldirClient) -> None:
    session_id = client.create_session("agent", scopes=["spend"], spend_limit=1)["session_id"]
    with pytest.raises(HaldirAPIError) as refused:
        client.authorize_payment(session_id, 0.1 + 0.2)
    assert refused.value.status_code == 400 and refused.value.body["field"] == "amount"
    assert client.get_session(session_id)["spent"] == 0.0


@pytest.mark.parametrize("cost", [0.000123, 0.005, 1e-07, 1e-09, 12345678.123456789, 2.675, 0, 3])
def test_a_cost_is_kept_to_the_last_digit(client: HaldirClient, cost: float) -> None:
    session_id = client.create_session("agent")["session_id"]
    client.log_action(session_id, tool="llm", action="call", cost_usd=cost)
    assert client.get_audit_trail()["entries"][0]["cost_usd"] == cost
    assert client.get_spend()["by_tool"] == {"llm": cost}


def test_many_small_costs_add_up_without_noise(client: HaldirClient) -> None:
    session_id = client.create_session("agent")["session_id"]
    for _ in range(10):
        client.log_action(session_id, tool="llm", action="call", cost_usd=0.1)
    assert client.get_spend()["total_usd"] == 1.0


def test_money_and_times_are_json_numbers_with_a_fraction(tenant: Tenant, client: HaldirClient) -> None:
    session = client.create_session("agent", scopes=["spend"], spend_limit=100)
    payment = client.authorize_payment(session["session_id"], 1)
    client.log_action(session["session_id"], tool="t", action="a", cost_usd=2)
    shown = client.get_session(session["session_id"])
    logged = client.get_audit_trail()["entries"][0]
    for answer, keys in [
        (session, ["spend_limit", "expires_at"]),
        (payment, ["amount", "remaining_budget", "timestamp"]),
        (shown, ["spend_limit", "spent", "remaining_budget", "created_at", "expires_at"]),
        (logged, ["cost_usd", "timestamp"]),
        (client.get_spend()["by_tool"], ["t"]),
    ]:
        for key in keys:
            assert type(answer[key]) is float, f"{key}: {answer[key]!r}"

    text = tenant.get(f"/v1/sessions/{session['session_id']}").text
    numbers: list[str] = []
    json.loads(text, parse_float=numbers.append)
    assert {"100.0", "1.0", "99.0"} <= set(numbers), f"no other spelling than the plain one: {numbers}"


# -- Trail ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "actions"),
    [
        ({}, ["a4", "a3", "b2", "a1"]),
        ({"agent_id": "anna"}, ["a4", "a3", "a1"]),
        ({"agent_id": "nobody"}, []),
        ({"tool": "search"}, ["a3", "b2", "a1"]),
        ({"tool": "sear"}, []),
        ({"agent_id": "anna", "tool": "search"}, ["a3", "a1"]),
        ({"session": "anna"}, ["a4", "a3", "a1"]),
        ({"session": "anna", "agent_id": "bert"}, []),
        ({"limit": 2}, ["a4", "a3"]),
        ({"limit": 1, "agent_id": "bert"}, ["b2"]),
        ({"limit": 0}, []),
        ({"flagged_only": True}, []),
    ],
    ids=short,
)
def test_the_trail_is_filtered_as_asked(client: HaldirClient, wanted: dict[str, Any], actions: list[str]) -> None:
    sessions = {agent: client.create_session(agent)["session_id"] for agent in ("anna", "bert")}
    for agent, tool, action in [
        ("anna", "search", "a1"),
        ("bert", "search", "b2"),
        ("anna", "search", "a3"),
        ("anna", "mail", "a4"),
    ]:
        client.log_action(sessions[agent], tool=tool, action=action)

    query = dict(wanted)
    if "session" in query:
        query["session_id"] = sessions[query.pop("session")]
    trail = client.get_audit_trail(**query)
    assert [entry["action"] for entry in trail["entries"]] == actions
    assert trail["count"] == len(actions)


@pytest.mark.parametrize("name", ["é ☃ 😀", "a&b=c", "100%", "a+b", " padded ", "x" * 128, "a/b?c#d"])
def test_an_agent_and_a_tool_of_any_name_are_found_again(client: HaldirClient, name: str) -> None:
    client.log_action(client.create_session("somebody else")["session_id"], tool="other", action="b")
    client.log_action(client.create_session(name)["session_id"], tool=name, action="a", cost_usd=1)
    for query in [{"agent_id": name}, {"tool": name}]:
        assert [entry["action"] for entry in client.get_audit_trail(**query)["entries"]] == ["a"]
    assert client.get_spend(agent_id=name)["by_tool"] == {name: 1.0}


def test_the_trail_shows_the_last_hundred_unless_asked_for_more(tenant: Tenant, client: HaldirClient) -> None:
    session_id = client.create_session("agent")["session_id"]
    for number in range(103):
        client.log_action(session_id, action=str(number))
    newest_first = [str(number) for number in range(102, -1, -1)]
    for path, expected in [("/v1/audit", newest_first[:100]), ("/v1/audit?limit=1000", newest_first)]:
        assert [entry["action"] for entry in tenant.get(path).json()["entries"]] == expected


def test_the_spend_of_a_session_and_an_agent_is_filtered_by_both(client: HaldirClient) -> None:
    anna = client.create_session("anna")["session_id"]
    bert = client.create_session("bert")["session_id"]
    client.log_action(anna, tool="search", action="a", cost_usd=1)
    client.log_action(bert, tool="search", action="b", cost_usd=2)
    client.log_action(bert, action="without a tool", cost_usd=0.5)

    assert client.get_spend(session_id=anna, agent_id="anna")["total_usd"] == 1.0
    nothing = client.get_spend(session_id=anna, agent_id="bert")
    assert nothing["total_usd"] == 0 and nothing["action_count"] == 0 and nothing["by_tool"] == {}
    assert client.get_spend(agent_id="bert") == {"total_usd": 2.5, "action_count": 2, "by_tool": {"search": 2.0}}


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"b": 1, "a": {"z": [1, 2.5, None, True, "é☃😀"], "y": {}}},
        {"zero": -0.0, "large": 12345678901234567890, "small": 1e-7},
        ["a", "list"],
        "a text",
        {"nul": "\x00", "line": "a\nb"},
    ],
    ids=["none", "nested", "numbers", "list", "text", "controls"],
)
def test_details_come_back_as_they_were_sent(client: HaldirClient, details: Any) -> None:
    session_id = client.create_session("agent")["session_id"]
    client.log_action(session_id, tool="t", action="a", details=details)
    assert client.get_audit_trail()["entries"][0]["details"] == details
