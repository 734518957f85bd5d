"""Node pools, queues and limits against a real API server and a real Job controller; nodes are mere objects."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from integration.kubelet import meanwhile, play_kubelet, run, succeed
from integration.test_deletion import CLEAN, is_gone, removed, story
from testplane.api import CLASSES, EXPORTS, JOBS, NODES, PODS, Api, Body
from testplane.control_plane import ControlPlane
from testplane.objects import make_class, make_export, make_node
from testplane.process import Operator

pytestmark = pytest.mark.usefixtures("operator")

PRIORITIES = "/apis/scheduling.k8s.io/v1/priorityclasses"
POOL, QUEUE = "modelexport.dev/node-pool", "kueue.x-k8s.io/queue-name"
MakeClass = Callable[..., str]
MakeNode = Callable[..., str]
CALIBRATION = {"dataset": {"uri": "s3://datasets/shapes/calibration.zip"}, "samples": 512}
"""Large enough to prefer a pool with devices."""


@pytest.fixture
def new_class(api: Api) -> Iterator[MakeClass]:
    """Create classes for one test, and delete them at its end."""
    made: list[str] = []

    def create(**spec: Any) -> str:
        made.append(f"{api.namespace}-{len(made)}")
        api.create(CLASSES, make_class(made[-1], default=False, **spec))
        return made[-1]

    yield create
    for name in made:
        api.delete(CLASSES, name)


@pytest.fixture
def new_node(api: Api) -> Iterator[MakeNode]:
    """Create nodes that only this test's pools select, by the label ``test``; delete them at the end of the test."""
    made: list[str] = []

    def create(pool: str, **facts: Any) -> str:
        made.append(f"node-{uuid.uuid4().hex[:8]}")
        body = make_node(made[-1], labels={"test": f"{api.namespace}-{pool}"}, **facts)
        api.create(NODES, body)
        # A node cannot be created with a status; only its kubelet writes it.
        api.patch(f"{NODES}/{made[-1]}/status", {"status": body["status"]})
        return made[-1]

    yield create
    for name in made:
        api.delete(NODES, name)


def pool(api: Api, name: str, **fields: Any) -> Body:
    return {"name": name, "nodeSelector": {"test": f"{api.namespace}-{name}"}, **fields}


def apply(api: Api, *targets: str, name: str = "shapes", **spec: Any) -> None:
    body = make_export(*targets, **spec)
    body["metadata"] = {"name": name}
    api.create(EXPORTS, body)


def pools_of_jobs(api: Api) -> dict[str, str | None]:
    """The pool of each Job by its target."""
    found = [job["metadata"]["labels"] for job in api.list(JOBS)]
    targets = [f"{labels['modelexport.dev/format']}/{labels['modelexport.dev/precision']}" for labels in found]
    return {target: labels.get(POOL) for target, labels in zip(targets, found, strict=True)}


def reasons(api: Api, name: str = "shapes") -> dict[str, str]:
    return {target: entry["reason"] for target, entry in api.targets(name).items()}


def test_each_target_uses_first_suitable_pool(api: Api, new_class: MakeClass, new_node: MakeNode) -> None:
    taint = {"key": "arch", "value": "arm64", "effect": "NoSchedule"}
    gpu = pool(api, "gpu", work=["Calibration"], resources={"nvidia.com/gpu": 1, "memory": "6Gi"})
    name = new_class(nodePools=[pool(api, "arm", tolerations=[taint]), pool(api, "x86"), gpu])
    new_node("arm", arch="arm64", taints=["arch=arm64:NoSchedule"])
    new_node("x86")
    new_node("gpu", gpu=2)
    apply(api, "ONNX/FP32", "LiteRT/FP32", "ONNX/INT8", className=name, calibration=CALIBRATION)
    with play_kubelet(api):
        api.wait_for_reason("Succeeded")
    assert pools_of_jobs(api) == {"ONNX/FP32": "arm", "LiteRT/FP32": "x86", "ONNX/INT8": "gpu"}
    pods = {pod["metadata"]["labels"]["modelexport.dev/precision"]: pod["spec"] for pod in api.list(PODS)}
    container = pods["INT8"]["initContainers"][1]["resources"]
    assert container["limits"]["nvidia.com/gpu"] == container["requests"]["nvidia.com/gpu"] == "1"
    assert (container["requests"]["memory"], container["limits"]["memory"]) == ("6Gi", "6Gi")
    assert pods["INT8"]["nodeSelector"] == {"test": f"{api.namespace}-gpu"}


MISSING: dict[str, tuple[Body, Body, str]] = {
    "architecture": ({}, {"arch": "arm64"}, "needs a CPU of amd64, its nodes have arm64"),
    "taint": ({}, {"taints": ["team=other:NoSchedule"]}, "does not tolerate the taint team=other:NoSchedule"),
    "memory": ({}, {"memory": "1Gi"}, "of memory, its largest node has 1024Mi"),
    "CPU": ({"resources": {"cpu": "8"}}, {"cpu": "4"}, "needs 8000m of cpu, its largest node has 4000m"),
    "GPU": ({"resources": {"nvidia.com/gpu": 1}}, {}, "needs 1 of nvidia.com/gpu, its largest node has 0"),
}


@pytest.mark.parametrize("case", MISSING)
def test_missing_node_is_reported_and_target_starts_with_node(
    api: Api, new_class: MakeClass, new_node: MakeNode, case: str
) -> None:
    fields, facts, words = MISSING[case]
    new_node("x86", **facts)
    apply(api, "LiteRT/FP32", className=new_class(nodePools=[pool(api, "x86", **fields)]))
    body = api.wait_for_reason("NoSuitableNode")
    assert words in api.ready()["message"]
    states = {condition["type"]: condition["status"] for condition in body["status"]["conditions"]}
    assert states == {"Ready": "False", "Reconciling": "True", "Stalled": "False"}
    assert api.list(JOBS) == []
    new_node("x86", cpu="8", gpu=1)
    with play_kubelet(api):
        api.wait_for_reason("Succeeded")


def test_node_label_change_starts_waiting_target(api: Api, new_class: MakeClass, new_node: MakeNode) -> None:
    node = new_node("other")
    apply(api, "LiteRT/FP32", "ONNX/FP32", className=new_class(nodePools=[pool(api, "x86")]))
    api.wait_for_reason("NoSuitableNode")
    assert f"no node has the labels test={api.namespace}-x86" in api.ready()["message"]
    api.patch(f"{NODES}/{node}", {"metadata": {"labels": {"test": f"{api.namespace}-x86"}}})
    api.wait_for("both Jobs", lambda: len(api.list(JOBS)) == 2)


def test_on_demand_pool_gets_job_without_nodes(api: Api, new_class: MakeClass) -> None:
    apply(api, "LiteRT/FP32", className=new_class(nodePools=[pool(api, "x86", provisioned="OnDemand")]))
    api.wait_for("the Job", lambda: pools_of_jobs(api) == {"LiteRT/FP32": "x86"})


def test_class_change_starts_waiting_targets_only(api: Api, new_class: MakeClass, new_node: MakeNode) -> None:
    new_node("arm", arch="arm64")
    name = new_class(nodePools=[pool(api, "arm")])
    apply(api, "ONNX/FP32", "LiteRT/FP32", className=name)
    with play_kubelet(api, run):
        api.wait_for("ONNX to run", lambda: reasons(api) == {"ONNX/FP32": "Running", "LiteRT/FP32": "NoSuitableNode"})
        before = api.list(JOBS)[0]
        later = pool(api, "later", provisioned="OnDemand")
        api.patch(f"{CLASSES}/{name}", {"spec": {"nodePools": [later], "converter": {"image": "other:2"}}})
        api.wait_for("both to run", lambda: set(reasons(api).values()) == {"Running"})
    jobs = {job["metadata"]["labels"]["modelexport.dev/format"]: job for job in api.list(JOBS)}
    assert jobs["ONNX"]["metadata"]["uid"] == before["metadata"]["uid"]
    images = {name: job["spec"]["template"]["spec"]["containers"][0]["image"] for name, job in jobs.items()}
    assert images == {"ONNX": "registry.example/modelexport-converter:1.0", "LiteRT": "other:2"}
    assert pools_of_jobs(api) == {"ONNX/FP32": "arm", "LiteRT/FP32": "later"}


THREE = ("ONNX/FP32", "ONNX/FP16", "ONNX/INT8")


def test_active_targets_respect_class_limit_until_all_complete(api: Api, new_class: MakeClass) -> None:
    name = new_class(jobs={"parallelism": 2})
    for index in range(3):
        apply(api, *THREE, name=f"shapes-{index}", className=name)
    api.wait_for("the first Jobs", lambda: len(api.list(JOBS)) >= 2)  # No Pod ends before the kubelet is played.
    most = len(api.list(JOBS))
    with play_kubelet(api):
        while not all(api.ready(f"shapes-{index}").get("reason") == "Succeeded" for index in range(3)):
            most = max(most, sum(not job["status"].get("completionTime") for job in api.list(JOBS)))
    assert most == 2
    assert len(api.list(JOBS)) == 9


def test_waiting_target_reports_limit_and_starts_when_raised(api: Api, new_class: MakeClass) -> None:
    name = new_class(jobs={"parallelismPerNamespace": 1})
    apply(api, *THREE, className=name)
    with play_kubelet(api, run):
        api.wait_for("one to run", lambda: list(reasons(api).values()) == ["Running", "LimitReached", "LimitReached"])
        told = api.targets()["ONNX/INT8"]["message"]
        assert f"runs 1 of namespace {api.namespace} at once (spec.jobs.parallelismPerNamespace)" in told
        assert told.endswith("number 2 in line")
        api.patch(f"{CLASSES}/{name}", {"spec": {"jobs": {"parallelismPerNamespace": 3}}})
        api.wait_for("all to run", lambda: set(reasons(api).values()) == {"Running"})


def test_busy_namespace_does_not_starve_others(api: Api, new_class: MakeClass, another: Api) -> None:
    name = new_class(jobs={"parallelism": 2})
    apply(api, *THREE, className=name)
    api.wait_for("two Jobs", lambda: len(api.list(JOBS)) == 2)
    apply(another, "ONNX/FP32", className=name)
    another.wait_for_reason("LimitReached")
    with play_kubelet(api, {"ONNX/FP32": [succeed], "ONNX/FP16": [run], "ONNX/INT8": [run]}):
        another.wait_for("its Job", lambda: another.list(JOBS))
    assert reasons(api)["ONNX/INT8"] == "LimitReached"


@pytest.fixture
def another(api: Api, plane: ControlPlane) -> Iterator[Api]:
    """A second namespace."""
    other = Api(plane, f"{api.namespace}-b")
    other.create("/api/v1/namespaces", {"metadata": {"name": other.namespace}})
    yield other
    other.delete("/api/v1/namespaces", other.namespace)


def test_resumed_export_waits_for_capacity(api: Api, new_class: MakeClass) -> None:
    name = new_class(jobs={"parallelism": 1})
    apply(api, "ONNX/FP32", className=name)
    with play_kubelet(api, run):
        api.wait_for("it to run", lambda: reasons(api) == {"ONNX/FP32": "Running"})
        api.patch(f"{EXPORTS}/shapes", {"spec": {"suspend": True}})
        apply(api, "ONNX/FP32", name="second", className=name)
        api.wait_for("the second to take its place", lambda: reasons(api, "second") == {"ONNX/FP32": "Running"})
        api.patch(f"{EXPORTS}/shapes", {"spec": {"suspend": False}})
        api.wait_for_reason("LimitReached")
        stopped = [job["metadata"]["name"] for job in api.list(JOBS) if job["spec"]["suspend"]]
        assert stopped == [api.targets()["ONNX/FP32"]["jobName"]]
        api.delete(EXPORTS, "second")
        api.wait_for("the first to go on", lambda: reasons(api) == {"ONNX/FP32": "Running"})


def test_new_operator_counts_running_jobs_before_starting(
    api: Api, new_class: MakeClass, plane: ControlPlane, tmp_path: Path
) -> None:
    apply(api, *THREE, className=new_class(jobs={"parallelism": 1}))
    with play_kubelet(api, run):
        api.wait_for("one to run", lambda: "Running" in reasons(api).values())
        with Operator(plane.address, tmp_path, plane.certificate).running():
            api.patch(f"{EXPORTS}/shapes", {"spec": {"ttlSecondsAfterFinished": 9999}})
            api.wait_for("the new generation", lambda: api.ready().get("observedGeneration") == 2)
    assert len(api.list(JOBS)) == 1


@contextmanager
def play_kueue(api: Api) -> Iterator[None]:
    """Simulate Kueue: admit every queued Job, whoever suspended it, as its reconciler does."""

    def look() -> None:
        for job in api.list(JOBS):
            if job["spec"].get("suspend") and job["metadata"]["labels"].get(QUEUE):
                api.patch(f"{JOBS}/{job['metadata']['name']}", {"spec": {"suspend": False}})

    with meanwhile(look):
        yield


def test_queued_job_is_created_suspended_and_runs_when_admitted(api: Api, new_class: MakeClass) -> None:
    name = new_class(jobs={"queueName": "exports"})
    apply(api, "ONNX/FP32", className=name)
    api.wait_for("the Job", lambda: api.list(JOBS))
    api.patch(f"{EXPORTS}/shapes", {"spec": {"ttlSecondsAfterFinished": 9999}})
    api.wait_for("another sync", lambda: api.ready().get("observedGeneration") == 2)
    [job] = api.list(JOBS)
    assert (job["spec"]["suspend"], job["metadata"]["labels"][QUEUE]) == (True, "exports")
    target = api.targets()["ONNX/FP32"]
    assert (target["state"], target["reason"]) == ("Queued", "Queued")
    assert target["message"].startswith("Waits for Kueue to admit it from the queue exports")
    assert api.list(PODS) == []
    with play_kueue(api), play_kubelet(api):
        api.wait_for_reason("Succeeded")
    assert QUEUE not in api.list(PODS)[0]["metadata"]["labels"]


def test_export_in_queue_suspends_and_resumes_despite_kueue(api: Api, new_class: MakeClass) -> None:
    apply(api, "ONNX/FP32", className=new_class(jobs={"queueName": "exports"}))
    with play_kueue(api):
        with play_kubelet(api, run):
            api.wait_for("it to run", lambda: reasons(api) == {"ONNX/FP32": "Running"})
            api.patch(f"{EXPORTS}/shapes", {"spec": {"suspend": True}})
            api.wait_for("everything to go", lambda: not api.list(JOBS) and not api.list(PODS))
            api.wait_for_reason("Suspended")
        assert reasons(api) == {"ONNX/FP32": "Suspended"}
        api.patch(f"{EXPORTS}/shapes", {"spec": {"suspend": False}})
        with play_kubelet(api):
            api.wait_for_reason("Succeeded")


def test_export_in_queue_is_deleted_despite_kueue(api: Api, new_class: MakeClass) -> None:
    apply(api, "ONNX/FP32", className=new_class(jobs={"queueName": "exports"}), deletionPolicy="Delete")
    with play_kueue(api), play_kubelet(api, {"ONNX/FP32": [run], CLEAN: [removed]}):
        api.wait_for("it to run", lambda: reasons(api) == {"ONNX/FP32": "Running"})
        api.delete(EXPORTS, "shapes")
        api.wait_for("the export to go", lambda: is_gone(api))
    api.wait_for("the end to be told", lambda: story(api))
    assert story(api) == {"FilesRemoved": "2 files were removed"}
    assert not [job for job in api.list(JOBS) if job["metadata"]["labels"].get(QUEUE)]


def test_job_stopped_by_kueue_waits_for_next_admission(api: Api, new_class: MakeClass) -> None:
    apply(api, "ONNX/FP32", className=new_class(jobs={"queueName": "exports"}))
    with play_kubelet(api, run):
        with play_kueue(api):
            api.wait_for("it to run", lambda: reasons(api) == {"ONNX/FP32": "Running"})
        api.patch(f"{JOBS}/{api.list(JOBS)[0]['metadata']['name']}", {"spec": {"suspend": True}})
        api.wait_for("it to wait again", lambda: reasons(api) == {"ONNX/FP32": "Queued"})
        api.wait_for("its Pod to go", lambda: not api.list(PODS))
    assert api.list(JOBS)[0]["spec"]["suspend"]


def test_queued_job_reports_missing_kueue(api: Api, new_class: MakeClass) -> None:
    apply(api, "ONNX/FP32", className=new_class(jobs={"queueName": "exports"}))
    api.wait_for("the words", lambda: "is Kueue 0.15 or later installed?" in str(api.targets()))
    assert reasons(api) == {"ONNX/FP32": "Queued"}


def test_pods_get_class_priority(api: Api, new_class: MakeClass) -> None:
    apply(api, "ONNX/FP32", className=new_class(jobs={"priorityClassName": "system-node-critical"}))
    api.wait_for("the Pod", lambda: api.list(PODS))
    assert api.list(PODS)[0]["spec"]["priority"] == 2_000_001_000


def test_rejected_pod_is_reported_and_created_once_allowed(api: Api, new_class: MakeClass) -> None:
    priority = f"{api.namespace}-urgent"
    apply(api, "ONNX/FP32", className=new_class(jobs={"priorityClassName": priority}))
    api.wait_for("the refusal", lambda: reasons(api) == {"ONNX/FP32": "PodRefused"})
    assert f"no PriorityClass with name {priority} was found" in api.targets()["ONNX/FP32"]["message"]
    api.create(PRIORITIES, {"metadata": {"name": priority}, "value": 1000})
    with play_kubelet(api):
        api.wait_for_reason("Succeeded")
    api.delete(PRIORITIES, priority)
