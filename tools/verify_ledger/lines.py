"""A line of JSON and what is in it, read without leeway."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from .verdict import Malformed


class Pairs(list[tuple[str, Any]]):
    """The keys of an object and their values, as they stand. Nested objects stay like this."""


class Number(str):
    """A number as it is written, to be compared exactly."""


def parse_object(line: bytes) -> dict[str, Any]:
    """The object on a line. Raises ValueError for what is not JSON in UTF-8."""
    try:
        pairs = json.loads(
            line.decode("utf-8"),
            object_pairs_hook=Pairs,
            parse_int=Number,
            parse_float=Number,
            parse_constant=refuse_constant,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(pairs, Pairs):
        raise Malformed("a line is not an object")
    if len(pairs) != len(dict(pairs)):
        raise Malformed("a line has the same key twice")
    return dict(pairs)


def refuse_constant(name: str) -> NoReturn:
    """NaN and Infinity, which Python would read, are not JSON."""
    raise ValueError(name)


def number_in(line: dict[str, Any], key: str) -> int:
    """A whole number up to 2^64 - 1, without fraction and exponent."""
    value = line.get(key)
    is_whole = isinstance(value, Number) and re.fullmatch("[0-9]{1,20}", value)
    if not is_whole or int(value) >= 2**64:
        raise Malformed(f"there is no whole number {key}")
    return int(value)


def text_in(line: dict[str, Any], key: str, form: str = "(?s:.*)") -> str:
    value = line.get(key)
    if not is_text(value) or not re.fullmatch(form, value):
        raise Malformed(f"there is no {key} of the right form")
    return value


def hash_in(line: dict[str, Any], key: str) -> bytes:
    return bytes.fromhex(text_in(line, key, "[0-9a-f]{64}"))


def list_in(line: dict[str, Any], key: str) -> list[Any]:
    value = line.get(key)
    if type(value) is not list:  # an object is a list, too: `Pairs`
        raise Malformed(f"there is no list {key}")
    return value


def is_text(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, Number)
