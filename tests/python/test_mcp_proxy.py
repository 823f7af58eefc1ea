"""Does `haldir mcp proxy` bring a client that starts a process to its upstreams, within a session of its own?"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import PATIENCE_S, Server, Tenant, created, found, free_port, program, running

# An upstream of the older generation, as a program: one tool that says what it was called with.
UPSTREAM = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    if message["method"] == "initialize":
        info = {"name": "echo", "version": "1"}
        answer["result"] = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
    elif message["method"] == "tools/list":
        answer["result"] = {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
    elif message["method"] == "tools/call":
        text = json.dumps(message["params"]["arguments"])
        answer["result"] = {"content": [{"type": "text", "text": text}]}
    else:
        answer["error"] = {"code": -32601, "message": "Method not found"}
    print(json.dumps(answer), flush=True)
"""

INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "client", "version": "1"},
}


class Proxy:
    """A client's end of `haldir mcp proxy`."""

    def __init__(self, server: Server, key: str, *arguments: str, **environment: str) -> None:
        variables = {"PATH": os.environ["PATH"], "HALDIR_BASE_URL": server.base_url, "HALDIR_API_KEY": key}
        self.process = subprocess.Popen(
            [program(), "mcp", "proxy", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in (variables | environment).items() if value},
        )
        self._ids = iter(range(1, 1000))

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a request and reads up to its answer."""
        number = next(self._ids)
        self.say({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        assert self.process.stdout is not None
        while True:
            ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE_S)
            assert ready, f"no answer to {method}"
            line = self.process.stdout.readline()
            assert line, f"the proxy ended: {self.end()}"
            message: dict[str, Any] = json.loads(line)
            if message.get("id") == number and "method" not in message:
                return message

    def say(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def enter(self) -> dict[str, Any]:
        """Introduces the client."""
        answer = self.ask("initialize", **INITIALIZE)
        self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    def echo(self, tool: str = "echo", **arguments: Any) -> dict[str, Any]:
        return self.ask("tools/call", name=tool, arguments=arguments)

    def end(self) -> tuple[int, str]:
        """Closes standard input; how the process ended, and what it complained of."""
        _, complaints = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, complaints


Starts = Callable[..., Proxy]


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = ["--upstream-command", sys.executable]
    with running(Server(tmp_path_factory.mktemp("gate"), options=options)) as server:
        yield server


def tenant_with_upstream(server: Server) -> Tenant:
    path = server.directory / "upstream.py"
    path.write_text(UPSTREAM)
    tenant = server.found_tenant()
    upstream = {"name": "up", "command": sys.executable, "args": [str(path)]}
    assert created(tenant.post("/v1/proxy/upstreams", upstream))["healthy"]
    return tenant


@pytest.fixture
def tenant(gate: Server) -> Tenant:
    return tenant_with_upstream(gate)


@pytest.fixture
def start(gate: Server, tenant: Tenant) -> Iterator[Starts]:
    proxies: list[Proxy] = []

    def start(*arguments: str, **environment: str) -> Proxy:
        proxies.append(Proxy(gate, tenant.key, *arguments, **environment))
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.process.kill()


def text(answer: dict[str, Any]) -> str:
    return str(answer["result"]["content"][0]["text"])


def sessions(tenant: Tenant) -> list[dict[str, Any]]:
    """What the ledger says of sessions: opened and revoked."""
    return [{"kind": it["kind"], **it["event"]} for it in tenant.events("session.opened", "session.revoked")]


@pytest.mark.parametrize("upstream", [[], ["--upstream", "up"]])
def test_a_session_of_its_own_lasts_as_long_as_the_client(start: Starts, tenant: Tenant, upstream: list[str]) -> None:
    proxy = start(*upstream)
    entered = proxy.enter()["result"]
    assert entered["serverInfo"]["name"] == ("echo" if upstream else "haldir-proxy")
    assert [tool["name"] for tool in proxy.ask("tools/list")["result"]["tools"]] == ["echo"]
    assert json.loads(text(proxy.echo(n=1))) == {"n": 1}
    assert proxy.ask("ping")["result"] == {}

    [opened] = sessions(tenant)
    assert opened["agent_id"] == "claude-code" and opened["scopes"] == ["read", "execute", "spend"]
    session = found(tenant.get(f"/v1/sessions/{opened['session_id']}"))
    assert session["spend_limit"] == 100
    assert proxy.end() == (0, "")
    assert [it["kind"] for it in sessions(tenant)] == ["session.opened", "session.revoked"]


def test_the_session_is_as_it_is_asked_for(start: Starts, tenant: Tenant) -> None:
    proxy = start("--agent", "me", "--scopes", "execute:up.echo,spend", "--budget", "0.30", "--ttl", "90m")
    proxy.enter()
    [opened] = sessions(tenant)
    session = found(tenant.get(f"/v1/sessions/{opened['session_id']}"))
    assert (session["agent_id"], session["spend_limit"]) == ("me", 0.3)
    assert "execute:up.echo" in session["scopes"]
    created(tenant.post("/v1/proxy/policies", {"type": "price", "tools": ["echo"], "amount": 0.2}))
    assert "result" in proxy.echo()
    denied = proxy.echo()["result"]
    assert denied["isError"] and json.loads(denied["content"][0]["text"])["blocked_by"] == "haldir"
    proxy.process.send_signal(signal.SIGTERM)
    assert proxy.end()[0] == 0
    assert [it["kind"] for it in sessions(tenant)] == ["session.opened", "session.revoked"]


def test_a_session_that_is_there_stays(start: Starts, tenant: Tenant) -> None:
    session = tenant.open_session(scopes=["execute"])
    proxy = start("--session", session)
    proxy.enter()
    assert json.loads(text(proxy.echo("up.echo", a="b"))) == {"a": "b"}
    assert proxy.end() == (0, "")
    assert found(tenant.get(f"/v1/sessions/{session}"))["is_valid"]
    assert [it["kind"] for it in sessions(tenant)] == ["session.opened"]

    proxy = start(HALDIR_SESSION_ID=session)
    proxy.enter()
    tenant.delete(f"/v1/sessions/{session}")
    ended = proxy.echo()["result"]
    assert ended["isError"] and "was revoked" in ended["content"][0]["text"]


def test_mistakes_are_named(start: Starts, gate: Server, tenant: Tenant) -> None:
    for arguments, environment, why in [
        ((), {"HALDIR_API_KEY": ""}, "HALDIR_API_KEY"),
        ((), {"HALDIR_API_KEY": "hld_nothing"}, "401"),
        ((), {"HALDIR_BASE_URL": "http://127.0.0.1:9"}, "cannot reach"),
        (("--budget", "much"), {}, "--budget"),
        (("--session", "ses_x", "--agent", "a"), {}, "cannot be used with"),
    ]:
        code, complaints = start(*arguments, **environment).end()
        assert code != 0 and why in complaints, complaints
    assert "X-Session-ID" not in str(start("--session", "ses_nothing").enter()["error"])
    for arguments, why in [
        (["--upstream", "nowhere"], "no upstream with this name"),
        (["--session", "ses_nothing"], "does not exist"),
    ]:
        assert why in start(*arguments).enter()["error"]["message"]


def test_a_server_that_comes_back_is_found_again(tmp_path: Path) -> None:
    options = ["--upstream-command", sys.executable]
    with running(Server(tmp_path, options=options, port=free_port())) as server:
        tenant = tenant_with_upstream(server)
        proxy = Proxy(server, tenant.key)
        try:
            proxy.enter()
            assert "result" in proxy.echo()
            server.stop()
            assert "Haldir was not reached" in proxy.echo()["error"]["message"]
            server.start()
            assert json.loads(text(proxy.echo(n=2))) == {"n": 2}
        finally:
            proxy.end()
