"""What the calibrating backends share: in which range the values of a tensor become 8-bit integers, and where not."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Tensor = TypeVar("Tensor", int, str)

_POWER = 4


def find_range(extremes: Sequence[tuple[float, float]], delicate: bool) -> tuple[float, float]:
    """The range of a tensor, from its minimum and maximum on each calibration picture.

    As a rule it holds all values, since what only a few pictures show may be what matters. One picture in 64 that
    reaches twice as far as the rest then halves the precision of all; in a delicate model it is clipped instead.
    """
    lows, highs = np.array(extremes).T
    if not delicate:
        return float(lows.min()), float(highs.max())
    return -_mean(-lows), _mean(highs)


def _mean(reaches: npt.NDArray[np.float64]) -> float:
    """Between the average, which cuts what a third of the pictures shows, and the maximum.

    What one picture in ten shows keeps more than half of its reach.
    """
    return float((reaches.clip(0) ** _POWER).mean() ** (1 / _POWER))


def trace_back(
    outputs: Iterable[Tensor], sources: Mapping[Tensor, Sequence[Tensor]], weighted: Collection[Tensor]
) -> tuple[set[Tensor], set[Tensor]]:
    """Return the tensors that follow the last operators with weights, and the results of those operators.

    ``sources`` are the tensors from which each is computed, ``weighted`` the results of operators with weights.
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
