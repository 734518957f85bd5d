"""The first stage: bring what the request names, and see whether an equal conversion has done the work already.

Nothing here imports torch, so a finished conversion is recognised within a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelexport.request import ConversionRequest
from modelexport.result import ConversionResult
from modelexport_converter.calibration import VERIFICATION_COUNT, Dataset, open_dataset
from modelexport_converter.fetch import CHECKPOINT, fetch
from modelexport_converter.pictures import check_readable
from modelexport_converter.report import Sources, read_earlier, report_uri
from modelexport_converter.stores import Store


@dataclass(frozen=True)
class Intake:
    """What a conversion starts from, all of it on this disk."""

    checkpoint: Path
    dataset: Dataset
    sources: Sources


def fetch_inputs(store: Store, environ: Mapping[str, str], request: ConversionRequest, folder: Path) -> Intake:
    """Download checkpoint and pictures to ``folder``.

    Raises:
        Failure: one of them is not there, or not what the request says.
    """
    checkpoint = folder / "checkpoint"
    digest = fetch(store, environ, request.model.checkpoint, CHECKPOINT, checkpoint)
    calibrates = request.scheme.needs_calibration
    dataset = open_dataset(store, environ, request.calibration, folder, calibrates=calibrates)
    return Intake(checkpoint, dataset, Sources(digest, dataset.digest))


def find_earlier(store: Store, request: ConversionRequest, sources: Sources) -> ConversionResult | None:
    """Return the result of an earlier, equal conversion whose artifact stands in the store with its size."""
    text = store.read_text(report_uri(request))
    earlier = read_earlier(text, request, sources) if text else None
    if earlier is None or earlier.artifact is None:
        return None
    return earlier if store.size_of(earlier.artifact.uri) == earlier.artifact.size_bytes else None


def check_pictures(request: ConversionRequest, dataset: Dataset) -> None:
    """Refuse a broken picture before anything is converted.

    Raises:
        Failure: ``CalibrationInvalid`` or ``CalibrationTooLarge`` for a picture that is used in any case.
    """
    check_readable((*dataset.calibration, *dataset.verification[:VERIFICATION_COUNT]))
