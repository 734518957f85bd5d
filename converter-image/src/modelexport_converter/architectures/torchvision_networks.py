"""torchvision's detectors as programs of fixed shapes: its own networks, with box mathematics that has no filters.

Each takes a detector of ``torchvision.models.detection`` in eval mode, whose settings it follows: thresholds, numbers
of candidates and of detections. Normalising and resizing are left to the preparation of the input.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from modelexport_converter.architectures.torchvision_boxes import (
    Candidates,
    clip,
    compares_all_pairs,
    decode,
    fill_slots,
    is_larger,
    stack,
    suppress,
    to_outputs,
)
from modelexport_converter.architectures.torchvision_rois import RoIAlign

Size = tuple[int, int]
Answer = tuple[Candidates, Tensor]
"""Detections in their slots, and whether their suppression has settled, 1 or 0."""

MOST_CANDIDATES = 3000
"""Boxes that the second stage of R-CNN compares at once, if it compares all pairs; where more exceed the score's
threshold, there is no answer, as where the suppression does not settle."""
_UNIT = (1.0, 1.0, 1.0, 1.0)
_LEAST_PROPOSAL, _LEAST_BOX = 1e-3, 1e-2


class _Anchored(nn.Module):
    """What all share: the network up to its feature maps, and constant anchors (A, 4), level by level."""

    DELICATE = False

    def __init__(self, model: Any, generator: nn.Module, size: Size) -> None:
        super().__init__()
        self.size = size
        self.backbone = model.backbone
        self.map_sizes = _map_sizes(model.backbone, size)
        per_cell = generator.num_anchors_per_location()  # type: ignore[operator]
        sizes = self.map_sizes.values()
        self.counts = [count * height * width for count, (height, width) in zip(per_cell, sizes, strict=True)]
        maps = [torch.zeros(1, 1, *each) for each in sizes]
        self.register_buffer("anchors", generator(ImageList(torch.zeros(1, 3, *size), [size]), maps)[0])
        self.anchors: Tensor

    def features(self, image: Tensor) -> list[Tensor]:
        """Feature maps, finest first."""
        return list(self.backbone(image).values())


def _map_sizes(backbone: nn.Module, size: Size) -> Mapping[str, Size]:
    """Height and width of each feature map for inputs of a size; torch tells them without computing the maps."""
    shapes = deepcopy(backbone).to("meta")(torch.zeros(1, 3, *size, device="meta"))
    return {name: (int(x.shape[2]), int(x.shape[3])) for name, x in shapes.items()}


class _OneStage(_Anchored):
    """What detects from the feature maps at once: one head, and settings of one suppression."""

    BODY = ("backbone", "head")

    def __init__(self, model: Any, size: Size) -> None:
        super().__init__(model, model.anchor_generator, size)
        self.head = model.head
        self.settings = model.score_thresh, model.nms_thresh, model.topk_candidates, model.detections_per_img

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, height, width) to (1, D, 4), (1, D), (1, D), (1,)."""
        raw = self.head(self.features(image))
        return to_outputs(*self._detect(raw["cls_logits"][0], raw["bbox_regression"][0]), self.size)

    def _detect(self, logits: Tensor, deltas: Tensor) -> Answer:
        """Detections from what the head says of each anchor: (A, classes) and (A, 4)."""
        raise NotImplementedError


class RetinaNet(_OneStage):
    """Focal loss detector, https://arxiv.org/abs/1708.02002: boxes, scores, labels and count of an image."""

    def _detect(self, logits: Tensor, deltas: Tensor) -> Answer:
        least_score, most_overlap, most, slots = self.settings
        scored, moved, placed = (torch.split(values, self.counts) for values in (logits, deltas, self.anchors))
        parts = [_best_of_level(*level, most) for level in zip(scored, moved, placed, strict=True)]
        values, labels, codes, anchors = (torch.cat(column) for column in zip(*parts, strict=True))
        scores = values.sigmoid()
        boxes = clip(decode(codes, anchors, _UNIT), self.size)
        found = _sort(Candidates(boxes, scores, labels, (scores > least_score).float()))
        return _suppress_labelled(found, most_overlap, slots, int(logits.shape[1]))


def _best_of_level(logits: Tensor, deltas: Tensor, anchors: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, labels, deltas and anchors of the best pairs of an anchor and a class among (A, K)."""
    flat, classes = logits.reshape(-1), int(logits.shape[1])
    values, index = flat.topk(min(most, len(flat)))
    anchor, label = _divide(index, classes)
    return values, label, deltas[anchor], anchors[anchor]


def _divide(index: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Position and label, as float, of places in a flat table with ``classes`` columns."""
    position = torch.div(index, classes, rounding_mode="floor")
    return position, (index - position * classes).float()


def _sort(found: Candidates) -> Candidates:
    """By falling score; what does not count comes last."""
    return found.pick((found.scores * found.valid).topk(len(found.scores)).indices)


def _suppress_labelled(found: Candidates, most_overlap: float, slots: int, classes: int) -> Answer:
    """Suppress within each label, from 0 to ``classes - 1``, and keep the best; the candidates are sorted."""
    boxes, valid, labels = (values.unsqueeze(0) for values in (found.boxes, found.valid, found.labels))
    stays, settled = suppress(boxes, valid, most_overlap, labels, classes)
    return fill_slots(found, stays[0], slots), settled


def _suppress_by_class(boxes: Tensor, scores: Tensor, valid: Tensor, most_overlap: float, slots: int) -> Answer:
    """Suppress among the boxes (C, N, 4) of each class from 1 on, which are sorted, and keep the best of all."""
    stays, settled = suppress(boxes, valid, most_overlap)
    labels = (torch.arange(len(scores)) + 1.0).unsqueeze(1).expand_as(scores)
    return fill_slots(Candidates(boxes, scores, labels, valid).flatten(), stays.reshape(-1), slots), settled


class SSDlite(_OneStage):
    """Single shot detector, https://arxiv.org/abs/1512.02325: boxes, scores, labels and count of an image."""

    def __init__(self, model: Any, size: Size) -> None:
        super().__init__(model, size)
        self.weights = model.box_coder.weights

    def _detect(self, logits: Tensor, deltas: Tensor) -> Answer:
        least_score, most_overlap, most, slots = self.settings
        boxes = clip(decode(deltas, self.anchors, self.weights), self.size)
        # Row by row the classes but the background, each with candidates of its own.
        scores, index = logits.softmax(1)[:, 1:].t().topk(min(most, len(boxes)))
        candidates = boxes[index.reshape(-1)].view(*index.shape, 4)
        return _suppress_by_class(candidates, scores, (scores > least_score).float(), most_overlap, slots)


class RCNN(_Anchored):
    """Faster R-CNN, https://arxiv.org/abs/1506.01497, and Mask R-CNN: boxes, scores, labels and count of an image.

    With a mask head the masks (1, D, 28, 28) of the chosen classes come last, as probabilities.
    """

    BODY = ("backbone", "rpn_head", "box_head", "box_predictor", "mask_head", "mask_predictor")
    # What the first stage loses, the second never sees: with ranges of all values, a trained one lost .044 mAP.
    DELICATE = True

    def __init__(self, model: Any, size: Size) -> None:
        super().__init__(model, model.rpn.anchor_generator, size)
        rpn, heads = model.rpn.eval(), model.roi_heads
        self.rpn_head, self.box_head, self.box_predictor = rpn.head, heads.box_head, heads.box_predictor
        self.proposing = rpn.pre_nms_top_n(), rpn.post_nms_top_n(), rpn.nms_thresh, rpn.score_thresh
        self.settings = heads.score_thresh, heads.nms_thresh, heads.detections_per_img
        self.weights = heads.box_coder.weights
        pooled = [self.map_sizes[name] for name in self.map_sizes if name in heads.box_roi_pool.featmap_names]
        self.box_align = RoIAlign(pooled, size, heads.box_roi_pool.output_size[0])
        self.mask_head, self.mask_predictor = heads.mask_head, heads.mask_predictor
        if heads.has_mask():
            self.mask_align = RoIAlign(pooled, size, heads.mask_roi_pool.output_size[0])

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, height, width) to (1, D, 4), (1, D), (1, D), (1,) and, with masks, (1, D, 28, 28)."""
        maps = self.features(image)
        proposals, exist, proposed = self._propose(*self.rpn_head(maps))
        regions = self.box_head(self.box_align(maps, proposals))
        logits, deltas = self.box_predictor(regions)
        found, settled = self._detect(logits, deltas, proposals, exist)
        settled = settled * proposed
        outputs = to_outputs(found, settled, self.size)
        return (*outputs, self._mask(maps, found) * settled) if self.mask_predictor is not None else outputs

    def _propose(self, objectness: Sequence[Tensor], deltas: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Proposals (P, 4), whether each slot holds one (P,), and whether their suppression has settled."""
        most, slots, most_overlap, least_score = self.proposing
        levels = []
        for logits, codes, anchors in zip(objectness, deltas, torch.split(self.anchors, self.counts), strict=True):
            best = _best_of_level(_per_anchor(logits, 1), _per_anchor(codes, 4), anchors, most)
            values, label, moves, chosen = best
            boxes = clip(decode(moves, chosen, _UNIT), self.size)
            valid = is_larger(boxes, _LEAST_PROPOSAL) * (values.sigmoid() >= least_score).float()
            # Ranked by logits: ONNX Runtime's sigmoid makes all that are less than -17 equal.
            levels.append(Candidates(boxes, values, label, valid))
        found = stack(levels)
        stays, settled = suppress(found.boxes, found.valid, most_overlap)
        proposals = fill_slots(found.flatten(), stays.reshape(-1), slots)
        return proposals.boxes, proposals.valid, settled

    def _detect(self, logits: Tensor, deltas: Tensor, proposals: Tensor, exist: Tensor) -> Answer:
        scores = logits.softmax(1)[:, 1:] * exist.unsqueeze(1)
        codes = deltas.view(len(scores), -1, 4)[:, 1:]  # the background has deltas of its own
        few = scores.numel() * len(scores) <= MOST_CANDIDATES**2
        at_once = compares_all_pairs() and not few
        return (self._detect_at_once if at_once else self._detect_by_class)(scores, codes, proposals)

    def _detect_by_class(self, scores: Tensor, codes: Tensor, proposals: Tensor) -> Answer:
        """Compare the boxes of each class by themselves, for which few classes need fewer pairs, and no limit.

        Scores (P, C) and codes (P, C, 4) of the proposals (P, 4).
        """
        least_score, most_overlap, slots = self.settings
        values, region = scores.t().topk(len(scores))
        place = (region + torch.arange(len(values)).unsqueeze(1) * len(scores)).reshape(-1)
        chosen = proposals[region.reshape(-1)]
        decoded = decode(codes.transpose(0, 1).reshape(-1, 4)[place], chosen, self.weights)
        boxes = clip(decoded, self.size).view(*values.shape, 4)
        valid = (values > least_score).float() * is_larger(boxes, _LEAST_BOX)
        return _suppress_by_class(boxes, values, valid, most_overlap, slots)

    def _detect_at_once(self, scores: Tensor, codes: Tensor, proposals: Tensor) -> Answer:
        """Compare the best boxes of all classes, (P, C) and (P, C, 4), of the proposals (P, 4)."""
        least_score, most_overlap, slots = self.settings
        flat, classes = scores.reshape(-1), int(scores.shape[1])
        values, index = flat.topk(min(MOST_CANDIDATES, len(flat)))
        region, label = _divide(index, classes)
        boxes = clip(decode(codes.reshape(-1, 4)[index], proposals[region], self.weights), self.size)
        valid = (values > least_score).float() * is_larger(boxes, _LEAST_BOX)
        candidates = Candidates(boxes, values, label + 1, valid)
        answer, settled = _suppress_labelled(candidates, most_overlap, slots, classes + 1)
        complete = (scores > least_score).float().sum() <= len(values)
        return answer, settled * complete.float()

    def _mask(self, maps: Sequence[Tensor], found: Candidates) -> Tensor:
        """(1, D, 28, 28); of empty slots, 0."""
        masks: Tensor = self.mask_predictor(self.mask_head(self.mask_align(maps, found.boxes)))
        slots, classes, height, width = (int(size) for size in masks.shape)
        chosen = torch.arange(slots) * classes + found.labels.long()
        picked = masks.reshape(slots * classes, height, width)[chosen].sigmoid()
        return (picked * found.valid.view(-1, 1, 1)).unsqueeze(0)


def _per_anchor(x: Tensor, values: int) -> Tensor:
    """(1, anchors * values, height, width) to (height * width * anchors, values)."""
    _, channels, height, width = x.shape
    return x.view(channels // values, values, height, width).permute(2, 3, 0, 1).reshape(-1, values)
