from typing import Any

import pytest

from modelexport_operator.status.conditions import RecordedStatus, recorded_targets
from modelexport_operator.status.events import compare_statuses, finished_targets
from testplane.objects import Body


def entry(state: str, reason: str, **more: Any) -> Body:
    return {"format": "ONNX", "precision": "FP16", "state": state, "reason": reason, "message": "words", **more}


def status(*targets: Body, ready: str = "Progressing", holds: str = "Unknown") -> Body:
    condition = {"type": "Ready", "status": holds, "reason": ready, "message": "all in all"}
    return {"targets": list(targets), "conditions": [condition]}


FAILED = entry("Failed", "OOMKilled", completionTime="2026-01-02T03:00:00Z")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (entry("Queued", "Queued"), entry("Running", "Running"), []),
        (entry("Queued", "Queued"), entry("Queued", "Retrying"), [("Warning", "Retrying")]),
        (entry("Queued", "Queued"), entry("Queued", "Unschedulable"), [("Warning", "Unschedulable")]),
        (entry("Queued", "Unschedulable"), entry("Queued", "Unschedulable"), []),
        (entry("Pending", "Pending"), entry("Pending", "ClassNotFound"), []),
        (entry("Running", "Running"), entry("Succeeded", "Succeeded"), [("Normal", "Succeeded")]),
        (entry("Running", "Running"), FAILED, [("Warning", "OOMKilled")]),
    ],
)
def test_event_is_sent_when_target_ends_or_has_problem(before: Body, after: Body, told: list[Any]) -> None:
    events = compare_statuses(RecordedStatus(status(before)), RecordedStatus(status(after)))
    assert [(event.type, event.reason) for event in events] == told
    assert all(event.message == "ONNX/FP16: words" for event in events)


def test_targets_with_same_outcome_share_event() -> None:
    published = entry("Succeeded", "Succeeded")
    others = [published, {**published, "precision": "INT8"}, {**FAILED, "precision": "FP32"}]
    events = compare_statuses(RecordedStatus(status()), RecordedStatus(status(*others)))
    told = [(event.reason, event.message) for event in events]
    assert told == [("Succeeded", "ONNX/FP16, ONNX/INT8: words"), ("OOMKilled", "ONNX/FP32: words")]
    targets = [[str(state.target) for state in event.targets] for event in events]
    assert targets == [["ONNX/FP16", "ONNX/INT8"], ["ONNX/FP32"]]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, status(ready="Progressing"), [("Normal", "Progressing", "all in all")]),
        (status(ready="Progressing"), status(ready="Progressing"), []),
        (status(ready="Progressing"), status(ready="Progressing", holds="False"), []),
        (status(ready="Suspended"), status(ready="ClassNotFound"), [("Warning", "ClassNotFound", "all in all")]),
    ],
)
def test_event_is_sent_when_export_reason_changes(before: Body, after: Body, told: list[Any]) -> None:
    assert [
        (event.type, event.reason, event.message)
        for event in compare_statuses(RecordedStatus(before), RecordedStatus(after))
    ] == told


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        (entry("Queued", "Queued"), entry("Running", "Running"), 0),
        (entry("Running", "Running"), FAILED, 1),
        (FAILED, {**FAILED, "message": "other words"}, 0),
        (FAILED, {**FAILED, "completionTime": "2026-01-02T04:00:00Z"}, 1),
    ],
)
def test_every_target_outcome_is_counted_once(before: Body, after: Body, count: int) -> None:
    assert len(finished_targets(recorded_targets(status(before)), recorded_targets(status(after)).values())) == count
