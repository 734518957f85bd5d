"""Measures every cell of the support matrix: writes measured.json, which the package reads, and docs/support-matrix.md.

    PYTHONPATH=hack:testdata:examples \\
        .venv/bin/python -m benchmarks.matrix [--only TEXT] [--again] [--cores N]

Each cell is converted by two separate ``modelexport run`` calls. The first converts the small trained model at its
training size, to measure task accuracy. The second converts a model as wide as users have it at the default input size,
to measure seconds, memory, size and latency. An interrupted run resumes, failed cells included. A run of other sources,
tools or machine starts over, and so does one after a complete run. ``--only`` measures some cells again; the file and
its page then state that they are not of one run. A cell that fails is recorded with its reason, and the exit code is 1.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import yaml

from benchmarks.conversions.exports import build_export
from benchmarks.matrix.full_size import SAMPLES, MatrixInputs, prepare
from benchmarks.matrix.result_store import PARTS, ResultStore
from benchmarks.measuring.machine import REPOSITORY, TOOLS, describe_machine
from benchmarks.measuring.measured_process import MeasuredProcess, run_measured
from modelexport.matrix.measured import FILE
from modelexport.matrix.support import Cell, cells
from modelexport_converter.publishing.report import tool_versions
from models import untrained

SOURCES = tuple(REPOSITORY / name for name in ("converter-image/src", "sdk/src", "benchmarks", "testdata/models"))
"""The measured sources, and the sources that measure them."""


@dataclass(frozen=True)
class MatrixWorkspace:
    """Scratch space, inputs by architecture, and the free sets of cores, in the syntax of ``taskset``."""

    folder: Path
    inputs: Mapping[str, MatrixInputs]
    cores: SimpleQueue[str]
    cores_each: int

    @property
    def store(self) -> Path:
        return self.folder / "store"


def main() -> int:
    """Measure, and save each result at once."""
    options = parse_arguments()
    chosen = [cell for cell in cells() if options.only in str(cell)]
    started = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    results = ResultStore(FILE, describe_run(options.cores), started, whole=not options.only)
    if options.only or options.again:
        results.forget(chosen)
    for part, cores in zip(PARTS, (1, options.cores), strict=True):
        with prepared(results.missing(chosen, part), part, cores) as workspace:
            for cell, result in measure_all(workspace, results, chosen, part):
                results.record(cell, part, result)
                results.write()
    subprocess.run([sys.executable, "-m", "modelexport.crds.render", REPOSITORY], check=True)  # reads the new numbers
    failures = results.failures(chosen)
    took = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in results.seconds.items())
    print(f"{len(chosen)} cells ({took}), {len(failures)} failures", *failures, sep="\n", flush=True)
    return 1 if failures else 0


def describe_run(cores: int) -> dict[str, Any]:
    """Return the conditions that two runs must share to count as one."""
    about = {"source": digest_of(SOURCES), "machine": describe_machine(), "samples": SAMPLES, "cores": cores}
    return {**about, "versions": tool_versions(TOOLS)}


def digest_of(folders: Sequence[Path]) -> str:
    """Return a digest of all files in folders, except those that Python or a run itself writes there."""
    found = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in found:
        if path != FILE and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(REPOSITORY)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:12]


def parse_arguments() -> argparse.Namespace:
    """Return the command line options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cells whose architecture, format or precision has this in its name")
    parser.add_argument("--again", action="store_true", help="start over instead of resuming an interrupted run")
    parser.add_argument("--cores", type=int, default=1, help="cores of each full-size conversion; default: 1")
    return parser.parse_args()


def measure_all(
    workspace: MatrixWorkspace, results: ResultStore, chosen: Sequence[Cell], part: str
) -> Iterator[tuple[Cell, Mapping[str, Any]]]:
    """Yield the missing results of a part as they come, as many at a time as there are sets of cores."""
    missing = results.missing(chosen, part)
    measure = {"trained": measure_trained, "fullSize": measure_full_size}[part]
    with ThreadPoolExecutor(workspace.cores.qsize()) as pool:
        if part == "trained":
            names = [name for name in workspace.inputs if name not in results.references]
            results.references |= zip(names, pool.map(partial(measure_accuracy, workspace), names), strict=True)
        futures = {pool.submit(_result_or_failure, measure, workspace, cell): cell for cell in missing}
        try:
            for count, future in enumerate(as_completed(futures), 1):
                result = json.dumps(future.result())
                print(f"[{count}/{len(missing)}] {futures[future]} {part} {result}", flush=True)
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _result_or_failure(
    measure: Callable[[MatrixWorkspace, Cell], dict[str, Any]], workspace: MatrixWorkspace, cell: Cell
) -> dict[str, Any]:
    """Return the measurement, or the reason of its failure."""
    try:
        return measure(workspace, cell)
    except RuntimeError as error:
        return {"failed": str(error)}


def measure_trained(workspace: MatrixWorkspace, cell: Cell) -> dict[str, Any]:
    """Convert the small model and measure the published file.

    Raises:
        RuntimeError: why nothing was published.
    """
    described, artifact = convert(workspace, cell, SAMPLES["trained"])
    kept = {
        name: described[name] for name in ("scheme", "inputSize", "agreement", "fidelity")
    }  # full size gives better numbers for the rest
    return {**kept, "accuracy": measure_accuracy(workspace, cell.architecture.name, artifact, cell.target.format)}


def measure_full_size(workspace: MatrixWorkspace, cell: Cell) -> dict[str, Any]:
    """Convert the full-size model and measure the cost.

    Raises:
        RuntimeError: why nothing was published.
    """
    described, artifact = convert(workspace, cell, SAMPLES["fullSize"])
    latency = run_python(workspace, "-m", "benchmarks.conversions.latency", artifact).json_output["median_ms"]
    artifact.unlink()  # not read again, and all of them together have 6 GB
    about = {"randomWeights": cell.architecture.name in untrained.NETWORKS, "cores": workspace.cores_each}
    return {**described, "latencyMs": latency, **about}


def measure_accuracy(workspace: MatrixWorkspace, architecture: str, *artifact: object) -> dict[str, float]:
    """Return the task accuracy of a model, or of its file.

    Raises:
        RuntimeError: the end of the error output.
    """
    checkpoint = workspace.store / "checkpoints" / workspace.inputs[architecture].checkpoint
    found: dict[str, float] = run_python(
        workspace, "-m", "benchmarks.conversions.accuracy", architecture, checkpoint, *artifact
    ).json_output
    return found


def convert(workspace: MatrixWorkspace, cell: Cell, samples: int) -> tuple[dict[str, Any], Path]:
    """Convert, and return the measurements that both parts share, and the file.

    Raises:
        RuntimeError: why nothing was published.
    """
    document = workspace.folder / f"{cell.architecture.name}-{cell.target.slug}.yaml"
    document.write_text(yaml.safe_dump(_export(workspace.inputs[cell.architecture.name], cell, samples)))
    process = run_python(
        workspace, "-m", "modelexport", "run", document, "--store", workspace.store, "--jobs", 1, "-o", "json"
    )
    if process.exit_code not in (0, 1):
        raise RuntimeError(f"exit code {process.exit_code}: {process.errors[-2000:]}")
    (record,) = json.loads(process.output)
    if not record["artifact"]:
        raise RuntimeError(f"{record['reason']}: {record['message']}")
    report = json.loads((workspace.store / record["report_uri"].removeprefix("s3://")).read_text())
    size_of = dict(zip(report["model"]["input"]["axes"], report["model"]["input"]["shape"], strict=True))
    described = {
        "scheme": report["scheme"],
        "variant": report["model"]["metadata"].get("variant"),
        "inputSize": [size_of[axis] for axis in ("height", "width")],
        "agreement": float(report["verification"]["value"]),
        "fidelity": _fidelity(report["verification"]),
        "sizeBytes": report["artifact"]["sizeBytes"],
        "seconds": process.seconds,
        "peakMiB": max(process.peak_mib, report["peakMemoryMiB"]),
        "stages": report["seconds"],
    }
    return described, workspace.store / record["artifact"]["uri"].removeprefix("s3://")


def _fidelity(verification: Mapping[str, Any]) -> float | None:
    return float(verification["fidelity"]["value"]) if "fidelity" in verification else None


def run_python(workspace: MatrixWorkspace, *command: object) -> MeasuredProcess:
    """Run Python on a set of cores of its own."""
    cores = workspace.cores.get()
    try:
        with tempfile.TemporaryDirectory(dir=workspace.folder) as folder:
            return run_measured(["taskset", "-c", cores, sys.executable, *map(str, command)], Path(folder))
    finally:
        workspace.cores.put(cores)


def _export(inputs: MatrixInputs, cell: Cell, samples: int) -> Mapping[str, Any]:
    architecture = cell.architecture.name
    model = {
        "architecture": architecture,
        "checkpoint": {"uri": f"s3://checkpoints/{inputs.checkpoint}"},
        "parameters": dict(inputs.parameters),
    }
    name = f"{architecture}-{cell.target.slug}".lower()
    return build_export(name, [cell.target], model, inputs.images, samples, supportLevel="Extended")


@contextmanager
def prepared(missing: Sequence[Cell], part: str, cores_each: int) -> Iterator[MatrixWorkspace]:
    """Yield a workspace with the inputs of a part and the cores in sets of ``cores_each``; delete it at the end."""
    usable = sorted(os.sched_getaffinity(0))
    count = max(1, len(usable) // cores_each)
    with tempfile.TemporaryDirectory(prefix="modelexport-matrix-") as folder:
        names = dict.fromkeys(cell.architecture.name for cell in missing)
        inputs = {name: prepare(Path(folder) / "store", name, part) for name in names}
        workspace = MatrixWorkspace(Path(folder), inputs, SimpleQueue(), min(cores_each, len(usable)))
        for index in range(count):
            workspace.cores.put(",".join(map(str, usable[index::count])))
        yield workspace


if __name__ == "__main__":
    sys.exit(main())
