"""Runs processes and measures their time and memory from outside, the same way for all contenders."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAUNCHER = Path(__file__).parent / "launcher.py"


@dataclass(frozen=True)
class MeasuredProcess:
    """The outcome of a process, including its child processes.

    Wall seconds from start to end, processor seconds (which other load on the machine affects less), and the largest
    resident set of one process in MiB.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float
    exit_code: int
    output: str
    errors: str

    @property
    def json_output(self) -> Any:
        """The JSON on the last line of its output.

        Raises:
            RuntimeError: the process failed; holds the end of its error output.
        """
        if self.exit_code:
            raise RuntimeError(f"exit code {self.exit_code}: {self.errors[-2000:]}")
        return json.loads(self.output.splitlines()[-1])


def run_measured(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> MeasuredProcess:
    """Run a command to its end; its output goes to files in ``folder``."""
    output, errors, usage = folder / "stdout", folder / "stderr", folder / "usage.json"
    launch = [sys.executable, "-I", "-S", str(LAUNCHER), str(usage), *command]
    start = time.monotonic()
    with output.open("wb") as stdout, errors.open("wb") as stderr:
        process = subprocess.Popen(launch, stdout=stdout, stderr=stderr, env={**os.environ, **(environment or {})})
        try:
            process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    seconds = time.monotonic() - start
    status, cpu_seconds, peak_kib = json.loads(usage.read_text())
    exit_code = os.waitstatus_to_exitcode(status)
    return MeasuredProcess(seconds, cpu_seconds, peak_kib / 1024, exit_code, output.read_text(), errors.read_text())
