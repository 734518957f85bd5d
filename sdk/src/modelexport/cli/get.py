"""``modelexport get``: list what an export published."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from modelexport.cli.artifacts import Published, add_arguments, choose_kubectl, of_cluster, of_directory, read_export
from modelexport.cli.display import open_console
from modelexport.cli.summary import MIB, tell_origin

EPILOG = """examples:
  modelexport get shapes --namespace team
  modelexport get shapes -o json
  modelexport get shapes --store modelexport-store
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "get",
        help="list what an export published",
        description="List every target of a ModelExport with its file. Reads the cluster through kubectl, with the "
        "user's own rights, or the directory of a local run.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="default: table")
    parser.set_defaults(command=get)


def get(options: argparse.Namespace) -> int:
    """Print the targets of an export.

    Raises:
        BadInput: the export cannot be found.
    """
    found = of_directory(options) if options.store else of_cluster(read_export(choose_kubectl(options), options.name))
    if options.output == "json":
        print(json.dumps([asdict(one) for one in found], indent=2, ensure_ascii=False))
    else:
        _show(found)
    return 0


def _show(found: Sequence[Published]) -> None:
    console = open_console(error_stream=False)
    table = Table("Target", "State", "Scheme", "MiB", "SHA-256", "Verification", "Reference", box=None, pad_edge=False)
    for one in found:
        table.add_row(*map(Text, (one.target, one.state, one.scheme, *_cells(one))))
    console.print(table)
    for one in found:
        if one.artifact:
            console.print(f"{one.target:<14} {one.artifact.uri}", highlight=False, markup=False, soft_wrap=True)
    tell_origin(console, [(one.target, one.verification) for one in found])


def _cells(one: Published) -> tuple[str, ...]:
    artifact, verification = one.artifact, one.verification
    return (
        f"{artifact.size_bytes / MIB:.2f}" if artifact else "",
        artifact.sha256[:12] if artifact else "",
        f"{verification.metric} {verification.value} >= {verification.threshold}" if verification else "",
        str(verification.reference or "") if verification else "",
    )
