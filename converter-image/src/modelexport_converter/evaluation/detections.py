"""Turns the outputs of a model into detections in pixels of the image.

All arrays are float, of batch 1. Detectors without suppression of their own have N anchors:

    boxes              (1, 4, N)         centre x, centre y, width, height, divided by the input's width and height
    scores             (1, C, N)         after the sigmoid
    mask_coefficients  (1, 32, N)
    prototypes         (1, 32, H/4, W/4)
    keypoints          (1, K, 2 or 3, N) x and y divided like the boxes, visibility after the sigmoid
    angles             (1, 1, N)         of boxes in pixels, which are turned by them

Others list D detections, the first ``count`` of which are filled: boxes (1, D, 4) as left, top, right, bottom divided
by the input's width and height; scores and labels (1, D); masks (1, D, 28, 28) within the boxes.

Thresholds are those of ultralytics' validation: scores above 0.001, suppression above IoU 0.7 within a class, several
classes per anchor, at most 300 detections per image. Rotated boxes are suppressed by their probabilistic IoU, as there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as rle

from modelexport_converter.rotated_boxes import enclose, suppress_anchors

Array = npt.NDArray[Any]

LEAST_SCORE = 0.001
MOST_OVERLAP = 0.7
MOST_DETECTIONS = 300
MOST_CANDIDATES = 30_000
"""Boxes that suppression compares at most, as in ultralytics' validation."""


class Placement(Protocol):
    """Where an image lies in the input of the model."""

    @property
    def image(self) -> tuple[int, int]:
        """Width and height of the image in pixels."""

    def to_image(self, points: Array) -> Array:
        """Convert points (..., 2), divided by the input's size, to pixels of the image, clipped to it."""


@dataclass(frozen=True)
class Letterbox:
    """Sizes, each (width, height) in pixels, of an image and of the input it was scaled into with equal borders."""

    image: tuple[int, int]
    input: tuple[int, int]

    @property
    def scale(self) -> float:
        """Input pixels per image pixel."""
        return min(self.input[0] / self.image[0], self.input[1] / self.image[1])

    @property
    def border(self) -> Array:
        """Left and upper border in input pixels; the odd pixel goes right and below, as in ultralytics' LetterBox."""
        scaled = np.round(np.array(self.image) * self.scale)
        return np.asarray(np.round((self.input - scaled) / 2 - 0.1))

    def to_image(self, points: Array) -> Array:
        """Convert points (..., 2), divided by the input's size, to pixels of the image, clipped to it."""
        pixels = (points * self.input - self.border) / self.scale
        return np.asarray(pixels.clip(0, self.image))


@dataclass(frozen=True)
class Stretched:
    """An image of (width, height) in pixels that was scaled to the input without keeping its proportions."""

    image: tuple[int, int]

    def to_image(self, points: Array) -> Array:
        """Convert points (..., 2), divided by the input's size, to pixels of the image, clipped to it."""
        return np.asarray((points * self.image).clip(0, self.image))


@dataclass(frozen=True)
class Detections:
    """Detections kept by suppression, best first: xyxy (n, 4) divided by the input size, scores, labels and anchors
    (n,).
    """

    boxes: Array
    scores: Array
    labels: Array
    anchors: Array

    def pick(self, output: Array) -> Array:
        """Return the kept anchors of another output: (1, ..., N) to (n, ...)."""
        return np.moveaxis(output[0][..., self.anchors], -1, 0)


@dataclass(frozen=True)
class ImageDetections:
    """Detections in pixels of the image, masks as COCO run lengths.

    boxes are xyxy (n, 4), scores and labels (n,), keypoints (n, K, 3). A model without masks or keypoints leaves
    ``masks`` empty or K at 0. ``rotated`` are (n, 5), as in ``rotated_boxes``, if the model turns its boxes.
    """

    boxes: Array
    scores: Array
    labels: Array
    masks: Sequence[Mapping[str, Any]]
    keypoints: Array
    rotated: Array | None = None


def decode_outputs(placement: Placement, outputs: Mapping[str, Array]) -> ImageDetections:
    """Decode the outputs of a detector for one image, by their names."""
    if "count" in outputs:
        # The rows that are filled; a file that has no answer (a count of -1) detects nothing.
        filled = slice(max(0, round(float(outputs["count"].reshape(-1)[0]))))
        corners = placement.to_image(outputs["boxes"][0, filled].astype(np.float64).reshape(-1, 2, 2)).reshape(-1, 4)
        scores, labels = outputs["scores"][0, filled], outputs["labels"][0, filled].astype(np.int64)
        masks = _paste(placement.image, corners, outputs["masks"][0, filled]) if "masks" in outputs else ()
        return ImageDetections(corners, scores, labels, masks, np.zeros((len(corners), 0, 3)))
    assert isinstance(placement, Letterbox)
    if "angles" in outputs:
        return find_rotated(placement, outputs["boxes"], outputs["scores"], outputs["angles"])
    return find(
        placement,
        outputs["boxes"],
        outputs["scores"],
        coefficients=outputs.get("mask_coefficients"),
        prototypes=outputs.get("prototypes"),
        keypoints=outputs.get("keypoints"),
    )


def find(
    letterbox: Letterbox,
    boxes: Array,
    scores: Array,
    *,
    coefficients: Array | None = None,
    prototypes: Array | None = None,
    keypoints: Array | None = None,
) -> ImageDetections:
    """Decode one image's outputs with anchors; masks need both ``coefficients`` and ``prototypes``."""
    kept = suppress(boxes, scores)
    corners = letterbox.to_image(kept.boxes.reshape(-1, 2, 2)).reshape(-1, 4)
    masks: Sequence[Mapping[str, Any]] = ()
    if coefficients is not None and prototypes is not None:
        masks = assemble_masks(letterbox, corners, kept.pick(coefficients), prototypes[0])
    picked = np.zeros((len(corners), 0, 3)) if keypoints is None else kept.pick(keypoints)
    visible = picked[..., 2:] if picked.shape[-1] > 2 else np.ones((*picked.shape[:2], 1))
    located = np.concatenate([letterbox.to_image(picked[..., :2]), visible], axis=-1)
    return ImageDetections(corners, kept.scores, kept.labels, masks, located)


def find_rotated(letterbox: Letterbox, boxes: Array, scores: Array, angles: Array) -> ImageDetections:
    """Decode one image's boxes (1, 4, N) in pixels, scores (1, C, N) and angles (1, 1, N).

    Rotated boxes are not cut at the image, as they would be no boxes any more.
    """
    labels, anchors, confidence = _candidates(scores)
    rotated, kept = suppress_anchors(boxes, angles, anchors, labels, most=MOST_OVERLAP, count=MOST_DETECTIONS)
    rotated[:, :2] = (rotated[:, :2] - letterbox.border) / letterbox.scale
    rotated[:, 2:4] /= letterbox.scale
    corners, nothing = enclose(rotated), np.zeros((len(kept), 0, 3))
    return ImageDetections(corners, confidence[kept], labels[kept], (), nothing, rotated)


def _candidates(scores: Array) -> tuple[Array, Array, Array]:
    """Return classes, anchors and scores of what suppression compares, best first, from scores (1, C, N): (n,) each."""
    labels, anchors = np.nonzero(scores[0] > LEAST_SCORE)
    confidence = scores[0][labels, anchors]
    order = np.argsort(-confidence, kind="stable")[:MOST_CANDIDATES]
    return labels[order], anchors[order], confidence[order]


def suppress(boxes: Array, scores: Array) -> Detections:
    """Suppress overlapping boxes of a class, except the best: boxes (1, 4, N) with scores (1, C, N)."""
    labels, anchors, confidence = _candidates(scores)
    centre, half = boxes[0, :2, anchors], boxes[0, 2:, anchors] / 2
    corners = np.concatenate([centre - half, centre + half], axis=1).astype(np.float64)
    apart = corners + 4.0 * labels[:, None]  # normalised boxes of different classes can then not meet
    from torchvision.ops import nms  # imports torch._dynamo, which few conversions need

    # Ranks in place of scores: torchvision's order of equal scores is not defined.
    ranks = torch.arange(len(anchors), 0, -1, dtype=torch.float64)
    kept = nms(torch.from_numpy(apart), ranks, MOST_OVERLAP).numpy()[:MOST_DETECTIONS]
    return Detections(corners[kept], confidence[kept], labels[kept], anchors[kept])


def assemble_masks(
    letterbox: Letterbox, corners: Array, coefficients: Array, prototypes: Array
) -> list[Mapping[str, Any]]:
    """Return the masks of n detections as COCO run lengths of the image.

    Coefficients (n, 32) times prototypes (32, h, w), interpolated to the image's pixels, cut at zero and at the boxes
    ``corners`` (n, 4).
    """
    rows = _interpolation(letterbox, 1, prototypes.shape[1])
    columns = _interpolation(letterbox, 0, prototypes.shape[2])
    masks = []
    for box, weights in zip(corners, coefficients.astype(np.float32), strict=True):
        left, top, right, bottom = np.ceil(box).astype(int)
        logits = np.tensordot(weights, prototypes.astype(np.float32, copy=False), axes=1)
        mask = np.zeros(letterbox.image[::-1], dtype=np.uint8, order="F")
        mask[top:bottom, left:right] = rows[top:bottom] @ logits @ columns[left:right].T > 0
        masks.append(rle.encode(mask))
    return masks


def _interpolation(letterbox: Letterbox, axis: int, cells: int) -> Array:
    """Return linear interpolation weights (pixels, cells) from prototype cells to image pixels along x (0) or y (1)."""
    pixels = np.arange(letterbox.image[axis]) + 0.5
    cell = (pixels * letterbox.scale + letterbox.border[axis]) * cells / letterbox.input[axis] - 0.5
    weights = np.maximum(0, 1 - abs(cell.clip(0, cells - 1)[:, None] - np.arange(cells)))
    return np.asarray(weights, dtype=np.float32)


def _paste(image: tuple[int, int], corners: Array, masks: Array) -> list[Mapping[str, Any]]:
    """Return masks (n, 28, 28) of boxes (n, 4) as COCO run lengths of the image, one by one to save memory."""
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    boxes, cells = torch.from_numpy(corners.astype(np.float32)), torch.from_numpy(masks)[:, None]
    pasted = []
    for index in range(len(masks)):
        whole = paste_masks_in_image(cells[index : index + 1], boxes[index : index + 1], image[::-1])
        pasted.append(rle.encode(np.asfortranarray(whole[0, 0].numpy() > 0.5).astype(np.uint8)))
    return pasted
