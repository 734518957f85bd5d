"""The conditions are those of kueue v0.17.0."""

import pytest

from modelexport.api.reasons import Reason
from modelexport.names import WORKLOAD_PRIORITY_LABEL
from modelexport_operator.jobs.kueue import explain_kueue, waits_for_kueue
from modelexport_operator.kube.pruning import prune_workload
from unit.operator.objects import Body, complete, make_condition, make_export, make_job, make_workload

JOB = make_job(make_export("ONNX/FP16"), "ONNX/FP16", suspend=True, queue="team")
NO_FIT = "couldn't assign flavors to pod set main: "
NEVER = (
    "insufficient quota for cpu in flavor default, previously considered podsets requests (0) + current podset request"
)
IN_USE = "insufficient unused quota for cpu in flavor default, 500m more needed"
ACCOMMODATE = "Preempted to accommodate a workload (UID: 1, JobUID: 2) due to prioritization in the ClusterQueue"


def waits(message: str, reason: str = "Pending") -> Body:
    return make_condition("QuotaReserved", "False", reason, message)


def evicted(reason: str, message: str) -> Body:
    return make_condition("Evicted", "True", reason, message)


CASES: dict[str, tuple[list[Body], Reason, str]] = {
    "new": ([], Reason.QUEUED, "Waits for Kueue to admit it from the queue team"),
    "no queue": (
        [waits("LocalQueue team doesn't exist", "Inadmissible")],
        Reason.INADMISSIBLE,
        "Kueue cannot admit it from the queue team: LocalQueue team doesn't exist. Create or start the Kueue queue",
    ),
    "quota too small": (
        [waits(f"{NO_FIT}{NEVER} (64) > maximum capacity (2)")],
        Reason.INADMISSIBLE,
        f"Kueue cannot admit it from the queue team: {NO_FIT}{NEVER} (64) > maximum capacity (2). Create or start",
    ),
    "resource unknown to the queue": (
        [waits(f"{NO_FIT}resource nvidia.com/gpu unavailable in ClusterQueue")],
        Reason.INADMISSIBLE,
        "Kueue cannot admit it from the queue team: ",
    ),
    "quota in use": ([waits(NO_FIT + IN_USE)], Reason.QUEUED, f"Waits for quota in the queue team: {NO_FIT}{IN_USE}"),
    "one flavor in use, one too small": (
        [waits(f"{NO_FIT}{NEVER} (64) > maximum capacity (2), {IN_USE}")],
        Reason.QUEUED,
        "Waits for quota in the queue team: ",
    ),
    "any other words": (
        [waits("Workload no longer fits after processing another workload")],
        Reason.QUEUED,
        "Waits for Kueue to admit it from the queue team: Workload no longer fits",
    ),
    "preempted a moment ago": (
        [
            make_condition("QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue exports"),
            evicted("Preempted", ACCOMMODATE),
        ],
        Reason.PREEMPTED,
        f"Kueue preempted it, and it waits in the queue team again: {ACCOMMODATE}",
    ),
    "preempted, and quota in use": (
        [waits(NO_FIT + IN_USE), evicted("Preempted", ACCOMMODATE)],
        Reason.PREEMPTED,
        f"Kueue preempted it, and it waits in the queue team again: {ACCOMMODATE}",
    ),
    "preempted, and the queue is gone": (
        [waits("LocalQueue team doesn't exist", "Inadmissible"), evicted("Preempted", ACCOMMODATE)],
        Reason.INADMISSIBLE,
        "Kueue cannot admit it from the queue team: LocalQueue team doesn't exist",
    ),
    "preempted once, and admitted since": (
        [waits(NO_FIT + IN_USE), make_condition("Evicted", "False", "QuotaReserved", "Previously: " + ACCOMMODATE)],
        Reason.QUEUED,
        "Waits for quota in the queue team: ",
    ),
    "evicted": (
        [waits("late"), evicted("PodsReadyTimeout", "Exceeded the PodsReady timeout team/job")],
        Reason.QUEUED,
        "Kueue evicted it, and it waits in the queue team again: PodsReadyTimeout: Exceeded the PodsReady timeout",
    ),
    **{
        reason: (
            [waits(f"The words of {reason}"), evicted(reason, f"The words of {reason}")],
            Reason.INADMISSIBLE,
            f"Kueue cannot admit it from the queue team: The words of {reason}. Create or start the Kueue queue",
        )
        for reason in ("ClusterQueueStopped", "LocalQueueStopped", "Deactivated")
    },
}


@pytest.mark.parametrize("case", CASES)
def test_workload_message_is_reported(case: str) -> None:
    conditions, reason, words = CASES[case]
    checks = [{"name": "nodes", "state": "Pending"}]
    finding = explain_kueue(JOB, [prune_workload(make_workload(JOB, *conditions, checks=checks))])
    assert finding.reason is reason
    assert finding.message.startswith(words)


def test_unready_admission_checks_are_named() -> None:
    reserved = make_condition("QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue exports")
    checks = [{"name": "nodes", "state": "Pending", "message": "2 of 4"}, {"name": "budget", "state": "Ready"}]
    finding = explain_kueue(JOB, [prune_workload(make_workload(JOB, reserved, checks=checks))])
    assert finding.message == "Waits for the admission checks of the queue team: nodes is Pending: 2 of 4"


def test_missing_workload_is_reported() -> None:
    assert explain_kueue(JOB, []).message.endswith("Kueue has made no Workload for the Job: does Kueue run?")
    labels = {**JOB["metadata"]["labels"], WORKLOAD_PRIORITY_LABEL: "soon"}
    job: Body = {**JOB, "metadata": {**JOB["metadata"], "labels": labels}}
    words = explain_kueue(job, []).message
    assert words.endswith("does Kueue run, and does the WorkloadPriorityClass soon exist?")


def test_newer_workload_is_used() -> None:
    bodies = [
        prune_workload(make_workload(JOB, waits(words), name=words, creationTimestamp=f"2026-01-0{day}T00:00:00Z"))
        for words, day in (("old", 1), ("new", 3), ("middle", 2))
    ]
    assert explain_kueue(JOB, bodies).message.endswith(": new")


def test_only_startable_job_waits_for_kueue() -> None:
    export = make_export("ONNX/FP16")
    changes: list[Body] = [{"suspend": False}, {"queue": None}, {"deletionTimestamp": "now"}, {"status": complete()}]
    assert waits_for_kueue(JOB)
    for change in changes:
        assert not waits_for_kueue(make_job(export, "ONNX/FP16", **{"suspend": True, "queue": "team", **change}))
