"""The targets that have not ended, counted over all exports. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from modelexport.matrix import Format, Precision, Target
from modelexport.reasons import Fault, Reason
from modelexport.untrusted import moment
from modelexport_operator.pods import Object
from modelexport_operator.status import READY, RECONCILING, STALLED, find_condition, recorded_targets, status_of

NEW = "New"


@dataclass(frozen=True)
class OpenTarget:
    """A target that has not ended, and its age in seconds.

    That counts from the start of its Job, or else from the last change of its ModelExport: the days for which a user
    had suspended it are none of waiting.

    ``state`` is the word of the status; or ``Suspended``, as what a user has stopped is no backlog; or ``New`` while no
    operator has told anything of its ModelExport.
    """

    target: Target
    state: str
    reason: Reason
    age_seconds: float


def open_targets(exports: Iterable[Object], now: datetime) -> Iterator[OpenTarget]:
    """Tell of every target that has not ended, unless it waits for nothing but a correction by its own user."""
    for body in exports:
        status = status_of(body)
        if not status and "deletionTimestamp" not in body["metadata"]:
            yield from _new_targets(body, now)
        if "completionTime" in status:
            continue  # Most exports have ended, and nothing more of them has to be read.
        is_stalled = find_condition(status, STALLED).get("status") == "True"
        for state in recorded_targets(status).values():
            if not state.state.is_final and not (is_stalled and state.reason.policy.fault is Fault.USER):
                word = state.reason if state.reason is Reason.SUSPENDED else state.state
                yield OpenTarget(state.target, word, state.reason, _age(state.start_time or _last_change(body), now))


def _new_targets(export: Object, now: datetime) -> Iterator[OpenTarget]:
    """The targets of an export of which nothing has been told: if that lasts, its syncs fail."""
    age = _age(export["metadata"].get("creationTimestamp"), now)
    for asked in export["spec"]["targets"]:
        try:
            target = Target(Format(asked["format"]), Precision(asked["precision"]))
        except ValueError:
            continue  # a word of another version, which the sync of this export tells
        yield OpenTarget(target, NEW, Reason.PENDING, age)


def _last_change(export: Object) -> str | None:
    """When an export last began to progress, to wait or to be suspended."""
    conditions = (find_condition(status_of(export), kind) for kind in (READY, RECONCILING))
    changes = [str(c["lastTransitionTime"]) for c in conditions if moment(c.get("lastTransitionTime"))]
    return max(changes, default=export["metadata"].get("creationTimestamp"))


def _age(since: str | None, now: datetime) -> float:
    at = moment(since)
    return max((now - at).total_seconds(), 0.0) if at else 0.0
