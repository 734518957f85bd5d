"""Builders of observed objects: short calls in tests, complete objects for the code."""

import json
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from modelexport import names
from modelexport.api.node_pools import NodePool
from modelexport.api.spec import parse_class, parse_export
from modelexport.matrix.support import Format, Precision, Target
from modelexport.planning.plan import plan_export
from modelexport_operator.jobs.conversion_job import build_job, output_of
from modelexport_operator.kube.types import POD_JOB_LABEL
from modelexport_operator.reconcile.deletion import clean_up
from modelexport_operator.reconcile.export_class import output_folder
from modelexport_operator.reconcile.snapshot import Snapshot

Body = Any
"""An object as plain data: tests also build what the API server would not send, and no type would allow it."""
SOME_OUTPUT = "s3://exports/team-a/team/shapes/onnx-fp16/"
"""Stands in termination messages for the folder of the Job."""


def make_target(text: str) -> Target:
    fmt, precision = text.split("/")
    return Target(Format(fmt), Precision(precision))


def make_export(*targets: str, name: str = "shapes", uid: str = "uid-1", **spec: Any) -> Body:
    """A ModelExport of a YOLOv8 with the given targets, each as ``ONNX/FP16``."""
    wanted = [make_target(text) for text in targets or ("ONNX/FP16",)]
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.EXPORT_KIND,
        "metadata": {"name": name, "namespace": "team", "uid": uid, "generation": 1},
        "spec": {
            "model": {"architecture": "YOLOv8", "checkpoint": {"uri": "s3://checkpoints/shapes/yolov8n.pt"}},
            "targets": [{"format": str(t.format), "precision": str(t.precision)} for t in wanted],
            **spec,
        },
    }


def make_class(
    name: str = "standard", *, default: bool = True, created: str = "2026-01-01T00:00:00Z", **spec: Any
) -> Body:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.CLASS_KIND,
        "metadata": {
            "name": name,
            "creationTimestamp": created,
            "annotations": {names.DEFAULT_CLASS_ANNOTATION: "true"} if default else {},
        },
        "spec": {
            "storage": {
                "endpoint": "http://minio.storage.svc:9000",
                "bucket": "exports",
                "prefix": "team-a",
                "credentialsSecretName": "modelexport-storage",
            },
            "converter": {"image": "registry.example/modelexport-converter:1.0"},
            **spec,
        },
    }


def make_node(
    name: str = "node-a",
    arch: str = "amd64",
    taints: list[str] | None = None,
    labels: Body | None = None,
    **allocatable: Any,
) -> Body:
    """A node as observed; taints as ``key=value:effect``, GPUs as ``gpu``."""
    offered = {"cpu": "4", "memory": "16Gi", "ephemeral_storage": "100Gi", "pods": "110", **allocatable}
    if gpus := offered.pop("gpu", None):
        offered["nvidia.com/gpu"] = gpus
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/arch": arch, **(labels or {})}},
        "spec": {"taints": [_taint(text) for text in taints or []]},
        "status": {"allocatable": {key.replace("_", "-"): str(amount) for key, amount in offered.items()}},
    }


def _taint(text: str) -> Body:
    word, _, effect = text.partition(":")
    key, _, value = word.partition("=")
    return {"key": key, **({"value": value} if value else {}), "effect": effect}


def build_all(export: Body, export_class: Body, pool: NodePool | None = None) -> dict[str, Body]:
    """The Jobs of an export as the operator would create them on a node pool, by target."""
    parsed, cls = parse_export(export), parse_class(export_class)
    requests = plan_export(parsed, output_folder(cls))
    return {str(request.target): build_job(parsed, request, cls, pool, planned=requests) for request in requests}


def make_job(export: Body, target: str, export_class: Body | None = None, **changes: Any) -> Body:
    """The Job of a target as observed.

    ``changes`` are ``status``, ``suspend``, ``queue`` (of Kueue), ``name`` and other fields of the metadata.
    """
    job: Body = deepcopy(build_all(export, export_class or make_class())[target])
    job["status"] = changes.pop("status", {})
    job["spec"]["suspend"] = changes.pop("suspend", False)
    if queue := changes.pop("queue", None):
        job["metadata"]["labels"][names.QUEUE_LABEL] = queue
    job["metadata"] |= {
        "uid": f"uid-of-{job['metadata']['name']}",
        "creationTimestamp": "2026-01-02T03:00:00Z",
        **changes,
    }
    return job


def make_workload(job: Body, *conditions: Body, checks: Sequence[Body] = (), **metadata: Any) -> Body:
    """The Workload that Kueue made for a Job; a condition as ``make_condition`` writes it."""
    owner = {"kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"], "controller": True}
    return {
        "metadata": {"name": f"job-{job['metadata']['name']}", "ownerReferences": [owner], **metadata},
        "status": {"conditions": list(conditions), "admissionChecks": list(checks)},
    }


def make_condition(kind: str, status: str, reason: str, message: str) -> Body:
    """A condition."""
    return {"type": kind, "status": status, "reason": reason, "message": message}


def make_clean_job(export: Body, **changes: Any) -> Body:
    """The clean-up Job of an export that is being deleted, as observed; ``changes`` as for ``make_job``."""
    job: Body = deepcopy(clean_up(Snapshot(export, classes=[make_class()])).create[0])
    job["status"] = changes.pop("status", {})
    job["metadata"] |= {"uid": "uid-of-the-clean-up", "creationTimestamp": "2026-01-02T03:04:01Z", **changes}
    return job


def publish_into(output: str, text: str) -> str:
    """A termination message whose files lie where a request asks for them."""
    return text.replace(SOME_OUTPUT, output)


def make_pod(job: Body, index: int = 0, node: str | None = None, **status: Any) -> Body:
    """A Pod of a Job as observed; the artifact in its message lies in the folder of the Job."""
    status = json.loads(publish_into(output_of(job), json.dumps(status)))
    template = job["spec"]["template"]
    name = job["metadata"]["name"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-{index}",
            "namespace": job["metadata"]["namespace"],
            "creationTimestamp": f"2026-01-02T03:00:{index:02}Z",
            "labels": {**template["metadata"]["labels"], POD_JOB_LABEL: name},
            "ownerReferences": [{"kind": "Job", "name": name, "uid": job["metadata"]["uid"], "controller": True}],
        },
        "spec": {**template["spec"], **({"nodeName": node} if node else {})},
        "status": status,
    }


def waiting(reason: str, message: str = "", container: str = names.PUBLISH) -> list[Body]:
    """Status of a container that has not started."""
    return [{"name": container, "state": {"waiting": {"reason": reason, "message": message}}}]


def ended(exit_code: int, message: str = "", reason: str = "Error", container: str = names.PUBLISH) -> list[Body]:
    """Status of a container that has ended."""
    state = {"terminated": {"exitCode": exit_code, "reason": reason, "message": message}}
    return [{"name": container, "state": state}]


def result_text(reason: str = "Succeeded", message: str = "Published", **fields: Any) -> str:
    """A termination message."""
    succeeded = {
        "scheme": "fp16",
        "artifact": {
            "uri": f"{SOME_OUTPUT}shapes-fp16.onnx",
            "sha256": "ab" * 32,
            "size_bytes": 6_400_000,
        },
        "report_uri": f"{SOME_OUTPUT}report.json",
        "verification": {"metric": "cosine", "value": "0.999998", "threshold": "0.999"},
        "seconds": 21.5,
        "peak_memory_mib": 900,
        "reused": False,
    }
    failed = dict.fromkeys(succeeded) | {"reused": False}
    base = succeeded if reason == "Succeeded" else failed
    return json.dumps({"schemaVersion": 1, "reason": reason, "message": message, **base, **fields})


def complete(at: str = "2026-01-02T03:02:00Z") -> Body:
    """Status of a Job that is done."""
    why = {"status": "True", "reason": "CompletionsReached", "message": "", "lastTransitionTime": at}
    conditions = [{"type": "SuccessCriteriaMet", **why}, {"type": "Complete", **why}]
    return {"startTime": "2026-01-02T03:00:00Z", "completionTime": at, "succeeded": 1, "conditions": conditions}


def failed(reason: str, message: str = "", count: int = 1, at: str = "2026-01-02T03:02:00Z") -> Body:
    """Status of a failed Job; the Job controller first sets a condition FailureTarget, which stays."""
    why = {"status": "True", "reason": reason, "message": message, "lastTransitionTime": at}
    conditions = [{"type": "FailureTarget", **why}, {"type": "Failed", **why}]
    return {"startTime": "2026-01-02T03:00:00Z", "failed": count, "conditions": conditions}
