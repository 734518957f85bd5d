"""Readers for untrusted JSON, which check the type and the limits of every value.

Termination messages, reports in a bucket and statuses can be written by everyone with access to them. Python's parser
accepts more than JSON (NaN, duplicate keys, integers of any length) and ``True`` for 1; these readers do not.
Every reader raises ``ValueError`` with the expected type.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from modelexport.text import clean, is_clean

URI_LIMIT = 2048
WORD_LIMIT = 63
EXACT_LIMIT = 2**53 - 1
"""The largest integer that all JSON parsers read exactly (RFC 8259, section 6)."""
YEARS = range(1970, 3000)
SHOWN = 60
"""Maximum characters of a value in an error message."""

_DIGEST = re.compile("[0-9a-f]{64}")
_DECIMAL = re.compile("-?[0-9]{1,20}([.][0-9]{1,20})?(e[+-]?[0-9]{1,2})?")
_URI = re.compile("[a-z][a-z0-9+.-]*://[^/]+/.+")
_WORD = re.compile("[A-Za-z0-9_.-]+")


def load(text: str, limit: int) -> Mapping[str, Any]:
    """Parse a JSON object of at most ``limit`` characters.

    Raises:
        ValueError: the text is longer, not JSON, not an object, nested too deeply, or has a duplicate key.
    """
    if len(text) > limit:
        raise ValueError(f"{len(text)} characters, at most {limit} are read")
    return record(parse(text), "the text")


def parse(content: str | bytes) -> Any:
    """Parse JSON as RFC 8259 defines it.

    Raises:
        ValueError: the content is not JSON, is nested too deeply, or has a duplicate key.
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
    """Read an object."""
    if not isinstance(value, Mapping):
        _refuse(name, value, "an object")
    return value


def items(value: Any, name: str, limit: int) -> Sequence[Any]:
    """Read a list of at most ``limit`` items."""
    if not isinstance(value, list) or len(value) > limit:
        raise ValueError(f"{name} is not a list of at most {limit} items")
    return value


def text(value: Any, name: str, limit: int) -> str:
    """Read a string for display, cleaned and cut to ``limit`` characters."""
    if not isinstance(value, str):
        _refuse(name, value, "a text")
    return clean(value, limit)


def texts(value: Any, name: str, count: int, limit: int) -> tuple[str, ...]:
    """Read a list of at most ``count`` strings for display, each as in ``text``."""
    if not isinstance(value, list) or len(value) > count:
        _refuse(name, value, f"a list of at most {count} texts")
    return tuple(text(item, name, limit) for item in value)


def word(value: Any, name: str, limit: int = WORD_LIMIT) -> str:
    """Read a name of letters, digits, ``_``, ``.`` and ``-``."""
    if not isinstance(value, str) or len(value) > limit or not _WORD.fullmatch(value):
        _refuse(name, value, f"a word of at most {limit} characters")
    return value


def decimal(value: Any, name: str) -> str:
    """Read a finite decimal in a string."""
    if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
        _refuse(name, value, "a decimal as text")
    return value


def digest(value: Any, name: str) -> str:
    """Read a SHA-256 in a string."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        _refuse(name, value, "64 hexadecimal digits in lower case")
    return value


def uri(value: Any, name: str) -> str:
    """Read the URI of a file; characters that need cleaning are rejected, since a cleaned URI names another file."""
    if not isinstance(value, str) or len(value) > URI_LIMIT or not is_clean(value) or not _URI.fullmatch(value):
        _refuse(name, value, f"a URI of at most {URI_LIMIT} characters")
    return value


def whole(value: Any, name: str, high: int = EXACT_LIMIT) -> int:
    """Read an integer from 0 to ``high``."""
    if type(value) is not int or not 0 <= value <= high:
        _refuse(name, value, f"a whole number from 0 to {high}")
    return int(value)


def int8(value: Any, name: str) -> int:
    """Read an integer of 8 bits, from -128 to 127."""
    if type(value) is not int or not -128 <= value <= 127:
        _refuse(name, value, "a whole number from -128 to 127")
    return int(value)


def number(value: Any, name: str, high: float, low: float = 0) -> float:
    """Read a finite number from ``low`` to ``high``."""
    if type(value) not in (int, float) or not low <= value <= high:  # false for NaN
        _refuse(name, value, f"a number from {low:g} to {high:g}")
    return float(value)


def flag(value: Any, name: str) -> bool:
    """Read a boolean."""
    if not isinstance(value, bool):
        _refuse(name, value, "true or false")
    return value


def moment(value: Any) -> datetime | None:
    """Return the time in RFC 3339 text with a zone; ``None`` for other values and for years outside ``YEARS``."""
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return at if at.tzinfo and at.year in YEARS else None


def time(value: Any, name: str) -> str:
    """Read a time in RFC 3339 text with a zone."""
    if moment(value) is None:
        _refuse(name, value, "a time")
    return str(value)


def _refuse(name: str, value: Any, expected: str) -> NoReturn:
    shown = repr(value[:SHOWN]) if isinstance(value, str) else type(value).__name__
    raise ValueError(f"{name}: {clean(shown)} is not {expected}")
