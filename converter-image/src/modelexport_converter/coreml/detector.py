"""Detectors that suppress boxes: a pipeline of an ML program and Core ML's ``NonMaximumSuppression``.

The meaning is that of the comments in coremltools, mlmodel/format/NonMaximumSuppression.proto: boxes below the least
confidence are discarded, then the best box suppresses those that overlap it by more than the threshold, and so on.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelexport_converter import boxes
from modelexport_converter.coreml.errors import InputMismatch, ProgramError
from modelexport_converter.coreml.ml_program import Feature, MLProgram
from modelexport_converter.coreml.tensors import Array

SUPPRESSION = "nonMaximumSuppression"
MOST_BOXES = 1 << 19
"""Boxes of a file at most: an image of 4096 x 4096 pixels has 344,064 anchors in YOLOv8."""


@dataclass(frozen=True)
class NonMaximumSuppression:
    """The second model of the pipeline.

    Attributes:
        confidence, coordinates: names of its inputs, of shapes (N, C) and (N, 4), each with the name of its output.
        iou, least: the largest overlap and the least confidence, each with the name of the input that overrides it.
        labels: the names of the C classes.
        per_class: whether only boxes of the same class compete.
    """

    confidence: tuple[str, str]
    coordinates: tuple[str, str]
    iou: tuple[str, float]
    least: tuple[str, float]
    labels: tuple[str, ...]
    per_class: bool


class Detector:
    """An ML program whose boxes are suppressed."""

    def __init__(self, program: MLProgram, suppression: NonMaximumSuppression, specification_version: int) -> None:
        """Join the two models of a pipeline.

        Raises:
            ProgramError: they do not fit each other, or a threshold is out of range.
        """
        self.model = program.model
        self.image_inputs = program.image_inputs
        self.specification_version = max(program.specification_version, specification_version)
        self.labels = suppression.labels
        self._program, self._suppression = program, suppression
        shapes = {output.name: output.shape for output in program.outputs}
        wanted, given = (suppression.confidence[0], suppression.coordinates[0]), len(suppression.labels)
        rows, columns = (*(shapes.get(wanted[0]) or ()), None, None)[:2]
        self.boxes = rows or 0
        if set(shapes) != set(wanted) or columns != given or not 0 < self.boxes <= MOST_BOXES:
            raise ProgramError(f"{self.model} suppresses {wanted} with {given} labels, its program gives {shapes}")
        if shapes[wanted[0]] != (rows, given) or shapes[wanted[1]] != (rows, 4):
            raise ProgramError(f"{self.model} suppresses boxes of the shapes {shapes}")
        for name, value in (suppression.iou, suppression.least):
            self._check(name, value, ProgramError)

    @property
    def inputs(self) -> tuple[Feature, ...]:
        """The inputs of ``run``, last the thresholds, which may be left out."""
        names = (self._suppression.iou[0], self._suppression.least[0])
        return (*self._program.inputs, *(Feature(name, (), "float64") for name in names))

    @property
    def outputs(self) -> tuple[Feature, ...]:
        """The outputs of ``run``."""
        confidence, coordinates = self._suppression.confidence[1], self._suppression.coordinates[1]
        return (
            Feature(confidence, (None, len(self.labels)), "float32"),
            Feature(coordinates, (None, 4), "float32"),
        )

    def op_types(self) -> Counter[str]:
        """Count the ops by type, without constants."""
        return self._program.op_types() + Counter([SUPPRESSION])

    def weight_types(self) -> Counter[str]:
        """Count the weights as ``MLProgram`` does."""
        return self._program.weight_types()

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Evaluate the program as ``MLProgram`` does, and suppress its boxes: (n, classes) and (n, 4), best first.

        Raises:
            InputMismatch: a threshold is out of range, or an input of the program does not fit.
        """
        given, own = dict(arrays), self._suppression
        thresholds = []
        for name, default in (own.iou, own.least):
            value = float(np.asarray(given.pop(name, default)))
            self._check(name, value, InputMismatch)
            thresholds.append(value)
        results = self._program.run(given)
        confidence, coordinates = results[own.confidence[0]], results[own.coordinates[0]]
        kept = suppress(confidence, coordinates, thresholds[0], thresholds[1], per_class=own.per_class)
        return {own.confidence[1]: confidence[kept], own.coordinates[1]: coordinates[kept]}

    def _check(self, name: str, value: float, error: type[ProgramError]) -> None:
        highest = 1.0 if name == self._suppression.iou[0] else math.inf
        if not (math.isfinite(value) and 0 <= value <= highest):
            raise error(f"the threshold {name} of {self.model} is {value:g}")


def suppress(
    confidence: Array, coordinates: Array, iou: float, least: float, *, per_class: bool
) -> npt.NDArray[np.intp]:
    """Return the rows of the boxes that are kept, best first: confidence (N, C), coordinates (N, 4).

    The class of a box is that of its highest confidence; of equally good boxes the first one is the better.
    """
    scores, labels = confidence.max(axis=1), confidence.argmax(axis=1)
    (left,) = np.nonzero(scores >= least)
    left = left[np.argsort(-scores[left], kind="stable")]
    centres, halves = coordinates[:, :2].astype(np.float64), coordinates[:, 2:].astype(np.float64) / 2
    corners = np.concatenate([centres - halves, centres + halves], axis=1)
    classes = labels if per_class else np.zeros_like(labels)
    return left[list(boxes.suppress(corners[left], classes[left], iou))]


def read_suppression(model: Any) -> NonMaximumSuppression:
    """Read the second model of a pipeline, a ``Model_pb2.Model``.

    Raises:
        ProgramError: it has a form that cannot be evaluated: classes without text, or a limited number of boxes.
    """
    own = model.nonMaximumSuppression
    if own.WhichOneof("SuppressionMethod") != "pickTop":
        raise ProgramError("the suppression of boxes has no method")
    if own.WhichOneof("ClassLabels") != "stringClassLabels":
        raise ProgramError("the suppression of boxes has no texts as class labels")
    for output in model.description.output:
        kind = output.type.multiArrayType
        ranges = kind.shapeRange.sizeRanges
        if len(kind.shape) or not ranges or (ranges[0].lowerBound, ranges[0].upperBound) != (0, -1):
            raise ProgramError(f"the suppression of boxes limits the rows of its output {output.name!r}")
    return NonMaximumSuppression(
        (own.confidenceInputFeatureName, own.confidenceOutputFeatureName),
        (own.coordinatesInputFeatureName, own.coordinatesOutputFeatureName),
        (own.iouThresholdInputFeatureName, own.iouThreshold),
        (own.confidenceThresholdInputFeatureName, own.confidenceThreshold),
        tuple(map(str, own.stringClassLabels.vector)),
        own.pickTop.perClass,
    )
