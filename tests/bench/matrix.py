"""Measures every cell of the support matrix: writes measured.json, which the package reads, and docs/support-matrix.md.

    PYTHONPATH=tests:tests/models:examples .venv/bin/python -m bench.matrix [--only TEXT] [--again] [--cores N]

Each cell is converted twice by a ``modelexport run`` of its own. First the trained small model at the size that it has
learned, whose file is measured for its task accuracy; then a model as wide as users have it at the default input size,
for seconds, memory, size and latency. A run that was interrupted goes on where it was, with what had failed; a run of
other sources, tools or machine begins anew, and so does one after a complete one. ``--only`` measures some cells again:
the file and its page then tell that they are not of one run. A cell that fails is recorded with its reason, and the
exit code is 1.
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

import untrained
import yaml

from bench.children import Child, run_child
from bench.full_size import SAMPLES, Inputs, prepare
from bench.ledger import PARTS, Ledger
from bench.machine import REPOSITORY, describe_machine
from modelexport.matrix import Cell, cells
from modelexport.measured import FILE
from modelexport_converter.report import tool_versions

SOURCES = tuple(
    REPOSITORY / name for name in ("converter-image/src", "operator/src/modelexport", "tests/bench", "tests/models")
)
"""What is measured and what measures it."""


@dataclass(frozen=True)
class Bench:
    """Scratch space, inputs by architecture, and the sets of cores that are free, as ``taskset`` takes them."""

    folder: Path
    inputs: Mapping[str, Inputs]
    cores: SimpleQueue[str]
    cores_each: int

    @property
    def store(self) -> Path:
        return self.folder / "store"


def main() -> int:
    """Measure, and keep each result as soon as it is there."""
    options = parse_arguments()
    chosen = [cell for cell in cells() if options.only in str(cell)]
    started = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    ledger = Ledger(FILE, describe_run(options.cores), started, whole=not options.only)
    if options.only or options.again:
        ledger.forget(chosen)
    for part, cores in zip(PARTS, (1, options.cores), strict=True):
        with prepared(ledger.missing(chosen, part), part, cores) as bench:
            for cell, result in measure_all(bench, ledger, chosen, part):
                ledger.record(cell, part, result)
                ledger.write()
    subprocess.run([sys.executable, "-m", "modelexport.render", REPOSITORY], check=True)  # reads the new numbers
    failures = ledger.failures(chosen)
    took = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in ledger.seconds.items())
    print(f"{len(chosen)} cells ({took}), {len(failures)} failures", *failures, sep="\n", flush=True)
    return 1 if failures else 0


def describe_run(cores: int) -> dict[str, Any]:
    """Return what two runs must have in common to be one."""
    about = {"source": digest_of(SOURCES), "machine": describe_machine(), "samples": SAMPLES, "cores": cores}
    return {**about, "versions": tool_versions()}


def digest_of(folders: Sequence[Path]) -> str:
    """The content of all files of folders, but for what Python or a run itself has written there."""
    found = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in found:
        if path != FILE and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(REPOSITORY)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:12]


def parse_arguments() -> argparse.Namespace:
    """Return what to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cells whose architecture, format or precision has this in its name")
    parser.add_argument("--again", action="store_true", help="begin anew where an interrupted run could go on")
    parser.add_argument("--cores", type=int, default=1, help="cores of each full-size conversion; default: 1")
    return parser.parse_args()


def measure_all(
    bench: Bench, ledger: Ledger, chosen: Sequence[Cell], part: str
) -> Iterator[tuple[Cell, Mapping[str, Any]]]:
    """Yield the missing results of a part as they come, with as many at a time as there are sets of cores."""
    missing = ledger.missing(chosen, part)
    measure = {"trained": measure_trained, "fullSize": measure_full_size}[part]
    with ThreadPoolExecutor(bench.cores.qsize()) as pool:
        if part == "trained":
            names = [name for name in bench.inputs if name not in ledger.references]
            ledger.references |= zip(names, pool.map(partial(measure_accuracy, bench), names), strict=True)
        futures = {pool.submit(_reasoned, measure, bench, cell): cell for cell in missing}
        try:
            for count, future in enumerate(as_completed(futures), 1):
                told = json.dumps(future.result())
                print(f"[{count}/{len(missing)}] {futures[future]} {part} {told}", flush=True)
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _reasoned(measure: Callable[[Bench, Cell], dict[str, Any]], bench: Bench, cell: Cell) -> dict[str, Any]:
    """What is measured, or why nothing is."""
    try:
        return measure(bench, cell)
    except RuntimeError as error:
        return {"failed": str(error)}


def measure_trained(bench: Bench, cell: Cell) -> dict[str, Any]:
    """Convert the small model and measure what was published.

    Raises:
        RuntimeError: why nothing was.
    """
    described, artifact = convert(bench, cell, SAMPLES["trained"])
    kept = {name: described[name] for name in ("scheme", "inputSize", "agreement")}  # of the rest, full size says more
    return {**kept, "accuracy": measure_accuracy(bench, cell.architecture.name, artifact, cell.target.format)}


def measure_full_size(bench: Bench, cell: Cell) -> dict[str, Any]:
    """Convert the full-size model and measure what that takes.

    Raises:
        RuntimeError: why nothing was published.
    """
    described, artifact = convert(bench, cell, SAMPLES["fullSize"])
    latency = run_python(bench, "-m", "bench.latency", artifact).answer["median_ms"]
    artifact.unlink()  # nobody reads it again, and all of them are 6 GB
    about = {"madeUp": cell.architecture.name in untrained.NETWORKS, "cores": bench.cores_each}
    return {**described, "latencyMs": latency, **about}


def measure_accuracy(bench: Bench, architecture: str, *artifact: object) -> dict[str, float]:
    """Task accuracy of a model, or of its file.

    Raises:
        RuntimeError: the last words of what failed.
    """
    checkpoint = bench.store / "checkpoints" / bench.inputs[architecture].checkpoint
    found: dict[str, float] = run_python(bench, "-m", "bench.accuracy", architecture, checkpoint, *artifact).answer
    return found


def convert(bench: Bench, cell: Cell, samples: int) -> tuple[dict[str, Any], Path]:
    """Convert, and return what both parts tell of it, and the file.

    Raises:
        RuntimeError: why nothing was published.
    """
    document = bench.folder / f"{cell.architecture.name}-{cell.target.slug}.yaml"
    document.write_text(yaml.safe_dump(_export(bench.inputs[cell.architecture.name], cell, samples)))
    child = run_python(bench, "-m", "modelexport", "run", document, "--store", bench.store, "--jobs", 1, "-o", "json")
    if child.exit_code not in (0, 1):
        raise RuntimeError(f"exit code {child.exit_code}: {child.errors[-2000:]}")
    (record,) = json.loads(child.output)
    if not record["artifact"]:
        raise RuntimeError(f"{record['reason']}: {record['message']}")
    report = json.loads((bench.store / record["report_uri"].removeprefix("s3://")).read_text())
    described = {
        "scheme": report["scheme"],
        "variant": report["model"]["metadata"].get("variant"),
        "inputSize": report["model"]["input"]["shape"][2:],
        "agreement": float(report["verification"]["value"]),
        "sizeBytes": report["artifact"]["sizeBytes"],
        "seconds": child.seconds,
        "peakMiB": child.peak_mib,
        "stages": report["seconds"],
    }
    return described, bench.store / record["artifact"]["uri"].removeprefix("s3://")


def run_python(bench: Bench, *command: object) -> Child:
    """Run Python on cores of its own."""
    cores = bench.cores.get()
    try:
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            return run_child(["taskset", "-c", cores, sys.executable, *map(str, command)], Path(folder))
    finally:
        bench.cores.put(cores)


def _export(inputs: Inputs, cell: Cell, samples: int) -> Mapping[str, Any]:
    name = cell.architecture.name
    return {
        "apiVersion": "modelexport.dev/v1alpha1",
        "kind": "ModelExport",
        "metadata": {"name": f"{name}-{cell.target.slug}".lower(), "namespace": "default"},
        "spec": {
            "model": {
                "architecture": name,
                "checkpoint": {"uri": f"s3://checkpoints/{inputs.checkpoint}"},
                "parameters": dict(inputs.parameters),
            },
            "supportLevel": "Extended",
            "targets": [{"format": str(cell.target.format), "precision": str(cell.target.precision)}],
            "calibration": {"dataset": {"uri": f"s3://datasets/{inputs.pictures}"}, "samples": samples},
        },
    }


@contextmanager
def prepared(missing: Sequence[Cell], part: str, cores_each: int) -> Iterator[Bench]:
    """The store with what a part needs, and the cores in sets of so many; all of it goes at the end."""
    usable = sorted(os.sched_getaffinity(0))
    count = max(1, len(usable) // cores_each)
    with tempfile.TemporaryDirectory(prefix="modelexport-matrix-") as folder:
        names = dict.fromkeys(cell.architecture.name for cell in missing)
        inputs = {name: prepare(Path(folder) / "store", name, part) for name in names}
        bench = Bench(Path(folder), inputs, SimpleQueue(), min(cores_each, len(usable)))
        for index in range(count):
            bench.cores.put(",".join(map(str, usable[index::count])))
        yield bench


if __name__ == "__main__":
    sys.exit(main())
