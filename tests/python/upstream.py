"""A small upstream that speaks plain JSON-RPC, as those of the contract do, and does what it is told."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = dict[str, Any]


def tool(name: str, description: str = "does something", **fields: Any) -> Answer:
    return {"name": name, "description": description, "inputSchema": {"type": "object"}, **fields}


def said(value: Any, **fields: Any) -> Answer:
    """A result with one text."""
    text = value if isinstance(value, str) else json.dumps(value)
    return {"content": [{"type": "text", "text": text}], **fields}


class Upstream:
    """Listens on a free port until it is closed. Calls are kept as they came, with their headers."""

    def __init__(self, *names: str) -> None:
        self.tools = [tool(name) for name in names or ("echo",)]
        self.calls: list[tuple[str, Answer, dict[str, str]]] = []
        self.act: Callable[[str, Answer], Answer] = lambda name, arguments: said({"name": name, **arguments})
        self._connections: list[socket.socket] = []
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                upstream._connections.append(self.connection)

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
                body = json.dumps({"jsonrpc": "2.0", "id": message.get("id"), **upstream._answer(message, self.headers)})
                head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
                self.wfile.write((head + body).encode())

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/mcp"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, message: Answer, headers: Any) -> Answer:
        match message.get("method"):
            case "tools/list":
                return {"result": {"tools": self.tools}}
            case "tools/call":
                name, arguments = message["params"]["name"], message["params"].get("arguments") or {}
                lower = {key.lower(): value for key, value in headers.items()}
                self.calls.append((name, arguments, lower))
                return {"result": self.act(name, arguments)}
            case _:
                return {"error": {"code": -32601, "message": "no such method"}}

    def close(self) -> None:
        """Ends it, and every connection to it."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
