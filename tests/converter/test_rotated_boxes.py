"""Rotated boxes: exact overlaps, the likeness of suppression, and one answer for all descriptions of a box."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from modelexport_converter.boxes import Numbers, suppress
from modelexport_converter.boxes import overlaps as upright_overlaps
from modelexport_converter.rotated_boxes import (
    align_sides,
    corners,
    enclose,
    likenesses,
    overlaps,
    smallest_box,
    suppress_anchors,
)

PI = math.pi
SQUARE = (0.0, 0.0, 10.0, 10.0, 0.0)
OTHER_DESCRIPTIONS: dict[str, Callable[[Numbers], Numbers]] = {
    "half a turn": lambda boxes: turn(boxes, PI),
    "sides exchanged": lambda boxes: turn(boxes[:, [0, 1, 3, 2, 4]], -PI / 2),
    "many turns": lambda boxes: turn(boxes, -20 * PI),
}


def random_boxes(count: int, seed: int) -> Numbers:
    random = np.random.default_rng(seed)
    sizes, angles = random.uniform(2, 60, (count, 2)), random.uniform(-4, 4, count)
    return np.column_stack([random.uniform(0, 100, (count, 2)), sizes, angles])


def turn(boxes: Numbers, angle: float) -> Numbers:
    turned = boxes.copy()
    turned[:, 4] += angle
    return turned


def table(*boxes: tuple[float, ...]) -> Numbers:
    return np.array(boxes, np.float64)


@pytest.mark.parametrize(
    ("other", "wanted"),
    [
        (SQUARE, 1.0),
        ((0, 0, 10, 10, PI / 4), math.sqrt(0.5)),  # they share a regular octagon
        ((5, 0, 10, 10, 0), 1 / 3),
        ((10, 0, 10, 10, 0), 0.0),  # they share a side
        ((0, 0, 20, 5, PI / 2), 50 / 150),  # a cross
        ((0, 0, 2, 4, 0.3), 8 / 100),  # one within the other
        ((5 + 5 * math.sqrt(2), 0, 10, 10, PI / 4), 0.0),  # a corner on a side
        ((5, 5, 10 * math.sqrt(2), 10 * math.sqrt(2), PI / 4), 50 / 250),  # half of the square
        ((3, 3, 0, 8, 1), 0.0),
        ((1e9, 0, 10, 10, 0), 0.0),
    ],
)
def test_overlap_is_exact_where_it_is_known(other: tuple[float, ...], wanted: float) -> None:
    for one, two in ((SQUARE, other), (other, SQUARE)):
        assert overlaps(table(one), table(two))[0, 0] == pytest.approx(wanted, abs=1e-12)


def test_overlap_equals_share_of_random_points() -> None:
    one, other = random_boxes(12, 0), random_boxes(12, 1)
    points = np.random.default_rng(2).uniform(-50, 150, (400_000, 2))
    inside = [[contains(box, points) for box in boxes] for boxes in (one, other)]
    counted = np.array([[(a & b).sum() / (a | b).sum() for b in inside[1]] for a in inside[0]])
    assert (counted > 0.05).sum() > 20
    assert np.abs(overlaps(one, other) - counted).max() < 0.01


def contains(box: Numbers, points: Numbers) -> Any:
    cosine, sine = np.cos(box[4]), np.sin(box[4])
    x, y = (points - box[:2]) @ [cosine, sine], (points - box[:2]) @ [-sine, cosine]
    return (abs(x) <= box[2] / 2) & (abs(y) <= box[3] / 2)


def test_overlap_equals_that_of_opencv() -> None:
    import cv2

    one, other = random_boxes(40, 3), random_boxes(40, 4)
    found = overlaps(one, other)
    for row, first in enumerate(one):
        for column, second in enumerate(other):
            shapes = [
                ((*map(float, box[:2]),), (*map(float, box[2:4]),), math.degrees(box[4])) for box in (first, second)
            ]
            _, shared = cv2.rotatedRectangleIntersection(*shapes)  # type: ignore[call-overload]  # cv2 takes tuples
            area = 0.0 if shared is None else cv2.contourArea(cv2.convexHull(shared))
            union = first[2] * first[3] + second[2] * second[3] - area
            assert found[row, column] == pytest.approx(area / union, abs=2e-3)


def test_upright_boxes_overlap_as_before() -> None:
    boxes = random_boxes(50, 5) * [1, 1, 1, 1, 0]
    assert np.allclose(overlaps(boxes, boxes), upright_overlaps(enclose(boxes), enclose(boxes)), atol=1e-12)


@pytest.mark.parametrize("measure", [overlaps, likenesses])
@pytest.mark.parametrize("other", OTHER_DESCRIPTIONS)
def test_descriptions_of_a_box_are_alike(other: str, measure: Callable[[Numbers, Numbers], Numbers]) -> None:
    boxes, rest = random_boxes(30, 6), random_boxes(30, 7)
    described = OTHER_DESCRIPTIONS[other](boxes)
    assert np.allclose(measure(described, rest), measure(boxes, rest), atol=1e-9)
    assert np.allclose(np.diag(measure(described, boxes)), 1, atol=1e-6)
    assert np.allclose(enclose(described), enclose(boxes))


def test_likeness_equals_that_of_ultralytics() -> None:
    from ultralytics.utils.metrics import batch_probiou

    one, other = random_boxes(60, 8), random_boxes(60, 9)
    wanted = batch_probiou(torch.from_numpy(one), torch.from_numpy(other)).numpy()
    assert np.abs(likenesses(one, other) - wanted).max() < 1e-3  # theirs adds 1e-7 in three places


def test_likeness_of_known_distributions() -> None:
    """A shift by half a side is 3 / 8 of Bhattacharyya's distance: (d / 2)² / (8 d² / 12)."""
    wanted = 1 - math.sqrt(1 - math.exp(-3 / 8))
    assert likenesses(table(SQUARE), table((5, 0, 10, 10, 0)))[0, 0] == pytest.approx(wanted)
    assert likenesses(table(SQUARE), table((0, 0, 10, 10, 0.7)))[0, 0] == pytest.approx(1)


@pytest.mark.parametrize("measure", [overlaps, likenesses])
def test_boxes_without_area_overlap_nothing(measure: Callable[[Numbers, Numbers], Numbers]) -> None:
    flat = table((0, 0, 0, 5, 1), (0, 0, 0, 0, 0), (0, 0, 5, 0, 0))
    assert not measure(flat, flat).any()
    assert not measure(flat, table(SQUARE)).any()
    assert measure(np.zeros((0, 5)), table(SQUARE)).shape == (0, 1)


def test_suppression_keeps_best_of_a_place_and_class() -> None:
    boxes = table(
        (50, 50, 40, 10, 0.5), (50, 51, 40, 10, 0.5 + PI), (50, 50, 40, 10, 0.5 + PI / 2), (50, 50, 40, 10, 0.5)
    )
    assert list(suppress(boxes, np.array([0, 0, 0, 1]), 0.5, likenesses)) == [0, 2, 3]


def test_suppression_equals_that_of_ultralytics_without_chains() -> None:
    """ultralytics' suppressed boxes suppress others; where no kept box is near these, both keep the same."""
    from ultralytics.utils.metrics import batch_probiou

    boxes = random_boxes(150, 10)
    shares = batch_probiou(torch.from_numpy(boxes), torch.from_numpy(boxes)).numpy()
    by_ultralytics = np.flatnonzero((np.triu(shares, 1) <= 0.5).all(0))
    kept = list(suppress(boxes, np.zeros(150, np.intp), 0.5, likenesses))
    assert set(by_ultralytics) <= set(kept)
    for place in set(kept) - set(by_ultralytics.tolist()):
        near = np.flatnonzero(shares[:place, place] > 0.5)
        assert not set(near.tolist()) & set(kept)


def test_corners_follow_outline_from_upper_left() -> None:
    assert np.allclose(corners(table((10, 20, 6, 4, 0)))[0], [[7, 18], [13, 18], [13, 22], [7, 22]])
    assert np.allclose(corners(table((10, 20, 6, 4, PI / 2)))[0], [[12, 17], [12, 23], [8, 23], [8, 17]])


@pytest.mark.parametrize("seed", range(5))
def test_smallest_box_is_found_from_its_corners_in_any_order(seed: int) -> None:
    (box,) = random_boxes(1, seed + 20)
    points = np.random.default_rng(seed).permutation(corners(box[None])[0])
    found = smallest_box(points)
    assert overlaps(found[None], box[None])[0, 0] == pytest.approx(1)


def test_smallest_box_of_other_outlines() -> None:
    import cv2

    for seed in range(20):
        points = np.random.default_rng(seed).uniform(0, 100, (4, 2))
        _, sides, _ = cv2.minAreaRect(points.astype(np.float32))
        found = smallest_box(points)
        assert found[2] * found[3] == pytest.approx(sides[0] * sides[1], rel=1e-4)
        assert contains(found * [1, 1, 1 + 1e-6, 1 + 1e-6, 1], points).all()


@pytest.mark.parametrize("points", [[[3, 4]] * 4, [[0, 0], [1, 1], [2, 2], [3, 3]]], ids=["a point", "a line"])
def test_smallest_box_of_no_area_has_none(points: list[list[float]]) -> None:
    found = smallest_box(np.array(points, np.float64))
    assert found[2] * found[3] == pytest.approx(0, abs=1e-9)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("other", OTHER_DESCRIPTIONS)
def test_aligned_sides_of_one_box_are_equal(other: str) -> None:
    boxes = random_boxes(40, 30)
    one, two = align_sides(boxes, OTHER_DESCRIPTIONS[other](boxes))
    assert np.allclose(one, two)


def test_aligned_sides_of_upright_boxes_are_width_and_height() -> None:
    one, two = align_sides(table((1, 2, 30, 20, 0)), table((3, 4, 33, 18, 0)))
    assert one.tolist() == [[1, 2, 30, 0, 0, 20]]
    assert two.tolist() == [[3, 4, 33, 0, 0, 18]]


@pytest.mark.parametrize("degrees", [1.0, 10.0, -30.0])
def test_aligned_sides_differ_by_the_turn(degrees: float) -> None:
    box = table((0, 0, 40, 10, 1))
    for describe in OTHER_DESCRIPTIONS.values():
        one, two = align_sides(box, describe(turn(box, math.radians(degrees))))
        wanted = 2 * math.sin(math.radians(abs(degrees)) / 2) * math.hypot(40, 10)
        assert np.linalg.norm(one - two) == pytest.approx(wanted)


def test_suppressed_anchors_have_no_negative_sides() -> None:
    boxes = np.array([[[1, 5], [2, 6], [-3, 7], [4, -8]]], np.float32)
    angles = np.array([[[0.5, 0.25]]], np.float32)
    found, places = suppress_anchors(boxes, angles, np.array([1, 0]), np.array([0, 0]), most=0.5, count=9)
    assert found.tolist() == [[5, 6, 7, 0, 0.25], [1, 2, 0, 4, 0.5]]
    assert places == [0, 1]


def test_suppressed_anchors_are_limited_by_class_and_count() -> None:
    boxes = np.tile(np.array([[[5.0], [5], [8], [4]]]), 4)
    angles, anchors, labels = np.zeros((1, 1, 4)), np.array([3, 1, 0, 2]), np.array([0, 0, 1, 2])
    assert suppress_anchors(boxes, angles, anchors, labels, most=0.7, count=9)[1] == [0, 2, 3]
    assert suppress_anchors(boxes, angles, anchors, labels, most=0.7, count=2)[1] == [0, 2]
