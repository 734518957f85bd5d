"""Measures how long the runs of a file take while it is verified."""

import statistics
import time
from collections.abc import Callable
from typing import Generic, TypeVar

G = TypeVar("G")
A = TypeVar("A")


class Stopwatch(Generic[G, A]):
    """Calls a function and keeps the duration of each call.

    The first call is left out of ``median``: runtimes allocate memory and choose their kernels in it.
    """

    def __init__(self, run: Callable[[G], A]) -> None:
        self._run = run
        self._seconds: list[float] = []

    def __call__(self, given: G) -> A:
        """Call the function."""
        start = time.perf_counter()
        answer = self._run(given)
        self._seconds.append(time.perf_counter() - start)
        return answer

    @property
    def counted(self) -> int:
        """The number of calls in ``median``."""
        return max(0, len(self._seconds) - 1)

    def median(self) -> float:
        """Return the median of seconds per call.

        Raises:
            ValueError: there were fewer than two calls.
        """
        if not self.counted:
            raise ValueError("one call tells no latency; call at least twice")
        return statistics.median(self._seconds[1:])
