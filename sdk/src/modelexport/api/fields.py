"""Readers of the fields of a Kubernetes body; each refuses what it cannot accept by the field's path.

``path`` is the whole path for the message, such as ``spec.model.architecture``; its last word is the key that is read.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from modelexport.names import API_VERSION
from modelexport.reasons import Reason
from modelexport.text import clean, is_clean

PROBLEM_LIMIT = 2048
"""Characters of what is said of a field: some show its value, which can be as large as an object."""
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
NAME_LIMIT = 253

E = TypeVar("E", bound=StrEnum)
Body = Mapping[str, Any]


class InvalidSpec(ValueError):  # noqa: N818 - what it says is not an error of ours
    """A field holds a value that cannot be accepted; ``str()`` names the field, the value and the way out."""

    def __init__(self, field_path: str, problem: str, reason: Reason = Reason.INVALID_SPEC) -> None:
        super().__init__(clean(f"{field_path}: {problem}", PROBLEM_LIMIT))
        self.field_path = field_path
        self.reason = reason


def check_kind(body: Body, kind: str) -> None:
    """Refuse a body of another version or kind."""
    if not isinstance(body, Mapping):
        raise InvalidSpec("object", f"{body!r} is not an object")
    found = f"{body.get('apiVersion')} {body.get('kind')}"
    if found != f"{API_VERSION} {kind}":
        raise InvalidSpec("apiVersion, kind", f"found {found}, expected {API_VERSION} {kind}")


def mapping(parent: Body, path: str) -> Body:
    """Return a field that is an object."""
    value = parent.get(_last(path))
    if not isinstance(value, Mapping):
        raise InvalidSpec(path, "is missing" if value is None else f"{value!r} is not an object")
    return value


def text(parent: Body, path: str) -> str:
    """Return a field that is a text and not empty."""
    value = parent.get(_last(path))
    if not isinstance(value, str) or not value:
        raise InvalidSpec(path, "is missing" if value is None else f"{value!r} is not a text")
    return value


def visible(value: str, path: str) -> str:
    """Return a text that is shown as it is."""
    if not is_clean(value):
        raise InvalidSpec(path, f"{value[:80]!r} holds a character that cannot be seen; type it anew")
    return value


def optional_mapping(parent: Body, path: str) -> Body | None:
    """Return a field that is an object, ``None`` where it is missing."""
    return None if parent.get(_last(path)) is None else mapping(parent, path)


def optional_text(parent: Body, path: str) -> str | None:
    """Return a field that is a text and shown as it is, ``None`` where it is missing or empty."""
    return visible(text(parent, path), path) if parent.get(_last(path)) else None


def name(parent: Body, path: str) -> str:
    """A name as Kubernetes wants it; a local run makes paths of it, so nothing else may pass."""
    value = text(parent, path)
    if len(value) > NAME_LIMIT or not re.fullmatch(NAME_PATTERN, value):
        raise InvalidSpec(path, f"{value[:80]!r} is not a name; use lower-case letters, digits, '-' and '.'")
    return value


def boolean(parent: Body, path: str) -> bool:
    """Return a field that is true or false, false where it is missing."""
    value = parent.get(_last(path), False)
    if not isinstance(value, bool):
        raise InvalidSpec(path, f"{value!r} is neither true nor false")
    return value


def optional_int(parent: Body, path: str, low: int, high: int) -> int | None:
    """Return a field that is a whole number from ``low`` to ``high``, ``None`` where it is missing."""
    value = parent.get(_last(path))
    if value is None:
        return None
    if not is_int(value) or not low <= value <= high:
        raise InvalidSpec(path, f"{value!r} is not a whole number from {low} to {high}")
    return int(value)


def enum(kind: type[E], value: Any, path: str) -> E:
    """Return a value as a member of an enum."""
    if value not in list(kind):
        raise InvalidSpec(path, f"{value!r} is not known; use one of {', '.join(kind)}")
    return kind(value)


def items(parent: Body, path: str) -> Sequence[Any]:
    """Return a field that is a list, an empty one where it is missing."""
    value = parent.get(_last(path))
    if value is not None and (isinstance(value, str) or not isinstance(value, Sequence)):
        raise InvalidSpec(path, f"{value!r} is not a list")
    return value or ()


def enums(kind: type[E], parent: Body, path: str) -> tuple[E, ...]:
    """Return a field that is a list of members of an enum, an empty one where it is missing."""
    return tuple(enum(kind, value, f"{path}[{index}]") for index, value in enumerate(items(parent, path)))


def is_int(value: Any) -> bool:
    """Whether a value is a whole number; Python takes ``True`` for one."""
    return isinstance(value, int) and not isinstance(value, bool)


def _last(path: str) -> str:
    return path.rsplit(".", 1)[-1]
