import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelexport.api.reasons import Reason
from modelexport_operator.kube.client import NotFoundError, RejectedError, UnavailableError
from modelexport_operator.kube.resources import WORKLOADS
from modelexport_operator.runtime.kueue_admissions import (
    FIRST_SECONDS,
    LONGEST_SECONDS,
    QUERIES_PER_SECOND,
    REFUSED_SECONDS,
    KueueAdmissions,
)
from testplane.objects import Body, make_condition, make_export, make_job, make_workload
from unit.operator.fakes import FakeCluster

pytestmark = pytest.mark.usefixtures("virtual_time")

KEY = ("team", "shapes")
MADE = datetime(2026, 1, 2, 3, 0, 0, tzinfo=UTC)
MISSING = make_condition("QuotaReserved", "False", "Inadmissible", "LocalQueue exports doesn't exist")


class Clock:
    """The API server's clock, which follows the loop's."""

    def __init__(self, age: float) -> None:
        self._since = MADE + timedelta(seconds=age) - timedelta(seconds=asyncio.get_running_loop().time())

    def __call__(self) -> datetime:
        return self._since + timedelta(seconds=asyncio.get_running_loop().time())


def make(age: float = FIRST_SECONDS) -> tuple[KueueAdmissions, FakeCluster, Body]:
    """A ``KueueAdmissions``, and a Job of that age in seconds that waits in a queue that does not exist."""
    cluster, job = FakeCluster(), waiting_job()
    cluster.there[WORKLOADS] = [make_workload(job, MISSING)]
    return KueueAdmissions(cluster, Clock(age)), cluster, job  # type: ignore[arg-type]


def waiting_job(target: str = "ONNX/FP16", **changes: Any) -> Body:
    return make_job(make_export(target), target, None, **{"suspend": True, "queue": "exports", **changes})


async def sync_for(admissions: KueueAdmissions, jobs: list[Body], seconds: float) -> list[float]:
    """Sync an export as often as it asks for it; return the requested pauses in seconds."""
    end, pauses = asyncio.get_running_loop().time() + seconds, []
    while asyncio.get_running_loop().time() < end:
        _, pause = await admissions.explain(KEY, jobs)
        assert pause is not None
        pauses.append(pause)
        await asyncio.sleep(pause)
    return pauses


async def test_waiting_job_gets_workload_message() -> None:
    admissions, cluster, job = make()
    found, pause = await admissions.explain(KEY, [job])
    finding = found[job["metadata"]["name"]]
    assert (finding.reason, pause) == (Reason.INADMISSIBLE, FIRST_SECONDS)
    assert "LocalQueue exports doesn't exist" in finding.message
    assert cluster.asked == [f"workloads team {job['metadata']['uid']}"]


async def test_new_job_is_not_looked_up() -> None:
    admissions, cluster, job = make(age=1)
    assert await admissions.explain(KEY, [job]) == ({}, FIRST_SECONDS)
    assert cluster.asked == []


async def test_nothing_is_looked_up_when_no_job_waits_for_kueue() -> None:
    admissions, cluster, _ = make()
    for changes in ({"suspend": False}, {"queue": None}):
        assert await admissions.explain(KEY, [waiting_job(**changes)]) == ({}, None)
    assert cluster.asked == []


async def test_lookups_slow_down_with_waiting_time() -> None:
    admissions, cluster, job = make()
    pauses = await sync_for(admissions, [job], 600)
    assert pauses[:7] == [5, 10, 20, 40, 80, LONGEST_SECONDS, LONGEST_SECONDS]
    assert len(cluster.asked) == len(pauses)


async def test_unrelated_sync_looks_up_nothing_and_keeps_message() -> None:
    admissions, cluster, job = make()
    first, _ = await admissions.explain(KEY, [job])
    await asyncio.sleep(2)
    again, pause = await admissions.explain(KEY, [job])
    assert (again, pause) == (first, FIRST_SECONDS - 2)
    assert len(cluster.asked) == 1


async def test_requeued_job_is_looked_up_at_once() -> None:
    admissions, cluster, job = make()
    other = waiting_job("ONNX/FP32")
    await admissions.explain(KEY, [job, other])
    await admissions.explain(KEY, [waiting_job(suspend=False), other])
    cluster.there[WORKLOADS] = [make_workload(job, make_condition("Evicted", "True", "Preempted", "for an urgent one"))]
    found, _ = await admissions.explain(KEY, [job, other])
    assert found[job["metadata"]["name"]].reason is Reason.PREEMPTED
    assert len(cluster.asked) == 2


async def test_new_job_of_same_name_does_not_inherit_message() -> None:
    admissions, _, job = make(age=0)
    await asyncio.sleep(FIRST_SECONDS)
    await admissions.explain(KEY, [job])
    younger = waiting_job(uid="another", creationTimestamp="2026-01-02T03:00:04Z")
    assert await admissions.explain(KEY, [younger]) == ({}, FIRST_SECONDS)


async def test_foreign_workload_is_ignored() -> None:
    admissions, cluster, job = make()
    cluster.there[WORKLOADS] = [make_workload({"metadata": {"name": "stranger", "uid": "stranger"}}, MISSING)]
    found, _ = await admissions.explain(KEY, [job])
    assert "Kueue has made no Workload for the Job" in found[job["metadata"]["name"]].message


async def test_missing_kueue_is_reported_on_target() -> None:
    admissions, cluster, job = make()
    cluster.fail = lambda _: NotFoundError("404")
    found, _ = await admissions.explain(KEY, [job])
    finding = found[job["metadata"]["name"]]
    assert finding.reason is Reason.QUEUED
    assert finding.message.endswith("is Kueue 0.15 or later installed?")


async def test_operator_without_permission_retries_seldom(caplog: pytest.LogCaptureFixture) -> None:
    admissions, cluster, job = make()
    cluster.fail = lambda _: RejectedError("no right")
    assert await admissions.explain(KEY, [job]) == ({}, FIRST_SECONDS)
    await asyncio.sleep(1)
    assert await admissions.explain(("team", "other"), [job]) == ({}, FIRST_SECONDS - 1)
    pauses = await sync_for(admissions, [job], 4000)
    assert pauses == [4, 10, 20, 40, 80, 160, 320, REFUSED_SECONDS, *[REFUSED_SECONDS] * (len(pauses) - 8)]
    assert caplog.text.count("cannot read why Jobs wait for Kueue: no right") == len(cluster.asked) == len(pauses)


async def test_refused_lookup_recovers_within_seconds() -> None:
    admissions, cluster, job = make()
    cluster.fail = lambda _: RejectedError("no roles yet") if len(cluster.asked) < 3 else None
    await sync_for(admissions, [job], 20)
    found, _ = await admissions.explain(KEY, [job])
    assert job["metadata"]["name"] in found


async def test_failed_lookup_keeps_last_message() -> None:
    admissions, cluster, job = make()
    first, pause = await admissions.explain(KEY, [job])
    assert pause is not None
    await asyncio.sleep(pause)
    cluster.fail = lambda _: UnavailableError("busy")
    again, pause = await admissions.explain(KEY, [job])
    assert (again, pause, len(cluster.asked)) == (first, 2 * FIRST_SECONDS, 2)


async def test_many_exports_share_lookup_rate() -> None:
    admissions, _, job = make()
    many = 300 * QUERIES_PER_SECOND
    for number in range(many + 1):
        _, pause = await admissions.explain(("team", str(number)), [job])
    assert pause == many / QUERIES_PER_SECOND
    for number in range(many + 1):
        admissions.forget(("team", str(number)))
    _, pause = await admissions.explain(KEY, [job])
    assert pause == FIRST_SECONDS
