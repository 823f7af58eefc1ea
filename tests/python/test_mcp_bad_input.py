"""Is nonsense turned away clearly, whatever is wrong with it, where Haldir speaks MCP?"""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import Server, Tenant, at_once, found, refusal
from mcp_connection import NEWEST as STATELESS

ACCEPT = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
META = {
    "io.modelcontextprotocol/protocolVersion": STATELESS,
    "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}

PARSE_ERROR, INVALID_REQUEST, UNKNOWN_METHOD, INVALID_PARAMS = -32700, -32600, -32601, -32602


def older(method: str, params: Any = None, **more: Any) -> dict[str, Any]:
    """A message of the generation with `initialize`."""
    return {"jsonrpc": "2.0", "id": 1, "method": method} | ({} if params is None else {"params": params}) | more


def post(tenant: Tenant, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return tenant.call("POST", "/mcp", content=content, headers=ACCEPT | headers)


def stateless(tenant: Tenant, method: str, params: dict[str, Any], **headers: str) -> httpx.Response:
    """A message of the stateless generation, with headers that fit unless they are given."""
    fitting = {"MCP-Protocol-Version": STATELESS, "Mcp-Method": method}
    if isinstance(params.get("name"), str):
        fitting["Mcp-Name"] = params["name"]
    return post(tenant, older(method, {"_meta": META, **params}), **fitting | headers)


def message(answer: httpx.Response) -> dict[str, Any]:
    """The message of an answer, from its body or from the one event of a stream that has data."""
    text = answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        text = next(line[5:] for line in text.splitlines() if line.startswith("data:") and line[5:].strip())
    return json.loads(text)


def error(answer: httpx.Response, code: int) -> dict[str, Any]:
    """The error of the protocol that an answer is."""
    assert answer.status_code < 500, answer.text
    said = message(answer)
    assert said["jsonrpc"] == "2.0" and said["error"]["code"] == code, said
    return said


def check_alive(tenant: Tenant) -> None:
    listed = message(post(tenant, older("tools/list")))
    assert any(tool["name"] == "haldir_create_session" for tool in listed["result"]["tools"])


NO_MESSAGES: list[tuple[bytes, int]] = [
    (b"", PARSE_ERROR),
    (b"   \r\n", PARSE_ERROR),
    (b"{", PARSE_ERROR),
    (b"{}", PARSE_ERROR),
    (b"[]", PARSE_ERROR),
    (b"\xff\xfe{}", PARSE_ERROR),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping"} trailing', PARSE_ERROR),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping"}{"jsonrpc":"2.0","id":2,"method":"ping"}', PARSE_ERROR),
    (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', INVALID_REQUEST),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":NaN}}', PARSE_ERROR),
    (b"null", INVALID_REQUEST),
    (b"17", INVALID_REQUEST),
    (b'"ping"', INVALID_REQUEST),
    (b"true", INVALID_REQUEST),
    (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', INVALID_REQUEST),
    (b'[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"tools/list"}]', INVALID_REQUEST),
    (b"[1]", INVALID_REQUEST),
    (b'{"jsonrpc":"2.0","id":1}', INVALID_REQUEST),
    (b'{"id":1,"method":"ping"}', INVALID_REQUEST),
    (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', INVALID_REQUEST),
    (b'{"jsonrpc":2.0,"id":1,"method":"ping"}', INVALID_REQUEST),
    (b'{"jsonrpc":"2.0","id":1,"method":7}', INVALID_REQUEST),
    (b'{"jsonrpc":"2.0","id":1,"method":null}', INVALID_REQUEST),
    (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', INVALID_REQUEST),
    (b'{"jsonrpc":"2.0","id":[1],"method":"ping"}', INVALID_REQUEST),
    (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', INVALID_REQUEST),
    (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', INVALID_REQUEST),
    (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', INVALID_REQUEST),
    (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', INVALID_REQUEST),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}', INVALID_REQUEST),
]


@pytest.mark.parametrize(("body", "code"), NO_MESSAGES)
def test_what_is_no_message_is_refused(tenant: Tenant, body: bytes, code: int) -> None:
    answer = post(tenant, body)
    assert answer.status_code == 400, answer.text
    error(answer, code)


CALL = {"name": "haldir_get_session", "arguments": {"session_id": "ses_1"}}


@pytest.mark.parametrize(
    "params",
    [
        7,
        "text",
        [],
        [CALL],
        {},
        {"name": 7},
        {"name": None},
        {"name": []},
        CALL | {"arguments": []},
        CALL | {"arguments": "text"},
        CALL | {"arguments": 1},
        CALL | {"_meta": 7},
    ],
)
def test_wrong_parameters_of_a_call_are_refused(tenant: Tenant, params: Any) -> None:
    answer = post(tenant, older("tools/call", params))
    assert answer.status_code < 500, answer.text
    assert message(answer)["error"]["code"] in (INVALID_REQUEST, INVALID_PARAMS), answer.text


@pytest.mark.parametrize("arguments", [None, {}, {"session_id": 7}, {"session_id": None}, {"session_id": "x" * 100_000}])
def test_wrong_arguments_are_a_failed_call(tenant: Tenant, arguments: Any) -> None:
    answer = post(tenant, older("tools/call", {"name": "haldir_get_session", "arguments": arguments}))
    said = message(answer)
    assert answer.status_code == 200 and said["result"]["isError"] is True, said
    assert len(said["result"]["content"][0]["text"]) < 2000


@pytest.mark.parametrize("method", ["", "nonsense", "tools/", "TOOLS/LIST", "initialize/x", "rpc.discover", "x" * 200_000])
def test_unknown_methods_are_refused(tenant: Tenant, method: str) -> None:
    said = error(post(tenant, older(method)), UNKNOWN_METHOD)
    assert said["id"] == 1


def test_unknown_methods_of_the_stateless_generation_are_404(tenant: Tenant) -> None:
    for method in ("nonsense", "initialize", "ping", "logging/setLevel", "resources/subscribe"):
        answer = stateless(tenant, method, {})
        assert answer.status_code == 404, answer.text
        error(answer, UNKNOWN_METHOD)


def test_headers_that_do_not_fit_the_message_are_refused(tenant: Tenant) -> None:
    for headers in (
        {"Mcp-Method": "tools/call"},
        {"Mcp-Method": ""},
        {"MCP-Protocol-Version": "2025-11-25"},
        {"MCP-Protocol-Version": "tomorrow"},
        {"MCP-Protocol-Version": ""},
    ):
        answer = stateless(tenant, "tools/list", {}, **headers)
        assert answer.status_code == 400, f"{headers} {answer.text}"
    answer = stateless(tenant, "tools/call", CALL, **{"Mcp-Name": "haldir_revoke_session"})
    assert answer.status_code == 400, answer.text


def test_numbers_are_taken_as_they_are_written(tenant: Tenant) -> None:
    session = tenant.open_session(scopes=["spend"], spend_limit=1)
    call = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"haldir_authorize_payment","arguments":{"session_id":"%s","amount":%s}}}'
    for amount in ("-1", "1e400", "-0.1", "NaN", "1e-30", '"1"', "true", "[1]", "99999999999999999999999999999999"):
        answer = post(tenant, (call % (session, amount)).encode())
        assert answer.status_code < 500, answer.text
        said = message(answer)
        assert "error" in said or said["result"]["isError"] is True, f"{amount} {said}"
    for _ in range(10):
        said = message(post(tenant, (call % (session, "0.1")).encode()))
        assert json.loads(said["result"]["content"][0]["text"])["authorized"] is True
    said = message(post(tenant, (call % (session, "0.01")).encode()))
    assert json.loads(said["result"]["content"][0]["text"])["authorized"] is False


def test_depth_and_size_are_bounded(tenant: Tenant) -> None:
    for depth in (200, 100_000):
        nest = b"[" * depth + b"]" * depth
        body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"haldir_get_session","arguments":{"a":%s}}}'
        answer = post(tenant, body % nest)
        assert answer.status_code == 400, answer.text[:300]
    wide = {f"key-{number}": number for number in range(20_000)}
    assert post(tenant, older("tools/call", {"name": "haldir_get_session", "arguments": wide})).status_code < 500
    huge = older("tools/call", {"name": "haldir_get_session", "arguments": {"session_id": "x" * (20 << 20)}})
    refusal(post(tenant, huge), 413)
    check_alive(tenant)


def test_a_key_is_needed_and_its_scopes_hold(server: Server, tenant: Tenant) -> None:
    body = json.dumps(older("tools/list"))
    refusal(server.call("POST", "/mcp", content=body, headers=ACCEPT), 401)
    refusal(server.call("POST", "/mcp", content=body, headers=ACCEPT | {"Authorization": "Bearer hld_wrong"}), 401)
    narrow = tenant.mint("audit:read")
    call = older("tools/call", {"name": "haldir_store_secret", "arguments": {"name": "a", "value": "b"}})
    answer = tenant.call("POST", "/mcp", key=narrow, json=call, headers=ACCEPT)
    assert message(answer)["result"]["isError"] is True, answer.text
    assert found(tenant.get("/v1/secrets"))["count"] == 0


def test_other_methods_and_types(tenant: Tenant) -> None:
    for method in ("PUT", "PATCH"):
        refusal(tenant.call(method, "/mcp", json={}), 405)
    text = tenant.call("POST", "/mcp", content=b"{}", headers=ACCEPT | {"Content-Type": "text/plain"})
    assert 400 <= text.status_code < 500
    html = tenant.call("POST", "/mcp", json=older("tools/list"), headers={"Accept": "text/html"})
    assert 400 <= html.status_code < 500


def test_pages_of_others_and_strange_hosts_are_turned_away(tenant: Tenant) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}):
        assert post(tenant, older("tools/list"), **headers).status_code == 403, headers


VALID = [
    older("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}),
    older("tools/list"),
    older("tools/call", CALL | {"_meta": META}),
    older("prompts/get", {"name": "budget-check", "arguments": {"session_id": "ses_1"}}),
    older("resources/read", {"uri": "haldir://audit"}),
    older("server/discover", {"_meta": META}),
]
SCRAPS = st.sampled_from([b"", b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"-1", b"1e999", b"\\u0000", b"\xff", b"\x00"])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.sampled_from(VALID).map(lambda it: json.dumps(it).encode()),
    cut=st.integers(0, 400),
    length=st.integers(0, 6),
    scrap=SCRAPS,
    is_stateless=st.booleans(),
)
def test_damaged_messages_never_break_it(
    tenant: Tenant, body: bytes, cut: int, length: int, scrap: bytes, is_stateless: bool
) -> None:
    cut = min(cut, len(body))
    headers = {"MCP-Protocol-Version": STATELESS, "Mcp-Method": "tools/list"} if is_stateless else {}
    answer = post(tenant, body[:cut] + scrap + body[cut + length :], **headers)
    assert answer.status_code < 500, answer.text
    if answer.content:
        said = message(answer)
        assert "error" in said or "result" in said, said


def test_nonsense_of_many_does_not_slow_anybody_down(tenant: Tenant) -> None:
    def nonsense(number: int) -> int:
        statuses = [post(tenant, body).status_code for body, _ in NO_MESSAGES]
        return max(statuses)

    assert max(at_once(8, nonsense)) < 500
    check_alive(tenant)
