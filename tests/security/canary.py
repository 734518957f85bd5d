"""Proves that reading hostile content executed, imported, wrote and reached nothing.

Python calls audit hooks before it opens a file, imports, compiles, runs a command or connects
(https://docs.python.org/3/library/audit_events.html). The canary records all such events while content is read, apart
from opening the content itself. It also measures time and memory.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORBIDDEN = (
    "compile",
    "ctypes.",
    "exec",
    "ftplib.",
    "glob.",
    "http.",
    "import",
    "marshal.",
    "os.",
    "pickle.find_class",
    "pty.",
    "shutil.",
    "signal.",
    "smtplib.",
    "socket.",
    "subprocess.",
    "tempfile.",
    "urllib.",
    "webbrowser.",
)
"""Beginnings of events that no reader of data causes."""
SECRET = "canary-4be1c2"
"""The value of a variable of the environment that no message may hold."""
CPU_SECONDS, MEMORY_MIB = 10.0, 1024


@dataclass
class Canary:
    """The findings: forbidden events, CPU seconds, and the peak growth of memory in MiB."""

    allowed: frozenset[str]
    events: list[str] = field(default_factory=list)
    seconds: float = 0.0
    memory_mib: int = 0
    singing: bool = False

    def record(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Record an event that no reader may cause, and every file except the allowed ones."""
        if not self.singing:
            return
        if event == "open":
            opened = arguments[0]
            name = os.fsdecode(opened) if isinstance(opened, str | bytes | os.PathLike) else str(opened)
            if name not in self.allowed:
                self.events.append(f"open {name}")
        elif event.startswith(FORBIDDEN):
            self.events.append(f"{event} {str(arguments)[:100]}")

    def check(self) -> None:
        """Fail if anything was executed, read, written or imported, or if it took too much time or memory."""
        assert not self.events, self.events
        assert self.seconds < CPU_SECONDS, f"{self.seconds:.1f} s"
        assert self.memory_mib < MEMORY_MIB, f"{self.memory_mib} MiB"


_cages: list[Canary] = []
_hooked: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for canary in _cages:
        canary.record(event, arguments)


@contextmanager
def canary(*allowed: Path) -> Iterator[Canary]:
    """Listen while content is read from the allowed files. A reader's imports must have happened before."""
    if not _hooked:
        sys.addaudithook(_hook)  # once per process: a hook stays for good
        _hooked.append(True)
    held = Canary(frozenset(map(str, allowed)))
    os.environ["CANARY"] = SECRET
    before = _start_peak()
    _cages.append(held)
    started = time.process_time()
    held.singing = True
    try:
        yield held
    finally:
        held.singing = False
        _cages.remove(held)
        held.seconds = time.process_time() - started
        held.memory_mib = _peak() - before
        del os.environ["CANARY"]


def _start_peak() -> int:
    """Reset the peak, and return the current memory in MiB."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak()


def _peak() -> int:
    return next(_values(Path("/proc/self/status").read_text(encoding="ascii").splitlines(), "VmHWM:")) >> 10


def _values(lines: Iterable[str], name: str) -> Iterator[int]:
    return (int(line.split()[1]) for line in lines if line.startswith(name))
