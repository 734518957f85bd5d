"""``modelexport get``: list the targets of an export and their published files."""

import argparse
import json
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from modelexport.cli.selection import add_arguments, read_targets
from modelexport.cli.summary import MIB, describe_verification, show_accuracy, show_origin, show_quantization
from modelexport.client.display import describe
from modelexport.console import open_console

EPILOG = """examples:
  modelexport get shapes --namespace team
  modelexport get shapes -o json
  modelexport get shapes --store modelexport-store
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "get",
        help="list the targets of an export and their files",
        description="List every target of a ModelExport with its file. Reads a cluster through kubectl, with the "
        "rights of the user, or the directory of a local run.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="default: table")
    parser.set_defaults(command=get)


def get(options: argparse.Namespace) -> int:
    """Print the targets of an export.

    Raises:
        BadInput: the export does not exist.
    """
    found = read_targets(options)
    if options.output == "json":
        print(json.dumps([target.to_dict() for target in found], indent=2, ensure_ascii=False))
    else:
        console = open_console(error_stream=False)
        columns = ("Target", "State", "Recipe", "MiB", "SHA-256", "Verification", "Fidelity", "Reference")
        table = Table(*columns, box=None, pad_edge=False)
        now = datetime.now(UTC)
        for one in found:
            state = one.state if one.progress is None else f"{one.state} ({describe(one.progress, now)})"
            artifact = one.artifact
            cells = (
                one.target,
                state,
                one.recipe,
                f"{artifact.size_bytes / MIB:.2f}" if artifact else "",
                artifact.sha256[:12] if artifact else "",
                *describe_verification(one.verification),
            )
            table.add_row(*map(Text, cells))
        console.print(table)
        for one in found:
            if one.artifact:
                console.print(f"{one.target:<14} {one.artifact.uri}", highlight=False, markup=False, soft_wrap=True)
        if page := next((one.page_uri for one in found if one.page_uri), None):
            console.print(f"{'Page':<14} {page}", highlight=False, markup=False, soft_wrap=True)
        show_origin(console, [(one.target, one.verification) for one in found])
        show_accuracy(console, [(one.target, one.accuracy) for one in found])
        show_quantization(console, [(one.target, one.quantization) for one in found])
    return 0
