"""Anomalies: rules over the API, what they flag and find, and who may see it.

The ledger of every server here is verified when the test ends, and with it every flag: the rules are asked again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from harness import Server, Tenant, created, found, refusal
from receiver import Receiver

Rule = dict[str, Any]


def add(tenant: Tenant, **rule: Any) -> int:
    return created(tenant.post("/v1/anomalies/rules", rule))["rule_id"]


def log(tenant: Tenant, session: str, tool: str = "search", cost: float = 0.0) -> Rule:
    body = {"session_id": session, "tool": tool, "action": "run", "cost_usd": cost}
    return created(tenant.post("/v1/audit", body))


def anomalies(tenant: Tenant, query: str = "") -> list[Rule]:
    return found(tenant.get(f"/v1/anomalies{query}"))["anomalies"]


# -- Rules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "stands"),
    [
        ({"type": "spend_per_action", "threshold": 100}, {"threshold": 100.0}),
        ({"type": "spend_per_action", "threshold": "0.000000001"}, {"threshold": 1e-9}),
        ({"type": "actions_per_minute", "threshold": 30.0}, {"threshold": 30}),
        ({"type": "tool_blocked", "threshold": "shell"}, {"threshold": "shell", "tools": ["shell"]}),
        ({"type": "tool_blocked", "threshold": "a", "tools": ["b", "a"]}, {"threshold": None, "tools": ["b", "a"]}),
        ({"type": "repeated_denials"}, {"threshold": 5, "window": 300}),
        ({"type": "repeated_denials", "threshold": 2, "window": "90s"}, {"threshold": 2, "window": 90}),
        ({"type": "spend_spike"}, {"threshold": 3.0, "min_samples": 10}),
        ({"type": "spend_spike", "threshold": 2.5, "min_samples": 4}, {"threshold": 2.5, "min_samples": 4}),
        ({"type": "unusual_tool"}, {"threshold": None, "min_samples": 10}),
        ({"type": "unusual_hours", "min_samples": 50}, {"threshold": None, "min_samples": 50}),
        ({"type": "velocity", "threshold": 7, "window": 3600}, {"threshold": 7, "window": 3600}),
        ({"type": "velocity", "threshold": 7, "window": "1h", "reason": "busy"}, {"window": 3600, "reason": "busy"}),
    ],
)
def test_a_rule_stands_as_it_was_asked_for(tenant: Tenant, asked: Rule, stands: Rule) -> None:
    answer = created(tenant.post("/v1/anomalies/rules", asked))
    assert answer["added"] is True and answer["type"] == asked["type"]
    assert {name: answer["rule"][name] for name in stands} == stands
    listed = found(tenant.get("/v1/anomalies/rules"))
    assert listed == {"count": 1, "rules": [answer["rule"]]}


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "type"),
        ({"type": ""}, "type"),
        ({"type": "spend"}, "type"),
        ({"type": ["velocity"]}, "type"),
        ({"type": "spend_per_action"}, "threshold"),
        ({"type": "spend_per_action", "threshold": None}, "threshold"),
        ({"type": "spend_per_action", "threshold": True}, "threshold"),
        ({"type": "spend_per_action", "threshold": -1}, "threshold"),
        ({"type": "spend_per_action", "threshold": 1e-10}, "threshold"),
        ({"type": "spend_per_action", "threshold": "much"}, "threshold"),
        ({"type": "actions_per_minute", "threshold": 0}, "threshold"),
        ({"type": "actions_per_minute", "threshold": 1.5}, "threshold"),
        ({"type": "actions_per_minute", "threshold": 10_001}, "threshold"),
        ({"type": "actions_per_minute", "threshold": 5, "window": 60}, "window"),
        ({"type": "tool_blocked"}, "threshold"),
        ({"type": "tool_blocked", "threshold": 5}, "threshold"),
        ({"type": "tool_blocked", "tools": "shell"}, "tools"),
        ({"type": "tool_blocked", "tools": [1]}, "tools"),
        ({"type": "tool_blocked", "tools": [""]}, "tools"),
        ({"type": "tool_blocked", "tools": [str(n) for n in range(33)]}, "tools"),
        ({"type": "repeated_denials", "window": "soon"}, "window"),
        ({"type": "repeated_denials", "window": 0}, "window"),
        ({"type": "repeated_denials", "window": "31d"}, "window"),
        ({"type": "spend_spike", "threshold": 0}, "threshold"),
        ({"type": "spend_spike", "min_samples": 0}, "min_samples"),
        ({"type": "spend_spike", "min_samples": "10"}, "min_samples"),
        ({"type": "unusual_tool", "threshold": 5}, "threshold"),
        ({"type": "unusual_hours", "tools": []}, "tools"),
        ({"type": "velocity", "threshold": 5}, "window"),
        ({"type": "velocity", "window": 5}, "threshold"),
        ({"type": "unusual_tool", "reason": "x" * 513}, "reason"),
        ({"type": "unusual_tool", "reason": "a\u0007b"}, "reason"),
    ],
)
def test_a_rule_that_is_none_is_refused_by_field_and_leaves_no_trace(tenant: Tenant, asked: Rule, field: str) -> None:
    assert refusal(tenant.post("/v1/anomalies/rules", asked), 400)["field"] == field
    assert found(tenant.get("/v1/anomalies/rules"))["count"] == 0


def test_rules_are_removed_once_and_their_numbers_are_never_given_again(tenant: Tenant) -> None:
    first = add(tenant, type="unusual_tool")
    assert found(tenant.delete(f"/v1/anomalies/rules/{first}")) == {"removed": True, "rule_id": first}
    for gone in (first, 99, 2**64, "-1", "x"):
        refusal(tenant.delete(f"/v1/anomalies/rules/{gone}"), 404)
    assert add(tenant, type="unusual_tool") == first + 1


def test_there_are_no_more_rules_than_may_be(tenant: Tenant) -> None:
    for _ in range(32):
        add(tenant, type="unusual_tool")
    refusal(tenant.post("/v1/anomalies/rules", {"type": "unusual_tool"}), 400)
    found(tenant.delete("/v1/anomalies/rules/7"))
    assert add(tenant, type="unusual_tool") == 33


def test_a_rule_is_added_once_however_often_it_is_asked_for(tenant: Tenant) -> None:
    headers = {"Idempotency-Key": "rule"}
    asked = {"type": "tool_blocked", "threshold": "shell"}
    first = created(tenant.post("/v1/anomalies/rules", asked, headers=headers))
    assert created(tenant.post("/v1/anomalies/rules", asked, headers=headers)) == first
    refusal(tenant.post("/v1/anomalies/rules", asked | {"threshold": "rm"}, headers=headers), 422)
    assert found(tenant.get("/v1/anomalies/rules"))["count"] == 1


def test_who_may_change_rules_and_who_may_see_them(tenant: Tenant) -> None:
    admin, auditor = tenant.mint("admin:write"), tenant.mint("audit:read")
    agent = tenant.mint("payments:write", "sessions:write")
    body = {"type": "unusual_tool"}
    for wrong in (auditor, agent):
        refusal(tenant.post("/v1/anomalies/rules", body, key=wrong), 403)
        refusal(tenant.delete("/v1/anomalies/rules/1", key=wrong), 403)
    created(tenant.post("/v1/anomalies/rules", body, key=admin))
    for path in ("/v1/anomalies", "/v1/anomalies/rules"):
        found(tenant.get(path, key=auditor))
        refusal(tenant.get(path, key=agent), 403)


# -- What they find ----------------------------------------------------------------------------------


def test_flags_are_told_at_once_and_everywhere(tenant: Tenant) -> None:
    session = tenant.open_session(agent_id="bot")
    assert log(tenant, session, cost=500) | {"entry_id": ""} == {
        "logged": True, "entry_id": "", "flagged": False, "flag_reason": "",
    }
    rule = add(tenant, type="spend_per_action", threshold=100)
    blocked = add(tenant, type="tool_blocked", tools=["shell"], reason="no shells")
    plain = log(tenant, session, cost=100)
    flagged = log(tenant, session, "shell", 100.5)
    assert not plain["flagged"] and plain["flag_reason"] == ""
    assert flagged["flagged"] and flagged["flag_reason"] == "spend_per_action exceeded 100.0"

    client = tenant.client()
    trail = client.get_audit_trail(flagged_only=True)
    assert [entry["entry_id"] for entry in trail["entries"]] == [flagged["entry_id"]]
    assert trail["entries"][0]["flag_reason"] == flagged["flag_reason"]
    assert client.get_audit_trail()["count"] == 3

    newest, oldest = anomalies(tenant)
    subject = trail["entries"][0]["seq"]
    for anomaly, rule_id, reason in ((oldest, rule, flagged["flag_reason"]), (newest, blocked, "no shells")):
        assert (anomaly["rule_id"], anomaly["reason"]) == (rule_id, reason)
        assert (anomaly["subject_seq"], anomaly["evidence"]) == (subject, [subject])
        assert (anomaly["agent_id"], anomaly["session_id"]) == ("bot", session)
        assert (anomaly["tool"], anomaly["action"], anomaly["amount_usd"]) == ("shell", "run", 100.5)
        assert anomaly["entry_id"] == flagged["entry_id"]

    for form in ("jsonl", "csv"):
        text = tenant.get(f"/v1/audit/export?flagged=true&format={form}").text
        assert flagged["entry_id"] in text and plain["entry_id"] not in text
    manifest = found(tenant.get("/v1/audit/export/manifest?flagged=true"))
    assert manifest["count"] == 1 and manifest["filters"] == {"flagged_only": True}

    events = found(tenant.get("/v1/ledger/events?flagged=true"))
    assert [event["kind"] for event in events["events"]] == ["action.logged", "anomaly.detected", "anomaly.detected"]
    assert [event["seq"] for event in events["events"]] == [subject, subject + 1, subject + 2]
    first = found(tenant.get("/v1/ledger/events?flagged=true&limit=1"))
    assert first["count"] == 1 and first["next_after"] == subject
    rest = found(tenant.get(f"/v1/ledger/events?flagged=true&after={subject}"))
    assert rest["count"] == 2 and rest["next_after"] == rest["stream_size"] - 1

    lines = tenant.get("/v1/ledger/export?format=ocsf").text.splitlines()
    severities = {json.loads(line)["metadata"]["event_code"]: json.loads(line)["severity"] for line in lines}
    assert severities["action.logged"] == severities["anomaly.detected"] == "Medium"


def test_the_journey_of_webhook_alerts(tenant: Tenant) -> None:
    add(tenant, type="tool_blocked", threshold="shell")
    add(tenant, type="repeated_denials", threshold=2)
    session = tenant.open_session(agent_id="bot", spend_limit=10, scopes=["spend"])
    for _ in range(5):
        assert not log(tenant, session, "openai", 0.5)["flagged"]
    answers = [tenant.post("/v1/payments/authorize", {"session_id": session, "amount": 3}) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 3 + [403] * 3
    assert log(tenant, session, "shell")["flagged"]
    trail = found(tenant.get("/v1/audit?flagged=true"))
    assert [entry["tool"] for entry in trail["entries"]] == ["shell"]

    denials = anomalies(tenant, "?rule_id=2")
    assert [anomaly["action"] for anomaly in denials] == ["payment.denied", "payment.denied"]
    assert [len(anomaly["evidence"]) for anomaly in denials] == [3, 2]
    assert all(anomaly["amount_usd"] == 3.0 and anomaly["entry_id"] == "" for anomaly in denials)


def test_webhooks_hear_of_flags_and_of_what_was_found(start_server: Callable[..., Server]) -> None:
    tenant = start_server(options=["--allow-private-outbound"]).found_tenant()
    with Receiver() as receiver:
        created(tenant.post("/v1/webhooks", {"url": receiver.url, "events": ["anomaly", "flagged"]}))
        rule = add(tenant, type="tool_blocked", threshold="shell")
        session = tenant.open_session(agent_id="bot")
        entry = log(tenant, session, "shell", 0.25)
        told = {delivery.event: delivery.json() for delivery in receiver.wait_for(2)}
    anomaly = told["anomaly"]
    assert anomaly | {"event": "anomaly", "agent_id": "bot", "tool": "shell", "action": "run"} == anomaly
    assert (anomaly["cost_usd"], anomaly["reason"], anomaly["rule_id"]) == (0.25, entry["flag_reason"], rule)
    assert anomaly["evidence"] == [anomaly["subject_seq"]]
    assert told["flagged"]["entry_id"] == entry["entry_id"]


def test_an_agent_is_held_against_its_own_history_across_restarts(start_server: Callable[..., Server]) -> None:
    server = start_server()
    tenant = server.found_tenant()
    add(tenant, type="spend_spike", threshold=3, min_samples=4)
    add(tenant, type="unusual_tool", min_samples=4)
    one, other = (tenant.open_session(agent_id=agent) for agent in ("one", "other"))
    for _ in range(4):
        log(tenant, one, cost=1)
    assert not log(tenant, other, "shell", 100)["flagged"], "somebody else's habits are not one's own"
    server.restart()
    assert not log(tenant, one, cost=3)["flagged"]
    spike = log(tenant, one, "shell", 30)
    assert spike["flag_reason"] == "spend_spike exceeded 3.0 times the average"
    newest = anomalies(tenant, "?agent_id=one")
    assert [anomaly["type"] for anomaly in newest] == ["unusual_tool", "spend_spike"]
    assert newest[0]["reason"] == "unusual_tool: first use of shell"
    assert len(newest[1]["evidence"]) == 6


def test_findings_are_listed_by_what_they_are_about(tenant: Tenant) -> None:
    first = add(tenant, type="spend_per_action", threshold=1)
    add(tenant, type="spend_per_action", threshold=2)
    sessions = {agent: tenant.open_session(agent_id=agent) for agent in ("a", "b")}
    for cost in (1.5, 2.5):
        for session in sessions.values():
            log(tenant, session, cost=cost)
    everything = anomalies(tenant)
    assert len(everything) == 6
    assert [anomaly["seq"] for anomaly in everything] == sorted((a["seq"] for a in everything), reverse=True)

    of_a = [anomaly for anomaly in everything if anomaly["agent_id"] == "a"]
    of_first = [anomaly for anomaly in everything if anomaly["rule_id"] == first]
    assert anomalies(tenant, "?agent_id=a") == of_a and len(of_a) == 3
    assert anomalies(tenant, f"?rule_id={first}") == of_first and len(of_first) == 4
    assert anomalies(tenant, f"?agent_id=a&rule_id={first}") == [it for it in of_a if it in of_first]
    assert anomalies(tenant, "?limit=2") == everything[:2] and anomalies(tenant, "?limit=0") == []
    middle = everything[3]["timestamp"]
    assert anomalies(tenant, f"?since={middle}") == everything[:4]
    assert anomalies(tenant, f"?until={middle}") == everything[4:]
    assert anomalies(tenant, f"?as_of=seq:{everything[3]['seq']}") == everything[3:]
    assert anomalies(tenant, "?agent_id=nobody") == [] and anomalies(tenant, "?rule_id=99") == []
    for wrong in ("rule_id=x", "since=yesterday", "until=x", "limit=1001", "limit=-1", "as_of=x"):
        refusal(tenant.get(f"/v1/anomalies?{wrong}"), 400)

    found(tenant.delete(f"/v1/anomalies/rules/{first}"))
    assert anomalies(tenant, f"?rule_id={first}") == of_first, "what it found stays"
    before = found(tenant.get(f"/v1/anomalies/rules?as_of=seq:{everything[0]['seq']}"))
    assert before["count"] == 2 and found(tenant.get("/v1/anomalies/rules"))["count"] == 1


def test_tenants_have_rules_and_findings_of_their_own(tenant: Tenant, stranger: Tenant) -> None:
    add(tenant, type="tool_blocked", threshold="shell")
    add(tenant, type="actions_per_minute", threshold=1)
    mine, theirs = (it.open_session(agent_id="bot") for it in (tenant, stranger))
    for _ in range(3):
        assert not log(stranger, theirs, "shell")["flagged"]
    assert not log(tenant, mine)["flagged"], "a stranger's actions do not count"
    assert log(tenant, mine)["flag_reason"] == "actions_per_minute exceeded 1"
    assert anomalies(stranger) == [] and found(stranger.get("/v1/anomalies/rules"))["count"] == 0
    refusal(stranger.delete("/v1/anomalies/rules/1"), 404)


def test_what_was_found_survives_a_kill(start_server: Callable[..., Server]) -> None:
    server = start_server()
    tenant = server.found_tenant()
    add(tenant, type="velocity", threshold=2, window="1h")
    session = tenant.open_session(agent_id="bot")
    flags = [log(tenant, session)["flagged"] for _ in range(4)]
    assert flags == [False, False, True, True]
    before = anomalies(tenant)
    server.kill()
    server.start()
    assert anomalies(tenant) == before
    assert log(tenant, session)["flagged"]
    assert len(anomalies(tenant)[0]["evidence"]) == 5


def test_flagged_events_are_followed(tenant: Tenant) -> None:
    add(tenant, type="tool_blocked", threshold="shell")
    session = tenant.open_session(agent_id="bot")
    headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {tenant.key}"}
    url = tenant.server.base_url + "/v1/ledger/events?flagged=true"
    with httpx.stream("GET", url, headers=headers, timeout=20) as stream:
        log(tenant, session)
        log(tenant, session, "shell")
        kinds = []
        deadline = time.monotonic() + 20
        for line in stream.iter_lines():
            if line.startswith("event: "):
                kinds.append(line.removeprefix("event: "))
            if len(kinds) == 2 or time.monotonic() > deadline:
                break
    assert kinds == ["action.logged", "anomaly.detected"]


# -- The command line --------------------------------------------------------------------------------


def test_the_command_line(server: Server, tenant: Tenant) -> None:
    def haldir(*arguments: str) -> Any:
        return server.run("--url", server.base_url, "--key", tenant.key, *arguments)

    done = haldir("anomalies", "add-rule", "--type", "tool_blocked", "--tool", "shell", "--tool", "rm")
    assert done.returncode == 0 and done.stdout.strip() == "rule 1 added: tool_blocked  tools shell, rm"
    done = haldir("anomalies", "add-rule", "--type", "velocity", "--threshold", "9", "--window", "5m", "--json")
    assert json.loads(done.stdout)["rule"]["window"] == 300
    rules = haldir("anomalies", "rules").stdout
    assert "tool_blocked" in rules and "window (s) 300" in rules
    assert json.loads(haldir("anomalies", "rules", "--json").stdout)["count"] == 2

    session = tenant.open_session(agent_id="bot")
    entry = log(tenant, session, "shell")
    plain = log(tenant, session)
    assert "shell:run" in haldir("anomalies", "list").stdout
    assert json.loads(haldir("anomalies", "list", "--agent", "bot", "--json").stdout)["count"] == 1
    assert haldir("anomalies", "list", "--agent", "nobody").stdout == ""
    exported = haldir("audit", "export", "--format", "jsonl", "--flagged").stdout
    assert entry["entry_id"] in exported and plain["entry_id"] not in exported
    refused = haldir("audit", "export", "--flagged")
    assert refused.returncode == 2 and "jsonl" in refused.stderr

    assert haldir("anomalies", "remove-rule", "2").stdout == "rule 2 removed\n"
    gone = haldir("anomalies", "remove-rule", "2")
    assert gone.returncode == 2 and "not found" in gone.stderr
    unknown = haldir("anomalies", "add-rule", "--type", "vibes")
    assert unknown.returncode == 2 and "spend_spike" in unknown.stderr
