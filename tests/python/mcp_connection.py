"""MCP clients for tests: the official one, in both of its generations, each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import REPOSITORY

DRIVER = Path(__file__).with_name("mcp_connection_driver.py")
NEWEST = "2026-07-28"

# Which client in which mode, and the version that it then speaks.
GENERATIONS = {"older": "2025-11-25", "newer-legacy": "2025-11-25", "newer": NEWEST}


def interpreter(generation: str) -> str:
    """The Python that has the client of this generation."""
    if generation == "older":
        return sys.executable
    found = os.environ.get("HALDIR_MCP_PYTHON", str(REPOSITORY / ".venv-mcp" / "bin" / "python"))
    if not Path(found).is_file():
        raise FileNotFoundError(f"no Python at {found}: run tools/setup, or name one in HALDIR_MCP_PYTHON")
    return found


class ProtocolError(Exception):
    """The server answered with an error of the protocol, or the client refused the answer."""

    def __init__(self, code: int | None, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass
class ToolResult:
    """What a tool gave."""

    is_error: bool
    text: str = field(repr=False)
    structured: Any

    def value(self) -> Any:
        """The structured content of a result that is no error; the text says the same."""
        assert not self.is_error, self.text
        assert json.loads(self.text) == self.structured
        return self.structured

    def error(self) -> str:
        """The text of an error."""
        assert self.is_error, self.text
        assert self.structured is None, self.structured
        return self.text


class McpClient:
    """A connection to a server."""

    def __init__(self, process: subprocess.Popen[str], version: str) -> None:
        self._process = process
        self.version = version

    def do(self, what: str, *arguments: Any, **options: Any) -> Any:
        """One call of the client's own methods. With `patience` it is called off after so many seconds."""
        return self._told({"do": what, "with": arguments, **options})["result"]

    def progress_of(self, tool: str, arguments: dict[str, Any]) -> list[float]:
        """What is heard of a call's progress until its result."""
        return self._told({"do": "call_tool", "with": [tool, arguments], "hear": True})["heard"]

    def _told(self, instruction: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(instruction) + "\n")
        self._process.stdin.flush()
        answer = read(self._process)
        if "error" in answer:
            raise ProtocolError(**answer["error"])
        return answer

    def call(self, tool: str, arguments: dict[str, Any] | None = None) -> ToolResult:
        result = self.do("call_tool", tool, arguments or {})
        text = "".join(block["text"] for block in result["content"])
        return ToolResult(result.get("isError", False), text, result.get("structuredContent"))

    def tools(self) -> dict[str, Any]:
        return {tool["name"]: tool for tool in self.do("list_tools")["tools"]}


def read(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the client ended with {process.wait()}"
    return json.loads(line)


@contextlib.contextmanager
def connected(place: dict[str, Any], generation: str) -> Iterator[McpClient]:
    """A client that is connected until the end of the block."""
    mode = "legacy" if generation == "newer-legacy" else "auto"
    process = subprocess.Popen(
        [interpreter(generation), str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(place | {"mode": mode}) + "\n")
        process.stdin.flush()
        client = McpClient(process, read(process)["version"])
        assert client.version == GENERATIONS[generation]
        yield client
        process.stdin.close()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
