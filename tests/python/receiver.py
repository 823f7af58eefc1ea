"""A real receiver of webhooks: it listens, and answers, fails, hangs, drips or hangs up as it is told.

Every request is kept as it came, in order. A receiver can be stopped and started again on the same
port, as one that is down for a while.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE_S = 60


@dataclass(frozen=True)
class Delivery:
    """One request as it came."""

    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    at: float  # of the monotonic clock

    @property
    def event_id(self) -> str:
        return self.headers["x-haldir-webhook-id"]

    @property
    def event(self) -> str:
        return self.headers["x-haldir-event"]

    @property
    def attempt(self) -> int:
        return int(self.headers["x-haldir-delivery-attempt"])

    def json(self) -> dict[str, Any]:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What to do with a request: first wait, then hang up, or answer, perhaps byte by byte."""

    status: int = 200
    body: bytes = b"ok"
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    hangs_up: bool = False
    drip_s: float = 0.0


Behaviour = Callable[[Delivery], Reply]


def always(status: int, **options: Any) -> Behaviour:
    """The same answer to everybody."""
    return lambda _: Reply(status, **options)


class Receiver:
    """A receiver on a port of its own."""

    def __init__(self, behave: Behaviour | None = None) -> None:
        self.behave: Behaviour = behave or always(200)
        self.deliveries: list[Delivery] = []
        self._changed = threading.Condition()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.start()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/hook"

    def start(self) -> None:
        """Listens, on the same port as before."""
        self._server = _Server(("127.0.0.1", self._port), _handler_of(self))
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuses connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def keep(self, delivery: Delivery) -> None:
        with self._changed:
            self.deliveries.append(delivery)
            self._changed.notify_all()

    def wait_for(self, count: int, *, timeout_s: float = PATIENCE_S) -> list[Delivery]:
        """The first `count` deliveries, as soon as there are so many."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.deliveries) >= count, timeout_s)
            assert came, f"{len(self.deliveries)} of {count} deliveries came"
            return self.deliveries[:count]

    def wait_for_events(self, events: set[str], *, timeout_s: float = PATIENCE_S) -> None:
        """Waits until each of these event ids came at least once."""
        with self._changed:
            came = self._changed.wait_for(lambda: events <= {it.event_id for it in self.deliveries}, timeout_s)
            missing = events - {it.event_id for it in self.deliveries}
            assert came, f"{len(missing)} of {len(events)} events did not come"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """Whoever hangs up on us is a part of the tests."""


def _handler_of(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            delivery = Delivery(self.path, headers, body, time.monotonic())
            receiver.keep(delivery)
            self.reply(receiver.behave(delivery))

        def do_GET(self) -> None:
            receiver.keep(Delivery(self.path, {}, b"", time.monotonic()))
            self.reply(Reply())

        def reply(self, reply: Reply) -> None:
            time.sleep(reply.wait_s)
            if reply.hangs_up:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            if reply.drip_s:
                for byte in reply.body:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(reply.drip_s)
            else:
                self.wfile.write(reply.body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
