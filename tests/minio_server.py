"""A real MinIO server on loopback, for tests of the store; `make tools` builds its binary."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from minio import Minio

from cluster.bootstrap import is_store_ready
from cluster.layout import tool
from ports import free_port

ACCESS_KEY, SECRET_KEY = "test-access", "test-secret-key"
START_SECONDS = 120


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


@contextmanager
def serve(folder: Path, address: str | None = None) -> Iterator[MinioServer]:
    """Run a server that keeps its objects in ``folder``, and end it; with ``address`` one that comes back there."""
    address, console = address or f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    secrets = {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
    settings = {**os.environ, **secrets, "MINIO_UPDATE": "off", "MINIO_BROWSER": "off"}
    command = [tool("minio"), "server", "--quiet", "--address", address, "--console-address", console, str(folder)]
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=settings, stdout=log, stderr=log)
    server = MinioServer(address)
    try:
        _wait_for(server, process)
        yield server
    finally:
        process.terminate()
        process.wait()


def _wait_for(server: MinioServer, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the server does what it is asked: it listens before it has read its folder, and refuses meanwhile."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if is_store_ready(server.address, seconds=2):  # one that comes too early may never be answered
            return
        time.sleep(0.05)
    raise TimeoutError(f"MinIO does not answer on {server.address} after {START_SECONDS} s, or has ended")
