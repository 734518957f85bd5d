"""Explains why Kueue lets a Job wait, from the conditions of the Job's Workload. Pure.

Kueue creates a Workload for each Job in one of its queues and reports progress in its conditions; types and reasons are
those of kueue v0.17.0, apis/kueue/v1beta2/workload_types.go. There is no reason for a Job that exceeds every quota:
only the scheduler's message says so (pkg/scheduler/scheduler.go and flavorassigner/).
"""

from collections.abc import Sequence

from modelexport.api.reasons import Reason
from modelexport.names import WORKLOAD_PRIORITY_LABEL
from modelexport_operator.jobs.diagnosis import Diagnosis, advise
from modelexport_operator.jobs.state import describe_start, is_finished, kueue_queue_of
from modelexport_operator.kube.objects import Condition, Job, Workload
from modelexport_operator.kube.types import created

IN_USE = "insufficient unused quota"
"""Kueue's message if the quota suffices once other Jobs return their share."""
NEVER_FITS = (
    "insufficient quota for",
    "unavailable in ClusterQueue",
    "doesn't match ClusterQueue selector",
    "doesn't match node affinity",
    "untolerated taint",
    "resources validation failed",
    "resources didn't satisfy LimitRange constraints",
)
"""Kueue's messages for a Job that waiting does not help: the queue, its quota or its flavors have to change."""
STOPPED = ("ClusterQueueStopped", "LocalQueueStopped", "Deactivated")
"""Reasons of an eviction after which an administrator has to act before the Job can run again."""


def waits_for_kueue(job: Job) -> bool:
    """Return whether a Job is suspended and only Kueue can resume it."""
    is_leaving = job["metadata"].get("deletionTimestamp") is not None
    return (
        kueue_queue_of(job) is not None and bool(job["spec"].get("suspend")) and not is_leaving and not is_finished(job)
    )


def explain_kueue(job: Job, workloads: Sequence[Workload]) -> Diagnosis:
    """Return why Kueue lets a Job wait.

    Args:
        job: a Job that waits for Kueue.
        workloads: the Workloads whose controller it is, in any order; usually one.
    """
    queue = kueue_queue_of(job) or ""
    if not workloads:
        priority = job["metadata"]["labels"].get(WORKLOAD_PRIORITY_LABEL)
        missing = f", and does the WorkloadPriorityClass {priority} exist" if priority else ""
        words = f"Kueue has made no Workload for the Job: does Kueue run{missing}?"
        return Diagnosis(Reason.QUEUED, f"{describe_start(queue)}. {words}")
    workload = max(workloads, key=created)
    diagnoses = (explain(workload, queue) for explain in (_explain_inadmissible, _explain_evicted, _explain_reserved))
    if diagnosis := next((diagnosis for diagnosis in diagnoses if diagnosis is not None), None):
        return diagnosis
    words = _words(_condition(workload, "QuotaReserved", "False"))
    waits = f"Waits for quota in the queue {queue}" if IN_USE in words else describe_start(queue)
    return Diagnosis(Reason.QUEUED, f"{waits}: {words}".rstrip(" :"))


def _explain_inadmissible(workload: Workload, queue: str) -> Diagnosis | None:
    """Explain what does not resolve itself: a missing or stopped queue, or a quota that can never fit the Job."""
    words = _words(_condition(workload, "QuotaReserved", "False", "Inadmissible"))
    words = words or _words(_condition(workload, "Evicted", "True", *STOPPED))
    if not words:
        pending = _words(_condition(workload, "QuotaReserved", "False"))
        never_fits = IN_USE not in pending and any(never in pending for never in NEVER_FITS)
        words = pending if never_fits else ""
    if not words:
        return None
    return advise(Diagnosis(Reason.INADMISSIBLE, f"Kueue cannot admit it from the queue {queue}: {words}"))


def _explain_evicted(workload: Workload, queue: str) -> Diagnosis | None:
    """Explain that the Job ran and waits again; the condition stays until quota is reserved again."""
    evicted = _condition(workload, "Evicted", "True")
    if evicted is None:
        return None
    again = f"and it waits in the queue {queue} again"
    if evicted.get("reason") == "Preempted":
        return Diagnosis(Reason.PREEMPTED, f"Kueue preempted it, {again}: {_words(evicted)}")
    return Diagnosis(Reason.QUEUED, f"Kueue evicted it, {again}: {evicted.get('reason')}: {_words(evicted)}")


def _explain_reserved(workload: Workload, queue: str) -> Diagnosis | None:
    """Explain which admission checks are missing once quota is reserved."""
    checks = [check for check in workload["status"].get("admissionChecks") or () if check.get("state") != "Ready"]
    if not checks or _condition(workload, "QuotaReserved", "True") is None:
        return None
    states = (f"{check.get('name')} is {check.get('state')}: {check.get('message') or ''}" for check in checks)
    listed = "; ".join(state.rstrip(" :") for state in states)
    return Diagnosis(Reason.QUEUED, f"Waits for the admission checks of the queue {queue}: {listed}")


def _condition(workload: Workload, kind: str, status: str, *reasons: str) -> Condition | None:
    """Return the condition of a type with a status and, if given, one of these reasons."""
    conditions: Sequence[Condition] = workload["status"].get("conditions") or ()
    found = (c for c in conditions if (c.get("type"), c.get("status")) == (kind, status))
    return next((c for c in found if not reasons or c.get("reason") in reasons), None)


def _words(condition: Condition | None) -> str:
    return str(condition.get("message") or "") if condition else ""
