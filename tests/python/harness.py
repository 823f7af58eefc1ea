"""A Haldir server under test, tenants on it, and the oracle that checks what they leave behind.

The program is the one named by the environment variable `HALDIR_BIN`, or else the repository's
release build. Every server keeps its files in a directory of its own and sees no setting of the
machine it runs on.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier
from typing import Any, TypeVar

import httpx
from haldir import HaldirAsyncClient, HaldirClient

Result = TypeVar("Result")

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tools"))
import verify_ledger.cli as verify_ledger_program  # noqa: E402

BOOTSTRAP_TOKEN = "the-token-of-the-tests"

# How long a server may take for what normally takes a moment. Not a speed limit: it only keeps a
# test run from waiting for ever.
PATIENCE_S = 60

# What the server may write without anybody having done anything: meter readings, and the fact that
# a key was turned away. A refused request leaves nothing else.
BACKGROUND_KINDS = frozenset({"usage.metered", "access.denied"})


def program() -> Path:
    """The binary under test."""
    path = Path(os.environ.get("HALDIR_BIN", REPOSITORY / "target" / "release" / "haldir")).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no program at {path}: build it, or name one in HALDIR_BIN")
    return path


class Server:
    """One Haldir process and its data directory. Survives restarts of the process."""

    def __init__(
        self,
        directory: Path,
        *,
        mints_key: bool = False,
        token: str | None = BOOTSTRAP_TOKEN,
        options: Iterable[str] = (),
        port: int = 0,
    ) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.base_url = ""
        self.tenants: list[Tenant] = []
        self._options = [] if mints_key else ["--no-key"]
        self._options.extend(options)
        self._token = token
        self._port = port  # 0 is any that is free
        self._process: subprocess.Popen[bytes] | None = None
        # Plain HTTP only: reading the machine's certificates for every client would take most of the time.
        self._connections = httpx.Client(timeout=PATIENCE_S, verify=False)

    # -- The process ------------------------------------------------------------------------

    def start(self) -> Server:
        """Starts the process and waits until it says where it listens."""
        place = ["--host", "127.0.0.1", "--port", str(self._port), "--data-dir", str(self.data)]
        command = [str(program()), "serve", *place, *self._options]
        self.data.mkdir(parents=True, exist_ok=True)
        log = self.directory / "stdout.log"
        with log.open("wb") as out, (self.directory / "stderr.log").open("ab") as err:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=self.directory, env=self._environment()
            )
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text(errors="replace"))
            if found:
                self.base_url = found[0]
                return self
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"the server did not say where it listens\n{self.output()}")

    def stop(self) -> None:
        """Asks the process to end, as a service manager would, and waits until it has."""
        if self._process is None:
            return
        assert self.is_running, f"the server ended without being asked\n{self.output()}"
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not stop when asked to\n{self.output()}") from None
        self._process = None
        assert code == 0, f"the server stopped with code {code}\n{self.output()}"

    def kill(self) -> None:
        """Ends the process without asking, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> Server:
        """Stops and starts the process on the same directory."""
        self.stop()
        return self.start()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The number of the running process."""
        assert self._process is not None
        return self._process.pid

    def output(self) -> str:
        """What the process wrote last."""
        tails = (f"{log.name}: …{log.read_text(errors='replace')[-2000:]}" for log in self.directory.glob("*.log"))
        return "\n".join(tails)

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs another command of the program."""
        return subprocess.run(
            [program(), *arguments],
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=self._environment(),
            timeout=10 * PATIENCE_S,
            check=False,
        )

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HALDIR", "DATABASE_URL"))}
        if self._token is not None:
            kept["HALDIR_BOOTSTRAP_TOKEN"] = self._token
        return kept | {"HOME": str(self.directory)}

    # -- Calls ------------------------------------------------------------------------------

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request without a key."""
        return self._connections.request(method, self.base_url + path, **options)

    def found_tenant(self, **fields: Any) -> Tenant:
        """A tenant of its own, founded with the bootstrap token."""
        answer = self.call("POST", "/v1/keys", json=fields, headers={"X-Bootstrap-Token": self._token or ""})
        assert answer.status_code == 201, answer.text
        return self.adopt(answer.json()["key"])

    def adopt(self, key: str) -> Tenant:
        """The tenant of a first key that was minted in another way."""
        tenant = Tenant(self, key)
        self.tenants.append(tenant)
        return tenant

    # -- The oracle -------------------------------------------------------------------------

    def check(self) -> None:
        """Stops the server and has everything it recorded verified, by itself and by a stranger."""
        self.stop()
        verdict = self.run("audit", "verify", "--data-dir", self.data)
        assert verdict.returncode == 0, f"audit verify: {verdict.stdout}{verdict.stderr}"
        for tenant in self.tenants:
            export = self.export(tenant)
            code, said = verify_ledger(export, self.data / "signing.pub", tenant.id)
            assert code == 0, f"tenant {tenant.id}: {said}"
            export.unlink()

    def export(self, tenant: Tenant) -> Path:
        """The ledger of a tenant, written to a file while the server is stopped."""
        out = self.directory / f"{tenant.id}.jsonl"
        done = self.run("audit", "export", "--data-dir", self.data, "--tenant", tenant.id, "--out", out)
        assert done.returncode == 0, f"audit export: {done.stdout}{done.stderr}"
        return out


@dataclass(frozen=True)
class Entry:
    """One line of a ledger export."""

    seq: int
    kind: str
    raw: bytes = field(repr=False)


@dataclass
class Tenant:
    """A tenant by its first key, which may do everything unless a test narrowed it."""

    server: Server
    key: str = field(repr=False)

    @property
    def id(self) -> str:
        return hashlib.sha256(self.key.encode()).hexdigest()[:16]

    @property
    def prefix(self) -> str:
        return self.key[:12]

    def call(self, method: str, path: str, *, key: str | None = None, **options: Any) -> httpx.Response:
        """One request with the tenant's key, or with another key of the same tenant."""
        headers = httpx.Headers(options.pop("headers", None))
        headers.setdefault("Authorization", f"Bearer {key or self.key}")
        return self.server.call(method, path, headers=headers, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.call("GET", path, **options)

    def post(self, path: str, json: Any = None, **options: Any) -> httpx.Response:
        return self.call("POST", path, json=json, **options)

    def put(self, path: str, json: Any = None, **options: Any) -> httpx.Response:
        return self.call("PUT", path, json=json, **options)

    def delete(self, path: str, **options: Any) -> httpx.Response:
        return self.call("DELETE", path, **options)

    def client(self, key: str | None = None) -> HaldirClient:
        """The published client, as its users have it."""
        return HaldirClient(api_key=key or self.key, base_url=self.server.base_url, timeout=PATIENCE_S)

    def async_client(self) -> HaldirAsyncClient:
        """The published client for asyncio."""
        return HaldirAsyncClient(api_key=self.key, base_url=self.server.base_url, timeout=PATIENCE_S)

    def mint(self, *scopes: str, **fields: Any) -> str:
        """Another key of this tenant."""
        return created(self.post("/v1/keys", {"scopes": list(scopes), **fields}))["key"]

    def open_session(self, **fields: Any) -> str:
        """The id of a new session; without fields, one that may do everything without a cap."""
        asked = {"agent_id": "agent", "scopes": ["admin"], **fields}
        return created(self.post("/v1/sessions", asked))["session_id"]

    def ledger(self) -> list[Entry]:
        """Every entry of the tenant's stream."""
        answer = self.get("/v1/ledger/export")
        assert answer.status_code == 200, answer.text
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert lines[0]["type"] == "header" and lines[-1]["type"] == "end", "an incomplete export"
        return [Entry(line["seq"], line["kind"], base64.b64decode(line["entry"])) for line in lines[1:-1]]

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """What happened, in order, as `/v1/ledger/events` tells it: all of it, or of these kinds."""
        events: list[dict[str, Any]] = []
        query: dict[str, int] = {"limit": 1000}
        while True:
            page = found(self.get("/v1/ledger/events", params=query))
            events += [event for event in page["events"] if not kinds or event["kind"] in kinds]
            if not page["events"]:
                return events
            query["after"] = page["next_after"]

    def record(self) -> list[str]:
        """The kinds of all entries that somebody's doing caused, in order."""
        return [entry.kind for entry in self.ledger() if entry.kind not in BACKGROUND_KINDS]


def created(answer: httpx.Response) -> dict[str, Any]:
    """The body of a 201."""
    assert answer.status_code == 201, f"{answer.status_code} {answer.text}"
    return answer.json()


def found(answer: httpx.Response) -> dict[str, Any]:
    """The body of a 200."""
    assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
    return answer.json()


def refusal(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The body of an error: a JSON object whose `error` is text, so that every client can read it."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    body = answer.json()
    assert isinstance(body, dict), body
    assert isinstance(body.get("error"), str) and body["error"], body
    if code is not None:
        assert body.get("code") == code, body
    return body


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def short(value: Any) -> str:
    """A name for a test case that stays on one line."""
    return str(value)[:48]


def at_once(callers: int, act: Callable[[int], Result]) -> list[Result]:
    """What `act` gives to callers that all start at the same moment."""
    gate = Barrier(callers)

    def enter(number: int) -> Result:
        gate.wait(PATIENCE_S)
        return act(number)

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(enter, range(callers)))


def verify_ledger(export: Path, public_key: Path, tenant: str) -> tuple[int, str]:
    """The verdict of the independent verifier: its exit code and what it printed."""
    return verify_apart(export, "--key", public_key, "--tenant", tenant)


def verify_apart(*arguments: str | Path) -> tuple[int, str]:
    """Runs the independent verifier: its exit code and what it printed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = verify_ledger_program.main(list(map(str, arguments)))
    return code, said.getvalue()


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """Runs a server for a test and checks afterwards what it recorded."""
    server.start()
    try:
        yield server
        server.check()
    finally:
        server.kill()
