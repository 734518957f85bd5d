import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.conversions.images import DATA, write_mosaics
from modelexport.matrix.support import Task


def read(path: Path) -> list[Image.Image]:
    with zipfile.ZipFile(path) as archive:
        return [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in sorted(archive.namelist())]


def shrink(image: Image.Image) -> Image.Image:
    return image.resize((192, 160))


def test_mosaic_tiles_match_model_preprocessing(tmp_path: Path) -> None:
    write_mosaics(Task.DETECTION, 320, tmp_path / "mosaics.zip", shrink, count=3)
    mosaics, images = read(tmp_path / "mosaics.zip"), read(DATA / "calibration.zip")
    assert [mosaic.size for mosaic in mosaics] == [(320, 320)] * 3
    tile = mosaics[2].crop((0, 160, 192, 320))  # the third of the tiles, two of which lie side by side
    assert np.abs(np.asarray(tile, float) - np.asarray(shrink(images[4]), float)).mean() < 5
    assert np.abs(np.asarray(tile, float) - np.asarray(shrink(images[3]), float)).mean() > 5


def test_classifier_mosaic_repeats_one_object(tmp_path: Path) -> None:
    write_mosaics(Task.CLASSIFICATION, 256, tmp_path / "mosaics.zip", count=1)
    (mosaic,) = read(tmp_path / "mosaics.zip")
    first, last = (np.asarray(mosaic.crop(box), float) for box in ((0, 0, 128, 128), (128, 128, 256, 256)))
    assert np.abs(first - last).mean() < 1
