"""Compares a produced file with the original model, in FP32, on pictures.

The metric is the *agreement* of an output: ``1 - |error| / |spread|``, where ``|.|`` is the root of the weighted sum of
squares over all pictures. 1 is equality; 0 is what an answer would reach that always gives the average. An output with
anchors is weighted by the confidence that the original model has in each anchor, because what it says where it sees
nothing is noise that nobody reads; the cosine of such outputs is near 1 even for wrong files, as the anchors' own
positions dominate it. A model's agreement is that of its worst output.

- Probabilities (outputs with a ``class`` axis) are measured against zero, and every picture counts as if it held at
  least one certain answer, so that pictures without any object do not turn tiny errors into large ratios. This holds
  for the classes of every pixel too: each pixel has a certain answer then, and a file that gives a share s of the
  pixels a wrong class with certainty reaches about ``1 - sqrt(2 s)``, whatever class the others have. Against the
  average per class, a picture that is all background would measure nothing but rounding.
- Everything else is measured against the average per channel, since positions and masks have no natural zero. Where
  the axes are unknown, that is one average over everything.
- Outputs whose slots hold detections are measured together, as ``slots`` says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from modelexport.matrix import Threshold
from modelexport.reasons import Reason
from modelexport.result import Verification
from modelexport_converter.backends import Array, Run
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel, Output
from modelexport_converter.slots import AXIS, SlotSums

METRIC = "agreement"
UNKNOWN = "unknown"
"""The axes of an output of which nothing is known but its shape."""
_POSITIONS = {"batch", "anchor", "row", "column", UNKNOWN}


@dataclass(frozen=True)
class Comparison:
    """Agreement per output, on a number of pictures."""

    agreements: Mapping[str, float]
    pictures: int

    @property
    def value(self) -> float:
        """The agreement of the worst output."""
        return min(self.agreements.values())


def compare(model: LoadedModel, run: Run, pictures: Sequence[Array]) -> Comparison:
    """Run model and file on the same inputs, each (1, 3, height, width), and measure how far their outputs agree.

    Raises:
        Failure: ``VerificationFailed`` when the file's outputs have other shapes or are not finite.
        ValueError: there are no pictures.
    """
    if not pictures:
        raise ValueError("there are no pictures to verify on")
    sums = (
        SlotSums(model.outputs) if any(_has(output, AXIS) for output in model.outputs) else _TensorSums(model.outputs)
    )
    for picture in pictures:
        expected, found = _run_model(model, picture), run(picture)
        _check_outputs(model, expected, found)
        sums.add(expected, found)
    return Comparison(sums.agreements(), len(pictures))


def check(comparison: Comparison, threshold: Threshold) -> Verification:
    """Return the verification of a file that agrees well enough.

    Raises:
        Failure: ``VerificationFailed``, with the numbers of every output.
    """
    verification = Verification(METRIC, f"{comparison.value:.6f}", f"{threshold.minimum:g}")
    if threshold.metric != METRIC:
        raise ValueError(f"the matrix asks for {threshold.metric}, this converter measures {METRIC}")
    if comparison.value >= threshold.minimum:
        return verification
    numbers = ", ".join(f"{name} {value:.4f}" for name, value in comparison.agreements.items())
    message = (
        f"the produced file differs from the model in FP32: agreement on {comparison.pictures} pictures is {numbers}, "
        f"at least {threshold.minimum:g} is asked; give calibration pictures of the model's own domain, "
        "or choose a higher precision"
    )
    raise Failure(Reason.VERIFICATION_FAILED, message, verification)


class _TensorSums:
    """Sums of every output by itself, weighted by the confidence of an output with classes and anchors, if any."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._sums = [_Sums(output) for output in outputs]
        self._confident = next((index for index, output in enumerate(outputs) if _has(output, "class", "anchor")), None)

    def add(self, expected: Sequence[Array], found: Sequence[Array]) -> None:
        """Add one picture: outputs of equal shapes."""
        confidence = None if self._confident is None else expected[self._confident].max(axis=1)
        for index, total in enumerate(self._sums):
            total.add(expected[index], found[index], None if index == self._confident else confidence)

    def agreements(self) -> dict[str, float]:
        """Agreement by the name of each output."""
        return {total.output.name: total.agreement() for total in self._sums}


@dataclass
class _Sums:
    """Weighted sums over all pictures of one output, per channel where averages are needed."""

    output: Output
    weight: float = 0.0
    pictures: int = 0
    error: float = 0.0
    square: float = 0.0
    linear: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))

    def add(self, expected: Array, found: Array, confidence: Array | None) -> None:
        """Add one picture: outputs of equal shape and, for outputs with anchors, a weight (1, anchors)."""
        weighted = confidence is not None and _has(self.output, "anchor")
        shape = [size if axis == "anchor" else 1 for axis, size in zip(self.output.axes, expected.shape, strict=True)]
        weights = np.float64(1) if not weighted or confidence is None else confidence.astype(np.float64).reshape(shape)
        positions = tuple(index for index, axis in enumerate(self.output.axes) if axis in _POSITIONS)
        self.pictures += 1
        self.error += float((weights * (expected.astype(np.float64) - found) ** 2).sum())
        self.square += float((weights * expected.astype(np.float64) ** 2).sum())
        self.linear = self.linear + (weights * expected).sum(axis=positions)
        self.weight += float(np.broadcast_to(weights, expected.shape).sum()) / max(1, self.linear.size)

    def agreement(self) -> float:
        """1 - |error| / |spread|; where there is no spread at all, whether there is no error."""
        if _has(self.output, "class"):
            spread = max(self.square, float(self.pictures))
        else:
            spread = self.square - float((self.linear**2).sum()) / self.weight if self.weight else 0.0
        if spread <= 0:
            return 1.0 if self.error == 0 else 0.0
        return 1 - float(np.sqrt(self.error / spread))


def _has(output: Output, *axes: str) -> bool:
    return set(axes) <= set(output.axes)


def _run_model(model: LoadedModel, picture: Array) -> tuple[Array, ...]:
    with torch.inference_mode():
        return tuple(output.numpy() for output in model.module(torch.from_numpy(picture)))


def _check_outputs(model: LoadedModel, expected: Sequence[Array], found: Sequence[Array]) -> None:
    for output, wanted, given in zip(model.outputs, expected, found, strict=True):
        if wanted.shape != given.shape:
            problem = f"has the shape {given.shape} instead of {wanted.shape}"
        elif not np.isfinite(given).all():
            problem = f"holds {int((~np.isfinite(given)).sum())} values that are NaN or infinite"
        else:
            continue
        raise Failure(
            Reason.VERIFICATION_FAILED,
            f"the produced file's output {output.name} {problem}; this is a defect of the conversion",
        )
