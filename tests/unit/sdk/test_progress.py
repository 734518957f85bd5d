from dataclasses import replace
from typing import Any

import pytest

from modelexport.api.request import ConversionRequest
from modelexport.api.spec import parse_export
from modelexport.matrix.measured import parse
from modelexport.planning.plan import plan_export
from modelexport.planning.progress import STAGES, Progress, estimate, expect_stages, expect_steps, read_progress
from testplane.objects import make_export

SECONDS = dict(zip(STAGES, (1.0, 2.0, 3.0, 4.0, 8.0, 0.5, 6.0, 0.0, 0.5), strict=True))
FULL = {
    "scheme": "fp16",
    "variant": "n",
    "inputSize": [640, 640],
    "agreement": 1.0,
    "sizeBytes": 1,
    "seconds": 27.0,
    "stages": {**SECONDS, "total": 25.0},
    "peakMiB": 900.0,
    "latencyMs": 1.0,
    "cores": 1,
}
STATIC = {**FULL, "scheme": "static_wi8_ai8"}
IMAGES = {"dataset": {"uri": "s3://datasets/a.zip"}, "samples": 16}


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = {"YOLOv8 ONNX/FP16": FULL, "YOLOv8 ONNX/INT8": STATIC, "Custom ONNX/FP16": {**FULL, "variant": None}}
    run = {"machine": {}, "samples": {"fullSize": 8}, "seconds": {}}
    content = {
        "runs": {"monday": run},
        "cells": {name: {"fullSize": {**full, "run": "monday"}} for name, full in cells.items()},
    }
    for module in ("matrix.support", "planning.estimates"):
        monkeypatch.setattr(f"modelexport.{module}.measurements", lambda: parse(content))


def plan(target: str = "ONNX/FP16", architecture: str = "YOLOv8", **more: Any) -> ConversionRequest:
    """The request of a target; ``calibration`` belongs to the export, further arguments are parameters of the model."""
    calibration = {"calibration": more.pop("calibration")} if "calibration" in more else {}
    export = make_export(target, **calibration)
    export["spec"]["model"] |= {"architecture": architecture, "parameters": more}
    return plan_export(parse_export(export), "s3://exports")[0]


def test_estimate_includes_start_and_end() -> None:
    assert expect_stages(plan()) == {**SECONDS, "start": 4.0}
    assert expect_steps(plan()) == {"fetch": 1.0, "convert": 25.5, "publish": 0.5}


def test_calibration_estimate_scales_with_images() -> None:
    expected = expect_stages(plan("ONNX/INT8", calibration=IMAGES))
    assert expected == {**SECONDS, "start": 4.0, "quantise": 16.0}


def test_no_calibration_takes_no_time() -> None:
    assert expect_stages(plan("ONNX/INT8")) == {**SECONDS, "start": 4.0, "quantise": 0.0}


def test_network_time_scales_with_pixels() -> None:
    expected = expect_stages(plan("ONNX/INT8", calibration=IMAGES, inputSize=[320, 640]))
    assert expected == {**SECONDS, "start": 4.0, "quantise": 8.0, "verify": 3.0}


@pytest.mark.parametrize(
    "request_of", [lambda: plan("ONNX/FP32"), lambda: plan(variant="x"), lambda: plan(architecture="Custom")]
)
def test_unmeasured_cell_has_no_estimate(request_of: Any) -> None:
    assert expect_stages(request_of()) is None
    assert expect_steps(request_of()) is None
    assert estimate(expect_steps(request_of()), "convert", 1.0) is None


def test_estimate_accepts_measured_variant_name() -> None:
    assert expect_stages(plan(variant="n")) == expect_stages(plan())


@pytest.mark.parametrize(
    ("stage", "elapsed", "percentage", "remaining"),
    [
        ("fetch", 0, 0, 100),
        ("fetch", -50, 0, 100),
        ("fetch", 3, 3, 97),
        ("fetch", 500, 20, 80),
        ("convert", 0, 20, 80),
        ("convert", 30.4, 50, 50),
        ("convert", 5000, 95, 5),
        ("publish", 4, 99, 1),
        ("publish", 5000, 99, 0),
    ],
)
def test_stage_counts_at_most_its_estimate(stage: str, elapsed: float, percentage: int, remaining: int) -> None:
    found = estimate({"fetch": 20.0, "convert": 75.0, "publish": 5.0}, stage, elapsed)
    assert found is not None
    assert (found.percentage, found.remaining_seconds) == (percentage, remaining)


def test_unknown_stage_has_no_estimate() -> None:
    assert estimate({"fetch": 1.0}, "dance", 1.0) is None


NOW = "2026-01-02T03:04:05Z"
WHOLE = Progress("convert", NOW, "2026-01-02T03:04:00Z", 25, 15)


@pytest.mark.parametrize("progress", [WHOLE, Progress("fetch", NOW), replace(WHOLE, percentage=0)])
def test_progress_round_trips(progress: Progress) -> None:
    assert read_progress(progress.to_dict()) == progress


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "a stage"},
        {"stage": None},
        {"startTime": "noon"},
        {"lastUpdatedTime": None},
        {"percentage": 100},
        {"percentage": "25"},
        {"percentage": True},
        {"estimatedRemainingSeconds": -1},
        {"estimatedRemainingSeconds": 2**31},
    ],
)
def test_invalid_progress_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"progress\.{next(iter(change))}"):
        read_progress({**WHOLE.to_dict(), **change})
