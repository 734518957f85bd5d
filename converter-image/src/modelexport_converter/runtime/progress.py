"""Reports the progress of a conversion as JSON lines, and measures the time of its stages and its peak memory."""

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
    """Send our events and the warnings of libraries to a stream."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(context))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    log.setLevel(logging.INFO)


def claim_stdout() -> TextIO:
    """Return the standard output; redirect what libraries print, native code included, to standard error."""
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return stream


@dataclass(frozen=True)
class Effort:
    """Time and memory that a conversion has used: seconds per stage in their order, seconds in total, and MiB.

    ``peak_memory_mib`` is the largest resident set of any of its processes.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    total: float = 0.0
    peak_memory_mib: int = 0


class Stages:
    """Announces and times the stages of one step of a conversion."""

    def __init__(self) -> None:
        self._before = Effort()
        self._seconds: dict[str, float] = {}
        self._start = time.monotonic()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce the start of a stage, and its seconds at the end; those of a repeated stage add up."""
        announce("stage", stage=name, state="started")
        start = time.monotonic()
        yield
        seconds = round(time.monotonic() - start, 3)
        self._seconds[name] = round(self._seconds.get(name, 0.0) + seconds, 3)
        announce("stage", stage=name, state="finished", seconds=seconds)

    def follow(self, effort: Effort) -> None:
        """Add the effort of the previous steps."""
        self._before = effort

    def effort(self) -> Effort:
        """Return the effort so far, including that of the previous steps."""
        before, own = self._before, time.monotonic() - self._start
        seconds = {**before.seconds, **self._seconds}
        return Effort(seconds, round(before.total + own, 3), max(before.peak_memory_mib, peak_memory_mib()))


def peak_memory_mib() -> int:
    """Return the largest resident set of this process so far and of a child that has ended, together, in MiB."""
    return sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) // 1024
