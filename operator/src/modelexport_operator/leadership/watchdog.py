"""Ends a process whose shutdown hangs.

An operator ends by cancelling its tasks, and a library that a task waits in can lose a cancellation, as aiohttp does
(https://github.com/aio-libs/aiohttp/issues/5979). One remaining task keeps the whole process alive, which then neither
leads nor restarts. So a thread watches the shutdown, which neither a task nor a blocked event loop can stop.

Code that never releases the GIL would stop this thread, too. It would also stop all writes and the responses to the
kubelet's probes, so the kubelet ends the process.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

GRACE_SECONDS = 10.0
"""Time from the start of a shutdown to its enforcement. A clean one takes about a second; the kubelet kills after 30.
"""
POLL_SECONDS = 0.5
LAST_LOG_SECONDS = 1.0
"""Timeout for the last log line: the logger itself can be what hangs."""


def enforce_end(is_ending: Callable[[], bool], status: int, grace: float = GRACE_SECONDS) -> None:
    """Exit the process if it has not ended by itself this long after its shutdown began; needs a running loop.

    Args:
        is_ending: whether the shutdown has begun; called by another thread, and stays true once it is.
        status: the exit status.
        grace: the seconds.
    """
    loop = asyncio.get_running_loop()
    threading.Thread(target=_wait_and_exit, args=(loop, is_ending, status, grace), name="watchdog", daemon=True).start()


def _wait_and_exit(loop: asyncio.AbstractEventLoop, is_ending: Callable[[], bool], status: int, grace: float) -> None:
    while not is_ending():
        time.sleep(POLL_SECONDS)
    time.sleep(grace)
    last_log = threading.Thread(target=_log_running_tasks, args=(loop, grace), daemon=True)
    last_log.start()
    last_log.join(LAST_LOG_SECONDS)
    os._exit(status)


def _log_running_tasks(loop: asyncio.AbstractEventLoop, grace: float) -> None:
    running = sorted({getattr(task.get_coro(), "__qualname__", repr(task)) for task in asyncio.all_tasks(loop)})
    logger.critical("the process did not end within %g s and is killed; still running: %s", grace, ", ".join(running))
