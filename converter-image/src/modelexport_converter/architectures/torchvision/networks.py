"""torchvision's detectors as programs of fixed shapes: its own networks, followed by box operations without filters.

Each takes a detector of ``torchvision.models.detection`` in eval mode and follows its settings: thresholds and numbers
of candidates and detections. Preprocessing normalises and resizes the image.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from modelexport_converter.architectures.torchvision.boxes import (
    Candidates,
    clip,
    compares_all_pairs,
    decode,
    is_larger,
    pad_detections,
    stack,
    suppress,
    to_outputs,
)
from modelexport_converter.architectures.torchvision.rois import RoIAlign

Size = tuple[int, int]
Answer = tuple[Candidates, Tensor]
"""Padded detections, and a scalar: 1 if their suppression has converged, else 0."""

MOST_CANDIDATES = 3000
"""Boxes that the second stage of an R-CNN compares at once, where it compares all pairs.

If more exceed the score threshold, the file returns no detections, as if the suppression had not converged.
"""
_UNIT = (1.0, 1.0, 1.0, 1.0)
_LEAST_PROPOSAL, _LEAST_BOX = 1e-3, 1e-2


class _Anchored(nn.Module):
    """Base of all detectors: the network up to its feature maps, and constant anchors (A, 4), level by level."""

    INT8_SENSITIVE = False

    def __init__(self, model: Any, generator: nn.Module, size: Size) -> None:
        super().__init__()
        self.size = size
        self.backbone = model.backbone
        # Computed on the meta device, which has sizes and no values.
        shapes = deepcopy(model.backbone).to("meta")(torch.zeros(1, 3, *size, device="meta"))
        self.map_sizes = {name: (int(x.shape[2]), int(x.shape[3])) for name, x in shapes.items()}
        per_cell = generator.num_anchors_per_location()  # type: ignore[operator]
        sizes = self.map_sizes.values()
        self.counts = [count * height * width for count, (height, width) in zip(per_cell, sizes, strict=True)]
        maps = [torch.zeros(1, 1, *each) for each in sizes]
        self.register_buffer("anchors", generator(ImageList(torch.zeros(1, 3, *size), [size]), maps)[0])
        self.anchors: Tensor

    def features(self, image: Tensor) -> list[Tensor]:
        """(1, C, H, W) to feature maps (1, C, h, w), finest first."""
        return list(self.backbone(image).values())


class _OneStage(_Anchored):
    """Base of the one-stage detectors: one head on all feature maps, and one suppression."""

    LOW_PRECISION_MODULES = ("backbone", "head")

    def __init__(self, model: Any, size: Size) -> None:
        super().__init__(model, model.anchor_generator, size)
        self.head = model.head
        self.settings = model.score_thresh, model.nms_thresh, model.topk_candidates, model.detections_per_img

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, H, W) to boxes (1, D, 4), scores (1, D), labels (1, D) and count (1,)."""
        raw = self.head(self.features(image))
        return to_outputs(*self._detect(raw["cls_logits"][0], raw["bbox_regression"][0]), self.size)

    def _detect(self, logits: Tensor, deltas: Tensor) -> Answer:
        """Return the detections from the head's logits (A, classes) and deltas (A, 4)."""
        raise NotImplementedError


class RetinaNet(_OneStage):
    """Focal loss detector, https://arxiv.org/abs/1708.02002: boxes, scores, labels and count of an image."""

    def _detect(self, logits: Tensor, deltas: Tensor) -> Answer:
        score_threshold, iou_threshold, most, rows = self.settings
        scored, moved, placed = (torch.split(values, self.counts) for values in (logits, deltas, self.anchors))
        parts = [_best_of_level(*level, most) for level in zip(scored, moved, placed, strict=True)]
        values, labels, codes, anchors = (torch.cat(column) for column in zip(*parts, strict=True))
        scores = values.sigmoid()
        boxes = clip(decode(codes, anchors, _UNIT), self.size)
        found = Candidates(boxes, scores, labels, (scores > score_threshold).float())
        # By descending score, invalid candidates last.
        found = found.pick((found.scores * found.valid).topk(len(found.scores)).indices)
        return _suppress_labelled(found, iou_threshold, rows, int(logits.shape[1]))


def _best_of_level(logits: Tensor, deltas: Tensor, anchors: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return logits, labels, deltas and anchors of the ``most`` best pairs of an anchor and a class among (A, K)."""
    flat, classes = logits.reshape(-1), int(logits.shape[1])
    values, index = flat.topk(min(most, len(flat)))
    anchor, label = _divide(index, classes)
    return values, label, deltas[anchor], anchors[anchor]


def _divide(index: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return row and column (label, as float) of positions in a flat table with ``classes`` columns."""
    position = torch.div(index, classes, rounding_mode="floor")
    return position, (index - position * classes).float()


def _suppress_labelled(found: Candidates, iou_threshold: float, rows: int, classes: int) -> Answer:
    """Suppress sorted candidates within each label, from 0 to ``classes - 1``, and keep the best."""
    boxes, valid, labels = (values.unsqueeze(0) for values in (found.boxes, found.valid, found.labels))
    keep, converged = suppress(boxes, valid, iou_threshold, labels, classes)
    return pad_detections(found, keep[0], rows), converged


def _suppress_by_class(boxes: Tensor, scores: Tensor, valid: Tensor, iou_threshold: float, rows: int) -> Answer:
    """Suppress among the sorted boxes (C, N, 4) of each class from 1 on, and keep the best of all."""
    keep, converged = suppress(boxes, valid, iou_threshold)
    labels = (torch.arange(len(scores)) + 1.0).unsqueeze(1).expand_as(scores)
    return pad_detections(Candidates(boxes, scores, labels, valid).flatten(), keep.reshape(-1), rows), converged


class SSDlite(_OneStage):
    """Single shot detector, https://arxiv.org/abs/1512.02325: boxes, scores, labels and count of an image."""

    def __init__(self, model: Any, size: Size) -> None:
        super().__init__(model, size)
        self.weights = model.box_coder.weights

    def _detect(self, logits: Tensor, deltas: Tensor) -> Answer:
        score_threshold, iou_threshold, most, rows = self.settings
        boxes = clip(decode(deltas, self.anchors, self.weights), self.size)
        # One row per class except the background, each with its own candidates.
        scores, index = logits.softmax(1)[:, 1:].t().topk(min(most, len(boxes)))
        candidates = boxes[index.reshape(-1)].view(*index.shape, 4)
        return _suppress_by_class(candidates, scores, (scores > score_threshold).float(), iou_threshold, rows)


class RCNN(_Anchored):
    """Faster R-CNN, https://arxiv.org/abs/1506.01497, and Mask R-CNN: boxes, scores, labels and count of an image.

    With a mask head, the last output is the masks (1, D, 28, 28) of the detected classes, as probabilities.
    """

    LOW_PRECISION_MODULES = ("backbone", "rpn_head", "box_head", "box_predictor", "mask_head", "mask_predictor")
    # The second stage never sees an object that the first loses: with min-max ranges a trained model lost .044 mAP.
    INT8_SENSITIVE = True

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
        """(1, 3, H, W) to (1, D, 4), (1, D), (1, D), (1,) and, with masks, (1, D, 28, 28)."""
        maps = self.features(image)
        proposals, exist, proposed = self._propose(*self.rpn_head(maps))
        regions = self.box_head(self.box_align(maps, proposals))
        logits, deltas = self.box_predictor(regions)
        found, converged = self._detect(logits, deltas, proposals, exist)
        converged = converged * proposed
        outputs = to_outputs(found, converged, self.size)
        return (*outputs, self._mask(maps, found) * converged) if self.mask_predictor is not None else outputs

    def _propose(self, objectness: Sequence[Tensor], deltas: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return proposals (P, 4), their validity (P,), and whether their suppression has converged."""
        most, rows, iou_threshold, score_threshold = self.proposing
        levels = []
        for logits, codes, anchors in zip(objectness, deltas, torch.split(self.anchors, self.counts), strict=True):
            best = _best_of_level(_per_anchor(logits, 1), _per_anchor(codes, 4), anchors, most)
            values, label, moves, chosen = best
            boxes = clip(decode(moves, chosen, _UNIT), self.size)
            valid = is_larger(boxes, _LEAST_PROPOSAL) * (values.sigmoid() >= score_threshold).float()
            # Ranks by logits: ONNX Runtime's sigmoid makes all logits below -17 equal.
            levels.append(Candidates(boxes, values, label, valid))
        found = stack(levels)
        keep, converged = suppress(found.boxes, found.valid, iou_threshold)
        proposals = pad_detections(found.flatten(), keep.reshape(-1), rows)
        return proposals.boxes, proposals.valid, converged

    def _detect(self, logits: Tensor, deltas: Tensor, proposals: Tensor, exist: Tensor) -> Answer:
        """Return the detections from logits (P, classes), deltas (P, 4 * classes), proposals (P, 4), validity (P,)."""
        scores = logits.softmax(1)[:, 1:] * exist.unsqueeze(1)
        codes = deltas.view(len(scores), -1, 4)[:, 1:]  # the background has deltas of its own
        few = scores.numel() * len(scores) <= MOST_CANDIDATES**2
        at_once = compares_all_pairs() and not few
        return (self._detect_at_once if at_once else self._detect_by_class)(scores, codes, proposals)

    def _detect_by_class(self, scores: Tensor, codes: Tensor, proposals: Tensor) -> Answer:
        """Compare the boxes of each class separately: with few classes this needs fewer pairs, and no limit.

        Takes scores (P, C) and codes (P, C, 4) of the proposals (P, 4).
        """
        score_threshold, iou_threshold, rows = self.settings
        values, region = scores.t().topk(len(scores))
        place = (region + torch.arange(len(values)).unsqueeze(1) * len(scores)).reshape(-1)
        chosen = proposals[region.reshape(-1)]
        decoded = decode(codes.transpose(0, 1).reshape(-1, 4)[place], chosen, self.weights)
        boxes = clip(decoded, self.size).view(*values.shape, 4)
        valid = (values > score_threshold).float() * is_larger(boxes, _LEAST_BOX)
        return _suppress_by_class(boxes, values, valid, iou_threshold, rows)

    def _detect_at_once(self, scores: Tensor, codes: Tensor, proposals: Tensor) -> Answer:
        """Compare the best boxes of all classes: scores (P, C) and codes (P, C, 4) of the proposals (P, 4)."""
        score_threshold, iou_threshold, rows = self.settings
        flat, classes = scores.reshape(-1), int(scores.shape[1])
        values, index = flat.topk(min(MOST_CANDIDATES, len(flat)))
        region, label = _divide(index, classes)
        boxes = clip(decode(codes.reshape(-1, 4)[index], proposals[region], self.weights), self.size)
        valid = (values > score_threshold).float() * is_larger(boxes, _LEAST_BOX)
        candidates = Candidates(boxes, values, label + 1, valid)
        answer, converged = _suppress_labelled(candidates, iou_threshold, rows, classes + 1)
        complete = (scores > score_threshold).float().sum() <= len(values)
        return answer, converged * complete.float()

    def _mask(self, maps: Sequence[Tensor], found: Candidates) -> Tensor:
        """Return masks (1, D, 28, 28), 0 in the padding."""
        masks: Tensor = self.mask_predictor(self.mask_head(self.mask_align(maps, found.boxes)))
        rows, classes, height, width = (int(size) for size in masks.shape)
        chosen = torch.arange(rows) * classes + found.labels.long()
        picked = masks.reshape(rows * classes, height, width)[chosen].sigmoid()
        return (picked * found.valid.view(-1, 1, 1)).unsqueeze(0)


def _per_anchor(x: Tensor, values: int) -> Tensor:
    """(1, anchors * values, H, W) to (H * W * anchors, values)."""
    _, channels, height, width = x.shape
    return x.view(channels // values, values, height, width).permute(2, 3, 0, 1).reshape(-1, values)
