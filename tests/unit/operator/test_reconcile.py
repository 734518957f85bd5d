from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from modelexport import matrix
from modelexport_operator.pods import IMAGE_PULL_REASONS, START_REASONS
from modelexport_operator.sync import Observed, format_time, sync
from unit.operator.objects import (
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
    return sync(Observed(parent, jobs, pods or [], [make_class()], **more), now)


def with_status(parent: Body, status: Body | None) -> Body:
    return {**parent, "status": status}


def target_of(status: Body) -> Body:
    return status["targets"][0]


def ready_of(status: Body) -> Body:
    return status["conditions"][0]


def test_an_extended_cell_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(matrix.ARCHITECTURES["YOLOv8"], extended=frozenset({make_target("CoreML/FP16")}))
    monkeypatch.setattr("modelexport.plan.ARCHITECTURES", {"YOLOv8": row})
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
def test_every_word_of_the_kubelet_for_a_stuck_start_is_told(word: str, reason: str) -> None:
    parent = make_export("ONNX/FP16")
    job = make_job(parent, "ONNX/FP16", status=ACTIVE)
    decision = decide(parent, job, pods=[make_pod(job, phase="Pending", containerStatuses=waiting(word, "details"))])
    assert target_of(decision.status)["reason"] == reason
    assert "details" in target_of(decision.status)["message"]


def test_a_condition_keeps_its_transition_time_while_its_status_stays() -> None:
    parent = make_export("ONNX/FP16", "ONNX/FP32")
    first = decide(parent).status
    job = make_job(parent, "ONNX/FP16", status=ACTIVE)
    later = decide(
        with_status(parent, first), job, pods=[make_pod(job, node="a", phase="Running")], now=NOW + timedelta(minutes=1)
    ).status
    assert later is not None
    assert ready_of(later)["lastTransitionTime"] == ready_of(first)["lastTransitionTime"]


def test_a_condition_gets_a_new_transition_time_when_its_status_changes() -> None:
    parent = make_export("ONNX/FP16")
    first = decide(parent).status
    job = make_job(parent, "ONNX/FP16", status=complete())
    pods = [make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text()))]
    later = decide(with_status(parent, first), job, pods=pods, now=NOW + timedelta(minutes=1)).status
    assert ready_of(later)["lastTransitionTime"] == "2026-01-02T03:05:05Z"


def test_a_job_of_the_same_name_that_ran_again_is_not_taken_for_the_recorded_run() -> None:
    parent = make_export("ONNX/FP16")
    broken = make_job(parent, "ONNX/FP16", status=failed("PodFailurePolicy", at="2026-01-02T03:01:00Z"))
    text = result_text("CheckpointNotFound", "not there")
    first = decide(parent, broken, pods=[make_pod(broken, phase="Failed", containerStatuses=ended(65, text))]).status
    assert target_of(first)["state"] == "Failed"
    again = make_job(parent, "ONNX/FP16", status=complete("2026-01-02T03:03:00Z"))
    pods = [make_pod(again, phase="Succeeded", containerStatuses=ended(0, result_text()))]
    assert target_of(decide(with_status(parent, first), again, pods=pods).status)["state"] == "Succeeded"


def test_a_job_that_ran_again_and_lost_its_pods_is_not_told_by_the_record_of_its_first_run() -> None:
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


def test_a_job_of_another_name_that_ended_in_the_same_second_tells_its_own_end() -> None:
    parent = make_export("ONNX/FP16")
    broken = make_job(parent, "ONNX/FP16", status=failed("PodFailurePolicy"))
    text = result_text("CheckpointNotFound", "not there")
    first = decide(parent, broken, pods=[make_pod(broken, phase="Failed", containerStatuses=ended(65, text))]).status
    other = make_job(parent, "ONNX/FP16", name="other", status=failed("PodFailurePolicy"))
    assert target_of(decide(with_status(parent, first), other).status)["jobName"] == "other"


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_jobs_for_one_target_the_newer_one_counts(order: int) -> None:
    parent = make_export("ONNX/FP16")
    jobs = [
        make_job(parent, "ONNX/FP16", name=name, creationTimestamp=f"2026-01-02T03:0{minute}:00Z", status=ACTIVE)
        for minute, name in enumerate(("older", "newer"))
    ]
    assert target_of(decide(parent, *jobs[::order]).status)["jobName"] == "newer"


def test_what_the_targets_came_to_stays_when_the_spec_can_no_longer_be_read() -> None:
    parent = make_export("ONNX/FP16")
    job = make_job(parent, "ONNX/FP16", status=complete())
    pods = [make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text()))]
    before = decide(parent, job, pods=pods).status
    after = decide(with_status(make_export("ONNX/FP16", suspend="no"), before), job, pods=pods).status
    assert ready_of(after)["reason"] == "InvalidSpec"
    assert after["targets"] == before["targets"]


def test_a_failed_verification_is_remembered_with_its_numbers_when_its_pod_is_gone() -> None:
    parent = make_export("ONNX/FP16")
    job = make_job(parent, "ONNX/FP16", status=failed("PodFailurePolicy"))
    text = result_text(
        "VerificationFailed", "too far off", verification={"metric": "agreement", "value": "0.5", "threshold": "0.9"}
    )
    first = decide(parent, job, pods=[make_pod(job, phase="Failed", containerStatuses=ended(65, text))]).status
    assert target_of(first)["verification"]["value"] == "0.5"
    assert decide(with_status(parent, first), job).status is None


ORIGIN = {"reference": "Rebuilt", "assumptions": ["activation SiLU"], "warnings": ["it looks wrong"]}


def test_the_origin_of_the_reference_stands_in_the_status_and_stays() -> None:
    parent, numbers = make_export("ONNX/FP16"), {"metric": "agreement", "value": "0.999", "threshold": "0.99"}
    job = make_job(parent, "ONNX/FP16", status=complete())
    pods = [make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text(verification=numbers | ORIGIN)))]
    first = decide(parent, job, pods=pods).status
    assert target_of(first)["verification"] == numbers | ORIGIN
    assert decide(with_status(parent, first), job).status is None


def test_an_export_lasts_from_its_first_start_to_its_last_end_and_names_what_is_open() -> None:
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


def test_the_end_of_an_export_is_told_once_unless_it_ended_anew() -> None:
    parent = with_status(make_export("ONNX/FP16"), {"targets": [RECORD]})
    first = decide(parent).status
    assert first["completionTime"] == "2026-01-02T03:04:05Z"
    assert decide(with_status(parent, first), now=NOW + timedelta(minutes=1)).status is None
    job = make_job(parent, "ONNX/FP16", status=complete("2026-01-02T03:05:00Z"))
    pods = [make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text()))]
    later = decide(with_status(parent, first), job, pods=pods, now=NOW + timedelta(minutes=1)).status
    assert later["completionTime"] == "2026-01-02T03:05:00Z"


def test_a_job_that_is_being_deleted_is_not_suspended() -> None:
    parent = make_export("ONNX/FP16", suspend=True)
    job = make_job(parent, "ONNX/FP16", status=ACTIVE)
    assert len(decide(parent, job).suspend) == 1
    job["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:00Z"
    assert decide(parent, job).suspend == ()


def test_what_a_pod_says_late_wins_over_a_recorded_loss() -> None:
    parent = make_export("ONNX/FP16")
    job = make_job(parent, "ONNX/FP16", status=failed("BackoffLimitExceeded"))
    lost = decide(parent, job, pods_listed=[job["metadata"]["name"]]).status
    assert target_of(lost)["reason"] == "InternalError"
    text = result_text("CheckpointNotFound", "not there")
    pods = [make_pod(job, phase="Failed", containerStatuses=ended(65, text))]
    assert target_of(decide(with_status(parent, lost), job, pods=pods).status)["reason"] == "CheckpointNotFound"


def test_jobs_and_pods_of_other_targets_are_not_mixed_up() -> None:
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


def test_a_job_whose_labels_nobody_knows_is_left_alone() -> None:
    parent = make_export("ONNX/FP16")
    for labels in ({"modelexport.dev/format": "TensorRT"}, None):
        stranger = make_job(parent, "ONNX/FP16", status=ACTIVE, labels=labels)
        assert len(decide(parent, stranger).create) == 1


def test_a_refused_job_is_offered_again_and_keeps_its_time() -> None:
    parent = make_export("ONNX/FP16")
    name = decide(parent).create[0]["metadata"]["name"]
    first = decide(parent, refused={name: "quota"})
    assert first.create == ()
    assert target_of(first.status)["reason"] == "JobRefused"
    parent = with_status(parent, first.status)
    later = NOW + timedelta(seconds=60)
    assert len(decide(parent, now=later).create) == 1
    assert decide(parent, refused={name: "quota"}, now=later).status is None


def test_a_refusal_has_its_own_time_and_not_that_of_an_earlier_failure() -> None:
    parent = make_export("ONNX/FP16")
    job = make_job(parent, "ONNX/FP16", status=failed("DeadlineExceeded"))
    first = decide(parent, job).status
    refused = decide(with_status(parent, first), refused={job["metadata"]["name"]: "quota"}).status
    assert target_of(refused)["completionTime"] == "2026-01-02T03:04:05Z"


def test_a_status_of_nonsense_is_replaced() -> None:
    for status in (
        None,
        [],
        "done",
        {"targets": 3, "conditions": {"a": 1}},
        {"conditions": [1, {}], "targets": [None]},
        {"targets": [{**RECORD, "state": "Lost"}]},
        {"targets": [{**RECORD, "attempts": []}]},
    ):
        decision = decide(with_status(make_export("ONNX/FP16"), status))  # type: ignore[arg-type]
        assert decision.status["observedGeneration"] == 1
        assert len(decision.create) == 1


def test_a_long_message_is_cut() -> None:
    parent = make_export("ONNX/FP16")
    job = make_job(parent, "ONNX/FP16", status=failed("PodFailurePolicy"))
    pods = [make_pod(job, phase="Failed", containerStatuses=ended(70, result_text("ConversionFailed", "x" * 3000)))]
    status = decide(parent, job, pods=pods).status
    assert len(target_of(status)["message"]) == 1024
    assert len(ready_of(status)["message"]) == 1024


def test_a_long_answer_of_the_api_server_and_a_long_list_of_classes_are_cut_too() -> None:
    parent = make_export("ONNX/FP16")
    name = decide(parent).create[0]["metadata"]["name"]
    refused = decide(parent, refused={name: "x" * 3000})
    lost = sync(Observed(make_export(className="none"), classes=[make_class(f"class-{i}") for i in range(200)]), NOW)
    assert [len(target_of(decision.status)["message"]) for decision in (refused, lost)] == [1024, 1024]


def test_a_ttl_of_zero_still_lets_the_end_be_seen() -> None:
    parent = make_export("ONNX/FP16", ttlSecondsAfterFinished=0)
    job = make_job(parent, "ONNX/FP16", status=complete())
    pods = [make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text()))]
    first = decide(parent, job, pods=pods)
    assert first.status is not None
    assert not first.delete
    assert decide(with_status(parent, first.status), job, pods=pods).delete


def test_an_export_that_failed_expires_too_but_not_while_its_status_is_behind_or_a_target_runs_again() -> None:
    parent = make_export("ONNX/FP16", ttlSecondsAfterFinished=5)
    job = make_job(parent, "ONNX/FP16", status=failed("DeadlineExceeded"))
    parent["status"] = decide(parent, job).status
    assert decide(parent, job).delete
    behind = decide({**parent, "metadata": {**parent["metadata"], "generation": 2}}, job)
    assert behind.status["observedGeneration"] == 2
    assert not behind.delete
    assert not decide(parent).delete


@pytest.mark.parametrize("targets", [None, 3, "ONNX", {}])
def test_targets_that_are_no_list_are_refused_and_counted_as_none(targets: Any) -> None:
    parent = make_export("ONNX/FP16")
    parent["spec"]["targets"] = targets
    status = decide(parent).status
    assert (ready_of(status)["reason"], status["ready"]) == ("InvalidSpec", "0/0")


def test_times_are_written_in_utc_wherever_the_clock_stands() -> None:
    assert format_time(NOW.astimezone(timezone(timedelta(hours=5)))) == "2026-01-02T03:04:05Z"
