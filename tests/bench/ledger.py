"""The results of ``make matrix`` while they are measured: what is known already, what is missing, what has failed."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.results import read_results, write_results
from modelexport.matrix import Cell, cells

PARTS = ("trained", "fullSize")
"""Each cell is measured on the trained small model, and on one as wide as users have it."""


class Ledger:
    """Keeps every result as soon as it is there; results of other tools are dropped."""

    def __init__(self, path: Path, versions: Mapping[str, str]) -> None:
        earlier = read_results(path)
        known = earlier if earlier.get("versions") == dict(versions) else {}
        self.path, self.versions = path, dict(versions)
        self.references: dict[str, Any] = known.get("references", {})
        self.cells: dict[str, dict[str, Any]] = known.get("cells", {})
        self.seconds_before, self.start = known.get("seconds", 0.0), time.monotonic()

    def forget(self, chosen: Iterable[Cell]) -> None:
        """Measure cells anew; where these are all, the time counts from now on."""
        for cell in chosen:
            self.cells.pop(str(cell), None)
            self.references.pop(cell.architecture.name, None)
        if not self.cells:
            self.seconds_before = 0.0

    def missing(self, chosen: Sequence[Cell], part: str) -> list[Cell]:
        """The cells that have no result of a part yet, or a failure."""
        return [cell for cell in chosen if "failed" in self.cells.get(str(cell), {}).get(part, {"failed": ""})]

    def record(self, cell: Cell, part: str, result: Mapping[str, Any]) -> None:
        """Note a result of a cell."""
        self.cells.setdefault(str(cell), {})[part] = dict(result)

    def write(self, about: Mapping[str, Any]) -> None:
        """Write everything in the order of the matrix, with what is told ``about`` the run; unknown cells go."""
        known = {name: self.cells[name] for name in map(str, cells()) if name in self.cells}
        content = {**about, "versions": self.versions, "seconds": self.seconds, "references": self.references}
        write_results(self.path, {**content, "cells": known})

    @property
    def seconds(self) -> float:
        """What all has taken, over as many sessions as it took."""
        return self.seconds_before + time.monotonic() - self.start

    def failures(self, chosen: Collection[Cell]) -> list[str]:
        """Cell, part and reason of everything among the chosen that has no result."""
        return [
            f"{cell} {part}: {self.cells.get(str(cell), {}).get(part, {}).get('failed', 'not measured')}"
            for part in PARTS
            for cell in self.missing(list(chosen), part)
        ]
