"""Box operations of torchvision's detectors for programs of fixed shapes: decoding, suppression, padding.

Every step selects by rank or by a mask where torchvision filters, so that no shape depends on an image. All boxes are
left, top, right, bottom in pixels of the input.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import nms

from modelexport_converter.architectures.torchvision.capture import is_exporting
from modelexport_converter.architectures.torchvision.onnx_suppression import SuppressInOnnx

ROUNDS = 32
"""Rounds of suppression. On 20 images per network, dense ones of untrained networks included, none needed more than 17.
"""
_LOWEST = -1e30
"""Lower than every score, logits included."""
_LARGEST_DELTA = math.log(1000 / 16)
"""Upper limit of a width or height delta, as in torchvision's ``BoxCoder``: its exponential stays finite."""


@dataclass(frozen=True)
class Candidates:
    """Boxes (N, 4), scores (N,), labels (N,) and whether each candidate is valid (N,); all float32."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    valid: Tensor

    def pick(self, index: Tensor) -> "Candidates":
        """Return the candidates at the positions ``index`` (M,)."""
        return Candidates(self.boxes[index], self.scores[index], self.labels[index], self.valid[index])

    def flatten(self) -> "Candidates":
        """Flatten candidates of G groups, (G, N, ...), to (G * N, ...), one group after the other."""
        scores, labels, valid = (values.reshape(-1) for values in (self.scores, self.labels, self.valid))
        return Candidates(self.boxes.reshape(-1, 4), scores, labels, valid)


def stack(groups: Sequence[Candidates]) -> Candidates:
    """Stack groups of candidates, (N, ...) each, to (G, N, ...) of the longest group; the padding is not valid."""
    most = max(len(group.scores) for group in groups)
    columns = zip(*((group.boxes, group.scores, group.labels, group.valid) for group in groups), strict=True)
    return Candidates(*(torch.stack([_pad_rows(values, most) for values in column]) for column in columns))


def _pad_rows(values: Tensor, count: int) -> Tensor:
    """Append zeros: (N, ...) to (count, ...)."""
    missing = count - len(values)
    return torch.cat([values, values.new_zeros(missing, *values.shape[1:])]) if missing else values


def decode(deltas: Tensor, anchors: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """Shift anchors (..., 4) by deltas (..., 4) of centre and logarithmic size, as R-CNN defines them.

    https://arxiv.org/abs/1311.2524, appendix C. ``weights`` scale the deltas.
    """
    sizes = anchors[..., 2:] - anchors[..., :2]
    centres = anchors[..., :2] + 0.5 * sizes
    moved = deltas[..., :2] / weights[0] * sizes + centres
    halves = 0.5 * (deltas[..., 2:] / weights[2]).clamp(max=_LARGEST_DELTA).exp() * sizes
    return torch.cat([moved - halves, moved + halves], -1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Clip boxes (..., 4) to the input (H, W)."""
    height, width = size
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], -1)


def is_larger(boxes: Tensor, side: float) -> Tensor:
    """Return 1 where both sides of boxes (..., 4) have at least ``side`` pixels, else 0: (...)."""
    return ((boxes[..., 2:] - boxes[..., :2]).amin(-1) >= side).float()


def suppress(
    boxes: Tensor, valid: Tensor, iou_threshold: float, labels: Tensor | None = None, classes: int = 1
) -> tuple[Tensor, Tensor]:
    """Greedy non-maximum suppression within each of G groups of N boxes, (G, N, 4), sorted by descending score.

    A box is kept if no better kept box overlaps it by more than ``iou_threshold``. With ``labels``, (G, N), from 0 to
    ``classes - 1``, only boxes of the same label compete. A model that only runs, such as the reference that files are
    compared with, uses torchvision's own operator.

    Returns:
        The kept boxes as 1, others as 0, (G, N), and 1 if the result is exact, else 0, a scalar.
    """
    if torch.onnx.is_in_onnx_export():
        keep = SuppressInOnnx.apply(boxes, _scores_by_rank(valid, labels, classes), valid * 0, iou_threshold)
        return keep, torch.ones(())
    if not is_exporting():
        return _suppress_eagerly(boxes, valid, iou_threshold, labels), torch.ones(())
    overlaps = _exceeds_iou(boxes, iou_threshold)
    # Adds a term that is always 0 but depends on the image: else exporters store the comparisons of all pairs.
    rank = torch.arange(valid.shape[1], dtype=torch.float32) + valid.clamp(max=0)
    suppressed = overlaps & (rank.unsqueeze(2) > rank.unsqueeze(1))
    if labels is not None:
        suppressed = suppressed & (labels.unsqueeze(2) == labels.unsqueeze(1))
    return _suppress_in_rounds(suppressed.float(), valid.unsqueeze(2))


def compares_all_pairs() -> bool:
    """Return whether ``suppress`` compares all pairs of boxes, which sets limits, for lack of a better operator."""
    return is_exporting() and not torch.onnx.is_in_onnx_export()


def _suppress_eagerly(boxes: Tensor, valid: Tensor, iou_threshold: float, labels: Tensor | None) -> Tensor:
    """Suppress (G, N, 4) by ``torchvision.ops.nms``; returns the kept boxes as 1, others as 0, (G, N)."""
    keep = torch.zeros_like(valid)
    for group, is_valid in enumerate(valid > 0):
        names = torch.zeros_like(valid[group]) if labels is None else labels[group]
        for label in torch.unique(names):
            places = (is_valid & (names == label)).nonzero()[:, 0]
            kept = nms(boxes[group, places], -places.to(boxes.dtype), iou_threshold)
            keep[group, places[kept]] = 1
    return keep


def _suppress_in_rounds(suppressed: Tensor, valid_column: Tensor) -> tuple[Tensor, Tensor]:
    """Suppress in rounds: suppression matrix (G, N, N) and validity (G, N, 1) to kept (G, N) and converged (scalar).

    Applied to all boxes at once and repeated, the rule bounds the greedy result alternately from above and from below,
    and ends at it: when two rounds agree, the result is exact. The number of rounds needed is the length of the longest
    chain of boxes in which each decides over the next.
    """
    keep = before = valid_column
    for _ in range(ROUNDS):
        # 1 minus the number of boxes that suppress it, at least 0. A matrix times a column: the other way round,
        # LiteRT packs the matrix again for every product.
        before, keep = keep, (valid_column - suppressed @ keep).relu()
    return keep.squeeze(2), 1 - (keep - before).abs().amax()


def _scores_by_rank(valid: Tensor, labels: Tensor | None, classes: int) -> Tensor:
    """Return scores per class that fall with the rank and are 0 for invalid boxes: (G, N) to (G, classes, N)."""
    count = valid.shape[1]
    scores = (valid * torch.arange(count, 0, -1, dtype=torch.float32)).unsqueeze(1)
    if labels is None:
        return scores
    return scores * (labels.unsqueeze(1) == torch.arange(classes).view(1, -1, 1)).float()


def _exceeds_iou(boxes: Tensor, most: float) -> Tensor:
    """Return whether the intersection over union of each pair exceeds ``most``: (G, N, 4) to (G, N, N)."""
    one, other = boxes.unsqueeze(2), boxes.unsqueeze(1)
    width = (torch.minimum(one[..., 2], other[..., 2]) - torch.maximum(one[..., 0], other[..., 0])).clamp(min=0)
    height = (torch.minimum(one[..., 3], other[..., 3]) - torch.maximum(one[..., 1], other[..., 1])).clamp(min=0)
    shared = width * height
    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    # Without a division, which is NaN for two boxes without area.
    return shared > most * (areas.unsqueeze(2) + areas.unsqueeze(1) - shared)


def pad_detections(found: Candidates, keep: Tensor, rows: int) -> Candidates:
    """Return ``rows`` of N candidates: those kept by ``keep`` (N,), best first, then padding, which is not valid."""
    _, index = torch.where(keep > 0, found.scores, _LOWEST).topk(min(rows, len(keep)))
    best = found.pick(index)
    return Candidates(best.boxes, best.scores, best.labels, keep[index])


def to_outputs(found: Candidates, converged: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the outputs of a file: boxes (1, D, 4) divided by the input's size, scores (1, D), labels (1, D), count
    (1,).

    Where the suppression has not converged, all outputs are 0 and the count is -1.
    """
    height, width = size
    holds = found.valid * converged
    units = torch.tensor([1 / width, 1 / height, 1 / width, 1 / height])
    boxes = found.boxes * units * holds.unsqueeze(1)
    count = holds.sum().reshape(1) - (1 - converged)
    return boxes.unsqueeze(0), (found.scores * holds).unsqueeze(0), (found.labels * holds).unsqueeze(0), count
