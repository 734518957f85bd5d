"""Targets of the same format and precision, told apart by their names."""

from datetime import UTC, datetime
from typing import Any

from modelexport.matrix.support import Format, Precision, Target
from modelexport_operator.jobs.asked_targets import asked_targets
from modelexport_operator.jobs.conversion_job import own_job_names, target_of
from modelexport_operator.jobs.ownership import select_jobs
from modelexport_operator.metrics.open_targets import open_targets
from modelexport_operator.reconcile.reconcile import lacks_node, sync
from modelexport_operator.reconcile.snapshot import Snapshot
from modelexport_operator.status.conditions import recorded_targets
from testplane.objects import Body, build_all, make_class, make_export

PLAIN = {"format": "ONNX", "precision": "FP16"}
SERVER = {**PLAIN, "name": "server", "options": {"dynamicBatch": True}}
NAMED = Target(Format.ONNX, Precision.FP16, "server")


def make_named(**changes: Any) -> Body:
    return make_export(**{"targets": [PLAIN, SERVER], **changes})


def test_named_target_has_a_job_of_its_own() -> None:
    plain, server = build_all(make_named(), make_class()).values()
    assert plain["metadata"]["name"] != server["metadata"]["name"]
    assert "-onnx-fp16-server-" in server["metadata"]["name"]
    assert "modelexport.dev/target-name" not in plain["metadata"]["labels"]
    assert server["spec"]["template"]["metadata"]["labels"]["modelexport.dev/target-name"] == "server"
    assert (target_of(plain), target_of(server)) == (Target(Format.ONNX, Precision.FP16), NAMED)


def test_job_of_a_named_target_belongs_to_its_deleted_export() -> None:
    export = make_named()
    export["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    jobs = list(build_all(make_named(), make_class()).values())
    for job in jobs:
        del job["metadata"]["ownerReferences"]
    assert select_jobs(export, jobs) == jobs
    assert jobs[1]["metadata"]["name"] not in own_job_names("shapes", "uid-1")


def test_status_tells_named_targets_apart() -> None:
    entry = {**PLAIN, "state": "Running", "reason": "Running", "message": ""}
    recorded = recorded_targets({"targets": [entry, {**entry, "name": "server"}, {**entry, "name": "Not a name"}]})
    assert list(recorded) == [NAMED.unnamed, NAMED]


def test_targets_of_the_spec_are_read_one_by_one() -> None:
    unreadable = [None, {"format": "ONNX"}, {**PLAIN, "name": 1}, {**PLAIN, "format": "Other"}]
    export = make_named()
    export["spec"]["targets"] += unreadable
    assert list(asked_targets(export)) == [NAMED.unnamed, NAMED]
    assert list(asked_targets({"spec": {"targets": "x"}})) == list(asked_targets({})) == []


def test_new_named_targets_are_counted() -> None:
    assert [found.target for found in open_targets([make_named()], datetime(2026, 1, 1, tzinfo=UTC))] == [
        NAMED.unnamed,
        NAMED,
    ]


def test_named_target_without_node_is_new_only_once() -> None:
    now, pooled = datetime(2026, 1, 1, tzinfo=UTC), make_class(nodePools=[{"name": "cpu"}])
    export = make_named(targets=[SERVER])
    new = Snapshot(export, [], [], [pooled])
    decision = sync(new, now)
    assert lacks_node(new, decision)
    older: Body = {**export, "status": {**(decision.status or {}), "observedGeneration": 0}}
    known = Snapshot(older, [], [], [pooled])
    assert not lacks_node(known, sync(known, now))
