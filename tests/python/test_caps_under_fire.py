"""A thousand callers on one tree of sessions, with caps at every level, while the server is killed twice.

Callers authorise, reserve, settle and release, and send again what they got no answer to. When all
of them have all their answers, the ledger is read by an accountant of its own, who knows nothing
but the caps and the events: at no moment was one billionth too much spent or set aside at any
level, no payment was denied that there was room for, and what the callers were told is what
happened, each of it once.

`HALDIR_STORM_CALLERS` sets how many callers there are; `-s` shows what came of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx

from harness import PATIENCE_S, Server, Tenant, created, found, free_port

StartServer = Callable[..., Server]

CALLERS = int(os.environ.get("HALDIR_STORM_CALLERS", "1000"))
ROUNDS = 4
SEED = 20_260_101
KILLS_AFTER = (0.33, 0.67)  # of all rounds
BRIEF_TTL_S = 2

Account = tuple[str, str]
Cap = tuple[Account, str]

TENANT: Account = ("tenant", "")
# How much of an event's time names the window it falls into.
WINDOWS = {"hour": len("2026-01-01T00"), "day": len("2026-01-01"), "month": len("2026-01"), "life": 0}


# -- The accountant ------------------------------------------------------------------------------------


@dataclass
class Books:
    """What every account spent and holds, recomputed from the events alone. Amounts are exact."""

    parents: dict[str, str | None] = field(default_factory=dict)
    agents: dict[str, str] = field(default_factory=dict)
    caps: dict[Cap, Decimal] = field(default_factory=dict)
    granted: dict[str, Decimal] = field(default_factory=dict)  # with which limit a session was opened
    spent: Counter[tuple[Account, str, str]] = field(default_factory=Counter)
    held: Counter[Account] = field(default_factory=Counter)
    open: dict[str, tuple[str, Decimal]] = field(default_factory=dict)

    def read(self, event: dict[str, Any]) -> None:
        """Enters one event, if it could happen."""
        told, at = event["event"], event["at"]
        match event["kind"]:
            case "session.opened":
                session_id = told["session_id"]
                self.parents[session_id], self.agents[session_id] = told.get("parent_session_id"), told["agent_id"]
                if told["cap_usd"] is not None:
                    self.granted[session_id] = Decimal(told["cap_usd"])
            case "budget.set":
                account = told["account"]
                level = account["level"]
                name = account.get("session_id") or account.get("agent_id") or ""
                self.caps[(level, name), told["window"]] = Decimal(told["limit_usd"])
            case "payment.authorized":
                self.must_fit(event)
                self.spend(told["session_id"], Decimal(told["amount_usd"]), at)
            case "payment.reserved":
                self.must_fit(event)
                amount = Decimal(told["amount_usd"])
                self.open[told["authorization_id"]] = (told["session_id"], amount)
                self.hold(told["session_id"], amount)
            case "payment.settled":
                session_id, reserved = self.open.pop(told["authorization_id"])
                amount = Decimal(told["amount_usd"])
                assert amount <= reserved == Decimal(told["reserved_usd"]), event
                self.hold(session_id, -reserved)
                self.spend(session_id, amount, at)
            case "payment.released":
                session_id, reserved = self.open.pop(told["authorization_id"])
                assert reserved == Decimal(told["amount_usd"]), event
                self.hold(session_id, -reserved)
            case "payment.denied":
                self.must_not_fit(event)

    def must_fit(self, event: dict[str, Any]) -> None:
        told = event["event"]
        left = min(left for _, left in self.left(told["session_id"], event["at"]))
        amount = Decimal(told["amount_usd"])
        assert amount <= left, f"too much: {event}"
        assert Decimal(told["remaining_usd"]) == left - amount, event

    def must_not_fit(self, event: dict[str, Any]) -> None:
        told = event["event"]
        assert told["reason"] == "budget_exceeded", event
        left = dict(self.left(told["session_id"], event["at"]))
        assert Decimal(told["remaining_usd"]) == min(left.values()) < Decimal(told["amount_usd"]), event
        bound = told.get("bound")
        if bound is None:
            assert left["own"] < Decimal(told["amount_usd"]), event
        else:
            level = bound["account"]["level"]
            name = bound["account"].get("session_id") or bound["account"].get("agent_id") or ""
            assert left[f"{level} {name} {bound['window']}"] < Decimal(told["amount_usd"]), event

    def left(self, session_id: str, at: str) -> Iterator[tuple[str, Decimal]]:
        """What every cap holds that a payment of a session must fit into."""
        for line in self.lineage(session_id):
            if (limit := self.granted.get(line)) is not None:
                left = limit - self.used(("session", line), "life", at)
                yield ("own" if line == session_id else f"session {line} life"), left
        for account in self.payers(session_id):
            for window in WINDOWS:
                if (limit := self.caps.get((account, window))) is not None:
                    yield f"{account[0]} {account[1]} {window}", limit - self.used(account, window, at)

    def used(self, account: Account, window: str, at: str) -> Decimal:
        return self.spent[account, window, at[: WINDOWS[window]]] + self.held[account] + Decimal(0)

    def lineage(self, session_id: str) -> Iterator[str]:
        line: str | None = session_id
        while line is not None:
            yield line
            line = self.parents[line]

    def payers(self, session_id: str) -> list[Account]:
        lineage = list(self.lineage(session_id))
        agents = dict.fromkeys(self.agents[line] for line in lineage)
        return [*(("session", line) for line in lineage), *(("agent", agent) for agent in agents), TENANT]

    def spend(self, session_id: str, amount: Decimal, at: str) -> None:
        for account in self.payers(session_id):
            for window, length in WINDOWS.items():
                self.spent[account, window, at[:length]] += amount

    def hold(self, session_id: str, amount: Decimal) -> None:
        for account in self.payers(session_id):
            self.held[account] += amount


# -- The callers ---------------------------------------------------------------------------------------


@dataclass
class Told:
    """What all callers were told, by authorisation."""

    authorized: dict[str, Decimal] = field(default_factory=dict)
    reserved: dict[str, Decimal] = field(default_factory=dict)
    settled: dict[str, Decimal] = field(default_factory=dict)
    released: dict[str, Decimal] = field(default_factory=dict)
    left_open: set[str] = field(default_factory=set)
    denied: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    retries: int = 0
    repeats: int = 0
    rounds: int = 0


@dataclass
class Caller:
    """One agent's program, with a connection of its own. Whatever gets no answer it sends again."""

    told: Told
    client: httpx.AsyncClient
    sessions: list[str]
    random: random.Random

    async def run(self) -> None:
        for _ in range(ROUNDS):
            await (self.authorize if self.random.random() < 0.5 else self.reserve)()
            self.told.rounds += 1

    async def authorize(self) -> None:
        amount = self.amount()
        answer = await self.send("/v1/payments/authorize", {"session_id": self.session(), "amount": amount})
        if self.is_granted(answer):
            self.keep(self.told.authorized, answer, amount)

    async def reserve(self) -> None:
        amount = self.amount()
        fate = self.random.choices(["settle", "release", "leave", "expire"], [60, 20, 10, 10])[0]
        ttl = BRIEF_TTL_S if fate == "expire" else 3600
        body = {"session_id": self.session(), "amount": amount, "ttl": ttl}
        answer = await self.send("/v1/payments/reserve", body)
        if not self.is_granted(answer):
            return
        self.keep(self.told.reserved, answer, amount)
        path = f"/v1/payments/{answer['authorization_id']}"
        if fate == "settle":
            paid = self.random.choice([amount, round(amount / 2, 9), 0])
            self.keep(self.told.settled, await self.send(f"{path}/settle", {"amount": paid}), paid)
        elif fate == "release":
            self.keep(self.told.released, await self.send(f"{path}/release"), amount)
        else:
            self.told.left_open.add(answer["authorization_id"])

    def is_granted(self, answer: dict[str, Any]) -> bool:
        if "authorization_id" in answer:
            return True
        assert answer["authorized"] is False and answer["code"] == "budget_exceeded", answer
        self.told.denied[answer["level"]] += 1
        return False

    def keep(self, kept: dict[str, Decimal], answer: dict[str, Any], amount: float) -> None:
        assert answer["amount"] == amount, answer
        assert answer["authorization_id"] not in kept, "given twice"
        kept[answer["authorization_id"]] = Decimal(repr(amount))

    def session(self) -> str:
        return self.random.choice(self.sessions)

    def amount(self) -> float:
        """Cents up to two dollars, now and then with a billionth more."""
        return round(self.random.randint(1, 200) / 100 + self.random.choice([0, 0, 0, 1e-9]), 9)

    async def send(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer to one request, however often it had to be sent."""
        headers = {"Idempotency-Key": str(uuid4())}
        self.told.requests += 1
        answer = await self.insist(path, body, headers)
        if self.random.random() < 0.05:
            self.told.repeats += 1
            again = await self.insist(path, body, headers)
            assert (again.status_code, again.json()) == (answer.status_code, answer.json())
        assert answer.status_code in (200, 403), f"{answer.status_code} {answer.text}"
        return answer.json()

    async def insist(self, path: str, body: dict[str, Any] | None, headers: dict[str, str]) -> httpx.Response:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = await self.client.post(path, json=body, headers=headers)
                if answer.status_code != 503:
                    return answer
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, "no answer"
            self.told.retries += 1
            await asyncio.sleep(self.random.uniform(0.02, 0.2))


async def storm(tenant: Tenant, sessions: list[str], told: Told) -> list[int]:
    """Lets all callers loose, and kills the server on the way. Tells how many rounds were done at each kill."""
    server = tenant.server
    kills = []
    headers = {"Authorization": f"Bearer {tenant.key}"}
    options: dict[str, Any] = {"base_url": server.base_url, "headers": headers, "timeout": PATIENCE_S, "verify": False}

    async def call(number: int) -> None:
        async with httpx.AsyncClient(**options) as client:
            await Caller(told, client, sessions, random.Random(SEED + number)).run()

    async def kill() -> None:
        for share in KILLS_AFTER:
            while told.rounds < share * CALLERS * ROUNDS:
                await asyncio.sleep(0.005)
            kills.append(told.rounds)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)

    await asyncio.gather(kill(), *(call(number) for number in range(CALLERS)))
    return kills


# -- The tree ------------------------------------------------------------------------------------------


def plant(tenant: Tenant, demand: float) -> list[str]:
    """Three roots, nine sessions below them, 27 below those; every level's caps hold less than is asked of it."""

    def share(part: float) -> float:
        return round(demand * part, 2)

    def open_session(agent: str, parent: str = "", **fields: Any) -> str:
        asked = {"agent_id": agent, "scopes": ["spend"], "parent_session_id": parent, **fields}
        return created(tenant.post("/v1/sessions", asked))["session_id"]

    def cap(level: str, name: str, window: str, limit: float) -> None:
        found(tenant.put("/v1/budgets", {"level": level, "name": name, "window": window, "limit": limit}))

    all_of_them = []
    for tree in range(3):
        root = open_session("planner", **({"spend_limit": share(0.12)} if tree == 0 else {}))
        all_of_them.append(root)
        for branch in range(3):
            middle = open_session(f"lead-{branch}", root)
            all_of_them.append(middle)
            if (tree, branch) == (1, 0):
                cap("session", middle, "month", share(0.03))
            for leaf in range(3):
                own = {"spend_limit": share(0.01)} if tree == 2 else {}
                all_of_them.append(open_session(f"worker-{leaf}", middle, **own))
    cap("agent", "worker-0", "day", share(0.05))
    cap("agent", "lead-1", "life", share(0.10))
    cap("tenant", "", "life", share(0.35))
    cap("tenant", "", "day", share(0.36))
    return all_of_them


# -- The test ------------------------------------------------------------------------------------------


def test_a_thousand_callers_never_overspend_at_any_level_through_two_kills(start_server: StartServer) -> None:
    server = start_server(port=free_port())
    tenant = server.found_tenant()
    sessions = plant(tenant, demand=CALLERS * ROUNDS)
    told = Told()
    started = time.monotonic()
    kills = asyncio.run(storm(tenant, sessions, told))
    seconds = time.monotonic() - started
    assert told.rounds == CALLERS * ROUNDS and len(kills) == 2 and kills[-1] < told.rounds
    assert told.retries > 0, "the kills were noticed"
    brief = wait_for_expiry(tenant, told)

    events = tenant.events()
    books = Books()
    for event in events:
        books.read(event)

    compare_what_was_told(events, told, brief)
    compare_what_is_shown(tenant, sessions, books, events[-1]["at"])
    assert set(told.denied) == {"session", "agent", "tenant"}, "every level had to say no"
    server.check()

    spent = {window: books.spent[TENANT, window, events[-1]["at"][: WINDOWS[window]]] for window in ("day", "life")}
    print(
        f"\n{CALLERS} callers, {len(sessions)} sessions, {told.requests} requests in {seconds:.1f} s"
        f" ({told.requests / seconds:.0f}/s), 2 kills after {kills[0]} and {kills[1]} of {told.rounds} rounds"
        f"\n{told.retries} sent again without an answer, {told.repeats} sent again with one"
        f"\n{len(told.authorized)} authorised; {len(told.reserved)} reserved: {len(told.settled)} settled,"
        f" {len(told.released)} released, {brief} expired, {len(told.left_open) - brief} open"
        f"\ndenied by {dict(told.denied)}; spent {spent['life']} and held {books.held[TENANT]}"
        f" of {books.caps[TENANT, 'life']}; {len(events)} entries"
    )


def wait_for_expiry(tenant: Tenant, told: Told) -> int:
    """Waits until everything that was set aside briefly is given back, and tells how much of it there was."""
    reserved = tenant.events("payment.reserved")
    brief = {event["event"]["authorization_id"] for event in reserved if event["event"]["ttl_s"] == BRIEF_TTL_S}
    assert brief <= told.left_open
    deadline = time.monotonic() + PATIENCE_S
    while True:
        events = tenant.events("payment.released")
        expired = [event["event"]["authorization_id"] for event in events if event["event"]["reason"] == "expired"]
        assert set(expired) <= brief and len(set(expired)) == len(expired)
        if len(expired) == len(brief):
            return len(expired)
        assert time.monotonic() < deadline, "not given back"
        time.sleep(0.2)


def compare_what_was_told(events: list[dict[str, Any]], told: Told, expired: int) -> None:
    """Every answer is in the ledger once, with its amount, and nothing else is."""

    def recorded(kind: str, **wanted: str) -> dict[str, Decimal]:
        matching = [event["event"] for event in events if event["kind"] == kind]
        matching = [it for it in matching if all(it[name] == value for name, value in wanted.items())]
        amounts = {it["authorization_id"]: Decimal(it["amount_usd"]) for it in matching}
        assert len(amounts) == len(matching), f"{kind} twice"
        return amounts

    assert recorded("payment.authorized") == told.authorized
    assert recorded("payment.reserved") == told.reserved
    assert recorded("payment.settled") == told.settled
    assert recorded("payment.released", reason="released") == told.released
    assert len(recorded("payment.released", reason="expired")) == expired
    assert len(recorded("payment.denied")) == told.denied.total()
    assert not [event for event in events if event["kind"] in ("ledger.repaired", "settlement.denied")]


def compare_what_is_shown(tenant: Tenant, sessions: list[str], books: Books, at: str) -> None:
    """Budgets, sessions and reports show what the accountant has."""

    def number(amount: Decimal | int) -> float:
        return float(amount)

    def spent(account: Account, window: str) -> float:
        return number(books.spent[account, window, at[: WINDOWS[window]]])

    shown = found(tenant.get("/v1/budgets", params={"as_of": at}))["budgets"]
    assert {((row["level"], row["name"]), row["window"]) for row in shown} == set(books.caps)
    for row in shown:
        account = (row["level"], row["name"])
        limit = books.caps[account, row["window"]]
        assert row["limit"] == number(limit)
        assert row["spent"] == spent(account, row["window"]) and row["held"] == number(books.held[account])
        assert row["remaining"] == number(limit - books.used(account, row["window"], at)) >= 0
    for level in ("session", "agent", "tenant"):
        rows = found(tenant.get("/v1/budgets/report", params={"as_of": at, "level": level}))["rows"]
        for row in rows:
            account = (level, row["name"])
            assert {window: row[window] for window in WINDOWS} == {it: spent(account, it) for it in WINDOWS}
            assert row["held"] == number(books.held[account])
    assert {row["session_id"] for row in found(tenant.get("/v1/sessions"))["sessions"]} == set(sessions)
    for session_id in sessions:
        told = found(tenant.get(f"/v1/sessions/{session_id}"))
        assert told["spent"] == spent(("session", session_id), "life")
