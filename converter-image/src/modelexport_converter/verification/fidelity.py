"""Measures a file by the metric of its task, with the answers of the original model as labels.

Agreement compares all numbers of the outputs, and so it finds small errors that no user notices and averages over large
ones that every user does: a file without the boxes of a rare class agrees well. Fidelity counts answers, as users read
them:

- detections after suppression: ``kept / (kept + missed + invented)``. Model and file have the same detection if class
  and place are the same: an intersection over union of SAME at least, of the boxes and, where the model has them, of
  the masks, or an object keypoint similarity of as much. Rotated boxes overlap as they lie, whatever their angles are
  called. Each is in one pair at most, best score first;
- classes of pixels: intersection over union of each class, averaged over the classes that the model gives;
- classes of images: the share of images with the same class.

A score near a limit falls on either side of it by rounding. So an answer of one side counts as missed by the other if
it is sure, with a score of SURE at least, and the other has none with a score of DETECTED at least; between the two
limits, an answer is compared but not missed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from modelexport.api.result import Fidelity, FidelityMetric
from modelexport_converter import rotated_boxes
from modelexport_converter.backends import Array
from modelexport_converter.boxes import Numbers, overlaps
from modelexport_converter.model import LoadedModel, Output
from modelexport_converter.verification.answers import Detections, read_detections
from modelexport_converter.verification.informative_images import SHARE
from modelexport_converter.verification.samples import MOST_ANSWERS, Answer, Difference, runs_of

SURE = 0.5
"""The least score of an answer that may not be missed."""
SAME = 0.5
"""The least overlap of equal detections: that of the metric AP50."""
KEYPOINT_SIGMA = 0.1
"""Deviation of a keypoint relative to the size of its object, between COCO's elbows (0.072) and hips (0.107)."""
POSSIBLE = 0.01
"""The least probability of a class that is shown below the best one."""
FEWEST = 20
"""The fewest answers by which a file is refused: one of them is 0.05, which no threshold requires."""


class FidelitySums(Protocol):
    """Counts of the answers to all images so far."""

    def add(self, expected: Sequence[Array], found: Sequence[Array], size: tuple[int, int]) -> Difference:
        """Add one image (height, width): the outputs of model and file in their order. Return how much they differ."""

    def result(self, minimum: float) -> Fidelity | None:
        """Return the fidelity, with a threshold if there are answers enough; ``None`` if the model gave none."""

    @property
    def silence(self) -> str:
        """Return the sentence about images without any answer of the model."""


def start_fidelity(model: LoadedModel) -> FidelitySums | None:
    """Return empty sums for a model; ``None`` if its outputs have no known meaning."""
    axes = {axis for output in model.outputs for axis in output.axes}
    if axes & {"anchor", "detection"}:
        return DetectionFidelity(model.outputs)
    if "class" not in axes:
        return None
    return PixelFidelity() if "row" in axes else ClassFidelity()


@dataclass
class DetectionFidelity:
    """Counts the detections of one side that the other has and has not."""

    outputs: Sequence[Output]
    images: int = 0
    kept: int = 0
    missed: int = 0
    invented: int = 0
    pairs: list["Pair"] = field(default_factory=list)

    silence = f"neither the model nor the file has a detection with a score of {SURE} or more"

    def add(self, expected: Sequence[Array], found: Sequence[Array], size: tuple[int, int]) -> Difference:
        """Add one image (height, width). Return how much the answers differ.

        Raises:
            Failure: ``VerificationFailed``: model or file reports that it has no answer.
        """
        self.images += 1
        one, other = (read_detections(self.outputs, size, answer) for answer in (expected, found))
        pairs = [pair for pair in match(one, other) if max(pair.score, pair.found_score) >= SURE]
        self.pairs += pairs
        self.kept += len(pairs)
        sure = [set(np.flatnonzero(side.scores >= SURE).tolist()) for side in (one, other)]
        same = {pair.index for pair in pairs}, {pair.partner for pair in pairs}
        missed, invented = (len(side - paired) for side, paired in zip(sure, same, strict=True))
        self.missed += missed
        self.invented += invented
        answers = len(pairs) + missed + invented
        likeness = sum(pair.likeness for pair in pairs)
        return Difference(
            1 - likeness / answers if answers else 0.0,
            lambda: (_describe(one, sure[0], same[0]), _describe(other, sure[1], same[1])),
        )

    def result(self, minimum: float) -> Fidelity | None:
        """Return the fidelity."""
        answers = self.kept + self.missed + self.invented
        if not answers:
            return None
        names = {output.name for output in self.outputs}
        keypoints, masks = "keypoints" in names, bool(names & {"masks", "prototypes"})
        metric = FidelityMetric.MASKS if masks else FidelityMetric.KEYPOINTS if keypoints else FidelityMetric.BOXES
        likeness = self._mean("likeness")
        return Fidelity(
            metric=metric,
            value=_decimal(self.kept / answers),
            images=self.images,
            threshold=_required(answers, minimum),
            kept=self.kept,
            missed=self.missed,
            invented=self.invented,
            iou=self._mean("overlap"),
            mask_iou=likeness if masks else None,
            keypoint_similarity=likeness if keypoints else None,
            score_shift=self._mean("shift"),
        )

    def _mean(self, name: str) -> str | None:
        return _decimal(float(np.mean([getattr(pair, name) for pair in self.pairs]))) if self.pairs else None


def _describe(side: Detections, sure: set[int], same: set[int]) -> list[Answer]:
    """Return the detections of one side that count, best first."""
    return [
        Answer(
            label=int(side.labels[index]),
            score=round(float(side.scores[index]), 4),
            same=index in same,
            box=side.boxes[index].clip(0).round(2).tolist(),
            keypoints=_visible_keypoints(side, index).clip(0).round(2).ravel().tolist(),
            runs=[] if side.mask is None else runs_of(side.mask(index)),
            corners=_corners(side, index),
        )
        for index in sorted(sure | same)[:MOST_ANSWERS]
    ]


def _visible_keypoints(side: Detections, index: int) -> Numbers:
    if side.keypoints is None or side.visible is None:
        return np.zeros((0, 2))
    return np.asarray(side.keypoints[index][side.visible[index]])


def _corners(side: Detections, index: int) -> list[float]:
    if side.rotated is None:
        return []
    points: list[float] = rotated_boxes.corners(side.rotated[[index]]).round(2).ravel().tolist()
    return points


@dataclass(frozen=True)
class Pair:
    """Equal detections of both sides: their indices, scores, overlap of boxes, and likeness of masks or keypoints.

    ``likeness`` is the overlap of the boxes for a model without masks and keypoints.
    """

    index: int
    partner: int
    score: float
    found_score: float
    overlap: float
    likeness: float

    @property
    def shift(self) -> float:
        """Return the change of the score."""
        return self.found_score - self.score


def match(one: Detections, other: Detections) -> Iterator[Pair]:
    """Yield the pairs of equal detections of a model and a file, one to one, by the better score of each pair.

    A detection takes the free partner that it overlaps most.
    """
    table = _overlaps(one, other) * (one.labels[:, None] == other.labels)
    for index in range(len(one.scores)):
        for partner in np.argsort(-table[index], kind="stable"):
            overlap = float(table[index, partner])
            if overlap < SAME:
                break
            if (likeness := _likeness(one, index, other, int(partner), overlap)) >= SAME:
                scores = float(one.scores[index]), float(other.scores[partner])
                yield Pair(index, int(partner), *scores, overlap, likeness)
                table[:, partner] = 0
                break


def _overlaps(one: Detections, other: Detections) -> Numbers:
    if one.rotated is not None and other.rotated is not None:
        return rotated_boxes.overlaps(one.rotated, other.rotated)
    return overlaps(one.boxes, other.boxes)


def _likeness(one: Detections, index: int, other: Detections, partner: int, overlap: float) -> float:
    if one.mask is not None and other.mask is not None:
        mask, its_partner = one.mask(index), other.mask(partner)
        union = np.logical_or(mask, its_partner).sum()
        return float(np.logical_and(mask, its_partner).sum() / union) if union else 1.0
    if one.keypoints is not None and other.keypoints is not None and one.visible is not None:
        seen = one.visible[index]
        area = float((one.boxes[index, 2:] - one.boxes[index, :2]).prod())
        return _keypoint_similarity(one.keypoints[index][seen], other.keypoints[partner][seen], area)
    return overlap


def _keypoint_similarity(one: Numbers, other: Numbers, area: float) -> float:
    """Return COCO's object keypoint similarity of keypoints (n, 2) of an object of ``area``; 1 without keypoints."""
    if not len(one):
        return 1.0
    squares = ((one - other) ** 2).sum(1)
    return float(np.exp(-squares / (2 * max(area, 1.0) * (2 * KEYPOINT_SIGMA) ** 2)).mean())


@dataclass
class ClassFidelity:
    """Counts the images of which the model is sure, and those of them that the file gives the same class."""

    images: int = 0
    kept: int = 0
    missed: int = 0

    silence = f"the model gives no class a probability of {SURE} or more"

    def add(self, expected: Sequence[Array], found: Sequence[Array], size: tuple[int, int]) -> Difference:
        """Add one image: probabilities (1, classes). Return how much they differ."""
        self.images += 1
        one, other = (_with_complement(answer[0]).ravel() for answer in (expected, found))
        same = bool(one.argmax() == other.argmax())
        if one.max() >= SURE:
            self.kept += int(same)
            self.missed += int(not same)
        moved = float(np.abs(one - other).max()) / 2
        return Difference(min(1.0, moved + (not same) / 2), lambda: (_best(one, other), _best(other, one)))

    def result(self, minimum: float) -> Fidelity | None:
        """Return the fidelity."""
        if not (answers := self.kept + self.missed):
            return None
        return Fidelity(
            metric=FidelityMetric.TOP_1,
            value=_decimal(self.kept / answers),
            images=self.images,
            threshold=_required(answers, minimum),
            kept=self.kept,
            missed=self.missed,
        )


def _best(side: Array, other: Array) -> list[Answer]:
    """Return the best class of one side, and up to two others that it finds possible; only the best one can differ."""
    first, *others = np.argsort(-side, kind="stable")[:3]
    shown = [first, *(label for label in others if side[label] >= POSSIBLE)]
    same = first == other.argmax()
    return [Answer(int(label), round(float(side[label]), 4), bool(same or label != first)) for label in shown]


@dataclass
class PixelFidelity:
    """Counts the pixels of each class: of the model, of the file, and of both at once, (classes,)."""

    images: int = 0
    pixels: int = 0
    expected: Numbers = field(default_factory=lambda: np.zeros(()))
    found: Numbers = field(default_factory=lambda: np.zeros(()))
    shared: Numbers = field(default_factory=lambda: np.zeros(()))

    silence = "the model gives all pixels the same class"

    def add(self, expected: Sequence[Array], found: Sequence[Array], size: tuple[int, int]) -> Difference:
        """Add one image: probabilities (1, classes, rows, columns). Return the share of pixels that differ."""
        one, other = (_with_complement(answer[0])[0] for answer in (expected, found))
        count, winners = len(one), (one.argmax(0), other.argmax(0))
        self.images += 1
        self.pixels = winners[0].size
        self.expected = self.expected + np.bincount(winners[0].ravel(), minlength=count)
        self.found = self.found + np.bincount(winners[1].ravel(), minlength=count)
        equal = winners[0] == winners[1]
        self.shared = self.shared + np.bincount(winners[0][equal], minlength=count)
        return Difference(1 - float(equal.mean()), lambda: (_regions(*winners), _regions(*winners[::-1])))

    def result(self, minimum: float) -> Fidelity | None:
        """Return the fidelity over the classes of which the model gives a thousandth of an image at least."""
        given = self.expected >= max(1.0, SHARE * self.pixels)
        if given.sum() < 2:
            return None
        union = self.expected + self.found - self.shared
        value = float((self.shared[given] / union[given]).mean())
        return Fidelity(FidelityMetric.MEAN_IOU, _decimal(value), self.images, _required(FEWEST, minimum))


def _regions(side: Array, other: Array) -> list[Answer]:
    """Return the pixels of each class of one side, (rows, columns), the largest class first."""
    labels, counts = np.unique(side, return_counts=True)
    return [
        Answer(
            int(label), round(float(count / side.size), 4), bool((other == label).any()), runs=runs_of(side == label)
        )
        for count, label in sorted(zip(counts, labels, strict=True), reverse=True)
    ]


def _with_complement(probabilities: Array) -> Array:
    """Return probabilities (1, classes, ...); a single class gets a second one for its absence."""
    if probabilities.shape[1] > 1:
        return probabilities
    return np.concatenate([1 - probabilities, probabilities], axis=1)


def _required(answers: int, minimum: float) -> str | None:
    return f"{minimum:g}" if answers >= FEWEST else None


def _decimal(value: float) -> str:
    return f"{round(value, 4) + 0.0:.4f}"  # + 0.0 makes a rounded -0.0 positive
