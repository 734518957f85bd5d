"""``modelexport matrix``: show what converts to what, and how."""

import argparse
import json
from typing import Any

from rich.table import Table

from modelexport.cli.display import open_console
from modelexport.matrix import ARCHITECTURES, BACKENDS, Cell, Format, Precision, Target, cells, lookup


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "matrix",
        help="show the support matrix",
        description="Show every architecture, format and precision: the scheme without and with calibration pictures, "
        "what a file must reach against the original model to be published, and the CPUs that can convert.",
        epilog="example: modelexport matrix -o markdown",
    )
    parser.add_argument("-o", "--output", choices=tuple(_WRITERS), default="table", help="default: table")
    parser.set_defaults(command=show)


def show(options: argparse.Namespace) -> int:
    """Print the matrix."""
    _WRITERS[options.output]()
    return 0


def _row(cell: Cell) -> dict[str, str]:
    return {
        "architecture": cell.architecture.name,
        "task": cell.architecture.task,
        "format": cell.target.format,
        "precision": cell.target.precision,
        "level": cell.level,
        "scheme": cell.scheme(calibrated=False),
        "calibrated": cell.scheme(calibrated=True),
        "threshold": f"{cell.threshold.metric} >= {cell.threshold.minimum}",
        "cpu": " ".join(cell.backend.cpu_architectures),
    }


def _write_table() -> None:
    table = Table("Architecture", "Task", "Format", *Precision, title="Support level by format and precision")
    for row in ARCHITECTURES.values():
        for fmt in Format:
            levels = (lookup(row.name, Target(fmt, precision)).level for precision in Precision)
            table.add_row(row.name, row.task, fmt, *levels, end_section=fmt is list(Format)[-1])
    console = open_console(error_stream=False)
    console.print(table)
    for backend in BACKENDS.values():
        schemes = f"{backend.data_free} without calibration pictures, {backend.calibrated} with"
        cpus = " or ".join(backend.cpu_architectures)
        console.print(f"{backend.format} INT8 is {schemes}; converts on {cpus}", highlight=False, soft_wrap=True)


def _write_json() -> None:
    print(json.dumps([_row(cell) for cell in cells()], indent=2))


def _write_markdown() -> None:
    rows = [_row(cell) for cell in cells()]
    print(f"| {' | '.join(rows[0])} |")
    print(f"|{'---|' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(row.values())} |")


_WRITERS = {"table": _write_table, "json": _write_json, "markdown": _write_markdown}
