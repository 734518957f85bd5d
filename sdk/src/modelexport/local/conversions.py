"""The state of a local run: one record per target, written by the runner and read by the display."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelexport.api.request import ConversionRequest
from modelexport.api.result import ConversionResult
from modelexport.matrix.support import BACKENDS, Format
from modelexport.planning.progress import Estimate, estimate, expect_stages

WAITING, RETRYING, SUCCEEDED, REUSED, FAILED = "waiting", "waiting to retry", "succeeded", "reused", "failed"


@dataclass(eq=False)
class Conversion:
    """The conversion of one target in a local run.

    ``label`` is the name that users see; ``phase`` is a stage of the converter while it runs, and ``rung`` says how far
    recovery is, if a first file lost too much. ``reports`` has the URIs of the reports of all targets of its export.
    """

    request: ConversionRequest
    label: str
    log: Path
    reports: Mapping[str, str] = field(default_factory=dict)
    phase: str = WAITING
    rung: str = ""
    phase_started: float = 0.0
    attempts: int = 0
    started: float | None = None
    result: ConversionResult | None = None
    seconds: float = 0.0

    @property
    def family(self) -> tuple[object, ...]:
        """Key of the conversions that share one converted file."""
        fmt = self.request.target.format
        return self.request.model, fmt, BACKENDS[fmt].base(self.request.recipe)

    @property
    def shared(self) -> frozenset[tuple[object, ...]]:
        """Keys of what one conversion makes and others read: the converted file, and the gradients for 8-bit ranges."""
        request = self.request
        calibrated = [(request.model, request.calibration)] if request.recipe.activation_bits == 8 else []
        return frozenset([self.family, *calibrated])

    @property
    def measures_most(self) -> bool:
        """Whether it measures gradients that files of all formats can read.

        A LiteRT file has every result of a network as a tensor. An ONNX file has fewer, and finds them among these.
        """
        request = self.request
        return request.recipe.activation_bits == 8 and request.target.format is Format.LITERT

    def expected_seconds(self, *, converts: bool) -> float:
        """Return the seconds on one core, or 0 if nothing comparable was measured.

        ``converts``: it makes the file that its family shares.
        """
        stages = expect_stages(self.request) or {}
        return sum(seconds for stage, seconds in stages.items() if converts or stage != "convert")

    @property
    def succeeded(self) -> bool:
        """Whether the artifact is in the store."""
        return self.result is not None and self.result.succeeded

    @property
    def elapsed(self) -> float:
        """Seconds of the conversion, so far or in total."""
        return self.seconds if self.started is None else time.monotonic() - self.started

    @property
    def shown(self) -> str:
        """The phase, with the rung of a conversion that runs."""
        running = self.rung and self.started is not None and self.phase not in (WAITING, RETRYING)
        return f"{self.phase} ({self.rung})" if running else self.phase

    @property
    def estimate(self) -> Estimate | None:
        """Estimated progress; ``None`` while no stage runs, or if nothing comparable was measured."""
        return estimate(expect_stages(self.request), self.phase, time.monotonic() - self.phase_started)

    def enter(self, phase: str) -> None:
        """Record the start of another phase."""
        self.phase, self.phase_started = phase, time.monotonic()

    def begin(self) -> None:
        """Record the start of an attempt."""
        self.attempts += 1
        self.rung = ""
        if self.started is None:
            self.started = time.monotonic()

    def finish(self, result: ConversionResult) -> None:
        """Record the result of the conversion."""
        self.seconds, self.started, self.result = self.elapsed, None, result
        self.enter((REUSED if result.reused else SUCCEEDED) if result.succeeded else FAILED)
