"""What is around every request: headers, limits told, routing, errors in their envelope, probes, description.

Most of it is the same on every path, so these tests ask many paths the same question.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

import httpx
import pytest

from harness import Server, Tenant, created, found, refusal

LONG_BODY = b'{"agent_id": "' + b"x" * 2 * 1024 * 1024 + b'"}'


# -- Headers -----------------------------------------------------------------------------------------


EVERYWHERE = [
    ("GET", "/healthz", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/v1", 200),
    ("GET", "/v1/audit", 200),
    ("POST", "/v1/sessions", 400),
    ("GET", "/v1/sessions/ses_unknown", 404),
    ("GET", "/nowhere", 404),
    ("GET", "/v1/nowhere", 404),
    ("PATCH", "/v1/audit", 405),
    ("HEAD", "/v1/audit", 200),
    ("OPTIONS", "/v1/audit", 200),
]


def assert_hardened(answer: httpx.Response) -> None:
    expected = {
        "strict-transport-security": "max-age=31536000; includeSubDomains",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "strict-origin-when-cross-origin",
        "permissions-policy": "camera=(), microphone=(), geolocation=()",
    }
    assert {name: answer.headers.get(name) for name in expected} == expected
    assert answer.headers.get("x-request-id")


@pytest.mark.parametrize(("method", "path", "status"), EVERYWHERE)
def test_every_answer_carries_the_security_headers(tenant: Tenant, method: str, path: str, status: int) -> None:
    answer = tenant.call(method, path)
    assert answer.status_code == status, answer.text
    assert_hardened(answer)


def test_even_unauthenticated_and_oversized_requests_get_the_security_headers(tenant: Tenant) -> None:
    assert_hardened(tenant.server.call("GET", "/v1/audit"))
    assert_hardened(tenant.call("POST", "/v1/sessions", content=LONG_BODY))
    assert_hardened(tenant.call("GET", "/v1/keys", key=tenant.mint("audit:read")))


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        ("req-1", "req-1"),
        ("x" * 64, "x" * 64),
        ("y" * 100, "y" * 64),
        (None, None),
        ("", None),
    ],
)
@pytest.mark.parametrize("path", ["/healthz", "/v1/audit", "/nowhere"])
def test_a_request_id_is_repeated_or_made_up(tenant: Tenant, path: str, sent: str | None, received: str | None) -> None:
    answer = tenant.get(path, headers={} if sent is None else {"X-Request-ID": sent})
    given = answer.headers["x-request-id"]
    if received is None:
        assert re.fullmatch("[0-9a-f]{32}", given)
    else:
        assert given == received
    if answer.status_code >= 400:
        assert answer.json()["request_id"] == given


def test_browsers_on_other_origins_may_call_the_api(tenant: Tenant) -> None:
    plain = tenant.get("/v1/audit")
    assert plain.headers["access-control-allow-origin"] == "*"
    named = tenant.get("/v1/audit", headers={"Origin": "https://app.example"})
    assert named.headers["access-control-allow-origin"] == "https://app.example"
    assert "origin" in named.headers["vary"].lower()
    turned_away = tenant.server.call("GET", "/v1/audit", headers={"Origin": "https://app.example"})
    assert turned_away.headers["access-control-allow-origin"] == "https://app.example", "or no script sees the 401"
    assert "access-control-allow-credentials" not in named.headers
    elsewhere = tenant.get("/healthz", headers={"Origin": "https://app.example"})
    assert "access-control-allow-origin" not in elsewhere.headers


def test_a_preflight_is_answered_without_a_key(server: Server) -> None:
    wanted = "authorization, content-type, idempotency-key"
    answer = server.call(
        "OPTIONS",
        "/v1/sessions",
        headers={
            "Origin": "https://app.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": wanted,
        },
    )
    assert answer.status_code == 200 and answer.content == b""
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    methods = {method.strip() for method in answer.headers["access-control-allow-methods"].split(",")}
    assert {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"} <= methods
    headers = {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}
    assert set(wanted.split(", ")) <= headers


HOURLY = ["limit", "used", "remaining", "reset", "reset-after"]
MONTHLY = ["monthly-limit", "monthly-used", "monthly-remaining", "monthly-reset", "monthly-reset-after"]


def test_calls_with_a_key_are_told_where_they_stand_with_the_limits(tenant: Tenant) -> None:
    answers = [tenant.get("/v1/audit"), tenant.get("/v1/sessions/ses_unknown"), tenant.post("/v1/sessions", {})]
    for used, answer in enumerate(answers, start=1):
        told = {name: int(answer.headers[f"x-ratelimit-{name}"]) for name in HOURLY + MONTHLY}
        assert told["used"] == used
        assert told["remaining"] == max(0, told["limit"] - used)
        assert 0 <= told["reset-after"] <= 3600
        assert told["monthly-remaining"] == max(0, told["monthly-limit"] - told["monthly-used"])
        assert told["monthly-reset"] > time.time() - 60
        assert answer.headers["x-ratelimit-resource"] == "hourly"
        assert "retry-after" not in answer.headers


def test_calls_without_a_key_and_mintings_are_not_told_about_limits(tenant: Tenant) -> None:
    for answer in [tenant.server.call("GET", "/v1/audit"), tenant.post("/v1/keys", {}), tenant.get("/healthz")]:
        assert not [name for name in answer.headers if name.startswith("x-ratelimit")]


# -- Routing and envelopes ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/nowhere", "/v1/nowhere", "/v1/audit/", "/v1/sessions/a/b", "/v1/keys/a/b"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unknown_path_is_a_404_in_the_envelope(tenant: Tenant, method: str, path: str) -> None:
    for answer in [tenant.call(method, path), tenant.server.call(method, path)]:
        body = refusal(answer, 404, "not_found")
        assert body["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/v1/keys"), ("DELETE", "/v1/audit"), ("GET", "/v1/payments/authorize"), ("POST", "/healthz")],
)
def test_the_wrong_method_is_a_405_in_the_envelope(tenant: Tenant, method: str, path: str) -> None:
    answer = tenant.call(method, path)
    body = refusal(answer, 405, "method_not_allowed")
    assert body["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1/keys", "/v1/sessions", "/v1/payments/authorize", "/v1/audit"])
def test_a_body_over_a_mebibyte_is_a_413_in_the_envelope(tenant: Tenant, path: str) -> None:
    answer = tenant.call("POST", path, content=LONG_BODY, headers={"Content-Type": "application/json"})
    body = refusal(answer, 413, "payload_too_large")
    assert body["max_bytes"] == 1_048_576 and body["request_id"] == answer.headers["x-request-id"]
    assert tenant.record() == ["key.minted"]


def test_a_body_of_exactly_a_mebibyte_is_read(tenant: Tenant) -> None:
    text = json.dumps({"session_id": tenant.open_session(), "action": "a", "details": {"text": ""}})
    full = text.replace('"text": ""', f'"text": "{"x" * (1_048_576 - len(text))}"')
    assert len(full) == 1_048_576
    as_json = {"Content-Type": "application/json"}
    created(tenant.call("POST", "/v1/audit", content=full, headers=as_json))
    one_more = tenant.call("POST", "/v1/audit", content=full + " ", headers=as_json)
    refusal(one_more, 413, "payload_too_large")


def test_who_has_no_key_is_told_so_before_the_body_is_looked_at(server: Server) -> None:
    refusal(server.call("POST", "/v1/sessions", content=LONG_BODY), 401)
    refusal(server.call("POST", "/v1/sessions", content=b"{nonsense"), 401)


@pytest.mark.parametrize("path", ["/v1/audit", "/v1/sessions", "/v1/usage", "/healthz", "/v1", "/openapi.json"])
def test_head_is_get_without_the_body(tenant: Tenant, path: str) -> None:
    head, get = tenant.call("HEAD", path), tenant.get(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]
    if path.startswith("/v1/"):
        assert tenant.server.call("HEAD", path).status_code == 401


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/keys", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("/v1/sessions/ses_unknown", {"GET", "HEAD", "DELETE", "OPTIONS"}),
        ("/v1/payments/authorize", {"POST", "OPTIONS"}),
        ("/healthz", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_options_says_what_a_path_allows(server: Server, path: str, methods: set[str]) -> None:
    answer = server.call("OPTIONS", path)
    assert answer.status_code == 200 and answer.content == b""
    assert {method.strip() for method in answer.headers["allow"].split(",")} == methods


# -- Probes and description --------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/healthz", "/health"])
def test_the_health_probe_says_who_is_alive(server: Server, path: str) -> None:
    body = found(server.call("GET", path))
    assert body["alive"] is True and body["service"] == "haldir" and body["status"] == "ok"
    assert type(body["checked_at"]) is int and re.match(r"\d+\.\d+", body["version"])


def test_the_liveness_probe_needs_nothing(server: Server) -> None:
    body = found(server.call("GET", "/livez"))
    assert body["alive"] is True and body["service"] == "haldir" and type(body["checked_at"]) is int


def test_the_readiness_probe_names_what_it_checked(server: Server) -> None:
    body = found(server.call("GET", "/readyz"))
    assert body["ready"] is True and body["service"] == "haldir" and type(body["checked_at"]) is int
    assert {check["name"] for check in body["checks"]} == {"database", "migrations", "encryption_key"}
    for check in body["checks"]:
        assert check["ok"] is True and isinstance(check["message"], str) and type(check["duration_ms"]) is int
    messages = {check["name"]: check["message"] for check in body["checks"]}
    assert re.search("configured|ephemeral", messages["encryption_key"])


def test_the_index_names_the_service_and_its_parts(server: Server) -> None:
    body = found(server.call("GET", "/v1"))
    assert body["service"] == "haldir" and isinstance(body["docs"], str)
    assert body["version"] == found(server.call("GET", "/healthz"))["version"]
    assert {"sessions", "secrets", "payments", "audit", "keys"} <= set(body["endpoints"])


OPERATIONS = {
    ("post", "/v1/keys"): "post_create_api_key",
    ("get", "/v1/keys"): "get_list_api_keys",
    ("delete", "/v1/keys/{prefix}"): "delete_revoke_api_key",
    ("post", "/v1/sessions"): "post_create_session",
    ("get", "/v1/sessions/{session_id}"): "get_get_session",
    ("delete", "/v1/sessions/{session_id}"): "delete_revoke_session",
    ("post", "/v1/sessions/{session_id}/check"): "post_check_permission",
    ("post", "/v1/payments/authorize"): "post_authorize_payment",
    ("post", "/v1/audit"): "post_log_action",
    ("get", "/v1/audit"): "get_get_audit_trail",
    ("get", "/v1/audit/spend"): "get_get_spend",
    ("get", "/v1/audit/verify"): "get_verify_audit_chain",
    ("get", "/v1/usage"): "get_get_usage",
    ("get", "/healthz"): "get_healthz",
    ("get", "/livez"): "get_livez",
    ("get", "/readyz"): "get_readyz",
    ("get", "/v1"): "get_api_index",
}


def test_the_description_keeps_the_published_operation_names(server: Server) -> None:
    document = found(server.call("GET", "/openapi.json"))
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "Haldir"
    described = {
        (method, path): document["paths"].get(path, {}).get(method, {}).get("operationId")
        for method, path in OPERATIONS
    }
    assert described == OPERATIONS


def test_the_description_has_no_loose_ends(server: Server) -> None:
    document = found(server.call("GET", "/openapi.json"))
    operations = [
        (path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in {"get", "post", "put", "patch", "delete"}
    ]
    names = [operation["operationId"] for _, operation in operations]
    assert len(names) == len(set(names)), "every operation has a name of its own"
    for path, operation in operations:
        declared = {p["name"] for p in operation.get("parameters", []) if p.get("in") == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path)), path
        assert operation["responses"], path
    for reference in set(re.findall(r'"\$ref": ?"#/([^"]+)"', json.dumps(document))):
        target: Any = document
        for step in reference.split("/"):
            assert step in target, f"#/{reference} leads nowhere"
            target = target[step]
