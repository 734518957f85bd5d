"""The first stage: bring what the request names, and see whether an equal conversion has done the work already.

Nothing here imports torch, so a finished conversion is recognised within a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelexport.request import ConversionRequest
from modelexport.result import ConversionResult
from modelexport_converter.calibration import Dataset, open_dataset
from modelexport_converter.datasets import Found, fetch_dataset
from modelexport_converter.fetch import CHECKPOINT, fetch
from modelexport_converter.report import Sources, read_earlier, report_uri
from modelexport_converter.stores import Store


@dataclass(frozen=True)
class Intake:
    """What a conversion starts from, all of it in ``folder``."""

    folder: Path
    checkpoint: Path
    pictures: Found | None
    sources: Sources


def fetch_inputs(store: Store, environ: Mapping[str, str], request: ConversionRequest, folder: Path) -> Intake:
    """Download checkpoint and pictures to ``folder``.

    Raises:
        Failure: one of them is not there, or not what the request says.
    """
    checkpoint = folder / "checkpoint"
    digest = fetch(store, environ, request.model.checkpoint, CHECKPOINT, checkpoint)
    calibrates = request.scheme.needs_calibration
    pictures = fetch_dataset(store, environ, request.calibration, folder, calibrates=calibrates)
    return Intake(folder, checkpoint, pictures, Sources(digest, pictures.digest if pictures else None))


def find_earlier(store: Store, request: ConversionRequest, sources: Sources) -> ConversionResult | None:
    """Return the result of an earlier, equal conversion whose artifact stands in the store with its size."""
    text = store.read_text(report_uri(request))
    earlier = read_earlier(text, request, sources) if text else None
    if earlier is None or earlier.artifact is None:
        return None
    return earlier if store.size_of(earlier.artifact.uri) == earlier.artifact.size_bytes else None


def open_pictures(request: ConversionRequest, intake: Intake) -> Dataset:
    """Open the pictures of a request and choose among them, before anything is converted.

    Raises:
        Failure: ``CalibrationInvalid`` or ``CalibrationTooLarge``, they are not what they should be.
    """
    calibrates = request.scheme.needs_calibration
    return open_dataset(request.calibration, intake.pictures, intake.folder, calibrates=calibrates)
