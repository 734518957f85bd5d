"""The results of ``make matrix``: which run each one is from, and which are missing.

A run is everything that was measured in the same conditions: sources, samples, cores and machine, in one call or in
several. It is named by the start of its first call and the digest of its sources. Every result carries the name of its
run.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import read_results, write_results
from modelexport.matrix.support import Cell, cells

PARTS = ("trained", "fullSize")
"""Each cell is measured on the small trained model, and on one as wide as users have it."""
SESSION_FIELDS = ("Date", "Commit")
"""Machine properties that may differ when a run resumes; the commit may, as the sources are compared."""


class ResultStore:
    """Saves every result as soon as it is measured.

    A call resumes the last run in the conditions of ``about``, or begins one: if there is none, or ``again``. Results
    of other runs stay until they are measured again, if they come from the same versions of the tools; a tool that they
    did not have changes none of them.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], started: str, *, again: bool = False) -> None:
        known = read_results(path)
        if not known.get("versions", {}).items() <= about["versions"].items():
            known = {}
        conditions = {name: value for name, value in about.items() if name != "versions"}
        self.runs: dict[str, dict[str, Any]] = known.get("runs", {})
        self.cells: dict[str, dict[str, Any]] = known.get("cells", {})
        same = [name for name, run in self.runs.items() if _conditions(run) == _conditions(conditions)]
        self.run = f"{started} {about['source']}" if again or not same else same[-1]
        self.runs.setdefault(self.run, {**conditions, "seconds": dict.fromkeys(PARTS, 0.0)})
        self.path, self.last, self._versions = path, time.monotonic(), about["versions"]

    @property
    def seconds(self) -> dict[str, float]:
        """The duration of each part of this run."""
        found: dict[str, float] = self.runs[self.run]["seconds"]
        return found

    def missing(self, chosen: Sequence[Cell], part: str) -> list[Cell]:
        """Return the cells without a result of a part from this run, failed ones included."""
        return [cell for cell in chosen if self._lacks(cell, part)]

    def record(self, cell: Cell, part: str, result: Mapping[str, Any]) -> None:
        """Add a result. The time since the previous one counts for its part."""
        self.cells.setdefault(str(cell), {})[part] = {"run": self.run, **result}
        now = time.monotonic()
        self.seconds[part] += now - self.last
        self.last = now

    def write(self) -> None:
        """Write all results in the order of the matrix, and the runs that they are from; cells unknown to the matrix
        are dropped.
        """
        known = {name: self.cells[name] for name in map(str, cells()) if name in self.cells}
        used = {result["run"] for cell in known.values() for result in cell.values()}
        runs = {name: run for name, run in self.runs.items() if name in used}
        write_results(self.path, {"versions": self._versions, "runs": runs, "cells": known})

    def failures(self, chosen: Collection[Cell], parts: Sequence[str] = PARTS) -> list[str]:
        """Return cell, part and reason of every chosen cell without a result from this run."""
        return [
            f"{cell} {part}: {self.cells.get(str(cell), {}).get(part, {}).get('failed', 'not measured')}"
            for part in parts
            for cell in self.missing(list(chosen), part)
        ]

    def _lacks(self, cell: Cell, part: str) -> bool:
        result = self.cells.get(str(cell), {}).get(part, {})
        return result.get("run") != self.run or "failed" in result


def _conditions(run: Mapping[str, Any]) -> dict[str, Any]:
    machine = {name: value for name, value in run["machine"].items() if name not in SESSION_FIELDS}
    return {**{name: run[name] for name in ("source", "samples", "cores")}, "machine": machine}
