"""Ledger entries as OCSF events: held against the published schema, and verified from the lines alone.

The lines are those of `tests/vectors/ocsf.jsonl`, which the Rust tests hold against the program: every
kind of event, and what the kinds can differ in.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from typing import Any

import blake3
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from harness import REPOSITORY
from ocsf_schema import VERSION, class_of, flaws, schema

Event = dict[str, Any]

VECTORS = REPOSITORY / "tests" / "vectors"
LINES = [
    line
    for name in ("ocsf.jsonl", "ocsf_secrets.jsonl")
    for line in (VECTORS / name).read_text().split("\n")[:-1]
]
EVENTS: list[Event] = [json.loads(line) for line in LINES]
NAMES = [f"{number}-{event['metadata']['event_code']}" for number, event in enumerate(EVENTS)]
# The key that signed the entries of the documented vectors.
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()

# Where an identifier has a text beside it, the text is the identifier's caption.
SIBLINGS = {
    "activity_id": "activity_name",
    "category_uid": "category_name",
    "class_uid": "class_name",
    "severity_id": "severity",
    "status_id": "status",
    "type_uid": "type_name",
}


@pytest.mark.parametrize("event", EVENTS, ids=NAMES)
def test_events_are_valid(event: Event) -> None:
    assert flaws(event) == []


@pytest.mark.parametrize("event", EVENTS, ids=NAMES)
def test_events_say_in_words_what_they_say_in_numbers(event: Event) -> None:
    attributes = class_of(event)["attributes"]
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    for name, sibling in SIBLINGS.items():
        captions = attributes[name]["enum"]
        caption = captions[str(event[name])]["caption"]
        if event["activity_id"] == 99 and name in ("activity_id", "type_uid"):
            assert event[sibling] != caption, "what is 'Other' has a name of its own"
        else:
            assert event[sibling] == caption, name
    assert event["type_name"] == f"{event['class_name']}: {event['activity_name']}"
    types = schema()["objects"]["user"]["attributes"]["type_id"]["enum"]
    for user in [event.get("user"), event.get("actor", {}).get("user")]:
        if user and user["type_id"] != 99:
            assert user["type"] == types[str(user["type_id"])]["caption"]


@pytest.mark.parametrize("event", EVENTS, ids=NAMES)
def test_metadata_places_the_event(event: Event) -> None:
    metadata = event["metadata"]
    assert metadata["version"] == VERSION
    assert metadata["uid"] == f"{metadata['tenant_uid']}/{metadata['sequence']}"
    assert metadata["logged_time"] == event["time"]
    assert "record_integrity" in metadata["profiles"]
    assert ("ai_operation" in metadata["profiles"]) == ("ai_agent" in event)


def test_lines_are_verified_without_the_server() -> None:
    before: Event | None = None
    for event in EVENTS:
        raw = base64.b64decode(event["raw_data"], validate=True)
        assert event["raw_data_size"] == len(raw)
        signed, digest, key_id, signature = raw[:-104], raw[-104:-72], raw[-72:-64], raw[-64:]
        assert blake3.blake3(signed, derive_key_context="haldir ledger v1 entry hash").digest() == digest
        KEY.verify(signature, b"haldir ledger v1 entry signature\n" + key_id + digest)

        (attestation,) = event["attestation_list"]
        assert attestation["fingerprint"]["value"] == digest.hex()
        assert attestation["authority_uid"] == key_id.hex()
        assert attestation["uid"] == event["metadata"]["uid"]
        assert attestation["chain_uid"] == f"haldir/ledger/{event['metadata']['tenant_uid']}"
        (listed,) = attestation["signatures"]
        assert listed["digest"] == attestation["fingerprint"]
        assert event["unmapped"]["signature"] == signature.hex()
        if event["metadata"]["sequence"] == 0:
            assert "prev_event" not in attestation
        else:
            assert before is not None
            assert attestation["prev_event"]["uid"] == before["metadata"]["uid"]
            assert attestation["prev_event"]["fingerprint"] == before["attestation_list"][0]["fingerprint"]
        before = event


def test_no_event_carries_an_empty_attribute() -> None:
    def check(value: Any, place: str) -> None:
        assert value is not None, place
        if isinstance(value, dict):
            assert value, place
            for name, inner in value.items():
                check(inner, f"{place}.{name}")
        elif isinstance(value, list):
            for inner in value:
                check(inner, place)

    for event in EVENTS:
        check(event, event["metadata"]["event_code"])


def test_lines_are_compact_sorted_and_ascii_where_readers_split() -> None:
    for line, event in zip(LINES, EVENTS, strict=True):
        assert len(line.splitlines()) == 1
        again = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert line == again.replace("\u2028", "\\u2028")


def without(*path: str) -> Callable[[Event], None]:
    def change(event: Event) -> None:
        for name in path[:-1]:
            event = event[name]
        del event[path[-1]]

    return change


def with_(value: Any, *path: str) -> Callable[[Event], None]:
    def change(event: Event) -> None:
        for name in path[:-1]:
            event = event[name]
        event[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        without("severity_id"),
        without("metadata", "product"),
        without("time"),
        without("actor"),
        without("api"),
        without("src_endpoint"),
        with_([], "metadata", "profiles"),
        with_([{"uid": "x"}], "attestation_list"),
        with_("yesterday", "time"),
        with_(7, "activity_id"),
        with_("haldir", "actor", "app_name"),
        with_(1, "surprise"),
    ],
)
def test_the_schema_finds_what_is_wrong(change: Callable[[Event], None]) -> None:
    logged = next(event for event in EVENTS if event["metadata"]["event_code"] == "action.logged")
    changed = copy.deepcopy(logged)
    change(changed)
    assert flaws(changed) != []
