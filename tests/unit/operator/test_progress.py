import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelexport.matrix.measured import FullSize, Measured, Numbers
from modelexport_operator.jobs.conversion_job import STEPS
from modelexport_operator.jobs.pod_failures import is_running
from modelexport_operator.kube.pruning import prune_pod
from modelexport_operator.kube.resources import CLASSES, EXPORTS, JOBS, PODS
from modelexport_operator.metrics.metrics import Metrics
from modelexport_operator.reconcile.reconcile import Decision, sync
from modelexport_operator.reconcile.snapshot import Snapshot
from modelexport_operator.runtime.controller import Controller
from testplane.objects import (
    Body,
    complete,
    ended,
    failed,
    make_class,
    make_export,
    make_job,
    make_pod,
    result_text,
)
from unit.operator.fakes import FakeCluster, at

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ACTIVE = {"startTime": "2026-01-02T03:04:00Z", "active": 1}
TARGET, OTHER = "ONNX/FP16", "ONNX/FP32"
KEY = ("team", "shapes")


@pytest.fixture(autouse=True)
def twenty_seconds(nothing_is_measured: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both targets take 20 s: 2 to fetch, 16 to convert and 2 to publish."""
    stages = {"fetch": 2.0, "convert": 10.0, "verify": 6.0, "publish": 2.0, "total": 20.0}
    full = FullSize("fp16", (640, 640), 1.0, 100, 20.0, stages, 700.0, 1.0, 1, variant="n")
    run = Measured(cells={f"YOLOv8 {target}": Numbers(full_size=full) for target in (TARGET, OTHER)})
    monkeypatch.setattr("modelexport.matrix.support.measurements", lambda: run)


def before(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def running(step: str, since: str | None = None, index: int = 0) -> dict[str, Any]:
    """The status of a Pod in one of its steps; earlier steps have ended."""
    place = STEPS.index(step)
    states: list[Body] = [ended(0, "", "Completed")[0]["state"]] * place
    states += [{"running": {"startedAt": since or before(0)}}]
    states += [{"waiting": {"reason": "PodInitializing"}}] * (len(STEPS) - place - 1)
    *first, last = [{"name": name, "state": state} for name, state in zip(STEPS, states, strict=True)]
    phase = "Running" if step == "publish" else "Pending"
    return {"index": index, "phase": phase, "initContainerStatuses": first, "containerStatuses": [last]}


class World:
    """One export with its Jobs and Pods, and an operator that receives the events of the test."""

    def __init__(self, *targets: str, **spec: Any) -> None:
        self.export = make_export(*targets, **spec)
        self.jobs = {target: make_job(self.export, target, status=ACTIVE) for target in targets}
        self.pods: dict[tuple[str, int], Body] = {}

    def pod(self, target: str, index: int = 0, **status: Any) -> None:
        self.pods[target, index] = make_pod(self.jobs[target], index, "node-a", **status)

    def end(self, target: str) -> None:
        self.jobs[target]["status"] = complete("2026-01-02T03:04:00Z")
        self.pod(target, phase="Succeeded", containerStatuses=ended(0, result_text()))

    def sync(self, now: datetime = NOW) -> Decision:
        observed = Snapshot(self.export, list(self.jobs.values()), list(self.pods.values()), [make_class()])
        return sync(observed, now)

    def record(self, now: datetime = NOW) -> Body:
        """Sync, and write the status of the export."""
        status = self.sync(now).status
        assert status is not None
        self.export = {**self.export, "status": status}
        return status


def progress_of(status: Body, index: int = 0) -> Any:
    return status["targets"][index].get("progress")


@pytest.mark.parametrize(
    ("step", "seconds", "percentage", "remaining"),
    [
        ("fetch", 0, 0, 20),
        ("fetch", 1, 5, 19),
        ("convert", 0, 10, 18),
        ("convert", 4, 30, 14),
        ("convert", 3600, 90, 2),
        ("publish", 1, 95, 1),
        ("publish", 3600, 99, 0),
        ("convert", -600, 10, 18),
    ],
)
def test_running_target_shows_stage_percentage_and_remaining(
    step: str, seconds: int, percentage: int, remaining: int
) -> None:
    world = World(TARGET)
    world.pod(TARGET, **running(step, before(seconds)))
    status = world.record()
    assert progress_of(status) == {
        "stage": step,
        "startTime": before(seconds),
        "percentage": percentage,
        "estimatedRemainingSeconds": remaining,
        "lastUpdatedTime": "2026-01-02T03:04:05Z",
    }
    assert status["progress"] == f"{percentage}%"


def test_cached_pod_keeps_progress() -> None:
    world = World(TARGET)
    for step in STEPS:
        world.pod(TARGET, **running(step, before(1)))
        whole = world.sync()
        pod = at(world.pods[TARGET, 0], 7)
        assert is_running(prune_pod(pod))
        world.pods[TARGET, 0] = prune_pod(pod)
        assert world.sync() == whole


def test_unmeasured_cell_shows_stage_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelexport.matrix.support.measurements", Measured)
    world = World(TARGET)
    world.pod(TARGET, **running("convert", before(4)))
    status = world.record()
    assert progress_of(status) == {
        "stage": "convert",
        "startTime": before(4),
        "lastUpdatedTime": "2026-01-02T03:04:05Z",
    }
    assert status["progress"] == "0%"


def test_invalid_time_affects_only_itself() -> None:
    for told in (None, "noon", "9999-99-99T99:99:99Z", 5):
        world = World(TARGET)
        world.pod(TARGET, **running("fetch"))
        world.pods[TARGET, 0]["status"]["initContainerStatuses"][0]["state"] = {"running": {"startedAt": told}}
        world.pods[TARGET, 0] = prune_pod(at(world.pods[TARGET, 0], 7))
        progress = progress_of(world.record())
        assert (progress["stage"], progress["percentage"]) == ("fetch", 0)
        assert "startTime" not in progress


def test_clock_alone_changes_no_status() -> None:
    world = World(TARGET, OTHER)
    world.pod(TARGET, **running("convert", before(0)))
    world.pod(OTHER, **running("fetch", before(0)))
    world.record()
    for seconds in (1, 10, 600, 86400):
        assert world.sync(NOW + timedelta(seconds=seconds)).status is None


def test_stage_start_is_reported() -> None:
    world = World(TARGET)
    world.pod(TARGET, **running("fetch", before(0)))
    world.record()
    world.pod(TARGET, **running("convert", before(-3)))
    progress = progress_of(world.record(NOW + timedelta(seconds=5)))
    assert (progress["stage"], progress["percentage"]) == ("convert", 20)


def test_stage_end_costs_no_write() -> None:
    world = World(TARGET)
    world.pod(TARGET, **running("convert", before(5)))
    world.record()
    pod = at(world.pods[TARGET, 0], 7)
    over = {**ended(0, "", "Completed")[0]["state"]["terminated"], "startedAt": before(5), "finishedAt": before(0)}
    pod["status"]["initContainerStatuses"][1]["state"] = {"terminated": over}
    for told in (pod, prune_pod(pod)):
        world.pods[TARGET, 0] = told
        assert world.sync().status is None


@pytest.mark.parametrize(("created", "percentage"), [("2026-01-02T03:03:00Z", 5), ("2026-01-02T03:04:00Z", 6)])
def test_progress_counts_shared_evaluation_as_done(created: str, percentage: int) -> None:
    world = World(TARGET, OTHER, evaluation={"dataset": {"uri": "s3://datasets/val.zip"}, "samples": 10_000})
    world.end(OTHER)
    world.record()
    world.jobs[TARGET]["metadata"]["creationTimestamp"] = created
    world.pod(TARGET, **running("convert", before(0)))
    assert progress_of(world.record())["percentage"] == percentage


def test_write_for_one_target_refreshes_others() -> None:
    world = World(TARGET, OTHER)
    for target in (TARGET, OTHER):
        world.pod(target, **running("convert", before(0)))
    assert world.record()["progress"] == "10%"
    world.end(TARGET)
    status = world.record(NOW + timedelta(seconds=8))
    assert progress_of(status) is None
    assert progress_of(status, 1)["percentage"] == 50
    assert progress_of(status, 1)["lastUpdatedTime"] == "2026-01-02T03:04:13Z"
    assert status["progress"] == "75%"


def test_finished_export_has_no_progress() -> None:
    world = World(TARGET)
    world.pod(TARGET, **running("convert", before(0)))
    assert "progress" in world.record()
    world.end(TARGET)
    status = world.record()
    assert "progress" not in status
    assert progress_of(status) is None


def test_foreign_progress_is_removed() -> None:
    world = World(TARGET)
    world.end(TARGET)
    status = world.record()
    for stray in ({**status, "progress": "50%"}, {**status, "targets": [{**status["targets"][0], "progress": {}}]}):
        world.export = {**world.export, "status": stray}
        assert world.sync().status == status


def test_waiting_or_suspended_target_has_no_progress() -> None:
    world = World(TARGET)
    world.pod(TARGET, phase="Pending")
    assert "progress" not in world.record()
    world.pod(TARGET, **running("convert", before(0)))
    assert progress_of(world.record()) is not None
    world.jobs[TARGET]["spec"]["suspend"] = True
    world.export["spec"]["suspend"] = True
    status = world.record()
    assert "progress" not in status
    assert progress_of(status) is None


def test_retry_restarts_progress() -> None:
    world = World(TARGET)
    world.pod(TARGET, **running("convert", before(15)))
    assert progress_of(world.record())["percentage"] == 85
    world.jobs[TARGET]["status"] = {**ACTIVE, "failed": 1}
    world.pod(TARGET, phase="Failed", containerStatuses=ended(75))
    status = world.record()
    assert status["targets"][0]["reason"] == "Retrying"
    assert progress_of(status) is None
    world.pod(TARGET, **running("fetch", before(1), index=1))
    assert progress_of(world.record())["percentage"] == 5


def test_failed_target_counts_as_done() -> None:
    world = World(TARGET, OTHER)
    world.jobs[TARGET]["status"] = failed("PodFailurePolicy")
    text = result_text("CheckpointUnreadable", "no")
    world.pod(TARGET, phase="Failed", containerStatuses=ended(65, text))
    world.pod(OTHER, **running("convert", before(8)))
    assert world.record()["progress"] == "75%"


def lead(world: World, clock: Callable[[], datetime]) -> tuple[Controller, FakeCluster]:
    """An operator whose cache has the export and its Job, but no Pod."""
    cluster = FakeCluster()
    controller = Controller(cluster, Metrics(), clock)  # type: ignore[arg-type]
    controller.start_leading()
    controller.handle_event(CLASSES, "ADDED", at(make_class(), 1))
    controller.handle_event(EXPORTS, "ADDED", at(world.export, 2))
    controller.handle_event(JOBS, "ADDED", at(world.jobs[TARGET], 3))
    return controller, cluster


@pytest.mark.usefixtures("virtual_time")
async def test_running_conversion_costs_no_write() -> None:
    world, times = World(TARGET), [NOW]
    world.pod(TARGET, **running("convert", before(0)))
    controller, cluster = lead(world, lambda: times[-1])
    controller.handle_event(PODS, "ADDED", at(world.pods[TARGET, 0], 4))
    await controller.work_once()
    assert cluster.calls == ["status"]
    assert progress_of(cluster.status)["percentage"] == 10
    for minutes in range(1, 60):
        times.append(NOW + timedelta(minutes=minutes))
        controller.queue.add(KEY)
        await controller.work_once()
    assert cluster.calls == ["status"]


@pytest.mark.usefixtures("virtual_time")
async def test_one_second_stage_is_reported_with_next() -> None:
    world = World(TARGET)
    controller, cluster = lead(world, lambda: NOW)
    worker = asyncio.create_task(controller.work_forever())
    await asyncio.sleep(5)
    assert cluster.calls == ["status"]
    for version, step in enumerate(("fetch", "convert"), start=10):
        world.pod(TARGET, **running(step, before(0)))
        controller.handle_event(PODS, "MODIFIED", at(world.pods[TARGET, 0], version))
        await asyncio.sleep(0.9)
    assert cluster.calls == ["status"]
    await asyncio.sleep(5)
    assert cluster.calls == ["status", "status"]
    assert progress_of(cluster.status)["stage"] == "convert"
    worker.cancel()
