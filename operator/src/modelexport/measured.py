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

    ``seconds`` from its start to its end, the largest resident set in MiB, and the median milliseconds of one run of
    the produced file on one thread.
    """

    input_size: tuple[int, int]
    agreement: float
    size_bytes: int
    seconds: float
    peak_mib: float
    latency_ms: float
    cores: int


@dataclass(frozen=True)
class Numbers:
    """What is known of one cell; ``failures`` tells why what is missing was not measured."""

    trained: Trained | None = None
    full_size: FullSize | None = None
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """One run: the versions of the tools, the machine, and its seconds from start to end.

    ``references`` are the accuracies of the original models by architecture, ``cells`` the numbers by the cells' names.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    references: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    cells: Mapping[str, Numbers] = field(default_factory=dict)

    def of(self, name: str) -> Numbers:
        """The numbers of a cell, by its name."""
        return self.cells.get(name, Numbers())


def parse(content: Mapping[str, Any]) -> Measured:
    """Read the content of the file.

    Raises:
        KeyError: a result lacks a number.
    """
    return Measured(
        versions=content.get("versions", {}),
        machine=content.get("machine", {}),
        seconds=content.get("seconds", 0.0),
        references=content.get("references", {}),
        cells={name: _numbers(cell) for name, cell in content.get("cells", {}).items()},
    )


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
    )


def _trained(part: Mapping[str, Any]) -> Trained:
    height, width = part["inputSize"]
    return Trained(part["scheme"], (height, width), part["accuracy"], part["agreement"])


def _full_size(part: Mapping[str, Any]) -> FullSize:
    height, width = part["inputSize"]
    return FullSize(
        input_size=(height, width),
        agreement=part["agreement"],
        size_bytes=part["sizeBytes"],
        seconds=part["seconds"],
        peak_mib=part["peakMiB"],
        latency_ms=part["latencyMs"],
        cores=part["cores"],
    )
