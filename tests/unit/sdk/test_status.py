"""The status of an export as a user of the SDK reads and sees it."""

import io
from typing import Any

import pytest
from rich.console import Console

import modelexport
from modelexport.client.display import StatusDisplay
from modelexport.client.status import ExportStatus

ARTIFACT = {"uri": "s3://exports/a.onnx", "sha256": "ab" * 32, "sizeBytes": 7}
PROGRESS = {"stage": "convert", "startTime": "2026-01-02T03:04:00Z", "lastUpdatedTime": "2026-01-02T03:04:05Z"}


def target(precision: str, state: str, reason: str, **fields: Any) -> dict[str, Any]:
    return {"format": "ONNX", "precision": precision, "state": state, "reason": reason, **fields}


DONE = target("FP32", "Succeeded", "Succeeded", artifact=ARTIFACT)
RUNNING = target("FP16", "Running", "Running", progress=PROGRESS)
FAILED = target("INT8", "Failed", "VerificationFailed", message="0.91 is below 0.95")
REMOVED = target("FP16", "Failed", "DigestMismatch", message="another file")


def body(*targets: dict[str, Any], ready: str = "False", stalled: str = "False", **changed: Any) -> dict[str, Any]:
    conditions = [
        {"type": "Ready", "status": ready, "reason": "TargetsFailed", "message": "1 failed"},
        {"type": "Stalled", "status": stalled, "reason": "TargetsFailed", "message": "1 failed"},
    ]
    metadata = {"name": "a", "namespace": "team", "uid": "u", "generation": 2}
    status = {"observedGeneration": 2, "conditions": conditions, "targets": list(targets), **changed}
    return {"metadata": metadata, "spec": {}, "status": status}


def test_finished_status_is_recognised() -> None:
    assert ExportStatus.read(body(DONE, ready="True")).check().ready
    assert not ExportStatus.read(body(DONE, RUNNING)).check().finished
    assert ExportStatus.read(body(FAILED, stalled="True")).finished


def test_conditions_of_an_earlier_spec_do_not_count() -> None:
    status = ExportStatus.read(body(DONE, ready="True", observedGeneration=1))
    assert (status.ready, status.failed, status.reason) == (False, False, "")


@pytest.mark.parametrize(
    ("targets", "reason"), [((DONE, FAILED), "VerificationFailed"), ((FAILED, REMOVED), "TargetsFailed")]
)
def test_failure_has_targets_reason_and_way_out(targets: tuple[dict[str, Any], ...], reason: str) -> None:
    with pytest.raises(modelexport.ExportFailed) as failed:
        ExportStatus.read(body(*targets, stalled="True")).check()
    assert failed.value.reason == reason
    assert "team/a: 1 failed; " in str(failed.value)
    assert "ONNX/INT8: VerificationFailed: 0.91 is below 0.95; " in str(failed.value)
    assert "Use a higher precision or better calibration images" in str(failed.value)


def test_target_is_found_in_any_case() -> None:
    status = ExportStatus.read(body(DONE, FAILED))
    assert status.target("onnx/int8").reason == "VerificationFailed"
    with pytest.raises(modelexport.BadInput, match="'LiteRT/FP32' is not a target of a; use one of ONNX/FP32, ONNX"):
        status.target("LiteRT/FP32")


@pytest.mark.parametrize(
    "changed", [{"conditions": ["Ready"]}, {"conditions": [{"type": "\x1b[2J"}]}, {"targets": [{"format": 1}]}]
)
def test_invalid_status_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(modelexport.BadInput, match=r"invalid: .*; wait until the operator has rewritten it"):
        ExportStatus.read(body(**changed))


def shown(console: Console, *statuses: dict[str, Any]) -> str:
    with StatusDisplay(console) as display:
        for one in statuses:
            display.show(ExportStatus.read(one))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_terminal_shows_a_table_of_targets() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    table = shown(console, body(DONE, RUNNING, FAILED))
    assert "ONNX/FP16  Running" in table
    assert "0.91 is below 0.95" in table


def test_log_shows_a_line_for_each_change() -> None:
    lines = shown(Console(file=io.StringIO(), width=120), body(RUNNING), body(RUNNING), body(DONE, FAILED)).splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        ["ONNX/FP16", "Running (convert)"],
        ["ONNX/FP32", "Succeeded"],
        ["ONNX/INT8", "Failed (VerificationFailed)"],
    ]
