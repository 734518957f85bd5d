"""From an export and its class to the conversions that it asks for; the same for the operator and for a local run."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from modelexport.fields import InvalidSpec
from modelexport.matrix import ARCHITECTURES, Cell, SupportLevel, Target, lookup
from modelexport.reasons import Reason
from modelexport.request import ConversionRequest
from modelexport.sources import PLACEHOLDER, expand, explain_outside, public_uri
from modelexport.spec import Calibration, Model, ModelExport

HASH_DIGITS = 10


def plan_export(export: ModelExport, output: str) -> tuple[ConversionRequest, ...]:
    """Plan one conversion per target, in the order of ``spec.targets``.

    Args:
        export: what the user asked for.
        output: URI of the folder for all exports of the class, without a slash at its end, e.g. ``s3://exports/team``;
            where it has ``{namespace}``, that is the folder of the namespace, else the namespace is a folder in it.

    Raises:
        InvalidSpec: a target is not in the matrix at the support level of the export; reason ``UnsupportedTarget``.
    """
    check_support(export)
    return tuple(_plan_target(export, target, output) for target in export.targets)


def check_support(export: ModelExport) -> None:
    """Refuse a target that the export's support level does not cover.

    Raises:
        InvalidSpec: with reason ``UnsupportedTarget`` and the way out.
    """
    if export.support_level is SupportLevel.EXTENDED:
        return
    row = ARCHITECTURES[export.model.architecture]
    for index, target in enumerate(export.targets):
        if target in row.extended:
            asked = [other for other in export.targets if other in row.extended]
            raise InvalidSpec(f"spec.targets[{index}]", row.refusal(asked), Reason.UNSUPPORTED_TARGET)


def check_sources(export: ModelExport, sources: Sequence[str]) -> None:
    """Refuse a checkpoint or pictures outside of the folders from which the export's class lets it read.

    Raises:
        InvalidSpec: with reason ``SourceNotAllowed``, the folders and the way out.
    """
    folders = [expand(source, export.namespace) for source in sources]
    named = {"spec.model.checkpoint.uri": export.model.checkpoint}
    if export.calibration:
        named["spec.calibration.dataset.uri"] = export.calibration.dataset
    for path, reference in named.items():
        if problem := explain_outside(reference.uri, folders):
            raise InvalidSpec(path, f"{public_uri(reference.uri)!r} {problem}", Reason.SOURCE_NOT_ALLOWED)


def export_folder(output: str, namespace: str, name: str) -> str:
    """The URI of the folder of one export, with a slash at its end; ``output`` as for ``plan_export``."""
    folder = expand(output, namespace) if PLACEHOLDER in output else f"{output}/{namespace}"
    return f"{folder}/{name}/"


def _plan_target(export: ModelExport, target: Target, output: str) -> ConversionRequest:
    cell = lookup(export.model.architecture, target)
    scheme = cell.scheme(calibrated=export.calibration is not None)
    # Pictures that a scheme does not calibrate on still verify the file, so every target keeps them.
    digest = spec_hash(export, cell)
    return ConversionRequest(
        export=f"{export.namespace}/{export.name}",
        model=export.model,
        target=target,
        scheme=scheme,
        threshold=cell.threshold,
        artifact_name=f"{export.name}-{target.precision.lower()}{cell.backend.suffix}",
        output=f"{export_folder(output, export.namespace, export.name)}{target.slug}-{digest}/",
        spec_hash=digest,
        calibration=export.calibration,
    )


def spec_hash(export: ModelExport, cell: Cell) -> str:
    """Name the content of one conversion: equal model, target, scheme, threshold and pictures give equal digits.

    What is not given does not count, so that a later version can know another parameter without new digits for all.
    """
    content = {
        "model": _given(export.model),
        "target": str(cell.target),
        "scheme": cell.scheme(calibrated=export.calibration is not None),
        "threshold": asdict(cell.threshold),
        "calibration": export.calibration and _given(export.calibration),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:HASH_DIGITS]


@lru_cache(maxsize=1024)
def _given(part: Model | Calibration) -> Mapping[str, Any]:
    """What a user gave, as plain data; remembered, as the operator asks for it with every step of every Job."""
    return asdict(part, dict_factory=lambda items: {name: value for name, value in items if value is not None})
