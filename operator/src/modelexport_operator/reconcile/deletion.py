"""Removes the files of an export that is being deleted. Pure.

With ``deletionPolicy: Delete`` an export carries our finalizer. When it is deleted, its conversions are stopped, a Job
with the converter's image removes its files, and then the finalizer is removed. The finalizer is removed in every case:
at the latest when an operator has tried for ``GIVE_UP_TIME``, with an event that names the remaining files.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from modelexport import names
from modelexport.api.fields import InvalidSpec
from modelexport.api.node_pools import NodePool
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest, split_folder
from modelexport.api.spec import DeletionPolicy, ExportClass, ModelExport
from modelexport.matrix.support import lookup
from modelexport_operator.jobs.conversion_job import (
    CONTAINER,
    STREAMING_RESOURCES,
    build_container,
    build_pod,
    clean_up_name,
    pod_failure_policy,
    request_of,
    storage_of,
    with_store,
)
from modelexport_operator.jobs.diagnosis import Diagnosis
from modelexport_operator.jobs.pod_failures import (
    explain_pod_failure,
    explain_waiting,
    is_in_trouble,
    parse_result,
    terminated,
)
from modelexport_operator.jobs.state import (
    RELIST_DELAY,
    is_finished,
    is_outcome_known,
    is_past_deadline,
    kueue_queue_of,
)
from modelexport_operator.kube.objects import Job, Pod
from modelexport_operator.kube.types import created
from modelexport_operator.reconcile.export_class import choose_class, output_folder
from modelexport_operator.reconcile.parsed_objects import parse_export_once, plan_export_once
from modelexport_operator.reconcile.snapshot import Snapshot
from modelexport_operator.status.events import Event

RETRIES = 3
DEADLINE_SECONDS = 240
KEEP_SECONDS = 600
"""How long the finished Job remains for inspection; it has no owner whose deletion would remove it."""
STOP_TIME = timedelta(minutes=2)
"""How long running conversions may take to stop before their files are removed anyway."""
GIVE_UP_TIME = timedelta(minutes=8)
"""After this time the finalizer is removed in any case; longer than ``STOP_TIME`` plus the deadline of the Job."""
REFUSAL_RETRY = timedelta(seconds=30)
TERMINATING = "because it is being terminated"
"""The API server's message for a namespace that is being deleted: no Job can start there any more."""


@dataclass(frozen=True)
class DeletionStep:
    """What to write next: Jobs to create, suspend and delete, and the finalizers that remain (``None``: unchanged)."""

    create: tuple[Job, ...] = ()
    stop: tuple[str, ...] = ()
    withdraw: tuple[str, ...] = ()
    finalizers: tuple[str, ...] | None = None
    events: tuple[Event, ...] = ()
    requeue_after: timedelta | None = None


def correct_finalizers(snapshot: Snapshot, export: ModelExport) -> tuple[str, ...] | None:
    """Return the finalizers that an export should have, or ``None`` if it has them."""
    present = snapshot.finalizers
    wanted = export.deletion_policy is DeletionPolicy.DELETE
    if wanted is (names.FINALIZER in present):
        return None
    return (*present, names.FINALIZER) if wanted else _without_ours(present)


def clean_up(snapshot: Snapshot) -> DeletionStep:
    """Decide the next step for an export that is being deleted.

    ``snapshot.conversions`` are unpruned because they name the store and folder of the files: since then the class may
    have changed, or another class may have become the default. ``snapshot.deleted_for`` is measured on the monotonic
    clock of this operator. The age of ``deletionTimestamp`` is not used: another clock wrote it, and it may include
    time in which no operator ran.
    """
    if names.FINALIZER not in snapshot.finalizers:
        return DeletionStep()
    recorded_files = _recorded_files(snapshot)
    try:
        export = parse_export_once(snapshot.parent)
        has_started = snapshot.jobs or any(state.job_name for state in snapshot.recorded.values())
        if export.deletion_policy is DeletionPolicy.RETAIN or not has_started:
            return _remove_finalizer(snapshot)
        found = choose_class(export, snapshot.classes)
        if isinstance(found, Diagnosis):
            return _give_up(snapshot, recorded_files, found.message)
        requests = plan_export_once(snapshot.parent, output_folder(found))
    except InvalidSpec as error:
        return _give_up(snapshot, recorded_files, str(error))
    deletion = _Deletion(snapshot, export, *_follow_conversions(found, requests, snapshot.conversions))
    return deletion.finish() or deletion.stop() or deletion.wait() or deletion.create()


@dataclass(frozen=True)
class _Deletion:
    """The deletion of one export whose files have to be removed."""

    snapshot: Snapshot
    export: ModelExport
    export_class: ExportClass
    requests: Sequence[ConversionRequest]

    @property
    def name(self) -> str:
        """The name of the clean-up Job."""
        return clean_up_name(self.export.name, self.export.uid)

    @property
    def files(self) -> tuple[str, ...]:
        """The URIs of all files that the export can have published: recorded ones, planned ones, and shared ones.

        A conversion that was stopped after publishing and before reporting is in no status.
        """
        planned = (
            f"{request.output}{name}"
            for request in self.requests
            for name in (request.artifact_name, names.REPORT_FILE)
        )
        shared = (
            request.shared_uri(name)
            for request in self.requests
            for name in (names.PAGE_FILE, *(request.original_files if request.evaluation else ()))
        )
        return tuple(dict.fromkeys((*_recorded_files(self.snapshot), *planned, *shared)))

    @property
    def job(self) -> Job | None:
        """The clean-up Job."""
        return next((job for job in self.snapshot.jobs if job["metadata"]["name"] == self.name), None)

    @property
    def job_pods(self) -> list[Pod]:
        """The Pods of the clean-up Job, oldest first."""
        return sorted(self.snapshot.pods_of(self.name), key=created)

    def finish(self) -> DeletionStep | None:
        """Remove the finalizer if the clean-up has ended or its time is over."""
        job = self.job
        if job is not None and is_past_deadline(job):
            return self._give_up(f"the clean-up Job did not end within {DEADLINE_SECONDS} s{self._blocking_reason()}")
        if job is not None and is_finished(job):
            is_known = is_outcome_known(job, self.job_pods) or self.name in self.snapshot.pods_listed
            return self._report_outcome(job) if is_known else DeletionStep(requeue_after=RELIST_DELAY)
        if self.snapshot.deleted_for >= GIVE_UP_TIME:
            words = f"the clean-up did not end within {int(GIVE_UP_TIME.total_seconds() // 60)} minutes"
            return self._give_up(words + self._blocking_reason(), withdraw=() if job is None else (self.name,))
        return None

    def _give_up(self, why: str, withdraw: tuple[str, ...] = ()) -> DeletionStep:
        return _give_up(self.snapshot, self.files, why, withdraw)

    def _blocking_reason(self) -> str:
        """Return why the clean-up Job could not run, if the cluster says so."""
        if words := self.snapshot.pods_refused.get(self.name):
            return f": the API server refuses its Pod: {words}"
        waiting = [pod for pod in self.job_pods if pod["status"].get("phase") == "Pending" and is_in_trouble(pod)]
        return f": {explain_waiting(waiting[-1]).message}" if waiting else ""

    def _report_outcome(self, job: Job) -> DeletionStep:
        ended = self.job_pods
        if job.get("status", {}).get("succeeded"):
            results = (parse_result(terminated(pod)) for pod in ended)
            words = next((result.message for result in results if result and result.reason is Reason.FILES_REMOVED), "")
            event = Event("Normal", str(Reason.FILES_REMOVED), words or "The files are removed")
            return _remove_finalizer(self.snapshot, event)
        failed = [pod for pod in ended if pod.get("status", {}).get("phase") == "Failed"]
        if failed:
            diagnosis = explain_pod_failure(failed[-1])
            is_unsure = diagnosis.reason is Reason.FILES_REMAIN and len(failed) > 1
            words = f"{diagnosis.message}; an earlier try may have removed them" if is_unsure else diagnosis.message
            return self._give_up(words)
        return self._give_up(f"the clean-up Job failed, and nothing is left of its Pods{self._blocking_reason()}")

    def stop(self) -> DeletionStep | None:
        """Stop the conversions, including late ones: a running conversion would publish its files again.

        Jobs in a Kueue queue are deleted, because Kueue would resume a Job that it has admitted.
        """
        jobs = [job for job in self.snapshot.jobs if not is_finished(job) and job is not self.job]
        present = [job for job in jobs if not job["metadata"].get("deletionTimestamp")]
        withdraw = tuple(job["metadata"]["name"] for job in present if kueue_queue_of(job))
        running = (job for job in present if not kueue_queue_of(job) and not job["spec"].get("suspend"))
        stop = tuple(job["metadata"]["name"] for job in running)
        if not stop and not withdraw:
            return None
        left = max(STOP_TIME - self.snapshot.deleted_for, timedelta(seconds=1))
        return DeletionStep(stop=stop, withdraw=withdraw, requeue_after=left)

    def wait(self) -> DeletionStep | None:
        """Wait for the clean-up Job or, before it exists, for the Pods of the conversions up to ``STOP_TIME``."""
        waited = self.snapshot.deleted_for
        if self.job is not None:
            return DeletionStep(requeue_after=GIVE_UP_TIME - waited)
        alive = [pod for pod in self.snapshot.pods if pod.get("status", {}).get("phase") in ("Pending", "Running")]
        return DeletionStep(requeue_after=STOP_TIME - waited) if alive and waited < STOP_TIME else None

    def create(self) -> DeletionStep:
        """Create the clean-up Job, again while it is refused, except where no Job can run any more."""
        words, waited = self.snapshot.refused.get(self.name), self.snapshot.deleted_for
        if words is None:
            return DeletionStep(create=(self._build(),), requeue_after=GIVE_UP_TIME - waited)
        if TERMINATING in words or waited + REFUSAL_RETRY >= GIVE_UP_TIME:
            return self._give_up(f"the API server refused the clean-up Job: {words}")
        return DeletionStep(requeue_after=REFUSAL_RETRY)

    def _build(self) -> Job:
        """Build the clean-up Job. It has no owner: a foreground deletion would remove it before it has run."""
        first = self.requests[0]
        labels = {
            names.MANAGED_BY_LABEL: names.MANAGED_BY,
            names.EXPORT_LABEL: self.export.name,
            names.EXPORT_UID_LABEL: self.export.uid,
        }
        environment = {
            names.FILES_ENV: json.dumps(self.files),
            names.PUBLISHED_ENV: json.dumps(_recorded_files(self.snapshot)),
            names.EXPORT_UID_ENV: self.export.uid,
            names.JOB_ENV: self.name,
        }
        container = build_container(self.export_class, names.CLEAN, environment, STREAMING_RESOURCES)
        architectures = lookup(first.model.architecture, first.target).backend.cpu_architectures
        # Any node of the class will do: the work is small, and one of its pools may be full or gone.
        tolerations = (toleration for pool in self.export_class.node_pools for toleration in pool.tolerations)
        anywhere = NodePool("anywhere", tolerations=tuple(dict.fromkeys(tolerations)))
        containers = (with_store(container, self.export_class.storage),)
        pod = build_pod(self.export_class, containers, architectures, anywhere)
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": self.name, "namespace": self.export.namespace, "labels": labels},
            "spec": {
                "activeDeadlineSeconds": DEADLINE_SECONDS,
                "backoffLimit": RETRIES,
                "ttlSecondsAfterFinished": KEEP_SECONDS,
                "podFailurePolicy": pod_failure_policy(CONTAINER),
                "podReplacementPolicy": "Failed",
                "template": {"metadata": {"labels": dict(labels)}, "spec": pod},
            },
        }


def _follow_conversions(
    export_class: ExportClass, requests: Sequence[ConversionRequest], conversions: Sequence[Job]
) -> tuple[ExportClass, Sequence[ConversionRequest]]:
    """Return the class with the store of the newest conversion, and the requests with their folders in it.

    Files in an older store are not found in this one; the clean-up reports them as missing.
    """
    jobs = sorted(conversions, key=created)
    used = [request for job in jobs if (request := request_of(job))]
    if not used:
        return export_class, requests
    folder = split_folder(used[-1].output)[0]
    planned = (replace(request, output=f"{folder}/{split_folder(request.output)[1]}/") for request in requests)
    storage = storage_of(jobs[-1], export_class.storage)
    return replace(export_class, storage=storage), (*planned, *used)


def _without_ours(finalizers: Sequence[str]) -> tuple[str, ...]:
    return tuple(finalizer for finalizer in finalizers if finalizer != names.FINALIZER)


def _recorded_files(snapshot: Snapshot) -> tuple[str, ...]:
    results = [state.result for state in snapshot.recorded.values() if state.result]
    uris = [uri for result in results for uri in (result.artifact and result.artifact.uri, result.report_uri)]
    return tuple(uri for uri in uris if uri)


def _remove_finalizer(snapshot: Snapshot, *events: Event, withdraw: tuple[str, ...] = ()) -> DeletionStep:
    return DeletionStep(withdraw=withdraw, finalizers=_without_ours(snapshot.finalizers), events=events)


def _give_up(snapshot: Snapshot, files: Sequence[str], why: str, withdraw: tuple[str, ...] = ()) -> DeletionStep:
    """Remove the finalizer although files remain, with an event that names them."""
    words = f"Not all files of the deleted export could be removed: {why.rstrip(' .')}. Its files: {', '.join(files)}"
    return _remove_finalizer(snapshot, Event("Warning", str(Reason.FILES_REMAIN), words), withdraw=withdraw)
