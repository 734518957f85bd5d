"""What is kept of an object: the fields that somebody reads, each of bounded length. Pure.

Whoever may edit one namespace can make objects of 1.5 MiB, thousands of them: labels, annotations, environments. So a
shape names what is kept, and everything else is forgotten as it enters.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

from modelexport import names
from modelexport_operator.manifests import OUTPUT_KEY, POD_JOB_LABEL, output_of
from modelexport_operator.owners import controller_of
from modelexport_operator.pods import Object

TEXT_LIMIT = 1024
"""Characters of a text that is kept; no message of a status of ours has more."""
LIST_LIMIT = 16
"""Items of a list that are kept; a Pod of ours has a few containers and about ten conditions."""
OUR_LABELS = (
    names.MANAGED_BY_LABEL,
    names.EXPORT_LABEL,
    names.EXPORT_UID_LABEL,
    names.FORMAT_LABEL,
    names.PRECISION_LABEL,
    names.SPEC_HASH_LABEL,
    names.NODE_POOL_LABEL,
    names.QUEUE_LABEL,
    POD_JOB_LABEL,
)

Shape = Any
"""``None`` keeps a text, a number or a truth value, a number a text of so many characters. A mapping keeps its keys,
each in a shape; a list of one shape keeps a list of it. A function returns of a value what is kept."""
Keep = Callable[[Any], Any]


def _keep_conditions(*types: str) -> Keep:
    """Keep the conditions that somebody reads; a Pod has five others."""
    keep = build_keep(dict.fromkeys(("type", "status", "reason", "message", "lastTransitionTime")))

    def keep_conditions(value: Any) -> Any:
        found = value if isinstance(value, list) else []
        return [keep(c) for c in found if isinstance(c, dict) and c.get("type") in types][:LIST_LIMIT]

    return keep_conditions


def build_keep(shape: Shape) -> Keep:
    """Build the function that returns of a value what a shape keeps; ``None`` where it is of another kind.

    It is called for every step of every Pod, and a shape that is read once costs a third of one that is read each time.
    """
    if callable(shape):
        return cast(Keep, shape)
    if isinstance(shape, Mapping):
        keeps = [(key, build_keep(inner)) for key, inner in shape.items()]

        def keep_mapping(value: Any) -> Any:
            found = value if isinstance(value, dict) else {}
            return {key: keep(part) for key, keep in keeps if (part := found.get(key)) is not None}

        return keep_mapping
    if isinstance(shape, list):
        keep_item = build_keep(shape[0])
        return lambda value: [keep_item(item) for item in value[:LIST_LIMIT]] if isinstance(value, list) else []
    limit = shape or TEXT_LIMIT
    return lambda value: value[:limit] if isinstance(value, str) else value if isinstance(value, int | float) else None


_METADATA: Shape = {
    **dict.fromkeys(("name", "namespace", "uid", "resourceVersion", "generation")),
    **dict.fromkeys(("creationTimestamp", "deletionTimestamp")),
    "labels": dict.fromkeys(OUR_LABELS),
}
_ENDED: Shape = {**dict.fromkeys(("exitCode", "reason")), "message": names.TERMINATION_MESSAGE_LIMIT}
_CONTAINER_STATUSES: Shape = [
    {
        "name": None,
        "state": {"waiting": dict.fromkeys(("reason", "message")), "running": {}, "terminated": _ENDED},
    }
]
_CONTAINERS: Shape = [{"name": None, "resources": {"limits": {"memory": None}}}]
_EXPORT_METADATA: Shape = {**_METADATA, "labels": {}, "finalizers": [None]}
_CLASS_METADATA: Shape = {**_METADATA, "labels": {}, "annotations": {names.DEFAULT_CLASS_ANNOTATION: None}}
_JOB: Shape = {
    "metadata": _METADATA,
    "spec": dict.fromkeys(("suspend", "activeDeadlineSeconds", "backoffLimit")),
    "status": {
        **dict.fromkeys(("startTime", "completionTime", "active", "succeeded", "failed")),
        "conditions": _keep_conditions("Complete", "Failed", "FailureTarget"),
    },
}
_POD: Shape = {
    "metadata": _METADATA,
    "spec": {"nodeName": None, "containers": _CONTAINERS, "initContainers": _CONTAINERS},
    "status": {
        **dict.fromkeys(("phase", "reason", "message", "startTime")),
        "conditions": _keep_conditions("PodScheduled", "DisruptionTarget"),
        "containerStatuses": _CONTAINER_STATUSES,
        "initContainerStatuses": _CONTAINER_STATUSES,
    },
}


_KEEP_EXPORT_METADATA, _KEEP_CLASS_METADATA = build_keep(_EXPORT_METADATA), build_keep(_CLASS_METADATA)
_KEEP_JOB, _KEEP_POD = build_keep(_JOB), build_keep(_POD)


def prune_export(body: Object) -> dict[str, Any]:
    """Of an export spec and status are kept whole; the definition bounds both."""
    metadata = _KEEP_EXPORT_METADATA(body["metadata"])
    return {**_kind_of(body), "metadata": metadata, **_whole(body, "spec", "status")}


def prune_class(body: Object) -> dict[str, Any]:
    """Of a class its spec is kept whole; the definition bounds it."""
    return {**_kind_of(body), "metadata": _KEEP_CLASS_METADATA(body["metadata"]), **_whole(body, "spec")}


def prune_job(body: Object) -> dict[str, Any]:
    """What tells where a Job is, whose it is, and where it publishes."""
    return {**_owned(body, _KEEP_JOB), OUTPUT_KEY: output_of(body)[:TEXT_LIMIT]}


def prune_pod(body: Object) -> dict[str, Any]:
    """What tells where a Pod is, whose it is, and what its containers say."""
    return _owned(body, _KEEP_POD)


def prune_node(body: Object) -> dict[str, Any]:
    """What pools ask for: a node's heartbeats, images and conditions are most of it, and change all the time."""
    metadata = {key: body["metadata"].get(key) for key in ("name", "labels", "resourceVersion")}
    allocatable = body.get("status", {}).get("allocatable")
    return {
        "metadata": metadata,
        "spec": {"taints": body.get("spec", {}).get("taints")},
        "status": {"allocatable": allocatable},
    }


def _owned(body: Object, keep: Keep) -> dict[str, Any]:
    """Of the owners only the controller is kept, and of it only which object it is."""
    kept: dict[str, Any] = {"spec": {}, "status": {}, **keep(body)}
    if not kept["status"].get("conditions"):
        kept["status"].pop("conditions", None)  # Whether there are none, or none that is read, is no news.
    if uid := controller_of(body):
        kept["metadata"]["ownerReferences"] = [{"uid": uid, "controller": True}]
    return kept


def _whole(body: Object, *parts: str) -> dict[str, Any]:
    return {part: body[part] for part in parts if part in body}


def _kind_of(body: Object) -> dict[str, Any]:
    return {key: body[key] for key in ("apiVersion", "kind") if key in body}
