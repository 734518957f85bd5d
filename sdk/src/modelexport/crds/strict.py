"""Parses objects as strictly as ``kubectl apply``: unknown fields and names that are too long are rejected.

The operator tolerates unknown fields, because stored objects may be older or newer than it. In a file they are
mistakes.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from modelexport.api.fields import Body, InvalidSpec, check_kind
from modelexport.api.spec import ExportClass, ModelExport, parse_class, parse_export
from modelexport.crds.export_class import class_schema
from modelexport.crds.model_export import NAME_PROBLEM, export_schema
from modelexport.crds.schema import Schema
from modelexport.names import CLASS_KIND, EXPORT_KIND, LABEL_LIMIT


def read_export(body: Body) -> ModelExport:
    """Parse the body of a ModelExport.

    Raises:
        InvalidSpec: the API server would refuse it.
    """
    check_kind(body, EXPORT_KIND)
    _check_fields(body, export_schema())
    export = parse_export(body)
    if len(export.name) > LABEL_LIMIT:
        raise InvalidSpec("metadata.name", NAME_PROBLEM)
    return export


def read_class(body: Body) -> ExportClass:
    """Parse the body of an ExportClass.

    Raises:
        InvalidSpec: the API server would refuse it.
    """
    check_kind(body, CLASS_KIND)
    _check_fields(body, class_schema())
    return parse_class(body)


def _check_fields(body: Body, schema: Schema) -> None:
    """Reject unknown fields, except in the status, which only the operator writes."""
    known = schema["properties"]
    _check_names(body, known, "")
    _check(body.get("spec"), known["spec"], "spec")


def _check(value: Any, schema: Schema, path: str) -> None:
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            _check(item, schema["items"], f"{path}[{index}]")
    elif isinstance(value, Mapping) and "properties" in schema:  # labels, for example, have free keys
        _check_names(value, schema["properties"], f"{path}.")
        for name, inner in value.items():
            _check(inner, schema["properties"][name], f"{path}.{name}")


def _check_names(found: Body, known: Schema, path: str) -> None:
    for name in map(str, found):  # YAML reads a bare yes or 1 as another type than a string
        if name not in known:
            nearest = get_close_matches(name, known, n=1)
            way_out = f"did you mean {nearest[0]}?" if nearest else f"use one of {', '.join(known)}"
            raise InvalidSpec(f"{path}{name}", f"is not known; {way_out}")
