"""Reads the state of a target from its Job and Pods. Pure: no state exists outside of the objects."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from modelexport.api.reasons import Reason
from modelexport.api.result import ConversionResult
from modelexport.matrix.support import Target
from modelexport.names import QUEUE_LABEL
from modelexport.planning.progress import Progress
from modelexport.text import clean
from modelexport_operator.jobs.conversion_job import output_of
from modelexport_operator.jobs.diagnosis import Diagnosis, advise
from modelexport_operator.jobs.pod_failures import (
    explain_invalid_result,
    explain_pod_failure,
    explain_waiting,
    is_retried,
    is_running,
    parse_result,
    tail,
    terminated,
)
from modelexport_operator.kube.objects import Condition, Job, Pod
from modelexport_operator.kube.types import created

MESSAGE_LIMIT = 1024
"""Characters of a message in the status: nine targets stay far below the size limit of etcd."""
RELIST_DELAY = timedelta(seconds=1)
"""Pause before the Pods of an ended Job are listed, if the known ones do not show its outcome."""

DEADLINE_EXCEEDED = "DeadlineExceeded"
"""Reason of the Job controller (kubernetes, staging/src/k8s.io/api/batch/v1/types.go)."""


class State(StrEnum):
    """Where a target is; the last two states are final."""

    PENDING = "Pending"
    QUEUED = "Queued"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"

    @property
    def is_final(self) -> bool:
        """Whether the state does not change any more by itself."""
        return self in (State.SUCCEEDED, State.FAILED)


@dataclass(frozen=True)
class TargetState:
    """The state of one target; times are RFC 3339 text in UTC, as Kubernetes writes them.

    Only a running target has ``progress``.
    """

    target: Target
    state: State
    reason: Reason
    message: str
    job_name: str | None = None
    attempts: int = 0
    node_name: str | None = None
    start_time: str | None = None
    completion_time: str | None = None
    recipe: str | None = None
    result: ConversionResult | None = None
    progress: Progress | None = None


def observe_target(
    target: Target,
    job: Job,
    pods: Sequence[Pod],
    *,
    all_pods_listed: bool = False,
    previous: Diagnosis | None = None,
    pod_refusal: str | None = None,
    admission: Diagnosis | None = None,
) -> TargetState:
    """Return the state of a target.

    Args:
        target: the target.
        job: its Job.
        pods: the Pods of that Job, in any order.
        all_pods_listed: whether ``pods`` is complete: it was listed after the Job had ended.
        previous: the recorded reason, if the target was queued: a Job at its deadline removes its Pods, and only the
            status remembers why they waited.
        pod_refusal: the API server's message, if it refuses to create a Pod for the Job.
        admission: why Kueue lets the Job wait, if that is known.
    """
    ordered = sorted(pods, key=created)
    condition = _final_condition(job)
    if condition is None:
        return _observe_active(target, job, ordered, pod_refusal, admission)
    if not all_pods_listed and not is_outcome_known(job, ordered):
        return _target_state(target, job, ordered, State.RUNNING, Diagnosis(Reason.RUNNING, "The Job has ended"))
    if condition["type"] == "Complete":
        state, diagnosis = _observe_complete(job, ordered)
    else:
        state, diagnosis = State.FAILED, _explain_failure(job, condition, ordered, previous)
    return replace(_target_state(target, job, ordered, state, diagnosis), completion_time=completion_time(job))


def is_finished(job: Job) -> bool:
    """Return whether the Job controller is done with a Job."""
    return _final_condition(job) is not None


def kueue_queue_of(job: Job) -> str | None:
    """Return the Kueue queue of a Job, or ``None``; only Kueue starts and suspends a Job with a queue."""
    queue: str | None = (job["metadata"].get("labels") or {}).get(QUEUE_LABEL)
    return queue


def describe_start(queue: str | None) -> str:
    """Return the message for a new Job."""
    return f"Waits for Kueue to admit it from the queue {queue}" if queue else "The Job waits for its Pod"


def is_suspended(job: Job) -> bool:
    """Return whether a Job is suspended and only the operator can resume it."""
    is_leaving = job["metadata"].get("deletionTimestamp") is not None
    return bool(job["spec"].get("suspend")) and not kueue_queue_of(job) and not is_leaving and not is_finished(job)


def is_active(job: Job) -> bool:
    """Return whether a Job counts against the limits of its class: until it has ended, unless it is suspended."""
    return not is_finished(job) and not is_suspended(job)


def lacks_pod(job: Job, pods: Sequence[Pod]) -> bool:
    """Return whether the Job controller has started a Job without creating one of its ``pods`` yet."""
    status = job.get("status", {})
    is_begun = "startTime" in status and not status.get("active") and not job["metadata"].get("deletionTimestamp")
    return is_begun and not pods and not job["spec"].get("suspend") and not is_finished(job)


def is_failing(job: Job) -> bool:
    """Return whether the Job controller has given up a Job and only waits for its Pods to be removed."""
    return _condition(job, "FailureTarget") is not None and not is_finished(job)


def is_past_deadline(job: Job) -> bool:
    """Return whether the Job controller has given up a Job because of its deadline; its Pods may still exist."""
    condition = _condition(job, "FailureTarget", "Failed")
    return condition is not None and condition.get("reason") == DEADLINE_EXCEEDED


def is_outcome_known(job: Job, pods: Sequence[Pod]) -> bool:
    """Return whether a Job has ended and the known Pods show how.

    Jobs and Pods come from separate watches. If a Pod is missing, only a list shows whether it was deleted or has not
    been reported yet; no timeout does.
    """
    condition = _final_condition(job)
    if condition is None or condition.get("reason") == DEADLINE_EXCEEDED:
        return condition is not None
    phases = [pod.get("status", {}).get("phase") for pod in pods]
    if {"Pending", "Running"} & set(phases):
        return False
    if condition["type"] == "Complete":
        return "Succeeded" in phases
    return phases.count("Failed") >= max(1, job["status"].get("failed") or 0)


def has_lost_result(job: Job, pods: Sequence[Pod]) -> bool:
    """Return whether a conversion succeeded but its result is lost, given that ``pods`` is complete.

    A Pod that is evicted at its end is removed once the Job controller has counted it. The files it published remain.
    """
    condition = _final_condition(job)
    is_complete = condition is not None and condition["type"] == "Complete"
    return is_complete and all(pod.get("status", {}).get("phase") != "Succeeded" for pod in pods)


def completion_time(job: Job) -> str | None:
    """Return when a Job ended, as RFC 3339 text, or ``None`` if it has not ended."""
    condition = _final_condition(job)
    if condition is None:
        return None
    ended = job["status"].get("completionTime") or condition.get("lastTransitionTime")
    # Users with write access to Job status can omit both; the creation time is the best remaining value.
    return str(ended or job["metadata"].get("creationTimestamp"))


def _final_condition(job: Job) -> Condition | None:
    return _condition(job, "Complete", "Failed")


def _condition(job: Job, *types: str) -> Condition | None:
    """Return the first true condition of these types; all types that report a failure carry the same reason."""
    conditions: Sequence[Condition] = job.get("status", {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] in types and c["status"] == "True"), None)


def _observe_active(
    target: Target, job: Job, pods: Sequence[Pod], pod_refusal: str | None, admission: Diagnosis | None
) -> TargetState:
    if job["metadata"].get("deletionTimestamp"):
        diagnosis = Diagnosis(Reason.PENDING, "Waits until the deleted Job is gone, then starts again")
        return _target_state(target, job, pods, State.PENDING, diagnosis)
    if job["spec"].get("suspend") and (queue := kueue_queue_of(job)):
        diagnosis = admission or Diagnosis(Reason.QUEUED, describe_start(queue))
        return _target_state(target, job, pods, State.QUEUED, diagnosis)
    if job["spec"].get("suspend"):
        diagnosis = Diagnosis(Reason.SUSPENDED, "Suspended; set spec.suspend: false to go on")
        return _target_state(target, job, pods, State.PENDING, diagnosis)
    pod = next((pod for pod in reversed(pods) if pod.get("status", {}).get("phase") in ("Pending", "Running")), None)
    if pod is not None and is_running(pod):
        diagnosis = Diagnosis(Reason.RUNNING, f"The converter runs on node {pod['spec'].get('nodeName', '')}")
        return _target_state(target, job, pods, State.RUNNING, diagnosis)
    if pod is None and pods and not _will_retry(job, pods):
        return _target_state(target, job, pods, State.RUNNING, Diagnosis(Reason.RUNNING, "The converter has ended"))
    if pod is not None:
        diagnosis = explain_waiting(pod)
    elif pods:
        failure = explain_pod_failure(pods[-1])
        diagnosis = Diagnosis(Reason.RETRYING, f"Tries again after {failure.reason}: {failure.message}")
    elif pod_refusal:
        diagnosis = advise(Diagnosis(Reason.POD_REFUSED, f"The API server refuses the Job's Pod: {pod_refusal}"))
    else:
        diagnosis = Diagnosis(Reason.QUEUED, describe_start(None))
    return _target_state(target, job, pods, State.QUEUED, diagnosis)


def _will_retry(job: Job, pods: Sequence[Pod]) -> bool:
    """Return whether the Job controller will start another Pod after the last one, by the policy of the Job."""
    if pods[-1].get("status", {}).get("phase") != "Failed" or is_failing(job):
        return False
    failures: int = job.get("status", {}).get("failed") or 0
    return is_retried(pods[-1]) and failures <= (job["spec"].get("backoffLimit") or 0)


def _observe_complete(job: Job, pods: Sequence[Pod]) -> tuple[State, Diagnosis]:
    pod = next((pod for pod in pods if pod.get("status", {}).get("phase") == "Succeeded"), None)
    if pod is None:
        lost = "The conversion ended well twice, but each time its Pod was gone before its result was read"
        return State.FAILED, Diagnosis(Reason.INTERNAL_ERROR, f"{lost}; delete its Jobs to repeat it")
    ended, output = terminated(pod), output_of(job)
    result = parse_result(ended, output)
    if result is None or not result.succeeded:
        left = f"no result{explain_invalid_result(ended, output)}: {tail(ended.get('message') or '')}"
        silent = f"The converter ended well, but left {left}"
        return State.FAILED, advise(Diagnosis(Reason.INTERNAL_ERROR, silent))
    return State.SUCCEEDED, Diagnosis(Reason.SUCCEEDED, result.message, result)


def _explain_failure(job: Job, condition: Condition, pods: Sequence[Pod], previous: Diagnosis | None) -> Diagnosis:
    if condition.get("reason") == DEADLINE_EXCEEDED:
        seconds = job["spec"].get("activeDeadlineSeconds")
        if previous is not None and previous.reason in _WAITING_REASONS:
            return Diagnosis(previous.reason, f"{previous.message} (given up after {seconds} s)")
        unseen = " and was not seen to start" if previous is not None and previous.reason is Reason.QUEUED else ""
        return advise(Diagnosis(Reason.DEADLINE_EXCEEDED, f"The conversion did not end within {seconds} s{unseen}"))
    failed = [pod for pod in pods if pod.get("status", {}).get("phase") == "Failed"]
    if not failed:
        words = f"The Job failed: {condition.get('reason')}: {condition.get('message', '')}"
        return advise(Diagnosis(Reason.INTERNAL_ERROR, words))
    diagnosis = explain_pod_failure(failed[-1])
    if condition.get("reason") == "BackoffLimitExceeded":
        diagnosis = replace(
            diagnosis, message=f"{diagnosis.message.rstrip(' .')} (given up after {_attempts(job)} attempts)"
        )
    return advise(diagnosis)


_WAITING_REASONS = (Reason.UNSCHEDULABLE, Reason.IMAGE_PULL_FAILED, Reason.POD_START_FAILED, Reason.POD_REFUSED)


def _target_state(target: Target, job: Job, pods: Sequence[Pod], state: State, diagnosis: Diagnosis) -> TargetState:
    status = job.get("status", {})
    return TargetState(
        target=target,
        state=state,
        reason=diagnosis.reason,
        message=shorten(diagnosis.message),
        job_name=job["metadata"]["name"],
        attempts=_attempts(job),
        node_name=next((pod["spec"]["nodeName"] for pod in reversed(pods) if pod["spec"].get("nodeName")), None),
        start_time=status.get("startTime"),
        recipe=diagnosis.result.recipe if diagnosis.result else None,
        result=diagnosis.result,
    )


def _attempts(job: Job) -> int:
    status = job.get("status", {})
    return (status.get("active") or 0) + (status.get("succeeded") or 0) + (status.get("failed") or 0)


def shorten(text: str) -> str:
    """Clean a message and cut it to the limit of a status."""
    return clean(text, MESSAGE_LIMIT)
