"""Exports of the audit trail: read with Python's own readers, and their manifests checked without the server.

Everything a manifest says is computed again here from the file alone, and its signature is checked with
another implementation of Ed25519.
"""

from __future__ import annotations

import csv
import hashlib
import http.client
import io
import json
import re
import threading
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from harness import PATIENCE_S, Server, Tenant, created, found, refusal, short

StartServer = Callable[..., Server]
Row = dict[str, Any]

# Details may be longer than what Python's reader takes unasked.
csv.field_size_limit(1 << 30)

EXPORT = "/v1/audit/export"
MANIFEST = "/v1/audit/export/manifest"

ROW_KEYS = (
    "entry_id timestamp tenant_id session_id agent_id tool action cost_usd flagged flag_reason details prev_hash entry_hash"
).split()
COLUMNS = (
    "entry_id timestamp timestamp_iso tenant_id session_id agent_id tool action cost_usd flagged flag_reason details_json "
    "prev_hash entry_hash"
).split()
MANIFEST_KEYS = (
    "type format_version tenant_id generated_at filters count first_timestamp last_timestamp last_chain_hash sha256 format "
    "content_sha256 key_id public_key signature"
).split()

# What agents say, chosen to break readers: quotes, separators, every kind of line end, other scripts, formulas. Control
# characters are only in details: nowhere else are they accepted.
AWKWARD = [
    "plain",
    'say "hi", twice',
    "comma, semicolon; tab\t",
    "line\nfeed",
    "carriage\r\nreturn",
    "lone\rreturn",
    "next\u0085line, \u2028line and \u2029paragraph separator",
    "🕊️ emoji, ünïcödé, 中文, עברית",
    '"',
    '""',
    ",",
    "\n",
    "'single' `back` \\slash\\ /solidus/",
    "=1+1",
    "del\u007f and bell\u0007",
    "</script><!--",
    "x" * 512,
    "null",
    " spaces around ",
]


# -- Making and reading ------------------------------------------------------------------------------


def log(tenant: Tenant, session: str, action: str = "act", **fields: Any) -> Row:
    """Logs an action."""
    return created(tenant.post("/v1/audit", {"session_id": session, "action": action, **fields}))


def log_text(tenant: Tenant, body: str) -> Row:
    """Logs an action by the text of its body, digit by digit and space by space."""
    headers = {"Content-Type": "application/json"}
    return created(tenant.call("POST", "/v1/audit", content=body.encode(), headers=headers))


def trail(tenant: Tenant, **query: Any) -> list[Row]:
    """The trail as the API tells it, oldest first."""
    return found(tenant.get("/v1/audit", params={"limit": 100_000, **query}))["entries"][::-1]


def export(tenant: Tenant, **query: Any) -> httpx.Response:
    answer = tenant.get(EXPORT, params=query)
    assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
    return answer


def jsonl(tenant: Tenant, **query: Any) -> tuple[list[Row], Row]:
    """The rows and the checked manifest of a JSONL export."""
    return read_jsonl(tenant, export(tenant, **query).content)


def read_jsonl(tenant: Tenant, content: bytes) -> tuple[list[Row], Row]:
    assert content.endswith(b"\n")
    lines = content[:-1].split(b"\n")
    assert [line.decode() for line in lines] == content.decode().splitlines(), "a line is one line for every reader"
    rows = [json.loads(line, parse_float=Decimal) for line in lines[:-1]]
    for line, row in zip(lines, rows):
        assert list(row) == ROW_KEYS
    manifest = check_manifest(tenant, lines[-1], rows)
    before = content[: len(content) - len(lines[-1]) - 1]
    assert manifest["content_sha256"] == hashlib.sha256(before).hexdigest()
    assert manifest["format"] == "jsonl"
    return rows, manifest


def csv_rows(tenant: Tenant, **query: Any) -> tuple[list[Row], bytes]:
    content = export(tenant, format="csv", **query).content
    return read_csv(content), content


def read_csv(content: bytes) -> list[Row]:
    records = list(csv.reader(io.StringIO(content.decode(), newline="")))
    assert records[0] == COLUMNS
    assert all(len(record) == len(COLUMNS) for record in records)
    return [dict(zip(COLUMNS, record)) for record in records[1:]]


def signing_key(server: Server) -> Ed25519PublicKey:
    """The server's public key, from the file that an auditor was given beforehand."""
    key = load_pem_public_key((server.data / "signing.pub").read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    return key


def check_manifest(tenant: Tenant, line: bytes, rows: list[Row]) -> Row:
    """Computes everything again that a manifest says, apart from the digest of the content."""
    manifest: Row = json.loads(line, parse_float=Decimal)
    assert list(manifest) == MANIFEST_KEYS
    assert (manifest["type"], manifest["format_version"], manifest["tenant_id"]) == ("manifest", 1, tenant.id)
    assert manifest["count"] == len(rows)
    ids = "".join(row["entry_id"] + "\n" for row in rows)
    assert manifest["sha256"] == hashlib.sha256(ids.encode()).hexdigest()
    assert manifest["last_chain_hash"] == (rows[-1]["entry_hash"] if rows else "")
    for key, row in (("first_timestamp", rows[:1]), ("last_timestamp", rows[-1:])):
        assert manifest[key] == (Decimal(row[0]["timestamp"]) if row else None)
    generated = datetime.fromisoformat(manifest["generated_at"].replace("Z", "+00:00"))
    assert abs(datetime.now(timezone.utc) - generated) < timedelta(minutes=10)

    key = signing_key(tenant.server)
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    key_id = hashlib.sha256(raw).digest()[:8]
    assert (manifest["public_key"], manifest["key_id"]) == (raw.hex(), key_id.hex())
    text = signed_text(line)
    assert list(json.loads(text)) == MANIFEST_KEYS[:-1]
    assert is_signed(key, key_id, text, bytes.fromhex(manifest["signature"]))
    # A manifest that says anything else is not signed.
    assert not is_signed(key, key_id, text.replace(b'"count":', b'"count":1'), bytes.fromhex(manifest["signature"]))
    return manifest


def signed_text(line: bytes) -> bytes:
    """What was signed: the text of the manifest without its last member."""
    signed = re.fullmatch(rb'(\{.*),"signature":"[0-9a-f]{128}"\}', line, re.DOTALL)
    assert signed, line
    return signed[1] + b"}"


def is_signed(key: Ed25519PublicKey, key_id: bytes, text: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, b"haldir audit export v1\n" + key_id + hashlib.sha256(text).digest())
    except InvalidSignature:
        return False
    return True


def manifest_of(tenant: Tenant, rows: list[Row], **query: Any) -> Row:
    answer = tenant.get(MANIFEST, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return check_manifest(tenant, answer.content, rows)


def printable(text: str) -> str:
    return "".join(character for character in text if unicodedata.category(character) != "Cc") or "?"


@pytest.fixture
def busy(tenant: Tenant) -> Tenant:
    """A tenant with a trail of awkward rows by three sessions of two agents."""
    sessions = [tenant.open_session(agent_id=agent) for agent in ["bot, \"1\"", "bot-2", "bot-2"]]
    tools = ["", "mail", "mail:send,now", "größe"]
    for number, text in enumerate(AWKWARD):
        log(
            tenant,
            sessions[number % 3],
            printable(text),
            tool=tools[number % 4],
            cost_usd=number / 4,
            details={"z": text, "a": [number, {"nested": text}], text: None},
        )
    return tenant


# -- Both formats ------------------------------------------------------------------------------------


def test_a_jsonl_export_tells_the_whole_trail_in_order(busy: Tenant) -> None:
    rows, manifest = jsonl(busy)
    expected = trail(busy)
    assert manifest["filters"] == {}
    assert [row["action"] for row in rows] == [printable(text) for text in AWKWARD]
    assert [row["details"]["z"] for row in rows] == AWKWARD
    for row, entry in zip(rows, expected, strict=True):
        assert row.pop("tenant_id") == busy.id
        entry.pop("seq")
        assert row == {**entry, "timestamp": row["timestamp"], "cost_usd": row["cost_usd"], "details": row["details"]}
        assert float(row["timestamp"]) == entry["timestamp"] and float(row["cost_usd"]) == entry["cost_usd"]
        assert json.dumps(row["details"], default=float) == json.dumps(entry["details"]), "keys keep their order"
    times = [row["timestamp"] for row in rows]
    assert times == sorted(set(times))
    assert [row["prev_hash"] for row in rows] == ["", *(row["entry_hash"] for row in rows[:-1])]


def test_a_csv_export_tells_the_same(busy: Tenant) -> None:
    rows, content = csv_rows(busy)
    expected, _ = jsonl(busy)
    for row, entry in zip(rows, expected, strict=True):
        for name in ["entry_id", "tenant_id", "session_id", "agent_id", "tool", "action", "flag_reason"]:
            assert row[name] == entry[name], name
        assert row["prev_hash"] == entry["prev_hash"] and row["entry_hash"] == entry["entry_hash"]
        assert Decimal(row["timestamp"]) == entry["timestamp"] and re.fullmatch(r"\d+\.\d{6}", row["timestamp"])
        moment = datetime.fromisoformat(row["timestamp_iso"].replace("Z", "+00:00"))
        assert Decimal(moment.timestamp()).quantize(Decimal("0.000001")) == entry["timestamp"]
        assert Decimal(row["cost_usd"]) == entry["cost_usd"] and re.fullmatch(r"\d+\.\d{2,9}", row["cost_usd"])
        assert row["flagged"] == str(entry["flagged"]).lower()
        assert json.loads(row["details_json"], parse_float=Decimal) == entry["details"]
        assert row["details_json"] == json.dumps(json.loads(row["details_json"]), separators=(",", ":"), ensure_ascii=False)
    assert content.startswith(b"entry_id,timestamp,timestamp_iso,") and content.endswith(b"\n")
    assert b"\r" not in content, "lines end in LF alone"
    manifest = manifest_of(busy, rows, format="csv")
    assert manifest["content_sha256"] == hashlib.sha256(content).hexdigest()
    assert manifest["format"] == "csv"


def test_only_cells_that_need_quotes_have_them(busy: Tenant) -> None:
    rows, content = csv_rows(busy)
    again = io.StringIO(newline="")
    writer = csv.writer(again, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([row[name] for name in COLUMNS] for row in rows)
    assert content.decode() == again.getvalue()


def test_costs_and_details_are_told_digit_by_digit(tenant: Tenant) -> None:
    session = tenant.open_session()
    for cost, details in [
        ("0.000000001", '{"n": 1e300, "m": 0.1000, "i": 123456789012345678901234567890}'),
        ("999999999999.999999999", '[ 1,\n\t2 ,{ "b" : 1, "a" : " spaces  stay " } ]'),
        ("29.99", '"a \\"string\\" with \\\\ and \\u00e9"'),
        ("5", "{}"),
    ]:
        body = f'{{"session_id":"{session}","action":"a","cost_usd":{cost},"details":{details}}}'
        log_text(tenant, body)
    lines = export(tenant).text.split("\n")
    assert '"cost_usd":0.000000001,' in lines[0] and '"cost_usd":999999999999.999999999,' in lines[1]
    assert '"details":{"n":1e300,"m":0.1000,"i":123456789012345678901234567890},' in lines[0]
    assert '"details":[1,2,{"b":1,"a":" spaces  stay "}],' in lines[1]
    assert '"details":"a \\"string\\" with \\\\ and \\u00e9",' in lines[2]
    assert '"cost_usd":5.0,' in lines[3] and '"details":{},' in lines[3]
    rows, _ = csv_rows(tenant)
    assert [row["cost_usd"] for row in rows] == ["0.000000001", "999999999999.999999999", "29.99", "5.00"]


def test_the_largest_details_are_told(tenant: Tenant) -> None:
    session = tenant.open_session()
    long = "é\u2028" * 200_000
    for _ in range(3):
        log(tenant, session, details={"long": long})
    rows, _ = jsonl(tenant)
    assert [row["details"] for row in rows] == [{"long": long}] * 3
    assert [json.loads(row["details_json"]) for row in csv_rows(tenant)[0]] == [{"long": long}] * 3


@pytest.mark.parametrize("query", [{}, {"format": "JSONL"}, {"format": "csv"}, {"format": "Csv"}, {"format": ""}], ids=short)
def test_headers_say_what_the_export_is(tenant: Tenant, query: dict[str, str]) -> None:
    kind = "csv" if query.get("format", "").lower() == "csv" else "jsonl"
    content_type, manifest = {
        "jsonl": ("application/x-ndjson; charset=utf-8", "embedded-final-line"),
        "csv": ("text/csv; charset=utf-8", "out-of-band"),
    }[kind]
    for method in ["GET", "HEAD"]:
        answer = tenant.call(method, EXPORT, params=query)
        assert answer.status_code == 200
        assert answer.headers.get_list("content-type") == [content_type]
        assert answer.headers["x-haldir-export-manifest"] == manifest
        assert answer.headers["x-haldir-export-format-version"] == "1"
        assert answer.headers["x-accel-buffering"] == "no"
        name = re.fullmatch(
            rf'attachment; filename="haldir-audit-{tenant.id}-(\d{{8}}T\d{{6}})Z\.{kind}"',
            answer.headers["content-disposition"],
        )
        assert name
        began = datetime.strptime(name[1], "%Y%m%dT%H%M%S").replace(tzinfo=timezone.utc)
        assert abs(datetime.now(timezone.utc) - began) < timedelta(minutes=10)
        assert (answer.content == b"") == (method == "HEAD")
    head = tenant.call("HEAD", MANIFEST, params=query)
    assert (head.status_code, head.content, head.headers["content-type"]) == (200, b"", "application/json")


def test_an_empty_export_has_a_manifest_too(tenant: Tenant) -> None:
    rows, manifest = jsonl(tenant)
    nothing = hashlib.sha256().hexdigest()
    assert rows == [] and manifest["sha256"] == manifest["content_sha256"] == nothing
    rows, content = csv_rows(tenant)
    assert rows == [] and content == ",".join(COLUMNS).encode() + b"\n"
    assert manifest_of(tenant, [])["content_sha256"] == nothing
    assert manifest_of(tenant, [], format="csv")["content_sha256"] == hashlib.sha256(content).hexdigest()


def test_nobody_exports_what_is_not_theirs(busy: Tenant, stranger: Tenant) -> None:
    session = trail(busy)[0]["session_id"]
    for query in [{}, {"session_id": session}, {"agent_id": "bot-2"}]:
        assert jsonl(stranger, **query)[0] == []
        assert csv_rows(stranger, **query)[0] == []
    reader, writer = busy.mint("audit:read"), busy.mint("sessions:write")
    for path in [EXPORT, MANIFEST]:
        refusal(busy.server.call("GET", path), 401)
        refusal(busy.get(path, key=writer), 403, "insufficient_scope")
        assert busy.get(path, key=reader).status_code == 200


# -- Filters -----------------------------------------------------------------------------------------


def filters(entries: list[Row]) -> Iterator[tuple[dict[str, Any], list[Row]]]:
    """Queries, and what they should find."""
    yield {}, entries
    for name in ["session_id", "agent_id", "tool"]:
        for value in [*dict.fromkeys(entry[name] for entry in entries), "nobody"]:
            # An empty filter is none.
            yield {name: value}, [entry for entry in entries if entry[name] == value or not value]
    first = entries[0]
    both = {"session_id": first["session_id"], "tool": "mail", "agent_id": first["agent_id"]}
    yield both, [entry for entry in entries if all(entry[name] == value for name, value in both.items())]
    yield {"session_id": first["session_id"], "agent_id": "bot-2"}, []
    yield {"flagged": "true"}, []
    yield {"flagged": "True"}, entries
    yield {"flagged": "1"}, entries
    for at in [0, 1, 7, len(entries) - 1]:
        moment = entries[at]["timestamp"]
        for text in [f"{moment:.6f}", repr(moment), iso(moment), iso(moment, hours=5.5), iso(moment).replace("+00:00", "Z")]:
            yield {"since": text}, entries[at:]
            yield {"until": text}, entries[:at]
        yield {"since": f"{moment + 0.000001:.6f}"}, entries[at + 1 :]
        yield {"until": f"{moment + 0.000001:.6f}"}, entries[: at + 1]
        yield {"since": naive(moment), "until": iso(entries[-1]["timestamp"])}, entries[at:-1]
    middle = entries[5]["timestamp"]
    yield {"since": iso(middle), "agent_id": "bot-2"}, [it for it in entries[5:] if it["agent_id"] == "bot-2"]
    yield {"since": iso(middle), "until": iso(middle)}, []
    yield {"since": iso(entries[9]["timestamp"]), "until": iso(middle)}, []
    yield {"since": "2000-01-01", "until": "2999-12-31"}, entries
    yield {"since": "1902-01-01"}, entries
    yield {"since": "-1.5", "until": "-1"}, []
    yield {"since": "", "until": ""}, entries
    yield {"since": "2999-12-31"}, []
    yield {"limit": "1", "unknown": "x"}, entries


def iso(moment: float, hours: float = 0) -> str:
    zone = timezone(timedelta(hours=hours))
    return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=moment)).astimezone(zone).isoformat()


def naive(moment: float) -> str:
    return iso(moment).removesuffix("+00:00")


def test_filters_find_what_they_say_and_manifests_agree(busy: Tenant) -> None:
    for query, expected in filters(trail(busy)):
        rows, manifest = jsonl(busy, **query)
        assert [row["entry_id"] for row in rows] == [entry["entry_id"] for entry in expected], query
        same = ["count", "sha256", "last_chain_hash", "content_sha256", "filters", "first_timestamp", "last_timestamp"]
        other = manifest_of(busy, rows, **query)
        assert [manifest[name] for name in same] == [other[name] for name in same], query
        table, content = csv_rows(busy, **query)
        assert [row["entry_id"] for row in table] == [row["entry_id"] for row in rows], query
        other = manifest_of(busy, rows, format="csv", **query)
        assert [manifest[name] for name in same[:3]] == [other[name] for name in same[:3]], query
        assert other["content_sha256"] == hashlib.sha256(content).hexdigest(), query


def test_a_manifest_names_the_filters_that_were_given_and_no_others(busy: Tenant) -> None:
    query = {
        "session_id": "s \"1\"", "agent_id": "ägent", "tool": "t", "flagged": "true",
        "since": "2023-11-14T22:13:20.25Z", "until": "1900000000",
    }
    rows, manifest = jsonl(busy, **query)
    assert rows == []
    assert list(manifest["filters"].items()) == [
        ("session_id", "s \"1\""), ("agent_id", "ägent"), ("tool", "t"),
        ("since", Decimal("1700000000.25")), ("until", Decimal("1900000000.0")), ("flagged_only", True),
    ]
    assert jsonl(busy, since="", flagged="false", tool="")[1]["filters"] == {}


# -- Bad parameters ----------------------------------------------------------------------------------

BAD_TIMES = [
    "yesterday", "now", "1e9", "nan", "inf", "-inf", "0x10", "1_000", "1700000000000", "2023-13-01", "2023-02-30",
    "2023-11-14T25:00:00Z", "2023-11-14T22:13:20+99:99", "14.11.2023", "2023-11", "9" * 400, "१७०", "2023-11-14T22:13:20é",
    "2023-11-14T22:13:20 02:00", "\x00", "1;DROP TABLE", "[1]", "2023-11-14T22:13:20Z[Europe/Nowhere]",
]


@pytest.mark.parametrize("text", BAD_TIMES, ids=short)
@pytest.mark.parametrize("name", ["since", "until"])
def test_a_time_that_cannot_be_read_is_named(tenant: Tenant, name: str, text: str) -> None:
    for path in [EXPORT, MANIFEST]:
        for method in ["GET", "HEAD"]:
            answer = tenant.call(method, path, params={name: text})
            assert answer.status_code == 400
        body = refusal(tenant.get(path, params={name: text}), 400, "invalid_request")
        assert body["field"] == name and "ISO 8601" in body["reason"] and body["request_id"]


@pytest.mark.parametrize("got", ["xml", "json", "CSV ", "jsonl,csv", "\u212asv", "x" * 2000], ids=short)
def test_a_format_that_there_is_not_is_named(tenant: Tenant, got: str) -> None:
    for path in [EXPORT, MANIFEST]:
        body = refusal(tenant.get(path, params={"format": got}), 400, "invalid_format")
        assert body["got"] == got and body["request_id"]


# -- While things go on ------------------------------------------------------------------------------


def test_an_export_holds_what_was_there_when_it_began(start_server: StartServer) -> None:
    tenant = start_server().found_tenant()
    session = tenant.open_session()
    padding = "x" * 400_000
    for number in range(40):
        log(tenant, session, f"before-{number}", details={"padding": padding})
    parts = urlsplit(tenant.server.base_url)
    for kind in ["jsonl", "csv"]:
        before = len(trail(tenant))
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE_S)
        connection.request("GET", f"{EXPORT}?format={kind}", headers={"Authorization": f"Bearer {tenant.key}"})
        answer = connection.getresponse()
        first = answer.read(1000)
        # The rest is still to be written: more than the server and the connection hold is outstanding.
        for number in range(20):
            log(tenant, session, f"during-{number}")
        content = first + answer.read()
        connection.close()
        if kind == "jsonl":
            rows, manifest = read_jsonl(tenant, content)
            assert manifest["count"] == before
        else:
            rows = read_csv(content)
        assert len(rows) == before
        assert len(trail(tenant)) == before + 20


def test_exports_under_writing_are_whole_and_in_order(tenant: Tenant) -> None:
    session = tenant.open_session()
    stop = threading.Event()

    def write(number: int) -> int:
        count = 0
        while not stop.is_set() and count < 400:
            log(tenant, session, f"{number}-{count}")
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, number) for number in range(4)]
        seen: list[str] = []
        try:
            for _ in range(12):
                rows, _ = jsonl(tenant)
                ids = [row["entry_id"] for row in rows]
                assert ids[: len(seen)] == seen, "what was exported once is exported again"
                assert [row["prev_hash"] for row in rows] == ["", *(row["entry_hash"] for row in rows)][: len(rows)]
                seen = ids
        finally:
            stop.set()
        written = sum(writer.result() for writer in writers)
    assert len(jsonl(tenant)[0]) == written >= len(seen)
    # What a caller was told of is in the next export.
    told = log(tenant, session)["entry_id"]
    assert jsonl(tenant)[0][-1]["entry_id"] == told


def test_readers_who_go_away_in_the_middle_leave_nothing_behind(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()
    session = tenant.open_session()
    for _ in range(40):
        log(tenant, session, details={"padding": "x" * 100_000})
    before = threads(server)
    for kind in ["jsonl", "csv"]:
        for _ in range(20):
            with httpx.stream(
                "GET",
                f"{server.base_url}{EXPORT}?format={kind}",
                headers={"Authorization": f"Bearer {tenant.key}"},
                timeout=PATIENCE_S,
            ) as answer:
                assert answer.status_code == 200
                next(answer.iter_raw())
    assert len(jsonl(tenant)[0]) == 40
    # Threads that serve readers are used again: far fewer than one for each reader that left.
    assert threads(server) - before < 20
    assert "panicked" not in server.output()


def threads(server: Server) -> int:
    return len(list(Path(f"/proc/{server.pid}/task").iterdir()))


def test_an_export_is_the_same_after_a_restart_and_a_rebuilt_view(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.found_tenant()
    session = tenant.open_session()
    for number in range(10):
        log(tenant, session, f"act {number}", cost_usd=number)
    rows, manifest = jsonl(tenant)
    server.stop()
    views = [path for path in server.data.iterdir() if "view" in path.name]
    assert views, list(server.data.iterdir())
    for path in views:
        path.rename(server.directory / f"away-{path.name}")
    server.start()
    rebuilt, other = jsonl(tenant)
    assert rebuilt == rows and other["content_sha256"] == manifest["content_sha256"]
