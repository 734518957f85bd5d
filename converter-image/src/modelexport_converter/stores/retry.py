"""Retries operations on a store that does not answer, within one conversion.

The delays grow exponentially, and each is drawn between half of its length and all of it, so that the conversions that
an outage stopped do not return at the same moment (equal jitter, "Exponential Backoff And Jitter", AWS Architecture
Blog).
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.logs import announce
from modelexport_converter.failures import Failure

T = TypeVar("T")

SHORT_SECONDS = 4.0
"""The default: enough for a dropped connection, and short for a user who waits."""
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds between the first attempts, and between the last ones: each attempt is a line in the log."""


@dataclass(frozen=True)
class RetryPolicy:
    """How long an operation is retried after its first failure; only tests replace the clock and ``sleep``."""

    seconds: float = SHORT_SECONDS
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def attempt(self, operation: Callable[[], T]) -> T:
        """Run an operation, and retry it while the store is unavailable.

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
                    if now - began < SHORT_SECONDS:
                        raise
                    message = f"{failure} It was retried for {now - began:.0f} s."
                    raise Failure(failure.reason, message, failure.verification) from failure
                left = round(self.seconds - (now - began))
                announce("retry", message=str(failure), delay=round(pause, 1), left=left)
            self.sleep(pause)
            delay = min(2 * delay, LONGEST_DELAY)


def read_retry_policy(environ: Mapping[str, str]) -> RetryPolicy:
    """Return the retry policy of a process for its store; see ``modelexport.names``."""
    try:
        seconds = float(environ.get(names.STORE_TIMEOUT_ENV, SHORT_SECONDS))
        if not 0 <= seconds <= names.MOST_STORE_TIMEOUT_SECONDS:
            raise ValueError
    except ValueError as error:
        problem = f"{names.STORE_TIMEOUT_ENV} is not a number of seconds from 0 to {names.MOST_STORE_TIMEOUT_SECONDS}"
        raise Failure(Reason.CLASS_INVALID, f"{problem}; correct it or leave it out") from error
    return RetryPolicy(seconds)
