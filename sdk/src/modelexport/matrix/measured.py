"""The measurements of ``make matrix``, read from ``measured.json`` next to this module.

``make matrix`` writes that file; the matrix, its pages and the command line read it. A cell that was not measured has
``None`` for its numbers.
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

    Attributes:
        recipe: recipe of the file.
        input_size: (height, width) in pixels.
        accuracy: accuracy of the file on labelled images by its metric, 0 to 1; results of earlier versions have other
            names of metrics, and may have several.
        agreement: agreement of the file with the original model.
        run: name of the run.
        fidelity: ``None`` where the outputs have no known meaning, and in results of earlier versions.
        original: accuracy of the original model.
        drop: what the file loses, absolute; ``None`` in results of earlier versions, like the next two.
        interval: limits between which the drop lies in 95 of 100 data sets like this one.
        images: number of labelled images.
    """

    recipe: str
    input_size: tuple[int, int]
    accuracy: Mapping[str, float]
    agreement: float
    run: str | None = None
    fidelity: float | None = None
    original: Mapping[str, float] = field(default_factory=dict)
    drop: float | None = None
    interval: tuple[float, float] | None = None
    images: int | None = None


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
        run: name of the run.
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
    run: str | None = None


@dataclass(frozen=True)
class Numbers:
    """The measurements of one cell; ``failures`` are the reasons for missing ones."""

    trained: Trained | None = None
    full_size: FullSize | None = None
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """What was measured in the same conditions: sources, samples, cores and machine.

    Attributes:
        name: the start time and the digest of the sources.
        machine: description of the machine.
        samples: numbers of calibration images, of the parts ``trained`` and ``fullSize``, and ``evaluated`` ones.
        seconds: duration of each part.
    """

    name: str
    machine: Mapping[str, str]
    samples: Mapping[str, int]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Measured:
    """The measurements of one run or several, with the same tools.

    Attributes:
        versions: versions of the tools.
        runs: the runs that the cells name, by name.
        cells: numbers by name of the cell.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    runs: Mapping[str, Run] = field(default_factory=dict)
    cells: Mapping[str, Numbers] = field(default_factory=dict)

    def of(self, name: str) -> Numbers:
        """Return the numbers of a cell, by its name."""
        return self.cells.get(name, Numbers())


def parse(content: Mapping[str, Any]) -> Measured:
    """Parse the content of ``measured.json``.

    Raises:
        KeyError: a number is missing.
    """
    return Measured(
        versions=content.get("versions", {}),
        runs={
            name: Run(name, run["machine"], run["samples"], run["seconds"])
            for name, run in content.get("runs", {}).items()
        },
        cells={name: _numbers(cell) for name, cell in content.get("cells", {}).items()},
    )


@cache
def measurements() -> Measured:
    """Return the measurements that ship with this version of the package, or none."""
    return parse(json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {})


def _numbers(cell: Mapping[str, Any]) -> Numbers:
    small, full = cell.get("trained", {}), cell.get("fullSize", {})
    trained = full_size = None
    if small and "failed" not in small:
        height, width = small["inputSize"]
        trained = Trained(
            recipe=small["scheme"],
            input_size=(height, width),
            accuracy=small["accuracy"],
            agreement=small["agreement"],
            run=small.get("run"),
            fidelity=small.get("fidelity"),
            original=small.get("original", {}),
            drop=small.get("drop"),
            interval=tuple(small["interval"]) if "interval" in small else None,
            images=small.get("images"),
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
            run=full.get("run"),
        )
    return Numbers(
        trained=trained,
        full_size=full_size,
        failures=tuple(part["failed"] for part in (small, full) if "failed" in part),
    )
