"""Runs programs, prints progress, and waits for conditions."""

import fcntl
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from testcluster.layout import CACHE


class ClusterError(Exception):
    """A command failed; the message has the cause and the remedy."""


@contextmanager
def exclusive(purpose: str) -> Iterator[None]:
    """Allow one process of the machine at a time into the block."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{purpose}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(message: str) -> None:
    """Print one line of progress at once."""
    print(f"cluster: {message}", flush=True)


@contextmanager
def timed(message: str) -> Iterator[None]:
    """Print the start of a step, and its duration in seconds."""
    say(f"{message} ...")
    begin = time.monotonic()
    yield
    say(f"{message}: {time.monotonic() - begin:.1f} s")


def run(command: list[str], **options: Any) -> None:
    """Run a program and show its output only if it fails.

    Raises:
        ClusterError: it failed; the message ends with its last lines.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    if done.returncode:
        last_lines = "\n".join(done.stdout.splitlines()[-30:])
        raise ClusterError(f"{' '.join(command)} ended with status {done.returncode}:\n{last_lines}")


def output(command: list[str], **options: Any) -> str:
    """Return the output of a program.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    return str(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, **options).stdout).strip()


def wait_until(what: str, is_done: Callable[[], bool], seconds: float = 180) -> None:
    """Wait until a condition holds.

    Raises:
        ClusterError: it did not hold within that many seconds.
    """
    deadline = time.monotonic() + seconds
    while not is_done():
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.1)


def scratch_folder(purpose: str) -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder on the disk of the caches; remove those of killed processes.

    Only the holder of the lock under which the purpose is served may call it.
    """
    for leftover in CACHE.glob(f"{purpose}-scratch-*"):
        shutil.rmtree(leftover)
    return tempfile.TemporaryDirectory(dir=CACHE, prefix=f"{purpose}-scratch-")


def require_disk(folder: Path, gib: float, purpose: str) -> None:
    """Check that a file system has room.

    Raises:
        ClusterError: it has less free space.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free / 2**30
    if free < gib:
        raise ClusterError(f"{purpose} needs {gib:.0f} GiB on the disk of {folder}, and {free:.1f} GiB are free")
