"""Runs a command and writes to a file, as JSON, its wait status, processor seconds and largest resident set in KiB.

    python -I -S launcher.py FILE COMMAND...

A process of its own, since the kernel counts the largest resident set of a process from what the one that started it
held: a benchmark that has imported torch would be seen in every child.
"""

import json
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    """Run the command; a request to end is passed on."""
    file, *command = sys.argv[1:]
    child = os.spawnvp(os.P_NOWAIT, command[0], command)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    _, status, usage = os.wait4(child, 0)
    Path(file).write_text(json.dumps([status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]), encoding="utf-8")


if __name__ == "__main__":
    main()
