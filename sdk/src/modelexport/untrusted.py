"""Readers of what a stranger wrote: JSON and its values, each of one type, bounded, and refused otherwise. Pure.

A termination message, a report in a bucket and a status are written by whoever may write there, not only by us. Python
takes more than JSON has (NaN, a key twice, integers of any length) and ``True`` for 1; nothing of that passes here.
Every reader raises ``ValueError``, which says what was expected.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from modelexport.text import clean, is_clean

URI_LIMIT = 2048
WORD_LIMIT = 63
EXACT_LIMIT = 2**53 - 1
"""The greatest whole number that every reader of JSON takes as it is (RFC 8259, section 6)."""
YEARS = range(1970, 3000)
SHOWN = 60
"""Characters of a value that an error shows."""

_DIGEST = re.compile("[0-9a-f]{64}")
_DECIMAL = re.compile("-?[0-9]{1,20}([.][0-9]{1,20})?(e[+-]?[0-9]{1,2})?")
_URI = re.compile("[a-z][a-z0-9+.-]*://[^/]+/.+")
_WORD = re.compile("[A-Za-z0-9_.-]+")


def load(text: str, limit: int) -> Mapping[str, Any]:
    """Read an object in JSON of at most ``limit`` characters.

    Raises:
        ValueError: it is longer, no JSON, no object, nested too deeply, or has a key twice.
    """
    if len(text) > limit:
        raise ValueError(f"{len(text)} characters, at most {limit} are read")
    return record(parse(text), "the text")


def parse(content: str | bytes) -> Any:
    """Read JSON as RFC 8259 has it.

    Raises:
        ValueError: it is no JSON, is nested too deeply, or has a key twice.
    """
    try:
        return json.loads(content, object_pairs_hook=_without_doubles, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def record(value: Any, name: str) -> Mapping[str, Any]:
    """A value that is an object."""
    if not isinstance(value, Mapping):
        _refuse(name, value, "an object")
    return value


def text(value: Any, name: str, limit: int) -> str:
    """A text for people: what must not be shown is taken out, and what is too long is cut."""
    if not isinstance(value, str):
        _refuse(name, value, "a text")
    return clean(value, limit)


def texts(value: Any, name: str, count: int, limit: int) -> tuple[str, ...]:
    """A list of at most ``count`` texts for people, each as ``text`` reads it."""
    if not isinstance(value, list) or len(value) > count:
        _refuse(name, value, f"a list of at most {count} texts")
    return tuple(text(item, name, limit) for item in value)


def word(value: Any, name: str, limit: int = WORD_LIMIT) -> str:
    """A name of letters, digits, ``_``, ``.`` and ``-``."""
    if not isinstance(value, str) or len(value) > limit or not _WORD.fullmatch(value):
        _refuse(name, value, f"a word of at most {limit} characters")
    return value


def decimal(value: Any, name: str) -> str:
    """A finite decimal as text."""
    if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
        _refuse(name, value, "a decimal as text")
    return value


def digest(value: Any, name: str) -> str:
    """A SHA-256 as text."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        _refuse(name, value, "64 hexadecimal digits in lower case")
    return value


def uri(value: Any, name: str) -> str:
    """A URI of a file, without a character that must not be shown: a cleaned one would name another file."""
    if not isinstance(value, str) or len(value) > URI_LIMIT or not is_clean(value) or not _URI.fullmatch(value):
        _refuse(name, value, f"a URI of at most {URI_LIMIT} characters")
    return value


def whole(value: Any, name: str, high: int = EXACT_LIMIT) -> int:
    """A whole number from 0 to ``high``."""
    if type(value) is not int or not 0 <= value <= high:
        _refuse(name, value, f"a whole number from 0 to {high}")
    return int(value)


def number(value: Any, name: str, high: float) -> float:
    """A finite number from 0 to ``high``."""
    if type(value) not in (int, float) or not 0 <= value <= high:  # NaN is in no interval
        _refuse(name, value, f"a number from 0 to {high:g}")
    return float(value)


def flag(value: Any, name: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        _refuse(name, value, "true or false")
    return value


def moment(value: Any) -> datetime | None:
    """A time with its zone, from RFC 3339 text; ``None`` for anything else, and for one with which nobody can count."""
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return at if at.tzinfo and at.year in YEARS else None


def _refuse(name: str, value: Any, expected: str) -> NoReturn:
    shown = repr(value[:SHOWN]) if isinstance(value, str) else type(value).__name__
    raise ValueError(f"{name}: {clean(shown)} is not {expected}")
