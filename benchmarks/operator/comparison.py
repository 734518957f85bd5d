"""Measures the operator at scale, without a converter: 110 exports of nine targets on simulated nodes, beside
contenders.

Every measurement has its own control plane, so that none inherits the garbage of another. Rounds are interleaved, so
that a change in the load of the machine affects all contenders.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measuring.machine import describe_load
from benchmarks.measuring.processes import cpu_seconds, cpu_seconds_of_children, peak_mib
from benchmarks.operator.client import Client
from benchmarks.operator.contenders import CONTENDERS, JOBS_EACH, JOBS_PATH, Contender
from benchmarks.operator.jobset import install_jobset, jobset_version
from benchmarks.operator.scale_plane import start_scale_plane
from testplane.control_plane import ControlPlane

TIME_LIMIT_SECONDS = 600


@dataclass
class EventTimes:
    """Arrival times of events at the client, in seconds of one clock, by name.

    ``reported`` has, per parent, the time at which its status first reported each Job as done, by name or by count.
    """

    created: dict[str, float] = field(default_factory=dict)
    completed: dict[str, float] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    reported: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    finished: dict[str, float] = field(default_factory=dict)

    def observe_job(self, job: Mapping[str, Any], at: float) -> None:
        """Record the state of a Job."""
        name = job["metadata"]["name"]
        self.created.setdefault(name, at)
        self.owners[name] = next((owner["name"] for owner in job["metadata"].get("ownerReferences", ())), "")
        conditions = job.get("status", {}).get("conditions", ())
        if any(c["type"] == "Complete" and c["status"] == "True" for c in conditions):
            self.completed.setdefault(name, at)

    def observe_parent(self, contender: Contender, parent: Mapping[str, Any], at: float) -> None:
        """Record the state of an object that reports on Jobs."""
        name = parent["metadata"]["name"]
        for count, job in enumerate(contender.finished_jobs(dict(parent))):
            self.reported[name].setdefault(job or str(count), at)
        if contender.is_finished(dict(parent)):
            self.finished.setdefault(name, at)

    def lags(self, without: Container[str] = ()) -> list[float]:
        """Return the seconds from the completion of each Job to the status that reports it, in no order.

        If the status only counts, its first mention of ``n`` Jobs answers the ``n``-th completion.

        Args:
            without: Jobs to leave out; of a parent, either all or none.
        """
        completed: dict[str, dict[str, float]] = defaultdict(dict)
        for job, at in self.completed.items():
            if job not in without:
                completed[self.owners[job]][job] = at
        reported = {name: times for name, times in self.reported.items() if name in completed}
        return [lag for name, times in reported.items() for lag in _lags_of(completed[name], times)]


def _lags_of(completed: Mapping[str, float], reported: Mapping[str, float]) -> list[float]:
    if not reported.keys() <= completed.keys():
        pairs = zip(sorted(completed.values()), sorted(reported.values()), strict=True)
        return [max(0.0, answer - at) for at, answer in pairs]
    return [max(0.0, reported[job] - at) for job, at in completed.items()]


@dataclass(frozen=True)
class Measurement:
    """One contender in one round: Jobs per second, seconds, MiB.

    ``None`` if nothing reports, or the client creates Jobs.

    ``cpu_seconds`` is the processor time of the process that creates the Jobs, ``all_cpu_seconds`` includes the control
    plane, and ``cpu_by_program`` divides it; ``wall_seconds`` times the cores is the time available.
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
    cpu_by_program: dict[str, float]
    wall_seconds: float
    load: str


def measure_operator(rounds: int, objects: int) -> dict[str, Any]:
    """Measure all contenders, round after round."""
    install_jobset()
    measurements = [_measure(contender, objects) for _ in range(rounds) for contender in CONTENDERS]
    return {
        "objects": objects,
        "jobs": objects * JOBS_EACH,
        "cores": len(os.sched_getaffinity(0)),
        "jobset": jobset_version(),
        "measurements": [asdict(measurement) for measurement in measurements],
    }


def _measure(contender: Contender, objects: int) -> Measurement:
    with (
        tempfile.TemporaryDirectory(prefix="modelexport-bench-") as folder,
        start_scale_plane(Path(folder)) as plane,
        contender.running(plane) as pid,
    ):
        times, start, before = EventTimes(), time.monotonic(), cpu_seconds_of_children()
        asyncio.run(asyncio.wait_for(_run(contender, plane, times, objects), TIME_LIMIT_SECONDS))
        spent = {name: seconds - before[name] for name, seconds in cpu_seconds_of_children().items()}
        measurement = _sum_up(contender, times, start, pid, spent)
    print(measurement, flush=True)
    return measurement


async def _run(contender: Contender, plane: ControlPlane, times: EventTimes, objects: int) -> None:
    """Create everything and return when every Job is done and every parent reports it."""
    async with Client(plane) as client, asyncio.TaskGroup() as group:
        watches = [group.create_task(client.watch(JOBS_PATH, times.observe_job))]
        if contender.parents:
            observe = partial(times.observe_parent, contender)
            watches.append(group.create_task(client.watch(contender.parents, observe)))
        await client.create_all(contender.path, contender.bodies(objects))
        while len(times.completed) < objects * JOBS_EACH or (contender.parents and len(times.finished) < objects):
            await asyncio.sleep(0.05)
        for task in watches:
            task.cancel()


def _sum_up(
    contender: Contender, times: EventTimes, start: float, pid: int | None, spent: dict[str, float]
) -> Measurement:
    lags = sorted(times.lags())
    count = len(times.completed)
    assert len(lags) == (count if contender.parents else 0), f"{len(lags)} lags of {count} Jobs"
    percentiles = statistics.quantiles(lags, n=100) if lags else []
    return Measurement(
        way=contender.name,
        created_per_second=count / (max(times.created.values()) - start),
        completed_per_second=count / (max(times.completed.values()) - start),
        reported_per_second=count / (max(times.finished.values()) - start) if times.finished else None,
        lag_p50=percentiles[49] if lags else None,
        lag_p99=percentiles[98] if lags else None,
        peak_mib=peak_mib(pid) if pid else None,
        cpu_seconds=cpu_seconds(pid) if pid else None,
        all_cpu_seconds=sum(spent.values()),
        cpu_by_program=spent,
        wall_seconds=time.monotonic() - start,
        load=describe_load(),
    )
