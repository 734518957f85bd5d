"""Weights that follow from the names of layers, so that another implementation can be given the same."""

import zlib
from collections.abc import Mapping

import torch


def make_weights(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict of the same names and shapes, random, scaled so that no layer dies or explodes.

    Statistics of batch normalisation are sane: variances from a half to one and a half.
    """
    return {name: _make_weight(name, value) for name, value in tensors.items()}


def _make_weight(name: str, value: torch.Tensor) -> torch.Tensor:
    if not value.is_floating_point():
        return value
    noise = torch.rand(value.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()))) * 2 - 1
    if value.ndim == 4:
        return noise * (4.5 / value[0].numel()) ** 0.5
    if name.endswith("running_var"):
        return 1 + noise / 2
    return 1 + noise / 5 if name.endswith("bn.weight") else noise / 5
