"""One target of an export evaluates the original before the others start."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelexport.matrix.measured import FullSize, Measured, Numbers
from modelexport_operator.jobs.asked_targets import read_target
from modelexport_operator.jobs.conversion_job import target_of
from modelexport_operator.kube.clock import format_time
from modelexport_operator.reconcile.reconcile import Decision, sync
from modelexport_operator.reconcile.snapshot import Snapshot
from modelexport_operator.scheduling.shared_evaluation import PATIENCE
from testplane.objects import (
    Body,
    complete,
    ended,
    failed,
    make_class,
    make_export,
    make_job,
    make_node,
    make_pod,
    result_text,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FORMATS = ("LiteRT", "ONNX", "CoreML")
NINE = tuple(f"{fmt}/{precision}" for fmt in FORMATS for precision in ("INT8", "FP16", "FP32"))
FIRST = "LiteRT/FP32"
LABELLED = {"dataset": {"uri": "s3://datasets/val.zip"}, "samples": 1000}
ACTIVE = {"startTime": "2026-01-02T03:00:00Z", "active": 1}
SUCCEEDED = {"state": "Succeeded", "reason": "Succeeded", "completionTime": "2026-01-02T03:01:00Z"}


def ago(seconds: float) -> str:
    return format_time(NOW - timedelta(seconds=seconds))


def order(*targets: str, **spec: Any) -> Body:
    return make_export(*(targets or NINE), **{"evaluation": LABELLED, **spec})


def recorded(export: Body, *entries: Body) -> Body:
    return {**export, "status": {"targets": list(entries)}}


def entry(target: str, **fields: Any) -> Body:
    fmt, precision = target.split("/")
    return {"format": fmt, "precision": precision, "message": "", **fields}


def decide(export: Body, *jobs: Body, **more: Any) -> Decision:
    classes = [make_class(**more.pop("of_class", {}))]
    return sync(Snapshot(export, jobs, classes=classes, **more), NOW)


def started(decision: Decision) -> list[str]:
    return [str(target_of(job)) for job in decision.create]


def reasons(decision: Decision) -> dict[str, str]:
    assert decision.status
    return {str(read_target(dict(one))): one["reason"] for one in decision.status["targets"]}


def held(decision: Decision) -> set[str]:
    return {target for target, reason in reasons(decision).items() if reason == "WaitForEvaluation"}


def rest(*targets: str) -> list[str]:
    return [target for target in NINE if target not in targets]


def runs(export: Body, target: str = FIRST, **changes: Any) -> tuple[Body, Body]:
    """A Job and its Pod, which converts."""
    job = make_job(export, target, **{"status": ACTIVE, **changes})
    return job, make_pod(job, node="a", phase="Running")


def fails(export: Body, target: str = FIRST) -> tuple[Body, Body]:
    job = make_job(export, target, status=failed("PodFailurePolicy"))
    lost = result_text("AccuracyLost", "the file loses more accuracy than is allowed")
    return job, make_pod(job, phase="Failed", containerStatuses=ended(65, lost))


def test_one_of_nine_targets_starts() -> None:
    decision = decide(order())
    assert started(decision) == [FIRST]
    assert held(decision) == set(rest(FIRST))
    assert decision.status
    told = {one["message"] for one in decision.status["targets"] if one["reason"] == "WaitForEvaluation"}
    assert told == {"Waits until LiteRT/FP32 has evaluated the original model, and will share the result"}


@pytest.mark.parametrize("export", [make_export(*NINE), order("ONNX/INT8")], ids=["no evaluation", "one target"])
def test_nothing_waits_without_something_to_share(export: Body) -> None:
    decision = decide(export)
    assert len(decision.create) == len(export["spec"]["targets"])
    assert not held(decision)


def measure(monkeypatch: pytest.MonkeyPatch, **latency_ms: float) -> None:
    """Let runs of the files take this long; conversions take a second."""
    cells = {
        f"YOLOv8 {name.replace('_', '/')}": Numbers(
            full_size=FullSize("fp32", (640, 640), 1.0, 1, 1.0, {"load": 1.0, "total": 1.0}, 9.0, one, 1, variant="n")
        )
        for name, one in latency_ms.items()
    }
    monkeypatch.setattr("modelexport.matrix.support.measurements", lambda: Measured(cells=cells))


@pytest.mark.parametrize(("latency", "count"), [(29.0, 2), (31.0, 1)])
def test_only_long_evaluations_are_waited_for(monkeypatch: pytest.MonkeyPatch, latency: float, count: int) -> None:
    measure(monkeypatch, ONNX_FP32=latency)
    assert len(decide(order("ONNX/FP16", "LiteRT/FP16")).create) == count


def test_safest_then_fastest_target_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    measure(monkeypatch, ONNX_FP32=90.0, CoreML_FP32=80.0, LiteRT_FP32=95.0, ONNX_INT8=10.0, ONNX_FP16=20.0)
    assert started(decide(order())) == ["CoreML/FP32"]
    assert started(decide(order("ONNX/INT8", "ONNX/FP16"))) == ["ONNX/FP16"]


def test_others_wait_while_first_target_runs() -> None:
    export = order()
    job, pod = runs(export, creationTimestamp=ago(3000), status={**ACTIVE, "startTime": ago(3000)})
    decision = decide(export, job, pods=[pod])
    assert (started(decision), held(decision)) == ([], set(rest(FIRST)))
    assert decision.requeue_after is None


def test_others_start_with_end_of_first_target() -> None:
    export = order()
    job = make_job(export, FIRST, status=complete())
    pod = make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text()))
    assert started(decide(export, job, pods=[pod])) == rest(FIRST)
    assert started(decide(recorded(export, entry(FIRST, **SUCCEEDED)))) == rest(FIRST)


def test_others_start_when_first_target_fails() -> None:
    export = order()
    job, pod = fails(export)
    assert started(decide(export, job, pods=[pod])) == rest(FIRST)


def test_lost_result_of_first_target_holds_nobody_back() -> None:
    export = order()
    job = make_job(export, FIRST, status=complete())
    assert set(started(decide(export, job, pods_listed=[job["metadata"]["name"]]))) == set(NINE)


def test_other_target_starts_while_first_one_retries() -> None:
    export = order()
    job = make_job(export, FIRST, status={"startTime": ago(30), "failed": 1}, creationTimestamp=ago(30))
    pod = make_pod(job, phase="Failed", containerStatuses=ended(75))
    decision = decide(export, job, pods=[pod])
    assert (reasons(decision)[FIRST], started(decision)) == ("Retrying", ["ONNX/FP32"])
    job, pod = runs(export, status={"startTime": ago(30), "failed": 1, "active": 1})
    assert started(decide(export, job, pods=[pod])) == ["ONNX/FP32"]


def test_other_target_starts_if_job_is_deleted() -> None:
    export = order()
    job, pod = runs(export, deletionTimestamp=ago(1))
    assert started(decide(export, job, pods=[pod])) == ["ONNX/FP32"]


@pytest.mark.parametrize("waiting", ["no Pod", "no node", "Kueue", "evicted"])
def test_other_target_starts_after_patience(waiting: str) -> None:
    export, pods = order(), []
    for seconds, expected in ((110, []), (121, ["ONNX/FP32"])):
        status: Body = {} if waiting == "Kueue" else {"startTime": ago(seconds), "active": 1}
        queue: Body = {"suspend": True, "queue": "exports"} if waiting == "Kueue" else {}
        job = make_job(export, FIRST, creationTimestamp=ago(seconds), status=status, **queue)
        if waiting == "no node":
            why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}
            pods = [make_pod(job, phase="Pending", conditions=[why])]
        if waiting == "evicted":
            pods = [make_pod(job, phase="Failed", reason="Evicted")]
        decision = decide(export, job, pods=pods)
        assert started(decision) == expected
        if not expected:
            assert decision.requeue_after
            assert decision.requeue_after <= PATIENCE - timedelta(seconds=seconds)


def test_each_target_that_cannot_run_lets_next_one_start() -> None:
    export = order()
    jobs = [
        make_job(export, target, creationTimestamp=ago(seconds), status={"startTime": ago(seconds), "active": 1})
        for target, seconds in ((FIRST, 200), ("ONNX/FP32", 60))
    ]
    decision = decide(export, *jobs, pods=[make_pod(job, phase="Pending") for job in jobs])
    assert (started(decision), held(decision)) == ([], set(rest(FIRST, "ONNX/FP32")))
    assert decision.requeue_after == timedelta(seconds=60)


def test_target_without_node_lets_others_start() -> None:
    pools = [{"name": "arm", "nodeSelector": {"pool": "arm"}}]
    nodes = [make_node(arch="arm64", labels={"pool": "arm"})]
    decision = decide(order(), of_class={"nodePools": pools}, nodes=nodes)
    assert started(decision) == ["ONNX/FP32"]
    assert held(decision) == {"ONNX/INT8", "ONNX/FP16"}
    assert {reasons(decision)[target] for target in rest("ONNX/INT8", "ONNX/FP16", "ONNX/FP32")} == {"NoSuitableNode"}


def test_waiting_targets_need_no_place() -> None:
    decision = decide(order(), of_class={"jobs": {"parallelism": 1}})
    assert (started(decision), held(decision)) == ([FIRST], set(rest(FIRST)))


def test_others_wait_for_places_once_original_is_evaluated() -> None:
    export = recorded(order(), entry(FIRST, **SUCCEEDED))
    decision = decide(export, of_class={"jobs": {"parallelism": 2}})
    assert started(decision) == rest(FIRST)[:2]
    assert list(reasons(decision).values()).count("LimitReached") == 6


def test_new_operator_waits_for_job_without_status() -> None:
    export = order()
    job, pod = runs(export, "ONNX/INT8")
    decision = decide(export, job, pods=[pod])
    assert (started(decision), held(decision)) == ([], set(rest("ONNX/INT8")))


def test_reserved_target_stays_the_first_one() -> None:
    export = order()
    name = make_job(export, "CoreML/FP32")["metadata"]["name"]
    decision = decide(export, reserved=[name])
    assert (started(decision), held(decision)) == (["CoreML/FP32"], set(rest("CoreML/FP32")))


def test_resumed_export_resumes_its_job_only() -> None:
    export = order()
    job = make_job(export, FIRST, suspend=True)
    decision = decide(export, job)
    assert ([one.suspend for one in decision.suspend], started(decision)) == ([False], [])
    again = decide(export, job, reserved=[job["metadata"]["name"]])
    assert started(again) == []


def test_suspended_export_says_so_for_all_targets() -> None:
    assert set(reasons(decide(order(suspend=True))).values()) == {"Suspended"}


def test_refused_job_is_no_reason_to_wait_twice() -> None:
    export, name = order(), make_job(order(), FIRST)["metadata"]["name"]
    decision = decide(export, refused={name: "exceeded quota"})
    assert (reasons(decision)[FIRST], held(decision)) == ("JobRefused", set(rest(FIRST)))
    assert decision.requeue_after == timedelta(seconds=60)
    again = decide(recorded(export, entry(FIRST, state="Failed", reason="JobRefused")))
    assert set(started(again)) == set(NINE)


def test_targets_with_other_images_wait_for_their_own_first_one() -> None:
    decision = decide(order(calibration={"dataset": LABELLED["dataset"]}))
    assert started(decision) == ["LiteRT/INT8", FIRST]
    apart = decide(order(calibration={"dataset": {"uri": "s3://datasets/train.zip"}}))
    assert started(apart) == [FIRST]


def test_targets_that_suppress_boxes_share_among_themselves() -> None:
    suppressing = [{"format": "ONNX", "precision": "FP32", "name": name, "options": {"nms": True}} for name in "ab"]
    plain = [{"format": "ONNX", "precision": precision} for precision in ("FP32", "FP16")]
    decision = decide(order(targets=[*plain, *suppressing]))
    assert started(decision) == ["ONNX/FP32", "ONNX/FP32/a"]


def test_deletion_removes_every_evaluation_of_the_original() -> None:
    targets = [{"format": "ONNX", "precision": "FP32", "name": name, "options": {"nms": name == "b"}} for name in "ab"]
    export = order(targets=targets, deletionPolicy="Delete")
    export["metadata"] |= {"deletionTimestamp": ago(1), "finalizers": ["modelexport.dev/files"]}
    [job] = decide(recorded(export, entry("ONNX/FP32", name="a", jobName="a", **SUCCEEDED))).create
    for name in ("original", "original-calibrated", "original-nms-onnx", "original-nms-onnx-calibrated"):
        assert f"/shapes/{name}.records" in str(job)


def test_published_export_waits_for_nothing() -> None:
    export = recorded(order(), *(entry(target, **SUCCEEDED) for target in NINE))
    decision = decide(export)
    assert decision.create == ()
    assert not held(decision)


SITUATIONS = ("absent", "queued", "waiting long", "running", "retrying", "failed", "published", "leaving")


@given(st.lists(st.sampled_from(SITUATIONS), min_size=3, max_size=3))
def test_whoever_waits_waits_for_a_job(situations: list[str]) -> None:
    targets = ("ONNX/FP32", "ONNX/FP16", "ONNX/INT8")
    export, jobs, pods = order(*targets), [], []
    statuses: dict[str, Body] = {
        "queued": {"status": {"startTime": ago(10), "active": 1}},
        "waiting long": {"status": ACTIVE},
        "running": {"status": ACTIVE},
        "retrying": {"status": {**ACTIVE, "failed": 1}},
        "failed": {"status": failed("DeadlineExceeded")},
        "leaving": {"status": ACTIVE, "deletionTimestamp": ago(1)},
    }
    for target, situation in zip(targets, situations, strict=True):
        if situation in statuses:
            jobs.append(make_job(export, target, **statuses[situation]))
        if situation in ("running", "retrying"):
            pods.append(make_pod(jobs[-1], node="a", phase="Running"))
    published = [entry(t, **SUCCEEDED) for t, one in zip(targets, situations, strict=True) if one == "published"]
    decision = decide(recorded(export, *published), *jobs, pods=pods)
    if decision.status and held(decision):
        assert started(decision) or {"queued", "running"} & set(situations)
        assert not {"failed", "published"} & set(situations)
