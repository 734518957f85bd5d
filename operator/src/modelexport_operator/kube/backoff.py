"""How long to wait before what failed is tried again. Pure, but for its dice."""

import random

FIRST_SECONDS = 1.0
LAST_SECONDS = 8.0
"""So long, and operators recover within seconds of a fault's end. A watch that pauses is silent: with the jitter it has
to be less than the patience of the audit (15 s), which would take it for deaf."""
JITTER = 0.5
"""By how much of itself a pause is stretched at most, so that those who failed together do not come back together
(client-go, wait.Jitter)."""


class Backoff:
    """Pauses that double with every failure in a row, and are never shorter than the server asks."""

    def __init__(self, first: float = FIRST_SECONDS, last: float = LAST_SECONDS) -> None:
        self._first = first
        self._last = last
        self._pause = first

    def next(self, at_least: float = 0.0) -> float:
        """Count a failure, and say in how many seconds to try again."""
        pause, self._pause = self._pause, min(2 * self._pause, self._last)
        return jitter(max(pause, at_least))

    def reset(self) -> None:
        """Begin anew after a success."""
        self._pause = self._first


def jitter(seconds: float) -> float:
    """Stretch a pause by a random part of itself."""
    return seconds * (1 + JITTER * random.random())  # noqa: S311  # Nobody gains by guessing it.
