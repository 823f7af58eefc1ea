"""Webhooks, with a real receiver that answers, fails, hangs, hangs up, drips and comes back.

What is told is checked with the published client's own function, and with another implementation
of Standard Webhooks where it is installed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from haldir import WebhookVerificationError, verify_webhook_signature

from harness import Server, Tenant, at_once, created, found, refusal, short
from receiver import Delivery, Receiver, Reply, always

StartServer = Callable[..., Server]

# Pauses as short as a test can wait for.
PRIVATE = ["--allow-private-outbound"]
BRIEF = [*PRIVATE, "--webhook-pauses", "100ms,200ms,400ms"]
# Long enough that nothing is given up while a test runs.
PATIENT = [*PRIVATE, "--webhook-pauses", ",".join(["100ms"] * 5 + ["500ms"] * 200)]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as it:
        yield it


@pytest.fixture
def telling(start_server: StartServer) -> Tenant:
    """A tenant whose server may reach receivers on this machine."""
    return start_server(options=BRIEF).found_tenant()


def register(tenant: Tenant, receiver: Receiver, *events: str, **fields: Any) -> dict[str, Any]:
    asked = {"url": receiver.url, "events": list(events) or ["all"], **fields}
    return created(tenant.post("/v1/webhooks", asked))


def revoke_one(tenant: Tenant) -> str:
    """Makes something happen that is told of."""
    session_id = tenant.open_session()
    assert tenant.delete(f"/v1/sessions/{session_id}").status_code == 200
    return session_id


def send_test(tenant: Tenant, webhook_id: int) -> str:
    answer = tenant.post(f"/v1/webhooks/{webhook_id}/test")
    assert answer.status_code == 202, answer.text
    return answer.json()["event_id"]


def rows(tenant: Tenant, **params: Any) -> list[dict[str, Any]]:
    return found(tenant.get("/v1/webhooks/deliveries", params={"limit": 500, **params}))["deliveries"]


def hook(tenant: Tenant, webhook_id: int = 1) -> dict[str, Any]:
    listed = found(tenant.get("/v1/webhooks"))["webhooks"]
    return next(row for row in listed if row["webhook_id"] == webhook_id)


def until(condition: Callable[[], bool], what: str, *, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


def verify(delivery: Delivery, *secrets: str) -> None:
    signature, timestamp = delivery.headers["x-haldir-signature"], delivery.headers["x-haldir-timestamp"]
    verify_webhook_signature(delivery.body, signature, timestamp, list(secrets))


# -- What is told ---------------------------------------------------------------------------------


def test_a_budget_that_is_exhausted_is_told_as_the_contract_says(telling: Tenant, receiver: Receiver) -> None:
    registered = register(telling, receiver, "budget_exhausted", name="spend")
    assert set(registered) >= {"registered", "webhook_id", "url", "events", "secret", "message"}
    assert registered["registered"] is True and registered["webhook_id"] == 1
    assert registered["url"] == receiver.url and registered["events"] == ["budget_exhausted"]
    assert len(registered["secret"]) == 43
    session_id = telling.open_session(agent_id="spender", scopes=["spend"], spend_limit=10)
    for amount in (3, 3, 3, 3):
        telling.post("/v1/payments/authorize", {"session_id": session_id, "amount": amount})

    [delivery] = receiver.wait_for(1)
    assert delivery.headers["content-type"] == "application/json"
    assert delivery.headers["user-agent"].startswith("Haldir/")
    assert delivery.event == "budget_exhausted" and delivery.attempt == 1
    body = delivery.json()
    assert body["event"] == "budget_exhausted" and body["source"] == "haldir"
    assert body["event_id"] == delivery.event_id and len(delivery.event_id) == 32
    assert (body["session_id"], body["agent_id"], body["spent"], body["limit"]) == (session_id, "spender", 9.0, 10.0)
    assert isinstance(body["timestamp"], float) and abs(body["timestamp"] - time.time()) < 60
    verify(delivery, registered["secret"])
    for other in ("", "x" * 43, registered["secret"][:-1]):
        with pytest.raises(WebhookVerificationError):
            verify(delivery, other)
    until(lambda: hook(telling)["fire_count"] == 1, "the delivery is recorded")


def test_a_revoked_session_is_told_with_its_agent(telling: Tenant, receiver: Receiver) -> None:
    register(telling, receiver, "session_revoked")
    session_id = revoke_one(telling)
    [delivery] = receiver.wait_for(1)
    body = delivery.json()
    assert (body["event"], body["session_id"], body["agent_id"]) == ("session_revoked", session_id, "agent")


def test_every_event_of_the_contract_is_really_fired(start_server: StartServer, receiver: Receiver) -> None:
    scheduler = ["--compliance-scheduler", "--compliance-interval", "100ms"]
    tenant = start_server(options=[*BRIEF, *scheduler]).found_tenant()
    registered = register(tenant, receiver)
    session_id = tenant.open_session(agent_id="buyer", scopes=["spend", "shell"], spend_limit=10)
    created(tenant.post("/v1/anomalies/rules", {"type": "tool_blocked", "threshold": "shell", "reason": "no shell"}))
    action = {"session_id": session_id, "tool": "shell", "action": "rm -rf", "cost_usd": 0.25}
    entry_id = created(tenant.post("/v1/audit", action))["entry_id"]
    created(tenant.post("/v1/approvals/rules", {"type": "spend_over", "threshold": 5}))
    asked = {"session_id": session_id, "tool": "shop", "action": "buy", "amount": 7.5, "reason": "a desk"}
    request_id = created(tenant.post("/v1/approvals/request", asked))["request_id"]
    found(tenant.post(f"/v1/approvals/{request_id}/approve", {"decided_by": "ann", "note": "fine"}))
    tenant.post("/v1/payments/authorize", {"session_id": session_id, "amount": 99})
    schedule = {"name": "grc", "cadence": "daily", "delivery": "webhook:1"}
    created(tenant.post("/v1/compliance/schedules", schedule))
    assert tenant.delete(f"/v1/sessions/{session_id}").status_code == 200
    send_test(tenant, 1)

    names = {
        "anomaly", "flagged", "approval_requested", "approval_decided", "budget_exhausted", "session_revoked",
        "compliance.evidence_pack", "test",
    }  # fmt: skip
    until(lambda: {it.event for it in receiver.deliveries} >= names, "each was told")
    told_of = {it.event: it.json() for it in receiver.deliveries}
    assert set(told_of) == names
    for delivery in receiver.deliveries:
        verify(delivery, registered["secret"])
        assert delivery.json() | {"event": delivery.event, "source": "haldir"} == delivery.json()

    def says(event: str, **fields: Any) -> None:
        assert {name: told_of[event][name] for name in fields} == fields, told_of[event]

    acted = {"agent_id": "buyer", "session_id": session_id}
    says("anomaly", **acted, tool="shell", action="rm -rf", reason="no shell", cost_usd=0.25)
    says("flagged", **acted, entry_id=entry_id, tool="shell", action="rm -rf", reason="no shell", cost_usd=0.25)
    request = {**acted, "request_id": request_id, "tool": "shop", "action": "buy", "amount": 7.5}
    says("approval_requested", **request, reason="a desk")
    assert told_of["approval_requested"]["approve_url"] != told_of["approval_requested"]["deny_url"]
    says("approval_decided", **request, status="approved", decided_by="ann", decision_note="fine")
    says("budget_exhausted", **acted, spent=0.0, limit=10.0, amount=99.0)
    says("session_revoked", **acted, descendants=[])
    says("compliance.evidence_pack", schedule_name="grc", cadence="daily")
    assert told_of["compliance.evidence_pack"]["pack"]["tenant_id"] == tenant.id


def test_a_hook_hears_what_it_asked_for_and_nothing_from_before(telling: Tenant) -> None:
    revoke_one(telling)
    with Receiver() as everything, Receiver() as flags, Receiver() as revocations:
        register(telling, everything)
        register(telling, flags, "flagged", "budget_exhausted")
        register(telling, revocations, "nonsense", "session_revoked")
        revoke_one(telling)
        test_id = send_test(telling, 1)
        assert [it.event for it in everything.wait_for(2)] == ["session_revoked", "test"]
        assert everything.deliveries[1].event_id == test_id
        revocations.wait_for(1)
        time.sleep(0.3)
        assert not flags.deliveries and len(revocations.deliveries) == 1
        assert everything.deliveries[0].body == revocations.deliveries[0].body, "all receivers get the same bytes"


def test_other_tenants_hear_nothing(start_server: StartServer, receiver: Receiver) -> None:
    server = start_server(options=BRIEF)
    tenant, stranger = server.found_tenant(), server.found_tenant()
    register(tenant, receiver)
    revoke_one(stranger)
    revoke_one(tenant)
    receiver.wait_for(1)
    time.sleep(0.3)
    assert len(receiver.deliveries) == 1
    assert found(stranger.get("/v1/webhooks")) == {"webhooks": []} and rows(stranger) == []
    event_id = receiver.deliveries[0].event_id
    assert rows(stranger, event_id=event_id) == []
    for answer in (
        stranger.delete("/v1/webhooks/1"),
        stranger.post("/v1/webhooks/1/rotate-secret"),
        stranger.post("/v1/webhooks/1/test"),
        stranger.post(f"/v1/webhooks/deliveries/{event_id}/redeliver"),
    ):
        refusal(answer, 404, "not_found")


# -- Signatures -----------------------------------------------------------------------------------


def test_the_published_vector_holds_for_the_published_client() -> None:
    signature = "sha256=e6bad31e361847abfecfd5ed6bb7a21d85ca8f4bc199f70391137b65c822165a"
    body = b'{"event":"anomaly","agent_id":"bot-1"}'
    verify_webhook_signature(body, signature, "1700000000", "my-shared-secret", now=1_700_000_000)


def test_during_a_rotation_both_secrets_can_check_and_afterwards_the_new_one_only(
    telling: Tenant, receiver: Receiver
) -> None:
    first = register(telling, receiver)
    answer = found(telling.post("/v1/webhooks/1/rotate-secret", params={"grace_seconds": 3600}))
    assert set(answer) >= {"webhook_id", "secret", "secret_prev", "secret_prev_expires_at", "grace_seconds", "message"}
    assert answer["secret_prev"] == first["secret"] and answer["secret"] != first["secret"]
    assert answer["grace_seconds"] == 3600
    assert abs(answer["secret_prev_expires_at"] - time.time() - 3600) < 60
    send_test(telling, 1)
    [delivery] = receiver.wait_for(1)
    verify(delivery, answer["secret"])
    verify(delivery, first["secret"], answer["secret"])
    with pytest.raises(WebhookVerificationError):
        verify(delivery, first["secret"])
    signatures = delivery.headers["webhook-signature"].split(" ")
    assert signatures == [standard_signature(delivery, it) for it in (answer, first)]
    assert hook(telling)["secret_prev_expires_at"] == answer["secret_prev_expires_at"]


def standard_signature(delivery: Delivery, shown: dict[str, Any]) -> str:
    """What standardwebhooks.com says, written down once more."""
    key = base64.b64decode(shown["secret_standard"].removeprefix("whsec_"))
    begin = f"{delivery.headers['webhook-id']}.{delivery.headers['webhook-timestamp']}."
    return "v1," + base64.b64encode(hmac.digest(key, begin.encode() + delivery.body, "sha256")).decode()


def test_a_library_of_standard_webhooks_accepts_what_we_send(telling: Tenant, receiver: Receiver) -> None:
    standardwebhooks = pytest.importorskip("standardwebhooks")
    registered = register(telling, receiver)
    rotated = found(telling.post("/v1/webhooks/1/rotate-secret"))
    send_test(telling, 1)
    [delivery] = receiver.wait_for(1)
    for shown in (registered, rotated):
        checker = standardwebhooks.Webhook(shown["secret_standard"])
        assert checker.verify(delivery.body, delivery.headers)["event"] == "test"
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        checker.verify(delivery.body + b" ", delivery.headers)


@pytest.mark.parametrize(("asked", "given"), [("1", 60), ("-5", 60), ("60", 60), ("999999999", 604_800), (None, 86_400)])
def test_the_overlap_is_brought_into_its_range(telling: Tenant, receiver: Receiver, asked: str, given: int) -> None:
    register(telling, receiver)
    params = {} if asked is None else {"grace_seconds": asked}
    answer = found(telling.post("/v1/webhooks/1/rotate-secret", {"ignored": "body"}, params=params))
    assert answer["grace_seconds"] == given


def test_a_registration_that_is_retried_shows_the_same_secret(telling: Tenant, receiver: Receiver) -> None:
    asked = {"url": receiver.url, "name": "once"}
    headers = {"Idempotency-Key": "register-once"}
    answers = at_once(6, lambda _: telling.post("/v1/webhooks", asked, headers=headers))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    refusal(telling.post("/v1/webhooks", {**asked, "name": "twice"}, headers=headers), 422)
    assert len(found(telling.get("/v1/webhooks"))["webhooks"]) == 1


def test_no_secret_is_on_record_in_a_log_or_in_a_list(telling: Tenant, receiver: Receiver) -> None:
    shown = [register(telling, receiver), found(telling.post("/v1/webhooks/1/rotate-secret"))]
    send_test(telling, 1)
    receiver.wait_for(1)
    secrets = {answer[name].encode() for answer in shown for name in ("secret", "secret_standard")}
    secrets |= {base64.b64decode(answer["secret_standard"].removeprefix("whsec_")) for answer in shown}
    assert not any(secret in telling.get("/v1/webhooks").content for secret in secrets)
    telling.server.stop()
    for path in telling.server.directory.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret in content for secret in secrets), path
    telling.server.start()


# -- Failing receivers ----------------------------------------------------------------------------


def test_a_receiver_that_fails_is_tried_again_with_the_same_bytes(telling: Tenant, receiver: Receiver) -> None:
    registered = register(telling, receiver)
    receiver.behave = lambda it: Reply(200 if it.attempt == 3 else 503, b"busy")
    event_id = send_test(telling, 1)
    deliveries = receiver.wait_for(3)
    assert [it.attempt for it in deliveries] == [1, 2, 3]
    assert {it.event_id for it in deliveries} == {event_id} and len({it.body for it in deliveries}) == 1
    for delivery in deliveries:
        verify(delivery, registered["secret"])
    until(lambda: hook(telling)["fire_count"] == 1, "the last attempt is recorded")
    newest_first = rows(telling)
    assert [row["attempt"] for row in newest_first] == [3, 2, 1]
    assert [row["status"] for row in newest_first] == ["delivered", "will_retry", "will_retry"]
    assert [row["status_code"] for row in newest_first] == [200, 503, 503]
    for row in newest_first:
        assert set(row) >= {
            "delivery_id", "event_id", "webhook_url", "event_type", "attempt", "status_code", "response_excerpt",
            "error", "duration_ms", "created_at",
        }  # fmt: skip
        assert (row["event_id"], row["webhook_url"], row["event_type"]) == (event_id, receiver.url, "test")
        assert row["response_excerpt"] == "busy"
    assert len({row["delivery_id"] for row in newest_first}) == 3
    assert hook(telling)["fail_count"] == 0
    pauses = [later.at - earlier.at for earlier, later in zip(deliveries, deliveries[1:], strict=False)]
    assert pauses[0] >= 0.1 and pauses[1] >= 0.2


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410, 422])
def test_an_answer_that_will_not_change_is_final(telling: Tenant, receiver: Receiver, status: int) -> None:
    register(telling, receiver)
    receiver.behave = always(status, headers={"Location": receiver.url.replace("/hook", "/elsewhere")})
    send_test(telling, 1)
    receiver.wait_for(1)
    until(lambda: hook(telling)["fail_count"] == 1, "it is given up")
    time.sleep(0.5)
    assert [it.path for it in receiver.deliveries] == ["/hook"], "neither tried again nor followed"
    assert [row["status"] for row in rows(telling)] == ["dead"]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 599])
def test_an_answer_that_may_change_is_asked_for_again(telling: Tenant, receiver: Receiver, status: int) -> None:
    register(telling, receiver)
    receiver.behave = lambda it: Reply(status if it.attempt == 1 else 204)
    send_test(telling, 1)
    assert [it.attempt for it in receiver.wait_for(2)] == [1, 2]


def test_a_receiver_that_hangs_up_or_is_not_there_is_tried_until_it_is(
    start_server: StartServer, receiver: Receiver
) -> None:
    tenant = start_server(options=PATIENT).found_tenant()
    register(tenant, receiver)
    receiver.behave = always(200, hangs_up=True)
    first = send_test(tenant, 1)
    receiver.wait_for(2)
    receiver.stop()
    second = send_test(tenant, 1)
    until(lambda: any(row["error"] == "connection_failed" for row in rows(tenant)), "a connection is refused")
    receiver.behave = always(200)
    receiver.start()
    receiver.wait_for_events({first, second})
    until(lambda: hook(tenant)["fire_count"] == 2, "both are recorded")
    assert {row["error"] for row in rows(tenant, status="will_retry")} == {"connection_broken", "connection_failed"}
    assert hook(tenant)["pending"] == 0


def test_a_receiver_that_hangs_is_left_after_ten_seconds(telling: Tenant, receiver: Receiver) -> None:
    register(telling, receiver)
    receiver.behave = lambda it: Reply(200, wait_s=30 if it.attempt == 1 else 0)
    send_test(telling, 1)
    first, second = receiver.wait_for(2)
    assert 9.5 < second.at - first.at < 15
    until(lambda: len(rows(telling)) == 2, "both attempts are recorded")
    assert rows(telling)[1]["error"] == "timeout" and rows(telling)[1]["status_code"] == 0
    assert 9_500 < rows(telling)[1]["duration_ms"] < 12_000


def test_of_a_long_or_slow_answer_only_the_beginning_is_kept(telling: Tenant, receiver: Receiver) -> None:
    register(telling, receiver)
    receiver.behave = always(200, body=b"x" * 10_000)
    send_test(telling, 1)
    until(lambda: len(rows(telling)) == 1, "it is recorded")
    assert rows(telling)[0]["response_excerpt"] == "x" * 512
    receiver.behave = always(200, body="é".encode() * 300, drip_s=0.1)
    event_id = send_test(telling, 1)
    until(lambda: len(rows(telling)) == 2, "the slow one is recorded")
    slow = rows(telling, event_id=event_id)[0]
    assert slow["status"] == "delivered" and slow["response_excerpt"].startswith("é" * 20)
    assert slow["duration_ms"] < 12_000


def test_a_dead_or_slow_receiver_does_not_delay_another_one(start_server: StartServer) -> None:
    tenant = start_server(options=PATIENT).found_tenant()
    with Receiver() as good, Receiver(always(200, wait_s=30)) as slow, Receiver() as dead:
        for receiver in (slow, dead, good):
            register(tenant, receiver, "session_revoked")
        dead.stop()
        started: dict[str, float] = {}
        for _ in range(40):
            sent_at = time.monotonic()
            started[revoke_one(tenant)] = sent_at
        deliveries = good.wait_for(40)
        lateness = sorted(it.at - started[it.json()["session_id"]] for it in deliveries)
        assert lateness[20] < 1 and lateness[-1] < 5, lateness
        # The ledger is not delayed either.
        before = time.monotonic()
        revoke_one(tenant)
        assert time.monotonic() - before < 5
        until(lambda: hook(tenant, 3)["pending"] == 0, "the good one is told of everything")
        assert hook(tenant, 1)["pending"] >= 40 and hook(tenant, 2)["pending"] >= 40
        for webhook_id in (1, 2):  # so that the server can stop at once
            assert tenant.delete(f"/v1/webhooks/{webhook_id}").status_code == 200


# -- Dead letters ---------------------------------------------------------------------------------


def test_what_was_given_up_is_listed_and_can_be_delivered_again(telling: Tenant) -> None:
    with Receiver(always(500, body=b"broken")) as first, Receiver(always(410)) as second:
        register(telling, first)
        register(telling, second)
        session_id = revoke_one(telling)
        until(lambda: hook(telling, 1)["fail_count"] == hook(telling, 2)["fail_count"] == 1, "both are given up")
        assert len(first.deliveries) == 4, "the first attempt, and one after each pause"
        listed = found(telling.get("/v1/webhooks/dead-letters"))
        assert listed["count"] == 2
        assert [(it["webhook_id"], it["attempts"], it["status_code"]) for it in listed["dead_letters"]] == [
            (1, 4, 500),
            (2, 1, 410),
        ]
        [event_id] = {it["event_id"] for it in listed["dead_letters"]}
        assert found(telling.get("/v1/webhooks/dead-letters", params={"webhook_id": 2}))["count"] == 1
        first.behave = second.behave = always(200)

        answer = telling.post(f"/v1/webhooks/deliveries/{event_id}/redeliver", params={"webhook_id": 2})
        assert answer.status_code == 202 and answer.json()["webhook_ids"] == [2]
        again = second.wait_for(2)[1]
        assert (again.event_id, again.attempt, again.json()["session_id"]) == (event_id, 2, session_id)
        assert again.body == second.deliveries[0].body

        answer = telling.post(f"/v1/webhooks/deliveries/{event_id}/redeliver")
        assert answer.status_code == 202 and answer.json()["webhook_ids"] == [1]
        assert first.wait_for(5)[4].attempt == 5
        until(lambda: hook(telling, 1)["fire_count"] == hook(telling, 2)["fire_count"] == 1, "both are recorded")
        assert found(telling.get("/v1/webhooks/dead-letters")) == {"count": 0, "dead_letters": []}
        refusal(telling.post(f"/v1/webhooks/deliveries/{event_id}/redeliver"), 404, "not_found")
        as_it_was = found(telling.get("/v1/webhooks/dead-letters", params={"as_of": f"seq:{dead_at(telling)}"}))
        assert as_it_was["count"] == 2


def dead_at(tenant: Tenant) -> int:
    """Where the stream was when the last delivery had been given up, and none was put back."""
    return next(entry.seq for entry in tenant.ledger() if entry.kind == "webhook.redelivered") - 1


def test_deliveries_are_filtered_and_limited(telling: Tenant, receiver: Receiver) -> None:
    register(telling, receiver)
    register(telling, receiver, "flagged")
    receiver.behave = lambda it: Reply(410 if len(receiver.deliveries) == 1 else 200)
    ids = [send_test(telling, 1)]
    receiver.wait_for(1)
    ids += [send_test(telling, 1), send_test(telling, 2)]
    until(lambda: len(rows(telling)) == 3, "all are recorded")
    assert sorted(row["event_id"] for row in rows(telling)) == sorted(ids)
    assert [row["event_id"] for row in rows(telling, status="dead")] == ids[:1]
    assert [row["event_id"] for row in rows(telling, webhook_id=2)] == ids[2:]
    assert rows(telling, webhook_id=2, status="dead") == [] and len(rows(telling, webhook_id=1, status="dead")) == 1
    assert [row["event_id"] for row in rows(telling, event_id=ids[1])] == ids[1:2]
    assert rows(telling, event_id="0" * 32) == rows(telling, event_id="nonsense") == []
    assert len(rows(telling, limit=2)) == 2 and len(rows(telling, limit=0)) == 1
    for params in ({"limit": "x"}, {"status": "good"}, {"webhook_id": "x"}, {"limit": "1.5"}):
        refusal(telling.get("/v1/webhooks/deliveries", params=params), 400)
    refusal(telling.post("/v1/webhooks/1/rotate-secret", params={"grace_seconds": "x"}), 400)


def test_a_removed_webhook_hears_nothing_more(telling: Tenant, receiver: Receiver) -> None:
    register(telling, receiver)
    receiver.behave = always(500)
    send_test(telling, 1)
    until(lambda: len(rows(telling)) > 0, "an attempt is recorded")
    assert found(telling.delete("/v1/webhooks/1")) == {"deleted": True, "webhook_id": 1}
    refusal(telling.delete("/v1/webhooks/1"), 404, "not_found")
    seen = len(receiver.deliveries)
    revoke_one(telling)
    time.sleep(1)
    assert len(receiver.deliveries) <= seen + 1, "only what was under way"
    assert found(telling.get("/v1/webhooks")) == {"webhooks": []}
    refusal(telling.post("/v1/webhooks/1/test"), 404, "not_found")
    assert rows(telling)[0]["webhook_url"] == receiver.url, "what was sent stays on record"
    assert register(telling, receiver)["webhook_id"] == 2


# -- Crashes --------------------------------------------------------------------------------------


def test_a_server_killed_in_a_storm_of_deliveries_loses_none(start_server: StartServer) -> None:
    server = start_server(options=PATIENT)
    tenant = server.found_tenant()
    count = {"asked": 0}

    def flaky(_: Delivery) -> Reply:
        count["asked"] += 1
        if count["asked"] % 5 == 0:
            return Reply(503)
        if count["asked"] % 7 == 0:
            return Reply(200, hangs_up=True)
        return Reply(200, wait_s=0.005)

    with Receiver(flaky) as receiver:
        registered = register(tenant, receiver, "session_revoked")
        revoked: set[str] = set()
        for burst in range(3):
            revoked.update(at_once(8, lambda _: [revoke_one(tenant) for _ in range(10)][0]))
            receiver.wait_for(20 * (burst + 1))
            server.kill()
            server.start()
        all_revoked = {session_of(it) for it in told(tenant)}
        assert len(all_revoked) == 240 and revoked <= all_revoked
        receiver.wait_for_events({it["event_id"] for it in told(tenant)})
        until(lambda: hook(tenant)["pending"] == 0, "everything is recorded")
        assert hook(tenant)["fire_count"] == 240 and hook(tenant)["fail_count"] == 0
        ids_by_session: dict[str, set[str]] = {}
        bodies: dict[str, set[bytes]] = {}
        for delivery in receiver.deliveries:
            ids_by_session.setdefault(delivery.json()["session_id"], set()).add(delivery.event_id)
            bodies.setdefault(delivery.event_id, set()).add(delivery.body)
            verify(delivery, registered["secret"])
        assert set(ids_by_session) == all_revoked
        assert all(len(ids) == 1 for ids in ids_by_session.values()), "ids are stable over restarts"
        assert all(len(same) == 1 for same in bodies.values()), "so are bodies"


def told(tenant: Tenant) -> list[dict[str, str]]:
    """Every revocation on record, with the id under which receivers know it."""
    lines = [json.loads(line) for line in tenant.get("/v1/ledger/export").text.splitlines()]
    revocations = [line for line in lines if line.get("kind") == "session.revoked"]
    return [{"session_id": it["event"]["session_id"], "event_id": event_id(tenant.id, it["seq"])} for it in revocations]


def session_of(it: dict[str, str]) -> str:
    return it["session_id"]


def event_id(tenant: str, seq: int) -> str:
    """Section 5 of ledger-format.md, written down once more."""
    from blake3 import blake3

    def begin(context: str, rest: bytes) -> bytes:
        return blake3(tenant.encode() + rest, derive_key_context=context).digest()[:8]

    tag = begin("haldir webhook event id v1 tag", seq.to_bytes(8, "big"))
    mask = begin("haldir webhook event id v1 mask", tag)
    return (seq ^ int.from_bytes(mask, "big")).to_bytes(8, "big").hex() + tag.hex()


def test_what_waits_for_a_receiver_survives_restarts(start_server: StartServer, receiver: Receiver) -> None:
    server = start_server(options=PATIENT)
    tenant = server.found_tenant()
    register(tenant, receiver)
    receiver.stop()
    ids = {send_test(tenant, 1) for _ in range(3)}
    server.restart()
    ids.add(send_test(tenant, 1))
    server.kill()
    server.start()
    assert hook(tenant)["pending"] == 4
    receiver.start()
    receiver.wait_for_events(ids)
    until(lambda: hook(tenant)["fire_count"] == 4, "all are recorded")
    assert Counter(it.event_id for it in receiver.deliveries) == Counter(ids), "nothing was sent twice here"


# -- Where requests may go ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/",
        "gopher://example.com/",
        "example.com/hook",
        "http://",
        "http://example.com:99999/",
        "https://u:p@example.com/",
        "https://u@example.com/",
        "http://127.0.0.1/",
        "http://127.0.0.1:9200/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://0.0.0.0/",
        "http://localhost/",
        "http://LOCALHOST:8000/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[fe80::1]/",
        "http://[fec0::1]/",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.100.100.200/latest/meta-data/",
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://100.64.0.1/",
        "http://192.0.2.1/",
        "http://198.18.0.1/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://name-that-nobody-has.invalid/",
        "x" * 2048,
    ],
    ids=short,
)
def test_urls_that_lead_inside_are_refused_and_leave_no_trace(tenant: Tenant, url: str) -> None:
    before = tenant.record()
    refusal(tenant.post("/v1/webhooks", {"url": url}), 400, "unsafe_url")
    assert tenant.record() == before
    assert found(tenant.get("/v1/webhooks")) == {"webhooks": []}


def test_a_webhook_that_was_allowed_once_is_held_back_when_it_is_not_any_more(
    start_server: StartServer, tmp_path: Any, receiver: Receiver
) -> None:
    server = start_server(options=BRIEF)
    tenant = server.found_tenant()
    register(tenant, receiver)
    server.stop()
    server._options.remove("--allow-private-outbound")
    server.start()
    send_test(tenant, 1)
    until(lambda: hook(tenant)["fail_count"] == 1, "it is given up")
    assert not receiver.deliveries
    assert {row["error"] for row in rows(tenant)} == {"url_refused"} and len(rows(tenant)) == 4
    assert {row["status_code"] for row in rows(tenant)} == {0}


def test_a_redirect_to_the_inside_is_not_followed(telling: Tenant) -> None:
    with Receiver() as inside, Receiver(always(302, headers={"Location": ""})) as outside:
        outside.behave = always(302, headers={"Location": inside.url})
        register(telling, outside)
        send_test(telling, 1)
        until(lambda: hook(telling)["fail_count"] == 1, "it is given up")
        assert not inside.deliveries and len(outside.deliveries) == 1


# -- Requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [{}, {"url": None}, {"url": ""}, {"url": "  "}, {"url": 5}, {"url": ["http://example.com"]}, {"url": "x" * 2049}],
    ids=short,
)
def test_a_registration_without_a_url_is_refused(tenant: Tenant, body: dict[str, Any]) -> None:
    refusal(tenant.post("/v1/webhooks", body), 400, "invalid_request")


@pytest.mark.parametrize(
    "fields",
    [
        {"events": "all"},
        {"events": [1]},
        {"events": [None]},
        {"events": {}},
        {"events": ["x" * 65]},
        {"events": [f"e{number}" for number in range(65)]},
        {"name": 5},
        {"name": "x" * 257},
    ],
    ids=short,
)
def test_fields_that_are_not_what_they_should_be_are_refused(telling: Tenant, receiver: Receiver, fields: Any) -> None:
    refusal(telling.post("/v1/webhooks", {"url": receiver.url, **fields}), 400, "invalid_request")
    assert found(telling.get("/v1/webhooks")) == {"webhooks": []}


@pytest.mark.parametrize("events", [None, [], ["", " "]], ids=short)
def test_no_events_are_all_events(telling: Tenant, receiver: Receiver, events: Any) -> None:
    assert created(telling.post("/v1/webhooks", {"url": receiver.url, "events": events}))["events"] == ["all"]
    assert created(telling.post("/v1/webhooks", {"url": receiver.url}))["events"] == ["all"]


@pytest.mark.parametrize("number", ["0", "2", "-1", "x", "1.0", "99999999999999999999", "%31x"])
def test_what_names_no_webhook_is_not_found(telling: Tenant, receiver: Receiver, number: str) -> None:
    register(telling, receiver)
    refusal(telling.delete(f"/v1/webhooks/{number}"), 404, "not_found")
    refusal(telling.post(f"/v1/webhooks/{number}/rotate-secret"), 404, "not_found")
    refusal(telling.post(f"/v1/webhooks/{number}/test"), 404, "not_found")


def test_a_key_needs_the_scope(telling: Tenant, receiver: Receiver) -> None:
    register(telling, receiver)
    reader, writer = telling.mint("webhooks:read"), telling.mint("webhooks:write")
    assert telling.get("/v1/webhooks", key=reader).status_code == 200
    assert telling.get("/v1/webhooks/deliveries", key=reader).status_code == 200
    assert telling.get("/v1/webhooks/dead-letters", key=reader).status_code == 200
    refusal(telling.get("/v1/webhooks", key=telling.mint("audit:*")), 403, "insufficient_scope")
    refusal(telling.post("/v1/webhooks", {"url": receiver.url}, key=reader), 403, "insufficient_scope")
    refusal(telling.post("/v1/webhooks/1/rotate-secret", key=reader), 403, "insufficient_scope")
    refusal(telling.delete("/v1/webhooks/1", key=reader), 403, "insufficient_scope")
    assert telling.delete("/v1/webhooks/1", key=writer).status_code == 200


def test_a_tenant_has_so_many_webhooks_and_no_more(telling: Tenant, receiver: Receiver) -> None:
    for number in range(64):
        assert register(telling, receiver)["webhook_id"] == number + 1
    refusal(telling.post("/v1/webhooks", {"url": receiver.url}), 400, "invalid_request")


def test_everything_is_on_record_and_can_be_seen_as_it_was(telling: Tenant, receiver: Receiver) -> None:
    register(telling, receiver, "flagged")
    send_test(telling, 1)
    until(lambda: hook(telling)["fire_count"] == 1, "it is delivered")
    found(telling.post("/v1/webhooks/1/rotate-secret"))
    found(telling.delete("/v1/webhooks/1"))
    kinds = [kind for kind in telling.record() if kind.startswith("webhook.")]
    assert kinds == ["webhook.registered", "webhook.tested", "webhook.attempted", "webhook.rotated", "webhook.removed"]
    at = next(entry.seq for entry in telling.ledger() if entry.kind == "webhook.attempted")
    before = found(telling.get("/v1/webhooks", params={"as_of": f"seq:{at - 1}"}))["webhooks"]
    after = found(telling.get("/v1/webhooks", params={"as_of": f"seq:{at}"}))["webhooks"]
    assert (before[0]["fire_count"], before[0]["pending"]) == (0, 1)
    assert (after[0]["fire_count"], after[0]["pending"]) == (1, 0)
    assert found(telling.get("/v1/webhooks")) == {"webhooks": []}


def test_a_secret_that_signs_no_more_is_destroyed(start_server: StartServer, receiver: Receiver) -> None:
    tenant = start_server(options=PRIVATE).found_tenant()
    register(tenant, receiver)
    sealed = lambda: sorted(it.name for it in (tenant.server.data / "vault").rglob("*") if it.is_file())  # noqa: E731
    first = sealed()
    found(tenant.post("/v1/webhooks/1/rotate-secret"))
    assert len(sealed()) == len(first) + 1, "two secrets sign"
    found(tenant.post("/v1/webhooks/1/rotate-secret"))
    until(lambda: len(sealed()) == len(first) + 1 and not set(first) & set(sealed()), "the oldest is destroyed")
    found(tenant.delete("/v1/webhooks/1"))
    until(lambda: len(sealed()) == len(first) - 1, "all of them are")


# -- The published guide --------------------------------------------------------------------------


def test_the_journey_of_webhook_alerts(start_server: StartServer) -> None:
    """Clients' section 7: three hooks, some spending, a denial, and the trail."""
    tenant = start_server(options=BRIEF).found_tenant(name="alerts")
    with Receiver() as spend, Receiver() as audit, Receiver() as everything:
        for receiver, events in ((spend, ["budget_exhausted"]), (audit, ["flagged", "anomaly"]), (everything, ["all"])):
            created(tenant.post("/v1/webhooks", {"url": receiver.url, "name": events[0], "events": events}))
        session_id = tenant.open_session(agent_id="alert-bot", scopes=["read", "spend"], spend_limit=10)
        listed = found(tenant.get("/v1/webhooks"))["webhooks"]
        assert [(it["active"], it["fire_count"], it["fail_count"]) for it in listed] == [(True, 0, 0)] * 3
        assert [it["name"] for it in listed] == ["budget_exhausted", "flagged", "all"]
        for number in range(5):
            entry = {"session_id": session_id, "tool": "api", "action": f"call-{number}", "cost_usd": 0.5}
            created(tenant.post("/v1/audit", entry))
        statuses = []
        while not statuses or statuses[-1] == 200:
            answer = tenant.post("/v1/payments/authorize", {"session_id": session_id, "amount": 3.0})
            statuses.append(answer.status_code)
        assert statuses == [200, 200, 200, 403]
        created(tenant.post("/v1/audit", {"session_id": session_id, "tool": "shell", "action": "rm -rf"}))
        found(tenant.get("/v1/audit", params={"flagged": "true"}))
        assert tenant.delete(f"/v1/sessions/{session_id}").status_code == 200
        assert [it.event for it in spend.wait_for(1)] == ["budget_exhausted"]
        assert {it.event for it in everything.wait_for(2)} == {"budget_exhausted", "session_revoked"}
        until(lambda: hook(tenant, 3)["fire_count"] == 2, "all are recorded")


def test_digests_of_answers_are_those_of_the_document(telling: Tenant, receiver: Receiver) -> None:
    register(telling, receiver)
    send_test(telling, 1)
    until(lambda: len(rows(telling)) == 1, "it is recorded")
    lines = [json.loads(line) for line in telling.get("/v1/ledger/export").text.splitlines()]
    attempted = next(line["event"] for line in lines if line.get("kind") == "webhook.attempted")
    assert len(attempted["excerpt_digest"]) == len(hashlib.sha256().hexdigest())
    assert attempted["status"] == "delivered" and attempted["status_code"] == 200
