"""Approvals: rules about what people decide, requests, decisions, and payments that wait for them.

An approval covers exactly what was asked for, once. However many decide at the same moment, one
decision counts.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from haldir import HaldirPermissionError

from harness import PATIENCE_S, Server, Tenant, at_once, created, found, refusal, short

StartServer = Callable[..., Server]

BRIEF_TTL_S = 1
BRIEF_PAUSE_S = 1.3
MANY = 3_000


def add_rule(tenant: Tenant, kind: str, **fields: Any) -> int:
    return created(tenant.post("/v1/approvals/rules", {"type": kind, **fields}))["rule_id"]


def request(tenant: Tenant, session_id: str, **fields: Any) -> str:
    """The id of a new request."""
    return created(tenant.post("/v1/approvals/request", {"session_id": session_id, **fields}))["request_id"]


def decide(tenant: Tenant, request_id: str, verdict: str, body: Any = None, **options: Any) -> httpx.Response:
    return tenant.post(f"/v1/approvals/{request_id}/{verdict}", body, **options)


def approve(tenant: Tenant, request_id: str, **body: Any) -> dict[str, Any]:
    return found(decide(tenant, request_id, "approve", body))


def deny(tenant: Tenant, request_id: str, **body: Any) -> dict[str, Any]:
    return found(decide(tenant, request_id, "deny", body))


def get(tenant: Tenant, request_id: str, **query: str) -> dict[str, Any]:
    return found(tenant.get(f"/v1/approvals/{request_id}", params=query))


def pending(tenant: Tenant, **query: Any) -> list[str]:
    answer = found(tenant.get("/v1/approvals/pending", params=query))
    assert answer["count"] == len(answer["requests"])
    return [it["request_id"] for it in answer["requests"]]


def pay(tenant: Tenant, session_id: str, amount: float, **fields: Any) -> httpx.Response:
    return tenant.post("/v1/payments/authorize", {"session_id": session_id, "amount": amount, **fields})


def held_up(answer: httpx.Response) -> str:
    """The request that a payment waits for. Clients that look for the budget in the reason find it."""
    assert answer.status_code == 402, f"{answer.status_code} {answer.text}"
    body = answer.json()
    assert body["authorized"] is False and body["code"] == "approval_required" and "budget" in body["reason"]
    return body["approval_request_id"]


def denied(answer: httpx.Response, code: str) -> dict[str, Any]:
    assert answer.status_code == 403, f"{answer.status_code} {answer.text}"
    body = answer.json()
    assert body["authorized"] is False and body["code"] == code, body
    return body


@pytest.fixture
def payer(tenant: Tenant) -> str:
    """A session that may pay, of a tenant where more than 100 needs an approval."""
    add_rule(tenant, "spend_over", threshold=100)
    return tenant.open_session(agent_id="payer", scopes=["spend"], spend_limit=10_000)


# -- Rules ---------------------------------------------------------------------------------------------


def test_rules_are_added_listed_and_removed(tenant: Tenant) -> None:
    assert found(tenant.get("/v1/approvals/rules")) == {"count": 0, "rules": []}
    first = created(tenant.post("/v1/approvals/rules", {"type": "spend_over", "threshold": "2.5"}))
    assert first == {"added": True, "type": "spend_over", "rule_id": 1}
    second = add_rule(tenant, "tool_blocked", tools=["rm", "mail"], required_approvals=2)
    listed = found(tenant.get("/v1/approvals/rules"))
    assert listed == {
        "count": 2,
        "rules": [
            {"rule_id": 1, "type": "spend_over", "threshold": 2.5, "tools": [], "required_approvals": 1},
            {"rule_id": second, "type": "tool_blocked", "threshold": 0.0, "tools": ["rm", "mail"],
             "required_approvals": 2},
        ],
    }  # fmt: skip
    assert found(tenant.delete("/v1/approvals/rules/1")) == {"removed": True, "rule_id": 1}
    for unknown in ["1", "99", "x", "-1", str(2**64)]:
        refusal(tenant.delete(f"/v1/approvals/rules/{unknown}"), 404)
    assert add_rule(tenant, "all") == 3, "numbers are not used again"
    assert [rule["rule_id"] for rule in found(tenant.get("/v1/approvals/rules"))["rules"]] == [2, 3]
    assert tenant.record() == [
        "key.minted", "approval_rule.added", "approval_rule.added", "approval_rule.removed", "approval_rule.added",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "payment", "waits"),
    [
        ({"type": "all"}, {"amount": 0.01}, True),
        ({"type": "spend_over", "threshold": 5}, {"amount": 5}, False),
        ({"type": "spend_over", "threshold": 5}, {"amount": 5.000000001}, True),
        ({"type": "spend_over"}, {"amount": 0.01}, True),
        ({"type": "spend_over", "threshold": "5.5"}, {"amount": 5.5}, False),
        ({"type": "tool_blocked", "tools": ["rm", "mail"]}, {"amount": 1, "tool": "mail"}, True),
        ({"type": "tool_blocked", "tools": ["rm", "mail"]}, {"amount": 1, "tool": "Mail"}, False),
        ({"type": "tool_blocked", "tools": ["rm", "mail"]}, {"amount": 1}, False),
        ({"type": "tool_blocked"}, {"amount": 1, "tool": "mail"}, False),
        ({"type": "destructive"}, {"amount": 1, "action": "delete"}, True),
        ({"type": "destructive"}, {"amount": 1, "action": "write"}, True),
        ({"type": "destructive"}, {"amount": 1, "action": "execute"}, True),
        ({"type": "destructive"}, {"amount": 1, "action": "send"}, True),
        ({"type": "destructive"}, {"amount": 1, "action": "read"}, False),
        ({"type": "destructive"}, {"amount": 1}, False),
        ({"type": "full moon", "threshold": 0, "tools": ["mail"]}, {"amount": 1000, "tool": "mail"}, False),
    ],
    ids=short,
)
def test_a_rule_holds_up_what_it_is_about(
    tenant: Tenant, rule: dict[str, Any], payment: dict[str, Any], waits: bool
) -> None:
    created(tenant.post("/v1/approvals/rules", rule))
    session_id = tenant.open_session()
    for path in ("/v1/payments/authorize", "/v1/payments/reserve"):
        answer = tenant.post(path, {"session_id": session_id, **payment})
        if waits:
            held_up(answer)
        else:
            found(answer)
    assert len(pending(tenant)) == waits


def test_a_removed_rule_holds_nothing_up(tenant: Tenant) -> None:
    rule_id = add_rule(tenant, "all")
    session_id = tenant.open_session()
    held_up(pay(tenant, session_id, 1))
    found(tenant.delete(f"/v1/approvals/rules/{rule_id}"))
    found(pay(tenant, session_id, 1))


def test_rules_and_requests_are_the_tenants_own(tenant: Tenant, stranger: Tenant) -> None:
    add_rule(tenant, "all")
    session_id = tenant.open_session()
    request_id = request(tenant, session_id, amount=5)
    found(pay(stranger, stranger.open_session(), 5))
    assert found(stranger.get("/v1/approvals/rules"))["count"] == 0
    assert pending(stranger) == []
    refusal(stranger.get(f"/v1/approvals/{request_id}"), 404)
    refusal(stranger.get(f"/v1/approvals/{request_id}", params={"wait": "1s"}), 404)
    unknown = refusal(decide(stranger, "apr_unknown", "approve"), 400)
    for verdict in ("approve", "deny"):
        told = refusal(decide(stranger, request_id, verdict), 400)
        assert {**told, "request_id": ""} == {**unknown, "request_id": ""}
    refusal(stranger.delete("/v1/approvals/rules/1"), 404)
    refusal(stranger.post("/v1/approvals/request", {"session_id": session_id}), 401)
    theirs = stranger.open_session()
    denied(pay(stranger, theirs, 5, approval_id=request_id), "approval_not_covering")
    assert get(tenant, request_id)["status"] == "pending"


def test_who_may_do_what_with_approvals(tenant: Tenant) -> None:
    session_id = tenant.open_session()
    request_id = request(tenant, session_id)
    reader, writer = tenant.mint("approvals:read"), tenant.mint("approvals:write")
    for path in ("/v1/approvals/rules", "/v1/approvals/pending", f"/v1/approvals/{request_id}"):
        found(tenant.get(path, key=reader))
        refusal(tenant.get(path, key=tenant.mint("payments:*")), 403, "insufficient_scope")
        refusal(tenant.server.call("GET", path), 401)
    for path in ("rules", "request", f"{request_id}/approve", f"{request_id}/deny"):
        refusal(tenant.post(f"/v1/approvals/{path}", {}, key=reader), 403, "insufficient_scope")
        refusal(tenant.server.call("POST", f"/v1/approvals/{path}"), 401)
    refusal(tenant.delete("/v1/approvals/rules/1", key=reader), 403, "insufficient_scope")
    assert get(tenant, request_id)["status"] == "pending"
    found(decide(tenant, request_id, "approve", key=writer))
    assert get(tenant, request_id)["decided_by"] == writer[:12]


# -- Requests ------------------------------------------------------------------------------------------


def test_a_request_is_shown_as_it_was_made(tenant: Tenant) -> None:
    session_id = tenant.open_session(agent_id="asker")
    details = {"b": [1, 2.5, None, True, "é☃😀"], "a": {"z": -0.0}, "large": 12345678901234567890}
    asked = {"tool": "mail", "action": "send", "amount": 250.5, "reason": "a\nlong\tstory", "details": details}
    made = created(tenant.post("/v1/approvals/request", {"session_id": session_id, **asked, "ttl": 60}))
    assert made["request_id"].startswith("apr_") and made["status"] == "pending"
    shown = get(tenant, made["request_id"])
    expected = {"request_id": made["request_id"], "status": "pending", "agent_id": "asker", **asked}
    assert {key: shown[key] for key in expected} == expected
    assert shown["decided_by"] == shown["decision_note"] == shown["used_by"] == ""
    assert shown["expires_at"] == made["expires_at"] == pytest.approx(shown["created_at"] + 60, abs=0.001)
    (row,) = found(tenant.get("/v1/approvals/pending"))["requests"]
    same = ("request_id", "agent_id", "tool", "action", "amount", "reason", "created_at")
    assert {key: row[key] for key in same} == {key: shown[key] for key in same}
    (event,) = tenant.events("approval.requested")
    assert event["event"]["arguments_digest"] and "☃" not in json.dumps(event), "the ledger holds a digest of them"


@pytest.mark.parametrize(
    "details",
    [
        '{"number": 123456789012345678901234567890}',
        '{"number": 0.1234567890123456789012345678901}',
        '{"number": 1e300, "other": 100000000000000000000001}',
        "[]",
        '"text"',
        "7",
        '{"\\u0061": "\\u00e9"}',
    ],
    ids=short,
)
def test_deciders_see_the_arguments_to_the_last_digit(tenant: Tenant, details: str) -> None:
    session_id = tenant.open_session()
    body = f'{{"session_id": "{session_id}", "details": {details}}}'
    made = created(tenant.call("POST", "/v1/approvals/request", content=body))
    answer = tenant.get(f"/v1/approvals/{made['request_id']}")

    def exact(text: str) -> Any:
        return json.loads(text, parse_int=lambda digits: f"int {digits}", parse_float=lambda digits: f"float {digits}")

    assert exact(answer.text)["details"] == exact(details)


def test_arguments_that_differ_in_the_last_digit_are_two_requests(tenant: Tenant) -> None:
    session_id = tenant.open_session()
    made = set()
    for number in ("100000000000000000000001", "100000000000000000000002"):
        body = f'{{"session_id": "{session_id}", "details": {{"account": {number}}}}}'
        made.add(created(tenant.call("POST", "/v1/approvals/request", content=body))["request_id"])
    assert len(made) == 2


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"tool": None, "action": None, "amount": None, "reason": None, "details": None, "ttl": None},
        {"tool": "", "action": "", "amount": 0, "reason": "", "details": {}},
        {"amount": "0"},
    ],
    ids=short,
)
def test_a_request_needs_nothing_but_a_session(tenant: Tenant, asked: dict[str, Any]) -> None:
    shown = get(tenant, request(tenant, tenant.open_session(), **asked))
    assert (shown["tool"], shown["action"], shown["amount"], shown["reason"], shown["details"]) == ("", "", 0.0, "", {})
    assert shown["expires_at"] == pytest.approx(shown["created_at"] + 3600, abs=0.001)


@pytest.mark.parametrize(
    ("asked", "life"),
    [({"ttl": 60}, 60), ({"expires_in_s": 60}, 60), ({"ttl": 5, "expires_in_s": 60}, 5), ({"ttl": 0}, None)],
    ids=short,
)
def test_how_long_a_request_waits(tenant: Tenant, asked: dict[str, Any], life: int | None) -> None:
    shown = get(tenant, request(tenant, tenant.open_session(), **asked))
    if life is None:
        assert shown["expires_at"] == 0
    else:
        assert shown["expires_at"] == pytest.approx(shown["created_at"] + life, abs=0.001)


def test_the_same_request_is_made_once_while_it_is_pending(tenant: Tenant) -> None:
    session_id = tenant.open_session()
    asked = {"tool": "mail", "action": "send", "amount": 5, "details": {"to": "a", "cc": ["b"]}}
    first = created(tenant.post("/v1/approvals/request", {"session_id": session_id, **asked, "reason": "why"}))
    again = {**asked, "details": {"cc": ["b"], "to": "a"}, "reason": "another reason"}
    assert created(tenant.post("/v1/approvals/request", {"session_id": session_id, **again})) == first
    for change in [{"tool": "x"}, {"action": "x"}, {"amount": 5.01}, {"details": {"to": "a"}}, {"currency": "EUR"}]:
        assert request(tenant, session_id, **{**asked, **change}) != first["request_id"]
    other = tenant.open_session()
    assert request(tenant, other, **asked) != first["request_id"]
    answers = at_once(16, lambda _: request(tenant, session_id, **asked))
    assert set(answers) == {first["request_id"]}
    assert tenant.record().count("approval.requested") == 7

    deny(tenant, first["request_id"])
    assert request(tenant, session_id, **asked) != first["request_id"], "it was decided"


def test_pending_requests_are_listed_newest_first_and_by_agent(tenant: Tenant) -> None:
    sessions = {agent: tenant.open_session(agent_id=agent) for agent in ("anna", "bert")}
    made = [request(tenant, sessions[agent], amount=n + 1) for n, agent in enumerate(["anna", "bert", "anna", "anna"])]
    assert pending(tenant) == made[::-1]
    assert pending(tenant, agent_id="bert") == [made[1]]
    assert pending(tenant, agent_id="nobody") == []
    assert pending(tenant, limit=2) == [made[3], made[2]]
    approve(tenant, made[3])
    deny(tenant, made[1])
    assert pending(tenant) == [made[2], made[0]]
    for limit in ["0", "x", "-1", "10001"]:
        refusal(tenant.get("/v1/approvals/pending", params={"limit": limit}), 400)


@pytest.mark.parametrize("session_id", ["ses_unknown", "revoked", "expired"])
def test_only_a_live_session_asks(tenant: Tenant, session_id: str) -> None:
    if session_id == "revoked":
        session_id = tenant.open_session()
        found(tenant.delete(f"/v1/sessions/{session_id}"))
    elif session_id == "expired":
        session_id = tenant.open_session(ttl=BRIEF_TTL_S)
        time.sleep(BRIEF_PAUSE_S)
    refusal(tenant.post("/v1/approvals/request", {"session_id": session_id}), 401, "invalid_session")
    assert tenant.record().count("approval.requested") == 0


# -- Decisions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b" "], ids=repr)
@pytest.mark.parametrize(("verdict", "status"), [("approve", "approved"), ("deny", "denied")])
def test_a_decision_needs_no_body(tenant: Tenant, verdict: str, status: str, content: bytes) -> None:
    """The published JavaScript client sends its decisions with a JSON content type and without a body."""
    for headers in ({}, {"Content-Type": "application/json"}):
        request_id = request(tenant, tenant.open_session())
        path = f"/v1/approvals/{request_id}/{verdict}"
        said = found(tenant.call("POST", path, content=content, headers=headers))
        assert said[status] is True and said["request_id"] == request_id and said["status"] == status
        shown = get(tenant, request_id)
        assert (shown["status"], shown["decided_by"], shown["decision_note"]) == (status, tenant.prefix, "")


@pytest.mark.parametrize("word", ["note", "reason"])
@pytest.mark.parametrize(("verdict", "status"), [("approve", "approved"), ("deny", "denied")])
def test_who_decided_and_what_they_said_is_kept(tenant: Tenant, verdict: str, status: str, word: str) -> None:
    request_id = request(tenant, tenant.open_session())
    found(decide(tenant, request_id, verdict, {"decided_by": "Käthe", word: "not\ntoday"}))
    shown = get(tenant, request_id)
    assert (shown["status"], shown["decided_by"], shown["decision_note"]) == (status, "Käthe", "not\ntoday")
    (event,) = tenant.events("approval.granted", "approval.denied")
    assert (event["event"]["decided_by"], event["event"]["note"]) == ("Käthe", "not\ntoday")
    assert event["actor"] == f"key:{tenant.prefix}"


@pytest.mark.parametrize("name", ["apr_unknown", "x", "x" * 200, "%00", "é", "apr_'%20or%201=1", "pending2"], ids=short)
def test_what_there_is_not_cannot_be_decided(tenant: Tenant, name: str) -> None:
    for verdict in ("approve", "deny"):
        refusal(decide(tenant, name, verdict), 400)
    refusal(tenant.get(f"/v1/approvals/{name}"), 404)
    assert tenant.record() == ["key.minted"]


@pytest.mark.parametrize("first", ["approve", "deny"])
@pytest.mark.parametrize("second", ["approve", "deny"])
def test_a_decision_stands(tenant: Tenant, first: str, second: str) -> None:
    request_id = request(tenant, tenant.open_session())
    found(decide(tenant, request_id, first, {"decided_by": "one"}))
    before = tenant.record()
    for decider in ("one", "two"):
        refusal(decide(tenant, request_id, second, {"decided_by": decider}), 409, "already_decided")
    assert tenant.record() == before and get(tenant, request_id)["decided_by"] == "one"


def test_what_expired_cannot_be_decided(tenant: Tenant) -> None:
    request_id = request(tenant, tenant.open_session(), ttl=BRIEF_TTL_S)
    kept = request(tenant, tenant.open_session())
    time.sleep(BRIEF_PAUSE_S)
    assert pending(tenant) == [kept]
    assert get(tenant, request_id)["status"] == "expired"
    for verdict in ("approve", "deny"):
        refusal(decide(tenant, request_id, verdict), 400, "approval_expired")
    deadline = time.monotonic() + 30
    while not (events := tenant.events("approval.expired")):
        assert time.monotonic() < deadline, "not recorded"
        time.sleep(0.2)
    assert [event["event"] for event in events] == [{"request_id": request_id}]
    assert events[0]["actor"] == "system"
    assert get(tenant, request_id)["status"] == "expired"


def test_of_fifty_deciders_at_once_one_decides(tenant: Tenant) -> None:
    request_id = request(tenant, tenant.open_session())

    def act(number: int) -> httpx.Response:
        verdict = "approve" if number % 2 else "deny"
        return decide(tenant, request_id, verdict, {"decided_by": f"decider-{number}"})

    answers = at_once(50, act)
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 49}
    for answer in answers:
        if answer.status_code == 409:
            refusal(answer, 409, "already_decided")
    (won,) = (number for number, answer in enumerate(answers) if answer.status_code == 200)
    shown = get(tenant, request_id)
    assert (shown["decided_by"], shown["status"]) == (f"decider-{won}", "approved" if won % 2 else "denied")
    assert len(tenant.events("approval.granted", "approval.denied")) == 1


def test_of_fifty_who_use_an_approval_at_once_one_pays(tenant: Tenant, payer: str) -> None:
    approve(tenant, held_up(pay(tenant, payer, 250)))
    answers = at_once(50, lambda _: pay(tenant, payer, 250))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 402: 49}
    assert len({held_up(answer) for answer in answers if answer.status_code == 402}) == 1, "one new request"
    assert found(tenant.get(f"/v1/sessions/{payer}"))["spent"] == 250.0


@pytest.mark.parametrize("decider", ["decided_by", "key"])
def test_two_who_must_approve_are_two(tenant: Tenant, decider: str) -> None:
    request_id = request(tenant, tenant.open_session(), required_approvals=2)
    keys = [tenant.mint("approvals:write") for _ in range(2)]

    def vote(number: int) -> httpx.Response:
        if decider == "key":
            return decide(tenant, request_id, "approve", key=keys[number])
        return decide(tenant, request_id, "approve", {"decided_by": f"decider-{number}"})

    said = found(vote(0))
    assert (said["approved"], said["status"], said["missing_approvals"]) == (False, "pending", 1)
    assert pending(tenant) == [request_id] and get(tenant, request_id)["status"] == "pending"
    for _ in range(2):
        refusal(vote(0), 409, "already_approved")
    said = found(vote(1))
    assert (said["approved"], said["status"], said["missing_approvals"]) == (True, "approved", 0)
    names = [key[:12] for key in keys] if decider == "key" else ["decider-0", "decider-1"]
    shown = get(tenant, request_id)
    assert shown["approved_by"] == names and shown["decided_by"] == ", ".join(names)
    assert pending(tenant) == []


def test_one_who_denies_is_enough(tenant: Tenant) -> None:
    request_id = request(tenant, tenant.open_session(), required_approvals=3)
    approve(tenant, request_id, decided_by="one")
    deny(tenant, request_id, decided_by="two")
    assert get(tenant, request_id)["status"] == "denied"
    refusal(decide(tenant, request_id, "approve", {"decided_by": "three"}), 409)


def test_a_rule_can_ask_for_more_deciders(tenant: Tenant) -> None:
    add_rule(tenant, "spend_over", threshold=100)
    add_rule(tenant, "spend_over", threshold=1000, required_approvals=2)
    session_id = tenant.open_session()
    alone = held_up(pay(tenant, session_id, 1000))
    both = held_up(pay(tenant, session_id, 1001))
    assert [get(tenant, it)["required_approvals"] for it in (alone, both)] == [1, 2]
    approve(tenant, both, decided_by="one")
    assert held_up(pay(tenant, session_id, 1001)) == both, "half approved is not approved"
    approve(tenant, both, decided_by="two")
    found(pay(tenant, session_id, 1001))
    asked = created(tenant.post("/v1/approvals/request", {"session_id": session_id, "amount": 2000}))
    assert asked["required_approvals"] == 2, "also of a request that was made by hand"


def test_an_approval_from_before_a_stricter_rule_is_not_enough(tenant: Tenant) -> None:
    rule_id = add_rule(tenant, "all")
    session_id = tenant.open_session()
    request_id = held_up(pay(tenant, session_id, 5))
    approve(tenant, request_id)
    stricter = add_rule(tenant, "all", required_approvals=2)
    assert held_up(pay(tenant, session_id, 5)) != request_id
    denied(pay(tenant, session_id, 5, approval_id=request_id), "approval_not_covering")
    for removed in (rule_id, stricter):
        found(tenant.delete(f"/v1/approvals/rules/{removed}"))
    found(pay(tenant, session_id, 5, approval_id=request_id))


# -- Payments that wait --------------------------------------------------------------------------------------


def test_a_payment_over_a_rule_waits_and_then_passes_once(tenant: Tenant, payer: str) -> None:
    found(pay(tenant, payer, 100))
    body = {"currency": "EUR", "description": "a machine", "tool": "shop", "action": "buy"}
    request_id = held_up(pay(tenant, payer, 250, **body))
    for _ in range(2):
        assert held_up(pay(tenant, payer, 250, **body)) == request_id
    assert pending(tenant) == [request_id]
    shown = get(tenant, request_id)
    told = {"session_id": payer, "agent_id": "payer", "amount": 250.0, **body}
    assert {key: shown[key] for key in told} == told
    assert found(tenant.get(f"/v1/sessions/{payer}"))["spent"] == 100.0

    approve(tenant, request_id)
    paid = found(pay(tenant, payer, 250, **body))
    assert paid["remaining_budget"] == 9650.0
    assert get(tenant, request_id)["used_by"] == paid["authorization_id"]
    (event,) = [it for it in tenant.events("payment.authorized") if it["event"]["amount_usd"] == "250.0"]
    assert event["event"]["approval_id"] == request_id
    second = held_up(pay(tenant, payer, 250, **body))
    assert second != request_id, "an approval covers one payment"
    requested = [it["event"] for it in tenant.events("approval.requested")]
    assert [(it["request_id"], it["origin"]) for it in requested] == [(request_id, "payment"), (second, "payment")]
    waiting = [it["event"]["approval_id"] for it in tenant.events("payment.denied")]
    assert waiting == [request_id] * 3 + [second]


@pytest.mark.parametrize(
    "change",
    [{"amount": 250.01}, {"amount": 249.99}, {"currency": "EUR"}, {"description": "x"}, {"tool": "x"}, {"action": "x"}],
    ids=short,
)
def test_an_approval_covers_nothing_else(tenant: Tenant, payer: str, change: dict[str, Any]) -> None:
    first = held_up(pay(tenant, payer, 250))
    approve(tenant, first)
    other = {"amount": 250, **change}
    assert held_up(pay(tenant, payer, **other)) != first
    denied(pay(tenant, payer, **other, approval_id=first), "approval_not_covering")
    second_session = tenant.open_session(agent_id="payer")
    assert held_up(pay(tenant, second_session, 250)) != first
    denied(pay(tenant, second_session, 250, approval_id=first), "approval_not_covering")
    found(pay(tenant, payer, 250))


def test_a_named_approval_is_used_or_the_payment_is_denied(tenant: Tenant, payer: str) -> None:
    request_id = held_up(pay(tenant, payer, 250))
    before = denied(pay(tenant, payer, 250, approval_id=request_id), "approval_not_covering")
    assert before["approval_request_id"] == request_id and "budget" in before["reason"]
    denied(pay(tenant, payer, 250, approval_id="apr_unknown"), "approval_not_covering")
    approve(tenant, request_id)
    found(pay(tenant, payer, 250, approval_id=request_id))
    denied(pay(tenant, payer, 250, approval_id=request_id), "approval_not_covering")
    assert found(tenant.get(f"/v1/sessions/{payer}"))["spent"] == 250.0


def test_an_approval_does_not_widen_a_budget(tenant: Tenant) -> None:
    add_rule(tenant, "all")
    session_id = tenant.open_session(spend_limit=100)
    denied(pay(tenant, session_id, 100.01), "budget_exceeded")
    assert pending(tenant) == [], "nobody is asked about what cannot be paid"
    first, second = (held_up(pay(tenant, session_id, amount)) for amount in (60, 50))
    approve(tenant, first)
    approve(tenant, second)
    found(pay(tenant, session_id, 60))
    denied(pay(tenant, session_id, 50, approval_id=second), "budget_exceeded")
    assert get(tenant, second)["used_by"] == ""


def test_a_denied_payment_stays_denied(tenant: Tenant, payer: str) -> None:
    request_id = held_up(pay(tenant, payer, 250))
    deny(tenant, request_id, note="no")
    for _ in range(2):
        said = denied(pay(tenant, payer, 250), "approval_denied")
        assert said["approval_request_id"] == request_id and "budget" in said["reason"]
    denied(pay(tenant, payer, 250, approval_id=request_id), "approval_not_covering")
    assert held_up(pay(tenant, payer, 251)) != request_id, "another payment is another question"
    found(pay(tenant, payer, 100))


def test_an_approval_that_was_asked_for_first_covers_the_payment(tenant: Tenant, payer: str) -> None:
    request_id = request(tenant, payer, tool="shop", action="buy", amount=250, reason="a machine")
    approve(tenant, request_id)
    found(pay(tenant, payer, 250, description="whatever it is called", tool="shop", action="buy"))
    assert get(tenant, request_id)["used_by"].startswith("auth_")
    held_up(pay(tenant, payer, 250, tool="shop", action="buy"))


def test_a_reservation_uses_an_approval_too(tenant: Tenant, payer: str) -> None:
    body = {"session_id": payer, "amount": 250}
    request_id = held_up(tenant.post("/v1/payments/reserve", body))
    assert held_up(tenant.post("/v1/payments/reserve", body)) == request_id
    approve(tenant, request_id)
    reserved = found(tenant.post("/v1/payments/reserve", body))["authorization_id"]
    assert get(tenant, request_id)["used_by"] == reserved
    found(tenant.post(f"/v1/payments/{reserved}/settle", {"amount": 200}))
    assert held_up(tenant.post("/v1/payments/reserve", body)) != request_id


def test_a_payment_that_waits_can_be_retried_with_the_same_key(tenant: Tenant, payer: str) -> None:
    retry = {"Idempotency-Key": "k"}
    body = {"session_id": payer, "amount": 250}
    request_id = held_up(tenant.post("/v1/payments/authorize", body, headers=retry))
    assert held_up(tenant.post("/v1/payments/authorize", body, headers=retry)) == request_id
    approve(tenant, request_id)
    paid = found(tenant.post("/v1/payments/authorize", body, headers=retry))
    assert found(tenant.post("/v1/payments/authorize", body, headers=retry)) == paid
    assert found(tenant.get(f"/v1/sessions/{payer}"))["spent"] == 250.0


def test_an_approval_of_a_session_that_has_ended_pays_nothing(tenant: Tenant, payer: str) -> None:
    request_id = held_up(pay(tenant, payer, 250))
    approve(tenant, request_id)
    found(tenant.delete(f"/v1/sessions/{payer}"))
    refusal(pay(tenant, payer, 250), 401)
    refusal(pay(tenant, payer, 250, approval_id=request_id), 401)
    assert get(tenant, request_id)["used_by"] == ""


# -- Narrower than asked ------------------------------------------------------------------------------------


def test_less_can_be_approved_than_was_asked_for(tenant: Tenant, payer: str) -> None:
    request_id = held_up(pay(tenant, payer, 250))
    approve(tenant, request_id, amount=150)
    shown = get(tenant, request_id)
    assert (shown["amount"], shown["approved_amount"]) == (250.0, 150.0)
    denied(pay(tenant, payer, 150.01, approval_id=request_id), "approval_not_covering")
    assert held_up(pay(tenant, payer, 250)) != request_id
    found(pay(tenant, payer, 150))
    assert get(tenant, request_id)["used_by"].startswith("auth_")


def test_approved_for_a_shorter_time(tenant: Tenant, payer: str) -> None:
    request_id = held_up(pay(tenant, payer, 250))
    approve(tenant, request_id, ttl=BRIEF_TTL_S)
    shown = get(tenant, request_id)
    assert 0 < shown["usable_until"] < shown["expires_at"]
    time.sleep(BRIEF_PAUSE_S)
    denied(pay(tenant, payer, 250, approval_id=request_id), "approval_not_covering")
    assert held_up(pay(tenant, payer, 250)) != request_id


def test_a_longer_time_than_was_asked_for_is_not_given(tenant: Tenant, payer: str) -> None:
    request_id = held_up(pay(tenant, payer, 250))
    approve(tenant, request_id, ttl=2_592_000)
    shown = get(tenant, request_id)
    assert shown["usable_until"] == shown["expires_at"]


def test_the_narrowest_of_several_deciders_counts(tenant: Tenant) -> None:
    add_rule(tenant, "all", required_approvals=3)
    session_id = tenant.open_session()
    request_id = held_up(pay(tenant, session_id, 250))
    approve(tenant, request_id, decided_by="one", amount=200)
    refusal(decide(tenant, request_id, "approve", {"decided_by": "two", "amount": 200.01}), 400)
    approve(tenant, request_id, decided_by="two", amount=150)
    approve(tenant, request_id, decided_by="three")
    assert get(tenant, request_id)["approved_amount"] == 150.0
    denied(pay(tenant, session_id, 150.01, approval_id=request_id), "approval_not_covering")
    found(pay(tenant, session_id, 150))


@pytest.mark.parametrize(
    "body",
    [
        {"amount": 250.01}, {"amount": -1}, {"amount": "100"}, {"amount": True}, {"amount": 1e-10}, {"ttl": 0},
        {"ttl": -1}, {"ttl": 1.5}, {"ttl": "60"}, {"ttl": 2_592_001}, {"decided_by": 7}, {"decided_by": "x" * 129},
        {"decided_by": "a\nb"}, {"note": 7}, {"note": "x" * 2001}, {"reason": ["x"]},
    ],
    ids=short,
)  # fmt: skip
def test_a_decision_that_makes_no_sense_decides_nothing(tenant: Tenant, payer: str, body: dict[str, Any]) -> None:
    request_id = held_up(pay(tenant, payer, 250))
    before = tenant.record()
    refusal(decide(tenant, request_id, "approve", body), 400, "invalid_request")
    assert tenant.record() == before and get(tenant, request_id)["status"] == "pending"


@pytest.mark.parametrize("content", [b"{", b"[1]", b"7", b'{"note": "\xff"}', b'{"note": "a", "note": "b"}'], ids=repr)
def test_a_decision_that_is_no_json_decides_nothing(tenant: Tenant, content: bytes) -> None:
    request_id = request(tenant, tenant.open_session())
    for verdict in ("approve", "deny"):
        refusal(tenant.call("POST", f"/v1/approvals/{request_id}/{verdict}", content=content), 400)
    assert get(tenant, request_id)["status"] == "pending"


# -- Waiting ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verdict", "status"), [("approve", "approved"), ("deny", "denied")])
def test_who_waits_hears_of_the_decision(tenant: Tenant, verdict: str, status: str) -> None:
    request_id = request(tenant, tenant.open_session())
    waiters = 8
    with ThreadPoolExecutor(waiters) as pool:
        started = time.monotonic()
        waiting = [pool.submit(get, tenant, request_id, wait="60s") for _ in range(waiters)]
        time.sleep(0.5)
        assert not any(waiter.done() for waiter in waiting)
        found(decide(tenant, request_id, verdict))
        answers = [waiter.result(PATIENCE_S) for waiter in waiting]
        took = time.monotonic() - started
    assert [answer["status"] for answer in answers] == [status] * waiters
    assert took < 30, "long before the time was over"


def test_who_waits_in_vain_is_told_so_afterwards(tenant: Tenant) -> None:
    request_id = request(tenant, tenant.open_session())
    for wait in ("1s", "1", "1000ms"):
        started = time.monotonic()
        assert get(tenant, request_id, wait=wait)["status"] == "pending"
        assert 0.9 < time.monotonic() - started < 30


def test_who_waits_hears_of_the_end_of_the_time(tenant: Tenant) -> None:
    request_id = request(tenant, tenant.open_session(), ttl=BRIEF_TTL_S)
    started = time.monotonic()
    assert get(tenant, request_id, wait="60s")["status"] == "expired"
    assert time.monotonic() - started < 30


def test_what_is_decided_is_not_waited_for(tenant: Tenant) -> None:
    request_id = request(tenant, tenant.open_session())
    approve(tenant, request_id)
    started = time.monotonic()
    assert get(tenant, request_id, wait="60s")["status"] == "approved"
    refusal(tenant.get("/v1/approvals/apr_unknown", params={"wait": "60s"}), 404)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("wait", ["61s", "2m", "-1s", "soon", "1e9", "NaN", "99999999999999999999s"])
def test_a_time_that_nobody_waits(tenant: Tenant, wait: str) -> None:
    request_id = request(tenant, tenant.open_session())
    refusal(tenant.get(f"/v1/approvals/{request_id}", params={"wait": wait}), 400)


def test_a_server_that_stops_lets_go_who_waits(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()
    request_id = request(tenant, tenant.open_session())
    answers: list[httpx.Response] = []
    path = f"/v1/approvals/{request_id}"
    waiter = threading.Thread(target=lambda: answers.append(tenant.get(path, params={"wait": "60s"})))
    waiter.start()
    time.sleep(0.5)
    started = time.monotonic()
    server.stop()
    waiter.join(PATIENCE_S)
    assert time.monotonic() - started < 30
    assert [found(answer)["status"] for answer in answers] == ["pending"]
    server.start()


# -- Many, and for long -------------------------------------------------------------------------------------


def test_three_thousand_requests_wait_and_can_all_be_decided(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()
    session_id = tenant.open_session()
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda n: request(tenant, session_id, action=f"action {n}"), range(MANY)))
    assert len(set(made)) == MANY
    assert set(pending(tenant)) == set(made)
    assert set(pending(tenant, limit=MANY // 3)) < set(made)
    server.kill()
    server.start()
    assert set(pending(tenant)) == set(made)

    def act(numbered: tuple[int, str]) -> int:
        number, request_id = numbered
        return decide(tenant, request_id, "approve" if number % 3 else "deny").status_code

    with ThreadPoolExecutor(16) as pool:
        assert Counter(pool.map(act, enumerate(made[1:]))) == {200: MANY - 1}
    assert pending(tenant) == made[:1]
    kinds = Counter(tenant.record())
    assert kinds["approval.granted"] + kinds["approval.denied"] == MANY - 1


def test_everything_about_approvals_survives_a_kill(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()
    add_rule(tenant, "spend_over", threshold=100, required_approvals=2)
    session_id = tenant.open_session()
    half, whole, no, used = (held_up(pay(tenant, session_id, amount)) for amount in (200, 300, 400, 500))
    asked = request(tenant, session_id, details={"to": "somebody"})
    approve(tenant, half, decided_by="one", amount=150)
    for request_id in (whole, used):
        for decider in ("one", "two"):
            approve(tenant, request_id, decided_by=decider)
    deny(tenant, no, note="no")
    found(pay(tenant, session_id, 500))

    def everything() -> list[Any]:
        paths = ["/v1/approvals/rules", "/v1/approvals/pending"]
        return [found(tenant.get(path)) for path in paths] + [
            get(tenant, request_id) for request_id in (half, whole, no, used, asked)
        ]

    before = everything()
    server.kill()
    server.start()
    assert everything() == before
    refusal(decide(tenant, half, "approve", {"decided_by": "one"}), 409, "already_approved")
    found(pay(tenant, session_id, 300))
    denied(pay(tenant, session_id, 400), "approval_denied")
    assert get(tenant, asked)["details"] == {"to": "somebody"}


def test_a_request_expires_although_the_server_was_off(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()
    request_id = request(tenant, tenant.open_session(), ttl=BRIEF_TTL_S)
    server.kill()
    time.sleep(BRIEF_PAUSE_S)
    server.start()
    refusal(decide(tenant, request_id, "approve"), 400, "approval_expired")
    assert get(tenant, request_id)["status"] == "expired" and pending(tenant) == []


def test_the_past_has_its_own_approvals(tenant: Tenant, payer: str) -> None:
    request_id = held_up(pay(tenant, payer, 250))
    then = tenant.events()[-1]["at"]
    approve(tenant, request_id)
    found(tenant.delete("/v1/approvals/rules/1"))
    assert get(tenant, request_id, as_of=then)["status"] == "pending"
    assert pending(tenant, as_of=then) == [request_id] and pending(tenant) == []
    assert found(tenant.get("/v1/approvals/rules", params={"as_of": then}))["count"] == 1


def test_requests_rules_and_decisions_can_be_retried(tenant: Tenant) -> None:
    session_id = tenant.open_session()
    retry = {"Idempotency-Key": "k"}

    def twice(path: str, body: Any) -> dict[str, Any]:
        first, second = (tenant.post(path, body, headers=retry) for _ in range(2))
        assert first.status_code == second.status_code in (200, 201) and first.json() == second.json()
        return first.json()

    twice("/v1/approvals/rules", {"type": "all", "threshold": 1})
    request_id = twice("/v1/approvals/request", {"session_id": session_id, "amount": 5})["request_id"]
    twice(f"/v1/approvals/{request_id}/approve", {"decided_by": "one", "note": "yes"})
    refusal(decide(tenant, request_id, "approve", {"decided_by": "two"}, headers=retry), 422)
    refusal(tenant.post("/v1/approvals/rules", {"type": "destructive"}, headers=retry), 422)
    refusal(tenant.post("/v1/approvals/request", {"session_id": session_id, "amount": 6}, headers=retry), 422)
    other = request(tenant, session_id, amount=7)
    twice(f"/v1/approvals/{other}/deny", {})
    assert Counter(kind for kind in tenant.record() if kind.startswith("approval")) == {
        "approval_rule.added": 1, "approval.requested": 2, "approval.granted": 1, "approval.denied": 1,
    }  # fmt: skip


# -- Bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {}, {"type": ""}, {"type": None}, {"type": 7}, {"type": "x" * 65}, {"type": "a\nb"},
        {"type": "spend_over", "threshold": "much"}, {"type": "spend_over", "threshold": -1},
        {"type": "spend_over", "threshold": "NaN"}, {"type": "spend_over", "threshold": [1]},
        {"type": "spend_over", "threshold": 10**400}, {"type": "tool_blocked", "tools": "rm"},
        {"type": "tool_blocked", "tools": [1]}, {"type": "tool_blocked", "tools": ["x"] * 33},
        {"type": "tool_blocked", "tools": ["x" * 257]}, {"type": "all", "required_approvals": 0},
        {"type": "all", "required_approvals": 17}, {"type": "all", "required_approvals": "2"},
        {"type": "all", "required_approvals": 1.5},
    ],
    ids=short,
)  # fmt: skip
def test_a_rule_that_makes_no_sense_is_refused_without_a_trace(tenant: Tenant, body: dict[str, Any]) -> None:
    refusal(tenant.post("/v1/approvals/rules", body), 400, "invalid_request")
    assert tenant.record() == ["key.minted"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"session_id": ...}, "session_id"), ({"session_id": ""}, "session_id"), ({"session_id": 7}, "session_id"),
        ({"session_id": None}, "session_id"), ({"tool": 7}, "tool"), ({"tool": "x" * 257}, "tool"),
        ({"action": ["x"]}, "action"), ({"action": "x" * 513}, "action"), ({"amount": "much"}, "amount"),
        ({"amount": -0.01}, "amount"), ({"amount": 10**13}, "amount"), ({"amount": 1e-10}, "amount"),
        ({"currency": "x" * 9}, "currency"), ({"reason": 7}, "reason"), ({"reason": "x" * 2001}, "reason"),
        ({"ttl": "soon"}, "ttl"), ({"ttl": -1}, "ttl"), ({"ttl": 2_592_001}, "ttl"), ({"ttl": 1.5}, "ttl"),
        ({"expires_in_s": -1}, "expires_in_s"), ({"required_approvals": 0}, "required_approvals"),
        ({"required_approvals": 17}, "required_approvals"),
    ],
    ids=short,
)  # fmt: skip
def test_a_request_that_makes_no_sense_is_refused_without_a_trace(
    tenant: Tenant, change: dict[str, Any], field: str
) -> None:
    asked = {"session_id": tenant.open_session(), **change}
    body = {name: value for name, value in asked.items() if value is not ...}
    assert refusal(tenant.post("/v1/approvals/request", body), 400, "invalid_request")["field"] == field
    assert tenant.record() == ["key.minted", "session.opened"]


# -- Links ------------------------------------------------------------------------------------------------

SECRETS = ["asker-agent", "a-secret-reason", "a-secret-tool", "a-secret-action", "secret-details", "777"]


def wrong_tokens(tenant: Tenant, stranger: Tenant) -> list[str | None]:
    mac = "A" * 43
    return [
        None, "", "x", ".", f"{tenant.id}.", f".{mac}", f"{tenant.id}.{mac}", f"{stranger.id}.{mac}", f"{tenant.id}.é",
        f"{tenant.id}.{mac}.{mac}", f"{tenant.id}.{'A' * 10_000}", "\x00", f"{tenant.id}.{mac}=",
    ]  # fmt: skip


@pytest.mark.parametrize("exists", [True, False])
def test_a_wrong_link_tells_nothing_and_decides_nothing(tenant: Tenant, stranger: Tenant, exists: bool) -> None:
    session_id = tenant.open_session(agent_id="asker-agent")
    secrets = {"reason": "a-secret-reason", "tool": "a-secret-tool", "action": "a-secret-action", "amount": 777}
    real = request(tenant, session_id, **secrets, details={"to": "secret-details"})
    path = f"/approvals/{real if exists else 'apr_unknown'}"
    before = tenant.record()
    pages = set()
    for token in wrong_tokens(tenant, stranger):
        form = {} if token is None else {"token": token}
        answers = [tenant.server.call("GET", path, params=form)]
        for verdict in ("approve", "deny"):
            form = {**form, "verdict": verdict, "name": "Mallory"}
            answers.append(tenant.server.call("POST", path, data=form))
            answers.append(tenant.server.call("POST", path, params=form))
            answers.append(tenant.call("POST", path, data=form))  # A key is no link.
        for answer in answers:
            assert answer.status_code == 403, f"{answer.status_code} {answer.text}"
            assert answer.headers["Content-Type"].startswith("text/html")
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert not any(secret in answer.text for secret in [*SECRETS, real, tenant.id])
            pages.add(answer.text)
    assert len(pages) == 1, "the page is the same whatever is wrong"
    assert tenant.record() == before and get(tenant, real)["status"] == "pending"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"token=%FF", b"token=a&token=b", b"{}", b"&&&=&", b"%"], ids=repr)
def test_a_form_that_makes_no_sense_decides_nothing(tenant: Tenant, content: bytes) -> None:
    request_id = request(tenant, tenant.open_session())
    answer = tenant.server.call("POST", f"/approvals/{request_id}", content=content)
    assert 400 <= answer.status_code < 500
    assert get(tenant, request_id)["status"] == "pending"
    refusal(tenant.server.call("PUT", f"/approvals/{request_id}"), 405)


# -- The journey ------------------------------------------------------------------------------------------


def test_the_human_in_the_loop(server: Server) -> None:
    """The documented journey, from the first key on: the published client for what it can, plain HTTP for the rest."""
    tenant = server.found_tenant(name="human in the loop")
    with tenant.client() as client:
        session_id = client.create_session("procurement", scopes=["read", "spend", "execute"], spend_limit=500)[
            "session_id"
        ]
        for rule in [
            {"type": "spend_over", "threshold": 100},
            {"type": "tool_blocked", "tools": ["production-database"]},
            {"type": "destructive"},
        ]:
            assert created(tenant.post("/v1/approvals/rules", rule))["added"] is True
        asked = {
            "session_id": session_id, "tool": "stripe", "action": "charge", "amount": 250,
            "reason": "Annual licence", "details": {"vendor": "ACME", "seats": 5}, "ttl": 3600,
        }  # fmt: skip
        request_id = created(tenant.post("/v1/approvals/request", asked))["request_id"]
        assert get(tenant, request_id)["status"] == "pending"
        assert pending(tenant, agent_id="procurement") == [request_id]
        with pytest.raises(HaldirPermissionError, match=r"(?i)budget"):
            client.authorize_payment(session_id, 501.0)

        said = found(decide(tenant, request_id, "approve", {"decided_by": "cfo@acme", "note": "Approved for Q1"}))
        assert said["approved"] is True and said["request_id"] == request_id
        shown = get(tenant, request_id)
        assert (shown["status"], shown["decided_by"], shown["decision_note"]) == (
            "approved", "cfo@acme", "Approved for Q1",
        )  # fmt: skip
        paid = client.authorize_payment(session_id, 250.0, description="Annual licence")
        assert paid["authorized"] is True and paid["remaining_budget"] == 250.0
        client.log_action(session_id, tool="stripe", action="charge", cost_usd=250.0)

        second = request(tenant, session_id, tool="stripe", action="charge", amount=10_000, reason="A yacht")
        assert found(decide(tenant, second, "deny", {"decided_by": "cfo@acme", "note": "No"}))["denied"] is True
        assert get(tenant, second)["status"] == "denied"
        assert pending(tenant) == []
        assert client.revoke_session(session_id)["revoked"] is True
    assert tenant.record() == [
        "key.minted", "session.opened", "approval_rule.added", "approval_rule.added", "approval_rule.added",
        "approval.requested", "payment.denied", "approval.granted", "payment.authorized", "action.logged",
        "approval.requested", "approval.denied", "session.revoked",
    ]  # fmt: skip
