"""``modelexport report``: write a page with the answers, numbers and digests of all targets of an export."""

import argparse
import os
import webbrowser
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from modelexport.cli.report_page import Target, read_target, render
from modelexport.cli.selection import add_arguments, add_store_arguments, open_store, read_local_reports
from modelexport.client.published import Published, choose, of_cluster, path_of, read_report_file
from modelexport.client.reports import read_report, report_uris_of
from modelexport.errors import BadInput
from modelexport.local.conversions import Conversion

PAGE_FILE = "report.html"

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


def write_page(path: Path, name: str, targets: Sequence[Target]) -> None:
    """Write the page of an export.

    Raises:
        BadInput: the file cannot be written.
    """
    try:
        path.write_text(render(name, targets), encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--output: {path}: {error.strerror}; use another file") from error


def read_targets(reports: Iterable[tuple[Published, Mapping[str, Any]]]) -> list[Target]:
    """Return what the page shows of targets with a report.

    Raises:
        BadInput: a report is invalid.
    """
    try:
        return [read_target(published, report) for published, report in reports]
    except ValueError as error:
        raise BadInput(f"a report is invalid: {error}; run the export again") from error


def write_run_page(console: Console, path: Path, conversions: Sequence[Conversion], store: Path) -> None:
    """Write the page of an export after a local run into a directory store, and print its path.

    Without a published file there is no page.

    Raises:
        BadInput: the file cannot be written.
    """
    if any(conversion.succeeded for conversion in conversions):
        targets = [_target_of(conversion, store) for conversion in conversions]
        write_page(path, conversions[0].request.export, targets)
        console.print(f"Report: {os.path.relpath(path)}", highlight=False, markup=False, soft_wrap=True)


def _target_of(conversion: Conversion, store: Path) -> Target:
    """Return what the page shows of one conversion: its report, or why it has none."""
    request, result = conversion.request, conversion.result
    target, recipe = str(request.target), str(request.recipe)
    if result is None:
        return Target(Published(target, conversion.phase, recipe=recipe))
    if result.report_uri is None:
        failed = Published(
            target, str(result.reason), result.message, recipe, None, result.verification, result.accuracy
        )
        return Target(failed)
    try:
        path = path_of(store, result.report_uri)
        (found,) = read_targets([read_report_file(path, request.output)])
    except BadInput as error:
        return Target(Published(target, conversion.phase, str(error), recipe))
    return found


def _read_cluster(options: argparse.Namespace) -> list[Target]:
    """Return the targets of an export in a cluster; those without a report have their state only."""
    export, openers = open_store(options)
    found = of_cluster(export)
    published = choose(found, None)
    opened = openers(report_uris_of(published))
    known = {one.target: read_targets([(one, read_report(one, opened))])[0] for one in published}
    return [known.get(one.target, Target(one)) for one in found]
