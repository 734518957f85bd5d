"""A work queue of dirty keys: a key waits once, is processed by one worker at a time, and backs off on failure.

It resembles the priority queue of controller-runtime (pkg/controller/priorityqueue): a key that is added again keeps
the higher of its priorities and the earlier of its times. Two rules are added. Within a priority, flows take turns, as
in API Priority and Fairness. And every priority leaves a share of the turns to lower ones, so none starves.

A key can be added with a delay: all changes until then need only one sync. After a sync a key also has a cooldown. So
an export whose Jobs all change at once is written a few times, and not for every step of every Pod.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from enum import IntEnum
from typing import Generic, TypeVar

from modelexport_operator.kube.backoff import jitter

K = TypeVar("K", bound=Hashable)

FIRST_DELAY = 0.2
"""Seconds before a key is retried after its first failure; doubles with every failure, before its jitter."""
LAST_DELAY = 60.0
SHARE = 4
"""While keys of all priorities are ready, one in so many turns goes to the lower priorities."""


class Priority(IntEnum):
    """Which ready keys come first."""

    IDLE = 0
    """Nothing has happened to the key itself."""
    NEW = 1
    """Work that starts."""
    STEP = 2
    """Work that continues."""
    END = 3
    """Work that has ended, has failed, or may start because other work has ended."""


class WorkQueue(Generic[K]):
    """Keys that have to be synced.

    Args:
        cooldown: seconds for which a key is not returned again after a sync.
        flow: groups keys; keys of one flow keep their order, and flows take turns.
    """

    def __init__(self, cooldown: float = 0.0, flow: Callable[[K], Hashable] = lambda _: None) -> None:
        self._cooldown = cooldown
        self._flow = flow
        self._levels: dict[Priority, _Level[K]] = {priority: _Level() for priority in sorted(Priority, reverse=True)}
        self._ready: dict[K, Priority] = {}
        self._gets = 0
        self._processing: dict[K, Priority] = {}
        self._dirty: dict[K, Priority] = {}
        self._failures: dict[K, int] = {}
        self._timers: dict[K, tuple[asyncio.TimerHandle, Priority]] = {}
        self._delayed: Counter[Priority] = Counter()
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._ready) + len(self._dirty)

    def count_delayed(self, *priorities: Priority) -> int:
        """Return how many keys wait for their delay with one of these priorities."""
        return sum(self._delayed[priority] for priority in priorities)

    def add(self, key: K, after: float = 0.0, priority: Priority = Priority.NEW) -> None:
        """Have a key synced, after so many seconds at most; a key that is processed or cools down is synced again."""
        if after > 0:
            self._add_after(key, after, priority)
        elif key in self._processing:
            self._dirty[key] = max(priority, self._dirty.get(key, priority))
        else:
            self._make_ready(key, priority)

    async def get(self) -> K:
        """Wait for a dirty key; the caller has to answer with ``done`` or ``retry``."""
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        key = self._next_level().pop()
        self._processing[key] = self._ready.pop(key)
        self._cancel_timer(key)
        return key

    def done(self, key: K, requeue_after: float | None = None) -> None:
        """Finish a successful sync of a key, and schedule the next one if ``requeue_after`` is given."""
        self._failures.pop(key, None)
        if self._cooldown:
            asyncio.get_running_loop().call_later(self._cooldown, self._finish, key)
        else:
            self._finish(key)
        if requeue_after is not None:
            self._add_after(key, requeue_after, Priority.NEW)

    def retry(self, key: K, at_least: float = 0.0) -> float:
        """Finish a failed sync of a key, and return in how many seconds it is retried.

        A change in the meantime does not shorten the delay: otherwise a busy object would overload a failing server.
        The delay has a jitter: a server that fails for a moment fails for hundreds of keys at once, which would
        otherwise come back at once, too.
        """
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = jitter(max(at_least, min(LAST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 20))))
        asyncio.get_running_loop().call_later(delay, self._end_backoff, key)
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
        """Return the level whose turn it is, or the highest one that has a key.

        Turn 4 belongs to the second level, turn 16 to the third, turn 64 to the last, and all others to the first.
        """
        turn = self._gets = self._gets + 1
        levels, index = list(self._levels.values()), 0
        while turn % SHARE == 0 and index < len(levels) - 1:
            turn, index = turn // SHARE, index + 1
        return levels[index] or next(filter(None, levels))

    def _add_after(self, key: K, seconds: float, priority: Priority) -> None:
        """Add a key after a delay, unless it is due earlier anyway."""
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
        self._timers[key] = loop.call_at(at, self._on_timer, key), priority
        self._delayed[priority] += 1

    def _on_timer(self, key: K) -> None:
        _, priority = self._timers[key]
        self._cancel_timer(key)
        self.add(key, priority=priority)

    def _cancel_timer(self, key: K) -> None:
        if timer := self._timers.pop(key, None):
            timer[0].cancel()
            self._delayed[timer[1]] -= 1

    def _end_backoff(self, key: K) -> None:
        priority = self._processing.pop(key, Priority.NEW)
        self.add(key, priority=max(priority, self._dirty.pop(key, priority)))

    def _finish(self, key: K) -> None:
        self._processing.pop(key, None)
        if (priority := self._dirty.pop(key, None)) is not None:
            self.add(key, priority=priority)


class _Level(Generic[K]):
    """The ready keys of one priority."""

    def __init__(self) -> None:
        self._flows: OrderedDict[Hashable, OrderedDict[K, None]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._flows)

    def add(self, flow: Hashable, key: K) -> None:
        """Append a key to its flow."""
        self._flows.setdefault(flow, OrderedDict())[key] = None

    def discard(self, flow: Hashable, key: K) -> None:
        """Remove a key from its flow."""
        keys = self._flows[flow]
        del keys[key]
        if not keys:
            del self._flows[flow]

    def pop(self) -> K:
        """Remove and return the first key of the flow whose turn it is."""
        flow, keys = self._flows.popitem(last=False)
        key, _ = keys.popitem(last=False)
        if keys:
            self._flows[flow] = keys
        return key
