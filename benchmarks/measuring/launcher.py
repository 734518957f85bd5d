"""Runs a command and writes to a file, as JSON, its wait status, processor seconds and largest resident set in KiB.

    python -I -S launcher.py FILE COMMAND...

This is a separate process because the kernel counts the largest resident set of a process from that of its parent: a
benchmark that has imported torch would show up in every child process.
"""

import json
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    """Run the command, and forward SIGTERM to it."""
    file, *command = sys.argv[1:]
    child = os.spawnvp(os.P_NOWAIT, command[0], command)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    _, status, usage = os.wait4(child, 0)
    Path(file).write_text(json.dumps([status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]), encoding="utf-8")


if __name__ == "__main__":
    main()
