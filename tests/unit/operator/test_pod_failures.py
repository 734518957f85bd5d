from typing import Any

import pytest

from modelexport_operator.jobs.pod_failures import explain_pod_failure, explain_waiting, is_retried, is_running, tail
from unit.operator.objects import Body, ended, make_export, make_job, make_pod, result_text, waiting

DRAINED = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}]
NOT_DRAINED = [{**DRAINED[0], "status": "False"}]
ANSWER = result_text("CheckpointUnreadable", "no checkpoint")
CUT_OFF = ended(75, result_text("StorageUnavailable", "connection lost"))
SIDECAR = {"name": "mesh", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}


def in_convert(exit_code: int, message: str = "", reason: str = "Error") -> Body:
    """Statuses of a Pod whose second container has failed."""
    before, failed = ended(0, container="fetch"), ended(exit_code, message, reason, container="convert")
    return {"initContainerStatuses": [*before, *failed], "containerStatuses": waiting("PodInitializing")}


def pod(**status: Any) -> Body:
    return make_pod(make_job(make_export("ONNX/FP16"), "ONNX/FP16"), phase="Failed", **status)


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        ({"containerStatuses": ended(65, ANSWER)}, "CheckpointUnreadable", "no checkpoint"),
        ({"containerStatuses": ended(137, ANSWER, "OOMKilled")}, "OOMKilled", "more than 256Mi of memory"),
        (in_convert(137, ANSWER, "OOMKilled"), "OOMKilled", "more than 4096Mi of memory"),
        (in_convert(65, ANSWER), "CheckpointUnreadable", "no checkpoint"),
        (in_convert(70, ""), "InternalError", "with exit code 70 and without a result"),
        # The container without credentials cannot have published anything, whatever its message.
        (in_convert(70, result_text()), "InternalError", "with exit code 70 and without a result"),
        (in_convert(128, "no such file", "StartError"), "PodStartFailed", "no such file"),
        ({**in_convert(75, ANSWER), "conditions": DRAINED}, "Evicted", "EvictionByEvictionAPI: drained"),
        ({"initContainerStatuses": [SIDECAR, *ended(65, ANSWER, container="fetch")]}, "CheckpointUnreadable", "no"),
        ({"containerStatuses": ended(65, ANSWER, container="converter")}, "CheckpointUnreadable", "no checkpoint"),
        ({"containerStatuses": ended(137, "", "OOMKilled"), "conditions": DRAINED}, "OOMKilled", "was killed"),
        ({"containerStatuses": CUT_OFF, "conditions": DRAINED}, "Evicted", "EvictionByEvictionAPI: drained"),
        # The failure policy of the Job checks the exit code first, and this one is final.
        ({"containerStatuses": ended(65, ANSWER), "conditions": DRAINED}, "CheckpointUnreadable", "no checkpoint"),
        ({"containerStatuses": CUT_OFF, "conditions": NOT_DRAINED}, "StorageUnavailable", "connection lost"),
        ({"containerStatuses": ended(65, ANSWER), "reason": "NodeLost"}, "CheckpointUnreadable", "no checkpoint"),
        ({"containerStatuses": ended(1, result_text())}, "InternalError", "with exit code 1 and without a result"),
        ({"containerStatuses": ended(128, "no such file", "StartError")}, "PodStartFailed", "no such file"),
        ({"containerStatuses": ended(127, "no such file", "ContainerCannotRun")}, "PodStartFailed", "no such file"),
        ({"containerStatuses": [SIDECAR, *ended(65, ANSWER)]}, "CheckpointUnreadable", "no checkpoint"),
        ({"containerStatuses": ended(1)}, "InternalError", "without a result: (nothing)"),
    ],
)
def test_cluster_reason_precedes_converter_reason(status: Body, reason: str, words: str) -> None:
    finding = explain_pod_failure(pod(**status))
    assert finding.reason == reason
    assert words in finding.message


def test_reported_memory_belongs_to_converter() -> None:
    killed = pod(**in_convert(137, "", "OOMKilled"))
    mesh = {"name": "mesh", "resources": {"limits": {"memory": "64Mi"}}}
    for kind in ("containers", "initContainers"):
        killed["spec"][kind] = [mesh, *killed["spec"][kind]]
    assert "more than 4096Mi of memory" in explain_pod_failure(killed).message


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"containerStatuses": ended(65, ANSWER)}, False),
        ({"containerStatuses": ended(70, ANSWER)}, False),
        ({"containerStatuses": ended(75, ANSWER)}, True),
        ({"containerStatuses": ended(137)}, True),
        (in_convert(65, ANSWER), False),
        (in_convert(75, ANSWER), True),
        ({"conditions": DRAINED}, True),
        # The failure policy of the Job checks the exit code first.
        ({"containerStatuses": ended(65, ANSWER), "conditions": DRAINED}, False),
    ],
)
def test_retries_follow_pod_failure_policy(status: Body, expected: bool) -> None:
    assert is_retried(pod(**status)) is expected


@pytest.mark.parametrize(
    ("kind", "why", "reason"),
    [
        ("PodScheduled", "Unschedulable", "Unschedulable"),
        ("PodScheduled", "SchedulingGated", "Queued"),
        ("example.com/Quota", "Unschedulable", "Queued"),
    ],
)
def test_only_scheduler_rejection_is_unschedulable(kind: str, why: str, reason: str) -> None:
    held = pod(conditions=[{"type": kind, "status": "False", "reason": why, "message": "0/3 nodes"}])
    assert explain_waiting(held).reason == reason


RUNNING = {"name": "convert", "state": {"running": {"startedAt": "2026-01-02T03:00:00Z"}}}
MESH = {"name": "mesh", "state": RUNNING["state"]}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"phase": "Running"}, True),
        ({"phase": "Pending"}, False),
        ({"phase": "Pending", "initContainerStatuses": [*ended(0, container="fetch"), RUNNING]}, True),
        ({"phase": "Pending", "initContainerStatuses": ended(0, container="fetch")}, True),
        ({"phase": "Pending", "initContainerStatuses": [MESH]}, False),
        ({"phase": "Pending", "initContainerStatuses": waiting("PodInitializing", container="fetch")}, False),
        ({**in_convert(0), "phase": "Pending", "containerStatuses": waiting("ErrImagePull")}, False),
        ({**in_convert(65), "phase": "Failed"}, False),
    ],
)
def test_pod_is_active_from_first_container(status: Body, expected: bool) -> None:
    body: Body = {**pod(), "status": status}
    assert is_running(body) is expected


@pytest.mark.parametrize("container", ["fetch", "convert", "publish", "converter"])
@pytest.mark.parametrize(
    ("word", "reason"), [("ErrImagePull", "ImagePullFailed"), ("CreateContainerConfigError", "PodStartFailed")]
)
def test_any_unstartable_container_is_reported(container: str, word: str, reason: str) -> None:
    kind = "containerStatuses" if container in ("publish", "converter") else "initContainerStatuses"
    assert explain_waiting(pod(**{kind: waiting(word, "details", container)})).reason == reason


def test_injected_container_is_not_converter() -> None:
    mesh = [{**waiting("ErrImagePull")[0], "name": "mesh"}]
    assert explain_waiting(pod(containerStatuses=[*mesh, *waiting("ContainerCreating")])).reason == "Queued"


@pytest.mark.parametrize(
    ("text", "expected"),
    [(" \n", "(nothing)"), ("a\n b", "a b"), ("x" * 300, "x" * 300), ("a" + "x" * 300, "…" + "x" * 300)],
)
def test_log_tail_is_shown_on_one_line(text: str, expected: str) -> None:
    assert tail(text) == expected
