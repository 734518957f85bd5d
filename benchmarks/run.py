"""Measures the cost of conversions and of the operator, and writes docs/benchmarks.md.

    PYTHONPATH=hack:testdata:examples .venv/bin/python -m benchmarks.run \\
        [cells|operator|scale|finished|kopf|wrong|page|all]

Parts that are not measured again keep their last results; ``page`` only writes the page.
"""

import argparse
import os
import signal
import sys

from benchmarks.measuring.machine import describe_machine
from benchmarks.operator.finished import EXPORTS, measure_finished
from benchmarks.operator.scale import STEPS, measure_scale
from benchmarks.pages.page import write_page
from benchmarks.results import FINISHED, OPERATOR, SCALE, WATCHES, write_results
from benchmarks.watches.cost import JOBS, measure_watches

ALL = ("cells", "operator", "scale", "finished", "kopf", "wrong")


def main() -> None:
    """Measure the chosen parts, then write the page."""
    options = parse_arguments()
    os.environ.setdefault("YOLO_OFFLINE", "true")
    # Started processes are ended by ``finally`` clauses, so SIGTERM must raise an exception.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if options.what in ("operator", "all"):
        from benchmarks.operator.comparison import measure_operator

        measured = measure_operator(options.rounds, options.objects)
        write_results(OPERATOR, {"machine": describe_machine(), **measured})
    if options.what in ("scale", "all"):
        machine = describe_machine()
        measure_scale(lambda measured: write_results(SCALE, {"machine": machine, **measured}), options.steps)
    if options.what in ("finished", "all"):
        machine = describe_machine()
        measure_finished(lambda measured: write_results(FINISHED, {"machine": machine, **measured}), options.finished)
    if options.what in ("kopf", "all"):
        write_results(WATCHES, {"machine": describe_machine(), **measure_watches(options.jobs, options.rounds)})
    if options.what in ("cells", "all"):
        from benchmarks.conversions.cells import measure_cells

        measure_cells(options.only)
    if options.what in ("wrong", "all"):
        from benchmarks.conversions.wrong_files import measure_wrong_files

        measure_wrong_files()
    write_page()


def parse_arguments() -> argparse.Namespace:
    """Return the command line options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=(*ALL, "page", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds of operator and kopf; default: 3")
    parser.add_argument("--objects", type=int, default=110, help="exports in a round; default: 110")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=STEPS, metavar="EXPORTS", help="numbers of exports at which to measure"
    )
    parser.add_argument(
        "--finished", type=int, nargs="+", default=EXPORTS, metavar="EXPORTS", help="numbers of finished exports"
    )
    parser.add_argument("--jobs", type=int, nargs="+", default=JOBS, help="numbers of Jobs at which to watch")
    parser.add_argument("--only", default="", help="cells whose architecture, format or precision has this in its name")
    return parser.parse_args()


if __name__ == "__main__":
    main()
