from typing import Any

from modelexport_operator.resources import CLASSES, EXPORTS, JOBS, PODS
from modelexport_operator.stores import Stores, key_of
from unit.operator.objects import Body, make_class, make_export, make_job, make_pod


def at(body: Body, version: int, **metadata: Any) -> Body:
    return {**body, "metadata": {**body["metadata"], "resourceVersion": str(version), **metadata}}


def filled() -> tuple[Stores, Body, Body, Body]:
    stores, export = Stores(), at(make_export("ONNX/FP16"), 1)
    job = at(make_job(export, "ONNX/FP16"), 2)
    pod = at(make_pod(job, phase="Running"), 3)
    for resource, body in ((EXPORTS, export), (JOBS, job), (PODS, pod), (CLASSES, at(make_class(), 4))):
        stores[resource].put(body)
    return stores, export, job, pod


def test_an_export_is_observed_with_its_jobs_its_pods_and_all_classes() -> None:
    stores, export, job, pod = filled()
    other = at(make_job(make_export("ONNX/FP16", uid="uid-2"), "ONNX/FP16"), 5)
    stores[JOBS].put(other)
    observed = stores.observe(key_of(export))
    assert observed is not None
    assert [body["metadata"]["name"] for body in observed.jobs] == [job["metadata"]["name"]]
    assert [body["metadata"]["name"] for body in observed.pods] == [pod["metadata"]["name"]]
    assert len(observed.classes) == 1


def test_an_export_that_is_gone_is_not_observed() -> None:
    assert filled()[0].observe(("team", "gone")) is None


def test_an_older_body_never_replaces_a_newer_one() -> None:
    stores, export, *_ = filled()
    stores[EXPORTS].put(at(export, 10, generation=2))
    stores[EXPORTS].put(at(export, 9, generation=1))
    known = stores[EXPORTS].get(key_of(export))
    assert known is not None
    assert known["metadata"]["generation"] == 2


def test_an_old_deletion_does_not_remove_an_object_that_was_made_again() -> None:
    stores, export, *_ = filled()
    stores[EXPORTS].put(at(export, 20, uid="uid-2"))
    assert not stores[EXPORTS].remove(key_of(export), 15)
    assert stores[EXPORTS].remove(key_of(export), 25)
    assert len(stores[EXPORTS]) == 0


def test_the_answer_to_a_write_does_not_bring_a_deleted_object_back() -> None:
    stores, export, *_ = filled()
    stores[EXPORTS].remove(key_of(export), 5)
    stores[EXPORTS].update(at(export, 4))
    assert stores[EXPORTS].get(key_of(export)) is None


def test_a_removed_job_no_longer_belongs_to_its_export() -> None:
    stores, export, job, _ = filled()
    stores[JOBS].remove(key_of(job), 9)
    assert stores[JOBS].of_owner(export["metadata"]["uid"]) == []


def test_a_change_concerns_the_export_it_is_labelled_with_and_a_class_concerns_all() -> None:
    stores, export, job, pod = filled()
    second = at(make_export("ONNX/FP16", name="second", uid="uid-2"), 7)
    stores[EXPORTS].put(second)
    for resource, body in ((EXPORTS, export), (JOBS, job), (PODS, pod)):
        assert list(stores.exports_of(resource, body)) == [("team", "shapes")]
    assert sorted(stores.exports_of(CLASSES, make_class())) == [("team", "second"), ("team", "shapes")]
    assert list(stores.exports_of(JOBS, {"metadata": {"name": "stranger", "namespace": "team"}})) == []


def test_what_nobody_reads_is_not_kept() -> None:
    stores, export, job, pod = filled()
    for resource, body in ((EXPORTS, export), (JOBS, job), (PODS, pod)):
        stores[resource].put(at(body, 30, managedFields=[{"manager": "kubectl"}]))
    kept = [stores[resource].get(key_of(body)) for resource, body in ((EXPORTS, export), (JOBS, job), (PODS, pod))]
    assert all(body is not None and "managedFields" not in body["metadata"] for body in kept)
    assert "MODELEXPORT_REQUEST" not in str(kept)
