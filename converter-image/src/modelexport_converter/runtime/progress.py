"""What a conversion tells while it runs: one line of JSON per event, and what its stages take."""

import logging
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from modelexport.logs import JsonFormatter, announce, log


def start_logging(stream: TextIO, context: Mapping[str, str]) -> None:
    """Send our events, and the warnings of libraries, to a stream."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(context))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    log.setLevel(logging.INFO)


def claim_stdout() -> TextIO:
    """Return the standard output, and send to standard error what libraries print there, native code included."""
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return stream


@dataclass(frozen=True)
class Effort:
    """What a conversion has taken so far: seconds of its stages in their order, seconds in all, and memory in MiB.

    ``peak_memory_mib`` is the largest resident set of any of its processes.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    total: float = 0.0
    peak_memory_mib: int = 0


class Stages:
    """The stages of one step of a conversion, announced and timed."""

    def __init__(self) -> None:
        self._before = Effort()
        self._seconds: dict[str, float] = {}
        self._start = time.monotonic()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage, and its seconds at its end."""
        announce("stage", stage=name, state="started")
        start = time.monotonic()
        yield
        self._seconds[name] = round(time.monotonic() - start, 3)
        announce("stage", stage=name, state="finished", seconds=self._seconds[name])

    def follow(self, effort: Effort) -> None:
        """Count what the steps before have taken."""
        self._before = effort

    def effort(self) -> Effort:
        """Everything so far, the steps before included."""
        before, own = self._before, time.monotonic() - self._start
        seconds = {**before.seconds, **self._seconds}
        return Effort(seconds, round(before.total + own, 3), max(before.peak_memory_mib, peak_memory_mib()))


def peak_memory_mib() -> int:
    """The largest resident set of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
