"""What becomes of an export's files when it is deleted. Pure.

With ``deletionPolicy: Delete`` an export carries our finalizer. When it is deleted, its conversions are stopped, a Job
of the converter's image removes its files, and then the finalizer is released. Whatever goes wrong, it is released: in
the worst case after ``GIVE_UP_TIME``, with an event that names the files.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from modelexport import names
from modelexport.fields import InvalidSpec
from modelexport.matrix import Resources, lookup
from modelexport.nodepools import NodePool
from modelexport.plan import plan_export
from modelexport.reasons import Reason
from modelexport.request import ConversionRequest
from modelexport.spec import DeletionPolicy, ExportClass, ModelExport, parse_export
from modelexport_operator.classes import choose_class, output_folder
from modelexport_operator.events import Event
from modelexport_operator.manifests import (
    HASH_DIGITS,
    NAME_LIMIT,
    Manifest,
    build_container,
    build_pod,
    pod_failure_policy,
    pods_of,
)
from modelexport_operator.observe import is_finished
from modelexport_operator.pods import Finding, Object, explain_pod_failure, parse_result, terminated
from modelexport_operator.status import recorded_targets, status_of

RETRIES = 3
DEADLINE_SECONDS = 240
KEEP_SECONDS = 600
"""How long the finished Job stays to be looked at; it has no owner that would take it along."""
STOP_TIME = timedelta(minutes=2)
"""For how long running conversions may take to end before their files are removed under them."""
GIVE_UP_TIME = timedelta(minutes=8)
"""After so long the export goes in any case; longer than stopping and the deadline of the Job together."""
REFUSAL_RETRY = timedelta(seconds=30)
TERMINATING = "because it is being terminated"
"""The API server's words for a namespace that takes nothing new: no Job will ever run there."""
RESOURCES = Resources(memory_mib=256, memory_limit_mib=256, disk_mib=64, cpu_millis=50)


@dataclass(frozen=True)
class Step:
    """What to do next: Jobs to create and to stop, and the finalizers that are left when all is done."""

    create: tuple[Manifest, ...] = ()
    stop: tuple[str, ...] = ()
    finalizers: tuple[str, ...] | None = None
    events: tuple[Event, ...] = ()
    requeue_after: timedelta | None = None


def correct_finalizers(parent: Object, export: ModelExport) -> tuple[str, ...] | None:
    """Return the finalizers that an export should have; ``None`` when it has them."""
    present = _finalizers(parent)
    wanted = export.deletion_policy is DeletionPolicy.DELETE
    if wanted is (names.FINALIZER in present):
        return None
    return (*present, names.FINALIZER) if wanted else _others(present)


def clean_up(
    parent: Object,
    jobs: Sequence[Object],
    pods: Sequence[Object],
    classes: Sequence[Object],
    *,
    refused: Mapping[str, str],
    now: datetime,
) -> Step:
    """Decide the next step towards the end of an export that is being deleted.

    Args:
        parent: its body.
        jobs: every Job that is labelled with it, conversions and clean-up.
        pods: their Pods.
        classes: all ExportClasses.
        refused: the API server's words for Jobs that it has just not accepted, by name.
        now: the time, with its zone.
    """
    if names.FINALIZER not in _finalizers(parent):
        return Step()
    try:
        export = parse_export(parent)
        if export.deletion_policy is DeletionPolicy.RETAIN or not _has_started(parent, jobs):
            return _release(parent)
        found = choose_class(export, classes)
        if isinstance(found, Finding):
            return _leave(parent, _recorded_files(parent), found.message)
        requests = plan_export(export, output_folder(found))
    except InvalidSpec as error:
        return _leave(parent, _recorded_files(parent), str(error))
    end = _End(parent, export, found, requests, jobs, pods, now)
    return end.release() or end.stop() or end.create(refused)


@dataclass(frozen=True)
class _End:
    """The end of one export, as it is seen now."""

    parent: Object
    export: ModelExport
    export_class: ExportClass
    requests: Sequence[ConversionRequest]
    jobs: Sequence[Object]
    pods: Sequence[Object]
    now: datetime

    @property
    def name(self) -> str:
        """The name of the clean-up Job, a function of the object's uid as that of every Job."""
        tail = f"-clean-{hashlib.sha256(self.export.uid.encode()).hexdigest()[:HASH_DIGITS]}"
        return self.export.name.replace(".", "-")[: NAME_LIMIT - len(tail)] + tail

    @property
    def files(self) -> tuple[str, ...]:
        """The URIs of all files that the export can have published: those recorded, and those of the plan.

        A conversion that was ended between its file and its report is in no status.
        """
        planned = (
            f"{request.output}{name}"
            for request in self.requests
            for name in (request.artifact_name, names.REPORT_FILE)
        )
        return tuple(dict.fromkeys((*_recorded_files(self.parent), *planned)))

    @property
    def job(self) -> Object | None:
        """The clean-up Job."""
        return next((job for job in self.jobs if job["metadata"]["name"] == self.name), None)

    @property
    def waited(self) -> timedelta:
        """How long ago the export was deleted."""
        return self.now - datetime.fromisoformat(self.parent["metadata"]["deletionTimestamp"])

    def release(self) -> Step | None:
        """Let the export go when its files are gone, or when it has waited long enough."""
        job = self.job
        if job is not None and is_finished(job):
            return self._conclude(job)
        if self.waited >= GIVE_UP_TIME:
            stop = (self.name,) if job is not None else ()
            minutes = int(GIVE_UP_TIME.total_seconds() // 60)
            return _leave(self.parent, self.files, f"the clean-up did not end within {minutes} minutes", stop)
        return Step(requeue_after=GIVE_UP_TIME - self.waited) if job is not None else None

    def _conclude(self, job: Object) -> Step:
        pods = pods_of(self.name, self.pods)
        ended = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
        if job.get("status", {}).get("succeeded"):
            results = (parse_result(terminated(pod).get("message", "")) for pod in ended)
            words = next((result.message for result in results if result and result.reason is Reason.FILES_REMOVED), "")
            return _release(self.parent, Event("Normal", str(Reason.FILES_REMOVED), words or "The files are removed"))
        failed = [pod for pod in ended if pod.get("status", {}).get("phase") == "Failed"]
        if failed:
            return _leave(self.parent, self.files, explain_pod_failure(failed[-1]).message)
        return _leave(self.parent, self.files, f"the clean-up Job did not end within {DEADLINE_SECONDS} s")

    def stop(self) -> Step | None:
        """Stop the conversions, and wait for their Pods: one that still runs would publish again."""
        running = [job for job in self.jobs if not is_finished(job) and not job["metadata"].get("deletionTimestamp")]
        stop = tuple(job["metadata"]["name"] for job in running if not job["spec"].get("suspend"))
        alive = [pod for pod in self.pods if pod.get("status", {}).get("phase") in ("Pending", "Running")]
        if stop or (alive and self.waited < STOP_TIME):
            return Step(stop=stop, requeue_after=max(STOP_TIME - self.waited, timedelta(seconds=1)))
        return None

    def create(self, refused: Mapping[str, str]) -> Step:
        """Start the clean-up, and again if it was refused, but never where no Job can run any more."""
        words = refused.get(self.name)
        if words is None:
            return Step(create=(self._build(),), requeue_after=GIVE_UP_TIME - self.waited)
        if TERMINATING in words:
            return _leave(self.parent, self.files, f"the API server refused the clean-up Job: {words}")
        return Step(requeue_after=REFUSAL_RETRY)

    def _build(self) -> Manifest:
        """Build the Job. It is owned by nobody: a deletion in the foreground would take it away before its work."""
        first = self.requests[0]
        labels = {
            names.MANAGED_BY_LABEL: names.MANAGED_BY,
            names.EXPORT_LABEL: self.export.name,
            names.EXPORT_UID_LABEL: self.export.uid,
        }
        environment = {
            names.FILES_ENV: json.dumps(self.files),
            names.EXPORT_UID_ENV: self.export.uid,
            names.JOB_ENV: self.name,
        }
        container = build_container(self.export_class, environment, RESOURCES) | {"args": [names.CLEAN]}
        architectures = lookup(first.model.architecture, first.target).backend.cpu_architectures
        pod = build_pod(self.export_class, container, architectures, _anywhere(self.export_class))
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": self.name, "namespace": self.export.namespace, "labels": labels},
            "spec": {
                "activeDeadlineSeconds": DEADLINE_SECONDS,
                "backoffLimit": RETRIES,
                "ttlSecondsAfterFinished": KEEP_SECONDS,
                "podFailurePolicy": pod_failure_policy(),
                "podReplacementPolicy": "Failed",
                "template": {"metadata": {"labels": dict(labels)}, "spec": pod},
            },
        }


def _anywhere(export_class: ExportClass) -> NodePool:
    """All nodes of a class: the work is small, and one of its pools may be full or gone."""
    tolerations = (toleration for pool in export_class.node_pools for toleration in pool.tolerations)
    return NodePool("anywhere", tolerations=tuple(dict.fromkeys(tolerations)))


def _finalizers(parent: Object) -> tuple[str, ...]:
    return tuple(parent["metadata"].get("finalizers") or ())


def _others(finalizers: Sequence[str]) -> tuple[str, ...]:
    return tuple(finalizer for finalizer in finalizers if finalizer != names.FINALIZER)


def _has_started(parent: Object, jobs: Sequence[Object]) -> bool:
    """Whether a conversion was ever begun; before that there is nothing to remove."""
    return bool(jobs) or any(state.job_name for state in recorded_targets(status_of(parent)).values())


def _recorded_files(parent: Object) -> tuple[str, ...]:
    results = [state.result for state in recorded_targets(status_of(parent)).values() if state.result]
    uris = [uri for result in results for uri in (result.artifact and result.artifact.uri, result.report_uri)]
    return tuple(uri for uri in uris if uri)


def _release(parent: Object, *events: Event, stop: tuple[str, ...] = ()) -> Step:
    return Step(stop=stop, finalizers=_others(_finalizers(parent)), events=events)


def _leave(parent: Object, files: Sequence[str], why: str, stop: tuple[str, ...] = ()) -> Step:
    """Let an export go without its files, and tell where they are."""
    words = f"Not all files of the deleted export could be removed: {why.rstrip(' .')}. Its files: {', '.join(files)}"
    return _release(parent, Event("Warning", str(Reason.FILES_REMAIN), words), stop=stop)
