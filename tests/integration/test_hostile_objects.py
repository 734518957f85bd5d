"""Objects of a user who may edit one namespace neither end the operator nor stop its work for others."""

import json
import time
from pathlib import Path

import pytest

from integration.kubelet import play_kubelet
from modelexport import names
from testplane.api import EXPORTS, JOBS, PODS, Api, ApiError, Body
from testplane.objects import make_export
from testplane.process import Operator

OURS = {names.MANAGED_BY_LABEL: names.MANAGED_BY}
SAFE = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod_spec(**container: object) -> Body:
    converter = {"name": "converter", "image": "registry.example/none:1", "securityContext": SAFE, **container}
    return {"containers": [converter], "restartPolicy": "Never"}


def apply(api: Api, name: str = "shapes") -> None:
    body = make_export("ONNX/FP16")
    body["metadata"] = {"name": name}
    api.create(EXPORTS, body)


def check_that_work_goes_on(api: Api, operator: Operator) -> None:
    apply(api)
    with play_kubelet(api):
        api.wait_for_reason("Succeeded")
    assert operator.is_alive()
    assert operator.ask("/readyz")[0] == 200
    assert "restarting the watches" not in operator.log.read_text(), "the watch was lost, and told of everything again"


def test_pod_with_large_environment_does_not_crash_operator(api: Api, operator: Operator) -> None:
    # A byte that JSON escapes to six: the line of the watch is several times as long as the object.
    pod = {
        "metadata": {"name": "large", "labels": OURS},
        "spec": pod_spec(env=[{"name": "A", "value": "<" * 1_000_000}]),
    }
    api.create(PODS, pod)
    check_that_work_goes_on(api, operator)


def test_jobs_with_large_annotations_do_not_crash_operator(api: Api, operator: Operator) -> None:
    for index in range(3):
        metadata = {"name": f"large-{index}", "labels": OURS, "annotations": {"a": "\u202e<" * 60_000}}
        template = {"spec": pod_spec(env=[{"name": "A", "value": "<" * 1_000_000}])}
        api.create(JOBS, {"metadata": metadata, "spec": {"suspend": True, "template": template}})
    check_that_work_goes_on(api, operator)


def test_exports_with_many_labels_do_not_fill_memory(api: Api, operator: Operator) -> None:
    labels = {f"{'x' * 200}.example/{'k' * 40}{index:05}": "v" * 50 for index in range(2500)}
    before, count = memory_mib(operator), 120
    for index in range(count):
        body = make_export("ONNX/FP16", suspend=True)
        body["metadata"] = {"name": f"large-{index}", "labels": labels}
        api.create(EXPORTS, body)
    api.wait_for("all to be told", lambda: all("conditions" in e["status"] for e in api.list(EXPORTS)))
    time.sleep(2)
    # Unpruned objects would take about twice their bytes; this much is left after reading one at a time.
    assert memory_mib(operator) - before < count * len(json.dumps(labels)) / 2**20 / 2
    check_that_work_goes_on(api, operator)


def memory_mib(operator: Operator) -> float:
    assert operator.process is not None
    status = Path(f"/proc/{operator.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def test_invisible_characters_are_rejected_in_names_and_uris(api: Api, operator: Operator) -> None:
    hidden = ["\u202e", "\u200b", "\x07", "\u2028", "\u00a0", "\ufe0f", "\ue000", "\U000e0041", "\u2066", "\x85"]
    for character in hidden:
        body = make_export("ONNX/FP16")
        body["metadata"] = {"name": "hidden"}
        body["spec"]["model"]["checkpoint"]["uri"] = f"s3://checkpoints/a{character}b.pt"
        with pytest.raises(ApiError, match="an invisible character"):
            api.create(EXPORTS, body)
