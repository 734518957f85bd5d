"""Reads the targets that the spec of an export asks for, whether or not the rest of it can be read. Pure."""

from collections.abc import Iterator, Mapping

from modelexport.api.options import parse_name
from modelexport.matrix.support import Format, Precision, Target
from modelexport_operator.kube.objects import JsonObject


def asked_targets(export: JsonObject) -> Iterator[Target]:
    """Yield the targets of the spec; those with values of another version are left out, the reconcile reports them."""
    spec = export.get("spec")
    entries = spec.get("targets") if isinstance(spec, Mapping) else None
    for entry in entries if isinstance(entries, list) else ():
        try:
            yield read_target(entry)
        except (AttributeError, KeyError, TypeError, ValueError):
            continue


def read_target(entry: JsonObject) -> Target:
    """Read format, precision and name of an entry in spec or status.

    Raises:
        KeyError: a field is missing.
        ValueError: a value is not known.
    """
    return Target(Format(str(entry["format"])), Precision(str(entry["precision"])), parse_name(entry, "target"))
