"""Downloads published files into a folder, with progress; for the command line and the SDK."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from modelexport.api.result import Artifact
from modelexport.client.transfer import Opener, fetch, matches
from modelexport.console import is_live
from modelexport.errors import BadInput, TransferError
from modelexport.published import Published
from modelexport.text import is_clean

PLAIN_SECONDS = 10.0
"""Seconds between two progress lines when there is no terminal."""


@dataclass(frozen=True)
class Download:
    """A published file, and how it is opened."""

    target: str
    artifact: Artifact
    opener: Opener

    def path_in(self, folder: Path) -> Path:
        """Return the path of the file in a folder.

        Raises:
            BadInput: its URI has no valid file name.
        """
        return folder / file_name(self.artifact.uri)

    def fetch(self, path: Path, console: Console) -> bool:
        """Download the file and return whether it was not there already.

        Raises:
            TransferError: it cannot be downloaded, or another file of its name exists.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if not matches(path, self.artifact):
                raise TransferError(f"{path} exists and is another file; move it, or use another folder (--output)")
            return False
        with _progress(console, self.target, self.artifact.size_bytes) as report:
            fetch(self.artifact, path, self.opener, report)
        return True


def downloads(chosen: Sequence[Published], openers: Mapping[str, Opener]) -> Sequence[Download]:
    """Return the downloads of published targets, by the opener of each URI."""
    return [Download(one.target, one.artifact, openers[one.artifact.uri]) for one in chosen if one.artifact]


def uris_of(chosen: Sequence[Published]) -> list[str]:
    """Return the URIs of the published targets."""
    return [one.artifact.uri for one in chosen if one.artifact]


def file_name(uri: str) -> str:
    """Return the last segment of a URI as a file name.

    Raises:
        BadInput: the segment is not a plain file name and could lead out of the output folder.
    """
    name = uri.rpartition("/")[2]
    if name in ("", ".", "..") or "\\" in name or not is_clean(name):
        raise BadInput(f"{uri!r} does not end with a valid file name")
    return name


@contextmanager
def _progress(console: Console, label: str, size: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of a download: a bar on a terminal or in a notebook, else a line now and then."""
    if not is_live(console):
        yield _Lines(console, label, size).report
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(label, total=size)
        yield lambda have: progress.update(task, completed=have)


class _Lines:
    """Prints the progress of a download as lines, for logs."""

    def __init__(self, console: Console, label: str, size: int) -> None:
        self._console, self._label, self._size, self._printed = console, label, size, time.monotonic()

    def report(self, received: int) -> None:
        """Print a line, at most every ``PLAIN_SECONDS``."""
        if time.monotonic() - self._printed > PLAIN_SECONDS:
            self._printed = time.monotonic()
            line = f"{self._label:<14} {received / self._size:.0%} of {self._size:,} bytes"
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
