"""Compares lists of detections, whose order may differ and which may have lost or gained some.

The agreement is a weighted Dice coefficient, ``2 E·F / (E·E + F·F)`` over all images. ``E·F`` sums, over the pairs of
an expected and a found detection, the product of their scores and the intersection over union of their boxes; ``E·E``
and ``F·F`` are the sums of the squared scores. 1 is equality. A lost, an invented and a mislabelled detection count by
the square of their scores, so faint ones that come and go by rounding weigh little.

Boxes that are less than a pixel wide or high show nothing and are left out on both sides. A trained R-CNN finds such
slivers at the border of an image, with a constant score, the output of its box head for an empty region; a rounding of
a hundredth of a pixel makes them come and go, or halves their overlap.

Masks are measured on the same pairs, each weighted by its product of scores: the sum of the smaller probabilities
divided by the sum of the larger ones, pixel by pixel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from modelexport.api.reasons import Reason
from modelexport_converter.backends import Array
from modelexport_converter.boxes import Numbers, overlaps
from modelexport_converter.failures import Failure
from modelexport_converter.model import Output
from modelexport_converter.verification.informative_images import DETECTED, NO_DETECTION

AXIS = "detection"


@dataclass
class DetectionSums:
    """Sums over all images, with inputs of ``input_size`` (height, width), from which the agreements follow."""

    outputs: Sequence[Output]
    input_size: tuple[int, int]
    images: int = 0
    shared: float = 0.0
    squares: float = 0.0
    masks: float = 0.0
    weight: float = 0.0
    informative: int = 0
    uninformative_reason: ClassVar[str] = NO_DETECTION

    def add(self, expected: Sequence[Array], found: Sequence[Array]) -> None:
        """Add one image: the outputs of the model and of the file, in their order.

        Raises:
            Failure: ``VerificationFailed``: the model or the file reports that it has no answer.
        """
        self.images += 1
        one, other = (
            UnpaddedDetections.read(self.outputs, answer).visible(self.input_size) for answer in (expected, found)
        )
        self.informative += bool((one.scores >= DETECTED).any())
        self.squares += float((one.scores**2).sum() + (other.scores**2).sum())
        for index, partner, value in _pairs(one, other):
            self.shared += 2 * value
            weight = float(one.scores[index] * other.scores[partner])
            self.weight += weight
            if one.masks is not None and other.masks is not None:
                pair = one.masks[index], other.masks[partner]
                larger = float(np.maximum(*pair).sum())
                self.masks += weight * (float(np.minimum(*pair).sum()) / larger if larger else 1.0)

    def agreements(self) -> dict[str, float]:
        """Return the agreement of the detections and, if the model has them, of their masks.

        Raises:
            Failure: ``VerificationFailed``: there is nothing to compare on any image.
        """
        if not self.has_content():
            raise incomparable(f"neither the model nor the file detects anything on {self.images} images")
        # Equal answers give sums of the same numbers in another order, whose ratio may round above 1.
        detections = {"detections": min(1.0, self.shared / self.squares)}
        if not any(output.name == "masks" for output in self.outputs):
            return detections
        return {**detections, "masks": min(1.0, self.masks / self.weight) if self.weight else 0.0}

    def has_content(self) -> bool:
        """Return whether anything was detected yet."""
        return self.squares > 0

    def informative_count(self) -> int:
        """Return the number of informative images."""
        return self.informative

    def remark(self) -> str:
        """Return an empty phrase: the agreements say it all."""
        return ""


def incomparable(problem: str) -> Failure:
    """Return the failure of a model that outputs nothing to compare on any image."""
    way_out = "give calibration images of the model's own domain"
    return Failure(Reason.VERIFICATION_FAILED, f"{problem}, so that nothing can be compared; {way_out}")


@dataclass(frozen=True)
class UnpaddedDetections:
    """The detections of one answer, without its padding.

    Boxes are (n, 4), scores and labels (n,), and masks, if there are any, (n, rows, columns).
    """

    boxes: Numbers
    scores: Numbers
    labels: Numbers
    masks: Array | None

    @classmethod
    def read(cls, outputs: Sequence[Output], answer: Sequence[Array]) -> "UnpaddedDetections":
        """Read the outputs for one image.

        Raises:
            Failure: ``VerificationFailed``: the model or the file reports that it has no answer.
        """
        named = {output.name: values for output, values in zip(outputs, answer, strict=True)}
        count = round(float(named["count"].reshape(-1)[0]))
        if count < 0:
            chains = "boxes overlap in longer chains than the file resolves"
            problem = f"{chains}, or more exceed the score's threshold than it compares"
            way_out = "raise scoreThreshold, or remove the option nms"
            raise Failure(Reason.VERIFICATION_FAILED, f"{problem}, so that it has no answer to an image; {way_out}")
        boxes, scores, labels = (named[name][0, :count].astype(np.float64) for name in ("boxes", "scores", "labels"))
        return cls(boxes, scores, labels, named["masks"][0, :count] if "masks" in named else None)

    def visible(self, input_size: tuple[int, int]) -> "UnpaddedDetections":
        """Return the detections whose box has at least a pixel in each direction, for inputs of (height, width)."""
        sides = (self.boxes[:, 2:] - self.boxes[:, :2]) * input_size[::-1]
        kept = (sides >= 1).all(1)
        masks = None if self.masks is None else self.masks[kept]
        return UnpaddedDetections(self.boxes[kept], self.scores[kept], self.labels[kept], masks)


def _pairs(one: UnpaddedDetections, other: UnpaddedDetections) -> Iterator[tuple[int, int, float]]:
    """Yield pairs of detections of one class, greedily by the product of scores and overlap: (index, index, product).

    Each detection is in one pair at most.
    """
    values = overlaps(one.boxes, other.boxes) * one.scores[:, None] * other.scores
    values *= one.labels[:, None] == other.labels
    while values.size:
        index, partner = np.unravel_index(values.argmax(), values.shape)
        if (value := float(values[index, partner])) <= 0:
            return
        yield int(index), int(partner), value
        values[index], values[:, partner] = 0, 0
