"""Decides what to write for one ModelExport, from a snapshot. Pure; the time is an argument.

Three rules make restarts, upgrades and clean-ups safe:

* A target has at most one Job. Any existing Job of a target is used, even one that an older operator named differently,
  because the model of an export never changes. If a conversion succeeded and its result was lost with its Pod, a second
  Job repeats it once: the converter finds the files that the first one published.
* A target that is recorded as succeeded never runs again, whether or not its Job still exists. A failed one runs again
  when its Job is deleted: this is how users retry.
* The recorded status of a finished Job stays valid when its Pods are gone.

Nothing final follows from an object that is only missing in the snapshot (see ``Snapshot``).

A Job in a Kueue queue is never suspended or resumed here: Kueue would resume at once what it has admitted. If the user
suspends the export, such a Job is deleted, and created again when the export resumes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

from modelexport.api.fields import InvalidSpec
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.spec import ExportClass, ModelExport
from modelexport.matrix.support import Target
from modelexport.untrusted import moment
from modelexport_operator.jobs.asked_targets import read_target
from modelexport_operator.jobs.conversion_job import build_job, job_name
from modelexport_operator.jobs.diagnosis import Diagnosis
from modelexport_operator.jobs.state import (
    RELIST_DELAY,
    State,
    TargetState,
    describe_start,
    has_lost_result,
    is_active,
    is_failing,
    is_finished,
    is_suspended,
    kueue_queue_of,
    observe_target,
    shorten,
)
from modelexport_operator.kube.clock import format_time
from modelexport_operator.kube.objects import Job, ModelExportStatus
from modelexport_operator.reconcile.deletion import clean_up, correct_finalizers
from modelexport_operator.reconcile.export_class import find_class, output_folder, pick_class
from modelexport_operator.reconcile.parsed_objects import parse_export_once, plan_export_once
from modelexport_operator.reconcile.snapshot import POD_CREATION_TOLERANCE, Snapshot, is_record_of
from modelexport_operator.scheduling.admission import Admission, Candidates, admit
from modelexport_operator.scheduling.fair_share import Demand, is_limited
from modelexport_operator.scheduling.shared_evaluation import Sharers, evaluation_key, find_sharers, recheck_after
from modelexport_operator.status.conditions import (
    Phase,
    Summary,
    build_status,
    has_changed,
    status_of,
    summarise,
    target_entries,
)
from modelexport_operator.status.events import Event, finished_targets
from modelexport_operator.status.progress import observe_progress

REFUSAL_RETRY = timedelta(seconds=60)
"""Pause before a Job that the API server refused is created again: quotas and policies change over time."""
DENIED = "The API server does not let the operator create the Job, which is tried again"
REPEATS = "The conversion ended well, but its Pod was gone before its result was read; it is repeated once"


@dataclass(frozen=True)
class Suspension:
    """A Job and the new value of its ``spec.suspend``."""

    job_name: str
    suspend: bool


@dataclass(frozen=True)
class Decision:
    """What to write, in this order: Jobs, suspensions, finalizers, status; or the deletion of the whole export.

    Attributes:
        create: Jobs to create.
        suspend: Jobs to suspend or resume.
        withdraw: names of the Jobs to delete because Kueue would resume them.
        finalizers: the new finalizers, or ``None`` if they stay. They change alone; the watch reports the change, and
            the next sync continues from there.
        delete: whether to delete the export.
        status: the new status, as if the Jobs were already created, or ``None`` if it stays.
        events: events about removed files. All other events follow from comparing statuses once they are recorded.
        finished: the targets whose end ``status`` is the first to record.
        requeue_after: when to sync again without a change.
    """

    create: tuple[Job, ...] = ()
    suspend: tuple[Suspension, ...] = ()
    withdraw: tuple[str, ...] = ()
    finalizers: tuple[str, ...] | None = None
    delete: bool = False
    status: ModelExportStatus | None = None
    events: tuple[Event, ...] = ()
    finished: tuple[TargetState, ...] = ()
    requeue_after: timedelta | None = None


def sync(snapshot: Snapshot, now: datetime) -> Decision:
    """Decide what to write for one export.

    Args:
        snapshot: everything that is known of it.
        now: the time, with its zone.
    """
    if snapshot.is_deleted:
        step = clean_up(snapshot)
        return Decision(
            create=step.create,
            suspend=tuple(Suspension(name, suspend=True) for name in step.stop),
            withdraw=step.withdraw,
            finalizers=step.finalizers,
            events=step.events,
            requeue_after=step.requeue_after,
        )
    try:
        export = parse_export_once(snapshot.parent)
        if (finalizers := correct_finalizers(snapshot, export)) is not None:
            return Decision(finalizers=finalizers)
        found = find_class(export, snapshot.classes)
        requests = plan_export_once(snapshot.parent, output_folder(found) if isinstance(found, ExportClass) else "")
    except InvalidSpec as error:
        problem = Diagnosis(error.reason, str(error))
        return _record(snapshot, tuple(snapshot.recorded.values()), summarise((), problem=problem), now)
    return _sync_targets(ReconcileContext(snapshot, export, found, now, requests))


def lacks_node(snapshot: Snapshot, decision: Decision) -> bool:
    """Return whether a decision is the first to say that no node suits a target: the nodes must be listed."""
    known = {target for target, state in snapshot.recorded.items() if state.reason is Reason.NO_SUITABLE_NODE}
    entries = target_entries(decision.status or {})
    return any(entry["reason"] == Reason.NO_SUITABLE_NODE and read_target(entry) not in known for entry in entries)


@dataclass(frozen=True)
class ReconcileContext:
    """The inputs that all steps of one sync share."""

    snapshot: Snapshot
    export: ModelExport
    found: ExportClass | Diagnosis
    now: datetime
    requests: Sequence[ConversionRequest]

    @cached_property
    def repeated(self) -> frozenset[Target]:
        """The targets whose conversion succeeded and has to be repeated because its result was lost."""
        repeated, snapshot = set(), self.snapshot
        for target, job in snapshot.job_by_target.items():
            name = job["metadata"]["name"]
            is_lost = name in snapshot.pods_listed and has_lost_result(job, snapshot.pods_of(name))
            is_repeat = name == job_name(self.export, target, is_repeat=True)
            if is_lost and not is_repeat and not is_record_of(snapshot.recorded.get(target), job):
                repeated.add(target)
        return frozenset(repeated)

    def find_sharers(self, seen: Sequence[TargetState]) -> tuple[Sharers, ...]:
        """Return the groups of targets that wait for one of them to evaluate the original.

        Args:
            seen: the states of the targets that have a Job or have ended.
        """
        if self.export.evaluation is None:
            return ()
        jobs, recorded = self.snapshot.job_by_target, self.snapshot.recorded
        ended = {state.target for state in seen if state.state.is_final}
        refused = {target for target, record in recorded.items() if record.reason is Reason.JOB_REFUSED}
        observed = {state.target: (jobs[state.target], state) for state in seen if state.target in jobs}
        return find_sharers(self.requests, observed, ended | refused | self.repeated, self.now)

    def shares_original(self, request: ConversionRequest, job: Job) -> bool:
        """Return whether another target had evaluated the original already when the Job of a target was created."""
        begun, recorded = moment(job["metadata"].get("creationTimestamp")), self.snapshot.recorded
        if request.evaluation is None or begun is None:
            return False
        key = evaluation_key(request)
        alike = (recorded.get(other.target) for other in self.requests if evaluation_key(other) == key)
        ends = (moment(one.completion_time) for one in alike if one is not None and one.state is State.SUCCEEDED)
        return any(end is not None and end <= begun for end in ends)

    def job_name(self, target: Target) -> str:
        """Return the name of the next Job of a target."""
        return job_name(self.export, target, is_repeat=target in self.repeated)


def _sync_targets(context: ReconcileContext) -> Decision:
    export, requests, jobs = context.export, context.requests, context.snapshot.job_by_target
    seen = [_observe(context, request, jobs.get(request.target)) for request in requests]
    missing = [request for request, state in zip(requests, seen, strict=True) if state is None]
    problem = context.found if missing and isinstance(context.found, Diagnosis) else None
    sharers = context.find_sharers([state for state in seen if state is not None])
    admission = _admit_targets(context, missing, sharers)
    states = tuple(
        _hold(state, admission) if state else _expect(context, request, admission)
        for request, state in zip(requests, seen, strict=True)
    )
    summary = summarise(states, suspended=export.suspend, problem=problem)
    present = {target: job for target, job in jobs.items() if not job["metadata"].get("deletionTimestamp")}
    decision = replace(
        _record(context.snapshot, states, summary, context.now),
        create=_jobs_to_create(context, missing, admission),
        suspend=tuple(
            Suspension(job["metadata"]["name"], export.suspend)
            for target, job in present.items()
            if bool(job["spec"].get("suspend")) is not export.suspend
            and target not in admission.held
            and not kueue_queue_of(job)
            and not is_finished(job)
        ),
        withdraw=tuple(
            present[target]["metadata"]["name"]
            for target in export.targets
            if target in present and _is_withdrawn(export, present[target])
        ),
    )
    if any(state.reason is Reason.WAIT_FOR_EVALUATION for state in states):
        delays = (decision.requeue_after, recheck_after(sharers, context.now))
        decision = replace(decision, requeue_after=min((delay for delay in delays if delay is not None), default=None))
    return _expire(context, decision, summary)


def _admit_targets(
    context: ReconcileContext, missing: Sequence[ConversionRequest], sharers: Sequence[Sharers]
) -> Admission:
    """Decide which of the targets without a running Job may start.

    Args:
        context: the inputs of the sync.
        missing: the requests of the targets that need a Job.
        sharers: the targets that wait for one of them to evaluate the original.
    """
    snapshot, export, found = context.snapshot, context.export, context.found
    if export.suspend or isinstance(found, Diagnosis):
        return Admission()
    jobs = snapshot.job_by_target
    reserved = [request for request in missing if context.job_name(request.target) in snapshot.reserved]
    running = len(reserved) + sum(is_active(job) for job in jobs.values())
    suspended = [target for target, job in jobs.items() if is_suspended(job)]
    resumed = [target for target in suspended if jobs[target]["metadata"]["name"] in snapshot.reserved]
    since = snapshot.parent["metadata"].get("creationTimestamp", "")
    candidates = Candidates(
        Demand((export.namespace, export.name), export.class_name, since, running + len(resumed), 0),
        reserved=reserved,
        suspended=[target for target in export.targets if target in suspended and target not in resumed],
        new=[request for request in missing if request not in reserved],
        sharers=sharers,
    )
    others: list[Demand] = []
    if is_limited(found.sharing) and (missing or suspended):
        default = pick_class(None, snapshot.classes)
        is_default = default is not None and default["metadata"]["name"] == found.name
        class_names = (found.name, None) if is_default else (found.name,)
        others = [demand for demand in snapshot.others if demand.class_name in class_names]
    return admit(candidates, found, snapshot.nodes, others)


def _hold(state: TargetState, admission: Admission) -> TargetState:
    """Return the state of a target with the reason why it may not start, if it may not."""
    held = admission.held.get(state.target)
    return replace(state, reason=held.reason, message=shorten(held.message)) if held else state


def _observe(context: ReconcileContext, request: ConversionRequest, job: Job | None) -> TargetState | None:
    """Return the state of a target, or ``None`` if it needs a Job."""
    snapshot = context.snapshot
    record = snapshot.recorded.get(request.target)
    if job is None or _is_withdrawn(context.export, job) or request.target in context.repeated:
        return record if record is not None and record.state is State.SUCCEEDED else None
    is_recorded = record is not None and is_record_of(record, job)
    if is_recorded and record is not None and record.state is State.SUCCEEDED:
        return record
    name = job["metadata"]["name"]
    pods = snapshot.pods_of(name)
    was_queued = record is not None and record.state is State.QUEUED
    previous = Diagnosis(record.reason, record.message) if record is not None and was_queued else None
    state = observe_target(
        request.target,
        job,
        pods,
        all_pods_listed=name in snapshot.pods_listed,
        previous=previous,
        pod_refusal=snapshot.pods_refused.get(name),
        admission=snapshot.admissions.get(name),
    )
    if is_recorded and state.result is None:
        return record
    if previous is not None and is_failing(job):
        # The Pods are removed before the Job is marked as failed: keep the reason why they waited until then.
        return record
    progress = None
    if state.state is State.RUNNING:
        shares = context.shares_original(request, job)
        progress = observe_progress(request, pods, context.now, shares_original=shares)
    return replace(state, recipe=state.recipe or str(request.recipe), progress=progress)


def _expect(context: ReconcileContext, request: ConversionRequest, admission: Admission) -> TargetState:
    """Return the state of a target without a Job, as it will be once this decision is written."""
    snapshot, found, name = context.snapshot, context.found, context.job_name(request.target)
    state = TargetState(request.target, State.PENDING, Reason.PENDING, "Not started", recipe=str(request.recipe))
    if name in snapshot.refused or name in snapshot.denied:
        return _refuse(context, replace(state, job_name=name))
    if isinstance(found, Diagnosis):
        return replace(state, reason=found.reason, message=shorten(found.message))
    if context.export.suspend:
        return replace(state, reason=Reason.SUSPENDED, message="Suspended; set spec.suspend: false to go on")
    if request.target in admission.held:
        return _hold(state, admission)
    if request.target in context.repeated:
        return replace(state, state=State.QUEUED, reason=Reason.RETRYING, message=REPEATS, job_name=name)
    message = describe_start(found.sharing.queue_name)
    return replace(state, state=State.QUEUED, reason=Reason.QUEUED, message=message, job_name=name)


def _refuse(context: ReconcileContext, state: TargetState) -> TargetState:
    """Return the state of a target whose Job the API server has just refused, or denied for want of a right."""
    snapshot, name = context.snapshot, str(state.job_name)
    record = snapshot.recorded.get(state.target)
    before = record if record is not None and record.reason is Reason.JOB_REFUSED else None
    if name in snapshot.denied:
        # A denial adds nothing to an earlier refusal: the next try tells whether that still holds.
        words = shorten(f"{DENIED}: {snapshot.denied[name]}")
        return before or replace(state, reason=Reason.RETRYING, message=words)
    return replace(
        state,
        state=State.FAILED,
        reason=Reason.JOB_REFUSED,
        message=shorten(f"The API server refused the Job: {snapshot.refused[name]}"),
        completion_time=(before and before.completion_time) or format_time(context.now),
    )


def _jobs_to_create(
    context: ReconcileContext, missing: Sequence[ConversionRequest], admission: Admission
) -> tuple[Job, ...]:
    if isinstance(context.found, Diagnosis):
        return ()
    jobs = (
        build_job(
            context.export,
            request,
            context.found,
            admission.pools[request.target],
            name=context.job_name(request.target),
            planned=context.requests,
        )
        for request in missing
        if request.target in admission.pools
    )
    unwanted = context.snapshot.refused.keys() | context.snapshot.denied.keys()
    return tuple(job for job in jobs if job["metadata"]["name"] not in unwanted)


def _is_withdrawn(export: ModelExport, job: Job) -> bool:
    """Return whether a Job has to be deleted because its export is suspended and Kueue would resume it."""
    return export.suspend and kueue_queue_of(job) is not None and not is_finished(job)


def _record(snapshot: Snapshot, states: tuple[TargetState, ...], summary: Summary, now: datetime) -> Decision:
    """Return a decision that writes the status, unless only time-dependent fields of it differ."""
    status = build_status(snapshot.parent, states, summary, format_time(now))
    requeue_after = _requeue_after(snapshot, states)
    if not has_changed(status, status_of(snapshot.parent)):
        return Decision(requeue_after=requeue_after)
    return Decision(status=status, finished=finished_targets(snapshot.recorded, states), requeue_after=requeue_after)


def _requeue_after(snapshot: Snapshot, states: Sequence[TargetState]) -> timedelta | None:
    if snapshot.refused:
        return REFUSAL_RETRY
    ended = {job["metadata"]["name"] for job in snapshot.jobs if is_finished(job)}
    if any(state.job_name in ended and not state.state.is_final for state in states):
        return RELIST_DELAY
    unexplained = [job for job in snapshot.jobs_without_pod() if job["metadata"]["name"] not in snapshot.pods_refused]
    if unexplained:
        return POD_CREATION_TOLERANCE
    return REFUSAL_RETRY if snapshot.pods_refused else None


def _expire(context: ReconcileContext, decision: Decision, summary: Summary) -> Decision:
    """Delete an export when its TTL is over; never before its last status was written."""
    ttl = context.export.ttl_seconds_after_finished
    ended = moment(status_of(context.snapshot.parent).get("completionTime"))
    is_refused = context.snapshot.refused or context.snapshot.denied
    if ttl is None or summary.phase not in (Phase.SUCCEEDED, Phase.FAILED) or is_refused:
        return decision  # Refused Jobs are created again later, so the export has not ended.
    if decision.status is not None or ended is None:
        return replace(decision, requeue_after=timedelta(seconds=ttl))
    left = ended + timedelta(seconds=ttl) - context.now
    return Decision(delete=True) if left <= timedelta(0) else replace(decision, requeue_after=left)
