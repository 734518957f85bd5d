"""Limits, Kueue's queues and priorities on the real node; Kueue's own part, to admit, is played by kubectl."""

import json
from collections.abc import Iterator

import pytest

from e2e.support import Workspace, build_export
from testcluster.bootstrap import kubectl

PRIORITY = 1000


@pytest.fixture
def priority_class(space: Workspace) -> Iterator[str]:
    """A PriorityClass that goes with the test."""
    kubectl("create", "priorityclass", space.name, f"--value={PRIORITY}")
    yield space.name
    kubectl("delete", "priorityclass", space.name)


def test_limit_of_one_serialises_targets(space: Workspace) -> None:
    class_name = space.create_class(jobs={"parallelism": 1})
    space.apply(build_export("model", "ONNX/FP32", "ONNX/FP16", className=class_name))
    space.wait("mx/model", "jsonpath={.status.targets[1].reason}=LimitReached")
    assert len(space.read_all("jobs")) == 1
    space.wait("mx/model", "condition=Ready")
    first, second = sorted(space.read_all("jobs"), key=lambda job: str(job["metadata"]["creationTimestamp"]))
    assert second["status"]["startTime"] >= first["status"]["completionTime"]


def test_job_in_queue_runs_after_kueue_admits_it_with_priority(space: Workspace, priority_class: str) -> None:
    class_name = space.create_class(jobs={"queueName": "team", "priorityClassName": priority_class})
    space.apply(build_export("model", className=class_name))
    assert "from the queue team" in space.wait_for_reason("model", "Queued")["message"]
    [job] = space.read_all("jobs")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert space.read_all("pods") == []
    admitted = json.dumps({"spec": {"suspend": False}})
    space.kubectl("patch", "job", job["metadata"]["name"], "--type=merge", f"--patch={admitted}")
    space.wait("mx/model", "condition=Ready")
    [pod] = space.read_all("pods")
    assert pod["spec"]["priority"] == PRIORITY
    target = space.target("model")
    assert (target["precision"], target["reason"]) == ("FP32", "Succeeded")
