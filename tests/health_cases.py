"""The health that Argo CD and Flux must report for every status of the operator; the bodies are golden files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelexport_operator.status.conditions import (
    CONDITIONS,
    READY,
    RECONCILING,
    STALLED,
    Phase,
    find_condition,
    status_of,
)
from testcluster.layout import REPOSITORY
from unit.operator.golden import CASES, GOLDEN, read

Body = dict[str, Any]
ARGOCD = REPOSITORY / "deploy/argocd"
SCRIPT_FOLDER = ARGOCD / "resource_customizations/modelexport.dev/ModelExport"
"""Laid out as Argo CD's repository wants it, so that it can be contributed as it is."""


@dataclass(frozen=True)
class Verdict:
    """Argo CD's health and kstatus's status of an export."""

    argo: str
    flux: str


DELETED_MESSAGE = "Pending deletion"
"""Argo CD's own words: it looks at no script when an object is being deleted."""
UNSEEN_MESSAGE = "Waiting for the operator to see this version of the spec"
PROGRESSING = Verdict("Progressing", "InProgress")
TERMINATING = Verdict("Progressing", "Terminating")
VERDICTS: Mapping[Phase, Verdict] = {
    Phase.INVALID: Verdict("Degraded", "Failed"),
    Phase.WAITING: PROGRESSING,
    Phase.PROGRESSING: PROGRESSING,
    # kstatus has no such state: an object neither ready nor stalled is in progress.
    Phase.SUSPENDED: Verdict("Suspended", "InProgress"),
    Phase.SUCCEEDED: Verdict("Healthy", "Current"),
    Phase.FAILED: Verdict("Degraded", "Failed"),
}
BY_CONDITIONS = {CONDITIONS[phase]: verdict for phase, verdict in VERDICTS.items()}

UNSEEN = {"observedGeneration": -1}
"""The status that the API server gives to an export that no operator has seen."""
FIXTURES: Mapping[str, str] = {
    "progressing_created.yaml": "exports/new",
    "progressing_running.yaml": "pods/running",
    "progressing_retrying.yaml": "pods/out-of-memory-retrying",
    "progressing_unschedulable.yaml": "pods/unschedulable",
    "progressing_failureWhileOthersRun.yaml": "results/failure-while-others-run",
    "progressing_classNotFound.yaml": "classes/not-found",
    "suspended_suspended.yaml": "suspension/suspended",
    "healthy_succeeded.yaml": "results/succeeded",
    "degraded_verificationFailed.yaml": "results/verification-failed",
    "degraded_checkpointNotFound.yaml": "results/checkpoint-not-found",
    "degraded_invalidSpec.yaml": "exports/invalid-spec",
    "degraded_classInvalid.yaml": "classes/invalid",
}
"""File in ``testdata/`` -> the golden case that it shows."""


def body_of(case: str) -> Body:
    """The export of a golden case, with the decided status."""
    export: Body = read(GOLDEN / case / "modelexport.yaml")
    decided = read(GOLDEN / case / "decision.yaml")["status"]
    return export | ({"status": decided} if decided else {})


def verdict_of(body: Body) -> Verdict:
    """The expected health of an export."""
    metadata, status = body["metadata"], status_of(body)
    if metadata.get("deletionTimestamp"):
        return TERMINATING
    if status.get("observedGeneration") != metadata["generation"]:
        return PROGRESSING
    kinds = (READY, RECONCILING, STALLED)
    ready, reconciling, stalled = (str(find_condition(status, kind)["status"]) for kind in kinds)
    return BY_CONDITIONS[ready, reconciling, stalled]


def argo_message_of(body: Body) -> str:
    """The expected message in Argo CD: that of the conditions, which all three share."""
    verdict, status = verdict_of(body), status_of(body)
    if verdict is TERMINATING:
        return DELETED_MESSAGE
    if status.get("observedGeneration") != body["metadata"]["generation"]:
        return UNSEEN_MESSAGE
    return str(find_condition(status, READY)["message"])


def golden_bodies() -> dict[str, Body]:
    """The exports of all golden cases with a status, as the API server could return them."""
    bodies = {case: body_of(case) for case in CASES}
    return {case: body | {"status": body.get("status", UNSEEN)} for case, body in bodies.items()}


def fixtures() -> dict[str, Body]:
    """The content of the files in ``testdata/``."""
    return dict(_between_statuses()) | {name: body_of(case) for name, case in FIXTURES.items()}


def _between_statuses() -> Iterator[tuple[str, Body]]:
    """Moments when the status does not describe the spec: before the first status, after a change, during deletion."""
    new, done, stopped = body_of("exports/new"), body_of("results/succeeded"), body_of("suspension/suspended")
    yield "progressing_noStatus.yaml", {key: value for key, value in new.items() if key != "status"}
    yield "progressing_notSeen.yaml", new | {"status": UNSEEN}
    resumed = {"metadata": stopped["metadata"] | {"generation": 2}, "spec": stopped["spec"] | {"suspend": False}}
    yield "progressing_resumedNotSeen.yaml", stopped | resumed
    yield "progressing_deleting.yaml", done | {"metadata": done["metadata"] | _deletion()}


def _deletion() -> Body:
    return {"deletionTimestamp": "2026-01-02T03:05:00Z", "finalizers": ["foregroundDeletion"]}
