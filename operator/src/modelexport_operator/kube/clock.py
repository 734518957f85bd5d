"""The time by the API server's clock, so that times in objects are compared with the clock that wrote them.

Every answer has a ``Date``. Its clock is this process's monotonic clock and a difference, which the answers tell: see
docs/adr/0002-server-clock.md.
"""

import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from statistics import median

from modelexport.untrusted import moment

ANSWERS = 9
"""Of so many answers, each of another second, the middle one counts: a few odd dates, or late answers, move nothing."""


def now() -> datetime:
    """The time by the local clock, in UTC."""
    return datetime.now(UTC)


class ServerClock:
    """Tells the API server's time, late by a second and the way of an answer; before any answer, the local time."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, local: Callable[[], datetime] = now) -> None:
        self._monotonic = monotonic
        self._local = local
        self._differences: deque[float] = deque(maxlen=ANSWERS)
        self._last_date = ""

    def hear(self, date: str | None) -> None:
        """Take the ``Date`` of an answer that has just come; one that is missing or no time is left out."""
        # Of the answers within a second the first one tells most exactly when it began.
        if not date or date == self._last_date:
            return
        self._last_date = date
        try:
            at = parsedate_to_datetime(date)
        except ValueError:
            return
        if moment(at.isoformat()):
            self._differences.append(at.timestamp() - self._monotonic())

    def __call__(self) -> datetime:
        """The time, in UTC."""
        if not self._differences:
            return self._local()
        return datetime.fromtimestamp(self._monotonic() + median(self._differences), UTC)

    @property
    def local_error(self) -> float:
        """How many seconds the local clock is ahead of the API server's."""
        return (self._local() - self()).total_seconds()
