"""Draws the true class of every pixel from outlines, and measures mean IoU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Classes = npt.NDArray[np.uint8]


def label_map(outlines: Iterable[tuple[int, Sequence[float]]], size: tuple[int, int]) -> Classes:
    """Return classes (H, W): 0 for the background, label + 1 where the centre of a pixel is inside an outline.

    Outlines are convex: x, y, x, y, ... in pixels.
    """
    classes = np.zeros(size, np.uint8)
    for label, outline in outlines:
        classes[_inside(np.asarray(outline, np.float64).reshape(-1, 2), size)] = label + 1
    return classes


def _inside(corners: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return whether the centre of each pixel lies on the same side of all edges: corners (n, 2) to (H, W)."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    edges = zip(corners, np.roll(corners, -1, axis=0), strict=True)
    sides = [(b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) for a, b in edges]
    return np.logical_or(np.min(sides, axis=0) >= 0, np.max(sides, axis=0) <= 0)


class ConfusionMatrix:
    """Counts pixels by true and predicted class."""

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, truth: Classes, found: Classes) -> None:
        """Add one image: two class maps of one shape (H, W)."""
        classes = len(self.counts)
        flat = truth.astype(np.int64).ravel() * classes + found.ravel()
        self.counts += np.bincount(flat, minlength=classes**2).reshape(classes, classes)

    def mean_iou(self) -> float:
        """Return intersection over union of the pixels of all images, averaged over the classes and the background."""
        shared = np.diagonal(self.counts)
        return float((shared / (self.counts.sum(0) + self.counts.sum(1) - shared)).mean())
