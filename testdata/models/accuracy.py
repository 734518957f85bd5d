"""Measures task accuracy of detections on all evaluation images at once, by pycocotools alone.

The converter decodes the detections (``evaluation.detections``) and measures the same in another way, image by image.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from modelexport_converter.evaluation.detections import MOST_DETECTIONS, ImageDetections
from modelexport_converter.rotated_boxes import overlaps, smallest_box
from models.shapes import KEYPOINT_SIGMA

Array = npt.NDArray[Any]
Truth = Mapping[str, Any]  # COCO instances, as in data/eval.json


def box_map(truth: Truth, found: Mapping[int, ImageDetections]) -> float:
    """Return mAP50-95 of boxes; `found` has an entry for every image id of `truth`."""
    return _mean_precision(truth, found, "bbox")


def mask_map(truth: Truth, found: Mapping[int, ImageDetections]) -> float:
    """Return mAP50-95 of masks at the images' own resolution."""
    return _mean_precision(truth, found, "segm")


def keypoint_map(truth: Truth, found: Mapping[int, ImageDetections], sigma: float = KEYPOINT_SIGMA) -> float:
    """Return mAP50-95 of keypoints by object keypoint similarity, with one `sigma` for all keypoints."""
    return _mean_precision(truth, found, "keypoints", sigma)


def rotated_map(
    truth: Truth, found: Mapping[int, ImageDetections], measure: Callable[[Array, Array], Array] = overlaps
) -> float:
    """Return mAP50-95 of rotated boxes by their exact overlap or another measure; `truth` has `corners` of objects."""
    return _mean_precision(truth, found, "rotated", measure=measure)


def top1(probabilities: Iterable[Array], labels: Iterable[int]) -> float:
    """Return the share of images whose most probable class (1, C) is the labelled one."""
    hits = [int(row.argmax()) == label for row, label in zip(probabilities, labels, strict=True)]
    return sum(hits) / len(hits)


def _mean_precision(
    truth: Truth,
    found: Mapping[int, ImageDetections],
    kind: str,
    sigma: float | None = None,
    measure: Callable[[Array, Array], Array] | None = None,
) -> float:
    """Return the mean over IoU thresholds .50-.95, recall levels and classes, as COCOeval defines it.

    Raises:
        KeyError: an image of `truth` is missing in `found`.
    """
    results = [row for image in truth["images"] for row in _results(image["id"], found[image["id"]], kind)]
    if not results:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        reference = COCO()
        reference.dataset = copy.deepcopy(dict(truth))  # evaluation writes into the annotations
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(results), "bbox" if kind == "rotated" else kind)
        evaluation.params.maxDets = [MOST_DETECTIONS]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        if sigma is not None:
            evaluation.params.kpt_oks_sigmas = np.full(len(truth["annotations"][0]["keypoints"]) // 3, sigma)
        if measure is not None:
            evaluation.computeIoU = partial(_overlap_rotated, evaluation, measure)
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]
    return float(precision[precision >= 0].mean())


def _overlap_rotated(evaluation: Any, measure: Callable[[Array, Array], Array], image: int, label: int) -> Any:
    """Return the overlaps of the detections of a class, best first, with its objects, as COCOeval wants them."""
    objects, found = (rows[image, label] for rows in (evaluation._gts, evaluation._dts))
    if not objects or not found:
        return []
    best = sorted(found, key=lambda row: -row["score"])[: evaluation.params.maxDets[-1]]
    truth = np.array([smallest_box(np.reshape(row["corners"], (4, 2))) for row in objects])
    return measure(np.array([row["rotated"] for row in best]), truth)


def _results(image: int, found: ImageDetections, kind: str) -> Iterable[dict[str, Any]]:
    for index, (left, top, right, bottom) in enumerate(found.boxes.tolist()):
        row = {"image_id": image, "category_id": int(found.labels[index]), "score": float(found.scores[index])}
        if kind == "bbox":
            yield row | {"bbox": [left, top, right - left, bottom - top]}
        elif kind == "segm":
            yield row | {"segmentation": dict(found.masks[index])}
        elif kind == "rotated" and found.rotated is not None:
            yield row | {"bbox": [left, top, right - left, bottom - top], "rotated": found.rotated[index]}
        else:
            yield row | {"keypoints": found.keypoints[index].ravel().tolist()}
