"""Where the conversions of ``make matrix`` run: scratch space, a store, and sets of cores."""

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from benchmarks.conversions.exports import write_command
from benchmarks.measuring.measured_process import MeasuredProcess, run_measured


@dataclass(frozen=True)
class MatrixInputs:
    """The inputs of a conversion: the names of files in the store, and the parameters of the model.

    ``labelled`` is the archive of labelled images, which trained models have. ``random_weights``: the model was not
    trained.
    """

    checkpoint: str
    images: str
    parameters: Mapping[str, Any]
    labelled: str = ""
    random_weights: bool = False


@dataclass(frozen=True)
class MatrixWorkspace:
    """Where conversions run, and on what.

    Attributes:
        folder: scratch space, with the store.
        inputs: inputs by architecture.
        samples: numbers of images: ``trained`` and ``fullSize`` for calibration, and ``evaluated``.
        cores: the free sets of cores, in the syntax of ``taskset``.
        cores_each: cores of a set.
    """

    folder: Path
    inputs: Mapping[str, MatrixInputs]
    samples: Mapping[str, int]
    cores: SimpleQueue[str]
    cores_each: int

    @property
    def store(self) -> Path:
        """The store of the exports, a folder."""
        return self.folder / "store"

    def run_python(self, *command: object) -> MeasuredProcess:
        """Run Python on a set of cores of its own."""
        cores = self.cores.get()
        try:
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                return run_measured(["taskset", "-c", cores, sys.executable, *map(str, command)], Path(folder))
        finally:
            self.cores.put(cores)

    def run_export(self, export: Mapping[str, Any]) -> tuple[MeasuredProcess, list[dict[str, Any]]]:
        """Run an export, its targets one after the other. Return the process, and the record of each target.

        Raises:
            RuntimeError: it ended before all targets did.
        """
        process = self.run_python(*write_command(export, self.folder, self.store, jobs=1))
        if process.exit_code not in (0, 1):
            raise RuntimeError(f"exit code {process.exit_code}: {process.errors[-2000:]}")
        return process, json.loads(process.output)


def build_model(inputs: MatrixInputs, architecture: str) -> dict[str, Any]:
    """Return ``spec.model`` of an export."""
    return {
        "architecture": architecture,
        "checkpoint": {"uri": f"s3://checkpoints/{inputs.checkpoint}"},
        "parameters": dict(inputs.parameters),
    }


def describe_failure(record: Mapping[str, Any]) -> str:
    """Return why a target was not published."""
    return f"{record['reason']}: {record['message']}"


def describe_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a report that both parts record."""
    size_of = dict(zip(report["model"]["input"]["axes"], report["model"]["input"]["shape"], strict=True))
    fidelity = report["verification"].get("fidelity")
    return {
        "scheme": report["scheme"],
        "inputSize": [size_of[axis] for axis in ("height", "width")],
        "agreement": float(report["verification"]["value"]),
        "fidelity": fidelity and float(fidelity["value"]),
    }
