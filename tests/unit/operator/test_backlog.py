"""A thousand exports of nine targets: ends are reported before all work that may wait."""

import asyncio
from collections.abc import Callable

import pytest

from modelexport import names
from modelexport.matrix.support import TARGETS, requires_images
from modelexport_operator.kube.clock import now
from modelexport_operator.kube.resources import CLASSES, EXPORTS, JOBS, PODS
from modelexport_operator.metrics.metrics import Metrics
from modelexport_operator.runtime.controller import COOLDOWN_SECONDS, END_SECONDS, LONGEST_STEP_SECONDS, Controller
from testplane.objects import Body, complete, ended, make_class, make_export, make_job, make_pod, result_text
from unit.operator.fakes import FakeCluster, at

pytestmark = pytest.mark.usefixtures("virtual_time")

EXPORTS_AT_ONCE = 1000
WORKERS = 8
CALL_SECONDS = 0.05
NINE = tuple(target for target in TARGETS if not requires_images(target))[:9]
TARGET = str(NINE[0])


class SlowCluster(FakeCluster):
    """Every write takes a while; ``during`` is called in the first write of a status."""

    def __init__(self) -> None:
        super().__init__()
        self.during: Callable[[Body], None] | None = None
        self.told: list[str] = []

    async def _call(self, what: str) -> None:
        await asyncio.sleep(CALL_SECONDS)

    async def write_status(self, export: Body, status: Body) -> Body:
        during, self.during = self.during, None
        if during:
            during(export)
        written = await super().write_status(export, status)
        if status["ready"] != f"0/{len(NINE)}":
            self.told.append(export["metadata"]["name"])
        return written


def end_a_job(controller: Controller, export: Body) -> None:
    """Deliver the event that the Job of one target has succeeded."""
    job = make_job(export, TARGET, status=complete(), name=f"{export['metadata']['name']}-job")
    pod = make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text(), "Completed"))
    controller.handle_event(JOBS, "MODIFIED", at(job, 10**6))
    controller.handle_event(PODS, "MODIFIED", at(pod, 10**6))


def export_of(index: int) -> Body:
    name = f"export-{index}"
    return at(make_export(*map(str, NINE), name=name, uid=f"uid-of-{name}"), 2 + index)


ACTIVE = make_job(make_export(TARGET), TARGET, status={"active": 1})


def job_of(export: Body) -> Body:
    """The running Job of an export; building a thousand as the operator does would take most of the test's time."""
    metadata, name, uid = ACTIVE["metadata"], export["metadata"]["name"], export["metadata"]["uid"]
    labels = {**metadata["labels"], names.EXPORT_LABEL: name, names.EXPORT_UID_LABEL: uid}
    owner = [{"uid": uid, "controller": True}]
    return {**ACTIVE, "metadata": {**metadata, "name": f"{name}-job", "labels": labels, "ownerReferences": owner}}


async def make_backlog(controller: Controller, of: str) -> None:
    controller.handle_event(CLASSES, "ADDED", at(make_class(), 1))
    for index in range(EXPORTS_AT_ONCE):
        export = export_of(index)
        if of == "new exports":
            controller.handle_event(EXPORTS, "ADDED", export)
            continue
        controller.cache[EXPORTS].put(export)
        controller.handle_event(JOBS, "ADDED", at(job_of(export), 2000 + index))
    await asyncio.sleep(LONGEST_STEP_SECONDS + 1)


@pytest.mark.parametrize("backlog", ["new exports", "steps"])
async def test_completion_during_sync_precedes_backlog(backlog: str) -> None:
    cluster = SlowCluster()
    controller = Controller(cluster, Metrics(), now)  # type: ignore[arg-type]
    await make_backlog(controller, backlog)
    ended_in: list[str] = []

    def end(export: Body) -> None:
        ended_in.append(export["metadata"]["name"])
        end_a_job(controller, export)

    cluster.during = end
    workers = [asyncio.create_task(controller.work_forever()) for _ in range(WORKERS)]
    while not ended_in:
        await asyncio.sleep(CALL_SECONDS)
    await asyncio.sleep(END_SECONDS + COOLDOWN_SECONDS + 10 * CALL_SECONDS)
    assert cluster.told == ended_in
    assert len(controller.queue) > EXPORTS_AT_ONCE / 2
    for worker in workers:
        worker.cancel()
    await asyncio.wait(workers)
