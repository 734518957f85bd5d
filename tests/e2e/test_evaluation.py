"""Accuracy on labelled images on the real cluster: one target evaluates the original, and the others read that."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from e2e.support import CLASSIFIER, INPUTS, Body, Workspace, build_export, workspace
from modelexport import names

TARGETS = ("ONNX/FP16", "ONNX/FP32", "PyTorch/FP32")
FIRST = ("ONNX", "FP32")
MODEL = {"architecture": "YOLOv8-CLS", "checkpoint": {"uri": CLASSIFIER}, "parameters": {"inputSize": [224, 224]}}
EVALUATION = {"dataset": {"uri": f"s3://{INPUTS}/labelled.zip"}, "samples": 10_000}
"""The operator counts with all images that are asked for: an evaluation of a few seconds is not waited for."""


@pytest.fixture(scope="module")
def evaluated(product: str) -> Iterator[Workspace]:
    """A namespace in which the evaluated export ``model`` has reached its end."""
    with workspace(product) as space:
        spec = {"model": MODEL, "evaluation": EVALUATION, "className": space.create_class()}
        space.apply(build_export("model", *TARGETS, **spec))
        space.wait("mx/model", "condition=Ready")
        yield space


def of_target(job: Body) -> tuple[str, str]:
    """Return format and precision of the target of a Job."""
    labels = job["metadata"]["labels"]
    return labels[names.FORMAT_LABEL], labels[names.PRECISION_LABEL]


def test_others_start_after_the_first_target(evaluated: Workspace) -> None:
    jobs = {of_target(job): job for job in evaluated.read_all("jobs")}
    ended = datetime.fromisoformat(jobs.pop(FIRST)["status"]["completionTime"])
    assert len(jobs) == 2
    assert all(datetime.fromisoformat(job["metadata"]["creationTimestamp"]) >= ended for job in jobs.values())


def test_original_is_evaluated_once(evaluated: Workspace) -> None:
    told: dict[tuple[str, str], Any] = {}
    for job in evaluated.read_all("jobs"):
        log = evaluated.kubectl("logs", f"job/{job['metadata']['name']}", "--all-containers")
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        [told[of_target(job)]] = [line["made"] for line in lines if line["event"] == "evaluated original"]
    assert told == {FIRST: True, ("ONNX", "FP16"): False, ("PyTorch", "FP32"): False}


def test_status_has_the_accuracy_of_every_target(evaluated: Workspace) -> None:
    found = [target["accuracy"] for target in evaluated.read("mx/model")["status"]["targets"]]
    assert {one["metric"] for one in found} == {"top-1"}
    assert {one["images"] for one in found} == {128}
    assert len({one["original"] for one in found}) == 1
    assert all(float(one["drop"]) <= float(one["maxDrop"]) for one in found)
