import json
import tracemalloc
from typing import Any

import pytest

from modelexport import names
from modelexport_operator.kube.resources import CLASSES, EXPORTS, JOBS, NODES, PODS, Resource, Scope
from modelexport_operator.kube.types import key_of
from modelexport_operator.reconcile.snapshot import Snapshot
from modelexport_operator.runtime.cache import REMEMBERED, Cache
from modelexport_operator.status.conditions import READY, find_condition
from testplane.objects import (
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

READY_TRUE = [{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "1 of 1 targets are published"}]
TARGET = {"format": "ONNX", "precision": "FP16", "state": "Succeeded", "reason": "Succeeded"}


def at(body: Body, version: int, **metadata: Any) -> Body:
    return {**body, "metadata": {**body["metadata"], "resourceVersion": str(version), **metadata}}


def filled() -> tuple[Cache, Body, Body, Body]:
    cache, export = Cache(), at(make_export("ONNX/FP16"), 1)
    job = at(make_job(export, "ONNX/FP16"), 2)
    pod = at(make_pod(job, phase="Running"), 3)
    for resource, body in ((EXPORTS, export), (JOBS, job), (PODS, pod), (CLASSES, at(make_class(), 4))):
        cache[resource].put(body)
    return cache, export, job, pod


def observe(cache: Cache, export: Body) -> Snapshot:
    observed = cache.snapshot(key_of(export))
    assert observed is not None
    return observed


def test_export_is_observed_with_jobs_pods_and_classes() -> None:
    cache, export, job, pod = filled()
    other = at(make_job(make_export("ONNX/FP16", uid="uid-2"), "ONNX/FP16"), 5)
    cache[JOBS].put(other)
    observed = cache.snapshot(key_of(export))
    assert observed is not None
    assert [body["metadata"]["name"] for body in observed.jobs] == [job["metadata"]["name"]]
    assert [body["metadata"]["name"] for body in observed.pods] == [pod["metadata"]["name"]]
    assert len(observed.classes) == 1


def test_entry_that_stays_is_not_parsed_again() -> None:
    cache, export, *_ = filled()
    running = {**TARGET, "precision": "FP32", "state": "Running", "reason": "Running"}
    parsed = []
    for version, percentage in ((5, 10), (6, 20)):
        status = {"targets": [TARGET, {**running, "attempts": version, "progress": {"percentage": percentage}}]}
        cache[EXPORTS].put(at({**export, "status": status}, version))
        parsed.append(list(observe(cache, export).recorded.values()))
    (ended_before, running_before), (ended_after, running_after) = parsed
    assert ended_after is ended_before
    assert (running_before.attempts, running_after.attempts) == (5, 6)


def test_target_that_is_gone_is_not_recorded() -> None:
    cache, export, *_ = filled()
    other = {**TARGET, "precision": "FP32"}
    for version, targets in ((5, [TARGET, other]), (6, [other]), (7, [TARGET, {"format": "unreadable"}])):
        cache[EXPORTS].put(at({**export, "status": {"targets": targets}}, version))
        read = [entry["precision"] for entry in targets if "precision" in entry]
        assert [target.precision for target in observe(cache, export).recorded] == read


def test_parsed_statuses_are_bounded() -> None:
    cache = Cache()
    for number in range(REMEMBERED + 10):
        cache.parse_status(make_export("ONNX/FP16", name=f"export-{number}"))
    assert len(cache.parsed) == REMEMBERED


def test_status_of_packed_export_is_not_kept() -> None:
    cache, export, *_ = filled()
    done = {"completionTime": "2026-01-02T03:00:00Z", "targets": [TARGET]}
    cache[EXPORTS].put(at({**export, "status": done}, 5))
    observe(cache, export)
    cache.compress(key_of(export))
    assert not cache.parsed


def test_deleted_export_is_not_observed() -> None:
    assert filled()[0].snapshot(("team", "gone")) is None


def test_older_body_never_replaces_newer_one() -> None:
    cache, export, *_ = filled()
    cache[EXPORTS].put(at(export, 10, generation=2))
    cache[EXPORTS].put(at(export, 9, generation=1))
    known = cache[EXPORTS].get(key_of(export))
    assert known is not None
    assert known["metadata"]["generation"] == 2


def test_late_response_does_not_restore_deleted_object() -> None:
    cache, export, *_ = filled()
    cache[EXPORTS].remove(key_of(export), 5)
    assert not cache[EXPORTS].put(at(export, 4))
    assert cache[EXPORTS].known_version(key_of(export)) == 5
    assert cache[EXPORTS].put(at(export, 6, uid="uid-2"))


def test_deletion_is_remembered_until_list_is_newer() -> None:
    cache, export, *_ = filled()
    store, key = cache[EXPORTS], key_of(export)
    store.remove(key, 5)
    for scope, listed, version in (
        (Scope(EXPORTS), [], 4),
        (Scope(EXPORTS), [key], 9),
        (Scope(EXPORTS, "other"), [], 9),
    ):
        store.drop_tombstones(scope, listed, version)
        assert store.known_version(key) == 5
    store.drop_tombstones(Scope(EXPORTS), [], 5)
    assert store.known_version(key) == 0


def test_object_belongs_only_to_its_new_owner() -> None:
    cache, export, job, _ = filled()
    labels = {**job["metadata"]["labels"], names.EXPORT_UID_LABEL: "uid-2"}
    owner = [{"kind": "ModelExport", "uid": "uid-2", "controller": True}]
    cache[JOBS].put(at(job, 10, labels=labels, ownerReferences=owner))
    assert [len(cache.jobs_of(at(export, 1, uid=uid))) for uid in ("uid-1", "uid-2")] == [0, 1]


def observed_names(cache: Cache, export: Body) -> tuple[list[str], list[str]]:
    observed = cache.snapshot(key_of(export))
    assert observed is not None
    return [job["metadata"]["name"] for job in observed.jobs], [pod["metadata"]["name"] for pod in observed.pods]


def without_owner(body: Body) -> Body:
    return {**body, "metadata": {**body["metadata"], "ownerReferences": []}}


def test_foreign_labelled_object_does_not_belong_to_export() -> None:
    cache, export, job, pod = filled()
    ours = observed_names(cache, export)
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
        cache[JOBS].put(stranger)
        cache[PODS].put(at(make_pod(stranger, phase="Running"), 30))
    cache[PODS].put(at(without_owner(pod), 31, name="of-nobody"))
    assert observed_names(cache, export) == ours
    assert cache.jobs_of(export) == [cache[JOBS].get(key_of(job))]


def test_deleted_export_finds_jobs_and_pods_by_name() -> None:
    cache, export, job, pod = filled()
    ended = at(make_export("ONNX/FP16", deletionPolicy="Delete"), 9, deletionTimestamp="2026-01-02T03:04:00Z")
    ended["metadata"]["finalizers"] = [names.FINALIZER]
    ended["status"] = {"targets": [{**TARGET, "jobName": job["metadata"]["name"]}]}
    clean = at(make_clean_job(ended), 5)
    orphan, stranger = without_owner(at(job, 6)), without_owner(at(job, 7, name="stranger"))
    left = without_owner(at(make_pod(make_job(make_export("ONNX/FP32"), "ONNX/FP32")), 8))
    posing = without_owner(at(make_pod(clean, 1), 8))
    for resource, body in ((JOBS, clean), (JOBS, orphan), (JOBS, stranger), (PODS, left), (PODS, posing)):
        cache[resource].put(body)
    assert observed_names(cache, export) == ([], [])
    cache[EXPORTS].put(ended)
    jobs, pods = observed_names(cache, export)
    assert sorted(jobs) == sorted((clean["metadata"]["name"], job["metadata"]["name"]))
    assert sorted(pods) == sorted((pod["metadata"]["name"], left["metadata"]["name"]))
    foreign = at(clean, 10, ownerReferences=[{"uid": "uid-of-other", "controller": True}])
    cache[JOBS].put(foreign)
    assert observed_names(cache, export)[0] == [job["metadata"]["name"]]


@pytest.mark.parametrize(("version", "is_gone"), [(19, False), (20, True), (21, True)])
def test_object_is_deleted_unless_newer_version_is_known(version: int, is_gone: bool) -> None:
    cache, export, *_ = filled()
    cache[EXPORTS].put(at(export, 20))
    assert cache[EXPORTS].remove(key_of(export), version) is is_gone


def test_old_deletion_keeps_recreated_object() -> None:
    cache, export, *_ = filled()
    cache[EXPORTS].put(at(export, 20, uid="uid-2"))
    assert not cache[EXPORTS].remove(key_of(export), 15)
    assert cache[EXPORTS].remove(key_of(export), 25)
    assert len(cache[EXPORTS]) == 0


def test_write_response_does_not_restore_deleted_object() -> None:
    cache, export, *_ = filled()
    cache[EXPORTS].remove(key_of(export), 5)
    cache[EXPORTS].update(at(export, 4))
    assert cache[EXPORTS].get(key_of(export)) is None


def test_removed_job_leaves_its_export() -> None:
    cache, export, job, _ = filled()
    cache[JOBS].remove(key_of(job), 9)
    assert cache.jobs_of(export) == []


def test_change_affects_its_export_and_class_affects_all() -> None:
    cache, export, job, pod = filled()
    second = at(make_export("ONNX/FP16", name="second", uid="uid-2"), 7)
    cache[EXPORTS].put(second)
    for resource, body in ((EXPORTS, export), (JOBS, job), (PODS, pod)):
        assert list(cache.affected_exports(resource, body)) == [("team", "shapes")]
    assert sorted(cache.affected_exports(CLASSES, make_class())) == [("team", "second"), ("team", "shapes")]
    assert list(cache.affected_exports(JOBS, {"metadata": {"name": "stranger", "namespace": "team"}})) == []


def test_unread_fields_are_not_cached() -> None:
    cache, export, job, pod = filled()
    owner = {"kind": "ModelExport", "name": "shapes", "uid": "uid-1", "controller": True, "blockOwnerDeletion": True}
    unread = {"managedFields": [{"manager": "kubectl"}], "ownerReferences": [{"uid": "uid-2"}, owner]}
    for resource, body in ((EXPORTS, export), (JOBS, job), (PODS, pod)):
        cache[resource].put(at(body, 30, annotations={"last-applied": "the whole object"}, **unread))
    kept = [cache[resource].get(key_of(body)) for resource, body in ((EXPORTS, export), (JOBS, job), (PODS, pod))]
    assert all(body is not None and "managedFields" not in body["metadata"] for body in kept)
    owners = [body["metadata"].get("ownerReferences") for body in kept if body is not None]
    assert owners == [None, [{"uid": "uid-1", "controller": True}], [{"uid": "uid-1", "controller": True}]]
    assert "annotations" not in str(kept[0])
    assert "MODELEXPORT_REQUEST" not in str(kept)


def finish(cache: Cache, export: Body, job: Body, pod: Body, version: int) -> Body:
    over: Body = {**at(export, version), "status": {"completionTime": "2026-01-02T03:04:05Z", "conditions": READY_TRUE}}
    cache[PODS].put(at({**pod, "status": {**pod["status"], "phase": "Succeeded"}}, version))
    cache[JOBS].put(at({**job, "status": complete()}, version))
    cache[EXPORTS].put(over)
    return over


def is_compressed(cache: Cache, resource: Resource, body: Body) -> bool:
    return cache[resource].get(key_of(body)) is not cache[resource].get(key_of(body))


def test_finished_job_is_packed_with_export() -> None:
    cache, export, job, pod = filled()
    finish(cache, export, job, pod, 5)
    before = cache.snapshot(key_of(export))
    kinds = ((EXPORTS, export), (JOBS, job), (PODS, pod))
    assert not any(is_compressed(cache, resource, body) for resource, body in kinds)
    cache.compress(key_of(export))
    assert all(is_compressed(cache, resource, body) for resource, body in kinds)
    assert cache.snapshot(key_of(export)) == before
    assert (cache[JOBS].version(key_of(job)), cache[JOBS].version(("team", "gone"))) == (5, None)
    assert not cache[PODS].put(pod)
    assert cache[JOBS].remove(key_of(job), 9)
    assert cache.jobs_of(export) == []


@pytest.mark.parametrize("resource", [EXPORTS, JOBS, PODS])
def test_job_finished_before_first_event_is_packed(resource: Resource) -> None:
    others, export, job, pod = filled()
    over = finish(others, export, job, pod, 5)
    cache = Cache()
    bodies: dict[Resource, Body] = {
        EXPORTS: over,
        JOBS: {**job, "status": complete()},
        PODS: others[PODS].values()[0],
    }
    cache[resource].put(bodies[resource])
    assert is_compressed(cache, resource, bodies[resource])


def test_unfinished_job_is_never_packed() -> None:
    cache, export, job, pod = filled()
    cache.compress(key_of(export))
    assert not any(is_compressed(cache, *one) for one in ((EXPORTS, export), (JOBS, job), (PODS, pod)))
    over: Body = {**at(export, 5), "status": {"completionTime": "2026-01-02T03:04:05Z"}}
    cache[EXPORTS].put(over)
    cache.compress(key_of(export))
    assert is_compressed(cache, EXPORTS, export)
    assert not any(is_compressed(cache, *one) for one in ((JOBS, job), (PODS, pod)))
    assert not cache.is_settled(key_of(export))


def test_export_is_settled_when_all_jobs_have_ended() -> None:
    cache, export, job, pod = filled()
    assert not cache.is_settled(key_of(export))
    finish(cache, export, job, pod, 5)
    cache.compress(key_of(export))
    assert cache.is_settled(key_of(export))
    assert not cache.is_settled(("team", "gone"))
    cache[JOBS].put(at(make_job(export, "ONNX/FP16", name="again"), 6))
    assert not cache.is_settled(key_of(export))


def test_metrics_are_read_without_unpacking() -> None:
    cache, export, job, pod = filled()
    over = finish(cache, export, job, pod, 5)
    other = at(make_export("ONNX/FP16", name="other", uid="uid-2"), 6)
    cache[EXPORTS].put(other)
    cache.compress(key_of(export))
    finished, open_one = cache[EXPORTS].summaries()
    assert "completionTime" in finished["status"]
    assert find_condition(finished["status"], READY)["reason"] == find_condition(over["status"], READY)["reason"]
    assert open_one is cache[EXPORTS].get(key_of(other))
    assert [key for key, _ in cache[EXPORTS].uncompressed_items()] == [key_of(other)]


def test_finished_export_needs_little_memory() -> None:
    cache = Cache()
    bodies: list[Body] = []
    for index in range(20):
        export = make_export("ONNX/FP16", name=f"export-{index}", uid=f"uid-{index}")
        job = make_job(export, "ONNX/FP16", status=complete())
        pod = make_pod(job, phase="Succeeded", containerStatuses=ended(0, result_text(), "Completed"))
        over: Body = {**at(export, 5), "status": {"completionTime": "2026-01-02T03:04:05Z"}}
        bodies.append((over, json.dumps(at(job, 1)), json.dumps(at(pod, 1))))
        cache[EXPORTS].put(over)
    tracemalloc.start()
    for export, job_text, pod_text in bodies:
        cache[JOBS].put(json.loads(job_text))
        cache[PODS].put(json.loads(pod_text))
        cache.compress(key_of(export))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept / len(bodies) < 5000  # as Python's objects they take more than twice as much


@pytest.mark.parametrize("resource", [JOBS, PODS])
def test_irrelevant_change_is_ignored(resource: Resource) -> None:
    cache, _, job, pod = filled()
    body = job if resource is JOBS else pod
    unread = {"conditions": [{"type": "Initialized", "status": "True"}], "podIP": "10.0.0.1", "ready": 1}
    assert not cache[resource].put(at({**body, "status": {**body["status"], **unread}}, 9))
    assert cache[resource].version(key_of(body)) == 9
    assert cache[resource].put(at({**body, "status": {**body["status"], "startTime": "now"}}, 10))


def test_node_cache_keeps_only_fields_used_by_pools() -> None:
    cache = Cache()
    node = at(make_node(taints=["a=b:NoSchedule"]), 5, annotations={"volumes": "many"})
    node["status"]["images"] = [{"names": ["busybox"]}]
    assert cache[NODES].put(node)
    [kept] = cache[NODES].values()
    assert set(kept) == {"metadata", "spec", "status"}
    assert set(kept["metadata"]) == {"name", "labels", "resourceVersion"}
    assert set(kept["status"]) == {"allocatable"}
    later: Body = {**at(node, 6), "status": {**node["status"], "images": []}}
    assert not cache[NODES].put(later)
    assert cache[NODES].get(("", "node-a"))["metadata"]["resourceVersion"] == "6"  # type: ignore[index]
    for version, news in enumerate((make_node(gpu=1), make_node(labels={"pool": "a"}), make_node()), start=7):
        assert cache[NODES].put(at(news, version))


def test_node_affects_exports_waiting_for_one() -> None:
    cache = filled()[0]
    waits = make_export("LiteRT/FP16", name="waits", uid="uid-2")
    cache[EXPORTS].put(at({**waits, "status": {"targets": [{"reason": "NoSuitableNode"}]}}, 7))
    assert set(cache.affected_exports(NODES, make_node())) == {("team", "waits")}
