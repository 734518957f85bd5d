"""Fidelity: the answers of a file, counted with those of the model as labels."""

import base64
import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import batched_nms

from modelexport.api.reasons import Reason
from modelexport.api.result import Fidelity
from modelexport.matrix.support import ARCHITECTURES, Format, Precision, Target, lookup
from modelexport_converter.architectures.shared.detection import BOXES, SCORES
from modelexport_converter.architectures.shared.segmentation import PROBABILITIES
from modelexport_converter.architectures.torchvision.detectors import _BOXES, _COUNT, _LABELS, _MASKS, _SCORES
from modelexport_converter.architectures.yolov8.loader import (
    _ANGLES,
    _COEFFICIENTS,
    _KEYPOINTS,
    _PROTOTYPES,
    _ROTATED_BOXES,
)
from modelexport_converter.architectures.yolov8.loader import _PROBABILITIES as CLASSES
from modelexport_converter.backends import Array
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel, Output, Preprocessing
from modelexport_converter.verification import agreement
from modelexport_converter.verification.agreement import NO_IMAGES, NO_MEANING, UNKNOWN, check, compare
from modelexport_converter.verification.answers import MOST_OVERLAP, read_detections
from modelexport_converter.verification.fidelity import FEWEST, FidelitySums, start_fidelity
from modelexport_converter.verification.informative_images import DETECTED
from trained.cells import eval_inputs, load_model, run_model
from trained.model import Outputs

SIZE = (100, 200)
Box = tuple[float, float, float, float, float, int]
"""Left, top, right, bottom in pixels, score and class."""
ONE: Box = (20, 10, 60, 50, 0.9, 0)
TWO: Box = (100, 20, 140, 80, 0.8, 1)
FAINT: Box = (20, 60, 60, 90, 0.3, 0)


def model_of(*outputs: Output) -> LoadedModel:
    return LoadedModel(torch.nn.Identity(), SIZE, outputs, ("a", "b", "c"), Preprocessing("letterbox"))


def anchors(*boxes: Box) -> tuple[Array, Array]:
    """Boxes (1, 4, N) and scores (1, 3, N) of a detector, with an anchor that detects nothing."""
    table = np.array([*boxes, (0, 0, 10, 10, 0.01, 2)], np.float64)
    corners = table[:, :4] / np.array(SIZE[::-1] * 2)
    scores = np.zeros((1, 3, len(table)), np.float32)
    scores[0, table[:, 5].astype(int), np.arange(len(table))] = table[:, 4]
    located = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
    return located.T[None].astype(np.float32), scores


def padded(*boxes: Box) -> Outputs:
    """Boxes, scores, labels and count of a detector that suppresses boxes itself."""
    table = np.zeros((8, 6), np.float32)
    table[: len(boxes)] = np.array(boxes, np.float32).reshape(-1, 6)
    scale = np.array(SIZE[::-1] * 2, np.float32)
    return table[None, :, :4] / scale, table[None, :, 4], table[None, :, 5], np.array([len(boxes)], np.float32)


KINDS = {
    "anchors": (model_of(BOXES, SCORES), anchors),
    "padded detections": (model_of(_BOXES, _SCORES, _LABELS, _COUNT), padded),
}


def turned(*boxes: Box, angle: float = 0.5, jump: bool = False) -> Outputs:
    """The boxes in pixels, turned about their centres; ``jump`` describes each by its other side."""
    located, scores = anchors(*boxes)
    located = located * np.array([*SIZE[::-1], *SIZE[::-1]], np.float32)[:, None]
    angles = np.full((1, 1, located.shape[2]), angle + jump * np.pi / 2, np.float32)
    return located[:, [0, 1, 3, 2]] if jump else located, scores, angles


ROTATED = model_of(_ROTATED_BOXES, SCORES, _ANGLES)


def sums_of(model: LoadedModel) -> FidelitySums:
    sums = start_fidelity(model)
    assert sums is not None
    return sums


def measure(model: LoadedModel, expected: Sequence[Array], found: Sequence[Array]) -> Fidelity | None:
    sums = sums_of(model)
    sums.add(expected, found, SIZE)
    return sums.result(0.9)


def counts(expected: Sequence[Box], found: Sequence[Box], kind: str = "anchors") -> tuple[int | None, ...]:
    model, build = KINDS[kind]
    fidelity = measure(model, build(*expected), build(*found))
    return (fidelity.kept, fidelity.missed, fidelity.invented) if fidelity else (0, 0, 0)


def moved(box: Box, pixels: float = 0, score: float | None = None, label: int | None = None) -> Box:
    left, top, right, bottom, own, kind = box
    score, label = own if score is None else score, kind if label is None else label
    return left + pixels, top, right + pixels, bottom, score, label


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([TWO, ONE], (2, 0, 0)),
        ([ONE], (1, 1, 0)),
        ([ONE, TWO, moved(ONE, 100)], (2, 0, 1)),
        ([moved(ONE, 12), TWO], (2, 0, 0)),
        ([moved(ONE, 15), TWO], (1, 1, 1)),
        ([moved(ONE, label=1), TWO], (1, 1, 1)),
        ([moved(ONE, score=0.26), TWO], (2, 0, 0)),
        ([moved(ONE, score=0.24), TWO], (1, 1, 0)),
        ([ONE, TWO, FAINT], (2, 0, 0)),
    ],
)
def test_boxes_match_by_class_and_overlap(kind: str, found: list[Box], expected: tuple[int, ...]) -> None:
    assert counts([ONE, TWO], found, kind) == expected


def test_faint_boxes_are_neither_missed_nor_invented() -> None:
    assert counts([ONE, FAINT], [ONE]) == counts([ONE], [ONE, FAINT]) == (1, 0, 0)
    assert counts([ONE, FAINT], [ONE, moved(FAINT, score=0.6)]) == (2, 0, 0)


def test_box_has_one_partner_and_best_score_chooses_first() -> None:
    near = moved(ONE, 10, score=0.7)
    assert counts([ONE], [ONE, moved(ONE, 13.5)], "padded detections") == (1, 0, 1)
    model, build = KINDS["padded detections"]
    fidelity = measure(model, build(near, ONE), build(moved(ONE, 1)))
    assert fidelity is not None
    assert (fidelity.kept, fidelity.missed, fidelity.iou) == (1, 1, f"{39 / 41:.4f}")


def test_overlapping_anchors_of_a_class_are_suppressed() -> None:
    boxes = anchors(ONE, moved(ONE, 3, score=0.8), moved(ONE, 2, label=1))
    found = read_detections((BOXES, SCORES), SIZE, boxes)
    assert found.labels.tolist() == [0, 1]
    assert found.boxes[0].tolist() == pytest.approx(ONE[:4], abs=1e-4)


def test_boxes_are_suppressed_as_by_torchvision() -> None:
    generator = np.random.default_rng(0)
    boxes = generator.uniform(0.2, 0.8, (1, 4, 400)).astype(np.float32)
    scores = generator.uniform(DETECTED, 1, (1, 3, 400)).astype(np.float32)
    found = read_detections((BOXES, SCORES), SIZE, (boxes, scores))
    centre, half = boxes[0, :2].T.astype(np.float64), boxes[0, 2:].T.astype(np.float64) / 2
    corners = torch.from_numpy(np.concatenate([centre - half, centre + half], 1) * [*SIZE[::-1], *SIZE[::-1]])
    best = torch.from_numpy(scores[0]).max(0)
    kept = batched_nms(corners, best.values.double(), best.indices, MOST_OVERLAP)
    assert found.boxes.tolist() == corners[kept].tolist()
    assert found.labels.tolist() == best.indices[kept].tolist()


def test_fidelity_names_overlap_and_score_shift() -> None:
    model, build = KINDS["anchors"]
    fidelity = measure(model, build(ONE, TWO), build(moved(ONE, 10, score=0.8), TWO))
    assert fidelity is not None
    assert fidelity.metric == "boxes"
    assert (fidelity.value, fidelity.iou, fidelity.score_shift) == ("1.0000", "0.8000", "-0.0500")
    assert str(fidelity) == "boxes 1.0000 (2 kept, 0 missed, 0 invented, IoU 0.8000, score shift -0.0500)"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (turned(TWO, ONE), (2, 0, 0, "1.0000")),
        (turned(ONE, TWO, jump=True), (2, 0, 0, "1.0000")),
        (turned(ONE, TWO, angle=0.5 - 3 * np.pi), (2, 0, 0, "1.0000")),
        (turned(ONE), (1, 1, 0, "1.0000")),
        (turned(moved(ONE, label=1), TWO), (1, 1, 1, "1.0000")),
        (turned(ONE, TWO, angle=0.5 + np.pi / 2), (1, 1, 1, "1.0000")),
    ],
    ids=["same", "sides exchanged", "turned around", "lost", "other class", "upright where it lies"],
)
def test_rotated_boxes_match_as_they_lie(found: Outputs, expected: tuple[object, ...]) -> None:
    """ONE is a square, which a quarter of a turn does not change, TWO is not."""
    fidelity = measure(ROTATED, turned(ONE, TWO), found)
    assert fidelity is not None
    assert (fidelity.metric, fidelity.kept, fidelity.missed, fidelity.invented, fidelity.iou) == ("boxes", *expected)


def test_sample_of_rotated_boxes_has_their_corners() -> None:
    square = (0.0, 0.0, 40.0, 40.0, 0.9, 0)
    original, file = sums_of(ROTATED).add(turned(square, angle=np.pi / 4), turned(angle=0), SIZE).describe()
    assert [answer.same for answer in original] == [False]
    reach = 20 * 2**0.5
    wanted = [[20, 20 - reach], [20 + reach, 20], [20, 20 + reach], [20 - reach, 20]]
    assert np.reshape(original[0].corners, (4, 2)) == pytest.approx(np.array(wanted), abs=0.01)
    assert original[0].corners[-2] < 0, "it reaches beyond the image"
    assert original[0].box == pytest.approx([0, 0, 20 + reach, 20 + reach], abs=0.01)
    assert list(file) == []


def test_sample_of_another_size_has_pixels_of_its_image() -> None:
    model, build = KINDS["anchors"]
    original, _ = sums_of(model).add(build(ONE), build(ONE), (2 * SIZE[0], SIZE[1])).describe()
    left, top, right, bottom, *_ = ONE
    assert original[0].box == pytest.approx([left, 2 * top, right, 2 * bottom], abs=0.01)


def test_mask_of_other_half_is_no_kept_detection() -> None:
    model = model_of(_BOXES, _SCORES, _LABELS, _COUNT, _MASKS)
    masks = [np.zeros((1, 8, 4, 4), np.float32) for _ in range(3)]
    masks[0][0, :, :2], masks[1][0, :, 2:], masks[2][0, :, :3] = 1, 1, 1
    results = [measure(model, (*padded(ONE), masks[0]), (*padded(ONE), mask)) for mask in masks]
    assert [result and (result.kept, result.missed, result.mask_iou) for result in results] == [
        (1, 0, "1.0000"),
        (0, 1, None),
        (1, 0, f"{2 / 3:.4f}"),
    ]
    assert {result.metric for result in results if result} == {"masks"}


def test_mask_is_combined_from_prototypes_within_its_box() -> None:
    outputs = (BOXES, SCORES, _COEFFICIENTS, _PROTOTYPES)
    left, right = np.full((2, 25, 50), -1, np.float32)
    left[:, :10], right[:, 10:] = 1, 1  # columns 0 to 40, and the others
    rest = np.array([[[1, 0], [0, 0]]], np.float32), np.stack([left, right])[None]
    found = read_detections(outputs, SIZE, (*anchors(ONE), *rest))
    assert found.mask is not None
    rows, columns = np.nonzero(found.mask(0))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 49, 20, 39)


@pytest.mark.parametrize(("shift", "kept"), [(0, 1), (6, 1), (12, 0)])
def test_keypoints_are_compared_by_similarity(shift: float, kept: int) -> None:
    model = model_of(BOXES, SCORES, _KEYPOINTS)
    points = np.array([[30, 20, 1], [50, 40, 0.9], [0, 0, 0.1]]) / [*SIZE[::-1], 1]
    here, there = (np.repeat(points[None, :, :, None], 2, axis=3).astype(np.float32) for _ in range(2))
    there[:, :2, 0] += shift / SIZE[1]
    there[:, 2, :2] = 0.9  # the model does not see it
    fidelity = measure(model, (*anchors(ONE), here), (*anchors(ONE), there))
    assert fidelity is not None
    assert (fidelity.metric, fidelity.kept, fidelity.missed) == ("keypoints", kept, 1 - kept)
    similarity = np.exp(-(shift**2) / (2 * 40 * 40 * 0.2**2))
    assert fidelity.keypoint_similarity == (f"{similarity:.4f}" if kept else None)


def test_images_without_sure_class_do_not_count() -> None:
    sums = sums_of(model_of(CLASSES))
    for expected, found in (([0.9, 0.1, 0], [0.4, 0.3, 0.3]), ([0.4, 0.3, 0.3], [0.3, 0.4, 0.3])):
        sums.add([np.array([expected])], [np.array([found])], SIZE)
    sums.add([np.array([[0, 0.8, 0.2]])], [np.array([[0.6, 0.4, 0]])], SIZE)
    fidelity = sums.result(0.9)
    assert fidelity == Fidelity("top-1", "0.5000", 3, None, 1, 1)


@pytest.mark.parametrize(
    ("found", "shown"),
    [([0.9, 0.094, 0.006], [(0, True), (1, True)]), ([0.005, 0.995, 0], [(1, False)])],
    ids=["the same class", "another class"],
)
def test_only_best_class_of_image_can_differ(found: list[float], shown: list[tuple[int, bool]]) -> None:
    expected = [np.array([[0.98, 0.015, 0.005]])]
    original, file = sums_of(model_of(CLASSES)).add(expected, [np.array([found])], SIZE).describe()
    assert [(answer.label, answer.same) for answer in file] == shown
    assert [(answer.label, answer.same) for answer in original] == [(0, shown[0][1]), (1, True)]


def test_pixels_are_measured_by_mean_iou_of_given_classes() -> None:
    model = model_of(PROBABILITIES)
    expected, found = np.zeros((2, 1, 3, 10, 10), np.float32)
    expected[0, 0, :5], expected[0, 1, 5:] = 1, 1
    found[0, 0, :4], found[0, 1, 4:9], found[0, 2, 9:] = 1, 1, 1
    fidelity = measure(model, [expected], [found])
    assert fidelity is not None
    assert (fidelity.metric, fidelity.value) == ("mean-iou", f"{(40 / 50 + 40 / 60) / 2:.4f}")


def test_single_class_of_pixels_is_compared_with_its_absence() -> None:
    expected, found = np.zeros((2, 1, 1, 10, 10), np.float32)
    expected[0, 0, :5], found[0, 0, :4] = 0.6, 0.6
    fidelity = measure(model_of(PROBABILITIES), [expected], [found])
    assert fidelity is not None
    assert fidelity.value == f"{(40 / 50 + 50 / 60) / 2:.4f}"


SILENT: dict[str, tuple[LoadedModel, Sequence[Array]]] = {
    "no box": (KINDS["anchors"][0], anchors()),
    "faint boxes": (KINDS["padded detections"][0], padded(FAINT)),
    "no sure class": (model_of(CLASSES), [np.full((1, 3), 1 / 3, np.float32)]),
    "one class of pixels": (model_of(PROBABILITIES), [np.stack([np.ones((4, 4)), *np.zeros((2, 4, 4))])[None]]),
}


@pytest.mark.parametrize("case", SILENT)
def test_images_without_sure_answer_have_no_fidelity(case: str) -> None:
    model, answer = SILENT[case]
    assert measure(model, answer, answer) is None


@pytest.mark.parametrize(("images", "threshold"), [(FEWEST // 2 - 1, None), (FEWEST // 2, "0.9")])
def test_few_answers_refuse_no_file(images: int, threshold: str | None) -> None:
    model, build = KINDS["anchors"]
    sums = sums_of(model)
    for _ in range(images):
        sums.add(build(ONE, TWO), build(ONE), SIZE)
    fidelity = sums.result(0.9)
    assert fidelity is not None
    assert (fidelity.value, fidelity.threshold) == ("0.5000", threshold)


def test_one_lost_answer_of_fewest_refuses_no_cell() -> None:
    required = {minimum for row in ARCHITECTURES.values() for minimum in row.fidelities.values()}
    assert max(required) <= 1 - 1 / FEWEST


def test_outputs_of_unknown_meaning_have_no_fidelity() -> None:
    model = model_of(Output("output_0", (UNKNOWN, UNKNOWN), ""))
    images = [np.full((1, 2), value, np.float32) for value in (0, 1, 2)]
    original = lambda image: (image,)  # noqa: E731
    comparison = compare(model, original, images, original=original, least_fidelity=0.9)
    assert (comparison.fidelity, comparison.fidelity_absent) == (None, NO_MEANING)
    assert compare(model, original, images, original=original).fidelity_absent == NO_IMAGES


def without_half_the_triangles(run: Callable[[Array], Outputs]) -> Callable[[Array], Outputs]:
    """A file that loses the triangles in every second row, about a sixth of all detections, and keeps all else."""

    def run_wrong(image: Array) -> Outputs:
        boxes, scores, labels, count, *masks = run(image)
        filled = np.arange(labels.shape[1]) < count.reshape(-1)[0]
        lost = filled & (labels[0] == labels[0].max()) & (np.arange(len(filled)) % 2 > 0)
        order = np.argsort(lost, kind="stable")
        shown = np.array([count.reshape(-1)[0] - lost.sum()], np.float32)
        return boxes[:, order], scores[:, order], labels[:, order], shown, *(mask[:, order] for mask in masks)

    return run_wrong


def test_file_that_loses_half_of_a_class_is_refused() -> None:
    architecture, precision = "MobileNet", Precision.INT8
    cell = lookup(architecture, Target(Format.ONNX, precision))
    run = without_half_the_triangles(lambda image: run_model(architecture, image))
    images = eval_inputs(architecture)[:32]
    found = compare(load_model(architecture), run, images, least_fidelity=cell.fidelity)
    assert found.value >= cell.threshold.minimum
    with pytest.raises(
        Failure, match=r"fidelity on 32 images is boxes 0\.\d+ >= 0\.9 \(\d+ kept, \d+ missed"
    ) as caught:
        check(found, cell.threshold)
    assert caught.value.reason is Reason.VERIFICATION_FAILED
    assert caught.value.verification is not None
    assert caught.value.verification.fidelity == found.fidelity


def test_agreement_stops_early_and_fidelity_uses_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    model, build = KINDS["padded detections"]
    images = [np.full((1, 3, *SIZE), index / 30, np.float32) for index in range(30)]
    run = lambda image: build(ONE, TWO)  # noqa: E731
    measured = partial(compare, model, run, images, original=run, first=2, enough=0.9, least_fidelity=0.9)
    found = measured()
    assert (found.images, found.fidelity and found.fidelity.images) == (2, 30)
    monkeypatch.setattr(agreement, "FIDELITY_SECONDS", 0)
    hurried = measured()
    assert (hurried.images, hurried.fidelity and hurried.fidelity.images) == (2, 2)


def test_slow_file_is_refused_only_on_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "FIDELITY_SECONDS", 0)
    model, build = KINDS["padded detections"]
    images = [np.full((1, 3, *SIZE), index / 30, np.float32) for index in range(30)]
    run = lambda image: build(ONE, TWO) if image[0, 0, 0, 0] * 30 % 2 > 0.5 else build(ONE)  # noqa: E731
    found = compare(model, run, images, original=lambda image: build(ONE, TWO), first=2, enough=0.5, least_fidelity=0.9)
    assert (found.images, found.fidelity and found.fidelity.images) == (2, 30)
    assert found.fidelity is not None
    assert (found.fidelity.value, found.fidelity.threshold) == ("0.7500", "0.9")


class Images(list[Array]):
    """Images that count how often each is read."""

    def __init__(self, images: Sequence[Array]) -> None:
        super().__init__(images)
        self.read = list[int]()

    def __getitem__(self, index: Any) -> Any:
        self.read.append(index)
        return super().__getitem__(index)


def test_only_images_of_samples_are_drawn() -> None:
    model, build = KINDS["padded detections"]
    images = Images([np.full((1, 3, *SIZE), index / 30, np.float32) for index in range(30)])

    def run(image: Array) -> Outputs:
        return build((20, 10, 60, 50 - 10 * float(image[0, 0, 0, 0]), 0.9, 0))

    found = compare(model, run, images, original=lambda image: build(ONE), least_fidelity=0.9)
    assert images.read == [29, 28, 27, 26, 25, 24], "later ones differ more"
    drawn = [Image.open(io.BytesIO(base64.b64decode(sample["image"]))) for sample in found.samples]
    assert [round(float(np.asarray(image).mean())) for image in drawn] == [246, 238, 229, 221, 212, 204]
