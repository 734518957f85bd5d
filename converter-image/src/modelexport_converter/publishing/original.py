"""The evaluation of the original in the folder of an export: the first conversion writes it, the others read it.

It lies there as bytes for ``fetch`` and ``publish``. Only ``convert`` opens it, and measures again if it does not fit.
"""

from pathlib import Path

from modelexport.api.request import ConversionRequest
from modelexport.logs import announce
from modelexport.text import clean
from modelexport_converter.stores import ObjectMissing, Store, TooLarge

FILE_LIMIT = 160 << 20
"""Bytes of one; 10,000 images, the most, with 300 detections each take 132 MB, and 8 bytes for each class and image.

A larger one is not shared."""
HANDED_OVER = "original"
"""The name under which ``convert`` leaves it for ``publish``."""


def fetch_original(store: Store, request: ConversionRequest, folder: Path) -> None:
    """Download to ``folder`` what earlier conversions of the export measured, if there is something.

    Raises:
        Failure: the store fails.
    """
    for name in request.original_files if request.evaluation else ():
        uri, path = request.shared_uri(name), folder / name
        if (size := store.size_of(uri)) is None:
            continue
        try:
            if size > FILE_LIMIT:
                raise TooLarge(size, FILE_LIMIT)
            store.download(uri, path, FILE_LIMIT)
        except (ObjectMissing, TooLarge) as error:  # another conversion may replace it meanwhile
            path.unlink(missing_ok=True)
            announce("shared evaluation refused", name=name, message=clean(str(error)))


def publish_original(store: Store, request: ConversionRequest, path: Path, left_out: int) -> None:
    """Upload the evaluation of the original.

    Args:
        store: the store.
        request: the request.
        path: the file.
        left_out: number of labelled images that it lacks because they calibrate; not every target calibrates.

    Raises:
        Failure: the store rejects it.
    """
    uri = request.shared_uri(request.original_files[bool(left_out)])
    store.upload(path, uri, {})
    announce("shared evaluation", uri=uri)
