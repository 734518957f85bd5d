"""The operator's log agrees with the Kubernetes events."""

import json
from pathlib import Path

from integration.scenario import run_scenario
from testplane.api import EVENTS, JOBS, Api
from testplane.control_plane import ControlPlane
from testplane.process import Operator


def log_of(operator: Operator) -> list[dict[str, str]]:
    return [json.loads(line) for line in operator.log.read_text().splitlines()]


def wait_for_the_last_event(api: Api) -> None:
    """Wait for all events, which the operator sends after it has written the status."""
    api.wait_for_event("TargetsFailed")


def test_every_event_is_logged_with_object_job_and_reason(api: Api, plane: ControlPlane, tmp_path: Path) -> None:
    operator = Operator(plane.address, tmp_path, plane.certificate)
    with operator.running():
        run_scenario(api)
        wait_for_the_last_event(api)
    export = f"{api.namespace}/shapes"
    lines = [line for line in log_of(operator) if line.get("export") == export]
    told = {
        (line["reason"], f"{line['target']}: {line['message']}" if "target" in line else line["message"])
        for line in lines
        if line["event"] == "event"
    }
    ours = [event for event in api.list(EVENTS) if event["involvedObject"]["kind"] == "ModelExport"]
    assert told == {(event["reason"], event["message"]) for event in ours}
    assert {reason for reason, _ in told} == {"Progressing", "Succeeded", "VerificationFailed", "TargetsFailed"}
    jobs = {job["metadata"]["name"] for job in api.list(JOBS)}
    assert {line["job"] for line in lines if line["event"] == "job created"} == jobs
    assert {line["job"] for line in lines if "target" in line} == jobs


def test_text_format_writes_one_line_per_event(api: Api, plane: ControlPlane, tmp_path: Path) -> None:
    operator = Operator(plane.address, tmp_path, plane.certificate, MODELEXPORT_LOG_FORMAT="text")
    with operator.running():
        run_scenario(api)
        wait_for_the_last_event(api)
    [line] = [line for line in operator.log.read_text().splitlines() if "reason=VerificationFailed" in line]
    assert f" WARNING modelexport: event export={api.namespace}/shapes target=ONNX/FP32 job=shapes-onnx-fp32-" in line
