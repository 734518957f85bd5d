"""Derives events for ``kubectl describe`` from two statuses. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from modelexport.api.reasons import Fault, Reason
from modelexport.matrix.support import Target
from modelexport_operator.jobs.state import State, TargetState
from modelexport_operator.kube.objects import JsonObject
from modelexport_operator.status.conditions import READY, RecordedStatus, find_condition


@dataclass(frozen=True)
class Event:
    """One event of a ModelExport; ``reason`` is that of the condition or target.

    ``targets`` are the targets that it reports; an event about the whole export has none.
    """

    type: str
    reason: str
    message: str
    targets: tuple[TargetState, ...] = ()


def compare_statuses(before: RecordedStatus, after: RecordedStatus) -> tuple[Event, ...]:
    """Return the events between two statuses: targets that ended or have a problem first, then the whole export.

    All targets that share a reason and a message share an event.
    """
    news: defaultdict[tuple[Reason, str], list[TargetState]] = defaultdict(list)
    for target, state in after.targets.items():
        if _is_news(state) and (target not in before.targets or before.targets[target].reason is not state.reason):
            news[state.reason, state.message].append(state)
    events = []
    for (reason, message), states in news.items():
        event = _event(reason, f"{', '.join(str(state.target) for state in states)}: {message}")
        events.append(replace(event, targets=tuple(states)))
    for target, state in after.targets.items():
        if _lost(state) and (target not in before.targets or not _lost(before.targets[target])):
            event = _event(Reason.ACCURACY_LOST, f"{state.target}: published, and {_lost(state)}")
            events.append(replace(event, targets=(state,)))
    return (*events, *export_events(before.status, after.status))


def finished_targets(known: Mapping[Target, TargetState], states: Iterable[TargetState]) -> tuple[TargetState, ...]:
    """Return the targets whose end is not recorded yet."""
    return tuple(state for state in states if state.state.is_final and not is_same_end(known.get(state.target), state))


def is_same_end(one: TargetState | None, other: TargetState) -> bool:
    """Return whether two states are the same end of the same target."""
    return one is not None and _end(one) == _end(other)


def _end(state: TargetState) -> tuple[Target, State, str | None]:
    return state.target, state.state, state.completion_time


def _lost(state: TargetState) -> str:
    """Return how much accuracy a published file lost if that is more than is allowed; else an empty text."""
    accuracy = state.result.accuracy if state.result and state.state is State.SUCCEEDED else None
    return accuracy.describe() if accuracy and not accuracy.kept else ""


def _is_news(state: TargetState) -> bool:
    """Return whether a state deserves an event. A cause that blocks all targets is reported once, for the export."""
    if state.state is State.PENDING:
        return False
    return state.state.is_final or state.reason is Reason.RETRYING or state.reason.policy.fault is not Fault.NONE


def export_events(before: JsonObject, after: JsonObject) -> list[Event]:
    """Return the event about the whole export, if its reason differs between two statuses."""
    old, new = find_condition(before, READY), find_condition(after, READY)
    if old.get("reason") == new.get("reason"):
        return []
    try:
        return [_event(Reason(str(new["reason"])), str(new["message"]))]
    except (KeyError, ValueError):
        return []  # Untrusted: anyone with write access to statuses can have written it.


def _event(reason: Reason, message: str) -> Event:
    is_fine = reason.policy.fault is Fault.NONE and reason is not Reason.RETRYING
    return Event("Normal" if is_fine else "Warning", str(reason), message)
