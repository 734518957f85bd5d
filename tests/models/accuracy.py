"""Task accuracy of YOLOv8 outputs as the converter splits them: decoding, non-maximum suppression, and mean precision.

All arrays are float, batch 1, and have N anchors:

    boxes          (1, 4, N)         centre x, centre y, width, height, divided by the input's width and height
    scores         (1, C, N)         after the sigmoid
    coefficients   (1, 32, N)        of the masks
    prototypes     (1, 32, H/4, W/4)
    keypoints      (1, K, 3, N)      x and y divided like the boxes, visibility after the sigmoid
    probabilities  (1, C)            of a classifier

Thresholds are those of ultralytics' validation: scores above 0.001, suppression above IoU 0.7 within a class, several
classes per anchor, at most 300 detections per picture. Only numpy and pycocotools are needed.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Array = npt.NDArray[Any]
Truth = Mapping[str, Any]  # COCO instances, as in data/eval.json

LEAST_SCORE = 0.001
MOST_OVERLAP = 0.7
MOST_DETECTIONS = 300
KEYPOINT_SIGMA = 0.1  # between COCO's elbows (.072) and hips (.107); the pose model was trained with it


@dataclass(frozen=True)
class Letterbox:
    """Sizes, each (width, height) in pixels, of a picture and of the input it was scaled into with equal borders."""

    picture: tuple[int, int]
    input: tuple[int, int]

    @property
    def scale(self) -> float:
        """Input pixels per picture pixel."""
        return min(self.input[0] / self.picture[0], self.input[1] / self.picture[1])

    @property
    def border(self) -> Array:
        """Left and upper border in input pixels; the odd pixel goes right and below, as in ultralytics' LetterBox."""
        scaled = np.round(np.array(self.picture) * self.scale)
        return np.asarray(np.round((self.input - scaled) / 2 - 0.1))

    def to_picture(self, points: Array) -> Array:
        """Points (..., 2), divided by the input's size, to pixels of the picture, clipped to it."""
        pixels = (points * self.input - self.border) / self.scale
        return np.asarray(pixels.clip(0, self.picture))


@dataclass(frozen=True)
class Detections:
    """What suppression kept, best first: xyxy (n, 4) divided by the input size, scores, labels and anchors (n,)."""

    boxes: Array
    scores: Array
    labels: Array
    anchors: Array

    def pick(self, output: Array) -> Array:
        """The kept anchors' part of another output (1, ..., N), as (n, ...)."""
        return np.moveaxis(output[0][..., self.anchors], -1, 0)


@dataclass(frozen=True)
class Found:
    """Detections in pixels of the picture: boxes xyxy (n, 4), scores and labels (n,), masks as COCO run lengths, and
    keypoints (n, K, 3).

    A model without masks or keypoints leaves `masks` empty or K at 0.
    """

    boxes: Array
    scores: Array
    labels: Array
    masks: Sequence[Mapping[str, Any]]
    keypoints: Array


def find(
    letterbox: Letterbox,
    boxes: Array,
    scores: Array,
    *,
    coefficients: Array | None = None,
    prototypes: Array | None = None,
    keypoints: Array | None = None,
) -> Found:
    """Decodes one picture's outputs; masks need both `coefficients` and `prototypes`."""
    kept = nms_decode(boxes, scores)
    corners = letterbox.to_picture(kept.boxes.reshape(-1, 2, 2)).reshape(-1, 4)
    masks: Sequence[Mapping[str, Any]] = ()
    if coefficients is not None and prototypes is not None:
        masks = assemble_masks(letterbox, corners, kept.pick(coefficients), prototypes[0])
    picked = np.zeros((len(corners), 0, 3)) if keypoints is None else kept.pick(keypoints)
    located = np.concatenate([letterbox.to_picture(picked[..., :2]), picked[..., 2:]], axis=-1)
    return Found(corners, kept.scores, kept.labels, masks, located)


def nms_decode(boxes: Array, scores: Array) -> Detections:
    """Suppresses, class by class, all but the best of overlapping boxes (1, 4, N) with scores (1, C, N)."""
    labels, anchors = np.nonzero(scores[0] > LEAST_SCORE)
    confidence = scores[0][labels, anchors]
    order = np.argsort(-confidence, kind="stable")
    labels, anchors, confidence = labels[order], anchors[order], confidence[order]
    centre, half = boxes[0, :2, anchors], boxes[0, 2:, anchors] / 2
    corners = np.concatenate([centre - half, centre + half], axis=1).astype(np.float64)
    kept = _suppress(corners, labels)
    return Detections(corners[kept], confidence[kept], labels[kept], anchors[kept])


def _suppress(corners: Array, labels: Array) -> Array:
    """Indices of the boxes, sorted best first, that no better kept box of their class overlaps too much."""
    apart = corners + 4.0 * labels[:, None]  # normalised boxes of different classes can then not meet
    areas = (apart[:, 2] - apart[:, 0]) * (apart[:, 3] - apart[:, 1])
    remaining = np.arange(len(corners))
    kept: list[int] = []
    while remaining.size and len(kept) < MOST_DETECTIONS:
        best, rest = remaining[0], remaining[1:]
        kept.append(int(best))
        sides = np.minimum(apart[best, 2:], apart[rest, 2:]) - np.maximum(apart[best, :2], apart[rest, :2])
        shared = sides.clip(0).prod(axis=1)
        remaining = rest[shared <= MOST_OVERLAP * (areas[best] + areas[rest] - shared)]
    return np.array(kept, dtype=np.intp)


def assemble_masks(
    letterbox: Letterbox, corners: Array, coefficients: Array, prototypes: Array
) -> list[Mapping[str, Any]]:
    """Masks of n detections as COCO run lengths of the picture: coefficients (n, 32) times prototypes (32, h, w),
    interpolated to the picture's pixels, cut at zero and at the boxes `corners` (n, 4)."""
    rows = _interpolation(letterbox, 1, prototypes.shape[1])
    columns = _interpolation(letterbox, 0, prototypes.shape[2])
    masks = []
    for box, weights in zip(corners, coefficients.astype(np.float32), strict=True):
        left, top, right, bottom = np.ceil(box).astype(int)
        logits = np.tensordot(weights, prototypes.astype(np.float32), axes=1)
        mask = np.zeros(letterbox.picture[::-1], dtype=np.uint8, order="F")
        mask[top:bottom, left:right] = rows[top:bottom] @ logits @ columns[left:right].T > 0
        masks.append(rle.encode(mask))
    return masks


def _interpolation(letterbox: Letterbox, axis: int, cells: int) -> Array:
    """Linear interpolation weights (pixels, cells) from prototype cells to picture pixels along x (0) or y (1)."""
    pixels = np.arange(letterbox.picture[axis]) + 0.5
    cell = (pixels * letterbox.scale + letterbox.border[axis]) * cells / letterbox.input[axis] - 0.5
    weights = np.maximum(0, 1 - abs(cell.clip(0, cells - 1)[:, None] - np.arange(cells)))
    return np.asarray(weights, dtype=np.float32)


def box_map(truth: Truth, found: Mapping[int, Found]) -> float:
    """mAP50-95 of boxes; `found` is keyed by the picture ids of `truth` and lacks none of them."""
    return _mean_precision(truth, found, "bbox")


def mask_map(truth: Truth, found: Mapping[int, Found]) -> float:
    """mAP50-95 of masks at the pictures' own resolution."""
    return _mean_precision(truth, found, "segm")


def keypoint_map(truth: Truth, found: Mapping[int, Found], sigma: float = KEYPOINT_SIGMA) -> float:
    """mAP50-95 of keypoints by object keypoint similarity, with one `sigma` for all keypoints."""
    return _mean_precision(truth, found, "keypoints", sigma)


def top1(probabilities: Iterable[Array], labels: Iterable[int]) -> float:
    """Share of the pictures whose most probable class (1, C) is the labelled one."""
    hits = [int(row.argmax()) == label for row, label in zip(probabilities, labels, strict=True)]
    return sum(hits) / len(hits)


def _mean_precision(truth: Truth, found: Mapping[int, Found], kind: str, sigma: float | None = None) -> float:
    """Mean over IoU thresholds .50-.95, recall levels and classes, as COCOeval defines it.

    Raises KeyError if a picture of `truth` is missing in `found`.
    """
    results = [row for image in truth["images"] for row in _results(image["id"], found[image["id"]], kind)]
    if not results:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        reference = COCO()
        reference.dataset = copy.deepcopy(dict(truth))  # evaluation writes into the annotations
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(results), kind)
        evaluation.params.maxDets = [MOST_DETECTIONS]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        if sigma is not None:
            evaluation.params.kpt_oks_sigmas = np.full(len(truth["annotations"][0]["keypoints"]) // 3, sigma)
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]
    return float(precision[precision >= 0].mean())


def _results(image: int, found: Found, kind: str) -> Iterable[dict[str, Any]]:
    for index, (left, top, right, bottom) in enumerate(found.boxes.tolist()):
        row = {"image_id": image, "category_id": int(found.labels[index]), "score": float(found.scores[index])}
        if kind == "bbox":
            yield row | {"bbox": [left, top, right - left, bottom - top]}
        elif kind == "segm":
            yield row | {"segmentation": dict(found.masks[index])}
        else:
            yield row | {"keypoints": found.keypoints[index].ravel().tolist()}
