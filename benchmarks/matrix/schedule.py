"""What ``make matrix`` measures, and in which order: chosen cells in groups, several groups at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from queue import SimpleQueue
from typing import Any

from benchmarks.matrix.full_size import measure_full_size
from benchmarks.matrix.trained import measure_trained
from benchmarks.matrix.workspace import MatrixWorkspace
from modelexport.matrix.support import Cell

Found = tuple[Cell, Mapping[str, Any]]
Measure = Callable[[MatrixWorkspace, Sequence[Cell]], Iterator[Found]]
"""Yields the results of some cells; a ``RuntimeError`` is the failure of those that it has not yielded."""
MEASURES: Mapping[str, Measure] = {"trained": measure_trained, "fullSize": measure_full_size}


def choose(known: Sequence[Cell], texts: Sequence[str]) -> list[Cell]:
    """Return the cells whose name has one of the texts; all cells without a text."""
    return [cell for cell in known if not texts or any(text in str(cell) for text in texts)]


def grouped(missing: Sequence[Cell], part: str) -> list[list[Cell]]:
    """Return the cells that are measured together: those of one architecture if they are evaluated, else each alone."""
    if part == "fullSize":
        return [[cell] for cell in missing]
    return [list(own) for _, own in groupby(missing, key=lambda cell: cell.architecture.name)]


def measure_all(workspace: MatrixWorkspace, measure: Measure, groups: Sequence[Sequence[Cell]]) -> Iterator[Found]:
    """Yield the results of all groups as they come, as many groups at a time as there are sets of cores."""
    found: SimpleQueue[Found | None] = SimpleQueue()

    def work(group: Sequence[Cell]) -> None:
        waiting = {str(cell): cell for cell in group}
        try:
            for cell, result in measure(workspace, group):
                del waiting[str(cell)]
                found.put((cell, result))
        except RuntimeError as error:
            for cell in waiting.values():
                found.put((cell, {"failed": str(error)}))
        finally:
            found.put(None)

    with ThreadPoolExecutor(workspace.cores.qsize()) as pool:
        running = [pool.submit(work, group) for group in groups]
        try:
            for _ in running:
                yield from iter(found.get, None)
            for one in running:
                one.result()
        finally:
            pool.shutdown(cancel_futures=True)
