"""``modelexport run``: plan the exports of a file as the operator does, and run them on this machine."""

import argparse
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from modelexport.api.fields import InvalidSpec
from modelexport.api.request import ConversionRequest
from modelexport.api.spec import ModelExport
from modelexport.cli import summary
from modelexport.cli.documents import read_exports
from modelexport.cli.report import show_page
from modelexport.console import open_console
from modelexport.errors import BadInput
from modelexport.local.conversions import Conversion
from modelexport.local.page import write_run_page
from modelexport.local.run import (
    DEFAULT_OUTPUT,
    DEFAULT_STORE,
    choose_jobs,
    make_conversions,
    prepare_store,
    run_all,
)
from modelexport.names import EXPORT_KIND, PAGE_FILE
from modelexport.planning.plan import plan_export
from modelexport.published import path_of

FAILED, INTERRUPTED = 1, 130
OUTPUT_PATTERN = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/]+)*"

DESCRIPTION = """Run every ModelExport of a YAML file on this machine, with the same plan and converter as in a cluster,
and one process per target. The store is a directory, in which s3://bucket/key is DIR/bucket/key, or the URL of an S3
server; for a server, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Finished targets of earlier runs are reused, so
an interrupted run can be resumed."""

EPILOG = """examples:
  modelexport run examples/yolov8.yaml
  modelexport run export.yaml --store /data/store --jobs 4 -o json
  modelexport run export.yaml --store http://127.0.0.1:9000 --output-uri s3://exports/team

exit codes: 0 success, 1 some targets failed, 2 invalid input, 130 interrupted
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "run",
        help="export a model on this machine, without a cluster",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="YAML file with one or more ModelExports")
    parser.add_argument("--store", default=DEFAULT_STORE, metavar="DIR|URL", help=f"default: ./{DEFAULT_STORE}")
    parser.add_argument("--jobs", type=int, metavar="N", help="parallel conversions; default: by CPUs and free memory")
    parser.add_argument("--output-uri", default=DEFAULT_OUTPUT, metavar="URI", help=f"default: {DEFAULT_OUTPUT}")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="default: table")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Run the exports of a file and return the exit code.

    Raises:
        BadInput: the file, an export or an option is invalid.
    """
    exports, others = read_exports(options.file)
    requests = [request for export in exports for request in _plan(options, export)]
    store, jobs = prepare_store(options.store), choose_jobs(options.jobs, requests)
    console = open_console(error_stream=options.output == "json")
    for document in others:
        console.print(f"{document.where}: {document.kind} is not a {EXPORT_KIND}, skipped", markup=False)
    for export in exports:
        if export.suspend:
            console.print(
                f"{export.namespace}/{export.name} is suspended, skipped; set spec.suspend to false to run it"
            )
    logs = Path(tempfile.mkdtemp(prefix="modelexport-logs-"))
    conversions = make_conversions(requests, logs)
    completed = run_all(console, conversions, store, jobs)
    if options.output == "json":
        print(summary.as_json(conversions))
    else:
        summary.show(console, conversions, lambda artifact: summary.place_of(artifact.uri, store))
    if "://" not in store:
        # The page of every export lies in its folder of the directory store.
        by_export: dict[str, list[Conversion]] = {}
        for conversion in conversions:
            by_export.setdefault(conversion.request.export, []).append(conversion)
        for own in by_export.values():
            folder = path_of(Path(store), own[0].request.output).parent
            if write_run_page(folder / PAGE_FILE, own, Path(store)):
                show_page(console, folder / PAGE_FILE)
    return finish(console, conversions, logs, completed=completed)


def finish(console: Console, conversions: Sequence[Conversion], logs: Path, *, completed: bool) -> int:
    """Print what failed or was interrupted, remove the logs if nothing did, and return the exit code."""
    if completed and all(conversion.succeeded for conversion in conversions):
        shutil.rmtree(logs)
        return 0
    summary.show_failures(console, conversions)
    if completed:
        return FAILED
    summary.show_interrupted(console, conversions)
    return INTERRUPTED


def _plan(options: argparse.Namespace, export: ModelExport) -> Sequence[ConversionRequest]:
    output = options.output_uri.rstrip("/")
    if not re.fullmatch(OUTPUT_PATTERN, output):
        raise BadInput(f"--output-uri: {options.output_uri!r} is not a folder in the store; use s3://bucket/folder")
    try:
        return () if export.suspend else plan_export(export, output)
    except InvalidSpec as error:
        raise BadInput.from_spec(error, f"{options.file}: {export.namespace}/{export.name}") from error
