"""Which Jobs and Pods belong to an export. Pure.

Whoever may create a Job anywhere can label it as one likes, so labels only find candidates. A Job belongs to an export
when it is in its namespace and has it as its controller, a Pod when such a Job is its controller; so of those who may
create Jobs in the namespace of an export, only who names that very object as their controller is believed.

While an export is deleted names count too: its clean-up Job has no owner, its other Jobs lose theirs when the deletion
orphans them, and Pods may outlive their Job.
"""

from collections.abc import Iterable, Sequence

from modelexport_operator.manifests import POD_JOB_LABEL, own_job_names
from modelexport_operator.pods import Object


def controller_of(body: Object) -> str | None:
    """The uid of the controller of an object."""
    owners: Iterable[Object] = body["metadata"].get("ownerReferences") or ()
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), None)


def select_jobs(export: Object, jobs: Iterable[Object]) -> list[Object]:
    """Those of the Jobs that belong to an export."""
    names = _names_that_count(export)
    return [job for job in jobs if _is_beside(export, job) and _has_job(export, job, names)]


def select_pods(export: Object, jobs: Sequence[Object], pods: Iterable[Object]) -> list[Object]:
    """Those of the Pods that belong to an export with these ``jobs``."""
    controllers = {job["metadata"]["uid"] for job in jobs}
    names = _names_that_count(export) - {job["metadata"]["name"] for job in jobs}
    return [
        pod
        for pod in pods
        if _is_beside(export, pod)
        and (controller_of(pod) in controllers or pod["metadata"].get("labels", {}).get(POD_JOB_LABEL) in names)
    ]


def _has_job(export: Object, job: Object, names: frozenset[str]) -> bool:
    controller = controller_of(job)
    return job["metadata"]["name"] in names if controller is None else bool(controller == export["metadata"]["uid"])


def _is_beside(export: Object, body: Object) -> bool:
    return bool(body["metadata"]["namespace"] == export["metadata"]["namespace"])


def _names_that_count(export: Object) -> frozenset[str]:
    metadata = export["metadata"]
    return own_job_names(metadata["name"], metadata["uid"]) if metadata.get("deletionTimestamp") else frozenset()
