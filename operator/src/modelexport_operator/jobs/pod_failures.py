"""What a Pod tells: why it waits, why it failed, what its converter answered. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelexport.names import PERMANENT_EXIT_CODES, PUBLISH
from modelexport.reasons import Reason
from modelexport.result import ConversionResult
from modelexport.text import clean
from modelexport_operator.manifests import CONTAINER, CONTAINERS

Object = Mapping[str, Any]

LAST = (PUBLISH, CONTAINER)
"""The container with which a Pod of ours ends, a conversion or something else."""

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
"""The kubelet's words for an image that it cannot get (kubernetes, pkg/kubelet/images/types.go)."""
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
"""The kubelet's words for a container that it cannot start (kubernetes, pkg/kubelet/kuberuntime)."""


@dataclass(frozen=True)
class Finding:
    """A reason and the words that a user can act on."""

    reason: Reason
    message: str
    result: ConversionResult | None = None


def created(body: Object) -> tuple[str, str]:
    """The order in which objects were created; of those of one second by name."""
    return body["metadata"].get("creationTimestamp", ""), body["metadata"]["name"]


def explain_waiting(pod: Object) -> Finding:
    """Say what a Pod waits for; what a person has to solve gets a reason of its own, and the way out."""
    for condition in pod["status"].get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return advise(Finding(Reason.UNSCHEDULABLE, f"No node takes the Pod: {condition.get('message', '')}"))
    for waiting in (state.get("waiting") or {} for state in _states(pod).values()):
        detail = f"{waiting.get('reason')}: {waiting.get('message', '')}"
        if waiting.get("reason") in IMAGE_PULL_REASONS:
            return advise(Finding(Reason.IMAGE_PULL_FAILED, f"The converter's image cannot be pulled: {detail}"))
        if waiting.get("reason") in START_REASONS:
            return advise(Finding(Reason.POD_START_FAILED, f"The converter cannot start: {detail}"))
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    return Finding(Reason.QUEUED, f"The Pod is being prepared; kubectl describe pod {name} -n {namespace} tells more")


def is_at_work(pod: Object) -> bool:
    """Whether a Pod converts. Until its last container starts its phase is ``Pending``, so the others tell as well."""
    phase, states = pod.get("status", {}).get("phase"), _states(pod).values()
    has_begun = any(state.get("running") or state.get("terminated") for state in states)
    return phase == "Running" or (phase == "Pending" and has_begun and not is_in_trouble(pod))


def is_in_trouble(pod: Object) -> bool:
    """Whether a Pod failed, or waits for what a person has to solve."""
    phase = pod.get("status", {}).get("phase")
    return phase == "Failed" or (phase == "Pending" and explain_waiting(pod).reason is not Reason.QUEUED)


def explain_pod_failure(pod: Object) -> Finding:
    """Say why a Pod failed: the cluster's word first, then the converter's own, then whatever it left."""
    findings = (explain(pod) for explain in (_out_of_memory, _disrupted, _answered, _not_started))
    return next((finding for finding in findings if finding is not None), None) or _died_silently(pod)


def is_retried(pod: Object) -> bool:
    """Whether a failed Pod is followed by another: the policy of its Job looks at the exit code before all else."""
    return terminated(pod).get("exitCode") not in PERMANENT_EXIT_CODES


def _out_of_memory(pod: Object) -> Finding | None:
    if terminated(pod).get("reason") != "OOMKilled":
        return None
    return Finding(Reason.OOM_KILLED, f"The converter needed more than {_memory_limit(pod)} of memory and was killed")


def _disrupted(pod: Object) -> Finding | None:
    if not is_retried(pod):
        return None  # The converter gave its answer before it was taken away, and its Job goes by that.
    status = pod.get("status", {})
    if status.get("reason") == "Evicted":
        return Finding(Reason.EVICTED, f"The Pod was evicted: {status.get('message', '')}")
    for condition in status.get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            detail = f"{condition.get('reason')}: {condition.get('message', '')}"
            return Finding(Reason.EVICTED, f"The Pod was taken from its node: {detail}")
    return None


def _answered(pod: Object) -> Finding | None:
    result = parse_result(terminated(pod))
    return Finding(result.reason, result.message, result) if result is not None and not result.succeeded else None


def _not_started(pod: Object) -> Finding | None:
    status, ended = pod.get("status", {}), terminated(pod)
    if status.get("reason"):
        return Finding(Reason.POD_START_FAILED, f"{status['reason']}: {status.get('message', '')}")
    if ended.get("reason") in ("ContainerCannotRun", "StartError"):
        return Finding(Reason.POD_START_FAILED, f"{ended['reason']}: {tail(ended.get('message', ''))}")
    return None


def _died_silently(pod: Object) -> Finding:
    ended = terminated(pod)
    code, text = ended.get("exitCode", "unknown"), tail(ended.get("message") or "")
    left = f"without a result{explain_disbelief(ended)}: {text}"
    return Finding(Reason.INTERNAL_ERROR, f"The converter ended with exit code {code} and {left}")


def advise(finding: Finding) -> Finding:
    """Put the way out behind the cluster's words; a converter's answer tells it by itself."""
    if finding.result is not None:
        return finding
    return Finding(finding.reason, f"{finding.message.rstrip(' .:')}. {finding.reason.policy.advice}")


def parse_result(ended: Object, output: str | None = None) -> ConversionResult | None:
    """Read the termination message of a container, as ``ConversionResult.from_json``; ``None`` if it is no result."""
    try:
        return _read_result(ended, output)
    except ValueError:
        return None


def explain_disbelief(ended: Object, output: str | None = None) -> str:
    """Say, behind the word ``result``, why what a container left is none; empty where it is nothing like one."""
    text = ended.get("message") or ""
    try:
        _read_result(ended, output)
    except ValueError as error:
        return f" that can be believed ({error})" if text.lstrip().startswith("{") else ""
    return " of a file"


def _read_result(ended: Object, output: str | None) -> ConversionResult:
    return ConversionResult.from_json(ended.get("message") or "", output=output, exit_code=ended.get("exitCode"))


def terminated(pod: Object) -> Object:
    """How the converter ended: its first container that failed, or else the last; empty while it has not."""
    return _states(pod).get(_decisive(pod), {}).get("terminated") or {}


def _decisive(pod: Object) -> str:
    """The name of the container by whose end the Pod has ended, or will end."""
    states = _states(pod)
    failed = (name for name, state in states.items() if (state.get("terminated") or {}).get("exitCode"))
    return next(failed, next((name for name in LAST if name in states), ""))


def _states(pod: Object) -> Mapping[str, Object]:
    """The states of the converter's containers by their names, in the order in which they run."""
    status = pod.get("status", {})
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    found = {one["name"]: one.get("state") or {} for one in statuses}
    return {name: found[name] for name in CONTAINERS if name in found}


def _memory_limit(pod: Object) -> str:
    spec, name = pod["spec"], _decisive(pod)
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    limits: Object = next((one.get("resources", {}).get("limits", {}) for one in containers if one["name"] == name), {})
    return str(limits.get("memory", "its limit"))


def tail(text: str) -> str:
    """The end of a log, where the error is, on one line."""
    words = " ".join(clean(text).split())
    return ("…" + words[-300:]) if len(words) > 300 else words or "(nothing)"
