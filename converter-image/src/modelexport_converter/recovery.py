"""Climbs the rungs of recovery: quantises with more and more layers in float until a file keeps what is required.

Each rung is tried only if the one before failed, and all start from the same converted file, calibration and answers of
the original. Nothing here knows formats or metrics: it decides which file is made next, and which one is the result.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from modelexport.api.quantization import Effort, Quantization
from modelexport.api.rungs import QuantizationResult, Rung
from modelexport.logs import announce

MARGIN = 2
"""Times the seconds of the last rung that must be left for another one, and for publishing after it."""


@dataclass(frozen=True)
class Candidate:
    """A quantised file, its layers in float with their shares of the noise, and its size relative to the FP32 file."""

    path: Path
    float_layers: Mapping[str, float]
    size_ratio: float


class Measured(Protocol):
    """What was measured of a candidate; decimals are text."""

    @property
    def kept(self) -> bool:
        """Whether the file keeps what is required."""

    @property
    def rank(self) -> tuple[bool, float]:
        """The order of files that do not: the largest is the best."""

    @property
    def reached(self) -> Mapping[str, str]:
        """Agreement, fidelity and drop, as far as they are known."""


M = TypeVar("M", bound=Measured)


@dataclass(frozen=True)
class Recovered(Generic[M]):
    """The file of a target, what was measured of it, and how it was found."""

    candidate: Candidate
    measured: M
    result: QuantizationResult


def climb(
    asked: Quantization,
    quantise: Callable[[int], Candidate],
    measure: Callable[[Candidate], M],
    seconds_left: Callable[[], float],
) -> Recovered[M]:
    """Try files until one keeps what is required; else return the best.

    Args:
        asked: the request.
        quantise: makes the file with this number of layers in float, or with fewer if there are no more to choose from.
        measure: measures a file.
        seconds_left: returns the seconds until the deadline of the Job.

    Raises:
        Failure: a file cannot be made or measured.
    """
    climbing = _Climbing(asked, quantise, measure)
    for count in asked.float_layer_counts():
        if climbing.rungs and seconds_left() < MARGIN * climbing.rungs[-1].seconds:
            climbing.stopped = "the deadline of the Job leaves no time for another rung"
        else:
            climbing.climb_to(count)
        if climbing.ended:
            break
    if climbing.best is None:  # no file with layers in float is small enough
        climbing.climb_to(0)
    return climbing.recovered()


class _Climbing(Generic[M]):
    """The rungs so far, the best file of them, and why no other is tried."""

    def __init__(
        self, asked: Quantization, quantise: Callable[[int], Candidate], measure: Callable[[Candidate], M]
    ) -> None:
        self._asked, self._quantise, self._measure = asked, quantise, measure
        self.rungs: list[Rung] = []
        self.best: tuple[Candidate, M] | None = None
        self.stopped = ""
        self._layers = -1

    @property
    def ended(self) -> bool:
        """Whether a file keeps what is required, or no further rung can be tried."""
        return bool(self.stopped) or (self.best is not None and self.best[1].kept)

    def climb_to(self, count: int) -> None:
        """Try the file with ``count`` layers in float; it is removed unless it is the best one."""
        start = time.monotonic()
        announce("rung", rung=Effort.MIXED_PRECISION if count else Effort.RANGES, floatLayers=count)
        candidate = self._quantise(count)
        layers = len(candidate.float_layers)
        if layers <= self._layers:
            self.stopped = f"no more than {layers} layers have a known noise"
        elif layers and candidate.size_ratio > self._asked.max_size_ratio:
            self.stopped = f"{candidate.size_ratio:.4f} is more than maxSizeRatio {self._asked.max_size_ratio:g}"
            self._record(candidate, {}, start)
        else:
            self._layers = layers
            measured = self._measure(candidate)
            self._record(candidate, measured.reached, start)
            if self.best is None:
                self.best = candidate, measured
                return
            if measured.rank > self.best[1].rank:
                candidate, self.best = self.best[0], (candidate, measured)
        candidate.path.unlink()

    def _record(self, candidate: Candidate, reached: Mapping[str, str], start: float) -> None:
        layers, seconds = len(candidate.float_layers), round(time.monotonic() - start)
        effort = Effort.MIXED_PRECISION if layers else Effort.RANGES
        self.rungs.append(Rung(str(effort), layers, f"{candidate.size_ratio:.4f}", seconds, **reached))

    def recovered(self) -> Recovered[M]:
        """Return the first file that keeps what is required, or else the best one."""
        assert self.best is not None
        candidate, measured = self.best
        effort, layers = self._asked.effort, len(candidate.float_layers)
        bound = f"maxFloatLayers is {self._asked.max_float_layers}"
        stopped = self.stopped or ("effort Ranges keeps no layers in float" if effort is Effort.RANGES else bound)
        result = QuantizationResult(
            effort=str(Effort.MIXED_PRECISION if layers else Effort.RANGES),
            float_layers=layers,
            size_ratio=f"{candidate.size_ratio:.4f}",
            rungs=tuple(self.rungs),
            stopped="" if measured.kept else stopped,
        )
        return Recovered(candidate, measured, result)
