"""Estimates the progress of a conversion from the measurements of ``make matrix``.

The durations are those of the measured model of the architecture on one core. They are scaled to the request:
calibration by the number of images and their pixels, verification by pixels. If the request is known to be for another
network than the measured one, there is no estimate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from modelexport import untrusted
from modelexport.api.request import ConversionRequest
from modelexport.api.spec import EVALUATION_SECONDS_LIMIT, Evaluation
from modelexport.matrix.measured import FullSize
from modelexport.matrix.support import Cell, Format, Precision, Target, Task, lookup
from modelexport.names import CONVERT, FETCH, PUBLISH
from modelexport.planning.estimates import images

STAGES = ("fetch", "start", "load", "convert", "quantise", "inspect", "verify", "evaluate", "publish")
"""The stages that the converter logs, in order; ``measured.json`` has the seconds of each."""
MOST_PERCENT = 99
"""Maximum percentage of a running conversion."""
MOST_SECONDS = 2**31 - 1


@dataclass(frozen=True)
class Progress:
    """Progress of a running target; times are RFC 3339 text in UTC.

    ``stage`` is the running container, ``start_time`` its start. ``percentage``, 0 to 99, and
    ``estimated_remaining_seconds`` hold for ``last_updated_time``; they are ``None`` if there is no estimate.
    """

    stage: str
    last_updated_time: str
    start_time: str | None = None
    percentage: int | None = None
    estimated_remaining_seconds: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a status, without unset fields."""
        fields = {
            "stage": self.stage,
            "startTime": self.start_time,
            "percentage": self.percentage,
            "estimatedRemainingSeconds": self.estimated_remaining_seconds,
            "lastUpdatedTime": self.last_updated_time,
        }
        return {name: value for name, value in fields.items() if value is not None}


def read_progress(value: Any, name: str = "progress") -> Progress:
    """Read the data of ``Progress.to_dict`` as untrusted input.

    Raises:
        ValueError: a field is missing, has another type, or is out of range.
    """
    fields = untrusted.record(value, name)
    start, percentage, remaining = map(fields.get, ("startTime", "percentage", "estimatedRemainingSeconds"))
    return Progress(
        stage=untrusted.word(fields.get("stage"), f"{name}.stage"),
        last_updated_time=untrusted.time(fields.get("lastUpdatedTime"), f"{name}.lastUpdatedTime"),
        start_time=None if start is None else untrusted.time(start, f"{name}.startTime"),
        percentage=None if percentage is None else untrusted.whole(percentage, f"{name}.percentage", MOST_PERCENT),
        estimated_remaining_seconds=None
        if remaining is None
        else untrusted.whole(remaining, f"{name}.estimatedRemainingSeconds", MOST_SECONDS),
    )


@dataclass(frozen=True)
class Estimate:
    """Percentage of the expected duration that has passed, 0 to 99, and the expected seconds left."""

    percentage: int
    remaining_seconds: int


def expect_stages(request: ConversionRequest, *, shares_original: bool = False) -> dict[str, float] | None:
    """Return the expected seconds of each of ``STAGES``.

    Args:
        request: the conversion.
        shares_original: whether another conversion has evaluated the original already.

    Returns:
        ``None`` if there is no estimate: the cell was not measured, the request names another variant than the measured
        one, or the architecture is ``Custom``, which can be any network.
    """
    cell = lookup(request.model.architecture, request.target)
    found = _find_measured(request, cell)
    if found is None:
        return None
    measured, pixels = found
    seconds = {stage: measured.stages.get(stage, 0.0) for stage in STAGES}
    # The process needs further seconds to start and to exit.
    seconds["start"] += max(0.0, measured.seconds - measured.stages.get("total", measured.seconds))
    seconds["quantise"] *= _calibration_scale(request, cell, pixels)
    seconds["verify"] *= pixels
    original = 0.0 if shares_original else expect_original(request) or 0.0
    seconds["evaluate"] = original + _run_seconds(request.evaluation, measured, pixels)
    return seconds


def expect_original(request: ConversionRequest) -> float | None:
    """Return the expected seconds of evaluating the original model, for which the file of ONNX in FP32 stands.

    Returns:
        ``None`` without ``spec.evaluation``, or if there is no estimate, as in ``expect_stages``.
    """
    cell = lookup(request.model.architecture, Target(Format.ONNX, Precision.FP32))
    found = _find_measured(request, cell)
    return None if request.evaluation is None or found is None else _run_seconds(request.evaluation, *found)


def _find_measured(request: ConversionRequest, cell: Cell) -> tuple[FullSize, float] | None:
    """Return the measurements of a cell and the pixels of an image in relation to them, if they fit the request."""
    measured, parameters = cell.numbers.full_size, request.model.parameters
    is_other = measured is None or parameters.variant not in (None, measured.variant)
    if measured is None or is_other or cell.architecture.task is Task.UNKNOWN:
        return None
    height, width = parameters.input_size or cell.architecture.default_input_size
    return measured, height * width / (measured.input_size[0] * measured.input_size[1])


def _run_seconds(evaluation: Evaluation | None, measured: FullSize, pixels: float) -> float:
    """Return the seconds of running a file once for each labelled image, up to the limit of an evaluation."""
    if evaluation is None:
        return 0.0
    return min(EVALUATION_SECONDS_LIMIT, evaluation.samples * pixels * measured.latency_ms / 1000)


def _calibration_scale(request: ConversionRequest, cell: Cell, pixels: float) -> float:
    """Return the scale of the measured quantisation: calibration runs the network once for each image."""
    measured = images(cell)
    if measured is None:
        return 1.0
    if request.calibration is None:
        return 0.0  # Data-free INT8 was not measured; it takes a moment.
    return request.calibration.samples / measured * pixels


@lru_cache(maxsize=1 << 10)
def expect_steps(request: ConversionRequest, *, shares_original: bool = False) -> Mapping[str, float] | None:
    """Return the expected seconds of each container of a conversion; arguments and ``None`` as in ``expect_stages``.

    Cached: every sync of an export asks for those of its running targets.
    """
    stages = expect_stages(request, shares_original=shares_original)
    if stages is None:
        return None
    fetch, *inner, publish = stages.values()
    return MappingProxyType({FETCH: fetch, CONVERT: sum(inner), PUBLISH: publish})


def estimate(expected: Mapping[str, float] | None, stage: str, elapsed: float) -> Estimate | None:
    """Estimate the progress of a conversion.

    A stage that takes longer than expected counts as its expected seconds until the next one starts.

    Args:
        expected: expected seconds of each stage, in order; ``None`` if there is no estimate.
        stage: the running stage.
        elapsed: seconds since the stage started.

    Returns:
        ``None`` if ``expected`` does not have the stage.
    """
    if expected is None or stage not in expected:
        return None
    total = sum(expected.values())
    before = sum(list(expected.values())[: list(expected).index(stage)])
    done = before + min(max(elapsed, 0.0), expected[stage])
    percentage = min(int(100 * done / total), MOST_PERCENT) if total else 0
    return Estimate(percentage, min(round(total - done), MOST_SECONDS))
