from typing import Any

from modelexport_operator.line import Line
from modelexport_operator.resources import CLASSES, EXPORTS, JOBS, Resource
from modelexport_operator.stores import Stores, key_of
from unit.operator.objects import Body, complete, make_class, make_export, make_job

VERSIONS = iter(range(1, 10_000))
WAITING = {"format": "ONNX", "precision": "FP32", "state": "Pending", "reason": "LimitReached"}
ACTIVE = {"active": 1}


def put(line: Line, stores: Stores, resource: Resource, body: Body) -> bool:
    stores[resource].put({**body, "metadata": {**body["metadata"], "resourceVersion": str(next(VERSIONS))}})
    keys = [key_of(body)] if resource is EXPORTS else stores.exports_of(resource, body)
    return bool(sum(line.update(key) for key in keys))


def make(**jobs: Any) -> tuple[Line, Stores]:
    stores = Stores()
    line = Line(stores)
    put(line, stores, CLASSES, make_class(jobs=jobs))
    return line, stores


def export(name: str = "shapes", status: Body | None = None, **spec: Any) -> Body:
    body = make_export("ONNX/FP16", "ONNX/FP32", name=name, uid=f"uid-of-{name}", **spec)
    return {**body, "status": status or {}}


def seen(line: Line) -> list[tuple[str, int, int]]:
    return [(demand.key[1], demand.running, demand.waiting) for demand in line.others(("", ""))]


def test_what_runs_comes_from_the_jobs_and_what_waits_from_the_status() -> None:
    line, stores = make()
    body = export(status={"targets": [WAITING]})
    put(line, stores, EXPORTS, body)
    put(line, stores, JOBS, make_job(body, "ONNX/FP16", status=ACTIVE))
    assert seen(line) == [("shapes", 1, 1)]
    assert line.others(key_of(body)) == []


def test_a_job_that_somebody_labels_in_another_namespace_takes_no_place_of_an_export() -> None:
    line, stores = make()
    body = export(status={"targets": [WAITING]})
    put(line, stores, EXPORTS, body)
    put(line, stores, JOBS, make_job(body, "ONNX/FP16", status=ACTIVE, namespace="other"))
    line.update(key_of(body))
    assert seen(line) == [("shapes", 0, 1)]


def test_an_export_that_neither_runs_nor_waits_is_not_in_the_line() -> None:
    line, stores = make()
    body = export()
    put(line, stores, EXPORTS, body)
    put(line, stores, JOBS, make_job(body, "ONNX/FP16", status=complete()))
    assert seen(line) == []


def test_only_a_job_that_is_stopped_by_its_user_takes_no_place() -> None:
    line, stores = make()
    body = export()
    put(line, stores, EXPORTS, body)
    put(line, stores, JOBS, make_job(body, "ONNX/FP16", suspend=True))
    assert seen(line) == []
    put(line, stores, JOBS, make_job(body, "ONNX/FP16", suspend=True, queue="exports"))
    assert seen(line) == [("shapes", 1, 0)]


def test_an_export_that_cannot_go_on_does_not_stand_in_the_line() -> None:
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
        line, stores = make()
        put(line, stores, EXPORTS, body)
        assert seen(line) == ([("shapes", 0, 1)] if body["spec"] is None else [])


def test_a_place_that_was_promised_is_taken_until_the_job_has_ended() -> None:
    line, stores = make()
    body = export()
    put(line, stores, EXPORTS, body)
    job = make_job(body, "ONNX/FP16", status=ACTIVE)
    line.promise(key_of(body), {job["metadata"]["name"]})
    assert line.promised(key_of(body)) == {job["metadata"]["name"]}
    assert seen(line) == [("shapes", 1, 0)]
    put(line, stores, JOBS, job)
    assert seen(line) == [("shapes", 1, 0)]
    put(line, stores, JOBS, make_job(body, "ONNX/FP16", status=complete()))
    assert seen(line) == []


def test_a_promise_is_replaced_by_the_next_one_and_goes_with_its_export() -> None:
    line, stores = make()
    body = export()
    put(line, stores, EXPORTS, body)
    line.promise(key_of(body), {"a", "b"})
    line.promise(key_of(body), set())
    assert seen(line) == [("shapes", 2, 0)]
    assert line.update(key_of(body))
    assert seen(line) == []
    line.promise(key_of(body), {"a"})
    stores[EXPORTS].remove(key_of(body), 10_000)
    assert line.update(key_of(body))
    assert line.promised(key_of(body)) == ()


def test_it_tells_when_a_place_or_the_wish_for_one_was_given_up_and_not_when_a_wish_came_true() -> None:
    line, stores = make()
    body = export(status={"targets": [WAITING]})
    assert not put(line, stores, EXPORTS, body)
    job = make_job(body, "ONNX/FP16", status=ACTIVE)
    assert not put(line, stores, JOBS, job)
    assert put(line, stores, EXPORTS, export())
    assert put(line, stores, JOBS, make_job(body, "ONNX/FP16", status=complete()))


def test_the_next_ones_are_those_for_whom_there_is_a_place() -> None:
    line, stores = make(parallelism=1)
    for name, created in (("late", "2026-01-02T00:00:00Z"), ("early", "2026-01-01T00:00:00Z")):
        body = export(name, {"targets": [WAITING]})
        body["metadata"]["creationTimestamp"] = created
        put(line, stores, EXPORTS, body)
    assert list(line.next_ones()) == [("team", "early")]
    assert sorted(line.waiting()) == [("team", "early"), ("team", "late")]


def test_nobody_is_next_while_every_place_is_taken_or_when_the_class_is_gone_or_broken() -> None:
    line, stores = make(parallelism=1)
    body = export(status={"targets": [WAITING]})
    put(line, stores, EXPORTS, body)
    put(line, stores, JOBS, make_job(body, "ONNX/FP16", status=ACTIVE))
    assert list(line.next_ones()) == []
    put(line, stores, EXPORTS, export("other", {"targets": [WAITING]}, className="gone"))
    assert list(line.next_ones()) == []
    put(line, stores, CLASSES, make_class(jobs={"parallelism": "many"}))
    assert list(line.next_ones()) == []


def test_only_those_told_another_place_have_moved() -> None:
    line, stores = make(parallelism=1)
    bodies = []
    for index in range(60):
        body = export(f"export-{index:02}", {"targets": [WAITING]})
        body["metadata"]["creationTimestamp"] = f"2026-01-01T00:00:{index:02}Z"
        bodies.append(body)
        put(line, stores, EXPORTS, body)
    put(line, stores, JOBS, make_job(bodies[0], "ONNX/FP16", status=ACTIVE))
    assert len(list(line.moved())) == 60
    assert list(line.moved()) == []
    put(line, stores, EXPORTS, {**bodies[0], "status": {}})
    # Ten are told by number, and each farther one that has come among fewer.
    assert [name for _, name in line.moved()] == [f"export-{index:02}" for index in (*range(1, 11), 20, 50)]
