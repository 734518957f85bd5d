"""Labels of users: every kind reads the same truth, images are chosen fairly, and bad labels name what is wrong."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from converter import labelled
from converter.labelled import read
from converter.refusals import failure_of
from modelexport.api.reasons import Reason
from modelexport.api.spec import LabelKind
from modelexport.matrix.support import Task
from modelexport_converter.evaluation.coordinates import mask_pixels
from modelexport_converter.evaluation.opening import EvaluationSet
from modelexport_converter.evaluation.scoring import paint
from modelexport_converter.failures import Failure
from modelexport_converter.inputs.image_selection import pixel_digest
from modelexport_converter.inputs.images import decode
from modelexport_converter.rotated_boxes import enclose, overlaps, smallest_box
from trained.model import truth

COUNT = 6
OBJECTS = (Task.DETECTION, Task.INSTANCE_SEGMENTATION, Task.KEYPOINTS)
YOLO = {Task.DETECTION: "box", Task.INSTANCE_SEGMENTATION: "outline", Task.KEYPOINTS: "pose"}


def by_name(found: EvaluationSet) -> dict[str, Any]:
    return {Path(image.file.entry).name: image.truth for image in found.images}


def refuse(folder: Path, files: labelled.Files, task: Task = Task.DETECTION) -> str:
    """Return the message that labels are refused."""
    failure = failure_of(read, folder, files, task)
    assert failure.reason is Reason.EVALUATION_INVALID
    return str(failure)


@pytest.mark.parametrize("task", OBJECTS)
def test_coco_and_yolo_give_same_objects(tmp_path: Path, task: Task) -> None:
    coco = read(tmp_path / "coco", labelled.coco(COUNT), task)
    yolo = read(tmp_path / "yolo", labelled.yolo(COUNT, YOLO[task]), task)
    assert (coco.labels.kind, yolo.labels.kind) == (LabelKind.COCO, LabelKind.YOLO)
    assert coco.labels.classes == yolo.labels.classes == tuple(labelled.NAMES)
    assert by_name(coco).keys() == by_name(yolo).keys()
    for name, objects in by_name(coco).items():
        for one, other in zip(objects, by_name(yolo)[name], strict=True):
            assert one.label == other.label
            assert np.allclose(one.box, other.box, atol=0.02)
            if task is Task.INSTANCE_SEGMENTATION:
                assert rle.iou([one.mask], [other.mask], [0]) > 0.99
            if task is Task.KEYPOINTS:
                assert np.allclose(one.keypoints, other.keypoints, atol=0.02)
    assert yolo.labels.sigmas == ((0.1,) * 4 if task is Task.KEYPOINTS else ())


def test_masks_and_painted_outlines_give_same_classes(tmp_path: Path) -> None:
    masks = read(tmp_path / "masks", labelled.masks(COUNT), Task.SEMANTIC_SEGMENTATION)
    coco = read(tmp_path / "coco", labelled.coco(COUNT), Task.SEMANTIC_SEGMENTATION)
    assert masks.labels.kind is LabelKind.MASK_PNG
    assert (sorted(masks.used), sorted(coco.used)) == ([0, 1, 2, 3], [0, 1, 2])
    outlined = {Path(image.file.entry).name: image for image in coco.images}
    for name, mask in by_name(masks).items():
        image = outlined[name]
        assert isinstance(image.truth, tuple)
        behind_background = tuple(replace(one, label=one.label + 1) for one in image.truth)
        assert (paint(behind_background, image.size, 0) == mask()).mean() > 0.99


def test_folders_are_classes_in_order_of_names(tmp_path: Path) -> None:
    found = read(tmp_path, labelled.folders(COUNT), Task.CLASSIFICATION)
    assert (found.labels.kind, found.labels.classes) == (LabelKind.IMAGE_FOLDER, ("circle", "square", "triangle"))
    assert sorted(by_name(found).values()) == [0, 0, 1, 1, 2, 2]


def test_run_lengths_of_coco_are_read_compressed_and_plain(tmp_path: Path) -> None:
    content = labelled.coco_content(COUNT)
    sizes = {row["id"]: (row["height"], row["width"]) for row in content["images"]}
    expected = [row["segmentation"] for row in content["annotations"]]
    for index, row in enumerate(content["annotations"]):
        height, width = sizes[row["image_id"]]
        packed = rle.merge(rle.frPyObjects(row["segmentation"], height, width))
        if index % 2:
            row["segmentation"] = {"size": [height, width], "counts": packed["counts"].decode()}
        else:
            flat = mask_pixels(packed).astype(np.int8).ravel(order="F")
            edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
            runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
            row["segmentation"] = {"size": [height, width], "counts": runs}
    plain = read(tmp_path / "plain", labelled.coco(COUNT), Task.INSTANCE_SEGMENTATION)
    packed_set = read(tmp_path / "packed", labelled.coco(COUNT, content), Task.INSTANCE_SEGMENTATION)
    assert len(expected) == sum(len(objects) for objects in by_name(plain).values())
    for name, objects in by_name(plain).items():
        for one, other in zip(objects, by_name(packed_set)[name], strict=True):
            assert rle.iou([one.mask], [other.mask], [0]) == 1


def test_samples_are_same_part_of_whole_every_time(tmp_path: Path) -> None:
    files = labelled.coco(20)
    whole, part = read(tmp_path, files), read(tmp_path, files, samples=5)
    assert [image.file.entry for image in part.images] == [image.file.entry for image in whole.images[:5]]
    assert [image.file.entry for image in whole.images] != sorted(image.file.entry for image in whole.images)
    assert part.digest != whole.digest == read(tmp_path, files).digest


def test_calibrating_images_are_left_out_by_pixels(tmp_path: Path) -> None:
    files = labelled.coco(COUNT)
    first = read(tmp_path, files).images[0]
    found = read(tmp_path, files, samples=COUNT - 1, calibrating=frozenset([pixel_digest(decode(first.file))]))
    assert (len(found.images), found.calibrating) == (COUNT - 1, 1)
    assert first.file.entry not in [image.file.entry for image in found.images]
    assert found.remarks() == ("left out 1 of the labelled images, which calibrate",)


def test_one_unreadable_image_in_hundred_is_left_out(tmp_path: Path) -> None:
    files = labelled.coco(100)
    files["val/007.jpg"] = b"no image"
    found = read(tmp_path, files)
    assert (len(found.images), len(found.unreadable)) == (99, 1)
    assert "val/007.jpg in s3://datasets/val.zip cannot be read as an image" in found.remarks()[0]


def test_images_without_objects_count_in_yolo(tmp_path: Path) -> None:
    files = labelled.yolo(COUNT)
    del files["labels/val/000.txt"]
    assert by_name(read(tmp_path, files))["000.jpg"] == ()


def change_row(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: [row.update(fields) for row in content["annotations"]]


REFUSED_COCO: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "box outside": (
        change_row(bbox=[300, 10, 90, 20]),
        "has a box outside the image of 320 x 320 pixels (300, 10, 390,",
    ),
    "box of texts": (change_row(bbox=["1", 2, 3, 4]), "is not a list of 4 to 4 finite numbers"),
    "unknown category": (change_row(category_id=99), "has the unknown category_id 99"),
    "no categories": (lambda content: content.pop("categories"), "has no list categories, so it is no COCO JSON"),
    "other images": (
        lambda content: [row.update(file_name=f"other/{row['id']}.jpg") for row in content["images"]],
        "none of the 6 images that instances.json in s3://datasets/val.zip lists is in the data set",
    ),
    "other size": (
        lambda content: [row.update(width=640) for row in content["images"]],
        "pixels, its labels are for 640 x",
    ),
    "no objects": (lambda content: content["annotations"].clear(), "have no labelled object; give labels of objects"),
    "image twice": (lambda content: content["images"].append(content["images"][0]), "twice; merge its entries"),
}


@pytest.mark.parametrize("case", REFUSED_COCO)
def test_bad_coco_is_refused_with_cause(tmp_path: Path, case: str) -> None:
    change, message = REFUSED_COCO[case]
    content = labelled.coco_content(COUNT)
    change(content)
    assert message in refuse(tmp_path, labelled.coco(COUNT, content))


def text(name: str, content: bytes) -> labelled.Change:
    return lambda files: files.update({name: content})


REFUSED_YOLO: dict[str, tuple[labelled.Change, str]] = {
    "pixels": (
        text("labels/val/000.txt", b"0 160 160 20 20"),
        "line 1 of labels/val/000.txt in s3://datasets/val.zip has",
    ),
    "words": (text("labels/val/000.txt", b"circle 0.5 0.5 0.1 0.1"), "not a class and numbers"),
    "not finite": (text("labels/val/000.txt", b"0 nan 0.5 0.1 0.1"), "must be a class, from 0 on, and finite numbers"),
    "negative class": (text("labels/val/000.txt", b"-1 0.5 0.5 0.1 0.1"), "must be a class, from 0 on"),
    "two corners": (
        text("labels/val/000.txt", b"0 0.5 0.5 0.1 0.1 0.2 0.3 0.4"),
        "no list of x and y of three corners",
    ),
    "no names": (text("data.yaml", b"val: images/val"), "has no names of the classes; add them"),
    "no yaml": (text("data.yaml", b"names: [a"), "cannot be read as YAML: line 1"),
    "no labels": (
        lambda files: [files.pop(name) for name in list(files) if name.endswith(".txt")],
        "have no labels; give text files such as labels/val/000.txt",
    ),
}


@pytest.mark.parametrize("case", REFUSED_YOLO)
def test_bad_yolo_is_refused_with_cause(tmp_path: Path, case: str) -> None:
    change, message = REFUSED_YOLO[case]
    files = labelled.yolo(COUNT)
    change(files)
    assert message in refuse(tmp_path, files)


def test_corners_of_rotated_boxes_are_read(tmp_path: Path) -> None:
    found = read(tmp_path, labelled.oriented(COUNT), Task.ORIENTED_DETECTION)
    assert (found.labels.kind, found.labels.classes) == (LabelKind.YOLO, tuple(labelled.NAMES))
    labels = truth("eval-obb")
    for entry in labels["images"][:COUNT]:
        rows = [row for row in labels["annotations"] if row["image_id"] == entry["id"]]
        for one, row in zip(by_name(found)[entry["file_name"]], rows, strict=True):
            drawn = smallest_box(np.reshape(row["corners"], (4, 2)))
            assert one.label == row["category_id"]
            assert overlaps(one.rotated[None], drawn[None])[0, 0] > 0.999
            assert one.area == pytest.approx(drawn[2] * drawn[3])
            assert np.allclose(one.box, enclose(drawn[None])[0], atol=0.02)


def with_lines(text: bytes) -> labelled.Files:
    return {**labelled.oriented(COUNT), "labels/val/000.txt": text}


def read_lines(folder: Path, text: bytes) -> Any:
    return by_name(read(folder, with_lines(text), Task.ORIENTED_DETECTION))["000.jpg"]


def test_order_of_corners_does_not_matter(tmp_path: Path) -> None:
    first, second, third, fourth = "0.2 0.3", "0.6 0.5", "0.5 0.7", "0.1 0.5"
    orders = [(first, second, third, fourth), (third, second, first, fourth), (first, third, second, fourth)]
    boxes = [
        read_lines(tmp_path / str(place), f"1 {' '.join(order)}".encode())[0].rotated
        for place, order in enumerate(orders)
    ]
    assert np.allclose([overlaps(boxes[0][None], box[None])[0, 0] for box in boxes], 1)


def test_corners_at_no_right_angle_give_smallest_box(tmp_path: Path) -> None:
    (one,) = read_lines(tmp_path, b"0 0.1 0.1 0.5 0.1 0.4 0.3 0.2 0.3")
    assert sorted(one.rotated[2:4]) == pytest.approx([0.2 * 320, 0.4 * 320])


@pytest.mark.parametrize(
    "text", [b"0 .1 .1 .1 .1 .1 .1 .1 .1", b"0 .1 .1 .2 .2 .3 .3 .4 .4"], ids=["a point", "a line"]
)
def test_rotated_box_without_area_is_no_object(tmp_path: Path, text: bytes) -> None:
    assert read_lines(tmp_path, text) == ()


REFUSED_ROTATED = {
    "a box": (b"0 .5 .5 .1 .1", "has 4 numbers, not x and y of the four corners of a rotated box"),
    "an angle": (b"0 .5 .5 .1 .1 .3", "has 5 numbers, not x and y of the four corners"),
    "five corners": (b"0 .1 .1 .2 .1 .2 .2 .1 .2 .1 .1", "has 10 numbers, not x and y"),
    "pixels": (b"0 10 10 20 10 20 20 10 20", "has a box outside the image of 320 x 320 pixels"),
    "outside": (b"0 -.5 .1 .2 .1 .2 .2 .1 .2", "has a box outside the image"),
    "not finite": (b"0 nan .1 .2 .1 .2 .2 .1 .2", "must be a class, from 0 on, and finite numbers"),
    "infinite": (b"0 inf .1 .2 .1 .2 .2 .1 1e999", "must be a class, from 0 on, and finite numbers"),
    "huge": (b"0 1e299 -1e299 .2 .1 .2 .2 .1 .2", "has a box outside the image"),
}


@pytest.mark.parametrize("case", REFUSED_ROTATED)
def test_bad_corners_are_refused_with_cause(tmp_path: Path, case: str) -> None:
    line, message = REFUSED_ROTATED[case]
    assert message in refuse(tmp_path, with_lines(line), Task.ORIENTED_DETECTION)


def test_coco_does_not_measure_rotated_boxes(tmp_path: Path) -> None:
    message = refuse(tmp_path, labelled.coco(COUNT), Task.ORIENTED_DETECTION)
    assert "labels of COCO, which do not measure oriented detection; give labels of YOLO" in message


def test_corners_are_outlines_for_a_detector(tmp_path: Path) -> None:
    found = by_name(read(tmp_path, labelled.oriented(COUNT), Task.DETECTION))
    wanted = by_name(read(tmp_path / "own", labelled.oriented(COUNT), Task.ORIENTED_DETECTION))
    assert [one.box for one in found["000.jpg"]] == [pytest.approx(one.box) for one in wanted["000.jpg"]]


REFUSED_MASKS: dict[str, tuple[labelled.Change, str]] = {
    "size": (text("masks/000.png", labelled.png(Image.new("L", (8, 8)))), "has 8 x 8 pixels, its image 320 x 320"),
    "colours": (text("masks/000.png", labelled.png(Image.new("RGB", (320, 320)))), "is a mask in RGB; save the index"),
    "no image": (text("masks/000.png", b"no image"), "masks/000.png in s3://datasets/val.zip cannot be read as a PNG"),
}


@pytest.mark.parametrize("case", REFUSED_MASKS)
def test_bad_mask_is_refused_with_cause(tmp_path: Path, case: str) -> None:
    change, message = REFUSED_MASKS[case]
    files = labelled.masks(COUNT)
    change(files)
    assert message in refuse(tmp_path, files, Task.SEMANTIC_SEGMENTATION)


def test_labels_of_another_task_name_suitable_kinds(tmp_path: Path) -> None:
    message = refuse(tmp_path, labelled.coco(COUNT), Task.CLASSIFICATION)
    assert "has labels of COCO, which do not measure classification; give labels of ImageFolder" in message


def test_images_alone_are_refused_with_known_layouts(tmp_path: Path) -> None:
    message = refuse(tmp_path, labelled.images(COUNT))
    assert "has no labels of COCO or YOLO or MaskPNG or ImageFolder; it holds 6 files: 000.jpg" in message
    assert "give a COCO JSON file beside the images" in message


def test_stated_kind_is_not_replaced_by_another(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"has no labels of YOLO; it holds"):
        read(tmp_path, labelled.coco(COUNT), kind=LabelKind.YOLO)


def test_several_json_files_need_known_name(tmp_path: Path) -> None:
    files = labelled.coco(COUNT)
    assert len(read(tmp_path / "known", {**files, "captions.json": b"{}"}).images) == COUNT
    files["a.json"] = files.pop("instances.json")
    with pytest.raises(Failure, match=r"2 JSON files \(a.json, b.json\); keep one, or name one instances\*.json"):
        read(tmp_path / "unknown", {**files, "b.json": json.dumps({}).encode()})
