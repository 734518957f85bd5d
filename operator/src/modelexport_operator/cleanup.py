"""What becomes of an export's files when it is deleted. Pure.

With ``deletionPolicy: Delete`` an export carries our finalizer. When it is deleted, its conversions are stopped, a Job
of the converter's image removes its files, and then the finalizer is released. Whatever goes wrong, it is released: in
the worst case after an operator has tried for ``GIVE_UP_TIME``, with an event that names the files.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from modelexport import names
from modelexport.fields import InvalidSpec
from modelexport.matrix import lookup
from modelexport.nodepools import NodePool
from modelexport.plan import plan_export
from modelexport.reasons import Reason
from modelexport.request import ConversionRequest
from modelexport.spec import DeletionPolicy, ExportClass, ModelExport, parse_export
from modelexport_operator.classes import choose_class, output_folder
from modelexport_operator.events import Event
from modelexport_operator.manifests import (
    CONTAINER,
    STREAMING,
    Manifest,
    build_container,
    build_pod,
    clean_up_name,
    pod_failure_policy,
    pods_of,
    request_of,
    storage_of,
    with_store,
)
from modelexport_operator.observe import LOOK_AGAIN, is_finished, is_overdue, queue_of, tells_end
from modelexport_operator.pods import (
    Finding,
    Object,
    created,
    explain_pod_failure,
    explain_waiting,
    is_in_trouble,
    parse_result,
    terminated,
)
from modelexport_operator.status import recorded_targets, status_of

RETRIES = 3
DEADLINE_SECONDS = 240
KEEP_SECONDS = 600
"""How long the finished Job stays to be looked at; it has no owner that would take it along."""
STOP_TIME = timedelta(minutes=2)
"""For how long running conversions may take to end before their files are removed under them."""
GIVE_UP_TIME = timedelta(minutes=8)
"""After so long a try the export goes in any case; longer than stopping and the deadline of the Job together."""
REFUSAL_RETRY = timedelta(seconds=30)
TERMINATING = "because it is being terminated"
"""The API server's words for a namespace that takes nothing new: no Job will ever run there."""


@dataclass(frozen=True)
class Step:
    """What to do next: Jobs to create, to suspend and to delete, and the finalizers that are left when all is done."""

    create: tuple[Manifest, ...] = ()
    stop: tuple[str, ...] = ()
    withdraw: tuple[str, ...] = ()
    finalizers: tuple[str, ...] | None = None
    events: tuple[Event, ...] = ()
    requeue_after: timedelta | None = None


def takes_files_along(parent: Object) -> bool:
    """Whether an export is being deleted, and its files with it."""
    return bool(parent["metadata"].get("deletionTimestamp")) and names.FINALIZER in _finalizers(parent)


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
    pods_refused: Mapping[str, str],
    conversions: Sequence[Object] = (),
    listed: Collection[str] = (),
    waited: timedelta = timedelta(0),
) -> Step:
    """Decide the next step towards the end of an export that is being deleted.

    Args:
        parent: its body.
        jobs: every Job that is labelled with it, conversions and clean-up.
        pods: their Pods.
        classes: all ExportClasses.
        refused: the API server's words for Jobs that it has just not accepted, by name.
        pods_refused: its words for Jobs that it lets have no Pod.
        conversions: the Jobs of its conversions that are left, in full. They tell where the files went; since then the
            class may have changed, or another one have become the default.
        listed: the Jobs that have no other Pods than these, as the API server has said since they ended.
        waited: for how long this operator has tried, by its own monotonic clock. How old ``deletionTimestamp`` is says
            less: it is of another clock, and perhaps of a time without an operator.
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
    store = _follow_conversions(found, requests, conversions)
    end = _End(parent, export, *store, jobs, pods, pods_refused, listed, waited)
    return end.release() or end.stop() or end.wait() or end.create(refused)


@dataclass(frozen=True)
class _End:
    """The end of one export, as it is seen now."""

    parent: Object
    export: ModelExport
    export_class: ExportClass
    requests: Sequence[ConversionRequest]
    jobs: Sequence[Object]
    pods: Sequence[Object]
    pods_refused: Mapping[str, str]
    listed: Collection[str]
    waited: timedelta

    @property
    def name(self) -> str:
        """The name of the clean-up Job."""
        return clean_up_name(self.export.name, self.export.uid)

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
    def job_pods(self) -> list[Object]:
        """The Pods of the clean-up Job, in the order of their creation."""
        return sorted(pods_of(self.name, self.pods), key=created)

    def release(self) -> Step | None:
        """Let the export go when its files are gone, or when it has waited long enough."""
        job = self.job
        if job is not None and is_overdue(job):
            return self._leave(f"the clean-up Job did not end within {DEADLINE_SECONDS} s{self._hindrance()}")
        if job is not None and is_finished(job):
            is_told = tells_end(job, self.job_pods) or self.name in self.listed
            return self._conclude(job) if is_told else Step(requeue_after=LOOK_AGAIN)
        if self.waited >= GIVE_UP_TIME:
            words = f"the clean-up did not end within {int(GIVE_UP_TIME.total_seconds() // 60)} minutes"
            return self._leave(words + self._hindrance(), withdraw=() if job is None else (self.name,))
        return None

    def _leave(self, why: str, withdraw: tuple[str, ...] = ()) -> Step:
        return _leave(self.parent, self.files, why, withdraw)

    def _hindrance(self) -> str:
        """What kept the clean-up Job from its work, as far as somebody has said."""
        if words := self.pods_refused.get(self.name):
            return f": the API server refuses its Pod: {words}"
        waiting = [pod for pod in self.job_pods if pod["status"].get("phase") == "Pending" and is_in_trouble(pod)]
        return f": {explain_waiting(waiting[-1]).message}" if waiting else ""

    def _conclude(self, job: Object) -> Step:
        ended = self.job_pods
        if job.get("status", {}).get("succeeded"):
            results = (parse_result(terminated(pod)) for pod in ended)
            words = next((result.message for result in results if result and result.reason is Reason.FILES_REMOVED), "")
            return _release(self.parent, Event("Normal", str(Reason.FILES_REMOVED), words or "The files are removed"))
        failed = [pod for pod in ended if pod.get("status", {}).get("phase") == "Failed"]
        if failed:
            finding = explain_pod_failure(failed[-1])
            is_unsure = finding.reason is Reason.FILES_REMAIN and len(failed) > 1
            words = f"{finding.message}; an earlier try may have removed them" if is_unsure else finding.message
            return self._leave(words)
        return self._leave(f"the clean-up Job failed, and nothing is left of its Pods{self._hindrance()}")

    def stop(self) -> Step | None:
        """Stop the conversions, also one that turns up late: one that runs would publish again.

        Those in a queue of Kueue are withdrawn, whether they run or not: it would go on with what it has admitted.
        """
        jobs = [job for job in self.jobs if not is_finished(job) and job is not self.job]
        there = [job for job in jobs if not job["metadata"].get("deletionTimestamp")]
        withdraw = tuple(job["metadata"]["name"] for job in there if queue_of(job))
        stop = tuple(job["metadata"]["name"] for job in there if not queue_of(job) and not job["spec"].get("suspend"))
        if stop or withdraw:
            return Step(stop=stop, withdraw=withdraw, requeue_after=max(STOP_TIME - self.waited, timedelta(seconds=1)))
        return None

    def wait(self) -> Step | None:
        """Wait for the clean-up, and before it, for a while, for the Pods of the conversions."""
        if self.job is not None:
            return Step(requeue_after=GIVE_UP_TIME - self.waited)
        alive = [pod for pod in self.pods if pod.get("status", {}).get("phase") in ("Pending", "Running")]
        return Step(requeue_after=STOP_TIME - self.waited) if alive and self.waited < STOP_TIME else None

    def create(self, refused: Mapping[str, str]) -> Step:
        """Start the clean-up, and again while it is refused, but never where no Job can run any more."""
        words = refused.get(self.name)
        if words is None:
            return Step(create=(self._build(),), requeue_after=GIVE_UP_TIME - self.waited)
        if TERMINATING in words or self.waited + REFUSAL_RETRY >= GIVE_UP_TIME:
            return self._leave(f"the API server refused the clean-up Job: {words}")
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
            names.PUBLISHED_ENV: json.dumps(_recorded_files(self.parent)),
            names.EXPORT_UID_ENV: self.export.uid,
            names.JOB_ENV: self.name,
        }
        container = build_container(self.export_class, names.CLEAN, environment, STREAMING)
        architectures = lookup(first.model.architecture, first.target).backend.cpu_architectures
        pod = build_pod(
            self.export_class,
            (with_store(container, self.export_class.storage),),
            architectures,
            _anywhere(self.export_class),
        )
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
    export_class: ExportClass, requests: Sequence[ConversionRequest], conversions: Sequence[Object]
) -> tuple[ExportClass, Sequence[ConversionRequest]]:
    """Return the class with the store of the newest conversion, and the requests with their folders there.

    Files that went to another store before are missed in this one, and told.
    """
    jobs = sorted(conversions, key=created)
    used = [request for job in jobs if (request := request_of(job))]
    if not used:
        return export_class, requests
    folder = _split_folder(used[-1].output)[0]
    planned = (replace(request, output=f"{folder}/{_split_folder(request.output)[1]}/") for request in requests)
    storage = storage_of(jobs[-1], export_class.storage)
    return replace(export_class, storage=storage), (*planned, *used)


def _split_folder(uri: str) -> tuple[str, str]:
    parent, _, name = uri.removesuffix("/").rpartition("/")
    return parent, name


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


def _release(parent: Object, *events: Event, withdraw: tuple[str, ...] = ()) -> Step:
    return Step(withdraw=withdraw, finalizers=_others(_finalizers(parent)), events=events)


def _leave(parent: Object, files: Sequence[str], why: str, withdraw: tuple[str, ...] = ()) -> Step:
    """Let an export go without its files, and tell where they are."""
    words = f"Not all files of the deleted export could be removed: {why.rstrip(' .')}. Its files: {', '.join(files)}"
    return _release(parent, Event("Warning", str(Reason.FILES_REMAIN), words), withdraw=withdraw)
