"""An upstream on stdin and stdout that does what no server should. A program: it is started as an upstream's command."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

MIB = 1 << 20

TOOLS = [
    "good", "echo", "hanging", "dying", "garbage", "large_line", "streaming", "chatting", "wrong_id", "twice", "deaf",
]  # fmt: skip


def main() -> None:
    # Only a signal that cannot be caught ends it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(os.environ["PIDFILE"], "a") as pids:
        print(os.getpid(), file=pids)
    for line in sys.stdin:
        answer(json.loads(line))
    while "STAY" in os.environ:
        time.sleep(3600)  # Although nobody talks to it any more.


def answer(message: dict) -> None:
    match message.get("method"):
        case "initialize":
            info = {"name": "hostile", "version": "1"}
            result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
            say(message, result)
        case "tools/list":
            schema = {"type": "object", "properties": {}}
            say(message, {"tools": [{"name": name, "description": name, "inputSchema": schema} for name in TOOLS]})
        case "tools/call":
            call(message)
        case _ if "id" in message:
            put({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no such method"}})


def call(message: dict) -> None:
    match message["params"]["name"]:
        case "good":
            say(message, text("fine"))
        case "echo":
            seen = {"arguments": message["params"].get("arguments"), "environment": dict(os.environ)}
            print(f"log: {seen}", file=sys.stderr, flush=True)
            say(message, text(json.dumps(seen)))
        case "hanging":
            time.sleep(3600)
        case "dying":
            os.kill(os.getpid(), signal.SIGKILL)
        case "garbage":
            sys.stdout.write("Hello from a banner\n\x00\x01\n{}\n[]\n{\"jsonrpc\":\n")
            sys.stdout.flush()
            say(message, text("after the garbage"))
        case "large_line":
            sys.stdout.write(f'{{"jsonrpc":"2.0","id":{json.dumps(message["id"])},"result":{{"content":[{{"type":"text","text":"')
            for _ in range(100):
                sys.stdout.write("x" * MIB)
            sys.stdout.write('"}]}}\n')
            sys.stdout.flush()
        case "streaming":
            while True:
                token = message["params"].get("_meta", {}).get("progressToken", 0)
                params = {"progressToken": token, "progress": 1}
                put({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        case "chatting":
            for _ in range(100_000):
                sys.stderr.write("log line of no interest, again and again and again\n")
            say(message, text("said a lot"))
        case "wrong_id":
            put({"jsonrpc": "2.0", "id": "another", "result": text("stolen")})
        case "twice":
            say(message, text("first"))
            say(message, text("second"))
        case "deaf":
            say(message, text("not listening any more"))
            while True:
                time.sleep(3600)


def text(said: str) -> dict:
    return {"content": [{"type": "text", "text": said}]}


def say(message: dict, result: dict) -> None:
    put({"jsonrpc": "2.0", "id": message["id"], "result": result})


def put(message: dict) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
