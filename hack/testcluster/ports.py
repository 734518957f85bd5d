"""Ports for servers that get a port number and bind it some time later."""

import socket

from testcluster.layout import CACHE
from testcluster.shell import exclusive

PORTS = range(20_000, 30_000)
"""Below those that the kernel gives to whoever asks for any, so that nobody gets one between its choice and its use."""


def free_port() -> int:
    """Return a free loopback port; concurrent callers on this machine get different ones."""
    with exclusive("ports"):
        last = CACHE / "port"
        turn = int(last.read_text() or 0) + 1 if last.exists() else 0
        while not _is_free(PORTS[turn % len(PORTS)]):
            turn += 1
        last.write_text(str(turn % len(PORTS)))
        return PORTS[turn % len(PORTS)]


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
