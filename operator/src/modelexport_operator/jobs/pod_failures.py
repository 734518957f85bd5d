"""Explains Pods: why a Pod waits, why it failed, and the result of its converter. Pure."""

from collections.abc import Mapping

from modelexport.api.reasons import Reason
from modelexport.api.result import ConversionResult
from modelexport.names import PERMANENT_EXIT_CODES, PUBLISH
from modelexport.text import clean
from modelexport_operator.jobs.conversion_job import CONTAINER, CONTAINERS, STEPS
from modelexport_operator.jobs.diagnosis import Diagnosis, advise
from modelexport_operator.kube.objects import ContainerState, ContainerStateTerminated, Pod

LAST_CONTAINERS = (PUBLISH, CONTAINER)
"""The last container of our Pods: of a conversion, or of any other work."""

IMAGE_PULL_REASONS = frozenset(
    (
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    )
)
"""The kubelet's reasons for an image that it cannot pull (kubernetes, pkg/kubelet/images/types.go)."""
START_REASONS = frozenset(
    (
        "CreateContainerConfigError",
        "CreateContainerError",
        "CreatePodSandboxError",
        "PostStartHookError",
        "PreCreateHookError",
        "PreStartHookError",
        "RunContainerError",
    )
)
"""The kubelet's reasons for a container that it cannot start (kubernetes, pkg/kubelet/kuberuntime)."""


def explain_waiting(pod: Pod) -> Diagnosis:
    """Return why a Pod waits; a cause that a user has to fix gets its own reason and advice."""
    for condition in pod["status"].get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return advise(Diagnosis(Reason.UNSCHEDULABLE, f"No node takes the Pod: {condition.get('message', '')}"))
    for waiting in (state.get("waiting") or {} for state in _states(pod).values()):
        detail = f"{waiting.get('reason')}: {waiting.get('message', '')}"
        if waiting.get("reason") in IMAGE_PULL_REASONS:
            return advise(Diagnosis(Reason.IMAGE_PULL_FAILED, f"The converter's image cannot be pulled: {detail}"))
        if waiting.get("reason") in START_REASONS:
            return advise(Diagnosis(Reason.POD_START_FAILED, f"The converter cannot start: {detail}"))
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    return Diagnosis(Reason.QUEUED, f"The Pod is being prepared; see kubectl describe pod {name} -n {namespace}")


def is_running(pod: Pod) -> bool:
    """Return whether a Pod converts.

    The phase stays ``Pending`` until the last container starts, so the states of the others count, too.
    """
    phase, states = pod.get("status", {}).get("phase"), _states(pod).values()
    has_begun = any(map(_has_begun, states))
    return phase == "Running" or (phase == "Pending" and has_begun and not is_in_trouble(pod))


def latest_step(pod: Pod) -> tuple[str, str | None] | None:
    """Return the last started step of a conversion and its start time by the kubelet, or ``None``."""
    begun = [(name, state) for name, state in _states(pod).items() if name in STEPS and _has_begun(state)]
    if not begun:
        return None
    name, state = begun[-1]
    return name, (state.get("running") or state.get("terminated") or {}).get("startedAt")


def is_in_trouble(pod: Pod) -> bool:
    """Return whether a Pod failed, or waits for something that a user has to fix."""
    phase = pod.get("status", {}).get("phase")
    return phase == "Failed" or (phase == "Pending" and explain_waiting(pod).reason is not Reason.QUEUED)


def explain_pod_failure(pod: Pod) -> Diagnosis:
    """Return why a Pod failed: the cluster's reason first, then the converter's result, then its last log."""
    if diagnosis := _out_of_memory(pod) or _disrupted(pod):
        return diagnosis
    ended = terminated(pod)
    result = parse_result(ended)
    if result is not None and not result.succeeded:
        return Diagnosis(result.reason, result.message, result)
    if diagnosis := _not_started(pod):
        return diagnosis
    code, text = ended.get("exitCode", "unknown"), tail(ended.get("message") or "")
    left = f"without a result{explain_invalid_result(ended)}: {text}"
    return Diagnosis(Reason.INTERNAL_ERROR, f"The converter ended with exit code {code} and {left}")


def is_retried(pod: Pod) -> bool:
    """Return whether another Pod follows a failed one: the policy of its Job checks the exit code first."""
    return terminated(pod).get("exitCode") not in PERMANENT_EXIT_CODES


def _out_of_memory(pod: Pod) -> Diagnosis | None:
    if terminated(pod).get("reason") != "OOMKilled":
        return None
    spec, name = pod["spec"], _decisive_container(pod)
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    limits: Mapping[str, str] = next(
        (one.get("resources", {}).get("limits", {}) for one in containers if one["name"] == name), {}
    )
    limit = limits.get("memory", "its limit")
    return Diagnosis(Reason.OOM_KILLED, f"The converter needed more than {limit} of memory and was killed")


def _disrupted(pod: Pod) -> Diagnosis | None:
    if not is_retried(pod):
        return None  # The converter had already reported its result, which decides for the Job.
    status = pod.get("status", {})
    if status.get("reason") == "Evicted":
        return Diagnosis(Reason.EVICTED, f"The Pod was evicted: {status.get('message', '')}")
    for condition in status.get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            detail = f"{condition.get('reason')}: {condition.get('message', '')}"
            return Diagnosis(Reason.EVICTED, f"The Pod was taken from its node: {detail}")
    return None


def _not_started(pod: Pod) -> Diagnosis | None:
    status, ended = pod.get("status", {}), terminated(pod)
    if status.get("reason"):
        return Diagnosis(Reason.POD_START_FAILED, f"{status['reason']}: {status.get('message', '')}")
    if ended.get("reason") in ("ContainerCannotRun", "StartError"):
        return Diagnosis(Reason.POD_START_FAILED, f"{ended['reason']}: {tail(ended.get('message', ''))}")
    return None


def parse_result(ended: ContainerStateTerminated, output: str | None = None) -> ConversionResult | None:
    """Parse the termination message of a container as ``ConversionResult.from_json``; ``None`` if it is invalid."""
    try:
        return _read_result(ended, output)
    except ValueError:
        return None


def explain_invalid_result(ended: ContainerStateTerminated, output: str | None = None) -> str:
    """Return why a termination message is no valid result, to follow the word ``result``.

    Empty if the message is nothing like a result.
    """
    text = ended.get("message") or ""
    try:
        _read_result(ended, output)
    except ValueError as error:
        return f" that can be believed ({error})" if text.lstrip().startswith("{") else ""
    return " of a file"


def _read_result(ended: ContainerStateTerminated, output: str | None) -> ConversionResult:
    return ConversionResult.from_json(ended.get("message") or "", output=output, exit_code=ended.get("exitCode"))


def terminated(pod: Pod) -> ContainerStateTerminated:
    """Return how the converter ended: its first failed container, or else the last; empty while it runs."""
    return _states(pod).get(_decisive_container(pod), {}).get("terminated") or {}


def _decisive_container(pod: Pod) -> str:
    """Return the name of the container that decides how the Pod ends."""
    states = _states(pod)
    failed = (name for name, state in states.items() if (state.get("terminated") or {}).get("exitCode"))
    return next(failed, next((name for name in LAST_CONTAINERS if name in states), ""))


def _states(pod: Pod) -> Mapping[str, ContainerState]:
    """Return the states of the converter's containers by name, in the order in which they run."""
    status = pod.get("status", {})
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    found = {one["name"]: one.get("state") or {} for one in statuses}
    return {name: found[name] for name in CONTAINERS if name in found}


def _has_begun(state: ContainerState) -> bool:
    return "running" in state or "terminated" in state


def tail(text: str) -> str:
    """Return the end of a log, where the error is, on one line."""
    words = " ".join(clean(text).split())
    return ("…" + words[-300:]) if len(words) > 300 else words or "(nothing)"
