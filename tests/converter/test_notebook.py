"""The notebook of the documentation runs with the real converter, in a running event loop as in Jupyter."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs/notebooks/first-export.ipynb"


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


async def test_notebook_converts_and_runs_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "docs/notebooks"
    folder.mkdir(parents=True)
    (tmp_path / "testdata").symlink_to(ROOT / "testdata")
    monkeypatch.chdir(folder)
    scope: dict[str, Any] = {}
    for number, cell in enumerate(code_cells(), start=1):
        exec(compile(cell, f"cell {number}", "exec"), scope)
    told = capsys.readouterr()
    assert "YOLOv8 n, 160x160, 3 classes (circle, square, triangle)\n" in told.out
    assert "ONNX/INT8 exported/yolov8n-int8.onnx 3." in told.out
    assert "'scores': (1, 3, 525)" in told.out
    assert "ONNX/FP32      succeeded" in told.err, "the progress of a local run"
    assert sorted(path.name for path in (folder / "exported").iterdir()) == [
        "report.html",
        "yolov8n-fp32.onnx",
        "yolov8n-fp32.onnx.report.json",
        "yolov8n-int8.onnx",
        "yolov8n-int8.onnx.report.json",
    ]


def test_stored_notebook_has_no_outputs() -> None:
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs"), "clear the outputs before you commit"
