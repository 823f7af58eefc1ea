"""Section 15: which keys are trusted."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .primitives import certificate_message, key_id, signature_problem
from .verdict import CannotCheck

CERTIFICATE_FORM = (
    r"haldir-key-certificate-v1 ([0-9a-f]{64}) ([0-9a-f]{64}) ([0-9a-f]{128})"
)


class Trust:
    """The keys and root keys that the reader named, and what came with the data.

    A certificate by a root key that was named makes a key trusted as if it had been named. A key
    that was only offered, by the data themselves, can be used to check signatures, but who it
    belongs to is not known.
    """

    def __init__(self, keys: Iterable[bytes] = (), roots: Iterable[bytes] = ()) -> None:
        self.roots = set(roots)
        self.named: dict[bytes, bytes] = {}
        self.offered: dict[bytes, bytes] = {}
        for key in keys:
            self.name(key)

    def name(self, key: bytes) -> None:
        """Two keys with one id cannot be told apart in an entry."""
        if self.named.setdefault(key_id(key), key) != key:
            raise CannotCheck(f"two different keys have the key id {key_id(key).hex()}")

    def offer(self, key: bytes) -> None:
        self.offered.setdefault(key_id(key), key)

    def take_certificate(self, text: str) -> None:
        """A certificate that is not one, or not by a root key that was named, says nothing."""
        found = re.fullmatch(CERTIFICATE_FORM, text)
        if not found:
            return
        root, key, signature = (bytes.fromhex(word) for word in found.groups())
        if root in self.roots:
            if signature_problem(root, certificate_message(root, key), signature) is None:
                self.name(key)

    def find(self, wanted: bytes) -> bytes | None:
        """The key with this id, the named ones first."""
        return self.named.get(wanted) or self.offered.get(wanted)

    def is_named(self, key: bytes) -> bool:
        return self.named.get(key_id(key)) == key

    def is_named_after(self, key: bytes, previous_is_named: bool) -> bool:
        """For a key that takes over: where root keys are given, each key needs a certificate."""
        if self.roots:
            return self.is_named(key)
        return previous_is_named or self.is_named(key)
