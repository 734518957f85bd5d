"""The judge of the fault suite: each of its complaints is made of a history that deserves it, and of no other."""

import math
from typing import Any

import pytest

from faults.history import Sight
from faults.judge import Order, Told, Verdict, is_all_told, judge

ONE = Order("shapes", {"ONNX/FP16": "Succeeded"})
TOLD = Told({("shapes", "Succeeded")}, counted=1)


class Past:
    """A history in the making: every state is one version and one second after the last one."""

    def __init__(self) -> None:
        self.sights: list[Sight] = []

    def see(self, kind: str, change: str = "MODIFIED", uid: str = "uid", **body: Any) -> None:
        at = len(self.sights) + 1
        metadata = {"name": "shapes", "uid": uid, "resourceVersion": str(at), "labels": LABELS}
        self.sights.append(Sight(float(at), kind, change, {"metadata": metadata, **body}, at))

    def export(self, state: str = "", reason: str = "", ready: str = "Progressing", **entry: Any) -> None:
        target = {"format": "ONNX", "precision": "FP16", "state": state, "reason": reason or state, **entry}
        condition = {"type": "Ready", "status": "Unknown", "reason": ready}
        self.see("modelexports", status={"targets": [target], "conditions": [condition]} if state else {})

    def job(self, condition: str = "", uid: str = "job-1", change: str = "MODIFIED") -> None:
        held = [{"type": condition, "status": "True"}] if condition else []
        self.see("jobs", change, uid, status={"conditions": held})

    def pod(self, phase: str, **state: Any) -> None:
        self.see("pods", status={"phase": phase, "containerStatuses": [{"state": state}]})

    def judge(self, order: Order = ONE, told: Told = TOLD, fault_end: float = 0.0) -> Verdict:
        return judge(self.sights, [order], told, fault_end)


LABELS = {
    "modelexport.dev/export": "shapes",
    "modelexport.dev/format": "ONNX",
    "modelexport.dev/precision": "FP16",
}


def begin() -> Past:
    """An export whose Job has a Pod that runs."""
    past = Past()
    past.export()
    past.job()
    past.export("Queued")
    past.pod("Running", running={})
    past.export("Running")
    return past


def end_well(past: Past) -> Past:
    past.pod("Succeeded", terminated={})
    past.job("Complete")
    return past


def succeed() -> Past:
    past = end_well(begin())
    past.export("Succeeded", ready="Succeeded", artifact={})
    return past


def test_true_history_gets_no_complaint() -> None:
    verdict = succeed().judge()
    assert verdict.complaints == ()
    assert verdict.seconds == 1.0


def test_failure_that_happened_gets_no_complaint() -> None:
    past = begin()
    past.pod("Failed", terminated={})
    past.job("FailureTarget")
    past.job("Failed")
    past.export("Failed", "VerificationFailed", ready="TargetsFailed")
    order = Order("shapes", {"ONNX/FP16": "VerificationFailed"})
    assert past.judge(order, Told({("shapes", "TargetsFailed")}, 1)).complaints == ()


def test_target_without_an_end_is_lost() -> None:
    verdict = end_well(begin()).judge()
    assert verdict.lost == ("shapes ONNX/FP16: its last status says Running",)
    assert verdict.seconds == math.inf


def test_export_that_nobody_saw_is_lost() -> None:
    assert Past().judge().lost == ("shapes ONNX/FP16: its last status says nothing",)


def test_deletion_before_the_ttl_is_a_loss() -> None:
    past = succeed()
    past.see("modelexports", "DELETED")
    assert past.judge().lost == ("shapes: deleted 2 s after its end; its TTL is None",)
    ttl = Order("shapes", ONE.ends, ttl=300)
    assert past.judge(ttl).lost == ("shapes: deleted 2 s after its end; its TTL is 300",)
    assert past.judge(Order("shapes", ONE.ends, ttl=2)).lost == ()
    assert past.judge(Order("shapes", ONE.ends, is_deleted=True)).lost == ()


def test_two_jobs_at_once_are_double() -> None:
    past = succeed()
    past.sights.insert(2, Sight(2.0, "jobs", "ADDED", {"metadata": {**past.sights[1].body["metadata"], "uid": "x"}}, 2))
    assert past.judge().double == ("shapes ONNX/FP16: two Jobs at once",)


def test_job_after_a_told_success_is_double() -> None:
    past = succeed()
    past.job(change="DELETED")
    past.job(uid="job-2")
    assert past.judge().double == ("shapes ONNX/FP16: a new Job after its success was told",)


def test_job_that_follows_a_deleted_one_is_not_double() -> None:
    past = begin()
    past.job(change="DELETED")
    past.job(uid="job-2")
    past.pod("Succeeded", terminated={})
    past.job("Complete", uid="job-2")
    past.export("Succeeded", ready="Succeeded", artifact={})
    assert past.judge().complaints == ()


def test_other_end_than_the_true_one_is_wrong_and_untrue() -> None:
    past = end_well(begin())
    past.export("Failed", "InternalError", ready="TargetsFailed")
    verdict = past.judge()
    assert verdict.wrong == (
        "shapes ONNX/FP16: Failed/InternalError at the end; it is Succeeded",
        "shapes: TargetsFailed at the end; it is Succeeded",
    )
    assert verdict.untrue == (
        "shapes ONNX/FP16: Failed/InternalError at 8: its Job had not failed",
        "shapes: Ready is Unknown/TargetsFailed: {'ONNX/FP16': 'Failed'}, and it is Succeeded",
    )


def test_success_without_a_file_is_wrong() -> None:
    past = end_well(begin())
    past.export("Succeeded", ready="Succeeded")
    assert past.judge().wrong == ("shapes ONNX/FP16: Succeeded without a file",)


def test_wrong_last_word_on_the_export_is_wrong() -> None:
    past = end_well(begin())
    past.export("Succeeded", artifact={})
    assert past.judge().wrong == ("shapes: Progressing at the end; it is Succeeded",)
    past.sights[-1].body["status"]["conditions"].clear()
    past.sights[-1].body["status"]["ready"] = "0/1"
    assert past.judge().wrong == ("shapes: 0/1 are ready at the end; 1 are",)


@pytest.mark.parametrize(
    ("state", "reason", "lie"),
    [
        ("Succeeded", "Succeeded", "its Job had not succeeded"),
        ("Failed", "InternalError", "its Job had not failed"),
        ("Pending", "NoSuitableNode", "nothing is missing"),
        ("Queued", "Unschedulable", "nothing is missing"),
    ],
)
def test_claim_before_its_time_is_untrue(state: str, reason: str, lie: str) -> None:
    past = begin()
    past.export(state, reason)
    assert past.judge().untrue[0].endswith(f"{state}/{reason} at 6: {lie}")


def test_running_before_the_pod_runs_is_untrue() -> None:
    past = Past()
    past.export()
    past.job()
    past.pod("Pending", waiting={})
    past.export("Running")
    assert past.judge().untrue == ("shapes ONNX/FP16: Running/Running at 4: its Pod had not started",)


def test_claim_that_was_true_a_moment_later_is_untrue() -> None:
    past = begin()
    past.export("Succeeded", ready="Succeeded", artifact={})
    assert len(end_well(past).judge().untrue) == 1


def test_end_that_is_taken_back_is_untrue() -> None:
    past = succeed()
    past.export("Running", ready="Succeeded")
    assert past.judge().untrue == ("shapes ONNX/FP16: Running/Running at 9: taken back: Succeeded/Succeeded",)


def test_missing_class_that_is_there_is_untrue() -> None:
    past = begin()
    past.export("Running", ready="ClassNotFound")
    assert past.judge().untrue == ("shapes: Ready is Unknown/ClassNotFound: nothing is missing",)


def test_doubt_of_a_witness_that_could_not_listen_is_no_lie() -> None:
    past = begin()
    past.export("Succeeded", ready="Succeeded", artifact={})
    end_well(past)
    gap = [Sight(s.at, s.kind, s.change, s.body, min(s.since, 5)) for s in past.sights]
    assert judge(gap, [ONE], TOLD, 0.0).untrue == ()


def test_lost_event_and_lost_count_are_untold() -> None:
    verdict = succeed().judge(told=Told((), counted=0))
    assert verdict.untold == ("shapes: no event Succeeded", "0 conversions are counted; it were 1")
    assert succeed().judge(told=Told({("shapes", "Succeeded")}, None)).untold == ()


def test_files_that_nobody_removed_are_untold() -> None:
    order = Order("shapes", ONE.ends, is_deleted=True)
    assert succeed().judge(order).untold == ("shapes: no event FilesRemoved",)
    assert succeed().judge(order, Told({("shapes", "FilesRemoved")}, 1)).untold == ()


def test_seconds_do_not_count_the_time_of_the_fault() -> None:
    assert succeed().judge(fault_end=7.75).seconds == 0.25
    assert succeed().judge(fault_end=100.0).seconds == 0.0


def test_seconds_count_the_wait_for_a_job() -> None:
    past = Past()
    for _ in range(5):
        past.export()
    past.job()
    past.pod("Succeeded", terminated={})
    past.job("Complete")
    past.export("Succeeded", ready="Succeeded", artifact={})
    assert past.judge().seconds == 5.0


def test_all_is_told_when_every_end_stands_in_a_status() -> None:
    assert is_all_told(succeed().sights, [ONE])
    assert not is_all_told(end_well(begin()).sights, [ONE])
