"""Helpers for objects of all kinds. Pure."""

from modelexport_operator.kube.objects import KubeObject

Key = tuple[str, str]
"""Namespace (empty for cluster-scoped objects) and name."""

POD_JOB_LABEL = "batch.kubernetes.io/job-name"
"""The label with which a Pod names its Job."""


def created(body: KubeObject) -> tuple[str, str]:
    """Return the sort key for age; objects of the same second sort by name."""
    return body["metadata"].get("creationTimestamp", ""), body["metadata"]["name"]


def controller_of(body: KubeObject) -> str | None:
    """Return the uid of the controller of an object, or ``None``."""
    owners = body["metadata"].get("ownerReferences") or ()
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), None)


def key_of(body: KubeObject) -> Key:
    """Return the key of an object."""
    return body["metadata"].get("namespace", ""), body["metadata"]["name"]


def version_of(body: KubeObject) -> int:
    """Return the version of an object; of two bodies of one object, the greater version is newer."""
    return int(body["metadata"]["resourceVersion"])
