"""Suppression as ONNX's own operator: comparing all pairs of boxes would cost it time and memory for nothing."""

from typing import Any

import torch
from torch import Tensor


class SuppressInOnnx(torch.autograd.Function):
    """Non-maximum suppression of G groups of N boxes, in L classes, as an exporter by tracing writes it.

    ``boxes`` (G, N, 4) as two opposite corners, ``scores`` (G, L, N), 0 where a box is not of a class, and ``nothing``,
    zeros (G, N). https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html
    """

    @staticmethod
    def forward(_: Any, boxes: Tensor, scores: Tensor, nothing: Tensor, most_overlap: float) -> Tensor:
        """What tracing goes on with: an answer (G, N) of the right shape, of which nothing is kept."""
        return nothing.clone()

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, nothing: Any, most_overlap: float) -> Any:
        """Which boxes stay, 1 or 0, (G, N)."""
        unlimited, overlap = _constant(g, torch.tensor([2**31 - 1])), _constant(g, torch.tensor([most_overlap]))
        least = _constant(g, torch.tensor([0.0]))
        # Rows of group, class and place.
        chosen = g.op("NonMaxSuppression", boxes, scores, unlimited, overlap, least)
        places = g.op("Gather", chosen, _constant(g, torch.tensor([0, 2])), axis_i=1)
        rows = g.op("Shape", g.op("Gather", chosen, _constant(g, torch.tensor(0)), axis_i=1))
        return g.op("ScatterND", nothing, places, g.op("ConstantOfShape", rows, value_t=torch.ones(1)))


def _constant(g: Any, value: Tensor) -> Any:
    return g.op("Constant", value_t=value)
