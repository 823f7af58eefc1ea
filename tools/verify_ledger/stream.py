"""Section 7: one stream, entry by entry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, NoReturn

from .entry import (
    FORMAT_VERSION,
    LONGEST_ENTRY,
    MAGIC,
    NO_HASH,
    SHORTEST_ENTRY,
    SIGNER_ROTATED,
    Entry,
    check_header,
    kind_of,
    read_event,
    split_entry,
)
from .keys import Trust
from .note import Checkpoint, Forged, signer_among
from .primitives import (
    entry_hash,
    entry_message,
    is_on_the_curve,
    key_id,
    leaf_hash,
    signature_problem,
)
from .tree import Tree
from .verdict import AnotherHistory, Malformed, NotSound, Outcome

WRONG_END = "does not end where it should"
ANOTHER_HISTORY = "another history"
UNNAMED = "signed by somebody you did not name"


class End(NamedTuple):
    """What is known of where a stream ends."""

    size: int | None = None
    head: bytes | None = None


class Pin(NamedTuple):
    """What was kept of an older end: its head, or a checkpoint, which its signer must stand for."""

    size: int
    head: bytes | None = None
    checkpoint: Checkpoint | None = None

    def __str__(self) -> str:
        what = "checkpoint" if self.checkpoint else "head"
        return f"the {what} that was kept of size {self.size}"


class Start(NamedTuple):
    """Where a part of a stream begins: its first seq, the hash before it, and the tree so far."""

    seq: int = 0
    previous_hash: bytes = NO_HASH
    peaks: tuple[bytes, ...] = ()


class Signer(NamedTuple):
    """Who signs from a seq on, and whether the reader named that key."""

    seq: int
    key: bytes
    is_named: bool


def header_problem(raw: bytes) -> tuple[str, str, str] | None:
    """Steps 1 to 4, for an entry by itself: step, reason and detail of the first that fails."""
    if not SHORTEST_ENTRY <= len(raw) <= LONGEST_ENTRY:
        return "step 1", "malformed", f"it has {len(raw)} bytes"
    entry = split_entry(raw)
    header = entry.header
    if header.magic != MAGIC:
        return "step 1", "malformed", "it does not start with the magic bytes"
    if header.format_version != FORMAT_VERSION:
        return "step 1", "malformed", f"its format version is {header.format_version}"
    if len(raw) != SHORTEST_ENTRY + header.payload_length:
        detail = f"it has {len(raw)} bytes with a payload of {header.payload_length}"
        return "step 2", "malformed", detail
    if entry.hash != entry_hash(raw[:-104]):
        return "step 3", "altered", "its hash is not that of its bytes"
    try:
        check_header(header)
        read_event(kind_of(header), entry.payload)
    except Malformed as problem:
        return "step 4", "malformed", str(problem)
    return None


class Walk:
    """Walks one stream. Give it every entry in order: `check`, then `accept`. Then its end."""

    def __init__(
        self, tenant: str, trust: Trust, pins: Iterable[Pin] = (), start: Start = Start()
    ) -> None:
        self.tenant = tenant
        self.trust = trust
        self.pins = list(pins)
        self.start = start
        self.tree = Tree(start.seq, start.peaks)
        self.previous_hash = start.previous_hash
        self.previous_time: int | None = None
        self.signers: list[Signer] = []
        self.end_signer: bytes | None = None
        self.contradicted: list[Pin] = []
        self.compare_pins_with_each_other()
        self.compare_with_pins()

    @property
    def size(self) -> int:
        """`n` of section 7: how many entries passed, and the seq that comes next."""
        return self.tree.size

    @property
    def current_key(self) -> bytes | None:
        return self.signers[-1].key if self.signers else None

    def fail(self, step: str, reason: str, detail: str) -> NoReturn:
        raise NotSound(self.size, step, reason, detail)

    def check(self, raw: bytes) -> Entry:
        """Steps 1 to 11, in order, for the next entry. Changes nothing."""
        problem = header_problem(raw)
        if problem is not None:
            self.fail(*problem)
        entry = split_entry(raw)
        header = entry.header

        tenant = tenant_of(entry)
        if tenant != self.tenant:
            self.fail("step 5", "foreign", f"it belongs to tenant {tenant}")

        if header.seq != self.size:
            self.fail("step 6", "out of place", f"its seq is {header.seq}")

        if header.previous_hash != self.previous_hash:
            self.fail("step 7", "broken link", "it does not follow the entry before it")

        if self.previous_time is not None and header.time <= self.previous_time:
            self.fail("step 8", "time went back", "it is not later than the entry before it")

        key = self.key_for(entry)
        flaw = signature_problem(key, entry_message(key, entry.hash), entry.signature)
        if flaw is not None:
            self.fail("step 10", "forged", flaw)

        next_key = rotated_to(entry)
        if next_key is not None and (next_key == key or not is_on_the_curve(next_key)):
            detail = "its new key is the current one, or no point of the curve"
            self.fail("step 11", "a rotation that cannot be", detail)
        return entry

    def key_for(self, entry: Entry) -> bytes:
        """Step 9."""
        detail = f"its key id is {entry.key_id.hex()}"
        if self.current_key is None:
            key = self.trust.find(entry.key_id)
            if key is None:
                self.fail("step 9", UNNAMED, detail)
            return key
        if entry.key_id != key_id(self.current_key):
            self.fail("step 9", "signed by a key that does not sign here", detail)
        return self.current_key

    def accept(self, raw: bytes, entry: Entry) -> None:
        """Step 12, for an entry that has passed `check`."""
        if self.current_key is None:
            key = self.key_for(entry)
            self.signers.append(Signer(self.size, key, self.trust.is_named(key)))
        next_key = rotated_to(entry)
        if next_key is not None:
            is_named = self.trust.is_named_after(next_key, self.signers[-1].is_named)
            self.signers.append(Signer(self.size + 1, next_key, is_named))
        self.previous_hash = entry.hash
        self.previous_time = entry.header.time
        self.tree.add(leaf_hash(raw))
        self.compare_with_pins()

    # --- after the last entry ---

    def check_end(self, end: End, step: str) -> None:
        """If the end is known."""
        size, head = end
        if size is not None and self.size < size:
            self.fail(step, "truncated", f"there should be {size} entries")
        if size is not None and self.size > size:
            self.fail(step, WRONG_END, f"there should be only {size} entries")
        if head is not None and self.previous_hash != head:
            self.fail(step, WRONG_END, f"the head should be {head.hex()}")

    def check_checkpoint(self, checkpoint: Checkpoint, step: str) -> None:
        """A checkpoint of this end: of this stream, size and root, signed by a key of it."""
        if checkpoint.tenant != self.tenant:
            self.fail(step, "foreign", f"the checkpoint is of tenant {checkpoint.tenant}")
        if checkpoint.size != self.size or checkpoint.root != self.tree.root():
            detail = f"the checkpoint signs {checkpoint.size} entries with another end"
            self.fail(step, WRONG_END, detail)
        try:
            signer = signer_among(checkpoint, self.keys_for(self.known_keys()))
            if signer is None:  # a key that is only offered is one that the reader did not name
                signer = signer_among(checkpoint, self.keys_for(self.trust.offered.values()))
        except Forged as problem:
            self.fail(step, "forged", f"the checkpoint: {problem}")
        if signer is None:
            self.fail(step, UNNAMED, "no key of the stream signed the checkpoint")
        self.end_signer = signer

    def known_keys(self) -> list[bytes]:
        """The keys that were current, and those that are trusted."""
        return list(dict.fromkeys([*(it.key for it in self.signers), *self.trust.named.values()]))

    def keys_for(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those that have a word about this end: a key that was replaced before it has none."""
        handed_on = zip(self.signers, self.signers[1:])
        replaced = {it.key for it, after in handed_on if after.seq < self.size}
        return [it for it in keys if it not in replaced or it == self.current_key]

    def conclude(
        self, missing: str | None = None, stream_size: int | None = None
    ) -> tuple[Outcome, str]:
        """What comes out when no entry is bad. `missing` says why this is not a whole stream."""
        self.judge_contradicted()
        admitted = max(self.size, stream_size or 0)  # a part admits that the stream went on
        for pin in self.pins:
            if pin.size > admitted:
                return Outcome.TRUNCATED, f"there once were {pin.size} entries"
        unnamed = [it for it in self.signers if not it.is_named]
        if unnamed:
            detail = f"{key_id(unnamed[0].key).hex()} signs from seq {unnamed[0].seq} on"
            return Outcome.UNNAMED_KEY, detail
        if self.end_signer is not None and self.end_signer not in self.known_keys():
            return Outcome.UNNAMED_KEY, f"{key_id(self.end_signer).hex()} signed the end"
        if missing is not None:
            return Outcome.INCOMPLETE, missing
        return Outcome.SOUND, ""

    def is_end_kept(self) -> bool:
        """Whether a kept checkpoint, true and rightly signed, says that the stream ends here."""
        keys = self.keys_for(self.known_keys())
        return any(
            pin.checkpoint is not None
            and pin.size == self.size
            and self.agrees_with(pin)
            and is_signed(pin.checkpoint, keys)
            for pin in self.pins
        )

    # --- what was kept ---

    def compare_pins_with_each_other(self) -> None:
        roots: dict[int, bytes] = {}
        for pin in self.pins:
            if pin.checkpoint is None:
                continue
            if roots.setdefault(pin.size, pin.checkpoint.root) != pin.checkpoint.root:
                detail = f"two checkpoints of size {pin.size} were kept, with different roots"
                raise AnotherHistory(pin.size, "kept end", ANOTHER_HISTORY, detail)

    def compare_with_pins(self) -> None:
        """Each when `n` is its size."""
        for pin in self.pins:
            if pin.size == self.size and not self.agrees_with(pin):
                self.contradicted.append(pin)  # who signed it shows at the end: a key may take over

    def agrees_with(self, pin: Pin) -> bool:
        if pin.checkpoint is not None:
            return pin.checkpoint.root == self.tree.root()
        return pin.head == self.previous_hash

    def judge_contradicted(self) -> None:
        """What nobody known signed is not sound, which comes first in the order of outcomes."""
        for pin in self.contradicted:
            if not self.stands_for(pin):
                detail = f"{pin} is not true of it, and no known key signed it"
                raise NotSound(pin.size, "kept end", ANOTHER_HISTORY, detail)
        for pin in self.contradicted:
            seq = max(pin.size - 1, 0)
            raise AnotherHistory(seq, "kept end", ANOTHER_HISTORY, f"{pin} is not true of it")

    def stands_for(self, pin: Pin) -> bool:
        """Whether a known key signed it. A head stands for itself: the reader kept it."""
        return pin.checkpoint is None or is_signed(pin.checkpoint, self.known_keys())

    def notes_on_pins(self) -> list[str]:
        """What was kept, but says less than it could."""
        first = self.start.seq
        notes = [f"{it}, below {first}, was not compared" for it in self.pins if it.size < first]
        for pin in self.pins:
            if first <= pin.size <= self.size and not self.stands_for(pin):
                notes.append(f"{pin} is true, but no known key signed it")
        return notes


def is_signed(checkpoint: Checkpoint, keys: Iterable[bytes]) -> bool:
    try:
        return signer_among(checkpoint, keys) is not None
    except Forged:
        return False


def tenant_of(entry: Entry) -> str:
    return entry.header.tenant.rstrip(b"\x00").decode("ascii")


def rotated_to(entry: Entry) -> bytes | None:
    """The key that an entry hands the stream to."""
    if entry.header.kind != SIGNER_ROTATED:
        return None
    return read_event(kind_of(entry.header), entry.payload)["public_key"]
