"""Whatever is sent, Haldir answers like a civil server: no crash, no 5xx, no trace of what it refused.

Some of the input is chosen, because it broke other servers; the rest is random, and a failure
prints what reproduces it. Every test holds each answer to the same property, see `Target.send`:
an error is a 4xx whose body is a JSON object with a text `error`, the ledger has no new entry
because of it, and the server goes on answering.
"""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import PATIENCE_S, Server, Tenant, created, found, refusal, short

random_input = settings(
    max_examples=40,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

MEBIBYTE = 1024 * 1024
LONG_LEDGER = 50


# -- The target ----------------------------------------------------------------------------------


@dataclass
class Target:
    """A tenant with a live session that may do everything, so that only the input can be wrong."""

    tenant: Tenant
    session_id: str
    record: list[str] | None = None  # what the ledger held after the last answer, if nothing was added since

    def send(self, method: str, path: str, *, key: str | None = None, **options: Any) -> httpx.Response:
        """Sends one request and holds the answer to the property of this file."""
        headers = httpx.Headers(options.pop("headers", None))
        headers.setdefault("Authorization", f"Bearer {key or self.tenant.key}")
        return self.send_bare(method, path, headers=headers, **options)

    def send_bare(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The same without the tenant's key."""
        with self.unchanged_unless_accepted() as answers:
            answers.append(self.tenant.server.call(method, path, **options))
        return answers[0]

    def send_text(self, path: str, text: str | bytes) -> httpx.Response:
        """Posts a body that is said to be JSON."""
        return self.send("POST", path, content=text, headers={"Content-Type": "application/json"})

    def refuses(self, path: str, text: str | bytes) -> None:
        """Posts a body that must not be accepted."""
        answer = self.send_text(path, text)
        assert 400 <= answer.status_code < 500, f"accepted: {answer.status_code} {answer.text[:500]}"

    def recorded(self) -> list[str]:
        """What the ledger holds because somebody asked for it: time passes all the while."""
        return [kind for kind in self.tenant.record() if kind not in ("payment.released", "approval.expired")]

    @contextmanager
    def unchanged_unless_accepted(self) -> Iterator[list[httpx.Response]]:
        """Checks what was answered within, and that the ledger has nothing new if it was no success."""
        before = self.recorded() if self.record is None else self.record
        answers: list[httpx.Response] = []
        yield answers
        self.record = None
        for answer in answers:
            assert answer.status_code < 500, f"{answer.status_code} {answer.text[:500]}"
            if answer.status_code >= 400:
                refusal(answer, answer.status_code)
        if all(answer.status_code >= 400 for answer in answers):
            self.record = self.recorded()
            assert self.record == before, "a refused request left a trace"
        assert found(self.tenant.server.call("GET", "/healthz"))["alive"] is True

    def bodies(self) -> dict[str, dict[str, Any]]:
        """A complete and correct body for every route that takes one."""
        return {
            "/v1/keys": {"name": "name", "scopes": ["audit:read"], "bootstrap_token": "unused"},
            "/v1/sessions": {"agent_id": "agent", "scopes": ["read"], "ttl": 60, "spend_limit": 1.5, "parent_session_id": ""},
            f"/v1/sessions/{self.session_id}/check": {"scope": "read"},
            "/v1/payments/authorize": {
                "session_id": self.session_id,
                "amount": 0.5,
                "currency": "USD",
                "description": "bread",
            },
            "/v1/secrets": {"name": "name", "value": "value", "scope_required": "read"},
            "/v1/payments/reserve": {
                "session_id": self.session_id,
                "amount": 0.5,
                "currency": "USD",
                "description": "bread",
                "tool": "shop",
                "action": "buy",
                "approval_id": "",
                "ttl": 60,
            },
            "/v1/approvals/rules": {
                "type": "a type that is never applied",
                "threshold": 0.5,
                "tools": ["tool"],
                "required_approvals": 1,
            },
            "/v1/approvals/request": {
                "session_id": self.session_id,
                "tool": "tool",
                "action": "act",
                "amount": 0.5,
                "currency": "USD",
                "reason": "hunger",
                "details": {"key": "value"},
                "ttl": 60,
                "expires_in_s": 60,
                "required_approvals": 1,
            },
            "/v1/audit": {
                "session_id": self.session_id,
                "action": "act",
                "tool": "tool",
                "cost_usd": 0.5,
                "details": {"key": "value"},
            },
        }

    def path(self, route: str) -> str:
        return route.replace("{session}", self.session_id)

    def text(self, route: str, field: str, token: str) -> str:
        """A correct body as text, but for one field whose value is `token`, however odd."""
        body = {name: json.dumps(value) for name, value in self.bodies()[self.path(route)].items()}
        members = ", ".join(f'"{name}": {value}' for name, value in (body | {field: token}).items())
        return "{" + members + "}"


@pytest.fixture(scope="module")
def targets() -> list[Target]:
    return []


@pytest.fixture
def target(server: Server, targets: list[Target]) -> Target:
    """The last target, or a new one as soon as comparing its ledger would take long."""
    if not targets or len(targets[-1].tenant.record()) > LONG_LEDGER:
        tenant = server.found_tenant()
        targets.append(Target(tenant, tenant.open_session()))
    return targets[-1]


CHECK = "/v1/sessions/{session}/check"
FIELDS = [
    ("/v1/keys", "name"),
    ("/v1/keys", "scopes"),
    ("/v1/keys", "bootstrap_token"),
    ("/v1/sessions", "agent_id"),
    ("/v1/sessions", "scopes"),
    ("/v1/sessions", "ttl"),
    ("/v1/sessions", "spend_limit"),
    ("/v1/sessions", "parent_session_id"),
    (CHECK, "scope"),
    ("/v1/payments/authorize", "session_id"),
    ("/v1/payments/authorize", "amount"),
    ("/v1/payments/authorize", "currency"),
    ("/v1/payments/authorize", "description"),
    ("/v1/payments/reserve", "amount"),
    ("/v1/payments/reserve", "tool"),
    ("/v1/payments/reserve", "action"),
    ("/v1/payments/reserve", "ttl"),
    ("/v1/approvals/rules", "type"),
    ("/v1/approvals/rules", "threshold"),
    ("/v1/approvals/rules", "tools"),
    ("/v1/approvals/rules", "required_approvals"),
    ("/v1/approvals/request", "session_id"),
    ("/v1/approvals/request", "tool"),
    ("/v1/approvals/request", "amount"),
    ("/v1/approvals/request", "reason"),
    ("/v1/approvals/request", "details"),
    ("/v1/approvals/request", "ttl"),
    ("/v1/audit", "session_id"),
    ("/v1/audit", "action"),
    ("/v1/audit", "tool"),
    ("/v1/audit", "cost_usd"),
    ("/v1/audit", "details"),
]
ROUTES = list(dict.fromkeys(route for route, _ in FIELDS))
each_route = pytest.mark.parametrize("route", ROUTES)
each_field = pytest.mark.parametrize(("route", "field"), FIELDS)


def test_the_correct_bodies_are_correct(target: Target) -> None:
    """Without this, every test below could pass because of a mistake in the part that is not odd."""
    for path, body in target.bodies().items():
        assert target.send("POST", path, json=body).status_code in (200, 201), path


# -- Bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "field"),
    [
        ("/v1/sessions", "agent_id"),
        (CHECK, "scope"),
        ("/v1/payments/authorize", "session_id"),
        ("/v1/payments/authorize", "amount"),
        ("/v1/audit", "session_id"),
        ("/v1/audit", "action"),
    ],
)
def test_a_body_without_a_required_field_is_refused(target: Target, route: str, field: str) -> None:
    body = dict(target.bodies()[target.path(route)])
    del body[field]
    target.refuses(target.path(route), json.dumps(body))


NOT_JSON = {
    "not a number": "NaN",
    "infinity": "Infinity",
    "minus infinity": "-Infinity",
    "leading zero": "01",
    "plus": "+1",
    "no integer part": ".5",
    "no fraction": "1.",
    "hexadecimal": "0x10",
    "single quotes": "'text'",
    "unknown word": "undefined",
    "comma too many": "[1,]",
    "unterminated": '"text',
    "bad escape": r'"\x41"',
    "raw control": '"a\x01b"',
    "raw newline": '"a\nb"',
    "raw nul": '"a\x00b"',
    "high surrogate": r'"\ud800"',
    "low surrogate": r'"\udc00 text"',
    "surrogates swapped": r'"\udc00\ud800"',
    "surrogate in depth": r'{"a": ["\ud83d"]}',
    "surrogate in a name": r'{"\ud83d": 1}',
    "duplicate name": '{"a": 1, "a": 1}',
    "duplicate in depth": '{"a": [{"b": 1, "c": 2, "b": 3}]}',
    "duplicate in disguise": r'{"a": 1, "\u0061": 2}',
    "deep lists": "[" * 10_000 + "]" * 10_000,
    "deep objects": '{"a":' * 10_000 + "1" + "}" * 10_000,
    "bottomless lists": "[" * 10_000,
}


@pytest.mark.parametrize("oddity", NOT_JSON)
def test_a_field_that_is_no_proper_json_is_refused(target: Target, oddity: str) -> None:
    for route, field in FIELDS + [(route, "a field that nobody reads") for route in ROUTES]:
        target.refuses(target.path(route), target.text(route, field, NOT_JSON[oddity]))


@each_route
def test_a_field_that_is_given_twice_is_refused(target: Target, route: str) -> None:
    path = target.path(route)
    once = json.dumps(target.bodies()[path])
    target.refuses(path, once[:-1] + ", " + once[1:])


@each_route
@pytest.mark.parametrize(
    "body",
    [b"{", b"}", b"{}{}", b"nonsense", b"\xff\xfe", b"\xef\xbb\xbf{", b'[{"a": 1}]', b"7", b'"text"'],
    ids=ascii,
)
def test_a_body_that_is_no_json_object_is_refused(target: Target, route: str, body: bytes) -> None:
    target.refuses(target.path(route), body)


@each_field
def test_text_that_is_no_utf8_is_refused(target: Target, route: str, field: str) -> None:
    for broken in [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\x80"]:
        text = target.text(route, field, '"…"').encode().replace("…".encode(), broken)
        target.refuses(target.path(route), text)


def test_every_cut_of_a_correct_body_is_refused(target: Target) -> None:
    whole = json.dumps(target.bodies()["/v1/audit"])
    for length in range(1, len(whole), 7):
        target.refuses("/v1/audit", whole[:length])


@each_route
@pytest.mark.parametrize("framing", ["with a length", "in chunks"])
def test_two_mebibytes_are_too_many(target: Target, route: str, framing: str) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"filler": "'
        for _ in range(2 * 16):
            yield b"x" * (MEBIBYTE // 16)
        yield b'"}'

    body = b"".join(pieces()) if framing == "with a length" else pieces()
    answer = target.send("POST", target.path(route), content=body)
    assert answer.status_code == 413, answer.text


@each_route
def test_a_compressed_bomb_is_not_unpacked(target: Target, route: str) -> None:
    bomb = gzip.compress(b"[" + b" " * 64 * MEBIBYTE + b"]")
    answer = target.send("POST", target.path(route), content=bomb, headers={"Content-Encoding": "gzip"})
    assert 400 <= answer.status_code < 500


def test_details_of_reasonable_depth_are_kept(target: Target) -> None:
    nested: Any = "bottom"
    for _ in range(30):
        nested = {"down": [nested]}
    created(target.send("POST", "/v1/audit", json={**target.bodies()["/v1/audit"], "details": nested}))
    assert found(target.tenant.get("/v1/audit"))["entries"][0]["details"] == nested


@each_route
@given(body=st.binary(max_size=200))
@random_input
def test_random_bytes_do_no_harm(target: Target, route: str, body: bytes) -> None:
    target.send_text(target.path(route), body)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30)
    | st.sampled_from(["admin", "spend:1", "spend:nan", "*", "audit:read", "\x00", "a" * 600, "é" * 200]),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=12,
)


@each_field
@given(value=json_values)
@random_input
def test_any_json_value_in_any_field_is_taken_or_refused(target: Target, route: str, field: str, value: Any) -> None:
    target.send_text(target.path(route), target.text(route, field, json.dumps(value)))


@each_route
@given(body=json_values)
@random_input
def test_any_json_value_as_the_body_is_taken_or_refused(target: Target, route: str, body: Any) -> None:
    target.send_text(target.path(route), json.dumps(body))


# -- Numbers and scopes --------------------------------------------------------------------------

NO_AMOUNTS = [
    "1e400",
    "-1e400",
    "1e999999999999999999",
    "-1",
    "-0.01",
    "-1e-9",
    "0.0000000001",
    "0.30000000000000004",
    "1e-10",
    "1e-400",
    "1." + "0" * 400 + "1",
    "9" * 400,
    "1e13",
    "[1]",
    '{"$numberDecimal": "1"}',
    '"NaN"',
    '"1e400"',
    '"-1"',
    '"١"',
]


@pytest.mark.parametrize(
    ("route", "field"),
    [("/v1/sessions", "spend_limit"), ("/v1/payments/authorize", "amount"), ("/v1/audit", "cost_usd")],
)
@pytest.mark.parametrize("token", NO_AMOUNTS, ids=short)
def test_what_is_no_exact_amount_is_refused(target: Target, route: str, field: str, token: str) -> None:
    target.refuses(target.path(route), target.text(route, field, token))


@pytest.mark.parametrize("token", ["1e400", "-1", "1.0", "1e3", "9" * 30, "0.5", "null", '"60"', "[]"])
def test_what_is_no_number_of_seconds_is_refused(target: Target, token: str) -> None:
    target.refuses("/v1/sessions", target.text("/v1/sessions", "ttl", token))


@pytest.mark.parametrize(
    "scope",
    [
        *["spend:nan", "spend:NaN", "spend:inf", "spend:-Infinity", "spend:-5", "spend:1e400", "spend:0.0000000001"],
        *["spend:", "spend:1.2.3", "spend:5:x", "", "a\nb", "a\x00b", "\x7f"],
    ],
    ids=ascii,
)
def test_a_scope_that_cannot_be_granted_opens_nothing(target: Target, scope: str) -> None:
    target.refuses("/v1/sessions", json.dumps({"agent_id": "agent", "scopes": ["read", scope]}))


# -- Keys, headers, queries, paths ---------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: "",
        lambda key: "hld_",
        lambda key: key[:-1],
        lambda key: key + "A",
        lambda key: key.swapcase(),
        lambda key: key[:12],
        lambda key: key + "," + key,
        lambda key: key * 100,
        lambda key: "x" * 20_000,
        lambda key: "null",
        lambda key: "' OR 1=1 --",
    ],
)
def test_what_only_resembles_a_key_opens_nothing(target: Target, spoil: Any) -> None:
    headers = {"Authorization": f"Bearer {spoil(target.tenant.key)}".strip()}
    for method, path in [("GET", "/v1/audit"), ("POST", "/v1/keys"), ("POST", "/v1/sessions")]:
        answer = target.send(method, path, headers=headers, content=b'{"agent_id": "a"}')
        assert answer.status_code == 401, answer.text


def test_a_revoked_key_can_do_nothing_at_all(target: Target) -> None:
    key = created(target.send("POST", "/v1/keys", json={}))["key"]
    found(target.send("DELETE", f"/v1/keys/{key[:12]}"))
    for path, body in target.bodies().items():
        assert target.send("POST", path, key=key, json=body).status_code == 401
    for path in ["/v1/keys", "/v1/sessions", "/v1/audit", "/v1/usage", "/v1/ledger/export"]:
        assert target.send("GET", path, key=key).status_code == 401


# Every byte that a client can put into a header without ending it; the others are for `NONSENSE`.
header_bytes = (
    st.lists(st.sampled_from([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)]), max_size=100)
    .map(bytes)
    .map(lambda value: value.strip(b" \t"))
)


@given(value=header_bytes)
@random_input
def test_random_bytes_are_no_key(target: Target, value: bytes) -> None:
    for name in ["Authorization", "X-API-Key"]:
        answer = target.send_bare("GET", "/v1/audit", headers={name.encode(): value})
        assert 400 <= answer.status_code < 500


@pytest.mark.parametrize(
    "name", ["Idempotency-Key", "X-Request-ID", "X-Forwarded-For", "Origin", "Content-Type", "Accept"]
)
@given(value=header_bytes)
@random_input
def test_random_bytes_in_a_header_do_no_harm(target: Target, name: str, value: bytes) -> None:
    headers = {b"Authorization": f"Bearer {target.tenant.key}".encode(), name.encode(): value}
    answer = target.send_bare("POST", "/v1/sessions", headers=headers, content=b'{"agent_id": "a"}')
    assert answer.headers["x-request-id"].isascii()


@pytest.mark.parametrize("name", ["Idempotency-Key", "X-Request-ID", "Origin", "User-Agent", "X-Unknown"])
def test_a_long_header_is_taken_or_refused(target: Target, name: str) -> None:
    for length in [300, 4_000, 30_000]:
        target.send("POST", "/v1/sessions", json={"agent_id": "a"}, headers={name: "x" * length})


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/audit", "limit=abc"),
        ("/v1/audit", "limit=1.5"),
        ("/v1/audit", "limit=99999999999999999999999"),
        ("/v1/audit", "limit=%00"),
        ("/v1/sessions", "limit=abc"),
        ("/v1/sessions", "limit=NaN"),
        ("/v1/usage", "month=2026-13"),
        ("/v1/usage", "month=2026-00"),
        ("/v1/usage", "month=yesterday"),
        ("/v1/usage", "month=99999-01"),
    ],
)
def test_a_query_that_means_nothing_is_refused(target: Target, path: str, query: str) -> None:
    answer = target.send("GET", f"{path}?{query}")
    assert 400 <= answer.status_code < 500, answer.text


@pytest.mark.parametrize("path", ["/v1/audit", "/v1/audit/spend", "/v1/sessions", "/v1/usage", "/v1/keys", "/healthz"])
@pytest.mark.parametrize(
    "query",
    [
        *["limit=-1", "limit=", "limit=1&limit=2", "session_id=%ff", "agent_id=%00", "tool=%ED%A0%80"],
        *["session_id[]=1", "flagged=maybe", "month=%ff", "%ff=%ff", "&&==&", "x=" + "y" * 20_000, "a=1&" * 2_000],
    ],
    ids=short,
)
def test_an_absurd_query_does_no_harm(target: Target, path: str, query: str) -> None:
    target.send("GET", f"{path}?{query}")


@pytest.mark.parametrize(
    "name",
    ["%00", "%ff", "%2F", "..%2F..", "%ED%A0%80", "x" * 200, "x" * 8_000, "%25", "%", "%zz", quote("é☃😀"), "a%0d%0ab"],
    ids=short,
)
def test_an_absurd_name_in_the_path_does_no_harm(target: Target, name: str) -> None:
    for method, path in [
        ("GET", f"/v1/sessions/{name}"),
        ("DELETE", f"/v1/sessions/{name}"),
        ("DELETE", f"/v1/keys/{name}"),
    ]:
        assert 400 <= target.send(method, path).status_code < 500, path
    target.send("POST", f"/v1/sessions/{name}/check", json={"scope": "read"})


# -- Below HTTP ----------------------------------------------------------------------------------


def with_body(headers: str, body: bytes) -> bytes:
    """A request that would be refused anyway, so that whatever is made of it must be a 4xx."""
    head = f"POST /v1/sessions HTTP/1.1\r\nHost: haldir\r\nAuthorization: Bearer KEY\r\n{headers}\r\n\r\n"
    return head.encode() + body


NONSENSE = {
    "nothing": b"",
    "binary": b"\x00\xff\xfe\x80garbage\r\n\r\n",
    "a greeting in TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xab" * 64,
    "a greeting in HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no path": b"GET\r\n\r\n",
    "no version": b"GET /v1/audit\r\n\r\n",
    "unknown version": b"GET /v1/audit HTTP/9.9\r\n\r\n",
    "half a request": b"GET /v1/audit HTTP/1.1\r\nHost: ha",
    "a path of a mebibyte": b"GET /" + b"a" * MEBIBYTE + b" HTTP/1.1\r\n\r\n",
    "a header of a mebibyte": b"GET /v1/audit HTTP/1.1\r\nHost: haldir\r\nX: " + b"a" * MEBIBYTE + b"\r\n\r\n",
    "ten thousand headers": b"GET /v1/audit HTTP/1.1\r\n" + b"X: x\r\n" * 10_000 + b"\r\n",
    "a header without a colon": b"GET /v1/audit HTTP/1.1\r\nHost haldir\r\n\r\n",
    "a header name with a space": b"GET /v1/audit HTTP/1.1\r\nBad Name: x\r\n\r\n",
    "a header with a NUL": b"GET /v1/audit HTTP/1.1\r\nX: a\x00b\r\n\r\n",
    "a header with an escape": b"GET /v1/audit HTTP/1.1\r\nX: \x1b[2J\r\n\r\n",
    "a header with a bare line end": b"GET /v1/audit HTTP/1.1\r\nX: a\rb\r\n\r\n",
    "a chunk size in letters": with_body("Transfer-Encoding: chunked", b"ZZ\r\n{}\r\n0\r\n\r\n"),
    "a chunk size below zero": with_body("Transfer-Encoding: chunked", b"-2\r\n{}\r\n0\r\n\r\n"),
    "a chunk size beyond measure": with_body("Transfer-Encoding: chunked", b"F" * 40 + b"\r\n{}\r\n0\r\n\r\n"),
    "a chunk without an end": with_body("Transfer-Encoding: chunked", b"2\r\n{}XX0\r\n\r\n"),
    "chunks that stop": with_body("Transfer-Encoding: chunked", b"10\r\n{"),
    "an unknown encoding": with_body("Transfer-Encoding: rot13", b"{}"),
    "a length in letters": with_body("Content-Length: two", b"{}"),
    "a length below zero": with_body("Content-Length: -2", b"{}"),
    "a length beyond measure": with_body("Content-Length: 99999999999999999999999", b"{}"),
    "two lengths": with_body("Content-Length: 2\r\nContent-Length: 3", b"{}"),
    "a length and chunks": with_body("Content-Length: 2\r\nTransfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n"),
    "a length that is not kept": with_body("Content-Length: 200", b"{}"),
}


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_nonsense_on_the_wire_is_answered_4xx_or_hung_up_on(target: Target, nonsense: str) -> None:
    with target.unchanged_unless_accepted():
        said = converse(target.tenant.server, NONSENSE[nonsense].replace(b"KEY", target.tenant.key.encode()))
    assert said == b"" or said.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), said[:200]


def test_callers_who_hang_up_in_the_middle_do_no_harm(target: Target) -> None:
    whole = with_body("Content-Length: 1000", b'{"agent_id": "').replace(b"KEY", target.tenant.key.encode())
    with target.unchanged_unless_accepted():
        for length in range(0, len(whole), 11):
            with connection(target.tenant.server) as wire:
                wire.sendall(whole[:length])
    assert found(target.tenant.server.call("GET", "/readyz"))["ready"] is True


def converse(server: Server, request: bytes) -> bytes:
    """Sends bytes, says that no more will come, and gives everything that comes back."""
    said = b""
    with connection(server) as wire:
        try:
            wire.sendall(request)
            wire.shutdown(socket.SHUT_WR)
            while piece := wire.recv(65_536):
                said += piece
        except TimeoutError:
            raise
        except OSError:
            pass  # hung up on us before it had read everything
    return said


def connection(server: Server) -> socket.socket:
    address = urlsplit(server.base_url)
    return socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S)
