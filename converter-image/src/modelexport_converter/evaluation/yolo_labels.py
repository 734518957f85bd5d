"""Reads labels of YOLO: a ``data.yaml`` with the names of the classes, and a text file of objects for each image.

A line of a text file is a class and numbers divided by the image's width and height: ``x y width height`` of a box, the
corners of an outline, a box and its keypoints, or the four corners of a rotated box. An image without a text file shows
no object, as ultralytics has it.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as rle

from modelexport.api.spec import LabelKind
from modelexport.bounded_yaml import NotPlain, load_documents
from modelexport.matrix.support import Task
from modelexport.text import clean, quote
from modelexport_converter.evaluation.coordinates import (
    Box,
    cut_box,
    cut_points,
    is_finite,
    outline_mask,
    polygon_box,
)
from modelexport_converter.evaluation.truth import (
    LabelledImage,
    LabelledObject,
    LabelledSet,
    Numbers,
    Objects,
    Size,
    invalid,
)
from modelexport_converter.inputs.dataset import SHOWN, is_hidden, is_image, list_names
from modelexport_converter.inputs.images import ImageFile
from modelexport_converter.inputs.labelled_names import text_name
from modelexport_converter.rotated_boxes import smallest_box

YAML_LIMIT, TEXT_LIMIT = 1 << 20, 4 << 20
"""Bytes of the description, and of the labels of one image."""
OBJECTS_LIMIT = 20_000
CLASSES_LIMIT = 100_000
USUAL_NAMES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
POSE_AREA = 0.53
"""Area of an object in the similarity of keypoints, as a share of its box: ultralytics' value."""
_BOX_NUMBERS, _CORNER_NUMBERS = 4, 8


def find_description(files: Sequence[ImageFile]) -> ImageFile | None:
    """Return the ``data.yaml`` of a data set, if it has one.

    Raises:
        Failure: it has several YAML files, none of the usual name.
    """
    found = [file for file in files if file.entry.lower().endswith((".yaml", ".yml")) and not is_hidden(file.entry)]
    usual = [file for file in found if PurePosixPath(file.entry).name.lower() in USUAL_NAMES]
    if len(chosen := usual or found) > 1:
        raise invalid(f"the data set has several YAML files ({list_names([file.entry for file in chosen])}); keep one")
    return chosen[0] if chosen else None


def read_yolo(description: ImageFile, files: Sequence[ImageFile], task: Task) -> LabelledSet:
    """Read the description and find images and labels: those of its split ``val``, or else all.

    Raises:
        Failure: it has no names, or there are no images with labels.
    """
    content = _read_description(description)
    by_name = {file.entry: file for file in files}
    images = _split([file for file in files if is_image(file.entry)], content)
    texts = {image.entry: by_name.get(text_name(image.entry)) for image in images}
    if not any(texts.values()):
        example = text_name(images[0].entry) if images else "labels/NAME.txt"
        problem = f"the {len(images)} images of {description.name} have no labels"
        raise invalid(f"{problem}; give text files such as {clean(example, SHOWN)}")
    shape = _keypoint_shape(content, description.name) if task is Task.KEYPOINTS else None
    labelled = tuple(
        LabelledImage(image, partial(_read_objects, texts[image.entry], task, shape, image.name)) for image in images
    )
    return LabelledSet(LabelKind.YOLO, _names(content, description.name), labelled, sigmas=_sigmas(content))


def _read_description(description: ImageFile) -> Mapping[str, Any]:
    text = description.read()
    if len(text) > YAML_LIMIT:
        raise invalid(f"{description.name} has more than {YAML_LIMIT >> 20} MiB; keep names and splits in it")
    try:
        documents = load_documents(text.decode())
    except ValueError as error:  # NotPlain, or bytes that are no UTF-8
        problem = str(error) if isinstance(error, NotPlain) else "it is not UTF-8"
        raise invalid(f"{description.name} cannot be read as YAML: {clean(problem, SHOWN)}") from error
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise invalid(f"{description.name} is no description of a data set; give names of the classes in it")
    found: Mapping[str, Any] = documents[0]
    return found


def _names(content: Mapping[str, Any], name: str) -> tuple[str, ...]:
    names = content.get("names")
    if isinstance(names, dict):
        names = [names.get(index, names.get(str(index))) for index in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(one, str | int) for one in names):
        raise invalid(f"{name} has no names of the classes; add them, for example names: [helmet, vest]")
    return tuple(clean(str(one), SHOWN) for one in names)


def _split(images: Sequence[ImageFile], content: Mapping[str, Any]) -> list[ImageFile]:
    """Return the images in the folders of ``val``, or else of ``test``; all if neither is a folder of the data set."""
    for key in ("val", "test"):
        stated = content.get(key)
        folders = [one for one in (stated if isinstance(stated, list) else [stated]) if isinstance(one, str)]
        wanted = ["/".join(part for part in folder.split("/") if part not in ("", ".", "..")) for folder in folders]
        found = [image for image in images if any(one and f"/{one}/" in f"/{image.entry}" for one in wanted)]
        if found:
            return found
    return list(images)


def _keypoint_shape(content: Mapping[str, Any], name: str) -> tuple[int, int]:
    shape = content.get("kpt_shape")
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(one) is int for one in shape):
        raise invalid(f"{name} has no kpt_shape; add it, for example kpt_shape: [17, 3]")
    count, components = shape
    if not (1 <= count <= 1000 and components in (2, 3)):
        raise invalid(f"{name} has the kpt_shape {quote(shape)[:80]}; must be the number of keypoints, and 2 or 3")
    return count, components


def _sigmas(content: Mapping[str, Any]) -> tuple[float, ...]:
    found = content.get("kpt_oks_sigmas")
    if not isinstance(found, list) or not all(is_finite(one) and 0 < one <= 1000 for one in found):
        return ()
    return tuple(map(float, found))


def _read_objects(
    labels: ImageFile | None, task: Task, shape: tuple[int, int] | None, name: str, size: Size
) -> Objects:
    if labels is None:
        return ()
    content = labels.read()
    lines = content.decode(errors="replace").split("\n") if len(content) <= TEXT_LIMIT else []
    if not lines or len(lines) > OBJECTS_LIMIT:
        raise invalid(f"{labels.name} has more than {TEXT_LIMIT >> 20} MiB or {OBJECTS_LIMIT:,} lines; correct it")
    objects = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            found = _read_line(line, task, shape, f"line {number} of {labels.name}", size)
            objects += [found] if found else []
    return tuple(objects)


def _read_line(line: str, task: Task, shape: tuple[int, int] | None, where: str, size: Size) -> LabelledObject | None:
    """Read one object; ``None`` if its box is empty."""
    first, *rest = line.split()
    try:
        label, values = float(first), [float(one) for one in rest]
    except ValueError as error:
        raise invalid(f"{where} is {quote(line)[:80]}, not a class and numbers") from error
    if not (is_finite(label) and label in range(CLASSES_LIMIT) and all(map(is_finite, values))):
        raise invalid(f"{where} is {quote(line)[:80]}; must be a class, from 0 on, and finite numbers")
    if task is Task.KEYPOINTS and shape:
        return _read_pose(int(label), values, shape, where, size)
    if task is Task.ORIENTED_DETECTION:
        return _read_rotated(int(label), values, where, size)
    if len(values) == _BOX_NUMBERS:
        if task in (Task.INSTANCE_SEGMENTATION, Task.SEMANTIC_SEGMENTATION):
            raise invalid(f"{where} is a box without an outline; give outlines, which this model is measured by")
        box = _box(values, where, size)
        return box and LabelledObject(int(label), box, (box[2] - box[0]) * (box[3] - box[1]))
    points = cut_points(_scale(values, size), size, where, "mask") if len(values) % 2 == 0 else []
    mask = outline_mask([points], size, where)
    box = cut_box(polygon_box(points), size, where)
    return box and LabelledObject(int(label), box, float(rle.area(mask)), mask)


def _read_rotated(label: int, values: Sequence[float], where: str, size: Size) -> LabelledObject | None:
    """Read a rotated box from its corners, in any order; they need not be at right angles.

    It is the box of least area around them, which ultralytics trains with.
    """
    if len(values) != _CORNER_NUMBERS:
        problem = f"{where} has {len(values)} numbers, not x and y of the four corners of a rotated box"
        raise invalid(f"{problem}; give labels of oriented boxes, as a training with ultralytics' task obb takes them")
    points: Numbers = np.array(cut_points(_scale(values, size), size, where, "box")).reshape(-1, 2)
    rotated = smallest_box(points)
    area = float(rotated[2] * rotated[3])
    return LabelledObject(label, polygon_box(points.ravel().tolist()), area, rotated=rotated) if area > 0 else None


def _scale(values: Sequence[float], size: Size) -> list[float]:
    return [value * size[place % 2] for place, value in enumerate(values)]


def _box(values: Sequence[float], where: str, size: Size) -> Box | None:
    x, y, width, height = _scale(values, size)
    return cut_box((x - width / 2, y - height / 2, x + width / 2, y + height / 2), size, where)


def _read_pose(
    label: int, values: Sequence[float], shape: tuple[int, int], where: str, size: Size
) -> LabelledObject | None:
    count, components = shape
    if len(values) != _BOX_NUMBERS + count * components:
        expected = f"{_BOX_NUMBERS} of a box and {components} of each of {count} keypoints"
        raise invalid(f"{where} has {len(values)} numbers, not {expected}")
    box = _box(values[:_BOX_NUMBERS], where, size)
    if box is None:
        return None
    points: Numbers = np.array(values[_BOX_NUMBERS:]).reshape(count, components)
    visible = points[:, 2:] if components > 2 else np.where(points.any(1), 2.0, 0.0)[:, None]
    keypoints = np.concatenate([points[:, :2] * size, visible], axis=1)
    area = POSE_AREA * (box[2] - box[0]) * (box[3] - box[1])
    return LabelledObject(label, box, area, keypoints=keypoints)
