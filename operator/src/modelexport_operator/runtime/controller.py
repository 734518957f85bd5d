"""The controller: takes dirty keys, reads, decides by ``sync`` and writes, always in this order."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from operator import itemgetter

from modelexport import names
from modelexport.logs import announce, with_fields
from modelexport.untrusted import moment
from modelexport_operator.jobs.conversion_job import target_of
from modelexport_operator.jobs.ownership import select_jobs
from modelexport_operator.jobs.pod_failures import is_in_trouble
from modelexport_operator.jobs.state import TargetState, is_finished
from modelexport_operator.kube.client import (
    AlreadyExistsError,
    Cluster,
    ClusterError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RejectedError,
)
from modelexport_operator.kube.clock import now
from modelexport_operator.kube.objects import Job, KubeObject, ModelExportObject
from modelexport_operator.kube.resources import BUILTIN, CLASSES, EXPORTS, JOBS, NODES, PODS, Resource, Scope
from modelexport_operator.kube.types import Key, controller_of, key_of, version_of
from modelexport_operator.metrics.metrics import Metrics
from modelexport_operator.reconcile.reconcile import Decision, lacks_node, sync
from modelexport_operator.reconcile.snapshot import Snapshot
from modelexport_operator.runtime.cache import Cache
from modelexport_operator.runtime.demand_index import DemandIndex
from modelexport_operator.runtime.denials import Denials
from modelexport_operator.runtime.event_recorder import SENDERS, EventRecorder
from modelexport_operator.runtime.kueue_admissions import KueueAdmissions
from modelexport_operator.runtime.work_queue import Priority, WorkQueue
from modelexport_operator.status.conditions import READY, find_condition, status_of
from modelexport_operator.status.events import Event, compare_statuses, export_events, finished_targets, is_same_end

logger = logging.getLogger(__name__)

STEP_SECONDS = 2.0
"""Delay after a step of a Job or a Pod: the steps of nine Jobs in a row then need only a few status updates."""
LONGEST_STEP_SECONDS = 10.0
STEPS_PER_SECOND = 10
"""With many active exports, steps wait longer, so that the status updates stay below this rate."""
END_SECONDS = 0.5
"""Delay after the end of a Job: Jobs that started together end together."""
LONGEST_END_SECONDS = 1.0
ENDS_PER_SECOND = 20
"""With many ended Jobs, each waits longer for others of its export, so that the status updates stay below this rate."""
POSITION_SECONDS = 10.0
"""Delay before the queue positions of waiting exports are updated."""
RESENT_EVENTS = timedelta(minutes=5)
"""A new leader sends the last event of exports again that ended within this time."""
NODE_LIST_SECONDS = 10.0
"""How old a list of all nodes may be: a thousand exports that find no suitable node at once share one."""
NOT_FOUND_SECONDS = 60.0
"""Delay after a 404, unless the watch reports sooner that the object is gone: a 404 can be wrong, too."""
COOLDOWN_SECONDS = 0.5
"""Pause between two syncs of one export."""


class Controller:
    """The state and the tasks of one operator process."""

    def __init__(self, cluster: Cluster, metrics: Metrics, clock: Callable[[], datetime] = now) -> None:
        self.cache = Cache()
        self.demands = DemandIndex(self.cache)
        self.queue: WorkQueue[Key] = WorkQueue(COOLDOWN_SECONDS, flow=itemgetter(0))
        self.events = EventRecorder(cluster, clock)
        self._admissions = KueueAdmissions(cluster, clock)
        self._denials = Denials()
        self._node_list = asyncio.Lock()
        self._nodes_listed = -math.inf
        """When the nodes were last listed for a sync, on the loop's monotonic clock."""
        self._cluster = cluster
        self._metrics = metrics
        self._clock = clock
        self._deletions: dict[str, float] = {}
        """When this operator first saw exports being deleted, by uid, on the loop's monotonic clock."""
        self._is_leading = False
        self._refresh_timer: asyncio.TimerHandle | None = None
        self._ended: dict[Key, Sequence[TargetState]] = {}
        self._releases: dict[Key, tuple[ModelExportObject, tuple[Event, ...]]] = {}

    def start_leading(self) -> None:
        """Start to send events and to measure deletion times.

        The last event of recently ended exports is sent again: a leader may die between status and event. The name of
        an event follows from its content and the version of its export, so none is created twice.
        """
        self._is_leading = True
        self._deletions.clear()
        for key in self.cache[EXPORTS]:
            export = self.cache[EXPORTS].get(key)
            ended = moment(status_of(export or {}).get("completionTime"))
            if export and ended and self._clock() - ended < RESENT_EVENTS:
                self.events.record(export, export_events({}, status_of(export)))

    def handle_event(self, resource: Resource, change: str | None, body: KubeObject) -> None:
        """Apply a watch event (``change`` as Kubernetes spells it) and queue the exports that it affects.

        If an object triggers a defect of ours, it is skipped, so that the watch continues with the others.
        """
        try:
            objects, key = self.cache[resource], key_of(body)
            known = self.cache[EXPORTS].get(key) if resource is EXPORTS else None
            if change == "DELETED":
                self.handle_deletion(resource, key, version_of(body))
            elif objects.put(body):
                if resource is EXPORTS:
                    self._report_status_change(key, known)
                if resource is CLASSES:
                    self.demands.rebuild()
                priority, delay = self._priority_of(resource, body)
                for export in self.cache.affected_exports(resource, body):
                    self.queue.add(export, delay, priority)
                    self._requeue_waiting(resource, export)
                    if resource in (EXPORTS, JOBS, PODS):
                        self.cache.compress(export)
        except Exception:
            logger.exception("a defect: %s %s is skipped", resource.plural, body["metadata"].get("name"))

    def _priority_of(self, resource: Resource, body: KubeObject) -> tuple[Priority, float]:
        """Return the priority of a change, and for how many seconds it may wait for others.

        Actions of users never wait. Neither does trouble, which may be brief.
        """
        if resource is EXPORTS:
            return (Priority.STEP if find_condition(status_of(body), READY) else Priority.NEW), 0.0
        if resource is CLASSES:
            return Priority.NEW, 0.0
        if resource is PODS and is_in_trouble(PODS.typed(body)):
            return Priority.END, 0.0
        is_pod_of_ended_job = resource is PODS and self.cache.is_job_ended(body)
        if is_pod_of_ended_job or (resource is JOBS and is_finished(JOBS.typed(body))):
            seconds = self.queue.count_delayed(Priority.END) / ENDS_PER_SECOND
            return Priority.END, _clamp(seconds, END_SECONDS, LONGEST_END_SECONDS)
        seconds = self.queue.count_delayed(Priority.STEP, Priority.END) / STEPS_PER_SECOND
        delay = _clamp(seconds, STEP_SECONDS, LONGEST_STEP_SECONDS)
        return (Priority.NEW if resource is NODES else Priority.STEP), delay

    def handle_deletion(self, resource: Resource, key: Key, version: int) -> None:
        """Remove an object that was deleted at a version, and queue the exports that it affected."""
        body = self.cache[resource].get(key)
        if self.cache[resource].remove(key, version) and body is not None:
            if resource is EXPORTS:
                self._report_release(key)
                self._ended.pop(key, None)
                self._deletions.pop(body["metadata"]["uid"], None)
            if resource is CLASSES:
                self.demands.rebuild()
            for export in self.cache.affected_exports(resource, body):
                self.queue.add(export, priority=Priority.END if resource in BUILTIN else Priority.NEW)
                self._requeue_waiting(resource, export)

    async def relist(self, scope: Scope, export: ModelExportObject | None = None) -> str:
        """Apply what the API server lists, remove what it does not list, and return the version of the list.

        Args:
            scope: which objects.
            export: only the objects that are labelled with this export.

        Raises:
            ClusterError: the list is incomplete; nothing was removed.
        """
        objects = self.cache[scope.resource]
        labels = f"{names.EXPORT_UID_LABEL}={export['metadata']['uid']}" if export else ""
        listed: set[Key] = set()
        version = ""
        async for page in self._cluster.list_objects(scope, labels):
            version = version or page.version
            for body in page.items:
                listed.add(key_of(body))
                self.handle_event(scope.resource, "ADDED", body)
            if page.skipped is not None:
                listed.add(key_of(page.skipped))
                self.handle_event(scope.resource, "DELETED", page.skipped)
            del page  # Otherwise it stays in memory while the next one is read.
        known = (
            map(key_of, objects.labelled_with(export)) if export else (key for key in objects if scope.contains(key[0]))
        )
        for key in [key for key in known if key not in listed]:
            self.handle_deletion(scope.resource, key, int(version))
        return version

    def _requeue_waiting(self, resource: Resource, key: Key) -> None:
        """If an export has freed a place, queue the exports that get it, and update the other positions later."""
        if resource not in (EXPORTS, JOBS) or not self.demands.update(key):
            return
        for other in self.demands.startable_exports():
            self.queue.add(other, priority=Priority.END)
        if self._refresh_timer is None and (waiting := self.demands.waiting_exports()):
            later = max(POSITION_SECONDS, len(waiting) / STEPS_PER_SECOND)
            self._refresh_timer = asyncio.get_running_loop().call_later(later, self._refresh_positions)

    def _refresh_positions(self) -> None:
        """Queue the exports whose queue position differs from the one in their status."""
        self._refresh_timer = None
        for key in self.demands.moved_exports():
            self.queue.add(key, priority=Priority.IDLE)

    async def resync_forever(self, seconds: float) -> None:
        """Queue every export that has not ended periodically, in case a change was missed."""
        while True:
            await asyncio.sleep(seconds)
            for key, _ in self.cache[EXPORTS].uncompressed_items():
                self.queue.add(key, priority=Priority.IDLE)

    async def send_events_forever(self) -> None:
        """Send events of several exports concurrently."""
        async with asyncio.TaskGroup() as group:
            for _ in range(SENDERS):
                group.create_task(self.events.send_forever())

    async def work_forever(self) -> None:
        """Sync dirty keys one after the other while this process may write; several workers run concurrently."""
        while self._cluster.may_write:
            await self.work_once()

    async def work_once(self) -> None:
        """Sync one dirty key; a failure affects only this key and is retried."""
        key = await self.queue.get()
        started, error = time.perf_counter(), None
        try:
            self.queue.done(key, await self._sync(key))
        except ClusterError as problem:
            error = type(problem).__name__
            delay = self.queue.retry(key, problem.retry_after)
            logger.warning("%s; retrying in %.1f s", problem, delay, extra=_log_fields(key))
        except Exception:
            # A defect of ours that one object triggers must not block all others.
            error = "Defect"
            logger.exception("a defect; retrying in %.1f s", self.queue.retry(key), extra=_log_fields(key))
        self._metrics.record_sync(time.perf_counter() - started, error)

    async def _sync(self, key: Key) -> float | None:
        """Sync one export, and return in how many seconds it has to be synced again."""
        known, changes = self.cache.snapshot(key), self.cache.changes
        if known is None:
            self._admissions.forget(key)
            self.cache.short_of_nodes.discard(key)
            return None
        admissions, ask_again = await self._admissions.explain(key, known.jobs)
        pods_refused = await self._find_pod_refusals(key, known.overdue_jobs(self._clock()))
        conversions = await self._read_conversions(known)
        pods_listed = await self._relist_missing(known)
        snapshot = self._add_demands(key, known if self.cache.changes == changes else self.cache.snapshot(key))
        if snapshot is None:
            return None
        if snapshot.removes_files is not known.removes_files:
            return 0.0  # The queries above no longer fit.
        snapshot = replace(
            snapshot,
            pods_refused=pods_refused,
            admissions=admissions,
            conversions=conversions,
            pods_listed=pods_listed,
        )
        freed = self.demands.freed
        decision = sync(snapshot, self._clock())
        if lacks_node(snapshot, decision) and await self._relist_nodes():
            return 0.0  # A watch may not have reported a new node yet.
        self.demands.reserve(key, _starting_jobs(decision))
        self.cache.note_shortage(key, decision.status)
        try:
            refused = await self._create_jobs(decision.create)
            denied = self._select_denied(key, refused)
            if refused:
                final = {name: str(error) for name, error in refused.items() if name not in denied}
                words = {name: str(error) for name, error in denied.items()}
                decision = sync(replace(snapshot, refused=final, denied=words), self._clock())
                self.demands.reserve(key, _starting_jobs(decision))
            await self._apply(snapshot.parent, decision)
            self._requeue_waiting(EXPORTS, key)
            self.cache.compress(key)
            for error in denied.values():
                raise error  # The status says so; the queue tries again, soon at first.
        except NotFoundError as error:
            logger.info("%s; the watch will report it", error, extra=_log_fields(key))
            return NOT_FOUND_SECONDS
        # If a place was freed before the status said that this export waits, nothing else queues it.
        woken = 0.0 if self.demands.freed > freed and self.demands.waits(key) else None
        again = None if decision.requeue_after is None else decision.requeue_after.total_seconds()
        return min((seconds for seconds in (woken, again, ask_again) if seconds is not None), default=None)

    def _add_demands(self, key: Key, known: Snapshot | None) -> Snapshot | None:
        """Add the demands to a snapshot. No await may come between this call and the reservation of places."""
        if known is None:
            return None
        deleted_for, now = timedelta(0), asyncio.get_running_loop().time()
        if known.is_deleted:
            deleted_for = timedelta(seconds=now - self._deletions.setdefault(known.parent["metadata"]["uid"], now))
        others, reserved = self.demands.others(key), self.demands.reserved(key)
        return replace(known, others=others, reserved=reserved, deleted_for=deleted_for)

    async def _find_pod_refusals(self, key: Key, jobs: Sequence[Job]) -> dict[str, str]:
        """Return why Jobs have no Pod, by name, for those where the API server answers."""
        reasons: dict[str, str] = {}
        for job in jobs:
            try:
                words = await self._cluster.find_pod_refusal(job)
            except ClusterError as error:
                logger.warning("cannot read why a Job has no Pod: %s", error, extra=_log_fields(key))
            else:
                reasons |= {job["metadata"]["name"]: words} if words else {}
        return reasons

    async def _relist_missing(self, known: Snapshot) -> frozenset[str]:
        """List the objects whose absence would lead to a final decision; a watch may not have reported them yet.

        Returns:
            The names of the Jobs that had already ended when all their Pods were listed.
        """
        parent, ended = known.parent, known.unsettled_jobs()
        namespace = parent["metadata"]["namespace"]
        if known.lacks_class():
            await self.relist(Scope(CLASSES))
        if known.removes_files:
            ended = [job for job in self.cache.jobs_of(parent) if is_finished(job)]
        if ended or known.removes_files:
            await self.relist(Scope(PODS, namespace), parent)
        return frozenset(job["metadata"]["name"] for job in ended)

    async def _relist_nodes(self) -> bool:
        """List the nodes, unless that has just been done; return whether they were listed since the call."""
        began = asyncio.get_running_loop().time()
        if began - self._nodes_listed < NODE_LIST_SECONDS:
            return False
        async with self._node_list:
            if self._nodes_listed < began:
                await self.relist(Scope(NODES))
                self._nodes_listed = asyncio.get_running_loop().time()
        return True

    async def _read_conversions(self, known: Snapshot) -> list[Job]:
        """Return the unpruned conversion Jobs of an export that is deleted together with its files.

        All its Jobs are read, because the watch may be late, and a running conversion would publish its files again.
        """
        if not known.removes_files:
            return []
        metadata = known.parent["metadata"]
        jobs = await self._cluster.read_jobs(metadata["namespace"], metadata["uid"])
        for job in jobs:
            self.handle_event(JOBS, "ADDED", job)
        return [job for job in select_jobs(known.parent, jobs) if target_of(job)]

    async def _create_jobs(self, jobs: tuple[Job, ...]) -> dict[str, RejectedError]:
        """Create Jobs, and return why the API server refused some of them, by name."""
        outcomes = await asyncio.gather(*map(self._create_job, jobs), return_exceptions=True)
        refused = {}
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, RejectedError):
                refused[job["metadata"]["name"]] = outcome
            elif outcome is not None:
                raise outcome
            else:
                metadata = job["metadata"]
                self._denials.end(metadata["namespace"])
                export = _format_key((metadata["namespace"], metadata["labels"][names.EXPORT_LABEL]))
                announce("job created", export=export, target=target_of(job), job=metadata["name"])
        return refused

    def _select_denied(self, key: Key, refused: Mapping[str, RejectedError]) -> dict[str, ForbiddenError]:
        """Return the refusals for want of a right that may only not be loaded yet: none of them is final."""
        denied = {name: error for name, error in refused.items() if isinstance(error, ForbiddenError)}
        return denied if denied and not self._denials.is_lasting(key[0]) else {}

    async def _create_job(self, job: Job) -> None:
        existing = self.cache[JOBS].get(key_of(job))
        if existing is not None:
            _check_ownership(existing, job)
        try:
            await self._cluster.create_job(job)
        except AlreadyExistsError as error:
            # The name identifies its target, but its state is unknown: the watch has not reported it yet.
            existing = await self._cluster.find_job(*key_of(job))
            if existing is not None:
                _check_ownership(existing, job)
                self.handle_event(JOBS, "ADDED", existing)
            raise ConflictError(f"{error}; reading it first") from error

    async def _apply(self, parent: ModelExportObject, decision: Decision) -> None:
        for suspension in decision.suspend:
            namespace = parent["metadata"]["namespace"]
            await self._cluster.suspend_job(namespace, suspension.job_name, suspend=suspension.suspend)
            announce(
                "job suspended" if suspension.suspend else "job resumed",
                export=_format_key(key_of(parent)),
                job=suspension.job_name,
            )
        for name in decision.withdraw:
            await self._cluster.delete_job(parent["metadata"]["namespace"], name)
            announce("job withdrawn", export=_format_key(key_of(parent)), job=name)
        if decision.finalizers is not None:
            self._releases[key_of(parent)] = parent, decision.events
            await self._cluster.write_finalizers(parent, decision.finalizers)
            self._report_release(key_of(parent))
        if decision.delete:
            await self._cluster.delete_export(parent)
            announce("export deleted", export=_format_key(key_of(parent)))
        if decision.status is not None:
            self._ended[key_of(parent)] = decision.finished
            written = await self._cluster.write_status(parent, decision.status)
            known = self.cache[EXPORTS].get(key_of(parent))
            self.cache[EXPORTS].update(written)
            self._report_status_change(key_of(parent), known)

    def _report_status_change(self, key: Key, known: ModelExportObject | None) -> None:
        """Record events and metrics for what the status of an export adds to the body known before.

        The new body may come from the watch or from the response to a write, so a lost response does no harm. Changes
        from before this process knew the export or became the leader were reported by another process.
        """
        body = self.cache[EXPORTS].get(key)
        if known is None or body is None or body is known:
            return
        if known["metadata"]["uid"] != body["metadata"]["uid"]:
            self._report_release(key)
            return
        if not self._is_leading or status_of(known) == status_of(body):
            return
        before, after = self.cache.parse_status(known), self.cache.parse_status(body)
        written = self._ended.pop(key, ())
        for state in finished_targets(before.targets, after.targets.values()):
            # For an end that this process has written, it knows more than the status.
            known_end = next((one for one in written if is_same_end(one, state)), state)
            self._metrics.record_conversion(_architecture_of(body), known_end)
        self.events.record(body, compare_statuses(before, after))

    def _report_release(self, key: Key) -> None:
        """Send the events about the files of an export once its finalizer is known to be removed."""
        if release := self._releases.pop(key, None):
            self.events.record(*release)


def _check_ownership(existing: Job, job: Job) -> None:
    """Raise ``RejectedError`` if the existing Job of a name is not the one to be created."""
    labels = [(body["metadata"].get("labels") or {}).get(names.EXPORT_UID_LABEL) for body in (existing, job)]
    if controller_of(existing) != controller_of(job) or labels[0] != labels[1]:
        raise RejectedError("a Job of that name exists and does not belong to this ModelExport; delete that Job")


def _architecture_of(export: ModelExportObject) -> str:
    """Return the architecture that a spec names; empty if it names none."""
    model = export.get("spec", {}).get("model")
    return str(model.get("architecture", "")) if isinstance(model, Mapping) else ""


def _clamp(value: float, least: float, most: float) -> float:
    return min(max(least, value), most)


def _format_key(key: Key) -> str:
    return "/".join(key)


def _log_fields(key: Key) -> Mapping[str, object]:
    return with_fields(export=_format_key(key))


def _starting_jobs(decision: Decision) -> frozenset[str]:
    """Return the names of the Jobs that take a place by a decision."""
    resumed = (suspension.job_name for suspension in decision.suspend if not suspension.suspend)
    return frozenset((*(job["metadata"]["name"] for job in decision.create), *resumed))
