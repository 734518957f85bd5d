"""``modelexport download``: fetch what an export published."""

import argparse
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from modelexport import names
from modelexport.cli.artifacts import (
    Published,
    add_arguments,
    choose,
    choose_kubectl,
    of_cluster,
    of_directory,
    path_of,
    read_export,
)
from modelexport.cli.display import open_console
from modelexport.cli.documents import BadInput
from modelexport.cli.links import Signer
from modelexport.cli.transfer import Opener, TransferError, fetch, matches, open_file, open_url
from modelexport.result import Artifact
from modelexport.text import clean, is_clean

FAILED = 1
MESSAGE_LIMIT = 1000
"""Characters of a message: a store chooses the words of its answers."""
PLAIN_SECONDS = 10.0
"""How often a long download is told where nobody watches."""

DESCRIPTION = f"""Fetch the files that an export published, each checked by its SHA-256; a download that was interrupted
goes on where it was. With {names.ACCESS_KEY_ENV} and {names.SECRET_KEY_ENV} in the environment links are signed here,
else by a short-lived Pod that you create through kubectl in the export's namespace, with its Secret."""

EPILOG = """examples:
  modelexport download shapes --namespace team --target LiteRT/INT8 --output models
  modelexport download shapes --endpoint http://127.0.0.1:9000      (beside: kubectl port-forward svc/minio 9000)
  modelexport download shapes --store modelexport-store

exit codes: 0 every file is there, 1 some could not be fetched, 2 the input is bad
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "download",
        help="fetch what an export published",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument("--target", metavar="FORMAT/PRECISION", help="one target; default: all that are published")
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="default: this folder")
    parser.add_argument("--endpoint", metavar="URL", help="of the store, as you reach it; default: that of the class")
    parser.add_argument("--ca-file", metavar="FILE", help="certificate authority of the store; default: the system's")
    parser.set_defaults(command=download)


def download(options: argparse.Namespace) -> int:
    """Fetch the files of an export and return the exit code.

    Raises:
        BadInput: the export, the target or an option cannot be used.
    """
    chosen = _find_local(options) if options.store else _find(options)
    failed = False
    for target, artifact, opener in chosen:
        try:
            _fetch(target, artifact, options.output / file_name(artifact.uri), opener)
        except TransferError as error:
            print(clean(f"{target}: {error}", MESSAGE_LIMIT), file=sys.stderr)
            failed = True
        except OSError as error:
            raise BadInput(f"--output: {options.output}: {error.strerror}; give another folder") from error
    return FAILED if failed else 0


Wanted = tuple[str, Artifact, Opener]


def _find_local(options: argparse.Namespace) -> Sequence[Wanted]:
    chosen = choose(of_directory(options), options.target)
    return _with(chosen, {uri: open_file(path_of(options.store, uri)) for uri in _uris(chosen)})


def _find(options: argparse.Namespace) -> Sequence[Wanted]:
    if options.endpoint and not options.endpoint.startswith(("http://", "https://")):
        raise BadInput(f"--endpoint: {options.endpoint!r} is no URL, for example http://127.0.0.1:9000")
    kubectl, trust = choose_kubectl(options), _trust(options.ca_file)
    export = read_export(kubectl, options.name)
    chosen = choose(of_cluster(export), options.target)
    links = Signer(kubectl, export, options.endpoint).sign(_uris(chosen))
    openers = {uri: open_url(link, trust if link.startswith("https://") else None) for uri, link in links.items()}
    return _with(chosen, openers)


def _uris(chosen: Sequence[Published]) -> list[str]:
    return [one.artifact.uri for one in chosen if one.artifact]


def _with(chosen: Sequence[Published], openers: Mapping[str, Opener]) -> Sequence[Wanted]:
    return [(one.target, one.artifact, openers[one.artifact.uri]) for one in chosen if one.artifact]


def _trust(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise BadInput(f"--ca-file: {ca_file} cannot be read as certificates: {error}") from error


def file_name(uri: str) -> str:
    """Return the name of a file, and nothing that leads out of the folder into which it goes.

    Raises:
        BadInput: the URI ends in none.
    """
    name = uri.rpartition("/")[2]
    if name in ("", ".", "..") or "\\" in name or not is_clean(name):
        raise BadInput(f"{uri!r} names no file")
    return name


def _fetch(target: str, artifact: Artifact, path: Path, opener: Opener) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        if not matches(path, artifact):
            raise TransferError(f"{path} is there and is another file; move it away, or give another --output")
        print(f"{target:<14} {path} (is there already)")
        return
    with _progress(target, artifact.size_bytes) as tell:
        fetch(artifact, path, opener, tell)
    print(f"{target:<14} {path}")


@contextmanager
def _progress(label: str, size: int) -> Iterator[Callable[[int], None]]:
    """Show how far a download is: a bar on a terminal, else a line now and then."""
    console = open_console(error_stream=True)
    if not console.is_terminal:
        yield _Lines(label, size).tell
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(label, total=size)
        yield lambda have: progress.update(task, completed=have)


class _Lines:
    """Progress in lines, for logs."""

    def __init__(self, label: str, size: int) -> None:
        self._label, self._size, self._told = label, size, time.monotonic()

    def tell(self, have: int) -> None:
        """Print a line if the last one is long ago."""
        if time.monotonic() - self._told > PLAIN_SECONDS:
            self._told = time.monotonic()
            print(f"{self._label:<14} {have / self._size:.0%} of {self._size:,} bytes", file=sys.stderr)
