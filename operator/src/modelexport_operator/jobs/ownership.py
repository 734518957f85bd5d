"""Selects the Jobs and Pods that belong to an export. Pure.

Anyone who may create a Job can give it any label, so labels only find candidates. A Job belongs to an export if it is
in the same namespace and has the export as its controller; a Pod, if such a Job is its controller. So a user who may
create Jobs in that namespace has to name this very object as the controller.

While an export is being deleted, names count too: its clean-up Job has no owner, an orphaning deletion removes the
owner of its other Jobs, and Pods may outlive their Job.
"""

from collections.abc import Iterable, Sequence

from modelexport_operator.jobs.conversion_job import own_job_names
from modelexport_operator.kube.objects import Job, KubeObject, ModelExportObject, Pod
from modelexport_operator.kube.types import POD_JOB_LABEL, controller_of


def select_jobs(export: ModelExportObject, jobs: Iterable[Job]) -> list[Job]:
    """Return the Jobs that belong to an export."""
    uid, names, selected = export["metadata"]["uid"], _names_while_deleted(export), []
    for job in jobs:
        owner = controller_of(job)
        is_owned = job["metadata"]["name"] in names if owner is None else owner == uid
        if is_owned and _in_same_namespace(export, job):
            selected.append(job)
    return selected


def select_pods(export: ModelExportObject, jobs: Sequence[Job], pods: Iterable[Pod]) -> list[Pod]:
    """Return the Pods that belong to an export with these ``jobs``."""
    controllers = {job["metadata"]["uid"] for job in jobs}
    names = _names_while_deleted(export) - {job["metadata"]["name"] for job in jobs}
    return [
        pod
        for pod in pods
        if _in_same_namespace(export, pod)
        and (controller_of(pod) in controllers or pod["metadata"].get("labels", {}).get(POD_JOB_LABEL) in names)
    ]


def _in_same_namespace(export: ModelExportObject, body: KubeObject) -> bool:
    return bool(body["metadata"]["namespace"] == export["metadata"]["namespace"])


def _names_while_deleted(export: ModelExportObject) -> frozenset[str]:
    metadata = export["metadata"]
    return own_job_names(metadata["name"], metadata["uid"]) if metadata.get("deletionTimestamp") else frozenset()
