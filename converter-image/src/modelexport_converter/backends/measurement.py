"""Finds tensors of files among those of their network, and keeps what was measured of them for another file.

Files of several formats hold the same tensors of one network. The gradients of these, the longest part of a
calibration, are measured for the first file only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modelexport_converter.backends.activation_ranges import Numbers, Weights

Places = npt.NDArray[np.intp]
TOLERANCE = 1e-4
"""Difference between the extremes of a tensor in torch and in another runtime, as a part of the larger one."""


class Matching:
    """Finds the tensors of a file on one image, whose extremes are ``limits``, (tensors, 2)."""

    def __init__(self, limits: Numbers) -> None:
        self._limits = limits
        self._tolerances = np.abs(limits).max(1) * TOLERANCE
        self._free = np.ones(len(limits), bool)

    def take(self, extremes: Numbers) -> int:
        """Return the place of the first tensor with these extremes, (2,), that was not found before; -1 if none has."""
        near = (np.abs(self._limits - extremes).max(1) <= self._tolerances) & self._free
        if not near.any():
            return -1
        found = int(near.argmax())
        self._free[found] = False
        return found


def start_weights(limits: Numbers) -> list[Weights]:
    """Return weights without gradients for tensors of a file, of extremes (tensors, images, 2)."""
    lows, highs = limits[..., 0].min(1).tolist(), limits[..., 1].max(1).tolist()
    return [Weights(min(low, 0.0), max(high, 0.0)) for low, high in zip(lows, highs, strict=True)]


@dataclass(frozen=True)
class Measurement:
    """The squared gradients of the tensors of a file, (tensors, bins), and where in the network they were found.

    Attributes:
        squares: sums over all images.
        seen: the extremes of every tensor of the network on each image, in the order of computation, (found, 2).
        takers: the place of the file's tensor that took its gradients, -1 where none did, on each image, (found,).
    """

    squares: Numbers
    seen: Sequence[Numbers]
    takers: Sequence[Places]

    def add_to(self, weights: Sequence[Weights], limits: Numbers) -> bool:
        """Add to the weights of the tensors of another file, of extremes (tensors, images, 2), and return whether.

        They are what a measurement for that file finds, except that values are sorted into bins of extremes that differ
        by rounding. Nothing is added if it would find a tensor of the network that no tensor of this file took.
        """
        images = [_match(limits[:, index], seen) for index, seen in enumerate(self.seen)]
        partners = np.full(len(self.squares) + 1, -1)  # the last one is that of takers of -1
        for found, takers in zip(images, self.takers, strict=True):
            partners[takers[found >= 0]] = found[found >= 0]
        if partners[-1] >= 0 or any((partners[t] != f).any() for f, t in zip(images, self.takers, strict=True)):
            return False
        for place in np.flatnonzero(partners >= 0):
            weights[partners[place]].squares += self.squares[place]
        return True

    def write(self, path: Path) -> None:
        """Write to a file, as numbers alone."""
        ends = np.cumsum([len(one) for one in self.takers], dtype=np.intp)
        seen, takers = np.concatenate([np.zeros((0, 2)), *self.seen]), np.concatenate([ends[:0], *self.takers])
        with path.open("wb") as file:
            np.savez(file, squares=self.squares, seen=seen, takers=takers, ends=ends)

    @classmethod
    def read(cls, path: Path) -> "Measurement":
        """Read a file that ``write`` wrote."""
        with np.load(path) as kept:
            ends = kept["ends"][:-1]
            return cls(kept["squares"], np.split(kept["seen"], ends), np.split(kept["takers"], ends))


def _match(limits: Numbers, seen: Numbers) -> Places:
    matching = Matching(limits)
    return np.array([matching.take(extremes) for extremes in seen], np.intp)
