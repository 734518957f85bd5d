"""The results of ``make matrix`` while they are measured: known, missing and failed ones.

A run is named by its start time and a digest of its sources, and every result carries the name of its run. So the file
shows whether all results are from one run, despite interruptions and repeated measurements.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import read_results, write_results
from modelexport.matrix.measured import run_of
from modelexport.matrix.support import Cell, cells

PARTS = ("trained", "fullSize")
"""Each cell is measured on the small trained model, and on one as wide as users have it."""
SESSION_FIELDS = ("Date", "Commit")
"""Machine properties that may differ when a run resumes; the commit may, as the sources are compared."""


class ResultStore:
    """Saves every result as soon as it is measured.

    A ``whole`` run resumes an interrupted one of the same conditions in ``about``: sources, versions, samples, cores
    and machine. Otherwise it starts over. A partial run measures some cells again, and keeps the others if they come
    from the same versions of the tools; a tool that they did not have changes none of them.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], started: str, *, whole: bool = True) -> None:
        earlier = read_results(path)
        is_kept = (
            _is_interrupted(earlier, about) if whole else _is_contained(earlier.get("versions"), about["versions"])
        )
        run = f"{started} {about['source']}"
        known = {**earlier, "versions": about["versions"]} if is_kept else {"run": run, **about}
        self.path, self.run = path, known["run"] if whole else run
        self.references: dict[str, Any] = known.get("references", {})
        self.cells: dict[str, dict[str, Any]] = known.get("cells", {})
        self.seconds: dict[str, float] = known.get("seconds", dict.fromkeys(PARTS, 0.0))
        self.last = time.monotonic()
        self._header = {name: known[name] for name in ("run", *about) if name in known}

    def forget(self, chosen: Iterable[Cell]) -> None:
        """Drop the results of cells, to measure them again."""
        for cell in chosen:
            self.cells.pop(str(cell), None)
            self.references.pop(cell.architecture.name, None)

    def missing(self, chosen: Sequence[Cell], part: str) -> list[Cell]:
        """Return the cells without a result of a part, failed ones included."""
        return [cell for cell in chosen if _lacks(self.cells, cell, part)]

    def record(self, cell: Cell, part: str, result: Mapping[str, Any]) -> None:
        """Add a result. The time since the previous one counts for its part, if it is of the file's run."""
        self.cells.setdefault(str(cell), {})[part] = {"run": self.run, **result}
        now = time.monotonic()
        if self.run == self._header.get("run"):
            self.seconds[part] += now - self.last
        self.last = now

    def write(self) -> None:
        """Write all results in the order of the matrix, with the header of the run; cells unknown to the matrix are
        dropped.
        """
        known = {name: self.cells[name] for name in map(str, cells()) if name in self.cells}
        content = {**self._header, "seconds": self.seconds, "references": self.references, "cells": known}
        write_results(self.path, content)

    def failures(self, chosen: Collection[Cell]) -> list[str]:
        """Return cell, part and reason of every chosen cell without a result."""
        return [
            f"{cell} {part}: {self.cells.get(str(cell), {}).get(part, {}).get('failed', 'not measured')}"
            for part in PARTS
            for cell in self.missing(list(chosen), part)
        ]


def _is_interrupted(earlier: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
    """Return whether the results are from a single, incomplete run in these conditions."""
    known = earlier.get("cells", {})
    is_one = "run" in earlier and all(run_of(cell) == earlier["run"] for cell in known.values())
    is_whole = not any(_lacks(known, cell, part) for cell in cells() for part in PARTS)
    return is_one and not is_whole and _conditions(earlier) == _conditions(about)


def _is_contained(earlier: Mapping[str, str] | None, versions: Mapping[str, str]) -> bool:
    """Return whether all earlier versions are still those."""
    return earlier is not None and earlier.items() <= versions.items()


def _conditions(about: Mapping[str, Any]) -> dict[str, Any]:
    machine = {name: value for name, value in about["machine"].items() if name not in SESSION_FIELDS}
    return {**{name: about.get(name) for name in ("source", "versions", "samples", "cores")}, "machine": machine}


def _lacks(known: Mapping[str, Any], cell: Cell, part: str) -> bool:
    return "failed" in known.get(str(cell), {}).get(part, {"failed": ""})
