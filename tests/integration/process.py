"""The operator as a process of its own, with the rights of its manifest and no others."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from integration.control_plane import OPERATOR_TOKEN, run_process, wait_until, write_kubeconfig
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
        """Run until the context ends, ready or not."""
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("MODELEXPORT_")},
            "KUBECONFIG": str(self._kubeconfig),
            "PYTHONPATH": str(SOURCES),
            "MODELEXPORT_HTTP_HOST": "127.0.0.1",
            "MODELEXPORT_HTTP_PORT": str(self.port),
            **self._settings,
        }
        command = [sys.executable, "-m", "modelexport_operator"]
        with run_process(command, self.log, environment) as self.process:
            yield

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """End the process as a crash does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def ask(self, path: str) -> tuple[int, str]:
        """Ask the operator's HTTP server; status 0 when it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""
