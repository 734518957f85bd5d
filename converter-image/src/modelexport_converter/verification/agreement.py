"""Compares a produced file with the original model, in float32, on images.

The metric is the *agreement* of an output: ``1 - |error| / |spread|``, where ``|.|`` is the root of the weighted sum of
squares over all images. 1 is equality; a file that always returns the average output reaches 0. An output with anchors
is weighted by the original model's confidence in each anchor, because values where the model detects nothing are noise
that no application reads; the cosine of such outputs is near 1 even for wrong files, as the anchors' own positions
dominate it. The agreement of a model is that of its worst output.

- Probabilities (outputs with a ``class`` axis) are measured against zero, and every image counts as if it held at
  least one certain detection, so that images without any object do not turn tiny errors into large ratios. This holds
  for the classes of every pixel too: each pixel has a certain class then, and a file that gives a share s of the
  pixels a wrong class with certainty reaches about ``1 - sqrt(2 s)``, whatever class the others have. Against the
  average per class, an image of background alone would measure nothing but rounding.
- Scores of anchors may all be faint: our own images show a portrait, on which other detectors detect nothing. Their
  error counts at least a quarter of its ratio to the scores, so that a file without any score reaches 0.75 at
  most, too little for every threshold; correct files pass, as their errors are small relative to faint scores too.
- Everything else is measured against the average per channel, since positions and masks have no natural zero.
- Outputs with unknown axes are measured channel by channel: see ``unlabelled``.
- Outputs that list detections are measured together: see ``detections``.
- Boxes and their angles are measured together: see ``rotated_boxes.align_sides``.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from modelexport.api.reasons import Reason
from modelexport.api.result import Fidelity, Reference, Verification
from modelexport.matrix.support import Threshold
from modelexport_converter.backends import Array, Run
from modelexport_converter.compute_device import run_network
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel, Output
from modelexport_converter.rotated_boxes import align_sides
from modelexport_converter.verification.detections import AXIS, DetectionSums, incomparable
from modelexport_converter.verification.fidelity import start_fidelity
from modelexport_converter.verification.informative_images import (
    DETECTED,
    NO_DETECTION,
    SAME_ANSWER,
    Probabilities,
    Variation,
)
from modelexport_converter.verification.output_contract import check_outputs
from modelexport_converter.verification.samples import Samples
from modelexport_converter.verification.unlabelled import ChannelSums, spread_of_scores

METRIC = "agreement"
UNKNOWN = "unknown"
"""The axis name of an output of which only the shape is known."""
PROBABILITY_STEP = 2.0**-23
"""Two float32 probabilities that differ by less are equal: libraries compute a sigmoid as a polynomial that is exact to
a rounding of 1, which matters for the scores of a network that was hardly trained. The tolerance is never more than a
thousandth of an image's highest score, so a file without any score is not equal.
"""
FIDELITY_SECONDS = 60
"""Seconds of a comparison after which the images so far have to do for the fidelity of a file that reaches its minimum.

A file below it is measured on all images, so none is refused on a slow machine that another one publishes.
"""
NO_IMAGES, NO_MEANING = "spec.calibration names no images", "the outputs have no known meaning"
"""Why fidelity is absent."""
_POSITIONS = {"batch", "anchor", "row", "column"}


@dataclass(frozen=True)
class Comparison:
    """Agreement per output on a number of images, details for messages, and the origin of the model.

    ``informative`` counts the images that are informative (see ``informative_images``); ``uninformative_reason`` is the
    sentence for a message if there are none. ``fidelity_absent`` says why there is no ``fidelity``. ``samples`` are the
    images on which the answers differ most. ``latency`` has the median of ``seconds`` per image and the number of
    ``images``; ``None`` for files without a runtime here, and where a single image was compared.
    """

    agreements: Mapping[str, float]
    images: int
    informative: int
    uninformative_reason: str
    remark: str = ""
    reference: Reference = Reference.REBUILT
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    fidelity: Fidelity | None = None
    fidelity_absent: str = NO_IMAGES
    samples: Sequence[Mapping[str, Any]] = ()
    latency: Mapping[str, float] | None = None

    @property
    def value(self) -> float:
        """Return the agreement of the worst output."""
        return min(self.agreements.values())


def compare(
    model: LoadedModel,
    run: Run,
    images: Sequence[Array],
    *,
    original: Run | None = None,
    first: int | None = None,
    enough: float = 0.0,
    least_fidelity: float | None = None,
) -> Comparison:
    """Run model and file on the same inputs, each (1, channels, height, width), and measure their agreement.

    Agreement is measured on the first images if enough of them are informative and they agree well enough. If they do
    not agree, all images are measured before a file is refused: a model that decides between near equals, as a
    two-stage detector does, sometimes decides differently, and among few images one such case weighs too much. There is
    no stop in between: stopping at the first image after which a file happens to pass would flatter it.

    Fidelity counts answers, which are few in an image, and so it is measured on all images.

    Args:
        model: the original model.
        run: runs the produced file.
        images: the inputs.
        original: returns the model's outputs for an image; runs the model by default.
        first: number of informative images after which agreement may be final; all images by default.
        enough: the agreement that is enough.
        least_fidelity: the required fidelity; ``None`` if it is not measured.

    Raises:
        Failure: ``VerificationFailed`` if outputs have other shapes or are not finite, or nothing can be compared;
            ``CheckpointMismatch`` if a program's own outputs violate the contract of its architecture.
        ValueError: there are no images.
    """
    if not images:
        raise ValueError("there are no images to verify on")
    run_original = original or partial(run_model, model)
    sums = _Sums(model, images, len(images) + 1 if first is None else first, enough, least_fidelity)
    for index, image in enumerate(images):
        expected, found = run_original(image), run(image)
        if model.reference is Reference.PROGRAM:
            check_outputs(model, expected)
        _check_outputs(model, expected, found)
        sums.add(index, image, expected, found)
        if sums.suffice():
            break
    return sums.comparison(model)


class _Sums:
    """Sums of agreement and of fidelity over the images so far, and whether these suffice: see ``compare``."""

    def __init__(
        self, model: LoadedModel, images: Sequence[Array], first: int, enough: float, least_fidelity: float | None
    ) -> None:
        self._agreement, self._wanted, self._enough = _start(model), first, enough
        self._fidelity = None if least_fidelity is None else start_fidelity(model)
        self._least_fidelity = least_fidelity or 0.0
        self._samples = Samples(model.preprocessing, images)
        self._absent = NO_IMAGES if least_fidelity is None else NO_MEANING
        self._end = time.monotonic() + FIDELITY_SECONDS
        self._agreed, self._images = False, 0

    def add(self, index: int, image: Array, expected: Sequence[Array], found: Sequence[Array]) -> None:
        """Add one image (1, channels, height, width) by its index: outputs of equal shapes."""
        if self._fidelity:
            size = (image.shape[2], image.shape[3])
            self._samples.add(index, self._fidelity.add(expected, found, size))
        if self._agreed:
            return
        self._images += 1
        self._agreement.add(expected, found)
        if self._agreement.informative_count() >= self._wanted:
            self._wanted = sys.maxsize
            self._agreed = self._agreement.has_content() and min(self._agreement.agreements().values()) >= self._enough

    def suffice(self) -> bool:
        """Return whether no further image is needed."""
        if not self._agreed or self._fidelity is None:
            return self._agreed
        if time.monotonic() < self._end:
            return False
        found = self._fidelity.result(self._least_fidelity)
        return found is None or float(found.value) >= self._least_fidelity

    def comparison(self, model: LoadedModel) -> Comparison:
        """Return what the sums say."""
        sums, fidelity = self._agreement, self._fidelity
        measured = fidelity.result(self._least_fidelity) if fidelity else None
        return Comparison(
            agreements=sums.agreements(),
            images=self._images,
            informative=sums.informative_count(),
            uninformative_reason=sums.uninformative_reason,
            remark=sums.remark(),
            reference=model.reference,
            assumptions=model.assumptions,
            warnings=model.warnings,
            fidelity=measured,
            samples=self._samples.to_list(),
            fidelity_absent="" if measured else f"{fidelity.silence} on the images" if fidelity else self._absent,
        )


def require_informative(comparison: Comparison) -> None:
    """Refuse the user's images if none of them is informative: the file's agreement on them proves nothing.

    Raises:
        Failure: ``VerificationFailed``.
    """
    if comparison.informative:
        return
    count = "a single one" if comparison.images == 1 else f"{comparison.images} different ones"
    details = ", ".join(filter(None, (count, comparison.remark)))
    found = f"{comparison.uninformative_reason} ({details})"
    way_out = "give calibration images of the model's domain, such as those of its training"
    raise Failure(Reason.VERIFICATION_FAILED, f"{found}, so they do not prove that the file is right; {way_out}")


def check(comparison: Comparison, threshold: Threshold) -> Verification:
    """Return the verification of a file whose agreement and fidelity reach their thresholds.

    Raises:
        Failure: ``VerificationFailed``, with the numbers of every output, or of the answers.
    """
    fidelity = comparison.fidelity
    verification = Verification(
        METRIC,
        f"{comparison.value:.6f}",
        f"{threshold.minimum:g}",
        comparison.reference,
        comparison.assumptions,
        comparison.warnings,
        fidelity,
        comparison.fidelity_absent,
    )
    if threshold.metric != METRIC:
        raise ValueError(f"the matrix asks for {threshold.metric}, this converter measures {METRIC}")
    way_out = "give calibration images of the model's own domain, or choose a higher precision"
    if comparison.value < threshold.minimum:
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in comparison.agreements.items())
        message = (
            f"the produced file differs from the model in FP32: agreement on {comparison.images} images is {numbers}, "
            f"at least {threshold.minimum:g} is required{comparison.remark and f' ({comparison.remark})'}; {way_out}"
        )
        raise Failure(Reason.VERIFICATION_FAILED, message, verification)
    if fidelity and fidelity.threshold and float(fidelity.value) < float(fidelity.threshold):
        message = (
            f"the produced file gives other answers than the model in FP32: fidelity on {fidelity.images} images is "
            f"{fidelity}; {way_out}"
        )
        raise Failure(Reason.VERIFICATION_FAILED, message, verification)
    return verification


def _start(model: LoadedModel) -> "DetectionSums | ChannelSums | TensorSums":
    if any(_has(output, AXIS) for output in model.outputs):
        return DetectionSums(model.outputs, model.input_size)
    if any(_has(output, UNKNOWN) for output in model.outputs):
        return ChannelSums(model.outputs, model.input_size)
    if any(_has(output, "angle") for output in model.outputs):
        return RotatedSums(model.outputs)
    return TensorSums(model.outputs)


class TensorSums:
    """Sums of each output, weighted by the confidence of the output with classes and anchors if there is one."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._sums = [_OutputSums(output) for output in outputs]
        self._confident = next((index for index, output in enumerate(outputs) if _has(output, "class", "anchor")), None)
        self._highest = 0.0
        self._detections = 0
        self._classes = next((index for index, output in enumerate(outputs) if _has(output, "class")), None)
        self._probabilities, self._variation = Probabilities(), Variation()

    def add(self, expected: Sequence[Array], found: Sequence[Array]) -> None:
        """Add one image: outputs of equal shapes."""
        confidence = None if self._confident is None else expected[self._confident].max(axis=1)
        if confidence is not None:
            highest = float(confidence.max())
            self._highest = max(self._highest, highest)
            self._detections += highest >= DETECTED
        elif self._classes is not None:
            self._probabilities.add(expected[self._classes])
        else:
            self._variation.add([values.astype(np.float64).reshape(1, -1) for values in expected])
        for index, total in enumerate(self._sums):
            total.add(expected[index], found[index], None if index == self._confident else confidence)

    @property
    def uninformative_reason(self) -> str:
        """Return the sentence about images of which none is informative."""
        return SAME_ANSWER if self._confident is None else NO_DETECTION

    def informative_count(self) -> int:
        """Return the number of informative images."""
        if self._confident is not None:
            return self._detections
        return self._variation.count() if self._classes is None else self._probabilities.count()

    def agreements(self) -> dict[str, float]:
        """Return the agreement by output name.

        Raises:
            Failure: ``VerificationFailed``: the model's scores are 0 on all images.
        """
        if not self.has_content():
            raise incomparable(f"the model's scores are 0 everywhere on {self._sums[0].images} images")
        return {total.output.name: total.agreement() for total in self._sums}

    def has_content(self) -> bool:
        """Return whether there is anything to compare yet."""
        return self._confident is None or self._highest > 0

    def remark(self) -> str:
        """Return the model's highest score as a phrase, if it has scores."""
        return "" if self._confident is None else f"the model's highest score on them is {self._highest:.2g}"


class RotatedSums(TensorSums):
    """The same for boxes (1, 4, N), scores (1, classes, N) and angles (1, 1, N): of the boxes as they lie."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        super().__init__(outputs[:2])

    def add(self, expected: Sequence[Array], found: Sequence[Array]) -> None:
        """Add one image: outputs of equal shapes."""
        placed = align_sides(*(np.concatenate([boxes, angles], 1)[0].T for boxes, _, angles in (expected, found)))
        one, other = (boxes.T[None].astype(np.float32) for boxes in placed)
        super().add((one, expected[1]), (other, found[1]))


@dataclass
class _OutputSums:
    """Weighted sums of one output over all images; ``linear`` is per channel, (channels,), if averages are needed."""

    output: Output
    weight: float = 0.0
    images: int = 0
    error: float = 0.0
    square: float = 0.0
    linear: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))

    def add(self, expected: Array, found: Array, confidence: Array | None) -> None:
        """Add one image: outputs of equal shape and, for outputs with anchors, a weight (1, anchors)."""
        weighted = confidence is not None and _has(self.output, "anchor")
        shape = [size if axis == "anchor" else 1 for axis, size in zip(self.output.axes, expected.shape, strict=True)]
        weights = np.float64(1) if not weighted or confidence is None else confidence.astype(np.float64).reshape(shape)
        positions = tuple(index for index, axis in enumerate(self.output.axes) if axis in _POSITIONS)
        self.images += 1
        difference = np.abs(expected.astype(np.float64) - found)
        if _has(self.output, "class"):
            rounding = min(PROBABILITY_STEP, float(expected.max(initial=0)) / 1000)
            difference = np.where(difference > rounding, difference, 0)
        self.error += float((weights * difference**2).sum())
        self.square += float((weights * expected.astype(np.float64) ** 2).sum())
        self.linear = self.linear + (weights * expected).sum(axis=positions)
        self.weight += float(np.broadcast_to(weights, expected.shape).sum()) / max(1, self.linear.size)

    def agreement(self) -> float:
        """Return 1 - |error| / |spread|; without any spread, 1 if there is no error and else 0."""
        if _has(self.output, "class", "anchor"):
            spread = float(spread_of_scores(np.asarray(self.square), self.images))
        elif _has(self.output, "class"):
            spread = max(self.square, float(self.images))
        else:
            spread = self.square - float((self.linear**2).sum()) / self.weight if self.weight else 0.0
        if spread <= 0:
            return 1.0 if self.error == 0 else 0.0
        return 1 - float(np.sqrt(self.error / spread))


def _has(output: Output, *axes: str) -> bool:
    return set(axes) <= set(output.axes)


def run_model(model: LoadedModel, image: Array) -> tuple[Array, ...]:
    """Run a model on an input of shape (1, channels, height, width). Return its outputs."""
    with torch.inference_mode():
        return tuple(output.numpy() for output in run_network(model.module, torch.from_numpy(image)))


def _check_outputs(model: LoadedModel, expected: Sequence[Array], found: Sequence[Array]) -> None:
    for output, wanted, given in zip(model.outputs, expected, found, strict=True):
        own, produced = f"the model's own output {output.name}", f"the produced file's output {output.name}"
        if wanted.shape != given.shape:
            shapes = f"has the shape {given.shape} instead of {wanted.shape}"
            raise Failure(Reason.VERIFICATION_FAILED, f"{produced} {shapes}; report this message")
        if lost := _count_lost(wanted):
            problem = f"holds {lost} values that are NaN or infinite; correct spec.model, or give another checkpoint"
            raise Failure(Reason.VERIFICATION_FAILED, f"{own} {problem}")
        if lost := _count_lost(given):
            problem = f"holds {lost} values that are NaN or infinite, the model's none; choose a higher precision"
            raise Failure(Reason.VERIFICATION_FAILED, f"{produced} {problem}")


def _count_lost(values: Array) -> int:
    return values.size - int(np.isfinite(values).sum())
