from typing import Any

from modelexport_operator.kube.resources import CLASSES, EXPORTS, JOBS, Resource
from modelexport_operator.kube.types import key_of
from modelexport_operator.runtime.cache import Cache
from modelexport_operator.runtime.demand_index import DemandIndex
from testplane.objects import Body, complete, make_class, make_export, make_job

VERSIONS = iter(range(1, 10_000))
WAITING = {"format": "ONNX", "precision": "FP32", "state": "Pending", "reason": "LimitReached"}
ACTIVE = {"active": 1}


def at_next(body: Body) -> Body:
    return {**body, "metadata": {**body["metadata"], "resourceVersion": str(next(VERSIONS))}}


def put(demands: DemandIndex, cache: Cache, resource: Resource, body: Body) -> bool:
    cache[resource].put(at_next(body))
    keys = [key_of(body)] if resource is EXPORTS else cache.affected_exports(resource, body)
    return bool(sum(demands.update(key) for key in keys))


def make(**jobs: Any) -> tuple[DemandIndex, Cache]:
    cache = Cache()
    demands = DemandIndex(cache)
    put(demands, cache, CLASSES, make_class(jobs=jobs or {"parallelism": 100}))
    return demands, cache


def export(name: str = "shapes", status: Body | None = None, **spec: Any) -> Body:
    body = make_export("ONNX/FP16", "ONNX/FP32", name=name, uid=f"uid-of-{name}", **spec)
    return {**body, "status": status or {}}


def seen(demands: DemandIndex) -> list[tuple[str, int, int]]:
    return [(demand.key[1], demand.running, demand.waiting) for demand in demands.others(("", ""))]


def test_running_come_from_jobs_and_waiting_from_status() -> None:
    demands, cache = make()
    body = export(status={"targets": [WAITING]})
    put(demands, cache, EXPORTS, body)
    put(demands, cache, JOBS, make_job(body, "ONNX/FP16", status=ACTIVE))
    assert seen(demands) == [("shapes", 1, 1)]
    assert list(demands.others(key_of(body))) == []


def test_target_that_waits_for_evaluation_waits_for_no_place() -> None:
    demands, cache = make()
    body = export(status={"targets": [{**WAITING, "reason": "WaitForEvaluation"}]})
    put(demands, cache, EXPORTS, body)
    put(demands, cache, JOBS, make_job(body, "ONNX/FP16", status=ACTIVE))
    assert seen(demands) == [("shapes", 1, 0)]


def test_foreign_job_in_other_namespace_uses_no_slot() -> None:
    demands, cache = make()
    body = export(status={"targets": [WAITING]})
    put(demands, cache, EXPORTS, body)
    put(demands, cache, JOBS, make_job(body, "ONNX/FP16", status=ACTIVE, namespace="other"))
    demands.update(key_of(body))
    assert seen(demands) == [("shapes", 0, 1)]


def test_inactive_export_is_not_in_index() -> None:
    demands, cache = make()
    body = export()
    put(demands, cache, EXPORTS, body)
    put(demands, cache, JOBS, make_job(body, "ONNX/FP16", status=complete()))
    assert seen(demands) == []


def test_only_user_suspended_job_uses_no_slot() -> None:
    demands, cache = make()
    body = export()
    put(demands, cache, EXPORTS, body)
    put(demands, cache, JOBS, make_job(body, "ONNX/FP16", suspend=True))
    assert seen(demands) == []
    put(demands, cache, JOBS, make_job(body, "ONNX/FP16", suspend=True, queue="exports"))
    assert seen(demands) == [("shapes", 1, 0)]


def test_stalled_export_is_not_in_queue() -> None:
    targets = {"targets": [WAITING]}
    stalled = {**targets, "conditions": [{"type": "Stalled", "status": "True"}]}
    refused = {"targets": [WAITING, {**WAITING, "precision": "FP16", "reason": "JobRefused"}]}
    for body in (
        export(status=targets, suspend=True),
        export(status=refused),
        export(status=stalled),
        export(status={**targets, "completionTime": "2026-01-02T03:04:05Z"}),
        {**export(status=targets), "spec": None},
    ):
        demands, cache = make()
        put(demands, cache, EXPORTS, body)
        assert seen(demands) == ([("shapes", 0, 1)] if body["spec"] is None else [])


def test_reserved_slot_is_used_until_job_ends() -> None:
    demands, cache = make()
    body = export()
    put(demands, cache, EXPORTS, body)
    job = make_job(body, "ONNX/FP16", status=ACTIVE)
    demands.reserve(key_of(body), {job["metadata"]["name"]})
    assert demands.reserved(key_of(body)) == {job["metadata"]["name"]}
    assert seen(demands) == [("shapes", 1, 0)]
    put(demands, cache, JOBS, job)
    assert seen(demands) == [("shapes", 1, 0)]
    put(demands, cache, JOBS, make_job(body, "ONNX/FP16", status=complete()))
    assert seen(demands) == []


def test_reservation_is_replaced_and_removed_with_export() -> None:
    demands, cache = make()
    body = export()
    put(demands, cache, EXPORTS, body)
    demands.reserve(key_of(body), {"a", "b"})
    demands.reserve(key_of(body), set())
    assert seen(demands) == [("shapes", 2, 0)]
    assert demands.update(key_of(body))
    assert seen(demands) == []
    demands.reserve(key_of(body), {"a"})
    cache[EXPORTS].remove(key_of(body), 10_000)
    assert demands.update(key_of(body))
    assert demands.reserved(key_of(body)) == ()


def test_freed_slot_or_dropped_request_is_reported() -> None:
    demands, cache = make()
    body = export(status={"targets": [WAITING]})
    assert not put(demands, cache, EXPORTS, body)
    job = make_job(body, "ONNX/FP16", status=ACTIVE)
    assert not put(demands, cache, JOBS, job)
    assert put(demands, cache, EXPORTS, export())
    assert put(demands, cache, JOBS, make_job(body, "ONNX/FP16", status=complete()))


def test_next_exports_are_those_with_free_slots() -> None:
    demands, cache = make(parallelism=1)
    for name, created in (("late", "2026-01-02T00:00:00Z"), ("early", "2026-01-01T00:00:00Z")):
        body = export(name, {"targets": [WAITING]})
        body["metadata"]["creationTimestamp"] = created
        put(demands, cache, EXPORTS, body)
    assert list(demands.startable_exports()) == [("team", "early")]
    assert sorted(demands.waiting_exports()) == [("team", "early"), ("team", "late")]


def test_none_is_next_when_slots_are_full_or_class_is_invalid() -> None:
    demands, cache = make(parallelism=1)
    body = export(status={"targets": [WAITING]})
    put(demands, cache, EXPORTS, body)
    put(demands, cache, JOBS, make_job(body, "ONNX/FP16", status=ACTIVE))
    assert list(demands.startable_exports()) == []
    put(demands, cache, EXPORTS, export("other", {"targets": [WAITING]}, className="gone"))
    assert list(demands.startable_exports()) == []
    put(demands, cache, CLASSES, make_class(jobs={"parallelism": "many"}))
    assert list(demands.startable_exports()) == []


def test_only_changed_queue_positions_have_moved() -> None:
    demands, cache = make(parallelism=1)
    bodies = []
    for index in range(60):
        body = export(f"export-{index:02}", {"targets": [WAITING]})
        body["metadata"]["creationTimestamp"] = f"2026-01-01T00:00:{index:02}Z"
        bodies.append(body)
        put(demands, cache, EXPORTS, body)
    put(demands, cache, JOBS, make_job(bodies[0], "ONNX/FP16", status=ACTIVE))
    assert len(list(demands.moved_exports())) == 60
    assert list(demands.moved_exports()) == []
    put(demands, cache, EXPORTS, {**bodies[0], "status": {}})
    # Positions up to ten are exact; those behind are ranges, which change less often.
    assert [name for _, name in demands.moved_exports()] == [f"export-{index:02}" for index in (*range(1, 11), 20, 50)]


def test_demand_is_counted_only_for_classes_with_limits() -> None:
    demands, cache = make(activeDeadlineSeconds=600)
    body = export(status={"targets": [WAITING]})
    put(demands, cache, EXPORTS, body)
    put(demands, cache, JOBS, make_job(body, "ONNX/FP16", status=ACTIVE))
    assert seen(demands) == []
    cache[CLASSES].put(at_next(make_class(jobs={"parallelism": 1})))
    demands.rebuild()
    assert seen(demands) == [("shapes", 1, 1)]
    cache[CLASSES].put(at_next(make_class()))
    demands.rebuild()
    assert seen(demands) == []
