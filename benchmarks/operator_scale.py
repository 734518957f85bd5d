"""The operator at scale, without a converter: 110 exports of nine targets on pretended nodes, beside its peers.

Every measurement has a control plane of its own, so that none inherits the garbage of another; rounds are interleaved,
so that a change in the load of the machine meets all ways.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.client import Client
from bench.jobset import install_jobset, jobset_version
from bench.machine import describe_load
from bench.scale_plane import start_scale_plane
from bench.ways import JOBS_EACH, JOBS_PATH, WAYS, Way
from integration.control_plane import ControlPlane

PATIENCE_SECONDS = 600


@dataclass
class Times:
    """When the client heard of what, in seconds of one clock, by name.

    ``reported`` has, per parent, the time at which its status first called so many Jobs done, or the Job by name.
    """

    created: dict[str, float] = field(default_factory=dict)
    completed: dict[str, float] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    reported: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    finished: dict[str, float] = field(default_factory=dict)

    def hear_job(self, job: Mapping[str, Any], at: float) -> None:
        """Note the state of a Job."""
        name = job["metadata"]["name"]
        self.created.setdefault(name, at)
        self.owners[name] = next((owner["name"] for owner in job["metadata"].get("ownerReferences", ())), "")
        conditions = job.get("status", {}).get("conditions", ())
        if any(c["type"] == "Complete" and c["status"] == "True" for c in conditions):
            self.completed.setdefault(name, at)

    def hear_parent(self, way: Way, parent: Mapping[str, Any], at: float) -> None:
        """Note the state of an object that reports on Jobs."""
        name = parent["metadata"]["name"]
        for count, job in enumerate(way.finished_jobs(dict(parent))):
            self.reported[name].setdefault(job or str(count), at)
        if way.is_finished(dict(parent)):
            self.finished.setdefault(name, at)

    def lags(self) -> list[float]:
        """Seconds from the completion of each Job to the status that tells of it, in no order.

        Where the status only counts, its first mention of ``n`` Jobs answers the ``n``-th completion.
        """
        completed: dict[str, dict[str, float]] = defaultdict(dict)
        for job, at in self.completed.items():
            completed[self.owners[job]][job] = at
        return [lag for name, told in self.reported.items() for lag in _lags_of(completed[name], told)]


def _lags_of(completed: Mapping[str, float], told: Mapping[str, float]) -> list[float]:
    if not told.keys() <= completed.keys():
        pairs = zip(sorted(completed.values()), sorted(told.values()), strict=True)
        return [max(0.0, said - at) for at, said in pairs]
    return [max(0.0, told[job] - at) for job, at in completed.items()]


@dataclass(frozen=True)
class Measurement:
    """One way in one round: Jobs per second, seconds, MiB. ``None`` where nothing reports or nobody makes the Jobs.

    ``cpu_seconds`` is the processor time of whoever makes the Jobs, ``all_cpu_seconds`` that of the control plane too.
    """

    way: str
    created_per_second: float
    completed_per_second: float
    reported_per_second: float | None
    lag_p50: float | None
    lag_p99: float | None
    peak_mib: float | None
    cpu_seconds: float | None
    all_cpu_seconds: float
    load: str


def measure_operator(rounds: int, objects: int) -> dict[str, Any]:
    """Measure all ways, round after round."""
    install_jobset()
    measurements = [_measure(way, objects) for _ in range(rounds) for way in WAYS]
    return {
        "objects": objects,
        "jobs": objects * JOBS_EACH,
        "jobset": jobset_version(),
        "measurements": [asdict(measurement) for measurement in measurements],
    }


def _measure(way: Way, objects: int) -> Measurement:
    with (
        tempfile.TemporaryDirectory(prefix="modelexport-bench-") as folder,
        start_scale_plane(Path(folder)) as plane,
        way.running(plane) as pid,
    ):
        times, start, before = Times(), time.monotonic(), _all_cpu_seconds()
        asyncio.run(asyncio.wait_for(_run(way, plane, times, objects), PATIENCE_SECONDS))
        measurement = _sum_up(way, times, start, pid, _all_cpu_seconds() - before)
    print(measurement, flush=True)
    return measurement


async def _run(way: Way, plane: ControlPlane, times: Times, objects: int) -> None:
    """Create everything and return when every Job is done and every parent says so."""
    async with Client(plane) as client, asyncio.TaskGroup() as group:
        watches = [group.create_task(client.watch(JOBS_PATH, times.hear_job))]
        if way.parents:
            hear = partial(times.hear_parent, way)
            watches.append(group.create_task(client.watch(way.parents, hear)))
        await client.create_all(way.path, way.bodies(objects))
        while len(times.completed) < objects * JOBS_EACH or (way.parents and len(times.finished) < objects):
            await asyncio.sleep(0.05)
        for task in watches:
            task.cancel()


def _sum_up(way: Way, times: Times, start: float, pid: int | None, all_cpu_seconds: float) -> Measurement:
    lags = sorted(times.lags())
    count = len(times.completed)
    assert len(lags) == (count if way.parents else 0), f"{len(lags)} lags of {count} Jobs"
    percentiles = statistics.quantiles(lags, n=100) if lags else []
    return Measurement(
        way=way.name,
        created_per_second=count / (max(times.created.values()) - start),
        completed_per_second=count / (max(times.completed.values()) - start),
        reported_per_second=count / (max(times.finished.values()) - start) if times.finished else None,
        lag_p50=percentiles[49] if lags else None,
        lag_p99=percentiles[98] if lags else None,
        peak_mib=_peak_mib(pid) if pid else None,
        cpu_seconds=_cpu_seconds(pid) if pid else None,
        all_cpu_seconds=all_cpu_seconds,
        load=describe_load(),
    )


def _peak_mib(pid: int) -> float:
    """The largest resident set of a process so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def _cpu_seconds(pid: int) -> float:
    """The processor time of a process so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _all_cpu_seconds() -> float:
    """The processor time so far of every server that this process has started; its own is not counted."""
    own = os.getpid()
    children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
    return sum(_cpu_seconds(int(child)) for child in children)
