"""``modelexport run``: plan the exports of a file as the operator does, and run them here, without a cluster."""

import argparse
import asyncio
import re
import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from modelexport.cli import summary
from modelexport.cli.conversions import Conversion
from modelexport.cli.display import Display, open_console
from modelexport.cli.documents import BadInput, read_exports
from modelexport.cli.runner import Runner, usable_cpus
from modelexport.fields import InvalidSpec
from modelexport.matrix import lookup
from modelexport.names import EXPORT_KIND
from modelexport.plan import plan_export
from modelexport.request import ConversionRequest
from modelexport.spec import ModelExport

FAILED, INTERRUPTED = 1, 130
DEFAULT_STORE = "modelexport-store"
DEFAULT_OUTPUT = "s3://exports"
OUTPUT_PATTERN = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/]+)*"

DESCRIPTION = """Export every ModelExport of a YAML file, with the plan and the converter of a cluster, a process
per target. The store is a directory, in which s3://bucket/key is DIR/bucket/key, or the URL of an S3 server, with
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment. Targets that an earlier run finished are recognised,
so a run that was interrupted goes on where it was."""

EPILOG = """examples:
  modelexport run examples/yolov8.yaml
  modelexport run export.yaml --store /data/store --jobs 4 -o json
  modelexport run export.yaml --store http://127.0.0.1:9000 --output-uri s3://exports/team

exit codes: 0 every target succeeded, 1 some failed, 2 the input is bad, 130 interrupted
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
    parser.add_argument("--jobs", type=int, metavar="N", help="conversions at a time; default: by CPUs and memory")
    parser.add_argument("--output-uri", default=DEFAULT_OUTPUT, metavar="URI", help=f"default: {DEFAULT_OUTPUT}")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="default: table")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Run the exports of a file and return the exit code.

    Raises:
        BadInput: the file, an export or an option cannot be used.
    """
    exports, others = read_exports(options.file)
    requests = [request for export in exports for request in _plan(options, export)]
    store, jobs = prepare_store(options.store), choose_jobs(options.jobs, requests)
    console = open_console(error_stream=options.output == "json")
    for document in others:
        console.print(f"{document.where}: {document.kind} is no {EXPORT_KIND}, passed over", markup=False)
    for export in exports:
        if export.suspend:
            console.print(f"{export.namespace}/{export.name} is suspended and not run; set spec.suspend to false")
    logs = Path(tempfile.mkdtemp(prefix="modelexport-logs-"))
    conversions = [
        Conversion(request, _label(request, exports), logs / f"{_slug(request)}.log") for request in requests
    ]
    completed = _run_all(console, conversions, store, jobs)
    if options.output == "json":
        print(summary.as_json(conversions))
    else:
        summary.show(console, conversions, store)
    if completed and all(conversion.succeeded for conversion in conversions):
        shutil.rmtree(logs)
        return 0
    summary.tell_failures(console, conversions)
    if completed:
        return FAILED
    summary.tell_interrupted(console, conversions)
    return INTERRUPTED


def _plan(options: argparse.Namespace, export: ModelExport) -> Sequence[ConversionRequest]:
    output = options.output_uri.rstrip("/")
    if not re.fullmatch(OUTPUT_PATTERN, output):
        raise BadInput(f"--output-uri: {options.output_uri!r} is not a folder in the store; give s3://bucket/folder")
    try:
        return () if export.suspend else plan_export(export, output)
    except InvalidSpec as error:
        raise BadInput(f"{options.file}: {export.namespace}/{export.name}: {error}") from error


def prepare_store(address: str) -> str:
    """Return the address of the store as children need it; a directory is made where there is none.

    Raises:
        BadInput: it can be neither a URL of a server nor a directory.
    """
    if address.startswith(("http://", "https://")):
        return address
    if "://" in address:
        raise BadInput(f"--store: {address!r} is not a store; give a directory or the http(s):// URL of an S3 server")
    path = Path(address).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--store: {path}: {error.strerror}; give another directory") from error
    return str(path)


def choose_jobs(told: int | None, requests: Sequence[ConversionRequest]) -> int:
    """Return how many conversions run at a time: what was told, else one per CPU as far as the free memory reaches.

    Raises:
        BadInput: less than one was told.
    """
    if told is not None:
        if told < 1:
            raise BadInput(f"--jobs: {told} is less than one; give 1 or more")
        return told
    cells = (lookup(request.model.architecture, request.target) for request in requests)
    needed = max((cell.resources.memory_mib for cell in cells), default=1)
    return max(1, min(usable_cpus(), _free_memory_mib() // needed))


def _free_memory_mib() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    found = next(line for line in lines if line.startswith("MemAvailable:"))
    return int(found.split()[1]) // 1024


def _label(request: ConversionRequest, exports: Sequence[ModelExport]) -> str:
    return str(request.target) if len(exports) == 1 else f"{request.export} {request.target}"


def _slug(request: ConversionRequest) -> str:
    return f"{request.export.replace('/', '-')}-{request.target.slug}"


def _run_all(console: Console, conversions: Sequence[Conversion], store: str, jobs: int) -> bool:
    """Run conversions and return whether all came to their end; ``False`` when the user or the system ended the run."""
    with tempfile.TemporaryDirectory(prefix="modelexport-run-") as folder, Display(console, conversions) as display:
        runner = Runner(store, Path(folder), jobs, display.changed)
        try:
            asyncio.run(_until_signal(runner, conversions))
        except asyncio.CancelledError:
            return False
    return True


async def _until_signal(runner: Runner, conversions: Sequence[Conversion]) -> None:
    task, loop = asyncio.ensure_future(runner.run(conversions)), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it
            loop.add_signal_handler(number, task.cancel)
    await task
