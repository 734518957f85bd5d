"""Runs the conversions of a local run as child processes, a few at a time."""

import asyncio
import contextlib
import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.api.result import ConversionResult
from modelexport.environment import scrub
from modelexport.local.conversions import RETRYING, Conversion
from modelexport.logs import parse_event

CONVERTER_ENV = "MODELEXPORT_CONVERTER"
"""Environment variable with the command of another converter than the one of this Python."""
ATTEMPTS = 3
GRACE_SECONDS = 10
"""From SIGTERM to SIGKILL: native code sees a signal only when it returns to Python."""
LINE_LIMIT = 1 << 16
"""Maximum bytes of an output line of a child; events of the converter are much shorter."""
CUT = b" [...]\n"

Changed = Callable[[Conversion], None]


@dataclass(frozen=True)
class Runner:
    """Runs conversions as child processes.

    ``folder`` is scratch space for all of them, ``changed`` is called for every new phase, ``backoff_seconds`` doubles
    with every attempt.
    """

    store: str
    folder: Path
    jobs: int
    changed: Changed
    backoff_seconds: float = 1.0

    async def run(self, conversions: Sequence[Conversion]) -> None:
        """Run conversions to completion; on cancellation, end every child before returning."""
        waiting = in_order(conversions)
        leading: list[Conversion] = []

        async def work(server: int | None) -> None:
            while waiting:
                conversion = pick(waiting, leading)
                waiting.remove(conversion)
                leading.append(conversion)
                await self._convert(conversion, server)

        async with self._fork_server(len(conversions)) as server, asyncio.TaskGroup() as group:
            for _ in range(min(self.jobs, len(conversions))):
                group.create_task(work(server))

    @contextlib.asynccontextmanager
    async def _fork_server(self, count: int) -> AsyncIterator[int | None]:
        """Run the process that forks the children of several conversions; yield a descriptor to ask it by."""
        if count < 2 or CONVERTER_ENV in os.environ:  # another converter may not have it
            yield None
            return
        server, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with server:
            with other:
                process = await asyncio.create_subprocess_exec(
                    *converter_command(),
                    names.FORK_SERVER,
                    env=scrub(os.environ) | {names.THREADS_ENV: self._threads},
                    stdin=other.fileno(),
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                    start_new_session=True,
                )
            try:
                yield server.fileno()
            finally:
                await end(process)

    async def _convert(self, conversion: Conversion, server: int | None) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            result = await self._attempt(conversion, server)
            if not result.reason.policy.retriable or attempt == ATTEMPTS:
                break
            conversion.enter(RETRYING)
            self.changed(conversion)
            await asyncio.sleep(self.backoff_seconds * 2 ** (attempt - 1))
        conversion.finish(result)
        self.changed(conversion)

    async def _attempt(self, conversion: Conversion, server: int | None) -> ConversionResult:
        conversion.begin()
        message = self.folder / f"{conversion.log.stem}.json"
        message.unlink(missing_ok=True)
        with conversion.log.open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *converter_command(),
                env={**os.environ, **self._environment(conversion, message, server)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                pass_fds=() if server is None else (server,),
            )
            try:
                async for line in read_lines(cast(asyncio.StreamReader, child.stdout)):
                    log.write(line)
                    event = parse_event(line)
                    if event.get("event") == "stage" and event.get("state") == "started":
                        conversion.enter(str(event.get("stage")))
                        self.changed(conversion)
                    elif event.get("event") == "rung":
                        conversion.rung = describe_rung(event)
                code = await child.wait()
            finally:
                await end(child)
        return read_result(message, code, conversion.log, conversion.request.output)

    @property
    def _threads(self) -> str:
        return str(max(1, usable_cpus() // self.jobs))

    def _environment(self, conversion: Conversion, message: Path, server: int | None = None) -> Mapping[str, str]:
        return {
            names.REQUEST_ENV: conversion.request.to_json(),
            names.STORE_ENV: self.store,
            # A local run may read every address that the machine reaches, like curl.
            names.HTTPS_NETWORKS_ENV: "0.0.0.0/0 ::/0",
            names.WORK_DIR_ENV: str(self.folder),
            names.SHARED_DIR_ENV: str(self.folder / "shared"),
            names.TERMINATION_LOG_ENV: str(message),
            names.THREADS_ENV: self._threads,
            **({} if server is None else {names.FORK_SERVER_ENV: str(server)}),
            # In a directory the run writes the page itself at its end, with the targets that failed.
            **({names.REPORTS_ENV: json.dumps(conversion.reports)} if "://" in self.store else {}),
        }


def describe_rung(event: Mapping[str, object]) -> str:
    """Return the rung of an event of the converter as a phrase; empty for the first one, which all files have."""
    layers = event.get("floatLayers")
    return f"{event.get('rung')}, {layers} layers in float" if layers else ""


async def read_lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield the output lines of a child; a line longer than ``LINE_LIMIT`` is cut."""
    line = b""
    while chunk := await stream.read(LINE_LIMIT):
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            yield _cut(line + part)
            line = b""
        line = (line + rest)[: LINE_LIMIT + 1]
    if line:
        yield _cut(line)


def _cut(line: bytes) -> bytes:
    return line[:LINE_LIMIT] + CUT if len(line) > LINE_LIMIT else line + b"\n"


def in_order(conversions: Sequence[Conversion]) -> list[Conversion]:
    """Return the conversions with those in front that make what others read, and with the longest first.

    What comes last is short then, so that no core is idle for long before the end.
    """
    makers: dict[object, Conversion] = {}
    for conversion in sorted(conversions, key=lambda conversion: not conversion.measures_most):
        for key in conversion.shared:
            makers.setdefault(key, conversion)

    def rank(conversion: Conversion) -> tuple[bool, float]:
        makes = conversion in makers.values()
        return not makes, -conversion.expected_seconds(converts=makers[conversion.family] is conversion)

    return sorted(conversions, key=rank)


def pick(waiting: Sequence[Conversion], started: Sequence[Conversion]) -> Conversion:
    """Return the first conversion that needs nothing that a running one is making, or else the first of all.

    Gradients that a waiting conversion measures for all formats are not measured by another one before it.
    """
    made = {key for conversion in started if conversion.result for key in conversion.shared}
    making = {key for conversion in started for key in conversion.shared} - made
    for conversion in waiting:
        if not conversion.shared & making:
            return conversion
        if conversion.measures_most:
            making |= conversion.shared - made
    return waiting[0]


def usable_cpus() -> int:
    """Return the CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def converter_command() -> Sequence[str]:
    """Return the command that runs one conversion."""
    command = os.environ.get(CONVERTER_ENV)
    return shlex.split(command) if command else (sys.executable, "-m", "modelexport_converter")


async def end(child: asyncio.subprocess.Process) -> None:
    """End a child and its descendants: SIGTERM first, SIGKILL after ``GRACE_SECONDS``."""
    if child.returncode is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.killpg(child.pid, number)
        try:
            await asyncio.wait_for(child.wait(), GRACE_SECONDS)
        except TimeoutError:
            continue
        return


def read_result(message: Path, code: int, log: Path, output: str | None = None) -> ConversionResult:
    """Return the result of a child that publishes into ``output``, or one derived from its exit status."""
    try:
        with message.open(encoding="utf-8") as file:
            text = file.read(names.TERMINATION_MESSAGE_LIMIT + 1)
        return ConversionResult.from_json(text, output=output, exit_code=code)
    except (OSError, ValueError):
        if code == -signal.SIGKILL:
            explanation = "the converter was killed, probably because memory ran out; use --jobs 1 or a larger machine"
            return ConversionResult(Reason.OOM_KILLED, explanation)
        ended = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return ConversionResult(Reason.INTERNAL_ERROR, f"the converter ended {ended} without a result; see {log}")
