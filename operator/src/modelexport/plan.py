"""From an export and its class to the conversions that it asks for; the same for the operator and for a local run."""

import hashlib
import json
from dataclasses import asdict

from modelexport.fields import InvalidSpec
from modelexport.matrix import ARCHITECTURES, Cell, SupportLevel, Target, lookup
from modelexport.reasons import Reason
from modelexport.request import ConversionRequest
from modelexport.spec import ModelExport

HASH_DIGITS = 10


def plan_export(export: ModelExport, output: str) -> tuple[ConversionRequest, ...]:
    """Plan one conversion per target, in the order of ``spec.targets``.

    Args:
        export: what the user asked for.
        output: URI of the folder for all exports of the class, without a slash at its end, e.g. ``s3://exports/team``.

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
        output=f"{output}/{export.namespace}/{export.name}/{target.slug}-{digest}/",
        spec_hash=digest,
        calibration=export.calibration,
    )


def spec_hash(export: ModelExport, cell: Cell) -> str:
    """Name the content of one conversion: equal model, target, scheme, threshold and pictures give equal digits.

    A parameter that is not given does not count, so that a later version can know another without new digits for all.
    """
    parameters = asdict(export.model.parameters)
    content = {
        "model": {
            **asdict(export.model),
            "parameters": {name: value for name, value in parameters.items() if value is not None},
        },
        "target": str(cell.target),
        "scheme": cell.scheme(calibrated=export.calibration is not None),
        "threshold": asdict(cell.threshold),
        "calibration": export.calibration and asdict(export.calibration),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:HASH_DIGITS]
