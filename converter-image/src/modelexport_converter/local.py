"""All steps of a conversion without a cluster: fetch and publish here, convert in a child without any credential.

A child of the same user can reach that user's files: only on a cluster does it have a file system of its own.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from modelexport import names
from modelexport.request import ConversionRequest
from modelexport.result import ConversionResult
from modelexport_converter.steps import run_step

PASSED_ON = frozenset(
    (
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "LD_LIBRARY_PATH",
        "PATH",
        "PYTHONPATH",
        "PYTHONDONTWRITEBYTECODE",
        names.JOB_ENV,
        names.SHARED_DIR_ENV,
        names.THREADS_ENV,
    )
)
"""What of the environment reaches the child: where programs and libraries are, and how many threads it may have."""
PASSED_ON_PREFIXES = ("CUDA_", "MALLOC_", "MKL_", "OMP_", "OPENBLAS_")
GRACE_SECONDS = 8
"""From SIGTERM to SIGKILL; whoever runs us waits 10 s (modelexport/cli/runner.py)."""


PATIENCE_SECONDS = 300
"""For which a finished conversion waits for a store that answered when its inputs were fetched. An endpoint that never
answered is most likely wrong, and told within seconds."""


class Died(Exception):  # noqa: N818 - it names what is the case
    """The child ended without an answer: by its exit code or, negative, by a signal."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the conversion ended with {code}")
        self.code = code


def run_here(environ: Mapping[str, str], request: ConversionRequest, stream: TextIO) -> ConversionResult:
    """Run the steps one after the other; the child writes its events to ``stream``, too.

    Raises:
        Died: the child gave no answer.
    """
    with tempfile.TemporaryDirectory(prefix="conversion-", dir=environ.get(names.WORK_DIR_ENV)) as folder:
        places = make_places(Path(folder))
        if failed := run_step(names.FETCH, {**environ, **places}, request):
            return failed
        if failed := _convert(scrub(environ) | places, request, stream):
            return failed
        patient = {names.PATIENCE_ENV: str(PATIENCE_SECONDS), **environ, **places}
        published = run_step(names.PUBLISH, patient, request)
        assert published is not None
        return published


def make_places(folder: Path) -> dict[str, str]:
    """Make the folders of a conversion; return the variables that name them."""
    places = {
        names.INPUTS_ENV: folder / "inputs",
        names.OUTPUTS_ENV: folder / "outputs",
        names.WORK_DIR_ENV: folder / "scratch",
    }
    for place in places.values():
        place.mkdir()
    return {name: str(place) for name, place in places.items()}


def scrub(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what of an environment a process needs that converts."""
    return {name: value for name, value in environ.items() if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)}


def _convert(environ: Mapping[str, str], request: ConversionRequest, stream: TextIO) -> ConversionResult | None:
    message = Path(environ[names.WORK_DIR_ENV]).parent / "answer.json"
    own = {
        "HOME": environ[names.WORK_DIR_ENV],
        names.REQUEST_ENV: request.public().to_json(),
        names.TERMINATION_LOG_ENV: str(message),
    }
    stream.flush()
    command = [sys.executable, "-m", "modelexport_converter", names.CONVERT]
    child = subprocess.Popen(  # noqa: S603 - this interpreter, not a shell
        command, env={**environ, **own}, stdin=subprocess.DEVNULL, stdout=stream
    )
    try:
        code = child.wait()
    finally:
        _end(child)
    if not code:
        return None
    try:
        with message.open("rb") as file:
            return ConversionResult.from_json(file.read(names.TERMINATION_MESSAGE_LIMIT).decode(), exit_code=code)
    except (OSError, ValueError):
        raise Died(code) from None


def _end(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
