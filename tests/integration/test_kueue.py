"""The real Kueue queues our Jobs, and our targets report it; the tests simulate the kubelet."""

from collections.abc import Iterator
from typing import Any

import pytest

from integration.kubelet import play_kubelet, run
from integration.kueue import CHECKS, LOCAL_QUEUES, PRIORITIES, WORKLOADS, Queue, create, start_kueue
from integration.test_deletion import CLEAN, is_gone, removed, story
from testplane.api import CLASSES, EXPORTS, JOBS, PODS, Api, Body
from testplane.control_plane import ControlPlane, start_control_plane
from testplane.installation import install_definitions
from testplane.objects import make_class, make_export

pytestmark = pytest.mark.usefixtures("operator")

FOUR = ("ONNX/FP32", "ONNX/FP16", "ONNX/INT8", "LiteRT/FP32")
NOW = "2026-01-02T03:04:05Z"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A separate control plane with Kueue, whose webhooks see every Job there."""
    with start_control_plane(tmp_path_factory.mktemp("plane")) as plane:
        install_definitions(plane)
        with start_kueue(plane, tmp_path_factory.mktemp("kueue")):
            yield plane


@pytest.fixture
def queue(api: Api) -> Queue:
    return Queue(api)


def apply(api: Api, *targets: str, jobs: Body | None = None, **spec: Any) -> None:
    """Create an export with a class of its own, whose Jobs go through the queue of the namespace."""
    api.create(CLASSES, make_class(api.namespace, default=False, jobs={"queueName": "exports", **(jobs or {})}))
    body = make_export(*targets, className=api.namespace, **spec)
    body["metadata"] = {"name": "shapes"}
    api.create(EXPORTS, body)


def told(api: Api) -> list[tuple[str, str]]:
    """Reason and message of each target."""
    return [(entry["reason"], entry["message"]) for entry in api.targets().values()]


def reasons(api: Api) -> list[str]:
    return sorted(reason for reason, _ in told(api))


def wait_for_words(api: Api, reason: str, words: str) -> None:
    """Wait until a target has a reason, and a message with these words."""
    api.wait_for(f"{reason}: {words}", lambda: any(one == reason and words in message for one, message in told(api)))


def own_job(name: str, cpu: str, **labels: str) -> Body:
    """A Job of another user in the same queue."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    resources = {"requests": {"cpu": cpu, "memory": "1Gi"}}
    container = {"name": "main", "image": "main", "resources": resources, "securityContext": security}
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    metadata = {"name": name, "labels": {"kueue.x-k8s.io/queue-name": "exports", **labels}}
    return {"metadata": metadata, "spec": {"suspend": True, "template": {"spec": pod}}}


def is_admitted(api: Api, job: str) -> bool:
    return not api.get(JOBS, job)["spec"]["suspend"]


def create_priority(api: Api, name: str, value: int = 1000) -> str:
    """Create a WorkloadPriorityClass that only this test uses."""
    create(api, PRIORITIES, "WorkloadPriorityClass", f"{api.namespace}-{name}", value=value)
    return f"{api.namespace}-{name}"


def test_kueue_admits_suspended_job_of_its_queue(api: Api, queue: Queue) -> None:
    queue.create()
    api.create(JOBS, own_job("plain", "1"))
    api.wait_for("its admission", lambda: is_admitted(api, "plain"))


def test_targets_over_quota_wait_and_complete(api: Api, queue: Queue) -> None:
    queue.create(cpu="2")
    apply(api, *FOUR)
    with play_kubelet(api, run):
        wait_for_words(api, "Queued", "Waits for quota in the queue exports: couldn't assign flavors to pod set main")
        api.wait_for("two to run", lambda: reasons(api) == ["Queued", "Queued", "Running", "Running"])
        assert any("insufficient unused quota for cpu" in message for _, message in told(api))
        api.patch(f"{EXPORTS}/shapes", {"spec": {"suspend": True}})
        api.wait_for("Jobs and Workloads to go", lambda: not api.list(JOBS) and not api.list(WORKLOADS))
    with play_kubelet(api):
        api.patch(f"{EXPORTS}/shapes", {"spec": {"suspend": False}})
        api.wait_for_reason("Succeeded")

    def is_finished(workload: Body) -> bool:
        return any((c["type"], c["status"]) == ("Finished", "True") for c in workload["status"]["conditions"])

    api.wait_for("Kueue to see that", lambda: all(map(is_finished, api.list(WORKLOADS))))
    assert len(api.list(WORKLOADS)) == len(FOUR)


def test_preempted_targets_report_it_and_run_again(api: Api, queue: Queue) -> None:
    queue.create(cpu="2")
    urgent = create_priority(api, "urgent")
    apply(api, "ONNX/FP32", "ONNX/FP16")
    with play_kubelet(api, run):
        api.wait_for("both to run", lambda: reasons(api) == ["Running", "Running"])
        api.create(JOBS, own_job("urgent", "2", **{"kueue.x-k8s.io/priority-class": urgent}))
        api.wait_for("its admission", lambda: is_admitted(api, "urgent"))
        api.wait_for("both to stop", lambda: reasons(api) == ["Preempted", "Preempted"])
        wait_for_words(api, "Preempted", "due to prioritization in the ClusterQueue")
        api.delete(JOBS, "urgent")
        api.wait_for("both to run again", lambda: reasons(api) == ["Running", "Running"])


def test_higher_workload_priority_goes_first(api: Api, queue: Queue) -> None:
    queue.create(cpu="1")
    soon = create_priority(api, "soon")
    api.create(JOBS, own_job("first", "1"))
    api.wait_for("its admission", lambda: is_admitted(api, "first"))
    apply(api, "ONNX/FP32", jobs={"workloadPriorityClassName": soon})
    with play_kubelet(api, run):
        api.wait_for("the target to run", lambda: reasons(api) == ["Running"])
    assert not is_admitted(api, "first")
    workloads = {one["metadata"]["ownerReferences"][0]["name"]: one["spec"] for one in api.list(WORKLOADS)}
    assert workloads[api.targets()["ONNX/FP32"]["jobName"]]["priority"] == 1000
    assert all(pod["spec"].get("priority") == 0 for pod in api.list(PODS))


def test_missing_workload_priority_class_is_reported(api: Api, queue: Queue) -> None:
    queue.create()
    missing = f"{api.namespace}-soon"
    apply(api, "ONNX/FP32", jobs={"workloadPriorityClassName": missing})
    wait_for_words(
        api, "Queued", f"no Workload for the Job: does Kueue run, and does the WorkloadPriorityClass {missing}"
    )
    create_priority(api, "soon")
    with play_kubelet(api):
        api.wait_for_reason("Succeeded")


def test_missing_queue_is_reported_until_it_exists(api: Api, queue: Queue) -> None:
    apply(api, "ONNX/FP32")
    wait_for_words(api, "Inadmissible", "LocalQueue exports doesn't exist. Create or start the Kueue queue")
    assert "Inadmissible: Kueue cannot admit it from the queue exports" in api.ready()["message"]
    api.wait_for_event("Inadmissible")
    queue.create()
    with play_kubelet(api):
        api.wait_for_reason("Succeeded")


def test_quota_too_small_for_job_is_reported(api: Api, queue: Queue) -> None:
    queue.create(cpu="500m")
    apply(api, "ONNX/FP32")
    wait_for_words(api, "Inadmissible", f"insufficient quota for cpu in flavor {api.namespace}")
    queue.resize("1")
    with play_kubelet(api):
        api.wait_for_reason("Succeeded")


def test_stopped_queue_is_reported_until_resumed(api: Api, queue: Queue) -> None:
    queue.create()
    apply(api, "ONNX/FP32")
    with play_kubelet(api, run):
        api.wait_for("it to run", lambda: reasons(api) == ["Running"])
        api.patch(f"{LOCAL_QUEUES}/exports", {"spec": {"stopPolicy": "HoldAndDrain"}})
        wait_for_words(api, "Inadmissible", "LocalQueue")
        api.patch(f"{LOCAL_QUEUES}/exports", {"spec": {"stopPolicy": "None"}})
        api.wait_for("it to run again", lambda: reasons(api) == ["Running"])


def test_pending_admission_check_is_named(api: Api, queue: Queue) -> None:
    check = f"{api.namespace}-nodes"
    create(api, CHECKS, "AdmissionCheck", check, spec={"controllerName": "modelexport.dev/played"})
    active = {"type": "Active", "status": "True", "reason": "Active", "message": "", "lastTransitionTime": NOW}
    api.patch(f"{CHECKS}/{check}/status", {"status": {"conditions": [active]}})
    queue.create(checks=(check,))
    apply(api, "ONNX/FP32")
    wait_for_words(api, "Queued", f"Waits for the admission checks of the queue exports: {check} is Pending")
    [workload] = api.list(WORKLOADS)
    [state] = workload["status"]["admissionChecks"]
    ready = state | {"state": "Ready", "message": "", "lastTransitionTime": NOW}
    api.patch(f"{WORKLOADS}/{workload['metadata']['name']}/status", {"status": {"admissionChecks": [ready]}})
    with play_kubelet(api):
        api.wait_for_reason("Succeeded")


def test_export_in_queue_is_deleted_with_its_files(api: Api, queue: Queue) -> None:
    queue.create()
    apply(api, "ONNX/FP32", deletionPolicy="Delete")
    with play_kubelet(api, {"ONNX/FP32": [run], CLEAN: [removed]}):
        api.wait_for("it to run", lambda: reasons(api) == ["Running"])
        api.delete(EXPORTS, "shapes")
        api.wait_for("the export to go", lambda: is_gone(api))
    api.wait_for("the end to be told", lambda: story(api))
    assert story(api) == {"FilesRemoved": "2 files were removed"}
    api.wait_for("its Workload to go", lambda: not api.list(WORKLOADS))
