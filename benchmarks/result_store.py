"""The results of ``make matrix`` while they are measured: what is known already, what is missing, what has failed.

A run is named by the time of its start and by what it measures, and every result bears the name of its run. So the file
tells whether all of it is of one run, whoever was interrupted, and whatever was measured again in between.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.results import read_results, write_results
from modelexport.matrix import Cell, cells
from modelexport.measured import run_of

PARTS = ("trained", "fullSize")
"""Each cell is measured on the trained small model, and on one as wide as users have it."""
OF_A_SITTING = ("Date", "Commit")
"""What may differ in the machine's description when a run goes on; the commit may, as the sources are compared."""


class Ledger:
    """Keeps every result as soon as it is there.

    A ``whole`` run goes on where one was interrupted that measured the same sources in the same conditions, which
    ``about`` tells: sources, versions, samples, cores and machine. Else it begins anew. One that is not measures some
    cells again, and keeps the others as long as they come from the same versions of the tools.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], started: str, *, whole: bool = True) -> None:
        earlier = read_results(path)
        is_kept = _is_interrupted(earlier, about) if whole else earlier.get("versions") == about["versions"]
        run = f"{started} {about['source']}"
        known = earlier if is_kept else {"run": run, **about}
        self.path, self.run = path, known["run"] if whole else run
        self.references: dict[str, Any] = known.get("references", {})
        self.cells: dict[str, dict[str, Any]] = known.get("cells", {})
        self.seconds: dict[str, float] = known.get("seconds", dict.fromkeys(PARTS, 0.0))
        self.last = time.monotonic()
        self._header = {name: known[name] for name in ("run", *about) if name in known}

    def forget(self, chosen: Iterable[Cell]) -> None:
        """Measure cells anew."""
        for cell in chosen:
            self.cells.pop(str(cell), None)
            self.references.pop(cell.architecture.name, None)

    def missing(self, chosen: Sequence[Cell], part: str) -> list[Cell]:
        """The cells that have no result of a part yet, or a failure."""
        return [cell for cell in chosen if _lacks(self.cells, cell, part)]

    def record(self, cell: Cell, part: str, result: Mapping[str, Any]) -> None:
        """Note a result of a cell; the time since the one before counts for its part, if it is of the file's run."""
        self.cells.setdefault(str(cell), {})[part] = {"run": self.run, **result}
        now = time.monotonic()
        if self.run == self._header.get("run"):
            self.seconds[part] += now - self.last
        self.last = now

    def write(self) -> None:
        """Write everything in the order of the matrix, with what is told about the run; unknown cells go."""
        known = {name: self.cells[name] for name in map(str, cells()) if name in self.cells}
        content = {**self._header, "seconds": self.seconds, "references": self.references, "cells": known}
        write_results(self.path, content)

    def failures(self, chosen: Collection[Cell]) -> list[str]:
        """Cell, part and reason of everything among the chosen that has no result."""
        return [
            f"{cell} {part}: {self.cells.get(str(cell), {}).get(part, {}).get('failed', 'not measured')}"
            for part in PARTS
            for cell in self.missing(list(chosen), part)
        ]


def _is_interrupted(earlier: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
    """Whether results are those of one run in these conditions, which has not measured everything."""
    known = earlier.get("cells", {})
    is_one = "run" in earlier and all(run_of(cell) == earlier["run"] for cell in known.values())
    is_whole = not any(_lacks(known, cell, part) for cell in cells() for part in PARTS)
    return is_one and not is_whole and _conditions(earlier) == _conditions(about)


def _conditions(about: Mapping[str, Any]) -> dict[str, Any]:
    machine = {name: value for name, value in about["machine"].items() if name not in OF_A_SITTING}
    return {**{name: about.get(name) for name in ("source", "versions", "samples", "cores")}, "machine": machine}


def _lacks(known: Mapping[str, Any], cell: Cell, part: str) -> bool:
    return "failed" in known.get(str(cell), {}).get(part, {"failed": ""})
