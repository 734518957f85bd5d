"""Shared by the calibrating backends: 8-bit ranges of tensors, and the layers and tensors that stay in float."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Tensor = TypeVar("Tensor", int, str)
Numbers = npt.NDArray[np.float64]
Width = TypeVar("Width", float, npt.NDArray[np.float64])
Extremes = Sequence[tuple[float, float]]
"""Minimum and maximum of a tensor on each calibration image."""


@dataclass(frozen=True)
class Budget:
    """The range of each tensor of a file, and the squared error of the outputs that its rounding causes, if known.

    ``by_output`` has the noise of each tensor in each output alone, by the output's name, of a file with much noise.
    """

    ranges: Mapping[str, tuple[float, float]]
    noise: Mapping[str, float]
    by_output: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


Provide = Callable[[Callable[[Path], None]], tuple[Path, bool]]
"""Returns a file, and whether its argument wrote it now, since no other conversion had."""


@dataclass
class CalibrationMemo:
    """Remembers the budget of a file: several files are quantised from it after one calibration.

    ``provide`` keeps what files of several formats share of it.
    """

    provide: Provide | None = None
    budget: Budget | None = None

    def recall(self, measure: Callable[[Provide | None], Budget]) -> Budget:
        """Return the budget, measured the first time."""
        if self.budget is None:
            self.budget = measure(self.provide)
        return self.budget


BINS = 1024
_POWER = 4
_LEVELS = 255
_ENDS = np.linspace(0, 1, 101)
"""Ends of a range that are tried, as parts of the extremes."""


@dataclass
class Weights:
    """How much the outputs react to the values of a tensor: sums of squared gradients in bins from low to high."""

    low: float
    high: float
    squares: Numbers = field(default_factory=lambda: np.zeros(BINS))

    def best_range(self) -> tuple[float, float, float]:
        """Return the range of the least noise, and that noise: the squared error of the outputs."""
        lows, highs = self.low * _ENDS, self.high * _ENDS
        edges = np.linspace(self.low, self.high, BINS + 1)
        values = (edges[1:] + edges[:-1]) / 2
        # Of each pair of ends, (lows, highs): the noise of values cut off, and of values rounded to a step.
        below = (lows[:, None] - values).clip(0) ** 2 @ self.squares
        above = (values - highs[:, None]).clip(0) ** 2 @ self.squares
        noises = below[:, None] + above + self.rounding(highs - lows[:, None])
        low, high = np.unravel_index(noises.argmin(), noises.shape)
        return float(lows[low]), float(highs[high]), float(noises[low, high])

    def rounding(self, width: Width) -> Width:
        """Return the noise of values rounded to a step of a range of this width."""
        return (width / _LEVELS) ** 2 / 12 * float(self.squares.sum())


def pick_float_layers(
    noise: Mapping[str, float], layers: Mapping[str, Collection[str]], count: int
) -> dict[str, float]:
    """Return the layers that cause most noise, at most ``count``, and the share of each in the noise of all layers.

    A tensor is in 8 bits as long as one of its layers is, so its noise is shared among these.

    Args:
        noise: squared error of the outputs by tensor, where it is known.
        layers: the tensors that are in 8 bits because of each layer alone or together with other layers.
        count: how many layers may stay in float.
    """
    remaining, chosen, whole = dict(layers), dict[str, float](), _share_noise(noise, layers)
    total = sum(whole.values())
    while remaining and len(chosen) < count:
        shares = _share_noise(noise, remaining)
        worst = max(shares, key=shares.__getitem__)
        if not shares[worst]:
            break
        chosen[worst] = whole[worst] / total
        del remaining[worst]
    return chosen


def _share_noise(noise: Mapping[str, float], layers: Mapping[str, Collection[str]]) -> dict[str, float]:
    """Return the noise of each layer: that of its tensors, each of which is shared among its layers."""
    holders = Counter(tensor for tensors in layers.values() for tensor in tensors)
    return {name: sum(noise.get(t, 0.0) / holders[t] for t in tensors) for name, tensors in layers.items()}


def activation_range(extremes: Sequence[tuple[float, float]], int8_sensitive: bool) -> tuple[float, float]:
    """Return the range of a tensor, from its minimum and maximum on each calibration image.

    Usually the range covers all values, since a value on only a few images may matter. One image in 64 that reaches
    twice as far as the rest then halves the precision of all; in an ``int8_sensitive`` model it is clipped instead.
    """
    lows, highs = np.array(extremes).T
    if not int8_sensitive:
        return float(lows.min()), float(highs.max())
    return -_power_mean(-lows), _power_mean(highs)


def _power_mean(reaches: npt.NDArray[np.float64]) -> float:
    """Return a power mean of the images' reaches, which lies between their average and their maximum.

    The average would clip values of a third of the images. A reach that one image in ten has keeps more than half of
    its size.
    """
    return float((reaches.clip(0) ** _POWER).mean() ** (1 / _POWER))


def trace_to_weights(
    outputs: Iterable[Tensor], sources: Mapping[Tensor, Sequence[Tensor]], weighted: Collection[Tensor]
) -> tuple[set[Tensor], set[Tensor]]:
    """Return the tensors after the last operators with weights, and the results of those operators.

    Args:
        outputs: tensors to start from.
        sources: the inputs of the operator that computes each tensor.
        weighted: results of operators with weights.
    """
    following, last, waiting = set[Tensor](), set[Tensor](), list(outputs)
    while waiting:
        tensor = waiting.pop()
        if tensor in weighted:
            last.add(tensor)
        elif tensor in sources and tensor not in following:
            following.add(tensor)
            waiting.extend(sources[tensor])
    return following, last
