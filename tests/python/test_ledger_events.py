"""The ledger as it grows: pages of events, streams of them, and exports that go on.

Whoever follows a ledger must see every entry once and in order, whatever happens on the way:
connections that break, servers that are killed, programs that are. What was seen is compared with
the export, byte by byte.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from harness import PATIENCE_S, Server, Tenant, created, found, free_port, program, refusal, short, verify_apart

StartServer = Callable[..., Server]
EVENTS = "/v1/ledger/events"
NO_METERING = ("--meter-interval", "1h")


def log(tenant: Tenant, session: str, action: str = "act") -> None:
    created(tenant.post("/v1/audit", {"session_id": session, "action": action}))


def grow(tenant: Tenant, count: int) -> None:
    session = tenant.open_session()
    for number in range(count - 1):
        log(tenant, session, f"act {number}")


def entry_bytes(events: list[dict[str, Any]]) -> list[bytes]:
    return [base64.b64decode(event["entry"]) for event in events]


def ledger_bytes(tenant: Tenant) -> list[bytes]:
    return [entry.raw for entry in tenant.ledger()]


# -- Pages -------------------------------------------------------------------------------------------


def pages(tenant: Tenant, limit: int | None) -> Iterator[dict[str, Any]]:
    query: dict[str, Any] = {} if limit is None else {"limit": limit}
    while True:
        page = found(tenant.get(EVENTS, params=query))
        assert page["count"] == len(page["events"])
        if not page["events"]:
            return
        yield page
        assert page["next_after"] == page["events"][-1]["seq"]
        query["after"] = page["next_after"]


@pytest.mark.parametrize("limit", [None, 1, 2, 7, 99, 100, 1000])
def test_pages_are_the_ledger(tenant: Tenant, limit: int | None) -> None:
    grow(tenant, 120 if limit in (None, 100) else 12)
    expected = [json.loads(line) for line in tenant.get("/v1/ledger/export").text.splitlines()[1:-1]]
    told = [event for page in pages(tenant, limit) for event in page["events"]]
    assert told[: len(expected)] == expected, "an event is told as the export tells it"
    assert [event["seq"] for event in told] == [*range(len(told))]
    sizes = [page["count"] for page in pages(tenant, limit)]
    assert all(size == (limit or 100) for size in sizes[:-1])


def test_a_page_says_how_far_the_ledger_goes(tenant: Tenant) -> None:
    grow(tenant, 5)
    page = found(tenant.get(EVENTS, params={"after": 2, "limit": 2}))
    assert (page["count"], page["next_after"], [event["seq"] for event in page["events"]]) == (2, 4, [3, 4])
    assert page["stream_size"] >= 6
    beyond = found(tenant.get(EVENTS, params={"after": 1_000_000}))
    assert (beyond["count"], beyond["events"], beyond["next_after"]) == (0, [], 1_000_000)


@pytest.mark.parametrize(
    "query",
    [{"after": "x"}, {"after": "-1"}, {"after": "1.5"}, {"after": str(2**64)}, {"limit": "x"}, {"limit": "0"},
     {"limit": "1001"}, {"limit": "-1"}, {"limit": str(2**64)}],
    ids=short,
)  # fmt: skip
def test_bad_parameters_of_a_page(tenant: Tenant, query: dict[str, str]) -> None:
    assert refusal(tenant.get(EVENTS, params=query), 400)["request_id"]


@pytest.mark.parametrize("after", [2**63, 2**64 - 2, 2**64 - 1])
def test_after_the_last_number_there_is_nothing(tenant: Tenant, after: int) -> None:
    assert found(tenant.get(EVENTS, params={"after": after}))["events"] == []
    with contextlib.closing(Listener(tenant, after)) as listener:
        tenant.open_session()
        assert listener.wait(0.3) is None
    assert tenant.server.is_running and "panicked" not in tenant.server.output()


def test_nobody_sees_events_of_others(tenant: Tenant, stranger: Tenant) -> None:
    grow(tenant, 3)
    assert [event["kind"] for event in found(stranger.get(EVENTS))["events"]] == ["key.minted"]


# -- Streams -----------------------------------------------------------------------------------------


class Listener:
    """One subscription by hand, over a plain connection: what came, line by line."""

    def __init__(self, tenant: Tenant, last: int | None = None, by_query: bool = False) -> None:
        parts = urlsplit(tenant.server.base_url)
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE_S)
        headers = {"Authorization": f"Bearer {tenant.key}", "Accept": "text/event-stream"}
        path = EVENTS
        if last is not None and by_query:
            path += f"?after={last}"
        elif last is not None:
            headers["Last-Event-ID"] = str(last)
        self.connection.request("GET", path, headers=headers)
        self.socket = self.connection.sock
        self.answer = self.connection.getresponse()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Events until the connection breaks. One is whole when its empty line has come."""
        fields: dict[str, str] = {}
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            while line := self.answer.readline():
                assert line.endswith(b"\n") or self.answer.isclosed()
                text = line.decode().removesuffix("\n")
                if text.startswith(":"):
                    continue
                if text:
                    name, _, value = text.partition(": ")
                    fields[name] = value
                elif fields:
                    event = json.loads(fields["data"])
                    assert fields["id"] == str(event["seq"]) and fields["event"] == event["kind"]
                    yield event
                    fields = {}

    def wait(self, seconds: float) -> dict[str, Any] | None:
        """The next event, if one comes in time."""
        if self.socket is not None:
            self.socket.settimeout(seconds)
        return next(iter(self), None)

    def cut(self) -> None:
        """Breaks the connection, whoever is waiting for it."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.connection.close()


def listen(tenant: Tenant, until: int, last: int | None = None) -> list[dict[str, Any]]:
    """Events up to the seq `until`, from one connection."""
    seen = []
    with contextlib.closing(Listener(tenant, last)) as listener:
        for event in listener:
            seen.append(event)
            if event["seq"] == until:
                return seen
    raise AssertionError(f"the stream ended after {seen[-1:]}")


@pytest.mark.parametrize("by_query", [False, True])
def test_a_stream_tells_what_there_was_and_then_what_comes(tenant: Tenant, by_query: bool) -> None:
    grow(tenant, 5)
    with contextlib.closing(Listener(tenant, 2, by_query)) as listener:
        assert listener.answer.status == 200
        assert listener.answer.headers["content-type"].startswith("text/event-stream")
        assert listener.answer.headers["cache-control"] == "no-store"
        events = iter(listener)
        assert [next(events)["seq"] for _ in range(3)] == [3, 4, 5]
        for number in range(6, 12):
            began = time.monotonic()
            tenant.open_session()
            assert next(events)["seq"] == number
            assert time.monotonic() - began < 5, "an event comes as it happens"


def test_a_long_ledger_is_caught_up_with(tenant: Tenant) -> None:
    grow(tenant, 700)
    assert entry_bytes(listen(tenant, 700)) == ledger_bytes(tenant)[:701]


@pytest.mark.parametrize("last", ["x", "-1", "1.5", str(2**64), "1 2"])
def test_a_last_id_that_is_none(tenant: Tenant, last: str) -> None:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last}
    refusal(tenant.get(EVENTS, headers=headers), 400)


def test_a_stream_needs_a_key_that_may_read(tenant: Tenant) -> None:
    headers = {"Accept": "text/event-stream"}
    refusal(tenant.server.call("GET", EVENTS, headers=headers), 401)
    refusal(tenant.get(EVENTS, headers=headers, key=tenant.mint("sessions:read")), 403, "insufficient_scope")


def test_many_listeners_see_the_same(tenant: Tenant) -> None:
    with ThreadPoolExecutor(9) as pool:
        listeners = [pool.submit(listen, tenant, 60) for _ in range(8)]
        grow(tenant, 60)
        told = [entry_bytes(it.result()) for it in listeners]
    assert told == [ledger_bytes(tenant)[:61]] * 8


class Writers:
    """Some who write to a tenant until they are told to stop, whatever the server does meanwhile."""

    def __init__(self, tenant: Tenant, count: int = 3) -> None:
        self.tenant = tenant
        self.session = tenant.open_session()
        self.stop = threading.Event()
        self.acknowledged: list[str] = []
        self.threads = [threading.Thread(target=self.write) for _ in range(count)]

    def write(self) -> None:
        while not self.stop.is_set():
            try:
                answer = self.tenant.post("/v1/audit", {"session_id": self.session, "action": "act"})
            except httpx.HTTPError:
                time.sleep(0.02)
                continue
            if answer.status_code == 201:
                self.acknowledged.append(answer.json()["entry_id"])

    def __enter__(self) -> Writers:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()


def follow(tenant: Tenant, seen: list[dict[str, Any]], done: Callable[[], bool], pause: Callable[[], float]) -> None:
    """Subscribes again and again, each time for a moment, with the last id that came."""
    while not done():
        try:
            listener = Listener(tenant, seen[-1]["seq"] if seen else None)
        except OSError:
            time.sleep(0.02)
            continue
        with contextlib.closing(listener):
            if listener.answer.status != 200:
                continue
            timer = threading.Timer(pause(), listener.cut)
            timer.start()
            seen.extend(listener)
            timer.cancel()


def test_listeners_who_come_and_go_miss_nothing(tenant: Tenant) -> None:
    chance = random.Random(1)
    seen: list[dict[str, Any]] = []
    with Writers(tenant) as writers:
        began = time.monotonic()
        follow(tenant, seen, lambda: time.monotonic() - began > 6, lambda: chance.uniform(0.05, 0.6))
    size = len(tenant.ledger())
    if not seen or seen[-1]["seq"] < size - 1:
        seen += listen(tenant, size - 1, seen[-1]["seq"] if seen else None)
    assert entry_bytes(seen)[:size] == ledger_bytes(tenant)[:size]
    assert set(writers.acknowledged) <= {event["event"].get("entry_id") for event in seen}


def test_a_server_that_is_killed_in_the_middle(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()
    seen: list[dict[str, Any]] = []
    ended = threading.Event()
    listener = threading.Thread(target=follow, args=(tenant, seen, ended.is_set, lambda: 5.0))
    with Writers(tenant) as writers:
        listener.start()
        for _ in range(3):
            time.sleep(0.7)
            server.kill()
            server.start()
        time.sleep(0.5)
    wait_until(lambda: seen and seen[-1]["seq"] >= len(tenant.ledger()) - 1)
    ended.set()
    tenant.open_session()
    listener.join(PATIENCE_S)
    size = len(seen)
    assert entry_bytes(seen) == ledger_bytes(tenant)[:size]
    assert set(writers.acknowledged) <= {event["event"].get("entry_id") for event in seen}


def wait_until(is_so: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_listener_does_not_keep_a_server_from_stopping(start_server: StartServer, is_there: bool) -> None:
    server = start_server(options=("--shutdown-timeout", "12s"))
    tenant = server.found_tenant()
    with contextlib.closing(Listener(tenant)) as listener:
        assert listener.wait(5) is not None
        if not is_there:
            listener.cut()
        began = time.monotonic()
        server.stop()
        took = time.monotonic() - began
    server.start()
    assert took < 5


def test_a_revoked_key_hears_nothing_more(tenant: Tenant) -> None:
    key = tenant.mint("audit:read")
    with contextlib.closing(Listener(Tenant(tenant.server, key))) as listener:
        assert listener.wait(5) is not None
        found(tenant.delete(f"/v1/keys/{key[:12]}"))
        time.sleep(0.2)
        tenant.open_session()
        listener.socket.settimeout(5)
        assert "session.opened" not in [event["kind"] for event in listener]


# -- `audit export --follow` -------------------------------------------------------------------------


@contextlib.contextmanager
def following(tenant: Tenant, form: str, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "HALDIR_API_KEY": tenant.key, "HALDIR_BASE_URL": tenant.server.base_url}
    command = [program(), "audit", "export", "--follow", "--format", form, "--out", out]
    with out.with_suffix(".log").open("ab") as log_file:
        process = subprocess.Popen(command, env=environment, stdout=log_file, stderr=log_file)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def seqs_in(path: Path, form: str) -> list[int]:
    """The seqs of the whole lines of a file that is being written."""
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    if form == "ocsf":
        return [line["metadata"]["sequence"] for line in lines]
    return [line["seq"] for line in lines if line["type"] == "entry"]


@pytest.mark.parametrize("form", ["ledger", "ocsf"])
def test_a_file_that_follows_through_kills_on_both_sides(start_server: StartServer, tmp_path: Path, form: str) -> None:
    """The server is killed and restarted on its port, the follower is killed, a line is torn."""
    port = free_port()
    server = start_server(port=port)
    tenant = server.found_tenant()
    out = tmp_path / "followed"
    with Writers(tenant, 2):
        for round in range(3):
            with following(tenant, form, out):
                before = len(seqs_in(out, form))
                wait_until(lambda: len(seqs_in(out, form)) > before + 20)
                server.kill()
                server.start()
                before = len(seqs_in(out, form))
                wait_until(lambda: len(seqs_in(out, form)) > before + 20)
            if round < 2:  # a write that was cut off
                with out.open("ab") as file:
                    file.write(b'{"type":"entry","seq":')
    size = len(tenant.ledger())
    with following(tenant, form, out):
        wait_until(lambda: len(seqs_in(out, form)) >= size)
    seqs = seqs_in(out, form)
    assert seqs == [*range(len(seqs))]
    if form == "ledger":
        code, said = verify_apart(out, "--key", server.data / "signing.pub", "--tenant", tenant.id)
        assert code == 4, f"a file that follows has no end yet: {said}"
        done = export(tenant, "--out", out, "--resume")
        assert done.returncode == 0, done.stderr
        code, said = verify_apart(out, "--key", server.data / "signing.pub", "--tenant", tenant.id)
        assert code == 0, said
        lines = [json.loads(line) for line in out.read_text().splitlines()[1:-1]]
        assert entry_bytes(lines) == ledger_bytes(tenant)[: len(lines)]
    else:
        whole = tenant.get("/v1/ledger/export", params={"format": "ocsf"}).text.splitlines()
        assert [json.loads(line) for line in out.read_text().splitlines()] == [json.loads(it) for it in whole][: len(seqs)]



def test_a_follower_that_may_not_read_gives_up(tenant: Tenant, tmp_path: Path) -> None:
    narrow = Tenant(tenant.server, tenant.mint("sessions:read"))
    with following(narrow, "ocsf", tmp_path / "out") as process:
        assert process.wait(PATIENCE_S) != 0
    assert "403" in (tmp_path / "out.log").read_text()


def test_an_interrupted_follower_leaves_whole_lines(tenant: Tenant, tmp_path: Path) -> None:
    grow(tenant, 30)
    out = tmp_path / "out"
    with following(tenant, "ledger", out) as process:
        wait_until(lambda: len(seqs_in(out, "ledger")) >= 31)
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_S)
    assert out.read_bytes().endswith(b"\n")


# -- Exports in part ---------------------------------------------------------------------------------


def export(tenant: Tenant, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return tenant.server.run("--key", tenant.key, "--url", tenant.server.base_url, "audit", "export", *arguments)


@pytest.fixture
def grown(start_server: StartServer) -> Tenant:
    tenant = start_server(options=NO_METERING).found_tenant()
    grow(tenant, 12)
    return tenant


def test_ranges_by_seq(grown: Tenant, tmp_path: Path) -> None:
    whole = ledger_bytes(grown)
    size = len(whole)
    out = tmp_path / "part.jsonl"
    for first in range(0, size + 1, 3):
        for last in range(first, size + 1, 2):
            query = {"from_seq": first, "until_seq": last}
            out.write_bytes(grown.get("/v1/ledger/export", params=query).content)
            code, said = verify_apart(out, "--key", grown.server.data / "signing.pub", "--json")
            assert code == (0 if (first, last) == (0, size) else 4), said
            told = json.loads(said)
            assert (told["from"], told["size"]) == (first, last)
            lines = [json.loads(line) for line in out.read_text().splitlines()]
            assert entry_bytes(lines[1:-1]) == whole[first:last]
            assert lines[0]["stream_size"] == size
            ocsf = grown.get("/v1/ledger/export", params={**query, "format": "ocsf"}).text.splitlines()
            assert [json.loads(line)["metadata"]["sequence"] for line in ocsf] == [*range(first, last)]
    done = export(grown, "--from-seq", "3", "--until-seq", "7", "--out", out)
    assert done.returncode == 0, done.stderr
    assert entry_bytes([json.loads(line) for line in out.read_text().splitlines()][1:-1]) == whole[3:7]


def test_ranges_by_time(grown: Tenant, tmp_path: Path) -> None:
    events = found(grown.get(EVENTS))["events"]
    times = [event["at"] for event in events]
    for first in (0, 1, 5, len(times) - 1):
        for text in (times[first], unix(times[first])):
            lines = grown.get("/v1/ledger/export", params={"since": text}).text.splitlines()
            assert [json.loads(line)["seq"] for line in lines[1:-1]] == [*range(first, len(times))], "since is inclusive"
            lines = grown.get("/v1/ledger/export", params={"until": text}).text.splitlines()
            assert [json.loads(line)["seq"] for line in lines[1:-1]] == [*range(first)], "until is exclusive"
            lines = grown.get("/v1/ledger/export", params={"since": text, "format": "ocsf"}).text.splitlines()
            assert len(lines) == len(times) - first
    both = {"since": times[4], "until": times[9]}
    lines = grown.get("/v1/ledger/export", params=both).text.splitlines()
    assert [json.loads(line)["seq"] for line in lines[1:-1]] == [*range(4, 9)]
    out = tmp_path / "part.jsonl"
    assert export(grown, "--since", times[4], "--until", times[9], "--out", out).returncode == 0
    assert [json.loads(line)["seq"] for line in out.read_text().splitlines()[1:-1]] == [*range(4, 9)]


def unix(at: str) -> str:
    moment = datetime.fromisoformat(at.replace("Z", "+00:00")) - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return f"{moment.days * 86_400 + moment.seconds}.{moment.microseconds:06}"


@pytest.mark.parametrize(
    "query",
    [{"from_seq": "x"}, {"from_seq": "-1"}, {"from_seq": "100"}, {"until_seq": "x"}, {"since": "x"},
     {"until": "yesterday"}, {"format": "xml"}, {"from_seq": "5", "until_seq": "3"}, {"from_seq": str(2**64)}],
    ids=short,
)  # fmt: skip
def test_bad_parameters_of_an_export(tenant: Tenant, query: dict[str, str]) -> None:
    grow(tenant, 8)
    answer = tenant.get("/v1/ledger/export", params=query)
    said = refusal(answer, 400)
    assert said["request_id"]


def test_tiles(grown: Tenant, tmp_path: Path) -> None:
    grow(grown, 600)
    folder = tmp_path / "tiles"
    done = export(grown, "--format", "tiles", "--out", folder)
    assert done.returncode == 0, done.stderr
    public = grown.server.data / "signing.pub"
    code, said = verify_apart(folder, "--key", public, "--tenant", grown.id, "--json")
    assert code == 0, said
    assert json.loads(said)["size"] == len(grown.ledger())
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"checkpoint", "tile/0/000", "tile/0/001", "tile/entries/000", "tile/entries/001", "tile/1/000.p/2"} <= files
    assert export(grown, "--format", "tiles").returncode != 0, "tiles need a folder"


def test_an_export_that_was_cut_off_is_gone_on_with(grown: Tenant, tmp_path: Path) -> None:
    out = tmp_path / "export.jsonl"
    assert export(grown, "--out", out).returncode == 0
    whole = out.read_bytes()
    public = ("--key", grown.server.data / "signing.pub", "--tenant", grown.id)
    header = whole.index(b"\n") + 1
    for cut in [header, header + 1, len(whole) // 2, len(whole) - 400, len(whole) - 1, len(whole)]:
        out.write_bytes(whole[:cut])
        grown.open_session()
        done = export(grown, "--out", out, "--resume")
        assert done.returncode == 0, done.stderr
        code, said = verify_apart(out, *public, "--json")
        assert code == 0, said
        assert json.loads(said)["size"] == len(grown.ledger())
    missing = tmp_path / "missing.jsonl"
    assert export(grown, "--out", missing, "--resume").returncode == 0, "nothing to go on with is a beginning"
    assert verify_apart(missing, *public)[0] == 0
    out.write_bytes(b"something else\n")
    assert export(grown, "--out", out, "--resume").returncode != 0
    assert out.read_bytes() == b"something else\n", "what is no export is left alone"
