"""Measures the operator with thousands of exports on a real control plane: time, processor and memory as they grow.

One operator handles a growing number of exports of nine targets, at most ``AT_ONCE`` of them in progress, beside Jobs
and Pods of others. After each step its memory, and its processor time per Job of the step, are recorded. It is also
left idle, killed and restarted. At the end most exports are deleted, and its memory is compared with a fresh process.
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
from benchmarks.operator.scale_plane import NAMESPACE, start_scale_plane
from modelexport_operator.metrics.definitions import QUEUE_DEPTH
from modelexport_operator.runtime.watch_check import LONGEST_PAUSE
from testplane.api import CLASSES, JOBS, PODS, Api
from testplane.control_plane import ControlPlane, wait_until
from testplane.installation import install_definitions
from testplane.objects import make_class
from testplane.process import Operator

STEPS = (100, 300, 1000, 3000, 5000)
AT_ONCE = 1000
RESTARTS_AT = (1000, 3000, 5000)
FOREIGN = 5000
"""Jobs, and as many Pods, that are not the operator's."""
CHURNED = 530
"""Exports deleted at the end: with their Jobs and Pods 10,000 objects."""
CHECKED_SECONDS = LONGEST_PAUSE + 20.0
"""Within this time every watch is checked once, however many objects it has."""
TIME_LIMIT_SECONDS = 7200
GO_MEMORY = {"GOGC": "200", "GOMEMLIMIT": "12GiB"}
"""For the control plane: by default kube-apiserver spends two fifths of its processor time collecting garbage. With
8 GiB it begins to crawl at 25,000 Jobs and as many Pods."""
NEIGHBOURS = "neighbours"
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


@dataclass(frozen=True)
class Restart:
    """A new process with ``exports`` existing exports, all finished: seconds, CPU seconds, MiB.

    ``idle_percent`` is its share of one core while nothing happens.
    """

    exports: int
    ready_seconds: float
    ready_cpu_seconds: float
    rss_mib: float
    peak_mib: float
    idle_percent: float


@dataclass(frozen=True)
class Churn:
    """Memory after objects were deleted, of the old process and of a fresh one, in MiB."""

    deleted: int
    rss_mib: float
    fresh_rss_mib: float


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
        plane.kubectl("create", "namespace", NEIGHBOURS)
        operator = Operator(plane.address, plane.folder, plane.certificate)
        asyncio.run(_measure(plane, operator, keep, steps))


async def _measure(
    plane: ControlPlane, operator: Operator, keep: Callable[[Results], None], steps: Sequence[int]
) -> None:
    results: Results = {"at_once": AT_ONCE, "foreign": 2 * FOREIGN, "jobs_each": JOBS_EACH, "go": GO_MEMORY}
    results |= {"steps": [], "restarts": [], "churn": []}

    def add(kind: str, measured: Step | Restart | Churn) -> None:
        print(measured, flush=True)
        results[kind].append(asdict(measured))
        keep(results)

    async with Client(plane) as client, asyncio.timeout(TIME_LIMIT_SECONDS):
        await client.create_all(JOBS.format(NEIGHBOURS), map(_foreign_job, range(FOREIGN)))
        await client.create_all(PODS.format(NEIGHBOURS), map(_foreign_pod, range(FOREIGN)))
        with operator.started():
            await _until_ready(operator)
            async with _watching(client) as times:
                bodies = MODEL_EXPORTS.bodies(max(steps))
                for exports in steps:
                    add("steps", await _take_step(client, operator, times, bodies, exports))
                    if exports in RESTARTS_AT:
                        add("restarts", await _restart(operator, exports))
            add("churn", await _churn(client, operator, max(steps)))


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
    pid, load, start = _pid(operator), describe_load(), time.monotonic()
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


async def _restart(operator: Operator, exports: int) -> Restart:
    """Kill the operator, restart it, and leave it idle."""
    operator.kill()
    start = time.monotonic()
    operator.start()
    await _until_ready(operator)
    pid, seconds = _pid(operator), time.monotonic() - start
    ready_cpu = cpu_seconds(pid)
    await _until_synced(operator)
    idle_from = cpu_seconds(pid)
    await asyncio.sleep(CHECKED_SECONDS)
    idle_percent = 100 * (cpu_seconds(pid) - idle_from) / CHECKED_SECONDS
    return Restart(exports, seconds, ready_cpu, rss_mib(pid), peak_mib(pid), idle_percent)


async def _churn(client: Client, operator: Operator, exports: int) -> Churn:
    """Delete exports with their dependents, and compare the operator with a fresh one."""
    names = [f"{MODEL_EXPORTS.path}/export-{index}" for index in range(min(CHURNED, exports))]
    await client.delete_all(names)
    while await client.count(JOBS_PATH) > (exports - len(names)) * JOBS_EACH:
        await asyncio.sleep(5)
    rss = await _measure_settled(operator)
    operator.kill()
    operator.start()
    await _until_ready(operator)
    return Churn(len(names), rss, await _measure_settled(operator))


async def _measure_settled(operator: Operator) -> float:
    """Return the memory after everything was synced and every watch was checked, in MiB."""
    await _until_synced(operator)
    await asyncio.sleep(CHECKED_SECONDS)
    return rss_mib(_pid(operator))


async def _until_ready(operator: Operator) -> None:
    await asyncio.to_thread(wait_until, "the operator to be ready", lambda: operator.ask("/readyz")[0] == 200, 600)


async def _until_synced(operator: Operator) -> None:
    """Wait until no export waits to be synced."""
    while f"\n{QUEUE_DEPTH.name} 0.0\n" not in (await asyncio.to_thread(operator.ask, "/metrics"))[1]:
        await asyncio.sleep(5)


def _pid(operator: Operator) -> int:
    assert operator.process is not None
    return operator.process.pid


def _foreign_job(index: int) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "batch"}}, "spec": _foreign_spec()}
    spec = {"suspend": True, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": f"batch-{index}"}, "spec": spec}


def _foreign_pod(index: int) -> dict[str, Any]:
    metadata = {"name": f"web-{index}", "labels": {"app": "web"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": _foreign_spec()}


def _foreign_spec() -> dict[str, Any]:
    """Return a Pod spec for no existing scheduler: the object exists, but costs the control plane nothing more."""
    container = {"name": "main", "image": "registry.example/main:1"}
    return {"schedulerName": "nobody", "restartPolicy": "Never", "containers": [container]}
