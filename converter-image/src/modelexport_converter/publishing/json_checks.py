"""Checks of an untrusted JSON document, composed field by field. A check returns nothing and raises ``ValueError``.

Values are checked as in ``modelexport.untrusted``, but texts are not cleaned: an unclean text is refused, since the
converter writes clean ones only.
"""

from collections.abc import Callable
from typing import Any

from modelexport import untrusted
from modelexport.text import clean, is_clean

Check = Callable[[Any, str], object]
"""Checks a value; the second argument is the name of its field, for the message of the ``ValueError``."""


def text(limit: int) -> Check:
    """Accept a clean text of at most ``limit`` characters."""

    def check(value: Any, field: str) -> None:
        if not isinstance(value, str):
            raise ValueError(f"{field} is not a text")
        if len(value) > limit:
            raise ValueError(f"{field} has {len(value):,} characters, at most {limit:,} are taken")
        if not is_clean(value):
            raise ValueError(f"{field} holds control or invisible characters")

    return check


_KEY = text(256)


def whole(high: int) -> Check:
    """Accept a whole number from 0 to ``high``."""
    return lambda value, field: untrusted.whole(value, field, high)


def number(high: float, low: float = 0) -> Check:
    """Accept a finite number from ``low`` to ``high``."""
    return lambda value, field: untrusted.number(value, field, high, low)


def optional(inner: Check) -> Check:
    """Accept ``None`` or a value that ``inner`` accepts."""
    return lambda value, field: None if value is None else inner(value, field)


def each(inner: Check, limit: int) -> Check:
    """Accept a list of at most ``limit`` items."""

    def check(value: Any, field: str) -> None:
        if not isinstance(value, list) or len(value) > limit:
            raise ValueError(f"{field} is not a list of at most {limit:,} items")
        for index, item in enumerate(value):
            inner(item, f"{field}[{index}]")

    return check


def mapping(inner: Check, limit: int) -> Check:
    """Accept an object of at most ``limit`` entries with any names."""

    def check(value: Any, field: str) -> None:
        if not isinstance(value, dict) or len(value) > limit:
            raise ValueError(f"{field} is not an object of at most {limit:,} entries")
        for name, item in value.items():
            _KEY(name, f"a name in {field}")
            inner(item, f"{field}.{name}")

    return check


def record(**fields: Check) -> Check:
    """Accept an object of exactly these fields."""

    def check(value: Any, field: str) -> None:
        found = untrusted.record(value, field)
        if missing := sorted(fields.keys() - found.keys()):
            raise ValueError(f"{field} lacks {', '.join(missing)}")
        if unknown := sorted(found.keys() - fields.keys()):
            raise ValueError(f"{field} has the unknown field {clean(unknown[0], 64)}")
        for name, inner in fields.items():
            inner(found[name], f"{field}.{name}")

    return check


def simple(depth: int) -> Check:
    """Accept texts, numbers and containers of them, nested at most ``depth`` levels deep."""

    def check(value: Any, field: str) -> None:
        if isinstance(value, dict | list) and depth:
            (mapping if isinstance(value, dict) else each)(simple(depth - 1), 1024)(value, field)
        elif isinstance(value, str):
            text(4096)(value, field)
        elif value is not None and not isinstance(value, bool):
            untrusted.number(abs(value) if isinstance(value, int | float) else value, field, 1e300)

    return check
