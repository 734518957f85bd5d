"""Non-maximum suppression after a detector that answers for every anchor, inside the file.

The outputs are those of torchvision's detectors, which suppress boxes themselves, so that everything that reads,
verifies and evaluates these reads them.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelexport.matrix.support import Format
from modelexport_converter.architectures.torchvision.boxes import Candidates, pad_detections, suppress, to_outputs
from modelexport_converter.architectures.torchvision.detectors import DETECTIONS
from modelexport_converter.model import LoadedModel, SizedModule, Suppression

SCORE, OVERLAP, MOST_DETECTIONS = 0.25, 0.7, 300
"""Least score, largest IoU of two boxes of a class and number of detections: the defaults of ultralytics' predictor,
https://docs.ultralytics.com/modes/predict/#inference-arguments."""
CANDIDATES = 1000
"""Boxes of the best scores that compete, as in the region proposals of torchvision's R-CNN at inference."""
_SUPPRESS_AFTERWARDS = (Format.COREML,)
"""Formats that suppress boxes in a step of their own after the network, where all boxes compete."""
_EXACT = "How many slots are filled."
_BOUNDED = (
    "How many slots are filled, or -1 where boxes overlap in longer chains than the file resolves: then there is no "
    "answer, and all else is 0. A file in ONNX has no such limit."
)


class Suppressed(SizedModule):
    """Keeps the best boxes of a network (1, C, H, W) -> boxes (1, 4, N), scores (1, classes, N)."""

    def __init__(self, network: nn.Module, size: tuple[int, int], candidates: int | None = CANDIDATES) -> None:
        super().__init__()
        self.network, self.size, self.candidates = network, size, candidates
        height, width = size
        self.register_buffer("pixels", torch.tensor([width, height, width, height]).float())
        self.pixels: Tensor

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return boxes (1, D, 4), scores (1, D), labels (1, D) and count (1,), best first."""
        boxes, scores = self.network(image)
        pixels, size = self.pixels, self.size
        if self.any_size:  # overlaps are the same in parts of the input; a small one has fewer boxes than compete
            boxes, scores = (functional.pad(values, (0, self.candidates or 0)) for values in (boxes, scores))
            pixels, size = torch.ones(4), (1, 1)
        classes = scores.shape[1]
        best, labels = scores[0].max(0)
        top, index = best.topk(min(self.candidates or best.shape[0], best.shape[0]))
        centred = boxes[0].transpose(0, 1)[index]
        centres, halves = centred[:, :2], centred[:, 2:] / 2
        corners = torch.cat([centres - halves, centres + halves], 1) * pixels
        found = Candidates(corners, top, labels[index].float(), (top > SCORE).float())
        boxes, valid, names = (values.unsqueeze(0) for values in (found.boxes, found.valid, found.labels))
        keep, converged = suppress(boxes, valid, OVERLAP, names, classes)
        return to_outputs(pad_detections(found, keep[0], MOST_DETECTIONS), converged, size)


def suppress_boxes(model: LoadedModel, fmt: Format) -> LoadedModel:
    """Return a detector that answers for every anchor with suppression after it."""
    afterwards = fmt in _SUPPRESS_AFTERWARDS
    module = Suppressed(model.module, model.input_size, None if afterwards else CANDIDATES)
    # Everything after the last weights stays in float32: positions, and the order of the scores.
    boxes, scores, labels, count = (replace(output, keep_float32=True) for output in DETECTIONS)
    outputs = (boxes, scores, labels, replace(count, meaning=_BOUNDED if fmt is Format.LITERT else _EXACT))
    metadata = {**model.metadata, "score_threshold": f"{SCORE:g}", "nms_threshold": f"{OVERLAP:g}"}
    suppression = Suppression(SCORE, OVERLAP, MOST_DETECTIONS) if afterwards else None
    module = module.eval().requires_grad_(False)
    return replace(
        model, module=module, outputs=outputs, metadata=metadata, unsuppressed=model, suppression=suppression
    )
