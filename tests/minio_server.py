"""A real MinIO server on loopback, for tests of the store; `make tools` builds its binary."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from minio import Minio

from cluster.layout import tool

ACCESS_KEY, SECRET_KEY = "test-access", "test-secret-key"
START_SECONDS = 30


@dataclass(frozen=True)
class MinioServer:
    """A running server: its address, and what a converter needs in its environment to use it."""

    address: str
    scheme: str = "http"

    @property
    def environ(self) -> dict[str, str]:
        return {
            "MODELEXPORT_STORE": f"{self.scheme}://{self.address}",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    @property
    def client(self) -> Minio:
        return Minio(endpoint=self.address, access_key=ACCESS_KEY, secret_key=SECRET_KEY, secure=False)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def serve(folder: Path) -> Iterator[MinioServer]:
    """Run a server that keeps its objects in ``folder``, and end it."""
    address, console = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    secrets = {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
    settings = {**os.environ, **secrets, "MINIO_UPDATE": "off", "MINIO_BROWSER": "off"}
    command = [tool("minio"), "server", "--quiet", "--address", address, "--console-address", console, str(folder)]
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=settings, stdout=log, stderr=log)
    try:
        _wait_for(address)
        yield MinioServer(address)
    finally:
        process.terminate()
        process.wait()


def _wait_for(address: str) -> None:
    host, port = address.split(":")
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, int(port)), timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"MinIO does not listen on {address} after {START_SECONDS} s")
