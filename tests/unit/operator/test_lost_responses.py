"""What is counted and told follows from what the API server has recorded, whether or not its answer came."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count

import pytest

from modelexport.matrix import TARGETS
from modelexport_operator.cluster import ConflictError, ExistsError, UnavailableError
from modelexport_operator.controller import Controller
from modelexport_operator.metrics import Metrics
from modelexport_operator.resources import CLASSES, EXPORTS, JOBS, PODS
from unit.operator.fakes import FakeCluster, at
from unit.operator.objects import Body, build_all, complete, ended, make_class, make_export, make_pod, result_text

pytestmark = pytest.mark.usefixtures("virtual_time")

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TARGET = "ONNX/FP16"
KEY = ("team", "shapes")
WATCH_SECONDS = 0.05


class LossyCluster(FakeCluster):
    """Carries writes out, tells of them by a watch, and loses the answers that ``loses`` picks."""

    def __init__(self) -> None:
        super().__init__()
        self.controller = Controller(self, Metrics(), lambda: NOW)  # type: ignore[arg-type]
        self.loses: Callable[[str], bool] = lambda _: False
        self.exports: dict[str, Body] = {}
        self.events: dict[str, str] = {}
        self._versions = count(10_000)

    def change(self, export: Body) -> Body:
        """Give an export its next version, of which the watch tells a little later."""
        body = self.exports[export["metadata"]["name"]] = at(export, next(self._versions))
        asyncio.get_running_loop().call_later(WATCH_SECONDS, self.controller.take_over, EXPORTS, "MODIFIED", body)
        return body

    def add(self, export: Body) -> None:
        """Create an export of which every target has ended well."""
        self.controller.take_over(EXPORTS, "ADDED", self.change(export))
        for job in build_all(export, make_class()).values():
            job["status"], job["metadata"]["uid"] = complete(), f"uid-of-{job['metadata']['name']}"
            pod = make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text(), "Completed"))
            self.controller.take_over(JOBS, "ADDED", at(job, 3))
            self.controller.take_over(PODS, "ADDED", at(pod, 3))

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
            raise ExistsError("409")
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
        """How many conversions the metrics have."""
        text = self.controller._metrics.render().decode()
        told = (line for line in text.splitlines() if line.startswith("modelexport_conversions_total{"))
        return sum(float(line.rpartition(" ")[2]) for line in told)


def make_cluster() -> LossyCluster:
    cluster = LossyCluster()
    cluster.controller.begin()
    cluster.controller.take_over(CLASSES, "ADDED", at(make_class(), 1))
    return cluster


@pytest.mark.parametrize("loses", ["no answer", "every answer"])
async def test_lost_answers_lose_no_count_and_no_event(loses: str) -> None:
    cluster = make_cluster()
    cluster.loses = lambda _: loses == "every answer"
    for index in range(50):
        cluster.add(make_export(*map(str, TARGETS), name=f"export-{index}", uid=f"uid-{index}"))
    await cluster.run(30)
    assert cluster.counted() == 450
    assert sorted(cluster.events.values()) == ["Succeeded"] * 100  # of its targets, and of each export as a whole
    text = cluster.controller._metrics.render().decode()
    seconds = (line for line in text.splitlines() if line.startswith("modelexport_conversion_seconds_count"))
    assert sum(float(line.rpartition(" ")[2]) for line in seconds) == 450


async def test_a_status_of_an_earlier_leader_is_not_counted() -> None:
    cluster = make_cluster()
    cluster.add(make_export(*map(str, TARGETS)))
    await cluster.run(5)
    follower = LossyCluster()
    follower.controller.take_over(EXPORTS, "ADDED", at(make_export(*map(str, TARGETS)), 5))
    follower.controller.take_over(EXPORTS, "MODIFIED", cluster.exports["shapes"])
    follower.controller.begin()
    assert (cluster.counted(), follower.counted()) == (9, 0)
    assert len(follower.controller.events) == 0


async def test_files_are_told_of_though_the_answer_was_lost() -> None:
    cluster = make_cluster()
    cluster.loses = lambda what: what == "finalizers"
    export = make_export(TARGET, deletionPolicy="Delete")
    export["metadata"] |= {"deletionTimestamp": "2026-01-02T03:04:00Z", "finalizers": ["modelexport.dev/files"]}
    target = {"format": "ONNX", "precision": "FP16", "state": "Succeeded", "reason": "Succeeded", "jobName": "gone"}
    export["status"] = {"targets": [target]}
    cluster.controller.take_over(CLASSES, "DELETED", at(make_class(), 2))
    cluster.controller.take_over(EXPORTS, "ADDED", at(export, 3))
    await cluster.run(0.1)
    assert cluster.events == {}
    cluster.controller.take_over(EXPORTS, "DELETED", at(export, 4))
    await cluster.run(0.1)
    assert list(cluster.events.values()) == ["FilesRemain"]


async def test_a_status_that_a_stranger_wrote_breaks_nothing() -> None:
    cluster = make_cluster()
    export = make_export(TARGET)
    cluster.controller.take_over(EXPORTS, "ADDED", at(export, 3))
    odd = {"conditions": [{"type": "Ready", "reason": "Bogus"}], "targets": [{"state": "Succeeded"}, 7]}
    cluster.controller.take_over(EXPORTS, "MODIFIED", at({**export, "status": odd}, 4))
    assert (cluster.counted(), len(cluster.controller.events)) == (0, 0)
