"""Waits for a store that does not answer, within one conversion.

The pauses grow exponentially, and each is drawn between half of its length and all of it, so that the conversions that
an outage stopped do not come back at one moment (equal jitter, "Exponential Backoff And Jitter", AWS Architecture
Blog).
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from modelexport import names
from modelexport.logs import announce
from modelexport.reasons import Reason
from modelexport_converter.failures import Failure

T = TypeVar("T")

SHORT_SECONDS = 4.0
"""How long is waited unless somebody says otherwise: enough for a connection that was cut, and no time for a user."""
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds between the first attempts, and between the last ones: each attempt is a line in the log."""


@dataclass(frozen=True)
class Patience:
    """How long an operation is tried again, from its first failure on; the clock is that of ``time`` but in tests."""

    seconds: float = SHORT_SECONDS
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def attempt(self, operation: Callable[[], T]) -> T:
        """Run an operation, and again while the store is unavailable.

        Raises:
            Failure: of the last attempt, or at once for any other reason.
        """
        began, delay = None, FIRST_DELAY
        while True:
            try:
                return operation()
            except Failure as failure:
                if failure.reason is not Reason.STORAGE_UNAVAILABLE:
                    raise
                now = self.clock()
                began = now if began is None else began
                pause = random.uniform(delay / 2, delay)  # noqa: S311 - no secret
                if now - began + pause > self.seconds:
                    raise _after(failure, now - began) from failure
                left = round(self.seconds - (now - began))
                announce("retry", message=str(failure), delay=round(pause, 1), left=left)
            self.sleep(pause)
            delay = min(2 * delay, LONGEST_DELAY)


def _after(failure: Failure, waited: float) -> Failure:
    """The last failure, with how long it was waited for the store, where anybody would have noticed."""
    if waited < SHORT_SECONDS:
        return failure
    return Failure(failure.reason, f"{failure} It was tried again for {waited:.0f} s.", failure.verification)


def read_patience(environ: Mapping[str, str]) -> Patience:
    """Return how long a process waits for its store; see ``modelexport.names``."""
    try:
        seconds = float(environ.get(names.PATIENCE_ENV, SHORT_SECONDS))
        if not 0 <= seconds <= names.MOST_PATIENCE:
            raise ValueError
    except ValueError as error:
        problem = f"{names.PATIENCE_ENV} is no number of seconds from 0 to {names.MOST_PATIENCE}"
        raise Failure(Reason.CLASS_INVALID, f"{problem}; correct it or leave it out") from error
    return Patience(seconds)
