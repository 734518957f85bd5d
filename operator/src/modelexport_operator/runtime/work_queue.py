"""A queue of dirty keys: a key waits at most once, is worked on by one worker at a time, and backs off on failure.

It is like the priority queue of controller-runtime (pkg/controller/priorityqueue): a key that is added again keeps the
higher of its priorities and the sooner of its times. Two rules are added. Within a priority flows take turns, as in the
API server's Priority and Fairness; and every priority leaves a share of the turns to those below it, so none starves.

A key can be marked for later: what else is marked until then is one sync with it. And a key that was synced rests for a
moment. So an export whose Jobs all move at once is written a few times and not for every step of every Pod.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from enum import IntEnum
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_DELAY = 0.2
"""Seconds before a key that failed once is tried again; doubles with every failure."""
LAST_DELAY = 60.0
SHARE = 4
"""While keys of all priorities are ready, one turn of so many is left to the priorities below."""


class Priority(IntEnum):
    """What is synced first of what is ready."""

    IDLE = 0
    """Nothing has happened to the key itself."""
    NEW = 1
    """Work that begins."""
    STEP = 2
    """Work that goes on."""
    END = 3
    """Work that has ended, met trouble, or may begin because other work has ended."""


class DirtyQueue(Generic[K]):
    """Keys that have to be synced; each rests for ``rest`` seconds after every sync.

    Keys of one ``flow`` come in the order in which they became ready; flows take turns.
    """

    def __init__(self, rest: float = 0.0, flow: Callable[[K], Hashable] = lambda _: None) -> None:
        self._rest = rest
        self._flow = flow
        self._levels: dict[Priority, _Level[K]] = {priority: _Level() for priority in sorted(Priority, reverse=True)}
        self._ready: dict[K, Priority] = {}
        self._taken = 0
        self._working: dict[K, Priority] = {}
        self._again: dict[K, Priority] = {}
        self._failures: dict[K, int] = {}
        self._timers: dict[K, tuple[asyncio.TimerHandle, Priority]] = {}
        self._later: Counter[Priority] = Counter()
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._ready) + len(self._again)

    def waiting(self, *priorities: Priority) -> int:
        """How many keys are marked for later with one of these priorities."""
        return sum(self._later[priority] for priority in priorities)

    def mark(self, key: K, within: float = 0.0, priority: Priority = Priority.NEW) -> None:
        """Have a key synced, within so many seconds; one that is being synced or rests, again after that."""
        if within > 0:
            self._mark_by(key, within, priority)
        elif key in self._working:
            self._again[key] = max(priority, self._again.get(key, priority))
        else:
            self._make_ready(key, priority)

    async def take(self) -> K:
        """Wait for a dirty key; the caller has to answer with ``done`` or ``fail``."""
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        key = self._next_level().pop()
        self._working[key] = self._ready.pop(key)
        self._cancel_timer(key)
        return key

    def done(self, key: K, requeue_after: float | None = None) -> None:
        """Say that a key was synced, and when it wants to be again without a cause."""
        self._failures.pop(key, None)
        if self._rest:
            asyncio.get_running_loop().call_later(self._rest, self._release, key)
        else:
            self._release(key)
        if requeue_after is not None:
            self._mark_by(key, requeue_after, Priority.NEW)

    def fail(self, key: K, at_least: float = 0.0) -> float:
        """Say that a key could not be synced; returns in how many seconds it will be tried again.

        A cause that comes in the meantime does not shorten the wait: it would let a busy object hammer a sick server.
        """
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay: float = max(at_least, min(LAST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 20)))
        asyncio.get_running_loop().call_later(delay, self._end_back_off, key)
        return delay

    def _make_ready(self, key: K, priority: Priority) -> None:
        before = self._ready.get(key)
        if before is not None and before >= priority:
            return
        if before is not None:
            self._levels[before].discard(self._flow(key), key)
        self._ready[key] = priority
        self._levels[priority].add(self._flow(key), key)
        self._wake.set()

    def _next_level(self) -> "_Level[K]":
        """The level whose turn it is, or else the highest that has a key.

        Turn 4 is the second level's, turn 16 the third's, turn 64 that of the last one, and all others of the first.
        """
        turn = self._taken = self._taken + 1
        levels, index = list(self._levels.values()), 0
        while turn % SHARE == 0 and index < len(levels) - 1:
            turn, index = turn // SHARE, index + 1
        return levels[index] or next(filter(None, levels))

    def _mark_by(self, key: K, seconds: float, priority: Priority) -> None:
        """Mark a key after a time, unless that happens sooner anyhow."""
        loop = asyncio.get_running_loop()
        if key in self._ready:
            self._make_ready(key, priority)
            return
        at = loop.time() + seconds
        if timer := self._timers.get(key):
            at, priority = min(at, timer[0].when()), max(priority, timer[1])
            if (at, priority) == (timer[0].when(), timer[1]):
                return
        self._cancel_timer(key)
        self._timers[key] = loop.call_at(at, self._ring, key), priority
        self._later[priority] += 1

    def _ring(self, key: K) -> None:
        _, priority = self._timers[key]
        self._cancel_timer(key)
        self.mark(key, priority=priority)

    def _cancel_timer(self, key: K) -> None:
        if timer := self._timers.pop(key, None):
            timer[0].cancel()
            self._later[timer[1]] -= 1

    def _end_back_off(self, key: K) -> None:
        priority = self._working.pop(key, Priority.NEW)
        self.mark(key, priority=max(priority, self._again.pop(key, priority)))

    def _release(self, key: K) -> None:
        self._working.pop(key, None)
        if (priority := self._again.pop(key, None)) is not None:
            self.mark(key, priority=priority)


class _Level(Generic[K]):
    """The ready keys of one priority."""

    def __init__(self) -> None:
        self._flows: OrderedDict[Hashable, OrderedDict[K, None]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._flows)

    def add(self, flow: Hashable, key: K) -> None:
        """Put a key at the end of its flow."""
        self._flows.setdefault(flow, OrderedDict())[key] = None

    def discard(self, flow: Hashable, key: K) -> None:
        """Take a key out of its flow."""
        keys = self._flows[flow]
        del keys[key]
        if not keys:
            del self._flows[flow]

    def pop(self) -> K:
        """Take the first key of the flow whose turn it is."""
        flow, keys = self._flows.popitem(last=False)
        key, _ = keys.popitem(last=False)
        if keys:
            self._flows[flow] = keys
        return key
