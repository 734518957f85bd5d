"""Measures cells of the support matrix: writes measured.json, which the package reads, and docs/support-matrix.md.

    PYTHONPATH=hack:testdata:examples \\
        .venv/bin/python -m benchmarks.matrix [--only TEXT...] [--part PART...] [--again] [--cores N]

Each cell is converted twice by ``modelexport run``: the small trained model at its training size, to measure accuracy
by ``spec.evaluation``, all targets of an architecture in one export; and a model as wide as users have it at the
default input size, to measure seconds, memory, size and latency, each cell on its own.

Every result is saved at once. A call measures what is missing or failed among the chosen cells; results of the same
sources, tools and machine are not measured again, unless by ``--again``. So a call that was interrupted resumes, and
slices (``--only INT8 W8A16 --part trained``) add up to a whole. Results of other sources stay until their cells are
chosen; those of other versions of the tools are dropped. One call at a time may write the file. A cell that fails is
recorded with its reason, and the exit code is 1.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.matrix.inputs import SAMPLES, prepared
from benchmarks.matrix.result_store import PARTS, ResultStore
from benchmarks.matrix.schedule import MEASURES, choose, grouped, measure_all
from benchmarks.measuring.machine import REPOSITORY, TOOLS, describe_machine
from modelexport.matrix.measured import FILE
from modelexport.matrix.support import cells
from modelexport_converter.publishing.report import tool_versions

SOURCES = tuple(REPOSITORY / name for name in ("converter-image/src", "sdk/src", "benchmarks", "testdata/models"))
"""The measured sources, and the sources that measure them."""


def main() -> int:
    """Measure, and save each result at once."""
    options = parse_arguments(sys.argv[1:])
    chosen = choose(cells(), options.only)
    started = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    results = ResultStore(FILE, describe_run(options.cores), started, again=options.again)
    for part in options.part:
        missing = results.missing(chosen, part)
        with prepared(missing, part, 1 if part == "trained" else options.cores) as workspace:
            for count, (cell, result) in enumerate(measure_all(workspace, MEASURES[part], grouped(missing, part)), 1):
                print(f"[{count}/{len(missing)}] {cell} {part} {json.dumps(result)}", flush=True)
                results.record(cell, part, result)
                results.write()
    subprocess.run([sys.executable, "-m", "modelexport.crds.render", REPOSITORY], check=True)  # reads the new numbers
    failures = results.failures(chosen, options.part)
    took = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in results.seconds.items())
    print(f"{len(chosen)} cells ({took}), {len(failures)} failures", *failures, sep="\n", flush=True)
    return 1 if failures else 0


def describe_run(cores: int) -> dict[str, Any]:
    """Return the conditions that two calls must share to count as one run."""
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


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the command line options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    only = "cells that have one of these in their names, such as YOLOv8, ONNX/INT8 or 'FCN ONNX'; default: all"
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help=only)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="default: both")
    parser.add_argument("--again", action="store_true", help="measure the chosen cells again, as a run of their own")
    parser.add_argument("--cores", type=int, default=1, help="cores of each full-size conversion; default: 1")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
