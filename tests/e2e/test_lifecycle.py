"""Events of a cluster that meet a running export, on the real node."""

import json
import time
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest
from minio import Minio

from e2e.support import RESULTS, Body, Workspace, build_export, find_condition
from modelexport.names import PAGE_FILE
from testcluster import installation
from testcluster.bootstrap import kubectl
from testcluster.lifecycle import CGROUPS

THREE = ("ONNX/FP32", "ONNX/FP16", "ONNX/INT8")
LONG = "LiteRT/FP32"
"""Its libraries alone take seconds to load, so that there is time to do something to it while it converts."""
OPERATOR = f"--namespace={installation.SYSTEM_NAMESPACE}"
OPERATOR_PODS = "--selector=app.kubernetes.io/name=modelexport-operator"


def start(space: Workspace, *targets: str, class_name: str | None = None, **spec: Any) -> None:
    """Apply the export ``model`` of an ordinary class."""
    space.apply(build_export("model", *targets, className=class_name or space.create_class(), **spec))


def published(minio: Minio, space: Workspace) -> set[str]:
    """Return the names of the files that the exports of a namespace published."""
    found = minio.list_objects(bucket_name=RESULTS, prefix=f"{space.name}/", recursive=True)
    return {str(item.object_name) for item in found}


def job_uids(space: Workspace) -> dict[str, str]:
    """Return the identity of every Job by its name."""
    return {job["metadata"]["name"]: job["metadata"]["uid"] for job in space.read_all("jobs")}


def expect_ready(space: Workspace, targets: int = 1) -> None:
    """Wait for the export, and check that each target has at most one Job."""
    space.wait("mx/model", "condition=Ready")
    assert space.read("mx/model")["status"]["ready"] == f"{targets}/{targets}"
    assert len(job_uids(space)) == targets


def test_manually_deleted_job_is_recreated(space: Workspace) -> None:
    start(space, LONG)
    space.wait_for_pod("model")
    before = job_uids(space)
    space.kubectl("delete", "jobs", "--all")
    expect_ready(space)
    after = job_uids(space)
    assert set(after) == set(before)
    assert after != before


def test_evicted_pod_is_replaced(space: Workspace) -> None:
    start(space, LONG)
    pod = space.wait_for_pod("model")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": space.name}}
    path = f"/api/v1/namespaces/{space.name}/pods/{pod}/eviction"
    space.kubectl("create", "--raw", path, "--filename=-", input=json.dumps(eviction))
    expect_ready(space)
    assert pod not in [body["metadata"]["name"] for body in space.read_all("pods") if is_succeeded(body)]
    assert ("Warning", "Retrying") in [event[:2] for event in space.events("model")]


def is_succeeded(pod: Body) -> bool:
    """Return whether a Pod succeeded."""
    return bool(pod["status"]["phase"] == "Succeeded")


@pytest.mark.own_cluster("the control groups of its node")
def test_oom_killed_converter_is_reported_with_its_limit(space: Workspace) -> None:
    start(space, LONG, class_name=space.create_class(jobs={"retries": 0}))
    shrink_memory(space, space.wait_for_pod("model"), 512 << 20)
    target = space.wait_for_reason("model", "OOMKilled")
    assert target["state"] == "Failed"
    assert "needed more than 4Gi of memory and was killed" in target["message"]
    assert "needs more memory than its cell requests; report it" in target["message"]


def shrink_memory(space: Workspace, pod: str, memory: int) -> None:
    """Limit the memory of the converting container to so many bytes; Kubernetes does not resize init containers."""
    body = space.read(f"pod/{pod}")
    [container] = [one for one in body["status"]["initContainerStatuses"] if one["name"] == "convert"]
    group = f"pod{body['metadata']['uid']}/{container['containerID'].rpartition('/')[2]}"
    limits = [path for name in ("max", "limit_in_bytes") for path in CGROUPS.glob(f"**/{group}/memory.{name}")]
    limits[0].write_text(str(memory), encoding="ascii")


def test_conversion_over_deadline_is_stopped(space: Workspace) -> None:
    start(space, "CoreML/FP32", class_name=space.create_class(jobs={"deadlineSeconds": 4}))
    target = space.wait_for_reason("model", "DeadlineExceeded")
    assert "did not end within 4 s" in target["message"]
    assert "Raise spec.jobs.deadlineSeconds of the ExportClass" in target["message"]
    space.wait("pods", "delete")


def test_image_pull_failure_is_reported_until_class_is_fixed(space: Workspace) -> None:
    image = {"image": "modelexport.dev/nobody-made-this:1"}
    class_name = space.create_class(converter=image)
    start(space, class_name=class_name)
    target = space.wait_for_reason("model", "ImagePullFailed")
    assert target["state"] == "Queued"
    assert "modelexport.dev/nobody-made-this:1" in target["message"]
    assert "Correct spec.converter.image of the ExportClass" in target["message"]
    patch = json.dumps({"spec": {"converter": {"image": space.image}}})
    space.kubectl("patch", "exportclass", class_name, "--type=merge", f"--patch={patch}")
    space.kubectl("delete", "jobs", "--all")
    expect_ready(space)


def test_missing_secret_is_reported_and_export_resumes_with_it(space: Workspace) -> None:
    start(space, class_name=space.create_class(storage={"credentialsSecretName": "team-keys"}))
    target = space.wait_for_reason("model", "PodStartFailed")
    assert target["state"] == "Queued"
    assert 'secret "team-keys" not found' in target["message"]
    secret = json.loads(installation.build_secret(space.name))
    space.apply({**secret, "metadata": {"name": "team-keys", "namespace": space.name}})
    expect_ready(space)


def test_unschedulable_pod_is_reported_and_fails_at_deadline(space: Workspace) -> None:
    start(space, class_name=space.create_class(converter={"nodeSelector": {"pool": "nobody-has-this"}}))
    target = space.wait_for_reason("model", "Unschedulable")
    assert "didn't match Pod's node affinity/selector" in target["message"]
    assert "Add a node that meets the requirements in the message" in target["message"]
    # With so short a deadline from the start, a busy machine would not report progress in time.
    patch = json.dumps({"spec": {"activeDeadlineSeconds": 10}})
    space.kubectl("patch", f"job/{target['jobName']}", "--type=merge", f"--patch={patch}")
    space.wait("mx/model", "condition=Stalled")
    target = space.target("model")
    assert (target["state"], target["reason"]) == ("Failed", "Unschedulable")
    assert target["message"].endswith("(given up after 10 s)")


def test_export_waits_for_its_class(space: Workspace) -> None:
    start(space, class_name=f"{space.name}-later")
    space.wait("mx/model", "condition=Reconciling")
    ready = find_condition(space.read("mx/model"), "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ClassNotFound")
    assert "does not exist" in ready["message"]
    assert "the export starts when it is created" in ready["message"]
    space.create_class("later")
    expect_ready(space)


def test_export_can_be_suspended_and_resumed(space: Workspace) -> None:
    start(space, LONG, suspend=True)
    space.wait("mx/model", "jsonpath={.status.conditions[0].reason}=Suspended")
    assert job_uids(space) == {}
    suspend(space, suspended=False)
    pod = space.wait_for_pod("model")
    suspend(space, suspended=True)
    space.wait(f"pod/{pod}", "delete")
    target = space.wait_for_reason("model", "Suspended")
    assert "set spec.suspend: false to go on" in target["message"]
    suspend(space, suspended=False)
    expect_ready(space)


def suspend(space: Workspace, *, suspended: bool) -> None:
    """Change ``spec.suspend``."""
    patch = json.dumps({"spec": {"suspend": suspended}})
    space.kubectl("patch", "mx/model", "--type=merge", f"--patch={patch}")


def test_export_expires_after_ttl_and_files_stay(space: Workspace, minio: Minio) -> None:
    start(space, ttlSecondsAfterFinished=5)
    space.wait("mx/model", "condition=Ready")
    space.wait("mx/model", "delete")
    space.wait("jobs", "delete")
    found = {PurePosixPath(name).name for name in published(minio, space)}
    assert found == {"model-fp32.onnx", "report.json", "report.html"}


def test_deleting_running_export_leaves_no_pods_or_partial_files(space: Workspace, minio: Minio) -> None:
    start(space, *THREE)
    space.wait_for_first("model")
    space.kubectl("delete", "mx/model", "--cascade=background")
    space.wait("jobs", "delete")
    space.wait("pods", "delete")
    folders: dict[str, set[str]] = {}
    for name in (name for name in map(PurePosixPath, published(minio, space)) if name.name != "report.html"):
        folders.setdefault(str(name.parent), set()).add(name.name)
    assert folders
    assert all("report.json" in files for files in folders.values())
    assert all(len(files) == 2 for files in folders.values())


def test_killed_operator_restarts_and_creates_no_second_job(space: Workspace) -> None:
    start(space, *THREE)
    space.wait_for_pod("model")
    before = job_uids(space)
    kill_operator()
    space.wait_for_first("model")
    kill_operator()
    expect_ready(space, targets=3)
    assert job_uids(space) == before
    assert len(space.read_all("pods")) == 3


def kill_operator() -> None:
    """Kill the operator without a grace period, as a crash does."""
    kubectl("delete", "pods", OPERATOR_PODS, OPERATOR, "--force", "--grace-period=0")


@pytest.fixture
def stopped_operator(product: str) -> Iterator[None]:
    """Stop the operator for the start of a test, and start it again afterwards."""
    kubectl("scale", installation.DEPLOYMENT, "--replicas=0", OPERATOR)
    kubectl("wait", "--for=delete", "pods", OPERATOR_PODS, OPERATOR, "--timeout=120s")
    yield
    start_operator()


def start_operator() -> None:
    """Scale to one operator."""
    kubectl("scale", installation.DEPLOYMENT, "--replicas=1", OPERATOR)
    kubectl("rollout", "status", installation.DEPLOYMENT, OPERATOR, "--timeout=300s")


OLD_STATUS = {
    "observedGeneration": 1,
    "ready": "0/1",
    "conditions": [
        {
            "type": "Ready",
            "status": "Unknown",
            "reason": "Converting",
            "message": "a word of an older version",
            "lastTransitionTime": "2025-01-01T00:00:00Z",
        }
    ],
    "targets": [{"format": "ONNX", "precision": "FP32", "state": "Converting", "reason": "Busy"}],
}


def test_status_of_older_operator_is_adopted(stopped_operator: None, space: Workspace) -> None:
    start(space)
    space.kubectl(
        "patch", "mx/model", "--subresource=status", "--type=merge", f"--patch={json.dumps({'status': OLD_STATUS})}"
    )
    time.sleep(1)
    assert space.read("mx/model")["status"] == OLD_STATUS
    start_operator()
    expect_ready(space)
    status = space.read("mx/model")["status"]
    assert [target["reason"] for target in status["targets"]] == ["Succeeded"]
    assert {condition["type"] for condition in status["conditions"]} == {"Ready", "Reconciling", "Stalled"}
    assert status["targets"][0]["artifact"]["uri"].startswith(f"s3://{RESULTS}/{space.name}/model/")


def written_at(space: Workspace, minio: Minio) -> dict[str | None, Any]:
    """The time at which each published file was written; without the page, which every publication writes anew."""
    found = minio.list_objects(bucket_name=RESULTS, prefix=f"{space.name}/", recursive=True)
    return {file.object_name: file.last_modified for file in found if not str(file.object_name).endswith(PAGE_FILE)}


def test_exporting_again_reuses_published_file(space: Workspace, minio: Minio) -> None:
    start(space)
    expect_ready(space)
    first = space.target("model")["artifact"]
    before = written_at(space, minio)
    space.kubectl("delete", "mx/model", "--cascade=foreground")
    space.apply(build_export("model", className=f"{space.name}-usual"))
    expect_ready(space)
    target = space.target("model")
    assert (target["artifact"], target["message"]) == (first, "an equal conversion had published this file already")
    assert written_at(space, minio) == before
