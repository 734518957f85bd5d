from typing import Any

import pytest

from modelexport.api.reasons import Reason
from modelexport_operator.jobs.diagnosis import Diagnosis
from modelexport_operator.jobs.state import TargetState, lacks_pod, observe_target, shorten
from testplane.objects import (
    Body,
    complete,
    ended,
    failed,
    make_export,
    make_job,
    make_pod,
    make_target,
    result_text,
)

GIVEN_UP = {"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded", "lastTransitionTime": "t"}
POD_STATUS: dict[str, Body] = {
    "Pending": {"phase": "Pending"},
    "Running": {"phase": "Running"},
    "Succeeded": {"phase": "Succeeded", "containerStatuses": ended(0, result_text())},
    "Failed": {"phase": "Failed", "containerStatuses": ended(70, result_text("ConversionFailed", "cannot"))},
}


def job_with(**changes: Any) -> Body:
    return make_job(make_export("ONNX/FP16"), "ONNX/FP16", **changes)


def observe(job: Body, *pods: Body, is_all: bool = False, was: Diagnosis | None = None) -> TargetState:
    return observe_target(make_target("ONNX/FP16"), job, pods, all_pods_listed=is_all, previous=was)


def observe_phases(status: Body, *phases: str, is_all: bool = False) -> TargetState:
    job = job_with(status=status)
    return observe(job, *(make_pod(job, index, **POD_STATUS[p]) for index, p in enumerate(phases)), is_all=is_all)


@pytest.mark.parametrize(
    ("status", "phases", "is_all", "state"),
    [
        (complete(), ["Succeeded"], False, "Succeeded"),
        (complete(), ["Failed", "Succeeded"], False, "Succeeded"),
        (complete(), ["Failed"], False, "Running"),
        (complete(), ["Running", "Succeeded"], False, "Running"),
        (complete(), [], False, "Running"),
        (complete(), [], True, "Failed"),
        (failed("PodFailurePolicy"), ["Failed"], False, "Failed"),
        (failed("PodFailurePolicy"), ["Failed", "Running"], False, "Running"),
        (failed("PodFailurePolicy"), ["Succeeded"], False, "Running"),
        (failed("PodFailurePolicy"), [], False, "Running"),
        (failed("PodFailurePolicy"), [], True, "Failed"),
        (failed("BackoffLimitExceeded", count=2), ["Failed"], False, "Running"),
        (failed("BackoffLimitExceeded", count=2), ["Failed"], True, "Failed"),
        (failed("BackoffLimitExceeded", count=2), ["Failed", "Failed"], False, "Failed"),
        (failed("DeadlineExceeded"), [], False, "Failed"),
        (failed("DeadlineExceeded"), ["Running"], False, "Failed"),
    ],
)
def test_outcome_needs_pod_result_or_complete_pod_list(
    status: Body, phases: list[str], is_all: bool, state: str
) -> None:
    assert observe_phases(status, *phases, is_all=is_all).state == state


@pytest.mark.parametrize("order", [1, -1])
def test_newest_pod_decides_in_any_order(order: int) -> None:
    job = job_with(status=failed("BackoffLimitExceeded", count=2))
    older = make_pod(job, 9, "a", phase="Failed", containerStatuses=ended(75, result_text("StorageUnavailable", "no")))
    newer = make_pod(job, 10, "b", phase="Failed", containerStatuses=ended(75, result_text("InternalError", "odd")))
    state = observe(job, *(older, newer)[::order])
    assert (state.reason, state.node_name) == ("InternalError", "b")


def test_newest_unfinished_pod_gives_target_state() -> None:
    assert observe_phases({"active": 1}, "Running", "Pending").state == "Queued"
    assert observe_phases({"active": 1}, "Pending", "Running").state == "Running"


def test_stale_running_pod_does_not_hide_failure() -> None:
    assert observe_phases(failed("BackoffLimitExceeded"), "Failed", "Running", is_all=True).reason == "ConversionFailed"


@pytest.mark.parametrize(("failures", "reason"), [(1, "Retrying"), (3, "Retrying"), (4, "Running")])
def test_retry_is_announced_only_while_retries_remain(failures: int, reason: str) -> None:
    job = job_with(status={"failed": failures})
    assert observe(job, make_pod(job, phase="Failed", containerStatuses=ended(75))).reason == reason


@pytest.mark.parametrize(("status", "reason"), [("True", "Running"), ("False", "Retrying")])
def test_failed_job_announces_no_retry(status: str, reason: str) -> None:
    job = job_with(status={"failed": 1, "conditions": [{**GIVEN_UP, "status": status}]})
    assert observe(job, make_pod(job, phase="Failed", containerStatuses=ended(137))).reason == reason


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": {"startTime": "t"}}, True),
        ({"status": {"startTime": "t", "failed": 1}}, True),
        ({}, False),
        ({"status": {"startTime": "t", "active": 1}}, False),
        ({"status": complete()}, False),
        ({"status": {"startTime": "t"}, "suspend": True}, False),
        ({"status": {"startTime": "t"}, "deletionTimestamp": "t"}, False),
    ],
)
def test_job_lacks_pod_only_after_job_controller_started(changes: Body, expected: bool) -> None:
    job = job_with(**changes)
    assert lacks_pod(job, []) is expected
    assert not lacks_pod(job, [make_pod(job)])


@pytest.mark.parametrize("kind", ["Complete", "Failed"])
def test_false_condition_ends_nothing(kind: str) -> None:
    job = job_with(status={"active": 1, "conditions": [{**GIVEN_UP, "type": kind, "status": "False"}]})
    assert observe(job, make_pod(job, phase="Running"), is_all=True).state == "Running"


@pytest.mark.parametrize(
    ("was", "reason"),
    [
        (Reason.UNSCHEDULABLE, Reason.UNSCHEDULABLE),
        (Reason.IMAGE_PULL_FAILED, Reason.IMAGE_PULL_FAILED),
        (Reason.POD_START_FAILED, Reason.POD_START_FAILED),
        (Reason.POD_REFUSED, Reason.POD_REFUSED),
        (Reason.QUEUED, Reason.DEADLINE_EXCEEDED),
        (Reason.RETRYING, Reason.DEADLINE_EXCEEDED),
    ],
)
def test_deadline_is_blamed_on_pod_waiting_reason(was: Reason, reason: Reason) -> None:
    state = observe(job_with(status=failed("DeadlineExceeded")), was=Diagnosis(was, "words"))
    assert state.reason is reason
    assert ("was not seen to start" in state.message) is (was is Reason.QUEUED)


@pytest.mark.parametrize("text", ["", "Traceback", result_text("ConversionFailed", "cannot")])
def test_success_exit_without_result_is_internal_error(text: str) -> None:
    job = job_with(status=complete())
    state = observe(job, make_pod(job, phase="Succeeded", containerStatuses=ended(0, text)))
    assert (state.state, state.reason) == ("Failed", "InternalError")


def test_target_ends_at_job_completion_time() -> None:
    status = {**complete("2026-01-02T03:02:00Z"), "completionTime": "2026-01-02T03:01:59Z"}
    assert observe_phases(status, "Succeeded").completion_time == "2026-01-02T03:01:59Z"


def test_only_overlong_message_is_cut() -> None:
    assert shorten("x" * 1024) == "x" * 1024
    assert shorten("x" * 1025) == "x" * 1023 + "…"
