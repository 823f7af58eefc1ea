"""Does an unmodified MCP client get through the proxy to published servers, and no further than its session lets it?"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import Server, Tenant, created, found, program, running
from hostile import HostileServer
from mcp_connection import GENERATIONS, McpClient, ProtocolError, connected
from proxied import (
    CLOCK,
    DENIAL,
    INTENT,
    OUTCOME,
    allowing,
    check_every_call_ended,
    everything_server,
    last_call,
    node,
    published,
    register,
    wait_until,
)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = [*allowing(CLOCK, node()), "--upstream-timeout", "10s"]
    with running(Server(tmp_path_factory.mktemp("gate"), options=options)) as server:
        yield server


@pytest.fixture(scope="module")
def everything() -> Iterator[str]:
    with everything_server() as url:
        yield url


@pytest.fixture
def tenant(gate: Server) -> Iterator[Tenant]:
    tenant = gate.found_tenant()
    yield tenant
    check_every_call_ended(tenant)


@pytest.fixture(params=GENERATIONS)
def generation(request: pytest.FixtureRequest) -> str:
    return request.param


def place(tenant: Tenant, session: str, upstream: str = "", **more: Any) -> dict[str, Any]:
    """Where a client finds the proxy, or one upstream as if it were that."""
    path = f"/mcp/proxy/{upstream}" if upstream else "/mcp/proxy"
    return {"url": tenant.server.base_url + path, "key": tenant.key, "headers": {"X-Session-ID": session}, **more}


def register_all(tenant: Tenant, everything: str) -> None:
    register(tenant, "every", url=everything)
    register(tenant, "clock", command=str(CLOCK), args=["--local-timezone", "UTC"])
    child = str(published("@modelcontextprotocol/server-everything"))
    register(tenant, "child", command=str(node()), args=[child, "stdio"])


def test_published_servers_are_used_through_the_proxy(tenant: Tenant, everything: str, generation: str) -> None:
    register_all(tenant, everything)
    session = tenant.open_session()
    with connected(place(tenant, session), generation) as client:
        names = set(client.tools())
        sums = {name for name in names if name.endswith("get-sum")}
        assert len(sums) == 2, names
        for name in sums:
            assert client.call(name, {"a": 20, "b": 22}).text == "The sum of 20 and 22 is 42."
        clock = next(name for name in names if name.endswith("get_current_time"))
        assert json.loads(client.call(clock, {"timezone": "Europe/Paris"}).text)["timezone"] == "Europe/Paris"
    kinds = [event["kind"] for event in tenant.events(INTENT, OUTCOME)]
    assert kinds == [INTENT, OUTCOME] * 3
    trail = found(tenant.get("/v1/audit", params={"session_id": session}))["entries"]
    assert {entry["tool"] for entry in trail} == {"every.get-sum", "child.get-sum", "clock.get_current_time"}


def test_one_upstream_is_as_if_the_client_spoke_to_it(tenant: Tenant, everything: str, generation: str) -> None:
    register_all(tenant, everything)
    session = tenant.open_session()
    for upstream in ("every", "child"):
        direct = {"url": everything, "key": "none"}
        with connected(place(tenant, session, upstream), generation) as client, connected(direct, "older") as plain:
            theirs, ours = plain.tools(), client.tools()
            # Some of its tools are only for clients that can be asked; none is added, and none is described differently.
            assert {"echo", "get-sum", "get-tiny-image"} <= set(ours) <= set(theirs)
            for name, tool in ours.items():
                assert tool["inputSchema"] == theirs[name]["inputSchema"], name
                assert tool["description"] == theirs[name]["description"], name
            assert client.call("echo", {"message": "hello"}).text == plain.call("echo", {"message": "hello"}).text
            structured = client.call("get-structured-content", {"location": "New York"})
            assert structured.structured == plain.call("get-structured-content", {"location": "New York"}).structured
            assert client.progress_of("trigger-long-running-operation", {"duration": 1, "steps": 4}) == [1, 2, 3, 4]
            prompts = [it["name"] for it in client.do("list_prompts")["prompts"]]
            assert prompts == [it["name"] for it in plain.do("list_prompts")["prompts"]]
            got = client.do("get_prompt", prompts[0])["messages"]
            assert got == plain.do("get_prompt", prompts[0])["messages"]
            resources = client.do("list_resources")["resources"]
            assert [it["uri"] for it in resources] == [it["uri"] for it in plain.do("list_resources")["resources"]]
            [read] = client.do("read_resource", resources[0]["uri"])["contents"]
            assert read["uri"] == resources[0]["uri"] and read["text"]


def test_a_session_sees_and_calls_only_what_it_may(tenant: Tenant, everything: str, generation: str) -> None:
    register(tenant, "every", url=everything)
    created(tenant.post("/v1/proxy/policies", {"type": "allow_list", "tools": ["every.echo", "every.get-sum"]}))
    session = tenant.open_session(scopes=["execute"])
    with connected(place(tenant, session, "every"), generation) as client:
        assert set(client.tools()) == {"echo", "get-sum"}
        assert client.call("echo", {"message": "hello"}).text == "Echo: hello"
        denied = client.call("get-env", {})
        assert denied.is_error and json.loads(denied.text)["blocked_by"] == "haldir"
    nothing = tenant.open_session(scopes=["browse"])
    with connected(place(tenant, nothing, "every"), generation) as client:
        assert client.tools() == {}
        assert client.call("echo", {"message": "hello"}).is_error
    assert len(tenant.events(DENIAL)) == 2


def test_without_a_session_or_with_another_ones_there_is_nothing(
    gate: Server, tenant: Tenant, everything: str, generation: str
) -> None:
    register(tenant, "every", url=everything)
    stranger = gate.found_tenant()
    ended = tenant.open_session()
    found(tenant.delete(f"/v1/sessions/{ended}"))
    for session in ("", "ses_nobody", stranger.open_session(), ended):
        with pytest.raises((ProtocolError, AssertionError, KeyError)):
            with connected(place(tenant, session, "every"), generation) as client:
                assert client.call("echo", {"message": "hello"}).is_error is False
    assert not tenant.events(INTENT)


def test_what_costs_is_paid_from_the_budget(tenant: Tenant, everything: str, generation: str) -> None:
    register(tenant, "every", url=everything)
    created(tenant.post("/v1/proxy/policies", {"type": "price", "tools": ["every.echo"], "amount": "0.4"}))
    session = tenant.open_session(scopes=["execute", "spend"], spend_limit=1)
    with connected(place(tenant, session, "every"), generation) as client:
        results = [client.call("echo", {"message": "hello"}) for _ in range(4)]
        assert [result.is_error for result in results] == [False, False, True, True]
        assert client.call("get-sum", {"a": 1, "b": 1}).is_error is False
    assert found(tenant.get(f"/v1/sessions/{session}"))["remaining_budget"] == pytest.approx(0.2)


def pending(tenant: Tenant) -> list[dict[str, Any]]:
    return found(tenant.get("/v1/approvals/pending"))["requests"]


def test_whoever_may_decide_is_asked_within_the_call(tenant: Tenant, everything: str, generation: str) -> None:
    register(tenant, "every", url=everything)
    created(tenant.post("/v1/proxy/policies", {"type": "require_approval", "tools": ["every.echo"]}))
    session = tenant.open_session()
    says_yes = {"action": "accept", "content": {"approve": True, "note": "go on"}}
    with connected(place(tenant, session, "every", answer=says_yes), generation) as client:
        assert client.call("echo", {"message": "hello"}).text == "Echo: hello"
    assert last_call(tenant)[0]["approval_id"]
    says_no = {"action": "decline"}
    with connected(place(tenant, session, "every", answer=says_no), generation) as client:
        assert client.call("echo", {"message": "other"}).text != "Echo: other"
    assert len(tenant.events(INTENT)) == 1


def test_the_call_waits_until_somebody_else_has_decided(tenant: Tenant, everything: str, generation: str) -> None:
    register(tenant, "every", url=everything)
    created(tenant.post("/v1/proxy/policies", {"type": "require_approval", "tools": ["every.echo"]}))
    session = tenant.open_session()
    agents_key = tenant.mint("proxy:write", "proxy:read")

    def decide() -> None:
        wait_until(lambda: pending(tenant), "nobody asks for an approval")
        time.sleep(1)
        found(tenant.post(f"/v1/approvals/{pending(tenant)[0]['request_id']}/approve", {"decided_by": "ann"}))

    approver = threading.Thread(target=decide)
    approver.start()
    waits = place(tenant, session, "every", answer={"action": "accept", "content": {}}) | {"key": agents_key}
    with connected(waits, generation) as client:
        assert client.call("echo", {"message": "hello"}).text == "Echo: hello"
    approver.join(30)
    decisions = tenant.events("approval.decided", "approval.granted")
    assert "ann" in json.dumps(decisions), decisions


def test_a_client_that_cannot_be_asked_comes_again(tenant: Tenant, everything: str, generation: str) -> None:
    register(tenant, "every", url=everything)
    created(tenant.post("/v1/proxy/policies", {"type": "require_approval", "tools": ["every.echo"]}))
    session = tenant.open_session()
    with connected(place(tenant, session, "every"), generation) as client:
        waiting = client.call("echo", {"message": "hello"})
        said = json.loads(waiting.text)
        assert said["status"] == "approval_required" and not waiting.is_error
        found(tenant.post(f"/v1/approvals/{said['request_id']}/approve", {"decided_by": "ann"}))
        assert client.call("echo", {"message": "hello"}).text == "Echo: hello"
        assert json.loads(client.call("echo", {"message": "hello"}).text)["status"] == "approval_required"


def test_a_call_that_is_called_off_is_called_off_at_the_upstream(tenant: Tenant, generation: str) -> None:
    upstream = HostileServer().start()
    register(tenant, "up", url=upstream.url)
    session = tenant.open_session()
    with connected(place(tenant, session, "up"), generation) as client:
        with pytest.raises(ProtocolError, match="called off"):
            client.do("call_tool", "hanging", {}, patience=1)
        wait_until(lambda: upstream.busy == 0, "the upstream goes on", 15)
        assert client.call("good").text == "fine"
    [intent] = [event["event"] for event in tenant.events(INTENT) if event["event"]["name"] == "hanging"]
    outcomes = {event["event"]["call_id"]: event["event"]["outcome"] for event in tenant.events(OUTCOME)}
    # The older client does not tell anybody that it stopped waiting.
    assert outcomes[intent["call_id"]] == ("timed_out" if generation == "older" else "cancelled")
    upstream.close()


def test_a_session_that_is_revoked_ends_the_call_and_everything_after_it(tenant: Tenant, generation: str) -> None:
    upstream = HostileServer().start()
    register(tenant, "up", url=upstream.url)
    session = tenant.open_session()

    def revoke() -> None:
        wait_until(lambda: upstream.calls("hanging"), "the call does not arrive")
        found(tenant.delete(f"/v1/sessions/{session}"))

    revoker = threading.Thread(target=revoke)
    with connected(place(tenant, session, "up"), generation) as client:
        assert client.call("good").text == "fine"
        revoker.start()
        began = time.monotonic()
        check_refused(client, "hanging")
        assert time.monotonic() - began < 8
        check_refused(client, "good")
    revoker.join(10)
    assert len(upstream.calls("good")) == 1
    upstream.close()


def check_refused(client: McpClient, tool: str) -> None:
    try:
        result = client.call(tool)
    except ProtocolError:
        return
    assert result.is_error, result


def test_bad_upstreams_are_told_clearly(tenant: Tenant, generation: str) -> None:
    upstream = HostileServer().start()
    register(tenant, "up", url=upstream.url)
    session = tenant.open_session()
    with connected(place(tenant, session, "up"), generation) as client:
        for tool in ("dying", "dying_midway", "large", "large_event", "deep", "bomb", "no_json", "broken_json", "batch",
                     "crashing", "redirecting", "wrong_id" if generation == "newer" else "dying", "erring"):  # fmt: skip
            check_refused(client, tool)
            assert client.call("good").text == "fine", tool
        assert client.call("asking").text == "nothing came of it"
    assert not [request for request in upstream.requests if request.path.startswith("/elsewhere")]
    upstream.close()


def test_the_proxy_over_stdio(gate: Server, tenant: Tenant, everything: str, generation: str, tmp_path: Path) -> None:
    register(tenant, "every", url=everything)
    session = tenant.open_session()
    environment = {
        "HALDIR_BASE_URL": gate.base_url, "HALDIR_API_KEY": tenant.key, "HALDIR_SESSION_ID": session, "HOME": str(tmp_path),
    }  # fmt: skip
    command = [str(program()), "mcp", "proxy"]
    with connected({"command": command, "env": environment}, generation) as client:
        echo = next(name for name in client.tools() if name.endswith("echo"))
        assert client.call(echo, {"message": "over stdio"}).text == "Echo: over stdio"
    assert last_call(tenant)[1]["outcome"] == "succeeded"
