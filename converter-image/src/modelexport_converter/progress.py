"""What a conversion tells while it runs: one line of JSON per event, and the seconds of its stages."""

import logging
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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


class Stages:
    """The stages of one conversion, announced and timed. ``seconds`` holds those that are over, in their order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.monotonic()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage, and its seconds at its end."""
        announce("stage", stage=name, state="started")
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 3)
        announce("stage", stage=name, state="finished", seconds=self.seconds[name])

    @property
    def total_seconds(self) -> float:
        """Seconds since the conversion began."""
        return round(time.monotonic() - self._start, 3)


def peak_memory_mib() -> int:
    """The largest resident set of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
