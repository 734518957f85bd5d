"""Whose target starts next where a class has limits: a line over all exports, fair between namespaces. Pure.

The namespace with the fewest targets on their way comes first, in it the oldest export; so a namespace that orders a
hundred exports at once does not keep another from its one.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from modelexport.spec import Sharing

Key = tuple[str, str]
"""Namespace and name of an export."""


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
    starting, staying = [], []
    for key in line_up(demands):
        if free > 0 and running[key[0]] < _or_endless(sharing.parallelism_per_namespace):
            starting.append(key)
            running[key[0]] += 1
            free -= 1
        else:
            staying.append(key)
    return starting, staying


def line_up(demands: Iterable[Demand]) -> Iterator[Key]:
    """Yield the export of every waiting target, in the order in which they would start without limits."""
    demands = list(demands)
    running = _count_running(demands)
    lines: defaultdict[str, list[tuple[str, Key]]] = defaultdict(list)
    for demand in sorted(demands, key=lambda demand: (demand.since, demand.key), reverse=True):
        lines[demand.key[0]] += [(demand.since, demand.key)] * demand.waiting
    heap = [(running[namespace], line.pop(), line) for namespace, line in lines.items() if line]
    heapify(heap)
    while heap:
        count, (_, key), line = heappop(heap)
        yield key
        if line:
            heappush(heap, (count + 1, line.pop(), line))


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
