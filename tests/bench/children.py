"""Child processes whose seconds and memory are measured from outside, the same way for us and for others."""

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
    output, errors = folder / "stdout", folder / "stderr"
    start = time.monotonic()
    with output.open("wb") as stdout, errors.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env={**os.environ, **(environment or {})})
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - start
    cpu_seconds, peak_mib = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    return Child(seconds, cpu_seconds, peak_mib, process.returncode, output.read_text(), errors.read_text())
