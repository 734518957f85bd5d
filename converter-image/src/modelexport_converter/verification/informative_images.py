"""Which pictures are evidence: those of which the original model says what it does not say of every picture.

Where a model sees nothing, a file that sees nothing at all agrees with it. So a file is not proved by how many pictures
it was compared on, but by how many of them showed the model something, as it says itself:

- a detector: a detection with a score of at least DETECTED;
- a classifier of pictures or of pixels: an answer that is not the average of its answers to all pictures, by MOVED at
  least, or more than one class within the picture;
- a model of which nothing is known but the shapes of its outputs: an answer that differs from another one.

Pictures of one colour, of darkness or of noise are evidence for none of the trained models of the tests: their scores
stay below 0.22 and their answers within 0.01 of the average; on pictures of what they have learned, scores are above
0.9, and answers of the classifier 0.65 from the average.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

DETECTED = 0.25
"""The score from which on a detection counts: what ultralytics' ``predict`` shows by default (its ``conf``)."""
MOVED = 0.05
"""The share of probability that an answer gives to other classes than the average answer does.

A file that always gives the average answer agrees on such a picture by 0.95, which no threshold of FP32 or FP16 takes.
"""
SHARE = 1 / 1000
"""The least share of a picture's pixels that a second class has to have."""
VARIED = 2.0**-10
"""What an answer differs by, beside its magnitude; half precision rounds by half of that, at most."""

NO_DETECTION = f"the model detects nothing with a score of {DETECTED} or more on any of the pictures"
SAME_ANSWER = "the model gives all of the pictures the same answer"


@dataclass
class Probabilities:
    """Answers of a classifier: for each picture the average over its pixels, (classes,)."""

    averages: list[Numbers] = field(default_factory=list)
    mixed: list[bool] = field(default_factory=list)

    def add(self, answer: npt.NDArray[np.floating]) -> None:
        """Add one picture: (1, classes), or (1, classes, rows, columns)."""
        pixels = answer[0].astype(np.float64).reshape(answer.shape[1], -1)
        if len(pixels) == 1:
            pixels = np.concatenate([pixels, 1 - pixels])
        wins = np.bincount(pixels.argmax(0), minlength=len(pixels))
        self.averages.append(pixels.mean(1))
        self.mixed.append(bool(wins.max() <= (1 - SHARE) * wins.sum()))

    def count(self) -> int:
        """How many pictures are evidence."""
        if not self.averages:
            return 0
        averages = np.stack(self.averages)
        moved = np.abs(averages - averages.mean(0)).sum(1) / 2
        return int(((moved >= MOVED) | np.array(self.mixed)).sum())


@dataclass
class Variation:
    """Answers of which nothing is known: how many differ from the first one."""

    first: Sequence[Numbers] | None = None
    different: int = 0

    def add(self, answer: Sequence[Numbers]) -> None:
        """Add one picture: outputs as (channels, rest)."""
        if self.first is None:
            self.first = answer
        elif any(map(_differ, self.first, answer)):
            self.different += 1

    def count(self) -> int:
        """How many pictures are evidence: with the others the first one, too."""
        return self.different + 1 if self.different else 0


def _differ(one: Numbers, other: Numbers) -> bool:
    error, size = ((one - other) ** 2).sum(1), np.maximum((one**2).sum(1), (other**2).sum(1))
    return bool((error > VARIED**2 * size).any())
