"""Non-maximum suppression by ONNX's own operator; comparing all pairs of boxes would waste time and memory there."""

from typing import Any

import torch
from torch import Tensor


class SuppressInOnnx(torch.autograd.Function):
    """Suppresses boxes in G groups of N boxes and L classes, by the ``NonMaxSuppression`` operator of ONNX.

    Inputs are ``boxes`` (G, N, 4) as two opposite corners, ``scores`` (G, L, N), 0 where a box is not of a class, and
    ``nothing``, zeros (G, N). https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html
    """

    @staticmethod
    def forward(_: Any, boxes: Tensor, scores: Tensor, nothing: Tensor, iou_threshold: float) -> Tensor:
        """Return zeros (G, N), with which tracing continues; only the shape matters."""
        return nothing.clone()

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, nothing: Any, iou_threshold: float) -> Any:
        """Build the nodes that return the kept boxes as 1 and others as 0, (G, N)."""
        unlimited, overlap = _constant(g, torch.tensor([2**31 - 1])), _constant(g, torch.tensor([iou_threshold]))
        least = _constant(g, torch.tensor([0.0]))
        # Rows of group, class and place.
        chosen = g.op("NonMaxSuppression", boxes, scores, unlimited, overlap, least)
        places = g.op("Gather", chosen, _constant(g, torch.tensor([0, 2])), axis_i=1)
        rows = g.op("Shape", g.op("Gather", chosen, _constant(g, torch.tensor(0)), axis_i=1))
        return g.op("ScatterND", nothing, places, g.op("ConstantOfShape", rows, value_t=torch.ones(1)))


def _constant(g: Any, value: Tensor) -> Any:
    return g.op("Constant", value_t=value)
