"""Section 11: proof files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .entry import split_entry
from .keys import Trust
from .note import Checkpoint, Forged, decimal, hash_in_base64, read_note
from .note import signer_among, strict_base64
from .primitives import key_id, leaf_hash
from .stream import ANOTHER_HISTORY, UNNAMED, Pin, header_problem, tenant_of
from .tree import inclusion_problem
from .verdict import AnotherHistory, CannotCheck, Malformed, NotSound, Outcome, Verdict

FIRST_LINE = "c2sp.org/tlog-proof@v1"
LONGEST_PROOF = 155_924
LONGEST_PATH = 64


class Proof(NamedTuple):
    entry: bytes
    index: int
    path: list[bytes]
    note: bytes


def read_proof(data: bytes) -> Proof:
    """Step 1."""
    if len(data) > LONGEST_PROOF:
        raise Malformed(f"the proof has more than {LONGEST_PROOF} bytes")
    before, separator, note = data.partition(b"\n\n")
    try:
        first, extra, index, *path = before.decode("ascii").split("\n")
    except ValueError:  # not ASCII, or too few lines
        raise Malformed("the proof does not begin with three lines of its own") from None
    if not separator or first != FIRST_LINE:
        raise Malformed("it is not a proof of a version that is known")
    if not extra.startswith("extra ") or not index.startswith("index "):
        raise Malformed("the proof does not begin with three lines of its own")
    if len(path) > LONGEST_PATH:
        raise Malformed(f"the path has more than {LONGEST_PATH} hashes")
    return Proof(
        strict_base64(extra.removeprefix("extra "), "the entry of the proof"),
        decimal(index.removeprefix("index "), "the index"),
        [hash_in_base64(line, "a hash of the path") for line in path],
        note,
    )


def verify_proof(
    data: bytes, trust: Trust, tenant: str | None = None, pins: Iterable[Pin] = ()
) -> Verdict:
    facts: dict[str, object] = {}
    try:
        proof, checkpoint = check_proof(data, tenant)
        facts |= {
            "tenant": checkpoint.tenant,
            "index": proof.index,
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
        }
        outcome, detail = judge_note(checkpoint, trust, pins)
    except NotSound as fault:
        return Verdict(fault.outcome, str(fault), facts, fault=fault)
    notes = ["one entry and its place were shown, not its link to the entry before it"]
    return Verdict(outcome, detail, facts, notes)


def check_proof(data: bytes, tenant: str | None) -> tuple[Proof, Checkpoint]:
    """Steps 1 to 6."""
    try:
        proof = read_proof(data)
    except Malformed as problem:
        raise NotSound(0, "step 1", "malformed", str(problem)) from None

    def fail(step: str, reason: str, detail: str) -> None:
        raise NotSound(proof.index, step, reason, detail)

    problem = header_problem(proof.entry)
    if problem is not None:
        fail("step 2", *problem[1:])
    try:
        checkpoint = read_note(proof.note)
    except Malformed as flaw:
        fail("step 3", "malformed", str(flaw))
    entry = split_entry(proof.entry)
    if entry.header.seq != proof.index:
        fail("step 4", "out of place", f"its seq is {entry.header.seq}")
    if tenant_of(entry) != checkpoint.tenant or tenant not in (None, checkpoint.tenant):
        told = f"the entry is of tenant {tenant_of(entry)}, the checkpoint of {checkpoint.tenant}"
        fail("step 5", "foreign", told)
    wrong = inclusion_problem(
        leaf_hash(proof.entry), proof.index, checkpoint.size, proof.path, checkpoint.root
    )
    if wrong is not None:
        fail("step 6", "not included", wrong)
    return proof, checkpoint


def verify_checkpoint(
    data: bytes, trust: Trust, tenant: str | None = None, pins: Iterable[Pin] = ()
) -> Verdict:
    """A checkpoint alone (section 9): who signed it, and whether those that were kept agree."""
    facts: dict[str, object] = {}
    try:
        try:
            checkpoint = read_note(data)
        except Malformed as problem:
            raise NotSound(0, "checkpoint", "malformed", str(problem)) from None
        facts |= {
            "tenant": checkpoint.tenant,
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
        }
        if tenant not in (None, checkpoint.tenant):
            raise NotSound(0, "checkpoint", "foreign", f"it is of tenant {checkpoint.tenant}")
        outcome, detail = judge_note(checkpoint, trust, pins)
    except NotSound as fault:
        return Verdict(fault.outcome, str(fault), facts, fault=fault)
    return Verdict(outcome, detail, facts, ["no entry was looked at"])


def judge_note(checkpoint: Checkpoint, trust: Trust, pins: Iterable[Pin]) -> tuple[Outcome, str]:
    """Step 7, and whether two checkpoints of one size say two things."""
    last = max(checkpoint.size - 1, 0)
    try:
        signer = signer_among(checkpoint, trust.named.values())
    except Forged as problem:
        raise NotSound(last, "step 7", "forged", str(problem)) from None
    for pin in pins:
        kept = pin.checkpoint
        if kept is None or kept.tenant != checkpoint.tenant:
            raise CannotCheck(f"{pin} is nothing that a checkpoint of this stream is compared with")
        if kept.size == checkpoint.size and kept.root != checkpoint.root:
            if signer is None or not signed(kept, trust):
                problem = "says something else, but not both are signed by keys you named"
                raise CannotCheck(f"{pin} {problem}")
            raise AnotherHistory(last, "kept end", ANOTHER_HISTORY, f"{pin} has another root")
    if signer is None:
        return Outcome.UNNAMED_KEY, UNNAMED
    return Outcome.SOUND, f"signed by {key_id(signer).hex()}"


def signed(checkpoint: Checkpoint, trust: Trust) -> bool:
    try:
        return signer_among(checkpoint, trust.named.values()) is not None
    except Forged:
        return False
