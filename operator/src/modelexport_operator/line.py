"""What every export has and wants of the places of its class, kept up to date object by object.

It follows from the stores alone: what runs from the Jobs, what waits from the status that the last sync wrote. Only
Jobs that were promised a place and have not been heard of yet are remembered besides, until the next sync of their
export.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from modelexport.fields import InvalidSpec
from modelexport.reasons import Reason
from modelexport.spec import Sharing, parse_class
from modelexport_operator.classes import pick_class
from modelexport_operator.observe import is_finished, is_on_its_way
from modelexport_operator.pods import Object
from modelexport_operator.resources import CLASSES, EXPORTS
from modelexport_operator.status import STALLED, find_condition, recorded_targets, status_of, target_entries
from modelexport_operator.stores import Stores
from modelexport_operator.turns import Demand, Key, describe_place, draw, draw_starting, is_limited


class Line:
    """The demands of all exports that run or wait."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._demands: dict[Key, Demand] = {}
        self._promised: dict[Key, Collection[str]] = {}
        self._places: dict[Key, Sequence[str]] = {}

    def update(self, key: Key) -> bool:
        """Look at an export again; whether it gave up a place, or the wish for one."""
        before, after = self._demands.pop(key, None), self._look(key)
        if after is not None:
            self._demands[key] = after
        return before is not None and _size(after) < _size(before)

    def promise(self, key: Key, jobs: Collection[str]) -> None:
        """Keep places for these Jobs until the next sync of their export; others are given up by the next update."""
        self._promised.pop(key, None)
        if jobs:
            self._promised[key] = jobs
        after = self._look(key)
        if after is not None and _size(after) >= _size(self._demands.get(key)):
            self._demands[key] = after

    def promised(self, key: Key) -> Collection[str]:
        """The Jobs for which an export got places in its last sync."""
        return self._promised.get(key, ())

    def others(self, key: Key) -> list[Demand]:
        """The demands of all exports but one."""
        return [demand for demand in self._demands.values() if demand.key != key]

    def waiting(self) -> list[Key]:
        """The exports of which some target waits for its turn."""
        return [demand.key for demand in self._demands.values() if demand.waiting]

    def next_ones(self) -> Iterator[Key]:
        """The exports for whose targets there are places now."""
        for sharing, demands in self._limited():
            yield from draw_starting(demands, sharing)

    def moved(self) -> Iterator[Key]:
        """The exports of which some target is told another place in the line than when this was asked last."""
        before, self._places = self._places, {}
        for sharing, demands in self._limited():
            places: defaultdict[Key, list[str]] = defaultdict(list)
            for place, key in enumerate(draw(demands, sharing)[1], start=1):
                places[key].append(describe_place(place))
            self._places |= places
        return (key for key, places in self._places.items() if before.get(key) != places)

    def _limited(self) -> Iterator[tuple[Sharing, Collection[Demand]]]:
        """The limits of every class for which somebody waits, and the demands of its exports."""
        by_name: defaultdict[str | None, list[Demand]] = defaultdict(list)
        for demand in self._demands.values() if self.waiting() else ():
            by_name[demand.class_name].append(demand)
        by_class: defaultdict[str, list[Demand]] = defaultdict(list)
        for name, demands in by_name.items():
            body = pick_class(name, self._stores[CLASSES].values())
            if body is not None:
                by_class[body["metadata"]["name"]] += demands
        for class_name, demands in by_class.items():
            sharing = _sharing_of(self._stores[CLASSES].get(("", class_name)))
            if sharing is not None and is_limited(sharing):
                yield sharing, demands

    def _look(self, key: Key) -> Demand | None:
        export = self._stores[EXPORTS].get(key)
        if export is None:
            self._promised.pop(key, None)
            return None
        running, waiting = self._count_running(export, self.promised(key)), _count_waiting(export)
        if not running and not waiting:
            return None
        since = export["metadata"].get("creationTimestamp", "")
        return Demand(key, _class_name(export), since, running, waiting)

    def _count_running(self, export: Object, promised: Collection[str]) -> int:
        jobs = {job["metadata"]["name"]: job for job in self._stores.jobs_of(export)}
        kept = sum(name not in jobs or not is_finished(jobs[name]) for name in promised)
        return kept + sum(is_on_its_way(job) for name, job in jobs.items() if name not in promised)


def _sharing_of(body: Object | None) -> Sharing | None:
    try:
        return parse_class(body or {}).sharing
    except InvalidSpec:
        return None  # Every sync of its exports says so.


def _count_waiting(export: Object) -> int:
    """How many targets stand in the line.

    Those of an export that cannot be used, or is stopped, do not. Nor do those of one whose Jobs the API server
    refuses, or it would be the next one for ever; it is offered again after a while, and then stands there like others.
    """
    status, spec = status_of(export), export.get("spec") or {}
    is_stopped = spec.get("suspend") or export["metadata"].get("deletionTimestamp")
    if is_stopped or "completionTime" in status or find_condition(status, STALLED).get("status") == "True":
        return 0
    if not any(entry.get("reason") == Reason.LIMIT_REACHED for entry in target_entries(status)):
        return 0  # as a rule, and reading all targets with care is most of what this costs
    reasons = [state.reason for state in recorded_targets(status).values()]
    return 0 if Reason.JOB_REFUSED in reasons else reasons.count(Reason.LIMIT_REACHED)


def _class_name(export: Object) -> str | None:
    return (export.get("spec") or {}).get("className") or None


def _size(demand: Demand | None) -> int:
    return demand.running + demand.waiting if demand else 0
