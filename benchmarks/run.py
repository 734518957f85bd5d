"""Measures what a conversion and the operator cost, and writes docs/benchmarks.md from it.

    PYTHONPATH=tests .venv/bin/python -m bench.run [cells|operator|page|all]

What is not measured again keeps its last results; ``page`` only writes the page.
"""

import argparse
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from bench.machine import describe_machine
from bench.page import write_page
from bench.results import OPERATOR, write_results

ALL = ("cells", "operator")


def main() -> None:
    """Measure what was asked for, then write the page."""
    options = parse_arguments()
    os.environ.setdefault("YOLO_OFFLINE", "true")
    # Every process that is started is ended on the way out, so let a request to end be a way out.
    signal.signal(signal.SIGTERM, _leave)
    if options.what in ("operator", "all"):
        from bench.operator_scale import measure_operator

        measured = measure_operator(options.rounds, options.objects)
        write_results(OPERATOR, {"machine": describe_machine(), **measured})
    if options.what in ("cells", "all"):
        from bench.cells import measure_cells

        measure_cells(options.only)
    write_page()


def parse_arguments() -> argparse.Namespace:
    """Return what to measure, and how often."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=(*ALL, "page", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds of the operator; default: 3")
    parser.add_argument("--objects", type=int, default=110, help="exports in a round; default: 110")
    parser.add_argument("--only", default="", help="cells whose architecture, format or precision has this in its name")
    return parser.parse_args()


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
