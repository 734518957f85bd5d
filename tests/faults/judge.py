"""Judges an operator by the history of the objects that it works on. Pure: a history in, complaints out.

The judge compares a status with the objects that the API server held when the status was written. Versions order all
writes: the resources of an API server with one etcd share one sequence of ``resourceVersion``.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from faults.history import (
    FAILED,
    FINAL,
    RUNNING,
    SUCCEEDED,
    Body,
    Claim,
    Conversion,
    Denial,
    Sight,
    Story,
    claims_of,
    ready_of,
)
from modelexport import names

ALL_DONE, SOME_FAILED = "Succeeded", "TargetsFailed"
"""Final reasons of an export."""
FILES_REMOVED = "FilesRemoved"
"""The event of an export that went with its files."""
OPEN_REASONS = ("Pending", "Queued", "Running", "Progressing")
"""What may be said before the end in a world that lacks nothing: it has its class, its nodes and its quota."""
RETRYING = "Retrying"
"""What may be said after a Pod has failed, or a Job was denied."""
ROUNDING_SECONDS = 2.0
"""Times of Kubernetes are whole seconds, and a deletion takes a moment."""


@dataclass(frozen=True)
class Order:
    """An export that the scenario ordered.

    Attributes:
        name: its name.
        ends: the reason with which each target must end, as ``{"ONNX/FP16": "Succeeded"}``.
        ttl: ``ttlSecondsAfterFinished``.
        is_deleted: the scenario deletes it, with its files, after it has ended.
    """

    name: str
    ends: Mapping[str, str]
    ttl: float | None = None
    is_deleted: bool = False

    @property
    def reason(self) -> str:
        """The final reason of the export."""
        return ALL_DONE if set(self.ends.values()) == {SUCCEEDED} else SOME_FAILED


@dataclass(frozen=True)
class Reported:
    """Events and metrics, beside the statuses.

    Attributes:
        events: pairs of an export's name and the reason of an event.
        counted: the sum of ``modelexport_conversions_total``; ``None`` if no process lived long enough to know.
    """

    events: Collection[tuple[str, str]] = ()
    counted: int | None = None


@dataclass(frozen=True)
class Verdict:
    """Complaints by kind, and the seconds until everything was reported.

    Attributes:
        lost: targets without an end, and exports that were deleted too early.
        double: targets that were converted twice.
        wrong: last statuses that contradict the history, or the content of the store where there is one.
        untrue: statuses that were not true when they were written.
        unreported: final events that are missing, conversions that were not counted.
        seconds: see ``recovery_seconds``.
    """

    lost: tuple[str, ...] = ()
    double: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    untrue: tuple[str, ...] = ()
    unreported: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def complaints(self) -> tuple[str, ...]:
        """All complaints."""
        return self.lost + self.double + self.wrong + self.untrue + self.unreported


def judge(
    history: Sequence[Sight],
    orders: Sequence[Order],
    reported: Reported,
    fault_end: float,
    *,
    stored: Mapping[str, str] | None = None,
    denials: Sequence[Denial] = (),
) -> Verdict:
    """Judge the work of an operator on some orders.

    Args:
        history: all states that the witness received, in the order of their arrival.
        orders: the ordered exports.
        reported: the events and metrics at the end.
        fault_end: the end of the fault, in seconds of the witness's clock.
        stored: the SHA-256 of every object in the store, by its URI; ``None`` where there is no store.
        denials: the Jobs that the API server did not let the operator create.
    """
    story = Story.of(history, denials)
    misplaced = () if stored is None else _find_misplaced(story, orders, stored)
    return Verdict(
        lost=tuple(text for order in orders for text in _find_lost(story, order)),
        double=tuple(text for order in orders for text in _find_double(story, order)),
        wrong=(*(text for order in orders for text in _find_wrong(story, order)), *misplaced),
        untrue=tuple(text for order in orders for text in _find_untrue(story, order)),
        unreported=tuple(find_unreported(orders, reported)),
        seconds=recovery_seconds(story, orders, fault_end),
    )


def is_all_reported(history: Sequence[Sight], orders: Sequence[Order]) -> bool:
    """Whether every Job has ended, and a status has reported the end of every target."""
    story = Story.of(history)
    return all(
        max(story.reported_at(order.name, target), story.conversions[order.name, target].ended_at) < math.inf
        for order in orders
        for target in order.ends
    )


def recovery_seconds(story: Story, orders: Sequence[Order], fault_end: float) -> float:
    """The longest reaction time in seconds, without the time of the fault.

    Reactions are the creation of an export's Jobs, and the status that reports the end of a Job. Infinite if one never
    came.
    """
    return max((s for order in orders for s in _delays(story, order, fault_end)), default=0.0)


def _delays(story: Story, order: Order, fault_end: float) -> Iterator[float]:
    sights = story.exports[order.name]
    ordered_at = sights[0].at if sights else math.inf
    for target in order.ends:
        conversion = story.conversions[order.name, target]
        yield _delay(ordered_at, conversion.created_at, fault_end)
        yield _delay(conversion.ended_at, story.reported_at(order.name, target), fault_end)


def _delay(cause: float, consequence: float, fault_end: float) -> float:
    return math.inf if math.inf in (cause, consequence) else max(0.0, consequence - max(cause, fault_end))


def _find_lost(story: Story, order: Order) -> Iterator[str]:
    final = story.final_claims(order.name)
    for target in order.ends:
        if target not in final or final[target].state not in FINAL:
            said = final[target].state if target in final else "nothing"
            yield f"{order.name} {target}: its last status says {said}"
    gone = next((sight.at for sight in story.exports[order.name] if sight.change == "DELETED"), None)
    if gone is None or order.is_deleted:
        return
    lived = gone - max((story.conversions[order.name, target].ended_at for target in order.ends), default=math.inf)
    if order.ttl is None or lived < order.ttl - ROUNDING_SECONDS:
        yield f"{order.name}: deleted {lived:.0f} s after its end; its TTL is {order.ttl}"


def _find_double(story: Story, order: Order) -> Iterator[str]:
    for target in order.ends:
        jobs = story.conversions[order.name, target].jobs.values()
        for one, other in combinations(jobs, 2):
            if _begin(one) < _end(other) and _begin(other) < _end(one):
                yield f"{order.name} {target}: two Jobs at once"
        claims = (c for claims in story.claims(order.name) for c in claims if c.target == target)
        succeeded = next((claim.version for claim in claims if claim.state == SUCCEEDED), None)
        if succeeded is not None and any(_begin(job) > succeeded for job in jobs):
            yield f"{order.name} {target}: a new Job after its success was reported"


def _begin(job: Sequence[Sight]) -> float:
    return job[0].since


def _end(job: Sequence[Sight]) -> float:
    return job[-1].version if job[-1].change == "DELETED" else math.inf


def _find_wrong(story: Story, order: Order) -> Iterator[str]:
    final = story.final_claims(order.name)
    for target, reason in order.ends.items():
        claim = final.get(target)
        if claim is None or claim.state not in FINAL:
            continue
        if claim.reason != reason:
            yield f"{order.name} {target}: {claim.state}/{claim.reason} at the end; it is {reason}"
        elif (claim.artifact is not None) != (reason == SUCCEEDED):
            yield f"{order.name} {target}: {claim.reason} {'with' if claim.artifact else 'without'} a file"
    last = next((s.body for s in reversed(story.exports[order.name]) if s.change != "DELETED"), {})
    good = sum(reason == SUCCEEDED for reason in order.ends.values())
    if order.ends.keys() <= final.keys() and ready_of(last).get("reason") not in (order.reason, None):
        yield f"{order.name}: {ready_of(last)['reason']} at the end; it is {order.reason}"
    elif (said := last.get("status", {}).get("ready")) not in (None, f"{good}/{len(order.ends)}"):
        yield f"{order.name}: {said} are ready at the end; {good} are"


def _find_misplaced(story: Story, orders: Sequence[Order], stored: Mapping[str, str]) -> Iterator[str]:
    """Compare the files in the last statuses with the store."""
    promised: set[str] = set()
    for order in orders:
        for claim in story.final_claims(order.name).values():
            if claim.artifact is not None:
                uri, digest = claim.artifact["uri"], claim.artifact["sha256"]
                promised |= {uri, claim.report, f"{claim.report.rsplit('/', 2)[0]}/{names.PAGE_FILE}"}
                if (found := stored.get(uri)) != digest:
                    yield f"{order.name} {claim.target}: its file is {found or 'nothing'} in the store, not {digest}"
                if claim.report not in stored:
                    yield f"{order.name} {claim.target}: its report is not in the store"
    yield from (f"{uri}: it is in the store, and no status tells of it" for uri in sorted(stored.keys() - promised))


def _find_untrue(story: Story, order: Order) -> Iterator[str]:
    before: dict[str, Claim] = {}
    for claims in story.claims(order.name):
        for claim in claims:
            was = before.get(claim.target)
            if not claim.says_as(was):
                lie = _find_lie(claim, story.conversions[order.name, claim.target], order.ends.get(claim.target, ""))
                lie = lie or (f"taken back: {was.state}/{was.reason}" if was and was.state in FINAL else "")
                if lie:
                    yield f"{order.name} {claim.target}: {claim.state}/{claim.reason} at {claim.version}: {lie}"
            before[claim.target] = claim
    said: object = None
    for sight in story.exports[order.name]:
        ready = ready_of(sight.body)
        if ready.get("reason") != said and (lie := _find_lie_of_export(ready, list(claims_of(sight)), order)):
            yield f"{order.name}: Ready is {ready.get('status')}/{ready.get('reason')}: {lie}"
        said = ready.get("reason")


def _find_lie(claim: Claim, conversion: Conversion, end: str) -> str:
    """The error in a claim at its time; empty if the claim is true."""
    at = claim.version
    if claim.state == SUCCEEDED and not (conversion.has("Complete", at) and conversion.has_published(at)):
        return "its Job had not succeeded"
    if claim.state == FAILED and not (conversion.has("Failed", at) or conversion.has("FailureTarget", at)):
        return "its Job had not failed"
    if claim.state == RUNNING and not conversion.has_started(at):
        return "its Pod had not started"
    if claim.state in FINAL and claim.reason != end:
        return f"it is {end}"
    is_retry = claim.reason == RETRYING and (conversion.has_failed_once(at) or conversion.is_denied(claim))
    if claim.state not in FINAL and claim.reason not in OPEN_REASONS and not is_retry:
        return "nothing is missing"
    return ""


def _find_lie_of_export(ready: Body, claims: Sequence[Claim], order: Order) -> str:
    reason, states = ready.get("reason"), {claim.target: claim.state for claim in claims}
    if reason in (ALL_DONE, SOME_FAILED):
        has_ended = all(states.get(target) in FINAL for target in order.ends)
        return "" if has_ended and reason == order.reason else f"{states}, and it is {order.reason}"
    return "" if reason in (*OPEN_REASONS, None) else "nothing is missing"


def find_unreported(orders: Sequence[Order], reported: Reported) -> list[str]:
    """Return the ends that events and metrics miss."""
    wanted = [(order.name, FILES_REMOVED if order.is_deleted else order.reason) for order in orders]
    missing = [f"{name}: no event {reason}" for name, reason in wanted if (name, reason) not in reported.events]
    targets = sum(len(order.ends) for order in orders)
    if reported.counted not in (None, targets):
        missing.append(f"{reported.counted} conversions are counted; it were {targets}")
    return missing
