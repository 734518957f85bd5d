"""The shell around ``sync``: takes dirty keys, looks, decides, writes, in this order and never otherwise."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from modelexport import names
from modelexport.logs import announce, with_fields
from modelexport_operator.cleanup import takes_files_along
from modelexport_operator.clock import now
from modelexport_operator.cluster import Cluster, ClusterError, ConflictError, ExistsError, GoneError, RefusedError
from modelexport_operator.events import Event, compare_statuses, finished_targets, is_same_end
from modelexport_operator.line import Line
from modelexport_operator.manifests import Manifest, target_of
from modelexport_operator.metrics import Metrics
from modelexport_operator.observe import TargetState, is_finished
from modelexport_operator.owners import controller_of, select_jobs
from modelexport_operator.pods import Object, is_in_trouble
from modelexport_operator.queue import DirtyQueue, Priority
from modelexport_operator.recorder import SENDERS, EventRecorder
from modelexport_operator.resources import BUSY, CLASSES, EXPORTS, JOBS, NODES, PODS, Resource, Scope
from modelexport_operator.status import READY, find_condition, recorded_targets, status_of
from modelexport_operator.stores import Key, Stores, key_of, version_of
from modelexport_operator.sync import Decision, Observed, lacks_class, overdue, sync, unsettled

logger = logging.getLogger(__name__)

STEP_SECONDS = 2.0
"""How long a step of a Job or a Pod may wait to be told: the steps of nine Jobs in a row are then a few statuses."""
LONGEST_STEP_SECONDS = 10.0
STEPS_PER_SECOND = 10
"""With many exports on their way steps wait longer, so that together they cost no more statuses than this."""
END_SECONDS = 0.5
"""How long an end may wait to be told: Jobs that started together end together."""
PLACE_SECONDS = 10.0
"""How soon those who go on waiting for their turn are told their new place in the line."""
REST_SECONDS = 0.5
"""How long an export is left alone after a sync."""


class Controller:
    """Everything that one operator process knows and does."""

    def __init__(self, cluster: Cluster, metrics: Metrics, clock: Callable[[], datetime] = now) -> None:
        self.stores = Stores()
        self.line = Line(self.stores)
        self.queue: DirtyQueue[Key] = DirtyQueue(REST_SECONDS, flow=itemgetter(0))
        self.events = EventRecorder(cluster, clock)
        self._cluster = cluster
        self._metrics = metrics
        self._clock = clock
        self._deletions: dict[str, float] = {}
        """When this operator first saw that exports are being deleted, by uid, on the loop's monotonic clock."""
        self._is_leading = False
        self._renumbering: asyncio.TimerHandle | None = None
        self._ended: dict[Key, Sequence[TargetState]] = {}
        self._releases: dict[Key, tuple[Object, tuple[Event, ...]]] = {}

    def begin(self) -> None:
        """Lead: tell what happens from now on, and count from now on for how long something was tried."""
        self._is_leading = True
        self._deletions.clear()

    def take_over(self, resource: Resource, change: str | None, body: Object) -> None:
        """Take what a watch tells (``change`` as Kubernetes spells it) and mark the exports that it concerns.

        An object that brings out a defect of ours is left out, and the others are heard.
        """
        try:
            self._take_over(resource, change, body)
        except Exception:
            logger.exception("a defect: %s %s is left out", resource.plural, body["metadata"].get("name"))

    def _take_over(self, resource: Resource, change: str | None, body: Object) -> None:
        store, key = self.stores[resource], key_of(body)
        known = store.get(key) if resource is EXPORTS else None
        if change == "DELETED":
            self.forget(resource, key, version_of(body))
        elif store.put(body):
            if resource is EXPORTS:
                self._tell_recorded(key, known)
            priority, patience = self._urgency(resource, body)
            for export in self.stores.exports_of(resource, body):
                self.queue.mark(export, patience, priority)
                self._move_up(resource, export)
                if resource in (EXPORTS, JOBS, PODS):
                    self.stores.pack(export)

    def _urgency(self, resource: Resource, body: Object) -> tuple[Priority, float]:
        """What a change comes before, and for how many seconds it may wait for others.

        What a user does, and trouble, which may pass, never wait.
        """
        if resource is EXPORTS:
            return (Priority.STEP if find_condition(status_of(body), READY) else Priority.NEW), 0.0
        if resource is CLASSES:
            return Priority.NEW, 0.0
        if resource is PODS and is_in_trouble(body):
            return Priority.END, 0.0
        job = body if resource is JOBS else self.stores.job_of(body)
        if job and is_finished(job):
            return Priority.END, END_SECONDS
        under_way = self.queue.waiting(Priority.STEP, Priority.END)
        patience = min(max(STEP_SECONDS, under_way / STEPS_PER_SECOND), LONGEST_STEP_SECONDS)
        return (Priority.NEW if resource is NODES else Priority.STEP), patience

    def forget(self, resource: Resource, key: Key, version: int) -> None:
        """Forget an object that was gone at a version, and mark the exports that it concerned."""
        body = self.stores[resource].get(key)
        if self.stores[resource].remove(key, version) and body is not None:
            if resource is EXPORTS:
                self._tell_release(key)
                self._ended.pop(key, None)
                self._deletions.pop(body["metadata"]["uid"], None)
            for export in self.stores.exports_of(resource, body):
                self.queue.mark(export, priority=Priority.END if resource in BUSY else Priority.NEW)
                self._move_up(resource, export)

    async def list_again(self, scope: Scope, export: Object | None = None) -> str:
        """Take over what the API server lists, and forget what it does not; returns the version of the list.

        Args:
            scope: which objects.
            export: only those that are labelled with it.

        Raises:
            ClusterError: the list is not complete, and nothing was forgotten.
        """
        store = self.stores[scope.resource]
        labels = f"{names.EXPORT_UID_LABEL}={export['metadata']['uid']}" if export else ""
        listed: set[Key] = set()
        version = ""
        async for page in self._cluster.list_objects(scope, labels):
            version = version or page.version
            for body in page.items:
                listed.add(key_of(body))
                self.take_over(scope.resource, "ADDED", body)
            if page.left_out is not None:
                listed.add(key_of(page.left_out))
                self.take_over(scope.resource, "DELETED", page.left_out)
        known = map(key_of, store.labelled_with(export)) if export else (key for key in store if scope.holds(key[0]))
        for key in [key for key in known if key not in listed]:
            self.forget(scope.resource, key, int(version))
        return version

    def _move_up(self, resource: Resource, key: Key) -> None:
        """When an export has given up a place, have those synced that it is for, and the others told of it later."""
        if resource not in (EXPORTS, JOBS) or not self.line.update(key):
            return
        for other in self.line.next_ones():
            self.queue.mark(other, priority=Priority.END)
        if self._renumbering is None and (waiting := self.line.waiting()):
            later = max(PLACE_SECONDS, len(waiting) / STEPS_PER_SECOND)
            self._renumbering = asyncio.get_running_loop().call_later(later, self._renumber)

    def _renumber(self) -> None:
        """Have those synced whose place in the line is another one than they were told."""
        self._renumbering = None
        for key in self.line.moved():
            self.queue.mark(key, priority=Priority.IDLE)

    async def resync_forever(self, seconds: float) -> None:
        """Mark every export now and then, for whatever nobody thought of."""
        while True:
            await asyncio.sleep(seconds)
            for key in self.stores[EXPORTS]:
                self.queue.mark(key, priority=Priority.IDLE)

    async def send_events_forever(self) -> None:
        """Send events, those of several exports side by side."""
        async with asyncio.TaskGroup() as group:
            for _ in range(SENDERS):
                group.create_task(self.events.send_forever())

    async def work_forever(self) -> None:
        """Sync dirty keys, one after the other, while this process may write; several of these run side by side."""
        while self._cluster.may_write:
            await self.work_once()

    async def work_once(self) -> None:
        """Sync one dirty key; whatever goes wrong with it stays with it, and is tried again."""
        key = await self.queue.take()
        started, error = time.perf_counter(), None
        try:
            self.queue.done(key, await self._sync(key))
        except ClusterError as problem:
            error = type(problem).__name__
            delay = self.queue.fail(key, problem.retry_after)
            logger.warning("%s; again in %.1f s", problem, delay, extra=_about(key))
        except Exception:
            # A defect of ours that one object brings out must not keep all others waiting.
            error = "Defect"
            logger.exception("a defect; again in %.1f s", self.queue.fail(key), extra=_about(key))
        self._metrics.record_sync(time.perf_counter() - started, error)

    async def _sync(self, key: Key) -> float | None:
        """Sync one export; returns in how many seconds it wants to be synced again."""
        known = self.stores.observe(key)
        if known is None:
            return None
        pods_refused = await self._ask_why(key, overdue(known, self._clock()))
        conversions = await self._read_conversions(known.parent)
        pods_listed = await self._look_again(known)
        observed = self._observe(key)
        if observed is None:
            return None
        if takes_files_along(observed.parent) is not takes_files_along(known.parent):
            return 0.0  # What had to be asked is another thing now.
        observed = replace(observed, pods_refused=pods_refused, conversions=conversions, pods_listed=pods_listed)
        decision = sync(observed, self._clock())
        self.line.promise(key, _started(decision))
        try:
            refused = await self._create_jobs(decision.create)
            if refused:
                decision = sync(replace(observed, refused=refused), self._clock())
                self.line.promise(key, _started(decision))
            await self._carry_out(observed.parent, decision)
            self._move_up(EXPORTS, key)
        except GoneError as error:
            logger.info("%s; the watch will tell", error, extra=_about(key))
        return None if decision.requeue_after is None else decision.requeue_after.total_seconds()

    def _observe(self, key: Key) -> Observed | None:
        """Look at an export and at the line; nothing may be awaited from here to the promise of places."""
        known = self.stores.observe(key)
        if known is None:
            return None
        others, promised = self.line.others(key), self.line.promised(key)
        return replace(known, others=others, promised=promised, deleted_for=self._deleted_for(known.parent))

    def _deleted_for(self, export: Object) -> timedelta:
        metadata, now = export["metadata"], asyncio.get_running_loop().time()
        if not metadata.get("deletionTimestamp"):
            return timedelta(0)
        return timedelta(seconds=now - self._deletions.setdefault(metadata["uid"], now))

    async def _ask_why(self, key: Key, jobs: Sequence[Object]) -> dict[str, str]:
        """Return, by name, why Jobs have no Pod; what cannot be found out is left open."""
        reasons: dict[str, str] = {}
        for job in jobs:
            try:
                words = await self._cluster.find_pod_refusal(job)
            except ClusterError as error:
                logger.warning("why a Job has no Pod is not known: %s", error, extra=_about(key))
            else:
                reasons |= {job["metadata"]["name"]: words} if words else {}
        return reasons

    async def _look_again(self, known: Observed) -> frozenset[str]:
        """Have listed what something final would follow from if it were missing; a watch may not have told of it.

        Returns:
            The Jobs that had ended when all their Pods were listed.
        """
        parent, ended = known.parent, unsettled(known)
        namespace = parent["metadata"]["namespace"]
        if lacks_class(known):
            await self.list_again(Scope(CLASSES))
        if takes_files_along(parent):
            ended = [job for job in self.stores.jobs_of(parent) if is_finished(job)]
        if ended or takes_files_along(parent):
            await self.list_again(Scope(PODS, namespace), parent)
        return frozenset(job["metadata"]["name"] for job in ended)

    async def _read_conversions(self, export: Object) -> list[Object]:
        """Return, in full, the Jobs of an export that tell where the files are that go with it.

        Of none of its Jobs is only the watch believed: one that runs would publish again.
        """
        if not takes_files_along(export):
            return []
        metadata = export["metadata"]
        jobs = await self._cluster.read_jobs(metadata["namespace"], metadata["uid"])
        for job in jobs:
            self.take_over(JOBS, "ADDED", job)
        return [job for job in select_jobs(export, jobs) if target_of(job)]

    async def _create_jobs(self, jobs: tuple[Manifest, ...]) -> dict[str, str]:
        """Create Jobs and return, by name, why some were refused."""
        outcomes = await asyncio.gather(*map(self._create_job, jobs), return_exceptions=True)
        refused = {}
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, RefusedError):
                refused[job["metadata"]["name"]] = str(outcome)
            elif outcome is not None:
                raise outcome
            else:
                _announce_job("job created", job)
        return refused

    async def _create_job(self, job: Manifest) -> None:
        there = self.stores[JOBS].get(key_of(job))
        if there is not None:
            _check_ownership(there, job)
        try:
            await self._cluster.create_job(job)
        except ExistsError as error:
            # Its name tells what it is for, but not how far it is, and the watch has not told of it.
            there = await self._cluster.find_job(*key_of(job))
            if there is not None:
                _check_ownership(there, job)
                self.take_over(JOBS, "ADDED", there)
            raise ConflictError(f"{error}; looks at it first") from error

    async def _carry_out(self, parent: Object, decision: Decision) -> None:
        for suspension in decision.suspend:
            namespace = parent["metadata"]["namespace"]
            await self._cluster.suspend_job(namespace, suspension.job_name, suspend=suspension.suspend)
            announce(
                "job suspended" if suspension.suspend else "job resumed",
                export=_spell(key_of(parent)),
                job=suspension.job_name,
            )
        for name in decision.withdraw:
            await self._cluster.delete_job(parent["metadata"]["namespace"], name)
            announce("job withdrawn", export=_spell(key_of(parent)), job=name)
        if decision.finalizers is not None:
            self._releases[key_of(parent)] = parent, decision.events
            await self._cluster.write_finalizers(parent, decision.finalizers)
            self._tell_release(key_of(parent))
        if decision.delete:
            await self._cluster.delete_export(parent)
            announce("export deleted", export=_spell(key_of(parent)))
        if decision.status is not None:
            self._ended[key_of(parent)] = decision.finished
            written = await self._cluster.write_status(parent, decision.status)
            known = self.stores[EXPORTS].get(key_of(parent))
            self.stores[EXPORTS].update(written)
            self.stores.pack(key_of(parent))
            self._tell_recorded(key_of(parent), known)

    def _tell_recorded(self, key: Key, known: Object | None) -> None:
        """Tell and count what the status of an export records now and did not record in the body known before.

        It is called whoever brings the new body, the watch or the answer to a write, so an answer may be lost. What was
        there before this process heard of the export, or led, was for another one to tell.
        """
        body = self.stores[EXPORTS].get(key)
        if known is None or body is None or body is known:
            return
        if known["metadata"]["uid"] != body["metadata"]["uid"]:
            self._tell_release(key)
            return
        before, after = status_of(known), status_of(body)
        if not self._is_leading or before == after:
            return
        written = self._ended.pop(key, ())
        for state in finished_targets(before, recorded_targets(after).values()):
            # Of an end that this process has written it knows more than the status has.
            known_end = next((one for one in written if is_same_end(one, state)), state)
            self._metrics.record_conversion(body["spec"]["model"]["architecture"], known_end)
        self.events.record(body, compare_statuses(before, after))

    def _tell_release(self, key: Key) -> None:
        """Tell what became of the files of an export, once its finalizer is known to be gone."""
        if release := self._releases.pop(key, None):
            self.events.record(*release)


def _check_ownership(there: Object, job: Manifest) -> None:
    """Raise ``RefusedError`` where the Job of a name is another one than that which was to be created."""
    labels = [(body["metadata"].get("labels") or {}).get(names.EXPORT_UID_LABEL) for body in (there, job)]
    if controller_of(there) != controller_of(job) or labels[0] != labels[1]:
        raise RefusedError("one of its name is there that does not belong to this ModelExport; delete that one")


def _spell(key: Key) -> str:
    return "/".join(key)


def _about(key: Key) -> Mapping[str, Any]:
    return with_fields(export=_spell(key))


def _announce_job(what: str, job: Manifest) -> None:
    metadata = job["metadata"]
    export = metadata["namespace"], metadata["labels"][names.EXPORT_LABEL]
    announce(what, export=_spell(export), target=target_of(job), job=metadata["name"])


def _started(decision: Decision) -> frozenset[str]:
    """The names of the Jobs that take a place by a decision."""
    resumed = (suspension.job_name for suspension in decision.suspend if not suspension.suspend)
    return frozenset((*(job["metadata"]["name"] for job in decision.create), *resumed))
