"""The observed states of exports, Jobs and Pods, grouped by conversion. Pure."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelexport import names

Body = Mapping[str, Any]
EXPORTS, JOBS, PODS = "modelexports", "jobs", "pods"
SUCCEEDED, FAILED, RUNNING = "Succeeded", "Failed", "Running"
FINAL = (SUCCEEDED, FAILED)


@dataclass(frozen=True)
class Sight:
    """One state of one object.

    Attributes:
        at: the time at which the witness received it, in seconds of its monotonic clock.
        kind: ``modelexports``, ``jobs`` or ``pods``.
        change: ``ADDED``, ``MODIFIED`` or ``DELETED``.
        body: the object.
        since: the earliest version at which the object may have been in this state. It is below the object's own
            version if the witness missed events for a while; the operator then gets the benefit of the doubt.
    """

    at: float
    kind: str
    change: str
    body: Body
    since: int

    @property
    def version(self) -> int:
        """The version of the object."""
        return int(self.body["metadata"]["resourceVersion"])


@dataclass(frozen=True)
class Claim:
    """The entry of a target in a status; ``artifact`` is its file, ``report`` the URI of its report, if it has them."""

    target: str
    state: str
    reason: str
    artifact: Body | None
    report: str
    version: int
    at: float

    def says_as(self, other: "Claim | None") -> bool:
        """Whether another claim says the same."""
        return other is not None and (self.state, self.reason) == (other.state, other.reason)


@dataclass(frozen=True)
class Denial:
    """A Job that the API server did not let the operator create, and the time of its answer."""

    at: float
    job: Body


@dataclass
class Conversion:
    """All observed states of one target's Jobs and of their Pods, and the times at which a Job was denied."""

    jobs: dict[str, list[Sight]] = field(default_factory=lambda: defaultdict(list))
    pods: list[Sight] = field(default_factory=list)
    denied_at: list[float] = field(default_factory=list)

    def has(self, condition: str, version: int) -> bool:
        """Whether a Job had a condition at a version."""
        return any(
            sight.since <= version and _has(sight.body, condition) for job in self.jobs.values() for sight in job
        )

    def has_started(self, version: int) -> bool:
        """Whether a Pod had started at a version."""
        return any(sight.since <= version and _has_started(sight.body) for sight in self.pods)

    def has_published(self, version: int) -> bool:
        """Whether a Pod had succeeded at a version."""
        return any(sight.since <= version and _phase(sight.body) == "Succeeded" for sight in self.pods)

    def has_failed_once(self, version: int) -> bool:
        """Whether a Pod had failed at a version."""
        return any(sight.since <= version and _phase(sight.body) == "Failed" for sight in self.pods)

    def is_denied(self, claim: Claim) -> bool:
        """Whether a Job had been denied at the time of a claim, and none existed."""
        is_created = any(sight.since <= claim.version for job in self.jobs.values() for sight in job)
        return not is_created and any(at <= claim.at for at in self.denied_at)

    @property
    def created_at(self) -> float:
        """When its first Job was seen."""
        return min((job[0].at for job in self.jobs.values()), default=math.inf)

    @property
    def ended_at(self) -> float:
        """When its first Job was seen to have ended."""
        ends = (s.at for job in self.jobs.values() for s in job if _has(s.body, "Complete") or _has(s.body, "Failed"))
        return min(ends, default=math.inf)


@dataclass
class Story:
    """The history, grouped by conversion and export."""

    exports: dict[str, list[Sight]] = field(default_factory=lambda: defaultdict(list))
    conversions: dict[tuple[str, str], Conversion] = field(default_factory=lambda: defaultdict(Conversion))

    @classmethod
    def of(cls, history: Sequence[Sight], denials: Sequence[Denial] = ()) -> "Story":
        """Group a history."""
        story = cls()
        for denial in denials:
            story.conversions[_conversion_of(denial.job)].denied_at.append(denial.at)
        for sight in history:
            key = _conversion_of(sight.body)
            if sight.kind == EXPORTS:
                story.exports[sight.body["metadata"]["name"]].append(sight)
            elif sight.kind == JOBS and key[1]:
                story.conversions[key].jobs[sight.body["metadata"]["uid"]].append(sight)
            elif sight.kind == PODS and key[1]:
                story.conversions[key].pods.append(sight)
        return story

    def claims(self, name: str) -> Iterator[list[Claim]]:
        """The claims about the targets in each status of an export, in the order of versions."""
        for sight in self.exports[name]:
            if sight.change != "DELETED":
                yield list(claims_of(sight))

    def reported_at(self, name: str, target: str) -> float:
        """The time at which a status first reported the end of a target."""
        reported = (c.at for claims in self.claims(name) for c in claims if c.target == target and c.state in FINAL)
        return next(reported, math.inf)

    def final_claims(self, name: str) -> dict[str, Claim]:
        """The claims about the targets in the last status of an export."""
        *_, last = ([], *self.claims(name))
        return {claim.target: claim for claim in last}


def claims_of(sight: Sight) -> Iterator[Claim]:
    """The claims of a status about the targets of its export."""
    for entry in sight.body.get("status", {}).get("targets") or ():
        target, files = f"{entry['format']}/{entry['precision']}", (entry.get("artifact"), entry.get("reportURI", ""))
        yield Claim(target, entry["state"], entry["reason"], *files, sight.version, sight.at)


def _conversion_of(body: Body) -> tuple[str, str]:
    """The names of the export and the target of a Job or Pod; an empty target if it converts nothing."""
    labels = body["metadata"].get("labels") or {}
    is_conversion = names.FORMAT_LABEL in labels
    target = f"{labels[names.FORMAT_LABEL]}/{labels[names.PRECISION_LABEL]}" if is_conversion else ""
    return labels.get(names.EXPORT_LABEL, ""), target


def _has(job: Body, condition: str) -> bool:
    conditions = job.get("status", {}).get("conditions") or ()
    return any(c["type"] == condition and c["status"] == "True" for c in conditions)


def _phase(pod: Body) -> str:
    return str(pod.get("status", {}).get("phase", ""))


def _has_started(pod: Body) -> bool:
    status = pod.get("status", {})
    states = [s.get("state", {}) for key in ("initContainerStatuses", "containerStatuses") for s in status.get(key, ())]
    return any("running" in state or "terminated" in state for state in states)


def ready_of(export: Body) -> Body:
    """The condition Ready of an export; empty before there is one."""
    conditions = export.get("status", {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == "Ready"), {})
