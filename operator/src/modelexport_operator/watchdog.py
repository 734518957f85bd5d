"""Ends a process that is at its end but does not come to it.

An operator ends by cancelling its tasks, and a library that one of them waits in can lose a cancellation: aiohttp does
(https://github.com/aio-libs/aiohttp/issues/5979). One task that goes on keeps the whole process, which then neither
leads nor is started again. So a thread looks on: neither a task nor a blocked event loop can keep it from its work.

Code that never gives the interpreter's lock back would stop this thread, too. It also stops all writes, and all answers
to the kubelet's probes, and so the kubelet ends the process.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

GRACE_SECONDS = 10.0
"""From the begin of the end to its enforcement. An orderly end takes about a second, and the kubelet kills after 30."""
POLL_SECONDS = 0.5
FAREWELL_SECONDS = 1.0
"""For the last line of the log: whoever reads it can be what has got stuck."""


def enforce_end(is_ending: Callable[[], bool], status: int, grace: float = GRACE_SECONDS) -> None:
    """Have the process leave, if it has not by itself so many seconds after its end began; needs a running loop.

    Args:
        is_ending: whether the end has begun; asked by another thread, and true for good once it is.
        status: the exit status.
        grace: the seconds.
    """
    loop = asyncio.get_running_loop()
    threading.Thread(target=_watch, args=(loop, is_ending, status, grace), name="watchdog", daemon=True).start()


def _watch(loop: asyncio.AbstractEventLoop, is_ending: Callable[[], bool], status: int, grace: float) -> None:
    while not is_ending():
        time.sleep(POLL_SECONDS)
    time.sleep(grace)
    farewell = threading.Thread(target=_say_what_runs, args=(loop, grace), daemon=True)
    farewell.start()
    farewell.join(FAREWELL_SECONDS)
    os._exit(status)


def _say_what_runs(loop: asyncio.AbstractEventLoop, grace: float) -> None:
    running = sorted({getattr(task.get_coro(), "__qualname__", repr(task)) for task in asyncio.all_tasks(loop)})
    logger.critical("the process has not ended within %g s and is killed; still running: %s", grace, ", ".join(running))
