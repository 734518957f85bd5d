"""Runs a conversion as a process: the request comes from the environment, the result is exit code and termination
message.

If a command is given, run it (a step, or one of ``publishing.commands``) and report the result the same way. A step
that is followed by another leaves no message.

Standard output carries one line of JSON per event; output of libraries goes to standard error.
"""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.result import ConversionResult
from modelexport.logs import announce
from modelexport_converter.failures import Failure
from modelexport_converter.fork_server import serve
from modelexport_converter.local import ChildDied, run_here
from modelexport_converter.publishing.commands import run_command
from modelexport_converter.runtime.outcome import Terminated, explain
from modelexport_converter.runtime.progress import Stages, claim_stdout, start_logging
from modelexport_converter.runtime.quick_imports import quick_imports
from modelexport_converter.steps import STEPS, run_step

TERMINATED = 128 + signal.SIGTERM


def main(environ: Mapping[str, str], stream: TextIO, command: str | None = None) -> int:
    """Run the conversion of the environment, one of its steps or another command. Return the exit code.

    A conversion that is asked to end (SIGTERM) leaves no message: the sender knows why, the converter does not. If the
    child died without a result, there is no message either, and its negative code is returned.
    """
    start_logging(stream, {})
    try:
        result = _answer(environ, stream, command)
    except Terminated:
        announce("terminated")
        return TERMINATED
    except ChildDied as died:
        announce("died", code=died.code)
        return died.code
    if result is None:
        return 0
    path = Path(environ.get(names.TERMINATION_LOG_ENV, names.TERMINATION_LOG_DEFAULT))
    try:
        path.write_text(result.to_json(), encoding="utf-8")
    except OSError as error:
        announce("no termination message", path=str(path), problem=str(error))
    announce("finished", reason=result.reason, message=result.message, seconds=result.seconds, reused=result.reused)
    return result.reason.exit_code


def _answer(environ: Mapping[str, str], stream: TextIO, command: str | None) -> ConversionResult | None:
    stages = Stages()
    try:
        if command is None or command in STEPS:
            request = _read_request(environ)
            context = {"export": request.export, "target": str(request.target)}  # as in the operator's log
            if job := environ.get(names.JOB_ENV):  # only a conversion on a cluster has one
                context["job"] = job
            start_logging(stream, context)
            return run_step(command, environ, request) if command else run_here(environ, request, stream)
        if command == names.IDENTIFY:
            with quick_imports():
                from modelexport_converter.identification import identify  # imports torch

            result = identify(environ)
        else:
            result = run_command(command, environ)
    except ChildDied:
        raise
    except Exception as error:
        result = explain(error)
    effort = stages.effort()
    return replace(result, seconds=effort.total, peak_memory_mib=effort.peak_memory_mib)


def _read_request(environ: Mapping[str, str]) -> ConversionRequest:
    try:
        return ConversionRequest.from_json(environ.get(names.REQUEST_ENV, ""))
    except ValueError as error:
        # Only an operator of another version, or a person, writes a request that cannot be parsed.
        message = f"{names.REQUEST_ENV}: {error}; use the converter image of the operator's version"
        raise Failure(Reason.CLASS_INVALID, message) from error


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _leave(code: int) -> NoReturn:
    """Exit without cleanup: unloading torch takes seconds, and a crash there would contradict the result."""
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no other effect anyway
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _run(*command: str) -> NoReturn:
    """Be the process of a conversion, of one of its steps or of another command."""
    signal.signal(signal.SIGTERM, _terminate)
    output = claim_stdout()
    exit_code = main(os.environ, output, *command)
    output.flush()
    _leave(exit_code)


if __name__ == "__main__":
    if sys.argv[1:2] == [names.FORK_SERVER]:
        serve(socket.socket(fileno=0), partial(_run, names.CONVERT))
        _leave(0)
    _run(*sys.argv[1:2])
