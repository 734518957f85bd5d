"""The judge of the fault suite: each complaint follows from a history that deserves it, and from no other."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from faults.history import Denial, Sight
from faults.judge import Order, Reported, Verdict, is_all_reported, judge

ONE = Order("shapes", {"ONNX/FP16": "Succeeded"})
REPORTED = Reported({("shapes", "Succeeded")}, counted=1)


class Past:
    """Builds a history: every state is one version and one second after the last one."""

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

    def judge(
        self,
        order: Order = ONE,
        reported: Reported = REPORTED,
        fault_end: float = 0.0,
        stored: Mapping[str, str] | None = None,
    ) -> Verdict:
        return judge(self.sights, [order], reported, fault_end, stored=stored)


LABELS = {
    "modelexport.dev/export": "shapes",
    "modelexport.dev/format": "ONNX",
    "modelexport.dev/precision": "FP16",
}


def begin() -> Past:
    """An export whose Job has a running Pod."""
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


def test_true_history_has_no_complaint() -> None:
    verdict = succeed().judge()
    assert verdict.complaints == ()
    assert verdict.seconds == 1.0


def test_reported_failure_has_no_complaint() -> None:
    past = begin()
    past.pod("Failed", terminated={})
    past.job("FailureTarget")
    past.job("Failed")
    past.export("Failed", "VerificationFailed", ready="TargetsFailed")
    order = Order("shapes", {"ONNX/FP16": "VerificationFailed"})
    assert past.judge(order, Reported({("shapes", "TargetsFailed")}, 1)).complaints == ()


def test_unfinished_target_is_lost() -> None:
    verdict = end_well(begin()).judge()
    assert verdict.lost == ("shapes ONNX/FP16: its last status says Running",)
    assert verdict.seconds == math.inf


def test_unseen_export_is_lost() -> None:
    assert Past().judge().lost == ("shapes ONNX/FP16: its last status says nothing",)


def test_deletion_before_ttl_is_loss() -> None:
    past = succeed()
    past.see("modelexports", "DELETED")
    assert past.judge().lost == ("shapes: deleted 2 s after its end; its TTL is None",)
    ttl = Order("shapes", ONE.ends, ttl=300)
    assert past.judge(ttl).lost == ("shapes: deleted 2 s after its end; its TTL is 300",)
    assert past.judge(Order("shapes", ONE.ends, ttl=2)).lost == ()
    assert past.judge(Order("shapes", ONE.ends, is_deleted=True)).lost == ()


def test_two_simultaneous_jobs_are_duplicate() -> None:
    past = succeed()
    past.sights.insert(2, Sight(2.0, "jobs", "ADDED", {"metadata": {**past.sights[1].body["metadata"], "uid": "x"}}, 2))
    assert past.judge().double == ("shapes ONNX/FP16: two Jobs at once",)


def test_job_after_reported_success_is_duplicate() -> None:
    past = succeed()
    past.job(change="DELETED")
    past.job(uid="job-2")
    assert past.judge().double == ("shapes ONNX/FP16: a new Job after its success was reported",)


def test_job_replacing_deleted_one_is_no_duplicate() -> None:
    past = begin()
    past.job(change="DELETED")
    past.job(uid="job-2")
    past.pod("Succeeded", terminated={})
    past.job("Complete", uid="job-2")
    past.export("Succeeded", ready="Succeeded", artifact={})
    assert past.judge().complaints == ()


def test_false_outcome_is_wrong_and_untrue() -> None:
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


def test_success_without_file_is_wrong() -> None:
    past = end_well(begin())
    past.export("Succeeded", ready="Succeeded")
    assert past.judge().wrong == ("shapes ONNX/FP16: Succeeded without a file",)


def test_wrong_final_status_of_export_is_wrong() -> None:
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
def test_premature_status_is_untrue(state: str, reason: str, lie: str) -> None:
    past = begin()
    past.export(state, reason)
    assert past.judge().untrue[0].endswith(f"{state}/{reason} at 6: {lie}")


def test_running_before_pod_runs_is_untrue() -> None:
    past = Past()
    past.export()
    past.job()
    past.pod("Pending", waiting={})
    past.export("Running")
    assert past.judge().untrue == ("shapes ONNX/FP16: Running/Running at 4: its Pod had not started",)


def test_status_true_only_later_is_untrue() -> None:
    past = begin()
    past.export("Succeeded", ready="Succeeded", artifact={})
    assert len(end_well(past).judge().untrue) == 1


def test_retry_is_true_only_after_failure() -> None:
    past = begin()
    past.export("Queued", "Retrying")
    assert past.judge().untrue == ("shapes ONNX/FP16: Queued/Retrying at 6: nothing is missing",)
    past = begin()
    past.pod("Failed", terminated={})
    past.export("Queued", "Retrying")
    assert past.judge().untrue == ()


def test_retry_is_true_after_denied_job() -> None:
    past = Past()
    past.export()
    past.export("Pending", "Retrying")
    denial = Denial(1.5, {"metadata": {"labels": LABELS}})
    assert judge(past.sights, [ONE], REPORTED, 0.0, denials=[denial]).untrue == ()
    late = Denial(2.5, denial.job)
    assert judge(past.sights, [ONE], REPORTED, 0.0, denials=[late]).untrue == (
        "shapes ONNX/FP16: Pending/Retrying at 2: nothing is missing",
    )


def test_retry_is_untrue_once_denied_job_exists() -> None:
    past = begin()
    past.export("Queued", "Retrying")
    denial = Denial(1.5, {"metadata": {"labels": LABELS}})
    assert len(judge(past.sights, [ONE], REPORTED, 0.0, denials=[denial]).untrue) == 1


def test_file_missing_from_store_is_wrong() -> None:
    past = end_well(begin())
    past.export("Succeeded", ready="Succeeded", artifact={"uri": "s3://b/f", "sha256": "12"}, reportURI="s3://b/r")
    assert past.judge(stored={"s3://b/f": "12", "s3://b/r": "ab"}).complaints == ()
    assert past.judge(stored={"s3://b/f": "34"}).wrong == (
        "shapes ONNX/FP16: its file is 34 in the store, not 12",
        "shapes ONNX/FP16: its report is not in the store",
    )
    assert past.judge(stored={"s3://b/r": "ab"}).wrong == (
        "shapes ONNX/FP16: its file is nothing in the store, not 12",
    )


def test_file_in_store_but_not_in_status_is_wrong() -> None:
    past = end_well(begin())
    past.export("Succeeded", ready="Succeeded", artifact={"uri": "s3://b/f", "sha256": "12"}, reportURI="s3://b/r")
    stored = {"s3://b/f": "12", "s3://b/r": "ab", "s3://b/half": "56"}
    assert past.judge(stored=stored).wrong == ("s3://b/half: it is in the store, and no status tells of it",)


def test_withdrawn_outcome_is_untrue() -> None:
    past = succeed()
    past.export("Running", ready="Succeeded")
    assert past.judge().untrue == ("shapes ONNX/FP16: Running/Running at 9: taken back: Succeeded/Succeeded",)


def test_class_reported_missing_but_present_is_untrue() -> None:
    past = begin()
    past.export("Running", ready="ClassNotFound")
    assert past.judge().untrue == ("shapes: Ready is Unknown/ClassNotFound: nothing is missing",)


def test_gap_in_witness_record_is_no_violation() -> None:
    past = begin()
    past.export("Succeeded", ready="Succeeded", artifact={})
    end_well(past)
    gap = [Sight(s.at, s.kind, s.change, s.body, min(s.since, 5)) for s in past.sights]
    assert judge(gap, [ONE], REPORTED, 0.0).untrue == ()


def test_lost_event_and_lost_count_are_unreported() -> None:
    verdict = succeed().judge(reported=Reported((), counted=0))
    assert verdict.unreported == ("shapes: no event Succeeded", "0 conversions are counted; it were 1")
    assert succeed().judge(reported=Reported({("shapes", "Succeeded")}, None)).unreported == ()


def test_files_left_after_deletion_are_unreported() -> None:
    order = Order("shapes", ONE.ends, is_deleted=True)
    assert succeed().judge(order).unreported == ("shapes: no event FilesRemoved",)
    assert succeed().judge(order, Reported({("shapes", "FilesRemoved")}, 1)).unreported == ()


def test_recovery_time_excludes_fault() -> None:
    assert succeed().judge(fault_end=7.75).seconds == 0.25
    assert succeed().judge(fault_end=100.0).seconds == 0.0


def test_recovery_time_includes_wait_for_job() -> None:
    past = Past()
    for _ in range(5):
        past.export()
    past.job()
    past.pod("Succeeded", terminated={})
    past.job("Complete")
    past.export("Succeeded", ready="Succeeded", artifact={})
    assert past.judge().seconds == 5.0


def test_recovery_ends_when_every_outcome_is_in_status() -> None:
    assert is_all_reported(succeed().sights, [ONE])
    assert not is_all_reported(end_well(begin()).sights, [ONE])
