"""What the last run of ``make matrix`` has measured of each cell, as it lies beside this module in ``measured.json``.

The run writes that file; the matrix, its pages and the command line read it here. A cell that was not measured has
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
    """A conversion of the trained small model, at the size that it has learned.

    ``accuracy`` maps the measures of the task to what the file reaches on the evaluation pictures, 0 to 1.
    """

    scheme: str
    input_size: tuple[int, int]
    accuracy: Mapping[str, float]
    agreement: float


@dataclass(frozen=True)
class FullSize:
    """A conversion of a model as wide as users have it, at the default input size: a process of its own on ``cores``.

    ``made_up`` says that nobody has trained the model, so that its agreement is that of random weights.
    ``seconds`` from its start to its end, those of its ``stages`` in it, the largest resident set in MiB, and the
    median milliseconds of one run of the produced file on one thread.
    """

    scheme: str
    input_size: tuple[int, int]
    agreement: float
    size_bytes: int
    seconds: float
    stages: Mapping[str, float]
    peak_mib: float
    latency_ms: float
    cores: int
    variant: str | None = None
    made_up: bool = False


@dataclass(frozen=True)
class Numbers:
    """What is known of one cell; ``failures`` tells why what is missing was not measured.

    ``run`` is that of all its results, ``None`` where they are of several or do not tell.
    """

    trained: Trained | None = None
    full_size: FullSize | None = None
    failures: tuple[str, ...] = ()
    run: str | None = None


@dataclass(frozen=True)
class Measured:
    """One run: the versions of the tools, the machine, and of its parts, ``trained`` and ``fullSize``, the seconds and
    the number of pictures that calibrated, ``samples``.

    ``references`` are the accuracies of the original models by architecture, ``cells`` the numbers by the cells' names.
    ``run`` names it by its start and by the digest of what was measured; a cell that was measured apart bears another.
    """

    run: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    references: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    cells: Mapping[str, Numbers] = field(default_factory=dict)

    def of(self, name: str) -> Numbers:
        """The numbers of a cell, by its name."""
        return self.cells.get(name, Numbers())

    @property
    def apart(self) -> tuple[str, ...]:
        """The cells that are not known to be of this run."""
        return tuple(name for name, numbers in self.cells.items() if self.run is None or numbers.run != self.run)


def parse(content: Mapping[str, Any]) -> Measured:
    """Read the content of the file.

    Raises:
        KeyError: a result lacks a number.
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
    """The run of all results of a cell, ``None`` where they are of several or do not tell."""
    runs = {result.get("run") for result in cell.values()}
    return runs.pop() if len(runs) == 1 else None


@cache
def last_run() -> Measured:
    """The run whose numbers belong to this version of the package; an empty one where there was none."""
    return parse(json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {})


def _numbers(cell: Mapping[str, Any]) -> Numbers:
    trained, full = cell.get("trained", {}), cell.get("fullSize", {})
    return Numbers(
        trained=_trained(trained) if trained and "failed" not in trained else None,
        full_size=_full_size(full) if full and "failed" not in full else None,
        failures=tuple(part["failed"] for part in (trained, full) if "failed" in part),
        run=run_of(cell),
    )


def _trained(part: Mapping[str, Any]) -> Trained:
    height, width = part["inputSize"]
    return Trained(part["scheme"], (height, width), part["accuracy"], part["agreement"])


def _full_size(part: Mapping[str, Any]) -> FullSize:
    height, width = part["inputSize"]
    return FullSize(
        scheme=part["scheme"],
        input_size=(height, width),
        agreement=part["agreement"],
        size_bytes=part["sizeBytes"],
        seconds=part["seconds"],
        stages=part["stages"],
        peak_mib=part["peakMiB"],
        latency_ms=part["latencyMs"],
        cores=part["cores"],
        variant=part.get("variant"),
        made_up=part.get("madeUp", False),
    )
