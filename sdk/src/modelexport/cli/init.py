"""``modelexport init``: write the ModelExport of a checkpoint, with comments."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from modelexport.cli import checkpoint_options
from modelexport.errors import BadInput
from modelexport.local.manifest import write_manifest

EPILOG = """examples:
  modelexport init best.pt                     (writes best.yaml)
  modelexport init best.pt --to LiteRT/INT8 --calibration photos/ --output export.yaml
  modelexport init best.pt --output -          (writes to the standard output)
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "init",
        help="write a ModelExport for a checkpoint",
        description="Find the architecture of a checkpoint, and write a ModelExport with comments for it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    checkpoint_options.add_arguments(parser)
    parser.add_argument("--output", metavar="FILE", help="default: NAME.yaml; - for the standard output")
    parser.set_defaults(command=init)


def init(options: argparse.Namespace) -> int:
    """Write the ModelExport of a checkpoint and return the exit code; an existing file is kept.

    Raises:
        BadInput: an option or the checkpoint is invalid, or the file exists.
    """
    drafted = checkpoint_options.draft(options)
    text = write_manifest(drafted)
    if options.output == "-":
        print(text, end="")
        return 0
    path = Path(options.output or f"{drafted.export.name}.yaml")
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise BadInput(f"{path}: exists and is kept; remove it, or use another --output") from error
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; use another --output") from error
    print(f"{path}: {drafted.identified.describe()}")
    print(f"edit it, then: modelexport run {path}", file=sys.stderr)
    return 0
