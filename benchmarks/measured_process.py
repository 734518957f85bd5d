"""Child processes whose seconds and memory are measured from outside, the same way for us and for others."""

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
class Child:
    """How a child ended, its own children included.

    Wall seconds from start to end, processor seconds (which other load on the machine changes less), and the largest
    resident set of one process in MiB.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float
    exit_code: int
    output: str
    errors: str

    @property
    def answer(self) -> Any:
        """The JSON that it printed as its last line.

        Raises:
            RuntimeError: it failed, with the end of what it said.
        """
        if self.exit_code:
            raise RuntimeError(f"exit code {self.exit_code}: {self.errors[-2000:]}")
        return json.loads(self.output.splitlines()[-1])


def run_child(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Child:
    """Run a command to its end; what it says is collected in files in ``folder``."""
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
    return Child(seconds, cpu_seconds, peak_kib / 1024, exit_code, output.read_text(), errors.read_text())
