"""The demand index: the running and waiting targets of every export, updated object by object.

It is derived from the cache alone: running targets from the Jobs, waiting targets from the status of the last sync.
Only reservations are stored in addition: Jobs that got a place and that the watch has not reported yet, until the next
sync of their export.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from modelexport.api.fields import InvalidSpec
from modelexport.api.reasons import Reason
from modelexport.api.spec import Sharing, parse_class
from modelexport_operator.jobs.state import is_active, is_finished
from modelexport_operator.kube.objects import ExportClassObject, ModelExportObject
from modelexport_operator.kube.resources import CLASSES, EXPORTS
from modelexport_operator.kube.types import Key
from modelexport_operator.reconcile.export_class import pick_class
from modelexport_operator.runtime.cache import Cache
from modelexport_operator.scheduling.fair_share import (
    Demand,
    allocate,
    describe_position,
    is_limited,
    select_starting,
)
from modelexport_operator.status.conditions import STALLED, find_condition, status_of, target_entries


@dataclass(frozen=True)
class OtherDemands(Iterable[Demand]):
    """The demands of all exports but one, evaluated when read: few syncs read the thousands of demands."""

    demands: Mapping[Key, Demand]
    key: Key

    def __iter__(self) -> Iterator[Demand]:
        return (demand for demand in self.demands.values() if demand.key != self.key)


class DemandIndex:
    """The demands of all exports that run or wait."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._demands: dict[Key, Demand] = {}
        self._reserved: dict[Key, Collection[str]] = {}
        self._positions: dict[Key, Sequence[str]] = {}
        self._limits: dict[tuple[str, str], bool] = {}
        """Whether a class has limits, by its name and version."""
        self.freed = 0
        """How often an update has found that others may start."""

    def update(self, key: Key) -> bool:
        """Recompute the demand of an export; return whether it became smaller, so that others may start."""
        before, after = self._demands.pop(key, None), self._demand_of(key)
        if after is not None:
            self._demands[key] = after
        is_smaller = before is not None and _size(after) < _size(before)
        self.freed += is_smaller
        return is_smaller

    def waits(self, key: Key) -> bool:
        """Return whether an export has a target that waits for a place."""
        demand = self._demands.get(key)
        return demand is not None and demand.waiting > 0

    def rebuild(self) -> None:
        """Recompute all demands, because a class has changed."""
        self._limits.clear()
        for key in self._cache[EXPORTS]:
            self.update(key)

    def reserve(self, key: Key, jobs: Collection[str]) -> None:
        """Reserve places for these Jobs until the next sync of their export; the next update frees all others."""
        self._reserved.pop(key, None)
        if jobs:
            self._reserved[key] = jobs
        after = self._demand_of(key)
        if after is not None and _size(after) >= _size(self._demands.get(key)):
            self._demands[key] = after

    def reserved(self, key: Key) -> Collection[str]:
        """Return the Jobs for which the last sync of an export reserved places."""
        return self._reserved.get(key, ())

    def others(self, key: Key) -> "OtherDemands":
        """Return the demands of all exports but one."""
        return OtherDemands(self._demands, key)

    def waiting_exports(self) -> list[Key]:
        """Return the exports with at least one waiting target."""
        return [demand.key for demand in self._demands.values() if demand.waiting]

    def startable_exports(self) -> Iterator[Key]:
        """Yield the exports for whose targets there are free places."""
        for sharing, demands in self._limited_classes():
            yield from select_starting(demands, sharing)

    def moved_exports(self) -> Iterator[Key]:
        """Return the exports with a target whose shown position has changed since the last call."""
        before, self._positions = self._positions, {}
        for sharing, demands in self._limited_classes():
            positions: defaultdict[Key, list[str]] = defaultdict(list)
            for position, key in enumerate(allocate(demands, sharing)[1], start=1):
                positions[key].append(describe_position(position))
            self._positions |= positions
        return (key for key, positions in self._positions.items() if before.get(key) != positions)

    def _limited_classes(self) -> Iterator[tuple[Sharing, Collection[Demand]]]:
        """Yield the limits of every class for which targets wait, and the demands of its exports."""
        by_name: defaultdict[str | None, list[Demand]] = defaultdict(list)
        for demand in self._demands.values() if self.waiting_exports() else ():
            by_name[demand.class_name].append(demand)
        by_class: defaultdict[str, list[Demand]] = defaultdict(list)
        for name, demands in by_name.items():
            body = pick_class(name, self._cache[CLASSES].values())
            if body is not None:
                by_class[body["metadata"]["name"]] += demands
        for class_name, demands in by_class.items():
            sharing = _sharing_of(self._cache[CLASSES].get(("", class_name)))
            if sharing is not None and is_limited(sharing):
                yield sharing, demands

    def _demand_of(self, key: Key) -> Demand | None:
        if key not in self._reserved and self._cache.is_settled(key):
            return None
        export = self._cache[EXPORTS].get(key)
        if export is None:
            self._reserved.pop(key, None)
            return None
        if not self._is_limited(export):
            return None
        running, waiting = self._count_running(export, self.reserved(key)), self._count_waiting(export)
        if not running and not waiting:
            return None
        since = export["metadata"].get("creationTimestamp", "")
        return Demand(key, _class_name(export), since, running, waiting)

    def _is_limited(self, export: ModelExportObject) -> bool:
        """Return whether the class of an export has limits; without limits no demand is kept."""
        body = pick_class(_class_name(export), self._cache[CLASSES].values())
        if body is None:
            return False
        version = body["metadata"]["name"], body["metadata"]["resourceVersion"]
        if version not in self._limits:
            sharing = _sharing_of(body)
            self._limits[version] = sharing is not None and is_limited(sharing)
        return self._limits[version]

    def _count_running(self, export: ModelExportObject, reserved: Collection[str]) -> int:
        jobs = {job["metadata"]["name"]: job for job in self._cache.jobs_of(export)}
        kept = sum(name not in jobs or not is_finished(jobs[name]) for name in reserved)
        return kept + sum(is_active(job) for name, job in jobs.items() if name not in reserved)

    def _count_waiting(self, export: ModelExportObject) -> int:
        """Return how many targets of an export wait for a place.

        Targets of an invalid or suspended export do not wait. Neither do those of an export whose Jobs the API server
        refuses, or it would stay first for ever; its Jobs are created again after a pause, and then it waits like
        others.
        """
        status, spec = status_of(export), export.get("spec") or {}
        is_suspended = spec.get("suspend") or export["metadata"].get("deletionTimestamp")
        if is_suspended or "completionTime" in status or find_condition(status, STALLED).get("status") == "True":
            return 0
        if not any(entry.get("reason") == Reason.LIMIT_REACHED for entry in target_entries(status)):
            return 0  # The common case; parsing all targets would be most of the cost.
        reasons = [state.reason for state in self._cache.parse_status(export).targets.values()]
        return 0 if Reason.JOB_REFUSED in reasons else reasons.count(Reason.LIMIT_REACHED)


def _sharing_of(body: ExportClassObject | None) -> Sharing | None:
    try:
        return parse_class(body or {}).sharing
    except InvalidSpec:
        return None  # Every sync of its exports reports it.


def _class_name(export: ModelExportObject) -> str | None:
    name = (export.get("spec") or {}).get("className")
    return str(name) if name else None


def _size(demand: Demand | None) -> int:
    return demand.running + demand.waiting if demand else 0
