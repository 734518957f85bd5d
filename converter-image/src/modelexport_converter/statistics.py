"""Whether a network is the one that its statistics of normalisation were taken on.

Batch normalisation remembers mean and variance of what came into each of its layers in training. Run on pictures like
those of the training, the right network meets them again; one with another activation, or with pixels on another scale,
does not. A folded convolution gives ``(x - mean) / std * gamma + beta``, so that the mean and the spread of what it
gives, against ``beta`` and ``gamma``, say the same without the normalisation that was folded away.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

Values = npt.NDArray[np.float64]
_MEMORY = "folded_normalisation"


def remember(convolution: nn.Module, normalisation: Any) -> None:
    """Keep the scale and the shift of a normalisation that was folded into a convolution."""
    mean, variance = normalisation.running_mean, normalisation.running_var
    if bool((mean == 0).all()) and bool((variance == 1).all()):
        return  # as they were before any training: they say nothing
    scale, shift = normalisation.weight, normalisation.bias
    convolution.__dict__[_MEMORY] = tuple(value.detach().double().numpy().copy() for value in (scale, shift))


def inherit(convolution: nn.Module, other: nn.Module) -> None:
    """Let a convolution that takes the place of another one keep what that one has remembered."""
    if memory := other.__dict__.get(_MEMORY):
        convolution.__dict__[_MEMORY] = memory


@dataclass(frozen=True)
class Deviation:
    """How far a layer is from its statistics: medians over its channels.

    ``mean`` is the difference of the means in standard deviations of the training; ``spread`` is the ratio of the
    standard deviations, the larger one over the smaller one.
    """

    layer: str
    mean: float
    spread: float
    channels: int


@dataclass
class _Sums:
    """Count, sum and sum of squares per channel of what one layer gives, over all pictures."""

    scale: Values
    shift: Values
    count: int = 0
    linear: Values | float = 0.0
    square: Values | float = 0.0

    def add(self, values: torch.Tensor) -> None:
        """Add what the layer gives, (1, channels, height, width)."""
        flat = values.detach().double().transpose(0, 1).flatten(1).numpy()
        self.count += flat.shape[1]
        self.linear = self.linear + flat.sum(1)
        self.square = self.square + (flat**2).sum(1)

    def deviation(self, layer: str) -> Deviation | None:
        """Compare with the training; ``None`` for a layer that did not run or whose scales have all died."""
        scale = np.abs(self.scale)
        alive = scale > 1e-3 * np.median(scale) if scale.any() else scale > 0
        if not self.count or not alive.any():
            return None
        mean = self.linear / self.count
        spread = np.sqrt(np.maximum(self.square / self.count - mean**2, 0))
        difference = np.abs(mean - self.shift)[alive] / scale[alive]
        ratio = np.maximum(spread[alive], 1e-12) / scale[alive]
        return Deviation(
            layer, float(np.median(difference)), float(np.median(np.maximum(ratio, 1 / ratio))), int(alive.sum())
        )


def measure(network: nn.Module, pictures: Iterable[Values]) -> tuple[Deviation, ...]:
    """Run a network on pictures, (1, 3, height, width) each, and compare its layers with their statistics."""
    sums = {
        name: _Sums(*layer.__dict__[_MEMORY]) for name, layer in network.named_modules() if _MEMORY in layer.__dict__
    }
    hooks = [
        network.get_submodule(name).register_forward_hook(lambda _m, _i, output, total=total: total.add(output))
        for name, total in sums.items()
    ]
    try:
        with torch.inference_mode():
            for picture in pictures:
                network(torch.from_numpy(picture))
    finally:
        for hook in hooks:
            hook.remove()
    found = (total.deviation(name) for name, total in sums.items())
    return tuple(one for one in found if one is not None)
