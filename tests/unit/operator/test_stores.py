import json
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest

from modelexport import names
from modelexport_operator.resources import CLASSES, EXPORTS, JOBS, NODES, PODS, Resource, Scope
from modelexport_operator.stores import Stores, key_of
from unit.operator.objects import (
    Body,
    complete,
    ended,
    make_class,
    make_clean_job,
    make_export,
    make_job,
    make_node,
    make_pod,
    result_text,
)

TARGET = {"format": "ONNX", "precision": "FP16", "state": "Succeeded", "reason": "Succeeded"}


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


def test_a_late_answer_does_not_bring_back_what_is_gone() -> None:
    stores, export, *_ = filled()
    stores[EXPORTS].remove(key_of(export), 5)
    assert not stores[EXPORTS].put(at(export, 4))
    assert stores[EXPORTS].known_version(key_of(export)) == 5
    assert stores[EXPORTS].put(at(export, 6, uid="uid-2"))


def test_what_was_gone_is_remembered_until_a_list_is_newer() -> None:
    stores, export, *_ = filled()
    store, key = stores[EXPORTS], key_of(export)
    store.remove(key, 5)
    for scope, listed, version in (
        (Scope(EXPORTS), [], 4),
        (Scope(EXPORTS), [key], 9),
        (Scope(EXPORTS, "other"), [], 9),
    ):
        store.forget_gone(scope, listed, version)
        assert store.known_version(key) == 5
    store.forget_gone(Scope(EXPORTS), [], 5)
    assert store.known_version(key) == 0


def test_an_object_that_changed_hands_is_with_its_new_owner_alone() -> None:
    stores, export, job, _ = filled()
    labels = {**job["metadata"]["labels"], names.EXPORT_UID_LABEL: "uid-2"}
    owner = [{"kind": "ModelExport", "uid": "uid-2", "controller": True}]
    stores[JOBS].put(at(job, 10, labels=labels, ownerReferences=owner))
    assert [len(stores.jobs_of(at(export, 1, uid=uid))) for uid in ("uid-1", "uid-2")] == [0, 1]


def observed_names(stores: Stores, export: Body) -> tuple[list[str], list[str]]:
    observed = stores.observe(key_of(export))
    assert observed is not None
    return [job["metadata"]["name"] for job in observed.jobs], [pod["metadata"]["name"] for pod in observed.pods]


def without_owner(body: Body) -> Body:
    return {**body, "metadata": {**body["metadata"], "ownerReferences": []}}


def test_what_others_label_with_an_export_does_not_belong_to_it() -> None:
    stores, export, job, pod = filled()
    ours = observed_names(stores, export)
    label = {names.EXPORT_LABEL: "shapes", names.EXPORT_UID_LABEL: "uid-1"}
    elsewhere = at(job, 20, namespace="other", uid="uid-of-other")
    owner = [{"uid": "uid-of-other", "controller": True}]
    guest = [{"uid": "uid-1", "controller": False}]
    for stranger in (
        elsewhere,
        at(job, 21, name="of-nobody", uid="21", ownerReferences=[]),
        at(job, 22, name="of-a-guest", uid="22", ownerReferences=guest),
        at(job, 23, name="of-a-workflow", uid="23", ownerReferences=[*guest, *owner]),
    ):
        assert stranger["metadata"]["labels"].items() >= label.items()
        stores[JOBS].put(stranger)
        stores[PODS].put(at(make_pod(stranger, phase="Running"), 30))
    stores[PODS].put(at(without_owner(pod), 31, name="of-nobody"))
    assert observed_names(stores, export) == ours
    assert stores.jobs_of(export) == [stores[JOBS].get(key_of(job))]


def test_while_an_export_is_deleted_its_jobs_and_their_pods_are_known_by_their_names_too() -> None:
    stores, export, job, pod = filled()
    ended = at(make_export("ONNX/FP16", deletionPolicy="Delete"), 9, deletionTimestamp="2026-01-02T03:04:00Z")
    ended["metadata"]["finalizers"] = [names.FINALIZER]
    ended["status"] = {"targets": [{**TARGET, "jobName": job["metadata"]["name"]}]}
    clean = at(make_clean_job(ended), 5)
    orphan, stranger = without_owner(at(job, 6)), without_owner(at(job, 7, name="stranger"))
    left = without_owner(at(make_pod(make_job(make_export("ONNX/FP32"), "ONNX/FP32")), 8))
    posing = without_owner(at(make_pod(clean, 1), 8))
    for resource, body in ((JOBS, clean), (JOBS, orphan), (JOBS, stranger), (PODS, left), (PODS, posing)):
        stores[resource].put(body)
    assert observed_names(stores, export) == ([], [])
    stores[EXPORTS].put(ended)
    jobs, pods = observed_names(stores, export)
    assert sorted(jobs) == sorted((clean["metadata"]["name"], job["metadata"]["name"]))
    assert sorted(pods) == sorted((pod["metadata"]["name"], left["metadata"]["name"]))
    foreign = at(clean, 10, ownerReferences=[{"uid": "uid-of-other", "controller": True}])
    stores[JOBS].put(foreign)
    assert observed_names(stores, export)[0] == [job["metadata"]["name"]]


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
    assert stores.jobs_of(export) == []


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
    owner = {"kind": "ModelExport", "name": "shapes", "uid": "uid-1", "controller": True, "blockOwnerDeletion": True}
    unread = {"managedFields": [{"manager": "kubectl"}], "ownerReferences": [{"uid": "uid-2"}, owner]}
    for resource, body in ((EXPORTS, export), (JOBS, job), (PODS, pod)):
        stores[resource].put(at(body, 30, annotations={"last-applied": "the whole object"}, **unread))
    kept = [stores[resource].get(key_of(body)) for resource, body in ((EXPORTS, export), (JOBS, job), (PODS, pod))]
    assert all(body is not None and "managedFields" not in body["metadata"] for body in kept)
    owners = [(body or {})["metadata"].get("ownerReferences") for body in kept]
    assert owners == [None, [{"uid": "uid-1", "controller": True}], [{"uid": "uid-1", "controller": True}]]
    assert "annotations" not in (kept[0] or {})["metadata"]
    assert "MODELEXPORT_REQUEST" not in str(kept)


def test_what_has_ended_is_kept_small_and_read_as_before() -> None:
    stores, export, job, pod = filled()
    before = stores.observe(key_of(export))
    stores.pack(key_of(export))
    assert stores[JOBS].get(key_of(job)) is stores[JOBS].get(key_of(job))
    over = {**at(export, 5), "status": {"completionTime": "2026-01-02T03:04:05Z"}}
    stores[EXPORTS].put(over)
    stores.pack(key_of(export))
    assert stores[JOBS].get(key_of(job)) is not stores[JOBS].get(key_of(job))
    assert stores.observe(key_of(export)) == replace(before, parent=stores[EXPORTS].get(key_of(export)))
    assert (stores[JOBS].version(key_of(job)), stores[JOBS].version(("team", "gone"))) == (2, None)
    assert not stores[PODS].put(pod)
    assert stores[PODS].put(at({**pod, "status": {"phase": "Succeeded"}}, 9))
    assert stores[PODS].version(key_of(pod)) == 9
    assert stores[JOBS].remove(key_of(job), 9)
    assert stores.jobs_of(export) == []


def test_a_finished_export_takes_little_memory() -> None:
    stores, bodies = Stores(), []
    for index in range(20):
        export = make_export("ONNX/FP16", name=f"export-{index}", uid=f"uid-{index}")
        job = make_job(export, "ONNX/FP16", status=complete())
        pod = make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text(), "Completed"))
        over = {**at(export, 5), "status": {"completionTime": "2026-01-02T03:04:05Z"}}
        bodies.append((over, json.dumps(at(job, 1)), json.dumps(at(pod, 1))))
        stores[EXPORTS].put(over)
    tracemalloc.start()
    for export, job_text, pod_text in bodies:
        stores[JOBS].put(json.loads(job_text))
        stores[PODS].put(json.loads(pod_text))
        stores.pack(key_of(export))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept / len(bodies) < 5000  # as Python's objects they take more than twice as much


@pytest.mark.parametrize("resource", [JOBS, PODS])
def test_a_version_that_changes_nothing_we_read_is_no_news(resource: Resource) -> None:
    stores, _, job, pod = filled()
    body = job if resource is JOBS else pod
    unread = {"conditions": [{"type": "Initialized", "status": "True"}], "podIP": "10.0.0.1", "ready": 1}
    assert not stores[resource].put(at({**body, "status": {**body["status"], **unread}}, 9))
    assert stores[resource].version(key_of(body)) == 9
    assert stores[resource].put(at({**body, "status": {**body["status"], "startTime": "now"}}, 10))


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
