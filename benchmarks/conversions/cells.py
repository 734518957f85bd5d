"""Measures every cell of the YOLOv8 nano family as a separate conversion, beside ultralytics' export of the same model.

Both are whole processes, measured from start to end, one after the other. Then the nine targets of the detector run in
one ``modelexport run``, as users run them.
"""

import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.conversions.exports import build_export, write_command
from benchmarks.conversions.images import write_mosaics
from benchmarks.measuring.machine import describe_load, describe_machine
from benchmarks.measuring.measured_process import MeasuredProcess, run_measured
from benchmarks.results import CELLS, read_results, write_results
from benchmarks.targets import NINE
from modelexport.matrix.support import (
    ARCHITECTURES,
    Cell,
    Format,
    Precision,
    Target,
    Task,
    cells,
)
from modelexport.published import path_of

MODELS = Path(__file__).parents[2] / "testdata/models"
WEIGHTS = {
    "YOLOv8": "yolov8n.pt",
    "YOLOv8-SEG": "yolov8n-seg.pt",
    "YOLOv8-CLS": "yolov8n-cls.pt",
    "YOLOv8-Pose": "yolov8n-pose.pt",
}
ULTRALYTICS_FORMATS = {Format.LITERT: "litert", Format.ONNX: "onnx", Format.COREML: "coreml"}
ULTRALYTICS_PRECISIONS = {Precision.FP32: "32", Precision.FP16: "16", Precision.INT8: "8"}
KEYPOINTS = 4
WHOLE = "YOLOv8"
"""The architecture whose nine targets run together."""


@dataclass(frozen=True)
class CellsWorkspace:
    """The store of our conversions, the calibration data of ultralytics, and scratch space."""

    folder: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def images(self, task: Task) -> Path:
        """Return the path of the calibration images in the store."""
        return self.store / f"datasets/{task}.zip"

    def data(self, task: Task) -> Path:
        """Return the ``data`` argument of ultralytics."""
        return self.folder / "data" / ("classification" if task is Task.CLASSIFICATION else f"{task}.yaml")


def measure_cells(only: str) -> None:
    """Measure the cells whose label contains ``only``, and save each result at once."""
    results = read_results(CELLS)
    known: dict[str, Any] = results.get("cells", {})
    with _prepared() as workspace:
        for cell in cells():
            name = str(cell)
            if only in name and cell.architecture.name in WEIGHTS and cell.target.precision in ULTRALYTICS_PRECISIONS:
                known[name] = _measure(workspace, cell)
                print(name, json.dumps(known[name]), flush=True)
                write_results(CELLS, {**results, "machine": describe_machine(), "cells": known})
        if only in WHOLE:
            results["whole"] = _measure_whole(workspace)
    write_results(CELLS, {**results, "machine": describe_machine(), "cells": known})


def _measure(workspace: CellsWorkspace, cell: Cell) -> dict[str, Any]:
    load, process = describe_load(), _run(workspace, _export(cell.architecture.name, [cell.target]))
    (record,) = json.loads(process.output)
    if record["artifact"]:
        ours = _read_report(workspace, record)
        artifact = path_of(workspace.store, record["artifact"]["uri"])
        ours["latency"] = run_measured(
            [sys.executable, "-m", "benchmarks.conversions.latency", str(artifact)], workspace.folder
        ).json_output
    else:
        ours = {"failed": f"{record['reason']}: {record['message']}"}
    shutil.rmtree(workspace.store / "exports", ignore_errors=True)
    return {"load": load, "ours": {**_cost(process), **ours}, "peer": _export_by_ultralytics(workspace, cell)}


def _cost(process: MeasuredProcess) -> dict[str, Any]:
    return {"wall_seconds": process.seconds, "cpu_seconds": process.cpu_seconds, "peak_mib": process.peak_mib}


def _read_report(workspace: CellsWorkspace, record: Mapping[str, Any]) -> dict[str, Any]:
    report = json.loads(path_of(workspace.store, record["report_uri"]).read_text())
    return {
        "stages": report["seconds"],
        "bytes": report["artifact"]["sizeBytes"],
        "scheme": report["scheme"],
        "verification": report["verification"],
    }


def _measure_whole(workspace: CellsWorkspace) -> dict[str, Any]:
    """Run the nine targets of one architecture together, as many at a time as the command chooses."""
    load, process = describe_load(), _run(workspace, _export(WHOLE, NINE), jobs=None)
    records = json.loads(process.output)
    shutil.rmtree(workspace.store / "exports", ignore_errors=True)
    return {
        "load": load,
        **_cost(process),
        "published": sum(record["state"] == "succeeded" for record in records),
        "targets": {record["target"]: record["seconds"] for record in records},
    }


def _run(workspace: CellsWorkspace, export: Mapping[str, Any], jobs: int | None = 1) -> MeasuredProcess:
    command = write_command(export, workspace.folder, workspace.store, jobs)
    return run_measured([sys.executable, *command], workspace.folder)


def _export(architecture: str, targets: Iterable[Target]) -> dict[str, Any]:
    row = ARCHITECTURES[architecture]
    model = {
        "architecture": architecture,
        "checkpoint": {"uri": f"s3://checkpoints/{WEIGHTS[architecture]}"},
        "parameters": {"inputSize": list(row.default_input_size)},
    }
    return build_export("bench", targets, model, f"{row.task}.zip", samples=64)


def _export_by_ultralytics(workspace: CellsWorkspace, cell: Cell) -> dict[str, Any]:
    """Let ultralytics export a copy of the same model, because it writes beside the checkpoint."""
    name = WEIGHTS[cell.architecture.name]
    with tempfile.TemporaryDirectory(dir=workspace.folder) as folder:
        checkpoint = shutil.copy(MODELS / "weights" / name, folder)
        options = (ULTRALYTICS_FORMATS[cell.target.format], str(cell.architecture.default_input_size[0]))
        data = str(workspace.data(cell.architecture.task))
        arguments = [str(checkpoint), *options, ULTRALYTICS_PRECISIONS[cell.target.precision], data]
        environment = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(workspace.folder)}
        process = run_measured(
            [sys.executable, "-m", "benchmarks.conversions.ultralytics_export", *arguments],
            workspace.folder,
            environment,
        )
    return {**_cost(process), **_export_result_of(process)}


def _export_result_of(process: MeasuredProcess) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = process.json_output
    except RuntimeError:
        return {"refused": process.errors.strip().splitlines()[-1][:300]}
    return answer


@contextmanager
def _prepared() -> Iterator[CellsWorkspace]:
    with tempfile.TemporaryDirectory(prefix="modelexport-bench-") as folder:
        workspace = CellsWorkspace(Path(folder))
        (workspace.store / "checkpoints").mkdir(parents=True)
        (workspace.store / "datasets").mkdir()
        for name in WEIGHTS.values():
            shutil.copy(MODELS / "weights" / name, workspace.store / "checkpoints")
        for row in map(ARCHITECTURES.__getitem__, WEIGHTS):
            write_mosaics(row.task, row.default_input_size[0], workspace.images(row.task))
            _write_data(workspace, row.task)
        yield workspace


def _write_data(workspace: CellsWorkspace, task: Task) -> None:
    """Arrange the calibration images as ultralytics expects them; it does not use their labels."""
    data = workspace.data(task)
    if task is Task.CLASSIFICATION:
        for part in ("train", "val"):
            _extract(workspace.images(task), data / part / "circle")
        return
    images = workspace.folder / "data" / task / "images"
    _extract(workspace.images(task), images)
    names = {0: "circle", 1: "square", 2: "triangle"}
    content = {"path": str(images), "train": ".", "val": ".", "names": names}
    data.write_text(yaml.safe_dump(content | ({"kpt_shape": [KEYPOINTS, 3]} if task is Task.KEYPOINTS else {})))


def _extract(images: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    with zipfile.ZipFile(images) as archive:
        archive.extractall(folder)
