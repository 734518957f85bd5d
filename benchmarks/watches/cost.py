"""Measures the cost of watching Jobs and Pods by our own list and watch, by kopf's handlers and by kopf's indices.

Each contender is a separate process in front of a fake API server. Rounds are interleaved, so ratios hold on a busy
machine. A new process first lists Jobs and Pods that have ended. Then new Jobs run from creation to end, each with one
Pod. Finally the watches are cut while objects change.
"""

import asyncio
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring.machine import describe_load
from benchmarks.measuring.processes import cpu_seconds, peak_mib, rss_mib
from benchmarks.operator.fake_api import Body, FakeApi, pod_of, serve
from benchmarks.pages.watches import WAYS
from modelexport import names
from modelexport.matrix.support import TARGETS, requires_images
from modelexport_operator.jobs.conversion_job import output_of
from testplane.control_plane import write_kubeconfig
from testplane.objects import build_all, complete, ended, make_class, make_export, publish_into, result_text

JOBS = (1000, 9000)
WITHOUT_IMAGES = tuple(str(target) for target in TARGETS if not requires_images(target))
KINDS = ("jobs", "pods")
LIVING = 500
"""Jobs that run at once. All take the same step; the next step starts when the process has handled the last one."""
TIME_LIMIT_SECONDS = 60.0
"""Processor time after which a start is given up."""
FAULT_SECONDS = 60.0
"""Seconds after which a change that the process has not noticed counts as lost."""
CHANGED = 50
"""Number of objects per kind that change while no watch is open; as many are deleted."""
POLL_SECONDS = 0.05
HALF = b'{"type":"MODIFIED","object":{"metadata":'
ERROR = b'{"type":"ERROR","object":{"kind":"Status","code":500,"reason":"InternalError","message":"decoding"}}\n'


@dataclass(frozen=True)
class Fault:
    """How a watch ends: its last bytes, and whether the server forgets the versions after them (410 Gone)."""

    last: bytes = b""
    forgets: bool = False


FAULTS = {
    "connection ends": Fault(),
    "half a line": Fault(HALF),
    "error event": Fault(ERROR),
    "410 Gone": Fault(forgets=True),
}


def measure_watches(numbers: Sequence[int], rounds: int) -> dict[str, Any]:
    """Measure all ways, round after round, with each number of Jobs; faults with the first one only."""
    rows = [(way, jobs, jobs == numbers[0]) for jobs in numbers for _ in range(rounds) for way in WAYS]
    return {
        "living": LIVING,
        "time_limit_seconds": TIME_LIMIT_SECONDS,
        "fault_seconds": FAULT_SECONDS,
        "changed": CHANGED,
        "measurements": [asyncio.run(_measure(*row)) for row in rows],
    }


async def _measure(way: str, jobs: int, with_faults: bool) -> dict[str, Any]:
    api, made = FakeApi(run_seconds=0), _make_jobs()
    with tempfile.TemporaryDirectory(prefix="modelexport-bench-") as folder:
        async with serve(api) as address:
            kubeconfig = Path(folder) / "kubeconfig"
            write_kubeconfig(kubeconfig, address)
            load = describe_load()
            for job in itertools.islice(made, jobs):
                for plural, body in list(_states(job))[-2:]:
                    api.put(plural, body)
            async with _watcher(way, kubeconfig) as watcher:
                start = await _start(api, watcher)
                is_ready = start["seconds"] is not None
                life = await _live(api, watcher, made) if is_ready else None
                suffered = FAULTS if with_faults and is_ready else {}
                faults = {name: await _suffer(api, watcher, fault) for name, fault in suffered.items()}
    measurement = {"way": way, "jobs": jobs, "load": load, "start": start, "life": life, "faults": faults}
    print(json.dumps(measurement), flush=True)
    return measurement


class WatcherProcess:
    """One contender as a process; ``benchmarks.watches.watchers`` is its program."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self._process = process

    async def read(self) -> Any:
        """Return the next line of its output, parsed."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "the watcher has ended"
        return json.loads(line)

    async def ask(self, question: str) -> Any:
        """Send a question and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{question}\n".encode())
        return await self.read()

    async def wait(self, count: int) -> None:
        """Wait until the process has handled ``count`` events.

        Raises:
            TimeoutError: the process has used ``TIME_LIMIT_SECONDS`` of processor time.
        """
        end = cpu_seconds(self.pid) + TIME_LIMIT_SECONDS
        while await self.ask("count") < count:
            if cpu_seconds(self.pid) > end:
                raise TimeoutError
            await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def _watcher(way: str, kubeconfig: Path) -> AsyncIterator[WatcherProcess]:
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    pipe = asyncio.subprocess.PIPE
    with (kubeconfig.parent / "errors").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.watches.watchers", way,
            stdin=pipe, stdout=pipe, stderr=errors, env=environment, limit=1 << 26,
        )  # fmt: skip
        watcher = WatcherProcess(process)
        try:
            await watcher.read()
            yield watcher
        finally:
            process.kill()
            await process.wait()


async def _start(api: FakeApi, watcher: WatcherProcess) -> dict[str, float | None]:
    """Measure the initial list; ``seconds`` is ``None`` if it was given up."""
    before, begin, is_ready = cpu_seconds(watcher.pid), time.monotonic(), True
    await watcher.ask("go")
    try:
        await watcher.wait(sum(len(api.objects(plural)) for plural in KINDS))
    except TimeoutError:
        is_ready = False
    return {
        "seconds": time.monotonic() - begin if is_ready else None,
        "cpu_seconds": cpu_seconds(watcher.pid) - before,
        "rss_mib": rss_mib(watcher.pid),
        "peak_mib": peak_mib(watcher.pid),
    }


async def _live(api: FakeApi, watcher: WatcherProcess, made: Iterator[Body]) -> dict[str, float]:
    """Run new Jobs from creation to end, one step after the other, and measure that."""
    listed = sum(len(api.objects(plural)) for plural in KINDS)
    await _wait_for_watches(api)
    before, events = cpu_seconds(watcher.pid), 0
    for step in zip(*map(_states, itertools.islice(made, LIVING)), strict=True):
        for plural, body in step:
            api.put(plural, body)
        events += len(step)
        await watcher.wait(listed + events)
    return {
        "events": events,
        "cpu_seconds": cpu_seconds(watcher.pid) - before,
        "rss_mib": rss_mib(watcher.pid),
        "peak_mib": peak_mib(watcher.pid),
    }


async def _wait_for_watches(api: FakeApi) -> None:
    while not all(map(api.is_watched, KINDS)):
        await asyncio.sleep(POLL_SECONDS)


async def _suffer(api: FakeApi, watcher: WatcherProcess, fault: Fault) -> dict[str, float | int]:
    """Cut the watches, change and delete objects while none is open, and count the changes that go unnoticed."""
    await _wait_for_watches(api)
    before = _differences(api, await watcher.ask("state"))
    for plural in KINDS:
        api.cut(plural, fault.last)
        for body in api.objects(plural)[:CHANGED]:
            api.delete(plural, body)
        for body in api.objects(plural)[:CHANGED]:
            api.put(plural, body)
        if fault.forgets:
            api.compact(plural)
    begin = time.monotonic()
    missed = _differences(api, await watcher.ask("state")) - before
    while missed and time.monotonic() - begin < FAULT_SECONDS:
        await asyncio.sleep(10 * POLL_SECONDS)
        missed = _differences(api, await watcher.ask("state")) - before
    changes = sum(what == "there" for _, _, what in missed)
    return {"seconds": time.monotonic() - begin, "changes": changes, "deletions": len(missed) - changes}


def _differences(api: FakeApi, known: Mapping[str, Mapping[str, str]]) -> set[tuple[str, str, str]]:
    """Return kind and name of each object that the process knows wrongly, and whether the object exists."""
    differences = set()
    for plural in KINDS:
        real = {body["metadata"]["name"]: body["metadata"]["resourceVersion"] for body in api.objects(plural)}
        wrong = {name for name, _ in real.items() ^ known[plural].items()}
        differences |= {(plural, name, "there" if name in real else "deleted") for name in wrong}
    return differences


def _make_jobs() -> Iterator[Body]:
    """Yield the Jobs of one export after another, as the API server stores them."""
    for number in itertools.count():
        export = make_export(*WITHOUT_IMAGES, name=f"export-{number}", uid=f"uid-of-{number}")
        for job in build_all(export, make_class()).values():
            uid = f"uid-of-{job['metadata']['name']}"
            yield {**job, "metadata": {**job["metadata"], "uid": uid}, "status": {}}


def _states(job: Body) -> Iterator[tuple[str, Body]]:
    """Yield the states of a Job and its Pod in order: three of the Job, five of the Pod."""
    pod = pod_of(job)
    pod["metadata"]["uid"] = f"uid-of-{pod['metadata']['name']}"
    conditions = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-02T03:00:00Z"}]
    scheduled = {**pod["status"], "conditions": conditions}
    running = {**scheduled, "phase": "Running"}
    yield "jobs", job
    yield "pods", pod
    pod = {**pod, "spec": {**pod["spec"], "nodeName": "node-1"}}
    yield "pods", {**pod, "status": scheduled}
    yield "jobs", {**job, "status": {"startTime": "2026-01-02T03:00:00Z", "active": 1}}
    yield "pods", {**pod, "status": {**scheduled, "initContainerStatuses": _runs(names.CONVERT)}}
    yield "pods", {**pod, "status": {**running, "containerStatuses": _runs(names.PUBLISH)}}
    over = ended(0, publish_into(output_of(job), result_text()), "Completed")
    yield "pods", {**pod, "status": {**scheduled, "phase": "Succeeded", "containerStatuses": over}}
    yield "jobs", {**job, "status": complete()}


def _runs(container: str) -> list[Body]:
    return [{"name": container, "state": {"running": {"startedAt": "2026-01-02T03:00:01Z"}}}]
