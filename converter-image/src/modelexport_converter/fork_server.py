"""The fork server of a local run: it has imported torch, and forks the child of each conversion that asks.

A conversion sends a message with the environment of its child, and a connection. It gets back a descriptor of the child
and, at the child's end, the code; if the conversion goes away, its child is killed. The server opens no file of a user
and holds no credentials. It computes nothing: threads would not exist in a child, which would wait for them.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TextIO

from modelexport import names
from modelexport.api.request import ConversionRequest
from modelexport.matrix.support import Format
from modelexport_converter.runtime.quick_imports import quick_imports
from modelexport_converter.runtime.threads import limit_threads

MESSAGE_LIMIT = 1 << 20
"""Bytes of a message; Linux starts no process with a longer variable than an eighth of it."""
READY_SECONDS = 60
"""How long a conversion waits for the server, which imports torch first."""
_FORKED_WITH = (Format.LITERT, Format.COREML)
"""Formats whose libraries start no thread when they are imported."""
_STREAMS = 3
"""Descriptors of a message: the connection, standard output and standard error."""
Main = Callable[[], NoReturn]


@dataclass(frozen=True)
class ForkedChild:
    """A child of the fork server, with the methods of ``subprocess.Popen`` that a conversion needs."""

    connection: socket.socket
    process: int

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code or, if negative, the signal that killed the child.

        Raises:
            TimeoutError: it has not ended after ``timeout`` seconds.
        """
        self.connection.settimeout(timeout)
        code = self.connection.recv(MESSAGE_LIMIT)
        if not code:  # the server is gone
            self.kill()
        self.connection.close()
        return int(code) if code else -signal.SIGKILL

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            signal.pidfd_send_signal(self.process, number)


def start_child(server: int, environ: Mapping[str, str], stream: TextIO) -> ForkedChild | None:
    """Ask the server behind a descriptor for a child that writes to ``stream``; ``None`` if it cannot have one."""
    connection, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with socket.socket(fileno=os.dup(server)) as requests, other, contextlib.suppress(OSError):
        message = json.dumps(dict(environ)).encode()
        socket.send_fds(requests, [message], [other.fileno(), stream.fileno(), 2])
    connection.settimeout(READY_SECONDS)
    with contextlib.suppress(OSError):
        _, processes, _, _ = socket.recv_fds(connection, 1, 1)
        if processes:
            return ForkedChild(connection, processes[0])
    connection.close()
    return None


def serve(requests: socket.socket, main: Main) -> None:
    """Import torch, and fork a child for every message from ``requests`` until all processes have closed its other end.

    ``main`` runs in the child, with the environment and the streams of the message.

    Raises:
        OSError: this kernel has no descriptors of processes, so that every conversion starts its child itself.
    """
    os.close(os.pidfd_open(os.getpid()))
    # OpenBLAS starts its threads when numpy is imported, torch when it computes.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    limit_threads(os.environ)
    with quick_imports():
        from modelexport_converter import pipeline  # noqa: F401 - imports torch

    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            key, _ = selector.select()[0]
            if isinstance(key.data, _Child):
                key.data.end(selector, is_asked=key.fileobj is key.data.connection)
                continue
            message, descriptors, _, _ = socket.recv_fds(requests, MESSAGE_LIMIT, _STREAMS)
            if not message:
                break
            _fork(json.loads(message), descriptors, selector, main)
        for child in {key.data for key in selector.get_map().values() if key.data}:
            child.end(selector, is_asked=True)


def _fork(environ: Mapping[str, str], descriptors: list[int], selector: selectors.BaseSelector, main: Main) -> None:
    """Fork a child for a message, unless a library has started a thread: then the conversion starts one itself."""
    _import_backend(environ)
    if len(list(Path("/proc/self/task").iterdir())) == 1:
        if not (pid := os.fork()):
            _become(environ, descriptors, selector, main)
        child = _Child(pid, os.pidfd_open(pid), socket.socket(fileno=os.dup(descriptors[0])))
        with contextlib.suppress(OSError):  # the conversion is gone
            socket.send_fds(child.connection, [b"\0"], [child.process])
        for source in (child.process, child.connection):
            selector.register(source, selectors.EVENT_READ, child)
    for descriptor in descriptors:
        os.close(descriptor)


def _import_backend(environ: Mapping[str, str]) -> None:
    """Import the libraries of the format that a message asks for; a child that cannot have them says so itself."""
    from modelexport_converter.backends import load_backend

    with contextlib.suppress(Exception):
        fmt = ConversionRequest.from_json(environ[names.REQUEST_ENV]).target.format
        if fmt in _FORKED_WITH:
            load_backend(fmt)


def _become(
    environ: Mapping[str, str], streams: Sequence[int], selector: selectors.BaseSelector, main: Main
) -> NoReturn:
    """Be the child: keep two streams of the message and no other descriptor of the server, and run."""
    try:
        connection, stdout, stderr = streams
        for descriptor in (*(key.fd for key in selector.get_map().values()), connection):
            os.close(descriptor)
        selector.close()
        for source, place in ((os.open(os.devnull, os.O_RDONLY), 0), (stdout, 1), (stderr, 2)):
            if source != place:
                os.dup2(source, place)
                os.close(source)
        os.environ.clear()
        os.environ.update(environ)
        tempfile.tempdir = None  # the child has a folder of its own
        main()
    finally:
        os._exit(names.ExitCode.SYSTEM_FAULT)


@dataclass(frozen=True)
class _Child:
    """A child of this server; both descriptors become readable, one at its end, one when its conversion is gone."""

    pid: int
    process: int
    connection: socket.socket

    def end(self, selector: selectors.BaseSelector, *, is_asked: bool) -> None:
        """Send the exit code of the child to its conversion; kill the child first if its conversion has gone away."""
        if is_asked:
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        with contextlib.suppress(OSError):
            self.connection.send(str(os.waitstatus_to_exitcode(status)).encode())
        for source in (self.process, self.connection):
            selector.unregister(source)
        self.connection.close()
        os.close(self.process)
