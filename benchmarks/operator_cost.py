"""Measures the operator's cost per Job, compared with other versions: processor time, memory, requests.

    PYTHONPATH=tests:hack .venv/bin/python -m benchmarks.operator_cost [--exports 100] [--rounds 3] [SOURCES ...]

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

from benchmarks.fake_api import FakeApi, serve
from benchmarks.processes import cpu_seconds, peak_mib, rss_mib
from integration.process import SOURCES, Operator
from modelexport.matrix.support import TARGETS
from unit.operator.objects import make_class, make_export, make_node

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
    with tempfile.TemporaryDirectory(prefix="modelexport-bench-") as folder:
        async with serve(api) as address:
            operator = Operator(address, Path(folder), PYTHONPATH=sources, MODELEXPORT_WATCH_CHECK_SECONDS="60")
            running = operator.running()
            await asyncio.to_thread(running.__enter__)
            try:
                assert operator.process is not None
                return {"sources": sources, **await _run(api, operator.process.pid, options)}
            finally:
                await asyncio.to_thread(running.__exit__, *sys.exc_info())


async def _run(api: FakeApi, pid: int, options: argparse.Namespace) -> dict[str, Any]:
    before, begin, rss = cpu_seconds(pid), time.monotonic(), rss_mib(pid)
    for index in range(options.exports):
        api.put("modelexports", make_export(*map(str, TARGETS), name=f"export-{index}", uid=f"uid-of-{index}"))
    end = begin + TIME_LIMIT_SECONDS
    while _finished(api) < options.exports and time.monotonic() < end:
        await asyncio.sleep(0.2)
    seconds = time.monotonic() - begin
    await asyncio.sleep(2)  # the last events
    jobs = options.exports * len(TARGETS)
    return {
        "finished": _finished(api),
        "seconds": round(seconds, 1),
        "cpu_ms_per_job": round(1000 * (cpu_seconds(pid) - before) / jobs, 2),
        "cpu_at_start": round(before, 2),
        "mib_at_start": round(rss, 1),
        "kib_per_job": round(1024 * (rss_mib(pid) - rss) / jobs, 1),
        "peak_mib": round(peak_mib(pid), 1),
        "writes_per_export": {
            asked: round(count / options.exports, 2)
            for asked, count in sorted(api.requests.items())
            if asked.split()[0] in ("POST", "PUT", "PATCH", "DELETE")
        },
    }


def _finished(api: FakeApi) -> int:
    return sum("completionTime" in body.get("status", {}) for body in api.objects("modelexports"))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", help="folders of the operator's packages; default: this tree's")
    parser.add_argument("--exports", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--run-seconds", type=float, default=3.0, help="how long each Pod runs")
    parser.add_argument("--spread", type=float, default=0.0, help="by how many seconds more, at random")
    parser.add_argument("--parallelism", type=int, default=0, help="limit of the class; 0: none")
    return parser.parse_args()


if __name__ == "__main__":
    main()
