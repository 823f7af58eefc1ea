"""Section 12: a folder of tiles. Its entries are walked like those of an export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from .entry import LONGEST_ENTRY
from .export import NOT_DERIVED, ExportHeader, facts_of, walk_for
from .keys import Trust
from .note import LONGEST_NOTE, Checkpoint, read_note
from .primitives import leaf_hash
from .stream import UNNAMED, End, Pin, Start, Walk
from .tree import Tree
from .verdict import CannotCheck, Malformed, NotSound, Outcome, Verdict

WIDTH = 256
LONGEST_BUNDLE = WIDTH * (2 + LONGEST_ENTRY)


class Missing(Exception):
    """A file that there must be is not there. The message names it."""


def verify_tiles(
    folder: Path, trust: Trust, tenant: str | None = None, pins: Iterable[Pin] = ()
) -> Verdict:
    try:
        checkpoint = read_note(read_file(folder / "checkpoint", LONGEST_NOTE + 1))
    except (Malformed, Missing) as problem:
        raise CannotCheck(f"this is not a folder of tiles: {problem}") from None
    header = ExportHeader(checkpoint.tenant, [], [], Start(), None)
    notes = [NOT_DERIVED]
    if tenant is None:
        notes.append("the tenant is the one that the checkpoint names; --tenant if you know it")
    walk = None
    try:
        walk = walk_for(header, trust, tenant, pins)
        missing = None
        try:
            check_files(folder, checkpoint, walk)
        except Missing as problem:
            missing = str(problem)
        outcome, detail = walk.conclude(missing)
    except NotSound as fault:
        if (fault.step, fault.reason) == ("step 9", UNNAMED):
            # Tiles tell no public keys: without the right one, nothing signed can be checked.
            return Verdict(Outcome.UNNAMED_KEY, fault.detail, facts_of(walk, header), notes)
        return Verdict(fault.outcome, str(fault), facts_of(walk, header), notes, fault)
    return Verdict(outcome, detail, facts_of(walk, header), notes)


def check_files(folder: Path, checkpoint: Checkpoint, walk: Walk) -> None:
    """Every file that the size calls for: the entries, and the hashes over them."""
    rows = Rows(folder, checkpoint.size, walk)
    for number, width in tiles_of(checkpoint.size):
        for raw in entries_in(bundle_path(folder, number, width), width, walk):
            walk.accept(raw, walk.check(raw))
            rows.add(0, leaf_hash(raw))
    rows.finish()
    walk.check_end(End(checkpoint.size), "checkpoint")
    walk.check_checkpoint(checkpoint, "checkpoint")


def tiles_of(hashes: int) -> Iterator[tuple[int, int]]:
    """Number and width of each tile of a row with so many hashes."""
    for number in range(-(-hashes // WIDTH)):
        yield number, min(WIDTH, hashes - number * WIDTH)


def entries_in(path: Path, width: int, walk: Walk) -> Iterator[bytes]:
    """A bundle must end where its last entry ends."""
    data = memoryview(read_file(path, LONGEST_BUNDLE + 1))
    for _ in range(width):
        length = int.from_bytes(data[:2], "big")
        if len(data) < 2 + length:
            walk.fail("tiles", "malformed", f"{path.name} ends within an entry")
        yield bytes(data[2 : 2 + length])
        data = data[2 + length :]
    if data:
        walk.fail("tiles", "malformed", f"{path.name} goes on after its last entry")


class Rows:
    """The hash tiles, computed again from the leaves and compared as they fill."""

    def __init__(self, folder: Path, size: int, walk: Walk) -> None:
        self.folder = folder
        self.walk = walk
        self.widths: list[int] = []  # how many hashes each row has in all
        while size:
            self.widths.append(size)
            size //= WIDTH
        self.open: list[list[bytes]] = [[] for _ in self.widths]
        self.done = [0] * len(self.widths)

    def add(self, row: int, hash: bytes) -> None:
        self.open[row].append(hash)
        if len(self.open[row]) == WIDTH:
            tile = self.close(row)
            if row + 1 < len(self.widths):
                self.add(row + 1, root_over(tile))

    def close(self, row: int) -> list[bytes]:
        """Compares a tile that has all its hashes with its file."""
        tile, number = self.open[row], self.done[row]
        path = self.folder / "tile" / str(row) / place(number, len(tile))
        if read_file(path, 32 * WIDTH + 1) != b"".join(tile):
            detail = f"hash tile {number} of row {row} is not that of the entries"
            self.walk.fail("tiles", "altered", detail)
        self.open[row], self.done[row] = [], number + 1
        return tile

    def finish(self) -> None:
        for row, tile in enumerate(self.open):
            if tile:
                self.close(row)


def root_over(tile: list[bytes]) -> bytes:
    tree = Tree()
    for hash in tile:
        tree.add(hash)
    return tree.root()


def place(number: int, width: int) -> Path:
    """`x001/x234/067`, and `.p/<W>` for a tile that is not full."""
    digits = str(number)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = "/".join([*("x" + part for part in parts[:-1]), parts[-1]])
    return Path(path if width == WIDTH else f"{path}.p/{width}")


def bundle_path(folder: Path, number: int, width: int) -> Path:
    return folder / "tile" / "entries" / place(number, width)


def read_file(path: Path, limit: int) -> bytes:
    """At most `limit` bytes, so that a file that is too long shows as such."""
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except (FileNotFoundError, NotADirectoryError):
        raise Missing(f"there is no file {path}") from None
