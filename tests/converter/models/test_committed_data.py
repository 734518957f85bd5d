import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models import shapes

MODELS = Path(__file__).parents[3] / "testdata/models"
DATA = MODELS / "data"
ARCHIVES = {"eval": 128, "eval-cls": 128, "eval-obb": 128}
ARCHIVES |= {"calibration": 64, "calibration-cls": 64, "calibration-obb": 64}
CHECKPOINTS = ["yolov8n", "yolov8n-seg", "yolov8n-cls", "yolov8n-pose", "yolo11n-narrow", "deeplabv3", "fcn", "unet"]
CHECKPOINTS += ["yolo11n-seg-narrow", "yolo11n-cls-narrow", "yolo11n-pose-narrow", "yolo26n-narrow"]
CHECKPOINTS += ["yolo26n-seg-narrow", "yolo26n-cls-narrow", "yolo26n-pose-narrow", "yolov8n-obb-narrow"]
CHECKPOINTS += ["yolo11n-obb-narrow", "yolo26n-obb-narrow"]
CHECKPOINTS += ["ssdlite320_mobilenet_v3_large", "retinanet", "maskrcnn"]


def read(name: str) -> dict[str, bytes]:
    with zipfile.ZipFile(DATA / f"{name}.zip") as archive:
        return {entry: archive.read(entry) for entry in archive.namelist()}


def read_json(name: str) -> Any:
    return json.loads((DATA / f"{name}.json").read_text())


@pytest.mark.parametrize("name", ARCHIVES)
def test_every_archive_has_its_image_count(name: str) -> None:
    images = read(name)
    assert len(images) == ARCHIVES[name]
    assert {Image.open(io.BytesIO(content)).format for content in images.values()} == {"JPEG"}


def test_no_image_is_in_two_archives() -> None:
    contents = [content for name in ARCHIVES for content in read(name).values()]
    assert len(set(contents)) == sum(ARCHIVES.values())


def test_all_data_is_at_most_six_megabytes() -> None:
    assert sum(path.stat().st_size for path in DATA.iterdir()) <= 6_000_000


def test_labels_name_every_image_with_its_size() -> None:
    for name in ("eval", "eval-obb"):
        sizes = {entry: Image.open(io.BytesIO(content)).size for entry, content in read(name).items()}
        named = {image["file_name"]: (image["width"], image["height"]) for image in read_json(name)["images"]}
        assert named == sizes
    assert set(read_json("eval-cls")["labels"]) == set(read("eval-cls"))


@pytest.mark.parametrize(("name", "draw"), [("eval", shapes.images), ("eval-obb", shapes.stretched_images)])
def test_images_and_labels_match_generator(name: str, draw: Callable[..., Iterator[shapes.Scene]]) -> None:
    encoded, truth = read(name), read_json(name)
    for index, drawn in enumerate(draw("val", 4)):
        image = np.asarray(Image.open(io.BytesIO(encoded[f"{index:03}.jpg"])), dtype=float)
        assert abs(image - drawn.pixels).mean() < 12
        rows = [row for row in truth["annotations"] if row["image_id"] == index + 1]
        assert [row["category_id"] for row in rows] == [shape.label for shape in drawn.shapes]
        assert np.allclose([row["bbox"] for row in rows], [shape.box for shape in drawn.shapes], atol=0.01)
        for row, shape in zip(rows, drawn.shapes, strict=True):
            assert np.allclose(row.get("corners", shape.corners.ravel()), shape.corners.ravel(), atol=0.01)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoint_does_not_reveal_build_machine(name: str) -> None:
    with zipfile.ZipFile(MODELS / "weights" / f"{name}.pt") as archive:
        (entry,) = [entry for entry in archive.namelist() if entry.endswith("data.pkl")]
        pickled = archive.read(entry)
    assert b"circle" in pickled
    assert not re.findall(rb"/(?:tmp|root|home|work|usr|opt)\b|train_results|\bgit\b|\bdate\b|20\d\d-\d\d", pickled)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoint_is_one_to_ten_megabytes(name: str) -> None:
    assert 900_000 <= (MODELS / "weights" / f"{name}.pt").stat().st_size <= 10_000_000
