"""The measurements of the last run of ``make matrix``, read from ``measured.json`` next to this module.

The run writes that file; the matrix, its pages and the command line read it. A cell that was not measured has ``None``
for its numbers.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class Trained:
    """Measurements of a small trained model, at the input size of its training.

    ``accuracy`` maps the metrics of the task to the values of the file on the evaluation images, 0 to 1. ``fidelity``
    is ``None`` where the outputs have no known meaning, and in results of earlier versions.
    """

    recipe: str
    input_size: tuple[int, int]
    accuracy: Mapping[str, float]
    agreement: float
    fidelity: float | None = None


@dataclass(frozen=True)
class FullSize:
    """Measurements of a full-size model at the default input size, converted in its own process on ``cores``.

    Attributes:
        recipe: recipe of the file.
        input_size: (height, width) in pixels.
        agreement: agreement of the file with the original model.
        size_bytes: size of the file.
        seconds: duration of the process.
        stages: seconds of each stage.
        peak_mib: maximum resident set size.
        latency_ms: median duration of one run of the file on one thread.
        cores: CPU cores of the process.
        variant: variant of the architecture.
        random_weights: the weights are random, so the agreement is that of an untrained model.
    """

    recipe: str
    input_size: tuple[int, int]
    agreement: float
    size_bytes: int
    seconds: float
    stages: Mapping[str, float]
    peak_mib: float
    latency_ms: float
    cores: int
    variant: str | None = None
    random_weights: bool = False


@dataclass(frozen=True)
class Numbers:
    """The measurements of one cell; ``failures`` are the reasons for missing ones.

    ``run`` identifies the run of all results, ``None`` if they come from several runs or do not name one.
    """

    trained: Trained | None = None
    full_size: FullSize | None = None
    failures: tuple[str, ...] = ()
    run: str | None = None


@dataclass(frozen=True)
class Measured:
    """The measurements of one run.

    Attributes:
        run: identifier, made of the start time and the digest of the sources; cells of another run have another one.
        versions: versions of the tools.
        machine: description of the machine.
        samples: number of calibration images, for the parts ``trained`` and ``fullSize``.
        seconds: duration of each part.
        references: accuracies of the original models, by architecture.
        cells: numbers by name of the cell.
    """

    run: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    references: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    cells: Mapping[str, Numbers] = field(default_factory=dict)

    def of(self, name: str) -> Numbers:
        """Return the numbers of a cell, by its name."""
        return self.cells.get(name, Numbers())

    @property
    def apart(self) -> tuple[str, ...]:
        """The cells that are not known to come from this run."""
        return tuple(name for name, numbers in self.cells.items() if self.run is None or numbers.run != self.run)


def parse(content: Mapping[str, Any]) -> Measured:
    """Parse the content of ``measured.json``.

    Raises:
        KeyError: a number is missing.
    """
    return Measured(
        run=content.get("run"),
        versions=content.get("versions", {}),
        machine=content.get("machine", {}),
        samples=content.get("samples", {}),
        seconds=content.get("seconds", {}),
        references=content.get("references", {}),
        cells={name: _numbers(cell) for name, cell in content.get("cells", {}).items()},
    )


def run_of(cell: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the run of all results of a cell, ``None`` if they come from several runs or do not name one."""
    runs = {result.get("run") for result in cell.values()}
    return runs.pop() if len(runs) == 1 else None


@cache
def last_run() -> Measured:
    """Return the run that ships with this version of the package, or an empty one."""
    return parse(json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {})


def _numbers(cell: Mapping[str, Any]) -> Numbers:
    small, full = cell.get("trained", {}), cell.get("fullSize", {})
    trained = full_size = None
    if small and "failed" not in small:
        height, width = small["inputSize"]
        trained = Trained(
            small["scheme"], (height, width), small["accuracy"], small["agreement"], small.get("fidelity")
        )
    if full and "failed" not in full:
        height, width = full["inputSize"]
        full_size = FullSize(
            recipe=full["scheme"],
            input_size=(height, width),
            agreement=full["agreement"],
            size_bytes=full["sizeBytes"],
            seconds=full["seconds"],
            stages=full["stages"],
            peak_mib=full["peakMiB"],
            latency_ms=full["latencyMs"],
            cores=full["cores"],
            variant=full.get("variant"),
            random_weights=full.get("randomWeights", False),
        )
    return Numbers(
        trained=trained,
        full_size=full_size,
        failures=tuple(part["failed"] for part in (small, full) if "failed" in part),
        run=run_of(cell),
    )
