"""The OpenAPI schema of the options of a target, and the rules that refuse them at apply."""

from collections.abc import Iterator, Mapping
from enum import StrEnum

from modelexport.api.spec import LISTED_TWICE
from modelexport.crds.schema import Schema, cel_list, integer, record, rule, text, words
from modelexport.matrix.options import (
    CALIBRATED,
    CONFLICTS,
    EXCLUDED_PRECISIONS,
    OPTIONS,
    REQUIREMENTS,
    TARGET_NAME_LIMIT,
    TARGET_NAME_PATTERN,
    Option,
    describe_formats,
    refused_by,
)

UNIQUE = (
    "self.all(t, self.exists_one(o, o.format == t.format && o.precision == t.precision && "
    "(has(o.name) ? o.name : '') == (has(t.name) ? t.name : '')))"
)


def name_schema() -> Schema:
    """Return the schema of the name of a target."""
    return text(
        "Name of this target, part of its folder, file and Job. Targets of the same format and precision need it, to "
        "tell them apart.",
        TARGET_NAME_LIMIT,
        pattern=TARGET_NAME_PATTERN,
    )


def options_schema() -> Schema:
    """Return the schema of the options of a target; docs/options.md has the same table."""
    return record(
        "How the file takes images, and what it contains besides the network (docs/options.md).",
        {name: _option(option) for name, option in OPTIONS.items()},
        *(rule(f"!({_holds(first)} && {_holds(second)})", message) for first, second, message in CONFLICTS),
        *(rule(f"!({_holds(first)}) || ({_holds(second)})", message) for first, second, message in REQUIREMENTS),
    )


def target_rules() -> list[Schema]:
    """Return the rules of a target that refuse options of another format, or that its precision rules out."""
    formats = (
        rule(
            f"!has(self.options) || !has(self.options.{name}) || self.format in {cel_list(option.formats)}",
            f"{name} {describe_formats(name)}",
            fieldPath=".options",
        )
        for name, option in OPTIONS.items()
        if not option.in_all_formats
    )
    precisions = (
        rule(
            f"self.precision != '{precision}' || !has(self.options) || !({_holds(wanted, 'self.options')})",
            message,
            fieldPath=".options",
        )
        for wanted, precision, message in EXCLUDED_PRECISIONS
    )
    return [*formats, *precisions]


def unique_rule() -> Schema:
    """Return the rule of the list of targets that no two are equal."""
    return rule(UNIQUE, f"a target {LISTED_TWICE}")


def architecture_rules() -> Iterator[Schema]:
    """Yield the rules of the spec that refuse options that the networks of an architecture cannot have."""
    for name, option in OPTIONS.items():
        if refused := refused_by(option):
            given = f"has(t.options.{name})" + (f" && t.options.{name}" if option.kind is bool else "")
            yield rule(
                f"!(self.model.architecture in {cel_list(refused)}) || "
                f"self.targets.all(t, !has(t.options) || !({given}))",
                f"the option {name} is not possible for {', '.join(refused)}; remove it",
                fieldPath=".targets",
            )


def calibration_rules() -> Iterator[Schema]:
    """Yield the rules of the spec that refuse options of files whose ranges no images give."""
    for values, fmt, precision, message in CALIBRATED:
        given, cell = _holds(values, "t.options"), f"t.format == '{fmt}' && t.precision == '{precision}'"
        yield rule(
            f"self.targets.all(t, !has(t.options) || !({given}) || (has(self.calibration) && {cell}))",
            message,
            fieldPath=".targets",
        )


def _option(option: Option) -> Schema:
    description = f"For {option.list_formats()}. {option.meaning} Default: {option.default}."
    if option.kind is bool:
        return {"type": "boolean", "description": description}
    if isinstance(option.kind, tuple):
        return integer(description, *option.kind)
    assert issubclass(option.kind, StrEnum)
    return words(description, list(option.kind))


def _holds(options: Mapping[str, object], path: str = "self") -> str:
    """Return the expression that the options at a path have their values."""
    return " && ".join(_equals(f"{path}.{name}", value) for name, value in options.items())


def _equals(field: str, value: object) -> str:
    if isinstance(value, range):
        return f"has({field}) && {field} in {list(value)}"
    literal = "" if value is None else f" && {field} == " + ("true" if value is True else f"'{value}'")
    return f"has({field}){literal}"
