"""Prunes objects to the fields that are read, each of limited length. Pure.

Anyone who may edit one namespace can create thousands of objects of 1.5 MiB: labels, annotations, environments. So a
shape names the fields to keep, and everything else is dropped on arrival.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from modelexport import names
from modelexport_operator.kube.objects import (
    ExportClassObject,
    Job,
    JsonObject,
    KubeObject,
    ModelExportObject,
    Node,
    Pod,
    Workload,
)
from modelexport_operator.kube.resources import NODES
from modelexport_operator.kube.types import POD_JOB_LABEL, controller_of

TEXT_LIMIT = 1024
"""Characters of a text that are kept; our own status messages have no more."""
LIST_LIMIT = 16
"""Items of a list that are kept; our Pods have a few containers and about ten conditions."""
OUR_LABELS = (
    names.MANAGED_BY_LABEL,
    names.EXPORT_LABEL,
    names.EXPORT_UID_LABEL,
    names.FORMAT_LABEL,
    names.PRECISION_LABEL,
    names.TARGET_NAME_LABEL,
    names.SPEC_HASH_LABEL,
    names.NODE_POOL_LABEL,
    names.QUEUE_LABEL,
    names.WORKLOAD_PRIORITY_LABEL,
    POD_JOB_LABEL,
)

Shape: TypeAlias = "int | Mapping[str, Shape] | list[Shape] | Callable[[object], Any] | None"
"""``None`` keeps a text, number or boolean; a number keeps a text of so many characters. A mapping keeps its keys, each
in a shape; a list with one shape keeps a list of it. A function returns the part of a value to keep."""
Keep = Callable[[object], Any]


def _keep_conditions(*types: str) -> Keep:
    """Keep only the condition types that are read; a Pod has five others."""
    keep = build_keep(dict.fromkeys(("type", "status", "reason", "message", "lastTransitionTime")))

    def keep_conditions(value: object) -> object:
        found = value if isinstance(value, list) else []
        return [keep(c) for c in found if isinstance(c, dict) and c.get("type") in types][:LIST_LIMIT]

    return keep_conditions


def build_keep(shape: Shape) -> Keep:
    """Build the function that prunes a value to a shape; it returns ``None`` for a value of another kind.

    It runs for every step of every Pod; compiling the shape once costs a third of interpreting it each time.
    """
    if callable(shape):
        return shape
    if isinstance(shape, Mapping):
        keeps = {key: build_keep(inner) for key, inner in shape.items()}

        def keep_mapping(value: object) -> object:
            found = value if isinstance(value, dict) else {}
            return {key: keeps[key](part) for key, part in found.items() if part is not None and key in keeps}

        return keep_mapping
    if isinstance(shape, list):
        keep_item = build_keep(shape[0])
        return lambda value: [keep_item(item) for item in value[:LIST_LIMIT]] if isinstance(value, list) else []
    limit = shape or TEXT_LIMIT
    return lambda value: value[:limit] if isinstance(value, str) else value if isinstance(value, (int, float)) else None


_METADATA: dict[str, Shape] = {
    **dict.fromkeys(("name", "namespace", "uid", "resourceVersion", "generation")),
    **dict.fromkeys(("creationTimestamp", "deletionTimestamp")),
    "labels": dict.fromkeys(OUR_LABELS),
}
_ENDED: Shape = {**dict.fromkeys(("exitCode", "reason", "startedAt")), "message": names.TERMINATION_MESSAGE_LIMIT}
_CONTAINER_STATUSES: Shape = [
    {
        "name": None,
        "state": {
            "waiting": dict.fromkeys(("reason", "message")),
            "running": {"startedAt": None},
            "terminated": _ENDED,
        },
    }
]
_CONTAINERS: Shape = [{"name": None, "resources": {"limits": {"memory": None}}}]
_EXPORT_METADATA: Shape = {**_METADATA, "labels": {}, "finalizers": [None]}
_CLASS_METADATA: Shape = {**_METADATA, "labels": {}, "annotations": {names.DEFAULT_CLASS_ANNOTATION: None}}
_JOB_SPEC: dict[str, Shape] = dict.fromkeys(("suspend", "activeDeadlineSeconds", "backoffLimit"))
_JOB: dict[str, Shape] = {
    "metadata": _METADATA,
    "spec": _JOB_SPEC,
    "status": {
        **dict.fromkeys(("startTime", "completionTime", "active", "succeeded", "failed")),
        "conditions": _keep_conditions("Complete", "Failed", "FailureTarget"),
    },
}
_POD: dict[str, Shape] = {
    "metadata": _METADATA,
    "spec": {"nodeName": None, "containers": _CONTAINERS, "initContainers": _CONTAINERS},
    "status": {
        **dict.fromkeys(("phase", "reason", "message", "startTime")),
        "conditions": _keep_conditions("PodScheduled", "DisruptionTarget"),
        "containerStatuses": _CONTAINER_STATUSES,
        "initContainerStatuses": _CONTAINER_STATUSES,
    },
}
_WORKLOAD: Shape = {
    "metadata": _METADATA,
    "status": {
        "conditions": _keep_conditions("QuotaReserved", "Evicted"),
        "admissionChecks": [dict.fromkeys(("name", "state", "message"))],
    },
}

_READ_METADATA: Shape = {**_METADATA, "ownerReferences": [dict.fromkeys(("uid", "controller"))]}
_ENVIRONMENT: Shape = [{"name": None, "env": [dict.fromkeys(("name", "value"))]}]
READ_OF_JOB: Shape = {
    **_JOB,
    "metadata": _READ_METADATA,
    "spec": {**_JOB_SPEC, "template": {"spec": {"containers": _ENVIRONMENT}}},
}
READ_OF_POD: Shape = {**_POD, "metadata": _READ_METADATA}
"""What pruning reads, and a Job's output folder: more than it keeps."""

_KEEP_EXPORT_METADATA, _KEEP_CLASS_METADATA = build_keep(_EXPORT_METADATA), build_keep(_CLASS_METADATA)
_KEEP_JOB, _KEEP_POD, _KEEP_WORKLOAD = build_keep(_JOB), build_keep(_POD), build_keep(_WORKLOAD)


def prune_export(body: KubeObject) -> ModelExportObject:
    """Keep spec and status of an export unpruned; the CRD limits both."""
    metadata = _KEEP_EXPORT_METADATA(body["metadata"])
    return cast(ModelExportObject, {**_kind_of(body), "metadata": metadata, **_whole(body, "spec", "status")})


def prune_class(body: KubeObject) -> ExportClassObject:
    """Keep the spec of a class unpruned; the CRD limits it."""
    metadata = _KEEP_CLASS_METADATA(body["metadata"])
    return cast(ExportClassObject, {**_kind_of(body), "metadata": metadata, **_whole(body, "spec")})


def prune_job(body: KubeObject) -> Job:
    """Keep the state and the owner of a Job."""
    return cast(Job, _owned(body, _KEEP_JOB))


def prune_pod(body: KubeObject) -> Pod:
    """Keep the state and the owner of a Pod, and the messages of its containers."""
    return cast(Pod, _owned(body, _KEEP_POD))


def prune_workload(body: KubeObject) -> Workload:
    """Keep the owner of a Kueue Workload and why it waits."""
    return cast(Workload, _owned(body, _KEEP_WORKLOAD))


def prune_node(body: KubeObject) -> Node:
    """Keep what node pools select by: heartbeats, images and conditions are most of a node and change all the time."""
    metadata = {key: body["metadata"].get(key) for key in ("name", "labels", "resourceVersion")}
    node = NODES.typed(body)
    allocatable = node.get("status", {}).get("allocatable")
    spec = {"taints": node.get("spec", {}).get("taints")}
    return cast(Node, {"metadata": metadata, "spec": spec, "status": {"allocatable": allocatable}})


def _owned(body: KubeObject, keep: Keep) -> dict[str, Any]:
    """Prune a body; of its owners keep only the uid of the controller."""
    kept: dict[str, Any] = {"spec": {}, "status": {}, **keep(body)}
    if not kept["status"].get("conditions"):
        kept["status"].pop("conditions", None)  # An empty list and a missing one must compare equal.
    if uid := controller_of(body):
        kept["metadata"]["ownerReferences"] = [{"uid": uid, "controller": True}]
    return kept


def _whole(body: JsonObject, *parts: str) -> dict[str, object]:
    return {part: body[part] for part in parts if part in body}


def _kind_of(body: JsonObject) -> dict[str, object]:
    return {key: body[key] for key in ("apiVersion", "kind") if key in body}
