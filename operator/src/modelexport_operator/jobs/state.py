"""From a Job and its Pods, as observed, to the state of one target. Pure: no state survives outside the objects."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from modelexport.matrix import Target
from modelexport.names import QUEUE_LABEL
from modelexport.reasons import Reason
from modelexport.result import ConversionResult
from modelexport.text import clean
from modelexport_operator.manifests import output_of
from modelexport_operator.pods import (
    Finding,
    Object,
    advise,
    created,
    explain_disbelief,
    explain_pod_failure,
    explain_waiting,
    is_at_work,
    is_retried,
    parse_result,
    tail,
    terminated,
)

MESSAGE_LIMIT = 1024
"""Characters of a message in the status: nine targets stay far below the size that etcd likes."""
LOOK_AGAIN = timedelta(seconds=1)
"""How soon the API server is asked for the Pods of a Job that has just ended, if they do not tell of its end before."""

DEADLINE_EXCEEDED = "DeadlineExceeded"
"""Reason of the Job controller (kubernetes, staging/src/k8s.io/api/batch/v1/types.go)."""


class State(StrEnum):
    """Where a target is; the last two are final."""

    PENDING = "Pending"
    QUEUED = "Queued"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more by itself."""
        return self in (State.SUCCEEDED, State.FAILED)


@dataclass(frozen=True)
class TargetState:
    """What is known of one target; times are RFC 3339 text in UTC, as Kubernetes writes them."""

    target: Target
    state: State
    reason: Reason
    message: str
    job_name: str | None = None
    attempts: int = 0
    node_name: str | None = None
    start_time: str | None = None
    completion_time: str | None = None
    scheme: str | None = None
    result: ConversionResult | None = None


def observe_target(
    target: Target,
    job: Object,
    pods: Sequence[Object],
    *,
    is_all: bool = False,
    was: Finding | None = None,
    refusal: str | None = None,
) -> TargetState:
    """Say where a target is.

    Args:
        target: the target.
        job: its Job.
        pods: the Pods of that Job, in any order.
        is_all: whether these are all Pods that it has, as the API server has said since the Job ended.
        was: what the status said before, if the target was waiting then: a Job that runs into its deadline takes its
            Pods with it, and only the status remembers what they waited for.
        refusal: the API server's words, if it does not let the Job have a Pod.
    """
    ordered = sorted(pods, key=created)
    condition = _final_condition(job)
    if condition is None:
        return _observe_active(target, job, ordered, refusal)
    if not is_all and not tells_end(job, ordered):
        return _target_state(target, job, ordered, State.RUNNING, Finding(Reason.RUNNING, "The Job has ended"))
    if condition["type"] == "Complete":
        state, finding = _observe_complete(job, ordered)
    else:
        state, finding = State.FAILED, _explain_failure(job, condition, ordered, was)
    return replace(_target_state(target, job, ordered, state, finding), completion_time=completion_time(job))


def is_finished(job: Object) -> bool:
    """Whether the Job controller is done with a Job."""
    return _final_condition(job) is not None


def queue_of(job: Object) -> str | None:
    """The queue of Kueue that a Job stands in; then Kueue alone decides when it runs, and when it is suspended."""
    queue: str | None = (job["metadata"].get("labels") or {}).get(QUEUE_LABEL)
    return queue


def describe_start(queue: str | None) -> str:
    """Say what a Job that is just made waits for."""
    return f"Waits for Kueue to admit it from the queue {queue}" if queue else "The Job waits for its Pod"


def is_stopped(job: Object) -> bool:
    """Whether a Job can go on as soon as it is no longer suspended, and nobody but the operator will see to that."""
    is_leaving = job["metadata"].get("deletionTimestamp") is not None
    return bool(job["spec"].get("suspend")) and not queue_of(job) and not is_leaving and not is_finished(job)


def is_on_its_way(job: Object) -> bool:
    """Whether a Job counts against the limits of its class: until it has ended, unless it is stopped."""
    return not is_finished(job) and not is_stopped(job)


def lacks_pod(job: Object, pods: Sequence[Object]) -> bool:
    """Whether the Job controller has begun with a Job, and none of its ``pods`` has been made yet."""
    status = job.get("status", {})
    is_begun = "startTime" in status and not status.get("active") and not job["metadata"].get("deletionTimestamp")
    return is_begun and not pods and not job["spec"].get("suspend") and not is_finished(job)


def is_failing(job: Object) -> bool:
    """Whether the Job controller has given a Job up and only waits for its Pods to go."""
    return _condition(job, "FailureTarget") is not None and not is_finished(job)


def is_overdue(job: Object) -> bool:
    """Whether the Job controller has given a Job up because of its deadline; its Pods may still be there."""
    condition = _condition(job, "FailureTarget", "Failed")
    return condition is not None and condition.get("reason") == DEADLINE_EXCEEDED


def tells_end(job: Object, pods: Sequence[Object]) -> bool:
    """Whether a Job has ended and the Pods in sight tell how.

    Jobs and Pods come by separate watches. Where a Pod is missing in sight no clock tells whether it is gone or was not
    heard of yet; the API server does.
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


def has_lost_result(job: Object, pods: Sequence[Object]) -> bool:
    """Whether a conversion ended well and, if ``pods`` are all that it has, its result went with its Pod.

    A Pod that is evicted as it ends goes as soon as the Job controller has counted it. What it published is there.
    """
    condition = _final_condition(job)
    is_complete = condition is not None and condition["type"] == "Complete"
    return is_complete and all(pod.get("status", {}).get("phase") != "Succeeded" for pod in pods)


def completion_time(job: Object) -> str | None:
    """When a Job ended, as RFC 3339 text; ``None`` while it has not."""
    condition = _final_condition(job)
    if condition is None:
        return None
    told = job["status"].get("completionTime") or condition.get("lastTransitionTime")
    # Whoever may write the status of a Job can leave both out; when it was made is then the best that is known.
    return str(told or job["metadata"].get("creationTimestamp"))


def _final_condition(job: Object) -> Object | None:
    return _condition(job, "Complete", "Failed")


def _condition(job: Object, *types: str) -> Object | None:
    """The first condition of these types that holds; what made a Job fail is the same in all that tell of it."""
    conditions: Sequence[Object] = job.get("status", {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] in types and c["status"] == "True"), None)


def _observe_active(target: Target, job: Object, pods: Sequence[Object], refusal: str | None) -> TargetState:
    if job["metadata"].get("deletionTimestamp"):
        finding = Finding(Reason.PENDING, "Waits until the deleted Job is gone, then starts again")
        return _target_state(target, job, pods, State.PENDING, finding)
    if job["spec"].get("suspend") and (queue := queue_of(job)):
        return _target_state(target, job, pods, State.QUEUED, Finding(Reason.QUEUED, describe_start(queue)))
    if job["spec"].get("suspend"):
        finding = Finding(Reason.SUSPENDED, "Suspended; set spec.suspend: false to go on")
        return _target_state(target, job, pods, State.PENDING, finding)
    pod = next((pod for pod in reversed(pods) if pod.get("status", {}).get("phase") in ("Pending", "Running")), None)
    if pod is not None and is_at_work(pod):
        finding = Finding(Reason.RUNNING, f"The converter runs on node {pod['spec'].get('nodeName', '')}")
        return _target_state(target, job, pods, State.RUNNING, finding)
    if pod is None and pods and not _will_retry(job, pods):
        return _target_state(target, job, pods, State.RUNNING, Finding(Reason.RUNNING, "The converter has ended"))
    finding = explain_waiting(pod) if pod else _explain_no_pod(pods, refusal)
    return _target_state(target, job, pods, State.QUEUED, finding)


def _will_retry(job: Object, pods: Sequence[Object]) -> bool:
    """Whether the Job controller will start another Pod after the last one, as the policy of the Job says."""
    if pods[-1].get("status", {}).get("phase") != "Failed" or is_failing(job):
        return False
    failures: int = job.get("status", {}).get("failed") or 0
    return is_retried(pods[-1]) and failures <= (job["spec"].get("backoffLimit") or 0)


def _explain_no_pod(pods: Sequence[Object], refusal: str | None) -> Finding:
    if not pods and refusal:
        return advise(Finding(Reason.POD_REFUSED, f"The API server refuses the Job's Pod: {refusal}"))
    if not pods:
        return Finding(Reason.QUEUED, describe_start(None))
    failure = explain_pod_failure(pods[-1])
    return Finding(Reason.RETRYING, f"Tries again after {failure.reason}: {failure.message}")


def _observe_complete(job: Object, pods: Sequence[Object]) -> tuple[State, Finding]:
    pod = next((pod for pod in pods if pod.get("status", {}).get("phase") == "Succeeded"), None)
    if pod is None:
        lost = "The conversion ended well twice, but each time its Pod was gone before its result was read"
        lost = f"{lost}; delete its Jobs to repeat it"
        return State.FAILED, Finding(Reason.INTERNAL_ERROR, lost)
    ended, output = terminated(pod), output_of(job)
    result = parse_result(ended, output)
    if result is None or not result.succeeded:
        left = f"no result{explain_disbelief(ended, output)}: {tail(ended.get('message') or '')}"
        silent = f"The converter ended well, but left {left}"
        return State.FAILED, advise(Finding(Reason.INTERNAL_ERROR, silent))
    return State.SUCCEEDED, Finding(Reason.SUCCEEDED, result.message, result)


def _explain_failure(job: Object, condition: Object, pods: Sequence[Object], was: Finding | None) -> Finding:
    if condition.get("reason") == DEADLINE_EXCEEDED:
        return _explain_deadline(job, was)
    failed = [pod for pod in pods if pod.get("status", {}).get("phase") == "Failed"]
    if not failed:
        words = f"The Job failed: {condition.get('reason')}: {condition.get('message', '')}"
        return advise(Finding(Reason.INTERNAL_ERROR, words))
    finding = explain_pod_failure(failed[-1])
    if condition.get("reason") == "BackoffLimitExceeded":
        finding = replace(finding, message=f"{finding.message.rstrip(' .')} (given up after {_attempts(job)} attempts)")
    return advise(finding)


def _explain_deadline(job: Object, was: Finding | None) -> Finding:
    seconds = job["spec"].get("activeDeadlineSeconds")
    if was is not None and was.reason in _WAITING_REASONS:
        return Finding(was.reason, f"{was.message} (given up after {seconds} s)")
    unseen = " and was not seen to start" if was is not None and was.reason is Reason.QUEUED else ""
    return advise(Finding(Reason.DEADLINE_EXCEEDED, f"The conversion did not end within {seconds} s{unseen}"))


_WAITING_REASONS = (Reason.UNSCHEDULABLE, Reason.IMAGE_PULL_FAILED, Reason.POD_START_FAILED, Reason.POD_REFUSED)


def _target_state(target: Target, job: Object, pods: Sequence[Object], state: State, finding: Finding) -> TargetState:
    status = job.get("status", {})
    return TargetState(
        target=target,
        state=state,
        reason=finding.reason,
        message=shorten(finding.message),
        job_name=job["metadata"]["name"],
        attempts=_attempts(job),
        node_name=next((pod["spec"]["nodeName"] for pod in reversed(pods) if pod["spec"].get("nodeName")), None),
        start_time=status.get("startTime"),
        scheme=finding.result.scheme if finding.result else None,
        result=finding.result,
    )


def _attempts(job: Object) -> int:
    status = job.get("status", {})
    return sum(status.get(key) or 0 for key in ("active", "succeeded", "failed"))


def shorten(text: str) -> str:
    """Clean a message, and cut it to what a status may hold."""
    return clean(text, MESSAGE_LIMIT)
