"""Many callers on one budget: not a cent too much is ever spent, and not a cent is lost.

Each test has a server of its own, which is verified from its first byte when the test is done.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import httpx

from harness import PATIENCE_S, Server, Tenant, found

CALLERS = 64
PAYMENTS = 10_000
PRICE = 0.01
BUDGET = 50.00
AFFORDABLE = 5_000

StartServer = Callable[..., Server]


def from_many_callers(tenant: Tenant, count: int, send: Callable[[httpx.AsyncClient, int], Awaitable[None]]) -> None:
    """Sends `count` requests, numbered from 0, from callers who each have a connection of their own."""

    async def caller(numbers: Iterator[int]) -> None:
        headers = {"Authorization": f"Bearer {tenant.key}"}
        base_url = tenant.server.base_url
        async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=PATIENCE_S, verify=False) as client:
            for number in numbers:
                await send(client, number)

    async def all_callers() -> None:
        numbers = iter(range(count))
        await asyncio.gather(*(caller(numbers) for _ in range(CALLERS)))

    asyncio.run(all_callers())


def test_ten_thousand_payments_from_64_callers_spend_the_budget_exactly(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()
    session_id = tenant.open_session(scopes=["spend"], spend_limit=BUDGET)
    statuses: Counter[int] = Counter()
    remaining: list[float] = []

    async def pay(client: httpx.AsyncClient, number: int) -> None:
        answer = await client.post("/v1/payments/authorize", json={"session_id": session_id, "amount": PRICE})
        statuses[answer.status_code] += 1
        if answer.status_code == 200:
            remaining.append(answer.json()["remaining_budget"])

    from_many_callers(tenant, PAYMENTS, pay)

    assert statuses == {200: AFFORDABLE, 403: PAYMENTS - AFFORDABLE}
    expected = {float(f"{cents // 100}.{cents % 100:02}") for cents in range(AFFORDABLE)}
    assert len(remaining) == len(set(remaining)) and set(remaining) == expected, "each cent was given once"
    session = found(tenant.get(f"/v1/sessions/{session_id}"))
    assert session["spent"] == BUDGET and session["remaining_budget"] == 0.0

    recorded = Counter(tenant.record())
    assert recorded["payment.authorized"] == AFFORDABLE
    assert recorded["payment.denied"] == PAYMENTS - AFFORDABLE
    server.check()


def test_callers_of_different_sessions_do_not_touch_each_others_budgets(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()
    budgets = [0.05 + number / 100 for number in range(16)]
    sessions = [tenant.open_session(scopes=["spend"], spend_limit=round(budget, 2)) for budget in budgets]
    authorized: Counter[int] = Counter()

    async def pay(client: httpx.AsyncClient, number: int) -> None:
        which = number % len(sessions)
        body = {"session_id": sessions[which], "amount": PRICE}
        answer = await client.post("/v1/payments/authorize", json=body)
        assert answer.status_code in (200, 403), answer.text
        authorized[which] += answer.status_code == 200

    from_many_callers(tenant, 25 * len(sessions), pay)
    assert authorized == {number: 5 + number for number in range(16)}


def test_actions_logged_at_once_all_arrive_in_one_chain(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()
    session_id = tenant.open_session()

    async def log(client: httpx.AsyncClient, number: int) -> None:
        body = {"session_id": session_id, "action": f"a{number}", "tool": "t", "cost_usd": 0.001}
        answer = await client.post("/v1/audit", json=body)
        assert answer.status_code == 201, answer.text

    from_many_callers(tenant, 1_000, log)
    entries = found(tenant.get("/v1/audit", params={"limit": 2_000}))["entries"]
    assert {entry["action"] for entry in entries} == {f"a{number}" for number in range(1_000)}
    assert [entry["prev_hash"] for entry in entries[:-1]] == [entry["entry_hash"] for entry in entries[1:]]
    assert found(tenant.get("/v1/audit/spend")) == {"total_usd": 1.0, "action_count": 1_000, "by_tool": {"t": 1.0}}


def test_a_server_killed_under_load_keeps_every_payment_it_answered(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()
    session_id = tenant.open_session(scopes=["spend"], spend_limit=BUDGET)
    answered: list[str] = []

    async def pay(client: httpx.AsyncClient, number: int) -> None:
        if number == 1_500:
            server.kill()
        body = {"session_id": session_id, "amount": PRICE}
        try:
            answer = await client.post("/v1/payments/authorize", json=body)
        except httpx.TransportError:
            return  # nobody was told anything, so it may have happened or not
        assert answer.status_code == 200, answer.text
        answered.append(answer.json()["authorization_id"])

    from_many_callers(tenant, 2_000, pay)
    server.start()

    recorded = tenant.record().count("payment.authorized")
    assert len(answered) <= recorded <= len(answered) + CALLERS
    session = found(tenant.get(f"/v1/sessions/{session_id}"))
    assert session["spent"] == round(recorded * PRICE, 2)
    history = b"".join(entry.raw for entry in tenant.ledger())
    assert all(authorization.encode() in history for authorization in answered)
