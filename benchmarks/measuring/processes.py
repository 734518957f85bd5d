"""Reads processor time and memory of running processes from the kernel."""

import os
from collections import defaultdict
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def cpu_seconds_of_children() -> defaultdict[str, float]:
    """Return the processor time so far of every child process of this one, by program, without its own."""
    own, found = os.getpid(), defaultdict[str, float](float)
    for child in Path(f"/proc/{own}/task/{own}/children").read_text().split():
        program, *arguments = Path(f"/proc/{child}/cmdline").read_text().rstrip("\0").split("\0")
        name = arguments[1] if arguments[:1] == ["-m"] else Path(program).name
        found[name] += cpu_seconds(int(child))
    return found


def rss_mib(pid: int) -> float:
    """Return the current resident set of a process."""
    return _status_mib(pid, "VmRSS")


def peak_mib(pid: int) -> float:
    """Return the largest resident set of a process so far."""
    return _status_mib(pid, "VmHWM")


def _status_mib(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))
