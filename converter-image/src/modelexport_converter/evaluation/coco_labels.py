"""Reads labels in COCO's JSON: boxes, masks as outlines or run lengths, keypoints."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as rle

from modelexport import untrusted
from modelexport.api.spec import LabelKind
from modelexport.matrix.support import Task
from modelexport.text import clean, quote
from modelexport_converter.evaluation.coordinates import cut_box, is_finite, numbers, outline_mask, run_length_mask
from modelexport_converter.evaluation.truth import LabelledImage, LabelledObject, LabelledSet, Objects, Size, invalid
from modelexport_converter.inputs.dataset import SHOWN, is_hidden, is_image, list_names
from modelexport_converter.inputs.images import ImageFile

JSON_LIMIT = 64 << 20
"""Bytes of a file of labels; its parsed content takes up to 25 times as much memory."""
CATEGORIES_LIMIT = 20_000
PREFERRED = {Task.KEYPOINTS: "person_keypoints"}
"""How COCO's own file names begin, by task; those of all others with ``instances``."""
KEYPOINTS_LIMIT = 1000


def find_labels(files: Sequence[ImageFile], task: Task) -> ImageFile | None:
    """Return the JSON file of the labels, if the data set has one.

    Raises:
        Failure: it has several, and none has COCO's own name.
    """
    found = [file for file in files if file.entry.lower().endswith(".json") and not is_hidden(file.entry)]
    if len(found) < 2:
        return found[0] if found else None
    prefix = PREFERRED.get(task, "instances")
    named = [file for file in found if PurePosixPath(file.entry).name.startswith(prefix)]
    if len(named) != 1:
        held = list_names([file.entry for file in found])
        raise invalid(f"the data set has {len(found)} JSON files ({held}); keep one, or name one {prefix}*.json")
    return named[0]


def read_coco(labels: ImageFile, files: Sequence[ImageFile], task: Task) -> LabelledSet:
    """Read a file of labels and find its images.

    Raises:
        Failure: it is no COCO JSON, or none of its images is there.
    """
    content = read_json(labels)
    categories = _read_categories(content, labels.name)
    annotations: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for row in _rows(content, "annotations", labels.name):
        annotations[_identifier(row.get("image_id"), f"an image_id in {labels.name}")].append(row)
    by_name: dict[str, list[ImageFile]] = defaultdict(list)
    for image in files:
        if is_image(image.entry):
            by_name[PurePosixPath(image.entry).name].append(image)
    images, missing, seen = [], 0, set()
    for row in _rows(content, "images", labels.name):
        name, identifier = row.get("file_name"), _identifier(row.get("id"), f"the id of an image in {labels.name}")
        if not isinstance(name, str):
            raise invalid(f"an image in {labels.name} has the file_name {quote(name)}, which is no text")
        file = _find(by_name, name)
        if file is None:
            missing += 1
            continue
        if file.entry in seen:
            raise invalid(f"{labels.name} lists {clean(name, SHOWN)} twice; merge its entries")
        seen.add(file.entry)
        entry = _Entry(file.name, (row.get("width"), row.get("height")), annotations[identifier])
        read = partial(_read_objects, entry, categories, task)
        images.append(LabelledImage(file, read))
    if not images:
        raise invalid(f"none of the {missing} images that {labels.name} lists is in the data set; upload them with it")
    remarks = (f"{missing} of the images that the labels list are not in the data set",) if missing else ()
    return LabelledSet(LabelKind.COCO, tuple(name for _, name in categories.values()), tuple(images), remarks)


def read_json(labels: ImageFile) -> Mapping[str, Any]:
    """Read a JSON object of bounded size."""
    content = labels.read()
    if len(content) > JSON_LIMIT:
        raise invalid(
            f"{labels.name} has {len(content) >> 20} MiB, the limit is {JSON_LIMIT >> 20}; keep labels of fewer images"
        )
    try:
        return untrusted.record(untrusted.parse(content), labels.name)
    except ValueError as error:
        raise invalid(
            f"{labels.name} cannot be read as COCO JSON ({clean(str(error), SHOWN)}); save it again"
        ) from error


def _rows(content: Mapping[str, Any], key: str, name: str) -> list[Mapping[str, Any]]:
    rows = content.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise invalid(f"{name} has no list {key}, so it is no COCO JSON; set spec.evaluation.labels to what it is")
    return rows


def _identifier(value: Any, what: str) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise invalid(f"{what} is {quote(value)[:80]}, not a whole number")
    return value


def _read_categories(content: Mapping[str, Any], name: str) -> dict[Any, tuple[int, str]]:
    """Return index and name of each category by its id; the index is the rank of the id."""
    rows = _rows(content, "categories", name)
    found: dict[Any, str] = {}
    for row in rows[: CATEGORIES_LIMIT + 1]:
        identifier = _identifier(row.get("id"), f"the id of a category in {name}")
        if identifier in found:
            raise invalid(f"{name} has the category {quote(identifier)} twice")
        found[identifier] = clean(str(row.get("name", identifier)), SHOWN)
    if not 1 <= len(found) <= CATEGORIES_LIMIT:
        raise invalid(f"{name} has {len(rows)} categories, must be 1 to {CATEGORIES_LIMIT:,}")
    ordered = sorted(found, key=lambda one: (isinstance(one, str), one))
    return {identifier: (index, found[identifier]) for index, identifier in enumerate(ordered)}


def _find(by_name: Mapping[str, list[ImageFile]], name: str) -> ImageFile | None:
    """Return the file of an image: at the end of whose path its ``file_name`` is, or the only one of its name."""
    candidates = by_name.get(PurePosixPath(name).name, [])
    exact = [file for file in candidates if f"/{file.entry}".endswith(f"/{name}")]
    chosen = exact or candidates
    return chosen[0] if len(chosen) == 1 else None


@dataclass(frozen=True)
class _Entry:
    """The entry of one image in a file of labels: its size, if that is stated, and its objects."""

    name: str
    stated: tuple[Any, Any]
    rows: Sequence[Mapping[str, Any]]


def _read_objects(entry: _Entry, categories: Mapping[Any, tuple[int, str]], task: Task, size: Size) -> Objects:
    name, stated = entry.name, entry.stated
    if all(map(is_finite, stated)) and stated != size:
        raise invalid(
            f"{name} has {size[0]} x {size[1]} pixels, its labels are for {stated[0]} x {stated[1]}; "
            "label the images that you give"
        )
    objects = []
    for row in entry.rows:
        category = categories.get(_identifier(row.get("category_id"), f"the category_id of an object in {name}"))
        if category is None:
            raise invalid(f"an object in {name} has the unknown category_id {quote(row['category_id'])[:80]}")
        found = _read_object(row, category[0], task, f"an object in {name}", size)
        objects += [found] if found else []
    return tuple(objects)


def _read_object(row: Mapping[str, Any], label: int, task: Task, where: str, size: Size) -> LabelledObject | None:
    """Read one object; ``None`` if its box is empty."""
    left, top, width, height = numbers(row.get("bbox"), f"bbox of {where}", 4, 4)
    box = cut_box((left, top, left + width, top + height), size, where)
    if box is None:
        return None
    mask = keypoints = None
    if task in (Task.INSTANCE_SEGMENTATION, Task.SEMANTIC_SEGMENTATION):
        mask = _read_mask(row.get("segmentation"), size, where)
    if task is Task.KEYPOINTS:
        value = row.get("keypoints")
        if value is None:
            raise invalid(f"{where} has no keypoints; give labels with keypoints, which this model is measured by")
        found = np.array(numbers(value, f"keypoints of {where}", 3, 3 * KEYPOINTS_LIMIT))
        if len(found) % 3:
            raise invalid(f"keypoints of {where} are {len(found)} numbers, not x, y and visibility of each")
        keypoints = found.reshape(-1, 3)
    own = float(rle.area(mask)) if mask is not None else (box[2] - box[0]) * (box[3] - box[1])
    stated = row.get("area")
    area = float(stated) if is_finite(stated) and stated > 0 else own
    return LabelledObject(label, box, area, mask, keypoints, crowd=row.get("iscrowd") in (1, True))


def _read_mask(value: Any, size: Size, where: str) -> Any:
    if isinstance(value, dict):
        return run_length_mask(value, size, where)
    if not isinstance(value, list) or not value:
        raise invalid(f"{where} has no segmentation; give labels with masks, which this model is measured by")
    outlines = [numbers(outline, f"segmentation of {where}", 6, 1 << 20) for outline in value]
    return outline_mask(outlines, size, where)
