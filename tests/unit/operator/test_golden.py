"""Every case is a folder: a ModelExport and what is observed beside it, and the exact decision that must follow.

As input: ``modelexport.yaml`` (the body) and ``observed.yaml`` (the time, since when the operator is there, the
classes, the nodes, the demands of other exports, and per target a Job and its Pods, of which only what matters is
written; ``podsListed`` says that the API server has just listed all Pods). As output: ``decision.yaml``; and, where the
case has one, ``job.yaml``, the first Job in full.
``MODELEXPORT_UPDATE_GOLDEN=1`` writes the outputs anew, to be read before they are committed.
"""

from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from modelexport.reasons import Reason
from modelexport_operator.events import compare_statuses
from modelexport_operator.observe import State
from modelexport_operator.resources import CLASSES, EXPORTS, JOBS, NODES, PODS
from modelexport_operator.status import status_of
from modelexport_operator.stores import Stores, key_of
from modelexport_operator.sync import Decision, Observed, sync
from modelexport_operator.turns import Demand
from unit.operator.golden import CASES, GOLDEN, check, read
from unit.operator.objects import make_class, make_clean_job, make_job, make_node, make_pod

CONVERTERS_WORDS = {
    *(reason for reason in Reason if reason.startswith(("Checkpoint", "Calibration", "Storage"))),
    Reason.BUCKET_NOT_FOUND,
    Reason.CONVERSION_FAILED,
    Reason.DIGEST_MISMATCH,
    Reason.INSPECTION_FAILED,
    Reason.OUTPUT_REFUSED,
    Reason.WEIGHTS_NOT_FINITE,
}
"""What only a converter says: the operator passes it on, as in the case verification-failed."""


def expand(parent: dict[str, Any], observed: dict[str, Any]) -> Observed:
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
    return Observed(
        parent,
        jobs,
        pods,
        classes,
        conversions=jobs[: len(observed.get("targets", {}))],
        nodes=[make_node(**node) for node in observed.get("nodes", [])],
        others=[Demand(**{**other, "key": tuple(other["key"])}) for other in observed.get("others", [])],
        promised=observed.get("promised", []),
        refused=observed.get("refused", {}),
        pods_refused=observed.get("podsRefused", {}),
        pods_listed=[job["metadata"]["name"] for job in jobs] if observed.get("podsListed") else [],
        deleted_for=deleted_for(parent, observed),
    )


def deleted_for(parent: dict[str, Any], observed: dict[str, Any]) -> timedelta:
    """For how long the operator has seen the deletion: since then, or since it is there."""
    if "deletionTimestamp" not in parent["metadata"]:
        return timedelta(0)
    deleted = datetime.fromisoformat(parent["metadata"]["deletionTimestamp"])
    there = datetime.fromisoformat(observed["since"]) if "since" in observed else deleted
    return datetime.fromisoformat(observed["now"]) - max(deleted, there)


def render(decision: Decision, parent: dict[str, Any]) -> dict[str, Any]:
    told = decision.events if decision.status is None else compare_statuses(status_of(parent), decision.status)
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
def test_what_is_observed_leads_to_this_very_decision(case: str) -> None:
    parent, observed = read(GOLDEN / case / "modelexport.yaml"), read(GOLDEN / case / "observed.yaml")
    decision = sync(expand(parent, observed), datetime.fromisoformat(observed["now"]))
    check(GOLDEN / case / "decision.yaml", render(decision, parent))
    if (GOLDEN / case / "job.yaml").exists():
        check(GOLDEN / case / "job.yaml", decision.create[0])


@pytest.mark.parametrize("case", CASES)
def test_what_the_stores_keep_of_all_this_leads_to_the_same_decision(case: str) -> None:
    parent, observed = read(GOLDEN / case / "modelexport.yaml"), read(GOLDEN / case / "observed.yaml")
    given, stores = expand(parent, observed), Stores()
    known = {EXPORTS: [parent], JOBS: given.jobs, PODS: given.pods, CLASSES: given.classes, NODES: given.nodes}
    for resource, bodies in known.items():
        for body in bodies:
            stores[resource].put({**body, "metadata": {**body["metadata"], "resourceVersion": "1"}})
    stores[JOBS].pack(parent)  # What is packed is read as what is not, which is checked with every sync of the others.
    kept = stores.observe(key_of(parent))
    assert kept is not None
    now = datetime.fromisoformat(observed["now"])
    refused = {"refused": given.refused, "pods_refused": given.pods_refused, "pods_listed": given.pods_listed}
    line = {"others": given.others, "promised": given.promised}
    besides = replace(kept, conversions=given.conversions, deleted_for=given.deleted_for, **line, **refused)
    assert sync(besides, now) == sync(given, now)


@pytest.mark.parametrize("case", CASES)
def test_a_decision_once_carried_out_is_not_taken_again(case: str) -> None:
    parent, observed = read(GOLDEN / case / "modelexport.yaml"), read(GOLDEN / case / "observed.yaml")
    now = datetime.fromisoformat(observed["now"])
    first = sync(expand(parent, observed), now)
    written = {} if first.finalizers is None else {"finalizers": list(first.finalizers)}
    status = {"status": first.status} if first.status else {}
    after = {**parent, **status, "metadata": {**parent["metadata"], **written}}
    second = sync(replace(expand(parent, observed), parent=after), now)
    assert second.finalizers is None
    if first.finalizers is None:
        assert second.status is None or second.delete
        assert second.events == ()


def test_every_state_and_every_reason_of_the_operator_has_a_case() -> None:
    words = {word for case in CASES for word in (GOLDEN / case / "decision.yaml").read_text().split()}
    assert set(State) <= words
    own = {reason for reason in Reason if reason not in CONVERTERS_WORDS}
    assert own - words == {Reason.UNSUPPORTED_TARGET}  # No cell needs Extended yet; test_sync has the case.
