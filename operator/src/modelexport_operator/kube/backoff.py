"""Computes the pause before a retry. Pure, except for the random jitter."""

import random

FIRST_SECONDS = 1.0
LAST_SECONDS = 8.0
"""Keeps recovery within seconds of the end of a fault. With its jitter it has to be below the lag tolerance of the
watch check (15 s), which would take a pausing watch for a stale one."""
JITTER = 0.5
"""The largest share by which a pause is stretched, so that clients that failed together do not retry together
(client-go, wait.Jitter)."""


class Backoff:
    """Pauses that double with every consecutive failure and are never shorter than the server asks."""

    def __init__(self, first: float = FIRST_SECONDS, last: float = LAST_SECONDS) -> None:
        self._first = first
        self._last = last
        self._pause = first

    def next(self, at_least: float = 0.0) -> float:
        """Count a failure, and return in how many seconds to retry."""
        pause, self._pause = self._pause, min(2 * self._pause, self._last)
        return jitter(max(pause, at_least))

    def reset(self) -> None:
        """Start over after a success."""
        self._pause = self._first


def jitter(seconds: float) -> float:
    """Stretch a pause by a random share of itself."""
    return seconds * (1 + JITTER * random.random())  # noqa: S311  # Not used for security.
