"""Retries with an Idempotency-Key: carried out once, answered alike, and nobody else's business.

A client whose connection broke cannot know whether its request was carried out. It sends the
request again with the same key, and must get the answer it missed, not the effect a second time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from harness import BOOTSTRAP_TOKEN, Server, Tenant, at_once, found, refusal, short

StartServer = Callable[..., Server]


@dataclass(frozen=True)
class Endpoint:
    """An endpoint that honours the header, with a request for it and what the ledger says about it."""

    path: str
    kind: str
    status: int
    body: dict[str, Any]
    other: dict[str, Any]

    def __str__(self) -> str:
        return self.path

    def send(self, tenant: Tenant, key: str, session_id: str = "", **change: Any) -> httpx.Response:
        body = {**self.body, **change}
        if "session_id" in body:
            body["session_id"] = session_id
        return tenant.post(self.path, body, headers={"Idempotency-Key": key})


KEYS = Endpoint("/v1/keys", "key.minted", 201, {"name": "a", "scopes": ["audit:read"]}, {"name": "b"})
SESSIONS = Endpoint(
    "/v1/sessions", "session.opened", 201, {"agent_id": "a", "scopes": ["read", "spend:5"], "ttl": 60}, {"ttl": 61}
)
PAYMENTS = Endpoint(
    "/v1/payments/authorize", "payment.authorized", 200, {"session_id": "", "amount": 0.1}, {"amount": 0.2}
)
AUDIT = Endpoint(
    "/v1/audit",
    "action.logged",
    201,
    {"session_id": "", "action": "a", "tool": "t", "cost_usd": 0.5, "details": {"b": [1], "a": 2}},
    {"details": {"b": [2], "a": 2}},
)
ENDPOINTS = [KEYS, SESSIONS, PAYMENTS, AUDIT]
each_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
each_session_endpoint = pytest.mark.parametrize("endpoint", [PAYMENTS, AUDIT], ids=str)


def same(first: httpx.Response, second: httpx.Response) -> bool:
    return first.status_code == second.status_code and first.json() == second.json()


def times_done(tenant: Tenant, endpoint: Endpoint) -> int:
    """How often the endpoint had its effect, beyond what every test starts with."""
    started_with = {KEYS.kind: 1, SESSIONS.kind: 1}
    return tenant.record().count(endpoint.kind) - started_with.get(endpoint.kind, 0)


@each_endpoint
def test_a_retry_gets_the_first_answer_and_has_no_effect(tenant: Tenant, endpoint: Endpoint) -> None:
    session_id = tenant.open_session()
    first = endpoint.send(tenant, "k", session_id)
    assert first.status_code == endpoint.status, first.text
    for _ in range(2):
        assert same(endpoint.send(tenant, "k", session_id), first)
    assert times_done(tenant, endpoint) == 1


def test_a_retried_minting_shows_the_same_working_key(tenant: Tenant) -> None:
    first, second = (KEYS.send(tenant, "k").json()["key"] for _ in range(2))
    assert first == second
    found(tenant.get("/v1/audit", key=second))


@each_endpoint
def test_without_the_header_or_with_an_empty_one_every_request_counts(tenant: Tenant, endpoint: Endpoint) -> None:
    session_id = tenant.open_session()
    for _ in range(2):
        assert endpoint.send(tenant, "", session_id).status_code == endpoint.status
    assert times_done(tenant, endpoint) == 2


@each_endpoint
def test_the_same_key_with_another_request_is_a_mistake_that_changes_nothing(
    tenant: Tenant, endpoint: Endpoint
) -> None:
    session_id = tenant.open_session()
    first = endpoint.send(tenant, "k", session_id)
    refusal(endpoint.send(tenant, "k", session_id, **endpoint.other), 422)
    assert same(endpoint.send(tenant, "k", session_id), first), "the first answer still stands"
    assert times_done(tenant, endpoint) == 1


def test_one_key_on_two_endpoints_is_two_keys(tenant: Tenant) -> None:
    session_id = tenant.open_session()
    for endpoint in ENDPOINTS:
        assert endpoint.send(tenant, "k", session_id).status_code == endpoint.status
        assert times_done(tenant, endpoint) == 1


@pytest.mark.parametrize(
    ("endpoint", "spelling"),
    [
        (PAYMENTS, {"currency": "USD", "description": ""}),
        (PAYMENTS, {"note": "an unknown field"}),
        (SESSIONS, {"unknown": 1}),
        (AUDIT, {"details": {"a": 2, "b": [1]}}),
    ],
    ids=short,
)
def test_another_spelling_of_the_same_request_is_a_retry(
    tenant: Tenant, endpoint: Endpoint, spelling: dict[str, Any]
) -> None:
    session_id = tenant.open_session()
    first = endpoint.send(tenant, "k", session_id)
    assert same(endpoint.send(tenant, "k", session_id, **spelling), first)


def test_an_amount_of_five_and_of_five_point_zero_is_one_amount(tenant: Tenant) -> None:
    session_id = tenant.open_session()
    first = PAYMENTS.send(tenant, "k", session_id, amount=5)
    assert same(PAYMENTS.send(tenant, "k", session_id, amount=5.0), first)


def test_every_answer_survives_a_restart(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()
    session_id = tenant.open_session()
    first = [endpoint.send(tenant, "k", session_id) for endpoint in ENDPOINTS]
    server.restart()
    for endpoint, answer in zip(ENDPOINTS, first):
        assert same(endpoint.send(tenant, "k", session_id), answer)
        refusal(endpoint.send(tenant, "k", session_id, **endpoint.other), 422)
        assert times_done(tenant, endpoint) == 1


@each_endpoint
def test_sixteen_first_uses_at_the_same_moment_are_one_request(tenant: Tenant, endpoint: Endpoint) -> None:
    session_id = tenant.open_session()
    headers = {"Idempotency-Key": "k", "Authorization": f"Bearer {tenant.key}"}
    body = {**endpoint.body, **({"session_id": session_id} if "session_id" in endpoint.body else {})}
    answers = at_once(16, lambda _: tenant.server.call("POST", endpoint.path, json=body, headers=headers))

    assert Counter(answer.status_code for answer in answers) == {endpoint.status: 16}
    assert all(same(answer, answers[0]) for answer in answers)
    assert times_done(tenant, endpoint) == 1


@each_session_endpoint
def test_a_retry_succeeds_although_the_session_was_revoked_meanwhile(tenant: Tenant, endpoint: Endpoint) -> None:
    session_id = tenant.open_session()
    first = endpoint.send(tenant, "k", session_id)
    found(tenant.delete(f"/v1/sessions/{session_id}"))
    assert same(endpoint.send(tenant, "k", session_id), first)
    refusal(endpoint.send(tenant, "new", session_id), 401)


def test_a_retried_opening_names_the_session_even_after_it_ended(tenant: Tenant) -> None:
    first = SESSIONS.send(tenant, "k")
    found(tenant.delete(f"/v1/sessions/{first.json()['session_id']}"))
    assert same(SESSIONS.send(tenant, "k"), first)


def test_a_denied_payment_stays_denied_for_its_key(tenant: Tenant) -> None:
    session_id = tenant.open_session(scopes=["spend"], spend_limit=1)
    denied = PAYMENTS.send(tenant, "k", session_id, amount=1.5)
    assert denied.status_code == 403 and denied.json()["authorized"] is False
    assert same(PAYMENTS.send(tenant, "k", session_id, amount=1.5), denied)
    assert tenant.record().count("payment.denied") == 1
    assert PAYMENTS.send(tenant, "another", session_id, amount=1).status_code == 200


@each_session_endpoint
def test_a_refused_request_does_not_use_its_key_up(tenant: Tenant, endpoint: Endpoint) -> None:
    session_id = tenant.open_session()
    refusal(endpoint.send(tenant, "k", "ses_unknown"), 401)
    wrong = {"amount": -1} if endpoint is PAYMENTS else {"cost_usd": -1}
    refusal(endpoint.send(tenant, "k", session_id, **wrong), 400)
    assert endpoint.send(tenant, "k", session_id).status_code == endpoint.status


@each_endpoint
def test_keys_of_different_tenants_never_meet(tenant: Tenant, stranger: Tenant, endpoint: Endpoint) -> None:
    ours = endpoint.send(tenant, "k", tenant.open_session())
    theirs = endpoint.send(stranger, "k", stranger.open_session(), **endpoint.other)
    assert ours.status_code == theirs.status_code == endpoint.status, theirs.text
    assert ours.json() != theirs.json()
    assert times_done(tenant, endpoint) == times_done(stranger, endpoint) == 1


def test_two_keys_of_one_tenant_share_its_retries(tenant: Tenant) -> None:
    first = SESSIONS.send(tenant, "k")
    headers = {"Idempotency-Key": "k"}
    second = tenant.post("/v1/sessions", SESSIONS.body, headers=headers, key=tenant.mint("sessions:write"))
    assert same(first, second)


def test_a_retried_founding_founds_one_tenant(server: Server) -> None:
    headers = {"Idempotency-Key": "found-me-once", "X-Bootstrap-Token": BOOTSTRAP_TOKEN}
    first, second = (server.call("POST", "/v1/keys", json={"name": "n"}, headers=headers) for _ in range(2))
    server.adopt(first.json()["key"])
    assert same(first, second), "whoever lost the first answer must not be left with two tenants"


def test_a_tenant_founded_with_a_key_cannot_be_had_by_guessing_it(server: Server) -> None:
    """The bootstrap token is the secret; whoever lacks it gets no replay of the new tenant's key."""
    headers = {"Idempotency-Key": "found-me", "X-Bootstrap-Token": BOOTSTRAP_TOKEN}
    first = server.call("POST", "/v1/keys", json={"name": "n"}, headers=headers)
    server.adopt(first.json()["key"])
    refusal(server.call("POST", "/v1/keys", json={"name": "n"}, headers={"Idempotency-Key": "found-me"}), 401)
    stranger = server.found_tenant()
    other = stranger.post("/v1/keys", {"name": "n"}, headers={"Idempotency-Key": "found-me"})
    assert other.status_code == 201 and other.json()["key"] != first.json()["key"]


@pytest.mark.parametrize("key", ["k" * 128, "with spaces and: marks", "00000000-0000-4000-8000-000000000000"])
def test_usual_keys_are_accepted_as_they_are(tenant: Tenant, key: str) -> None:
    first = SESSIONS.send(tenant, key)
    assert first.status_code == 201
    assert same(SESSIONS.send(tenant, key), first)
    assert not same(SESSIONS.send(tenant, key + "x"), first)
