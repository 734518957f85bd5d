"""Counts the targets of all exports that have not ended. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from modelexport.api.reasons import Fault, Reason
from modelexport.matrix.support import Format, Precision, Target
from modelexport.untrusted import moment
from modelexport_operator.kube.objects import ModelExportObject
from modelexport_operator.status.conditions import (
    READY,
    RECONCILING,
    STALLED,
    find_condition,
    recorded_targets,
    status_of,
    target_entries,
)

NEW = "New"


@dataclass(frozen=True)
class OpenTarget:
    """A target that has not ended, and its age in seconds.

    The age counts from the start of its Job, or else from the last change of its ModelExport, so that days of
    suspension do not count as waiting.

    ``state`` is the state in the status; or ``Suspended``, because suspended targets are no backlog; or ``New`` while
    the ModelExport has no status.
    """

    target: Target
    state: str
    reason: Reason
    age_seconds: float


def open_targets(exports: Iterable[ModelExportObject], now: datetime) -> Iterator[OpenTarget]:
    """Yield every target that has not ended, except those that only wait for a correction by their user."""
    for body in exports:
        status = status_of(body)
        if not status and "deletionTimestamp" not in body["metadata"]:
            yield from _new_targets(body, now)
        if "completionTime" in status:
            continue  # Most exports have ended; nothing else of them has to be read.
        is_stalled = find_condition(status, STALLED).get("status") == "True"
        for state in recorded_targets(status).values():
            if not state.state.is_final and not (is_stalled and state.reason.policy.fault is Fault.USER):
                word = state.reason if state.reason is Reason.SUSPENDED else state.state
                yield OpenTarget(state.target, word, state.reason, _age(state.start_time or _last_change(body), now))


def _new_targets(export: ModelExportObject, now: datetime) -> Iterator[OpenTarget]:
    """Yield the targets of an export without a status: if that lasts, its syncs fail."""
    age = _age(export["metadata"].get("creationTimestamp"), now)
    for asked in target_entries(export.get("spec", {})):
        try:
            target = Target(Format(str(asked.get("format"))), Precision(str(asked.get("precision"))))
        except ValueError:
            continue  # A value of another version; the sync of this export reports it.
        yield OpenTarget(target, NEW, Reason.PENDING, age)


def _last_change(export: ModelExportObject) -> str | None:
    """Return when an export last started to progress, to wait or to be suspended."""
    conditions = (find_condition(status_of(export), kind) for kind in (READY, RECONCILING))
    changes = [str(c["lastTransitionTime"]) for c in conditions if moment(c.get("lastTransitionTime"))]
    return max(changes, default=export["metadata"].get("creationTimestamp"))


def _age(since: str | None, now: datetime) -> float:
    at = moment(since)
    return max((now - at).total_seconds(), 0.0) if at else 0.0
