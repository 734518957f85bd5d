"""Everything that the cache knows of one export at one moment: the input of ``sync``. Pure.

An object that is only missing in the snapshot proves nothing, since a watch may be late. ``unsettled_jobs``,
``lacks_class`` and ``reconcile.lacks_node`` name what has to be listed before anything follows from the absence.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.matrix.support import Target
from modelexport.untrusted import moment
from modelexport_operator.jobs.conversion_job import target_of
from modelexport_operator.jobs.diagnosis import Diagnosis
from modelexport_operator.jobs.state import (
    TargetState,
    completion_time,
    is_finished,
    is_outcome_known,
    is_past_deadline,
    lacks_pod,
)
from modelexport_operator.kube.objects import ExportClassObject, Job, ModelExportObject, Node, Pod
from modelexport_operator.kube.types import POD_JOB_LABEL, created
from modelexport_operator.reconcile.export_class import pick_class
from modelexport_operator.scheduling.fair_share import Demand
from modelexport_operator.status.conditions import READY, RecordedStatus, find_condition, status_of

POD_CREATION_TOLERANCE = timedelta(seconds=10)
"""How long a Job may lack a Pod before its events are read, and how often they are read until they explain it."""


@dataclass(frozen=True)
class Snapshot:
    """One export, its Jobs and Pods, and what else a decision depends on.

    Attributes:
        parent: the body of the export.
        jobs: its Jobs.
        pods: the Pods of these Jobs.
        classes: all ExportClasses.
        nodes: all nodes of the cluster.
        conversions: the unpruned Jobs of its targets; read only if the export is deleted together with its files.
        others: the demands of all other exports, of any class.
        reserved: names of the Jobs that got a place in the last sync; the watch may not have reported them yet.
        refused: Job name -> the API server's message, for Jobs that it has just refused to create.
        denied: Job name -> the API server's message, for Jobs that the operator may not create yet, or not at all.
        pods_refused: Job name -> the API server's message, for Jobs whose Pods it refuses to create.
        admissions: Job name -> why Kueue lets the Job wait, where that is known.
        pods_listed: names of the Jobs that had already ended when their Pods were listed: ``pods`` has all of them.
        deleted_for: how long this operator has seen the export being deleted.
        parsed: the status of ``parent``, if it may have been parsed before.
    """

    parent: ModelExportObject
    jobs: Sequence[Job] = ()
    pods: Sequence[Pod] = ()
    classes: Sequence[ExportClassObject] = ()
    nodes: Sequence[Node] = ()
    conversions: Sequence[Job] = ()
    others: Iterable[Demand] = ()
    reserved: Collection[str] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    denied: Mapping[str, str] = field(default_factory=dict)
    pods_refused: Mapping[str, str] = field(default_factory=dict)
    admissions: Mapping[str, Diagnosis] = field(default_factory=dict)
    pods_listed: Collection[str] = ()
    deleted_for: timedelta = timedelta(0)
    parsed: RecordedStatus | None = None

    @property
    def is_deleted(self) -> bool:
        """Whether the export is being deleted."""
        return bool(self.parent["metadata"].get("deletionTimestamp"))

    @property
    def finalizers(self) -> tuple[str, ...]:
        """The finalizers of the export."""
        return tuple(self.parent["metadata"].get("finalizers") or ())

    @property
    def removes_files(self) -> bool:
        """Whether the export is being deleted together with its files."""
        return self.is_deleted and names.FINALIZER in self.finalizers

    @cached_property
    def recorded(self) -> Mapping[Target, TargetState]:
        """The targets as the status records them."""
        return (self.parsed or RecordedStatus(status_of(self.parent))).targets

    @cached_property
    def job_by_target(self) -> Mapping[Target, Job]:
        """The newest Job of each target; usually there is only one."""
        ordered = sorted(self.jobs, key=created)
        return {target: job for job in ordered if (target := target_of(job)) is not None}

    @cached_property
    def _pods_by_job(self) -> Mapping[str, list[Pod]]:
        grouped: defaultdict[str, list[Pod]] = defaultdict(list)
        for pod in self.pods:
            grouped[pod["metadata"].get("labels", {}).get(POD_JOB_LABEL, "")].append(pod)
        return grouped

    def pods_of(self, job_name: str) -> Sequence[Pod]:
        """Return the Pods of the Job with a name."""
        return self._pods_by_job.get(job_name, ())

    def jobs_without_pod(self) -> list[Job]:
        """Return the Jobs that should have a Pod and have none."""
        return [job for job in self.jobs if lacks_pod(job, self.pods_of(job["metadata"]["name"]))]

    def overdue_jobs(self, now: datetime) -> list[Job]:
        """Return the Jobs that lack, or lacked until they failed, a Pod for longer than ``POD_CREATION_TOLERANCE``."""
        waiting = self.jobs_without_pod()
        given_up = (job for job in self.jobs if target_of(job) is None and is_past_deadline(job))
        waiting += [job for job in given_up if job not in waiting and not self.pods_of(job["metadata"]["name"])]
        starts = ((job, moment(job["status"].get("startTime"))) for job in waiting)
        return [job for job, start in starts if start and now - start >= POD_CREATION_TOLERANCE]

    def unsettled_jobs(self) -> list[Job]:
        """Return the ended Jobs whose outcome neither the status nor the known Pods show: their Pods must be listed."""
        if self.is_deleted:
            return []
        ended = [
            (target, job)
            for target, job in self.job_by_target.items()
            if is_finished(job) and not is_outcome_known(job, self.pods_of(job["metadata"]["name"]))
        ]
        return [job for target, job in ended if not is_record_of(self.recorded.get(target), job)]

    def lacks_class(self) -> bool:
        """Return whether a decision depends on a class that is not in the snapshot: the classes must be listed."""
        status, spec = status_of(self.parent), self.parent.get("spec")
        name = spec.get("className") if isinstance(spec, Mapping) else None
        if pick_class(str(name) if name else None, self.classes) is not None:
            return False
        if self.is_deleted:
            return self.removes_files
        is_reported = find_condition(status, READY).get("reason") == Reason.CLASS_NOT_FOUND
        return not is_reported and "completionTime" not in status


def is_record_of(record: TargetState | None, job: Job) -> bool:
    """Return whether a recorded state is the end of this run of a Job (a Job that was deleted may reuse its name)."""
    ended = completion_time(job)
    if record is None or ended is None:
        return False
    return (record.job_name, record.completion_time) == (job["metadata"]["name"], ended)
