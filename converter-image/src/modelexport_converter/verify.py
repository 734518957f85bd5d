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
- Scores of anchors may all be faint: our own pictures show a portrait, on which other detectors see nothing. An error
  in them counts at least a quarter of what it is beside the scores, so that a file without any score reaches 0.75 at
  most, too little for every threshold; correct files pass, as their errors are small beside faint scores too.
- Everything else is measured against the average per channel, since positions and masks have no natural zero.
- Outputs of which nothing is known but the shape are measured channel by channel, as ``channels`` says.
- Outputs whose slots hold detections are measured together, as ``slots`` says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from modelexport.matrix import Threshold
from modelexport.reasons import Reason
from modelexport.result import Reference, Verification
from modelexport_converter.backends import Array, Run
from modelexport_converter.channels import ChannelSums, spread_of_scores
from modelexport_converter.evidence import DETECTED, NO_DETECTION, SAME_ANSWER, Probabilities, Variation
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel, Output
from modelexport_converter.promises import check_outputs
from modelexport_converter.slots import AXIS, SlotSums, incomparable

METRIC = "agreement"
UNKNOWN = "unknown"
"""The axes of an output of which nothing is known but its shape."""
PROBABILITY_STEP = 2.0**-23
"""What two probabilities in float32 may differ by and be equal: libraries compute a sigmoid as a polynomial that is
exact to a rounding of 1, which matters beside the scores of a network that was hardly trained. It is never more than a
thousandth of a picture's highest score, so that a file without any score is no equal."""
_POSITIONS = {"batch", "anchor", "row", "column"}


@dataclass(frozen=True)
class Comparison:
    """Agreement per output, on a number of pictures, what else helps to understand it, and the model's origin.

    ``evidence`` is on how many of them the model sees something, as ``evidence`` says; ``nothing`` is a sentence for
    the case that there are none.
    """

    agreements: Mapping[str, float]
    pictures: int
    evidence: int
    nothing: str
    remark: str = ""
    reference: Reference = Reference.REBUILT
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def value(self) -> float:
        """The agreement of the worst output."""
        return min(self.agreements.values())


def compare(
    model: LoadedModel, run: Run, pictures: Sequence[Array], *, first: int | None = None, enough: float = 0.0
) -> Comparison:
    """Run model and file on the same inputs, each (1, 3, height, width), and measure how far their outputs agree.

    The first pictures are all where they show the model something and the agreement on them is enough. Where it is not,
    all are measured before a file is refused: a model that decides between near equals, as a detector of two stages
    does, decides otherwise now and then, and among few pictures one of these weighs more than it should. There is no
    stop between: to end at the first picture after which a file happens to be good enough would flatter it.

    Args:
        model: the original.
        run: the file.
        pictures: the inputs.
        first: how many of them, of those that show the model something, are the first; all unless told otherwise.
        enough: the agreement that is enough.

    Raises:
        Failure: ``VerificationFailed`` when outputs have other shapes or are not finite, or nothing can be compared;
            ``CheckpointMismatch`` when a program's own outputs are not what its architecture gives.
        ValueError: there are no pictures.
    """
    if not pictures:
        raise ValueError("there are no pictures to verify on")
    sums, wanted = _start(model), len(pictures) + 1 if first is None else first
    for count, picture in enumerate(pictures, 1):  # noqa: B007 - the last one is told
        expected, found = _run_model(model, picture), run(picture)
        if model.reference is Reference.PROGRAM:
            check_outputs(model, expected)
        _check_outputs(model, expected, found)
        sums.add(expected, found)
        if sums.evidence() >= wanted:
            wanted = len(pictures) + 1
            if sums.has_content() and min(sums.agreements().values()) >= enough:
                break
    origin = model.reference, model.assumptions, model.warnings
    return Comparison(sums.agreements(), count, sums.evidence(), sums.nothing, sums.remark(), *origin)


def check_evidence(comparison: Comparison) -> None:
    """Refuse pictures of a user on none of which the model sees anything: whatever agrees there, proves nothing.

    Raises:
        Failure: ``VerificationFailed``.
    """
    if comparison.evidence:
        return
    count = "a single one" if comparison.pictures == 1 else f"{comparison.pictures} different ones"
    details = ", ".join(filter(None, (count, comparison.remark)))
    found = f"{comparison.nothing} ({details})"
    way_out = "give calibration pictures of what the model has learned, such as those that it was trained on"
    raise Failure(
        Reason.VERIFICATION_FAILED, f"{found}, so that they are no evidence that the file is right; {way_out}"
    )


def check(comparison: Comparison, threshold: Threshold) -> Verification:
    """Return the verification of a file that agrees well enough.

    Raises:
        Failure: ``VerificationFailed``, with the numbers of every output.
    """
    verification = Verification(
        METRIC,
        f"{comparison.value:.6f}",
        f"{threshold.minimum:g}",
        comparison.reference,
        comparison.assumptions,
        comparison.warnings,
    )
    if threshold.metric != METRIC:
        raise ValueError(f"the matrix asks for {threshold.metric}, this converter measures {METRIC}")
    if comparison.value >= threshold.minimum:
        return verification
    numbers = ", ".join(f"{name} {value:.4f}" for name, value in comparison.agreements.items())
    message = (
        f"the produced file differs from the model in FP32: agreement on {comparison.pictures} pictures is {numbers}, "
        f"at least {threshold.minimum:g} is asked{comparison.remark and f' ({comparison.remark})'}; "
        "give calibration pictures of the model's own domain, or choose a higher precision"
    )
    raise Failure(Reason.VERIFICATION_FAILED, message, verification)


def _start(model: LoadedModel) -> "SlotSums | ChannelSums | _TensorSums":
    if any(_has(output, AXIS) for output in model.outputs):
        return SlotSums(model.outputs, model.input_size)
    if any(_has(output, UNKNOWN) for output in model.outputs):
        return ChannelSums(model.outputs, model.input_size)
    return _TensorSums(model.outputs)


class _TensorSums:
    """Sums of every output by itself, weighted by the confidence of an output with classes and anchors, if any."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._sums = [_Sums(output) for output in outputs]
        self._confident = next((index for index, output in enumerate(outputs) if _has(output, "class", "anchor")), None)
        self._highest = 0.0
        self._detections = 0
        self._classes = next((index for index, output in enumerate(outputs) if _has(output, "class")), None)
        self._probabilities, self._variation = Probabilities(), Variation()

    def add(self, expected: Sequence[Array], found: Sequence[Array]) -> None:
        """Add one picture: outputs of equal shapes."""
        confidence = None if self._confident is None else expected[self._confident].max(axis=1)
        self._note(expected, confidence)
        for index, total in enumerate(self._sums):
            total.add(expected[index], found[index], None if index == self._confident else confidence)

    def _note(self, expected: Sequence[Array], confidence: Array | None) -> None:
        """What a picture shows the model."""
        if confidence is not None:
            highest = float(confidence.max())
            self._highest = max(self._highest, highest)
            self._detections += highest >= DETECTED
        elif self._classes is not None:
            self._probabilities.add(expected[self._classes])
        else:
            self._variation.add([values.astype(np.float64).reshape(1, -1) for values in expected])

    @property
    def nothing(self) -> str:
        """What is said of the model where no picture shows it anything."""
        return SAME_ANSWER if self._confident is None else NO_DETECTION

    def evidence(self) -> int:
        """How many pictures show the model something."""
        if self._confident is not None:
            return self._detections
        return self._variation.count() if self._classes is None else self._probabilities.count()

    def agreements(self) -> dict[str, float]:
        """Agreement by the name of each output.

        Raises:
            Failure: ``VerificationFailed``: the model gives no anchor any score, on no picture.
        """
        if not self.has_content():
            raise incomparable(f"the model's scores are 0 everywhere on {self._sums[0].pictures} pictures")
        return {total.output.name: total.agreement() for total in self._sums}

    def has_content(self) -> bool:
        """Whether there is anything to compare yet."""
        return self._confident is None or self._highest > 0

    def remark(self) -> str:
        """Tell how sure the model is of anything at all."""
        return "" if self._confident is None else f"the model's highest score on them is {self._highest:.2g}"


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
        difference = np.abs(expected.astype(np.float64) - found)
        if _has(self.output, "class"):
            rounding = min(PROBABILITY_STEP, float(expected.max(initial=0)) / 1000)
            difference = np.where(difference > rounding, difference, 0)
        self.error += float((weights * difference**2).sum())
        self.square += float((weights * expected.astype(np.float64) ** 2).sum())
        self.linear = self.linear + (weights * expected).sum(axis=positions)
        self.weight += float(np.broadcast_to(weights, expected.shape).sum()) / max(1, self.linear.size)

    def agreement(self) -> float:
        """1 - |error| / |spread|; where there is no spread at all, whether there is no error."""
        if _has(self.output, "class", "anchor"):
            spread = float(spread_of_scores(np.asarray(self.square), self.pictures))
        elif _has(self.output, "class"):
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
        own, produced = f"the model's own output {output.name}", f"the produced file's output {output.name}"
        if wanted.shape != given.shape:
            shapes = f"has the shape {given.shape} instead of {wanted.shape}"
            raise Failure(Reason.VERIFICATION_FAILED, f"{produced} {shapes}; this is a defect of the conversion")
        if lost := _count_lost(wanted):
            problem = f"holds {lost} values that are NaN or infinite; correct spec.model, or give another checkpoint"
            raise Failure(Reason.VERIFICATION_FAILED, f"{own} {problem}")
        if lost := _count_lost(given):
            problem = f"holds {lost} values that are NaN or infinite, the model's none; choose a higher precision"
            raise Failure(Reason.VERIFICATION_FAILED, f"{produced} {problem}")


def _count_lost(values: Array) -> int:
    return values.size - int(np.isfinite(values).sum())
