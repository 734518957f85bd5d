"""Labels of strangers are refused with their reason, soon and in little memory, and nothing of them is run."""

import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converter import labelled
from modelexport.api.reasons import Reason
from modelexport.matrix.support import Task
from modelexport.text import is_clean
from modelexport_converter.evaluation.truth import LabelledObject
from modelexport_converter.failures import Failure

SECONDS, GROWTH_KIB = 20, 1 << 20
COUNT = 2
CORNERS = [number % 300 + 0.5 for number in random.Random(1).choices(range(1 << 30), k=500_000)]
Rows = list[dict[str, Any]]
SEGMENTS = Task.INSTANCE_SEGMENTATION


def every(**fields: Any) -> Callable[[Rows], object]:
    return lambda rows: [row.update(fields) for row in rows]


def masks(counts: Any, size: Any = (320, 320)) -> Callable[[Rows], object]:
    return every(segmentation={"size": list(size), "counts": counts})


ROWS: dict[str, tuple[Task, Callable[[Rows], object], str]] = {
    "an outline to the moon": (SEGMENTS, every(segmentation=[[0, 0, 1e9, 0, 0, 1e9]]), "mask outside the image"),
    "an outline of 1e299": (SEGMENTS, every(segmentation=[[0, 0, 1e299, 0, 0, -1e299]]), "mask outside the image"),
    "an endless integer": (SEGMENTS, every(segmentation=[[0, 0, 10**400, 0, 0, 1]]), "finite numbers"),
    "a point": (SEGMENTS, every(segmentation=[[1, 1]]), "finite numbers"),
    "a million corners": (
        SEGMENTS,
        every(segmentation=[CORNERS]),
        "corners; simplify",
    ),
    "run lengths cut off": (SEGMENTS, masks("o" * 7), "counts that are no run lengths"),
    "run lengths of an endless number": (SEGMENTS, masks("o" * 100_000), "counts that are no run lengths"),
    "run lengths beyond ASCII": (SEGMENTS, masks("\udcff\u2028"), "counts that are no run lengths"),
    "negative run lengths": (SEGMENTS, masks([-5, 320 * 320 + 5]), "counts that are no run lengths"),
    "run lengths of another image": (SEGMENTS, masks([1 << 62]), "run lengths of 4,611,686,018,427,387,904 pixels"),
    "a mask of terapixels": (SEGMENTS, masks([1 << 40], (1 << 20, 1 << 20)), "has no mask of 320 x"),
    "a mask of a class": (SEGMENTS, every(segmentation={"__class__": "os.system"}), "has no mask of"),
    "a box of lists": (Task.DETECTION, every(bbox=[[[]], [], [], []]), "finite numbers"),
    "a box of true": (Task.DETECTION, every(bbox=[True, 1, 1, 1]), "finite numbers"),
    "a category of an object": (Task.DETECTION, every(category_id={"a": 1}), "category_id of an object"),
    "keypoints without end": (Task.KEYPOINTS, every(keypoints=[1.0] * 100_000), "finite numbers"),
    "two numbers for a keypoint": (Task.KEYPOINTS, every(keypoints=[1.0, 2.0, 2, 3]), "not x, y and visibility"),
}


def refuse(folder: Path, files: labelled.Files, task: Task) -> str:
    """Return what is said of a hostile data set."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Failure) as caught:
        labelled.read(folder, files, task)
    assert caught.value.reason is Reason.EVALUATION_INVALID
    assert time.monotonic() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH_KIB
    assert is_clean(str(caught.value))
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.mark.parametrize("case", ROWS)
def test_hostile_object_of_coco_is_refused(tmp_path: Path, case: str) -> None:
    task, change, message = ROWS[case]
    content = labelled.coco_content(COUNT)
    change(content["annotations"])
    assert message in refuse(tmp_path, labelled.coco(COUNT, content), task)


TEXTS: dict[str, tuple[bytes, str]] = {
    "deep": (b"[" * 200_000, "nested too deeply"),
    "NaN": (b'{"images": NaN}', "NaN is no JSON"),
    "a key twice": (b'{"images": [], "images": []}', "a key stands twice"),
    "a pickle": (b"\x80\x04cos\nsystem\n(S'id'\ntR.", "cannot be read as COCO JSON"),
    "many empty objects": (b'{"images": [' + b"{}," * (8 << 20) + b"{}]}", "has no list categories"),
    "too long": (b" " * (65 << 20), "holds 65 MiB in one file, the limit is 64"),
    "a control character in a name": (
        b'{"images": [{"id": 1, "file_name": "\\u001b[2J\\u202e"}], "annotations": [], "categories": [{"id": 1}]}',
        "none of the 1 images",
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_hostile_json_is_refused(tmp_path: Path, case: str) -> None:
    content, message = TEXTS[case]
    files = {**labelled.images(COUNT), "instances.json": content}
    # An archive that shrinks so well is taken for a bomb, so half of it is noise.
    assert message in refuse(tmp_path, {**files, "noise.bin": noise(len(content) // 150)}, Task.DETECTION)


def noise(size: int) -> bytes:
    return random.Random(1).randbytes(size)


YAML: dict[str, tuple[bytes, str]] = {
    "aliases": (
        b"a: &a [x, x, x, x, x, x, x, x]\n"
        + b"\n".join(b"%c: &%c [%s]" % (98 + i, 98 + i, b", ".join([b"*%c" % (97 + i)] * 9)) for i in range(9)),
        "characters with its aliases expanded",
    ),
    "an object": (b"names: !!python/object/apply:os.system [id]", "is not allowed"),
    "deep": (b"names: " + b"[" * 1000, "nested deeper than 64 levels"),
    "other bytes": (b"names: \xff\xfe", "it is not UTF-8"),
    "a list": (b"- names", "is no description of a data set"),
    "names of objects": (b"names: [{a: b}]", "has no names of the classes"),
}


@pytest.mark.parametrize("case", YAML)
def test_hostile_description_is_refused(tmp_path: Path, case: str) -> None:
    content, message = YAML[case]
    assert message in refuse(tmp_path, {**labelled.yolo(COUNT), "data.yaml": content}, Task.DETECTION)


LINES: dict[str, tuple[bytes, str]] = {
    "a huge class": (b"1e300 0.5 0.5 0.1 0.1", "must be a class, from 0 on"),
    "an infinite box": (b"0 inf 0.5 0.1 0.1", "finite numbers"),
    "a box of 1e299": (b"0 1e299 1e299 1e299 1e299", "box outside the image"),
    "a million lines": (b"0 0.5 0.5 0.1 0.1\n" * 50_000, "20,000 lines; correct it"),
    "zero bytes": (b"\0" * 100, "not a class and numbers"),
}


@pytest.mark.parametrize("case", LINES)
def test_hostile_text_of_yolo_is_refused(tmp_path: Path, case: str) -> None:
    content, message = LINES[case]
    files = labelled.yolo(COUNT)
    for name in list(files):
        files[name] = content if name.endswith(".txt") else files[name]
    assert message in refuse(tmp_path, files, Task.DETECTION)


CORNERED: dict[str, tuple[bytes, str]] = {
    "an infinite corner": (b"0 inf 0 1 0 1 1 0 1", "finite numbers"),
    "a corner that is no number": (b"0 nan 0 1 0 1 1 0 1", "finite numbers"),
    "a corner of 1e299": (b"0 1e299 -1e299 1 0 1 1 0 1", "box outside the image"),
    "corners without end": (b"0" + b" 0.5" * 100_000, "has 100000 numbers, not x and y of the four corners"),
    "a million lines": (b"0 0 0 1 0 1 1 0 1\n" * 50_000, "20,000 lines; correct it"),
    "points alone": (b"0 0.5 0.5 0.5 0.5 0.5 0.5 0.5 0.5\n" * 19_999, "have no labelled object"),
}


@pytest.mark.parametrize("case", CORNERED)
def test_hostile_corners_of_rotated_boxes_are_refused(tmp_path: Path, case: str) -> None:
    content, message = CORNERED[case]
    files = {name: content if name.endswith(".txt") else old for name, old in labelled.oriented(COUNT).items()}
    assert message in refuse(tmp_path, files, Task.ORIENTED_DETECTION)


def test_names_that_climb_are_only_names(tmp_path: Path) -> None:
    content = labelled.coco_content(COUNT)
    content["images"][0]["file_name"] = "../../../../etc/passwd"
    found = labelled.read(tmp_path, labelled.coco(COUNT, content))
    assert [image.file.entry for image in found.images] == ["val/001.jpg"]
    assert all(isinstance(one, LabelledObject) for image in found.images for one in image.truth)  # type: ignore[union-attr]
