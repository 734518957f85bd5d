"""Calibration pictures at the size of the benchmark, in the scale that the test models have learned.

The models were trained on small pictures. Enlarged to the benchmark's size, these would show them objects four times as
large as any they know, and verification would rightly refuse some INT8 files. So each picture here is a mosaic of small
ones, which costs a conversion the same and asks the models for what they can do.
"""

import io
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image, ImageOps

from modelexport.matrix import Task

GREY = (114, 114, 114)
DATA = Path(__file__).parents[1] / "models/data"
Fit = Callable[[Image.Image], Image.Image]


def write_mosaics(task: Task, size: int, path: Path, fit: Fit | None = None, count: int | None = None) -> None:
    """Write an archive of as many square pictures of ``size`` pixels as the calibration set has, or of the first.

    ``fit`` makes tiles of equal sizes, squares with borders unless it is given. A classifier answers for the whole
    picture, so all tiles of its mosaics are the same.
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
    """The size of the pictures in training."""
    return 128 if task is Task.CLASSIFICATION else 160


def _read(task: Task) -> list[Image.Image]:
    name = "calibration-cls.zip" if task is Task.CLASSIFICATION else "calibration.zip"
    with zipfile.ZipFile(DATA / name) as archive:
        return [Image.open(io.BytesIO(archive.read(entry))).convert("RGB") for entry in sorted(archive.namelist())]
