"""Evidence packs, the score, and schedules that send packs.

A pack's digest is computed here from the JSON alone, by the contract's rule; its numbers are held against what the test
did, and what it says of the ledger against the ledger's export. A mail server of the test's own takes the letters.
"""

from __future__ import annotations

import email
import email.policy
import hashlib
import hmac
import json
import re
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from email.message import EmailMessage
from typing import Any

import pytest

from harness import Server, Tenant, created, found, refusal, short
from receiver import Receiver

StartServer = Callable[..., Server]
Json = dict[str, Any]

EVIDENCE = "/v1/compliance/evidence"
SCHEDULES = "/v1/compliance/schedules"

# What the contract has in a pack, by section.
SECTIONS = {
    "identity": {"tenant_id", "subscription", "period_days"},
    "access_control": {"key_count", "has_scoped_keys", "least_privilege_used", "keys"},
    "encryption": {
        "cipher", "key_size_bits", "nonce_size_bits", "tag_size_bits", "aad_binding", "key_configured",
        "rotation_policy", "ciphertext_portable",
    },
    "audit_trail": {
        "total_entries_in_period", "flagged_in_period", "first_recorded", "last_recorded", "current_chain_hash",
        "chain_algorithm", "chain_verified",
    },
    "tamper_evidence": {
        "algorithm", "signature_algorithm", "asymmetric_signing", "tree_size", "root_hash", "signed_at", "signature",
        "signing_key_source", "key_id", "public_key", "jwks_endpoint", "inclusion_proof_endpoint",
        "consistency_proof_endpoint",
    },
    "spend_governance": {
        "total_spend_usd_in_period", "sessions_with_spend_caps", "sessions_total", "pct_sessions_capped",
        "payment_authorizations_count", "payment_authorizations_usd",
    },
    "approvals": {"requests_in_period", "by_status", "decisions_recorded"},
    "webhooks": {
        "registered_endpoints", "deliveries_in_period", "successful_deliveries", "delivery_success_rate",
        "signed_payloads", "signature_algorithm", "replay_protection_window_s",
    },
    "signatures": {"algorithm", "input", "digest", "signed_at"},
}
CRITERIA = {
    "access_control": "CC6.1", "encryption": "CC6.7", "audit_trail": "CC7.2", "spend_governance": "CC5.2",
    "approvals": "CC8.1", "webhooks": "CC7.3",
}


def digest_of(pack: Json) -> str:
    """The contract's rule, section 15.2 and 0.4's section 14."""
    kept = json.loads(json.dumps(pack))
    kept.pop("signatures", None)
    kept.pop("generated_at", None)
    for name in ("signed_at", "signature", "signing_key_source", "public_key", "key_id"):
        kept["tamper_evidence"].pop(name, None)
    for key in kept["access_control"]["keys"]:
        key.pop("last_used", None)
    return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def pack_of(tenant: Tenant, **query: Any) -> Json:
    return found(tenant.get(EVIDENCE, params=query))


def schedule(tenant: Tenant, **fields: Any) -> Json:
    return created(tenant.post(SCHEDULES, {"name": "n", "cadence": "daily", "delivery": "webhook:all", **fields}))


def listed(tenant: Tenant) -> list[Json]:
    return found(tenant.get(SCHEDULES))["schedules"]


def eventually(what: Callable[[], Any], patience_s: float = 20) -> Any:
    deadline = time.monotonic() + patience_s
    while not (value := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


# -- Packs -------------------------------------------------------------------------------------------


def test_a_pack_says_what_was_done(tenant: Tenant) -> None:
    capped = tenant.open_session(scopes=["read", "spend"], spend_limit=5)
    tenant.open_session(scopes=["read"])
    for cost in ("0.1", "0.2", "1234.567"):
        created(tenant.post("/v1/audit", {"session_id": capped, "action": "a", "tool": "t", "cost_usd": float(cost)}))
    found(tenant.post("/v1/payments/authorize", {"session_id": capped, "amount": 1.25}))
    found(tenant.post("/v1/payments/authorize", {"session_id": capped, "amount": 0.5}))
    tenant.mint("audit:read", name='odd | name\\ "é" 😀')
    pack = pack_of(tenant)

    assert pack["format_version"] == 1 and pack["tenant_id"] == tenant.id and pack["disclaimer"]
    for name, keys in SECTIONS.items():
        assert keys <= pack[name].keys(), name
    for name, criterion in CRITERIA.items():
        control = pack["controls"][name]
        assert control["criterion"] == criterion and control["title"] and control["evidence"]
    assert pack["controls"].keys() == CRITERIA.keys()
    for name in ("generated_at", "period_start", "period_end"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", pack[name]), name

    access = pack["access_control"]
    assert (access["key_count"], access["has_scoped_keys"], access["least_privilege_used"]) == (2, True, True)
    assert [key["scopes"] for key in access["keys"]] == [["audit:read"], ["*"]]
    assert access["keys"][1]["last_used"] is not None and access["keys"][0]["last_used"] is None

    trail = pack["audit_trail"]
    assert (trail["total_entries_in_period"], trail["flagged_in_period"], trail["chain_verified"]) == (3, 0, True)
    newest = found(tenant.get("/v1/audit"))["entries"][0]
    assert trail["current_chain_hash"] == newest["entry_hash"]

    spend = pack["spend_governance"]
    assert spend["total_spend_usd_in_period"] == 1234.87
    assert spend["total_spend_usd_in_period_exact"] == "1234.867"
    assert (spend["sessions_with_spend_caps"], spend["sessions_total"]) == (1, 2)
    assert spend["pct_sessions_capped"] == 0.5
    assert (spend["payment_authorizations_count"], spend["payment_authorizations_usd"]) == (2, 1.75)
    assert pack["approvals"]["by_status"].keys() == {"pending", "approved", "denied", "expired"}
    assert pack["webhooks"]["delivery_success_rate"] == 1.0
    assert pack["encryption"]["cipher"] == "AES-256-GCM-SIV"


def test_a_pack_names_the_entries_that_it_stands_on(tenant: Tenant) -> None:
    session = tenant.open_session()
    created(tenant.post("/v1/audit", {"session_id": session, "action": "a"}))
    pack = pack_of(tenant)
    ledger, head = pack["ledger"], pack["tamper_evidence"]
    entries = tenant.ledger()
    last = entries[ledger["size"] - 1]
    assert last.raw[-104:-72].hex() == ledger["head"]
    assert {entry.kind for entry in entries[ledger["size"] :]} <= {"usage.metered"}
    assert head["tree_size"] == ledger["size"] and head["root_hash"] == ledger["root"]
    assert ledger["root"] == found(
        tenant.get("/v1/audit/consistency-proof", params={"first": ledger["size"], "second": ledger["size"]})
    )["first_root"]
    checkpoint = pack["signatures"]["checkpoint"].split("\n")
    assert checkpoint[:2] == [f"haldir/ledger/{tenant.id}", str(ledger["size"])]


def test_a_digest_is_that_of_the_pack_whoever_computes_it(tenant: Tenant) -> None:
    session = tenant.open_session(agent_id='ä "\\ 😀')
    tenant.mint("audit:read", name="é\u200b 😀 \\ \" </script>")
    for cost in (0.000000001, 999999999999.99, 1e12, 12345678.9):
        created(tenant.post("/v1/audit", {"session_id": session, "action": "a", "cost_usd": cost}))
    answer = tenant.get(EVIDENCE)
    pack = found(answer)
    assert pack["signatures"]["digest"] == digest_of(pack) == answer.headers["X-Haldir-Evidence-Digest"]


def test_reading_a_pack_does_not_change_its_digest(start_server: StartServer) -> None:
    tenant = start_server(options=["--meter-interval", "50ms"]).found_tenant()
    session = tenant.open_session()
    window = {"since": 0, "until": int(time.time()) + 5}
    digests = set()
    for _ in range(4):
        digests.add(pack_of(tenant, **window)["signatures"]["digest"])
        time.sleep(0.1)
    assert len(digests) == 1
    assert found(tenant.get(f"{EVIDENCE}/manifest", params=window))["signatures"]["digest"] in digests
    created(tenant.post("/v1/audit", {"session_id": session, "action": "a"}))
    assert pack_of(tenant, **window)["signatures"]["digest"] not in digests


def test_a_pack_of_the_past_is_the_one_that_was_given(tenant: Tenant) -> None:
    session = tenant.open_session(spend_limit=3, scopes=["spend"])
    created(tenant.post("/v1/audit", {"session_id": session, "action": "a", "cost_usd": 1}))
    window = {"since": int(time.time()) - 60, "until": int(time.time()) + 60}
    before = pack_of(tenant, **window)
    created(tenant.post("/v1/audit", {"session_id": session, "action": "b", "cost_usd": 2}))
    tenant.open_session()
    found(tenant.post("/v1/payments/authorize", {"session_id": session, "amount": 1}))
    again = pack_of(tenant, **window, as_of=f"seq:{before['ledger']['size'] - 1}")
    assert again["signatures"]["digest"] == before["signatures"]["digest"]
    assert pack_of(tenant, **window)["signatures"]["digest"] != before["signatures"]["digest"]
    refusal(tenant.get(EVIDENCE, params={"as_of": "seq:999999"}), 400, "invalid_request")


def test_a_period_ends_before_its_end(tenant: Tenant) -> None:
    session = tenant.open_session()
    created(tenant.post("/v1/audit", {"session_id": session, "action": "a", "cost_usd": 1}))
    at = found(tenant.get("/v1/audit"))["entries"][0]["timestamp"]
    second = int(at)
    for since, until, count in [(second, second + 1, 1), (second - 9, second, 0), (second + 1, second + 9, 0)]:
        pack = pack_of(tenant, since=since, until=until)
        assert pack["audit_trail"]["total_entries_in_period"] == count, (since, until)
        assert pack["spend_governance"]["total_spend_usd_in_period"] == float(count)
        assert pack["audit_trail"]["last_recorded"] is not None, "that is of all time"
    iso = datetime.fromtimestamp(second).astimezone().isoformat()
    assert pack_of(tenant, since=iso)["audit_trail"]["total_entries_in_period"] == 1
    assert pack_of(tenant, since=at, until=at + 0.5)["audit_trail"]["total_entries_in_period"] == 1


def test_a_new_tenant_has_a_pack_too(tenant: Tenant) -> None:
    pack = pack_of(tenant)
    assert pack["audit_trail"] | {"chain_algorithm": ""} == {
        "total_entries_in_period": 0, "flagged_in_period": 0, "first_recorded": None, "last_recorded": None,
        "current_chain_hash": "", "chain_algorithm": "", "chain_verified": True,
    }
    assert pack["spend_governance"]["pct_sessions_capped"] == 0.0
    assert pack["identity"]["period_days"] == 90.0
    assert pack["signatures"]["digest"] == digest_of(pack)


def test_a_pack_is_written_for_people_too(tenant: Tenant) -> None:
    session = tenant.open_session()
    created(tenant.post("/v1/audit", {"session_id": session, "action": "a", "cost_usd": 1234567.891}))
    tenant.mint("audit:read", name="evil | # name\u2028")
    window = {"until": int(time.time()) + 60}
    digest = pack_of(tenant, **window)["signatures"]["digest"]
    for form in ("markdown", "md", "MarkDown"):
        answer = tenant.get(EVIDENCE, params={"format": form, **window})
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "text/markdown; charset=utf-8"
        expected = f'attachment; filename="haldir-evidence-{tenant.id}.md"'
        assert answer.headers["Content-Disposition"] == expected
        assert answer.headers["X-Haldir-Evidence-Digest"] == digest
        text = answer.text
    assert text.startswith("# Haldir Audit-Prep Evidence Pack\n\n> ")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == [
        "1. Identity", "2. Access control · relevant to SOC2 CC6.1", "3. Encryption · relevant to SOC2 CC6.7",
        "4. Audit trail · relevant to SOC2 CC7.2", "5. Spend governance · relevant to SOC2 CC5.2",
        "6. Human approvals · relevant to SOC2 CC8.1", "7. Outbound alerting · relevant to SOC2 CC7.3",
        "8. Document signature",
    ]
    assert "**Signed Tree Head (RFC 6962 Merkle)**" in text and "$1,234,567.89" in text
    assert f"```\n{digest}\n```" in text and "evil \\| \\# name" in text


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"format": "pdf"}, "invalid_format"),
        ({"format": "json\n"}, "invalid_format"),
        ({"since": "yesterday"}, "invalid_request"),
        ({"until": "soon"}, "invalid_request"),
        ({"until": "1700000000000000"}, "invalid_request"),
        ({"since": "200", "until": "100"}, "invalid_request"),
        ({"as_of": "x"}, "invalid_request"),
    ],
    ids=short,
)
def test_what_cannot_be_a_pack_is_refused(tenant: Tenant, query: dict[str, str], code: str) -> None:
    for path in (EVIDENCE, f"{EVIDENCE}/manifest"):
        body = refusal(tenant.get(path, params=query), 400, code)
        if code == "invalid_format":
            assert body["got"] == query["format"]


def test_evidence_is_for_administrators_of_the_tenant(tenant: Tenant, stranger: Tenant) -> None:
    narrow, reader = tenant.mint("audit:*"), tenant.mint("admin:read")
    for path in (EVIDENCE, f"{EVIDENCE}/manifest", "/v1/compliance/score", SCHEDULES):
        refusal(tenant.get(path, key=narrow), 403, "insufficient_scope")
        found(tenant.get(path, key=reader))
        refusal(tenant.server.call("GET", path), 401)
    asked = {"name": "n", "cadence": "daily", "delivery": "webhook:all"}
    refusal(tenant.post(SCHEDULES, asked, key=reader), 403, "insufficient_scope")
    mine = schedule(tenant)["schedule_id"]
    assert listed(stranger) == []
    refusal(stranger.delete(f"{SCHEDULES}/{mine}"), 404, "not_found")
    assert pack_of(stranger)["access_control"]["key_count"] == 1
    assert [row["schedule_id"] for row in listed(tenant)] == [mine]


# -- Score -------------------------------------------------------------------------------------------


def test_the_score_rises_with_what_is_done(tenant: Tenant) -> None:
    def states() -> dict[str, str]:
        score = found(tenant.get("/v1/compliance/score"))
        states = {row["key"]: row["state"] for row in score["criteria"]}
        counts = [list(states.values()).count(state) for state in ("pass", "warn", "fail")]
        assert [score["passing"], score["warning"], score["failing"]] == counts and score["total"] == 7
        assert score["score"] == round(100 * (counts[0] + 0.5 * counts[1]) / 7)
        for row in score["criteria"]:
            assert row["control"] and row["description"] and row["reason"]
            assert (row["remediation"] == "") == (row["state"] == "pass")
        return states

    first = states()
    assert list(first) == [
        "access_control", "encryption", "audit_trail", "tamper_evidence", "alerting", "spend_governance", "approvals",
    ]
    assert list(first.values()) == ["warn", "pass", "fail", "pass", "warn", "warn", "warn"]
    session = tenant.open_session()
    assert states()["spend_governance"] == "fail"
    tenant.open_session(scopes=["spend:5"])
    tenant.mint("audit:read")
    created(tenant.post("/v1/audit", {"session_id": session, "action": "a"}))
    later = states()
    assert [later[name] for name in ("access_control", "audit_trail", "spend_governance")] == ["pass"] * 3


# -- Schedules ---------------------------------------------------------------------------------------


def test_a_schedule_is_added_listed_and_dropped(tenant: Tenant) -> None:
    first = schedule(tenant, name="für das Audit", cadence="quarterly", delivery="email:grc@example.com")
    assert re.fullmatch(r"sched_[A-Za-z0-9_-]{16}", first["schedule_id"])
    assert first["tenant_id"] == tenant.id and first["active"] is True
    assert first["last_run_at"] == 0.0 and first["next_due"] == first["created_at"]
    second = schedule(tenant, name="für das Audit")
    rows = listed(tenant)
    assert [row["schedule_id"] for row in rows] == [second["schedule_id"], first["schedule_id"]]
    assert rows[1].items() >= {key: value for key, value in first.items() if key != "next_due"}.items()
    assert (rows[0]["last_status"], rows[0]["last_error"], rows[0]["run_count"], rows[0]["fail_count"]) == ("", "", 0, 0)
    path = f"{SCHEDULES}/{first['schedule_id']}"
    answer = tenant.delete(path)
    assert answer.status_code == 204 and answer.content == b""
    refusal(tenant.delete(path), 404, "not_found")
    assert [row["schedule_id"] for row in listed(tenant)] == [second["schedule_id"]]
    assert tenant.record()[-3:] == ["schedule.created", "schedule.created", "schedule.removed"]
    size = len(tenant.ledger())
    assert len(found(tenant.get(SCHEDULES, params={"as_of": f"seq:{size - 1}"}))["schedules"]) == 1


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "invalid_request", "name"),
        ({"name": None}, "invalid_request", "name"),
        ({"name": 7}, "invalid_request", "name"),
        ({"name": "x" * 129}, "invalid_request", "name"),
        ({"name": "n"}, "invalid_request", "cadence"),
        ({"name": "n", "cadence": "Daily", "delivery": "webhook:a"}, "invalid_request", "cadence"),
        ({"name": "n", "cadence": "hourly", "delivery": "webhook:a"}, "invalid_request", "cadence"),
        ({"name": "n", "cadence": ["daily"], "delivery": "webhook:a"}, "invalid_request", "cadence"),
        ({"name": "n", "cadence": "daily"}, "invalid_request", "delivery"),
        ({"name": "n", "cadence": "daily", "delivery": "webhook:" + "x" * 249}, "invalid_request", "delivery"),
        ({"name": "n", "cadence": "daily", "delivery": "email:a@b.c\r\nBcc: x@y.z"}, "invalid_request", "delivery"),
        *[
            ({"name": "n", "cadence": "daily", "delivery": delivery}, "invalid_schedule", None)
            for delivery in ["", "webhook", "webhook:", "slack:x", "email:", "email:a@b", "email:a b@c.d", "email:a@b@c.d"]
        ],
    ],
    ids=short,
)
def test_what_cannot_be_a_schedule_leaves_no_trace(tenant: Tenant, body: Json, code: str, field: str | None) -> None:
    before = tenant.record()
    answer = refusal(tenant.post(SCHEDULES, body), 400, code)
    assert answer["request_id"]
    if field is not None:
        assert answer["field"] == field and answer["reason"]
    assert tenant.record() == before
    refusal(tenant.delete(f"{SCHEDULES}/{'x' * 500}"), 404, "not_found")


class PostOffice(socketserver.ThreadingTCPServer):
    """A mail server that takes every letter, or none."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Clerk)
        self.letters: list[EmailMessage] = []
        self.takes = True

    @property
    def port(self) -> int:
        return self.server_address[1]


class Clerk(socketserver.StreamRequestHandler):
    server: PostOffice

    def handle(self) -> None:
        self.say("220 here")
        for line in self.rfile:
            word = line.decode().split(None, 1)[0].upper()
            if word == "DATA":
                self.say("354 go on")
                lines = iter(self.rfile.readline, b".\r\n")
                text = b"".join(it[1:] if it.startswith(b"..") else it for it in lines)
                self.server.letters.append(email.message_from_bytes(text, policy=email.policy.default))
                self.say("250 taken")
            elif word == "QUIT":
                self.say("221 bye")
                return
            elif word == "RCPT" and not self.server.takes:
                self.say("550 no such mailbox")
            else:
                self.say("250 ok")

    def say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


@pytest.fixture
def office() -> Iterator[PostOffice]:
    with PostOffice() as office:
        threading.Thread(target=office.serve_forever, daemon=True).start()
        yield office
        office.shutdown()


def with_mail(office: PostOffice, tls: str = "false") -> list[str]:
    mail = ["--smtp-host", "127.0.0.1", "--smtp-port", str(office.port), "--smtp-use-tls", tls]
    return ["--compliance-scheduler", "--compliance-interval", "100ms", *mail, "--smtp-from", "haldir@example.org"]


def test_a_pack_is_mailed_once_although_the_server_is_killed(start_server: StartServer, office: PostOffice) -> None:
    server = start_server(options=with_mail(office))
    tenant = server.found_tenant()
    session = tenant.open_session()
    created(tenant.post("/v1/audit", {"session_id": session, "action": "a", "cost_usd": 2}))
    asked = schedule(tenant, name="weekly", cadence="weekly", delivery="email:grc@example.com")
    row = eventually(lambda: [row for row in listed(tenant) if row["run_count"] == 1])[0]
    assert (row["last_status"], row["last_error"], row["fail_count"]) == ("sent", "", 0)
    assert row["next_due"] == pytest.approx(row["last_run_at"] + 7 * 86_400, abs=0.001)
    for _ in range(3):
        server.kill()
        server.start()
        time.sleep(0.3)
    assert [row["run_count"] for row in listed(tenant)] == [1]
    assert tenant.record().count("schedule.ran") == 1
    [letter] = office.letters
    assert letter["To"] == "grc@example.com" and letter["From"] == "haldir@example.org"
    assert "audit-prep evidence pack" in letter["Subject"]
    assert letter["X-Haldir-Tenant"] == tenant.id
    digest = letter["X-Haldir-Evidence-Digest"]
    assert digest in letter.get_body(("plain",)).get_content()
    [pack] = letter.iter_attachments()
    assert pack.get_content_type() == "text/markdown"
    assert pack.get_filename() == f"haldir-evidence-{tenant.id}-{digest[:12]}.md"
    assert digest in pack.get_content() and "## 8. Document signature" in pack.get_content()
    assert asked["schedule_id"] in letter["Message-ID"]

    # The ledger knows the pack, and it can be made again from the ledger.
    ran = [line for line in tenant.get("/v1/ledger/export").text.splitlines() if '"kind":"schedule.ran"' in line]
    event = json.loads(ran[0])["event"]
    assert event["pack"]["digest"] == digest and event["outcome"] == "sent"
    again = pack_of(
        tenant, since=event["period_start"], until=event["period_end"], as_of=f"seq:{event['pack']['size'] - 1}"
    )
    assert again["signatures"]["digest"] == digest == digest_of(again)


def test_what_was_not_delivered_is_tried_again(start_server: StartServer, office: PostOffice) -> None:
    tenant = start_server(options=with_mail(office)).found_tenant()
    office.takes = False
    schedule(tenant, delivery="email:grc@example.com")
    row = eventually(lambda: [row for row in listed(tenant) if row["fail_count"] >= 2])[0]
    assert row["last_status"] == "smtp_failed" and "550" in row["last_error"] and row["last_run_at"] == 0.0
    office.takes = True
    row = eventually(lambda: [row for row in listed(tenant) if row["run_count"] == 1])[0]
    assert (row["last_status"], row["last_error"]) == ("sent", "")
    assert len(office.letters) == 1


def test_a_letter_does_not_go_out_unencrypted_unless_it_may(start_server: StartServer, office: PostOffice) -> None:
    tenant = start_server(options=with_mail(office, tls="true")).found_tenant()
    schedule(tenant, delivery="email:grc@example.com")
    row = eventually(lambda: [row for row in listed(tenant) if row["fail_count"] >= 1])[0]
    assert row["last_status"] == "smtp_failed" and office.letters == []


def test_without_a_mail_server_or_a_webhook_a_schedule_says_so(start_server: StartServer) -> None:
    options = ["--compliance-scheduler", "--compliance-interval", "100ms"]
    tenant = start_server(options=options).found_tenant()
    schedule(tenant, name="mail", delivery="email:grc@example.com")
    schedule(tenant, name="hook", delivery="webhook:nobody")
    eventually(lambda: all(row["fail_count"] for row in listed(tenant)))
    rows = listed(tenant)
    assert {row["name"]: row["last_status"] for row in rows} == {"mail": "smtp_unconfigured", "hook": "no_dispatcher"}
    assert all(row["last_error"] and row["run_count"] == 0 for row in rows)


def test_schedules_rest_unless_they_are_switched_on(start_server: StartServer) -> None:
    tenant = start_server(options=["--compliance-interval", "50ms"]).found_tenant()
    schedule(tenant)
    time.sleep(0.5)
    assert [(row["run_count"], row["fail_count"]) for row in listed(tenant)] == [(0, 0)]


def hook(tenant: Tenant, receiver: Receiver, **fields: Any) -> Json:
    return created(tenant.post("/v1/webhooks", {"url": receiver.url, **fields}))


def test_a_pack_reaches_the_webhook_that_is_named_and_no_other(start_server: StartServer) -> None:
    server = start_server(options=["--allow-private-outbound", "--compliance-scheduler", "--compliance-interval", "100ms"])
    tenant, stranger = server.found_tenant(), server.found_tenant()
    session = tenant.open_session()
    created(tenant.post("/v1/audit", {"session_id": session, "action": "é", "cost_usd": 1.5}))
    with Receiver() as named, Receiver() as other, Receiver() as deaf, Receiver() as foreign:
        registered = hook(tenant, named, name="grc", events=["compliance.evidence_pack"])
        hook(tenant, other, name="other")
        hook(tenant, deaf, name="deaf", events=["flagged"])
        hook(stranger, foreign, name="grc")
        added = schedule(tenant, name="weekly pack", cadence="weekly", delivery="webhook:grc")
        [delivery] = named.wait_for(1)
        server.kill()
        server.start()
        row = eventually(lambda: [row for row in listed(tenant) if row["run_count"]])[0]
        assert (row["last_status"], row["fail_count"], row["run_count"]) == ("fired", 0, 1)

        told = delivery.json()
        assert delivery.event == told["event"] == "compliance.evidence_pack" and told["source"] == "haldir"
        assert (told["schedule_id"], told["schedule_name"], told["cadence"]) == (
            added["schedule_id"], "weekly pack", "weekly",
        )
        pack = told["pack"]
        assert told["digest"] == pack["signatures"]["digest"] == digest_of(pack)
        assert (told["period_start"], told["period_end"]) == (pack["period_start"], pack["period_end"])
        assert pack["tenant_id"] == tenant.id and pack["webhooks"]["registered_endpoints"] == 3
        stamp = delivery.headers["x-haldir-timestamp"]
        signed = hmac.new(registered["secret"].encode(), f"{stamp}.".encode() + delivery.body, hashlib.sha256)
        assert delivery.headers["x-haldir-signature"] == f"sha256={signed.hexdigest()}"
        time.sleep(0.5)
        assert other.deliveries == deaf.deliveries == foreign.deliveries == []
        assert {it.event_id for it in named.deliveries} == {delivery.event_id}
        assert tenant.record().count("schedule.ran") == 1

        # By number, by URL, and all of those who want it.
        for target, receivers in [(str(registered["webhook_id"]), [named]), (other.url, [other]), ("all", [named, other])]:
            before = [len(it.deliveries) for it in receivers]
            schedule(tenant, cadence="quarterly", delivery=f"webhook:{target}")
            for receiver, count in zip(receivers, before, strict=True):
                receiver.wait_for(count + 1)
        assert deaf.deliveries == foreign.deliveries == []
        schedule(tenant, name="deaf", delivery="webhook:deaf")
        row = eventually(lambda: [row for row in listed(tenant) if row["name"] == "deaf" and row["fail_count"]])[0]
        assert row["last_status"] == "no_dispatcher"

        # The pack of now tells of these deliveries.
        section = eventually(lambda: (it := pack_of(tenant)["webhooks"])["successful_deliveries"] >= 5 and it)
        assert section["deliveries_in_period"] >= section["successful_deliveries"]
        assert found(tenant.get("/v1/compliance/score"))["criteria"][4]["state"] == "pass"


# -- Command line ------------------------------------------------------------------------------------


def test_the_command_line_does_it_all(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()

    def haldir(*arguments: str) -> tuple[int, str, str]:
        done = server.run("--url", server.base_url, "--key", tenant.key, "compliance", *arguments)
        return done.returncode, done.stdout, done.stderr

    code, text, _ = haldir("evidence")
    assert code == 0 and text.startswith("# Haldir Audit-Prep Evidence Pack")
    code, text, _ = haldir("evidence", "--format", "json", "--since", "2026-01-01", "--until", "1800000000")
    pack = json.loads(text)
    assert code == 0 and pack["period_start"] == "2026-01-01T00:00:00+00:00"
    assert pack["signatures"]["digest"] == digest_of(pack)
    out = server.directory / "pack.json"
    code, text, _ = haldir("evidence", "--format", "json", "--out", str(out), "--as-of", "seq:0")
    assert code == 0 and json.loads(out.read_text())["signatures"]["digest"] in text
    assert haldir("evidence", "--since", "never")[0] == 2
    assert haldir("evidence", "--format", "pdf")[0] == 2

    code, text, _ = haldir("score", "--json")
    assert code == 0 and json.loads(text)["total"] == 7
    assert haldir("score")[1].startswith("score ")

    create = ["schedules", "create", "--name", "n", "--cadence", "monthly", "--delivery"]
    code, text, _ = haldir(*create, "webhook:all", "--json")
    schedule_id = json.loads(text)["schedule_id"]
    assert code == 0 and json.loads(haldir("schedules", "list", "--json")[1])[0]["schedule_id"] == schedule_id
    assert schedule_id in haldir("schedules", "list")[1]
    code, _, error = haldir(*create, "carrier-pigeon:all")
    assert code == 1 and "delivery" in error
    assert haldir("schedules", "create", "--name", "n", "--cadence", "hourly", "--delivery", "webhook:all")[0] == 2
    assert haldir("schedules", "delete", schedule_id)[0] == 0
    assert haldir("schedules", "delete", schedule_id)[0] == 1
    assert haldir("schedules", "list")[1] == "no schedules\n"
