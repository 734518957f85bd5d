"""Measures the part ``fullSize``: the cost of converting a model as wide as users have it, and the file's speed."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.conversions.exports import build_export
from benchmarks.matrix.workspace import MatrixWorkspace, build_model, describe_failure, describe_report
from modelexport.matrix.support import Cell
from modelexport.published import path_of


def measure_full_size(workspace: MatrixWorkspace, asked: Sequence[Cell]) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Convert each full-size model in a process of its own, and yield the cost of each conversion.

    Raises:
        RuntimeError: why nothing was published.
    """
    for cell in asked:
        yield cell, _measure(workspace, cell)


def _measure(workspace: MatrixWorkspace, cell: Cell) -> dict[str, Any]:
    name = cell.architecture.name
    inputs = workspace.inputs[name]
    model, samples = build_model(inputs, name), workspace.samples["fullSize"]
    export = build_export(
        f"{name}-{cell.target.slug}".lower(), [cell.target], model, inputs.images, samples, supportLevel="Extended"
    )
    process, (record,) = workspace.run_export(export)
    if not record["artifact"]:
        raise RuntimeError(describe_failure(record))
    report = json.loads(path_of(workspace.store, record["report_uri"]).read_text())
    artifact = path_of(workspace.store, record["artifact"]["uri"])
    latency = workspace.run_python("-m", "benchmarks.conversions.latency", artifact).json_output["median_ms"]
    artifact.unlink()  # not read again, and all of them together have 6 GB
    return {
        **describe_report(report),
        "variant": report["model"]["metadata"].get("variant"),
        "sizeBytes": report["artifact"]["sizeBytes"],
        "seconds": process.seconds,
        "peakMiB": max(process.peak_mib, report["peakMemoryMiB"]),
        "stages": report["seconds"],
        "latencyMs": latency,
        "randomWeights": inputs.random_weights,
        "cores": workspace.cores_each,
    }
