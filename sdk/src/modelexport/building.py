"""Builds exports from Python objects and from the words of a command line."""

from collections.abc import Sequence
from dataclasses import replace

from modelexport.api.body import export_body
from modelexport.api.fields import InvalidSpec
from modelexport.api.spec import ModelExport
from modelexport.crds.strict import read_export
from modelexport.errors import BadInput
from modelexport.matrix.support import TARGETS, Target
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


def read_targets(words: str | Target | Sequence[str | Target]) -> tuple[Target, ...]:
    """Read targets: ``LiteRT/INT8`` or ``int8/litert``; a format or a precision alone stands for all that have it.

    Raises:
        BadInput: a word names no target.
    """
    found: dict[Target, None] = {}
    for word in [words] if isinstance(words, str | Target) else words:
        found |= dict.fromkeys([word] if isinstance(word, Target) else _read_target(word))
    return tuple(found)


def _read_target(word: str) -> list[Target]:
    parts = set(word.lower().split("/"))
    matching = [target for target in TARGETS if parts <= {target.format.lower(), target.precision.lower()}]
    if not matching:
        known = ", ".join(map(str, TARGETS))
        raise BadInput(f"{word!r} is not a target; use one of {known}, or a format alone", field="spec.targets")
    return matching
