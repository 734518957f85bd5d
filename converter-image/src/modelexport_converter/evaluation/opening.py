"""Opens labelled images: recognises the kind of their labels, chooses some, and checks these before a conversion."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelexport.api.spec import Evaluation, LabelKind
from modelexport.logs import announce
from modelexport.matrix.support import Task
from modelexport.text import clean
from modelexport_converter.evaluation import coco_labels, yolo_labels
from modelexport_converter.evaluation.folder_labels import read_folders
from modelexport_converter.evaluation.mask_labels import read_masks
from modelexport_converter.evaluation.truth import (
    LabelledSet,
    Size,
    Truth,
    invalid,
)
from modelexport_converter.failures import Failure
from modelexport_converter.inputs.dataset import SHOWN, FetchedImages, file_of, list_names, sort_key
from modelexport_converter.inputs.fetch import EVALUATION
from modelexport_converter.inputs.image_selection import MANY, NAMED, pixel_digest
from modelexport_converter.inputs.images import ImageFile, decode, open_files
from modelexport_converter.inputs.labelled_data import ARCHIVE, FOLDER

Reader = Callable[[Sequence[ImageFile], Task], LabelledSet | None]
"""Reads the labels of a data set; ``None`` if it has none of this kind."""


@dataclass(frozen=True)
class CheckedImage:
    """A readable image, its size and its labels."""

    file: ImageFile
    size: Size
    truth: Truth


@dataclass(frozen=True)
class EvaluationSet:
    """The images of one evaluation, in the order of their names' digests.

    Attributes:
        labels: where they come from.
        images: the chosen images.
        used: indexes of the classes that these images have.
        calibrating: number of images left out because they calibrate.
        unreadable: messages about images left out because they cannot be read.
        digest: identifies the chosen images by their pixels (64 hex digits).
    """

    labels: LabelledSet
    images: tuple[CheckedImage, ...]
    used: frozenset[int]
    calibrating: int
    unreadable: tuple[str, ...]
    digest: str

    def remarks(self) -> tuple[str, ...]:
        """Return remarks about images that were left out, and about the labels, for the user."""
        left_out = len(self.unreadable)
        named = f"left out {left_out} of the labelled images: {'; '.join(self.unreadable[:NAMED])}"
        calibrating = f"left out {self.calibrating} of the labelled images, which calibrate"
        own = (*([named] if left_out else []), *([calibrating] if self.calibrating else []))
        return (*self.labels.remarks, *own)


def open_evaluation(
    evaluation: Evaluation, found: FetchedImages, folder: Path, task: Task, calibrating: Collection[bytes]
) -> EvaluationSet:
    """Open the labelled images that were downloaded to ``folder`` and choose some.

    Args:
        evaluation: the request.
        found: what was downloaded.
        folder: where it is.
        task: the task of the model, which decides what has to be labelled.
        calibrating: digests of the pixels of images that calibrate.

    Raises:
        Failure: ``EvaluationInvalid``: they cannot be used.
    """
    uri = evaluation.dataset.uri
    files = _open_files(found, uri, folder)
    labels = _read_labels(files, task, evaluation.labels, uri)
    chosen = _choose(labels, evaluation.samples, calibrating)
    if not chosen.images:
        way_out = "all of them calibrate; give other images" if chosen.calibrating else "give more images"
        raise invalid(f"none of the {len(labels.images)} labelled images of {uri} is left; {way_out}")
    if not chosen.used:
        raise invalid(
            f"the {len(chosen.images)} chosen images of {uri} have no labelled object; give labels of objects"
        )
    return chosen


def _read_labels(files: Sequence[ImageFile], task: Task, kind: LabelKind, uri: str) -> LabelledSet:
    """Read the labels of the asked kind, or of the first kind that the names of the files show."""
    asked = list(READERS) if kind is LabelKind.AUTO else [kind]
    for one in asked:
        labels = READERS[one](files, task)
        if labels is None:
            continue
        if task not in TASKS[one]:
            suited = ", ".join(other for other in READERS if task in TASKS[other])
            raise invalid(f"{uri} has labels of {one}, which do not measure {task}; give labels of {suited}")
        return labels
    held = f"it holds {len(files)} files: {list_names([file.entry for file in files])}"
    way_out = "; ".join(_LAYOUTS[one] for one in asked if task in TASKS[one])
    raise invalid(f"{uri} has no labels of {' or '.join(asked)}; {held}; give {way_out}")


def _read_coco(files: Sequence[ImageFile], task: Task) -> LabelledSet | None:
    labels = coco_labels.find_labels(files, task)
    return coco_labels.read_coco(labels, files, task) if labels else None


def _read_yolo(files: Sequence[ImageFile], task: Task) -> LabelledSet | None:
    description = yolo_labels.find_description(files)
    return yolo_labels.read_yolo(description, files, task) if description else None


READERS: Mapping[LabelKind, Reader] = {
    LabelKind.COCO: _read_coco,
    LabelKind.YOLO: _read_yolo,
    LabelKind.MASK_PNG: lambda files, _: read_masks(files),
    LabelKind.IMAGE_FOLDER: lambda files, _: read_folders(files),
}
"""The readers of labels, in the order in which they are tried."""
_OBJECTS = frozenset({Task.DETECTION, Task.INSTANCE_SEGMENTATION, Task.KEYPOINTS, Task.SEMANTIC_SEGMENTATION})
TASKS: Mapping[LabelKind, frozenset[Task]] = {
    LabelKind.COCO: _OBJECTS,
    LabelKind.YOLO: _OBJECTS | {Task.ORIENTED_DETECTION},
    LabelKind.MASK_PNG: frozenset({Task.SEMANTIC_SEGMENTATION}),
    LabelKind.IMAGE_FOLDER: frozenset({Task.CLASSIFICATION}),
}
"""The tasks that each kind of labels measures."""
_LAYOUTS: Mapping[LabelKind, str] = {
    LabelKind.COCO: "a COCO JSON file beside the images",
    LabelKind.YOLO: "data.yaml with images/NAME.jpg and labels/NAME.txt",
    LabelKind.MASK_PNG: "images/NAME.jpg with masks/NAME.png",
    LabelKind.IMAGE_FOLDER: "one folder of images for each class",
}


def _choose(labels: LabelledSet, samples: int, calibrating: Collection[bytes]) -> EvaluationSet:
    """Take the first readable images in the order of their names' digests that do not calibrate."""
    allowed = max(1, min(samples, len(labels.images)) // 100) if len(labels.images) >= MANY else 0
    images: list[CheckedImage] = []
    used: set[int] = set()
    failures: list[Failure] = []
    digest, left_out = hashlib.sha256(), 0
    for labelled in sorted(labels.images, key=lambda one: sort_key(one.file.entry)):
        if len(images) == samples:
            break
        try:
            image = decode(labelled.file)
        except Failure as failure:
            failures.append(failure)
            if len(failures) > allowed:
                raise
            announce("image left out", message=str(failure))
            continue
        pixels = pixel_digest(image)
        if pixels in calibrating:
            left_out += 1
            continue
        digest.update(pixels)
        truth = labelled.read_truth(image.size)
        used |= classes_in(truth)
        images.append(CheckedImage(labelled.file, image.size, truth))
    unreadable = tuple(map(str, failures))
    return EvaluationSet(labels, tuple(images), frozenset(used), left_out, unreadable, digest.hexdigest())


def classes_in(truth: Truth) -> set[int]:
    """Return the indexes of the classes in the labels of an image."""
    if isinstance(truth, int):
        return {truth}
    if isinstance(truth, tuple):
        return {one.label for one in truth}
    return set(np.unique(truth()).tolist())


def _open_files(found: FetchedImages, uri: str, folder: Path) -> tuple[ImageFile, ...]:
    """Return the files that were downloaded to ``folder``, labels and images.

    Raises:
        Failure: ``EvaluationInvalid``: the archive cannot be read.
    """
    if found.names is None:
        return open_files(folder / ARCHIVE, uri, EVALUATION)
    return tuple(
        ImageFile(f"{uri}{clean(name, SHOWN)}", (folder / FOLDER / file_of(index)).read_bytes, name, EVALUATION)
        for index, name in enumerate(found.names)
    )
