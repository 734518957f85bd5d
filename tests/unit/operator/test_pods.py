from typing import Any

import pytest

from modelexport_operator.pods import explain_pod_failure, explain_waiting, is_retried, tail
from unit.operator.objects import Body, ended, make_export, make_job, make_pod, result_text, waiting

DRAINED = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}]
NOT_DRAINED = [{**DRAINED[0], "status": "False"}]
ANSWER = result_text("CheckpointUnreadable", "no checkpoint")
CUT_OFF = ended(75, result_text("StorageUnavailable", "connection lost"))
SIDECAR = {"name": "mesh", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}


def pod(**status: Any) -> Body:
    return make_pod(make_job(make_export("ONNX/FP16"), "ONNX/FP16"), phase="Failed", **status)


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        ({"containerStatuses": ended(65, ANSWER)}, "CheckpointUnreadable", "no checkpoint"),
        ({"containerStatuses": ended(137, ANSWER, "OOMKilled")}, "OOMKilled", "more than 4096Mi of memory"),
        ({"containerStatuses": ended(137, "", "OOMKilled"), "conditions": DRAINED}, "OOMKilled", "was killed"),
        ({"containerStatuses": CUT_OFF, "conditions": DRAINED}, "Evicted", "EvictionByEvictionAPI: drained"),
        # The policy of the Job looks at the exit code first, and this one is final.
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
def test_the_clusters_word_for_a_failure_comes_before_the_converters(status: Body, reason: str, words: str) -> None:
    finding = explain_pod_failure(pod(**status))
    assert finding.reason == reason
    assert words in finding.message


def test_the_memory_that_is_told_is_the_converters_own() -> None:
    killed = pod(containerStatuses=ended(137, "", "OOMKilled"))
    mesh = {"name": "mesh", "resources": {"limits": {"memory": "64Mi"}}}
    killed["spec"]["containers"] = [mesh, *killed["spec"]["containers"]]
    assert "more than 4096Mi of memory" in explain_pod_failure(killed).message


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"containerStatuses": ended(65, ANSWER)}, False),
        ({"containerStatuses": ended(70, ANSWER)}, False),
        ({"containerStatuses": ended(75, ANSWER)}, True),
        ({"containerStatuses": ended(137)}, True),
        ({"conditions": DRAINED}, True),
        # The policy of the Job looks at the exit code first.
        ({"containerStatuses": ended(65, ANSWER), "conditions": DRAINED}, False),
    ],
)
def test_what_is_tried_again_is_what_the_policy_of_the_job_tries_again(status: Body, expected: bool) -> None:
    assert is_retried(pod(**status)) is expected


@pytest.mark.parametrize(
    ("kind", "why", "reason"),
    [
        ("PodScheduled", "Unschedulable", "Unschedulable"),
        ("PodScheduled", "SchedulingGated", "Queued"),
        ("example.com/Quota", "Unschedulable", "Queued"),
    ],
)
def test_only_the_schedulers_refusal_makes_a_pod_unschedulable(kind: str, why: str, reason: str) -> None:
    held = pod(conditions=[{"type": kind, "status": "False", "reason": why, "message": "0/3 nodes"}])
    assert explain_waiting(held).reason == reason


def test_a_container_that_others_put_into_the_pod_is_not_taken_for_the_converter() -> None:
    mesh = [{**waiting("ErrImagePull")[0], "name": "mesh"}]
    assert explain_waiting(pod(containerStatuses=[*mesh, *waiting("ContainerCreating")])).reason == "Queued"


@pytest.mark.parametrize(
    ("text", "expected"),
    [(" \n", "(nothing)"), ("a\n b", "a b"), ("x" * 300, "x" * 300), ("a" + "x" * 300, "…" + "x" * 300)],
)
def test_of_a_log_the_end_is_told_on_one_line(text: str, expected: str) -> None:
    assert tail(text) == expected
