from typing import Any

import pytest

from modelexport.crds.reference import render_matrix
from modelexport.matrix.measured import Measured, parse
from modelexport.matrix.support import Resources, lookup
from modelexport.planning.estimates import (
    explain_failures,
    explain_images,
    explain_older,
    explain_runs,
    explain_unmeasured,
    record,
    texts,
)
from testplane.objects import make_target

FULL = {
    "scheme": "static_wi8_ai8",
    "inputSize": [512, 512],
    "agreement": 0.98,
    "seconds": 61.25,
    "stages": {"convert": 20.0, "quantise": 24.0},
    "peakMiB": 1900.0,
    "latencyMs": 310.0,
    "cores": 1,
    "run": "monday",
}
TRAINED = {
    "scheme": "static_wi8_ai8",
    "inputSize": [128, 128],
    "accuracy": {"mIoU": 0.9248},
    "original": {"mIoU": 0.9242},
    "drop": -0.0006,
    "interval": [-0.0021, -0.00001],
    "images": 640,
    "agreement": 0.9966,
    "fidelity": 0.9871,
    "run": "tuesday",
}
OLDER = {
    "scheme": "fp32",
    "inputSize": [128, 128],
    "accuracy": {"box": 0.8727, "mask": 0.8936},
    "original": {"box": 0.8731, "mask": 0.894},
    "agreement": 1.0,
    "run": "monday",
}
MACHINE = {"Date": "2026-11-27", "Processor": "a, 2 cores", "Memory": "24 GiB", "Kernel": "Linux"}
RUN = {"machine": MACHINE, "samples": {"trained": 60, "fullSize": 8}, "seconds": {"trained": 600.0, "fullSize": 60.0}}
CONTENT: dict[str, Any] = {
    "versions": {"torch": "2.14.1", "onnx": "1.23.2", "coremltools": "9.0"},
    "runs": {"monday": RUN, "tuesday": RUN},
    "cells": {
        "UNet ONNX/FP32": {"trained": OLDER, "fullSize": {**FULL, "scheme": "fp32", "sizeBytes": 4 << 20}},
        "UNet ONNX/INT8": {"trained": TRAINED, "fullSize": {**FULL, "sizeBytes": 1 << 20}},
        "UNet ONNX/FP16": {
            "trained": {"failed": "ConversionFailed: no\nspace"},
            "fullSize": {**FULL, "scheme": "fp16", "sizeBytes": 1},
        },
    },
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Measured:
    run = parse(CONTENT)
    for module in ("matrix.support", "planning.estimates"):
        monkeypatch.setattr(f"modelexport.{module}.measurements", lambda: run)
    return run


@pytest.mark.parametrize(("peak", "memory"), [(1, 256), (819.2, 1024), (819.3, 1280), (3000, 3840), (3900, 4096)])
def test_memory_request_is_peak_plus_quarter_up_to_limit(peak: float, memory: int) -> None:
    assert Resources(memory_mib=3072).for_peak(peak) == Resources(memory_mib=memory, memory_limit_mib=4096)


@pytest.mark.usefixtures("run")
def test_unmeasured_cell_uses_default_memory() -> None:
    assert lookup("UNet", make_target("ONNX/INT8")).resources.memory_mib == 2560
    assert lookup("UNet", make_target("LiteRT/INT8")).resources.memory_mib == 3072


@pytest.mark.usefixtures("run")
def test_measured_cell_is_shown_as_text_and_record() -> None:
    cell = lookup("UNet", make_target("ONNX/INT8"))
    assert texts(cell) == (
        *("ONNX/INT8", "Stable", "static_wi8_ai8", "mIoU 0.924 → 0.925"),
        *("-0.0006", "-0.0021 to 0.0000", "640", "0.9966 ≥ 0.85", "0.9871 ≥ 0.9"),
        *("1.0", "0.25", "61.2", "3.00", "1900", "2560", "310.0", "2, 1"),
    )
    told = record(cell)
    assert (told["accuracyFP32"], told["accuracy"]) == ({"mIoU": 0.9242}, {"mIoU": 0.9248})
    assert (told["accuracyDrop"], told["accuracyInterval"], told["accuracyImages"]) == (-0.0006, (-0.0021, -1e-5), 640)
    assert (told["accuracyRun"], told["run"]) == ("tuesday", "monday")
    assert (told["ratio"], told["seconds"], told["memoryRequestMiB"]) == (0.25, 61.25, 2560)
    assert (told["fidelity"], told["fidelityThreshold"]) == (0.9871, 0.9)
    assert told["tools"] == {"torch": "2.14.1", "onnx": "1.23.2"}


@pytest.mark.usefixtures("run")
def test_seconds_include_calibration_cost_per_image() -> None:
    told = record(lookup("UNet", make_target("ONNX/INT8")))
    assert (told["calibrationImages"], told["secondsPerImage"]) == (8, 3.0)
    told = record(lookup("UNet", make_target("ONNX/FP32")))
    assert (told["calibrationImages"], told["secondsPerImage"]) == (None, None)
    assert (
        "With 64 images, 1 of 3 cells would take more than 120 s; the slowest is UNet ONNX/INT8 with 229 s."
        in explain_images()
    )


@pytest.mark.usefixtures("run")
def test_accuracy_of_an_earlier_version_has_no_interval() -> None:
    told = texts(lookup("UNet", make_target("ONNX/FP32")))
    assert told[3:7] == ("box 0.873 → 0.873, mask 0.894 → 0.894", "-", "-", "-")
    assert told[-1] == "1"
    assert "The accuracy of 1 rows with a dash as interval" in explain_older()


def test_page_of_new_rows_mentions_no_earlier_version(monkeypatch: pytest.MonkeyPatch) -> None:
    run = parse({"runs": {"tuesday": RUN}, "cells": {"UNet ONNX/INT8": {"trained": TRAINED}}})
    monkeypatch.setattr("modelexport.planning.estimates.measurements", lambda: run)
    assert explain_older() == ""


def test_uncalibrated_cell_mentions_no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelexport.matrix.support.measurements", Measured)
    assert explain_images() == ""


def test_page_names_full_size_model_and_synthetic_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = {**FULL, "sizeBytes": 1, "variant": "resnet50", "randomWeights": True}
    run = parse({"runs": {"monday": RUN}, "cells": {"FCN ONNX/FP32": {"fullSize": full}}})
    for module in ("matrix.support", "planning.estimates", "crds.reference"):
        monkeypatch.setattr(f"modelexport.{module}.measurements", lambda: run)
    words = "Full-size at 512 x 512 pixels, variant resnet50, with random weights."
    assert words in render_matrix()
    told = record(lookup("FCN", make_target("ONNX/FP32")))
    assert (told["variant"], told["randomWeights"]) == ("resnet50", True)


@pytest.mark.usefixtures("run")
def test_failed_cell_gives_reason_on_one_line() -> None:
    cell = lookup("UNet", make_target("ONNX/FP16"))
    assert texts(cell)[3] == "failed"
    assert explain_failures(cell) == ["ONNX/FP16 failed: ConversionFailed: no space"]


@pytest.mark.usefixtures("run")
def test_page_lists_every_run_with_its_rows() -> None:
    assert explain_runs() == [
        "Run 1 (monday), 2026-11-27, a, 2 cores, 24 GiB, Linux: accuracy of 1 rows in 10 min, "
        "full size of 3 rows in 1 min with 1 of the cores for each conversion.",
        "Run 2 (tuesday), 2026-11-27, a, 2 cores, 24 GiB, Linux: accuracy of 1 rows in 10 min.",
    ]


@pytest.mark.usefixtures("run")
def test_page_lists_unmeasured_cells_of_like_architectures() -> None:
    every, rest, fp16 = explain_unmeasured()
    assert every.startswith("Not measured yet: accuracy and full size of YOLOv8, YOLO11, ")
    assert every.endswith(", Custom: all targets.")
    assert "UNet" not in every
    assert rest.startswith("Not measured yet: accuracy and full size of UNet: LiteRT/FP32, LiteRT/FP16, ")
    assert "ONNX/FP32" not in rest
    assert fp16 == "Not measured yet: accuracy of UNet: ONNX/FP16."


def test_result_without_number_is_named_in_error() -> None:
    with pytest.raises(KeyError, match="sizeBytes"):
        parse({"cells": {"UNet ONNX/FP32": {"fullSize": FULL}}})


@pytest.mark.usefixtures("run")
def test_unmeasured_value_is_dash() -> None:
    told = texts(lookup("UNet", make_target("LiteRT/FP16")))
    assert told[3:] == ("-", "-", "-", "-", "- ≥ 0.99", "- ≥ 0.95", "-", "-", "-", "-", "-", "3072", "-", "-")
