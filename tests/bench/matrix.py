"""Measures every cell of the support matrix on a trained model, and keeps it in docs/benchmarks/matrix.json.

    PYTHONPATH=tests:tests/models:examples .venv/bin/python -m bench.matrix [--only TEXT]

Each cell is a ``modelexport run`` of its own on one core, with as many at a time as there are cores, and then the task
accuracy of the file that was published.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
import yaml

from bench.accuracy import trained_model
from bench.children import Child, run_child
from bench.machine import describe_machine
from bench.results import MATRIX, label, read_results, write_results
from converter.cells import load_model
from converter.trained import MODELS
from modelexport.matrix import ARCHITECTURES, Cell, cells
from modelexport_converter.report import tool_versions

SAMPLES = 64


@dataclass(frozen=True)
class Bench:
    """Checkpoints, pictures and artifacts, and the cores that are free."""

    folder: Path
    cores: SimpleQueue[int]

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def checkpoint(self, architecture: str) -> Path:
        """The checkpoint of the trained model, in the store."""
        suffix = ".pt2" if architecture == "Custom" else trained_model(architecture).weights.suffix
        return self.store / f"checkpoints/{architecture}{suffix}"


def main() -> None:
    """Measure, and keep each result as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cells whose architecture, format or precision has this in its name")
    only = parser.parse_args().only
    chosen = [cell for cell in cells() if only in label(cell)]
    results = {**read_results(MATRIX), "machine": describe_machine(), "versions": tool_versions()}
    known, references = results.get("cells", {}), results.get("references", {})
    with prepared() as bench, ThreadPoolExecutor(bench.cores.qsize()) as pool:
        names = dict.fromkeys(cell.architecture.name for cell in chosen)
        references |= dict(zip(names, pool.map(lambda name: measure_accuracy(bench, name), names), strict=True))
        for cell, measured in zip(chosen, pool.map(lambda cell: measure(bench, cell), chosen), strict=True):
            known[label(cell)] = measured
            print(label(cell), json.dumps(measured), flush=True)
            in_order = {name: known[name] for name in map(label, cells()) if name in known}
            write_results(MATRIX, {**results, "references": references, "cells": in_order})


def measure(bench: Bench, cell: Cell) -> dict[str, Any]:
    """Convert, then measure what was published, or tell why nothing was."""
    name = cell.architecture.name
    document = bench.folder / f"{name}-{cell.target.slug}.yaml"
    document.write_text(yaml.safe_dump(_export(bench, cell)))
    child = _run(bench, "-m", "modelexport", "run", document, "--store", bench.store, "--jobs", 1, "-o", "json")
    (record,) = json.loads(child.output)
    if not record["artifact"]:
        return {"failed": f"{record['reason']}: {record['message']}"}
    report = json.loads((bench.store / record["report_uri"].removeprefix("s3://")).read_text())
    artifact = bench.store / record["artifact"]["uri"].removeprefix("s3://")
    return {
        "scheme": report["scheme"],
        "inputSize": report["model"]["input"]["shape"][2:],
        "accuracy": measure_accuracy(bench, name, artifact, cell.target.format),
        "agreement": float(report["verification"]["value"]),
        "sizeBytes": report["artifact"]["sizeBytes"],
        "seconds": child.seconds,
        "peakMiB": child.peak_mib,
        "latencyMs": _run(bench, "-m", "bench.latency", artifact).answer["median_ms"],
    }


def measure_accuracy(bench: Bench, architecture: str, *artifact: object) -> dict[str, float]:
    """Task accuracy of a model, or of its file."""
    found: dict[str, float] = _run(
        bench, "-m", "bench.accuracy", architecture, bench.checkpoint(architecture), *artifact
    ).answer
    return found


def _run(bench: Bench, *command: object) -> Child:
    """Run Python on a core of its own."""
    core = bench.cores.get()
    try:
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            return run_child(["taskset", "-c", str(core), sys.executable, *map(str, command)], Path(folder))
    finally:
        bench.cores.put(core)


def _export(bench: Bench, cell: Cell) -> Mapping[str, Any]:
    name = cell.architecture.name
    target = {"format": str(cell.target.format), "precision": str(cell.target.precision)}
    return {
        "apiVersion": "modelexport.dev/v1alpha1",
        "kind": "ModelExport",
        "metadata": {"name": f"{name}-{cell.target.slug}".lower(), "namespace": "default"},
        "spec": {
            "model": {"architecture": name, "checkpoint": {"uri": f"s3://checkpoints/{bench.checkpoint(name).name}"}},
            "supportLevel": "Extended",
            "targets": [target],
            "calibration": {
                "dataset": {"uri": f"s3://datasets/calibration{trained_model(name).pictures}.zip"},
                "samples": SAMPLES,
            },
        },
    }


@contextmanager
def prepared() -> Iterator[Bench]:
    """The store with every checkpoint and the calibration pictures; all of it goes at the end."""
    with tempfile.TemporaryDirectory(prefix="modelexport-matrix-") as folder:
        bench = Bench(Path(folder), SimpleQueue())
        for core in sorted(os.sched_getaffinity(0)):
            bench.cores.put(core)
        for name in ("checkpoints", "datasets"):
            (bench.store / name).mkdir(parents=True)
        for archive in (MODELS / "data").glob("calibration*.zip"):
            shutil.copy(archive, bench.store / "datasets")
        for name in ARCHITECTURES:
            if name != "Custom":
                shutil.copy(trained_model(name).weights, bench.checkpoint(name))
        model = load_model("YOLOv8-CLS")
        torch.export.save(torch.export.export(model.module, (model.example_input(),)), bench.checkpoint("Custom"))
        yield bench


if __name__ == "__main__":
    main()
