"""Do published MCP servers work through the proxy, and does everything that is decided about a call hold?"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness import Server, Tenant, at_once, created, found, refusal, running
from hostile import HostileServer
from proxied import (
    CLOCK,
    DENIAL,
    INTENT,
    OUTCOME,
    allowing,
    blocked,
    call,
    check_every_call_ended,
    everything_server,
    everything_that_was_written,
    last_call,
    node,
    published,
    register,
    text,
    waiting,
)

# What no server should give back, in any of the spellings that a value has on its way.
SECRETS = ["s3cret-of-the-tests", 'q"uo\\ted-se</cret', "ümläut-geheim", "1234567890123"]


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that may start the published servers, and reach this machine."""
    options = [*allowing(CLOCK, node()), "--upstream-timeout", "10s"]
    with running(Server(tmp_path_factory.mktemp("gate"), options=options)) as server:
        yield server


@pytest.fixture(scope="module")
def everything() -> Iterator[str]:
    with everything_server() as url:
        yield url


@pytest.fixture
def echo() -> Iterator[HostileServer]:
    """An upstream that gives back everything that it is sent."""
    server = HostileServer().start()
    yield server
    server.close()


@pytest.fixture
def tenant(gate: Server) -> Iterator[Tenant]:
    tenant = gate.found_tenant()
    yield tenant
    check_every_call_ended(tenant)


def register_child(tenant: Tenant, name: str, **more: Any) -> None:
    program = str(published("@modelcontextprotocol/server-everything"))
    register(tenant, name, command=str(node()), args=[program, "stdio"], **more)


def add_policy(tenant: Tenant, **policy: Any) -> None:
    created(tenant.post("/v1/proxy/policies", policy))


def test_published_servers_are_called_over_both_transports(tenant: Tenant, everything: str) -> None:
    register(tenant, "every", url=everything)
    register(tenant, "clock", command=str(CLOCK), args=["--local-timezone", "UTC"])
    register_child(tenant, "child")
    session = tenant.open_session()
    assert text(call(tenant, session, "every.echo", message="hello")) == "Echo: hello"
    assert json.loads(text(call(tenant, session, "clock.get_current_time", timezone="Asia/Tokyo")))["timezone"]
    assert text(call(tenant, session, "child.get-sum", a=1, b=2)) == "The sum of 1 and 2 is 3."
    # Without the upstream's name, the first that has the tool is meant.
    assert text(call(tenant, session, "echo", message="short")) == "Echo: short"
    assert text(call(tenant, session, "get_current_time", timezone="UTC"))

    listed = found(tenant.get("/v1/proxy/upstreams"))
    assert {name: view["total_calls"] for name, view in listed["upstreams"].items()} == {
        "every": 2, "clock": 2, "child": 1,
    }  # fmt: skip
    tools = found(tenant.get("/v1/proxy/tools"))["tools"]
    assert {"name", "description", "upstream", "inputSchema"} <= set(tools[0])
    trail = found(tenant.get("/v1/audit", params={"session_id": session}))["entries"]
    assert [entry["tool"] for entry in trail] == [
        "clock.get_current_time", "every.echo", "child.get-sum", "clock.get_current_time", "every.echo",
    ]  # fmt: skip
    assert {entry["action"] for entry in trail} == {"proxy_call"}


def test_structured_content_images_and_links_arrive_as_they_were(tenant: Tenant, everything: str) -> None:
    register(tenant, "every", url=everything)
    session = tenant.open_session()
    structured = found(call(tenant, session, "get-structured-content", location="Chicago"))
    assert structured["structuredContent"] == json.loads(structured["content"][0]["text"])
    image = next(it for it in found(call(tenant, session, "get-tiny-image"))["content"] if it["type"] == "image")
    assert image["mimeType"] == "image/png" and len(image["data"]) > 1000
    links = found(call(tenant, session, "get-resource-links", count=3))["content"]
    assert sum(it["type"] == "resource_link" for it in links) == 3


def test_an_error_of_the_tool_is_a_403_with_its_result(tenant: Tenant, everything: str) -> None:
    register(tenant, "every", url=everything)
    session = tenant.open_session()
    answer = call(tenant, session, "every.get-sum", a="no number", b=2)
    assert answer.status_code == 403
    result = answer.json()
    assert result["isError"] is True and "blocked_by" not in result["content"][0]["text"], result
    assert last_call(tenant)[1]["outcome"] == "failed"


def test_nothing_is_forwarded_that_is_denied(tenant: Tenant, echo: HostileServer) -> None:
    register(tenant, "up", url=echo.url)
    reader = tenant.open_session(scopes=["browse"])
    assert "execute" in blocked(call(tenant, reader, "up.echo"))
    session = tenant.open_session()
    assert "nothing" in blocked(call(tenant, session, "up.nothing"))
    add_policy(tenant, type="block_tool", tool="echo")
    assert "block_tool" in blocked(call(tenant, session, "up.echo", why="not"))
    assert "block_tool" in blocked(call(tenant, session, "echo", why="not"))
    assert text(call(tenant, session, "up.good")) == "fine"
    add_policy(tenant, type="argument", tools=["up.good"], argument="path", rule="deny_match", pattern="^/etc")
    assert "argument" in blocked(call(tenant, session, "up.good", path="/etc/passwd"))
    assert not echo.calls("echo")
    assert len(echo.calls("good")) == 1
    assert len(tenant.events(DENIAL)) == 5


def test_a_session_that_ended_calls_nothing(tenant: Tenant, echo: HostileServer) -> None:
    register(tenant, "up", url=echo.url)
    session = tenant.open_session()
    found(tenant.delete(f"/v1/sessions/{session}"))
    refusal(call(tenant, session, "up.good"), 401)
    refusal(call(tenant, "ses_nobody", "up.good"), 401)
    assert not echo.calls("good")


def test_an_approval_lets_one_call_through(tenant: Tenant, echo: HostileServer) -> None:
    register(tenant, "up", url=echo.url)
    add_policy(tenant, type="require_approval", tools=["up.echo"])
    session = tenant.open_session()
    request = waiting(call(tenant, session, "up.echo", amount=7))
    assert waiting(call(tenant, session, "up.echo", amount=7)) == request, "asking again asks nobody again"
    assert not echo.calls("echo")
    found(tenant.post(f"/v1/approvals/{request}/approve", {"decided_by": "ann"}))
    # Not for anything else, and once.
    assert waiting(call(tenant, session, "up.echo", amount=8)) != request
    answers = at_once(8, lambda _: call(tenant, session, "up.echo", amount=7))
    assert sum("arguments" in answer.text for answer in answers) == 1
    assert [sent.arguments for sent in echo.calls("echo")] == [{"amount": 7}]
    assert last_call(tenant)[0]["approval_id"] == request


def test_a_denied_approval_denies_the_call(tenant: Tenant, echo: HostileServer) -> None:
    register(tenant, "up", url=echo.url)
    add_policy(tenant, type="require_approval", tools=["up.echo"])
    session = tenant.open_session()
    request = waiting(call(tenant, session, "up.echo"))
    found(tenant.post(f"/v1/approvals/{request}/deny", {"decided_by": "ann"}))
    blocked(call(tenant, session, "up.echo"))
    assert not echo.calls("echo")


def test_what_calls_cost_never_exceeds_the_budget(tenant: Tenant, echo: HostileServer) -> None:
    register(tenant, "up", url=echo.url)
    add_policy(tenant, type="price", tools=["up.good"], amount="0.3")
    session = tenant.open_session(scopes=["execute", "spend"], spend_limit=1)
    answers = at_once(16, lambda _: call(tenant, session, "up.good"))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [403] * 13
    assert "budget" in blocked(call(tenant, session, "up.good"))
    assert len(echo.calls("good")) == 3
    assert found(tenant.get(f"/v1/sessions/{session}"))["remaining_budget"] == pytest.approx(0.1)


def test_a_call_that_reached_nobody_costs_nothing(tenant: Tenant, echo: HostileServer) -> None:
    register(tenant, "up", url=echo.url)
    add_policy(tenant, type="price", tools=["up.good"], amount=1)
    session = tenant.open_session(scopes=["execute", "spend"], spend_limit=2)
    echo.close()
    # The connection that was there may break only when it is used; then nobody knows what came of the call.
    blocked(call(tenant, session, "up.good"))
    before = found(tenant.get(f"/v1/sessions/{session}"))["remaining_budget"]
    assert "not reached" in blocked(call(tenant, session, "up.good"))
    assert last_call(tenant)[1]["outcome"] == "not_sent"
    assert found(tenant.get(f"/v1/sessions/{session}"))["remaining_budget"] == before


def test_the_same_request_is_forwarded_once(tenant: Tenant, echo: HostileServer) -> None:
    register(tenant, "up", url=echo.url)
    session = tenant.open_session()
    body = {"tool": "up.slow", "session_id": session, "arguments": {"seconds": 0.2}}

    def ask(_: int) -> Any:
        return tenant.post("/v1/proxy/call", body, headers={"Idempotency-Key": "once"})

    answers = at_once(4, ask)
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert text(ask(0)) == "at last"
    assert len(echo.calls("slow")) == 1


def test_tenants_do_not_see_each_other(gate: Server, tenant: Tenant, echo: HostileServer) -> None:
    register(tenant, "up", url=echo.url)
    session = tenant.open_session()
    stranger = gate.found_tenant()
    assert found(stranger.get("/v1/proxy/upstreams"))["upstreams"] == {}
    refusal(call(stranger, session, "up.good"), 401)
    assert "up.good" in blocked(call(stranger, stranger.open_session(), "up.good"))
    refusal(stranger.delete("/v1/proxy/upstreams/up"), 404)
    assert not echo.calls("good")


# -- Secrets ----------------------------------------------------------------------------------


def store_secrets(tenant: Tenant) -> dict[str, str]:
    """Secrets by name."""
    named = {f"secret-{number}": value for number, value in enumerate(SECRETS)}
    for name, value in named.items():
        created(tenant.post("/v1/secrets", {"name": name, "value": value}))
    return named


def spellings(secret: str) -> list[bytes]:
    """How a value may be written without being hidden."""
    return [
        secret.encode(),
        json.dumps(secret)[1:-1].encode(),
        json.dumps(secret, ensure_ascii=False)[1:-1].encode(),
        json.dumps(json.dumps(secret)[1:-1])[1:-1].encode(),
    ]


def check_hidden(where: str, content: bytes) -> None:
    for secret in SECRETS:
        for spelling in spellings(secret):
            assert spelling not in content, f"{secret!r} is in {where}"


def test_secrets_reach_the_upstream_and_come_back_to_nobody(
    tmp_path: Any, start_server: Callable[..., Server], echo: HostileServer
) -> None:
    server = start_server(options=[*allowing(node()), "--log-level", "trace"])
    tenant = server.found_tenant()
    store_secrets(tenant)
    session = tenant.open_session()
    headers = {"X-Api-Key": "secret://secret-0", "X-Number": "secret://secret-3", "Authorization": "Bearer secret://secret-1"}
    register(tenant, "up", url=echo.url, headers=headers, session_id=session)
    register_child(tenant, "child", env={"TOKEN": "secret://secret-1", "PLAIN": "seen"}, session_id=session)

    # As an argument, at any depth, and after other text.
    arguments = {"a": "secret://secret-2", "b": {"c": ["Bearer secret://secret-1"]}, "d": "secret://secret-3"}
    said = [call(tenant, session, f"up.{tool}", **arguments) for tool in ("echo", "erring", "crashing", "failing")]
    said += [call(tenant, session, "child.echo", message="secret://secret-0 and more")]
    environment = call(tenant, session, "child.get-env")
    for answer in [*said, environment]:
        check_hidden("an answer", answer.content)
    assert json.loads(text(environment))["PLAIN"] == "seen"

    # It did arrive.
    sent = echo.calls("echo")[0]
    assert sent.arguments == {"a": SECRETS[2], "b": {"c": [f"Bearer {SECRETS[1]}"]}, "d": SECRETS[3]}
    assert sent.headers["x-api-key"] == SECRETS[0] and sent.headers["authorization"] == f"Bearer {SECRETS[1]}"
    assert tenant.key not in json.dumps(sent.headers), "the caller's key went to the upstream"
    uses = {use["name"] for use in last_call(tenant)[0]["secrets"]}
    assert uses == {"secret-1"}

    for path in ("/v1/ledger/export", "/v1/ledger/events?limit=1000", "/v1/audit?limit=1000", "/v1/proxy/upstreams",
                 "/v1/audit/export?format=jsonl", "/v1/audit/export?format=csv", "/v1/proxy/tools"):  # fmt: skip
        answer = tenant.get(path)
        assert answer.status_code == 200, f"{path} {answer.text}"
        check_hidden(path, answer.content)
    check_every_call_ended(tenant)
    server.stop()
    for name, content in everything_that_was_written(server).items():
        check_hidden(name, content)
    server.start()


def test_a_session_without_the_scope_gets_no_secret_into_a_call(tenant: Tenant, echo: HostileServer) -> None:
    created(tenant.post("/v1/secrets", {"name": "guarded", "value": SECRETS[0], "scope_required": "payments"}))
    register(tenant, "up", url=echo.url)
    session = tenant.open_session(scopes=["execute"])
    for reference in ("secret://guarded", "secret://missing"):
        assert "secret" in blocked(call(tenant, session, "up.echo", key=reference))
    assert not echo.calls("echo")
    refusal(call(tenant, session, "up.echo", key="secret://../x y"), 400)


def test_secrets_that_contain_each_other_are_hidden_whole(tenant: Tenant, echo: HostileServer) -> None:
    values = {"a": "beginning", "b": "beginning-and-middle-and-end", "c": "and-end", "d": "middle"}
    for name, value in values.items():
        created(tenant.post("/v1/secrets", {"name": name, "value": value}))
    register(tenant, "up", url=echo.url)
    session = tenant.open_session()
    answer = call(tenant, session, "up.echo", **{name: f"secret://{name}" for name in values})
    for part in ("beginning", "and-", "middle", "end"):
        assert part not in answer.text.replace("append", ""), answer.text
    assert echo.calls("echo")[0].arguments == values


def test_settings_with_secret_names_must_refer_to_the_vault(tenant: Tenant, echo: HostileServer) -> None:
    body = {"name": "up", "url": echo.url, "headers": {"Authorization": "Bearer hunter2hunter2"}}
    answer = tenant.post("/v1/proxy/upstreams", body)
    assert "hunter2" not in refusal(answer, 400)["error"]
    assert not tenant.events("upstream.registered")


# -- Who may ------------------------------------------------------------------------------------


def test_only_allowed_commands_are_started(gate: Server, tenant: Tenant, tmp_path: Any) -> None:
    trace = tmp_path / "trace"
    for command in ("/bin/sh", "sh", "touch", f"{node()}/../../bin/sh", "./node"):
        body = {"name": "up", "command": command, "args": ["-c", f"touch {trace}", str(trace)]}
        refusal(tenant.post("/v1/proxy/upstreams", body), 400)
    assert not trace.exists()


def test_upstreams_are_guarded_unless_the_operator_says_so(server: Server, stranger: Tenant, echo: HostileServer) -> None:
    for url in (echo.url, "http://localhost:1/", "http://169.254.169.254/latest", "http://[::1]:1/", "ftp://x.example/"):
        refusal(stranger.post("/v1/proxy/upstreams", {"name": "up", "url": url}), 400)
    assert not echo.requests


def test_keys_need_the_scope(tenant: Tenant, echo: HostileServer) -> None:
    register(tenant, "up", url=echo.url)
    session = tenant.open_session()
    narrow = tenant.mint("audit:read")
    body = {"tool": "up.good", "session_id": session}
    refusal(tenant.call("POST", "/v1/proxy/call", key=narrow, json=body), 403, "insufficient_scope")
    refusal(tenant.call("GET", "/v1/proxy/upstreams", key=narrow), 403, "insufficient_scope")
    assert not echo.calls("good")
    refusal(tenant.server.call("POST", "/v1/proxy/call", json=body), 401)


def test_a_call_outlives_the_caller_but_not_its_session(tenant: Tenant, echo: HostileServer) -> None:
    register(tenant, "up", url=echo.url)
    session = tenant.open_session()
    answers: list[Any] = []
    caller = threading.Thread(target=lambda: answers.append(call(tenant, session, "up.slow", seconds=30)))
    caller.start()
    while not echo.calls("slow"):
        time.sleep(0.02)
    began = time.monotonic()
    found(tenant.delete(f"/v1/sessions/{session}"))
    caller.join(20)
    assert not caller.is_alive() and time.monotonic() - began < 5, "the call went on"
    blocked(answers[0])
    kinds = [event["kind"] for event in tenant.events(INTENT, OUTCOME, "session.revoked")]
    assert kinds == [INTENT, "session.revoked", OUTCOME]
    assert last_call(tenant)[1]["outcome"] == "cancelled"
    refusal(call(tenant, session, "up.good"), 401)
