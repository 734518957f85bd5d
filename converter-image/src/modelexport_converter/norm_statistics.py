"""Whether a network is the one on which its statistics of normalisation were taken.

Batch normalisation remembers mean and variance of what came into each of its layers in training. Run on pictures like
those of the training, the right network meets them again; one with another activation, or with pixels on another scale,
does not. A folded convolution gives ``(x - mean) / std * gamma + beta``: the mean and the spread of what it gives,
beside ``beta`` and ``gamma``, say the same without the normalisation that was folded away.

The thresholds lie between what was measured on the trained models of ``tests/models``: see docs/verification.md. Right
networks on eight pictures of their own kind: means differ by .09 standard deviations at most (the median of all
layers), spreads by a factor of 1.15; on our four photographs, of which none of them has seen the like, by 1.0 and 2.0,
and the spread of the first layer by 1.6 at most. ReLU in place of SiLU: .09 to .41, and 1.6 to 2.1. Pixels of 0 to 255
in place of 0 to 1: 17 and more, and 190 in the first layer; a 255th of a pixel: from 4.8 in the first layer. Networks
that were trained for one step of one epoch: .2 to 1.5 on photographs, spreads up to 13, in the first layer 2.4.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

ENOUGH_PICTURES = 8
"""Pictures of the user's that say something of more than the scale of the pixels."""
IMPOSSIBLE_MEAN, IMPOSSIBLE_FIRST_SPREAD = 10.0, 20.0
"""Whatever the pictures are."""
REFUSED_MEAN, REFUSED_FIRST_SPREAD = 2.0, 3.0
"""On enough pictures of the user's."""
DOUBTFUL_MEAN, DOUBTFUL_SPREAD = 0.3, 1.4
_MEMORY = "folded_normalisation"

Values = npt.NDArray[np.float64]


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

    ``mean`` is the difference of the means in standard deviations of the training, ``spread`` the ratio of the standard
    deviations, the larger one over the smaller one.
    """

    layer: str
    mean: float
    spread: float


@dataclass(frozen=True)
class Fit:
    """How well a network fits its statistics, by its layers in the order in which they ran, at least one."""

    deviations: tuple[Deviation, ...]
    pictures: int

    @property
    def mean(self) -> float:
        """The median of the layers' differences of means."""
        return float(np.median([one.mean for one in self.deviations]))

    @property
    def spread(self) -> float:
        """The median of the layers' ratios of spreads."""
        return float(np.median([one.spread for one in self.deviations]))

    @property
    def first_spread(self) -> float:
        """The ratio of the first layer, before any activation: it says on which scale pixels are."""
        return self.deviations[0].spread

    @property
    def worst(self) -> Deviation:
        """The layer whose means differ most."""
        return max(self.deviations, key=lambda one: one.mean)

    @property
    def doubt(self) -> float:
        """How doubtful the network is: above 1, it is."""
        return max(self.mean / DOUBTFUL_MEAN, math.log(self.spread) / math.log(DOUBTFUL_SPREAD))

    def is_impossible(self, *, enough: bool) -> bool:
        """Whether no right network comes to this, given whether there are enough pictures of the user's."""
        mean = REFUSED_MEAN if enough else IMPOSSIBLE_MEAN
        return self.mean > mean or self.first_spread > (REFUSED_FIRST_SPREAD if enough else IMPOSSIBLE_FIRST_SPREAD)

    def __str__(self) -> str:
        return (
            f"means are off by {self.mean:.2g} standard deviations and spreads by a factor of {self.spread:.3g} "
            f"(medians of {len(self.deviations)} layers; {self.worst.layer} by {self.worst.mean:.2g})"
        )


def measure(network: nn.Module, pictures: Iterable[npt.NDArray[np.float32]]) -> Fit | None:
    """Run a network on pictures, (1, 3, height, width) each, and compare its layers with their statistics.

    Pictures of one colour are left out: whatever the network is, they have no spread. ``None`` where none is left, or
    where no layer remembers any, as in the program of an archive; then the network is not run.
    """
    layers = [(name, layer) for name, layer in network.named_modules() if _MEMORY in layer.__dict__]
    if not layers:
        return None
    sums: dict[str, _Sums] = {}
    hooks = [layer.register_forward_hook(_adder(name, layer, sums)) for name, layer in layers]
    count = 0
    try:
        with torch.inference_mode():
            for picture in pictures:
                if (picture != picture[..., :1, :1]).any():
                    network(torch.from_numpy(picture))
                    count += 1
    finally:
        for hook in hooks:
            hook.remove()
    deviations = tuple(found for found in (total.deviation(name) for name, total in sums.items()) if found)
    return Fit(deviations, count) if deviations else None


def _adder(name: str, layer: nn.Module, sums: "dict[str, _Sums]") -> Any:
    """A hook that adds what a layer gives; the first call of each decides on their order."""

    def add(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        sums.setdefault(name, _Sums(*layer.__dict__[_MEMORY])).add(output)

    return add


@dataclass
class _Sums:
    """Count, sum and sum of squares per channel of what one layer gives, over all pictures."""

    scale: Values
    shift: Values
    count: int = 0
    linear: Values = field(default_factory=lambda: np.zeros(()))
    square: Values = field(default_factory=lambda: np.zeros(()))

    def add(self, values: torch.Tensor) -> None:
        """Add what the layer gives, (N, channels, height, width)."""
        flat = values.detach().transpose(0, 1).flatten(1).double().numpy()
        self.count += flat.shape[1]
        with np.errstate(over="ignore", invalid="ignore"):  # infinities of both signs add up to NaN
            self.linear = self.linear + flat.sum(1)
            self.square = self.square + (flat**2).sum(1)

    def deviation(self, layer: str) -> Deviation | None:
        """Compare with the training; ``None`` where all scales have died. What overflows is infinitely far."""
        scale = np.abs(self.scale)
        alive = scale > 1e-3 * np.median(scale)
        if not alive.any():
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            mean = self.linear / self.count
            spread = np.sqrt(np.maximum(self.square / self.count - mean**2, 0))[alive]
            difference = np.abs(mean - self.shift)[alive] / scale[alive]
            ratio = np.maximum(spread, 1e-12) / scale[alive]
            found = float(np.median(difference)), float(np.median(np.maximum(ratio, 1 / ratio)))
        return Deviation(layer, *(value if math.isfinite(value) else math.inf for value in found))
