"""Tests of `tools/verify_ledger`: what there is beside a whole export of one signer.

Checkpoints, paths, proof files, folders of tiles, tree heads, certificates, streams that change
hands, parts of streams, and manifests: first as the vectors of `ledger-format.md` have them, then
attacked. Every change of a signed byte must be refused, wherever it is.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import verify_ledger as vl
from test_verifier import (
    COUNT,
    COMPLIANCE,
    CUSTODY,
    ENTRIES,
    PUBLIC,
    ROOTS,
    SIGNER,
    STRANGER,
    STRANGERS_PUBLIC,
    TENANT,
    TEXTS,
    UNTRUSTED,
    VECTORS,
    WRONG_SIGNER,
    Cli,
    Line,
    Run,
    as_text,
    assert_another_history,
    assert_could_not_check,
    assert_incomplete,
    assert_not_sound,
    assert_sound,
    assert_truncated,
    assert_unnamed,
    cli,  # noqa: F401  the fixture
    edited,
    end_line,
    entry_line,
    export,
    export_lines,
    flipped,
    hash_of,
    header_line,
    note,
    open_entry,
    raw_public,
    relink,
    replaced,
    seal,
    tree_of,
    unsigned,
    with_event,
    with_header,
)

CHECKPOINT = VECTORS["checkpoint_12_utf8"]
PROOF = VECTORS["tlog_proof_05_utf8"]
ORIGIN = f"haldir/ledger/{TENANT}"
# Of the key that takes over in the custody stream.
CUSTODIAN = Ed25519PrivateKey.from_private_bytes(b"\x77" * 32)


def hashes(name: str) -> list[bytes]:
    return [bytes.fromhex(word) for word in TEXTS[name].split()]


def note_of(entries: list[bytes], signer: Ed25519PrivateKey = SIGNER) -> bytes:
    return note(len(entries), tree_of(entries).root(), signer)


@pytest.fixture
def kept(tmp_path: Path) -> Callable[[bytes], tuple[str, str]]:
    """The options that name a checkpoint that was kept."""

    def keep(data: bytes) -> tuple[str, str]:
        path = tmp_path / f"kept-{hashlib.sha256(data).hexdigest()[:8]}"
        path.write_bytes(data)
        return "--checkpoint", str(path)

    return keep


Kept = Callable[[bytes], tuple[str, str]]


def refused(run: Run) -> bool:
    return run.code != 0 and "internal error" not in run.out


# -- The vectors -------------------------------------------------------------------------------------


def test_checkpoint_vector() -> None:
    assert note_of(ENTRIES) == CHECKPOINT
    found = vl.note.read_note(CHECKPOINT)
    assert (found.origin, found.tenant, found.size, found.root) == (ORIGIN, TENANT, COUNT, ROOTS[-1])
    assert vl.note.signer_among(found, [STRANGERS_PUBLIC, PUBLIC]) == PUBLIC
    assert vl.note.signer_among(found, [STRANGERS_PUBLIC]) is None


def test_verifier_key_vector() -> None:
    assert vl.note.verifier_key(ORIGIN, PUBLIC) == TEXTS["vkey"]


def test_certificate_vector() -> None:
    root, key, signature = (bytes.fromhex(word) for word in TEXTS["certificate"].split()[1:])
    second = vl.stream.rotated_to(vl.entry.split_entry(CUSTODY[2]))
    assert (root, key) == (PUBLIC, second)
    assert SIGNER.sign(vl.primitives.certificate_message(PUBLIC, key)) == signature
    trust = vl.keys.Trust(roots=[PUBLIC])
    trust.take_certificate(TEXTS["certificate"])
    assert trust.is_named(key) and not trust.is_named(PUBLIC)


def test_tree_head_vector() -> None:
    signed_at, signature = int(TEXTS["tree_head_12_signed_at"]), VECTORS["tree_head_12_signature"]
    problem = vl.tree_head.tree_head_problem
    assert problem(PUBLIC, COUNT, ROOTS[-1], signed_at, signature) is None
    assert problem(PUBLIC, COUNT + 1, ROOTS[-1], signed_at, signature) is not None
    assert problem(PUBLIC, COUNT, ROOTS[-2], signed_at, signature) is not None
    assert problem(PUBLIC, COUNT, ROOTS[-1], signed_at + 1, signature) is not None
    assert problem(STRANGERS_PUBLIC, COUNT, ROOTS[-1], signed_at, signature) is not None
    for bit in range(512):
        assert problem(PUBLIC, COUNT, ROOTS[-1], signed_at, flipped(signature, bit)) is not None


def test_custody_vectors(cli: Cli) -> None:
    assert raw_public(CUSTODIAN) == vl.stream.rotated_to(vl.entry.split_entry(CUSTODY[2]))
    run = cli.json(export(CUSTODY, CUSTODIAN))
    assert_sound(run)
    first, second = run.outcome["signers"]
    assert (first["from"], second["from"], first["named"], second["named"]) == (0, 3, True, True)
    events = [vl.entry.read_event(vl.entry.kind_of(open_entry(it)[0]), open_entry(it)[1]) for it in CUSTODY]
    assert [events[1][name] for name in ("kept", "restored", "lost", "source")] == [1, 0, 2, ""]
    for seq, raw in enumerate(CUSTODY):
        for bit in range(0, 8 * len(raw), 7):
            altered = replaced(CUSTODY, seq, flipped(raw, bit))
            assert refused(cli.json(signed_export(altered, note_of(CUSTODY, CUSTODIAN)))), (seq, bit)


def test_compliance_vectors(cli: Cli) -> None:
    assert_sound(cli.json(export(COMPLIANCE, SIGNER)))
    events = [vl.entry.read_event(vl.entry.kind_of(open_entry(it)[0]), open_entry(it)[1]) for it in COMPLIANCE]
    assert [event["outcome"] for event in events if "outcome" in event] == [3, 4, 1]
    assert events[2]["pack"] == {"digest": b"\x44" * 32, "size": 2}
    assert events[1]["delivery"] == "webhook:grc"


# -- Paths -------------------------------------------------------------------------------------------


def root_of(leaves: list[bytes]) -> bytes:
    tree = vl.tree.Tree()
    for leaf in leaves:
        tree.add(leaf)
    return tree.root()


def largest_power_below(number: int) -> int:
    return 1 << (number - 1).bit_length() - 1


def inclusion_path(leaves: list[bytes], index: int) -> list[bytes]:
    """Section 10, as it is written."""
    a, b, noted = 0, len(leaves), []
    while b - a > 1:
        m = a + largest_power_below(b - a)
        if index < m:
            noted.append(root_of(leaves[m:b]))
            b = m
        else:
            noted.append(root_of(leaves[a:m]))
            a = m
    return noted[::-1]


def consistency_path(leaves: list[bytes], old: int) -> list[bytes]:
    """Section 10, as it is written."""
    a, b, noted = 0, len(leaves), []
    while b != old:
        c = a + largest_power_below(b - a)
        if old <= c:
            noted.append(root_of(leaves[c:b]))
            b = c
        else:
            noted.append(root_of(leaves[a:c]))
            a = c
    if a != 0:
        noted.append(root_of(leaves[a:b]))
    return noted[::-1]


def test_path_vectors() -> None:
    leaves = [vl.primitives.leaf_hash(entry) for entry in ENTRIES]
    assert inclusion_path(leaves, 5) == hashes("inclusion_path_05_12")
    assert consistency_path(leaves, 5) == hashes("consistency_path_05_12")


@pytest.mark.parametrize("size", [*range(1, 20), 31, 32, 33])
def test_paths_of_every_index_and_size(size: int) -> None:
    """The way to build a path and the way to check it agree; anything else is refused."""
    leaves = [vl.primitives.leaf_hash(bytes([number])) for number in range(size)]
    root = root_of(leaves)
    for index in range(size):
        path = inclusion_path(leaves, index)
        problem = vl.tree.inclusion_problem
        assert problem(leaves[index], index, size, path, root) is None
        assert problem(leaves[index], index, size, [*path, bytes(32)], root) is not None
        assert problem(leaves[index], size, size, path, root) is not None
        for other in range(size):
            if other != index:
                assert problem(leaves[index], other, size, path, root) is not None
        for at in range(len(path)):
            assert problem(leaves[index], index, size, replaced(path, at, bytes(32)), root) is not None
            assert problem(leaves[index], index, size, path[:at], root) is not None
    for old in range(1, size + 1):
        path, old_root = consistency_path(leaves, old), root_of(leaves[:old])
        problem = vl.tree.consistency_problem
        assert problem(old, old_root, size, root, path) is None
        assert problem(old, old_root, size, root, [*path, bytes(32)]) is not None
        assert problem(old, bytes(32), size, root, path) is not None
        assert problem(old, old_root, size, bytes(32), path) is not None
        assert problem(size + 1, old_root, size, root, path) is not None
        assert problem(0, old_root, size, root, path) is not None
        for at in range(len(path)):
            assert problem(old, old_root, size, root, replaced(path, at, bytes(32))) is not None
            assert problem(old, old_root, size, root, path[:at]) is not None


# -- Checkpoints -------------------------------------------------------------------------------------


def test_checkpoint_alone(cli: Cli, kept: Callable[[bytes], tuple[str, str]]) -> None:
    assert_sound(cli.json(CHECKPOINT))
    assert_unnamed(cli.json(CHECKPOINT, key=STRANGERS_PUBLIC.hex()))
    assert_unnamed(cli.arguments_for(CHECKPOINT, "--json"))
    assert_sound(cli.json(CHECKPOINT, "--tenant", TENANT))
    assert_not_sound(cli.json(CHECKPOINT, "--tenant", "another"), 0, "checkpoint", "foreign")
    assert_sound(cli.json(CHECKPOINT, *kept(CHECKPOINT)))
    assert_sound(cli.json(CHECKPOINT, *kept(note(5, ROOTS[5]))))
    assert_another_history(cli.json(CHECKPOINT, *kept(note(COUNT, ROOTS[3]))), COUNT - 1)
    other = note(COUNT, ROOTS[3], signer=STRANGER)
    assert_could_not_check(cli.json(CHECKPOINT, *kept(other)), "not both are signed")


def test_every_bit_of_a_checkpoint_counts(cli: Cli) -> None:
    for bit in range(8 * len(CHECKPOINT)):
        assert refused(cli.json(flipped(CHECKPOINT, bit))), bit


TEXT, LINES = CHECKPOINT.split(b"\n\n")
TEXT += b"\n"
WITNESS = b"\xe2\x80\x94 witness.example/w " + base64.b64encode(bytes(76)) + b"\n"

OTHER_NOTES: dict[str, tuple[bytes, int]] = {
    "a witness before": (TEXT + b"\n" + WITNESS + LINES, 0),
    "witnesses after": (TEXT + b"\n" + LINES + WITNESS * 15, 0),
    "more than 16 signatures": (TEXT + b"\n" + LINES + WITNESS * 16, 1),
    "no newline at the end": (CHECKPOINT[:-1], 2),
    "no signature": (TEXT + b"\n", 2),
    "no empty line": (TEXT + LINES, 1),
    "carriage returns": (CHECKPOINT.replace(b"\n", b"\r\n"), 1),
    "a tab": (CHECKPOINT.replace(b" ", b"\t"), 1),
    "not UTF-8": (CHECKPOINT + b"\xff\n", 1),
    "an unknown origin": (CHECKPOINT.replace(b"haldir/ledger/9", b"haldir/ledger/Z"), 1),
    "a size with a zero before it": (CHECKPOINT.replace(b"\n12\n", b"\n012\n"), 1),
    "a size with a sign": (CHECKPOINT.replace(b"\n12\n", b"\n+12\n"), 1),
    "a size that is too large": (CHECKPOINT.replace(b"\n12\n", b"\n18446744073709551616\n"), 1),
    "a root without padding": (CHECKPOINT.replace(b"=\n\n", b"\n\n"), 1),
    "an extension that nobody signed": (TEXT + b"more\n\n" + LINES, 1),
    "an empty line in the text": (TEXT + b"\n\n" + LINES, 1),
    "only a witness": (TEXT + b"\n" + WITNESS, 3),
    "too long": (TEXT + b"\n" + LINES + WITNESS.replace(b"witness", b"w" * 70_000), 1),
    "a signature of no bytes": (TEXT + b"\n" + LINES + b"\xe2\x80\x94 w AAAA\n", 1),
    "a hyphen for the dash": (CHECKPOINT.replace(b"\xe2\x80\x94", b"-"), 1),
    "a name with a plus": (TEXT + b"\n" + LINES + WITNESS.replace(b"witness", b"wit+ness"), 1),
    "a name with a space": (TEXT + b"\n" + LINES + WITNESS.replace(b"witness", "wit\u2003s".encode()), 1),
}


@pytest.mark.parametrize("name", OTHER_NOTES)
def test_other_notes(cli: Cli, name: str) -> None:
    data, code = OTHER_NOTES[name]
    run = cli.json(data)
    assert (run.code in (1, 2)) if code in (1, 2) else run.code == code, run


def test_an_extension_that_was_signed_is_ignored(cli: Cli) -> None:
    text = TEXT + b"extension\n"
    signed = vl.note.key_hash(ORIGIN, PUBLIC) + SIGNER.sign(text)
    data = text + b"\n" + f"— {ORIGIN} {base64.b64encode(signed).decode()}\n".encode()
    assert_sound(cli.json(data))


def test_a_wrong_signature_beside_a_right_one_spoils_the_note(cli: Cli) -> None:
    wrong = vl.note.key_hash(ORIGIN, PUBLIC) + bytes(64)
    spoiled = CHECKPOINT + f"— {ORIGIN} {base64.b64encode(wrong).decode()}\n".encode()
    assert_not_sound(cli.json(spoiled), COUNT - 1, "step 7", "forged")
    assert_unnamed(cli.json(spoiled, key=STRANGERS_PUBLIC.hex()))


# -- Proof files -------------------------------------------------------------------------------------


def proof_of(entries: list[bytes], index: int, signed: bytes | None = None) -> bytes:
    leaves = [vl.primitives.leaf_hash(entry) for entry in entries]
    lines = [
        "c2sp.org/tlog-proof@v1",
        "extra " + base64.b64encode(entries[index]).decode(),
        f"index {index}",
        *(base64.b64encode(it).decode() for it in inclusion_path(leaves, index)),
    ]
    return "\n".join(lines).encode() + b"\n\n" + (signed or note_of(entries))


def test_proof_vector(cli: Cli) -> None:
    assert proof_of(ENTRIES, 5) == PROOF
    run = cli.json(PROOF, "--tenant", TENANT)
    assert_sound(run)
    assert (run.outcome["index"], run.outcome["size"]) == (5, COUNT)
    assert_unnamed(cli.json(PROOF, key=STRANGERS_PUBLIC.hex()))
    assert_unnamed(cli.arguments_for(PROOF, "--json"))


@pytest.mark.parametrize("index", range(COUNT))
def test_proof_of_every_entry(cli: Cli, index: int) -> None:
    assert_sound(cli.json(proof_of(ENTRIES, index)))


def test_every_byte_of_a_proof_counts(cli: Cli) -> None:
    for byte in range(len(PROOF)):
        for bit in (8 * byte + byte % 8, 8 * byte + 5):
            assert refused(cli.json(flipped(PROOF, bit))), bit
    for length in range(0, len(PROOF), 3):
        assert refused(cli.json(PROOF[:length])), length
    for start in range(0, len(PROOF) - 40, 11):
        assert refused(cli.json(PROOF[:start] + PROOF[start + 37 :])), start


def test_proofs_that_are_wrong_in_one_way(cli: Cli) -> None:
    lines = PROOF.split(b"\n")

    def run(*changed: bytes) -> Run:
        return cli.json(b"\n".join(changed))

    extra, rest = lines[1], lines[2:]
    assert_not_sound(run(lines[0], *rest), 0, "step 1", "malformed")
    assert_not_sound(run(lines[0], extra, b"index 05", *rest[1:]), 0, "step 1", "malformed")
    assert_not_sound(run(lines[0], extra, b"index 6", *rest[1:]), 6, "step 4", "out of place")
    altered = b"extra " + base64.b64encode(flipped(ENTRIES[5], 8 * 200))
    assert_not_sound(run(lines[0], altered, *rest), 5, "step 2", "altered")
    assert_not_sound(run(lines[0], extra, rest[0], *rest[2:]), 5, "step 6", "not included")
    assert_not_sound(run(lines[0], extra, rest[0], *[rest[1]] * 65, *rest[1:]), 0, "step 1", "malformed")
    assert_not_sound(cli.json(PROOF, "--tenant", "another"), 5, "step 5", "foreign")
    foreign = note(COUNT, ROOTS[-1], tenant="another")
    assert_not_sound(cli.json(proof_of(ENTRIES, 5, foreign)), 5, "step 5", "foreign")
    stale = note(COUNT - 1, ROOTS[-2])
    assert_not_sound(cli.json(proof_of(ENTRIES, 5, stale)), 5, "step 6", "not included")
    too_long = PROOF + WITNESS.replace(b"witness", b"w" * 156_000)
    assert_not_sound(cli.json(too_long), 0, "step 1", "malformed")


# -- Who signs ---------------------------------------------------------------------------------------

SECOND = Ed25519PrivateKey.from_private_bytes(bytes(range(50, 82)))
ROOT = Ed25519PrivateKey.from_private_bytes(bytes(range(60, 92)))
SECONDS_PUBLIC, ROOTS_PUBLIC = raw_public(SECOND), raw_public(ROOT)


def handed_over(new_key: bytes = SECONDS_PUBLIC, signer: Ed25519PrivateKey = SECOND) -> list[bytes]:
    """Three entries, a rotation, and three more by the key that took over."""
    header = open_entry(CUSTODY[2])[0]
    drafts = [open_entry(entry) for entry in ENTRIES[:3]]
    drafts.append((header._replace(kind=80), b"\x00" + new_key))
    drafts += [open_entry(entry) for entry in ENTRIES[4:7]]
    entries: list[bytes] = []
    for seq, (head, payload) in enumerate(drafts):
        previous = hash_of(entries[-1]) if entries else vl.entry.NO_HASH
        head = head._replace(seq=seq, time=1_700_000_000_000_000 + seq, previous_hash=previous)
        entries.append(seal(head, payload, SIGNER if seq < 4 else signer))
    return entries


def certificate(root: Ed25519PrivateKey, key: bytes) -> str:
    public = raw_public(root)
    signature = root.sign(vl.primitives.certificate_message(public, key))
    return f"haldir-key-certificate-v1 {public.hex()} {key.hex()} {signature.hex()}"


def with_certificates(lines: list[Line], *certificates: str) -> bytes:
    return as_text([lines[0] | {"certificates": list(certificates)}, *lines[1:]])


def test_a_key_takes_over(cli: Cli) -> None:
    entries = handed_over()
    run = cli.json(export(entries, SECOND))
    assert_sound(run)
    assert [it["from"] for it in run.outcome["signers"]] == [0, 4]
    # Whoever trusts only the later key, or no key, is told by whom the stream was begun.
    assert_unnamed(cli.json(export(entries, SECOND), key=SECONDS_PUBLIC.hex()), VECTORS["key_id"].hex())


def test_rotations_that_cannot_be(cli: Cli) -> None:
    no_point = next(
        y.to_bytes(32, "little") for y in range(2, 100) if not vl.primitives.is_on_the_curve(y.to_bytes(32, "little"))
    )
    for key in (PUBLIC, no_point, b"\xff" * 32):
        run = cli.json(export(handed_over(key)[:4]))
        assert_not_sound(run, 3, "step 11", "a rotation that cannot be")


def test_after_a_rotation_only_the_new_key_signs(cli: Cli) -> None:
    for signer in (SIGNER, STRANGER):
        run = cli.json(export(handed_over(signer=signer)), "--key", STRANGERS_PUBLIC.hex())
        assert_not_sound(run, 4, "step 9", WRONG_SIGNER)


def test_with_root_keys_every_key_needs_a_certificate(cli: Cli) -> None:
    lines = export_lines(handed_over(), signer=SECOND)
    first, second = certificate(ROOT, PUBLIC), certificate(ROOT, SECONDS_PUBLIC)
    root = ("--root", ROOTS_PUBLIC.hex(), "--json")
    assert_sound(cli.arguments_for(with_certificates(lines, first, second), *root))
    assert_unnamed(cli.arguments_for(with_certificates(lines, first), *root), "from seq 4 on")
    assert_unnamed(cli.arguments_for(with_certificates(lines, second), *root), "from seq 0 on")
    assert_unnamed(cli.arguments_for(with_certificates(lines), *root))
    both = with_certificates(lines, first, second)
    assert_unnamed(cli.arguments_for(both, "--root", STRANGERS_PUBLIC.hex(), "--json"))
    # One's own trust counts as much as a certificate.
    assert_sound(cli.json(with_certificates(lines, second), *root))
    assert_unnamed(cli.json(with_certificates(lines, first), *root), "from seq 4 on")


def test_every_change_of_a_certificate_makes_it_void(cli: Cli) -> None:
    text = certificate(ROOT, PUBLIC)
    voids = [text + " ", text.upper(), text[:-1], " " + text, text + "\n", "", text.replace("v1", "v2")]
    voids += [text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :] for at in range(len(text))]
    for void in voids:
        trust = vl.keys.Trust(roots=[ROOTS_PUBLIC])
        trust.take_certificate(void)
        assert not trust.named, void
    root = ("--root", ROOTS_PUBLIC.hex(), "--json")
    assert_sound(cli.arguments_for(with_certificates(export_lines(ENTRIES), "garbage", text), *root))


def test_certificates_in_a_file(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "certificates"
    path.write_text(f"garbage\n{certificate(ROOT, PUBLIC)}\n")
    options = ("--root", ROOTS_PUBLIC.hex(), "--certificate", str(path), "--json")
    for data in (export(ENTRIES), CHECKPOINT, PROOF):
        assert_sound(cli.arguments_for(data, *options))


# -- Parts, and what was kept ------------------------------------------------------------------------


def part(entries: list[bytes], first: int, last: int | None = None) -> list[Line]:
    """Entries `first` to `last`, as section 8 writes a part."""
    whole = entries[:last]
    header = header_line() | {
        "from": first,
        "prev": hash_of(whole[first - 1]).hex() if first else "00" * 32,
        "peaks": [peak.hex() for peak in tree_of(whole[:first]).subtrees],
        "stream_size": len(entries),
        "certificates": [],
    }
    middle = [entry_line(seq, it) for seq, it in enumerate(whole) if seq >= first]
    return [header, *middle, end_line(whole)]


@pytest.mark.parametrize("first", range(COUNT + 1))
def test_parts(cli: Cli, first: int) -> None:
    for last in range(first, COUNT + 1):
        run = cli.json(as_text(part(ENTRIES, first, last)))
        if (first, last) == (0, COUNT):
            assert_sound(run)
        else:
            assert_incomplete(run, "part of the stream")
        assert (run.outcome["from"], run.outcome["size"]) == (first, last)
        assert run.outcome["root"] == ROOTS[last].hex()


def test_a_part_whose_beginning_is_not_so(cli: Cli) -> None:
    for bit in range(0, 256, 5):
        for at in (0, 1):
            lines = part(ENTRIES, 5)
            lines[0]["peaks"][at] = flipped(bytes.fromhex(lines[0]["peaks"][at]), bit).hex()
            run = cli.json(as_text(lines))
            assert_not_sound(run, COUNT, "last line", "does not end where it should")
        lines = part(ENTRIES, 5)
        lines[0]["prev"] = flipped(hash_of(ENTRIES[4]), bit).hex()
        assert_not_sound(cli.json(as_text(lines)), 5, "step 7", "broken link")


@pytest.mark.parametrize(
    "change",
    [
        {"prev": None},
        {"prev": "00"},
        {"peaks": None},
        {"peaks": []},
        {"peaks": ["00" * 32]},
        {"peaks": ["00" * 32] * 3},
        {"peaks": ["00" * 32, 7]},
        {"peaks": {}},
        {"from": -1},
        {"from": "5"},
        {"from": None},
        {"stream_size": "12"},
        {"certificates": "x"},
        {"certificates": [1]},
    ],
)
def test_a_header_of_a_part_that_cannot_be_read(cli: Cli, change: Line) -> None:
    lines = part(ENTRIES, 5)
    lines[0] |= change
    assert_could_not_check(cli.json(as_text(lines)), "not a ledger export")


def test_a_bad_entry_counts_more_than_that_it_is_a_part(cli: Cli) -> None:
    lines = part(replaced(ENTRIES, 8, flipped(ENTRIES[8], 8 * 200)), 5)
    assert_not_sound(cli.json(as_text(lines)), 8, "step 3", "altered")


def test_a_part_with_an_end_that_is_not_signed(cli: Cli) -> None:
    assert_incomplete(cli.json(as_text(unsigned(part(ENTRIES, 5)))))
    assert_incomplete(cli.json(as_text(part(ENTRIES, 5)[:-1])))


def signed_export(entries: list[bytes], checkpoint: Any) -> bytes:
    lines = export_lines(entries)
    lines[-1]["checkpoint"] = checkpoint.decode() if isinstance(checkpoint, bytes) else checkpoint
    return as_text(lines)


def test_the_checkpoint_at_the_end(cli: Cli) -> None:
    run = cli.json(signed_export(ENTRIES, CHECKPOINT))
    assert_sound(run)
    assert not any("not signed" in note for note in run.outcome["notes"])
    wrong_end = "does not end where it should"
    for checkpoint, reason in [
        (note(COUNT - 1, ROOTS[-2]), wrong_end),
        (note(COUNT, ROOTS[-2]), wrong_end),
        (note(COUNT, ROOTS[-1], tenant="another"), "foreign"),
        (note(COUNT, ROOTS[-1], signer=STRANGER), UNTRUSTED),
        (CHECKPOINT.replace(b"v3GDyeum", b"v3GDyeun"), "forged"),
    ]:
        assert checkpoint != CHECKPOINT
        assert_not_sound(cli.json(signed_export(ENTRIES, checkpoint)), COUNT, "last line", reason)
    for garbage in (b"", b"garbage", CHECKPOINT[:-1], CHECKPOINT + b"\n", None, 7, [], "\ud800"):
        assert_not_sound(cli.json(signed_export(ENTRIES, garbage)), COUNT, "export", "malformed")


def test_the_key_that_took_over_signs_the_end(cli: Cli) -> None:
    entries = handed_over()
    for size in range(1, len(entries) + 1):
        first, second = (cli.json(export(entries[:size], signer)) for signer in (SIGNER, SECOND))
        if size < 4:
            assert_sound(first)
            assert_not_sound(second, size, "last line", UNTRUSTED)
        elif size == 4:  # the rotation itself: neither had handed the stream on before
            assert_sound(first)
            assert_sound(second)
        else:
            assert_not_sound(first, size, "last line", UNTRUSTED)
            assert_sound(second)
    assert_not_sound(cli.json(export(entries, STRANGER)), len(entries), "last line", UNTRUSTED)
    assert_sound(cli.json(export(entries, STRANGER), "--key", STRANGERS_PUBLIC.hex()))


def test_a_key_that_was_replaced_has_no_word_about_the_end_even_if_trusted(cli: Cli, kept: Kept) -> None:
    entries = handed_over()
    size = len(entries)
    both = ("--key", SECONDS_PUBLIC.hex())
    assert_not_sound(cli.json(export(entries, SIGNER), *both), size, "last line", UNTRUSTED)
    # Nor can a checkpoint of it that was kept take the place of the end.
    no_end = as_text(export_lines(entries)[:-1])
    assert_incomplete(cli.json(no_end, *kept(note_of(entries, SIGNER)), *both))
    assert_sound(cli.json(no_end, *kept(note_of(entries, SECOND))))


def test_a_key_that_the_stream_comes_back_to_signs_its_end(cli: Cli) -> None:
    header, payload = open_entry(ENTRIES[6])
    entries: list[bytes] = []
    rotation = header._replace(kind=80)
    for head, body, signer in [
        (rotation, b"\x00" + SECONDS_PUBLIC, SIGNER),
        (header, payload, SECOND),
        (rotation, b"\x00" + PUBLIC, SECOND),
        (header, payload, SIGNER),
    ]:
        seq, previous = len(entries), hash_of(entries[-1]) if entries else vl.entry.NO_HASH
        head = head._replace(
            schema_version=open_entry(CUSTODY[2])[0].schema_version if head.kind == 80 else head.schema_version,
            seq=seq,
            time=1_700_000_000_000_000 + seq,
            previous_hash=previous,
        )
        entries.append(seal(head, body, signer))
    assert_sound(cli.json(export(entries, SIGNER)))
    assert_not_sound(cli.json(export(entries, SECOND)), 4, "last line", UNTRUSTED)


def test_an_end_signed_by_a_key_that_is_only_offered(cli: Cli) -> None:
    def offering(lines: list[Line], *keys: bytes) -> bytes:
        offered = [key for it in keys for key in header_line(key=it)["public_keys"]]
        return as_text([lines[0] | {"public_keys": offered}, *lines[1:]])

    lines = export_lines(ENTRIES, signer=STRANGER)
    strangers = vl.primitives.key_id(STRANGERS_PUBLIC).hex()
    assert_unnamed(cli.json(offering(lines, PUBLIC, STRANGERS_PUBLIC)), f"{strangers} signed the end")
    assert_not_sound(cli.json(offering(lines, PUBLIC)), COUNT, "last line", UNTRUSTED)
    # One that was replaced has no word, whoever offers it.
    lines = export_lines(handed_over(), signer=SIGNER)
    assert_not_sound(cli.json(offering(lines, PUBLIC, SECONDS_PUBLIC)), 7, "last line", UNTRUSTED)
    # Without entries, the checkpoint alone tells who signs.
    lines = export_lines([])
    assert_sound(cli.json(offering(lines, PUBLIC)))
    assert_unnamed(cli.json(offering(lines, PUBLIC), key=STRANGERS_PUBLIC.hex()), "signed the end")
    assert_incomplete(cli.json(offering(unsigned(lines), PUBLIC), key=STRANGERS_PUBLIC.hex()))
    assert_incomplete(cli.json(offering(lines[:1], PUBLIC), key=STRANGERS_PUBLIC.hex()))


@pytest.mark.parametrize("size", range(COUNT + 1))
def test_a_checkpoint_that_was_kept(cli: Cli, kept: Kept, size: int) -> None:
    true = note(size, ROOTS[size])
    assert_sound(cli.json(export(ENTRIES), *kept(true)))
    if size:
        assert_truncated(cli.json(export(ENTRIES[: size - 1]), *kept(true)), f"once were {size}")
        other = edited(0, with_event(name="something else"))
        assert_another_history(cli.json(export(other), *kept(true)), size - 1)
    for no_end in (export_lines(ENTRIES)[:-1], unsigned(export_lines(ENTRIES))):
        run = cli.json(as_text(no_end), *kept(true))
        assert_sound(run) if size == COUNT else assert_incomplete(run)


def test_what_was_kept_takes_the_place_of_a_missing_end(cli: Cli, kept: Kept) -> None:
    lines = export_lines(ENTRIES)
    cut_off = as_text(lines).removesuffix(b'"}\n')
    assert_sound(cli.json(cut_off, *kept(CHECKPOINT)))
    assert_sound(cli.json(as_text(lines[:8]), *kept(note(7, ROOTS[7]))))
    assert_incomplete(cli.json(as_text(lines[:8]), *kept(note(7, ROOTS[7], STRANGER))), "without its last line")
    # It does not make a whole of a part.
    for lines in (part(ENTRIES, 5), part(ENTRIES, 0, 7)):
        size = lines[-1]["size"]
        for no_end in (lines[:-1], unsigned(lines)):
            run = cli.json(as_text(no_end), *kept(note(size, ROOTS[size])))
            assert_incomplete(run, "part of the stream")


def test_what_was_kept_and_no_known_key_signed(cli: Cli, kept: Kept) -> None:
    """Proof of nothing, but whoever kept it did not keep it of these entries."""
    run = cli.json(export(ENTRIES), *kept(note(5, ROOTS[4], STRANGER)))
    assert_not_sound(run, 5, "kept end", "another history", "no known key signed it")
    run = cli.json(export(ENTRIES), *kept(note(5, ROOTS[5], STRANGER)))
    assert_sound(run)
    assert any("of size 5 is true, but no known key signed it" in it for it in run.outcome["notes"])
    assert_truncated(cli.json(export(ENTRIES), *kept(note(99, ROOTS[4], STRANGER))), "once were 99")
    # That the export offers the key does not make it known.
    lines = export_lines(ENTRIES)
    lines[0]["public_keys"] += header_line(key=STRANGERS_PUBLIC)["public_keys"]
    run = cli.json(as_text(lines), *kept(note(5, ROOTS[4], STRANGER)))
    assert_not_sound(run, 5, "kept end", "another history")
    known = ("--key", STRANGERS_PUBLIC.hex())
    assert_another_history(cli.json(as_text(lines), *kept(note(5, ROOTS[4], STRANGER)), *known), 4)
    # Not sound comes before another history.
    both = [*kept(note(3, ROOTS[4])), *kept(note(5, ROOTS[4], STRANGER))]
    assert_not_sound(cli.json(export(ENTRIES), *both), 5, "kept end", "another history")


def test_what_was_kept_that_cannot_be_compared(cli: Cli, kept: Kept) -> None:
    assert_could_not_check(cli.json(export(ENTRIES), *kept(note(5, ROOTS[5], tenant="another"))), "of tenant another")
    assert_could_not_check(cli.json(export(ENTRIES), *kept(b"garbage")), "no checkpoint in")
    # A key that takes over later may have signed an older size.
    entries = handed_over()
    assert_another_history(cli.json(export(entries, SECOND), *kept(note(2, ROOTS[3], SECOND))), 1)
    run = cli.json(as_text(part(ENTRIES, 5)), *kept(note(3, ROOTS[3])))
    assert_incomplete(run, "part of the stream")
    assert any("of size 3, below 5, was not compared" in it for it in run.outcome["notes"])


def test_several_checkpoints_and_parts(cli: Cli, kept: Kept) -> None:
    pins = [option for size in (3, 7, 12) for option in kept(note(size, ROOTS[size]))]
    assert_sound(cli.json(export(ENTRIES), *pins))
    assert_incomplete(cli.json(as_text(part(ENTRIES, 5)), *pins))
    assert_another_history(cli.json(export(ENTRIES), *pins, *kept(note(9, ROOTS[8]))), 8)
    assert_another_history(cli.json(as_text(part(ENTRIES, 5)), *kept(note(5, ROOTS[4])), "--json"), 4)


# -- Tiles -------------------------------------------------------------------------------------------


def stream(size: int) -> list[bytes]:
    header, payload = open_entry(ENTRIES[6])
    entries: list[bytes] = []
    for seq in range(size):
        previous = hash_of(entries[-1]) if entries else vl.entry.NO_HASH
        changes = {"seq": seq, "time": 1_700_000_000_000_000 + seq, "previous_hash": previous}
        entries.append(seal(header._replace(**changes), payload))
    return entries


LONG = stream(600)


def write_tiles(folder: Path, entries: list[bytes]) -> Path:
    """Section 12, row by row."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "checkpoint").write_bytes(note_of(entries))

    def write(place: str, number: int, items: list[bytes]) -> None:
        name = f"{number:03}" if len(items) == 256 else f"{number:03}.p/{len(items)}"
        path = folder / "tile" / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(items))

    def chunks(items: list[bytes]) -> list[list[bytes]]:
        return [items[at : at + 256] for at in range(0, len(items), 256)]

    for number, some in enumerate(chunks(entries)):
        write("entries", number, [len(it).to_bytes(2, "big") + it for it in some])
    row, level = [vl.primitives.leaf_hash(it) for it in entries], 0
    while row:
        for number, some in enumerate(chunks(row)):
            write(str(level), number, some)
        row, level = [root_of(some) for some in chunks(row) if len(some) == 256], level + 1
    return folder


def tiles(cli: Cli, folder: Path, *options: str, key: bytes = PUBLIC) -> Run:
    return cli.arguments(str(folder), "--key", key.hex(), "--json", *options)


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 512, 513, 600])
def test_tiles(cli: Cli, tmp_path: Path, kept: Kept, size: int) -> None:
    folder = write_tiles(tmp_path / "tiles", LONG[:size])
    run = tiles(cli, folder, "--tenant", TENANT)
    assert_sound(run)
    assert (run.outcome["size"], run.outcome["root"]) == (size, tree_of(LONG[:size]).root().hex())
    if size:
        assert_unnamed(tiles(cli, folder, key=STRANGERS_PUBLIC))
    assert_not_sound(tiles(cli, folder, "--tenant", "another"), 0, "export", "foreign")
    assert_truncated(tiles(cli, folder, *kept(note(601, ROOTS[3]))))
    if size > 1:
        assert_another_history(tiles(cli, folder, *kept(note(2, ROOTS[3]))), 1)


def test_every_file_of_the_tiles_counts(cli: Cli, tmp_path: Path) -> None:
    folder = write_tiles(tmp_path / "tiles", LONG)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 1 + 3 + 3 + 1
    for path in files:
        data = path.read_bytes()
        for at in (0, len(data) // 3, len(data) - 1):
            path.write_bytes(flipped(data, 8 * at + 2))
            assert tiles(cli, folder).code in (1, 2), (path, at)
        for changed in (data[:-1], data + b"\x00", b""):
            path.write_bytes(changed)
            assert tiles(cli, folder).code in (1, 2), path
        path.unlink()
        run = tiles(cli, folder)
        assert run.code == (2 if path.name == "checkpoint" else 4), path
        path.write_bytes(data)
    assert_sound(tiles(cli, folder))


def test_places_of_tiles() -> None:
    place = vl.tiles.place
    assert str(place(1_234_067, 256)) == "x001/x234/067"
    assert str(place(0, 1)) == "000.p/1" and str(place(999, 256)) == "999"
    assert str(place(1000, 255)) == "x001/000.p/255"
    assert [len(list(vl.tiles.tiles_of(70_000 // 256**row))) for row in range(3)] == [274, 2, 1]
    assert list(vl.tiles.tiles_of(70_000))[-1] == (273, 112)
    assert list(vl.tiles.tiles_of(273)) == [(0, 256), (1, 17)] and list(vl.tiles.tiles_of(1)) == [(0, 1)]


# -- Manifests ---------------------------------------------------------------------------------------

ACTIONS = [
    {
        "entry_id": f"aud_{n}", "timestamp": 1_700_000_000 + n, "tenant_id": TENANT, "session_id": "ses", "agent_id": "a",
        "tool": 'b,"c"\n', "action": "d", "cost_usd": 0.5, "flagged": False, "flag_reason": "", "details": {"é": "\u2028"},
        "prev_hash": f"{n - 1:064x}" if n else "", "entry_hash": f"{n:064x}",
    }
    for n in range(5)
]  # fmt: skip


def manifest_line(actions: list[Line], content: bytes, form: str, **changes: Any) -> bytes:
    members = {
        "type": "manifest",
        "format_version": 1,
        "tenant_id": TENANT,
        "generated_at": "2023-11-14T22:13:20.000000+00:00",
        "filters": {},
        "count": len(actions),
        "first_timestamp": actions[0]["timestamp"] if actions else None,
        "last_timestamp": actions[-1]["timestamp"] if actions else None,
        "last_chain_hash": actions[-1]["entry_hash"] if actions else "",
        "sha256": hashlib.sha256("".join(it["entry_id"] + "\n" for it in actions).encode()).hexdigest(),
        "format": form,
        "content_sha256": hashlib.sha256(content).hexdigest(),
        "key_id": vl.primitives.key_id(PUBLIC).hex(),
        "public_key": PUBLIC.hex(),
        **changes,
    }
    text = json.dumps(members, separators=(",", ":")).encode()
    signature = SIGNER.sign(vl.primitives.manifest_message(PUBLIC, text))
    return text[:-1] + b',"signature":"' + signature.hex().encode() + b'"}'


def rows_of(actions: Iterable[Line]) -> bytes:
    return b"".join(json.dumps(it, separators=(",", ":")).encode() + b"\n" for it in actions)


def trail(actions: list[Line] = ACTIONS, **changes: Any) -> bytes:
    content = rows_of(actions)
    return content + manifest_line(actions, content, "jsonl", **changes) + b"\n"


def table_of(actions: list[Line]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(vl.trail.CSV_COLUMNS)
    for it in actions:
        values = it | {"timestamp": f"{it['timestamp']:.6f}", "timestamp_iso": "", "details_json": "{}"}
        writer.writerow([values[name] for name in vl.trail.CSV_COLUMNS])
    return out.getvalue().encode()


def table(cli: Cli, content: bytes, manifest: bytes, *options: str) -> Run:
    path = cli.path.with_name("manifest.json")
    path.write_bytes(manifest)
    return cli.json(content, "--manifest", str(path), *options)


def test_trails(cli: Cli) -> None:
    for actions in (ACTIONS, ACTIONS[:1], []):
        run = cli.json(trail(actions), "--tenant", TENANT)
        assert_sound(run)
        assert run.outcome["count"] == len(actions)
        content = table_of(actions)
        manifest = manifest_line(actions, content, "csv")
        assert_sound(table(cli, content, manifest))
        assert_sound(table(cli, content, manifest + b"\n"))
    assert_unnamed(cli.arguments_for(trail(), "--json"))
    assert_unnamed(cli.json(trail(), key=STRANGERS_PUBLIC.hex()))
    root = ("--root", ROOTS_PUBLIC.hex(), "--json")
    assert_unnamed(cli.arguments_for(trail(), *root))
    assert_could_not_check(cli.json(table_of(ACTIONS)), "--manifest")


def test_trails_with_filters(cli: Cli) -> None:
    some = [ACTIONS[1], ACTIONS[3]]
    assert_sound(cli.json(trail(some, filters={"agent_id": "a"})))
    assert_not_sound(cli.json(trail(some)), 0, "step 5", "broken link")
    assert_not_sound(cli.json(trail([ACTIONS[0], ACTIONS[2]])), 1, "step 5", "broken link")


def test_a_trail_without_its_manifest_is_incomplete(cli: Cli) -> None:
    data = trail()
    for length in range(len(rows_of(ACTIONS[:1])), len(data), 13):
        assert_incomplete(cli.json(data[:length]), "without a manifest")
    assert_incomplete(cli.json(data[:-1]))


def test_every_byte_of_a_trail_counts(cli: Cli) -> None:
    data = trail()
    for at in range(len(data) - 1):
        assert refused(cli.json(flipped(data, 8 * at + at % 7))), at
    content = table_of(ACTIONS)
    manifest = manifest_line(ACTIONS, content, "csv")
    for at in range(len(content)):
        assert refused(table(cli, flipped(content, 8 * at + at % 7), manifest)), at
    for at in range(len(manifest)):
        assert refused(table(cli, content, flipped(manifest, 8 * at + at % 7))), at


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ({"count": 4}, "step 4"),
        ({"sha256": "00" * 32}, "step 4"),
        ({"first_timestamp": 1}, "step 4"),
        ({"last_timestamp": None}, "step 4"),
        ({"last_chain_hash": ""}, "step 4"),
        ({"tenant_id": "another"}, "step 4"),
        ({"content_sha256": "00" * 32}, "step 3"),
        ({"format": "csv"}, "step 3"),
        ({"key_id": "00" * 8}, "step 2"),
        ({"public_key": STRANGERS_PUBLIC.hex()}, "step 2"),
        ({"format_version": 2}, "step 1"),
        ({"filters": []}, "step 1"),
        ({"count": None}, "step 1"),
    ],
)
def test_a_manifest_that_says_something_else(cli: Cli, change: Line, step: str) -> None:
    run = cli.json(trail(**change))
    assert run.code == 1 and run.outcome["step"] == step, run


def test_what_no_form_begins_with(cli: Cli) -> None:
    for data in (b"", b"\n", b"{}", b"haldir", b"c2sp", b"\x00" * 100, b"PK\x03\x04"):
        assert_could_not_check(cli.json(data))
