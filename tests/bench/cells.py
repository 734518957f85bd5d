"""Every cell of the YOLOv8 nano family as one conversion of its own, beside ultralytics' export of the same model.

Both are whole processes, from their start to their end, one after the other. Afterwards the nine targets of the
detector in one ``modelexport run``, as a user runs them.
"""

import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.children import Child, run_child
from bench.machine import describe_load, describe_machine
from bench.pictures import write_mosaics
from bench.results import CELLS, read_results, write_results
from modelexport.matrix import ARCHITECTURES, TARGETS, Cell, Format, Precision, Task, cells

MODELS = Path(__file__).parents[1] / "models"
WEIGHTS = {
    "YOLOv8": "yolov8n.pt",
    "YOLOv8-SEG": "yolov8n-seg.pt",
    "YOLOv8-CLS": "yolov8n-cls.pt",
    "YOLOv8-Pose": "yolov8n-pose.pt",
}
PEER_FORMATS = {Format.LITERT: "litert", Format.ONNX: "onnx", Format.COREML: "coreml"}
PEER_PRECISIONS = {Precision.FP32: "32", Precision.FP16: "16", Precision.INT8: "8"}
KEYPOINTS = 4
WHOLE = "YOLOv8"
"""The architecture whose nine targets are run together."""


@dataclass(frozen=True)
class Bench:
    """The store of our conversions, the calibration data of ultralytics, and scratch space."""

    folder: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def pictures(self, task: Task) -> Path:
        """The calibration pictures, in the store."""
        return self.store / f"datasets/{task}.zip"

    def data(self, task: Task) -> Path:
        """What ultralytics takes as ``data``."""
        return self.folder / "data" / ("classification" if task is Task.CLASSIFICATION else f"{task}.yaml")


def measure_cells(only: str) -> None:
    """Measure the cells whose label contains ``only``, and keep each result as soon as it is there."""
    results = read_results(CELLS)
    known: dict[str, Any] = results.get("cells", {})
    with _prepared() as bench:
        for cell in cells():
            name = str(cell)
            if only in name and cell.architecture.name in WEIGHTS:
                known[name] = _measure(bench, cell)
                print(name, json.dumps(known[name]), flush=True)
                write_results(CELLS, {**results, "machine": describe_machine(), "cells": known})
        if only in WHOLE:
            results["whole"] = _measure_whole(bench)
    write_results(CELLS, {**results, "machine": describe_machine(), "cells": known})


def _measure(bench: Bench, cell: Cell) -> dict[str, Any]:
    load, child = describe_load(), _run(bench, _export(cell.architecture.name, [cell.target]))
    (record,) = json.loads(child.output)
    if record["artifact"]:
        ours = _read_report(bench, record)
        artifact = bench.store / record["artifact"]["uri"].removeprefix("s3://")
        ours["latency"] = run_child([sys.executable, "-m", "bench.latency", str(artifact)], bench.folder).answer
    else:
        ours = {"failed": f"{record['reason']}: {record['message']}"}
    shutil.rmtree(bench.store / "exports", ignore_errors=True)
    return {"load": load, "ours": {**_cost(child), **ours}, "peer": _export_by_peer(bench, cell)}


def _cost(child: Child) -> dict[str, Any]:
    return {"wall_seconds": child.seconds, "cpu_seconds": child.cpu_seconds, "peak_mib": child.peak_mib}


def _read_report(bench: Bench, record: Mapping[str, Any]) -> dict[str, Any]:
    report = json.loads((bench.store / record["report_uri"].removeprefix("s3://")).read_text())
    return {
        "stages": report["seconds"],
        "bytes": report["artifact"]["sizeBytes"],
        "scheme": report["scheme"],
        "verification": report["verification"],
    }


def _measure_whole(bench: Bench) -> dict[str, Any]:
    """Run the nine targets of one architecture together, with as many at a time as the command chooses."""
    load, child = describe_load(), _run(bench, _export(WHOLE, TARGETS), jobs=None)
    records = json.loads(child.output)
    shutil.rmtree(bench.store / "exports", ignore_errors=True)
    return {
        "load": load,
        **_cost(child),
        "published": sum(record["state"] == "succeeded" for record in records),
        "targets": {record["target"]: record["seconds"] for record in records},
    }


def _run(bench: Bench, export: Mapping[str, Any], jobs: int | None = 1) -> Child:
    document = bench.folder / "export.yaml"
    document.write_text(yaml.safe_dump(export))
    command = [sys.executable, "-m", "modelexport", "run", str(document), "--store", str(bench.store), "-o", "json"]
    return run_child([*command, *(["--jobs", str(jobs)] if jobs else [])], bench.folder)


def _export(architecture: str, targets: Any) -> dict[str, Any]:
    task, size = ARCHITECTURES[architecture].task, ARCHITECTURES[architecture].default_input_size
    return {
        "apiVersion": "modelexport.dev/v1alpha1",
        "kind": "ModelExport",
        "metadata": {"name": "bench", "namespace": "default"},
        "spec": {
            "model": {
                "architecture": architecture,
                "checkpoint": {"uri": f"s3://checkpoints/{WEIGHTS[architecture]}"},
                "parameters": {"inputSize": list(size)},
            },
            "targets": [{"format": str(target.format), "precision": str(target.precision)} for target in targets],
            "calibration": {"dataset": {"uri": f"s3://datasets/{task}.zip"}, "samples": 64},
        },
    }


def _export_by_peer(bench: Bench, cell: Cell) -> dict[str, Any]:
    """Let ultralytics export the same model; a copy, because it writes beside the checkpoint."""
    name = WEIGHTS[cell.architecture.name]
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        checkpoint = shutil.copy(MODELS / "weights" / name, folder)
        options = (PEER_FORMATS[cell.target.format], str(cell.architecture.default_input_size[0]))
        data = str(bench.data(cell.architecture.task))
        arguments = [str(checkpoint), *options, PEER_PRECISIONS[cell.target.precision], data]
        environment = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(bench.folder)}
        child = run_child([sys.executable, "-m", "bench.peer", *arguments], bench.folder, environment)
    return {**_cost(child), **_answer_of(child)}


def _answer_of(child: Child) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = child.answer
    except RuntimeError:
        return {"refused": child.errors.strip().splitlines()[-1][:300]}
    return answer


@contextmanager
def _prepared() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="modelexport-bench-") as folder:
        bench = Bench(Path(folder))
        (bench.store / "checkpoints").mkdir(parents=True)
        (bench.store / "datasets").mkdir()
        for name in WEIGHTS.values():
            shutil.copy(MODELS / "weights" / name, bench.store / "checkpoints")
        for row in map(ARCHITECTURES.__getitem__, WEIGHTS):
            write_mosaics(row.task, row.default_input_size[0], bench.pictures(row.task))
            _write_data(bench, row.task)
        yield bench


def _write_data(bench: Bench, task: Task) -> None:
    """Lay the calibration pictures out as ultralytics wants them; it needs their labels for nothing."""
    data = bench.data(task)
    if task is Task.CLASSIFICATION:
        for part in ("train", "val"):
            _extract(bench.pictures(task), data / part / "circle")
        return
    pictures = bench.folder / "data" / task / "images"
    _extract(bench.pictures(task), pictures)
    names = {0: "circle", 1: "square", 2: "triangle"}
    content = {"path": str(pictures), "train": ".", "val": ".", "names": names}
    data.write_text(yaml.safe_dump(content | ({"kpt_shape": [KEYPOINTS, 3]} if task is Task.KEYPOINTS else {})))


def _extract(pictures: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    with zipfile.ZipFile(pictures) as archive:
        archive.extractall(folder)
