"""Reads the options and the name of a target."""

import re
from collections.abc import Mapping
from typing import Any

from modelexport.api import fields
from modelexport.api.fields import Body, InvalidSpec
from modelexport.matrix.options import (
    OPTIONS,
    TARGET_NAME_LIMIT,
    TARGET_NAME_PATTERN,
    Option,
    Options,
    options_of,
    problems,
)
from modelexport.matrix.support import Target
from modelexport.text import quote


def parse_name(entry: Body, path: str) -> str:
    """Return the name of a target, by default an empty text.

    Raises:
        InvalidSpec: it is no name.
    """
    value = entry.get("name")
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > TARGET_NAME_LIMIT or not re.fullmatch(TARGET_NAME_PATTERN, value):
        problem = f"is not a name; use at most {TARGET_NAME_LIMIT} lower-case letters, digits and '-'"
        raise InvalidSpec(f"{path}.name", f"{quote(value)} {problem}")
    return value


def parse_options(entry: Body, architecture: str, target: Target, path: str, *, calibrated: bool) -> Options:
    """Return the options of a target of an export, which has images that calibrate or not.

    Raises:
        InvalidSpec: an option is not known, has another value, or is not possible for this target.
    """
    given = fields.optional_mapping(entry, f"{path}.options")
    options = read_options(given or {}, f"{path}.options", target)
    for name, problem in problems(architecture, target, options, calibrated=calibrated):
        raise InvalidSpec(f"{path}.options.{name}", problem)
    return options


def read_options(given: Mapping[str, Any], path: str, target: Target | None = None) -> Options:
    """Read options by their names in the API.

    Raises:
        InvalidSpec: an option is not known, or has another value.
    """
    known = options_of(target.format) if target else OPTIONS
    values = {}
    for name in given:
        if name not in OPTIONS:
            raise InvalidSpec(f"{path}.{name}", f"is not known; use one of {', '.join(known)}")
        option = OPTIONS[name]
        values[option.attribute] = _read(option, given, f"{path}.{name}")
    return Options(**values)


def _read(option: Option, given: Mapping[str, Any], path: str) -> Any:
    if option.kind is bool:
        return fields.boolean(given, path)
    if isinstance(option.kind, tuple):
        return fields.optional_int(given, path, *option.kind)
    return fields.enum(option.kind, given[path.rpartition(".")[2]], path)
