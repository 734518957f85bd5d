"""Reads outputs as the users of a file read them: detections after suppression, in pixels of the input."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from modelexport_converter.backends import Array
from modelexport_converter.boxes import Numbers, suppress
from modelexport_converter.model import Output
from modelexport_converter.rotated_boxes import enclose, suppress_anchors
from modelexport_converter.verification.detections import UnpaddedDetections
from modelexport_converter.verification.informative_images import DETECTED

MOST_OVERLAP = 0.5
"""Suppression of boxes of one class, as torchvision's detectors do by default; YOLOX 0.45, ultralytics 0.7.

Of rotated boxes it is the probabilistic intersection over union.
"""
MOST_CANDIDATES, MOST_DETECTIONS = 4096, 300
"""Boxes that enter suppression, and that leave it: a network with random weights may be sure of every anchor."""
VISIBLE = 0.5
"""The least visibility of a keypoint that counts."""
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Detections:
    """The detections of one image with a score of DETECTED at least, best first.

    Attributes:
        boxes: left, top, right, bottom in pixels of the input, (n, 4); of rotated boxes, those around them.
        scores: (n,).
        labels: (n,), places among the class names.
        keypoints: x and y in pixels, (n, keypoints, 2); ``None`` if the model has none.
        visible: which keypoints are visible, (n, keypoints).
        mask: returns the mask of a detection by its index, (height, width); ``None`` if the model has none.
        rotated: the boxes in pixels with their angles, (n, 5), as in ``rotated_boxes``; ``None`` if they are upright.
    """

    boxes: Numbers
    scores: Numbers
    labels: npt.NDArray[np.intp]
    keypoints: Numbers | None = None
    visible: Mask | None = None
    mask: Callable[[int], Mask] | None = None
    rotated: Numbers | None = None


def read_detections(outputs: Sequence[Output], input_size: tuple[int, int], answer: Sequence[Array]) -> Detections:
    """Read one image's outputs of a detector, for inputs of (height, width).

    Raises:
        Failure: ``VerificationFailed``: a file that suppresses boxes itself reports that it has no answer.
    """
    named = {output.name: values for output, values in zip(outputs, answer, strict=True)}
    if "count" in named:
        return _read_suppressed(UnpaddedDetections.read(outputs, answer).visible(input_size), input_size)
    return _read_anchors(named, input_size)


def _read_suppressed(found: UnpaddedDetections, input_size: tuple[int, int]) -> Detections:
    """Read detections that the file has suppressed already."""
    (sure,) = np.nonzero(found.scores >= DETECTED)
    order = sure[np.argsort(-found.scores[sure], kind="stable")]
    boxes = found.boxes[order] * _corner_scale(input_size)
    masks = None if found.masks is None else found.masks[order]
    draw = None if masks is None else lambda index: _stretch(masks[index], boxes[index], input_size)
    return Detections(boxes, found.scores[order], found.labels[order].astype(np.intp), mask=draw)


def _read_anchors(named: Mapping[str, Array], input_size: tuple[int, int]) -> Detections:
    """Suppress the boxes of a detector that returns all anchors, each with its best class."""
    scores, labels = named["scores"][0].max(axis=0), named["scores"][0].argmax(axis=0)
    (sure,) = np.nonzero(scores >= DETECTED)
    sure = sure[np.argsort(-scores[sure], kind="stable")[:MOST_CANDIDATES]]
    if "angles" in named:
        turned = named["boxes"], named["angles"], sure, labels[sure]
        rotated, kept = suppress_anchors(*turned, most=MOST_OVERLAP, count=MOST_DETECTIONS)
        confidence = scores[sure[kept]].astype(np.float64)
        return Detections(enclose(rotated), confidence, labels[sure[kept]], rotated=rotated)
    centre, half = named["boxes"][0, :2, sure].astype(np.float64), named["boxes"][0, 2:, sure].astype(np.float64) / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1) * _corner_scale(input_size)
    confidence = scores[sure].astype(np.float64)
    kept = list(islice(suppress(boxes, labels[sure], MOST_OVERLAP), MOST_DETECTIONS))
    anchors, boxes = sure[kept], boxes[kept]
    keypoints = visible = draw = None
    if "keypoints" in named:
        located = np.moveaxis(named["keypoints"][0][..., anchors], -1, 0).astype(np.float64)
        keypoints = located[..., :2] * input_size[::-1]
        visible = located[..., 2] >= VISIBLE if located.shape[2] > 2 else np.ones(located.shape[:2], bool)
    if "prototypes" in named:
        coefficients, prototypes = named["mask_coefficients"][0][:, anchors], named["prototypes"][0]
        draw = lambda index: _combine(coefficients[:, index], prototypes, boxes[index], input_size)  # noqa: E731
    return Detections(boxes, confidence[kept], labels[anchors], keypoints, visible, draw)


def _corner_scale(input_size: tuple[int, int]) -> Numbers:
    return np.array(input_size[::-1] * 2, np.float64)


def _combine(coefficients: Array, prototypes: Array, box: Numbers, input_size: tuple[int, int]) -> Mask:
    """Return the mask of one detection: the weighted sum of the prototypes above 0, cut at its box."""
    logits = torch.from_numpy(np.tensordot(coefficients, prototypes, axes=1).astype(np.float32))[None, None]
    pixels = torch.nn.functional.interpolate(logits, input_size, mode="bilinear", align_corners=False)[0, 0] > 0
    mask = np.zeros(input_size, bool)
    rows, columns = _pixels_of(box, input_size)
    mask[rows, columns] = pixels.numpy()[rows, columns]
    return mask


def _stretch(probabilities: Array, box: Numbers, input_size: tuple[int, int]) -> Mask:
    """Return the mask of one detection: probabilities (rows, columns) within its box, above 0.5."""
    mask = np.zeros(input_size, bool)
    places = _pixels_of(box, input_size)
    cells = [
        (np.clip((np.arange(span.start, span.stop) + 0.5 - low) / (high - low), 0, 1 - 1e-9) * count).astype(int)
        for span, low, high, count in zip(places, box[[1, 0]], box[[3, 2]], probabilities.shape, strict=True)
    ]
    mask[places] = probabilities[np.ix_(*cells)] > 0.5
    return mask


def _pixels_of(box: Numbers, input_size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns whose centres are within a box."""
    left, top, right, bottom = np.ceil(box - 0.5).astype(int)
    height, width = input_size
    return (
        slice(int(np.clip(top, 0, height)), int(np.clip(bottom, 0, height))),
        slice(int(np.clip(left, 0, width)), int(np.clip(right, 0, width))),
    )
