"""Budgets: caps on sessions, agents and the tenant, for an hour, a day, a month or for ever, and money set aside.

What many callers at once do to them is in `test_caps_under_fire.py`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import httpx
import pytest

from harness import Server, Tenant, at_once, created, found, refusal, short

StartServer = Callable[..., Server]

BRIEF_TTL_S = 1
BRIEF_PAUSE_S = 1.3
LEVELS = ["session", "agent", "tenant"]
WINDOWS = ["hour", "day", "month", "life"]
HOUR_S = 3600


def pay(tenant: Tenant, session_id: str, amount: float, **options: Any) -> httpx.Response:
    return tenant.post("/v1/payments/authorize", {"session_id": session_id, "amount": amount}, **options)


def reserve(tenant: Tenant, session_id: str, amount: float, **fields: Any) -> httpx.Response:
    return tenant.post("/v1/payments/reserve", {"session_id": session_id, "amount": amount, **fields})


def set_aside(tenant: Tenant, session_id: str, amount: float, **fields: Any) -> str:
    return found(reserve(tenant, session_id, amount, **fields))["authorization_id"]


def settle(tenant: Tenant, authorization_id: str, amount: Any = ..., **options: Any) -> httpx.Response:
    body = None if amount is ... else {"amount": amount}
    return tenant.post(f"/v1/payments/{authorization_id}/settle", body, **options)


def release(tenant: Tenant, authorization_id: str, **options: Any) -> httpx.Response:
    return tenant.post(f"/v1/payments/{authorization_id}/release", **options)


def put(tenant: Tenant, level: str, name: str, window: str, limit: float | None, **options: Any) -> httpx.Response:
    body = {"level": level, "name": name, "window": window, "limit": limit}
    return tenant.put("/v1/budgets", body, **options)


def denied(answer: httpx.Response) -> dict[str, Any]:
    """The body of a payment that a budget did not hold. Clients look for that word in the reason."""
    assert answer.status_code == 403, f"{answer.status_code} {answer.text}"
    body = answer.json()
    assert body["authorized"] is False and "budget" in body["reason"]
    return body


def session(tenant: Tenant, session_id: str) -> dict[str, Any]:
    return found(tenant.get(f"/v1/sessions/{session_id}"))


def budgets(tenant: Tenant, **query: str) -> list[dict[str, Any]]:
    answer = found(tenant.get("/v1/budgets", params=query))
    assert answer["count"] == len(answer["budgets"])
    return answer["budgets"]


def report(tenant: Tenant, level: str | None = None) -> dict[str, dict[str, Any]]:
    answer = found(tenant.get("/v1/budgets/report", params={} if level is None else {"level": level}))
    assert answer["level"] == (level or "tenant") and answer["count"] == len(answer["rows"])
    return {row["name"]: row for row in answer["rows"]}


@pytest.fixture
def within_the_hour() -> None:
    """Keeps a test from running across the end of an hour, where windows begin anew."""
    left = HOUR_S - time.time() % HOUR_S
    if left < 10:
        time.sleep(left + 0.1)


# -- Caps ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("within_the_hour")
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("level", LEVELS)
def test_a_cap_holds_to_the_cent_and_says_whose_it_is(tenant: Tenant, level: str, window: str) -> None:
    session_id = tenant.open_session(agent_id="payer")
    name = {"session": session_id, "agent": "payer", "tenant": ""}[level]
    answer = found(put(tenant, level, name, window, 1))
    assert answer == {
        "set": True, "level": level, "name": name, "window": window, "limit": 1.0, "unlimited": False,
    }  # fmt: skip
    assert found(pay(tenant, session_id, 0.6))["remaining_budget"] == 0.4
    said = denied(pay(tenant, session_id, 0.41))
    assert said["code"] == "budget_exceeded" and (said["level"], said["window"]) == (level, window)
    assert "0.4" in said["reason"] and "0.41" in said["reason"]
    assert denied(reserve(tenant, session_id, 0.41)) == said, "setting aside is held to the same caps"
    assert found(pay(tenant, session_id, 0.4))["remaining_budget"] == 0.0

    lifted = found(put(tenant, level, name, window, None))
    assert lifted["unlimited"] is True and lifted["limit"] == 0.0
    found(pay(tenant, session_id, 1000))
    assert budgets(tenant) == []
    assert session(tenant, session_id)["spent"] == 1001.0


def test_the_limit_that_a_session_was_opened_with_says_whose_it_is(tenant: Tenant) -> None:
    session_id = tenant.open_session(spend_limit=1)
    said = denied(pay(tenant, session_id, 1.01))
    assert (said["code"], said["level"], said["window"]) == ("budget_exceeded", "session", "life")


def test_every_cap_must_hold_a_payment(tenant: Tenant) -> None:
    session_id = tenant.open_session(agent_id="payer", spend_limit=50)
    for level, name, limit in [("session", session_id, 40), ("agent", "payer", 30), ("tenant", "", 20)]:
        found(put(tenant, level, name, "life", limit))
    assert denied(pay(tenant, session_id, 50.01))["level"] == "session"
    for amount, level in [(40.01, "session"), (30.01, "agent"), (20.01, "tenant")]:
        assert denied(pay(tenant, session_id, amount))["level"] == level, amount
    assert found(pay(tenant, session_id, 15))["remaining_budget"] == 5.0, "of the narrowest"
    assert [row["remaining"] for row in budgets(tenant)] == [25.0, 15.0, 5.0]
    assert session(tenant, session_id)["remaining_budget"] == 35.0, "of the session itself"


@pytest.mark.usefixtures("within_the_hour")
def test_a_narrow_hour_within_a_wide_day(tenant: Tenant) -> None:
    session_id = tenant.open_session()
    for window, limit in [("month", 30), ("day", 20), ("hour", 10)]:
        found(put(tenant, "tenant", "", window, limit))
    for amount, window in [(30.01, "hour"), (10.01, "hour")]:
        assert denied(pay(tenant, session_id, amount))["window"] == window
    found(pay(tenant, session_id, 10))
    found(put(tenant, "tenant", "", "hour", None))
    assert denied(pay(tenant, session_id, 10.01))["window"] == "day"


def test_an_agents_cap_counts_all_of_its_sessions_and_those_below_them(tenant: Tenant) -> None:
    found(put(tenant, "agent", "boss", "life", 10))
    first, second = (tenant.open_session(agent_id="boss") for _ in range(2))
    below = tenant.open_session(agent_id="helper", parent_session_id=second)
    other = tenant.open_session(agent_id="helper")
    found(pay(tenant, first, 4))
    found(pay(tenant, below, 5))
    for session_id in (first, second, below):
        said = denied(pay(tenant, session_id, 1.01))
        assert (said["level"], said["window"]) == ("agent", "life")
    found(pay(tenant, other, 100))
    assert {name: row["life"] for name, row in report(tenant, "agent").items()} == {"boss": 9.0, "helper": 105.0}


def test_a_cap_above_binds_below(tenant: Tenant) -> None:
    root = tenant.open_session()
    child = tenant.open_session(parent_session_id=root)
    found(put(tenant, "session", root, "day", 3))
    found(pay(tenant, child, 2))
    said = denied(pay(tenant, child, 1.01))
    assert (said["level"], said["window"]) == ("session", "day")
    (event,) = tenant.events("payment.denied")
    account = {"level": "session", "session_id": root}
    assert event["event"]["bound"] == {"account": account, "window": "day"}
    assert event["event"]["remaining_usd"] == "1.0"


def test_caps_may_be_set_before_and_below_what_was_spent(tenant: Tenant) -> None:
    found(put(tenant, "agent", "nobody yet", "life", 1))
    session_id = tenant.open_session(agent_id="nobody yet")
    found(pay(tenant, session_id, 1))
    found(put(tenant, "agent", "nobody yet", "life", 0.25))
    (row,) = budgets(tenant)
    assert (row["limit"], row["spent"], row["remaining"]) == (0.25, 1.0, 0.0)
    denied(pay(tenant, session_id, 0.01))
    found(put(tenant, "agent", "nobody yet", "life", 1.01))
    found(pay(tenant, session_id, 0.01))


def test_a_cap_of_nothing_lets_nothing_be_spent(tenant: Tenant) -> None:
    session_id = tenant.open_session()
    assert found(put(tenant, "tenant", "", "life", 0))["unlimited"] is False
    assert denied(pay(tenant, session_id, 0.01))["level"] == "tenant"


def test_setting_a_cap_that_stands_records_nothing_more(tenant: Tenant) -> None:
    for limit in [5, 5.0, 5]:
        found(put(tenant, "tenant", "", "day", limit))
    found(put(tenant, "agent", "a", "day", None))
    events = tenant.events("budget.set")
    assert [event["event"] for event in events] == [
        {"account": {"level": "tenant"}, "window": "day", "limit_usd": "5.0"}
    ]


def test_a_session_that_has_ended_can_still_be_capped_but_not_one_that_never_was(tenant: Tenant) -> None:
    session_id = tenant.open_session()
    found(tenant.delete(f"/v1/sessions/{session_id}"))
    found(put(tenant, "session", session_id, "life", 1))
    refusal(put(tenant, "session", "ses_unknown", "life", 1), 404)


@pytest.mark.usefixtures("within_the_hour")
def test_the_list_tells_how_far_every_cap_is_used_and_until_when(tenant: Tenant) -> None:
    session_id = tenant.open_session(agent_id="payer")
    for window in WINDOWS:
        found(put(tenant, "agent", "payer", window, 10))
    found(pay(tenant, session_id, 1.5))
    set_aside(tenant, session_id, 2)
    rows = budgets(tenant)
    assert [row["window"] for row in rows] == WINDOWS
    now = datetime.now(timezone.utc)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    next_month = first.replace(year=now.year + now.month // 12, month=now.month % 12 + 1).timestamp()
    ends = {"hour": (time.time() // HOUR_S + 1) * HOUR_S, "day": midnight + 24 * HOUR_S, "month": next_month, "life": 0}
    for row in rows:
        assert row == {
            "level": "agent", "name": "payer", "window": row["window"], "limit": 10.0, "spent": 1.5, "held": 2.0,
            "remaining": 6.5, "resets_at": ends[row["window"]],
        }  # fmt: skip


@pytest.mark.usefixtures("within_the_hour")
def test_reports_tell_what_was_spent_at_every_level(tenant: Tenant) -> None:
    root = tenant.open_session(agent_id="a")
    child = tenant.open_session(agent_id="b", parent_session_id=root)
    assert report(tenant)[""]["life"] == 0.0
    found(pay(tenant, root, 1))
    found(pay(tenant, child, 2))
    set_aside(tenant, child, 4)
    spent = {
        "session": {child: (2.0, 4.0), root: (3.0, 4.0)},
        "agent": {"a": (3.0, 4.0), "b": (2.0, 4.0)},
        "tenant": {"": (3.0, 4.0)},
    }
    for level, rows in spent.items():
        told = report(tenant, level)
        assert list(told) == list(rows), "sessions newest first, agents by name"
        for name, (life, held) in rows.items():
            assert told[name] == {"name": name, **dict.fromkeys(WINDOWS, life), "held": held}


def test_money_of_others_is_not_counted(tenant: Tenant, stranger: Tenant) -> None:
    found(put(tenant, "agent", "same name", "life", 1))
    found(put(tenant, "tenant", "", "life", 1))
    session_id = stranger.open_session(agent_id="same name")
    found(pay(stranger, session_id, 5))
    assert budgets(stranger) == [] and [row["spent"] for row in budgets(tenant)] == [0.0, 0.0]
    refusal(put(tenant, "session", session_id, "life", 1), 404)
    refusal(pay(tenant, session_id, 0.5), 401)
    held = set_aside(stranger, session_id, 1)
    for act in (settle, release):
        refusal(act(tenant, held), 404)
    assert report(stranger)[""]["held"] == 1.0


def test_who_may_do_what_with_budgets(tenant: Tenant) -> None:
    session_id = tenant.open_session()
    payer, reader, clerk = (tenant.mint(scope) for scope in ("payments:write", "payments:read", "admin:write"))
    for narrow in (payer, reader):
        refusal(put(tenant, "tenant", "", "day", 1, key=narrow), 403, "insufficient_scope")
    found(put(tenant, "tenant", "", "day", 1, key=clerk))
    for path in ("/v1/budgets", "/v1/budgets/report"):
        found(tenant.get(path, key=reader))
        refusal(tenant.get(path, key=tenant.mint("audit:read")), 403, "insufficient_scope")
        refusal(tenant.server.call("GET", path), 401)
    body = {"session_id": session_id, "amount": 1}
    refusal(tenant.post("/v1/payments/reserve", body, key=reader), 403, "insufficient_scope")
    held = found(tenant.post("/v1/payments/reserve", body, key=payer))["authorization_id"]
    for act in (settle, release):
        refusal(act(tenant, held, key=reader), 403, "insufficient_scope")
    found(settle(tenant, held, key=payer))


# -- Money set aside ---------------------------------------------------------------------------------------


def test_what_is_set_aside_is_settled_for_less(tenant: Tenant) -> None:
    session_id = tenant.open_session(agent_id="payer", spend_limit=10)
    fields = {"currency": "EUR", "description": "a taxi", "tool": "taxi", "action": "ride", "ttl": 60}
    held = found(reserve(tenant, session_id, 6, **fields))
    assert held["authorization_id"].startswith("auth_") and held["reserved"] is True
    assert held["expires_at"] == pytest.approx(held["timestamp"] + 60, abs=0.001)
    asked = {"session_id": session_id, "agent_id": "payer", "amount": 6.0, "currency": "EUR", "description": "a taxi"}
    assert {key: held[key] for key in asked} == asked and held["remaining_budget"] == 4.0
    told = session(tenant, session_id)
    assert (told["spent"], told["held"], told["remaining_budget"]) == (0.0, 6.0, 4.0)
    denied(pay(tenant, session_id, 4.01))

    settled = found(settle(tenant, held["authorization_id"], 4.5))
    assert {**settled, "timestamp": 0} == {
        "settled": True, "authorization_id": held["authorization_id"], "session_id": session_id,
        "agent_id": "payer", "amount": 4.5, "released": 1.5, "timestamp": 0,
    }  # fmt: skip
    told = session(tenant, session_id)
    assert (told["spent"], told["held"], told["remaining_budget"]) == (4.5, 0.0, 5.5)
    found(pay(tenant, session_id, 5.5))


@pytest.mark.parametrize(
    ("asked", "paid"), [(..., 6.0), (6, 6.0), (0, 0.0), (0.000000001, 0.000000001), (5.999999999, 5.999999999)]
)
def test_any_part_of_it_can_be_settled(tenant: Tenant, asked: Any, paid: float) -> None:
    session_id = tenant.open_session(spend_limit=10)
    settled = found(settle(tenant, set_aside(tenant, session_id, 6), asked))
    assert settled["amount"] == paid and settled["released"] == round(6 - paid, 9)
    assert session(tenant, session_id)["spent"] == paid


@pytest.mark.parametrize("body", [None, {}, {"note": "an unknown field"}], ids=short)
def test_settling_without_an_amount_is_settling_all_of_it(tenant: Tenant, body: Any) -> None:
    held = set_aside(tenant, tenant.open_session(), 6)
    assert found(tenant.post(f"/v1/payments/{held}/settle", body))["amount"] == 6.0


def test_what_is_set_aside_is_given_back(tenant: Tenant) -> None:
    session_id = tenant.open_session(agent_id="payer", spend_limit=10)
    held = set_aside(tenant, session_id, 6)
    released = found(release(tenant, held))
    assert {**released, "timestamp": 0} == {
        "released": True, "authorization_id": held, "session_id": session_id, "agent_id": "payer",
        "amount": 6.0, "timestamp": 0,
    }  # fmt: skip
    told = session(tenant, session_id)
    assert (told["spent"], told["held"], told["remaining_budget"]) == (0.0, 0.0, 10.0)
    (event,) = tenant.events("payment.released")
    assert event["event"]["reason"] == "released" and event["actor"] == f"key:{tenant.prefix}"


def test_more_than_was_set_aside_is_denied_and_changes_nothing(tenant: Tenant) -> None:
    session_id = tenant.open_session(spend_limit=100)
    held = set_aside(tenant, session_id, 6)
    said = denied(settle(tenant, held, 6.000000001))
    assert said["code"] == "reservation_exceeded"
    (event,) = tenant.events("settlement.denied")
    assert event["event"]["authorization_id"] == held
    assert (event["event"]["amount_usd"], event["event"]["reserved_usd"]) == ("6.000000001", "6.0")
    assert session(tenant, session_id)["held"] == 6.0, "it is still set aside"
    assert found(settle(tenant, held, 6))["amount"] == 6.0


@pytest.mark.parametrize("first", [settle, release])
@pytest.mark.parametrize("second", [settle, release])
def test_money_that_was_settled_or_released_is_gone(tenant: Tenant, first: Any, second: Any) -> None:
    session_id = tenant.open_session()
    held = set_aside(tenant, session_id, 6)
    found(first(tenant, held))
    before = tenant.record()
    for _ in range(2):
        refusal(second(tenant, held), 404, "not_found")
    assert tenant.record() == before


def test_only_one_of_many_settles_or_releases(tenant: Tenant) -> None:
    session_id = tenant.open_session()
    held = set_aside(tenant, session_id, 6)
    answers = at_once(24, lambda number: (settle if number % 2 else release)(tenant, held))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 404: 23}
    ends = tenant.events("payment.settled", "payment.released")
    assert len(ends) == 1
    told = session(tenant, session_id)
    assert told["held"] == 0.0 and told["spent"] == (6.0 if ends[0]["kind"] == "payment.settled" else 0.0)


def test_what_nobody_settles_is_given_back_by_itself(tenant: Tenant) -> None:
    session_id = tenant.open_session(spend_limit=10)
    held = set_aside(tenant, session_id, 10, ttl=BRIEF_TTL_S)
    denied(pay(tenant, session_id, 0.01))
    time.sleep(BRIEF_PAUSE_S)
    assert found(pay(tenant, session_id, 10))["remaining_budget"] == 0.0, "before anything else is decided"
    (event,) = tenant.events("payment.released")
    assert event["event"] == {
        "authorization_id": held, "session_id": session_id, "agent_id": "agent", "amount_usd": "10.0",
        "reason": "expired",
    }  # fmt: skip
    assert event["actor"] == "system"
    for act in (settle, release):
        refusal(act(tenant, held), 404)
    assert tenant.record().count("payment.released") == 1


def test_it_is_given_back_although_nobody_asks_for_anything(tenant: Tenant) -> None:
    session_id = tenant.open_session(spend_limit=10)
    set_aside(tenant, session_id, 10, ttl=BRIEF_TTL_S)
    deadline = time.monotonic() + 30
    while not (events := tenant.events("payment.released")):
        assert time.monotonic() < deadline, "not given back"
        time.sleep(0.2)
    assert [event["event"]["reason"] for event in events] == ["expired"]
    assert session(tenant, session_id)["held"] == 0.0


@pytest.mark.parametrize("pause", [0, BRIEF_PAUSE_S])
def test_a_kill_neither_loses_nor_frees_what_is_set_aside(start_server: StartServer, pause: float) -> None:
    server = start_server()
    tenant = server.found_tenant()
    session_id = tenant.open_session(agent_id="payer", spend_limit=10)
    found(put(tenant, "agent", "payer", "month", 9))
    kept = set_aside(tenant, session_id, 3)
    set_aside(tenant, session_id, 4, ttl=BRIEF_TTL_S if pause else 60)
    server.kill()
    time.sleep(pause)
    server.start()
    held = 3.0 if pause else 7.0
    denied(pay(tenant, session_id, 9 - held + 0.01))
    assert [row["held"] for row in budgets(tenant)] == [held]
    found(settle(tenant, kept, 2))
    found(pay(tenant, session_id, 9 - held + 1))
    assert budgets(tenant)[0]["remaining"] == 0.0


def test_a_session_that_has_ended_sets_nothing_aside(tenant: Tenant) -> None:
    session_id = tenant.open_session()
    found(tenant.delete(f"/v1/sessions/{session_id}"))
    refusal(reserve(tenant, session_id, 1), 401, "invalid_session")
    refusal(reserve(tenant, "ses_unknown", 1), 401, "invalid_session")


def test_setting_aside_needs_the_scope_spend(tenant: Tenant) -> None:
    session_id = tenant.open_session(scopes=["read"])
    assert denied(reserve(tenant, session_id, 1))["code"] == "spend_scope_missing"


# -- The past -------------------------------------------------------------------------------------------


def test_the_past_has_its_own_budgets(tenant: Tenant) -> None:
    session_id = tenant.open_session()
    found(put(tenant, "tenant", "", "life", 10))
    held = set_aside(tenant, session_id, 4)
    then = tenant.events()[-1]["at"]
    found(settle(tenant, held, 1))
    found(put(tenant, "tenant", "", "life", None))
    assert budgets(tenant) == []
    (row,) = budgets(tenant, as_of=then)
    assert (row["limit"], row["spent"], row["held"], row["remaining"]) == (10.0, 0.0, 4.0, 6.0)
    past = found(tenant.get("/v1/budgets/report", params={"as_of": then, "level": "session"}))
    assert [(past_row["life"], past_row["held"]) for past_row in past["rows"]] == [(0.0, 4.0)]


def test_budgets_survive_a_restart(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()
    session_id = tenant.open_session(agent_id="payer")
    for window in WINDOWS:
        found(put(tenant, "session", session_id, window, 5))
    found(put(tenant, "agent", "payer", "day", 7))
    found(pay(tenant, session_id, 1.25))
    set_aside(tenant, session_id, 0.5)
    before = [budgets(tenant), *(report(tenant, level) for level in LEVELS)]
    server.kill()
    server.start()
    assert [budgets(tenant), *(report(tenant, level) for level in LEVELS)] == before


# -- Retries --------------------------------------------------------------------------------------------


def test_every_step_of_a_reservation_can_be_retried(tenant: Tenant) -> None:
    session_id = tenant.open_session(spend_limit=10)
    retry = {"Idempotency-Key": "k"}
    body = {"session_id": session_id, "amount": 2}

    def twice(path: str, body: Any = None) -> dict[str, Any]:
        first, second = (tenant.post(path, body, headers=retry) for _ in range(2))
        assert found(first) == found(second)
        return first.json()

    kept = twice("/v1/payments/reserve", body)["authorization_id"]
    twice(f"/v1/payments/{kept}/settle", {"amount": 1.5})
    refusal(tenant.post(f"/v1/payments/{kept}/settle", {"amount": 1.4}, headers=retry), 422)
    other = found(tenant.post("/v1/payments/reserve", body))["authorization_id"]
    twice(f"/v1/payments/{other}/release")
    refusal(tenant.post("/v1/payments/reserve", {**body, "ttl": 61}, headers=retry), 422)
    refusal(tenant.post("/v1/payments/reserve", {**body, "amount": 3}, headers=retry), 422)
    steps = Counter(kind for kind in tenant.record() if kind.startswith("payment."))
    assert steps == {"payment.reserved": 2, "payment.settled": 1, "payment.released": 1}
    assert session(tenant, session_id)["spent"] == 1.5


def test_a_denied_settlement_is_replayed(tenant: Tenant) -> None:
    session_id = tenant.open_session(spend_limit=10)
    held = set_aside(tenant, session_id, 2)
    retry = {"Idempotency-Key": "k"}
    first, second = (denied(settle(tenant, held, 3, headers=retry)) for _ in range(2))
    assert first == second and tenant.record().count("settlement.denied") == 1


def test_a_reservation_that_is_sent_many_times_at_once_is_made_once(tenant: Tenant) -> None:
    session_id = tenant.open_session(spend_limit=10)
    body = {"session_id": session_id, "amount": 10}
    retry = {"Idempotency-Key": "k"}
    answers = at_once(16, lambda _: tenant.post("/v1/payments/reserve", body, headers=retry))
    assert len({found(answer)["authorization_id"] for answer in answers}) == 1
    held = answers[0].json()["authorization_id"]
    settled = at_once(16, lambda _: settle(tenant, held, 4, headers=retry))
    assert len({found(answer)["timestamp"] for answer in settled}) == 1
    assert tenant.record().count("payment.reserved") == tenant.record().count("payment.settled") == 1
    assert session(tenant, session_id)["spent"] == 4.0


# -- Bad input --------------------------------------------------------------------------------------------

CAP = {"level": "tenant", "name": "", "window": "day", "limit": 1}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"level": ...}, "level"), ({"level": ""}, "level"), ({"level": "Tenant"}, "level"), ({"level": 1}, "level"),
        ({"level": None}, "level"), ({"level": "key"}, "level"), ({"level": ["tenant"]}, "level"),
        ({"name": "x"}, "name"), ({"name": 1}, "name"), ({"level": "agent", "name": "x" * 129}, "name"),
        ({"level": "session", "name": "x" * 129}, "name"), ({"level": "agent", "name": "a\nb"}, "name"),
        ({"window": "week"}, "window"), ({"window": ""}, "window"), ({"window": "Day"}, "window"),
        ({"window": None}, "window"), ({"window": 24}, "window"),
        ({"limit": ...}, "limit"), ({"limit": "1"}, "limit"), ({"limit": "NaN"}, "limit"), ({"limit": True}, "limit"),
        ({"limit": -1}, "limit"), ({"limit": -0.01}, "limit"), ({"limit": 1e-10}, "limit"), ({"limit": 1e13}, "limit"),
        ({"limit": 10**400}, "limit"), ({"limit": [1]}, "limit"), ({"limit": {}}, "limit"),
    ],
    ids=short,
)  # fmt: skip
def test_a_cap_that_makes_no_sense_is_refused_without_a_trace(
    tenant: Tenant, change: dict[str, Any], field: str
) -> None:
    body = {name: value for name, value in {**CAP, **change}.items() if value is not ...}
    assert refusal(tenant.put("/v1/budgets", body), 400, "invalid_request")["field"] == field
    assert tenant.record() == ["key.minted"] and budgets(tenant) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "NaN", '{"level": "tenant", "limit": NaN}', '{"limit": 1e999}', "\xff"])
def test_a_cap_that_is_no_json_is_refused_without_a_trace(tenant: Tenant, text: str) -> None:
    refusal(tenant.call("PUT", "/v1/budgets", content=text.encode("latin-1")), 400, "invalid_request")
    assert tenant.record() == ["key.minted"]


@pytest.mark.parametrize("query", [{"level": "key"}, {"level": "Agent"}, {"as_of": "yesterday"}], ids=short)
def test_a_report_that_makes_no_sense_is_refused(tenant: Tenant, query: dict[str, str]) -> None:
    refusal(tenant.get("/v1/budgets/report", params=query), 400)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"session_id": ...}, "session_id"), ({"session_id": 1}, "session_id"),
        ({"amount": ...}, "amount"), ({"amount": 0}, "amount"), ({"amount": 0.009}, "amount"),
        ({"amount": -1}, "amount"), ({"amount": "1"}, "amount"), ({"amount": None}, "amount"),
        ({"amount": True}, "amount"), ({"amount": 1_000_000.01}, "amount"), ({"amount": 1.0000000001}, "amount"),
        ({"currency": "x" * 9}, "currency"), ({"description": "x" * 501}, "description"), ({"tool": 5}, "tool"),
        ({"tool": "x" * 257}, "tool"), ({"action": "x" * 513}, "action"), ({"approval_id": 7}, "approval_id"),
        ({"approval_id": "x" * 65}, "approval_id"),
        ({"ttl": 0}, "ttl"), ({"ttl": -1}, "ttl"), ({"ttl": 604_801}, "ttl"), ({"ttl": 1.5}, "ttl"),
        ({"ttl": "60"}, "ttl"), ({"ttl": None}, "ttl"), ({"ttl": True}, "ttl"), ({"ttl": 10**30}, "ttl"),
    ],
    ids=short,
)  # fmt: skip
def test_a_reservation_that_makes_no_sense_is_refused_without_a_trace(
    tenant: Tenant, change: dict[str, Any], field: str
) -> None:
    asked = {"session_id": tenant.open_session(spend_limit=10), "amount": 1, **change}
    body = {name: value for name, value in asked.items() if value is not ...}
    assert refusal(tenant.post("/v1/payments/reserve", body), 400, "invalid_request")["field"] == field
    assert tenant.record() == ["key.minted", "session.opened"]


@pytest.mark.parametrize(
    "amount", [-1, -0.01, "1", "NaN", None, True, [1], {}, 1e-10, 1_000_000.01, 10**400], ids=short
)
def test_a_settlement_that_makes_no_sense_is_refused_and_the_money_stays_set_aside(tenant: Tenant, amount: Any) -> None:
    session_id = tenant.open_session()
    held = set_aside(tenant, session_id, 6)
    assert refusal(settle(tenant, held, amount), 400, "invalid_request")["field"] == "amount"
    assert tenant.record() == ["key.minted", "session.opened", "payment.reserved"]
    assert session(tenant, session_id)["held"] == 6.0


@pytest.mark.parametrize("name", ["auth_unknown", "x", "x" * 300, "%00", "é", "..", "auth_'%20or%201=1"], ids=short)
def test_a_reservation_that_there_is_not_cannot_be_settled(tenant: Tenant, name: str) -> None:
    for step in ("settle", "release"):
        refusal(tenant.post(f"/v1/payments/{name}/{step}"), 404)
    assert tenant.record() == ["key.minted"]


def test_an_authorised_payment_is_no_reservation(tenant: Tenant) -> None:
    paid = found(pay(tenant, tenant.open_session(), 5))["authorization_id"]
    refusal(settle(tenant, paid), 404)
    refusal(release(tenant, paid), 404)
    assert created(tenant.post("/v1/sessions", {"agent_id": "next"}))
