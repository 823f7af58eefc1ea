"""The official MCP client as a process: one instruction a line on standard input, one answer a line on standard output.

The published Haldir client needs one version of the MCP client, and the newest protocol another, so
they live in two environments. This file runs in either and does the same: with `mcp` 1.x it speaks
the generation with `initialize`, with `mcp` 2.x whichever the server offers.

The first line says where the server is: `{"url", "key"}`, with `headers` if there are more, or `{"command", "env"}`; and `mode`;
and in `answer` what the user says whenever a server asks. An instruction names a method in `do` and its arguments in `with`;
with `patience` it is called off after so many seconds, and with `hear` its progress is told beside the result.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any

try:
    from mcp import Client  # 2.x
except ImportError:
    Client = None  # type: ignore[assignment,misc]
from mcp import ClientSession, StdioServerParameters
from mcp.types import ElicitResult


class Older:
    """`mcp` 1.x."""

    def __init__(self, stack: AsyncExitStack, place: dict[str, Any]) -> None:
        self._stack, self._place = stack, place

    async def connect(self) -> str:
        from mcp.client.stdio import stdio_client
        from mcp.client.streamable_http import streamablehttp_client

        if "url" in self._place:
            headers = headers_for(self._place)
            streams = await self._stack.enter_async_context(streamablehttp_client(self._place["url"], headers=headers))
        else:
            streams = await self._stack.enter_async_context(stdio_client(process(self._place)))
        self.session = await self._stack.enter_async_context(ClientSession(streams[0], streams[1], **asked(self._place)))
        return (await self.session.initialize()).protocolVersion


class Newer:
    """`mcp` 2.x."""

    def __init__(self, stack: AsyncExitStack, place: dict[str, Any]) -> None:
        self._stack, self._place = stack, place

    async def connect(self) -> str:
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        where: Any = None
        if "url" in self._place:
            headers = headers_for(self._place)
            http = await self._stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=60))
            where = streamable_http_client(self._place["url"], http_client=http)
        else:
            where = process(self._place)
        client = Client(where, mode=self._place["mode"], cache=None, **asked(self._place))
        self.session = await self._stack.enter_async_context(client)
        return self.session.protocol_version


def headers_for(place: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {place['key']}"} | place.get("headers", {})


def asked(place: dict[str, Any]) -> dict[str, Any]:
    """How the client answers when a server wants something of its user; without an answer it says that it cannot."""
    if "answer" not in place:
        return {}

    async def answered(*_: Any) -> ElicitResult:
        return ElicitResult(**place["answer"])

    return {"elicitation_callback": answered}


def process(place: dict[str, Any]) -> StdioServerParameters:
    return StdioServerParameters(command=place["command"][0], args=place["command"][1:], env=place["env"])


async def answer(session: Any, told: dict[str, Any]) -> Any:
    heard: list[float] = []

    async def hear(progress: float, *_: Any) -> None:
        heard.append(progress)

    options = {"progress_callback": hear} if told.get("hear") else {}
    try:
        # To stop waiting is to call it off: the client tells the server so.
        doing = getattr(session, told["do"])(*told["with"], **options)
        result = await asyncio.wait_for(doing, told.get("patience", 120))
    except TimeoutError:
        return {"error": {"code": None, "message": "called off"}}
    except Exception as error:  # Whatever it is, whoever gave the instruction wants to see it.
        inner = getattr(error, "error", None)
        return {"error": {"code": getattr(inner, "code", None), "message": str(error)}}
    return {"result": result.model_dump(mode="json", by_alias=True, exclude_none=True), "heard": heard}


async def main() -> None:
    place = json.loads(sys.stdin.readline())
    async with AsyncExitStack() as stack:
        client = (Older if Client is None else Newer)(stack, place)
        print(json.dumps({"version": await client.connect()}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await answer(client.session, json.loads(line))), flush=True)


asyncio.run(main())
