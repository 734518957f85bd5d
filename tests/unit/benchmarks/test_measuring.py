import os
import re
import sys
from pathlib import Path

import pytest
import yaml

from bench.children import run_child
from bench.jobset import jobset_version
from bench.operator_scale import Times
from bench.ways import JOBS_EACH, JobSets, ModelExports, PlainJobs
from modelexport.result import ConversionResult

KWOK = Path(__file__).parents[2] / "bench/kwok.yaml"


def test_a_pretended_pod_answers_what_the_operator_takes_for_a_success() -> None:
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


def test_a_lag_is_from_the_first_word_of_a_completion_to_the_first_status_that_names_the_job() -> None:
    times, way = Times(), ModelExports()
    times.hear_job(job("a", "export"), 1.0)
    times.hear_job(job("a", "export", complete=True), 2.0)
    times.hear_job(job("a", "export", complete=True), 9.0)
    parent = {"metadata": {"name": "export"}, "status": {"targets": [{"jobName": "a", "state": "Succeeded"}]}}
    times.hear_parent(way, parent, 2.5)
    times.hear_parent(way, parent, 8.0)
    assert times.created == {"a": 1.0}
    assert times.lags() == [0.5]
    assert times.finished == {}


def test_where_a_status_only_counts_its_nth_job_answers_the_nth_completion() -> None:
    times, way = Times(), JobSets()
    for name, at in (("late", 5.0), ("early", 2.0), ("middle", 3.0)):
        times.hear_job(job(name, "set", complete=True), at)
    for count, at in ((1, 2.5), (3, 7.0)):
        status = {"replicatedJobsStatus": [{"succeeded": count}], "terminalState": "Completed" if count == 3 else ""}
        times.hear_parent(way, {"metadata": {"name": "set"}, "status": status}, at)
    assert sorted(times.lags()) == [0.5, 2.0, 4.0]
    assert times.finished == {"set": 7.0}


def test_all_ways_make_jobs_with_the_same_pods() -> None:
    plain = list(PlainJobs().bodies(2))
    (jobset, _) = JobSets().bodies(2)
    (group,) = jobset["spec"]["replicatedJobs"]
    assert len(plain) == 2 * JOBS_EACH
    assert group["replicas"] == JOBS_EACH
    assert group["template"]["spec"]["template"] == plain[0]["spec"]["template"]
    assert [len(export["spec"]["targets"]) for export in ModelExports().bodies(2)] == [JOBS_EACH, JOBS_EACH]


def test_the_version_of_jobset_is_that_of_its_go_mod() -> None:
    assert re.fullmatch(r"v\d+\.\d+\.\d+", jobset_version())


WORK = """
import time
block = bytearray(200 << 20)
while time.process_time() < 0.3:
    pass
print("noise")
print("[1]")
"""


def test_a_child_is_measured_with_what_it_needed(tmp_path: Path) -> None:
    child = run_child([sys.executable, "-c", WORK], tmp_path)
    assert child.answer == [1]
    assert child.peak_mib > 200
    assert child.cpu_seconds >= 0.3
    assert child.seconds > 0.25


def test_what_we_hold_ourselves_is_not_counted_as_a_childs(tmp_path: Path) -> None:
    ours = bytearray(300 << 20)
    assert run_child([sys.executable, "-c", "print(1)"], tmp_path).peak_mib < 100
    del ours


def test_a_child_sees_the_variables_that_it_is_given_beside_ours(tmp_path: Path) -> None:
    words = "import json, os; print(json.dumps([os.environ['PATH'], os.environ['EXTRA']]))"
    child = run_child([sys.executable, "-c", words], tmp_path, {"EXTRA": "1"})
    assert child.answer == [os.environ["PATH"], "1"]


def test_a_child_that_fails_gives_its_last_words(tmp_path: Path) -> None:
    child = run_child([sys.executable, "-c", "raise SystemExit('no space')"], tmp_path)
    with pytest.raises(RuntimeError, match="exit code 1: no space"):
        _ = child.answer
