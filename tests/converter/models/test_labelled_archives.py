"""The labelled images of `make matrix` are what `spec.evaluation.dataset` takes, and continue those of the tests."""

import io
import shutil
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from modelexport.api.spec import DataRef, Evaluation, LabelKind
from modelexport.matrix.support import Task
from modelexport_converter.evaluation.opening import EvaluationSet, open_evaluation
from modelexport_converter.evaluation.scoring import paint
from modelexport_converter.inputs.dataset import FetchedImages
from modelexport_converter.inputs.images import decode
from modelexport_converter.inputs.labelled_data import ARCHIVE
from models import shapes
from models.make_data import DATA, write_labelled

COUNT = 5
CASES = [
    *((LabelKind.COCO, task) for task in (Task.DETECTION, Task.INSTANCE_SEGMENTATION, Task.SEMANTIC_SEGMENTATION)),
    (LabelKind.YOLO, Task.KEYPOINTS),
    (LabelKind.YOLO, Task.ORIENTED_DETECTION),
    (LabelKind.IMAGE_FOLDER, Task.CLASSIFICATION),
]


def write(folder: Path, kind: LabelKind, *, oriented: bool = False) -> Path:
    path = folder / "labelled.zip"
    write_labelled(kind, path, COUNT, oriented=oriented)
    return path


def read(folder: Path, kind: LabelKind, task: Task) -> EvaluationSet:
    shutil.move(write(folder, kind, oriented=task is Task.ORIENTED_DETECTION), folder / ARCHIVE)
    asked = Evaluation(DataRef("s3://datasets/labelled.zip"), samples=640)
    return open_evaluation(asked, FetchedImages("0" * 64), folder, task, calibrating=())


@pytest.mark.parametrize(("kind", "task"), CASES)
def test_archive_holds_labels_of_the_task_for_every_image(tmp_path: Path, kind: LabelKind, task: Task) -> None:
    found = read(tmp_path, kind, task)
    assert (found.labels.kind, len(found.images), found.remarks()) == (kind, COUNT, ())
    assert found.labels.classes == shapes.CLASSES


@pytest.mark.parametrize(
    ("kind", "archive"),
    [
        (LabelKind.COCO, "eval"),
        (LabelKind.YOLO, "eval"),
        (LabelKind.YOLO, "eval-obb"),
        (LabelKind.IMAGE_FOLDER, "eval-cls"),
    ],
    ids=str,
)
def test_first_images_are_those_of_the_tests(tmp_path: Path, kind: LabelKind, archive: str) -> None:
    path = write(tmp_path, kind, oriented=archive == "eval-obb")
    with zipfile.ZipFile(path) as labelled, zipfile.ZipFile(DATA / f"{archive}.zip") as stored:
        names = [name for name in labelled.namelist() if name.endswith(".jpg")]
        assert sorted(PurePosixPath(name).name for name in names) == stored.namelist()[:COUNT]
        for name in names:
            own, other = (
                np.asarray(Image.open(io.BytesIO(content)), float)
                for content in (labelled.read(name), stored.read(PurePosixPath(name).name))
            )
            assert abs(own - other).max() <= 2  # another version of the JPEG library may round differently


def test_outlines_cover_the_pixels_of_the_shapes(tmp_path: Path) -> None:
    drawn = {f"{index:03}.jpg": scene for index, scene in enumerate(shapes.images("val", COUNT))}
    for image in read(tmp_path, LabelKind.COCO, Task.SEMANTIC_SEGMENTATION).images:
        assert isinstance(image.truth, tuple)
        width, height = decode(image.file).size
        classes = paint(image.truth, (width, height), 255)
        for shape in drawn[PurePosixPath(image.file.entry).name].shapes:
            x, y = shape.outline.mean(axis=0).astype(int)
            assert classes[y, x] == shape.label
            assert (classes == shape.label).sum() >= shape.area * 0.95


def test_keypoints_have_the_sigma_of_the_training(tmp_path: Path) -> None:
    found = read(tmp_path, LabelKind.YOLO, Task.KEYPOINTS)
    assert found.labels.sigmas == (shapes.KEYPOINT_SIGMA,) * 4
    drawn = {f"{index:03}.jpg": scene for index, scene in enumerate(shapes.images("val", COUNT))}
    for image in found.images:
        assert isinstance(image.truth, tuple)
        for one, shape in zip(image.truth, drawn[PurePosixPath(image.file.entry).name].shapes, strict=True):
            assert one.keypoints is not None
            assert np.abs(one.keypoints[:, :2] - shape.keypoints).max() < 0.01


def test_classes_are_those_of_the_drawn_shapes(tmp_path: Path) -> None:
    found = read(tmp_path, LabelKind.IMAGE_FOLDER, Task.CLASSIFICATION)
    labels = {PurePosixPath(image.file.entry).name: image.truth for image in found.images}
    assert labels == {f"{index:03}.jpg": index % 3 for index in range(COUNT)}
