from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from modelexport.matrix import support
from modelexport_operator.jobs.pod_failures import IMAGE_PULL_REASONS, START_REASONS
from modelexport_operator.kube.clock import format_time
from modelexport_operator.reconcile.reconcile import sync
from modelexport_operator.reconcile.snapshot import Snapshot
from testplane.objects import (
    Body,
    complete,
    ended,
    failed,
    make_class,
    make_export,
    make_job,
    make_pod,
    make_target,
    result_text,
    waiting,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ACTIVE = {"startTime": "2026-01-02T03:00:00Z", "active": 1}
RECORD = {"format": "ONNX", "precision": "FP16", "state": "Succeeded", "reason": "Succeeded"}


def decide(parent: Body, *jobs: Body, pods: list[Body] | None = None, now: datetime = NOW, **more: Any) -> Any:
    return sync(Snapshot(parent, jobs, pods or [], [make_class()], **more), now)


def with_status(parent: Body, status: Any) -> Body:
    return {**parent, "status": status}


def target_of(status: Body) -> Body:
    target: Body = status["targets"][0]
    return target


def ready_of(status: Body) -> Body:
    ready: Body = status["conditions"][0]
    return ready


def test_extended_cell_is_refused_with_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(support.ARCHITECTURES["YOLOv8"], extended=frozenset({make_target("CoreML/FP16")}))
    monkeypatch.setattr("modelexport.planning.plan.ARCHITECTURES", {"YOLOv8": row})
    decision = decide(make_export("ONNX/FP16", "CoreML/FP16"))
    assert decision.create == ()
    ready = ready_of(decision.status)
    assert ready["reason"] == "UnsupportedTarget"
    assert "set spec.supportLevel: Extended" in ready["message"]
    accepted = decide(make_export("ONNX/FP16", "CoreML/FP16", supportLevel="Extended"))
    assert len(accepted.create) == 2


@pytest.mark.parametrize(
    ("word", "reason"),
    [(word, "ImagePullFailed") for word in sorted(IMAGE_PULL_REASONS)]
    + [(word, "PodStartFailed") for word in sorted(START_REASONS)],
)
def test_every_kubelet_start_error_is_reported(word: str, reason: str) -> None:
    parent = make_export("ONNX/FP16")
    job = make_job(parent, "ONNX/FP16", status=ACTIVE)
    decision = decide(parent, job, pods=[make_pod(job, phase="Pending", containerStatuses=waiting(word, "details"))])
    assert target_of(decision.status)["reason"] == reason
    assert "details" in target_of(decision.status)["message"]


def test_condition_keeps_transition_time_while_status_is_same() -> None:
    parent = make_export("ONNX/FP16", "ONNX/FP32")
    first = decide(parent).status
    job = make_job(parent, "ONNX/FP16", status=ACTIVE)
    later = decide(
        with_status(parent, first), job, pods=[make_pod(job, node="a", phase="Running")], now=NOW + timedelta(minutes=1)
    ).status
    assert later is not None
    assert ready_of(later)["lastTransitionTime"] == ready_of(first)["lastTransitionTime"]


def test_condition_gets_transition_time_when_status_changes() -> None:
    parent = make_export("ONNX/FP16")
    first = decide(parent).status
    job = make_job(parent, "ONNX/FP16", status=complete())
    pods = [make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text()))]
    later = decide(with_status(parent, first), job, pods=pods, now=NOW + timedelta(minutes=1)).status
    assert ready_of(later)["lastTransitionTime"] == "2026-01-02T03:05:05Z"


def test_rerun_job_of_same_name_is_not_recorded_run() -> None:
    parent = make_export("ONNX/FP16")
    broken = make_job(parent, "ONNX/FP16", status=failed("PodFailurePolicy", at="2026-01-02T03:01:00Z"))
    text = result_text("CheckpointNotFound", "not there")
    first = decide(parent, broken, pods=[make_pod(broken, phase="Failed", containerStatuses=ended(65, text))]).status
    assert target_of(first)["state"] == "Failed"
    again = make_job(parent, "ONNX/FP16", status=complete("2026-01-02T03:03:00Z"))
    pods = [make_pod(again, phase="Succeeded", containerStatuses=ended(0, result_text()))]
    assert target_of(decide(with_status(parent, first), again, pods=pods).status)["state"] == "Succeeded"


def test_rerun_job_without_pods_ignores_first_record() -> None:
    parent = make_export("ONNX/FP16")
    broken = make_job(parent, "ONNX/FP16", status=failed("PodFailurePolicy", at="2026-01-02T03:01:00Z"))
    text = result_text("CheckpointNotFound", "not there")
    first = decide(parent, broken, pods=[make_pod(broken, phase="Failed", containerStatuses=ended(65, text))]).status
    again = make_job(parent, "ONNX/FP16", status=failed("BackoffLimitExceeded", at="2026-01-02T03:03:00Z"))
    listed = [again["metadata"]["name"]]
    status = decide(with_status(parent, first), again, pods_listed=listed).status
    assert target_of(status)["reason"] == "InternalError"
    given_up = {**ACTIVE, "conditions": [failed("BackoffLimitExceeded")["conditions"][0]]}
    giving_up = make_job(parent, "ONNX/FP16", status=given_up)
    assert target_of(decide(with_status(parent, first), giving_up).status)["state"] == "Queued"


def test_other_job_ending_in_same_second_has_own_outcome() -> None:
    parent = make_export("ONNX/FP16")
    broken = make_job(parent, "ONNX/FP16", status=failed("PodFailurePolicy"))
    text = result_text("CheckpointNotFound", "not there")
    first = decide(parent, broken, pods=[make_pod(broken, phase="Failed", containerStatuses=ended(65, text))]).status
    other = make_job(parent, "ONNX/FP16", name="other", status=failed("PodFailurePolicy"))
    assert target_of(decide(with_status(parent, first), other).status)["jobName"] == "other"


@pytest.mark.parametrize("order", [1, -1])
def test_newer_of_two_jobs_for_target_counts(order: int) -> None:
    parent = make_export("ONNX/FP16")
    jobs = [
        make_job(parent, "ONNX/FP16", name=name, creationTimestamp=f"2026-01-02T03:0{minute}:00Z", status=ACTIVE)
        for minute, name in enumerate(("older", "newer"))
    ]
    assert target_of(decide(parent, *jobs[::order]).status)["jobName"] == "newer"


def test_target_outcomes_stay_when_spec_becomes_invalid() -> None:
    parent = make_export("ONNX/FP16")
    job = make_job(parent, "ONNX/FP16", status=complete())
    pods = [make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text()))]
    before = decide(parent, job, pods=pods).status
    after = decide(with_status(make_export("ONNX/FP16", suspend="no"), before), job, pods=pods).status
    assert ready_of(after)["reason"] == "InvalidSpec"
    assert after["targets"] == before["targets"]


def test_failed_verification_keeps_numbers_after_pod_is_gone() -> None:
    parent = make_export("ONNX/FP16")
    job = make_job(parent, "ONNX/FP16", status=failed("PodFailurePolicy"))
    text = result_text(
        "VerificationFailed", "too far off", verification={"metric": "agreement", "value": "0.5", "threshold": "0.9"}
    )
    first = decide(parent, job, pods=[make_pod(job, phase="Failed", containerStatuses=ended(65, text))]).status
    assert target_of(first)["verification"]["value"] == "0.5"
    assert decide(with_status(parent, first), job).status is None


ORIGIN = {"reference": "Rebuilt", "assumptions": ["activation SiLU"], "warnings": ["it looks wrong"]}


def test_reference_origin_stays_in_status() -> None:
    parent, numbers = make_export("ONNX/FP16"), {"metric": "agreement", "value": "0.999", "threshold": "0.99"}
    job = make_job(parent, "ONNX/FP16", status=complete())
    pods = [make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text(verification=numbers | ORIGIN)))]
    first = decide(parent, job, pods=pods).status
    assert target_of(first)["verification"] == numbers | ORIGIN
    assert decide(with_status(parent, first), job).status is None


def test_export_duration_is_first_start_to_last_end() -> None:
    parent = make_export("ONNX/FP16", "ONNX/FP32")
    early, late = complete("2026-01-02T03:02:00Z"), complete("2026-01-02T03:04:00Z")
    late["startTime"] = "2026-01-02T03:01:00Z"
    half, full = make_job(parent, "ONNX/FP16", status=early), make_job(parent, "ONNX/FP32", status=late)
    pods = [make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text())) for job in (half, full)]
    for order in (1, -1):
        status = decide(parent, *(half, full)[::order], pods=pods).status
        assert (status["startTime"], status["completionTime"]) == ("2026-01-02T03:00:00Z", "2026-01-02T03:04:00Z")
    halfway = decide(parent, half, pods=pods).status
    assert ready_of(halfway)["message"] == "1 of 2 targets are published"


def test_completion_event_is_sent_once_per_completion() -> None:
    parent = with_status(make_export("ONNX/FP16"), {"targets": [RECORD]})
    first = decide(parent).status
    assert first["completionTime"] == "2026-01-02T03:04:05Z"
    assert decide(with_status(parent, first), now=NOW + timedelta(minutes=1)).status is None
    job = make_job(parent, "ONNX/FP16", status=complete("2026-01-02T03:05:00Z"))
    pods = [make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text()))]
    later = decide(with_status(parent, first), job, pods=pods, now=NOW + timedelta(minutes=1)).status
    assert later["completionTime"] == "2026-01-02T03:05:00Z"


def test_terminating_job_is_not_suspended() -> None:
    parent = make_export("ONNX/FP16", suspend=True)
    job = make_job(parent, "ONNX/FP16", status=ACTIVE)
    assert len(decide(parent, job).suspend) == 1
    job["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:00Z"
    assert decide(parent, job).suspend == ()


def test_late_pod_result_replaces_recorded_loss() -> None:
    parent = make_export("ONNX/FP16")
    job = make_job(parent, "ONNX/FP16", status=failed("BackoffLimitExceeded"))
    lost = decide(parent, job, pods_listed=[job["metadata"]["name"]]).status
    assert target_of(lost)["reason"] == "InternalError"
    text = result_text("CheckpointNotFound", "not there")
    pods = [make_pod(job, phase="Failed", containerStatuses=ended(65, text))]
    assert target_of(decide(with_status(parent, lost), job, pods=pods).status)["reason"] == "CheckpointNotFound"


def test_jobs_and_pods_of_targets_are_not_mixed() -> None:
    parent = make_export("ONNX/FP16", "ONNX/FP32")
    half, full = (make_job(parent, target, status=ACTIVE) for target in ("ONNX/FP16", "ONNX/FP32"))
    status = decide(
        parent, full, half, pods=[make_pod(full, node="b", phase="Running"), make_pod(half, node="a", phase="Pending")]
    ).status
    assert [target["state"] for target in status["targets"]] == ["Queued", "Running"]


def test_only_missing_jobs_are_created() -> None:
    parent = make_export("ONNX/FP16", "ONNX/FP32", "ONNX/INT8")
    decision = decide(parent, make_job(parent, "ONNX/FP32", status=ACTIVE))
    assert [job["metadata"]["labels"]["modelexport.dev/precision"] for job in decision.create] == ["FP16", "INT8"]


def test_job_with_unknown_labels_is_ignored() -> None:
    parent = make_export("ONNX/FP16")
    for labels in ({"modelexport.dev/format": "TensorRT"}, None):
        stranger = make_job(parent, "ONNX/FP16", status=ACTIVE, labels=labels)
        assert len(decide(parent, stranger).create) == 1


def test_rejected_job_is_retried_and_keeps_its_time() -> None:
    parent = make_export("ONNX/FP16")
    name = decide(parent).create[0]["metadata"]["name"]
    first = decide(parent, refused={name: "quota"})
    assert first.create == ()
    assert target_of(first.status)["reason"] == "JobRefused"
    parent = with_status(parent, first.status)
    later = NOW + timedelta(seconds=60)
    assert len(decide(parent, now=later).create) == 1
    assert decide(parent, refused={name: "quota"}, now=later).status is None


def test_rejection_has_own_time() -> None:
    parent = make_export("ONNX/FP16")
    job = make_job(parent, "ONNX/FP16", status=failed("DeadlineExceeded"))
    first = decide(parent, job).status
    refused = decide(with_status(parent, first), refused={job["metadata"]["name"]: "quota"}).status
    assert target_of(refused)["completionTime"] == "2026-01-02T03:04:05Z"


def test_invalid_status_is_replaced() -> None:
    nonsense: list[Any] = [
        None,
        [],
        "done",
        {"targets": 3, "conditions": {"a": 1}},
        {"conditions": [1, {}], "targets": [None]},
        {"targets": [{**RECORD, "state": "Lost"}]},
        {"targets": [{**RECORD, "attempts": []}]},
    ]
    for status in nonsense:
        decision = decide(with_status(make_export("ONNX/FP16"), status))
        assert decision.status["observedGeneration"] == 1
        assert len(decision.create) == 1


def test_long_message_is_cut() -> None:
    parent = make_export("ONNX/FP16")
    job = make_job(parent, "ONNX/FP16", status=failed("PodFailurePolicy"))
    pods = [make_pod(job, phase="Failed", containerStatuses=ended(70, result_text("ConversionFailed", "x" * 3000)))]
    status = decide(parent, job, pods=pods).status
    assert len(target_of(status)["message"]) == 1024
    assert len(ready_of(status)["message"]) == 1024


def test_long_api_server_message_and_class_list_are_cut() -> None:
    parent = make_export("ONNX/FP16")
    name = decide(parent).create[0]["metadata"]["name"]
    refused = decide(parent, refused={name: "x" * 3000})
    lost = sync(Snapshot(make_export(className="none"), classes=[make_class(f"class-{i}") for i in range(200)]), NOW)
    assert lost.status is not None
    assert [len(target_of(status)["message"]) for status in (refused.status, lost.status)] == [1024, 1024]


def test_zero_ttl_still_shows_completion() -> None:
    parent = make_export("ONNX/FP16", ttlSecondsAfterFinished=0)
    job = make_job(parent, "ONNX/FP16", status=complete())
    pods = [make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text()))]
    first = decide(parent, job, pods=pods)
    assert first.status is not None
    assert not first.delete
    assert decide(with_status(parent, first.status), job, pods=pods).delete


def test_failed_export_expires_only_when_settled() -> None:
    parent = make_export("ONNX/FP16", ttlSecondsAfterFinished=5)
    job = make_job(parent, "ONNX/FP16", status=failed("DeadlineExceeded"))
    parent["status"] = decide(parent, job).status
    assert decide(parent, job).delete
    behind = decide({**parent, "metadata": {**parent["metadata"], "generation": 2}}, job)
    assert behind.status["observedGeneration"] == 2
    assert not behind.delete
    assert not decide(parent).delete


@pytest.mark.parametrize("targets", [None, 3, "ONNX", {}])
def test_non_list_targets_are_refused_and_count_as_none(targets: Any) -> None:
    parent = make_export("ONNX/FP16")
    parent["spec"]["targets"] = targets
    status = decide(parent).status
    assert (ready_of(status)["reason"], status["ready"]) == ("InvalidSpec", "0/0")


def test_times_are_written_in_utc() -> None:
    assert format_time(NOW.astimezone(timezone(timedelta(hours=5)))) == "2026-01-02T03:04:05Z"
