"""The operator as a process against a real API server and a real Job controller; the tests simulate the kubelet."""

import json
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from integration.kubelet import End, fail, find_no_node, play_kubelet, refuse, run, succeed
from testplane.api import CLASSES, EXPORTS, JOBS, PODS, Api, ApiError, Body
from testplane.control_plane import ControlPlane
from testplane.objects import make_class, make_export, result_text
from testplane.process import Operator

pytestmark = pytest.mark.usefixtures("operator")

ALL = [f"{fmt}/{precision}" for fmt in ("LiteRT", "ONNX", "CoreML") for precision in ("FP32", "FP16", "INT8")]


def apply(api: Api, *targets: str, **spec: Any) -> Body:
    body = make_export(*targets, **spec)
    body["metadata"] = {"name": "shapes"}
    return api.create(EXPORTS, body)


def test_nine_targets_become_nine_jobs_and_ready(api: Api, plane: ControlPlane, operator: Operator) -> None:
    apply(api, *ALL)
    with play_kubelet(api):
        plane.kubectl("wait", "mx/shapes", "--for=condition=Ready", "--timeout=120s", f"--namespace={api.namespace}")
    assert len(api.list(JOBS)) == 9
    assert len(api.list(PODS)) == 9
    body = api.get(EXPORTS, "shapes")
    assert body["status"]["ready"] == "9/9"
    assert {target["state"] for target in body["status"]["targets"]} == {"Succeeded"}
    assert api.targets()["ONNX/FP16"]["artifact"]["sha256"] == "ab" * 32
    assert body["metadata"].get("finalizers") is None
    assert "kopf" not in json.dumps(body)
    line = plane.kubectl("get", "mx", f"--namespace={api.namespace}").splitlines()[1].split()
    assert line[:4] == ["shapes", "YOLOv8", "9/9", "Succeeded"]
    api.wait_for_event("Succeeded")
    labels = 'fault="None",format="CoreML",outcome="Succeeded",precision="INT8",reason="Succeeded"'
    counted = f"modelexport_conversions_total{{{labels}}} 1.0"
    api.wait_for("the conversion to be counted", lambda: counted in operator.ask("/metrics")[1])


def test_progress_column_costs_no_write(api: Api, plane: ControlPlane) -> None:
    def shown() -> list[dict[str, str]]:
        """The listing by column title; the positions of the titles show which cells are empty."""
        title, *lines = plane.kubectl("get", "mx", f"--namespace={api.namespace}").splitlines()
        places = [*re.finditer(r"\S+\s*", title)]
        return [{place[0].strip(): line[place.start() : place.end()].strip() for place in places} for line in lines]

    apply(api, "ONNX/FP16", "ONNX/FP32")
    with play_kubelet(api, {"ONNX/FP16": [succeed], "ONNX/FP32": [run]}):
        api.wait_for("one to end", lambda: api.targets().get("ONNX/FP16", {}).get("state") == "Succeeded")
        api.wait_for("one to convert", lambda: api.targets()["ONNX/FP32"].get("progress"))
    progress = api.targets()["ONNX/FP32"]["progress"]
    assert progress["stage"] == "convert"
    assert 0 <= progress["percentage"] <= 99
    assert progress["estimatedRemainingSeconds"] >= 0
    assert progress["startTime"] <= progress["lastUpdatedTime"]
    assert "progress" not in api.targets()["ONNX/FP16"]
    (line,) = shown()
    assert (line["READY"], line["STATUS"]) == ("1/2", "Progressing")
    assert 50 <= int(line["PROGRESS"].removesuffix("%")) <= 99
    before = api.get(EXPORTS, "shapes")["metadata"]["resourceVersion"]
    time.sleep(3)  # The operator's own write triggers a reconcile; a second write would start an endless loop.
    assert api.get(EXPORTS, "shapes")["metadata"]["resourceVersion"] == before
    with play_kubelet(api):
        api.wait_for_reason("Succeeded")
    assert "progress" not in json.dumps(api.get(EXPORTS, "shapes")["status"])
    assert [(line["READY"], line["PROGRESS"], line["STATUS"]) for line in shown()] == [("2/2", "", "Succeeded")]


def test_user_failure_is_final_and_stalls(api: Api) -> None:
    apply(api, "ONNX/FP16", "LiteRT/INT8")
    with play_kubelet(api, {"ONNX/FP16": [succeed], "LiteRT/INT8": [refuse("cosine 0.91 is below 0.95")]}):
        status = api.wait_for_reason("TargetsFailed")["status"]
    assert status["ready"] == "1/2"
    conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert conditions == {"Ready": "False", "Reconciling": "False", "Stalled": "True"}
    target = api.targets()["LiteRT/INT8"]
    assert (target["state"], target["reason"], target["attempts"]) == ("Failed", "VerificationFailed", 1)
    assert "cosine 0.91 is below 0.95" in target["message"]
    assert len(api.list(PODS)) == 2


def test_transient_failure_is_retried(api: Api) -> None:
    apply(api, "ONNX/FP16")
    with play_kubelet(api, {"ONNX/FP16": [fail(137, "", "OOMKilled"), succeed]}):
        api.wait_for_reason("Succeeded")
    # The status shows it for only ten seconds, which a delayed test may miss; the event stays.
    api.wait_for_event("Retrying")
    assert api.targets()["ONNX/FP16"]["attempts"] == 2


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (fail(65, result_text("CheckpointUnsafe", "refused")), "CheckpointUnsafe"),
        (fail(70, result_text("StorageDenied", "403")), "StorageDenied"),
        (fail(65, "no JSON"), "InternalError"),
    ],
    ids=["user", "system", "silent"],
)
def test_permanent_exit_codes_are_not_retried(api: Api, end: End, reason: str) -> None:
    apply(api, "ONNX/FP16")
    with play_kubelet(api, end):
        api.wait_for_reason("TargetsFailed")
    assert api.targets()["ONNX/FP16"]["reason"] == reason
    assert len(api.list(PODS)) == 1


def test_suspended_export_stops_and_resumes(api: Api) -> None:
    apply(api, "ONNX/FP16")
    with play_kubelet(api, run):
        api.wait_for("the converter to run", lambda: api.targets().get("ONNX/FP16", {}).get("state") == "Running")
        api.patch(f"{EXPORTS}/shapes", {"spec": {"suspend": True}})
        api.wait_for_reason("Suspended")
        api.wait_for("the Pods to go", lambda: not api.list(PODS))
    api.wait_for("the target to be told", lambda: api.targets()["ONNX/FP16"]["reason"] == "Suspended")
    api.patch(f"{EXPORTS}/shapes", {"spec": {"suspend": False}})
    with play_kubelet(api):
        api.wait_for_reason("Succeeded")
    assert len(api.list(JOBS)) == 1


def test_export_created_suspended_starts_nothing(api: Api) -> None:
    apply(api, "ONNX/FP16", suspend=True)
    api.wait_for_reason("Suspended")
    assert api.list(JOBS) == []


def test_export_waits_for_its_class(api: Api) -> None:
    name = f"late-{uuid.uuid4().hex[:8]}"
    apply(api, "ONNX/FP16", className=name)
    body = api.wait_for_reason("ClassNotFound")
    assert f"ExportClass '{name}' does not exist" in api.ready()["message"]
    assert body["status"]["ready"] == "0/1"
    assert api.list(JOBS) == []
    api.create(CLASSES, make_class(name, default=False))
    api.wait_for("the Job", lambda: api.list(JOBS))
    api.delete(CLASSES, name)


def test_export_starts_when_its_class_serves_namespace(api: Api) -> None:
    name = f"closed-{uuid.uuid4().hex[:8]}"
    api.create(CLASSES, make_class(name, default=False, allowedNamespaces=["another"]))
    apply(api, "ONNX/FP16", className=name)
    api.wait_for_reason("ClassNotAllowed")
    assert f"ExportClass {name} does not serve namespace {api.namespace}" in api.ready()["message"]
    assert api.list(JOBS) == []
    api.patch(f"{CLASSES}/{name}", {"spec": {"allowedNamespaces": ["another", api.namespace]}})
    api.wait_for("the Job", lambda: api.list(JOBS))
    api.delete(CLASSES, name)


@pytest.fixture
def hasty(api: Api) -> Iterator[str]:
    """A class whose Jobs have four seconds."""
    name = f"hasty-{uuid.uuid4().hex[:8]}"
    api.create(CLASSES, make_class(name, default=False, jobs={"deadlineSeconds": 4}))
    yield name
    api.delete(CLASSES, name)


def test_conversion_over_deadline_is_stopped_and_reported(api: Api, hasty: str) -> None:
    apply(api, "ONNX/FP16", className=hasty)
    with play_kubelet(api, run):
        api.wait_for_reason("TargetsFailed")
    target = api.targets()["ONNX/FP16"]
    assert target["reason"] == "DeadlineExceeded"
    assert "did not end within 4 s" in target["message"]
    assert "Raise spec.jobs.deadlineSeconds" in target["message"]


def test_deadline_reports_why_pod_was_waiting(api: Api) -> None:
    apply(api, "ONNX/FP16")
    with play_kubelet(api, find_no_node):
        api.wait_for("the wait to be told", lambda: api.targets().get("ONNX/FP16", {}).get("reason") == "Unschedulable")
        # With so short a deadline from the start, a busy machine would not report progress in time.
        api.patch(f"{JOBS}/{api.targets()['ONNX/FP16']['jobName']}", {"spec": {"activeDeadlineSeconds": 4}})
        api.wait_for_reason("TargetsFailed")
    target = api.targets()["ONNX/FP16"]
    assert target["reason"] == "Unschedulable"
    assert "1 Insufficient memory" in target["message"]
    assert "given up after 4 s" in target["message"]


def test_deleting_export_stops_running_jobs(api: Api) -> None:
    apply(api, "ONNX/FP16", "ONNX/FP32")
    with play_kubelet(api, run):
        api.wait_for("two Pods", lambda: len(api.list(PODS)) == 2)
        api.delete(EXPORTS, "shapes")
        api.wait_for("everything to go", lambda: not api.list(JOBS) and not api.list(PODS))
    with pytest.raises(ApiError):
        api.get(EXPORTS, "shapes")


def test_finished_export_expires_after_ttl(api: Api) -> None:
    apply(api, "ONNX/FP16", ttlSecondsAfterFinished=2)
    with play_kubelet(api):
        api.wait_for("the export to go", lambda: not api.list(EXPORTS))
        api.wait_for_event("Succeeded")
        # Kubernetes' garbage collector looks for new kinds every 30 s, and collects no objects of unknown kinds.
        api.wait_for("its Jobs to be collected", lambda: not api.list(JOBS))


def test_manually_deleted_running_job_is_recreated_by_name(api: Api) -> None:
    apply(api, "ONNX/FP16")
    api.wait_for("the Job", lambda: api.list(JOBS))
    first = api.list(JOBS)[0]["metadata"]
    api.delete(JOBS, first["name"])
    api.wait_for("another Job", lambda: [j["metadata"]["uid"] for j in api.list(JOBS)] not in ([], [first["uid"]]))
    assert [job["metadata"]["name"] for job in api.list(JOBS)] == [first["name"]]
    with play_kubelet(api):
        api.wait_for_reason("Succeeded")


def test_succeeded_target_is_not_rerun_after_job_deletion(api: Api) -> None:
    apply(api, "ONNX/FP16")
    with play_kubelet(api):
        before = api.wait_for_reason("Succeeded")
        api.delete(JOBS, api.list(JOBS)[0]["metadata"]["name"])
        api.wait_for("the Job to go", lambda: not api.list(JOBS))
        api.patch(f"{EXPORTS}/shapes", {"metadata": {"annotations": {"touched": "by a test"}}})
        api.patch(f"{EXPORTS}/shapes", {"spec": {"ttlSecondsAfterFinished": 9999}})
        api.wait_for("the new generation", lambda: api.ready().get("observedGeneration") == 2)
    assert api.list(JOBS) == []
    assert api.get(EXPORTS, "shapes")["status"]["targets"] == before["status"]["targets"]


def test_failed_target_is_rerun_after_job_deletion(api: Api) -> None:
    apply(api, "ONNX/FP16")
    with play_kubelet(api, refuse()):
        api.wait_for_reason("TargetsFailed")
    api.delete(JOBS, api.list(JOBS)[0]["metadata"]["name"])
    with play_kubelet(api):
        api.wait_for_reason("Succeeded")


def test_export_of_older_operator_is_adopted(api: Api) -> None:
    apply(api, "ONNX/FP16", "ONNX/FP32", suspend=True)
    api.wait_for_reason("Suspended")
    old = {"format": "ONNX", "precision": "FP16", "state": "Done"}
    done = {"format": "ONNX", "precision": "FP32", "state": "Succeeded", "reason": "Succeeded", "jobName": "older"}
    api.patch(f"{EXPORTS}/shapes/status", {"status": {"observedGeneration": 1, "targets": [old, done]}})
    api.patch(f"{EXPORTS}/shapes", {"spec": {"suspend": False}})
    with play_kubelet(api):
        api.wait_for_reason("Succeeded")
    assert len(api.list(JOBS)) == 1
    assert api.targets()["ONNX/FP32"]["jobName"] == "older"
