"""The status of a ModelExport: its targets, and the conditions that follow from them. Pure.

Conditions keep the rules of kstatus, so ``kubectl wait``, Flux and Argo CD understand them: ``Reconciling`` and
``Stalled`` are abnormal when true, ``Ready`` is derived from the same summary and never set by a step.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from modelexport.matrix import Format, Precision, Target
from modelexport.reasons import Reason
from modelexport.result import Artifact, ConversionResult, read_artifact, read_reason, read_verification
from modelexport.untrusted import moment, text, uri, whole, word
from modelexport_operator.observe import MESSAGE_LIMIT, State, TargetState, shorten
from modelexport_operator.pods import Finding, Object

NAME_LIMIT = 253
MOST_ATTEMPTS = 2**31 - 1
V = TypeVar("V")

READY, RECONCILING, STALLED = "Ready", "Reconciling", "Stalled"


class Phase(StrEnum):
    """What a whole export is up to; a row of the table below, never written anywhere."""

    INVALID = "Invalid"
    WAITING = "Waiting"
    PROGRESSING = "Progressing"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


CONDITIONS: Mapping[Phase, tuple[str, str, str]] = {
    #                   Ready      Reconciling  Stalled
    Phase.INVALID: ("False", "False", "True"),
    Phase.WAITING: ("False", "True", "False"),
    Phase.PROGRESSING: ("Unknown", "True", "False"),
    Phase.SUSPENDED: ("False", "False", "False"),
    Phase.SUCCEEDED: ("True", "False", "False"),
    Phase.FAILED: ("False", "False", "True"),
}


@dataclass(frozen=True)
class Summary:
    """An export in one phase, one reason and one sentence."""

    phase: Phase
    reason: Reason
    message: str


def summarise(states: Sequence[TargetState], *, suspended: bool = False, problem: Finding | None = None) -> Summary:
    """Sum up an export.

    Args:
        states: its targets.
        suspended: whether the user has stopped it.
        problem: what keeps the operator from starting a target, if anything.
    """
    if problem is not None:
        phase = Phase.WAITING if problem.reason.policy.retriable else Phase.INVALID
        return Summary(phase, problem.reason, problem.message)
    succeeded = sum(state.state is State.SUCCEEDED for state in states)
    count = f"{succeeded} of {len(states)} targets"
    if succeeded == len(states):
        return Summary(Phase.SUCCEEDED, Reason.SUCCEEDED, f"{count} are published")
    if all(state.state.is_final for state in states):
        return Summary(Phase.FAILED, Reason.TARGETS_FAILED, f"{count} are published; {_list_failures(states)}")
    if suspended:
        return Summary(Phase.SUSPENDED, Reason.SUSPENDED, f"{count} are published; set spec.suspend: false to go on")
    return _summarise_waiting(states) or Summary(
        Phase.PROGRESSING, Reason.PROGRESSING, f"{count} are published; {_list_open(states)}".removesuffix("; ")
    )


def _summarise_waiting(states: Sequence[TargetState]) -> Summary | None:
    """Sum up an export of which nothing is on its way: all that is open waits for a node, or for its turn."""
    waiting = [state for state in states if not state.state.is_final]
    reasons = {state.reason for state in waiting}
    if reasons == {Reason.NO_SUITABLE_NODE}:
        return Summary(Phase.WAITING, Reason.NO_SUITABLE_NODE, "; ".join(dict.fromkeys(s.message for s in waiting)))
    if Reason.LIMIT_REACHED in reasons and reasons <= {Reason.LIMIT_REACHED, Reason.NO_SUITABLE_NODE}:
        first = next(state for state in waiting if state.reason is Reason.LIMIT_REACHED)
        return Summary(Phase.PROGRESSING, Reason.LIMIT_REACHED, f"{first.target}: {first.message}")
    return None


def _list_failures(states: Iterable[TargetState]) -> str:
    failed = (state for state in states if state.state is State.FAILED)
    return "; ".join(f"{state.target} {state.reason}: {state.message}" for state in failed)


def _list_open(states: Iterable[TargetState]) -> str:
    """What a person should know of targets that are not done: failures and whatever is not plain progress."""
    plain = (Reason.PENDING, Reason.QUEUED, Reason.RUNNING, Reason.SUCCEEDED, Reason.LIMIT_REACHED)
    return "; ".join(f"{state.target} {state.reason}: {state.message}" for state in states if state.reason not in plain)


def build_status(parent: Object, states: Sequence[TargetState], summary: Summary, now: str) -> dict[str, Any]:
    """Build the whole status of an export.

    Args:
        parent: its body; a condition keeps its transition time while its status stays.
        states: the targets.
        summary: what they come to.
        now: the time as RFC 3339.
    """
    previous, generation = status_of(parent), parent["metadata"].get("generation", 0)
    succeeded = sum(state.state is State.SUCCEEDED for state in states)
    finished = summary.phase in (Phase.SUCCEEDED, Phase.FAILED)
    started = min((state.start_time for state in states if state.start_time), default=None)
    ended = max((state.completion_time for state in states if state.completion_time), default=None)
    return _without_empty(
        {
            "observedGeneration": generation,
            "ready": f"{succeeded}/{_count_targets(parent)}",
            "startTime": started,
            "completionTime": (ended or _kept_time(previous, "completionTime") or now) if finished else None,
            "conditions": _conditions(generation, summary, previous, now),
            "targets": [_target_entry(state) for state in states],
        }
    )


def status_of(parent: Object) -> Object:
    """The status of an export as it is; an empty mapping where there is none."""
    status = parent.get("status")
    return status if isinstance(status, Mapping) else {}


def _count_targets(parent: Object) -> int:
    """How many targets the user named, whether or not they can be read."""
    spec = parent.get("spec")
    targets = spec.get("targets") if isinstance(spec, Mapping) else None
    return len(targets) if isinstance(targets, list) else 0


def _conditions(generation: int, summary: Summary, previous: Object, now: str) -> list[dict[str, Any]]:
    statuses = zip((READY, RECONCILING, STALLED), CONDITIONS[summary.phase], strict=True)
    return [
        {
            "type": kind,
            "status": status,
            "reason": str(summary.reason),
            "message": shorten(summary.message),
            "observedGeneration": generation,
            "lastTransitionTime": _transition(find_condition(previous, kind), status, now),
        }
        for kind, status in statuses
    ]


def find_condition(status: Object, kind: str) -> Object:
    """Return a condition of a status; an empty mapping where there is none."""
    return next((c for c in _mappings(status.get("conditions")) if c.get("type") == kind), {})


def _transition(before: Object, status: str, now: str) -> str:
    kept = _kept_time(before, "lastTransitionTime") if before.get("status") == status else None
    return kept or now


def _kept_time(entry: Object, key: str) -> str | None:
    return str(entry[key]) if moment(entry.get(key)) else None


def _target_entry(state: TargetState) -> dict[str, Any]:
    result = state.result
    return _without_empty(
        {
            "format": str(state.target.format),
            "precision": str(state.target.precision),
            "state": str(state.state),
            "reason": str(state.reason),
            "message": state.message,
            "attempts": state.attempts,
            "scheme": state.scheme,
            "jobName": state.job_name,
            "nodeName": state.node_name,
            "startTime": state.start_time,
            "completionTime": state.completion_time,
            "artifact": result and result.artifact and _artifact_entry(result.artifact),
            "reportURI": result and result.report_uri,
            "verification": result and result.verification and result.verification.to_dict(),
        }
    )


def _artifact_entry(artifact: Artifact) -> dict[str, Any]:
    return {"uri": artifact.uri, "sha256": artifact.sha256, "sizeBytes": artifact.size_bytes}


def target_entries(status: Object) -> list[Object]:
    """The targets of a status as they stand there."""
    return _mappings(status.get("targets"))


def recorded_targets(status: Object) -> dict[Target, TargetState]:
    """Read the targets of a status back; an entry of another operator's making that cannot be read is left out."""
    states = (_recorded(entry) for entry in target_entries(status))
    return {state.target: state for state in states if state is not None}


def _recorded(entry: Object) -> TargetState | None:
    """Read one entry as strictly as a stranger's: whoever may write statuses can have written it."""
    try:
        reason, message = read_reason(entry.get("reason")), text(entry.get("message", ""), "message", MESSAGE_LIMIT)
        return TargetState(
            target=Target(Format(entry["format"]), Precision(entry["precision"])),
            state=State(entry["state"]),
            reason=reason,
            message=message,
            attempts=whole(entry.get("attempts", 0), "attempts", MOST_ATTEMPTS),
            scheme=_optional(word, entry, "scheme"),
            job_name=_optional(word, entry, "jobName", NAME_LIMIT),
            node_name=_optional(word, entry, "nodeName", NAME_LIMIT),
            start_time=_optional(_time, entry, "startTime"),
            completion_time=_optional(_time, entry, "completionTime"),
            result=_recorded_result(entry, reason, message),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _recorded_result(entry: Object, reason: Reason, message: str) -> ConversionResult | None:
    if entry.get("artifact") is None and entry.get("verification") is None:
        return None
    return ConversionResult(
        reason=reason,
        message=message,
        scheme=_optional(word, entry, "scheme"),
        artifact=_optional(read_artifact, entry, "artifact", "sizeBytes"),
        report_uri=_optional(uri, entry, "reportURI"),
        verification=_optional(read_verification, entry, "verification"),
    )


def _optional(read: Callable[..., V], entry: Object, key: str, *limits: Any) -> V | None:
    value = entry.get(key)
    return None if value is None else read(value, key, *limits)


def _time(value: Any, name: str) -> str:
    if moment(value) is None:
        raise ValueError(f"{name} is no time")
    return str(value)


def _mappings(value: Any) -> list[Object]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _without_empty(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}
