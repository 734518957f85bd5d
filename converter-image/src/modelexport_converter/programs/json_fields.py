"""Reads fields of an archive's JSON: every field must have the type of torch's schema, or the archive is refused."""

from collections.abc import Mapping
from typing import Any, TypeVar

from modelexport import untrusted
from modelexport_converter.programs.errors import shown, unreadable

T = TypeVar("T")
Json = Mapping[str, Any]

NAME_LIMIT = 1024
"""Characters of a name; torch's names of modules and functions have less than 300."""
CONTAINERS_LIMIT = 2_000_000
"""Objects and arrays in one JSON text; one node of a graph has about 30. Each takes up to 100 bytes of memory."""
INTEGER_LIMIT = 1 << 63


def parse(content: bytes, name: str) -> Json:
    """Parse a JSON text that is one object.

    Raises:
        Failure: ``CheckpointUnreadable``: it is no object, repeats a key, or has too many or too deep containers.
    """
    if content.count(b"{") + content.count(b"[") > CONTAINERS_LIMIT:
        raise unreadable(f"{name} has more than {CONTAINERS_LIMIT:,} objects and arrays")
    try:
        parsed = untrusted.parse(content)
    except ValueError as error:
        raise unreadable(f"{name} is not JSON: {shown(error)}") from error
    return check(parsed, dict, name)


def check(value: Any, kind: type[T], where: str) -> T:
    """Return a value of exactly this type; ``True`` is no number here."""
    if type(value) is not kind:
        raise unreadable(f"{where} is not a {kind.__name__}")
    return value


def take(content: Json, key: str, kind: type[T], where: str) -> T:
    """Return a required field of an object."""
    if key not in content:
        raise unreadable(f"{where} has no {key}")
    return check(content[key], kind, f"{key} of {where}")


def take_name(content: Json, key: str, where: str) -> str:
    """Return a field that is a name: text of limited length."""
    name = take(content, key, str, where)
    if len(name) > NAME_LIMIT:
        raise unreadable(f"{key} of {where} has {len(name):,} characters, the limit is {NAME_LIMIT}")
    return name


def take_objects(content: Json, key: str, where: str) -> list[Json]:
    """Return a field that is a list of objects."""
    return [check(item, dict, f"an item of {key} of {where}") for item in take(content, key, list, where)]


def take_choice(content: Any, where: str) -> tuple[str, Any]:
    """Return the only key and the value of an object that represents a union type."""
    choice = check(content, dict, where)
    if len(choice) != 1:
        raise unreadable(f"{where} has {len(choice)} types instead of one")
    return next(iter(choice.items()))


def integer(value: Any, where: str) -> int:
    """Return a whole number of 64 bits."""
    if type(value) is not int or not -INTEGER_LIMIT <= value < INTEGER_LIMIT:
        raise unreadable(f"{where} is not a whole number of 64 bits")
    return value
