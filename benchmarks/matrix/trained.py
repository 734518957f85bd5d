"""Measures the part ``trained``: the accuracy of files of the small trained models, as an export evaluates it.

All files of an architecture come from one export with ``spec.evaluation``, so the original is measured once. No drop
refuses a file or keeps layers of it in float: the file is the one that an export without labels gives.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from benchmarks.conversions.exports import build_export
from benchmarks.matrix.workspace import MatrixWorkspace, build_model, describe_failure, describe_report
from modelexport.api.spec import parse_export
from modelexport.local.run import DEFAULT_OUTPUT
from modelexport.matrix.support import Cell, Task
from modelexport.names import REPORT_FILE
from modelexport.planning.plan import plan_export
from modelexport.published import path_of

POLL_SECONDS = 2.0
Result = dict[str, Any]


def measure_trained(workspace: MatrixWorkspace, asked: Sequence[Cell]) -> Iterator[tuple[Cell, Result]]:
    """Convert the small model of an architecture to several targets, and yield each result as soon as it is published.

    Raises:
        RuntimeError: the export ended before all targets did, or a file of ``Custom`` could not be measured.
    """
    export = build_evaluated(workspace, asked)
    waiting = {str(cell.target): cell for cell in asked}
    planned = plan_export(parse_export(export), DEFAULT_OUTPUT)
    reports = {str(one.target): path_of(workspace.store, one.output) / REPORT_FILE for one in planned}
    with ThreadPoolExecutor(1) as pool:
        running, is_over = pool.submit(workspace.run_export, export), False
        while not is_over:
            is_over = bool(wait([running], POLL_SECONDS).done)
            for target in [target for target in waiting if reports[target].exists()]:
                report = json.loads(reports[target].read_text())
                accuracy = report.get("accuracy") or measure_custom(workspace, report)
                yield waiting.pop(target), {**describe_report(report), **describe_accuracy(accuracy)}
    process, records = running.result()
    reasons = {record["target"]: describe_failure(record) for record in records}
    for target, cell in waiting.items():
        yield cell, {"failed": reasons[target]}
    seconds = f"{process.cpu_seconds:.0f} processor seconds"
    print(f"{asked[0].architecture.name}: {len(asked)} trained cells took {seconds}", flush=True)


def build_evaluated(workspace: MatrixWorkspace, asked: Sequence[Cell]) -> dict[str, Any]:
    """Return an export of one architecture with labelled images, which no loss of accuracy fails or changes.

    The product evaluates every task that it knows; that of ``Custom`` is unknown.
    """
    architecture = asked[0].architecture
    inputs = workspace.inputs[architecture.name]
    evaluation = {
        "dataset": {"uri": f"s3://datasets/{inputs.labelled}"},
        "samples": workspace.samples["evaluated"],
        "maxDrop": "1",
        "onDrop": "Publish",
    }
    return build_export(
        architecture.name.lower(),
        [cell.target for cell in asked],
        build_model(inputs, architecture.name),
        inputs.images,
        workspace.samples["trained"],
        supportLevel="Extended",
        **({} if architecture.task is Task.UNKNOWN else {"evaluation": evaluation}),
    )


def measure_custom(workspace: MatrixWorkspace, report: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the accuracy of a published file of ``Custom``, by the code that evaluates exports.

    Raises:
        RuntimeError: the end of the error output.
    """
    inputs, target = workspace.inputs["Custom"], report["request"]["target"]
    places = (f"s3://checkpoints/{inputs.checkpoint}", f"s3://datasets/{inputs.labelled}", report["artifact"]["uri"])
    paths = (path_of(workspace.store, place) for place in places)
    process = workspace.run_python("-m", "benchmarks.conversions.accuracy", *paths, target["format"])
    accuracy: Mapping[str, Any] = process.json_output
    return accuracy


def describe_accuracy(accuracy: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of an accuracy as in a report: the metric of the task for file and original, and the drop."""
    metric = accuracy["metric"]
    return {
        "accuracy": {metric: float(accuracy["value"])},
        "original": {metric: float(accuracy["original"])},
        "drop": float(accuracy["drop"]),
        "interval": [float(limit) for limit in accuracy["interval"]],
        "images": accuracy["images"],
    }
