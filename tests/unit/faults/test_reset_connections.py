"""A connection that the API server resets before the TLS handshake."""

import gc
import socket
import struct
import threading
import time

import pytest

from testplane.tls import trusting


def test_socket_is_closed_after_early_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        resetter = threading.Thread(target=_reset_one, args=(server,))
        resetter.start()
        client = socket.create_connection(server.getsockname())
        resetter.join()
        _wait_for_reset(client)
        with pytest.raises(ConnectionResetError, match="before the TLS handshake"):
            trusting(None).wrap_socket(client, server_hostname="localhost")
    gc.collect()


def _reset_one(server: socket.socket) -> None:
    connection, _ = server.accept()
    linger_without_waiting = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_without_waiting)
    connection.close()


def _wait_for_reset(client: socket.socket) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            client.getpeername()
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError("the connection was not reset within 10 s")
