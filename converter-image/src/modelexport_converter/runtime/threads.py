"""How many threads a conversion may use: what it was told, else its share of the machine."""

import os
from collections.abc import Mapping
from pathlib import Path

from modelexport import names

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def thread_count(environ: Mapping[str, str], cgroup_limit: Path = CGROUP_LIMIT) -> int:
    """Return the number that the environment tells, else the CPUs of the container's limit or of the machine."""
    if told := environ.get(names.THREADS_ENV):
        return max(1, int(told))
    usable = len(os.sched_getaffinity(0))
    if not cgroup_limit.is_file():
        return usable
    quota, period = cgroup_limit.read_text(encoding="ascii").split()
    return usable if quota == "max" else max(1, min(usable, int(quota) // int(period)))


def limit_threads(environ: Mapping[str, str]) -> None:
    """Hold every numeric library to the thread count; they read the variables when they are imported."""
    count = str(thread_count(environ))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, count)
