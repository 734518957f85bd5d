"""Builds exports from Python objects and from the words of a command line."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from modelexport.api.body import export_body
from modelexport.api.fields import InvalidSpec
from modelexport.api.options import parse_name, read_options
from modelexport.api.spec import ModelExport
from modelexport.crds.strict import read_export
from modelexport.errors import BadInput
from modelexport.matrix.options import NO_OPTIONS, OPTIONS, Options
from modelexport.matrix.support import TARGETS, Target, requires_images
from modelexport.planning.plan import check_support


def check_export(export: ModelExport) -> ModelExport:
    """Return an export that was built in Python as its body is read.

    Raises:
        BadInput: the operator would refuse it; with the field and the way out.
    """
    try:
        checked = read_export(export_body(export))
        check_support(checked)
    except InvalidSpec as error:
        raise BadInput.from_spec(error) from error
    return replace(checked, uid=export.uid, generation=export.generation)


def read_targets(words: str | Target | Sequence[str | Target]) -> Mapping[Target, Options]:
    """Read targets with their options, in their order.

    A word is ``LiteRT/INT8`` or ``int8/litert``; a format or a precision alone stands for all that have it, a format
    without those that require images, such as W8A16. A third part is the name of the target, and options follow a
    colon: ``ONNX/FP32/server:dynamicBatch=true,opset=18``.

    Raises:
        BadInput: a word names no target, or a target has other options than before.
    """
    found: dict[Target, Options] = {}
    for word in [words] if isinstance(words, str | Target) else words:
        read = {word: NO_OPTIONS} if isinstance(word, Target) else _read_target(word)
        if other := [target for target, options in read.items() if found.get(target, options) != options]:
            problem = f"{other[0]} has two sets of options; give one a name, such as {other[0].unnamed}/camera:…"
            raise BadInput(problem, field="spec.targets")
        found |= read
    return found


def _read_target(word: str) -> dict[Target, Options]:
    wanted, colon, listed = word.partition(":")
    parts = wanted.lower().split("/")
    known_parts = {part.lower() for target in TARGETS for part in (target.format, target.precision)}
    names = [part for part in parts if part not in known_parts]
    asked = set(parts) - set(names)
    matching = [
        target
        for target in TARGETS
        if asked <= {target.format.lower(), target.precision.lower()}
        and (target.precision.lower() in asked or not requires_images(target))
    ]
    is_named = len(names) == 1 and len(asked) == 2 and parts[-1] == names[0]
    if not matching or not asked or (names and not is_named):
        known = ", ".join(map(str, TARGETS))
        raise BadInput(f"{word!r} is not a target; use one of {known}, or a format alone", field="spec.targets")
    try:
        name = parse_name({"name": names[0]}, "spec.targets[]") if names else ""
        given = dict(map(_read_option, listed.split(","))) if colon else {}
        return {
            Target(target.format, target.precision, name): read_options(given, f"{word}: options", target)
            for target in matching
        }
    except InvalidSpec as error:
        raise BadInput(str(error), field="spec.targets") from error


def _read_option(word: str) -> tuple[str, Any]:
    """Read ``opset=17``: a value is what YAML would read, as far as options have it."""
    name, equals, value = word.strip().partition("=")
    if not equals:
        raise BadInput(f"{word!r} is not an option; write {name or 'opset'}=VALUE", field="spec.targets")
    names = {known.lower(): known for known in OPTIONS}
    plain = {"true": True, "false": False}.get(value.lower(), value)
    return names.get(name.lower(), name), int(value) if value.isascii() and value.isdecimal() else plain
