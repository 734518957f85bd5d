"""Writes the ModelExport of a draft as YAML with comments, for ``modelexport init`` and for the cluster."""

from collections.abc import Iterator
from typing import Any

import yaml

from modelexport.api.body import export_body
from modelexport.api.quantization import FLOAT_LAYER_TARGETS, Effort, Quantization
from modelexport.local.draft import Draft
from modelexport.matrix.support import ARCHITECTURES, lookup

WIDTH = 1000
"""Characters of a line; a comment follows the value, so no value is folded."""
OPTIONS_EXAMPLE = (
    "    # - {format: ONNX, precision: FP32, name: camera, options: {layout: NHWC, inputType: uint8}}"
    "  # options say how a file takes images: docs/options.md"
)
"""Shows what options look like, unless a target has some already."""


def write_manifest(draft: Draft) -> str:
    """Return the ModelExport as YAML; comments say what was found, what can be changed and what a cluster needs."""
    export = draft.export
    body = export_body(export)
    spec = body["spec"]
    cells = [lookup(draft.identified.architecture, target) for target in export.targets]
    recipes = [cell.recipe(calibrated=export.calibration is not None) for cell in cells]
    lines = [
        f"# {draft.identified.describe()}",
        "# modelexport validate FILE checks this file, modelexport run FILE exports it on this machine, and",
        "# kubectl apply -f FILE on a cluster.",
        f"apiVersion: {body['apiVersion']}",
        f"kind: {body['kind']}",
        f"metadata: {{name: {export.name}}}",
        "spec:",
        *([f"  supportLevel: {spec['supportLevel']}"] if "supportLevel" in spec else []),
        "  model:",
        f"    architecture: {spec['model']['architecture']}",
        *_reference("checkpoint", spec["model"]["checkpoint"], 4),
        *_parameters(draft, spec["model"].get("parameters", {})),
        "  targets:" + ("" if draft.chosen else "  # modelexport matrix lists what else there is"),
        *(f"    - {_flow(entry)}  # {recipe}" for entry, recipe in zip(spec["targets"], recipes, strict=True)),
        *([] if export.options else [OPTIONS_EXAMPLE]),
        *_calibration(spec.get("calibration")),
        *_evaluation(spec.get("evaluation")),
        *_quantization(draft, spec.get("quantization")),
    ]
    return "\n".join(lines) + "\n"


def _reference(name: str, reference: dict[str, Any], indent: int) -> Iterator[str]:
    space = " " * indent
    yield f"{space}{name}:"
    local = reference["uri"].startswith("file://")
    hint = "  # for a cluster, upload it and write s3://bucket/key" if local else ""
    scalar = _flow([reference["uri"]])[1:-1]  # quoted if YAML would read it as something else
    yield f"{space}  uri: {scalar}{hint}"
    if "sha256" in reference:
        yield f"{space}  sha256: {reference['sha256']}"


def _parameters(draft: Draft, parameters: dict[str, Any]) -> Iterator[str]:
    """Yield the parameters, and as comments those that the checkpoint answers."""
    height, width = draft.identified.input_size
    if "inputSize" in parameters:
        yield "    parameters:"
        yield f"      inputSize: {_flow(parameters['inputSize'])}"
    else:
        stride = ARCHITECTURES[draft.identified.architecture].stride
        multiples = f", in multiples of {stride}" if stride > 1 else ""
        yield "    # parameters:"
        yield f"    #   inputSize: [{height}, {width}]  # height and width in pixels{multiples}"


def _calibration(calibration: dict[str, Any] | None) -> Iterator[str]:
    if calibration is None:
        yield "  # Images like those that the model will see: they prove each file, and INT8 is calibrated on them."
        yield "  # calibration:"
        yield "  #   dataset: {uri: file:///data/photos/}  # a folder, a zip archive, or an image"
        return
    yield "  calibration:  # images like those that the model will see"
    yield from _reference("dataset", calibration["dataset"], 4)
    if "samples" in calibration:
        yield f"    samples: {calibration['samples']}"


def _evaluation(evaluation: dict[str, Any] | None) -> Iterator[str]:
    if evaluation is None:
        return
    yield "  evaluation:  # labelled images, on which files are compared with the original"
    yield from _reference("dataset", evaluation["dataset"], 4)
    if "maxDrop" in evaluation:
        yield f'    maxDrop: "{evaluation["maxDrop"]}"'


def _quantization(draft: Draft, quantization: dict[str, Any] | None) -> Iterator[str]:
    """Yield how far to go for INT8, as comments if nothing was chosen; nothing if no target is such a file."""
    export = draft.export
    if export.calibration is None or not any(target in FLOAT_LAYER_TARGETS for target in export.targets):
        return
    mark = "# " if quantization is None else ""
    chosen = export.quantization or Quantization()
    yield f"  {mark}quantization:  # for INT8 that loses too much"
    yield f"  {mark}  effort: {chosen.effort}  # {', '.join(Effort)}"
    yield f"  {mark}  maxFloatLayers: {chosen.max_float_layers}  # layers that may stay in float"
    yield f'  {mark}  maxSizeRatio: "{chosen.max_size_ratio:g}"  # size of such a file, relative to FP32'


def _flow(value: Any) -> str:
    """Return a value on one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=WIDTH, allow_unicode=True).strip()
