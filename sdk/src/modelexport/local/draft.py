"""Drafts the ModelExport of a local checkpoint; its images are a folder, a zip archive or an image."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelexport.api.quantization import Quantization
from modelexport.api.reasons import Reason
from modelexport.api.spec import (
    DEFAULT_DROP,
    DEFAULT_SAMPLES,
    Calibration,
    DataRef,
    Evaluation,
    Model,
    ModelExport,
    Parameters,
)
from modelexport.building import check_export, read_targets
from modelexport.errors import BadInput
from modelexport.local.identification import Identified, identify
from modelexport.matrix.support import ARCHITECTURES, Format, Precision, SupportLevel, Target
from modelexport.names import LABEL_LIMIT

USUAL_TARGETS = (
    Target(Format.LITERT, Precision.FP16),
    Target(Format.ONNX, Precision.FP32),
    Target(Format.COREML, Precision.FP16),
)
"""Targets of an export that names none: what each format's usual hardware runs best, without loss of accuracy."""
USUAL_CALIBRATED = Target(Format.LITERT, Precision.INT8)
"""One target more if there are images to calibrate on."""
CHUNK = 1 << 20
SCHEME = "[a-z0-9]+:/"
"""The start of a URI, of which a path keeps one slash."""


@dataclass(frozen=True)
class Draft:
    """The ModelExport of a checkpoint, and how it was found.

    Attributes:
        export: the export; its URIs are paths of this machine.
        identified: the architecture of the checkpoint.
        chosen: whether the user chose the targets.
    """

    export: ModelExport
    identified: Identified
    chosen: bool


def draft_export(
    checkpoint: Path,
    to: str | Target | Sequence[str | Target] = (),
    *,
    architecture: str | None = None,
    calibration: Path | None = None,
    samples: int = DEFAULT_SAMPLES,
    evaluate: Path | None = None,
    max_drop: float = float(DEFAULT_DROP),
    quantization: Quantization | None = None,
    input_size: tuple[int, int] | None = None,
    name: str | None = None,
    extended: bool = False,
) -> Draft:
    """Draft the ModelExport of a local checkpoint.

    Args:
        checkpoint: the file.
        to: targets such as ``LiteRT/INT8`` or, with a name and options, ``ONNX/FP32/server:dynamicBatch=true``; by
            default the usual ones.
        architecture: a row of the support matrix; by default it is found in the checkpoint.
        calibration: a folder of images, a zip archive of images, or an image.
        samples: the number of images on which activation ranges are measured.
        evaluate: labelled images as a folder or zip archive; the original and every file are measured on them.
        max_drop: the accuracy that a file may lose on them, 0 to 1.
        quantization: how far to go for an INT8 file that loses too much.
        input_size: (height, width) in pixels; by default that of the training, else the architecture's.
        name: name of the export; by default that of the file.
        extended: whether to ask for the support level Extended.

    Raises:
        BadInput: an argument is invalid, or the checkpoint is of no known architecture.
    """
    path = require_file(checkpoint, "the checkpoint")
    if architecture is not None and architecture not in ARCHITECTURES:
        raise BadInput(f"{architecture!r} is not in the support matrix; use one of {', '.join(ARCHITECTURES)}")
    wanted = read_targets(to)
    images = None if calibration is None else Calibration(refer_to_images(calibration), samples)
    labelled = None if evaluate is None else Evaluation(refer_to_images(evaluate), max_drop=max_drop)
    named = name or name_of(path)
    identified = identify(path, architecture)
    export = ModelExport(
        name=named,
        namespace="default",
        model=Model(identified.architecture, refer_to_file(path), Parameters(input_size=input_size)),
        targets=tuple(wanted) or usual_targets(identified.architecture, calibrated=images is not None),
        options={target: options for target, options in wanted.items() if options},
        support_level=SupportLevel.EXTENDED if extended else SupportLevel.STABLE,
        calibration=images,
        evaluation=labelled,
        quantization=quantization,
    )
    try:
        return Draft(check_export(export), identified, bool(wanted))
    except BadInput as error:
        if error.reason is not Reason.UNSUPPORTED_TARGET:
            raise
        raise BadInput(f"{error} (--extended, extended=True)", reason=error.reason, field=error.field) from error


def usual_targets(architecture: str, *, calibrated: bool) -> tuple[Target, ...]:
    """Return the targets of an export that names none: the usual ones that are Stable for the architecture.

    Where none of them is, they are all returned, and the export needs the level Extended.
    """
    wanted = (*USUAL_TARGETS, *([USUAL_CALIBRATED] if calibrated else []))
    return tuple(target for target in wanted if not ARCHITECTURES[architecture].is_extended(target)) or wanted


def name_of(path: Path) -> str:
    """Return the name of an export by that of its checkpoint, as Kubernetes has names."""
    name = re.sub("[^a-z0-9]+", "-", path.name.partition(".")[0].lower()).strip("-")[:LABEL_LIMIT].strip("-")
    return name or "model"


def refer_to_images(path: Path) -> DataRef:
    """Return the reference to images of this machine: a folder, a zip archive or an image.

    Raises:
        BadInput: there is no such file or folder.
    """
    if path.is_dir():
        return DataRef(f"file://{path.resolve()}/")
    return refer_to_file(require_file(path, "the images"))


def refer_to_file(path: Path) -> DataRef:
    """Return the reference to a file of this machine, with its SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return DataRef(f"file://{path}", digest.hexdigest())


def require_file(path: Path, role: str) -> Path:
    """Return the absolute path of a file.

    Raises:
        BadInput: there is no such file, or it cannot be read.
    """
    if re.match(SCHEME, str(path)):
        raise BadInput(f"{path}: {role} must be on this machine; for a URI, write a ModelExport (modelexport init)")
    if path.is_dir():
        raise BadInput(f"{path}: {role} is a folder; name the file in it")
    try:
        with path.open("rb"):
            return path.parent.resolve() / path.name  # a link keeps its name, and with it the suffix
    except OSError as error:
        raise BadInput(f"{path}: {role} cannot be read: {error.strerror}; check the path") from error
