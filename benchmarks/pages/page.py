"""Writes docs/benchmarks.md from the results stored beside it."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.pages.cells import cells_page
from benchmarks.pages.finished import finished_page
from benchmarks.pages.operator import operator_page
from benchmarks.pages.scale import draw_scale, scale_page
from benchmarks.pages.tables import table
from benchmarks.pages.watches import watch_page
from benchmarks.pages.wrong_files import wrong_files_page
from benchmarks.results import CELLS, FINISHED, OPERATOR, PAGE, SCALE, SCALE_PLOT, WATCHES, WRONG_FILES, read_results

INTRODUCTION = """# Benchmarks

Written by `make bench` from [cells.json](benchmarks/cells.json), [operator.json](benchmarks/operator.json),
[scale.json](benchmarks/scale.json), [finished.json](benchmarks/finished.json),
[watches.json](benchmarks/watches.json) and [wrong_files.json](benchmarks/wrong_files.json); not by hand.
`PYTHONPATH=hack:testdata:examples .venv/bin/python -m benchmarks.run cells` (or `operator`, `scale`,
`finished`, `kopf`, `wrong`) measures one part again, `cells --only "YOLOv8-CLS ONNX"` some cells; the other parts keep
their results.

Missed targets are shown as missed. If the *load* average before a measurement is well above the number of cores for the
operator, or above zero for conversions, other work on the machine has slowed it: compare within a row."""


def write_page() -> None:
    """Write the page."""
    if results := read_results(SCALE):
        draw_scale(results, SCALE_PLOT)
    parts = (
        _part(CELLS, cells_page),
        _part(OPERATOR, operator_page),
        _part(SCALE, scale_page),
        _part(FINISHED, finished_page),
        _part(WATCHES, watch_page),
        _part(WRONG_FILES, wrong_files_page),
    )
    PAGE.write_text("\n\n".join((INTRODUCTION, *chain(*parts))) + "\n")


def _part(path: Path, build: Callable[[Mapping[str, Any]], Iterator[str]]) -> Iterator[str]:
    results = read_results(path)
    if results:
        yield from build(results)
        yield "Measured on:"
        yield table(("", ""), list(results["machine"].items()))
