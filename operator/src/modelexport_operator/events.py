"""Events: what changed between two statuses, in words for ``kubectl describe``. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from modelexport.matrix import Target
from modelexport.reasons import Fault, Reason
from modelexport_operator.observe import State, TargetState
from modelexport_operator.pods import Object
from modelexport_operator.status import READY, find_condition, recorded_targets


@dataclass(frozen=True)
class Event:
    """One event on a ModelExport; ``reason`` is the word that the condition or the target carries.

    ``targets`` are those that it tells of; there are none in an event of the export as a whole.
    """

    type: str
    reason: str
    message: str
    targets: tuple[TargetState, ...] = ()


def compare_statuses(before: Object, after: Object) -> tuple[Event, ...]:
    """Tell what happened: targets that ended or met a problem first, then the export as a whole."""
    return (*_target_events(recorded_targets(before), recorded_targets(after)), *_export_events(before, after))


def finished_targets(before: Object, states: Iterable[TargetState]) -> tuple[TargetState, ...]:
    """Return the targets that have reached an end of which a status does not tell yet."""
    known = recorded_targets(before)
    return tuple(state for state in states if state.state.is_final and not is_same_end(known.get(state.target), state))


def is_same_end(one: TargetState | None, other: TargetState) -> bool:
    """Whether two states tell of the same end of the same target."""
    return one is not None and _end(one) == _end(other)


def _end(state: TargetState) -> tuple[Target, State, str | None]:
    return state.target, state.state, state.completion_time


def _target_events(before: Mapping[Target, TargetState], after: Mapping[Target, TargetState]) -> list[Event]:
    """One event for all targets that share a reason and its words."""
    news: defaultdict[tuple[Reason, str], list[TargetState]] = defaultdict(list)
    for target, state in after.items():
        if _is_news(state) and (target not in before or before[target].reason is not state.reason):
            news[state.reason, state.message].append(state)
    return [_target_event(reason, message, states) for (reason, message), states in news.items()]


def _target_event(reason: Reason, message: str, states: Sequence[TargetState]) -> Event:
    event = _event(reason, f"{', '.join(str(state.target) for state in states)}: {message}")
    return replace(event, targets=tuple(states))


def _is_news(state: TargetState) -> bool:
    """What keeps a target from starting keeps them all, and the export's own event tells it once."""
    if state.state is State.PENDING:
        return False
    return state.state.is_final or state.reason is Reason.RETRYING or state.reason.policy.fault is not Fault.NONE


def _export_events(before: Object, after: Object) -> list[Event]:
    old, new = find_condition(before, READY), find_condition(after, READY)
    if old.get("reason") == new.get("reason"):
        return []
    try:
        return [_event(Reason(new["reason"]), str(new["message"]))]
    except (KeyError, ValueError):
        return []  # Whoever may write statuses can have written it.


def _event(reason: Reason, message: str) -> Event:
    is_fine = reason.policy.fault is Fault.NONE and reason is not Reason.RETRYING
    return Event("Normal" if is_fine else "Warning", str(reason), message)
