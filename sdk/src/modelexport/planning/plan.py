"""Plans the conversions of an export, for the operator and for local runs."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

from modelexport.api.fields import InvalidSpec
from modelexport.api.quantization import Quantization, takes_float_layers
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.sources import PLACEHOLDER, expand, explain_outside, public_uri
from modelexport.api.spec import Calibration, Evaluation, Model, ModelExport
from modelexport.matrix.options import NO_OPTIONS, Options
from modelexport.matrix.support import ARCHITECTURES, Cell, Recipe, SupportLevel, Target, Threshold, lookup
from modelexport.names import REPORT_FILE

HASH_DIGITS = 10


def plan_export(export: ModelExport, output: str) -> tuple[ConversionRequest, ...]:
    """Plan one conversion per target, in the order of ``spec.targets``.

    Args:
        export: the parsed ModelExport.
        output: URI of the folder for all exports of the class, without a trailing slash, e.g. ``s3://exports/team``.
            ``{namespace}`` stands for the namespace; without it, the namespace is a folder in ``output``.

    Raises:
        InvalidSpec: a target is not in the matrix at the support level of the export; reason ``UnsupportedTarget``.
    """
    check_support(export)
    return tuple(_plan_target(export, target, output) for target in export.targets)


def check_support(export: ModelExport) -> None:
    """Reject targets beyond the support level of the export.

    Raises:
        InvalidSpec: a target is Extended and the level is Stable; reason ``UnsupportedTarget``.
    """
    if export.support_level is SupportLevel.EXTENDED:
        return
    row = ARCHITECTURES[export.model.architecture]
    for index, target in enumerate(export.targets):
        if row.is_extended(target):
            asked = [other for other in export.targets if row.is_extended(other)]
            raise InvalidSpec(f"spec.targets[{index}]", row.refusal(asked), Reason.UNSUPPORTED_TARGET)


def check_sources(export: ModelExport, sources: Sequence[str]) -> None:
    """Reject a checkpoint or images outside the allowed folders of the class.

    Raises:
        InvalidSpec: a source is outside; reason ``SourceNotAllowed``, with the folders.
    """
    folders = [expand(source, export.namespace) for source in sources]
    named = {"spec.model.checkpoint.uri": export.model.checkpoint}
    if export.calibration:
        named["spec.calibration.dataset.uri"] = export.calibration.dataset
    if export.evaluation:
        named["spec.evaluation.dataset.uri"] = export.evaluation.dataset
    for path, reference in named.items():
        if problem := explain_outside(reference.uri, folders):
            raise InvalidSpec(path, f"{public_uri(reference.uri)!r} {problem}", Reason.SOURCE_NOT_ALLOWED)


def export_folder(output: str, namespace: str, name: str) -> str:
    """Return the URI of the folder of one export, with a trailing slash; ``output`` as for ``plan_export``."""
    folder = expand(output, namespace) if PLACEHOLDER in output else f"{output}/{namespace}"
    return f"{folder}/{name}/"


def report_uris(requests: Iterable[ConversionRequest]) -> Mapping[str, str]:
    """Return the URI of the report of each conversion, published or not, by the name of its target."""
    return {str(request.target): f"{request.output}{REPORT_FILE}" for request in requests}


def _plan_target(export: ModelExport, target: Target, output: str) -> ConversionRequest:
    cell = lookup(export.model.architecture, target)
    recipe = cell.recipe(calibrated=export.calibration is not None)
    # Every target keeps the images: recipes without calibration still use them for verification.
    digest = spec_hash(export, cell, target.name)
    name = "-".join(filter(None, (export.name, target.precision.lower(), target.name)))
    return ConversionRequest(
        export=f"{export.namespace}/{export.name}",
        model=export.model,
        target=target,
        recipe=recipe,
        threshold=cell.threshold,
        artifact_name=f"{name}{cell.backend.suffix}",
        output=f"{export_folder(output, export.namespace, export.name)}{target.slug}-{digest}/",
        spec_hash=digest,
        calibration=export.calibration,
        evaluation=_evaluation_of(export, target),
        quantization=_quantization_of(export, target),
        options=export.options.get(target, NO_OPTIONS),
    )


def _evaluation_of(export: ModelExport, target: Target) -> Evaluation | None:
    """Return the evaluation of a target, with the loss that it may have."""
    evaluation = export.evaluation
    return evaluation and replace(evaluation, max_drop=export.max_drops.get(target, evaluation.max_drop))


def _quantization_of(export: ModelExport, target: Target) -> Quantization:
    """Return how far the conversion of a target goes; the default for files that it does not concern."""
    concerned = takes_float_layers(target, calibrated=export.calibration is not None)
    return export.quantization if concerned and export.quantization else Quantization()


def spec_hash(export: ModelExport, cell: Cell, name: str = "") -> str:
    """Return the hash of a conversion: equal hashes ask for equal files.

    It covers model, target, options, recipe, threshold, images, evaluation and quantization.

    Unset fields are left out, so a later version can add parameters without changing existing hashes.
    """
    target = replace(cell.target, name=name)
    recipe = cell.recipe(calibrated=export.calibration is not None)
    parts = export.calibration, _evaluation_of(export, target), _quantization_of(export, target)
    options = export.options.get(target, NO_OPTIONS)
    return _spec_hash(export.model, (target, options), recipe, cell.threshold, parts)


@lru_cache(maxsize=1 << 14)
def _spec_hash(
    model: Model,
    asked: tuple[Target, Options],
    recipe: Recipe,
    threshold: Threshold,
    parts: tuple[Calibration | None, Evaluation | None, Quantization],
) -> str:
    """Return the hash, cached: every reconciliation of an export needs it."""
    (target, options), (calibration, evaluation, quantization) = asked, parts
    content = {
        "model": _given(model),
        "target": str(target),
        "scheme": recipe,
        "threshold": asdict(threshold),
        "calibration": calibration and _given(calibration),
        **({"evaluation": _given(evaluation)} if evaluation else {}),
        **({"quantization": asdict(quantization)} if quantization != Quantization() else {}),
        **({"options": options.to_dict()} if options else {}),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:HASH_DIGITS]


@lru_cache(maxsize=1024)
def _given(part: Model | Calibration | Evaluation) -> Mapping[str, Any]:
    """Return the set fields as plain data, cached: all targets of an export share them."""
    return asdict(part, dict_factory=lambda items: {name: value for name, value in items if value is not None})
