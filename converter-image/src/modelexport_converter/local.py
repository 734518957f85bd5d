"""Runs all steps without a cluster: fetch and publish in this process, convert in a child without credentials.

The child runs as the same user and can read that user's files; only a cluster gives it a file system of its own.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from modelexport import names
from modelexport.api.request import ConversionRequest
from modelexport.api.result import ConversionResult
from modelexport.environment import scrub
from modelexport_converter.fork_server import ForkedChild, start_child
from modelexport_converter.steps import run_step

GRACE_SECONDS = 8
"""From SIGTERM to SIGKILL; the caller waits 10 s (modelexport/local/runner.py)."""


RETRY_SECONDS = 300
"""How long a finished conversion retries a store that answered when its inputs were fetched. An endpoint that never
answers is most likely wrong and fails within seconds.
"""


class ChildDied(Exception):  # noqa: N818 - it names what is the case
    """The child ended without a result. ``code`` is its exit code or, if negative, the signal that killed it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the conversion ended with {code}")
        self.code = code


def run_here(environ: Mapping[str, str], request: ConversionRequest, stream: TextIO) -> ConversionResult:
    """Run the steps one after the other. The child writes its events to ``stream``, too.

    Raises:
        ChildDied: the child left no result.
    """
    with tempfile.TemporaryDirectory(prefix="conversion-", dir=environ.get(names.WORK_DIR_ENV)) as folder:
        places = make_places(Path(folder))
        if failed := run_step(names.FETCH, {**environ, **places}, request):
            return failed
        if failed := _convert(scrub(environ) | places, request, stream, environ.get(names.FORK_SERVER_ENV)):
            return failed
        patient = {names.STORE_TIMEOUT_ENV: str(RETRY_SECONDS), **environ, **places}
        published = run_step(names.PUBLISH, patient, request)
        assert published is not None
        return published


def make_places(folder: Path) -> dict[str, str]:
    """Create the folders of a conversion. Return the environment variables that name them."""
    places = {
        names.INPUTS_ENV: folder / "inputs",
        names.OUTPUTS_ENV: folder / "outputs",
        names.WORK_DIR_ENV: folder / "scratch",
    }
    for place in places.values():
        place.mkdir()
    return {name: str(place) for name, place in places.items()}


def _convert(
    environ: Mapping[str, str], request: ConversionRequest, stream: TextIO, server: str | None
) -> ConversionResult | None:
    message = Path(environ[names.WORK_DIR_ENV]).parent / "answer.json"
    own = {
        "HOME": environ[names.WORK_DIR_ENV],
        names.REQUEST_ENV: request.public().to_json(),
        names.TERMINATION_LOG_ENV: str(message),
    }
    child = _start({**environ, **own}, server, stream)
    try:
        code = child.wait()
    except BaseException:
        child.terminate()
        try:
            child.wait(GRACE_SECONDS)
        except (TimeoutError, subprocess.TimeoutExpired):
            child.kill()
            child.wait()
        raise
    if not code:
        return None
    try:
        with message.open("rb") as file:
            return ConversionResult.from_json(file.read(names.TERMINATION_MESSAGE_LIMIT).decode(), exit_code=code)
    except (OSError, ValueError):
        raise ChildDied(code) from None


def _start(environ: Mapping[str, str], server: str | None, stream: TextIO) -> ForkedChild | subprocess.Popen[bytes]:
    """Start the child: forked by the fork server of the run, if there is one, which spares it the imports."""
    stream.flush()
    if server and (child := start_child(int(server), environ, stream)):
        return child
    command = [sys.executable, "-m", "modelexport_converter", names.CONVERT]
    # This interpreter, not a shell.
    return subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=stream)  # noqa: S603
