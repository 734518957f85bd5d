"""Finds tensors of files among those of their network, and keeps what was measured of them for another file.

Files of several formats hold the same tensors of one network. The gradients of these, the longest part of a
calibration, are measured for the first file only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modelexport_converter.backends.activation_ranges import BINS, Numbers, Weights

Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]
TOLERANCE = 1e-4
"""Difference between the extremes of a tensor in torch and in another runtime, as a part of the larger one."""


def has_extremes(limits: Numbers, extremes: Numbers) -> Flags:
    """Return which results of a network, of ``extremes`` (results, 2), have those of the tensors of a file on one
    image, ``limits`` (tensors, 2): (results, tensors).
    """
    most = np.abs(limits).max(1) * TOLERANCE
    lows, highs = (np.abs(limits[:, end] - extremes[:, end, None]) <= most for end in range(2))
    near: Flags = lows & highs
    return near


def find_tensors(limits: Numbers, seen: Numbers) -> Places:
    """Return the place of the tensor of a file that each result of its network is, (results,), -1 where it is none.

    A tensor is the result with its extremes on most images, and on more than half of them: a part of a tensor has the
    extremes of the whole on some.

    Args:
        limits: extremes of the tensors, (tensors, images, 2).
        seen: extremes of the results, in the order of computation, on the same images, (images, results, 2).
    """
    counts = np.zeros((seen.shape[1], len(limits)), np.intp)
    for index, extremes in enumerate(seen):
        counts += has_extremes(limits[:, index], extremes)
    places, free = np.full(len(counts), -1), np.ones(len(limits), bool)
    pairs = np.argwhere(2 * counts > len(seen))
    for result, tensor in pairs[np.argsort(-counts[tuple(pairs.T)], kind="stable")]:
        if places[result] < 0 and free[tensor]:
            places[result], free[tensor] = tensor, False
    return places


def start_weights(limits: Numbers) -> list[Weights]:
    """Return weights without gradients for tensors of a file, of extremes (tensors, images, 2)."""
    lows, highs = limits[..., 0].min(1).tolist(), limits[..., 1].max(1).tolist()
    return [Weights(min(low, 0.0), max(high, 0.0)) for low, high in zip(lows, highs, strict=True)]


@dataclass(frozen=True)
class Measurement:
    """The squared gradients of the results of a network that are tensors of a file.

    Attributes:
        seen: the extremes of every result on each image, in the order of computation, (images, results, 2).
        measured: whether the gradients of a result were measured, (results,).
        squares: their sums over all images, (results, bins).
    """

    seen: Numbers
    measured: Flags
    squares: Numbers

    @classmethod
    def of_nothing(cls, seen: Numbers) -> "Measurement":
        """Return the measurement of a network without gradients, or whose results another file has to find itself."""
        return cls(seen, np.zeros(seen.shape[1], bool), np.zeros((seen.shape[1], BINS)))

    def add_to(self, weights: Sequence[Weights], limits: Numbers) -> bool:
        """Add to the weights of the tensors of a file, of extremes (tensors, images, 2), and return whether.

        They are what a measurement for that file finds, except that values are sorted into bins of extremes that differ
        by rounding. Nothing is added if the file has a result that was not measured.
        """
        places = find_tensors(limits[:, : len(self.seen)], self.seen)
        found = np.flatnonzero(places >= 0)
        if not self.measured[found].all():
            return False
        for result in found:
            weights[places[result]].squares += self.squares[result]
        return True

    def write(self, path: Path) -> None:
        """Write to a file, as numbers alone."""
        with path.open("wb") as file:
            np.savez(file, seen=self.seen, measured=self.measured, squares=self.squares)

    @classmethod
    def read(cls, path: Path) -> "Measurement":
        """Read a file that ``write`` wrote."""
        with np.load(path) as kept:
            return cls(kept["seen"], kept["measured"], kept["squares"])
