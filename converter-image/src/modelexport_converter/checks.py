"""What a JSON document of a stranger may hold, told as a check per field. A check returns nothing and raises.

Every text is on one line and free of what a terminal obeys, every number finite, every list and every map bounded.
"""

import json
import math
from collections.abc import Callable
from typing import Any

from modelexport.text import clean

Check = Callable[[Any, str], None]
"""Checks a value; the second argument is the name of its field, for the message of the ``ValueError``."""


def parse(content: bytes) -> Any:
    """Read JSON strictly: UTF-8, each key once, no number that is not finite.

    Raises:
        ValueError: it is none.
    """
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("is nested too deep") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("has a key twice")
    return found


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"holds the number {word}")


def text(limit: int) -> Check:
    """A text of at most so many characters."""

    def check(value: Any, field: str) -> None:
        if not isinstance(value, str):
            raise ValueError(f"{field} is no text")
        if len(value) > limit:
            raise ValueError(f"{field} has {len(value):,} characters, at most {limit:,} are taken")
        if value != clean(value):
            raise ValueError(f"{field} holds control or invisible characters")

    return check


_KEY = text(256)


def integer(highest: int) -> Check:
    """A whole number from 0."""

    def check(value: Any, field: str) -> None:
        if type(value) is not int or not 0 <= value <= highest:
            raise ValueError(f"{field} is no whole number from 0 to {highest:,}")

    return check


def number(lowest: float, highest: float) -> Check:
    """A finite number."""

    def check(value: Any, field: str) -> None:
        if type(value) not in (int, float) or not math.isfinite(value) or not lowest <= value <= highest:
            raise ValueError(f"{field} is no number from {lowest:,} to {highest:,}")

    return check


def optional(inner: Check) -> Check:
    """What ``inner`` takes, or nothing."""
    return lambda value, field: None if value is None else inner(value, field)


def each(inner: Check, limit: int) -> Check:
    """A list of at most so many items."""

    def check(value: Any, field: str) -> None:
        if not isinstance(value, list) or len(value) > limit:
            raise ValueError(f"{field} is no list of at most {limit:,} items")
        for index, item in enumerate(value):
            inner(item, f"{field}[{index}]")

    return check


def mapping(inner: Check, limit: int) -> Check:
    """A map of at most so many entries, whatever their names."""

    def check(value: Any, field: str) -> None:
        if not isinstance(value, dict) or len(value) > limit:
            raise ValueError(f"{field} is no map of at most {limit:,} entries")
        for name, item in value.items():
            _KEY(name, f"a name in {field}")
            inner(item, f"{field}.{name}")

    return check


def record(**fields: Check) -> Check:
    """A map of exactly these fields."""

    def check(value: Any, field: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{field} is no map")
        if missing := sorted(fields.keys() - value.keys()):
            raise ValueError(f"{field} lacks {', '.join(missing)}")
        if unknown := sorted(value.keys() - fields.keys()):
            raise ValueError(f"{field} has the unknown field {clean(unknown[0], 64)}")
        for name, inner in fields.items():
            inner(value[name], f"{field}.{name}")

    return check


def simple(depth: int) -> Check:
    """Texts, numbers and what is made of them, nested at most so deep."""

    def check(value: Any, field: str) -> None:
        if isinstance(value, dict | list) and depth:
            (mapping if isinstance(value, dict) else each)(simple(depth - 1), 1024)(value, field)
        elif isinstance(value, bool) or value is None:
            return
        elif isinstance(value, str):
            text(4096)(value, field)
        else:
            number(-1e300, 1e300)(value, field)

    return check
