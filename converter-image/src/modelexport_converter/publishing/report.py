"""The report beside every artifact: the request, the file, its verification, and how to use it.

It is written last, so a file without a report was never published. The next, equal conversion reads it and stops.
"""

import contextlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from modelexport import __version__, names, untrusted
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.result import (
    Accuracy,
    Artifact,
    ConversionResult,
    Reference,
    Verification,
    read_accuracy,
    read_artifact,
    read_verification,
)
from modelexport.api.rungs import QuantizationResult, read_quantization
from modelexport.matrix.support import lookup
from modelexport_converter.stores import TEXT_LIMIT

if TYPE_CHECKING:  # these import torch, which a reused conversion never needs
    from modelexport_converter.backends import FileContents
    from modelexport_converter.model import LoadedModel
    from modelexport_converter.norm_statistics import Fit

SCHEMA_VERSION = 3
"""3: ``images``, a new key, identifies the selected images by the digests of their names."""
REMARKS, REMARK_LIMIT = 8, 1000
"""Remarks in a report, and characters of each, at most."""
LAYER_LIMIT = 256
"""Characters of a layer's name, at most."""
IMAGE_READER = "pillow"
"""The package that decodes and resizes images."""
_BUILDS: Mapping[str, Sequence[str]] = {"tensorflow": ("tensorflow-cpu", "tensorflow")}
"""Packages whose builds have names of their own, one of which is installed; arm64 has one build of TensorFlow."""


@dataclass(frozen=True)
class Sources:
    """The SHA-256 of the inputs of a file; ``None`` for images that the user does not give."""

    checkpoint: str
    calibration: str | None
    evaluation: str | None = None

    def to_dict(self) -> dict[str, str | None]:
        """Return plain data for a report; ``evaluation`` only if there is one, as in reports of earlier versions."""
        return {name: value for name, value in asdict(self).items() if name != "evaluation" or value}


def tool_versions(tools: Iterable[str]) -> dict[str, str]:
    """Return the versions of this converter and of those of the packages that are installed, without importing them."""
    versions = {"modelexport": __version__}
    for tool in sorted(tools):
        for package in _BUILDS.get(tool, (tool,)):
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions[tool] = metadata.version(package)
    return versions


def versions_of(request: ConversionRequest) -> dict[str, str]:
    """Return the versions of what makes the requested file, and of nothing else that the image of a converter has.

    Images of other contents then recognise each other's files.
    """
    reader = (IMAGE_READER,) if request.recipe.needs_calibration else ()
    return tool_versions((*lookup(request.model.architecture, request.target).tools, *reader))


def artifact_uri(request: ConversionRequest) -> str:
    """Return the URI of the published file."""
    return f"{request.output}{request.artifact_name}"


def report_uri(request: ConversionRequest) -> str:
    """Return the URI of the report."""
    return f"{request.output}{names.REPORT_FILE}"


def build_report(
    request: ConversionRequest,
    sources: Sources,
    artifact: Artifact,
    verification: Verification,
    accuracy: Accuracy | None = None,
    *,
    quantization: QuantizationResult | None = None,
) -> dict[str, Any]:
    """Return the section of a report by which an equal conversion recognises its work."""
    return {
        "schemaVersion": SCHEMA_VERSION,
        "specHash": request.spec_hash,
        "request": json.loads(request.public().to_json()),
        "scheme": str(request.recipe),
        "versions": versions_of(request),
        "sources": sources.to_dict(),
        "artifact": {"uri": artifact.uri, "sha256": artifact.sha256, "sizeBytes": artifact.size_bytes},
        "verification": verification.to_dict(),
        **({"accuracy": accuracy.to_dict()} if accuracy else {}),
        **({"quantization": quantization.to_dict()} if quantization else {}),
    }


def describe_model(model: "LoadedModel", facts: "FileContents") -> dict[str, Any]:
    """Return the facts that users of a file need: its input, outputs, classes and content."""
    from modelexport_converter.backends.file_metadata import (
        describe_preprocessing,
        describe_scale,
        describe_size,
        open_shape,
    )

    outputs = [
        {
            "name": output.name,
            "shape": open_shape(facts.outputs.get(output.name, ())),
            "type": facts.output_types.get(output.name, "float32"),
            "axes": output.axes,
            "meaning": output.meaning,
        }
        for output in model.outputs_in_file
    ]
    target = {"minimum_deployment_target": facts.deployment_target} if facts.deployment_target else {}
    colours, last = model.preprocessing.colours, facts.channels_last or model.options.channels_last
    axes = ("batch", "height", "width", colours) if last else ("batch", colours, "height", "width")
    return {
        "input": {
            "name": model.input_name,
            "shape": open_shape(model.shape_in_file(channels_last=last)),
            "type": model.kind_in_file,
            "axes": axes,
            "inputSize": None,
            "quantization": None,
            **describe_size(model),
            **describe_scale(facts.input_scales.get(model.input_name)),
        },
        "preprocessing": describe_preprocessing(model),
        "outputs": outputs,
        "classNames": model.class_names,
        "weights": model.weights or "the whole checkpoint",
        "normalisation": model.fit and describe_fit(model.fit),
        "metadata": {**model.metadata, **target},
        "weightTypes": dict(facts.weight_types),
        "opTypes": dict(facts.op_types),
    }


def describe_fit(fit: "Fit") -> dict[str, Any]:
    """Return how far a network is from its normalisation statistics; infinite numbers become ``null``."""
    worst = fit.worst
    numbers = {"mean": fit.mean, "spread": fit.spread, "firstSpread": fit.first_spread, "worstMean": worst.mean}
    rounded = {name: round(value, 4) if math.isfinite(value) else None for name, value in numbers.items()}
    return {**rounded, "worstLayer": worst.layer, "layers": len(fit.deviations), "images": fit.images}


def describe_proof(verification: Verification) -> str:
    """Return the words "verified" for a status, with assumptions about the reference that a user should see."""
    if verification.reference is not Reference.REBUILT or not verification.assumptions:
        return "verified"
    first, *others = verification.assumptions
    more = ", …" if others else ""
    return f"verified against a rebuilt network (assumed: {first}{more}; see verification.assumptions)"


def read_earlier(content: str, request: ConversionRequest, sources: Sources) -> ConversionResult | None:
    """Return the result of an earlier, equal conversion from the text of its report.

    Returns ``None`` for another conversion: other content, other tools, or no report of this version.
    """
    try:
        report = untrusted.load(content, TEXT_LIMIT)
        expected = (SCHEMA_VERSION, request.spec_hash, sources.to_dict(), versions_of(request))
        found = tuple(report[key] for key in ("schemaVersion", "specHash", "sources", "versions"))
        if found != expected:
            return None
        artifact = read_artifact(report["artifact"], size="sizeBytes")
        if artifact.uri != artifact_uri(request) or report["scheme"] != request.recipe:
            return None
        verification = read_verification(report["verification"])
        if verification.reference is None:
            return None  # written by a version without a reference
        words, proof = "an equal conversion had published this file already", describe_proof(verification)
        noted = untrusted.texts(report["remarks"], "remarks", REMARKS, REMARK_LIMIT)
        return ConversionResult(
            reason=Reason.SUCCEEDED,
            message="; ".join([words if proof == "verified" else f"{words}, {proof}", *noted]),
            recipe=str(request.recipe),
            artifact=artifact,
            report_uri=report_uri(request),
            verification=verification,
            accuracy=read_accuracy(report["accuracy"]) if request.evaluation else None,
            quantization=read_quantization(report["quantization"]) if request.recipe.takes_float_layers else None,
            reused=True,
        )
    except (KeyError, ValueError):
        return None  # this version did not write it, so convert again
