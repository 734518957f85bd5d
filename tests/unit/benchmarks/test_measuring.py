import os
import re
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.measuring.measured_process import run_measured
from benchmarks.operator.comparison import EventTimes
from benchmarks.operator.contenders import JOBS_EACH, JobSets, ModelExports, PlainJobs
from benchmarks.operator.jobset import jobset_version
from modelexport.api.result import ConversionResult

KWOK = Path(__file__).parents[3] / "benchmarks/operator/kwok.yaml"


def test_simulated_pod_result_counts_as_success() -> None:
    (stage,) = (s for s in yaml.safe_load_all(KWOK.read_text()) if s["metadata"]["name"] == "job-pod-succeed")
    folded = stage["spec"]["next"]["statusTemplate"].partition("message: >-\n")[2].partition("\n{{ end }}")[0]
    text = yaml.safe_load("message: >-\n" + folded)["message"].replace("{{ $output }}", "s3://exports/pod-1/")
    result = ConversionResult.from_json(text, output="s3://exports/pod-1/", exit_code=0)
    assert result.succeeded
    assert result.artifact is not None
    assert result.artifact.uri.endswith("/pod-1/shapes-fp16.onnx")


def job(name: str, owner: str, *, complete: bool = False) -> dict[str, object]:
    conditions = [{"type": "Complete", "status": "True"}] if complete else []
    return {"metadata": {"name": name, "ownerReferences": [{"name": owner}]}, "status": {"conditions": conditions}}


def test_lag_is_from_completion_event_to_status_update() -> None:
    times, contender = EventTimes(), ModelExports()
    times.observe_job(job("a", "export"), 1.0)
    times.observe_job(job("a", "export", complete=True), 2.0)
    times.observe_job(job("a", "export", complete=True), 9.0)
    parent = {"metadata": {"name": "export"}, "status": {"targets": [{"jobName": "a", "state": "Succeeded"}]}}
    times.observe_parent(contender, parent, 2.5)
    times.observe_parent(contender, parent, 8.0)
    assert times.created == {"a": 1.0}
    assert times.lags() == [0.5]
    assert times.finished == {}


def test_nth_completion_is_matched_when_status_only_counts() -> None:
    times, contender = EventTimes(), JobSets()
    for name, at in (("late", 5.0), ("early", 2.0), ("middle", 3.0)):
        times.observe_job(job(name, "set", complete=True), at)
    for count, at in ((1, 2.5), (3, 7.0)):
        status = {"replicatedJobsStatus": [{"succeeded": count}], "terminalState": "Completed" if count == 3 else ""}
        times.observe_parent(contender, {"metadata": {"name": "set"}, "status": status}, at)
    assert sorted(times.lags()) == [0.5, 2.0, 4.0]
    assert times.finished == {"set": 7.0}


def test_all_contenders_create_jobs_with_same_pods() -> None:
    plain = list(PlainJobs().bodies(2))
    (jobset, _) = JobSets().bodies(2)
    (group,) = jobset["spec"]["replicatedJobs"]
    assert len(plain) == 2 * JOBS_EACH
    assert group["replicas"] == JOBS_EACH
    assert group["template"]["spec"]["template"] == plain[0]["spec"]["template"]
    assert [len(export["spec"]["targets"]) for export in ModelExports().bodies(2)] == [JOBS_EACH, JOBS_EACH]


def test_jobset_version_matches_go_mod() -> None:
    assert re.fullmatch(r"v\d+\.\d+\.\d+", jobset_version())


WORK = """
import time
block = bytearray(200 << 20)
while time.process_time() < 0.3:
    pass
print("noise")
print("[1]")
"""


def test_child_process_is_measured(tmp_path: Path) -> None:
    process = run_measured([sys.executable, "-c", WORK], tmp_path)
    assert process.json_output == [1]
    assert process.peak_mib > 200
    assert process.cpu_seconds >= 0.3
    assert process.seconds > 0.25


def test_parent_memory_is_not_counted_for_child(tmp_path: Path) -> None:
    ours = bytearray(300 << 20)
    assert run_measured([sys.executable, "-c", "print(1)"], tmp_path).peak_mib < 100
    del ours


def test_child_process_inherits_and_extends_environment(tmp_path: Path) -> None:
    words = "import json, os; print(json.dumps([os.environ['PATH'], os.environ['EXTRA']]))"
    process = run_measured([sys.executable, "-c", words], tmp_path, {"EXTRA": "1"})
    assert process.json_output == [os.environ["PATH"], "1"]


def test_failing_child_process_reports_last_output(tmp_path: Path) -> None:
    process = run_measured([sys.executable, "-c", "raise SystemExit('no space')"], tmp_path)
    with pytest.raises(RuntimeError, match="exit code 1: no space"):
        _ = process.json_output
