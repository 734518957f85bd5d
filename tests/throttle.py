"""A TCP proxy before a server, which triggers an action in the middle of a transfer."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum


class Way(StrEnum):
    """The direction of a transfer."""

    UP = "to the server"
    DOWN = "from the server"


class Throttle:
    """Passes bytes between clients and a server.

    Attributes:
        address: host and port at which it listens.
    """

    def __init__(self, server: str) -> None:
        host, port = server.split(":")
        self._server = host, int(port)
        self._lock = threading.Lock()
        self._way, self._left, self._act = Way.UP, 0, _do_nothing
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Pass bytes on until the context ends, then end every connection and thread."""
        accepting = threading.Thread(target=self._accept)
        accepting.start()
        try:
            yield
        finally:
            _shut(self._listener)
            accepting.join()
            self._listener.close()
            self.cut()
            for thread in self._threads:
                thread.join()

    def arm(self, way: Way, count: int, act: Callable[[], None]) -> None:
        """Call an action once, as soon as so many more bytes have passed in one direction."""
        with self._lock:
            self._way, self._left, self._act = way, count, act

    def cut(self) -> None:
        """Cut every connection that is open."""
        with self._lock:
            for one in self._open:
                _shut(one)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(client,)))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        """Pass bytes between one client and the server, then close both ends, so that late bytes are refused."""
        with client, contextlib.suppress(OSError), socket.create_connection(self._server) as server:
            ends = {client, server}
            with self._lock:
                self._open |= ends
            down = threading.Thread(target=self._pass, args=(Way.DOWN, server, client))
            down.start()
            self._pass(Way.UP, client, server)
            down.join()
            with self._lock:
                self._open -= ends

    def _pass(self, way: Way, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(1 << 16):
                target.sendall(chunk)
                self._count(way, len(chunk))
        _shut(source)
        _shut(target)

    def _count(self, way: Way, count: int) -> None:
        with self._lock:
            before = self._left
            self._left -= count if way is self._way else 0
            is_due = before > 0 >= self._left
        if is_due:
            self._act()


def _do_nothing() -> None:
    """The action of a throttle that is not armed."""


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
