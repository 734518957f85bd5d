"""Measures an operator that finds thousands of finished exports: its start, its idle cost, its memory after a churn.

Exports, Jobs and Pods are written to a real API server as their conversions would leave them, in a fraction of the
time that it takes to run them (``benchmarks.operator.scale`` does). No controller runs that would run them, too.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.measuring.machine import describe_load
from benchmarks.measuring.processes import cpu_seconds, peak_mib, rss_mib
from benchmarks.operator.client import Client, do_all
from benchmarks.operator.contenders import JOBS_EACH, JOBS_PATH, ModelExports
from benchmarks.operator.fake_api import pod_of
from benchmarks.operator.neighbours import create_neighbours
from benchmarks.operator.scale_plane import GO_MEMORY, NAMESPACE
from modelexport_operator.jobs.conversion_job import output_of
from modelexport_operator.metrics.definitions import QUEUE_DEPTH
from modelexport_operator.reconcile.reconcile import sync
from modelexport_operator.reconcile.snapshot import Snapshot
from modelexport_operator.runtime.watch_check import LONGEST_PAUSE
from testplane.api import CLASSES, PODS, Api
from testplane.control_plane import ControlPlane, start_control_plane, wait_until
from testplane.installation import install_definitions
from testplane.objects import build_all, complete, ended, make_class, publish_into, result_text
from testplane.process import Operator

EXPORTS = (1000, 5000)
CHURNED = 530 * (1 + 2 * JOBS_EACH)
"""Objects deleted at the end: exports with their Jobs and Pods."""
CHECKED_SECONDS = LONGEST_PAUSE + 20.0
"""Within this time every watch is checked once, however many objects it has."""
IDLE_SECONDS_PER_EXPORT = 0.36
"""With 5,000 exports half an hour (``LONGEST_TRUST``): by then every kind was listed."""
LONG_AGO = "2026-01-02T03:04:05Z"
MODEL_EXPORTS = ModelExports()
PODS_PATH = PODS.format(NAMESPACE)

Body = dict[str, Any]
Results = dict[str, Any]


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
    load: str


@dataclass(frozen=True)
class Churn:
    """Memory after so many objects were deleted, of the old process and of a fresh one, in MiB."""

    deleted: int
    rss_mib: float
    fresh_rss_mib: float


def measure_finished(keep: Callable[[Results], None], sizes: Sequence[int] = EXPORTS) -> None:
    """Measure everything.

    Args:
        keep: takes the results so far after each measurement, so that an interruption loses only the last one.
        sizes: the numbers of exports at which to measure, growing.
    """
    os.environ.update(GO_MEMORY)
    with (
        tempfile.TemporaryDirectory(prefix="modelexport-bench-") as folder,
        start_control_plane(Path(folder), has_controllers=False) as plane,
    ):
        plane.kubectl("create", "namespace", NAMESPACE)
        install_definitions(plane)
        Api(plane, NAMESPACE).create(CLASSES, make_class())
        asyncio.run(_measure(plane, keep, sizes))


async def _measure(plane: ControlPlane, keep: Callable[[Results], None], sizes: Sequence[int]) -> None:
    results: Results = {"jobs_each": JOBS_EACH, "restarts": [], "churn": []}

    def add(kind: str, measured: Restart | Churn) -> None:
        print(measured, flush=True)
        results[kind].append(asdict(measured))
        keep(results)

    operator = Operator(plane.address, plane.folder, plane.certificate)
    async with Client(plane) as client:
        results["foreign"] = await create_neighbours(plane, client)
        created: list[str] = []
        for before, exports in pairwise((0, *sizes)):
            await do_all(partial(_create_finished, client, created), range(before, exports))
            with operator.started():
                add("restarts", await _watch_start(operator, exports))
        with operator.started():
            await _until_synced(operator)
            add("churn", await _churn(client, operator, created))


async def _create_finished(client: Client, created: list[str], index: int) -> None:
    """Create an export that has ended with its Jobs and Pods, and add their paths to ``created``."""
    export = await client.create(MODEL_EXPORTS.path, MODEL_EXPORTS.body(index))
    jobs, pods = [], []
    for planned in build_all(export, make_class()).values():
        job = await client.create(JOBS_PATH, planned)
        jobs.append(await client.write_status(JOBS_PATH, {**job, "status": complete(LONG_AGO)}))
        pod = await client.create(PODS_PATH, pod_of(job))
        pods.append(await client.write_status(PODS_PATH, {**pod, "status": final_pod_status(pod, job)}))
    await client.write_status(MODEL_EXPORTS.path, {**export, "status": final_status(export, jobs, pods)})
    kinds = ((MODEL_EXPORTS.path, [export]), (JOBS_PATH, jobs), (PODS_PATH, pods))
    created += [f"{path}/{one['metadata']['name']}" for path, found in kinds for one in found]


def final_pod_status(pod: Body, job: Any) -> Body:
    """Return the status of a Pod of a Job that has published its file."""
    statuses = ended(0, publish_into(output_of(job), result_text()), "Completed")
    conditions = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": LONG_AGO}]
    return {**pod["status"], "phase": "Succeeded", "conditions": conditions, "containerStatuses": statuses}


def final_status(export: Any, jobs: Sequence[Any], pods: Sequence[Any]) -> Any:
    """Return the status that the operator writes for an export whose Jobs have ended."""
    return sync(Snapshot(export, jobs, pods, [make_class()]), datetime.fromisoformat(LONG_AGO)).status


async def _watch_start(operator: Operator, exports: int) -> Restart:
    """Measure an operator that has just been started: until it is ready, and then while nothing happens."""
    load, start, pid = describe_load(), time.monotonic(), operator.pid
    await _until_ready(operator)
    seconds, ready_cpu = time.monotonic() - start, cpu_seconds(pid)
    await _until_synced(operator)
    idle_from = cpu_seconds(pid)
    idle_seconds = max(CHECKED_SECONDS, IDLE_SECONDS_PER_EXPORT * exports)
    await asyncio.sleep(idle_seconds)
    idle_percent = 100 * (cpu_seconds(pid) - idle_from) / idle_seconds
    return Restart(exports, seconds, ready_cpu, rss_mib(pid), peak_mib(pid), idle_percent, load)


async def _churn(client: Client, operator: Operator, created: Sequence[str]) -> Churn:
    """Delete exports with their Jobs and Pods, and compare the operator with a fresh one."""
    deleted = created[:CHURNED]
    await client.delete_all(deleted)
    rss = await _measure_settled(operator)
    operator.kill()
    operator.start()
    return Churn(len(deleted), rss, await _measure_settled(operator))


async def _measure_settled(operator: Operator) -> float:
    """Return the memory after everything was synced and every watch was checked, in MiB."""
    await _until_synced(operator)
    await asyncio.sleep(CHECKED_SECONDS)
    return rss_mib(operator.pid)


async def _until_ready(operator: Operator) -> None:
    await asyncio.to_thread(wait_until, "the operator to be ready", lambda: operator.ask("/readyz")[0] == 200, 600)


async def _until_synced(operator: Operator) -> None:
    """Wait until the operator is ready and no export waits to be synced."""
    await _until_ready(operator)
    while f"\n{QUEUE_DEPTH.name} 0.0\n" not in (await asyncio.to_thread(operator.ask, "/metrics"))[1]:
        await asyncio.sleep(5)
