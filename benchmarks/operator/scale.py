"""Measures the operator with thousands of exports on a real control plane: time, processor and memory as they grow.

One operator handles a growing number of exports of nine targets, at most ``AT_ONCE`` of them in progress, beside Jobs
and Pods of others. After each step its memory, and its processor time per Job of the step, are recorded.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.measuring.machine import describe_load
from benchmarks.measuring.processes import cpu_seconds, peak_mib, rss_mib
from benchmarks.operator.client import Client
from benchmarks.operator.comparison import EventTimes
from benchmarks.operator.contenders import JOBS_EACH, JOBS_PATH, ModelExports
from benchmarks.operator.neighbours import create_neighbours
from benchmarks.operator.scale_plane import GO_MEMORY, NAMESPACE, start_scale_plane
from testplane.api import CLASSES, Api
from testplane.control_plane import ControlPlane
from testplane.installation import install_definitions
from testplane.objects import make_class
from testplane.process import Operator

STEPS = (100, 300, 1000, 3000, 5000)
AT_ONCE = 1000
TIME_LIMIT_SECONDS = 7200
MODEL_EXPORTS = ModelExports()
Results = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """The cost of the exports up to a number: Jobs per second, seconds from a Job's end to its status, MiB.

    ``cpu_ms_per_job`` is the operator's processor time per Job of this step alone; ``rss_mib`` is measured after it.
    """

    exports: int
    jobs_per_second: float
    lag_p50: float
    lag_p99: float
    cpu_ms_per_job: float
    rss_mib: float
    peak_mib: float
    load: str


def measure_scale(keep: Callable[[Results], None], steps: Sequence[int] = STEPS) -> None:
    """Measure everything.

    Args:
        keep: takes the results so far after each measurement, so that an interruption loses only the last one.
        steps: the numbers of exports at which to measure.
    """
    os.environ.update(GO_MEMORY)
    with tempfile.TemporaryDirectory(prefix="modelexport-bench-") as folder, start_scale_plane(Path(folder)) as plane:
        install_definitions(plane)
        Api(plane, NAMESPACE).create(CLASSES, make_class())
        operator = Operator(plane.address, plane.folder, plane.certificate)
        asyncio.run(_measure(plane, operator, keep, steps))


async def _measure(
    plane: ControlPlane, operator: Operator, keep: Callable[[Results], None], steps: Sequence[int]
) -> None:
    results: Results = {"at_once": AT_ONCE, "jobs_each": JOBS_EACH, "go": GO_MEMORY, "steps": []}
    async with Client(plane) as client, asyncio.timeout(TIME_LIMIT_SECONDS):
        results["foreign"] = await create_neighbours(plane, client)
        with operator.running():
            async with _watching(client) as times:
                bodies = MODEL_EXPORTS.bodies(max(steps))
                for exports in steps:
                    step = await _take_step(client, operator, times, bodies, exports)
                    print(step, flush=True)
                    results["steps"].append(asdict(step))
                    keep(results)


@asynccontextmanager
async def _watching(client: Client) -> AsyncIterator[EventTimes]:
    """Record the arrival times of a client's watch events."""
    times = EventTimes()
    async with asyncio.TaskGroup() as group:
        watches = [
            group.create_task(client.watch(JOBS_PATH, times.observe_job)),
            group.create_task(client.watch(MODEL_EXPORTS.parents, partial(times.observe_parent, MODEL_EXPORTS))),
        ]
        yield times
        for task in watches:
            task.cancel()


async def _take_step(
    client: Client, operator: Operator, times: EventTimes, bodies: Iterator[dict[str, Any]], exports: int
) -> Step:
    """Create exports up to a number, ``AT_ONCE`` at a time, and return when all have ended and are reported."""
    pid, load, start = operator.pid, describe_load(), time.monotonic()
    before, before_cpu, created = set(times.completed), cpu_seconds(pid), len(times.finished)
    while len(times.finished) < exports:
        more = min(exports - created, AT_ONCE - (created - len(times.finished)))
        if more > 0:
            await client.create_all(MODEL_EXPORTS.path, islice(bodies, more))
            created += more
        await asyncio.sleep(0.1)
    seconds, jobs = time.monotonic() - start, len(times.completed) - len(before)
    await asyncio.sleep(10)  # for the last events and status updates
    percentiles = statistics.quantiles(times.lags(without=before), n=100)
    return Step(
        exports=exports,
        jobs_per_second=jobs / seconds,
        lag_p50=percentiles[49],
        lag_p99=percentiles[98],
        cpu_ms_per_job=1000 * (cpu_seconds(pid) - before_cpu) / jobs,
        rss_mib=rss_mib(pid),
        peak_mib=peak_mib(pid),
        load=load,
    )
