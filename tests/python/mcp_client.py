"""The official MCP client, of both versions, as a user has it: a process of its own that talks to a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import PATIENCE_S, REPOSITORY

SCRIPT = Path(__file__).with_name("mcp_script.py")
NEW_PYTHON = REPOSITORY / ".venv-mcp" / "bin" / "python"
NODE_HOME = REPOSITORY / ".node"

# The last revision of the protocol that begins with `initialize`, and the first that has no sessions.
OLDER = "2025-11-25"
STATELESS = "2026-07-28"


@dataclass
class McpClient:
    """One way to speak to a server: a version of the client and a generation of the protocol."""

    name: str
    python: Path
    mode: str

    def run(self, target: dict[str, Any], *steps: dict[str, Any], **options: Any) -> Transcript:
        """Connects, does the steps in order and disconnects."""
        return self.start(target, *steps, **options).finish()

    def start(self, target: dict[str, Any], *steps: dict[str, Any], answer: Any = None) -> Conversation:
        """The same without waiting. `answer` is what the user says when a server asks."""
        task = json.dumps({**target, "mode": self.mode, "answer": answer, "steps": steps})
        process = subprocess.Popen(
            [self.python, SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        process.stdin.write(task)
        process.stdin.close()
        process.stdin = None
        return Conversation(process)


@dataclass
class Conversation:
    """A client at work."""

    process: subprocess.Popen[str]

    def finish(self) -> Transcript:
        """Waits for its end."""
        try:
            said, complaints = self.process.communicate(timeout=4 * PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            said, complaints = self.process.communicate()
            raise AssertionError(f"the client did not end: {said}{complaints}") from None
        lines = [json.loads(line) for line in said.splitlines()]
        assert lines, f"the client said nothing: {complaints}"
        return Transcript(lines[0], lines[1:], complaints)


@dataclass
class Transcript:
    """What a client heard: `{"result": …}` or `{"error": …}` for the connection and each step."""

    connection: dict[str, Any]
    steps: list[dict[str, Any]]
    stderr: str = field(repr=False, default="")

    @property
    def version(self) -> str:
        assert "result" in self.connection, self
        return self.connection["result"]["version"]

    def result(self, index: int = -1) -> Any:
        """What a step gave."""
        assert self.steps and "result" in self.steps[index], f"{self}\n{self.stderr[-2000:]}"
        return self.steps[index]["result"]

    def error(self, index: int = -1) -> dict[str, Any]:
        """What was wrong with a step."""
        assert self.steps and "error" in self.steps[index], f"{self}\n{self.stderr[-2000:]}"
        return self.steps[index]["error"]


STATELESS_CLIENT = McpClient("new client", NEW_PYTHON, "auto")
OLDER_CLIENT = McpClient("new client, older protocol", NEW_PYTHON, "legacy")
OLD_CLIENT = McpClient("old client", Path(sys.executable), "legacy")
CLIENTS = [STATELESS_CLIENT, OLDER_CLIENT, OLD_CLIENT]


def calling(tool: str, **arguments: Any) -> dict[str, Any]:
    """The step that calls a tool."""
    return {"do": "call", "name": tool, "arguments": arguments}


def text_of(result: dict[str, Any]) -> str:
    """The text of a tool's result."""
    return "".join(block.get("text", "") for block in result["content"])


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
