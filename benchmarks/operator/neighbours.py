"""Jobs and Pods of others, which an operator must not notice."""

from typing import Any

from benchmarks.operator.client import Client
from testplane.api import JOBS, PODS
from testplane.control_plane import ControlPlane

NAMESPACE = "neighbours"
EACH = 5000
"""Jobs, and as many Pods."""


async def create_neighbours(plane: ControlPlane, client: Client) -> int:
    """Create them in a namespace of their own, and return how many there are."""
    plane.kubectl("create", "namespace", NAMESPACE)
    await client.create_all(JOBS.format(NAMESPACE), map(_job, range(EACH)))
    await client.create_all(PODS.format(NAMESPACE), map(_pod, range(EACH)))
    return 2 * EACH


def _job(index: int) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "batch"}}, "spec": _spec()}
    spec = {"suspend": True, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": f"batch-{index}"}, "spec": spec}


def _pod(index: int) -> dict[str, Any]:
    metadata = {"name": f"web-{index}", "labels": {"app": "web"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": _spec()}


def _spec() -> dict[str, Any]:
    """Return a Pod spec for no existing scheduler: the object exists, but costs the control plane nothing more."""
    container = {"name": "main", "image": "registry.example/main:1"}
    return {"schedulerName": "nobody", "restartPolicy": "Never", "containers": [container]}
