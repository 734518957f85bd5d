"""The operator as a separate process, with exactly the rights of its manifest."""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from testcluster.ports import free_port
from testplane.control_plane import OPERATOR_TOKEN, Restartable, start_process, wait_until, write_kubeconfig

ROOT = Path(__file__).parents[2]
SOURCES = os.pathsep.join(str(ROOT / folder) for folder in ("sdk/src", "operator/src"))


class Operator(Restartable):
    """An operator that can be killed and started again."""

    def __init__(self, address: str, folder: Path, certificate: Path | None = None, /, **settings: str) -> None:
        self._kubeconfig = folder / "operator.kubeconfig"
        write_kubeconfig(self._kubeconfig, address, certificate, OPERATOR_TOKEN)
        self._settings = settings
        self.log = folder / "operator.log"
        self.port = free_port()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run until the context ends, which begins when the operator is ready."""
        with self.started():
            wait_until("the operator to be ready", lambda: self.ask("/readyz")[0] == 200 or not self.is_alive())
            assert self.is_alive(), self.log.read_text()[-2000:]
            yield

    @contextmanager
    def started(self) -> Iterator[None]:
        """Run until the context ends, even through restarts, without waiting until it is ready."""
        with super().running():
            yield

    def start(self) -> None:
        """Start the process without waiting."""
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("MODELEXPORT_")},
            "KUBECONFIG": str(self._kubeconfig),
            "PYTHONPATH": SOURCES,
            "MODELEXPORT_HTTP_HOST": "127.0.0.1",
            "MODELEXPORT_HTTP_PORT": str(self.port),
            **self._settings,
        }
        self.process = start_process([sys.executable, "-m", "modelexport_operator"], self.log, environment)

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def ask(self, path: str, seconds: float = 60) -> tuple[int, str]:
        """Request a path of the operator's HTTP server; the status is 0 if it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=seconds) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (OSError, HTTPException):
            return 0, ""
