"""Readers for the fields of a Kubernetes object; each raises ``InvalidSpec`` with the path of an invalid field.

``path`` is the whole path for the message, such as ``spec.model.architecture``; its last part is the key to read.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from modelexport.api.reasons import Reason
from modelexport.names import API_VERSION
from modelexport.text import clean, is_clean, quote

PROBLEM_LIMIT = 2048
"""Maximum characters of a message: some quote the value, which can be as large as an object."""
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
NAME_LIMIT = 253

E = TypeVar("E", bound=StrEnum)
Body = Mapping[str, Any]


class InvalidSpec(ValueError):  # noqa: N818 - named for the cause, which is not an error of the program
    """A field is invalid; ``str()`` names the field, the value and the remedy.

    Messages show a value by ``quote``, because its author chose it.
    """

    def __init__(self, field_path: str, problem: str, reason: Reason = Reason.INVALID_SPEC) -> None:
        super().__init__(clean(f"{field_path}: {problem}", PROBLEM_LIMIT))
        self.field_path = field_path
        self.reason = reason


def check_kind(body: Body, kind: str) -> None:
    """Reject an object of another version or kind."""
    if not isinstance(body, Mapping):
        raise InvalidSpec("object", f"{quote(body)} is not an object")
    version, found = body.get("apiVersion"), body.get("kind")
    if (version, found) != (API_VERSION, kind):
        words = " ".join(value if isinstance(value, str) else quote(value) for value in (version, found))
        raise InvalidSpec("apiVersion, kind", f"found {words}, expected {API_VERSION} {kind}")


def mapping(parent: Body, path: str) -> Body:
    """Return a required object."""
    value = parent.get(_last(path))
    if not isinstance(value, Mapping):
        raise InvalidSpec(path, "is missing" if value is None else f"{quote(value)} is not an object")
    return value


def text(parent: Body, path: str) -> str:
    """Return a required, non-empty string."""
    value = parent.get(_last(path))
    if not isinstance(value, str) or not value:
        raise InvalidSpec(path, "is missing" if value is None else f"{quote(value)} is not a string")
    return value


def visible(value: str, path: str) -> str:
    """Return a string after a check for invisible characters."""
    if not is_clean(value):
        raise InvalidSpec(path, f"{value[:80]!r} contains an invisible character; retype it")
    return value


def optional_mapping(parent: Body, path: str) -> Body | None:
    """Return an optional object, or ``None``."""
    return None if parent.get(_last(path)) is None else mapping(parent, path)


def optional_text(parent: Body, path: str) -> str | None:
    """Return an optional string without invisible characters, or ``None`` if it is missing or empty."""
    return visible(text(parent, path), path) if parent.get(_last(path)) else None


def name(parent: Body, path: str) -> str:
    """Return a Kubernetes name; local runs build paths from it, so the check is strict."""
    value = text(parent, path)
    if len(value) > NAME_LIMIT or not re.fullmatch(NAME_PATTERN, value):
        raise InvalidSpec(path, f"{value[:80]!r} is not a name; use lower-case letters, digits, '-' and '.'")
    return value


def boolean(parent: Body, path: str) -> bool:
    """Return an optional boolean, by default ``False``."""
    value = parent.get(_last(path), False)
    if not isinstance(value, bool):
        raise InvalidSpec(path, f"{quote(value)} is neither true nor false")
    return value


def optional_int(parent: Body, path: str, low: int, high: int) -> int | None:
    """Return an optional integer from ``low`` to ``high``, or ``None``."""
    value = parent.get(_last(path))
    if value is None:
        return None
    if not is_int(value) or not low <= value <= high:
        raise InvalidSpec(path, f"{quote(value)} is not a whole number from {low} to {high}")
    return int(value)


def enum(kind: type[E], value: Any, path: str) -> E:
    """Return a value as a member of the enum ``kind``."""
    if value not in list(kind):
        raise InvalidSpec(path, f"{quote(value)} is not known; use one of {', '.join(kind)}")
    return kind(value)


def items(parent: Body, path: str) -> Sequence[Any]:
    """Return an optional list, by default empty."""
    value = parent.get(_last(path))
    if value is not None and (isinstance(value, str) or not isinstance(value, Sequence)):
        raise InvalidSpec(path, f"{quote(value)} is not a list")
    return value or ()


def enums(kind: type[E], parent: Body, path: str) -> tuple[E, ...]:
    """Return an optional list of members of the enum ``kind``, by default empty."""
    return tuple(enum(kind, value, f"{path}[{index}]") for index, value in enumerate(items(parent, path)))


def is_int(value: Any) -> bool:
    """Return whether a value is an integer and not a boolean, which Python counts as one."""
    return isinstance(value, int) and not isinstance(value, bool)


def _last(path: str) -> str:
    return path.rsplit(".", 1)[-1]
