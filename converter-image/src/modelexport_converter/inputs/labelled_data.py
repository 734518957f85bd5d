"""Downloads labelled images as bytes: an archive as it is, or files of a folder with their labels."""

from collections.abc import Mapping
from pathlib import Path

from modelexport.api.request import ConversionRequest
from modelexport_converter.inputs.dataset import (
    FetchedImages,
    fetch_files,
    list_folder,
    require_images,
)
from modelexport_converter.inputs.fetch import EVALUATION, check_source, fetch
from modelexport_converter.inputs.labelled_names import select_labelled
from modelexport_converter.stores import Store

ARCHIVE = "evaluation.zip"
FOLDER = "evaluation"


def fetch_labelled(
    store: Store, environ: Mapping[str, str], request: ConversionRequest, folder: Path
) -> FetchedImages | None:
    """Download the labelled images of a request to ``folder``. Return ``None`` if it names none.

    Raises:
        Failure: they are missing or too large.
    """
    if request.evaluation is None:
        return None
    reference = request.evaluation.dataset
    if not reference.uri.endswith("/"):
        return FetchedImages(fetch(store, environ, reference, EVALUATION, folder / ARCHIVE))
    check_source(environ, reference.uri, EVALUATION)
    names = list_folder(store, reference.uri, EVALUATION)
    # As many as calibrate may have to be left out.
    spare = request.calibration.samples if request.calibration and request.recipe.needs_calibration else 0
    chosen = select_labelled(names, request.evaluation.samples + spare)
    require_images(chosen, names, reference.uri, EVALUATION)
    (folder / FOLDER).mkdir()
    digest = fetch_files(store, reference.uri, chosen, folder / FOLDER, EVALUATION)
    return FetchedImages(digest, tuple(chosen), len(names))
