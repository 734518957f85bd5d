"""Lets one target of an export evaluate the original model first, and the others share its result. Pure.

A conversion publishes how the original does on the labelled images, and those that start later read it. Conversions
that run at the same time cannot: the container that evaluates has no access to the store. So the others wait until one
target has ended, however it ends. docs/adr/0027-original-once.md explains the rules and has the numbers behind them.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.matrix.support import Precision, Target
from modelexport.planning.progress import expect_original, expect_steps
from modelexport.untrusted import moment
from modelexport_operator.jobs.diagnosis import Diagnosis
from modelexport_operator.jobs.state import State, TargetState, is_suspended
from modelexport_operator.kube.objects import Job

LEAST_SECONDS = 30.0
"""Nobody waits for an evaluation of the original that is expected to take less, on one core."""
PATIENCE = timedelta(minutes=2)
"""How long a Job may hold others back before its Pod runs; then the next target may start."""
_SAFEST_FIRST = (Precision.FP32, Precision.FP16)
"""These lose the least accuracy, and a file that is refused leaves no evaluation to share."""
_FOREVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Sharers:
    """Targets of an export that share one evaluation of the original, of which none has ended.

    ``holding`` has those whose Jobs hold the others back, each with the time until which it does as things are.
    """

    targets: frozenset[Target]
    holding: Mapping[Target, datetime]


def find_sharers(
    requests: Sequence[ConversionRequest],
    observed: Mapping[Target, tuple[Job, TargetState]],
    ended: Collection[Target],
    now: datetime,
) -> tuple[Sharers, ...]:
    """Return the groups of targets of an export of which one should evaluate the original before the others start.

    Args:
        requests: the conversions of the export.
        observed: the targets with a Job, and their states.
        ended: the targets that have ended, or that the API server has refused: their groups wait no more.
        now: the time, with its zone.
    """
    groups: defaultdict[Hashable, list[Target]] = defaultdict(list)
    for request in requests:
        if request.evaluation is None:
            continue
        seconds = expect_original(request)
        if seconds is None or seconds >= LEAST_SECONDS:
            groups[evaluation_key(request)].append(request.target)
    return tuple(
        Sharers(
            frozenset(targets),
            {
                target: until
                for target in targets
                if target in observed and (until := _holds_until(*observed[target])) and until > now
            },
        )
        for targets in groups.values()
        if len(targets) > 1 and not any(target in ended for target in targets)
    )


def hold_sharers(
    sharers: Sequence[Sharers], reserved: Collection[Target], new: Sequence[ConversionRequest]
) -> Mapping[Target, Diagnosis]:
    """Return the targets that wait until another one has evaluated the original.

    Args:
        sharers: the groups of ``find_sharers``.
        reserved: targets without a Job that got a place in an earlier sync.
        new: the conversions that need a Job and have a node, in the order of ``spec.targets``.
    """
    held: dict[Target, Diagnosis] = {}
    for group in sharers:
        own = [request for request in new if request.target in group.targets]
        begun = [*group.holding, *(target for target in reserved if target in group.targets)]
        first = next(iter([*begun, *(request.target for request in sorted(own, key=_cost))]), None)
        words = f"Waits until {first} has evaluated the original model, and will share the result"
        held |= {
            request.target: Diagnosis(Reason.WAIT_FOR_EVALUATION, words) for request in own if request.target != first
        }
    return held


def recheck_after(sharers: Sequence[Sharers], now: datetime) -> timedelta | None:
    """Return when to look again at Jobs that hold others back for the time being; ``None`` if their Pods all run."""
    until = [until for group in sharers for until in group.holding.values() if until != _FOREVER]
    return min(until) - now if until else None


def evaluation_key(request: ConversionRequest) -> Hashable:
    """Return what evaluations of the original by targets of one export may differ in.

    Images that calibrate a file are not evaluated, and a file that suppresses boxes has another original.
    """
    calibration, evaluation = request.calibration, request.evaluation
    datasets = {part.dataset.uri for part in (calibration, evaluation) if part}
    lacks_images = request.recipe.needs_calibration and calibration is not None and len(datasets) == 1
    return lacks_images, request.target.format if request.options.nms else None


def _holds_until(job: Job, state: TargetState) -> datetime | None:
    """Return until when a Job holds others back; ``None`` if it does not.

    It does while its first Pod runs, and for ``PATIENCE`` before. One that is suspended starts as soon as it may.
    """
    status = job.get("status", {})
    if status.get("failed"):
        return None
    if state.state is State.RUNNING or is_suspended(job):
        return _FOREVER
    if state.state is not State.QUEUED:
        return None
    since = moment(status.get("startTime") or job["metadata"].get("creationTimestamp"))
    return since and since + PATIENCE


def _cost(request: ConversionRequest) -> tuple[int, float]:
    """Return a sort key: targets that lose the least accuracy come first, and of these the quickest."""
    precision, steps = request.target.precision, expect_steps(request)
    risk = _SAFEST_FIRST.index(precision) if precision in _SAFEST_FIRST else len(_SAFEST_FIRST)
    return risk, sum(steps.values()) if steps else math.inf
