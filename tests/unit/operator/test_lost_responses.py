"""Metrics and events follow the writes that the API server recorded, whether or not its answer arrived."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from modelexport.matrix.support import ARCHITECTURES, TARGETS
from modelexport_operator.kube.client import AlreadyExistsError, ConflictError, UnavailableError
from modelexport_operator.kube.resources import CLASSES, EXPORTS, JOBS, PODS
from modelexport_operator.metrics.metrics import Metrics
from modelexport_operator.runtime.controller import Controller
from testplane.objects import Body, build_all, complete, ended, make_class, make_export, make_pod, result_text
from unit.operator.fakes import FakeCluster, at

pytestmark = pytest.mark.usefixtures("virtual_time")

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TARGET = "ONNX/FP16"
ALL = tuple(str(target) for target in TARGETS if not ARCHITECTURES["YOLOv8"].is_extended(target))
KEY = ("team", "shapes")
WATCH_SECONDS = 0.05


class LossyCluster(FakeCluster):
    """Carries writes out, sends their watch events, and loses the answers that ``loses`` picks."""

    def __init__(self) -> None:
        super().__init__()
        self.controller = Controller(self, Metrics(), lambda: NOW)  # type: ignore[arg-type]
        self.loses: Callable[[str], bool] = lambda _: False
        self.exports: dict[str, Body] = {}
        self.events: dict[str, str] = {}
        self._versions = count(10_000)

    def change(self, export: Body) -> Body:
        """Write the next version of an export; its watch event follows a little later."""
        body = self.exports[export["metadata"]["name"]] = at(export, next(self._versions))
        asyncio.get_running_loop().call_later(WATCH_SECONDS, self.controller.handle_event, EXPORTS, "MODIFIED", body)
        return body

    def add(self, export: Body) -> None:
        """Create an export whose targets have all succeeded."""
        self.controller.handle_event(EXPORTS, "ADDED", self.change(export))
        for job in build_all(export, make_class()).values():
            job["status"], job["metadata"]["uid"] = complete(), f"uid-of-{job['metadata']['name']}"
            pod = make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text(), "Completed"))
            self.controller.handle_event(JOBS, "ADDED", at(job, 3))
            self.controller.handle_event(PODS, "ADDED", at(pod, 3))

    async def write_status(self, export: Body, status: Body) -> Body:
        name, version = export["metadata"]["name"], export["metadata"]["resourceVersion"]
        if self.exports[name]["metadata"]["resourceVersion"] != version:
            raise ConflictError("409")
        body = self.change({**self.exports[name], "status": status})
        await self._call(f"status {name}")
        if self.loses("status"):
            raise UnavailableError("the answer was lost")
        return body

    async def write_finalizers(self, export: Body, finalizers: tuple[str, ...]) -> None:
        await super().write_finalizers(export, finalizers)
        if self.loses("finalizers"):
            raise UnavailableError("the answer was lost")

    async def create_event(self, event: Body) -> None:
        if event["metadata"]["name"] in self.events:
            raise AlreadyExistsError("409")
        self.events[event["metadata"]["name"]] = event["reason"]

    async def run(self, seconds: float) -> None:
        """Let the operator work for a while."""
        tasks = [asyncio.create_task(self.controller.work_forever()) for _ in range(8)]
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self.controller.events.drain(10)

    def counted(self) -> float:
        """The number of conversions in the metrics."""
        text = self.controller._metrics.render().decode()
        told = (line for line in text.splitlines() if line.startswith("modelexport_conversions_total{"))
        return sum(float(line.rpartition(" ")[2]) for line in told)


def make_cluster() -> LossyCluster:
    cluster = LossyCluster()
    cluster.controller.start_leading()
    cluster.controller.handle_event(CLASSES, "ADDED", at(make_class(), 1))
    return cluster


@pytest.mark.parametrize("loses", ["no answer", "every answer"])
async def test_lost_responses_lose_no_count_and_no_event(loses: str) -> None:
    cluster = make_cluster()
    cluster.loses = lambda _: loses == "every answer"
    for index in range(50):
        cluster.add(make_export(*ALL, name=f"export-{index}", uid=f"uid-{index}"))
    await cluster.run(30)
    assert cluster.counted() == 50 * len(ALL)
    assert sorted(cluster.events.values()) == ["Succeeded"] * 100  # of its targets, and of each export as a whole
    text = cluster.controller._metrics.render().decode()
    seconds = (line for line in text.splitlines() if line.startswith("modelexport_conversion_seconds_count"))
    assert sum(float(line.rpartition(" ")[2]) for line in seconds) == 50 * len(ALL)


@pytest.mark.parametrize(("minutes", "told"), [(4, ["Succeeded"]), (6, [])])
async def test_next_leader_resends_last_event(minutes: int, told: list[str]) -> None:
    first = make_cluster()
    first.add(make_export(TARGET))
    await first.run(30)
    cluster, (export,) = LossyCluster(), first.exports.values()
    ended_at = (NOW - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    cluster.exports["shapes"] = {**export, "status": {**export["status"], "completionTime": ended_at}}
    cluster.controller.handle_event(EXPORTS, "ADDED", cluster.exports["shapes"])
    cluster.controller.start_leading()
    await cluster.controller.events.drain(10)
    assert list(cluster.events.values()) == told
    assert cluster.counted() == 0
    if told:
        assert cluster.events.items() <= first.events.items()  # it has the same name, so it is there once


async def test_status_of_previous_leader_is_not_counted() -> None:
    cluster = make_cluster()
    cluster.add(make_export(*ALL))
    await cluster.run(5)
    follower = LossyCluster()
    follower.controller.handle_event(EXPORTS, "ADDED", at(make_export(*ALL), 5))
    follower.controller.handle_event(EXPORTS, "MODIFIED", cluster.exports["shapes"])
    follower.controller.start_leading()
    assert (cluster.counted(), follower.counted()) == (len(ALL), 0)
    assert len(follower.controller.events) == 1  # the last one, which is there already


async def test_file_deletion_is_reported_after_lost_response() -> None:
    cluster = make_cluster()
    cluster.loses = lambda what: what == "finalizers"
    export = make_export(TARGET, deletionPolicy="Delete")
    export["metadata"] |= {"deletionTimestamp": "2026-01-02T03:04:00Z", "finalizers": ["modelexport.dev/files"]}
    target = {"format": "ONNX", "precision": "FP16", "state": "Succeeded", "reason": "Succeeded", "jobName": "gone"}
    export["status"] = {"targets": [target]}
    cluster.controller.handle_event(CLASSES, "DELETED", at(make_class(), 2))
    cluster.controller.handle_event(EXPORTS, "ADDED", at(export, 3))
    await cluster.run(0.1)
    assert cluster.events == {}
    cluster.controller.handle_event(EXPORTS, "DELETED", at(export, 4))
    await cluster.run(0.1)
    assert list(cluster.events.values()) == ["FilesRemain"]


async def test_foreign_status_breaks_nothing() -> None:
    cluster = make_cluster()
    export = make_export(TARGET)
    cluster.controller.handle_event(EXPORTS, "ADDED", at(export, 3))
    odd = {"conditions": [{"type": "Ready", "reason": "Bogus"}], "targets": [{"state": "Succeeded"}, 7]}
    cluster.controller.handle_event(EXPORTS, "MODIFIED", at({**export, "status": odd}, 4))
    assert (cluster.counted(), len(cluster.controller.events)) == (0, 0)
