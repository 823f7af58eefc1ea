"""Sessions below sessions: a child never does more, spends more or lives longer than those above it.

Whatever a child is refused is recorded with its reason; whatever it spends counts against every
session above it; and it ends with the first of them that ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from harness import Server, Tenant, at_once, created, found, refusal, short

StartServer = Callable[..., Server]

# A session with this life is over after that pause.
BRIEF_TTL_S = 1
BRIEF_PAUSE_S = 1.3
DEPTH_MAX = 8


def ask(tenant: Tenant, parent: str, **fields: Any) -> httpx.Response:
    """Asks for a session below another one."""
    return tenant.post("/v1/sessions", {"agent_id": "child", "parent_session_id": parent, **fields})


def delegate(tenant: Tenant, parent: str, **fields: Any) -> str:
    """The id of a new session below another one; without fields, one with the scopes that both defaults have."""
    return created(ask(tenant, parent, **fields))["session_id"]


def pay(tenant: Tenant, session_id: str, amount: float) -> httpx.Response:
    return tenant.post("/v1/payments/authorize", {"session_id": session_id, "amount": amount})


def allowed(tenant: Tenant, session_id: str, scope: str = "read") -> bool:
    return found(tenant.post(f"/v1/sessions/{session_id}/check", {"scope": scope}))["allowed"]


def session(tenant: Tenant, session_id: str, **query: str) -> dict[str, Any]:
    return found(tenant.get(f"/v1/sessions/{session_id}", params=query))


def below(tenant: Tenant, session_id: str, **query: str) -> dict[str, Any]:
    return found(tenant.get(f"/v1/sessions/{session_id}/descendants", params=query))


def nodes(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The root of an answer and everything listed below it."""
    waiting = [tree["root"]]
    while waiting:
        node = waiting.pop(0)
        yield node
        waiting += node["children"]


def denials(tenant: Tenant) -> list[str]:
    return [event["event"]["reason"] for event in tenant.events("delegation.denied")]


# -- Whose it is ---------------------------------------------------------------------------------------


def test_a_session_says_whose_it_is_and_how_deep(tenant: Tenant) -> None:
    root = created(tenant.post("/v1/sessions", {"agent_id": "root", "scopes": ["read"]}))
    assert root["parent_session_id"] == "" and root["delegation_depth"] == 0
    child = created(ask(tenant, root["session_id"]))
    assert child["parent_session_id"] == root["session_id"] and child["delegation_depth"] == 1
    grandchild = created(ask(tenant, child["session_id"], agent_id="grandchild"))
    for opened in (root, child, grandchild):
        told = session(tenant, opened["session_id"])
        same = ("session_id", "agent_id", "scopes", "spend_limit", "unlimited", "expires_at", "parent_session_id")
        assert {key: told[key] for key in same} == {key: opened[key] for key in same}
        assert told["delegation_depth"] == opened["delegation_depth"]
    assert [grandchild["delegation_depth"], grandchild["agent_id"]] == [2, "grandchild"]
    events = tenant.events("session.opened")
    parents = [event["event"].get("parent_session_id") for event in events]
    assert parents == [None, root["session_id"], child["session_id"]]


def test_an_empty_parent_is_none(tenant: Tenant) -> None:
    opened = created(ask(tenant, ""))
    assert opened["parent_session_id"] == "" and opened["delegation_depth"] == 0


def test_there_are_at_most_eight_sessions_above_one(tenant: Tenant) -> None:
    lowest = root = tenant.open_session()
    for depth in range(1, DEPTH_MAX + 1):
        opened = created(ask(tenant, lowest, scopes=["admin"]))
        assert opened["delegation_depth"] == depth
        lowest = opened["session_id"]
    said = refusal(ask(tenant, lowest), 400)
    assert said["field"] == "parent_session_id"
    assert denials(tenant) == ["too_deep"]
    tree = below(tenant, root)
    assert tree["descendant_count"] == tree["max_delegation_depth"] == DEPTH_MAX
    assert pay(tenant, lowest, 0.01).status_code == 200
    assert all(session(tenant, node["session_id"])["spent"] == 0.01 for node in nodes(tree))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"parent_session_id": 7}, "parent_session_id"),
        ({"parent_session_id": None}, "parent_session_id"),
        ({"parent_session_id": "x" * 129}, "parent_session_id"),
        ({"parent_session_id": "a\nb"}, "parent_session_id"),
        ({"parent_session_id": "ses_unknown"}, "parent_session_id"),
        ({"parent_session_id": "é☃😀"}, "parent_session_id"),
    ],
    ids=short,
)
def test_a_parent_that_there_is_not_is_a_mistake_without_a_trace(
    tenant: Tenant, change: dict[str, Any], field: str
) -> None:
    said = refusal(tenant.post("/v1/sessions", {"agent_id": "child", **change}), 400, "invalid_request")
    assert said["field"] == field
    assert tenant.record() == ["key.minted"]


def test_a_parent_of_somebody_else_is_unknown(tenant: Tenant, stranger: Tenant) -> None:
    foreign = tenant.open_session()
    unknown = refusal(ask(stranger, "ses_unknown"), 400)
    told = refusal(ask(stranger, foreign), 400)
    assert {**told, "request_id": ""} == {**unknown, "request_id": ""}, "nobody learns what others have"
    refusal(stranger.get(f"/v1/sessions/{foreign}/descendants"), 404)
    refusal(stranger.delete(f"/v1/sessions/{foreign}?cascade=true"), 404)
    assert stranger.record() == ["key.minted"] and tenant.record() == ["key.minted", "session.opened"]
    assert below(tenant, foreign)["descendant_count"] == 0


def test_only_a_key_that_may_open_sessions_may_delegate(tenant: Tenant) -> None:
    root = tenant.open_session()
    narrow = tenant.mint("sessions:read")
    asked = {"agent_id": "child", "parent_session_id": root}
    refusal(tenant.post("/v1/sessions", asked, key=narrow), 403, "insufficient_scope")
    assert found(tenant.get(f"/v1/sessions/{root}/descendants", key=narrow))["descendant_count"] == 0
    refusal(tenant.delete(f"/v1/sessions/{root}?cascade=true", key=narrow), 403, "insufficient_scope")
    nothing = tenant.mint("audit:read")
    refusal(tenant.get(f"/v1/sessions/{root}/descendants", key=nothing), 403, "insufficient_scope")


# -- Scopes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "asked", "granted"),
    [
        (["read", "spend"], ["read"], ["read"]),
        (["read", "spend"], ["spend", "read"], ["spend", "read"]),
        (["stripe"], ["stripe:refund"], ["stripe:refund"]),
        (["admin"], ["anything", "at:all"], ["anything", "at:all"]),
        (["admin"], ["admin"], ["admin"]),
        (["read"], ["write"], None),
        (["read"], ["read", "write"], None),
        (["stripe:refund"], ["stripe"], None),
        (["stripe:refund"], ["stripe:charge"], None),
        (["read"], ["admin"], None),
        (["read"], ["*"], None),
        (["Read"], ["read"], None),
        (["read", "spend"], ..., ["read"]),
        (["read", "browse"], ..., ["read", "browse"]),
        (["admin"], ..., ["read", "browse"]),
        (["browse:web"], ..., []),
        (["write"], [], []),
    ],
    ids=short,
)
def test_a_child_holds_no_scope_that_its_parent_does_not(
    tenant: Tenant, held: list[str], asked: Any, granted: list[str] | None
) -> None:
    root = tenant.open_session(scopes=held)
    answer = ask(tenant, root, **({} if asked is ... else {"scopes": asked}))
    if granted is None:
        assert refusal(answer, 400, "invalid_request")["field"] == "scopes"
        (denied,) = tenant.events("delegation.denied")
        told = denied["event"]
        assert told["reason"] == "scope_beyond_parent" and told["scopes"] == asked
        assert told["parent_session_id"] == root and told["agent_id"] == "child"
        assert tenant.record() == ["key.minted", "session.opened", "delegation.denied"]
    else:
        assert created(answer)["scopes"] == granted
        assert denials(tenant) == []


def test_scopes_narrow_on_every_level(tenant: Tenant) -> None:
    root = tenant.open_session(scopes=["read", "write", "spend"], spend_limit=10)
    child = delegate(tenant, root, scopes=["read", "spend"])
    refusal(ask(tenant, child, scopes=["write"]), 400)
    grandchild = delegate(tenant, child, scopes=["read"])
    assert [allowed(tenant, it, "write") for it in (root, child, grandchild)] == [True, False, False]
    assert [allowed(tenant, it, "read") for it in (root, child, grandchild)] == [True, True, True]
    denied = pay(tenant, grandchild, 1)
    assert denied.status_code == 403 and denied.json()["code"] == "spend_scope_missing"


# -- Budgets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "asked", "granted"),
    [
        (10, {}, 10.0),
        (10, {"spend_limit": 10}, 10.0),
        (10, {"spend_limit": 2.5}, 2.5),
        (10, {"spend_limit": 0}, 0.0),
        (10, {"spend_limit": 10.01}, None),
        (10, {"scopes": ["spend:4"]}, 4.0),
        (10, {"scopes": ["spend:11"]}, None),
        (10, {"scopes": ["spend:11"], "spend_limit": 3}, 3.0),
        (0, {}, 0.0),
        (0, {"spend_limit": 0.000000001}, None),
        (None, {}, None),
        (None, {"spend_limit": 1_000_000}, 1_000_000.0),
    ],
    ids=short,
)
def test_a_child_gets_at_most_what_is_left(
    tenant: Tenant, limit: float | None, asked: dict[str, Any], granted: float | None
) -> None:
    root = tenant.open_session(scopes=["spend"], **({} if limit is None else {"spend_limit": limit}))
    answer = ask(tenant, root, **{"scopes": ["spend"], **asked})
    if granted is None and limit is not None:
        assert refusal(answer, 400, "invalid_request")["field"] == "spend_limit"
        assert denials(tenant) == ["budget_beyond_parent"]
    else:
        child = created(answer)
        assert child["spend_limit"] == (granted or 0.0) and child["unlimited"] is (granted is None)


def test_what_is_left_is_what_was_neither_spent_nor_set_aside_anywhere_above(tenant: Tenant) -> None:
    root = tenant.open_session(scopes=["spend"], spend_limit=10)
    child = delegate(tenant, root, scopes=["spend"], spend_limit=8)
    found(pay(tenant, root, 3))
    found(tenant.post("/v1/payments/reserve", {"session_id": root, "amount": 1}))
    assert session(tenant, child)["remaining_budget"] == 6.0, "the parent has less left than the child may spend"
    said = refusal(ask(tenant, child, scopes=["spend"], spend_limit=6.01), 400)
    assert said["field"] == "spend_limit"
    grandchild = created(ask(tenant, child, scopes=["spend"]))
    assert grandchild["spend_limit"] == 6.0, "the remainder"


def test_children_may_be_promised_the_same_money_but_only_one_of_them_gets_it(tenant: Tenant) -> None:
    root = tenant.open_session(scopes=["spend"], spend_limit=10)
    first, second = (delegate(tenant, root, scopes=["spend"]) for _ in range(2))
    found(pay(tenant, first, 7))
    denied = pay(tenant, second, 3.01)
    assert denied.status_code == 403
    assert denied.json()["level"] == "session" and denied.json()["window"] == "life"
    (event,) = tenant.events("payment.denied")
    assert event["event"]["bound"]["account"] == {"level": "session", "session_id": root}
    assert found(pay(tenant, second, 3))["remaining_budget"] == 0.0
    assert session(tenant, root)["remaining_budget"] == 0.0


def test_what_a_child_spends_counts_for_everybody_above_it(tenant: Tenant) -> None:
    root = tenant.open_session(agent_id="a", scopes=["spend"], spend_limit=100)
    left = delegate(tenant, root, agent_id="b", scopes=["spend"], spend_limit=50)
    right = delegate(tenant, root, agent_id="c", scopes=["spend"])
    lowest = delegate(tenant, left, agent_id="a", scopes=["spend"], spend_limit=20)
    for session_id, amount in [(root, 1.1), (left, 2.2), (right, 3.3), (lowest, 4.4), (lowest, 0.4)]:
        found(pay(tenant, session_id, amount))
    reserved = found(tenant.post("/v1/payments/reserve", {"session_id": lowest, "amount": 5}))

    told = {it: session(tenant, it) for it in (root, left, right, lowest)}
    assert {it: told[it]["spent"] for it in told} == {root: 11.4, left: 7.0, right: 3.3, lowest: 4.8}
    assert {it: told[it]["own_spent"] for it in told} == {root: 1.1, left: 2.2, right: 3.3, lowest: 4.8}
    assert {it: told[it]["held"] for it in told} == {root: 5.0, left: 5.0, right: 0.0, lowest: 5.0}
    left_over = {root: 83.6, left: 38.0, right: 83.6, lowest: 10.2}
    assert {it: told[it]["remaining_budget"] for it in told} == left_over

    found(tenant.post(f"/v1/payments/{reserved['authorization_id']}/settle", {"amount": 0.2}))
    assert [session(tenant, it)["spent"] for it in (root, left, lowest)] == [11.6, 7.2, 5.0]
    assert [session(tenant, it)["held"] for it in (root, left, lowest)] == [0.0, 0.0, 0.0]
    rows = found(tenant.get("/v1/budgets/report", params={"level": "agent"}))["rows"]
    spent = {row["name"]: row["life"] for row in rows}
    assert spent == {"a": 11.6, "b": 7.2, "c": 3.3}, "an agent that stands twice in a line pays once"


# -- Life --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [{}, {"ttl": 61}, {"ttl": 2_592_000}, {"ttl": 0}], ids=short)
def test_a_child_lives_no_longer_than_its_parent(tenant: Tenant, asked: dict[str, Any]) -> None:
    root = created(tenant.post("/v1/sessions", {"agent_id": "root", "ttl": 60}))
    child = created(ask(tenant, root["session_id"], **asked))
    assert child["expires_at"] == root["expires_at"]
    assert 0 < child["ttl"] <= 60


def test_a_child_may_live_shorter_and_for_ever_below_one_that_does(tenant: Tenant) -> None:
    root = created(tenant.post("/v1/sessions", {"agent_id": "root", "ttl": 0}))["session_id"]
    brief = created(ask(tenant, root, ttl=10))
    assert brief["ttl"] == 10 and brief["expires_at"] > 0
    endless = created(ask(tenant, root, ttl=0))
    assert endless["ttl"] == 0 and endless["expires_at"] == 0


def test_a_child_ends_with_its_parents_time(tenant: Tenant) -> None:
    root = tenant.open_session(ttl=BRIEF_TTL_S)
    child = delegate(tenant, root, scopes=["read"], ttl=0)
    grandchild = delegate(tenant, child, ttl=3600)
    assert allowed(tenant, grandchild)
    time.sleep(BRIEF_PAUSE_S)
    for dead in (child, grandchild):
        assert not allowed(tenant, dead)
        refusal(tenant.get(f"/v1/sessions/{dead}"), 404)
    refusal(ask(tenant, grandchild), 400)
    assert denials(tenant) == ["parent_expired"]


# -- Ends --------------------------------------------------------------------------------------------


def is_over(tenant: Tenant, session_id: str) -> bool:
    """Whether nothing can be done with a session any more, in any way that there is."""
    checked = found(tenant.post(f"/v1/sessions/{session_id}/check", {"scope": "read"}))
    answers = [
        (tenant.get(f"/v1/sessions/{session_id}"), 404),
        (pay(tenant, session_id, 1), 401),
        (tenant.post("/v1/payments/reserve", {"session_id": session_id, "amount": 1}), 401),
        (tenant.post("/v1/audit", {"session_id": session_id, "action": "late"}), 401),
        (tenant.post("/v1/approvals/request", {"session_id": session_id}), 401),
        (ask(tenant, session_id), 400),
    ]
    ended = [answer.status_code == status for answer, status in answers]
    assert all(ended) or not any(ended), [answer.text for answer, _ in answers]
    assert checked["allowed"] is not all(ended)
    return all(ended)


def family(tenant: Tenant) -> dict[str, str]:
    """A root with two children, of which the first has two children of its own, and one of these a child."""
    ids = {"root": tenant.open_session(agent_id="root")}
    for name, parent in [("a", "root"), ("b", "root"), ("aa", "a"), ("ab", "a"), ("aaa", "aa")]:
        ids[name] = delegate(tenant, ids[parent], agent_id=name, scopes=["admin"])
    return ids


@pytest.mark.parametrize(
    ("revoked", "below_it"), [("root", ["a", "b", "aa", "ab", "aaa"]), ("a", ["aa", "ab", "aaa"]), ("b", [])]
)
def test_everything_below_a_revoked_session_ends_with_it(tenant: Tenant, revoked: str, below_it: list[str]) -> None:
    ids = family(tenant)
    answer = found(tenant.delete(f"/v1/sessions/{ids[revoked]}"))
    assert answer == {"revoked": True, "session_id": ids[revoked]}, "what ended with it is told when asked for"
    ended = [name for name in ids if is_over(tenant, ids[name])]
    assert ended == [name for name in ids if name == revoked or name in below_it]
    assert tenant.record().count("session.revoked") == 1


def test_a_cascade_tells_what_ended_level_by_level_and_once(tenant: Tenant) -> None:
    ids = family(tenant)
    path = f"/v1/sessions/{ids['root']}"
    said = found(tenant.delete(path, params={"cascade": "true"}))
    assert said["cascade_revoked"] == [ids[name] for name in ("a", "b", "aa", "ab", "aaa")]
    for _ in range(2):
        again = found(tenant.delete(path, params={"cascade": "true"}))
        assert again == {"revoked": True, "session_id": ids["root"], "cascade_revoked": []}
    inner = found(tenant.delete(f"/v1/sessions/{ids['aa']}", params={"cascade": "true"}))
    assert inner == {"revoked": True, "session_id": ids["aa"], "cascade_revoked": []}
    assert "cascade_revoked" not in found(tenant.delete(path, params={"cascade": "TRUE"}))


def test_a_cascade_goes_through_what_has_ended_before(tenant: Tenant) -> None:
    ids = family(tenant)
    found(tenant.delete(f"/v1/sessions/{ids['a']}"))
    said = found(tenant.delete(f"/v1/sessions/{ids['root']}", params={"cascade": "true"}))
    assert said["cascade_revoked"] == [ids["b"]], "the others ended with their own parent"
    assert is_over(tenant, ids["aaa"])


def test_the_reason_of_an_end_that_came_from_above_is_told(tenant: Tenant) -> None:
    ids = family(tenant)
    found(tenant.delete(f"/v1/sessions/{ids['a']}"))
    checked = found(tenant.post(f"/v1/sessions/{ids['aaa']}/check", {"scope": "read"}))
    assert checked["reason"] == "revoked"
    refusal(ask(tenant, ids["aaa"]), 400)
    assert denials(tenant) == ["parent_revoked"]
    (event,) = tenant.events("permission.checked")
    assert event["event"]["verdict"] == "revoked"


def test_nothing_is_born_below_a_session_that_is_being_revoked(tenant: Tenant) -> None:
    root = tenant.open_session()
    child = delegate(tenant, root, scopes=["admin"])

    def act(number: int) -> httpx.Response:
        if number == 20:
            return tenant.delete(f"/v1/sessions/{root}")
        return ask(tenant, child, agent_id=f"agent-{number}", scopes=["admin"])

    answers = at_once(40, act)
    assert {answer.status_code for answer in answers} <= {200, 201, 400}
    born = [answer.json()["session_id"] for answer in answers if answer.status_code == 201]
    assert not any(allowed(tenant, session_id) for session_id in born)
    kinds = tenant.record()
    end = kinds.index("session.revoked")
    assert "session.opened" not in kinds[end:] and "delegation.denied" not in kinds[:end]


# -- Trees -------------------------------------------------------------------------------------------


NODE_KEYS = {
    "session_id", "agent_id", "parent_session_id", "revoked", "is_valid", "spent", "spend_limit", "unlimited",
    "created_at", "expires_at", "children", "subtree_spent", "subtree_sessions",
}  # fmt: skip


def test_the_tree_below_a_session_has_its_sums(tenant: Tenant) -> None:
    ids = family(tenant)
    for name, amount in [("root", 0.5), ("a", 1), ("aa", 2), ("ab", 4), ("aaa", 8), ("b", 16)]:
        found(pay(tenant, ids[name], amount))
    tree = below(tenant, ids["root"])
    assert set(tree) == {"root", "descendant_count", "max_delegation_depth"}
    assert tree["descendant_count"] == 5 and tree["max_delegation_depth"] == DEPTH_MAX
    by_agent = {node["agent_id"]: node for node in nodes(tree)}
    assert all(set(node) == NODE_KEYS for node in by_agent.values())
    assert [by_agent[name]["session_id"] for name in ids] == list(ids.values())
    assert {name: node["subtree_spent"] for name, node in by_agent.items()} == {
        "root": 31.5, "a": 15.0, "b": 16.0, "aa": 10.0, "ab": 4.0, "aaa": 8.0,
    }  # fmt: skip
    assert {name: node["subtree_sessions"] for name, node in by_agent.items()} == {
        "root": 5, "a": 3, "b": 0, "aa": 1, "ab": 0, "aaa": 0,
    }  # fmt: skip
    assert [child["agent_id"] for child in by_agent["a"]["children"]] == ["aa", "ab"]
    assert all(node["is_valid"] and not node["revoked"] for node in by_agent.values())
    assert below(tenant, ids["a"])["root"] == by_agent["a"]
    for name, node in by_agent.items():
        assert node["spent"] == session(tenant, ids[name])["own_spent"]
        assert node["subtree_spent"] == session(tenant, ids[name])["spent"]


def test_revoked_branches_are_shown_when_asked_for(tenant: Tenant) -> None:
    ids = family(tenant)
    found(pay(tenant, ids["aaa"], 8))
    found(tenant.delete(f"/v1/sessions/{ids['a']}"))
    tree = below(tenant, ids["root"])
    assert [node["agent_id"] for node in nodes(tree)] == ["root", "b"] and tree["descendant_count"] == 1
    assert tree["root"]["subtree_spent"] == 0.0, "of those that are listed"
    whole = below(tenant, ids["root"], include_revoked="true")
    assert {node["agent_id"]: node["revoked"] for node in nodes(whole)} == {
        "root": False, "a": True, "b": False, "aa": True, "ab": True, "aaa": True,
    }  # fmt: skip
    assert whole["root"]["subtree_spent"] == 8.0 and whole["descendant_count"] == 5

    refusal(tenant.get(f"/v1/sessions/{ids['aa']}/descendants"), 404)
    ended = below(tenant, ids["aa"], include_revoked="true")
    assert ended["root"]["is_valid"] is False and ended["descendant_count"] == 1
    refusal(tenant.get("/v1/sessions/ses_unknown/descendants", params={"include_revoked": "true"}), 404)


def test_expired_branches_stay_and_say_so(tenant: Tenant) -> None:
    root = tenant.open_session()
    brief = delegate(tenant, root, scopes=["admin"], ttl=BRIEF_TTL_S)
    delegate(tenant, brief, agent_id="below")
    time.sleep(BRIEF_PAUSE_S)
    tree = below(tenant, root)
    assert [(node["is_valid"], node["revoked"]) for node in nodes(tree)] == [(True, False), *[(False, False)] * 2]
    said = found(tenant.delete(f"/v1/sessions/{root}", params={"cascade": "true"}))
    assert said["cascade_revoked"] == [], "what has ended does not end again"


def test_the_list_tells_parents_and_can_leave_out_children(tenant: Tenant) -> None:
    ids = family(tenant)
    listed = found(tenant.get("/v1/sessions"))
    parents = {row["agent_id"]: row["parent_session_id"] for row in listed["sessions"]}
    assert parents == {
        "root": "", "a": ids["root"], "b": ids["root"], "aa": ids["a"], "ab": ids["a"], "aaa": ids["aa"],
    }  # fmt: skip
    other = tenant.open_session(agent_id="other")
    roots = found(tenant.get("/v1/sessions", params={"roots_only": "true"}))
    assert [row["session_id"] for row in roots["sessions"]] == [other, ids["root"]] and roots["count"] == 2
    assert found(tenant.get("/v1/sessions", params={"roots_only": "TRUE"}))["count"] == 7

    found(tenant.delete(f"/v1/sessions/{ids['a']}"))
    live = found(tenant.get("/v1/sessions"))["sessions"]
    assert {row["agent_id"] for row in live} == {"root", "b", "other"}, "what ended from above is not listed either"
    every = found(tenant.get("/v1/sessions", params={"include_revoked": "true"}))["sessions"]
    assert {row["agent_id"] for row in every if row["revoked"]} == {"a", "aa", "ab", "aaa"}


def test_only_roots_count_as_live_agents(start_server: StartServer) -> None:
    tenant = start_server(options=["--agents", "1"]).found_tenant()
    root = tenant.open_session(agent_id="one")
    for number in range(3):
        delegate(tenant, root, agent_id=f"helper-{number}")
    refusal(tenant.post("/v1/sessions", {"agent_id": "two"}), 403)
    found(tenant.delete(f"/v1/sessions/{root}"))
    tenant.open_session(agent_id="two")


# -- Time and retries -----------------------------------------------------------------------------------


def test_the_past_has_its_own_trees(tenant: Tenant) -> None:
    ids = family(tenant)
    found(pay(tenant, ids["aaa"], 2))
    alive = tenant.events()[-1]["at"]
    whole = below(tenant, ids["root"])
    found(tenant.delete(f"/v1/sessions/{ids['a']}"))
    assert below(tenant, ids["root"])["descendant_count"] == 1
    then = below(tenant, ids["root"], as_of=alive)
    then.pop("as_of")
    assert then == whole
    assert session(tenant, ids["aaa"], as_of=alive)["spent"] == 2.0
    refusal(tenant.get(f"/v1/sessions/{ids['aaa']}"), 404)


def test_trees_survive_a_kill(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()
    ids = family(tenant)
    for name in ids:
        found(pay(tenant, ids[name], 0.25))
    found(tenant.delete(f"/v1/sessions/{ids['aa']}"))
    before = below(tenant, ids["root"], include_revoked="true")
    server.kill()
    server.start()
    assert below(tenant, ids["root"], include_revoked="true") == before
    assert is_over(tenant, ids["aaa"]) and not is_over(tenant, ids["ab"])


def test_a_retried_delegation_opens_one_child(tenant: Tenant) -> None:
    root = tenant.open_session(scopes=["read"])
    retry = {"Idempotency-Key": "k"}
    asked = {"agent_id": "child", "parent_session_id": root}
    first = created(tenant.post("/v1/sessions", asked, headers=retry))
    refusal(tenant.post("/v1/sessions", {"agent_id": "child"}, headers=retry), 422)
    found(tenant.delete(f"/v1/sessions/{root}"))
    assert created(tenant.post("/v1/sessions", asked, headers=retry)) == first, "as it was answered then"
    assert below(tenant, root, include_revoked="true")["descendant_count"] == 1


def test_a_denied_delegation_can_be_asked_again_with_the_same_key(tenant: Tenant) -> None:
    root = tenant.open_session(scopes=["spend"], spend_limit=10)
    reserved = found(tenant.post("/v1/payments/reserve", {"session_id": root, "amount": 9}))
    asked = {"agent_id": "child", "parent_session_id": root, "scopes": ["spend"], "spend_limit": 5}
    retry = {"Idempotency-Key": "k"}
    refusal(tenant.post("/v1/sessions", asked, headers=retry), 400)
    found(tenant.post(f"/v1/payments/{reserved['authorization_id']}/release"))
    assert created(tenant.post("/v1/sessions", asked, headers=retry))["spend_limit"] == 5.0


def test_the_published_client_works_in_a_delegated_session(tenant: Tenant) -> None:
    root = tenant.open_session(scopes=["read", "spend"], spend_limit=10)
    child = delegate(tenant, root, scopes=["read", "spend"], spend_limit=4)
    with tenant.client() as client:
        assert client.authorize_payment(child, 1.5)["remaining_budget"] == 2.5
        shown = client.get_session(root)
        assert (shown["spent"], shown["remaining_budget"]) == (1.5, 8.5)
        client.log_action(child, tool="shop", action="buy", cost_usd=1.5)
        assert client.revoke_session(root)["revoked"] is True
        assert client.check_permission(child, "read")["allowed"] is False
