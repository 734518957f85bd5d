"""Parses classes, parses and plans exports: once for as long as their specs stay the same. Pure.

An export is reconciled for every step of each of its Jobs, and its spec hardly ever changes. The functions remember
their last results by the JSON of what they read.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import cast

from modelexport.api.request import ConversionRequest
from modelexport.api.spec import ExportClass, ModelExport, parse_class, parse_export
from modelexport.planning.plan import plan_export
from modelexport_operator.kube.encoding import decode, encode
from modelexport_operator.kube.objects import ExportClassObject, JsonObject, ModelExportObject

REMEMBERED = 1000
"""Exports of nine targets; each takes 16 KB, parsed and planned."""


def parse_export_once(parent: ModelExportObject) -> ModelExport:
    """Parse the body of an export.

    Raises:
        InvalidSpec: a field is missing or invalid.
    """
    return _parse_export(_read_part(parent))


def parse_class_once(body: ExportClassObject) -> ExportClass:
    """Parse the body of an ExportClass.

    Raises:
        InvalidSpec: a field is missing or invalid.
    """
    return _parse_class(encode(body))


def plan_export_once(parent: ModelExportObject, output: str) -> Sequence[ConversionRequest]:
    """Plan the conversions of an export; ``output`` as for ``plan_export``.

    Raises:
        InvalidSpec: a field is invalid, or a target is not in the matrix at the support level of the export.
    """
    return _plan(_read_part(parent), output)


def _read_part(parent: ModelExportObject) -> bytes:
    """Return what ``parse_export`` reads of a body, as JSON."""
    metadata: dict[str, object] = {
        key: parent["metadata"].get(key) for key in ("name", "namespace", "uid", "generation")
    }
    given = {key: value for key, value in metadata.items() if value is not None}
    whole: JsonObject = {**parent, "metadata": given, "status": None}
    return encode(whole)


@lru_cache(maxsize=REMEMBERED)
def _parse_export(content: bytes) -> ModelExport:
    return parse_export(cast(JsonObject, decode(content)))


@lru_cache(maxsize=16)
def _parse_class(content: bytes) -> ExportClass:
    return parse_class(cast(JsonObject, decode(content)))


@lru_cache(maxsize=REMEMBERED)
def _plan(content: bytes, output: str) -> Sequence[ConversionRequest]:
    return plan_export(_parse_export(content), output)
