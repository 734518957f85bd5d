"""The result of one conversion: the converter's termination message, read by the operator and by local runs.

A termination message holds at most 4096 bytes, so a result is short; the full report lies next to the artifact.
Anyone who can run a Pod can write a termination message, so the type and the limits of every field are checked.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from modelexport import untrusted
from modelexport.api.reasons import Fault, Reason
from modelexport.api.rungs import QuantizationResult, read_quantization
from modelexport.api.sources import is_plain
from modelexport.names import TERMINATION_MESSAGE_LIMIT
from modelexport.text import clean

SCHEMA_VERSION = 1
ASSUMPTIONS_LIMIT, ASSUMPTION_LENGTH = 12, 96
WARNINGS_LIMIT, WARNING_LENGTH = 4, 240
"""Maximum number and length of assumptions and warnings, so that a result fits into a termination message."""
ENDS = (Reason.SUCCEEDED, Reason.FILES_REMOVED)
"""Reasons with which a conversion ends without a fault."""
MOST_SECONDS = 1e7
"""Maximum duration of a conversion, about four months; the deadline of a Job is at most a week."""
MOST_MEMORY_MIB = 1 << 24
ABSENCE_LENGTH = 240
"""Maximum length of the reason for a missing fidelity."""


class Reference(StrEnum):
    """Origin of the original model, against which a produced file is verified.

    ``CHECKPOINT``: built layer by layer from the module tree in the checkpoint. ``PROGRAM``: the graph of a ``.pt2``
    archive. ``REBUILT``: the stock network of the architecture, filled with the checkpoint's weights; properties that
    are not stored with the weights (activations, strides, pooling) are assumed.
    """

    CHECKPOINT = "Checkpoint"
    PROGRAM = "Program"
    REBUILT = "Rebuilt"


@dataclass(frozen=True)
class Artifact:
    """A published file: its URI, its SHA-256 (64 hex digits) and its size in bytes."""

    uri: str
    sha256: str
    size_bytes: int


class FidelityMetric(StrEnum):
    """What the share in a fidelity is of.

    ``BOXES``, ``MASKS``, ``KEYPOINTS``: the detections of model and file that both have, of all that one of them has.
    ``MEAN_IOU``: intersection over union of the pixels of a class, averaged over the classes that the model gives.
    ``TOP_1``: the images to which both give the same class.
    """

    BOXES = "boxes"
    MASKS = "masks"
    KEYPOINTS = "keypoints"
    MEAN_IOU = "mean-iou"
    TOP_1 = "top-1"


@dataclass(frozen=True)
class Fidelity:
    """The answers of a file on the user's images, measured as if those of the original model were the labels.

    Decimals are text, as in ``Verification``.

    Attributes:
        metric: a ``FidelityMetric``, or the word of a later version.
        value: 0 to 1; 1 means that the file gives every answer of the model and no other.
        images: number of images.
        threshold: the required minimum; ``None`` if the answers are too few to refuse a file.
        kept: answers of the model that the file gives too.
        missed: answers of the model that the file does not give.
        invented: answers of the file that the model does not give; ``None`` where an image has one answer only.
        iou: mean intersection over union of the kept boxes.
        mask_iou: the same of their masks.
        keypoint_similarity: mean object keypoint similarity (OKS) of the kept detections.
        score_shift: mean score in the file minus the model's, of kept detections.
    """

    metric: str
    value: str
    images: int
    threshold: str | None = None
    kept: int | None = None
    missed: int | None = None
    invented: int | None = None
    iou: str | None = None
    mask_iou: str | None = None
    keypoint_similarity: str | None = None
    score_shift: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a status, a report or a message, without empty fields."""
        values = {key: getattr(self, name) for key, (name, _) in _FIDELITY.items()}
        return {key: value for key, value in values.items() if value is not None}

    def __str__(self) -> str:
        """Return the numbers as a phrase: ``boxes 0.9412 >= 0.8 (96 kept, 4 missed, 2 invented)``."""
        required = f" >= {self.threshold}" if self.threshold else ""
        counts = {"kept": self.kept, "missed": self.missed, "invented": self.invented}
        means = {
            "IoU": self.iou,
            "mask IoU": self.mask_iou,
            "OKS": self.keypoint_similarity,
            "score shift": self.score_shift,
        }
        details = [f"{count} {name}" for name, count in counts.items() if count is not None]
        details += [f"{name} {value}" for name, value in means.items() if value is not None]
        joined = ", ".join(details)
        return f"{self.metric} {self.value}{required}{joined and f' ({joined})'}"


@dataclass(frozen=True)
class Verification:
    """Agreement of the produced file with the original model, the required minimum, and the origin of that model.

    ``value`` and ``threshold`` are decimals as text, because a Kubernetes status should hold no floats. ``reference``
    is ``None`` in results of earlier versions. ``assumptions`` are assumed properties of the original model, which its
    checkpoint does not specify; ``warnings`` are signs that the original model is wrong. ``fidelity`` is ``None`` in
    results of earlier versions, and where ``fidelity_absent`` gives a reason.
    """

    metric: str
    value: str
    threshold: str
    reference: Reference | None = None
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    fidelity: Fidelity | None = None
    fidelity_absent: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a status, a report or a message: lists instead of tuples, without empty fields."""
        numbers = {"metric": self.metric, "value": self.value, "threshold": self.threshold}
        origin = {
            "reference": self.reference and str(self.reference),
            "assumptions": [clean(phrase, ASSUMPTION_LENGTH) for phrase in self.assumptions[:ASSUMPTIONS_LIMIT]],
            "warnings": [clean(warning, WARNING_LENGTH) for warning in self.warnings[:WARNINGS_LIMIT]],
            "fidelity": self.fidelity and self.fidelity.to_dict(),
            "fidelityAbsent": clean(self.fidelity_absent, ABSENCE_LENGTH),
        }
        return {**numbers, **{name: value for name, value in origin.items() if value}}

    def to_record(self) -> dict[str, Any]:
        """Return plain data for JSON output: the fields of ``to_dict``, empty ones as ``None`` or empty lists."""
        empty: dict[str, Any] = {
            "reference": None,
            "assumptions": [],
            "warnings": [],
            "fidelity": None,
            "fidelityAbsent": None,
        }
        return {**empty, **self.to_dict()}


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of the original model and of the produced file on the labelled images of the user.

    Numbers are decimals as text. ``drop`` is the loss of the file as the export counts it (``dropType``), negative if
    the file is better; ``interval`` holds the limits between which the loss lies in 95 of 100 data sets like this one.
    """

    metric: str
    original: str
    value: str
    drop: str
    max_drop: str
    images: int
    interval: tuple[str, str]

    @property
    def kept(self) -> bool:
        """Whether the loss is at most the allowed one."""
        return float(self.drop) <= float(self.max_drop)

    @property
    def absolute_drop(self) -> float:
        """The difference of the two accuracies, whatever the export counts."""
        return float(self.original) - float(self.value)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a status, a report or a message."""
        return {
            "metric": self.metric,
            "original": self.original,
            "value": self.value,
            "drop": self.drop,
            "maxDrop": self.max_drop,
            "images": self.images,
            "interval": list(self.interval),
        }

    def describe(self) -> str:
        """Return a phrase for a message."""
        low, high = self.interval
        return (
            f"{self.metric} {self.original} -> {self.value}, a drop of {self.drop} (95 % interval {low} to {high}, "
            f"{self.images} images) with {self.max_drop} allowed"
        )


def describe_measured(
    verification: Verification | None, accuracy: Accuracy | None, quantization: QuantizationResult | None
) -> dict[str, Any]:
    """Return what was measured of a file as plain data, by the names that results and statuses share."""
    return {
        "verification": verification and verification.to_record(),
        "accuracy": accuracy and accuracy.to_dict(),
        "quantization": quantization and quantization.to_dict(),
    }


@dataclass(frozen=True)
class ConversionResult:
    """The result of one conversion.

    ``reused``: an earlier, equal conversion had already published the file.
    """

    reason: Reason
    message: str
    recipe: str | None = None
    artifact: Artifact | None = None
    report_uri: str | None = None
    verification: Verification | None = None
    accuracy: Accuracy | None = None
    quantization: QuantizationResult | None = None
    seconds: float | None = None
    peak_memory_mib: int | None = None
    reused: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether an artifact was published."""
        return self.reason is Reason.SUCCEEDED

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data; the key of ``recipe`` is ``scheme``."""
        return {
            **{"scheme" if name == "recipe" else name: value for name, value in asdict(self).items()},
            **describe_measured(self.verification, self.accuracy, self.quantization),
        }

    def to_json(self) -> str:
        """Return the result as JSON of at most 4096 bytes; a message that is too long ends in an ellipsis."""
        message = clean(self.message)
        text, kept = self._dump(message), len(message)
        while len(text.encode()) > TERMINATION_MESSAGE_LIMIT and kept:
            kept = kept * 9 // 10
            text = self._dump(f"{message[:kept]}…" if kept else "")
        return text

    def _dump(self, message: str) -> str:
        verification = self.verification and self.verification.to_dict()
        content = {"schemaVersion": SCHEMA_VERSION, **self.to_dict(), "message": message, "verification": verification}
        for name in ("accuracy", "quantization"):
            if content[name] is None:
                del content[name]  # an operator of an earlier version does not know it
        return json.dumps(content, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, output: str | None = None, exit_code: int | None = None) -> Self:
        """Read a result from the JSON of ``to_json``.

        Args:
            text: the termination message.
            output: URI of the folder in the request, with a trailing slash. A successful result must have a file and a
                report in this folder, and a verification. ``None`` if no file was requested.
            exit_code: exit code of the converter, if known; it must match the reason.

        Raises:
            ValueError: the text is not a result, has another schema version, or contradicts itself.
        """
        fields = dict(untrusted.load(text, TERMINATION_MESSAGE_LIMIT))
        version = fields.pop("schemaVersion", None)
        if type(version) is not int or version != SCHEMA_VERSION:
            raise ValueError(f"result has schemaVersion {clean(str(version), 20)}, this version reads {SCHEMA_VERSION}")
        if missing := {"reason", "message"} - fields.keys():
            raise ValueError(f"not a conversion result: {', '.join(sorted(missing))} is missing")
        if unknown := fields.keys() - _READERS.keys():
            raise ValueError(f"not a conversion result: {clean(min(unknown), 40)!r} is not known")
        values = {name: _READERS[name](value, name) for name, value in fields.items()}
        result = cls(recipe=values.pop("scheme", None), **values)
        if exit_code is not None and exit_code != result.reason.exit_code:
            raise ValueError(f"the reason {result.reason} does not end with exit code {exit_code}")
        result._check(output)
        return result

    def _check(self, output: str | None) -> None:
        """Reject results whose fields are valid alone but contradict each other."""
        if self.reason.policy.fault is Fault.NONE and self.reason not in ENDS:
            raise ValueError(f"the reason {self.reason} does not end a conversion")
        files = [uri for uri in (self.artifact and self.artifact.uri, self.report_uri) if uri]
        if files and not self.succeeded:
            raise ValueError(f"a result with the reason {self.reason} has no files")
        if output is None:
            return
        if self.succeeded and (len(files) < 2 or self.verification is None):
            raise ValueError("a successful result needs a file, a report and a verification")
        if outside := [uri for uri in files if not is_file_in(uri, output)]:
            raise ValueError(f"{outside[0]!r} is not within {output}, where this conversion publishes")


def is_file_in(uri: str, folder: str) -> bool:
    """Return whether a file lies directly in a folder, whose URI ends with a slash."""
    name = uri.removeprefix(folder)
    return uri.startswith(folder) and name != "" and "/" not in name and is_plain(uri)


def read_reason(value: Any, name: str = "reason") -> Reason:
    """Read a reason of the closed list."""
    try:
        return Reason(untrusted.word(value, name))
    except ValueError as error:
        raise ValueError(f"{name}: {clean(str(value), untrusted.SHOWN)!r} is not known") from error


def read_artifact(value: Any, name: str = "artifact", size: str = "size_bytes") -> Artifact:
    """Read a published file; ``size`` is the key of its size."""
    fields = untrusted.record(value, name)
    return Artifact(
        untrusted.uri(fields.get("uri"), f"{name}.uri"),
        untrusted.digest(fields.get("sha256"), f"{name}.sha256"),
        untrusted.whole(fields.get(size), f"{name}.{size}"),
    )


def read_verification(value: Any, name: str = "verification") -> Verification:
    """Read a verification; reference and fidelity may be missing, as in those of earlier versions."""
    fields = untrusted.record(value, name)
    reference, fidelity, absent = (fields.get(key) for key in ("reference", "fidelity", "fidelityAbsent"))
    assumptions, warnings = (
        untrusted.texts([] if fields.get(key) is None else fields[key], f"{name}.{key}", *limits)
        for key, limits in (
            ("assumptions", (ASSUMPTIONS_LIMIT, ASSUMPTION_LENGTH)),
            ("warnings", (WARNINGS_LIMIT, WARNING_LENGTH)),
        )
    )
    return Verification(
        untrusted.word(fields.get("metric"), f"{name}.metric"),
        untrusted.decimal(fields.get("value"), f"{name}.value"),
        untrusted.decimal(fields.get("threshold"), f"{name}.threshold"),
        None if reference is None else Reference(untrusted.word(reference, f"{name}.reference")),
        assumptions,
        warnings,
        None if fidelity is None else read_fidelity(fidelity, f"{name}.fidelity"),
        "" if absent is None else untrusted.text(absent, f"{name}.fidelityAbsent", ABSENCE_LENGTH),
    )


def read_fidelity(value: Any, name: str = "fidelity") -> Fidelity:
    """Read a fidelity."""
    fields = untrusted.record(value, name)
    return Fidelity(
        **{
            attribute: read(fields.get(key), f"{name}.{key}")
            for key, (attribute, read) in _FIDELITY.items()
            if fields.get(key) is not None or key in _MEASURED
        }
    )


def read_accuracy(value: Any, name: str = "accuracy") -> Accuracy:
    """Read the accuracy of a file."""
    fields = untrusted.record(value, name)
    numbers = {key: untrusted.decimal(fields.get(key), f"{name}.{key}") for key in ("original", "value", "drop")}
    limits = fields.get("interval")
    if not isinstance(limits, list) or len(limits) != 2:
        raise ValueError(f"{name}.interval is not a list of two decimals as text")
    low, high = (untrusted.decimal(limit, f"{name}.interval") for limit in limits)
    return Accuracy(
        metric=untrusted.word(fields.get("metric"), f"{name}.metric"),
        **numbers,
        max_drop=untrusted.decimal(fields.get("maxDrop"), f"{name}.maxDrop"),
        images=untrusted.whole(fields.get("images"), f"{name}.images"),
        interval=(low, high),
    )


def _optional(read: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    return lambda value, name: None if value is None else read(value, name)


_MEASURED = ("metric", "value", "images")
_FIDELITY: Mapping[str, tuple[str, Callable[[Any, str], Any]]] = {
    "metric": ("metric", untrusted.word),
    "value": ("value", untrusted.decimal),
    "threshold": ("threshold", untrusted.decimal),
    "images": ("images", untrusted.whole),
    "kept": ("kept", untrusted.whole),
    "missed": ("missed", untrusted.whole),
    "invented": ("invented", untrusted.whole),
    "iou": ("iou", untrusted.decimal),
    "maskIoU": ("mask_iou", untrusted.decimal),
    "keypointSimilarity": ("keypoint_similarity", untrusted.decimal),
    "scoreShift": ("score_shift", untrusted.decimal),
}
"""Attribute and reader of each field of a fidelity, by JSON key; those of ``_MEASURED`` are required."""
_READERS: Mapping[str, Callable[[Any, str], Any]] = {
    "reason": read_reason,
    "message": lambda value, name: untrusted.text(value, name, TERMINATION_MESSAGE_LIMIT),
    "scheme": _optional(untrusted.word),
    "artifact": _optional(read_artifact),
    "report_uri": _optional(untrusted.uri),
    "verification": _optional(read_verification),
    "accuracy": _optional(read_accuracy),
    "quantization": _optional(read_quantization),
    "seconds": _optional(lambda value, name: untrusted.number(value, name, MOST_SECONDS)),
    "peak_memory_mib": _optional(lambda value, name: untrusted.whole(value, name, MOST_MEMORY_MIB)),
    "reused": untrusted.flag,
}
"""The reader of each field of a result, by JSON key."""
