"""The API server's clock, so that times in objects are compared with the clock that wrote them.

Every response has a ``Date``. This clock is the monotonic clock of the process plus an offset from these dates: see
docs/adr/0002-server-clock.md.
"""

import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from statistics import median

from modelexport.untrusted import moment

SAMPLES = 9
"""The median of this many responses counts, each from another second: a few odd dates or late responses change nothing.
"""


def now() -> datetime:
    """Return the time of the local clock, in UTC."""
    return datetime.now(UTC)


def format_time(at: datetime) -> str:
    """Format a time as Kubernetes does: RFC 3339 in UTC, to the second."""
    return at.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


class ServerClock:
    """The time of the API server, up to a second plus the latency late; before any response, the local time."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, local: Callable[[], datetime] = now) -> None:
        self._monotonic = monotonic
        self._local = local
        self._differences: deque[float] = deque(maxlen=SAMPLES)
        self._last_date = ""

    def observe(self, date: str | None) -> None:
        """Take the ``Date`` of a response that has just arrived; a missing or invalid one is ignored."""
        # The first response within a second is the closest to the start of that second.
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
        """Return the time, in UTC."""
        if not self._differences:
            return self._local()
        return datetime.fromtimestamp(self._monotonic() + median(self._differences), UTC)

    @property
    def local_error(self) -> float:
        """How many seconds the local clock is ahead of the API server's."""
        return (self._local() - self()).total_seconds()
