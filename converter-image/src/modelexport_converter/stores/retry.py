"""Short retries within one conversion; a longer outage is for whoever runs the conversion to wait out."""

import time
from collections.abc import Callable
from typing import TypeVar

from modelexport.logs import announce
from modelexport.reasons import Reason
from modelexport_converter.failures import Failure

T = TypeVar("T")

DELAYS = (0.5, 1.0, 2.0)
"""Seconds between attempts."""


def attempt(operation: Callable[[], T]) -> T:
    """Run an operation, and again while the store is unavailable.

    Raises:
        Failure: of the last attempt, or at once for any other reason.
    """
    for delay in DELAYS:
        try:
            return operation()
        except Failure as failure:
            if failure.reason is not Reason.STORAGE_UNAVAILABLE:
                raise
            announce("retry", message=str(failure), delay=delay)
        time.sleep(delay)
    return operation()
