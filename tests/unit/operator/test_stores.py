from typing import Any

import pytest

from modelexport import names
from modelexport_operator.resources import CLASSES, EXPORTS, JOBS, NODES, PODS
from modelexport_operator.stores import Stores, key_of
from unit.operator.objects import Body, make_class, make_export, make_job, make_node, make_pod


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


def test_the_watch_has_come_as_far_as_the_greatest_version_that_it_told() -> None:
    stores, export, *_ = filled()
    for version in (5, 3):
        stores[EXPORTS].hear(at(export, version))
    assert stores[EXPORTS].heard() == 5
    assert (stores[EXPORTS].heard("team"), stores[EXPORTS].heard("other")) == (5, 0)


def test_an_object_that_changed_hands_is_with_its_new_owner_alone() -> None:
    stores, _, job, _ = filled()
    labels = {**job["metadata"]["labels"], names.EXPORT_UID_LABEL: "uid-2"}
    stores[JOBS].put(at(job, 10, labels=labels))
    assert [len(stores[JOBS].of_owner(uid)) for uid in ("uid-1", "uid-2")] == [0, 1]


@pytest.mark.parametrize(("version", "is_gone"), [(19, False), (20, True), (21, True)])
def test_an_object_is_gone_when_nothing_newer_of_it_is_known(version: int, is_gone: bool) -> None:
    stores, export, *_ = filled()
    stores[EXPORTS].put(at(export, 20))
    assert stores[EXPORTS].remove(key_of(export), version) is is_gone


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
    unread = {"managedFields": [{"manager": "kubectl"}], "ownerReferences": [{}]}
    for resource, body in ((EXPORTS, export), (JOBS, job), (PODS, pod)):
        stores[resource].put(at(body, 30, annotations={"last-applied": "the whole object"}, **unread))
    kept = [stores[resource].get(key_of(body)) for resource, body in ((EXPORTS, export), (JOBS, job), (PODS, pod))]
    assert all(body is not None and not unread.keys() & body["metadata"].keys() for body in kept)
    assert "annotations" not in (kept[0] or {})["metadata"]
    assert "MODELEXPORT_REQUEST" not in str(kept)


def test_of_a_node_only_what_pools_ask_for_is_kept_and_is_news() -> None:
    stores = Stores()
    node = at(make_node(taints=["a=b:NoSchedule"]), 5, annotations={"volumes": "many"})
    node["status"]["images"] = [{"names": ["busybox"]}]
    assert stores[NODES].put(node)
    [kept] = stores[NODES].values()
    assert set(kept) == {"metadata", "spec", "status"}
    assert set(kept["metadata"]) == {"name", "labels", "resourceVersion"}
    assert set(kept["status"]) == {"allocatable"}
    assert not stores[NODES].put({**at(node, 6), "status": {**node["status"], "images": []}})
    assert stores[NODES].get(("", "node-a"))["metadata"]["resourceVersion"] == "6"  # type: ignore[index]
    for version, news in enumerate((make_node(gpu=1), make_node(labels={"pool": "a"}), make_node()), start=7):
        assert stores[NODES].put(at(news, version))


def test_a_node_concerns_the_exports_that_wait_for_one() -> None:
    stores = filled()[0]
    waits = make_export("LiteRT/FP16", name="waits", uid="uid-2")
    stores[EXPORTS].put(at({**waits, "status": {"targets": [{"reason": "NoSuitableNode"}]}}, 7))
    assert stores.exports_of(NODES, make_node()) == [("team", "waits")]
