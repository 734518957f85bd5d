"""What to do about one ModelExport: from everything that is observed to one decision. Pure; the time is an argument.

Three rules carry restarts, upgrades and clean-ups:

* A target has at most one Job; whatever Job is there for it is taken, even one that an older operator named
  differently, because the model of an export never changes. Where a conversion ended well and its result was lost with
  its Pod, a second Job repeats it, once: the converter finds what the first one published.
* A target that is recorded as succeeded never runs again, whether its Job still exists or not. A failed one runs again
  when its Job is deleted: that is how a user asks for it.
* What the recorded status says of a finished Job stays true when the Pods are gone.

Nothing final follows from an object that is only missing among what the watches have told: ``unsettled`` and
``lacks_class`` name what the API server has to be asked for first.

A Job that Kueue starts and stops is never suspended or resumed here: Kueue would at once resume what it has admitted.
When the user stops its export it is withdrawn instead, and made again when the export goes on.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from modelexport.fields import InvalidSpec
from modelexport.matrix import Target
from modelexport.plan import plan_export
from modelexport.reasons import Reason
from modelexport.request import ConversionRequest
from modelexport.spec import ExportClass, ModelExport, parse_export
from modelexport.untrusted import moment
from modelexport_operator.classes import find_class, output_folder, pick_class
from modelexport_operator.cleanup import clean_up, correct_finalizers, takes_files_along
from modelexport_operator.events import Event, finished_targets
from modelexport_operator.manifests import Manifest, build_job, job_name, pods_of, target_of
from modelexport_operator.observe import (
    LOOK_AGAIN,
    State,
    TargetState,
    completion_time,
    describe_start,
    has_lost_result,
    is_failing,
    is_finished,
    is_on_its_way,
    is_overdue,
    is_stopped,
    lacks_pod,
    observe_target,
    queue_of,
    shorten,
    tells_end,
)
from modelexport_operator.pods import Finding, Object, created
from modelexport_operator.starts import Starts, Wishes, decide_starts
from modelexport_operator.status import (
    READY,
    Phase,
    Summary,
    build_status,
    find_condition,
    recorded_targets,
    status_of,
    summarise,
)
from modelexport_operator.turns import Demand

REFUSAL_RETRY = timedelta(seconds=60)
"""How soon a Job that the API server refused is offered again: quota and policies change by themselves."""
POD_PATIENCE = timedelta(seconds=10)
"""How long a Job may be without its Pod before anybody asks why, and how often until there is an answer."""
REPEATS = "The conversion ended well, but its Pod was gone before its result was read; it is repeated once"


@dataclass(frozen=True)
class Suspension:
    """A Job and what its ``spec.suspend`` has to become."""

    job_name: str
    suspend: bool


@dataclass(frozen=True)
class Decision:
    """What to write, in this order: Jobs, suspensions, finalizers, status; or the deletion of the whole export.

    ``withdraw`` names Jobs to delete, because Kueue would go on with them. ``status`` describes the world after the
    Jobs are created; ``None`` means that it has to stay as it is, and so for ``finalizers``. A change of these comes
    alone; the watch tells of it, and the next sync goes on from there. ``events`` tell what became of files; what a
    status tells is compared with the one before once it is recorded. ``finished`` are the targets whose end it is the
    first to tell.
    """

    create: tuple[Manifest, ...] = ()
    suspend: tuple[Suspension, ...] = ()
    withdraw: tuple[str, ...] = ()
    finalizers: tuple[str, ...] | None = None
    delete: bool = False
    status: dict[str, Any] | None = None
    events: tuple[Event, ...] = ()
    finished: tuple[TargetState, ...] = ()
    requeue_after: timedelta | None = None


@dataclass(frozen=True)
class Observed:
    """Everything that is known of one export.

    ``nodes`` are those of the cluster. ``conversions`` are the Jobs of its targets in full, only where its files are
    about to go with it. ``others`` are the demands of other exports, of whatever class; ``promised``
    names the Jobs that got their turn in the last sync and may not have been heard of yet. ``refused`` holds, by Job
    name, the API server's words for Jobs that it has just not accepted, ``pods_refused`` those for Jobs that it lets
    have no Pod. ``pods_listed`` names the Jobs that had ended when the API server listed their Pods: these are all.
    ``deleted_for`` is for how long this operator has seen that it is being deleted.
    """

    parent: Object
    jobs: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    classes: Sequence[Object] = ()
    nodes: Sequence[Object] = ()
    conversions: Sequence[Object] = ()
    others: Sequence[Demand] = ()
    promised: Collection[str] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    pods_refused: Mapping[str, str] = field(default_factory=dict)
    pods_listed: Collection[str] = ()
    deleted_for: timedelta = timedelta(0)

    def pods_of(self, job: Object) -> list[Object]:
        """The Pods of a Job."""
        return pods_of(job["metadata"]["name"], self.pods)

    def jobs_without_pod(self) -> list[Object]:
        """The Jobs that should have a Pod."""
        return [job for job in self.jobs if lacks_pod(job, self.pods_of(job))]


def overdue(observed: Observed, now: datetime) -> list[Object]:
    """The Jobs that have been, or were to the end, without a Pod for so long that somebody should ask why."""
    waiting = observed.jobs_without_pod()
    given_up = (job for job in observed.jobs if target_of(job) is None and is_overdue(job))
    waiting += [job for job in given_up if job not in waiting and not observed.pods_of(job)]
    starts = ((job, moment(job["status"].get("startTime"))) for job in waiting)
    return [job for job, start in starts if start and now - start >= POD_PATIENCE]


def unsettled(observed: Observed) -> list[Object]:
    """The Jobs of whose end neither the status nor the Pods in sight tell; the API server has to list their Pods."""
    if observed.parent["metadata"].get("deletionTimestamp"):
        return []
    recorded = recorded_targets(status_of(observed.parent))
    newest = _jobs_by_target(observed.jobs)
    ended = {
        target: job for target, job in newest.items() if is_finished(job) and not tells_end(job, observed.pods_of(job))
    }
    return [job for target, job in ended.items() if not _is_record_of(recorded.get(target), job)]


def lacks_class(observed: Observed) -> bool:
    """Whether something is about to follow from a class that is not in sight; the API server has to list them."""
    parent, status = observed.parent, status_of(observed.parent)
    spec = parent.get("spec")
    name = spec.get("className") if isinstance(spec, Mapping) else None
    if pick_class(name, observed.classes) is not None:
        return False
    if parent["metadata"].get("deletionTimestamp"):
        return takes_files_along(parent)
    is_told = find_condition(status, READY).get("reason") == Reason.CLASS_NOT_FOUND
    return not is_told and "completionTime" not in status


def sync(observed: Observed, now: datetime) -> Decision:
    """Decide what to do about one export.

    Args:
        observed: everything that is known of it.
        now: the time, with its zone.
    """
    if observed.parent["metadata"].get("deletionTimestamp"):
        return _end(observed)
    try:
        export = parse_export(observed.parent)
        if (finalizers := correct_finalizers(observed.parent, export)) is not None:
            return Decision(finalizers=finalizers)
        found = find_class(export, observed.classes)
        requests = plan_export(export, output_folder(found) if isinstance(found, ExportClass) else "")
    except InvalidSpec as error:
        problem = Finding(error.reason, str(error))
        recorded = recorded_targets(status_of(observed.parent))
        return _conclude(observed, tuple(recorded.values()), summarise((), problem=problem), now)
    return _sync_targets(_Round(observed, export, found, now), requests)


def _end(observed: Observed) -> Decision:
    """Do what an export that is being deleted waits for."""
    step = clean_up(
        observed.parent,
        observed.jobs,
        observed.pods,
        observed.classes,
        refused=observed.refused,
        pods_refused=observed.pods_refused,
        conversions=observed.conversions,
        listed=observed.pods_listed,
        waited=observed.deleted_for,
    )
    return Decision(
        create=step.create,
        suspend=tuple(Suspension(name, suspend=True) for name in step.stop),
        withdraw=step.withdraw,
        finalizers=step.finalizers,
        events=step.events,
        requeue_after=step.requeue_after,
    )


@dataclass(frozen=True)
class _Round:
    """What all steps of one sync look at."""

    observed: Observed
    export: ModelExport
    found: ExportClass | Finding
    now: datetime

    @cached_property
    def recorded(self) -> Mapping[Target, TargetState]:
        """The targets as the status has them."""
        return recorded_targets(status_of(self.observed.parent))

    @cached_property
    def jobs(self) -> Mapping[Target, Object]:
        """The newest Job of each target."""
        return _jobs_by_target(self.observed.jobs)

    @cached_property
    def repeated(self) -> frozenset[Target]:
        """The targets whose conversion ended well and has to be repeated, because its result was lost."""
        return frozenset(target for target, job in self.jobs.items() if self._has_to_repeat(target, job))

    def _has_to_repeat(self, target: Target, job: Object) -> bool:
        name, observed = job["metadata"]["name"], self.observed
        is_lost = name in observed.pods_listed and has_lost_result(job, observed.pods_of(job))
        is_repeat = name == job_name(self.export, target, is_repeat=True)
        return is_lost and not is_repeat and not _is_record_of(self.recorded.get(target), job)

    def job_name(self, target: Target) -> str:
        """The name of the Job that a target needs next."""
        return job_name(self.export, target, is_repeat=target in self.repeated)


def _sync_targets(turn: _Round, requests: Sequence[ConversionRequest]) -> Decision:
    jobs = turn.jobs
    seen = [_observe(turn, request, jobs.get(request.target)) for request in requests]
    missing = [request for request, state in zip(requests, seen, strict=True) if state is None]
    problem = turn.found if missing and isinstance(turn.found, Finding) else None
    starts = _decide_starts(turn, missing, jobs)
    states = tuple(
        _hold(state, starts) if state else _expect(turn, request, starts)
        for request, state in zip(requests, seen, strict=True)
    )
    summary = summarise(states, suspended=turn.export.suspend, problem=problem)
    decision = _conclude(turn.observed, states, summary, turn.now)
    decision = replace(
        decision,
        create=_jobs_to_create(turn, missing, starts),
        suspend=_suspensions(turn.export, jobs, starts),
        withdraw=_withdrawals(turn.export, jobs),
    )
    return _expire(turn, decision, summary)


def _decide_starts(turn: _Round, missing: Sequence[ConversionRequest], jobs: Mapping[Target, Object]) -> Starts:
    observed, export, found = turn.observed, turn.export, turn.found
    if export.suspend or isinstance(found, Finding):
        return Starts()
    promised = [request for request in missing if turn.job_name(request.target) in observed.promised]
    running = len(promised) + sum(is_on_its_way(job) for job in jobs.values())
    stopped = [target for target, job in jobs.items() if is_stopped(job)]
    resumed = [target for target in stopped if jobs[target]["metadata"]["name"] in observed.promised]
    since = observed.parent["metadata"].get("creationTimestamp", "")
    wishes = Wishes(
        Demand((export.namespace, export.name), export.class_name, since, running + len(resumed), 0),
        promised=promised,
        stopped=[target for target in export.targets if target in stopped and target not in resumed],
        fresh=[request for request in missing if request not in promised],
    )
    return decide_starts(wishes, found, observed.nodes, _of_class(observed, found.name))


def _of_class(observed: Observed, class_name: str) -> list[Demand]:
    """The demands of the other exports that a class serves."""
    default = pick_class(None, observed.classes)
    is_default = default is not None and default["metadata"]["name"] == class_name
    names = (class_name, None) if is_default else (class_name,)
    return [demand for demand in observed.others if demand.class_name in names]


def _hold(state: TargetState, starts: Starts) -> TargetState:
    """The state of a target whose Job has to stay suspended for now."""
    held = starts.held.get(state.target)
    return replace(state, reason=held.reason, message=shorten(held.message)) if held else state


def _jobs_by_target(jobs: Sequence[Object]) -> dict[Target, Object]:
    """The newest Job of each target; there is one as a rule."""
    ordered = sorted(jobs, key=created)
    return {target: job for job in ordered if (target := target_of(job)) is not None}


def _observe(turn: _Round, request: ConversionRequest, job: Object | None) -> TargetState | None:
    """Say where a target is; ``None`` means that it needs a Job."""
    record = turn.recorded.get(request.target)
    if job is None or _is_withdrawn(turn.export, job) or request.target in turn.repeated:
        return record if record is not None and record.state is State.SUCCEEDED else None
    observed, name = turn.observed, job["metadata"]["name"]
    pods, is_all, refusal = observed.pods_of(job), name in observed.pods_listed, observed.pods_refused.get(name)
    was = Finding(record.reason, record.message) if record is not None and record.state is State.QUEUED else None
    state = observe_target(request.target, job, pods, is_all=is_all, was=was, refusal=refusal)
    if record is not None and state.result is None and _is_record_of(record, job):
        return record
    if was is not None and is_failing(job):
        # Its Pods are taken away before it is called failed: what they waited for has to be remembered till then.
        return record
    return replace(state, scheme=state.scheme or str(request.scheme))


def _is_record_of(record: TargetState | None, job: Object) -> bool:
    """Whether a record tells the end of this very run of a Job (a Job that was deleted comes back by the same name)."""
    ended = completion_time(job)
    if record is None or ended is None:
        return False
    return (record.job_name, record.completion_time) == (job["metadata"]["name"], ended)


def _expect(turn: _Round, request: ConversionRequest, starts: Starts) -> TargetState:
    """The state of a target without a Job, once this sync is carried out."""
    name = turn.job_name(request.target)
    state = TargetState(request.target, State.PENDING, Reason.PENDING, "Not started", scheme=str(request.scheme))
    if name in turn.observed.refused:
        return _refuse(turn, replace(state, job_name=name))
    if isinstance(turn.found, Finding):
        return replace(state, reason=turn.found.reason, message=shorten(turn.found.message))
    if turn.export.suspend:
        return replace(state, reason=Reason.SUSPENDED, message="Suspended; set spec.suspend: false to go on")
    if request.target in starts.held:
        return _hold(state, starts)
    if request.target in turn.repeated:
        return replace(state, state=State.QUEUED, reason=Reason.RETRYING, message=REPEATS, job_name=name)
    message = describe_start(turn.found.sharing.queue_name)
    return replace(state, state=State.QUEUED, reason=Reason.QUEUED, message=message, job_name=name)


def _refuse(turn: _Round, state: TargetState) -> TargetState:
    record = turn.recorded.get(state.target)
    known = record.completion_time if record is not None and record.reason is Reason.JOB_REFUSED else None
    return replace(
        state,
        state=State.FAILED,
        reason=Reason.JOB_REFUSED,
        message=shorten(f"The API server refused the Job: {turn.observed.refused[state.job_name or '']}"),
        completion_time=known or format_time(turn.now),
    )


def _jobs_to_create(turn: _Round, missing: Sequence[ConversionRequest], starts: Starts) -> tuple[Manifest, ...]:
    if isinstance(turn.found, Finding):
        return ()
    starting = [request for request in missing if request.target in starts.pools]
    jobs = (
        build_job(turn.export, request, turn.found, starts.pools[request.target], name=turn.job_name(request.target))
        for request in starting
    )
    return tuple(job for job in jobs if job["metadata"]["name"] not in turn.observed.refused)


def _suspensions(export: ModelExport, jobs: Mapping[Target, Object], starts: Starts) -> tuple[Suspension, ...]:
    return tuple(
        Suspension(job["metadata"]["name"], export.suspend)
        for target, job in jobs.items()
        if bool(job["spec"].get("suspend")) is not export.suspend
        and target not in starts.held
        and not queue_of(job)
        and not is_finished(job)
        and not job["metadata"].get("deletionTimestamp")
    )


def _withdrawals(export: ModelExport, jobs: Mapping[Target, Object]) -> tuple[str, ...]:
    there = (jobs[target] for target in export.targets if target in jobs)
    return tuple(
        job["metadata"]["name"]
        for job in there
        if _is_withdrawn(export, job) and not job["metadata"].get("deletionTimestamp")
    )


def _is_withdrawn(export: ModelExport, job: Object) -> bool:
    return export.suspend and queue_of(job) is not None and not is_finished(job)


def _conclude(observed: Observed, states: tuple[TargetState, ...], summary: Summary, now: datetime) -> Decision:
    """Write the status, if it changes."""
    previous = status_of(observed.parent)
    status = build_status(observed.parent, states, summary, format_time(now))
    if status == previous:
        return Decision(requeue_after=_requeue_after(observed, states))
    return Decision(
        status=status,
        finished=finished_targets(previous, states),
        requeue_after=_requeue_after(observed, states),
    )


def _requeue_after(observed: Observed, states: Sequence[TargetState]) -> timedelta | None:
    if observed.refused:
        return REFUSAL_RETRY
    ended = {job["metadata"]["name"] for job in observed.jobs if is_finished(job)}
    if any(state.job_name in ended and not state.state.is_final for state in states):
        return LOOK_AGAIN
    unexplained = [job for job in observed.jobs_without_pod() if job["metadata"]["name"] not in observed.pods_refused]
    if unexplained:
        return POD_PATIENCE
    return REFUSAL_RETRY if observed.pods_refused else None


def _expire(turn: _Round, decision: Decision, summary: Summary) -> Decision:
    """Delete an export when its time after the end is over; never before its last status was written."""
    ttl = turn.export.ttl_seconds_after_finished
    ended = moment(status_of(turn.observed.parent).get("completionTime"))
    if ttl is None or summary.phase not in (Phase.SUCCEEDED, Phase.FAILED) or turn.observed.refused:
        return decision  # What was refused is offered again, so this is no end.
    if decision.status is not None or ended is None:
        return replace(decision, requeue_after=timedelta(seconds=ttl))
    left = ended + timedelta(seconds=ttl) - turn.now
    return Decision(delete=True) if left <= timedelta(0) else replace(decision, requeue_after=left)


def format_time(at: datetime) -> str:
    """Write a time as Kubernetes does: RFC 3339 in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
