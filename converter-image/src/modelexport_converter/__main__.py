"""One conversion as a process: the request from the environment, the answer as exit code and termination message.

With an argument it is something else that is done, by ``files``, and answered alike.

Standard output carries one line of JSON per event; what libraries print goes to standard error.
"""

import os
import signal
import sys
import tempfile
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
from modelexport_converter.intake import fetch_inputs, find_earlier, open_pictures
from modelexport_converter.outcome import Terminated, explain
from modelexport_converter.progress import Stages, claim_stdout, peak_memory_mib, start_logging
from modelexport_converter.shared import SharedFolder
from modelexport_converter.stores import open_store
from modelexport_converter.threads import limit_threads

TERMINATED = 128 + signal.SIGTERM


def main(environ: Mapping[str, str], stream: TextIO, command: str | None = None) -> int:
    """Run the conversion that the environment asks for, or another command, and return the exit code.

    A conversion that is asked to end (SIGTERM) leaves no message: whoever asked knows why, and the converter does not.
    """
    start_logging(stream, {})
    stages = Stages()
    try:
        result = _answer(environ, stream, stages, command)
    except Terminated:
        announce("terminated")
        return TERMINATED
    result = replace(result, seconds=stages.total_seconds, peak_memory_mib=peak_memory_mib())
    _write_message(environ, result)
    announce("finished", reason=result.reason, message=result.message, seconds=result.seconds, reused=result.reused)
    return result.reason.exit_code


def _answer(environ: Mapping[str, str], stream: TextIO, stages: Stages, command: str | None) -> ConversionResult:
    try:
        if command:
            return run_command(command, environ)
        request = _read_request(environ)
        start_logging(stream, _context(environ, request))
        with tempfile.TemporaryDirectory(prefix="conversion-", dir=environ.get(names.WORK_DIR_ENV)) as folder:
            return _convert(environ, request, Path(folder), stages)
    except Exception as error:
        return explain(error)


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


def _convert(environ: Mapping[str, str], request: ConversionRequest, folder: Path, stages: Stages) -> ConversionResult:
    store = open_store(environ)
    with stages.stage("fetch"):
        intake = fetch_inputs(store, environ, request, folder)
        earlier = find_earlier(store, request, intake.sources)
        if earlier is not None:
            return earlier
        dataset = open_pictures(request, intake)
    with stages.stage("start"):
        limit_threads(environ)
        # Imports torch, which a conversion that finds its work done never needs.
        from modelexport_converter import pipeline

    shared = SharedFolder(Path(environ.get(names.SHARED_DIR_ENV, folder / "shared")))
    return pipeline.run(pipeline.Conversion(request, intake, dataset, store, folder, shared, stages))


def _write_message(environ: Mapping[str, str], result: ConversionResult) -> None:
    path = Path(environ.get(names.TERMINATION_LOG_ENV, names.TERMINATION_LOG_DEFAULT))
    try:
        path.write_text(result.to_json(), encoding="utf-8")
    except OSError as error:
        announce("no termination message", path=str(path), problem=str(error))


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    output = claim_stdout()
    code = main(os.environ, output, *sys.argv[1:2])
    output.flush()
    # Not sys.exit: taking torch and its companions down costs seconds, and a crash there would belie the answer.
    os._exit(code)
