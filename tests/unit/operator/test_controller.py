import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelexport.api.spec import parse_export
from modelexport_operator.jobs.conversion_job import job_name
from modelexport_operator.kube.client import (
    AlreadyExistsError,
    ClusterError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RejectedError,
    UnavailableError,
)
from modelexport_operator.kube.resources import CLASSES, EXPORTS, JOBS, NODES, PODS, WORKLOADS, Resource
from modelexport_operator.metrics.metrics import Metrics
from modelexport_operator.reconcile.deletion import GIVE_UP_TIME
from modelexport_operator.reconcile.snapshot import POD_CREATION_TOLERANCE
from modelexport_operator.runtime import controller as module
from modelexport_operator.runtime.cache import Cache
from modelexport_operator.runtime.controller import Controller
from modelexport_operator.runtime.event_recorder import build_event
from modelexport_operator.runtime.kueue_admissions import FIRST_SECONDS
from modelexport_operator.status.events import Event
from testplane.objects import (
    Body,
    complete,
    ended,
    make_class,
    make_clean_job,
    make_condition,
    make_export,
    make_job,
    make_node,
    make_pod,
    make_target,
    make_workload,
    result_text,
)
from unit.operator.fakes import FakeCluster, at

pytestmark = pytest.mark.usefixtures("virtual_time")

KEY = ("team", "shapes")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


FINISHED = {"format": "ONNX", "precision": "FP16", "state": "Succeeded", "reason": "Succeeded"}


def make(export: Body, clock: Callable[[], datetime] = lambda: NOW) -> tuple[Controller, FakeCluster]:
    cluster = FakeCluster()
    # The fake has only the methods that a Controller calls, so mypy sees another type.
    controller = Controller(cluster, Metrics(), clock)  # type: ignore[arg-type]
    controller.start_leading()
    controller.handle_event(CLASSES, "ADDED", at(make_class(), 1))
    controller.handle_event(EXPORTS, "ADDED", at(export, 2))
    return controller, cluster


def elapsed(began: float) -> float:
    return asyncio.get_running_loop().time() - began


async def work(controller: Controller) -> None:
    await asyncio.wait_for(controller.work_once(), 1)
    await controller.events.drain(1)


async def test_jobs_precede_status_and_events_follow_it() -> None:
    controller, cluster = make(make_export("ONNX/FP16", "ONNX/FP32"))
    await work(controller)
    assert cluster.calls == ["create FP16", "create FP32", "status", "event Progressing"]


async def test_unchanged_status_is_not_written() -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    await work(controller)
    job = make_job(make_export("ONNX/FP16"), "ONNX/FP16")
    controller.handle_event(JOBS, "ADDED", at(job, 9))
    controller.queue.add(KEY)
    cluster.calls.clear()
    await work(controller)
    assert cluster.calls == []


@pytest.mark.parametrize("error", [UnavailableError("connection lost"), ConflictError("409")])
async def test_no_event_is_sent_without_status_write(error: ClusterError) -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    cluster.fail = lambda what: error if what == "status" and cluster.calls.count("status") == 1 else None
    await work(controller)
    assert cluster.calls == ["create FP16", "status"]
    await work(controller)
    assert cluster.calls[2:] == ["create FP16", "status", "event Progressing"]


async def test_finalizer_is_written_first() -> None:
    controller, cluster = make(make_export("ONNX/FP16", deletionPolicy="Delete"))
    await work(controller)
    assert cluster.calls == ["finalizers modelexport.dev/files"]


async def test_file_deletion_is_reported_after_finalizer_removal(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    export = make_export("ONNX/FP16", deletionPolicy="Delete")
    export["metadata"] |= {"deletionTimestamp": "2026-01-02T03:04:00Z", "finalizers": ["modelexport.dev/files"]}
    export["status"] = {"targets": [{**FINISHED, "jobName": "gone"}]}
    controller, cluster = make(export)
    controller.handle_event(CLASSES, "DELETED", at(make_class(), 3))
    await work(controller)
    assert cluster.calls == ["finalizers", "event FilesRemain"]
    [record] = [record for record in caplog.records if record.message == "event"]
    fields = getattr(record, "fields", {})
    assert (fields["export"], fields["reason"], record.levelname) == ("team/shapes", "FilesRemain", "WARNING")


async def test_files_are_deleted_from_store_of_own_jobs() -> None:
    export = make_export("ONNX/FP16", deletionPolicy="Delete")
    job = make_job(export, "ONNX/FP16", status=complete())
    export["metadata"] |= {"deletionTimestamp": "2026-01-02T03:04:00Z", "finalizers": ["modelexport.dev/files"]}
    export["status"] = {"targets": [{**FINISHED, "jobName": job["metadata"]["name"]}]}
    controller, cluster = make(export)
    storage = {"endpoint": "http://new:9000", "bucket": "elsewhere"}
    controller.handle_event(CLASSES, "MODIFIED", at(make_class(storage=storage), 3))
    controller.handle_event(JOBS, "ADDED", at(job, 4))
    owner = [{"uid": "uid-of-other", "controller": True}]
    foreign = make_job(export, "ONNX/FP16", make_class(storage=storage), ownerReferences=owner)
    cluster.jobs = [job, foreign]
    await work(controller)
    [clean] = cluster.created
    environment = {entry["name"]: entry for entry in clean["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert environment["MODELEXPORT_STORE"]["value"] == "http://minio.storage.svc:9000"
    assert environment["AWS_ACCESS_KEY_ID"]["valueFrom"]["secretKeyRef"]["name"] == "modelexport-storage"


def deleted_at(deleted: datetime) -> Body:
    """An export that is being deleted with its files."""
    export = make_export("ONNX/FP16", deletionPolicy="Delete")
    export["metadata"] |= {"deletionTimestamp": deleted.isoformat(), "finalizers": ["modelexport.dev/files"]}
    export["status"] = {"targets": [{**FINISHED, "jobName": "gone"}]}
    return export


async def test_restarted_operator_tries_deletion_before_giving_up() -> None:
    times = iter([NOW - timedelta(hours=1)])
    controller, cluster = make(deleted_at(NOW - timedelta(days=1)), lambda: next(times, NOW))
    controller.start_leading()
    await work(controller)
    assert cluster.calls == ["create clean-up"]


@pytest.mark.parametrize("minutes", [-10, 0, 10])
async def test_deletion_time_limit_ignores_clock_changes(minutes: int) -> None:
    began, loop = asyncio.get_running_loop().time(), asyncio.get_running_loop()
    export = deleted_at(NOW + timedelta(seconds=500))
    controller, cluster = make(export, lambda: NOW + timedelta(minutes=minutes, seconds=loop.time() - began))
    await asyncio.sleep(500)
    await work(controller)
    assert cluster.calls == ["create clean-up"]
    controller.handle_event(JOBS, "ADDED", at(make_clean_job(export), 3))
    await asyncio.sleep(GIVE_UP_TIME.total_seconds() - 10)
    await work(controller)
    assert "event FilesRemain" not in cluster.calls
    await asyncio.sleep(20)
    await work(controller)
    assert "event FilesRemain" in cluster.calls


async def test_missing_clean_up_pod_is_explained_after_its_end() -> None:
    export = make_export("ONNX/FP16", deletionPolicy="Delete")
    export["metadata"] |= {"deletionTimestamp": "2026-01-02T02:59:00Z", "finalizers": ["modelexport.dev/files"]}
    export["status"] = {"targets": [{**FINISHED, "jobName": "gone"}]}
    controller, cluster = make(export)
    overdue = [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]
    status = {"startTime": "2026-01-02T03:00:00Z", "conditions": overdue}
    controller.handle_event(JOBS, "ADDED", at(make_clean_job(export, status=status), 4))
    await work(controller)
    assert cluster.calls == ["ask why", "finalizers", "event FilesRemain"]


async def test_lost_event_does_not_retry_sync(caplog: pytest.LogCaptureFixture) -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    cluster.fail = lambda what: UnavailableError("busy") if what.startswith("event") else None
    await work(controller)
    assert len(controller.queue) == 0
    assert "event Progressing was not created: busy" in caplog.text


def story(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, str]]]:
    """The recorded events with their fields, as text."""
    ours = [record for record in caplog.records if record.name == "modelexport"]
    return [(r.message, {key: str(value) for key, value in r.fields.items()}) for r in ours]  # type: ignore[attr-defined]


async def test_log_follows_events_and_names_object_and_job(
    caplog: pytest.LogCaptureFixture,
) -> None:
    export = make_export("ONNX/FP16", "ONNX/FP32")
    controller, _ = make(export)
    job = make_job(export, "ONNX/FP16", status=complete())
    pod = make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text(), "Completed"))
    controller.handle_event(JOBS, "ADDED", at(job, 4))
    controller.handle_event(PODS, "ADDED", at(pod, 5))
    with caplog.at_level(logging.INFO):
        await work(controller)
    new = job_name(parse_export(export), make_target("ONNX/FP32"))
    of_export = {"export": "team/shapes"}
    assert story(caplog) == [
        ("job created", {**of_export, "target": "ONNX/FP32", "job": new}),
        (
            "event",
            {
                **of_export,
                "target": "ONNX/FP16",
                "job": job["metadata"]["name"],
                "reason": "Succeeded",
                "message": "Published",
            },
        ),
        ("event", {**of_export, "reason": "Progressing", "message": "1 of 2 targets are published"}),
    ]


async def test_event_of_several_targets_logs_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    controller, cluster = make(make_export("ONNX/FP16", "ONNX/FP32"))
    cluster.fail = lambda what: RejectedError("exceeded quota") if what.startswith("create") else None
    with caplog.at_level(logging.INFO):
        await work(controller)
    lines = [(r.levelname, *r.fields.values()) for r in caplog.records]  # type: ignore[attr-defined]
    assert [(level, str(target), reason) for level, _, target, _, reason, _ in lines[:2]] == [
        ("WARNING", "ONNX/FP16", "JobRefused"),
        ("WARNING", "ONNX/FP32", "JobRefused"),
    ]
    assert [event for event in cluster.calls if event.startswith("event")] == [
        "event JobRefused",
        "event TargetsFailed",
    ]


async def test_events_are_sent_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    export = make_export("ONNX/FP16")
    controller, cluster = make(export)
    controller.handle_event(JOBS, "ADDED", at(make_job(export, "ONNX/FP16", status=complete()), 9))
    there: list[str] = []

    async def create_slowly(event: Body) -> None:
        await asyncio.sleep(0.02 if event["message"].startswith("ONNX") else 0)
        there.append(event["message"])

    monkeypatch.setattr(cluster, "create_event", create_slowly)
    await work(controller)
    assert [message.partition(" ")[0] for message in there] == ["ONNX/FP16:", "0"]


async def test_rejected_jobs_are_reported_in_same_status() -> None:
    controller, cluster = make(make_export("ONNX/FP16", "ONNX/FP32"))
    cluster.fail = lambda what: RejectedError("exceeded quota") if what == "create FP16" else None
    await work(controller)
    assert [target["reason"] for target in cluster.status["targets"]] == ["JobRefused", "Queued"]
    assert "exceeded quota" in cluster.status["targets"][0]["message"]


async def test_export_outlives_api_server_without_roles() -> None:
    controller, cluster = make(make_export("ONNX/FP16", "ONNX/FP32"))
    began = asyncio.get_running_loop().time()
    cluster.fail = lambda what: ForbiddenError("cannot create") if "create" in what and elapsed(began) < 10 else None
    await work(controller)
    assert [target["state"] for target in cluster.status["targets"]] == ["Pending", "Pending"]
    assert {target["reason"] for target in cluster.status["targets"]} == {"Retrying"}
    assert "cannot create" in cluster.status["targets"][0]["message"]
    while not cluster.created:
        await controller.work_once()
    assert elapsed(began) < 30
    assert [target["reason"] for target in cluster.status["targets"]] == ["Queued", "Queued"]
    assert not [call for call in cluster.calls if "JobRefused" in call]


async def test_right_that_stays_missing_becomes_final() -> None:
    controller, cluster = make(make_export("ONNX/FP16", ttlSecondsAfterFinished=1))
    began = asyncio.get_running_loop().time()
    cluster.fail = lambda what: ForbiddenError("cannot create") if "create" in what else None
    while not cluster.status or cluster.status["targets"][0]["reason"] != "JobRefused":
        await controller.work_once()
    assert 120 <= elapsed(began) < 240
    assert "cannot create" in cluster.status["targets"][0]["message"]
    await asyncio.sleep(600)
    await controller.work_once()
    assert cluster.status["targets"][0]["reason"] == "JobRefused"
    assert "delete" not in cluster.calls


async def test_denials_far_apart_are_not_lasting() -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    cluster.fail = lambda what: ForbiddenError("cannot create") if "create" in what else None
    await work(controller)
    controller.handle_deletion(EXPORTS, KEY, 100)
    await asyncio.sleep(1000)
    controller.handle_event(EXPORTS, "ADDED", at(make_export("ONNX/FP16"), 200))
    while cluster.calls.count("status") < 2:
        await controller.work_once()
    assert cluster.status["targets"][0]["reason"] == "Retrying"


async def test_foreign_job_with_our_name_is_reported() -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    job = make_job(make_export("ONNX/FP16"), "ONNX/FP16", status=complete(), ownerReferences=[])
    pod = make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text(), "Completed"))
    controller.handle_event(JOBS, "ADDED", at(job, 4))
    controller.handle_event(PODS, "ADDED", at(pod, 5))
    await work(controller)
    assert not created(cluster)
    [target] = cluster.status["targets"]
    assert target["reason"] == "JobRefused"
    assert "a Job of that name exists and does not belong to this ModelExport; delete that Job" in target["message"]


async def make_without_pod(start: datetime) -> tuple[Controller, FakeCluster]:
    """An operator whose cache has a Job, but no Pod."""
    controller, cluster = make(make_export("ONNX/FP16"))
    await work(controller)
    job = make_job(make_export("ONNX/FP16"), "ONNX/FP16", status={"startTime": start.isoformat()})
    controller.handle_event(JOBS, "ADDED", at(job, 9))
    controller.queue.add(KEY)
    cluster.calls.clear()
    return controller, cluster


async def test_missing_pod_is_explained_after_delay() -> None:
    controller, cluster = await make_without_pod(NOW - POD_CREATION_TOLERANCE)
    await work(controller)
    assert cluster.calls == ["ask why", "status", "event PodRefused"]
    [target] = cluster.status["targets"]
    assert (target["state"], target["reason"]) == ("Queued", "PodRefused")
    assert "exceeded quota. Raise the quota" in target["message"]


async def test_new_job_may_lack_pod() -> None:
    controller, cluster = await make_without_pod(NOW)
    await work(controller)
    assert "ask why" not in cluster.calls


async def test_failed_explanation_does_not_block_status(
    caplog: pytest.LogCaptureFixture,
) -> None:
    controller, cluster = await make_without_pod(NOW - POD_CREATION_TOLERANCE)
    cluster.fail = lambda what: RejectedError("no right") if what == "ask why" else None
    await work(controller)
    assert "cannot read why a Job has no Pod: no right" in caplog.text
    assert cluster.status["targets"][0]["reason"] == "Queued"


async def test_kueue_waiting_reason_is_reported_and_refreshed() -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    job = make_job(make_export("ONNX/FP16"), "ONNX/FP16", suspend=True, queue="exports")
    controller.handle_event(JOBS, "ADDED", at(job, 9))
    words = [
        make_condition("QuotaReserved", "False", "Inadmissible", f"LocalQueue exports {what}") for what in ("a", "b")
    ]
    for condition in words:
        cluster.there[WORKLOADS] = [make_workload(job, condition)]
        await asyncio.wait_for(controller.work_once(), FIRST_SECONDS + 1)
        await controller.events.drain(1)
        assert condition["message"] in cluster.status["targets"][0]["message"]
    assert len(cluster.asked) == 2
    assert cluster.calls == ["status", "event Inadmissible", "event Progressing", "status"]


async def test_job_without_workload_names_its_priority_class() -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    sharing = make_class(jobs={"queueName": "exports", "workloadPriorityClassName": "soon"})
    controller.handle_event(
        JOBS, "ADDED", at(make_job(make_export("ONNX/FP16"), "ONNX/FP16", sharing, suspend=True), 9)
    )
    await work(controller)
    assert "does the WorkloadPriorityClass soon exist?" in cluster.status["targets"][0]["message"]


async def test_deleted_export_does_not_delay_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelexport_operator.runtime.kueue_admissions.QUERIES_PER_SECOND", 0.01)
    controller, cluster = make(make_export("ONNX/FP16"))
    for version, name in ((10, "shapes"), (20, "later")):
        export = make_export("ONNX/FP16", name=name, uid=name)
        controller.handle_event(EXPORTS, "ADDED", at(export, version))
        job = make_job(export, "ONNX/FP16", suspend=True, queue="exports")
        controller.handle_event(JOBS, "ADDED", at(job, version + 1))
        await work(controller)
        if name == "shapes":
            controller.handle_event(EXPORTS, "DELETED", at(export, version + 2))
            await work(controller)
    await asyncio.wait_for(controller.work_once(), FIRST_SECONDS + 1)
    assert len(cluster.asked) == 3


async def test_all_jobs_are_tried_before_connection_error_ends_sync() -> None:
    controller, cluster = make(make_export("ONNX/FP16", "ONNX/FP32"))
    cluster.fail = lambda what: UnavailableError("busy") if what == "create FP16" else None
    await work(controller)
    assert cluster.calls == ["create FP16", "create FP32"]


async def test_export_deleted_during_sync_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    cluster.fail = lambda what: NotFoundError("404") if what == "status" else None
    with caplog.at_level(logging.WARNING):
        await work(controller)
    assert caplog.text == ""
    assert len(controller.queue) == 0


async def test_export_is_synced_again_after_wrong_404() -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    cluster.fail = lambda what: NotFoundError("404") if cluster.calls == ["create FP16"] else None
    await work(controller)
    await asyncio.wait_for(controller.work_once(), 61)
    assert cluster.calls == ["create FP16", "create FP16", "status"]


async def test_internal_error_of_one_object_does_not_affect_others(caplog: pytest.LogCaptureFixture) -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    broken = make_export("ONNX/FP16", name="broken", uid="uid-2")
    controller.handle_event(EXPORTS, "ADDED", at(broken, 3))
    job: Body = at(make_job(broken, "ONNX/FP16"), 4)
    job = {**job, "status": {"failed": "many", "conditions": [{"type": "Failed", "status": "True"}]}}
    controller.handle_event(JOBS, "ADDED", job)
    await work(controller)
    await work(controller)
    assert [vars(r)["fields"] for r in caplog.records if "a defect" in r.message] == [{"export": "team/broken"}]
    assert "Traceback" in caplog.text
    assert cluster.calls == ["create FP16", "status", "event Progressing"]


async def test_conversion_is_counted_once_with_outcome() -> None:
    export = make_export("ONNX/FP16")
    cluster, metrics = FakeCluster(), Metrics()
    controller = Controller(cluster, metrics, lambda: NOW)  # type: ignore[arg-type]
    controller.start_leading()
    job = make_job(export, "ONNX/FP16", status=complete())
    pod = make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text(), "Completed"))
    for resource, body in zip((CLASSES, EXPORTS, JOBS), (make_class(), export, job), strict=True):
        controller.handle_event(resource, "ADDED", at(body, 2))
    controller.handle_event(PODS, "ADDED", at(pod, 3))
    await work(controller)
    controller.queue.add(KEY)
    await work(controller)
    text = metrics.render().decode()
    assert 'precision="FP16",reason="Succeeded"} 1.0' in text
    assert text.count('reason="Succeeded"} 1.0') == 1
    assert 'modelexport_target_seconds_sum{format="ONNX",precision="FP16"} 120.0' in text
    labels = 'architecture="YOLOv8",format="ONNX",precision="FP16"'
    assert f"modelexport_conversion_seconds_sum{{{labels}}} 21.5" in text


async def test_deleted_export_is_forgotten_without_writes() -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    controller.handle_event(EXPORTS, "DELETED", at(make_export("ONNX/FP16"), 5))
    await work(controller)
    assert cluster.calls == []


async def test_key_rests_between_syncs() -> None:
    controller, _ = make(make_export("ONNX/FP16"))
    await work(controller)
    controller.queue.add(KEY)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(controller.work_once(), 0.1)


@pytest.mark.parametrize(
    ("resource", "body", "change", "at_once"),
    [
        (EXPORTS, make_export("ONNX/FP16"), "MODIFIED", True),
        (CLASSES, make_class(), "MODIFIED", True),
        (JOBS, make_job(make_export("ONNX/FP16"), "ONNX/FP16"), "DELETED", True),
        (JOBS, make_job(make_export("ONNX/FP16"), "ONNX/FP16"), "ADDED", False),
        (PODS, make_pod(make_job(make_export("ONNX/FP16"), "ONNX/FP16")), "ADDED", False),
    ],
)
async def test_user_change_syncs_at_once_and_job_steps_are_batched(
    monkeypatch: pytest.MonkeyPatch, resource: Resource, body: Body, change: str, at_once: bool
) -> None:
    monkeypatch.setattr(module, "COOLDOWN_SECONDS", 0.0)
    controller, _ = make(make_export("ONNX/FP16"))
    controller.handle_event(JOBS, "ADDED", at(make_job(make_export("ONNX/FP16"), "ONNX/FP16"), 3))
    await work(controller)
    controller.handle_event(resource, change, at(body, 9))
    assert len(controller.queue) == at_once


async def test_own_writes_do_not_trigger_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COOLDOWN_SECONDS", 0.0)
    controller, _ = make(make_export("ONNX/FP16"))
    await work(controller)
    written = controller.cache[EXPORTS].get(KEY)
    assert written is not None
    controller.handle_event(EXPORTS, "MODIFIED", written)
    assert len(controller.queue) == 0


async def test_pod_problem_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COOLDOWN_SECONDS", 0.0)
    monkeypatch.setattr(module, "STEP_SECONDS", 60.0)
    controller, cluster = make(make_export("ONNX/FP16"))
    await work(controller)
    job = make_job(make_export("ONNX/FP16"), "ONNX/FP16")
    controller.handle_event(JOBS, "ADDED", at(job, 5))
    controller.handle_event(PODS, "ADDED", at(make_pod(job, phase="Pending"), 6))
    with pytest.raises(TimeoutError):
        await work(controller)
    unfit = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}
    controller.handle_event(PODS, "MODIFIED", at(make_pod(job, phase="Pending", conditions=[unfit]), 7))
    await work(controller)
    assert cluster.status["targets"][0]["reason"] == "Unschedulable"


@pytest.mark.parametrize("last", ["Job", "Pod"])
async def test_completion_is_reported_sooner_than_progress(monkeypatch: pytest.MonkeyPatch, last: str) -> None:
    monkeypatch.setattr(module, "COOLDOWN_SECONDS", 0.0)
    monkeypatch.setattr(module, "STEP_SECONDS", 60.0)
    controller, cluster = make(make_export("ONNX/FP16"))
    job = make_job(make_export("ONNX/FP16"), "ONNX/FP16", status=complete())
    pod = make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text(), "Completed"))
    told = [(JOBS, job), (PODS, pod)] if last == "Pod" else [(PODS, pod), (JOBS, job)]
    controller.handle_event(told[0][0], "ADDED", at(told[0][1], 5))
    await work(controller)
    controller.handle_event(told[1][0], "ADDED", at(told[1][1], 6))
    await work(controller)
    assert cluster.status["ready"] == "1/1"


async def test_requested_requeue_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelexport_operator.reconcile.reconcile.REFUSAL_RETRY", timedelta(seconds=0.01))
    controller, cluster = make(make_export("ONNX/FP16"))
    cluster.fail = lambda what: RejectedError("exceeded quota") if what == "create FP16" else None
    await work(controller)
    await work(controller)
    assert cluster.calls.count("create FP16") == 2


async def test_retry_after_of_busy_server_is_respected() -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    cluster.fail = lambda _: UnavailableError("busy", retry_after=60)
    await work(controller)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(controller.work_once(), 0.4)


SUCCEEDED: Body = {"phase": "Succeeded", "containerStatuses": ended(0, result_text(), "Completed")}


def make_ended(*targets: str, **spec: Any) -> tuple[Controller, FakeCluster, list[Body]]:
    """An operator whose cache has Jobs that succeeded long ago, and none of their Pods."""
    export = make_export(*targets, **spec)
    controller, cluster = make(export)
    jobs = [at(make_job(export, target, status=complete()), 10) for target in targets]
    for job in jobs:
        controller.handle_event(JOBS, "ADDED", job)
    cluster.there[PODS] = [at(make_pod(job, **SUCCEEDED), 9) for job in jobs]
    return controller, cluster, jobs


async def test_stale_pod_watch_does_not_fail_success() -> None:
    controller, cluster, _ = make_ended("ONNX/FP16", "ONNX/FP32", ttlSecondsAfterFinished=5)
    await work(controller)
    assert cluster.status["ready"] == "2/2"
    assert cluster.asked == ["list pods modelexport.dev/export-uid=uid-1"]
    assert "delete" not in cluster.calls


async def test_lookup_is_not_repeated() -> None:
    controller, cluster, _ = make_ended("ONNX/FP16")
    await work(controller)
    controller.queue.add(KEY)
    await work(controller)
    assert len(cluster.asked) == 1


async def test_no_outcome_is_recorded_while_pods_cannot_be_listed() -> None:
    controller, cluster, _ = make_ended("ONNX/FP16")
    cluster.fail = lambda what: UnavailableError("busy") if what == "list pods" and len(cluster.asked) < 3 else None
    await work(controller)
    await work(controller)
    assert cluster.calls == []
    await work(controller)
    assert cluster.status["ready"] == "1/1"


async def test_result_lost_with_pod_is_recomputed_once() -> None:
    controller, cluster, [job] = make_ended("ONNX/FP16")
    cluster.there[PODS] = []
    await work(controller)
    [again] = cluster.created
    assert again["metadata"]["name"] == f"{job['metadata']['name']}-2"
    [target] = cluster.status["targets"]
    assert (target["state"], target["reason"]) == ("Queued", "Retrying")
    assert cluster.calls == ["create FP16", "status", "event Retrying", "event Progressing"]
    lost = {**job["metadata"], "name": again["metadata"]["name"], "uid": "uid-2", "resourceVersion": "20"}
    lost["creationTimestamp"] = "2026-01-02T03:03:00Z"
    repeat: Body = {**job, "metadata": lost}
    controller.handle_event(JOBS, "ADDED", repeat)
    controller.queue.add(KEY)
    await work(controller)
    assert len(cluster.created) == 1
    [target] = cluster.status["targets"]
    assert (target["state"], target["reason"]) == ("Failed", "InternalError")
    assert "ended well twice" in target["message"]


async def test_job_missed_by_watch_reports_progress() -> None:
    export = make_export("ONNX/FP16")
    controller, cluster = make(export)
    job = at(make_job(export, "ONNX/FP16", status=complete()), 10)
    cluster.there = {JOBS: [job], PODS: [at(make_pod(job, **SUCCEEDED), 9)]}
    cluster.fail = lambda what: AlreadyExistsError("there already") if what.startswith("create") else None
    await work(controller)
    assert cluster.calls == ["create FP16"]
    await work(controller)
    assert cluster.status["ready"] == "1/1"
    assert created(cluster) == 1


@pytest.mark.parametrize("change", [{"ownerReferences": []}, {"labels": {}}])
async def test_foreign_job_missed_by_watch_is_reported(change: Body) -> None:
    export = make_export("ONNX/FP16")
    controller, cluster = make(export)
    cluster.there[JOBS] = [at(make_job(export, "ONNX/FP16", **change), 10)]
    cluster.fail = lambda what: AlreadyExistsError("there already") if what.startswith("create") else None
    await work(controller)
    assert cluster.status["targets"][0]["reason"] == "JobRefused"


async def test_job_deleted_during_creation_is_retried() -> None:
    controller, cluster = make(make_export("ONNX/FP16"))
    cluster.fail = lambda what: (
        AlreadyExistsError("there already") if "create" in what and created(cluster) == 1 else None
    )
    await work(controller)
    await work(controller)
    assert cluster.status["targets"][0]["reason"] == "Queued"
    assert created(cluster) == 2


def make_pooled(*names: str) -> tuple[Controller, FakeCluster]:
    """A controller whose class has one node pool, and which knows no node."""
    controller, cluster = make(make_export("ONNX/FP16"))
    pooled = make_class(nodePools=[{"name": "cpu"}])
    controller.handle_event(CLASSES, "MODIFIED", at(pooled, 5))
    for name in names:
        controller.handle_event(EXPORTS, "ADDED", at(make_export("ONNX/FP16", name=name, uid=name), 6))
    return controller, cluster


async def test_node_missed_by_watch_is_not_missing() -> None:
    controller, cluster = make_pooled()
    cluster.there[NODES] = [at(make_node(), 9)]
    await work(controller)
    assert (cluster.asked, cluster.calls) == (["list nodes"], [])
    await work(controller)
    assert [target["reason"] for target in cluster.status["targets"]] == ["Queued"]


async def test_missing_node_is_looked_up_once_for_all_exports() -> None:
    controller, cluster = make_pooled("second", "third")
    await work(controller)
    for _ in range(3):
        await work(controller)
        assert cluster.status["targets"][0]["reason"] == "NoSuitableNode"
    controller.queue.add(KEY)
    await work(controller)
    assert cluster.asked == ["list nodes"]


async def test_shortage_is_not_recorded_while_nodes_cannot_be_listed() -> None:
    controller, cluster = make_pooled()
    cluster.fail = lambda what: UnavailableError("busy") if what == "list nodes" else None
    await work(controller)
    assert cluster.calls == []


async def test_node_that_appears_during_status_write_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COOLDOWN_SECONDS", 0.0)
    controller, cluster = make_pooled()

    def appear(what: str) -> None:
        if what == "status" and not cluster.created:
            controller.handle_event(NODES, "ADDED", at(make_node(), 9))

    cluster.fail = appear
    await work(controller)
    await work(controller)
    assert cluster.status["targets"][0]["reason"] == "NoSuitableNode"
    await asyncio.wait_for(controller.work_once(), 30)
    assert cluster.status["targets"][0]["reason"] == "Queued"


async def test_class_missed_by_watch_is_not_missing() -> None:
    controller, cluster = make(make_export("ONNX/FP16", className="other"))
    cluster.there[CLASSES] = [at(make_class(), 1), at(make_class("other", default=False), 1)]
    await work(controller)
    assert cluster.calls[0] == "create FP16"


async def test_missing_class_is_looked_up_once() -> None:
    controller, cluster = make(make_export("ONNX/FP16", className="other"))
    cluster.there[CLASSES] = [at(make_class(), 1)]
    for _ in range(2):
        await work(controller)
        controller.queue.add(KEY)
    assert cluster.asked == ["list exportclasses"]
    assert cluster.status["conditions"][0]["reason"] == "ClassNotFound"


def make_deleted() -> tuple[Controller, FakeCluster, Body]:
    """An operator whose cache has only an export that is being deleted with its files."""
    export = make_export("ONNX/FP16", deletionPolicy="Delete")
    export["metadata"] |= {"deletionTimestamp": "2026-01-02T03:04:00Z", "finalizers": ["modelexport.dev/files"]}
    controller, cluster = make(export)
    controller.cache = Cache()
    controller.handle_event(EXPORTS, "ADDED", at(export, 2))
    cluster.there[CLASSES] = [at(make_class(), 1)]
    return controller, cluster, export


async def test_files_are_deleted_despite_stale_watches() -> None:
    controller, cluster, export = make_deleted()
    job = at(make_job(export, "ONNX/FP16", status=complete()), 10)
    cluster.jobs, cluster.there[PODS] = [job], [at(make_pod(job, **SUCCEEDED), 9)]
    await work(controller)
    assert cluster.calls == ["create clean-up"]


async def test_conversion_missed_by_watches_is_stopped_first() -> None:
    controller, cluster, export = make_deleted()
    job = at(make_job(export, "ONNX/FP16", status={"active": 1}), 10)
    cluster.jobs, cluster.there[PODS] = [job], [at(make_pod(job, phase="Running"), 9)]
    await work(controller)
    assert cluster.calls == ["suspend True"]
    cluster.jobs = [at({**job, "spec": {**job["spec"], "suspend": True}}, 11)]
    controller.queue.add(KEY)
    await work(controller)
    assert cluster.calls == ["suspend True"]  # Its Pod is still there.


@pytest.mark.parametrize("suspend", [True, False])
async def test_running_job_is_suspended_and_resumed(suspend: bool, caplog: pytest.LogCaptureFixture) -> None:
    export = make_export("ONNX/FP16", suspend=suspend)
    controller, cluster = make(export)
    controller.handle_event(JOBS, "ADDED", at(make_job(export, "ONNX/FP16", suspend=not suspend), 4))
    with caplog.at_level(logging.INFO):
        await work(controller)
    assert cluster.calls[:2] == [f"suspend {suspend}", "status"]
    assert story(caplog)[0][0] == ("job suspended" if suspend else "job resumed")


async def test_job_kueue_would_resume_is_deleted_before_status_write() -> None:
    export = make_export("ONNX/FP16", suspend=True)
    controller, cluster = make(export)
    job = make_job(export, "ONNX/FP16", queue="exports")
    controller.handle_event(JOBS, "ADDED", at(job, 4))
    await work(controller)
    assert cluster.calls[:2] == [f"delete team/{job['metadata']['name']}", "status"]


def limited(*names: str, parallelism: int = 1) -> tuple[Controller, FakeCluster]:
    """Exports of two targets each, in a class that runs so many targets at once."""
    cluster = FakeCluster()
    controller = Controller(cluster, Metrics(), lambda: NOW)  # type: ignore[arg-type]
    controller.handle_event(CLASSES, "ADDED", at(make_class(jobs={"parallelism": parallelism}), 1))
    for version, name in enumerate(names, start=2):
        body = make_export("ONNX/FP16", "ONNX/FP32", name=name, uid=f"uid-of-{name}")
        controller.handle_event(EXPORTS, "ADDED", at(body, version))
    return controller, cluster


def created(cluster: FakeCluster) -> int:
    return sum(call.startswith("create") for call in cluster.calls)


async def test_slot_is_reserved_before_watch_sees_job() -> None:
    controller, cluster = limited("first", "second", "third")
    await asyncio.gather(*(work(controller) for _ in range(3)))
    assert created(cluster) == 1


async def test_slot_taken_by_concurrent_sync_is_not_given_twice() -> None:
    controller, cluster = limited("first", "second", parallelism=3)
    for version, name in enumerate(("first", "second"), start=10):
        export = make_export("ONNX/FP16", "ONNX/FP32", name=name, uid=f"uid-of-{name}")
        begun = {"startTime": (NOW - POD_CREATION_TOLERANCE).isoformat()}
        controller.handle_event(JOBS, "ADDED", at(make_job(export, "ONNX/FP16", status=begun), version))
    await asyncio.gather(*(work(controller) for _ in range(2)))
    assert cluster.calls[:2] == ["ask why", "ask why"]
    assert created(cluster) == 1


async def test_freed_slot_goes_to_next_in_queue_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "COOLDOWN_SECONDS", 0.0)
    controller, cluster = limited("first", "second", "third")
    for _ in range(3):
        await work(controller)
    export = make_export("ONNX/FP16", "ONNX/FP32", name="first", uid="uid-of-first")
    controller.handle_event(JOBS, "ADDED", at(make_job(export, "ONNX/FP16"), 100))
    assert (len(controller.queue), created(cluster)) == (0, 1)
    controller.handle_event(JOBS, "MODIFIED", at(make_job(export, "ONNX/FP16", status=complete()), 101))
    assert len(controller.queue) == 1
    await work(controller)
    assert created(cluster) == 2


async def test_rejected_job_yields_slot_and_is_not_retried_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "COOLDOWN_SECONDS", 0.0)
    controller, cluster = limited("first", "second")
    cluster.fail = lambda what: RejectedError("exceeded quota") if "create" in what and created(cluster) == 1 else None
    await work(controller)
    assert [target["reason"] for target in cluster.status["targets"]] == ["JobRefused", "LimitReached"]
    await work(controller)
    assert [target["reason"] for target in cluster.status["targets"]] == ["Queued", "LimitReached"]
    assert (len(controller.queue), created(cluster)) == (0, 2)


async def test_rejection_admits_next_in_queue_without_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COOLDOWN_SECONDS", 0.0)
    controller, cluster = limited("first", "second")
    refusing = asyncio.Event()

    async def refuse_late(job: Body) -> None:
        cluster.calls.append(f"create {job['metadata']['name']}")
        if created(cluster) == 1:
            await refusing.wait()
            raise RejectedError("exceeded quota")

    monkeypatch.setattr(cluster, "create_job", refuse_late)
    first = asyncio.create_task(work(controller))
    await asyncio.sleep(0)
    await work(controller)
    assert {target["reason"] for target in cluster.status["targets"]} == {"LimitReached"}
    refusing.set()
    await first
    assert len(controller.queue) == 1
    await work(controller)
    assert created(cluster) == 2


async def test_slot_freed_while_export_is_told_to_wait_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COOLDOWN_SECONDS", 0.0)
    controller, cluster = limited("first", "second")
    await work(controller)
    writing, freed, write = asyncio.Event(), asyncio.Event(), cluster.write_status

    async def write_late(export: Body, status: Body) -> Body:
        writing.set()
        await freed.wait()
        return await write(export, status)

    monkeypatch.setattr(cluster, "write_status", write_late)
    second = asyncio.create_task(work(controller))
    await writing.wait()
    first = make_export("ONNX/FP16", "ONNX/FP32", name="first", uid="uid-of-first")
    controller.handle_event(EXPORTS, "DELETED", at(first, 100))
    assert created(cluster) == 1
    freed.set()
    await second
    assert {target["reason"] for target in cluster.status["targets"]} == {"LimitReached"}
    await work(controller)  # of the deleted one
    await work(controller)
    assert created(cluster) == 2


async def test_expired_export_is_deleted(caplog: pytest.LogCaptureFixture) -> None:
    ended = {"format": "ONNX", "precision": "FP16", "state": "Succeeded", "reason": "Succeeded"}
    controller, cluster = make({**make_export("ONNX/FP16", ttlSecondsAfterFinished=0), "status": {"targets": [ended]}})
    await work(controller)
    controller.queue.add(KEY)
    with caplog.at_level(logging.INFO):
        await work(controller)
    assert cluster.calls == ["status", "event Succeeded", "delete"]
    assert story(caplog) == [("export deleted", {"export": "team/shapes"})]


async def test_worker_stops_when_lease_is_lost() -> None:
    controller, cluster = make(make_export("ONNX/FP16"))

    def lose(what: str) -> ClusterError:
        cluster.may_write = False
        return UnavailableError(what)

    cluster.fail = lose
    await asyncio.wait_for(controller.work_forever(), 60)
    assert cluster.calls == ["create FP16"]


async def test_every_export_is_resynced_periodically() -> None:
    controller, _ = make(make_export("ONNX/FP16"))
    await work(controller)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(controller.resync_forever(0.01), 0.05)
    assert len(controller.queue) == 1


@pytest.mark.parametrize(
    ("error", "name"), [(None, None), (UnavailableError("busy"), "UnavailableError"), (KeyError("odd"), "Defect")]
)
async def test_every_sync_is_timed_and_errors_are_counted(error: Any, name: str | None) -> None:
    cluster, metrics = FakeCluster(), Metrics()
    controller = Controller(cluster, metrics, lambda: NOW)  # type: ignore[arg-type]
    controller.handle_event(EXPORTS, "ADDED", at(make_export("ONNX/FP16"), 2))
    cluster.fail = lambda what: error if what == "status" else None
    await work(controller)
    text = metrics.render().decode()
    assert "modelexport_sync_seconds_count 1.0" in text
    told = [line for line in text.splitlines() if line.startswith("modelexport_sync_errors_total")]
    counted = [line for line in told if not line.endswith(" 0.0")]
    assert counted == ([f'modelexport_sync_errors_total{{error="{name}"}} 1.0'] if name else [])
    assert len(told) == 5


def test_event_references_export_and_fits_size_limits() -> None:
    built = build_event(at(make_export(), 7), Event("Warning", "OOMKilled", "x" * 2000), "2026-01-02T03:04:05Z")
    assert built["involvedObject"] == {
        "apiVersion": "modelexport.dev/v1alpha1",
        "kind": "ModelExport",
        "name": "shapes",
        "namespace": "team",
        "uid": "uid-1",
        "resourceVersion": "7",
    }
    assert (built["type"], built["reason"], built["message"]) == ("Warning", "OOMKilled", "x" * 1024)
    assert built["firstTimestamp"] == built["lastTimestamp"] == "2026-01-02T03:04:05Z"


def test_only_equal_events_share_name() -> None:
    first = (7, Event("Normal", "Succeeded", "ONNX/FP16: done"))
    others = [
        (8, first[1]),
        (7, Event("Normal", "Succeeded", "ONNX/FP32: done")),
        (7, Event("Normal", "Progressing", "ONNX/FP16: done")),
    ]
    made = [build_event(at(make_export(), v), event, "now")["metadata"]["name"] for v, event in (first, first, *others)]
    assert made[0] == made[1]
    assert len(set(made)) == 4
