"""Builds and reads the status of a ModelExport: its targets, and the conditions that summarise them. Pure.

Conditions follow the rules of kstatus, so ``kubectl wait``, Flux and Argo CD understand them: ``Reconciling`` and
``Stalled`` are abnormal when true; ``Ready`` is derived from the same summary and never set separately.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import zip_longest
from typing import Concatenate, ParamSpec, TypeVar, cast

from modelexport.api.reasons import Reason
from modelexport.api.result import ConversionResult, read_accuracy, read_artifact, read_reason, read_verification
from modelexport.api.rungs import read_quantization
from modelexport.matrix.support import Target
from modelexport.names import PAGE_FILE
from modelexport.untrusted import moment, text, time, uri, whole, word
from modelexport_operator.jobs.asked_targets import read_target
from modelexport_operator.jobs.diagnosis import Diagnosis
from modelexport_operator.jobs.state import MESSAGE_LIMIT, State, TargetState, shorten
from modelexport_operator.kube.objects import Condition, JsonObject, ModelExportObject, ModelExportStatus, TargetStatus

NAME_LIMIT = 253
MOST_ATTEMPTS = 2**31 - 1
VOLATILE_FIELDS = ("percentage", "estimatedRemainingSeconds", "lastUpdatedTime")
"""The fields of a target's progress that change with the time alone."""
PLAIN_REASONS = (
    Reason.PENDING,
    Reason.QUEUED,
    Reason.RUNNING,
    Reason.SUCCEEDED,
    Reason.LIMIT_REACHED,
    Reason.WAIT_FOR_EVALUATION,
)
"""Reasons of plain progress; any other reason of an open target is shown in the message of the export."""
V = TypeVar("V")
P = ParamSpec("P")
W = TypeVar("W", ModelExportStatus, TargetStatus)

READY, RECONCILING, STALLED = "Ready", "Reconciling", "Stalled"
ACCURACY_KEPT = "AccuracyKept"


class Phase(StrEnum):
    """The phase of a whole export: a row of the table below. It is never written."""

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
    """Phase, reason and message of an export."""

    phase: Phase
    reason: Reason
    message: str


def summarise(states: Sequence[TargetState], *, suspended: bool = False, problem: Diagnosis | None = None) -> Summary:
    """Summarise an export.

    Args:
        states: its targets.
        suspended: whether the user has suspended it.
        problem: why the operator cannot start a target, if it cannot.
    """
    if problem is not None:
        phase = Phase.WAITING if problem.reason.policy.retriable else Phase.INVALID
        return Summary(phase, problem.reason, problem.message)
    succeeded = sum(state.state is State.SUCCEEDED for state in states)
    count = f"{succeeded} of {len(states)} targets"
    if succeeded == len(states):
        return Summary(Phase.SUCCEEDED, Reason.SUCCEEDED, f"{count} are published")
    if all(state.state.is_final for state in states):
        failed = [state for state in states if state.state is State.FAILED]
        return Summary(Phase.FAILED, Reason.TARGETS_FAILED, f"{count} are published; {_list_states(failed)}")
    if suspended:
        return Summary(Phase.SUSPENDED, Reason.SUSPENDED, f"{count} are published; set spec.suspend: false to go on")
    notable = [state for state in states if state.reason not in PLAIN_REASONS]
    return _summarise_waiting(states) or Summary(
        Phase.PROGRESSING, Reason.PROGRESSING, f"{count} are published; {_list_states(notable)}".removesuffix("; ")
    )


def _summarise_waiting(states: Sequence[TargetState]) -> Summary | None:
    """Summarise an export without a running target: every open target waits for a node, a place, or another target."""
    waiting = [state for state in states if not state.state.is_final and state.reason is not Reason.WAIT_FOR_EVALUATION]
    reasons = {state.reason for state in waiting}
    if reasons == {Reason.NO_SUITABLE_NODE}:
        return Summary(Phase.WAITING, Reason.NO_SUITABLE_NODE, "; ".join(dict.fromkeys(s.message for s in waiting)))
    if Reason.LIMIT_REACHED in reasons and reasons <= {Reason.LIMIT_REACHED, Reason.NO_SUITABLE_NODE}:
        first = next(state for state in waiting if state.reason is Reason.LIMIT_REACHED)
        return Summary(Phase.PROGRESSING, Reason.LIMIT_REACHED, f"{first.target}: {first.message}")
    return None


def _list_states(states: Iterable[TargetState]) -> str:
    return "; ".join(f"{state.target} {state.reason}: {state.message}" for state in states)


def build_status(
    parent: ModelExportObject, states: Sequence[TargetState], summary: Summary, now: str
) -> ModelExportStatus:
    """Build the whole status of an export.

    Args:
        parent: its body; a condition keeps its transition time while its status stays the same.
        states: the targets.
        summary: their summary.
        now: the time as RFC 3339.
    """
    previous, generation = status_of(parent), parent["metadata"].get("generation", 0)
    succeeded = sum(state.state is State.SUCCEEDED for state in states)
    finished = summary.phase in (Phase.SUCCEEDED, Phase.FAILED)
    started = min((state.start_time for state in states if state.start_time), default=None)
    ended = max((state.completion_time for state in states if state.completion_time), default=None)
    kinds = zip((READY, RECONCILING, STALLED), CONDITIONS[summary.phase], strict=True)
    diagnosis = Diagnosis(summary.reason, summary.message)
    conditions: list[Condition] = []
    for kind, status, about in (*((*pair, diagnosis) for pair in kinds), *_accuracy_condition(states)):
        before = find_condition(previous, kind)
        kept = _valid_time(before, "lastTransitionTime") if before.get("status") == status else None
        condition: Condition = {
            "type": kind,
            "status": status,
            "reason": str(about.reason),
            "message": shorten(about.message),
            "observedGeneration": generation,
            "lastTransitionTime": kept or now,
        }
        conditions.append(condition)
    written: ModelExportStatus = {
        "observedGeneration": generation,
        "ready": f"{succeeded}/{_count_targets(parent)}",
        "progress": None if finished else _overall(states),
        "startTime": started,
        "completionTime": (ended or _valid_time(previous, "completionTime") or now) if finished else None,
        "conditions": conditions,
        "pageURI": _page_uri(states),
        "targets": [_target_entry(state) for state in states],
    }
    return _without_empty(written)


def _page_uri(states: Sequence[TargetState]) -> str | None:
    """Return the URI of the page about all targets; it lies in the folder above each report."""
    reports = (state.result.report_uri for state in states if state.result and state.result.report_uri)
    folder = next(reports, "").rsplit("/", 2)[0]
    return f"{folder}/{PAGE_FILE}" if folder else None


def _overall(states: Sequence[TargetState]) -> str | None:
    """Return how much of all conversions is done, each counting alike; ``None`` before the first one starts."""
    if not any(state.state.is_final or state.progress for state in states):
        return None
    running = sum(state.progress.percentage or 0 for state in states if state.progress)
    return f"{(100 * sum(state.state.is_final for state in states) + running) // len(states)}%"


def has_changed(status: JsonObject, previous: JsonObject) -> bool:
    """Return whether a status differs from the previous one in more than ``VOLATILE_FIELDS``.

    So a conversion that merely continues costs the API server no write.
    """
    return _without_volatile(status) != _without_volatile(previous)


def _without_volatile(status: JsonObject) -> JsonObject:
    targets = status.get("targets")
    if not isinstance(targets, list):
        return status
    entries = []
    for entry in targets:
        progress = entry.get("progress") if isinstance(entry, Mapping) else None
        if isinstance(progress, Mapping):
            kept = {key: value for key, value in progress.items() if key not in VOLATILE_FIELDS}
            entries.append({**entry, "progress": kept})
        else:
            entries.append(entry)
    return {**status, "progress": "progress" in status, "targets": entries}


def status_of(parent: JsonObject) -> JsonObject:
    """Return the status of an export; empty if it has none."""
    status = parent.get("status")
    return status if isinstance(status, Mapping) else {}


def _count_targets(parent: JsonObject) -> int:
    """Return how many targets the spec names, readable or not."""
    spec = parent.get("spec")
    targets = spec.get("targets") if isinstance(spec, Mapping) else None
    return len(targets) if isinstance(targets, list) else 0


def _accuracy_condition(states: Sequence[TargetState]) -> Iterator[tuple[str, str, Diagnosis]]:
    """Yield the condition about the accuracy of the files, once the first of them is evaluated."""
    found = [(state.target, state.result.accuracy) for state in states if state.result and state.result.accuracy]
    lost = [f"{target}: {accuracy.describe()}" for target, accuracy in found if not accuracy.kept]
    if lost:
        yield ACCURACY_KEPT, "False", Diagnosis(Reason.ACCURACY_LOST, "; ".join(lost))
    elif found:
        words = f"{len(found)} of {len(states)} targets are evaluated, and none lost more than is allowed"
        yield ACCURACY_KEPT, "True", Diagnosis(Reason.SUCCEEDED, words)


def find_condition(status: JsonObject, kind: str) -> JsonObject:
    """Return a condition of a status; empty if it is missing."""
    return next((c for c in _mappings(status.get("conditions")) if c.get("type") == kind), {})


def _valid_time(entry: JsonObject, key: str) -> str | None:
    return str(entry[key]) if moment(entry.get(key)) else None


def _target_entry(state: TargetState) -> TargetStatus:
    result = state.result
    artifact = result.artifact if result else None
    entry: TargetStatus = {
        "format": str(state.target.format),
        "precision": str(state.target.precision),
        "name": state.target.name or None,
        "state": str(state.state),
        "reason": str(state.reason),
        "message": state.message,
        "attempts": state.attempts,
        "scheme": state.recipe,
        "jobName": state.job_name,
        "nodeName": state.node_name,
        "startTime": state.start_time,
        "completionTime": state.completion_time,
        "progress": state.progress.to_dict() if state.progress else None,
        "artifact": {"uri": artifact.uri, "sha256": artifact.sha256, "sizeBytes": artifact.size_bytes}
        if artifact
        else None,
        "reportURI": result.report_uri if result else None,
        "verification": result.verification.to_dict() if result and result.verification else None,
        "accuracy": result.accuracy.to_dict() if result and result.accuracy else None,
        "quantization": result.quantization.to_dict() if result and result.quantization else None,
    }
    return _without_empty(entry)


def target_entries(status: JsonObject) -> list[JsonObject]:
    """Return the raw target entries of a status."""
    return _mappings(status.get("targets"))


@dataclass(frozen=True)
class RecordedStatus:
    """The recorded status of an export, whose targets are parsed once.

    Attributes:
        status: as plain data.
        earlier: the entries of an earlier status. Most entries of a status are the same as before, apart from the
            progress, which is not read; those are not parsed again.
    """

    status: JsonObject
    earlier: "Sequence[RecordedEntry]" = field(default=(), repr=False, compare=False)

    @cached_property
    def entries(self) -> "Sequence[RecordedEntry]":
        """All entries, readable or not."""
        found = [{**entry, "progress": None} for entry in target_entries(self.status)]
        return [
            before if before is not None and before.content == content else RecordedEntry(content)
            for content, before in zip_longest(found, self.earlier[: len(found)])
        ]

    @cached_property
    def targets(self) -> Mapping[Target, TargetState]:
        """The readable targets."""
        return {entry.state.target: entry.state for entry in self.entries if entry.state is not None}


@dataclass(frozen=True)
class RecordedEntry:
    """One target of a recorded status."""

    content: JsonObject

    @cached_property
    def state(self) -> TargetState | None:
        """The state that the entry records; ``None`` if this version cannot read it."""
        try:
            return _read_entry(self.content)
        except (KeyError, TypeError, ValueError):
            return None


def recorded_targets(status: JsonObject) -> Mapping[Target, TargetState]:
    """Parse the targets of a status; unreadable entries of another version are skipped."""
    return RecordedStatus(status).targets


def _read_entry(entry: JsonObject) -> TargetState:
    """Parse one entry as untrusted input: anyone with write access to statuses can have written it."""
    reason, message = read_reason(entry.get("reason")), text(entry.get("message", ""), "message", MESSAGE_LIMIT)
    result = None
    if any(entry.get(key) is not None for key in ("artifact", "verification", "accuracy", "quantization")):
        result = ConversionResult(
            reason=reason,
            message=message,
            recipe=_optional(word, entry, "scheme"),
            artifact=_optional(read_artifact, entry, "artifact", "sizeBytes"),
            report_uri=_optional(uri, entry, "reportURI"),
            verification=_optional(read_verification, entry, "verification"),
            accuracy=_optional(read_accuracy, entry, "accuracy"),
            quantization=_optional(read_quantization, entry, "quantization"),
        )
    return TargetState(
        target=read_target(entry),
        state=State(str(entry["state"])),
        reason=reason,
        message=message,
        attempts=whole(entry.get("attempts", 0), "attempts", MOST_ATTEMPTS),
        recipe=_optional(word, entry, "scheme"),
        job_name=_optional(word, entry, "jobName", NAME_LIMIT),
        node_name=_optional(word, entry, "nodeName", NAME_LIMIT),
        start_time=_optional(time, entry, "startTime"),
        completion_time=_optional(time, entry, "completionTime"),
        result=result,
    )


def _optional(
    read: Callable[Concatenate[object, str, P], V], entry: JsonObject, key: str, *limits: P.args, **named: P.kwargs
) -> V | None:
    value = entry.get(key)
    return None if value is None else read(value, key, *limits, **named)


def _mappings(value: object) -> list[JsonObject]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _without_empty(fields: W) -> W:
    return cast(W, {key: value for key, value in fields.items() if value is not None})
