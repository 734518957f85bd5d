"""``modelexport report``: write a page with the answers, numbers and digests of all targets of an export."""

import argparse
import os
import webbrowser
from pathlib import Path
from typing import Any

from rich.console import Console

from modelexport.cli.selection import add_arguments, add_store_arguments, open_store, read_local_reports
from modelexport.client.reports import read_report, report_uris_of
from modelexport.local.page import read_targets, write_page
from modelexport.published import choose, of_cluster
from modelexport.report_page.target import Target

EPILOG = """examples:
  modelexport report shapes --namespace team
  modelexport report shapes --store modelexport-store --open
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "report",
        help="write a page that shows the answers of the files beside the original's",
        description="Write a self-contained HTML page about all targets of an export: the images on which the answers "
        "of the files differ most from the original's, fidelity, agreement, sizes, seconds, digests and versions. The "
        "reports come from the store, as in modelexport download.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    add_store_arguments(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: NAME.html in the current directory")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.set_defaults(command=report)


def report(options: argparse.Namespace) -> int:
    """Write the page of an export.

    Raises:
        BadInput: the export does not exist, has no reports, or the page cannot be written.
    """
    targets = read_targets(read_local_reports(options)) if options.store else _read_cluster(options)
    path = options.output or Path(f"{options.name}.html")
    write_page(path, options.name, targets)
    print(path)
    if options.open:
        webbrowser.open(path.absolute().as_uri())
    return 0


def show_page(console: Console, path: Path) -> None:
    """Print the path of a page."""
    console.print(f"Report: {os.path.relpath(path)}", highlight=False, markup=False, soft_wrap=True)


def _read_cluster(options: argparse.Namespace) -> list[Target]:
    """Return the targets of an export in a cluster; those without a report have their state only."""
    export, openers = open_store(options)
    found = of_cluster(export)
    published = choose(found, None)
    opened = openers(report_uris_of(published))
    known = {one.target: read_targets([(one, read_report(one, opened))])[0] for one in published}
    return [known.get(one.target, Target(one)) for one in found]
