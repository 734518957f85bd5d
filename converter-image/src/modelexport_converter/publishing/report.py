"""The report beside every artifact: what was asked, what was made, how it was proved, and how to use the file.

It is written last, so a file without a report was never published. The next, equal conversion reads it and is done.
"""

import json
import math
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from modelexport import __version__, names, untrusted
from modelexport.reasons import Reason
from modelexport.request import ConversionRequest
from modelexport.result import (
    Artifact,
    ConversionResult,
    Reference,
    Verification,
    read_artifact,
    read_verification,
)
from modelexport_converter.stores import TEXT_LIMIT

if TYPE_CHECKING:  # both import torch, which a conversion that is reused never needs
    from modelexport_converter.backends import Facts
    from modelexport_converter.model import LoadedModel
    from modelexport_converter.statistics import Fit

SCHEMA_VERSION = 2
"""2: pictures are chosen by the digests of their names, and ``pictures`` says which were."""
REMARKS, REMARK_LIMIT = 8, 1000
"""How many remarks a report has at most, and the characters of each."""
PACKAGES = (
    "ai-edge-litert",
    "ai-edge-quantizer",
    "coremltools",
    "litert-converter",
    "litert-torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "torch",
    "torchvision",
)


@dataclass(frozen=True)
class Sources:
    """The SHA-256 of the bytes from which a file is made; ``calibration`` is ``None`` without pictures of the user."""

    checkpoint: str
    calibration: str | None


def tool_versions() -> dict[str, str]:
    """Return the versions of this converter and of the libraries that it has at hand; nothing is imported."""
    installed = {name: _version(name) for name in PACKAGES}
    return {"modelexport": __version__, **{name: version for name, version in installed.items() if version}}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def artifact_uri(request: ConversionRequest) -> str:
    """Return the URI of what a conversion publishes."""
    return f"{request.output}{request.artifact_name}"


def report_uri(request: ConversionRequest) -> str:
    """Return the URI of a conversion's report."""
    return f"{request.output}{names.REPORT_FILE}"


def build_report(
    request: ConversionRequest, sources: Sources, artifact: Artifact, verification: Verification
) -> dict[str, Any]:
    """Return the part of a report by which an equal conversion recognises its work."""
    return {
        "schemaVersion": SCHEMA_VERSION,
        "specHash": request.spec_hash,
        "request": json.loads(request.public().to_json()),
        "scheme": str(request.scheme),
        "versions": tool_versions(),
        "sources": asdict(sources),
        "artifact": {"uri": artifact.uri, "sha256": artifact.sha256, "sizeBytes": artifact.size_bytes},
        "verification": verification.to_dict(),
    }


def describe_model(model: "LoadedModel", facts: "Facts") -> dict[str, Any]:
    """Return what the user of a file has to know: its input, its outputs, the classes, and what it holds."""
    outputs = [
        {"name": output.name, "shape": facts.outputs.get(output.name), "axes": output.axes, "meaning": output.meaning}
        for output in model.outputs
    ]
    return {
        "input": {
            "name": model.input_name,
            "shape": model.input_shape,
            "axes": ("batch", model.preprocessing.colours, "height", "width"),
        },
        "preprocessing": asdict(model.preprocessing),
        "outputs": outputs,
        "classNames": model.class_names,
        "weights": model.weights or "the whole checkpoint",
        "normalisation": model.fit and describe_fit(model.fit),
        "metadata": dict(model.metadata),
        "weightTypes": dict(facts.weight_types),
        "opTypes": dict(facts.op_types),
    }


def describe_fit(fit: "Fit") -> dict[str, Any]:
    """Return how far a network is from its statistics of normalisation; what is infinite is no number in JSON."""
    worst = fit.worst
    numbers = {"mean": fit.mean, "spread": fit.spread, "firstSpread": fit.first_spread, "worstMean": worst.mean}
    rounded = {name: round(value, 4) if math.isfinite(value) else None for name, value in numbers.items()}
    return {**rounded, "worstLayer": worst.layer, "layers": len(fit.deviations), "pictures": fit.pictures}


def describe_proof(verification: Verification) -> str:
    """Say in a status that a file is verified, and what of its reference was assumed, which nobody should overlook."""
    if verification.reference is not Reference.REBUILT or not verification.assumptions:
        return "verified"
    first, *others = verification.assumptions
    more = ", …" if others else ""
    return f"verified against a rebuilt network (assumed: {first}{more}; see verification.assumptions)"


def read_earlier(content: str, request: ConversionRequest, sources: Sources) -> ConversionResult | None:
    """Return the result of an earlier, equal conversion from the text of its report.

    ``None`` where it was another: other content, other tools, or no report of this version at all.
    """
    try:
        report = untrusted.load(content, TEXT_LIMIT)
        expected = (SCHEMA_VERSION, request.spec_hash, asdict(sources), tool_versions())
        found = tuple(report[key] for key in ("schemaVersion", "specHash", "sources", "versions"))
        if found != expected:
            return None
        artifact = read_artifact(report["artifact"], size="sizeBytes")
        if artifact.uri != artifact_uri(request) or report["scheme"] != request.scheme:
            return None
        verification = read_verification(report["verification"])
        if verification.reference is None:
            return None  # of a version that did not say what it was compared with
        told = untrusted.texts(report["remarks"], "remarks", REMARKS, REMARK_LIMIT)
        return ConversionResult(
            reason=Reason.SUCCEEDED,
            message="; ".join([_describe_earlier(verification), *told]),
            scheme=str(request.scheme),
            artifact=artifact,
            report_uri=report_uri(request),
            verification=verification,
            reused=True,
        )
    except (KeyError, ValueError):
        return None  # not a report that this version could have written, so it is made anew


def _describe_earlier(verification: Verification) -> str:
    words, proof = "an equal conversion had published this file already", describe_proof(verification)
    return words if proof == "verified" else f"{words}, {proof}"
