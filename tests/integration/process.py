"""The operator as a process of its own, with the rights of its manifest and no others."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from integration.control_plane import OPERATOR_TOKEN, end_process, start_process, wait_until, write_kubeconfig
from ports import free_port

SOURCES = Path(__file__).parents[2] / "operator/src"


class Operator:
    """An operator that can be killed and started again."""

    def __init__(self, address: str, folder: Path, certificate: Path | None = None, **settings: str) -> None:
        self._kubeconfig = folder / "operator.kubeconfig"
        write_kubeconfig(self._kubeconfig, address, certificate, OPERATOR_TOKEN)
        self._settings = settings
        self.log = folder / "operator.log"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run until the context ends, killed or not; it is ready when it begins."""
        with self.started():
            wait_until("the operator to be ready", lambda: self.ask("/readyz")[0] == 200 or not self.is_alive())
            assert self.is_alive(), self.log.read_text()[-2000:]
            yield

    @contextmanager
    def started(self) -> Iterator[None]:
        """Run until the context ends, ready or not, and be it in several lives."""
        self.start()
        try:
            yield
        finally:
            assert self.process is not None
            end_process(self.process)

    def start(self) -> None:
        """Start a life; it returns at once."""
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("MODELEXPORT_")},
            "KUBECONFIG": str(self._kubeconfig),
            "PYTHONPATH": str(SOURCES),
            "MODELEXPORT_HTTP_HOST": "127.0.0.1",
            "MODELEXPORT_HTTP_PORT": str(self.port),
            **self._settings,
        }
        self.process = start_process([sys.executable, "-m", "modelexport_operator"], self.log, environment)

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """End the process as a crash does."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def ask(self, path: str, seconds: float = 60) -> tuple[int, str]:
        """Ask the operator's HTTP server; status 0 when it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=seconds) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (OSError, HTTPException):
            return 0, ""
