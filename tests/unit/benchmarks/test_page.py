from typing import Any

import pytest

from benchmarks.pages.cells import cells_page, is_within, proof_seconds, ratio_of
from benchmarks.pages.operator import operator_page
from benchmarks.results import read_results, write_results

STAGES = {"load": 2.0, "convert": 5.0, "inspect": 0.5, "verify": 1.5}


def cell(size: int, wall: float = 10.0, peer: dict[str, Any] | None = None, **ours: Any) -> dict[str, Any]:
    return {
        "load": "0.3",
        "ours": {
            "wall_seconds": wall,
            "cpu_seconds": wall,
            "peak_mib": 900.0,
            "stages": STAGES,
            "bytes": size,
            "scheme": "fp32",
            "latency": {"min_ms": 4.0, "median_ms": 5.0, "runs": 15},
            "verification": {"value": "0.999", "threshold": "0.99"},
            **ours,
        },
        "peer": peer or {"wall_seconds": 8.0, "cpu_seconds": 12.0, "peak_mib": 700.0, "bytes": 100},
    }


def page(**cells: Any) -> str:
    results = {"cells": {name.replace("__", " ").replace("_", "/"): value for name, value in cells.items()}}
    return "\n".join(cells_page(results))


def test_cell_time_limit_is_reference_tool_plus_verification() -> None:
    assert proof_seconds(cell(100)) == 2.0
    assert is_within(cell(100, wall=10.0), "wall_seconds") is True
    assert is_within(cell(100, wall=10.1), "wall_seconds") is False
    assert is_within(cell(100, wall=10.1), "cpu_seconds") is True


def test_unsupported_cell_of_reference_tool_is_not_compared() -> None:
    refused = {"wall_seconds": 3.0, "cpu_seconds": 3.0, "peak_mib": 300.0, "refused": "not supported"}
    assert is_within(cell(100, peer=refused), "wall_seconds") is None
    assert "by ultralytics: not supported" in page(YOLOv8__ONNX_FP32=cell(100, peer=refused))


def test_size_ratio_needs_fp32_file_of_same_format() -> None:
    known = {"YOLOv8 ONNX/FP32": cell(100), "YOLOv8 ONNX/INT8": cell(27), "YOLOv8 LiteRT/INT8": cell(27)}
    assert ratio_of(known, "YOLOv8 ONNX/INT8") == 0.27
    assert ratio_of(known, "YOLOv8 LiteRT/INT8") is None


@pytest.mark.parametrize(("size", "words"), [(28, "met (1 of 1)"), (29, "**missed** (0 of 1)")])
def test_large_file_is_marked_missed(size: int, words: str) -> None:
    text = page(YOLOv8__ONNX_FP32=cell(100), YOLOv8__ONNX_INT8=cell(size))
    assert f"| INT8 files at most 0.28 of FP32 | {words} |" in text


def test_unpublished_cell_is_marked_missed_with_message() -> None:
    failed: dict[str, Any] = cell(100)
    failed["ours"] = {"wall_seconds": 9.0, "cpu_seconds": 9.0, "peak_mib": 800.0, "failed": "VerificationFailed: .78"}
    text = page(YOLOv8__ONNX_FP32=failed)
    assert "| published, so verified | **missed** (0 of 1) |" in text
    assert "- YOLOv8 ONNX/FP32 is not published: VerificationFailed: .78" in text


def measurement(contender: str, completed: float, **changes: Any) -> dict[str, Any]:
    reports = contender != "plain Jobs"
    return {
        "way": contender,
        "created_per_second": 100.0,
        "completed_per_second": completed,
        "reported_per_second": completed if reports else None,
        "lag_p50": 0.4 if reports else None,
        "lag_p99": 1.2 if reports else None,
        "peak_mib": 100.0 if reports else None,
        "cpu_seconds": 9.0 if reports else None,
        "all_cpu_seconds": 50.0,
        "cpu_by_program": {"kube-apiserver": 30.0, "etcd": 20.0},
        "wall_seconds": 50.0,
        "load": "2.0",
        **changes,
    }


def test_operator_is_judged_by_medians() -> None:
    rounds = [
        *(measurement("ModelExport", rate) for rate in (10.0, 33.0, 31.0)),
        *(measurement("JobSet", rate) for rate in (20.0, 21.0, 90.0)),
        *(measurement("plain Jobs", rate) for rate in (33.0, 34.0, 35.0)),
    ]
    rounds[2]["cpu_by_program"]["modelexport_operator"] = 9.0
    text = "\n".join(
        operator_page({"objects": 110, "jobs": 990, "jobset": "v0.12.0", "cores": 2, "measurements": rounds})
    )
    assert "| complete/s, at least 1.5 x JobSet | 1.48 | **missed** |" in text
    assert "| complete/s, at least 0.9 x plain Jobs | 0.91 | met |" in text
    assert "| p99 under 2 s | 1.20 s | met |" in text
    assert "| under 150 MB | 105 MB | met |" in text
    assert "31.0 (10.0-33.0)" in text
    assert "| kube-apiserver | 30.0 | 30.0 | 30.0 |" in text
    assert "| modelexport_operator | - | 9.0 | - |" in text
    assert "| share of all cores, % | 50 | 50 | 50 |" in text


def test_results_are_rounded_to_four_digits(tmp_path: Any) -> None:
    path = tmp_path / "docs/operator.json"
    assert read_results(path) == {}
    write_results(path, {"rates": [1.234567, {"deep": 2.0}], "name": "x"})
    assert read_results(path) == {"rates": [1.2346, {"deep": 2.0}], "name": "x"}
