import copy
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle

from modelexport_converter.evaluation.detections import (
    Detections,
    ImageDetections,
    Letterbox,
    assemble_masks,
    find,
    find_rotated,
    suppress,
)
from models import accuracy

WIDE = Letterbox(image=(320, 256), input=(160, 160))


def outputs(*boxes: tuple[float, float, float, float, int, float]) -> tuple[accuracy.Array, accuracy.Array]:
    """Split outputs of a three-class model from (centre x, centre y, width, height, label, score)."""
    scores = np.zeros((1, 3, len(boxes)))
    for anchor, (*_, label, score) in enumerate(boxes):
        scores[0, label, anchor] = score
    return np.array([box[:4] for box in boxes]).T[None], scores


def test_weaker_overlapping_box_of_same_class_is_dropped() -> None:
    kept = suppress(*outputs((0.5, 0.5, 0.4, 0.4, 1, 0.8), (0.51, 0.5, 0.4, 0.4, 1, 0.9)))
    assert kept.anchors.tolist() == [1]
    assert np.allclose(kept.boxes, [[0.31, 0.3, 0.71, 0.7]])


def test_box_overlapping_only_dropped_box_stays() -> None:
    row = [(0.3, 0.5, 0.4, 0.4, 0, 0.9), (0.36, 0.5, 0.4, 0.4, 0, 0.8), (0.42, 0.5, 0.4, 0.4, 0, 0.7)]
    assert suppress(*outputs(*row)).anchors.tolist() == [0, 2]


def test_overlapping_boxes_of_different_classes_stay() -> None:
    kept = suppress(*outputs((0.5, 0.5, 0.4, 0.4, 1, 0.8), (0.5, 0.5, 0.4, 0.4, 2, 0.9)))
    assert kept.labels.tolist() == [2, 1]


def test_boxes_overlapping_below_limit_stay() -> None:
    shift = 0.4 * (1 - 0.69) / (1 + 0.69)  # moves a square of side 0.4 to an IoU of 0.69
    kept = suppress(*outputs((0.5, 0.5, 0.4, 0.4, 0, 0.8), (0.5 + shift, 0.5, 0.4, 0.4, 0, 0.9)))
    assert len(kept.scores) == 2


def test_scores_up_to_0_001_are_no_detections() -> None:
    assert suppress(*outputs((0.5, 0.5, 0.4, 0.4, 1, 0.001))).boxes.shape == (0, 4)


def test_at_most_300_detections_are_kept() -> None:
    grid = [(0.02 + 0.05 * (i % 20), 0.02 + 0.05 * (i // 20), 0.01, 0.01, 0, 0.5) for i in range(400)]
    assert len(suppress(*outputs(*grid)).scores) == 300


def test_extra_outputs_follow_their_anchor() -> None:
    empty = np.zeros(0)
    picked = Detections(empty, empty, empty, np.array([2, 0])).pick(np.arange(12).reshape(1, 2, 2, 3))
    assert picked.tolist() == [[[2, 5], [8, 11]], [[0, 3], [6, 9]]]


def test_letterboxed_point_maps_back_to_image() -> None:
    assert WIDE.border.tolist() == [0, 16]
    assert np.allclose(WIDE.to_image(np.array([[0.25, 0.5], [0.5, 0.1]])), [[80, 128], [160, 0]])
    assert np.allclose(WIDE.to_image(np.array([0.25, 0.3])), [80, 64])


def test_rotated_box_maps_back_to_image_in_pixels() -> None:
    """It keeps its angle, and is not cut at the image."""
    boxes = np.array([[[40, 150, 41], [80, 30, 81], [20, 60, 20], [10, 20, 10]]], np.float32)
    angles = np.array([[[0.3, 1.2, 0.3]]], np.float32)
    scores = np.array([[[0.9, 0.5, 0.8], [0.0, 0.0, 0.0]]], np.float32)
    answer = find_rotated(WIDE, boxes, scores, angles)
    assert answer.rotated == pytest.approx(np.array([[80, 128, 40, 20, 0.3], [300, 28, 120, 40, 1.2]]))
    assert (answer.scores.tolist(), answer.labels.tolist()) == ([pytest.approx(0.9), 0.5], [0, 0])
    assert answer.boxes[1, 1] < 0
    assert find_rotated(WIDE, boxes, scores * 0, angles).boxes.shape == (0, 4)


def test_odd_padding_pixel_goes_right_and_below() -> None:
    assert Letterbox(image=(100, 99), input=(100, 100)).border.tolist() == [0, 0]


def test_mask_is_prototype_cut_at_zero_and_at_box() -> None:
    prototypes = np.full((2, 40, 40), -1.0)
    prototypes[1, :, :20] = 3.0  # the left half of the input
    corners = np.array([[40.0, 64.0, 240.0, 192.0]])
    (mask,) = assemble_masks(WIDE, corners, np.array([[0.0, 1.0]]), prototypes)
    assert mask["size"] == [256, 320]
    # 3 and -1 meet at zero a quarter of a cell, that is of 8 image pixels, right of the edge between their cells
    assert rle.toBbox(mask).tolist() == [40, 64, 162 - 40, 192 - 64]
    assert rle.area(mask) == (162 - 40) * (192 - 64)


def truth() -> dict[str, Any]:
    """A square of class 0 in one image and of class 1 in the other, with keypoints at the corners; no class 2."""
    annotations = []
    for image, (left, side) in enumerate([(10, 40), (100, 80)], start=1):
        right = left + side
        corners = [left, left, right, left, right, right, left, right]
        keypoints = [number for x, y in zip(corners[::2], corners[1::2], strict=True) for number in (x, y, 2)]
        annotations.append(
            {
                "id": image, "image_id": image, "category_id": image - 1, "bbox": [left, left, side, side],
                "area": side * side, "segmentation": [corners], "iscrowd": 0,
                "keypoints": keypoints, "num_keypoints": 4,
            }
        )  # fmt: skip
    images = [{"id": image, "width": 320, "height": 320} for image in (1, 2)]
    return {"images": images, "annotations": annotations, "categories": [{"id": 0}, {"id": 1}, {"id": 2}]}


def found(shift: float = 0, relabel: int = 0) -> dict[int, ImageDetections]:
    """Detections that match the truth, moved right by `shift` pixels and with `relabel` added to the labels."""
    answers = {}
    for row in truth()["annotations"]:
        left, top, width, height = row["bbox"]
        corners = np.array(row["keypoints"], dtype=float).reshape(1, 4, 3) + np.array([shift, 0, 0])
        polygon = [corners[0, :, :2].ravel().tolist()]
        answers[row["image_id"]] = ImageDetections(
            boxes=np.array([[left + shift, top, left + width + shift, top + height]]),
            scores=np.array([0.9]),
            labels=np.array([row["category_id"] + relabel]),
            masks=rle.frPyObjects(polygon, 320, 320),
            keypoints=corners,
        )
    return answers


MEASURES = [accuracy.box_map, accuracy.mask_map, accuracy.keypoint_map]


@pytest.mark.parametrize("measure", MEASURES)
def test_perfect_answers_score_one(measure: Any) -> None:
    assert measure(truth(), found()) == pytest.approx(1)


@pytest.mark.parametrize("measure", MEASURES)
def test_shifted_answers_score_less_but_not_nothing(measure: Any) -> None:
    assert 0.3 < measure(truth(), found(shift=8)) < 0.9


@pytest.mark.parametrize("measure", MEASURES)
def test_answers_of_wrong_class_score_nothing(measure: Any) -> None:
    assert measure(truth(), found(relabel=1)) == 0


@pytest.mark.parametrize("measure", MEASURES)
def test_evaluation_does_not_change_labels(measure: Any) -> None:
    given = truth()
    before = copy.deepcopy(given)
    measure(given, found())
    assert given == before


def test_image_without_answer_is_error() -> None:
    with pytest.raises(KeyError):
        accuracy.box_map(truth(), {1: found()[1]})


def test_no_detections_score_nothing() -> None:
    boxes, scores = outputs((0.5, 0.5, 0.4, 0.4, 1, 0))
    nothing = find(WIDE, boxes, scores, keypoints=np.zeros((1, 4, 3, 1)))
    assert accuracy.keypoint_map(truth(), {1: nothing, 2: nothing}) == 0


def test_keypoints_are_in_pixels_with_visibility() -> None:
    boxes, scores = outputs((0.5, 0.5, 0.4, 0.4, 1, 0.9))
    keypoints = np.array([[0.25, 0.3, 0.8], [0.5, 0.5, 0.7]]).reshape(1, 2, 3, 1)
    answer = find(WIDE, boxes, scores, keypoints=keypoints)
    assert np.allclose(answer.keypoints, [[[80, 64, 0.8], [160, 128, 0.7]]])


def test_top1_is_share_of_correct_likeliest_classes() -> None:
    probabilities = [np.array([[0.2, 0.8]]), np.array([[0.6, 0.4]]), np.array([[0.3, 0.7]]), np.array([[0.9, 0.1]])]
    assert accuracy.top1(probabilities, [1, 0, 0, 0]) == 0.75
