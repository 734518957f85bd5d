"""Whose target starts next where a class has limits: a line over all exports, fair between namespaces. Pure.

The namespace with the fewest targets on their way comes first, in it the oldest export; so a namespace that orders a
hundred exports at once does not keep another from its one.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from itertools import count

from modelexport.spec import Sharing

Key = tuple[str, str]
"""Namespace and name of an export."""
EXACT_PLACES = 10
"""So many places in the line are told by their number."""


@dataclass(frozen=True)
class Demand:
    """What one export has and wants: targets on their way, and targets that wait for their turn.

    ``class_name`` is the one that its spec names, ``None`` the default class; ``since`` is its creation as RFC 3339.
    """

    key: Key
    class_name: str | None
    since: str
    running: int
    waiting: int


def draw(demands: Iterable[Demand], sharing: Sharing) -> tuple[list[Key], list[Key]]:
    """Say who may start now and who goes on waiting, in order: one entry for each target that waits.

    Args:
        demands: those of all exports of one class.
        sharing: the limits of that class.
    """
    demands = list(demands)
    running = _count_running(demands)
    free = _or_endless(sharing.parallelism) - sum(running.values())
    most = _or_endless(sharing.parallelism_per_namespace)
    starting, staying, line = [], [], line_up(demands)
    while free > 0 and (key := next(line, None)):
        if running[key[0]] < most:
            starting.append(key)
            running[key[0]] += 1
            free -= 1
        else:
            staying.append(key)
    return starting, [*staying, *line]


def draw_starting(demands: Collection[Demand], sharing: Sharing) -> set[Key]:
    """Say who may start now, as ``draw``, without looking at the line behind them."""
    running = _count_running(demands)
    free = _or_endless(sharing.parallelism) - sum(running.values())
    most = _or_endless(sharing.parallelism_per_namespace)
    starting: set[Key] = set()
    for key in line_up([demand for demand in demands if running[demand.key[0]] < most]) if free > 0 else ():
        if running[key[0]] < most:
            starting.add(key)
            running[key[0]] += 1
            free -= 1
            if free == 0:
                break
    return starting


def line_up(demands: Iterable[Demand]) -> Iterator[Key]:
    """Yield the export of every waiting target, in the order in which they would start without limits."""
    demands = list(demands)
    running = _count_running(demands)
    lines: defaultdict[str, list[tuple[str, Key, int]]] = defaultdict(list)
    for demand in demands:
        if demand.waiting:
            lines[demand.key[0]].append((demand.since, demand.key, demand.waiting))
    heap = []
    for namespace, line in lines.items():
        heapify(line)
        heap.append((running[namespace], *line[0][:2], line))
    heapify(heap)
    while heap:
        served, since, key, line = heap[0]
        yield key
        if (left := line[0][2] - 1) > 0:
            line[0] = since, key, left
        else:
            heappop(line)
        if line:
            heapreplace(heap, (served + 1, *line[0][:2], line))
        else:
            heappop(heap)


def describe_place(place: int) -> str:
    """Name a place in the line, the coarser the farther back: so a line that moves is not all told anew."""
    if place <= EXACT_PLACES:
        return f"number {place} in line"
    steps = (digit * 10**power for power in count(1) for digit in (1, 2, 5))
    return f"among the next {next(step for step in steps if place <= step)} in line"


def is_limited(sharing: Sharing) -> bool:
    """Whether targets of a class may have to wait for others."""
    return sharing.parallelism is not None or sharing.parallelism_per_namespace is not None


def describe_limit(sharing: Sharing, namespace: str, running: int) -> str:
    """Name the limit that keeps a target of a namespace waiting when so many of that namespace run."""
    limit = sharing.parallelism_per_namespace
    if limit is not None and running >= limit:
        return f"{limit} of namespace {namespace} at once (spec.jobs.parallelismPerNamespace)"
    return f"{sharing.parallelism} at once (spec.jobs.parallelism)"


def _count_running(demands: Iterable[Demand]) -> Counter[str]:
    running: Counter[str] = Counter()
    for demand in demands:
        running[demand.key[0]] += demand.running
    return running


def _or_endless(limit: int | None) -> float:
    return float("inf") if limit is None else limit
