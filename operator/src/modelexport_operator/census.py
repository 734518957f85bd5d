"""The targets that have not ended, counted over all exports. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from modelexport.matrix import Target
from modelexport.reasons import Reason
from modelexport_operator.observe import TargetState
from modelexport_operator.pods import Object
from modelexport_operator.status import recorded_targets, status_of


@dataclass(frozen=True)
class OpenTarget:
    """A target that has not ended, and the seconds since its Job started, or else its ModelExport was created.

    ``state`` is the word of the status, or ``Suspended``: what a user has stopped is no backlog.
    """

    target: Target
    state: str
    reason: Reason
    age_seconds: float


def open_targets(exports: Iterable[Object], now: datetime) -> Iterator[OpenTarget]:
    """Tell of every target in the status of an export that has not ended."""
    for body in exports:
        status = status_of(body)
        if "completionTime" in status:
            continue  # Most exports have ended, and nothing more of them has to be read.
        for state in recorded_targets(status).values():
            if not state.state.is_final:
                word = state.reason if state.reason is Reason.SUSPENDED else state.state
                yield OpenTarget(state.target, word, state.reason, _age(state, body, now))


def _age(state: TargetState, export: Object, now: datetime) -> float:
    since = state.start_time or export["metadata"].get("creationTimestamp")
    return max((now - datetime.fromisoformat(since)).total_seconds(), 0.0) if since else 0.0
