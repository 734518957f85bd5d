import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from benchmarks.matrix import trained
from benchmarks.matrix.trained import build_evaluated, measure_trained
from benchmarks.matrix.workspace import MatrixInputs, MatrixWorkspace
from benchmarks.measuring.measured_process import MeasuredProcess
from modelexport.api.spec import OnDrop, parse_export
from modelexport.matrix.support import Cell, lookup
from modelexport.planning.plan import plan_export
from modelexport.published import path_of
from testplane.objects import make_target

ACCURACY = {
    "metric": "mAP50-95",
    "original": "0.980158",
    "value": "0.975930",
    "drop": "0.004228",
    "maxDrop": "1",
    "interval": ["0.000519", "0.008230"],
    "images": 640,
}
SAMPLES = {"trained": 56, "fullSize": 8, "evaluated": 640}


@dataclass(frozen=True)
class FakeWorkspace(MatrixWorkspace):
    """Publishes all targets of an export but those that are to fail."""

    failing: Sequence[str] = ()
    exports: list[Mapping[str, Any]] = field(default_factory=list)

    def run_export(self, export: Mapping[str, Any]) -> tuple[MeasuredProcess, list[dict[str, Any]]]:
        self.exports.append(export)
        requests = plan_export(parse_export(dict(export)), "s3://exports")
        for request in requests:
            if str(request.target) not in self.failing:
                report = make_report(str(request.recipe), **({"accuracy": ACCURACY} if request.evaluation else {}))
                path = path_of(self.store, request.output) / "report.json"
                path.parent.mkdir(parents=True)
                path.write_text(json.dumps(report))
        records = [
            {"target": str(request.target), "reason": "ConversionFailed", "message": "no space"} for request in requests
        ]
        return MeasuredProcess(1.0, 1.0, 1.0, 1, "", ""), records


def make_report(recipe: str, **more: Any) -> dict[str, Any]:
    shape = {"axes": ["batch", "rgb", "height", "width"], "shape": [1, 3, 160, 192]}
    verification = {"value": "0.978036", "fidelity": {"value": "0.981"}}
    return {"scheme": recipe, "model": {"input": shape}, "verification": verification, **more}


def make_workspace(folder: Path, architecture: str, *failing: str) -> FakeWorkspace:
    inputs = {architecture: MatrixInputs("a.pt", "calibration.zip", {}, "labelled.zip")}
    return FakeWorkspace(folder, inputs, SAMPLES, SimpleQueue(), 1, failing=failing)


def ask(architecture: str, *targets: str) -> list[Cell]:
    return [lookup(architecture, make_target(target)) for target in targets]


def test_one_export_evaluates_all_targets_of_an_architecture(tmp_path: Path) -> None:
    workspace, asked = make_workspace(tmp_path, "YOLOv8"), ask("YOLOv8", "ONNX/INT8", "LiteRT/W8A16")
    found = list(measure_trained(workspace, asked))
    assert [cell for cell, _ in found] == asked
    assert len(workspace.exports) == 1
    assert found[0][1] == {
        "scheme": "static_wi8_ai8",
        "inputSize": [160, 192],
        "agreement": 0.978036,
        "fidelity": 0.981,
        "accuracy": {"mAP50-95": 0.97593},
        "original": {"mAP50-95": 0.980158},
        "drop": 0.004228,
        "interval": [0.000519, 0.00823],
        "images": 640,
    }


def test_no_loss_can_fail_or_change_an_evaluated_file(tmp_path: Path) -> None:
    asked = ask("YOLOv8", "ONNX/INT8")
    export = parse_export(build_evaluated(make_workspace(tmp_path, "YOLOv8"), asked))
    assert export.evaluation is not None
    assert (export.evaluation.max_drop, export.evaluation.on_drop) == (1.0, OnDrop.PUBLISH)
    assert (export.evaluation.samples, export.evaluation.dataset.uri) == (640, "s3://datasets/labelled.zip")
    assert export.calibration is not None
    assert export.calibration.samples == 56


def test_failed_target_is_named_beside_published_ones(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, "YOLOv8", "ONNX/INT8")
    asked = ask("YOLOv8", "ONNX/INT8", "ONNX/FP32")
    (_, published), (cell, failed) = measure_trained(workspace, asked)
    assert published["images"] == 640
    assert (cell, failed) == (asked[0], {"failed": "ConversionFailed: no space"})


def test_custom_is_measured_outside_its_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "measure_custom", lambda *_: {**ACCURACY, "metric": "top-1"})
    workspace = make_workspace(tmp_path, "Custom")
    ((_, found),) = measure_trained(workspace, ask("Custom", "ONNX/INT8"))
    assert "evaluation" not in workspace.exports[0]["spec"]
    assert (found["accuracy"], found["images"]) == ({"top-1": 0.97593}, 640)
