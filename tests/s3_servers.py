"""Real S3 servers on loopback, for tests of the store: MinIO and versitygw; `make tools` builds both."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from minio import Minio

from testcluster.bootstrap import is_healthy
from testcluster.layout import module_dir, tool
from testcluster.ports import free_port
from testplane.control_plane import Restartable, start_process

ACCESS_KEY, SECRET_KEY = "test-access", "test-secret-key"
START_SECONDS = 120


@dataclass(frozen=True)
class Program:
    """An S3 server.

    Attributes:
        name: its name.
        command: its command line, by its address and the folder of its objects.
        environment: its settings, the keys of its only user among them.
        health: the path of its health check.
    """

    name: str
    command: Callable[[str, Path], list[str]]
    environment: Mapping[str, str]
    health: str


def _minio(address: str, folder: Path) -> list[str]:
    console = f"127.0.0.1:{free_port()}"
    return [tool("minio"), "server", "--quiet", "--address", address, "--console-address", console, str(folder)]


def _versitygw(address: str, folder: Path) -> list[str]:
    program = str(module_dir("versitygw") / "versitygw")
    return [program, "--quiet", "--port", address, "--health", "/health", "posix", str(folder)]


MINIO = Program(
    "MinIO",
    _minio,
    {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY, "MINIO_UPDATE": "off", "MINIO_BROWSER": "off"},
    "/minio/health/cluster",
)
VERSITYGW = Program("versitygw", _versitygw, {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}, "/health")
PROGRAMS = (MINIO, VERSITYGW)


class S3Server(Restartable):
    """A server that can be killed, frozen, and started again at its address with its objects."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program = program
        self.address = f"127.0.0.1:{free_port()}"
        self._folder = folder

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables by which a converter uses it."""
        return {
            "MODELEXPORT_STORE": f"http://{self.address}",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    @property
    def client(self) -> Minio:
        """A client with all rights."""
        return Minio(endpoint=self.address, access_key=ACCESS_KEY, secret_key=SECRET_KEY, secure=False)

    def start(self) -> None:
        """Start, and wait until it serves requests: MinIO listens, and refuses, before it has read its folder."""
        self._folder.mkdir(exist_ok=True)
        command = self.program.command(self.address, self._folder)
        log = self._folder.parent / f"{self._folder.name}.log"
        self.process = start_process(command, log, {**os.environ, **self.program.environment})
        deadline = time.monotonic() + START_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            if is_healthy(f"http://{self.address}{self.program.health}", seconds=2):
                return
            time.sleep(0.05)
        raise TimeoutError(f"{self.program.name} has ended, or is not well after {START_SECONDS} s: {log}")


@contextmanager
def serve(program: Program, folder: Path) -> Iterator[S3Server]:
    """Run a server with its objects in ``folder`` until the context ends."""
    server = S3Server(program, folder)
    with server.running():
        yield server
