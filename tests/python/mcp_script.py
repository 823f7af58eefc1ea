"""Does what it is told with the official MCP client, whichever version of it is installed where this runs.

A script of its own, because the two versions do not fit into one environment. It reads one JSON object from stdin, and
writes one line of JSON for the connection and one for each step: `{"result": …}` or `{"error": {"code", "message"}}`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import mcp
import mcp.types as types

IS_NEW = hasattr(mcp, "Client")


async def main() -> None:
    task = json.load(sys.stdin)
    async with connected(task) as (session, version):
        say({"result": {"version": version}})
        for step in task["steps"]:
            try:
                say({"result": await perform(session, step)})
            except Exception as error:  # Whatever the client makes of an answer is what the test wants to see.
                say({"error": told(error)})


async def perform(session: Any, step: dict[str, Any]) -> Any:
    match step["do"]:
        case "tools":
            return [plain(tool) for tool in (await session.list_tools()).tools]
        case "prompts":
            return [plain(prompt) for prompt in (await session.list_prompts()).prompts]
        case "resources":
            return [plain(resource) for resource in (await session.list_resources()).resources]
        case "read":
            return plain(await session.read_resource(step["uri"]))
        case "prompt":
            return plain(await session.get_prompt(step["name"], step.get("arguments")))
        case "ping":
            return plain(await session.send_ping())
        case "sleep":
            return await asyncio.sleep(step["seconds"])
        case "call":
            heard: list[float] = []

            async def hear(progress: float, _total: float | None, _message: str | None) -> None:
                heard.append(progress)

            call = session.call_tool(step["name"], step.get("arguments") or {}, progress_callback=hear)
            # To stop waiting is to cancel: the client tells the server so.
            result = plain(await asyncio.wait_for(call, step.get("patience", 60)))
            return result | {"progress": heard}
    raise ValueError(f"no such step: {step}")


@asynccontextmanager
async def connected(task: dict[str, Any]) -> AsyncIterator[tuple[Any, str]]:
    """A session with the server, and the version of the protocol that they agreed on."""
    answer = task.get("answer")

    async def answered(_context: Any, _params: Any) -> types.ElicitResult:
        return types.ElicitResult(**answer)

    asked = {"elicitation_callback": answered} if answer else {}
    async with AsyncExitStack() as stack:
        if IS_NEW:
            target = await new_target(task, stack)
            client = mcp.Client(target, mode=task.get("mode", "auto"), **asked)
            await stack.enter_async_context(client)
            yield client, client.protocol_version
        else:
            read, write = await old_streams(task, stack)
            session = await stack.enter_async_context(mcp.ClientSession(read, write, **asked))
            yield session, (await session.initialize()).protocolVersion


async def new_target(task: dict[str, Any], stack: AsyncExitStack) -> Any:
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    if "url" not in task:
        return mcp.StdioServerParameters(command=task["command"], args=task["args"], env=task.get("env"))
    http = httpx2.AsyncClient(headers=task.get("headers") or {}, timeout=120)
    return streamable_http_client(task["url"], http_client=await stack.enter_async_context(http))


async def old_streams(task: dict[str, Any], stack: AsyncExitStack) -> tuple[Any, Any]:
    from mcp.client.stdio import stdio_client
    from mcp.client.streamable_http import streamablehttp_client

    if "url" in task:
        streams = streamablehttp_client(task["url"], headers=task.get("headers"), timeout=120)
    else:
        streams = stdio_client(
            mcp.StdioServerParameters(command=task["command"], args=task["args"], env=task.get("env"))
        )
    opened = await stack.enter_async_context(streams)
    return opened[0], opened[1]


def plain(model: Any) -> Any:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def told(error: BaseException) -> dict[str, Any]:
    inner = getattr(error, "error", None)
    return {"type": type(error).__name__, "code": getattr(inner, "code", None), "message": str(error)}


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except BaseException as error:  # noqa: BLE001  One line instead of a nest of task groups.
        while isinstance(error, BaseExceptionGroup) and error.exceptions:
            error = error.exceptions[0]
        say({"error": told(error)})
