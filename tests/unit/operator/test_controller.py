import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from modelexport_operator.cluster import ClusterError, ConflictError, GoneError, RefusedError, UnavailableError
from modelexport_operator.controller import Controller
from modelexport_operator.metrics import Metrics
from modelexport_operator.resources import CLASSES, EXPORTS, JOBS, PODS
from unit.operator.objects import Body, complete, ended, make_class, make_export, make_job, make_pod, result_text

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class FakeCluster:
    """Remembers what is written, and fails where it is told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail: Callable[[str], ClusterError | None] = lambda _: None
        self.status: Body = {}

    async def _call(self, what: str) -> None:
        self.calls.append(what)
        await asyncio.sleep(0)
        if error := self.fail(what):
            raise error

    async def create_job(self, job: Body) -> None:
        await self._call(f"create {job['metadata']['labels']['modelexport.dev/precision']}")

    async def suspend_job(self, namespace: str, name: str, *, suspend: bool) -> None:
        await self._call(f"suspend {suspend}")

    async def write_status(self, export: Body, status: Body) -> Body:
        await self._call("status")
        self.status = status
        version = str(int(export["metadata"]["resourceVersion"]) + 1)
        return {**export, "status": status, "metadata": {**export["metadata"], "resourceVersion": version}}

    async def delete_export(self, export: Body) -> None:
        await self._call("delete")

    async def create_event(self, event: Body) -> None:
        await self._call(f"event {event['reason']}")


def at(body: Body, version: int) -> Body:
    return {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}


def make(export: Body) -> tuple[Controller, FakeCluster]:
    cluster = FakeCluster()
    controller = Controller(cluster, Metrics(), lambda: NOW)  # type: ignore[arg-type]
    controller.take_over(CLASSES, "ADDED", at(make_class(), 1))
    controller.take_over(EXPORTS, "ADDED", at(export, 2))
    return controller, cluster


async def work(controller: Controller) -> None:
    await asyncio.wait_for(controller.work_once(), 1)


async def test_jobs_come_before_the_status_and_events_after_it() -> None:
    controller, cluster = make(make_export("ONNX/FP16", "ONNX/FP32"))
    await work(controller)
    assert cluster.calls == ["create FP16", "create FP32", "status", "event Progressing"]


async def test_a_status_that_does_not_change_is_not_written() -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    await work(controller)
    job = make_job(make_export("ONNX/FP16"), "ONNX/FP16")
    controller.take_over(JOBS, "ADDED", at(job, 9))
    cluster.calls.clear()
    await work(controller)
    assert cluster.calls == []


@pytest.mark.parametrize("error", [UnavailableError("connection lost"), ConflictError("409")])
async def test_nothing_is_told_when_the_status_was_not_written(error: ClusterError) -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    cluster.fail = lambda what: error if what == "status" and cluster.calls.count("status") == 1 else None
    await work(controller)
    assert cluster.calls == ["create FP16", "status"]
    await work(controller)
    assert cluster.calls[2:] == ["create FP16", "status", "event Progressing"]


async def test_a_lost_event_is_not_worth_another_sync(caplog: pytest.LogCaptureFixture) -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    cluster.fail = lambda what: UnavailableError("busy") if what.startswith("event") else None
    await work(controller)
    assert len(controller.queue) == 0
    assert "event Progressing was not created: busy" in caplog.text


async def test_jobs_that_are_refused_are_told_in_the_same_status() -> None:
    controller, cluster = make(make_export("ONNX/FP16", "ONNX/FP32"))
    cluster.fail = lambda what: RefusedError("exceeded quota") if what == "create FP16" else None
    await work(controller)
    assert [target["reason"] for target in cluster.status["targets"]] == ["JobRefused", "Queued"]
    assert "exceeded quota" in cluster.status["targets"][0]["message"]


async def test_all_jobs_are_tried_before_a_lost_connection_ends_the_sync() -> None:
    controller, cluster = make(make_export("ONNX/FP16", "ONNX/FP32"))
    cluster.fail = lambda what: UnavailableError("busy") if what == "create FP16" else None
    await work(controller)
    assert cluster.calls == ["create FP16", "create FP32"]


async def test_an_export_that_goes_away_meanwhile_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    cluster.fail = lambda what: GoneError("404") if what == "status" else None
    with caplog.at_level(logging.WARNING):
        await work(controller)
    assert caplog.text == ""
    assert len(controller.queue) == 0


async def test_a_defect_that_one_object_brings_out_stays_with_it(caplog: pytest.LogCaptureFixture) -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    broken = make_export("ONNX/FP16", name="broken", uid="uid-2")
    controller.take_over(EXPORTS, "ADDED", at(broken, 3))
    job: Body = at(make_job(broken, "ONNX/FP16"), 4)
    controller.take_over(JOBS, "ADDED", {**job, "status": {"conditions": ["not a condition"]}})
    await work(controller)
    await work(controller)
    assert "team/broken: a defect" in caplog.text
    assert "Traceback" in caplog.text
    assert cluster.calls == ["create FP16", "status", "event Progressing"]


async def test_a_conversion_is_counted_once_with_its_outcome() -> None:
    export = make_export("ONNX/FP16")
    cluster, metrics = FakeCluster(), Metrics()
    controller = Controller(cluster, metrics, lambda: NOW)  # type: ignore[arg-type]
    job = make_job(export, "ONNX/FP16", status=complete())
    pod = make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text(), "Completed"))
    for resource, body in zip((CLASSES, EXPORTS, JOBS), (make_class(), export, job), strict=True):
        controller.take_over(resource, "ADDED", at(body, 2))
    controller.take_over(PODS, "ADDED", at(pod, 3))
    await work(controller)
    controller.queue.mark(("team", "shapes"))
    await work(controller)
    text = metrics.render().decode()
    line = 'modelexport_conversions_total{format="ONNX",outcome="Succeeded",precision="FP16",reason="Succeeded"} 1.0'
    assert line in text
    assert 'modelexport_conversion_seconds_sum{format="ONNX",precision="FP16"} 120.0' in text


async def test_a_deleted_export_is_forgotten_and_nothing_is_written() -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    controller.take_over(EXPORTS, "DELETED", at(make_export("ONNX/FP16"), 5))
    await work(controller)
    assert cluster.calls == []
