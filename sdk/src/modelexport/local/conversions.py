"""The state of a local run: one record per target, changed by the runner and read by the display."""

import time
from dataclasses import dataclass
from pathlib import Path

from modelexport.matrix import BACKENDS
from modelexport.request import ConversionRequest
from modelexport.result import ConversionResult

WAITING, RETRYING, SUCCEEDED, REUSED, FAILED = "waiting", "waiting to retry", "succeeded", "reused", "failed"


@dataclass(eq=False)
class Conversion:
    """One target of one export in this run.

    ``label`` names it to the user; ``phase`` is a stage of the converter while it runs.
    """

    request: ConversionRequest
    label: str
    log: Path
    phase: str = WAITING
    attempts: int = 0
    started: float | None = None
    result: ConversionResult | None = None
    seconds: float = 0.0

    @property
    def family(self) -> tuple[object, ...]:
        """What conversions have in common that start from one converted file."""
        fmt = self.request.target.format
        return self.request.model, fmt, BACKENDS[fmt].base(self.request.scheme)

    @property
    def succeeded(self) -> bool:
        """Whether the artifact is in the store."""
        return self.result is not None and self.result.succeeded

    @property
    def elapsed(self) -> float:
        """Seconds of this conversion so far, or in all."""
        return self.seconds if self.started is None else time.monotonic() - self.started

    def begin(self) -> None:
        """Note that an attempt starts."""
        self.attempts += 1
        if self.started is None:
            self.started = time.monotonic()

    def finish(self, result: ConversionResult) -> None:
        """Note how the conversion ended."""
        self.seconds, self.started, self.result = self.elapsed, None, result
        self.phase = (REUSED if result.reused else SUCCEEDED) if result.succeeded else FAILED
