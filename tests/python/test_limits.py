"""Limits that an operator has set: enforced exactly, told in the headers, and never recorded as usage.

Without configuration there are none; what is told then is part of `test_edges.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import httpx

from harness import Server, at_once, created, found, refusal

StartServer = Callable[..., Server]


def assert_turned_away(answer: httpx.Response, resource: str, limit: int) -> None:
    code = {"hourly": "rate_limit_exceeded", "monthly": "monthly_quota_exceeded"}[resource]
    body = refusal(answer, 429, code)
    assert body["resource"] == resource and body["limit"] == limit
    assert isinstance(body["tier"], str) and body["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-ratelimit-resource"] == resource
    wait = int(answer.headers["retry-after"])
    assert wait >= 1 and abs(wait - body["retry_after"]) <= 1
    bucket = "x-ratelimit-reset-after" if resource == "hourly" else "x-ratelimit-monthly-reset-after"
    assert abs(wait - int(answer.headers[bucket])) <= 1
    assert ("x-ratelimit-monthly-limit" in answer.headers) is (resource == "monthly")


def test_an_hourly_limit_lets_exactly_so_many_calls_of_a_key_pass(start_server: StartServer) -> None:
    tenant = start_server(options=["--requests-per-hour", "3"]).found_tenant()
    answers = [tenant.get("/v1/audit") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["x-ratelimit-used"] for answer in answers] == ["1", "2", "3", "4", "5"]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0", "0"]
    assert_turned_away(answers[3], "hourly", 3)
    assert tenant.get("/v1/nowhere").status_code == 429, "it is counted before anybody looks where it goes"

    another = tenant.mint("*")  # minting is not limited, and each key has an hour of its own
    assert tenant.get("/v1/audit", key=another).status_code == 200
    assert found(tenant.get("/v1/usage", key=another))["action_count"] == 4, "turned-away calls are no usage"


def test_an_hourly_limit_holds_for_calls_at_the_same_moment(start_server: StartServer) -> None:
    tenant = start_server(options=["--requests-per-hour", "10"]).found_tenant()
    answers = at_once(32, lambda _: tenant.get("/v1/audit"))
    assert Counter(answer.status_code for answer in answers) == {200: 10, 429: 22}


def test_a_monthly_limit_counts_all_keys_of_a_tenant_and_survives_a_restart(start_server: StartServer) -> None:
    server = start_server(options=["--requests-per-month", "4"])
    tenant, stranger = server.found_tenant(), server.found_tenant()
    another = tenant.mint("*")
    for key in [tenant.key, another]:
        assert tenant.get("/v1/audit", key=key).status_code == 200
    server.restart()
    for key in [tenant.key, another]:
        assert tenant.get("/v1/audit", key=key).status_code == 200
    for key in [tenant.key, another]:
        assert_turned_away(tenant.get("/v1/audit", key=key), "monthly", 4)
    assert stranger.get("/v1/audit").status_code == 200


def test_as_many_agents_hold_live_sessions_as_may(start_server: StartServer) -> None:
    tenant = start_server(options=["--agents", "2"]).found_tenant()
    first = tenant.open_session(agent_id="one")
    tenant.open_session(agent_id="two")
    tenant.open_session(agent_id="two")  # an agent who is there already may have several

    denied = refusal(tenant.post("/v1/sessions", {"agent_id": "three"}), 403)
    assert denied["limit"] == 2 and denied["current"] == 2
    assert isinstance(denied["tier"], str) and isinstance(denied["upgrade"], str)
    assert "session.denied" in tenant.record()

    found(tenant.delete(f"/v1/sessions/{first}"))
    created(tenant.post("/v1/sessions", {"agent_id": "three"}))
