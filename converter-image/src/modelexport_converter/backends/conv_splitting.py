"""Splits convolutions with more weights than ai-edge-quantizer can handle."""

import copy
from itertools import pairwise
from typing import TypeGuard

import torch
from torch import nn

LIMIT = 32 << 20
"""Limit in bytes.

ai-edge-quantizer 0.10 quantises larger weights row by row, which the scales of a convolution do not fit.
"""


def split_large_convolutions(network: nn.Module) -> nn.Module:
    """Return an equivalent network without convolutions above the limit; the same network if there are none."""
    if not any(map(_is_large, network.modules())):
        return network
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if _is_large(child):
                setattr(parent, name, _Joined(child))
    return network


def _is_large(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    return isinstance(module, nn.Conv2d) and module.groups == 1 and module.weight.nbytes > LIMIT


class _Joined(nn.Module):
    """A convolution as several, each for a part of the output channels."""

    def __init__(self, whole: nn.Conv2d) -> None:
        super().__init__()
        count = -(-whole.weight.nbytes // LIMIT)
        bounds = [whole.out_channels * part // count for part in range(count + 1)]
        self.parts = nn.ModuleList(_part(whole, *channels) for channels in pairwise(bounds))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the output of the whole convolution."""
        return torch.cat([part(x) for part in self.parts], 1)


def _part(whole: nn.Conv2d, first: int, end: int) -> nn.Conv2d:
    """Return the part of a convolution that computes the output channels ``first`` to ``end - 1``."""
    part = copy.copy(whole)
    part._parameters = {
        name: None if value is None else nn.Parameter(value[first:end].clone(), requires_grad=False)
        for name, value in whole._parameters.items()
    }
    part.out_channels = end - first
    return part
