"""A queue of dirty keys: a key waits at most once, is worked on by one worker at a time, and backs off on failure.

A key can be marked for later: what else is marked until then is one sync with it. And a key that was synced rests for a
moment. So an export whose Jobs all move at once is written a few times and not for every step of every Pod.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_DELAY = 0.2
"""Seconds before a key that failed once is tried again; doubles with every failure."""
LAST_DELAY = 60.0


class DirtyQueue(Generic[K]):
    """Keys that have to be synced; each rests for ``rest`` seconds after every sync."""

    def __init__(self, rest: float = 0.0) -> None:
        self._rest = rest
        self._ready: OrderedDict[K, None] = OrderedDict()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._ready) + len(self._again)

    @property
    def waiting(self) -> int:
        """How many keys were marked for later."""
        return len(self._timers)

    def mark(self, key: K, within: float = 0.0) -> None:
        """Have a key synced, within so many seconds; one that is being synced or rests, again after that."""
        if within > 0:
            self._mark_by(key, within)
        elif key in self._working:
            self._again.add(key)
        else:
            self._ready[key] = None
            self._wake.set()

    async def take(self) -> K:
        """Wait for a dirty key; the caller has to answer with ``done`` or ``fail``."""
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        key, _ = self._ready.popitem(last=False)
        self._cancel_timer(key)
        self._working.add(key)
        return key

    def done(self, key: K, requeue_after: float | None = None) -> None:
        """Say that a key was synced, and when it wants to be again without a cause."""
        self._failures.pop(key, None)
        if self._rest:
            asyncio.get_running_loop().call_later(self._rest, self._release, key)
        else:
            self._release(key)
        if requeue_after is not None:
            self._mark_by(key, requeue_after)

    def fail(self, key: K, at_least: float = 0.0) -> float:
        """Say that a key could not be synced; returns in how many seconds it will be tried again.

        A cause that comes in the meantime does not shorten the wait: it would let a busy object hammer a sick server.
        """
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay: float = max(at_least, min(LAST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 20)))
        asyncio.get_running_loop().call_later(delay, self._end_back_off, key)
        return delay

    def _mark_by(self, key: K, seconds: float) -> None:
        """Mark a key after a time, unless that happens sooner anyhow."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if key in self._ready or (timer and timer.when() <= loop.time() + seconds):
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_later(seconds, self._ring, key)

    def _ring(self, key: K) -> None:
        """Mark a key now; it has waited already and goes before those that have not."""
        del self._timers[key]
        self.mark(key)
        if key in self._ready:
            self._ready.move_to_end(key, last=False)

    def _cancel_timer(self, key: K) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()

    def _end_back_off(self, key: K) -> None:
        self._working.discard(key)
        self._again.discard(key)
        self.mark(key)

    def _release(self, key: K) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.mark(key)
