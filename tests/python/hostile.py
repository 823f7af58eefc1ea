"""An upstream MCP server that does what no server should, each tool in a way of its own.

Written byte by byte on plain sockets, because no library would send these things.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

MIB = 1 << 20
CHUNK = b"x" * (64 << 10)

Writer = asyncio.StreamWriter
Message = dict[str, Any]


@dataclass
class Request:
    """A request of the proxy's."""

    method: str
    path: str
    headers: dict[str, str]
    message: Message
    reader: asyncio.StreamReader = field(repr=False)

    @property
    def id(self) -> Any:
        return self.message.get("id")

    @property
    def arguments(self) -> Message:
        return self.message.get("params", {}).get("arguments") or {}


@dataclass
class HostileServer:
    """Runs on a thread of its own until it is closed. Knows what it was asked."""

    requests: list[Request] = field(default_factory=list)
    # Tools that are described differently, or are there besides the others.
    described: dict[str, str] = field(default_factory=dict)
    # How many calls are being misbehaved at now.
    busy: int = 0
    # Bytes that somebody took of bodies without an end.
    sent: int = 0

    def start(self, port: int = 0) -> HostileServer:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()

        async def listen() -> None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
            self.port = self._server.sockets[0].getsockname()[1]
            started.set()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.create_task(listen())
            self._loop.run_forever()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def close(self) -> None:
        """Ends it in the midst of whatever it does."""

        async def end() -> None:
            self._server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._loop.stop()

        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(end(), self._loop)
            self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def calls(self, tool: str) -> list[Request]:
        """The calls of a tool that arrived here."""
        return [it for it in self.requests if it.message.get("params", {}).get("name") == tool]

    # -- HTTP -------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while (request := await read_request(reader)) is not None:
                self.requests.append(request)
                if not await self._answer(request, writer):
                    break
        with contextlib.suppress(ConnectionError):
            writer.close()

    async def _answer(self, request: Request, writer: Writer) -> bool:
        """Whether the connection is still good for another request."""
        if request.path.startswith("/elsewhere"):
            await send_result(writer, request, {"content": [{"type": "text", "text": "from elsewhere"}]})
            return True
        if request.method != "POST":
            await send(writer, 405, b"")
            return True
        match request.message.get("method"):
            case "initialize":
                result = {
                    "protocolVersion": "2025-06-18",
                    "capabilities": {"tools": {"listChanged": True}},
                    "serverInfo": {"name": "hostile", "version": "1"},
                }
                await send_result(writer, request, result)
            case "tools/list":
                await send_result(writer, request, {"tools": self._tools()})
            case "tools/call":
                return await self._call(request, writer)
            case _ if request.id is None:
                await send(writer, 202, b"")
            case unknown:
                error = {"code": -32601, "message": f"no method {unknown}"}
                await send_json(writer, {"jsonrpc": "2.0", "id": request.id, "error": error})
        return True

    def _tools(self) -> list[Message]:
        about = {name: f"Is {name.replace('_', ' ')}" for name in BEHAVIOURS} | self.described
        schema = {"type": "object", "properties": {}, "additionalProperties": True}
        return [{"name": name, "description": text, "inputSchema": schema} for name, text in about.items()]

    async def _call(self, request: Request, writer: Writer) -> bool:
        behave = BEHAVIOURS.get(request.message["params"]["name"], good)
        self.busy += 1
        try:
            return await behave(self, request, writer) is not False
        finally:
            self.busy -= 1


Behaviour = Callable[[HostileServer, Request, Writer], Awaitable[bool | None]]
BEHAVIOURS: dict[str, Behaviour] = {}


def tool(behave: Behaviour) -> Behaviour:
    """A tool by the name of the function. False ends the connection."""
    BEHAVIOURS[behave.__name__] = behave
    return behave


# -- What it does ---------------------------------------------------------------------------


@tool
async def good(_: HostileServer, request: Request, writer: Writer) -> None:
    await send_result(writer, request, text("fine"))


@tool
async def echo(_: HostileServer, request: Request, writer: Writer) -> None:
    """Everything that it was sent, keys and headers too."""
    seen = {"arguments": request.arguments, "headers": request.headers}
    await send_result(writer, request, text(json.dumps(seen)))


@tool
async def slow(_: HostileServer, request: Request, writer: Writer) -> None:
    await asyncio.sleep(float(request.arguments.get("seconds", 1)))
    await send_result(writer, request, text("at last"))


@tool
async def failing(_: HostileServer, request: Request, writer: Writer) -> None:
    await send_result(writer, request, text("it went wrong") | {"isError": True})


@tool
async def erring(_: HostileServer, request: Request, writer: Writer) -> None:
    """An error of the protocol that repeats what it was sent."""
    error = {"code": -32000, "message": f"refused {json.dumps(request.arguments)} {request.headers}"}
    await send_json(writer, {"jsonrpc": "2.0", "id": request.id, "error": error})


@tool
async def hanging(_: HostileServer, request: Request, _writer: Writer) -> bool:
    """Until the other side gives up."""
    while not request.reader.at_eof():
        await asyncio.sleep(0.05)
    return False


@tool
async def dying(_: HostileServer, _request: Request, writer: Writer) -> bool:
    writer.transport.abort()
    return False


@tool
async def dying_midway(_: HostileServer, request: Request, writer: Writer) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
    writer.write(f'{{"jsonrpc":"2.0","id":{json.dumps(request.id)},"result":{{"content":['.encode())
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.transport.abort()
    return False


@tool
async def dying_in_stream(_: HostileServer, request: Request, writer: Writer) -> bool:
    await begin_stream(writer)
    await send_event(writer, progress(request, 1))
    writer.transport.abort()
    return False


@tool
async def streaming_progress(server: HostileServer, request: Request, writer: Writer) -> bool:
    """Progress for ever, as fast as it is taken."""
    await begin_stream(writer)
    count = 0
    while True:
        count += 1
        server.sent += await send_event(writer, progress(request, count))


@tool
async def streaming_comments(server: HostileServer, _: Request, writer: Writer) -> bool:
    """Nothing, for ever, and slowly enough that no time-out between bytes ends it."""
    await begin_stream(writer)
    while True:
        server.sent += await send_chunk(writer, b": still here\n\n")
        await asyncio.sleep(0.05)


@tool
async def streaming_line(server: HostileServer, _: Request, writer: Writer) -> bool:
    """One event without an end."""
    await begin_stream(writer)
    await send_chunk(writer, b"data: ")
    while True:
        server.sent += await send_chunk(writer, CHUNK)


@tool
async def announcing(_: HostileServer, request: Request, writer: Writer) -> bool:
    """Says that its tools changed, and answers."""
    await begin_stream(writer)
    await send_event(writer, {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    await send_event(writer, {"jsonrpc": "2.0", "id": request.id, "result": text("look again")})
    await send_chunk(writer, b"")
    return False


@tool
async def asking(_: HostileServer, request: Request, writer: Writer) -> bool:
    """Wants the caller's model, files and user, over and over, before it answers."""
    await begin_stream(writer)
    for number in range(100):
        for method in ("sampling/createMessage", "roots/list", "elicitation/create", "no/such"):
            message = {"jsonrpc": "2.0", "id": f"ask-{method}-{number}", "method": method, "params": {}}
            await send_event(writer, message)
    await send_event(writer, {"jsonrpc": "2.0", "id": request.id, "result": text("nothing came of it")})
    await send_chunk(writer, b"")
    return False


@tool
async def large(server: HostileServer, request: Request, writer: Writer) -> bool:
    """100 MiB of JSON."""
    head = f'{{"jsonrpc":"2.0","id":{json.dumps(request.id)},"result":{{"content":[{{"type":"text","text":"'
    tail = '"}]}}'
    length = len(head) + 100 * MIB + len(tail)
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode())
    writer.write(head.encode())
    for _ in range(100 * MIB // len(CHUNK)):
        writer.write(CHUNK)
        await writer.drain()
        server.sent += len(CHUNK)
    writer.write(tail.encode())
    await writer.drain()
    return True


@tool
async def large_chunked(server: HostileServer, request: Request, writer: Writer) -> bool:
    """100 MiB that do not say so."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    head = f'{{"jsonrpc":"2.0","id":{json.dumps(request.id)},"result":{{"content":[{{"type":"text","text":"'
    await send_chunk(writer, head.encode())
    for _ in range(100 * MIB // len(CHUNK)):
        server.sent += await send_chunk(writer, CHUNK)
    await send_chunk(writer, b'"}]}}')
    await send_chunk(writer, b"")
    return True


@tool
async def large_event(server: HostileServer, request: Request, writer: Writer) -> bool:
    """100 MiB in one event."""
    await begin_stream(writer)
    head = f'data: {{"jsonrpc":"2.0","id":{json.dumps(request.id)},"result":{{"content":[{{"type":"text","text":"'
    await send_chunk(writer, head.encode())
    for _ in range(100 * MIB // len(CHUNK)):
        server.sent += await send_chunk(writer, CHUNK)
    await send_chunk(writer, b'"}]}}\n\n')
    await send_chunk(writer, b"")
    return True


@tool
async def bomb(_: HostileServer, request: Request, writer: Writer) -> None:
    """100 MiB, packed into 100 KiB."""
    message = {"jsonrpc": "2.0", "id": request.id, "result": text("x" * (100 * MIB))}
    packed = gzip.compress(json.dumps(message).encode())
    await send(writer, 200, packed, {"Content-Type": "application/json", "Content-Encoding": "gzip"})


@tool
async def deep(_: HostileServer, request: Request, writer: Writer) -> None:
    """An answer that is nested more deeply than a stack is."""
    nest = "[" * 200_000 + "]" * 200_000
    body = f'{{"jsonrpc":"2.0","id":{json.dumps(request.id)},"result":{{"content":[],"structuredContent":{{"a":{nest}}}}}}}'
    await send(writer, 200, body.encode(), {"Content-Type": "application/json"})


@tool
async def many_blocks(_: HostileServer, request: Request, writer: Writer) -> None:
    """A million blocks of content: small as text, large as values."""
    blocks = '{"type":"text","text":""},' * 1_000_000
    body = f'{{"jsonrpc":"2.0","id":{json.dumps(request.id)},"result":{{"content":[{blocks[:-1]}]}}}}'
    await send(writer, 200, body.encode(), {"Content-Type": "application/json"})


@tool
async def wrong_id(_: HostileServer, request: Request, writer: Writer) -> None:
    """An answer to a question that nobody asked."""
    await send_json(writer, {"jsonrpc": "2.0", "id": f"not-{request.id}", "result": text("stolen")})


@tool
async def others_ids(_: HostileServer, request: Request, writer: Writer) -> bool:
    """Answers to everybody else's questions first."""
    await begin_stream(writer)
    for other in (*range(200), None, "1", -1, 2**53):
        if other != request.id:
            await send_event(writer, {"jsonrpc": "2.0", "id": other, "result": text("stolen")})
    await send_event(writer, {"jsonrpc": "2.0", "id": request.id, "result": text("mine")})
    await send_chunk(writer, b"")
    return False


@tool
async def twice(_: HostileServer, request: Request, writer: Writer) -> bool:
    """Two answers to one question."""
    await begin_stream(writer)
    for answer in ("first", "second"):
        await send_event(writer, {"jsonrpc": "2.0", "id": request.id, "result": text(answer)})
    await send_chunk(writer, b"")
    return False


@tool
async def without_result(_: HostileServer, request: Request, writer: Writer) -> None:
    await send_json(writer, {"jsonrpc": "2.0", "id": request.id})


@tool
async def no_object(_: HostileServer, request: Request, writer: Writer) -> None:
    await send_json(writer, {"jsonrpc": "2.0", "id": request.id, "result": [1, 2, 3]})


@tool
async def no_json(_: HostileServer, _request: Request, writer: Writer) -> None:
    await send(writer, 200, b"<html>hello</html>", {"Content-Type": "text/html"})


@tool
async def broken_json(_: HostileServer, _request: Request, writer: Writer) -> None:
    await send(writer, 200, b'{"jsonrpc":', {"Content-Type": "application/json"})


@tool
async def batch(_: HostileServer, request: Request, writer: Writer) -> None:
    await send_json(writer, [{"jsonrpc": "2.0", "id": request.id, "result": text("in a batch")}])


@tool
async def crashing(_: HostileServer, request: Request, writer: Writer) -> None:
    """Repeats what it was sent in a page about its failure."""
    page = f"Traceback: {request.headers} {request.arguments}".encode()
    await send(writer, 500, page, {"Content-Type": "text/plain"})


@tool
async def redirecting(server: HostileServer, _: Request, writer: Writer) -> None:
    await send(writer, 302, b"", {"Location": f"http://127.0.0.1:{server.port}/elsewhere"})


@tool
async def redirecting_post(server: HostileServer, _: Request, writer: Writer) -> None:
    await send(writer, 307, b"", {"Location": f"http://127.0.0.1:{server.port}/elsewhere"})


@tool
async def no_http(_: HostileServer, _request: Request, writer: Writer) -> bool:
    writer.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
    await writer.drain()
    return False


# -- Bytes ----------------------------------------------------------------------------------


def text(said: str) -> Message:
    return {"content": [{"type": "text", "text": said}]}


def progress(request: Request, count: int) -> Message:
    token = request.message.get("params", {}).get("_meta", {}).get("progressToken", "none")
    params = {"progressToken": token, "progress": count}
    return {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection; None at its end."""
    line = await reader.readline()
    if not line:
        return None
    method, path, _ = line.decode().split(" ", 2)
    headers = {}
    async for name, value in header_lines(reader):
        headers[name] = value
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, json.loads(body) if body else {}, reader)


async def header_lines(reader: asyncio.StreamReader) -> AsyncIterator[tuple[str, str]]:
    while (line := (await reader.readline()).decode().rstrip("\r\n")) != "":
        name, _, value = line.partition(":")
        yield name.lower(), value.strip()


async def send(writer: Writer, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await writer.drain()


async def send_json(writer: Writer, value: Any) -> None:
    await send(writer, 200, json.dumps(value).encode(), {"Content-Type": "application/json"})


async def send_result(writer: Writer, request: Request, result: Message) -> None:
    await send_json(writer, {"jsonrpc": "2.0", "id": request.id, "result": result})


async def begin_stream(writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    await writer.drain()


async def send_event(writer: Writer, message: Message) -> int:
    return await send_chunk(writer, f"data: {json.dumps(message)}\n\n".encode())


async def send_chunk(writer: Writer, data: bytes) -> int:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()
    return len(data)
