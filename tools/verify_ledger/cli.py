"""The command line.

    python tools/verify_ledger WHAT [--key PUBKEY …] [--root PUBKEY …] [--tenant ID]
                               [--checkpoint NOTE …] [--manifest FILE] [--json] …

WHAT is a ledger export, a folder of tiles, a proof file, a checkpoint, or an export of the audit
trail (JSONL, or CSV with --manifest); `-` is standard input. Exports are read line by line;
memory does not grow with them.

PUBKEY is a PEM file (SubjectPublicKeyInfo) of an Ed25519 public key, or its 64 hex digits. Get
it from somewhere else than the data: a key that comes with them proves nothing. The same holds
for the tenant; for size and head, which say where the stream must end; and for a checkpoint or
an older end that you kept, which the stream must still contain.

Exit code: 0 sound · 1 not sound · 2 could not check · 3 signed by a key that you did not name ·
4 incomplete · 5 truncated since a checkpoint that you kept · 6 another history than one that you
kept a checkpoint of. `size`, `head` and `root` in the output are those of the entries that
passed, up to the first that did not.

Needs Python 3.10 and the packages `blake3` and `cryptography`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from .entry import TENANT_FORM
from .export import verify_export
from .keys import Trust
from .note import LONGEST_NOTE, ORIGIN_START, read_note
from .proof import FIRST_LINE, LONGEST_PROOF, verify_checkpoint, verify_proof
from .stream import End, Pin
from .tiles import verify_tiles
from .trail import CSV_COLUMNS, JSONL_MEMBERS, LONGEST_ROW, MANIFEST_START, manifest_bytes
from .trail import verify_table, verify_trail
from .verdict import CannotCheck, Malformed, Outcome, Verdict

LONGEST_KEY_FILE = 64 * 1024


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        verdict = verify(options)
    except CannotCheck as problem:
        verdict = Verdict(Outcome.COULD_NOT_CHECK, str(problem))
    except Exception as problem:  # a mistake in this program must not look like a verdict
        verdict = Verdict(Outcome.COULD_NOT_CHECK, f"internal error: {problem!a}")
    report(verdict, options.json)
    return verdict.outcome.value


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="verify_ledger",
        description="Verify what a Haldir server recorded against public keys that you trust.",
        epilog="Exit code: 0 sound, 1 not sound, 2 could not check, 3 signed by a key that you did"
        " not name, 4 incomplete, 5 truncated, 6 another history.",
    )
    tenant = argument(TENANT_FORM, str)
    size = argument("[0-9]{1,20}", int)
    older_size = argument("[1-9][0-9]{0,19}", int)
    head = argument("[0-9a-fA-F]{64}", bytes.fromhex)

    add = parser.add_argument
    add("what", metavar="WHAT", help="what to verify; - for standard input")
    for name, help in {
        "--key": "an Ed25519 public key that you trust: a PEM file or 64 hex digits",
        "--root": "a root key: every key that it certified is trusted",
        "--checkpoint": "a checkpoint that you kept: the stream must still contain it",
        "--certificate": "a file of certificates, one a line, beside those that come with the data",
    }.items():
        value = "PUBKEY" if name in ("--key", "--root") else "FILE"
        add(name, metavar=value, action="append", default=[], help=f"{help}; may be repeated")
    add("--manifest", metavar="FILE", help="the manifest of a CSV export")
    add("--tenant", metavar="ID", type=tenant, help="whose stream it must be")
    add("--size", metavar="N", type=size, help="how many entries there must be")
    add("--head", metavar="HEX", type=head, help="what the last hash must be")
    add("--kept-size", metavar="S", type=older_size, help="how many entries there once were")
    add("--kept-head", metavar="HEX", type=head, help="what the last hash then was")
    add("--json", action="store_true", help="print one JSON object")

    options = parser.parse_args(arguments)
    if (options.kept_size is None) != (options.kept_head is None):
        parser.error("--kept-size and --kept-head belong together")
    return options


def argument(form: str, convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type of arguments: texts of this form."""

    def read(text: str) -> Any:
        if not re.fullmatch(form, text):
            raise argparse.ArgumentTypeError(f"not of the form {form}")
        return convert(text)

    return read


def verify(options: argparse.Namespace) -> Verdict:
    trust = Trust(map(load_key, options.key), map(load_key, options.root))
    for path in options.certificate:
        for line in read_whole(path, LONGEST_KEY_FILE).decode("ascii", "replace").splitlines():
            trust.take_certificate(line)
    pins = [load_pin(path) for path in options.checkpoint]
    if options.kept_size is not None:
        pins.append(Pin(options.kept_size, head=options.kept_head))
    try:
        return verify_what(options, trust, pins)
    except OSError as problem:
        raise CannotCheck(f"{options.what!a} cannot be read: {problem!a}") from None


def verify_what(options: argparse.Namespace, trust: Trust, pins: list[Pin]) -> Verdict:
    """By the first bytes: each form begins in its own way."""
    if options.what != "-" and is_folder(options.what):
        return verify_tiles(Path(options.what), trust, options.tenant, pins)
    with open_input(options.what) as source:
        first = source.readline(LONGEST_ROW)
        rest = Again(first, source)
        if first.startswith(FIRST_LINE.partition("@")[0].encode()):
            return verify_proof(rest.read(LONGEST_PROOF + 1), trust, options.tenant, pins)
        if first.startswith(ORIGIN_START.encode()):
            return verify_checkpoint(rest.read(LONGEST_NOTE + 1), trust, options.tenant, pins)
        if first.startswith(CSV_COLUMNS[0].encode() + b","):
            if options.manifest is None:
                raise CannotCheck("a CSV export needs its manifest: --manifest")
            manifest = manifest_bytes(options.manifest)
            return verify_table(rest, manifest, trust, options.tenant)
        if first.startswith((MANIFEST_START, b'{"%b":' % JSONL_MEMBERS[0].encode())):
            return verify_trail(rest, trust, options.tenant)
        return verify_export(rest, trust, options.tenant, End(options.size, options.head), pins)


class Again:
    """A source of which the first line was read already."""

    def __init__(self, first: bytes, rest: BinaryIO) -> None:
        self.first = first
        self.rest = rest

    def readline(self, limit: int) -> bytes:
        if not self.first:
            return self.rest.readline(limit)
        taken, self.first = self.first[:limit], self.first[limit:]
        return taken

    def read(self, count: int) -> bytes:
        taken, self.first = self.first[:count], self.first[count:]
        return taken + self.rest.read(count - len(taken))


def is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except ValueError:  # a zero byte in the path
        return False


def open_input(path: str) -> BinaryIO:
    try:
        return sys.stdin.buffer if path == "-" else open(path, "rb")
    except ValueError as problem:  # a zero byte in the path
        raise OSError(problem) from None


def read_whole(path: str, limit: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(limit)
    except (OSError, ValueError) as problem:
        raise CannotCheck(f"{path!a} cannot be read: {problem!a}") from None


def load_key(text: str) -> bytes:
    """The 32 bytes of a public key, given as hex or as the path of a PEM file."""
    if re.fullmatch("[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    try:
        with open(text, "rb") as file:
            key = load_pem_public_key(file.read(LONGEST_KEY_FILE))
    except (OSError, ValueError, UnsupportedAlgorithm) as problem:
        raise CannotCheck(f"no public key in {text!a}: {problem!a}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise CannotCheck(f"the key in {text!a} is not an Ed25519 key")
    return key.public_bytes_raw()


def load_pin(path: str) -> Pin:
    try:
        checkpoint = read_note(read_whole(path, LONGEST_NOTE + 1))
    except Malformed as problem:
        raise CannotCheck(f"no checkpoint in {path!a}: {problem}") from None
    return Pin(checkpoint.size, checkpoint=checkpoint)


# --- what is printed ---


def report(verdict: Verdict, as_json: bool) -> None:
    if as_json:
        print(json.dumps(verdict_as_json(verdict)))
    elif verdict.outcome is Outcome.COULD_NOT_CHECK:
        print(f"could not check: {verdict.detail}", file=sys.stderr)
    else:
        print("\n".join(verdict_as_lines(verdict)))


def verdict_as_lines(verdict: Verdict) -> list[str]:
    words = verdict.outcome.words
    said = str(verdict.fault) if verdict.fault else ": ".join(filter(None, [words, verdict.detail]))
    return [
        said,
        *(f"{name:<6} {in_words(value)}" for name, value in verdict.facts.items()),
        *(f"note: {note}" for note in verdict.notes),
    ]


def in_words(value: Any) -> str:
    return value if isinstance(value, (str, int)) else json.dumps(value)


def verdict_as_json(verdict: Verdict) -> dict[str, Any]:
    fault = verdict.fault
    return {
        "verdict": verdict.outcome.words,
        **verdict.facts,
        "notes": verdict.notes,
        "detail": verdict.detail,
        **(vars(fault) if fault else {}),
    }
