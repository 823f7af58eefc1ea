"""Calls through the proxy, and what the ledger says about them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from harness import PATIENCE_S, REPOSITORY, Server, Tenant, created, found, free_port

NODE_HOME = REPOSITORY / ".node"
# A published server in Python, which speaks over stdin and stdout.
CLOCK = REPOSITORY / ".venv-mcp" / "bin" / "mcp-server-time"

# Upstreams of the tests are on this machine, and some are programs.
LOCAL = ["--allow-private-outbound"]

INTENT, OUTCOME, DENIAL = "call.authorized", "call.completed", "call.denied"


def allowing(*commands: str | Path) -> list[str]:
    """Options of a server that may start these programs."""
    return [*LOCAL, *(word for command in commands for word in ("--upstream-command", str(command)))]


def register(tenant: Tenant, name: str, **how: Any) -> dict[str, Any]:
    """Registers an upstream that must be reached."""
    registered = created(tenant.post("/v1/proxy/upstreams", {"name": name, **how}))
    assert registered["healthy"], registered
    return registered


def call(tenant: Tenant, session_id: str, tool: str, **arguments: Any) -> httpx.Response:
    """One call over REST."""
    body = {"tool": tool, "session_id": session_id, "arguments": arguments}
    return tenant.post("/v1/proxy/call", body, timeout=2 * PATIENCE_S)


def text(answer: httpx.Response) -> str:
    """What a tool said that succeeded."""
    result = found(answer)
    assert not result.get("isError"), result
    return "".join(block.get("text", "") for block in result["content"])


def blocked(answer: httpx.Response) -> str:
    """Why a call got no result, in the shape of the contract."""
    assert answer.status_code == 403, f"{answer.status_code} {answer.text}"
    result = answer.json()
    assert result["isError"] is True, result
    [block] = result["content"]
    assert block["type"] == "text"
    said = json.loads(block["text"])
    assert said["blocked_by"] == "haldir" and set(said) == {"error", "blocked_by"}, said
    return said["error"]


def waiting(answer: httpx.Response) -> str:
    """The request for an approval that a call waits for, in the shape of the contract."""
    result = found(answer)
    assert result["isError"] is False, result
    said = json.loads(result["content"][0]["text"])
    assert said["status"] == "approval_required" and {"request_id", "reason", "message"} <= set(said), said
    return said["request_id"]


def last_call(tenant: Tenant) -> tuple[dict[str, Any], dict[str, Any]]:
    """The newest intent and its outcome."""
    events = tenant.events(INTENT, OUTCOME)
    intents = [event for event in events if event["kind"] == INTENT]
    outcomes = {event["event"]["call_id"]: event for event in events if event["kind"] == OUTCOME}
    assert intents, "nothing was forwarded"
    return intents[-1]["event"], outcomes[intents[-1]["event"]["call_id"]]["event"]


def check_every_call_ended(tenant: Tenant) -> None:
    """Every intent has exactly one outcome, after it, and no outcome is without an intent."""
    wait_until(lambda: not found(tenant.get("/v1/proxy/calls"))["count"], "calls that never end")
    open_calls: set[str] = set()
    for event in tenant.events(INTENT, OUTCOME):
        call_id = event["event"]["call_id"]
        if event["kind"] == INTENT:
            open_calls.add(call_id)
        else:
            open_calls.remove(call_id)
    assert not open_calls


def wait_until(done: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def everything_that_was_written(server: Server) -> dict[str, bytes]:
    """Every file of a server: its data, its logs, whatever lies beside them."""
    return {str(path): path.read_bytes() for path in server.directory.rglob("*") if path.is_file()}


@contextlib.contextmanager
def everything_server() -> Iterator[str]:
    """A published server over HTTP: its URL."""
    port = free_port()
    program = [node(), published("@modelcontextprotocol/server-everything"), "streamableHttp"]
    with subprocess.Popen(
        program, env=clean_environment(PORT=str(port)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        url = f"http://127.0.0.1:{port}/mcp"

        def listens() -> bool:
            assert process.poll() is None, "the published server ended"
            with contextlib.suppress(httpx.TransportError):
                httpx.get(url, timeout=1)
                return True
            return False

        try:
            wait_until(listens, "the published server does not listen")
            yield url
        finally:
            process.kill()


def node() -> Path:
    """The Node that `tools/setup` installed."""
    found = [*NODE_HOME.glob("node_modules/node-linux-*/bin/node")]
    if not found:
        raise FileNotFoundError(f"no Node in {NODE_HOME}: run tools/setup first")
    return found[0]


def published(package: str) -> Path:
    """The program of a published server from npm."""
    program = NODE_HOME / "node_modules" / package / "dist" / "index.js"
    if not program.is_file():
        raise FileNotFoundError(f"{program} is missing: run tools/setup first")
    return program


def clean_environment(**more: str) -> dict[str, str]:
    """What a server of somebody else's gets to see of this machine."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/tmp"), **more}
