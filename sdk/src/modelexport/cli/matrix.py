"""``modelexport matrix``: show the support matrix and its measurements."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from modelexport.console import open_console
from modelexport.crds.reference import table as markdown_table
from modelexport.errors import BadInput
from modelexport.matrix.measured import measurements
from modelexport.matrix.options import OPTIONS, options_of
from modelexport.matrix.support import ARCHITECTURES, BACKENDS, TARGETS, Cell, Format, Precision, Target, lookup
from modelexport.planning.estimates import (
    EXPLANATION,
    TEXT_TITLES,
    TITLES,
    UNKNOWN,
    explain_failures,
    explain_images,
    explain_older,
    explain_runs,
    record,
    texts,
)


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "matrix",
        help="show the support matrix and its measured numbers",
        description="Show which architecture converts to which format and precision. With NAME, show its "
        "cells: recipe, accuracy before and after, size, seconds, memory and latency, as measured.",
        epilog="examples: modelexport matrix; modelexport matrix YOLOv8; modelexport matrix -o json",
    )
    parser.add_argument(
        "architecture", nargs="?", metavar="NAME", help="an architecture; default: all, without numbers"
    )
    parser.add_argument("-o", "--output", choices=("table", "json", "markdown"), default="table", help="default: table")
    parser.set_defaults(command=show)


def show(options: argparse.Namespace) -> int:
    """Print the matrix.

    Raises:
        BadInput: the architecture is unknown.
    """
    name = options.architecture
    if name is not None and name not in ARCHITECTURES:
        raise BadInput(f"{name!r} is not in the matrix; use one of {', '.join(ARCHITECTURES)}")
    cells = [lookup(row, target) for row in ([name] if name else ARCHITECTURES) for target in TARGETS]
    if options.output == "json":
        print(json.dumps([record(cell) for cell in cells], indent=2))
    elif options.output == "markdown":
        rows = [(cell.architecture.name, *texts(cell)) for cell in cells]
        print(markdown_table(("architecture", *TITLES), rows))
    elif name:
        _write_numbers(cells)
    else:
        table = Table("Architecture", "Task", "Format", *Precision, title="Support level by format and precision")
        for row in ARCHITECTURES.values():
            for fmt in Format:
                asked = [Target(fmt, precision) for precision in Precision]
                levels = [lookup(row.name, target).level if target in TARGETS else UNKNOWN for target in asked]
                table.add_row(row.name, row.task, fmt, *levels, end_section=fmt is list(Format)[-1])
        console = open_console(error_stream=False)
        console.print(table)
        for backend in BACKENDS.values():
            recipes = f"{backend.data_free} without calibration images, {backend.calibrated} with"
            cpus = " or ".join(backend.cpu_architectures)
            console.print(f"{backend.format} INT8 is {recipes}; converts on {cpus}", highlight=False, soft_wrap=True)
            for precision, reason in backend.refused.items():
                console.print(f"{backend.format} has no {precision}: {reason}", highlight=False, soft_wrap=True)
        for fmt in Format:
            if names := ", ".join(options_of(fmt)):
                console.print(f"{fmt} has the options {names} (docs/options.md)", highlight=False, soft_wrap=True)
        console.print("Numbers of one architecture: modelexport matrix NAME", highlight=False, soft_wrap=True)
    return 0


def _write_numbers(cells: Sequence[Cell]) -> None:
    console = open_console(error_stream=False)
    rows, kept = [dict(zip(TITLES, texts(cell), strict=True)) for cell in cells], TITLES.index("fidelity") + 1
    for titles in (TITLES[:kept], (TITLES[0], *TITLES[kept:])):
        table = Table(box=None, pad_edge=False)
        for title in titles:
            table.add_column(title, justify="left" if title in TEXT_TITLES else "right", no_wrap=title == "target")
        for row in rows:
            table.add_row(*(row[title] for title in titles))
        console.print(table, "")
    for name, option in OPTIONS.items():
        if not option.refuses(cells[0].architecture):
            words = f"option {name} of {option.list_formats()}: {option.describe_values()}"
            console.print(words, highlight=False, soft_wrap=True)
    for cell in cells:
        hardware = cell.backend.recommended_hardware[cell.target.precision]
        console.print(f"{cell.target!s:<12} suits {hardware}", highlight=False, soft_wrap=True)
        for reason in explain_failures(cell):
            console.print(reason, highlight=False, soft_wrap=True, markup=False)
    versions = ", ".join(f"{name} {version}" for name, version in measurements().versions.items())
    console.print(f"\n{EXPLANATION}\nMeasured with {versions or 'nothing yet'}.", highlight=False)
    for line in filter(None, (explain_older(), explain_images(), *explain_runs())):
        console.print(line, highlight=False)
