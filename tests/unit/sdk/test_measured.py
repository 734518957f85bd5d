from typing import Any

import pytest

from modelexport.crds.reference import render_matrix
from modelexport.matrix.measured import Measured, parse
from modelexport.matrix.support import Resources, lookup
from modelexport.planning.estimates import explain_failures, explain_images, explain_run, record, texts
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
}
TRAINED = {
    "scheme": "static_wi8_ai8",
    "inputSize": [128, 128],
    "accuracy": {"mIoU": 0.9248},
    "agreement": 0.9966,
    "fidelity": 0.9871,
}
CONTENT: dict[str, Any] = {
    "versions": {"torch": "2.14.1", "onnx": "1.23.2", "coremltools": "9.0"},
    "samples": {"trained": 60, "fullSize": 8},
    "references": {"UNet": {"mIoU": 0.9242}},
    "cells": {
        "UNet ONNX/FP32": {"fullSize": {**FULL, "scheme": "fp32", "sizeBytes": 4 << 20}},
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
        monkeypatch.setattr(f"modelexport.{module}.last_run", lambda: run)
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
        *("ONNX/INT8", "Stable", "static_wi8_ai8", "mIoU 0.924 → 0.925", "0.9966 ≥ 0.85", "0.9871 ≥ 0.9"),
        *("1.0", "0.25", "61.2", "3.00", "1900", "2560", "310.0"),
    )
    told = record(cell)
    assert told["accuracyFP32"] == {"mIoU": 0.9242}
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


def test_uncalibrated_cell_mentions_no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelexport.matrix.support.last_run", Measured)
    assert explain_images() == ""


def test_page_names_full_size_model_and_synthetic_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell = {"fullSize": {**FULL, "sizeBytes": 1, "variant": "resnet50", "randomWeights": True}}
    monkeypatch.setattr("modelexport.matrix.support.last_run", lambda: parse({"cells": {"FCN ONNX/FP32": cell}}))
    monkeypatch.setattr("modelexport.crds.reference.last_run", Measured)
    words = "Full-size at 512 x 512 pixels, variant resnet50, with random weights."
    assert words in render_matrix()
    told = record(lookup("FCN", make_target("ONNX/FP32")))
    assert (told["variant"], told["randomWeights"]) == ("resnet50", True)


@pytest.mark.usefixtures("run")
def test_failed_cell_gives_reason_on_one_line() -> None:
    cell = lookup("UNet", make_target("ONNX/FP16"))
    assert texts(cell)[3] == "failed"
    assert explain_failures(cell) == ["ONNX/FP16 failed: ConversionFailed: no space"]


def marked(*runs: str) -> dict[str, Any]:
    """The content with the runs of its cells in order, of which the first is also the run of the page."""
    cells = {
        name: {part: {**result, "run": run} for part, result in cell.items()}
        for run, (name, cell) in zip(runs, CONTENT["cells"].items(), strict=True)
    }
    return {**CONTENT, "run": runs[0], "cells": cells}


@pytest.mark.parametrize(
    ("content", "words", "is_one"),
    [
        (CONTENT, "do not record", False),
        (marked("monday", "monday", "monday"), "All rows come from the run monday", True),
        (marked("monday", "tuesday", "monday"), "from the run monday; the exceptions are UNet ONNX/INT8.", False),
    ],
    ids=["untold", "one", "mixed"],
)
def test_page_and_record_say_whether_rows_are_of_one_run(
    monkeypatch: pytest.MonkeyPatch, content: dict[str, Any], words: str, is_one: bool
) -> None:
    for module in ("matrix.support", "planning.estimates"):
        monkeypatch.setattr(f"modelexport.{module}.last_run", lambda: parse(content))
    assert words in explain_run()
    assert record(lookup("UNet", make_target("ONNX/FP32")))["ofOneRun"] is is_one


def test_cell_of_two_runs_belongs_to_none() -> None:
    cell = {"trained": {**TRAINED, "run": "monday"}, "fullSize": {**FULL, "sizeBytes": 1, "run": "tuesday"}}
    run = parse({"run": "monday", "cells": {"UNet ONNX/FP32": cell}})
    assert (run.of("UNet ONNX/FP32").run, run.apart) == (None, ("UNet ONNX/FP32",))


def test_result_without_number_is_named_in_error() -> None:
    with pytest.raises(KeyError, match="sizeBytes"):
        parse({"cells": {"UNet ONNX/FP32": {"fullSize": FULL}}})


@pytest.mark.usefixtures("run")
def test_unmeasured_value_is_dash() -> None:
    told = texts(lookup("UNet", make_target("LiteRT/FP16")))
    assert told[3:] == ("-", "- ≥ 0.99", "- ≥ 0.95", "-", "-", "-", "-", "-", "3072", "-")
