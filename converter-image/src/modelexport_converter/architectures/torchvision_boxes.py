"""Boxes of torchvision's detectors in programs of fixed shapes: decoding, suppression, and the slots of an answer.

Every step selects by rank or by a mask where torchvision filters, so that no shape depends on a picture. All boxes are
left, top, right, bottom in pixels of the input.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import nms

from modelexport_converter.architectures.capture import is_captured
from modelexport_converter.architectures.onnx_suppression import SuppressInOnnx

ROUNDS = 32
"""Of suppression. Of 20 pictures per network, dense ones of untrained networks among them, none needed more than 17."""
_LOWEST = -1e30
"""Below every score, a logit too."""
_LARGEST_DELTA = math.log(1000 / 16)
"""Of a width or height, as torchvision's ``BoxCoder`` clips it, so that its exponential stays finite."""


@dataclass(frozen=True)
class Candidates:
    """Boxes (N, 4), scores (N,), labels (N,) and whether each one counts (N,); all are float32."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    valid: Tensor

    def pick(self, index: Tensor) -> "Candidates":
        """The candidates at positions (M,)."""
        return Candidates(self.boxes[index], self.scores[index], self.labels[index], self.valid[index])

    def flatten(self) -> "Candidates":
        """Candidates of G groups, (G, N, ...), one group after the other."""
        scores, labels, valid = (values.reshape(-1) for values in (self.scores, self.labels, self.valid))
        return Candidates(self.boxes.reshape(-1, 4), scores, labels, valid)


def stack(groups: Sequence[Candidates]) -> Candidates:
    """Groups of candidates, (N, ...) each, as one of the longest, (G, N, ...); what is added does not count."""
    most = max(len(group.scores) for group in groups)
    columns = zip(*((group.boxes, group.scores, group.labels, group.valid) for group in groups), strict=True)
    return Candidates(*(torch.stack([_extend(values, most) for values in column]) for column in columns))


def _extend(values: Tensor, count: int) -> Tensor:
    """Append zeros: (N, ...) to (count, ...)."""
    missing = count - len(values)
    return torch.cat([values, values.new_zeros(missing, *values.shape[1:])]) if missing else values


def decode(deltas: Tensor, anchors: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """Shift anchors (..., 4) by deltas (..., 4) of centre and logarithmic size, as R-CNN defines them.

    https://arxiv.org/abs/1311.2524, appendix C; ``weights`` scale the deltas.
    """
    sizes = anchors[..., 2:] - anchors[..., :2]
    centres = anchors[..., :2] + 0.5 * sizes
    moved = deltas[..., :2] / weights[0] * sizes + centres
    halves = 0.5 * (deltas[..., 2:] / weights[2]).clamp(max=_LARGEST_DELTA).exp() * sizes
    return torch.cat([moved - halves, moved + halves], -1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut boxes (..., 4) at the borders of the input (height, width)."""
    height, width = size
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], -1)


def is_larger(boxes: Tensor, side: float) -> Tensor:
    """Whether both sides of boxes (..., 4) have at least so many pixels: 1 or 0, (...)."""
    return ((boxes[..., 2:] - boxes[..., :2]).amin(-1) >= side).float()


def suppress(
    boxes: Tensor, valid: Tensor, most_overlap: float, labels: Tensor | None = None, classes: int = 1
) -> tuple[Tensor, Tensor]:
    """Greedy non-maximum suppression within each of G groups of N boxes, (G, N, 4), sorted by falling score.

    A box stays if no better one that stays overlaps it by more. With ``labels``, (G, N), from 0 to ``classes - 1``,
    only boxes of one label compete. A model that is only run, as the original that files are compared with, suppresses
    by torchvision's own operator.

    Returns:
        Which boxes stay, 1 or 0, (G, N), and whether this is the exact answer, 1 or 0, a scalar.
    """
    if torch.onnx.is_in_onnx_export():
        stays = SuppressInOnnx.apply(boxes, _scores_by_rank(valid, labels, classes), valid * 0, most_overlap)
        return stays, torch.ones(())
    if not is_captured():
        return _suppress_eagerly(boxes, valid, most_overlap, labels), torch.ones(())
    beaten = _overlaps(boxes, most_overlap) & _follows(valid)
    if labels is not None:
        beaten = beaten & (labels.unsqueeze(2) == labels.unsqueeze(1))
    return _settle(beaten.float(), valid.unsqueeze(2))


def compares_all_pairs() -> bool:
    """Whether ``suppress`` compares all pairs of boxes, which sets limits, and has no operator that does better."""
    return is_captured() and not torch.onnx.is_in_onnx_export()


def _suppress_eagerly(boxes: Tensor, valid: Tensor, most_overlap: float, labels: Tensor | None) -> Tensor:
    stays = torch.zeros_like(valid)
    for group, exists in enumerate(valid > 0):
        names = torch.zeros_like(valid[group]) if labels is None else labels[group]
        for label in torch.unique(names):
            places = (exists & (names == label)).nonzero()[:, 0]
            kept = nms(boxes[group, places], -places.to(boxes.dtype), most_overlap)
            stays[group, places[kept]] = 1
    return stays


def _settle(beaten: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
    """Suppress in rounds: (G, N, N), which box beats which, and (G, N, 1) to (G, N) and a scalar.

    Applied to all boxes at once and repeated, the rule bounds the answer of the greedy procedure from above and from
    below in turn, and ends at it: when two rounds agree, the answer is exact. The number of rounds that takes is the
    length of the longest chain of boxes in which each decides over the next.
    """
    stays = before = exists
    for _ in range(ROUNDS):
        # 1 less the number of boxes that beat it, but no less than 0. A matrix times a column: the other way round,
        # LiteRT packs the matrix anew for every product.
        before, stays = stays, (exists - beaten @ stays).relu()
    return stays.squeeze(2), 1 - (stays - before).abs().amax()


def _scores_by_rank(valid: Tensor, labels: Tensor | None, classes: int) -> Tensor:
    """Scores per class that fall with the rank and are 0 for what does not count: (G, N) to (G, classes, N)."""
    count = valid.shape[1]
    scores = (valid * torch.arange(count, 0, -1, dtype=torch.float32)).unsqueeze(1)
    if labels is None:
        return scores
    return scores * (labels.unsqueeze(1) == torch.arange(classes).view(1, -1, 1)).float()


def _overlaps(boxes: Tensor, most: float) -> Tensor:
    """Whether the intersection over union of each pair is greater: (G, N, 4) to (G, N, N)."""
    one, other = boxes.unsqueeze(2), boxes.unsqueeze(1)
    width = (torch.minimum(one[..., 2], other[..., 2]) - torch.maximum(one[..., 0], other[..., 0])).clamp(min=0)
    height = (torch.minimum(one[..., 3], other[..., 3]) - torch.maximum(one[..., 1], other[..., 1])).clamp(min=0)
    shared = width * height
    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    # Without a division, which two boxes without area would turn into no number.
    return shared > most * (areas.unsqueeze(2) + areas.unsqueeze(1) - shared)


def _follows(valid: Tensor) -> Tensor:
    """Whether the first of each pair stands behind the second: (G, N) to (G, N, N)."""
    # Made to depend on the picture, by adding what is always 0: else exporters store the comparisons of all pairs.
    rank = torch.arange(valid.shape[1], dtype=torch.float32) + valid.clamp(max=0)
    return rank.unsqueeze(2) > rank.unsqueeze(1)


def fill_slots(found: Candidates, stays: Tensor, slots: int) -> Candidates:
    """The best of the N candidates that stay, (N,), best first; slots that remain empty are not valid."""
    _, index = torch.where(stays > 0, found.scores, _LOWEST).topk(min(slots, len(stays)))
    best = found.pick(index)
    return Candidates(best.boxes, best.scores, best.labels, stays[index])


def to_outputs(found: Candidates, settled: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """An answer as it stands in a file: boxes (1, D, 4) divided by the input's size, scores, labels and count.

    Where the suppression has not settled, there is no answer: all is 0 and the count is -1.
    """
    height, width = size
    holds = found.valid * settled
    units = torch.tensor([1 / width, 1 / height, 1 / width, 1 / height])
    boxes = found.boxes * units * holds.unsqueeze(1)
    count = holds.sum().reshape(1) - (1 - settled)
    return boxes.unsqueeze(0), (found.scores * holds).unsqueeze(0), (found.labels * holds).unsqueeze(0), count
