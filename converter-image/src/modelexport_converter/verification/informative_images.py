"""Counts informative images: those on which the output of the original model differs from its usual one.

Where a model detects nothing, a file that detects nothing at all agrees with it. So a verification counts only images
on which the original model shows a result:

- a detector: a detection with a score of at least DETECTED;
- a classifier of images or of pixels: an output that differs from the average output over all images by MOVED at
  least, or more than one class within the image;
- a model of which only the output shapes are known: an output that differs from another one.

Images of one colour, of darkness or of noise are informative for none of the trained models of the tests: their scores
stay below 0.22 and their outputs within 0.01 of the average; on images like the training set, scores are above
0.9, and outputs of the classifier 0.65 from the average.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

DETECTED = 0.25
"""The least score of a detection: ultralytics' ``predict`` shows detections from it by default (its ``conf``)."""
MOVED = 0.05
"""The least share of probability that an output gives to other classes than the average output does.

A file that always returns the average output has an agreement of 0.95 on such an image, which is below all thresholds
of FP32 and FP16.
"""
SHARE = 1 / 1000
"""The least share of an image's pixels for a second class."""
VARIED = 2.0**-10
"""The least difference between outputs, relative to their magnitude; half precision rounds by half of that, at most."""

NO_DETECTION = f"the model detects nothing with a score of {DETECTED} or more on any of the images"
SAME_ANSWER = "the model returns the same output for all images"


@dataclass
class Probabilities:
    """Outputs of a classifier: for each image the average over its pixels, (classes,)."""

    averages: list[Numbers] = field(default_factory=list)
    mixed: list[bool] = field(default_factory=list)

    def add(self, answer: npt.NDArray[np.floating]) -> None:
        """Add one image: (1, classes), or (1, classes, rows, columns)."""
        pixels = answer[0].astype(np.float64).reshape(answer.shape[1], -1)
        if len(pixels) == 1:
            pixels = np.concatenate([pixels, 1 - pixels])
        wins = np.bincount(pixels.argmax(0), minlength=len(pixels))
        self.averages.append(pixels.mean(1))
        self.mixed.append(bool(wins.max() <= (1 - SHARE) * wins.sum()))

    def count(self) -> int:
        """Return the number of informative images."""
        if not self.averages:
            return 0
        averages = np.stack(self.averages)
        moved = np.abs(averages - averages.mean(0)).sum(1) / 2
        return int(((moved >= MOVED) | np.array(self.mixed)).sum())


@dataclass
class Variation:
    """Outputs of which only the shape is known: counts those that differ from the first one."""

    first: Sequence[Numbers] | None = None
    different: int = 0

    def add(self, answer: Sequence[Numbers]) -> None:
        """Add one image: each output as (channels, rest)."""
        if self.first is None:
            self.first = answer
        elif any(map(_differ, self.first, answer)):
            self.different += 1

    def count(self) -> int:
        """Return the number of informative images; if others differ from the first one, it counts, too."""
        return self.different + 1 if self.different else 0


def _differ(one: Numbers, other: Numbers) -> bool:
    error, size = ((one - other) ** 2).sum(1), np.maximum((one**2).sum(1), (other**2).sum(1))
    return bool((error > VARIED**2 * size).any())
