"""Writes docs/benchmarks.md from the results that lie beside it."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.cells_page import cells_page
from bench.operator_page import operator_page
from bench.results import CELLS, OPERATOR, PAGE, read_results
from bench.tables import table

INTRODUCTION = """# Benchmarks

Written by `make bench` from [cells.json](benchmarks/cells.json) and [operator.json](benchmarks/operator.json); not by
hand. `PYTHONPATH=tests .venv/bin/python -m bench.run cells` (or `operator`) measures one half again,
`cells --only "YOLOv8-CLS ONNX"` some cells; the rest keeps its results.

A target that is missed is shown as missed. Where the *load* average before a measurement is well above the number of
cores for the operator, or above zero for conversions, other work on the machine has slowed it: compare within a row."""


def write_page() -> None:
    """Write the page."""
    PAGE.write_text("\n\n".join(_page()) + "\n")


def _page() -> Iterator[str]:
    yield INTRODUCTION
    yield from _half(CELLS, cells_page)
    yield from _half(OPERATOR, operator_page)


def _half(path: Path, build: Callable[[Mapping[str, Any]], Iterator[str]]) -> Iterator[str]:
    results = read_results(path)
    if results:
        yield from build(results)
        yield "Measured on:"
        yield table(("", ""), list(results["machine"].items()))
