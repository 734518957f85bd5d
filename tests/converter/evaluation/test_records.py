"""Accuracies from what was matched before: equal to pycocotools' own, for a data set and for any selection of it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converter import labelled
from modelexport.matrix.support import Task
from modelexport_converter.evaluation import records
from modelexport_converter.evaluation.bootstrap import interval
from modelexport_converter.evaluation.detections import ImageDetections
from modelexport_converter.evaluation.opening import EvaluationSet
from modelexport_converter.evaluation.record_files import Expected, read_records, read_shared, write_records
from modelexport_converter.evaluation.records import Hits, Matches, Overlaps, Records, value
from modelexport_converter.evaluation.scoring import BOXES, KEYPOINTS, MASKS, ROTATED, DetectionScorer
from modelexport_converter.model import LoadedModel, Preprocessing
from modelexport_converter.publishing.original import FILE_LIMIT
from modelexport_converter.rotated_boxes import enclose, smallest_box
from models import accuracy
from models.masks import ConfusionMatrix
from trained.model import truth

COUNT = 12
TASKS = {BOXES: Task.DETECTION, MASKS: Task.INSTANCE_SEGMENTATION, KEYPOINTS: Task.KEYPOINTS}
MEASURES: Mapping[str, Callable[..., float]] = {
    BOXES: accuracy.box_map,
    MASKS: accuracy.mask_map,
    KEYPOINTS: accuracy.keypoint_map,
}


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    """Labels of some images, one object of which stands for a crowd."""
    found = labelled.coco_content(COUNT)
    found["annotations"][3]["iscrowd"] = 1
    return found


def detect(content: Mapping[str, Any], *, ties: bool = True) -> dict[int, ImageDetections]:
    """Detections that are right, shifted or of another class, three for each object; with ``ties`` of equal scores."""
    random, found = np.random.default_rng(7), {}
    for image in content["images"]:
        rows = [row for row in content["annotations"] if row["image_id"] == image["id"]]
        rows = [row for row in rows for _ in range(3)]
        shifts = random.normal(0, 6, (len(rows), 2))
        boxes = np.array([row["bbox"] for row in rows]).reshape(-1, 4)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) + np.tile(shifts, 2)
        labels = np.array([row["category_id"] for row in rows])
        labels = np.where(random.random(len(rows)) < 0.15, (labels + 1) % 3, labels)
        points = np.array([row["keypoints"] for row in rows], float).reshape(len(rows), -1, 3)
        points[..., :2] += shifts[:, None]
        scores = random.choice([0.2, 0.4, 0.6, 0.8], len(rows)) if ties else random.random(len(rows))
        outlines = [shifted(row, shift) for row, shift in zip(rows, shifts, strict=True)]
        masks = [labelled.pack(outline, (image["width"], image["height"])) for outline in outlines]
        found[image["id"]] = ImageDetections(corners, scores, labels, masks, points)
    return found


def shifted(row: Mapping[str, Any], shift: Any) -> list[float]:
    points: list[float] = (np.array(row["segmentation"][0]).reshape(-1, 2) + shift).ravel().tolist()
    return points


def collect(folder: Path, content: dict[str, Any], compared: str, *, ties: bool = True) -> Records:
    """The records of these detections, image by image."""
    labels = labelled.read(folder, labelled.coco(COUNT, content), TASKS[compared])
    names, images = tuple(labelled.NAMES), Preprocessing("letterbox")
    model = LoadedModel(torch.nn.Identity(), (160, 160), (), names, images)
    scorer = DetectionScorer(model, compared, [0.1] * 4)
    found = detect(content, ties=ties)
    for image in ordered(labels):
        number = int(Path(image.file.entry).stem) + 1
        assert isinstance(image.truth, tuple)
        scorer.add_detections(found[number], image.size, image.truth)
    return scorer.records()


def ordered(labels: EvaluationSet) -> list[Any]:
    return sorted(labels.images, key=lambda image: image.file.entry)


@pytest.mark.parametrize("compared", TASKS)
def test_precision_equals_pycocotools_own(tmp_path: Path, content: dict[str, Any], compared: str) -> None:
    found = collect(tmp_path, content, compared)
    expected = MEASURES[compared](content, detect(content))
    assert 0.05 < expected < 0.95
    assert value(found) == pytest.approx(expected, abs=1e-12)
    assert np.mean(list(found.by_class().values())) == pytest.approx(expected, abs=1e-12)


def rotated_truth(turn: float = 0.0, shift: float = 0.0) -> dict[int, ImageDetections]:
    """The labelled boxes as detections, in another description, turned and shifted."""
    labels, found, random = truth("eval-obb"), {}, np.random.default_rng(3)
    for image in labels["images"][:COUNT]:
        rows = [row for row in labels["annotations"] if row["image_id"] == image["id"]]
        boxes = np.array([smallest_box(np.reshape(row["corners"], (4, 2))) for row in rows])
        boxes = boxes[:, [0, 1, 3, 2, 4]] + np.array([0, 0, 0, 0, np.pi / 2 + turn])
        boxes[:, :2] += random.normal(0, shift, (len(rows), 2))
        classes = np.array([row["category_id"] for row in rows])
        points = np.zeros((len(rows), 0, 3))
        found[image["id"]] = ImageDetections(enclose(boxes), random.random(len(rows)), classes, (), points, boxes)
    return found


def collect_rotated(folder: Path, found: Mapping[int, ImageDetections]) -> Records:
    labels = labelled.read(folder, labelled.oriented(COUNT), Task.ORIENTED_DETECTION)
    model = LoadedModel(torch.nn.Identity(), (160, 160), (), tuple(labelled.NAMES), Preprocessing("letterbox"))
    scorer = DetectionScorer(model, ROTATED)
    for image in ordered(labels):
        assert isinstance(image.truth, tuple)
        scorer.add_detections(found[int(Path(image.file.entry).stem) + 1], image.size, image.truth)
    return scorer.records()


@pytest.mark.parametrize(
    ("turn", "shift", "wanted"),
    [(0, 0, 1.0), (np.pi, 0, 1.0), (np.pi / 2, 0, 0.0), (0.1, 0, 0.72), (0, 4, 0.43), (0, 1e5, 0.0)],
    ids=["same", "turned around", "upright where it lies", "turned a little", "shifted", "elsewhere"],
)
def test_precision_of_rotated_boxes_is_that_of_pycocotools(
    tmp_path: Path, turn: float, shift: float, wanted: float
) -> None:
    found = rotated_truth(turn, shift)
    measured = value(collect_rotated(tmp_path, found))
    content = truth("eval-obb")
    first = [row for row in content["annotations"] if row["image_id"] <= COUNT]
    part = {**content, "images": content["images"][:COUNT], "annotations": first}
    assert measured == pytest.approx(accuracy.rotated_map(part, found), abs=1e-12)
    assert measured == pytest.approx(wanted, abs=0.1 if 0 < wanted < 1 else 1e-9)


def test_selection_equals_repeated_data_set(tmp_path: Path, content: dict[str, Any]) -> None:
    found, weights = collect(tmp_path, content, BOXES, ties=False), np.array([2, 0, 1, 3, 0, 0, 1, 1, 2, 0, 1, 1])
    repeated: dict[str, Any] = {"images": [], "annotations": [], "categories": content["categories"]}
    detected, answers = detect(content, ties=False), {}
    for image, weight in zip(content["images"], weights, strict=True):
        for _ in range(weight):
            number = len(repeated["images"]) + 1
            rows = [row for row in content["annotations"] if row["image_id"] == image["id"]]
            repeated["images"].append({**image, "id": number})
            first = len(repeated["annotations"]) + 1
            repeated["annotations"] += [{**row, "id": first + k, "image_id": number} for k, row in enumerate(rows)]
            answers[number] = detected[image["id"]]
    expected = accuracy.box_map(repeated, answers)
    assert found.values(weights[None].astype(float))[0] == pytest.approx(expected, abs=1e-12)


def test_many_selections_equal_one_by_one(
    tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = collect(tmp_path, content, BOXES)
    weights = np.random.default_rng(1).multinomial(COUNT, [1 / COUNT] * COUNT, size=30).astype(float)
    single = [found.values(weights[index : index + 1])[0] for index in range(30)]
    assert np.allclose(found.values(weights), single, rtol=0, atol=1e-12)
    monkeypatch.setattr(records, "CELLS", 100)
    assert np.allclose(found.values(weights), single, rtol=0, atol=1e-12)


def test_overlaps_equal_mean_iou_of_pixels() -> None:
    random, confusion, rows = np.random.default_rng(2), ConfusionMatrix(3), []
    for _ in range(4):
        expected, found = random.integers(0, 3, (2, 8, 9), dtype=np.uint8)
        confusion.add(expected, found)
        table = np.histogram2d(expected.ravel(), found.ravel(), bins=[range(4)] * 2)[0].astype(int)
        rows.append((np.diagonal(table), table.sum(1), table.sum(0)))
    measured = Overlaps(*(np.array(column) for column in zip(*rows, strict=True)))
    assert value(measured) == pytest.approx(confusion.mean_iou())


def some_matches() -> Matches:
    flags = np.ones((2, 10), bool)
    return Matches(np.array([0, 1]), np.array([0, 0]), np.array([0.5, 0.9]), flags, ~flags, np.ones((3, 1), int))


def some_records() -> list[Records]:
    counts = np.ones((3, 2), int)
    return [some_matches(), Overlaps(counts, counts * 3, counts * 2), Hits(np.arange(3), np.array([True, False, True]))]


KEY = "ab" * 32
CLASSES: Mapping[type, int] = {Matches: 1, Overlaps: 2, Hits: 3}


@pytest.mark.parametrize("found", some_records(), ids=lambda found: type(found).__name__)
def test_records_survive_file_and_shrink_to_first(tmp_path: Path, found: Records) -> None:
    write_records(tmp_path / "a", found, KEY)
    again = read_records(tmp_path / "a", Expected(KEY, 3, CLASSES[type(found)]))
    assert type(again) is type(found)
    assert (value(again), again.count) == (value(found), 3)
    assert found.first(2).count == 2


def test_file_of_this_machine_may_be_larger_than_a_shared_one(tmp_path: Path) -> None:
    write_records(path := tmp_path / "a", some_matches(), KEY)
    expected = Expected(KEY, 3, CLASSES[Matches])
    with pytest.raises(ValueError, match="SHA-256"):
        read_records(path, expected, 8)
    assert read_records(path, expected, path.stat().st_size).count == 3


HOSTILE: dict[str, tuple[Records, str]] = {
    "image": (replace(some_matches(), image=np.array([0, 3])), "image has numbers outside of 0 to 2"),
    "class": (replace(some_matches(), label=np.array([-1, 0])), "label has numbers outside of 0 to 0"),
    "score": (replace(some_matches(), score=np.array([0.5, np.nan])), "score has numbers outside of 0 to 1"),
    "rows": (replace(some_matches(), score=np.zeros(3)), r"score is float64 \(3,\), not float64 \(2,\)"),
    "type": (Hits(np.zeros(3, bool), np.zeros(3, bool)), "label is bool"),
    "levels": (replace(some_matches(), matched=np.ones((2, 3), bool)), r"matched is bool \(2, 3\)"),
    "objects": (replace(some_matches(), truths=np.full((3, 1), -1)), "truths has numbers outside"),
    "pixels": (Overlaps(np.ones((3, 2), int), np.zeros((3, 2), int), np.ones((3, 2), int)), "more pixels than"),
    "hits": (Hits(np.array([0, 0, 9]), np.ones(3, bool)), "label has numbers outside of 0 to 2"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_records_that_cannot_be_are_refused(tmp_path: Path, case: str) -> None:
    found, message = HOSTILE[case]
    write_records(tmp_path / "a", found, KEY)
    with pytest.raises(ValueError, match=message):
        read_records(tmp_path / "a", Expected(KEY, 3, CLASSES[type(found)]))


def change(content: bytes, **fields: Any) -> bytes:
    """Change the header of a file."""
    head, _, rest = content.partition(b"\n")
    return json.dumps({**json.loads(head), **fields}).encode() + b"\n" + rest


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "other key": lambda content: change(content, key="cd" * 32),
    "changed bytes": lambda content: content[:-1] + b"\1",
    "cut": lambda content: content[:-8],
    "longer": lambda content: content + b"\0",
    "no header": lambda content: content.partition(b"\n")[2],
    "empty": lambda _: b"",
    "other kind": lambda content: change(content, kind="Overlaps"),
    "unknown kind": lambda content: change(content, kind="__class__"),
    "endless array": lambda content: change(content, arrays={"label": ["int64", 1 << 40], "hit": ["bool", 3]}),
    "product of sizes": lambda content: change(content, arrays={"label": ["int64", 1 << 25, 1 << 25]}),
    "negative size": lambda content: change(content, arrays={"label": ["int64", -3], "hit": ["bool", 3]}),
    "object array": lambda content: change(content, arrays={"label": ["object", 3], "hit": ["bool", 3]}),
    "array left out": lambda content: change(content, arrays={"label": ["int64", 3]}),
    "more images": lambda content: change(content, images=4),
    "images as text": lambda content: change(content, images="3"),
    "deep header": lambda _: b"[" * 60_000,
}


@pytest.mark.parametrize("case", CHANGES)
def test_file_that_was_changed_is_refused(tmp_path: Path, case: str) -> None:
    write_records(tmp_path / "a", Hits(np.arange(3), np.zeros(3, bool)), KEY)
    expected = Expected(KEY, 3, 3)
    assert read_records(tmp_path / "a", expected).count == 3
    (tmp_path / "a").write_bytes(CHANGES[case]((tmp_path / "a").read_bytes()))
    with pytest.raises(ValueError, match=r".+"):
        read_records(tmp_path / "a", expected)


def hits(count: int, share: float, seed: int = 0) -> Hits:
    return Hits(np.zeros(count, int), np.random.default_rng(seed).random(count) < share)


@pytest.mark.parametrize(("done", "of", "serves"), [(8, 8, True), (7, 8, False), (100, 1000, True), (99, 1000, False)])
def test_evaluation_that_ended_early_is_shared_from_100_images(
    tmp_path: Path, done: int, of: int, serves: bool
) -> None:
    write_records(tmp_path / "a", hits(done, 0.8), KEY)
    found = read_shared([tmp_path / "missing", tmp_path / "a"], Expected(KEY, of, 1))
    assert (found.count if found else None) == (done if serves else None)


def test_largest_evaluation_fits_shared_file(tmp_path: Path) -> None:
    images, detections, classes = 100, 300, 400
    rows, flags = images * detections, np.zeros((images * detections, 10), bool)
    found = Matches(
        np.zeros(rows, int), np.zeros(rows, int), np.zeros(rows), flags, flags, np.ones((images, classes), int)
    )
    write_records(tmp_path / "a", found, KEY)
    assert (tmp_path / "a").stat().st_size * 10_000 / images <= FILE_LIMIT


def loss(before: Any, after: Any) -> Any:
    return before - after


def test_equal_answers_have_no_interval() -> None:
    assert interval(hits(50, 0.8), hits(50, 0.8), loss) == (0, 0)


def test_interval_holds_loss_and_shrinks_with_images() -> None:
    widths = []
    for count in (100, 1600):
        original = hits(count, 0.9)
        file = Hits(original.label, original.hit & (np.random.default_rng(3).random(count) < 0.95))
        low, high = interval(original, file, loss)
        assert low <= value(original) - value(file) <= high
        widths.append(high - low)
    assert 3 < widths[0] / widths[1] < 5.5  # as the root of the number of images


def test_pairing_narrows_interval() -> None:
    original = hits(400, 0.7)
    file = Hits(original.label, original.hit & (np.arange(400) % 50 > 0))
    paired, apart = interval(original, file, loss), interval(original, hits(400, 0.69, seed=9), loss)
    assert paired[1] - paired[0] < (apart[1] - apart[0]) / 2


def test_interval_is_same_every_time() -> None:
    assert interval(hits(60, 0.8), hits(60, 0.7, 1), loss) == interval(hits(60, 0.8), hits(60, 0.7, 1), loss)


def test_intervals_cover_true_loss_as_often_as_said() -> None:
    covered = 0
    for seed in range(60):
        before, after = hits(300, 0.9, seed), hits(300, 0.85, seed + 1000)
        low, high = interval(before, after, loss)
        covered += low <= 0.05 <= high
    assert covered >= 52  # 57 of 60 expected; fewer than 52 in one of 80 cases
