"""Compares the decisions of ``sync`` with golden files.

Every folder ``tests/golden/TOPIC/CASE`` holds two inputs: ``modelexport.yaml`` (the export) and ``observed.yaml`` (the
time, the start of the operator, the classes, the nodes, the demands of other exports, and per target a Job and its
Pods, with the relevant fields only; ``podsListed`` says that the API server has just listed all Pods). The expected
outputs are ``decision.yaml`` and, in some cases, ``job.yaml``: the first Job in full.
``MODELEXPORT_UPDATE_GOLDEN=1`` writes the outputs anew; read the difference before you commit it.
"""

from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from modelexport.api.reasons import Reason
from modelexport_operator.jobs.diagnosis import Diagnosis
from modelexport_operator.jobs.state import State
from modelexport_operator.kube.resources import CLASSES, EXPORTS, JOBS, NODES, PODS, Resource
from modelexport_operator.kube.types import key_of
from modelexport_operator.reconcile.reconcile import Decision, sync
from modelexport_operator.reconcile.snapshot import Snapshot
from modelexport_operator.runtime.cache import Cache
from modelexport_operator.scheduling.fair_share import Demand
from modelexport_operator.status.conditions import RecordedStatus, status_of
from modelexport_operator.status.events import compare_statuses
from unit.operator.golden import CASES, GOLDEN, check, read
from unit.operator.objects import Body, make_class, make_clean_job, make_job, make_node, make_pod

CONVERTERS_WORDS = {
    *(reason for reason in Reason if reason.startswith(("Checkpoint", "Calibration", "Evaluation", "Storage"))),
    Reason.BUCKET_NOT_FOUND,
    Reason.CONVERSION_FAILED,
    Reason.DIGEST_MISMATCH,
    Reason.INSPECTION_FAILED,
    Reason.OUTPUT_REFUSED,
    Reason.WEIGHTS_NOT_FINITE,
}
"""What only a converter says: the operator passes it on, as in the case results/verification-failed."""


def expand(parent: Body, observed: dict[str, Any]) -> Snapshot:
    classes = observed.get("classes", [make_class()])
    jobs, pods = [], []
    for target, entry in observed.get("targets", {}).items():
        job = make_job(parent, target, **entry.get("job", {}))
        jobs.append(job)
        pods += [make_pod(job, index, **pod) for index, pod in enumerate(entry.get("pods", []))]
    if clean_up := observed.get("cleanUp"):
        job = make_clean_job(parent, **clean_up.get("job", {}))
        jobs.append(job)
        pods += [make_pod(job, index, **pod) for index, pod in enumerate(clean_up.get("pods", []))]
    return Snapshot(
        parent,
        jobs,
        pods,
        classes,
        conversions=jobs[: len(observed.get("targets", {}))],
        nodes=[make_node(**node) for node in observed.get("nodes", [])],
        others=[Demand(**{**other, "key": tuple(other["key"])}) for other in observed.get("others", [])],
        reserved=observed.get("reserved", []),
        refused=observed.get("refused", {}),
        pods_refused=observed.get("podsRefused", {}),
        admissions={
            name: Diagnosis(Reason(said["reason"]), said["message"])
            for name, said in observed.get("admissions", {}).items()
        },
        pods_listed=[job["metadata"]["name"] for job in jobs] if observed.get("podsListed") else [],
        deleted_for=deleted_for(parent, observed),
    )


def deleted_for(parent: dict[str, Any], observed: dict[str, Any]) -> timedelta:
    """The seconds for which the operator has seen the deletion: since its time, or since the start of the operator."""
    if "deletionTimestamp" not in parent["metadata"]:
        return timedelta(0)
    deleted = datetime.fromisoformat(parent["metadata"]["deletionTimestamp"])
    there = datetime.fromisoformat(observed["since"]) if "since" in observed else deleted
    return datetime.fromisoformat(observed["now"]) - max(deleted, there)


def render(decision: Decision, parent: dict[str, Any]) -> dict[str, Any]:
    before = RecordedStatus(status_of(parent))
    told = decision.events if decision.status is None else compare_statuses(before, RecordedStatus(decision.status))
    return {
        "create": [job["metadata"]["name"] for job in decision.create],
        "suspend": [asdict(suspension) for suspension in decision.suspend],
        **({"withdraw": list(decision.withdraw)} if decision.withdraw else {}),
        **({} if decision.finalizers is None else {"finalizers": list(decision.finalizers)}),
        "delete": decision.delete,
        "status": decision.status,
        "events": [{"type": e.type, "reason": e.reason, "message": e.message} for e in told],
        "requeueAfter": decision.requeue_after and decision.requeue_after.total_seconds(),
    }


@pytest.mark.parametrize("case", CASES)
def test_observed_state_gives_expected_decision(case: str) -> None:
    parent, observed = read(GOLDEN / case / "modelexport.yaml"), read(GOLDEN / case / "observed.yaml")
    decision = sync(expand(parent, observed), datetime.fromisoformat(observed["now"]))
    check(GOLDEN / case / "decision.yaml", render(decision, parent))
    if (GOLDEN / case / "job.yaml").exists():
        check(GOLDEN / case / "job.yaml", decision.create[0])


@pytest.mark.parametrize("case", CASES)
def test_cached_objects_give_same_decision(case: str) -> None:
    parent, observed = read(GOLDEN / case / "modelexport.yaml"), read(GOLDEN / case / "observed.yaml")
    given, cache = expand(parent, observed), Cache()
    known: dict[Resource, Any] = {
        EXPORTS: [parent],
        JOBS: given.jobs,
        PODS: given.pods,
        CLASSES: given.classes,
        NODES: given.nodes,
    }
    for resource, bodies in known.items():
        for body in bodies:  # An export that had ended when the cache received it is compressed.
            versioned: Body = {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}
            cache[resource].put(versioned)
    kept = cache.snapshot(key_of(parent))
    assert kept is not None
    now = datetime.fromisoformat(observed["now"])
    besides = (
        "conversions",
        "deleted_for",
        "others",
        "reserved",
        "admissions",
        "refused",
        "pods_refused",
        "pods_listed",
    )
    whole = replace(kept, **{name: getattr(given, name) for name in besides})
    assert sync(whole, now) == sync(given, now)


@pytest.mark.parametrize("case", CASES)
def test_applied_decision_is_not_repeated(case: str) -> None:
    parent, observed = read(GOLDEN / case / "modelexport.yaml"), read(GOLDEN / case / "observed.yaml")
    now = datetime.fromisoformat(observed["now"])
    first = sync(expand(parent, observed), now)
    written = {} if first.finalizers is None else {"finalizers": list(first.finalizers)}
    status = {"status": first.status} if first.status else {}
    after: Body = {**parent, **status, "metadata": {**parent["metadata"], **written}}
    second = sync(replace(expand(parent, observed), parent=after), now)
    assert second.finalizers is None
    if first.finalizers is None:
        assert second.status is None or second.delete
        assert second.events == ()


def test_every_state_and_operator_reason_has_case() -> None:
    words = {word for case in CASES for word in (GOLDEN / case / "decision.yaml").read_text().split()}
    assert set(State) <= words
    own = {reason for reason in Reason if reason not in CONVERTERS_WORDS}
    assert own - words == {Reason.UNSUPPORTED_TARGET}  # No cell needs Extended yet; test_reconcile has the case.
