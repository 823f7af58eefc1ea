"""Haldir as an MCP server: its tools, prompts and resources, over HTTP and stdio, in both generations of the protocol."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness import Server, Tenant, found, free_port, program, refusal
from mcp_connection import GENERATIONS, McpClient, ProtocolError, connected

TOOLS = """
    haldir_create_session haldir_get_session haldir_check_permission haldir_revoke_session haldir_store_secret
    haldir_get_secret haldir_list_secrets haldir_log_audit_action haldir_query_audit_trail haldir_get_spend
    haldir_verify_audit_chain haldir_get_tree_head haldir_get_inclusion_proof haldir_get_consistency_proof
    haldir_request_approval haldir_get_approval_status haldir_compliance_score haldir_build_evidence_pack
    haldir_authorize_payment
""".split()

# Read-only, destructive, idempotent, as the contract has them for the older ten.
HINTS = {
    "haldir_create_session": (False, False, False),
    "haldir_get_session": (True, False, True),
    "haldir_revoke_session": (False, True, True),
    "haldir_check_permission": (True, False, True),
    "haldir_store_secret": (False, False, True),
    "haldir_get_secret": (True, False, True),
    "haldir_authorize_payment": (False, False, False),
    "haldir_log_audit_action": (False, False, False),
    "haldir_query_audit_trail": (True, False, True),
    "haldir_get_spend": (True, False, True),
}


def over_http(tenant: Tenant, key: str | None = None) -> dict[str, Any]:
    return {"url": tenant.server.base_url + "/mcp", "key": key or tenant.key}


def over_stdio(tenant: Tenant, **environment: str) -> dict[str, Any]:
    key = {"HALDIR_API_KEY": tenant.key, "HALDIR_BASE_URL": tenant.server.base_url}
    return {"command": [str(program()), "mcp", "serve"], "env": {"HOME": str(tenant.server.directory)} | key | environment}


@pytest.fixture(params=[(way, generation) for way in ("http", "stdio") for generation in GENERATIONS], ids="-".join)
def client(tenant: Tenant, request: pytest.FixtureRequest) -> Iterator[McpClient]:
    """A client of each generation, over each way."""
    way, generation = request.param
    place = over_http(tenant) if way == "http" else over_stdio(tenant)
    with connected(place, generation) as connection:
        yield connection


@pytest.fixture
def http(tenant: Tenant) -> Iterator[McpClient]:
    with connected(over_http(tenant), "older") as connection:
        yield connection


def rpc(tenant: Tenant, body: Any, **headers: str) -> httpx.Response:
    """A message as it is sent, without a client that would know better."""
    content = body if isinstance(body, (str, bytes)) else json.dumps(body)
    return tenant.call("POST", "/mcp", content=content, headers={"Content-Type": "application/json", **headers})


def call_body(tool: str, arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


# -- Tools --------------------------------------------------------------------------------------


def test_every_tool_is_listed_and_gives_what_its_schema_says(client: McpClient, tenant: Tenant) -> None:
    """The client holds every structured result against the tool's output schema, and fails if it does not fit."""
    listed = client.tools()
    assert list(listed) == TOOLS
    for tool in listed.values():
        assert tool["title"] and tool["description"], tool
        assert tool["inputSchema"]["type"] == tool["outputSchema"]["type"] == "object"
    for name, hints in HINTS.items():
        told = listed[name]["annotations"]
        assert (told["readOnlyHint"], told["destructiveHint"], told["idempotentHint"]) == hints, name
        assert told["openWorldHint"] is False and told["title"] == listed[name]["title"]

    used = set()

    def call(tool: str, /, **arguments: Any) -> Any:
        used.add(tool)
        return client.call(tool, arguments).value()

    session = call("haldir_create_session", agent_id="a", scopes=["read", "spend"], spend_limit=10.5, ttl=600)
    id = session["session_id"]
    child = call("haldir_create_session", agent_id="b", scopes=["read"], parent_session_id=id, spend_limit=1)
    assert child["delegation_depth"] == 1
    assert call("haldir_get_session", session_id=id)["spend_limit"] == 10.5
    assert call("haldir_check_permission", session_id=id, scope="read")["allowed"] is True
    assert call("haldir_check_permission", session_id="ses_nobody", scope="read")["allowed"] is False
    assert call("haldir_store_secret", name="db/password", value="s3cret", scope_required="read")["stored"] is True
    assert call("haldir_get_secret", name="db/password", session_id=id)["value"] == "s3cret"
    assert call("haldir_list_secrets") == {"secrets": ["db/password"], "count": 1}
    action = {"session_id": id, "tool": "search", "action": "look", "cost_usd": 0.25, "details": {"q": [1, {"a": None}]}}
    entry = call("haldir_log_audit_action", **action)["entry_id"]
    trail = call("haldir_query_audit_trail", session_id=id, flagged=False, limit=10)
    assert [(it["entry_id"], it["details"]) for it in trail["entries"]] == [(entry, action["details"])]
    assert call("haldir_get_spend", agent_id="a") == {"total_usd": 0.25, "action_count": 1, "by_tool": {"search": 0.25}}
    assert call("haldir_verify_audit_chain")["verified"] is True
    size = call("haldir_get_tree_head")["tree_size"]
    assert call("haldir_get_inclusion_proof", entry_id=entry)["entry_id"] == entry
    assert call("haldir_get_consistency_proof", first=1, second=size)["second_size"] == size
    asked = call("haldir_request_approval", session_id=id, action="pay", reason="because", ttl=60, details={"a": 1})
    status = call("haldir_get_approval_status", request_id=asked["request_id"])
    assert status["status"] == "pending"
    assert call("haldir_get_approval_status", approval_id=asked["request_id"]) == status
    assert 0 <= call("haldir_compliance_score")["score"] <= 100
    assert call("haldir_build_evidence_pack", since="2020-01-01", until="2999-01-01")["audit_trail"]
    assert call("haldir_authorize_payment", session_id=id, amount=0.1, currency="EUR")["amount"] == 0.1
    denied = call("haldir_authorize_payment", session_id=id, amount=10.41)
    assert denied["authorized"] is False and "budget" in denied["reason"]
    assert call("haldir_get_session", session_id=id)["remaining_budget"] == 10.4
    assert call("haldir_revoke_session", session_id=id)["revoked"] is True
    assert call("haldir_check_permission", session_id=child["session_id"], scope="read")["allowed"] is False
    assert used == set(TOOLS)
    assert len(tenant.events("session.opened")) == 2


def test_errors_are_results_that_say_why(client: McpClient) -> None:
    for tool, arguments, why in [
        ("haldir_get_session", {"session_id": "ses_nobody"}, "not found"),
        ("haldir_get_session", {}, "Input validation error: 'session_id' is a required property"),
        ("haldir_get_session", {"session_id": ".."}, "Input validation error: "),
        ("haldir_create_session", {"agent_id": 7}, "Input validation error: 'agent_id': 7 is not of type 'string'"),
        ("haldir_create_session", {"agent_id": "a", "ttl": -1}, "Input validation error: 'ttl': -1 is less than"),
        ("haldir_create_session", {"agent_id": "a" * 129}, "agent_id"),
        ("haldir_authorize_payment", {"session_id": "s", "amount": -5}, "Input validation error: 'amount': -5"),
        ("haldir_authorize_payment", {"session_id": "s", "amount": "5"}, "Input validation error: 'amount': a text"),
        ("haldir_log_audit_action", {"session_id": "s", "tool": "t", "action": "a", "cost_usd": -1}, "'cost_usd': -1"),
        ("haldir_get_consistency_proof", {"first": 5, "second": 2}, "first"),
        ("haldir_get_approval_status", {}, "Input validation error: 'request_id' is a required property"),
        ("haldir_drop_tables", {}, "unknown"),
    ]:
        said = client.call(tool, arguments).error()
        assert why in said, (tool, arguments, said)


def test_a_negative_amount_changes_no_budget(http: McpClient, tenant: Tenant) -> None:
    session = tenant.open_session(scopes=["spend"], spend_limit=10)
    for amount in [-5, -0.01, 0, 0.001, 1e300, 1.0000000001]:
        assert http.call("haldir_authorize_payment", {"session_id": session, "amount": amount}).is_error
    assert http.call("haldir_get_session", {"session_id": session}).value()["remaining_budget"] == 10


def test_the_older_names_are_the_same_tools(http: McpClient, tenant: Tenant) -> None:
    session = http.call("createSession", {"agent_id": "old", "scopes": ["read", "spend"], "spend_limit": 5}).value()
    id = session["session_id"]
    assert http.call("getSession", {"session_id": id}).value()["agent_id"] == "old"
    assert http.call("checkPermission", {"session_id": id, "scope": "read"}).value()["allowed"] is True
    assert http.call("storeSecret", {"name": "n", "value": "v"}).value()["stored"] is True
    assert http.call("getSecret", {"name": "n", "session_id": id}).value()["value"] == "v"
    assert http.call("authorizePayment", {"session_id": id, "amount": 1}).value()["authorized"] is True
    logged = http.call("logAction", {"session_id": id, "action": "a", "details": "in words"}).value()
    flagged = http.call("getAuditTrail", {"flagged_only": True}).value()
    assert flagged["count"] == 0
    assert http.call("getAuditTrail", {}).value()["entries"][0]["entry_id"] == logged["entry_id"]
    assert http.call("getSpend", {"session_id": id}).value()["total_usd"] == 0
    assert http.call("revokeSession", {"session_id": id}).value() == {"revoked": True, "session_id": id}
    assert tenant.record().count("session.opened") == 1


def test_amounts_keep_the_digits_that_were_written(tenant: Tenant) -> None:
    """A binary float would make the first amount legal, and the second another one."""
    session = tenant.open_session(scopes=["spend"], spend_limit=1_000_000)

    def pay(amount: str) -> Any:
        body = json.dumps(call_body("haldir_authorize_payment", {"session_id": session, "amount": 0}))
        return found(rpc(tenant, body.replace('"amount": 0', f'"amount": {amount}')))["result"]

    assert pay("0.10000000000000000001")["isError"] is True
    paid = pay("123456.123456789")
    assert json.loads(paid["content"][0]["text"])["remaining_budget"] == 876_543.876543211
    assert '"amount":123456.123456789,' in paid["content"][0]["text"]


def test_a_call_with_the_same_idempotency_key_is_made_once(http: McpClient, tenant: Tenant) -> None:
    session = tenant.open_session(scopes=["spend"], spend_limit=10)
    payment = {"session_id": session, "amount": 3, "idempotency_key": "order-17"}
    first = http.call("haldir_authorize_payment", payment).value()
    assert http.call("haldir_authorize_payment", payment).value() == first
    assert "used before" in http.call("haldir_authorize_payment", payment | {"amount": 4}).error()
    assert http.call("haldir_get_session", {"session_id": session}).value()["remaining_budget"] == 7


# -- What applies to tools as to REST --------------------------------------------------------------


def test_the_scopes_of_the_key_hold_and_a_denial_is_on_record(tenant: Tenant) -> None:
    key = tenant.mint("audit:read")
    with connected(over_http(tenant, key), "older") as reader:
        assert reader.call("haldir_query_audit_trail").value()["count"] == 0
        for tool, arguments, scope in [
            ("haldir_store_secret", {"name": "n", "value": "v"}, "vault:write"),
            ("storeSecret", {"name": "n", "value": "v"}, "vault:write"),
            ("haldir_create_session", {"agent_id": "a"}, "sessions:write"),
            ("haldir_authorize_payment", {"session_id": "s", "amount": 1}, "payments:write"),
        ]:
            assert scope in reader.call(tool, arguments).error()
        with pytest.raises(ProtocolError, match="sessions:read"):
            reader.do("read_resource", "haldir://sessions/ses_1")
    assert "secret.stored" not in tenant.record()
    denied = tenant.events("access.denied")
    assert "POST /v1/secrets" in json.dumps(denied)


def test_a_tenant_sees_nothing_of_another(http: McpClient, stranger: Tenant) -> None:
    session = stranger.open_session()
    assert "not found" in http.call("haldir_get_session", {"session_id": session}).error()
    assert http.call("haldir_check_permission", {"session_id": session, "scope": "read"}).value()["allowed"] is False
    with pytest.raises(ProtocolError, match="no such resource"):
        http.do("read_resource", f"haldir://sessions/{session}")


def test_calls_are_metered_and_limited(start_server: Any) -> None:
    server: Server = start_server(options=["--requests-per-hour", "2"])
    tenant = server.found_tenant()
    with connected(over_http(tenant), "older") as client:
        for _ in range(2):
            client.call("haldir_list_secrets").value()
        assert "rate limit exceeded" in client.call("haldir_list_secrets").error()
        assert len(client.tools()) == len(TOOLS), "asking what there is costs nothing"


def test_a_revoked_key_ends_what_it_could_do(tenant: Tenant) -> None:
    key = tenant.mint("*")
    assert tenant.delete(f"/v1/keys/{key[:12]}").status_code == 200
    refusal(rpc(tenant, call_body("haldir_list_secrets", {}), Authorization=f"Bearer {key}"), 401, "unauthorized")


def test_a_key_or_a_secret_is_in_no_log(start_server: Any) -> None:
    """Not even when everything is logged."""
    server: Server = start_server(options=["--log-level", "trace"])
    tenant = server.found_tenant()
    with connected(over_http(tenant), "newer") as client:
        client.call("haldir_store_secret", {"name": "n", "value": "hunter2-in-the-log"}).value()
        session = client.call("haldir_create_session", {"agent_id": "a"}).value()["session_id"]
        client.call("haldir_get_secret", {"name": "n", "session_id": session}).value()
    server.stop()
    logged = "".join(log.read_text() for log in server.directory.glob("*.log"))
    server.start()
    assert "POST /mcp" in logged
    assert "hunter2-in-the-log" not in logged and tenant.key not in logged


# -- Prompts and resources ---------------------------------------------------------------------------


def test_prompts_are_listed_and_filled_in(client: McpClient) -> None:
    listed = {prompt["name"]: prompt for prompt in client.do("list_prompts")["prompts"]}
    assert set(listed) == {"security-audit", "budget-check"}
    assert [it["required"] for it in listed["budget-check"]["arguments"]] == [True]
    assert [it["name"] for it in listed["security-audit"]["arguments"]] == ["session_id"]
    for name, arguments in [("security-audit", {}), ("budget-check", {"session_id": "ses_1"})]:
        (message,) = client.do("get_prompt", name, arguments)["messages"]
        assert message["role"] == "user" and "haldir_get_spend" in message["content"]["text"]
    for name, arguments in [("budget-check", {}), ("nonsense", {})]:
        with pytest.raises(ProtocolError) as raised:
            client.do("get_prompt", name, arguments)
        assert raised.value.code == -32602


def test_resources_are_listed_and_read(client: McpClient) -> None:
    session = client.call("haldir_create_session", {"agent_id": "a"}).value()["session_id"]
    logged = client.call("haldir_log_audit_action", {"session_id": session, "tool": "t", "action": "a"}).value()
    uris = {resource["uri"]: resource["mimeType"] for resource in client.do("list_resources")["resources"]}
    assert uris == {"haldir://audit/trail": "application/json", "haldir://ledger/checkpoint": "text/plain"}
    templates = [it["uriTemplate"] for it in client.do("list_resource_templates")["resourceTemplates"]]
    assert templates == ["haldir://audit/entries/{entry_id}", "haldir://sessions/{session_id}"]

    def read(uri: str) -> str:
        (content,) = client.do("read_resource", uri)["contents"]
        assert content["uri"] == uri
        return content["text"]

    assert json.loads(read("haldir://audit/trail"))["entries"][0]["entry_id"] == logged["entry_id"]
    assert read("haldir://ledger/checkpoint").startswith("haldir/ledger/")
    assert json.loads(read(f"haldir://audit/entries/{logged['entry_id']}"))["audit_path"]
    assert json.loads(read(f"haldir://sessions/{session}"))["agent_id"] == "a"
    for nothing in ["haldir://sessions/ses_nobody", "haldir://sessions/..", "haldir://nothing", "file:///etc/passwd"]:
        with pytest.raises(ProtocolError) as raised:
            client.do("read_resource", nothing)
        assert raised.value.code in (-32002, -32602), nothing


# -- The transport --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("", 400, -32700),
        ("{}", 400, -32700),
        ("[]", 400, -32700),
        ("{", 400, -32700),
        ("\xff", 400, -32700),
        ("null", 400, -32600),
        ('"text"', 400, -32600),
        ([{"jsonrpc": "2.0", "id": 1, "method": "ping"}], 400, -32600),
        ({"jsonrpc": "2.0", "id": None, "method": "ping"}, 400, -32600),
        ({"jsonrpc": "2.0", "id": {}, "method": "ping"}, 400, -32600),
        ({"jsonrpc": "1.0", "id": 1, "method": "ping"}, 400, -32600),
        ({"jsonrpc": "2.0", "id": 1}, 400, -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": 7}, 400, -32600),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}', 400, -32600),
        ("[" * 200_000, 400, -32700),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","params":' + "[" * 100 + "]" * 100 + "}", 400, -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": "no/such"}, 200, -32601),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/call"}, 200, -32602),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": None}, 200, -32602),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": 7}}, 200, -32602),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x", "arguments": []}}, 200, -32602),
        ({"jsonrpc": "2.0", "id": 1, "method": "prompts/get", "params": {}}, 200, -32602),
        ({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": 1}}, 200, -32602),
    ],
)
def test_what_is_no_message_is_refused_as_json_rpc(tenant: Tenant, body: Any, status: int, code: int) -> None:
    answer = rpc(tenant, body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["code"] == code, answer.text
    assert answer.json()["jsonrpc"] == "2.0"


def test_null_arguments_are_none(tenant: Tenant) -> None:
    answer = found(rpc(tenant, call_body("haldir_list_secrets", None)))
    assert answer["result"]["structuredContent"]["count"] == 0
    assert len(found(rpc(tenant, {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": None}))["result"]["tools"]) == 19


def test_a_client_that_knows_json_alone_gets_json(tenant: Tenant) -> None:
    """As older clients call: without a word about event streams, and without `initialize`."""
    for accept in ["*/*", "application/json", "application/json;q=0.9, text/plain"]:
        answer = rpc(tenant, {"jsonrpc": "2.0", "id": "one", "method": "ping"}, Accept=accept)
        assert found(answer) == {"jsonrpc": "2.0", "id": "one", "result": {}}
    notice = rpc(tenant, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert (notice.status_code, notice.content) == (202, b"")


def test_what_the_transport_does_not_take_gets_an_envelope(tenant: Tenant) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    refusal(tenant.server.call("POST", "/mcp", json=ping), 401, "unauthorized")
    refusal(rpc(tenant, ping, Authorization="Bearer hld_unknown"), 401, "unauthorized")
    refusal(rpc(tenant, ping, Accept="text/html"), 406, "not_acceptable")
    refusal(rpc(tenant, ping, **{"Content-Type": "text/plain"}), 415, "unsupported_media_type")
    refusal(rpc(tenant, ping, **{"MCP-Protocol-Version": "1999-01-01"}), 400, "invalid_request")
    refusal(rpc(tenant, "x" * (2 << 20)), 413, "payload_too_large")
    refusal(tenant.get("/mcp", headers={"Accept": "text/event-stream"}), 405, "method_not_allowed")
    refusal(tenant.delete("/mcp"), 405, "method_not_allowed")
    for origin in ["https://evil.example.com", "null", "http://localhost.evil.example.com"]:
        refusal(rpc(tenant, ping, Origin=origin), 403, "forbidden")
    for origin in ["http://localhost:6274", "http://127.0.0.1:1"]:
        assert rpc(tenant, ping, Origin=origin).status_code == 200
    for host in ["evil.example.com", "localhost.evil.example.com", "192.168.7.7"]:
        refusal(rpc(tenant, ping, Host=host), 403, "forbidden")


def test_a_server_answers_to_the_names_it_is_given(start_server: Any) -> None:
    options = ["--public-url", "https://governance.example.com", "--mcp-hosts", "haldir.internal, other.internal"]
    tenant = start_server(options=options).found_tenant()
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    for host in ["governance.example.com", "haldir.internal:8000", "other.internal"]:
        assert rpc(tenant, ping, Host=host, Origin="https://governance.example.com").status_code == 200
    refusal(rpc(tenant, ping, Host="third.internal"), 403, "forbidden")
    document = found(tenant.server.call("GET", "/.well-known/mcp/mcp.json"))
    assert document["mcpEndpoint"] == "https://governance.example.com/mcp"


def test_the_server_stops_while_clients_are_connected(start_server: Any) -> None:
    server: Server = start_server()
    tenant = server.found_tenant()
    with connected(over_http(tenant), "newer-legacy") as client:
        client.call("haldir_list_secrets").value()
        server.stop()
        server.start()


def test_what_there_is_can_be_found_without_a_key(server: Server) -> None:
    described = found(server.call("GET", "/mcp"))
    assert described["serverInfo"]["name"] == "haldir" and described["serverInfo"]["displayName"]
    assert described["protocolVersions"][-1] == "2026-07-28"
    assert described["capabilities"] == {it: {"listChanged": False} for it in ("tools", "resources", "prompts")}
    assert "haldir_create_session" in described["instructions"]
    endpoint = found(server.call("GET", "/.well-known/mcp/mcp.json"))
    assert endpoint["name"] == "haldir" and endpoint["transport"] == "http"
    assert endpoint["mcpEndpoint"] == server.base_url + "/mcp"
    assert endpoint["authentication"]["type"] == "bearer"
    card = found(server.call("GET", "/.well-known/mcp/server-card.json"))
    assert [tool["name"] for tool in card["tools"]] == TOOLS and len(card["prompts"]) == 2
    assert card["trust_signals"]["rfc_6962_merkle"] is True and card["use_cases"] and card["links"]
    assert card["configSchema"]["required"] == ["apiKey"]
    assert card["configSchema"]["properties"]["baseUrl"]["default"] == server.base_url


# -- A process of the client's own -----------------------------------------------------------------------


def serve_lines(lines: list[Any], command: list[str] | None = None, **environment: str) -> list[Any]:
    """What a process answers to messages before its input is closed."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    done = subprocess.run(
        command or [str(program()), "mcp", "serve"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


HELLO: list[Any] = [
    {
        "jsonrpc": "2.0",
        "id": 0,
        "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    },
    {"jsonrpc": "2.0", "method": "notifications/initialized"},
]


def call_over_stdio(tool: str, arguments: Any, **environment: str) -> tuple[Any, bool]:
    answers = serve_lines([*HELLO, call_body(tool, arguments)], **environment)
    assert answers[0]["result"]["protocolVersion"] == "2025-06-18"
    result = next(it["result"] for it in answers if it["id"] == 1)
    text = result["content"][0]["text"]
    return (json.loads(text) if text.startswith("{") else text), result["isError"]


def test_a_process_starts_without_key_and_without_server() -> None:
    said, is_error = call_over_stdio("haldir_list_secrets", {})
    assert is_error and said["error"] == "config_error" and "HALDIR_API_KEY" in said["message"]
    nowhere = {"HALDIR_API_KEY": "hld_x", "HALDIR_BASE_URL": f"http://127.0.0.1:{free_port()}"}
    said, is_error = call_over_stdio("haldir_list_secrets", {}, **nowhere)
    assert is_error and said["error"] == "connect_error" and said["message"] and said["hint"]
    said, is_error = call_over_stdio("haldir_list_secrets", {}, HALDIR_API_KEY="hld_x\n", HALDIR_BASE_URL="nonsense")
    assert is_error and said["error"] == "config_error" and "hld_x" not in json.dumps(said)
    said, is_error = call_over_stdio("haldir_nonsense", {})
    assert is_error and said == {"error": "unknown_tool", "tool": "haldir_nonsense"}
    said, is_error = call_over_stdio("haldir_log_audit_action", {"session_id": "s", "action": "a"})
    assert is_error and said == "Input validation error: 'tool' is a required property"


def test_a_server_that_does_not_answer_or_is_another_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        key = {"HALDIR_API_KEY": "hld_x", "HALDIR_BASE_URL": f"http://127.0.0.1:{port}"}
        command = [str(program()), "mcp", "serve"]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"HOME": "/nonexistent", **key}
        )
        assert process.stdin is not None and process.stdout is not None
        for line in [*HELLO, call_body("haldir_list_secrets", {})]:
            process.stdin.write(json.dumps(line) + "\n")
        process.stdin.flush()
        connection, _ = other.accept()
        assert b"User-Agent: haldir-mcp/".lower() in connection.recv(65536).lower()
        connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>")
        process.stdout.readline()
        result = json.loads(process.stdout.readline())["result"]
        process.stdin.close()
        assert process.wait(30) == 0
    assert result["isError"]
    assert json.loads(result["content"][0]["text"]) == {"error": "http_502", "raw": "<html>", "status_code": 502}


def test_results_over_stdio_are_the_answers_with_two_spaces(tenant: Tenant) -> None:
    key = {"HALDIR_API_KEY": tenant.key, "HALDIR_BASE_URL": tenant.server.base_url}
    answers = serve_lines([*HELLO, call_body("haldir_list_secrets", {})], **key)
    assert answers[1]["result"]["content"][0]["text"] == '{\n  "secrets": [],\n  "count": 0\n}'
    said, is_error = call_over_stdio("haldir_get_session", {"session_id": "ses_nobody"}, **key)
    assert is_error and (said["status_code"], said["code"]) == (404, "not_found") and said["error"]
    session = tenant.open_session(scopes=["spend"], spend_limit=1)
    said, is_error = call_over_stdio("haldir_authorize_payment", {"session_id": session, "amount": 2}, **key)
    assert not is_error and said["authorized"] is False
    assert (said["error"], said["status_code"]) == ("http_403", 403)
    paid = {"session_id": tenant.open_session(scopes=["spend"], spend_limit=1_000_000), "amount": 123456.123456789}
    said, is_error = call_over_stdio("haldir_authorize_payment", paid, **key)
    assert not is_error and said["remaining_budget"] == 876_543.876543211


def test_nonsense_over_stdio_does_not_end_the_process() -> None:
    nonsense = ["", "{", "[]", "null", '{"jsonrpc":"2.0","id":5,"method":"no/such"}']
    answers = serve_lines([*HELLO, *nonsense, {"jsonrpc": "2.0", "id": 6, "method": "ping"}])
    by_id = {answer.get("id"): answer for answer in answers}
    assert by_id[5]["error"]["code"] == -32601 and by_id[6]["result"] == {}


def test_the_program_under_its_other_name_serves(tmp_path: Path) -> None:
    other = tmp_path / "haldir-mcp"
    other.symlink_to(program())
    answers = serve_lines([*HELLO, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}], command=[str(other)])
    assert [tool["name"] for tool in answers[1]["result"]["tools"]] == TOOLS


# -- Configuration of clients -------------------------------------------------------------------------------

KEY = "hld_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
URL = "https://governance.example.com"
STDIO = {"args": ["mcp", "serve"], "env": {"HALDIR_API_KEY": KEY, "HALDIR_BASE_URL": URL}}
HEADERS = {"headers": {"Authorization": f"Bearer {KEY}"}}

# The client's file, the member with its servers, and what stands there for a server that is reached over HTTP.
CLIENTS: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "claude-desktop": (".config/Claude/claude_desktop_config.json", "mcpServers", None),
    "claude-code": (".claude.json", "mcpServers", {"type": "http", "url": f"{URL}/mcp"}),
    "cursor": (".cursor/mcp.json", "mcpServers", {"url": f"{URL}/mcp"}),
    "vscode": (".config/Code/User/mcp.json", "servers", {"type": "http", "url": f"{URL}/mcp"}),
    "windsurf": (".codeium/windsurf/mcp_config.json", "mcpServers", {"serverUrl": f"{URL}/mcp"}),
    "gemini-cli": (".gemini/settings.json", "mcpServers", {"httpUrl": f"{URL}/mcp"}),
    "cline": (
        ".config/Code/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json",
        "mcpServers",
        {"type": "streamableHttp", "url": f"{URL}/mcp"},
    ),
    "zed": (".config/zed/settings.json", "context_servers", {"url": f"{URL}/mcp"}),
}


def haldir(home: Path, *arguments: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(home), "HALDIR_BASE_URL": URL} | ({"HALDIR_API_KEY": key} if key else {})
    return subprocess.run(
        [str(program()), "mcp", *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False
    )


@pytest.mark.parametrize("name", CLIENTS)
def test_haldir_is_added_to_the_file_of_a_client(tmp_path: Path, name: str) -> None:
    place, servers, http_entry = CLIENTS[name]
    file = tmp_path / place
    dry = haldir(tmp_path, "install", name, "--dry-run")
    assert dry.returncode == 0 and str(file) in dry.stdout and "hld_01234567…" in dry.stdout
    assert KEY not in dry.stdout and list(tmp_path.iterdir()) == []

    assert haldir(tmp_path, "install", name).returncode == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    entry = json.loads(file.read_text())[servers]["haldir"]
    assert Path(entry["command"]).samefile(program())
    assert STDIO.items() <= entry.items()
    again = haldir(tmp_path, "install", name)
    assert "nothing was changed" in again.stdout and len(list(file.parent.glob("*.bak*"))) == 0

    done = haldir(tmp_path, "install", name, "--http")
    if http_entry is None:
        assert done.returncode == 1 and "--http" in done.stderr
        return
    assert done.returncode == 0 and KEY not in done.stdout + done.stderr
    assert json.loads(file.read_text())[servers]["haldir"] == http_entry | HEADERS
    assert len(list(file.parent.glob("*.bak*"))) == 1


def test_a_file_keeps_what_else_is_in_it(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    before = '{\n  "z": 1.50,\n  "mcpServers": {\n    "other": {"command":   "x"}\n  },\n  "a": [1,2]\n}\n'
    file.write_text(before)
    file.chmod(0o644)
    link = tmp_path / "link.json"
    link.symlink_to(file)
    for turn, key in enumerate([KEY, KEY + "2", KEY + "3"]):
        assert haldir(tmp_path, "install", "cursor", "--path", str(link), key=key).returncode == 0
        after = file.read_text()
        assert after.startswith('{\n  "z": 1.50,\n  "mcpServers": {\n    "other": {"command":   "x"},\n    "haldir": {')
        assert after.endswith('  "a": [1,2]\n}\n')
        assert json.loads(after)["mcpServers"]["haldir"]["env"]["HALDIR_API_KEY"] == key
        assert len(list(tmp_path.glob("mcp.json.bak*"))) == turn + 1
    assert link.is_symlink()
    backups = [tmp_path / name for name in ("mcp.json.bak", "mcp.json.bak.1", "mcp.json.bak.2")]
    assert backups[0].read_text() == before
    assert all(stat.S_IMODE(it.stat().st_mode) == 0o600 for it in [file, *backups])


@pytest.mark.parametrize("text", ["// with a comment\n{}", "{", "[]", '{"mcpServers": []}', "\x00"])
def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text(text)
    done = haldir(tmp_path, "install", "cursor")
    assert done.returncode == 1 and str(file) in done.stderr and "haldir mcp config --client cursor" in done.stderr
    assert file.read_text() == text and len(list(file.parent.iterdir())) == 1


def test_configuration_is_printed_for_pasting(tmp_path: Path) -> None:
    def snippet(*arguments: str) -> Any:
        done = haldir(tmp_path, "config", *arguments)
        assert done.returncode == 0, done.stderr
        text, _, hints = done.stdout.partition("\n\n")
        assert "haldir mcp install" in hints
        return json.loads(text)

    assert snippet() == {"mcpServers": {"haldir": {"command": "haldir"} | STDIO}}
    assert snippet("--client", "vscode")["servers"]["haldir"] == {"type": "stdio", "command": "haldir"} | STDIO
    for name, (_, servers, http_entry) in CLIENTS.items():
        if http_entry is not None:
            assert snippet("--client", name, "--http") == {servers: {"haldir": http_entry | HEADERS}}
    without_key = haldir(tmp_path, "config", key="")
    assert without_key.returncode == 1 and "no API key" in without_key.stderr


def test_a_client_that_was_configured_reaches_the_server(tenant: Tenant, tmp_path: Path) -> None:
    """With what was written, and nothing else."""
    environment = {"HOME": str(tmp_path), "HALDIR_API_KEY": tenant.key, "HALDIR_BASE_URL": tenant.server.base_url}
    subprocess.run([str(program()), "mcp", "install", "cursor"], env=environment, check=True, capture_output=True)
    entry = json.loads((tmp_path / ".cursor" / "mcp.json").read_text())["mcpServers"]["haldir"]
    with connected({"command": [entry["command"], *entry["args"]], "env": entry["env"]}, "older") as client:
        client.call("haldir_create_session", {"agent_id": "configured"}).value()
    assert "session.opened" in tenant.record()
