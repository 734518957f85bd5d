"""A conversion as a process: the request from the environment, the answer as exit code and termination message.

With an argument it is one step of a conversion, or something else that is done, by ``files``, and answered alike. A
step that is followed by another leaves no message.

Standard output carries one line of JSON per event; what libraries print goes to standard error.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from modelexport import names
from modelexport.logs import announce
from modelexport.reasons import Reason
from modelexport.request import ConversionRequest
from modelexport.result import ConversionResult
from modelexport_converter.failures import Failure
from modelexport_converter.files import run_command
from modelexport_converter.local import Died, run_here
from modelexport_converter.outcome import Terminated, explain
from modelexport_converter.progress import Stages, claim_stdout, start_logging
from modelexport_converter.steps import STEPS, run_step

TERMINATED = 128 + signal.SIGTERM


def main(environ: Mapping[str, str], stream: TextIO, command: str | None = None) -> int:
    """Run the conversion that the environment asks for, a step of it or another command; return the exit code.

    A conversion that is asked to end (SIGTERM) leaves no message: whoever asked knows why, and the converter does not.
    One whose child died without an answer leaves none either, and its negative code is that of the child.
    """
    start_logging(stream, {})
    try:
        result = _answer(environ, stream, command)
    except Terminated:
        announce("terminated")
        return TERMINATED
    except Died as died:
        announce("died", code=died.code)
        return died.code
    if result is None:
        return 0
    _write_message(environ, result)
    announce("finished", reason=result.reason, message=result.message, seconds=result.seconds, reused=result.reused)
    return result.reason.exit_code


def _answer(environ: Mapping[str, str], stream: TextIO, command: str | None) -> ConversionResult | None:
    stages = Stages()
    try:
        if command is None or command in STEPS:
            request = _read_request(environ)
            start_logging(stream, _context(environ, request))
            return run_step(command, environ, request) if command else run_here(environ, request, stream)
        result = run_command(command, environ)
    except Died:
        raise
    except Exception as error:
        result = explain(error)
    effort = stages.effort()
    return replace(result, seconds=effort.total, peak_memory_mib=effort.peak_memory_mib)


def _context(environ: Mapping[str, str], request: ConversionRequest) -> Mapping[str, str]:
    """What stands in every line of the log, in the words of the operator; only a conversion on a cluster has a Job."""
    job = environ.get(names.JOB_ENV)
    return {"export": request.export, "target": str(request.target), **({"job": job} if job else {})}


def _read_request(environ: Mapping[str, str]) -> ConversionRequest:
    try:
        return ConversionRequest.from_json(environ.get(names.REQUEST_ENV, ""))
    except ValueError as error:
        # Only an operator of another version, or a hand, writes a request that cannot be read.
        message = f"{names.REQUEST_ENV}: {error}; use the converter image of the operator's version"
        raise Failure(Reason.CLASS_INVALID, message) from error


def _write_message(environ: Mapping[str, str], result: ConversionResult) -> None:
    path = Path(environ.get(names.TERMINATION_LOG_ENV, names.TERMINATION_LOG_DEFAULT))
    try:
        path.write_text(result.to_json(), encoding="utf-8")
    except OSError as error:
        announce("no termination message", path=str(path), problem=str(error))


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _leave(code: int) -> NoReturn:
    """End at once: taking torch and its companions down costs seconds, and a crash there would belie the answer."""
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no other effect anyway
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    output = claim_stdout()
    exit_code = main(os.environ, output, *sys.argv[1:2])
    output.flush()
    _leave(exit_code)
