"""``modelexport convert``: from a checkpoint to files, without a line of YAML."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelexport.api.body import export_body
from modelexport.cli import checkpoint_options, summary
from modelexport.cli.report import show_page
from modelexport.cli.run import finish
from modelexport.console import open_console
from modelexport.errors import BadInput
from modelexport.local.convert import Converted, plan, start
from modelexport.local.manifest import write_manifest
from modelexport.local.run import DEFAULT_STORE

DESCRIPTION = """Convert and verify a checkpoint on this machine. The architecture, the classes and the size of the
training are read from the checkpoint. Finished targets of earlier runs are reused."""

EPILOG = """examples:
  modelexport convert best.pt
  modelexport convert best.pt --to LiteRT/INT8 --to CoreML/FP16 --calibration photos/
  modelexport convert best.pt --to ONNX --dry-run -o yaml > best.yaml     (the ModelExport, for a cluster)

exit codes: 0 success, 1 some targets failed, 2 invalid input, 130 interrupted
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "convert",
        help="convert a checkpoint on this machine",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    checkpoint_options.add_arguments(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for the files; default: NAME-export")
    parser.add_argument(
        "--store", default=DEFAULT_STORE, metavar="DIR", help=f"keeps all files; default: {DEFAULT_STORE}"
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="parallel conversions; default: by CPUs and free memory")
    parser.add_argument("--dry-run", action="store_true", help="convert nothing; show what would be converted")
    parser.add_argument(
        "-o",
        dest="format",
        choices=("table", "json", "yaml"),
        default="table",
        help="default: table; yaml: --dry-run only",
    )
    parser.set_defaults(command=convert)


def convert(options: argparse.Namespace) -> int:
    """Convert a checkpoint and return the exit code.

    Raises:
        BadInput: an option or the checkpoint is invalid.
    """
    if options.format == "yaml" and not options.dry_run:
        raise BadInput("-o yaml: prints the ModelExport and converts nothing; add --dry-run, or use -o json")
    console = open_console(error_stream=options.format == "json")
    drafted = checkpoint_options.draft(options)
    print(f"{options.checkpoint}: {drafted.identified.describe()}", file=sys.stderr)
    if not drafted.chosen:
        chosen = ", ".join(map(str, drafted.export.targets))
        print(f"no --to: converting to {chosen}; modelexport matrix lists what else there is", file=sys.stderr)
    if options.dry_run:
        requests = plan(drafted)
        if options.format == "yaml":
            print(write_manifest(drafted), end="")
        elif options.format == "json":
            print(json.dumps(export_body(drafted.export), indent=2))
        else:
            for request in requests:
                print(f"{request.target!s:<14} {request.recipe:<22} {request.artifact_name}")
        return 0
    run = start(drafted, options.output, options.store, options.jobs)
    completed = run.execute(console)
    converted = run.collect()
    if options.format == "json":
        files: Mapping[str, Converted] = {str(one.target): one for one in converted}
        records = summary.records(run.conversions)
        for record in records:
            one = files.get(str(record["target"]))
            record["file"] = str(one.file) if one and one.file else None
            record["report"] = str(one.report) if one and one.report else None
        print(json.dumps(records, indent=2, ensure_ascii=False))
    else:
        summary.show(console, run.conversions, run.place_of)
    if page := run.write_page():
        show_page(console, page)
    return finish(console, run.conversions, run.logs, completed=completed)
