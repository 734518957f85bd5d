"""Chooses the number of threads of a conversion: the configured number, or its share of the machine."""

import os
from collections.abc import Mapping
from pathlib import Path

from modelexport import names

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def thread_count(environ: Mapping[str, str], cgroup_limit: Path = CGROUP_LIMIT) -> int:
    """Return the number from the environment, or else the CPU limit of the container or the CPUs of the machine."""
    if configured := environ.get(names.THREADS_ENV):
        return max(1, int(configured))
    usable = len(os.sched_getaffinity(0))
    if not cgroup_limit.is_file():
        return usable
    quota, period = cgroup_limit.read_text(encoding="ascii").split()
    return usable if quota == "max" else max(1, min(usable, int(quota) // int(period)))


def limit_threads(environ: Mapping[str, str]) -> None:
    """Set the thread count of every numeric library; they read these variables when they are imported."""
    count = str(thread_count(environ))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, count)
