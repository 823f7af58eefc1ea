"""What can come out, in the words of section 8."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Outcome(Enum):
    """Each with the exit code that says it."""

    SOUND = 0
    NOT_SOUND = 1
    COULD_NOT_CHECK = 2
    UNNAMED_KEY = 3
    INCOMPLETE = 4
    TRUNCATED = 5
    ANOTHER_HISTORY = 6

    @property
    def words(self) -> str:
        return WORDS[self]


WORDS = {
    Outcome.SOUND: "sound",
    Outcome.NOT_SOUND: "not sound",
    Outcome.COULD_NOT_CHECK: "could not check",
    Outcome.UNNAMED_KEY: "signed by a key that you did not name",
    Outcome.INCOMPLETE: "incomplete",
    Outcome.TRUNCATED: "truncated",
    Outcome.ANOTHER_HISTORY: "another history",
}


class Malformed(Exception):
    """Bytes that are not what the document says they must be. The message says why."""


class CannotCheck(Exception):
    """There is nothing to say about what was given. The message says why."""


@dataclass(eq=False)
class NotSound(Exception):
    """The first step that failed, and where. Reasons are in the words of the document."""

    seq: int
    step: str
    reason: str
    detail: str

    outcome = Outcome.NOT_SOUND

    def __str__(self) -> str:
        return f"{self.outcome.words} at seq {self.seq}: {self.reason} ({self.step}: {self.detail})"


class AnotherHistory(NotSound):
    """What was kept is not true of what was given."""

    outcome = Outcome.ANOTHER_HISTORY


@dataclass(frozen=True)
class Verdict:
    """One outcome, what it is about, and what it rests on."""

    outcome: Outcome
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    fault: NotSound | None = None
