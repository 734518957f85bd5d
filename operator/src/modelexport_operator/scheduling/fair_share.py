"""Allocates free places to targets where a class has limits, fairly between namespaces. Pure.

The namespace with the fewest running targets comes first, and in it the oldest export. So a namespace with a hundred
new exports does not block the single export of another namespace.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from itertools import count

from modelexport.api.spec import Sharing
from modelexport_operator.kube.types import Key

EXACT_POSITIONS = 10
"""Positions up to this one are shown as exact numbers."""


@dataclass(frozen=True)
class Demand:
    """Running and waiting targets of one export.

    Attributes:
        key: namespace and name of the export.
        class_name: the class that its spec names; ``None`` is the default class.
        since: its creation time as RFC 3339.
        running: targets that count against the limits.
        waiting: targets that wait for a place.
    """

    key: Key
    class_name: str | None
    since: str
    running: int
    waiting: int


def allocate(demands: Iterable[Demand], sharing: Sharing) -> tuple[list[Key], list[Key]]:
    """Return who may start now and who still waits, both in order, with one entry per waiting target.

    Args:
        demands: the demands of all exports of one class.
        sharing: the limits of that class.
    """
    demands = list(demands)
    running = _count_running(demands)
    free = _or_infinite(sharing.parallelism) - sum(running.values())
    most = _or_infinite(sharing.parallelism_per_namespace)
    starting, staying, order = [], [], fair_order(demands)
    while free > 0 and (key := next(order, None)):
        if running[key[0]] < most:
            starting.append(key)
            running[key[0]] += 1
            free -= 1
        else:
            staying.append(key)
    return starting, [*staying, *order]


def select_starting(demands: Collection[Demand], sharing: Sharing) -> set[Key]:
    """Return who may start now, as ``allocate`` does, without computing the rest of the queue."""
    running = _count_running(demands)
    free = _or_infinite(sharing.parallelism) - sum(running.values())
    most = _or_infinite(sharing.parallelism_per_namespace)
    starting: set[Key] = set()
    for key in fair_order([demand for demand in demands if running[demand.key[0]] < most]) if free > 0 else ():
        if running[key[0]] < most:
            starting.add(key)
            running[key[0]] += 1
            free -= 1
            if free == 0:
                break
    return starting


def fair_order(demands: Iterable[Demand]) -> Iterator[Key]:
    """Yield the export of every waiting target, in the order in which they would start without limits."""
    demands = list(demands)
    running = _count_running(demands)
    queues: defaultdict[str, list[tuple[str, Key, int]]] = defaultdict(list)
    for demand in demands:
        if demand.waiting:
            queues[demand.key[0]].append((demand.since, demand.key, demand.waiting))
    heap = []
    for namespace, queue in queues.items():
        heapify(queue)
        heap.append((running[namespace], *queue[0][:2], queue))
    heapify(heap)
    while heap:
        served, since, key, queue = heap[0]
        yield key
        if (left := queue[0][2] - 1) > 0:
            queue[0] = since, key, left
        else:
            heappop(queue)
        if queue:
            heapreplace(heap, (served + 1, *queue[0][:2], queue))
        else:
            heappop(heap)


def describe_position(position: int) -> str:
    """Describe a position in the queue, coarser towards its end, so that a moving queue causes few updates."""
    if position <= EXACT_POSITIONS:
        return f"number {position} in line"
    steps = (digit * 10**power for power in count(1) for digit in (1, 2, 5))
    return f"among the next {next(step for step in steps if position <= step)} in line"


def is_limited(sharing: Sharing) -> bool:
    """Return whether targets of a class may have to wait for others."""
    return sharing.parallelism is not None or sharing.parallelism_per_namespace is not None


def describe_limit(sharing: Sharing, namespace: str, running: int) -> str:
    """Return the limit that makes a target of a namespace wait when so many targets of that namespace run."""
    limit = sharing.parallelism_per_namespace
    if limit is not None and running >= limit:
        return f"{limit} of namespace {namespace} at once (spec.jobs.parallelismPerNamespace)"
    return f"{sharing.parallelism} at once (spec.jobs.parallelism)"


def _count_running(demands: Iterable[Demand]) -> Counter[str]:
    running: Counter[str] = Counter()
    for demand in demands:
        running[demand.key[0]] += demand.running
    return running


def _or_infinite(limit: int | None) -> float:
    return float("inf") if limit is None else limit
