"""Writes a ModelExport as the body of a Kubernetes object: the inverse of ``parse_export``."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from decimal import Decimal
from typing import Any

from modelexport.api.spec import ModelExport
from modelexport.names import API_VERSION, EXPORT_KIND

APART = ("name", "namespace", "uid", "generation", "max_drops", "options")
"""The fields that are written elsewhere than under their name in ``spec``."""


def export_body(export: ModelExport) -> dict[str, Any]:
    """Return the body of a ModelExport; fields with their default value are left out, and so is what a server sets."""
    metadata = {"name": export.name, "namespace": export.namespace}
    spec = _plain(export, APART)
    for target, entry in zip(export.targets, spec["targets"], strict=True):
        if target in export.max_drops:
            entry["maxDrop"] = _plain(export.max_drops[target])
        if options := export.options.get(target):
            entry["options"] = options.to_dict()
    return {"apiVersion": API_VERSION, "kind": EXPORT_KIND, "metadata": metadata, "spec": spec}


def _plain(value: Any, without: tuple[str, ...] = ()) -> Any:
    """Return a part of an export as plain data: the fields of the API have the names of ours in camel case.

    Fields with their default value are left out.
    """
    if is_dataclass(value):
        plain = {}
        for field in fields(value):
            found = getattr(value, field.name)
            is_default = field.default is not MISSING and found == field.default
            if field.name not in without and found is not None and not is_default:
                first, *rest = field.name.split("_")
                plain[first + "".join(map(str.capitalize, rest))] = _plain(found)
        return plain
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):  # the API has decimals as text
        return format(Decimal(repr(value)), "f")
    return value if isinstance(value, bool | int) else str(value)
