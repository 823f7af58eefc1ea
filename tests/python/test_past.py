"""Answers about the past: what was told at each moment is told again when that moment is asked for.

While a history is made, every answer is written down after each step. Then every step is asked for
again, by seq and by time, and must give the same, together with what the answer stands on: a seq, a
head, a root, and a checkpoint that the independent verifier accepts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from harness import Server, Tenant, created, found, refusal, running, short, verify_apart

NO_METERING = ("--meter-interval", "1h")

# Answers that follow from entries alone. (Those about keys and usage also count calls: see below.)
PATHS = [
    "/v1/sessions",
    "/v1/sessions?include_revoked=true",
    "/v1/sessions?agent_id=b&limit=2",
    "/v1/audit",
    "/v1/audit?limit=2",
    "/v1/audit?flagged=true",
    "/v1/audit?agent_id=b",
    "/v1/audit/spend",
    "/v1/audit/spend?agent_id=a",
]
METERED_PATHS = ["/v1/keys", "/v1/usage", "/v1/ledger/state"]


@dataclass
class Step:
    """What was told after a step."""

    seq: int
    at: str
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)


@dataclass
class History:
    tenant: Tenant
    steps: list[Step]
    session_ids: list[str]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with ExitStack() as stack:
        server = stack.enter_context(running(Server(tmp_path_factory.mktemp("past"), options=NO_METERING)))
        yield make_history(server.found_tenant())


def make_history(tenant: Tenant) -> History:
    """Acts of every kind, and after each all answers."""
    sessions: list[str] = []
    keys: list[str] = []

    def open_session(**fields: Any) -> None:
        sessions.append(tenant.open_session(**fields))

    def log(number: int, **fields: Any) -> None:
        asked = {"session_id": sessions[number], "action": "act", "tool": "mail", "cost_usd": 0.125, **fields}
        created(tenant.post("/v1/audit", asked))

    def pay(number: int, amount: float, status: int = 200) -> None:
        answer = tenant.post("/v1/payments/authorize", {"session_id": sessions[number], "amount": amount})
        assert answer.status_code == status, answer.text

    def mint() -> None:
        keys.append(tenant.mint("audit:read", name="reader"))

    acts: list[Callable[[], object]] = [
        lambda: open_session(agent_id="a", spend_limit=10),
        lambda: log(0),
        lambda: open_session(agent_id="b", scopes=["read", "spend"], ttl=7200),
        lambda: pay(0, 2.5),
        lambda: log(1, details={"é": [1, 2]}),
        mint,
        lambda: pay(0, 100, 403),
        lambda: tenant.post(f"/v1/sessions/{sessions[1]}/check", {"scope": "delete"}),
        lambda: open_session(agent_id="b", spend_limit=1),
        lambda: pay(2, 1),
        lambda: found(tenant.delete(f"/v1/sessions/{sessions[0]}")),
        lambda: refusal(tenant.get("/v1/sessions", key=keys[0]), 403),
        lambda: log(1, tool="", cost_usd="0.000000001"),
        lambda: found(tenant.delete(f"/v1/keys/{keys[0][:12]}")),
        lambda: open_session(agent_id="c", ttl=1),
        lambda: time.sleep(1.2),
        lambda: log(2, tool="web", cost_usd=3),
    ]
    steps = []
    for act in acts:
        act()
        steps.append(observed(tenant, sessions))
    return History(tenant, steps, sessions)


def observed(tenant: Tenant, sessions: list[str]) -> Step:
    paths = [*PATHS, *(f"/v1/sessions/{it}" for it in sessions)]
    answers = {path: told(tenant, path) for path in paths}
    answers |= {path: told(tenant, path) for path in METERED_PATHS}
    at = answers["/v1/ledger/state"][1]["at"]
    return Step(answers["/v1/ledger/state"][1]["size"] - 1, at, answers)


def told(tenant: Tenant, path: str, **query: str) -> tuple[int, Any]:
    answer = tenant.get(path, params={**dict(pair.split("=") for pair in path.partition("?")[2].split("&") if pair), **query})
    body = answer.json()
    if answer.status_code != 200:
        body = body.get("code")
    return answer.status_code, body


def without_calls(path: str, body: Any) -> Any:
    """Calls are counted between entries: when a key was last used is known up to the last reading."""
    text = json.loads(json.dumps(body))
    if path in ("/v1/keys", "/v1/ledger/state"):
        for key in text["keys"]:
            key.pop("last_used")
    if path == "/v1/usage":
        text.pop("action_count")
        text.pop("actions", None)
    return text


# -- The oracle --------------------------------------------------------------------------------------


def test_every_step_is_told_again_by_its_time(history: History) -> None:
    for step in history.steps:
        for path, (status, before) in step.answers.items():
            again, body = told(history.tenant, path, as_of=step.at)
            assert again == status, (path, step.seq, body)
            if status == 200:
                standing = body.pop("as_of")
                assert standing["at"] == step.at and standing["size"] == standing["seq"] + 1
                assert without_calls(path, body) == without_calls(path, before), (path, step.seq)
            else:
                assert body == before


def test_a_step_can_be_named_in_several_ways(history: History) -> None:
    """RFC 3339 in another zone, unix seconds, and the seq: one moment, one answer."""
    for step in history.steps[::3]:
        seconds = unix(step.at)
        for path in ["/v1/sessions", "/v1/audit/spend", "/v1/ledger/state"]:
            _, expected = told(history.tenant, path, as_of=step.at)
            for text in (seconds, step.at.replace("Z", "+00:00"), step.at.replace("T", " "), step.at.removesuffix("Z")):
                status, body = told(history.tenant, path, as_of=text)
                assert (status, body) == (200, expected), (path, text)


def unix(at: str) -> str:
    moment = datetime.fromisoformat(at.replace("Z", "+00:00")) - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return f"{moment.days * 86_400 + moment.seconds}.{moment.microseconds:06}"


def test_every_seq(history: History) -> None:
    """A state by seq is that by the time of its entry, and stands on exactly that entry."""
    tenant = history.tenant
    events = found(tenant.get("/v1/ledger/events", params={"limit": 1000}))["events"]
    for event in events[: history.steps[-1].seq + 1]:
        for path in ["/v1/sessions", "/v1/keys", "/v1/audit", "/v1/audit/spend", "/v1/usage", "/v1/ledger/state"]:
            _, by_seq = told(tenant, path, as_of=f"seq:{event['seq']}")
            _, by_time = told(tenant, path, as_of=event["at"])
            assert by_seq == by_time, (path, event["seq"])
            standing = by_seq["as_of"]
            assert (standing["seq"], standing["size"]) == (event["seq"], event["seq"] + 1)
            assert (standing["head"], standing["at"]) == (event["hash"], event["at"])
            if path == "/v1/ledger/state":
                assert (by_seq["size"], by_seq["head"], by_seq["at"]) == (event["seq"] + 1, event["hash"], event["at"])


def test_what_an_answer_stands_on_can_be_verified(history: History, tmp_path: Path) -> None:
    tenant = history.tenant
    public = tenant.server.data / "signing.pub"
    export = tmp_path / "export.jsonl"
    export.write_bytes(tenant.get("/v1/ledger/export").content)
    size = json.loads(export.read_text().splitlines()[-1])["size"]
    kept: list[str | Path] = []
    for seq in range(size):
        standing = told(tenant, "/v1/sessions", as_of=f"seq:{seq}")[1]["as_of"]
        path = tmp_path / f"checkpoint-{seq}"
        path.write_bytes(standing["checkpoint"].encode())
        code, said = verify_apart(path, "--key", public, "--tenant", tenant.id, "--json")
        assert code == 0, said
        assert (json.loads(said)["size"], json.loads(said)["root"]) == (standing["size"], standing["root"])
        assert standing["root"] == found(tenant.get(f"/v1/audit/consistency-proof?first={seq + 1}&second={size}"))["first_root"]
        kept += ["--checkpoint", path]
    code, said = verify_apart(export, "--key", public, "--tenant", tenant.id, *kept)
    assert code == 0, said


def test_usage_and_last_use_never_go_beyond_what_was_recorded(history: History) -> None:
    counts = [told(history.tenant, "/v1/usage", as_of=step.at)[1]["action_count"] for step in history.steps]
    then = [step.answers["/v1/usage"][1]["action_count"] for step in history.steps]
    assert counts == sorted(counts)
    # A step's time is when the state was told, one or two calls after its usage was.
    assert all(before <= again <= before + 2 for again, before in zip(counts, then))
    for step in history.steps:
        for key in told(history.tenant, "/v1/keys", as_of=step.at)[1]["keys"]:
            assert key["last_used"] is None or key["last_used"] <= float(unix(step.at))


def test_between_two_entries_time_still_passes(history: History) -> None:
    """A session of one second is live just after it was opened and expired a little later, with no entry between."""
    tenant = history.tenant
    session = history.session_ids[3]
    opened = found(tenant.get("/v1/ledger/events", params={"limit": 1000}))["events"]
    (event,) = [it for it in opened if it["event"].get("session_id") == session and it["kind"] == "session.opened"]
    start = float(unix(event["at"]))
    for later, status in [(0, 200), (0.5, 200), (0.999998, 200), (1.000001, 404), (1.1, 404)]:
        assert told(tenant, f"/v1/sessions/{session}", as_of=f"{start + later:.6f}")[0] == status, later
    assert told(tenant, f"/v1/sessions/{session}", as_of=f"{start - 0.000001:.6f}")[0] == 404


def test_the_past_is_the_same_after_a_kill(history: History) -> None:
    tenant, server = history.tenant, history.tenant.server
    asked = [(path, f"seq:{seq}") for path in PATHS + METERED_PATHS for seq in range(0, history.steps[-1].seq, 4)]
    before = [told(tenant, path, as_of=moment) for path, moment in asked]
    server.kill()
    server.start()
    after = [told(tenant, path, as_of=moment) for path, moment in asked]
    assert [strip(it) for it in after] == [strip(it) for it in before]


def strip(answer: tuple[int, Any]) -> Any:
    """All but the checkpoint's signature, which may be made anew."""
    status, body = answer
    if isinstance(body, dict) and "as_of" in body:
        body = body | {"as_of": body["as_of"] | {"checkpoint": body["as_of"]["checkpoint"].partition("\n\n")[0]}}
    return status, body


# -- What is refused ---------------------------------------------------------------------------------

NONSENSE = [
    "yesterday", "now", "seq:", "seq:x", "seq:-1", "seq:1.5", "seq:999999", f"seq:{2**64}", f"seq:{2**64 - 1}", "seq 3", "SEQ:3",
    "2999-01-01T00:00:00Z", "9999999999", "2000-01-01", "0", "-1", "1e9", "nan", "inf", "2023-13-01", "2026-02-30T00:00:00Z",
    "\x00", "१७०", "9" * 400, "[1]", "2026-11-21T00:00:00+99:00",
]  # fmt: skip


@pytest.mark.parametrize("text", NONSENSE, ids=short)
def test_moments_that_there_are_not(tenant: Tenant, text: str) -> None:
    session = tenant.open_session()
    for path in ["/v1/sessions", f"/v1/sessions/{session}", "/v1/keys", "/v1/usage", "/v1/audit", "/v1/audit/spend", "/v1/ledger/state"]:
        said = refusal(tenant.get(path, params={"as_of": text}), 400)
        assert said["field"] == "as_of" and said["request_id"], said


def test_before_the_first_entry_and_after_the_last(history: History) -> None:
    tenant = history.tenant
    first = found(tenant.get("/v1/ledger/events", params={"limit": 1}))["events"][0]["at"]
    assert told(tenant, "/v1/sessions", as_of=first)[0] == 200
    just_before = f"{float(unix(first)) - 0.00001:.6f}"
    refusal(tenant.get("/v1/sessions", params={"as_of": just_before}), 400)
    size = found(tenant.get("/v1/ledger/state"))["size"]
    assert told(tenant, "/v1/sessions", as_of=f"seq:{size - 1}")[0] == 200
    refusal(tenant.get("/v1/sessions", params={"as_of": f"seq:{size}"}), 400)
    refusal(tenant.get("/v1/sessions", params={"as_of": str(time.time() + 60)}), 400)


def test_an_empty_moment_is_the_present(tenant: Tenant) -> None:
    body = found(tenant.get("/v1/sessions", params={"as_of": ""}))
    assert "as_of" not in body


def test_the_past_of_others_is_theirs(tenant: Tenant, stranger: Tenant) -> None:
    session = tenant.open_session()
    at = found(tenant.get("/v1/ledger/state"))["at"]
    assert told(stranger, f"/v1/sessions/{session}", as_of=at)[0] == 404
    reader = tenant.mint("audit:read")
    refusal(tenant.get("/v1/ledger/state", params={"as_of": at}, key=reader), 403, "insufficient_scope")
    refusal(tenant.get("/v1/sessions", params={"as_of": at}, key=reader), 403, "insufficient_scope")
    refusal(tenant.server.call("GET", f"/v1/sessions?as_of={at}"), 401)


def test_asking_about_the_past_records_nothing(history: History) -> None:
    tenant = history.tenant
    before = len(tenant.ledger())
    for step in history.steps[:5]:
        for path in step.answers:
            told(tenant, path, as_of=step.at)
    assert len(tenant.ledger()) == before
