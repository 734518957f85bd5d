"""Compares the activations of a network with the statistics that its batch normalisation stored in training.

Batch normalisation stores mean and variance of the input of each of its layers. On images like those of the training,
the right network reproduces them; a network with another activation, or with pixels on another scale, does not. A
folded convolution gives ``(x - mean) / std * gamma + beta``: mean and spread of this output, compared with ``beta`` and
``gamma``, show the same after the normalisation has been folded away.

The thresholds separate the values measured on the trained models of ``testdata/models``: see docs/verification.md.
Right networks on eight images of their own domain: means differ by .09 standard deviations at most (the median of all
layers), spreads by a factor of 1.15; on our four photographs, unlike any that they have seen, by 1.0 and 2.0,
and the spread of the first layer by 1.6 at most. ReLU in place of SiLU: .09 to .41, and 1.6 to 2.1. Pixels of 0 to 255
in place of 0 to 1: 17 and more, and 190 in the first layer; pixels divided by 255 twice: from 4.8 in the first layer.
Networks that were trained for one step of one epoch: .2 to 1.5 on photographs, spreads up to 13, in the first layer
2.4.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from modelexport_converter.compute_device import run_network

ENOUGH_IMAGES = 8
"""User images needed to judge more than the scale of the pixels."""
IMPOSSIBLE_MEAN, IMPOSSIBLE_FIRST_SPREAD = 10.0, 20.0
"""Limits on any images."""
REFUSED_MEAN, REFUSED_FIRST_SPREAD = 2.0, 3.0
"""Limits on enough images of the user."""
SUSPECT_MEAN, SUSPECT_SPREAD = 0.3, 1.4
_STATISTICS = "folded_normalisation"

Values = npt.NDArray[np.float64]
ImageArray = npt.NDArray[np.float32]
Keep = Callable[[ImageArray, Sequence[torch.Tensor]], None]


def attach_statistics(convolution: nn.Module, normalisation: Any) -> None:
    """Attach scale and shift, each (channels,), of a folded normalisation to its convolution."""
    mean, variance = normalisation.running_mean, normalisation.running_var
    if bool((mean == 0).all()) and bool((variance == 1).all()):
        return  # initial values, before any training
    scale, shift = normalisation.weight, normalisation.bias
    convolution.__dict__[_STATISTICS] = tuple(value.detach().double().numpy().copy() for value in (scale, shift))


def copy_statistics(convolution: nn.Module, other: nn.Module) -> None:
    """Copy the attached statistics of another convolution to the one that replaces it."""
    if memory := other.__dict__.get(_STATISTICS):
        convolution.__dict__[_STATISTICS] = memory


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
    """How well a network fits its statistics: deviations of at least one layer, in the order of execution."""

    deviations: tuple[Deviation, ...]
    images: int

    @property
    def mean(self) -> float:
        """Return the median of the layers' differences of means."""
        return float(np.median([one.mean for one in self.deviations]))

    @property
    def spread(self) -> float:
        """Return the median of the layers' ratios of spreads."""
        return float(np.median([one.spread for one in self.deviations]))

    @property
    def first_spread(self) -> float:
        """Return the ratio of the first layer, before any activation: it shows the scale of the pixels."""
        return self.deviations[0].spread

    @property
    def worst(self) -> Deviation:
        """Return the layer whose means differ most."""
        return max(self.deviations, key=lambda one: one.mean)

    @property
    def misfit(self) -> float:
        """Return how doubtful the network is; above 1 it is suspect."""
        return max(self.mean / SUSPECT_MEAN, math.log(self.spread) / math.log(SUSPECT_SPREAD))

    def is_impossible(self, *, enough: bool) -> bool:
        """Return whether no right network shows these deviations; ``enough`` says that the user gave enough images."""
        mean = REFUSED_MEAN if enough else IMPOSSIBLE_MEAN
        return self.mean > mean or self.first_spread > (REFUSED_FIRST_SPREAD if enough else IMPOSSIBLE_FIRST_SPREAD)

    def __str__(self) -> str:
        return (
            f"means are off by {self.mean:.2g} standard deviations and spreads by a factor of {self.spread:.3g} "
            f"(medians of {len(self.deviations)} layers; {self.worst.layer} by {self.worst.mean:.2g})"
        )


def measure(network: nn.Module, images: Iterable[ImageArray], keep: Keep = lambda *_: None) -> Fit | None:
    """Run a network on images, (1, channels, height, width) each, and compare its layers with their statistics.

    Skips images of one colour: they have no spread in any network. Returns ``None`` if no image is left, or if no layer
    has statistics, as in a ``.pt2`` program; then the network is not run. ``keep`` receives each image and the
    network's outputs for it.
    """
    layers = [(name, layer) for name, layer in network.named_modules() if _STATISTICS in layer.__dict__]
    if not layers:
        return None
    sums: dict[str, _ActivationSums] = {}
    hooks = [layer.register_forward_hook(partial(_add_output, sums, name)) for name, layer in layers]
    count = 0
    try:
        with torch.inference_mode():
            for image in images:
                if (image != image[..., :1, :1]).any():
                    keep(image, run_network(network, torch.from_numpy(image)))
                    count += 1
    finally:
        for hook in hooks:
            hook.remove()
    deviations = tuple(found for found in (total.deviation(name) for name, total in sums.items()) if found)
    return Fit(deviations, count) if deviations else None


def _add_output(
    sums: "dict[str, _ActivationSums]", name: str, layer: nn.Module, _inputs: Any, output: torch.Tensor
) -> None:
    """Add an output to the sums of its layer, as a forward hook; the first calls define the order of the layers."""
    sums.setdefault(name, _ActivationSums(*layer.__dict__[_STATISTICS])).add(output)


@dataclass
class _ActivationSums:
    """Count, sum and sum of squares of one layer's outputs over all images, each (channels,)."""

    scale: Values
    shift: Values
    count: int = 0
    linear: Values = field(default_factory=lambda: np.zeros(()))
    square: Values = field(default_factory=lambda: np.zeros(()))

    def add(self, values: torch.Tensor) -> None:
        """Add outputs of the layer, (N, channels, height, width)."""
        flat = values.detach().transpose(0, 1).flatten(1)
        count = flat.shape[1]
        self.count += count
        # torch sums in pieces, so float32 is exact enough for medians of ratios, and twice as fast.
        variance, mean = (value.double().cpu().numpy() for value in torch.var_mean(flat, 1, correction=0))
        with np.errstate(over="ignore", invalid="ignore"):  # infinities of both signs add up to NaN
            self.linear = self.linear + count * mean
            self.square = self.square + count * (variance + mean**2)

    def deviation(self, layer: str) -> Deviation | None:
        """Compare with the training, or return ``None`` if all scales are near zero. An overflow counts as infinite."""
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
