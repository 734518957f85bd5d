"""Tells a right that is missing from one that the API server has not loaded yet.

An API server that has just started answers 403 to everything until it has loaded its roles. No request can prove which
of the two it is: a SelfSubjectAccessReview is denied as well. Time can.
"""

import asyncio

LASTING_SECONDS = 120.0
"""How long the API server has to deny a request before the right is missing. It loads its roles within seconds, or
within half a minute on a busy machine; a right that is really missing can wait for two minutes to be reported."""


class Denials:
    """For how long requests in each namespace have been denied without a break, on the loop's monotonic clock."""

    def __init__(self) -> None:
        self._spans: dict[str, tuple[float, float]] = {}
        """The first and the last of the denials in a row, by namespace."""

    def is_lasting(self, namespace: str) -> bool:
        """Record that a request was just denied in a namespace, and return whether that has lasted.

        A longer pause between two denials starts a new row: nobody knows what happened in between.
        """
        now = asyncio.get_running_loop().time()
        first, last = self._spans.get(namespace, (now, now))
        if now - last > LASTING_SECONDS:
            first = now
        self._spans[namespace] = first, now
        return now - first >= LASTING_SECONDS

    def end(self, namespace: str) -> None:
        """Record that a request in a namespace was granted."""
        self._spans.pop(namespace, None)
