"""What one model did on each image, from which its accuracy follows for any selection of the images. Pure.

A selection is a weight per image: 1 for each is the data set itself, whole numbers are one that was drawn with
repetition from it. ``values`` computes many selections at once, from what was matched before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Whole = npt.NDArray[np.int64]

OVERLAPS = np.linspace(0.5, 0.95, 10)
"""IoU, or similarity of keypoints, from which a detection matches: the ten levels of mAP50-95."""
RECALLS = np.linspace(0.0, 1.0, 101)
CELLS = 2_000_000
"""Numbers of one array while selections are computed."""
_TINY = np.spacing(1)


class Records(Protocol):
    """Records of one model on some images."""

    @property
    def count(self) -> int:
        """The number of images."""

    def values(self, weights: Numbers) -> Numbers:
        """Return the accuracy for selections (R, images): (R,)."""

    def by_class(self) -> Mapping[int, float]:
        """Return the accuracy on all images by the index of the class."""

    def first(self, count: int) -> Self:
        """Return the records of the first images."""


def value(records: Records) -> float:
    """Return the accuracy on all images."""
    return float(records.values(np.ones((1, records.count)))[0])


@dataclass(frozen=True)
class Matches:
    """Detections of all images, matched to the labels by pycocotools; for mAP50-95.

    Attributes:
        image: index of the image of each detection, (n,).
        label: index of its class, (n,).
        score: its score, (n,).
        matched: whether it matches an object at each of ``OVERLAPS``, (n, 10).
        ignored: whether it does not count there, for example within a crowd, (n, 10).
        truths: number of objects by image and class, (images, classes).
    """

    image: Whole
    label: Whole
    score: Numbers
    matched: Flags
    ignored: Flags
    truths: Whole

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self.truths)

    def values(self, weights: Numbers) -> Numbers:
        """Return mAP50-95 for selections (R, images): (R,), the mean over the classes that have an object."""
        precisions = [self._precisions(label, weights) for label in self._labels()]
        table = np.array(precisions).reshape(-1, len(weights))
        known = ~np.isnan(table)
        return np.asarray(np.where(known, table, 0).sum(0) / np.maximum(known.sum(0), 1))

    def by_class(self) -> Mapping[int, float]:
        """Return AP50-95 by class, of the classes that have an object."""
        ones = np.ones((1, self.count))
        return {int(label): float(self._precisions(label, ones)[0]) for label in self._labels()}

    def first(self, count: int) -> "Matches":
        """Return the records of the first images."""
        kept = self.image < count
        found = (self.image[kept], self.label[kept], self.score[kept], self.matched[kept], self.ignored[kept])
        return Matches(*found, truths=self.truths[:count])

    def _labels(self) -> Whole:
        return np.flatnonzero(self.truths.sum(0))

    def _precisions(self, label: int, weights: Numbers) -> Numbers:
        """Return the average precision of a class for selections (R, images); NaN for those without its objects."""
        rows = np.flatnonzero(self.label == label)
        rows = rows[np.argsort(-self.score[rows], kind="stable")]
        hit = (self.matched[rows] & ~self.ignored[rows]).any(1)
        rows = (
            rows[: np.flatnonzero(hit)[-1] + 1] if hit.any() else rows[:0]
        )  # what follows the last hit changes nothing
        truths = weights @ self.truths[:, label]
        step = max(1, CELLS // max(1, len(rows)))
        parts = [
            self._average(rows, weights[start : start + step], truths[start : start + step])
            for start in range(0, len(weights), step)
        ]
        return np.asarray(np.where(truths > 0, np.concatenate(parts), np.nan))

    def _average(self, rows: Whole, weights: Numbers, truths: Numbers) -> Numbers:
        """Return precision, averaged over 101 recalls and ten overlaps, of detections sorted best first: (R,).

        As pycocotools computes it: precision does not rise with recall, and each of the 101 recalls takes the precision
        of the first detection that reaches it. Both change at hits only, so only hits are looked at.
        """
        of_row = weights[:, self.image[rows]]
        total = np.zeros(len(weights))
        for level in range(len(OVERLAPS)):
            counted = ~self.ignored[rows, level]
            if level == 0 or (counted != ~self.ignored[rows, level - 1]).any():
                seen = np.cumsum(of_row * counted, axis=1)
            hits = np.flatnonzero(self.matched[rows, level] & counted)
            if not hits.size:
                continue
            found = np.cumsum(of_row[:, hits], axis=1)
            precision = found / (seen[:, hits] + _TINY)
            precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            recall = found / np.maximum(truths, 1)[:, None]
            reached = np.searchsorted(RECALLS, recall, side="right")
            total += (np.diff(reached, axis=1, prepend=0) * precision).sum(1) / len(RECALLS)
        return np.asarray(total / len(OVERLAPS))


@dataclass(frozen=True)
class Overlaps:
    """Pixels of each image and class, (images, classes): in truth and answer, in the truth, in the answer; for mIoU."""

    shared: Whole
    labelled: Whole
    found: Whole

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self.shared)

    def values(self, weights: Numbers) -> Numbers:
        """Return mIoU for selections (R, images): (R,), the mean over the classes in truth or answer."""
        ratios, known = self._ratios(weights)
        return np.asarray(ratios.sum(1) / np.maximum(known.sum(1), 1))

    def by_class(self) -> Mapping[int, float]:
        """Return IoU by class, of the classes in truth or answer."""
        ratios, known = self._ratios(np.ones((1, self.count)))
        return {int(label): float(ratios[0, label]) for label in np.flatnonzero(known[0])}

    def first(self, count: int) -> "Overlaps":
        """Return the records of the first images."""
        return Overlaps(self.shared[:count], self.labelled[:count], self.found[:count])

    def _ratios(self, weights: Numbers) -> tuple[Numbers, Flags]:
        shared = weights @ self.shared
        union = weights @ (self.labelled + self.found - self.shared)
        return np.divide(shared, union, out=np.zeros_like(union), where=union > 0), union > 0


@dataclass(frozen=True)
class Hits:
    """Class of each image, and whether it was the likeliest one in the answer; for top-1."""

    label: Whole
    hit: Flags

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self.label)

    def values(self, weights: Numbers) -> Numbers:
        """Return the share of hits for selections (R, images): (R,)."""
        return np.asarray(weights @ self.hit / weights.sum(1))

    def by_class(self) -> Mapping[int, float]:
        """Return the share of hits by class."""
        return {int(label): float(self.hit[self.label == label].mean()) for label in np.unique(self.label)}

    def first(self, count: int) -> "Hits":
        """Return the records of the first images."""
        return Hits(self.label[:count], self.hit[:count])
