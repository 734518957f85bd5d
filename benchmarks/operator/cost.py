"""Measures the operator's cost per Job, compared with other versions: processor time, memory, requests.

    PYTHONPATH=hack .venv/bin/python -m benchmarks.operator.cost [--exports 100] [--rounds 3] [SOURCES ...]
    PYTHONPATH=hack .venv/bin/python -m benchmarks.operator.cost --exports 0 --finished 1000 [SOURCES ...]

The second form measures the start of a process that finds so many finished exports of nine targets.
Each of the SOURCES is the PYTHONPATH of an operator of some commit (``sdk/src:operator/src``). The runs are interleaved
against a fake API server, so the ratios hold on a busy machine. Each run prints a line of JSON.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring.processes import cpu_seconds, peak_mib, rss_mib
from benchmarks.operator.contenders import JOBS_EACH
from benchmarks.operator.fake_api import FakeApi, pod_of, serve
from benchmarks.operator.finished import LONG_AGO, final_pod_status, final_status
from benchmarks.targets import NINE
from testplane.objects import (
    build_all,
    complete,
    make_class,
    make_export,
    make_node,
)
from testplane.process import SOURCES, Operator

TIME_LIMIT_SECONDS = 900


def main() -> None:
    """Measure, round after round."""
    options = _parse_arguments()
    for _ in range(options.rounds):
        for sources in options.sources or [SOURCES]:
            print(json.dumps(asyncio.run(measure(sources, options))), flush=True)


async def measure(sources: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one operator until the status of every export says that it is published."""
    api = FakeApi(options.run_seconds, options.spread)
    jobs: dict[str, Any] = {"parallelism": options.parallelism} if options.parallelism else {}
    api.put("exportclasses", make_class(jobs=jobs))
    api.put("nodes", make_node())
    for index in range(options.finished):
        put_finished(api, index)
    with tempfile.TemporaryDirectory(prefix="modelexport-bench-") as folder:
        async with serve(api) as address:
            operator = Operator(address, Path(folder), PYTHONPATH=sources, MODELEXPORT_WATCH_CHECK_SECONDS="60")
            running, begin = operator.running(), time.monotonic()
            await asyncio.to_thread(running.__enter__)
            ready = round(time.monotonic() - begin, 1)
            try:
                return {"sources": sources, "ready_seconds": ready, **await _run(api, operator.pid, options)}
            finally:
                await asyncio.to_thread(running.__exit__, *sys.exc_info())


async def _run(api: FakeApi, pid: int, options: argparse.Namespace) -> dict[str, Any]:
    before, begin, rss = cpu_seconds(pid), time.monotonic(), rss_mib(pid)
    for index in range(options.exports):
        api.put("modelexports", make_export(*map(str, NINE), name=f"export-{index}", uid=f"uid-of-{index}"))
    end = begin + TIME_LIMIT_SECONDS
    while _finished(api) < options.exports and time.monotonic() < end:
        await asyncio.sleep(0.2)
    seconds = time.monotonic() - begin
    await asyncio.sleep(2)  # the last events
    jobs = options.exports * JOBS_EACH
    found = {
        "finished": _finished(api),
        "seconds": round(seconds, 1),
        "cpu_at_start": round(before, 2),
        "mib_at_start": round(rss, 1),
        "mib": round(rss_mib(pid), 1),
        "peak_mib": round(peak_mib(pid), 1),
    }
    if not jobs:
        return found
    return found | {
        "cpu_ms_per_job": round(1000 * (cpu_seconds(pid) - before) / jobs, 2),
        "kib_per_job": round(1024 * (rss_mib(pid) - rss) / jobs, 1),
        "writes_per_export": {
            asked: round(count / options.exports, 2)
            for asked, count in sorted(api.requests.items())
            if asked.split()[0] in ("POST", "PUT", "PATCH", "DELETE")
        },
    }


def put_finished(api: FakeApi, index: int) -> None:
    """Store an export of nine targets that has ended, with its Jobs and Pods."""
    export = api.put(
        "modelexports", make_export(*map(str, NINE), name=f"finished-{index}", uid=f"uid-of-finished-{index}")
    )
    jobs = [api.put("jobs", {**job, "status": complete(LONG_AGO)}) for job in build_all(export, make_class()).values()]
    pods = [api.put("pods", _end_pod_of(job)) for job in jobs]
    api.put("modelexports", {**export, "status": final_status(export, jobs, pods)})


def _end_pod_of(job: dict[str, Any]) -> dict[str, Any]:
    pod = pod_of(job)
    return {**pod, "spec": {**pod["spec"], "nodeName": "node-1"}, "status": final_pod_status(pod, job)}


def _finished(api: FakeApi) -> int:
    """Return how many of the exports that were created after the start have finished."""
    new = (body for body in api.objects("modelexports") if body["metadata"]["name"].startswith("export-"))
    return sum("completionTime" in body.get("status", {}) for body in new)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", help="folders of the operator's packages; default: this tree's")
    parser.add_argument("--exports", type=int, default=100)
    parser.add_argument("--finished", type=int, default=0, help="exports that have ended before the start")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--run-seconds", type=float, default=3.0, help="how long each Pod runs")
    parser.add_argument("--spread", type=float, default=0.0, help="by how many seconds more, at random")
    parser.add_argument("--parallelism", type=int, default=0, help="limit of the class; 0: none")
    return parser.parse_args()


if __name__ == "__main__":
    main()
