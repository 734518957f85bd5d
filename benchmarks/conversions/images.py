"""Calibration images at the size of the benchmark, with objects of the size that the test models were trained on.

The models were trained on small images. Enlarged to the benchmark's size, these would show objects four times as large
as any in training, and verification would rightly refuse some INT8 files. So each image here is a mosaic of small ones,
which costs a conversion the same and stays within the training distribution.
"""

import io
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image, ImageOps

from modelexport.matrix.support import Task

GREY = (114, 114, 114)
DATA = Path(__file__).parents[2] / "testdata/models/data"
Fit = Callable[[Image.Image], Image.Image]


def write_mosaics(task: Task, size: int, path: Path, fit: Fit | None = None, count: int | None = None) -> None:
    """Write an archive of square mosaics of ``size`` pixels, as many as the calibration set has images, or ``count``.

    ``fit`` makes tiles of equal sizes; by default, squares with borders. A classifier predicts for the whole image, so
    all tiles of its mosaics are the same.
    """
    alike = task is Task.CLASSIFICATION
    tiles = list(map(fit or partial(ImageOps.pad, size=(_side(task), _side(task)), color=GREY), _read(task)))
    columns, rows = -(-size // tiles[0].width), -(-size // tiles[0].height)
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(len(tiles))[:count]:
            mosaic = Image.new("RGB", (size, size))
            for cell in range(columns * rows):
                row, column = divmod(cell, columns)
                tile = tiles[index if alike else (index + cell) % len(tiles)]
                mosaic.paste(tile, (column * tile.width, row * tile.height))
            encoded = io.BytesIO()
            mosaic.save(encoded, "JPEG", quality=90)
            archive.writestr(f"{index:03}.jpg", encoded.getvalue())


def _side(task: Task) -> int:
    """Return the size of the images in training."""
    return 128 if task is Task.CLASSIFICATION else 160


def _read(task: Task) -> list[Image.Image]:
    kind = {Task.CLASSIFICATION: "-cls", Task.ORIENTED_DETECTION: "-obb"}.get(task, "")
    with zipfile.ZipFile(DATA / f"calibration{kind}.zip") as archive:
        return [Image.open(io.BytesIO(archive.read(entry))).convert("RGB") for entry in sorted(archive.namelist())]
