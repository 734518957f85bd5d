"""Deleting an export with its files: the finalizer, the clean-up Job and the release, on a real API server."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from integration.kubelet import End, fail, play_kubelet, run, succeed
from testplane.api import CLASSES, EVENTS, EXPORTS, JOBS, PODS, Api, ApiError, Body
from testplane.control_plane import ControlPlane
from testplane.objects import make_class, make_export, result_text
from testplane.process import Operator

pytestmark = pytest.mark.usefixtures("operator")

FINALIZER = "modelexport.dev/files"
CLEAN = "None/None"
"""The clean-up's Pods have the labels of no target."""


def removed(api: Api, pod: Body) -> None:
    """Let a clean-up Pod succeed."""
    succeed(api, pod, result_text("FilesRemoved", "2 files were removed"))


def apply(api: Api, policy: str = "Delete", **spec: Any) -> None:
    body = make_export("ONNX/FP16", deletionPolicy=policy, **spec)
    body["metadata"] = {"name": "shapes", "finalizers": []}
    api.create(EXPORTS, body)


def finalizers(api: Api) -> list[str]:
    return list(api.get(EXPORTS, "shapes")["metadata"].get("finalizers", []))


def is_gone(api: Api) -> bool:
    try:
        api.get(EXPORTS, "shapes")
    except ApiError as error:
        return error.status == 404
    return False


def clean_ups(api: Api) -> list[Body]:
    return [job for job in api.list(JOBS) if "-clean-" in job["metadata"]["name"]]


def story(api: Api) -> dict[str, str]:
    return {event["reason"]: event["message"] for event in api.list(EVENTS) if event["reason"].startswith("Files")}


def publish(api: Api, **spec: Any) -> None:
    apply(api, **spec)
    with play_kubelet(api, succeed):
        api.wait_for_reason("Succeeded")
    assert finalizers(api) == [FINALIZER]


@pytest.mark.parametrize("cascade", ["Background", "Foreground", "Orphan"])
def test_files_are_deleted_before_export(api: Api, cascade: str) -> None:
    publish(api)
    api.call("DELETE", f"{EXPORTS}/shapes?propagationPolicy={cascade}")
    with play_kubelet(api, {CLEAN: [removed]}):
        api.wait_for("the export to go", lambda: is_gone(api))
    (job,) = clean_ups(api)
    container = job["spec"]["template"]["spec"]["containers"][0]
    files = json.loads(next(entry["value"] for entry in container["env"] if entry["name"] == "MODELEXPORT_FILES"))
    assert container["args"] == ["clean"]
    folder = f"s3://exports/team-a/{api.namespace}/shapes/"
    assert [uri.startswith(f"{folder}onnx-fp16-") for uri in files] == [True, True, False]
    assert [uri.rpartition("/")[2] for uri in files] == ["shapes-fp16.onnx", "report.json", "report.html"]
    assert files[2] == f"{folder}report.html"
    api.wait_for("the end to be told", lambda: story(api))
    assert story(api) == {"FilesRemoved": "2 files were removed"}


def test_conversions_stop_before_file_deletion(api: Api) -> None:
    apply(api)
    with play_kubelet(api, {"ONNX/FP16": [run], CLEAN: [removed]}):
        api.wait_for("the converter to run", lambda: api.targets().get("ONNX/FP16", {}).get("state") == "Running")
        api.delete(EXPORTS, "shapes")
        api.wait_for("the export to go", lambda: is_gone(api))
    assert [pod["status"]["phase"] for pod in api.list(PODS)] == ["Succeeded"]
    api.wait_for("its Jobs to go", lambda: api.list(JOBS) == clean_ups(api))


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (fail(70, result_text("StorageDenied", "the store answered AccessDenied")), "the store answered AccessDenied"),
        (fail(70, "no JSON"), "ended with exit code 70 and without a result"),
    ],
    ids=["denied", "silent"],
)
def test_failed_file_deletion_reports_remaining_files(api: Api, operator: Operator, end: End, words: str) -> None:
    publish(api)
    api.delete(EXPORTS, "shapes")
    with play_kubelet(api, {CLEAN: [end]}):
        api.wait_for("the export to go", lambda: is_gone(api))
    api.wait_for("the end to be told", lambda: story(api))
    assert words in story(api)["FilesRemain"]
    assert f"s3://exports/team-a/{api.namespace}/shapes/onnx-fp16-" in story(api)["FilesRemain"]
    assert words in operator.log.read_text()


def test_switch_to_retain_removes_finalizer_and_starts_nothing(api: Api) -> None:
    publish(api)
    api.patch(f"{EXPORTS}/shapes", {"spec": {"deletionPolicy": "Retain"}})
    api.wait_for("the finalizer to go", lambda: finalizers(api) == [])
    api.patch(f"{EXPORTS}/shapes", {"spec": {"deletionPolicy": "Delete"}})
    api.wait_for("the finalizer to come", lambda: finalizers(api) == [FINALIZER])
    api.patch(f"{EXPORTS}/shapes", {"metadata": {"finalizers": [FINALIZER, "example.com/of-others"]}})
    api.delete(EXPORTS, "shapes")
    api.patch(f"{EXPORTS}/shapes", {"spec": {"deletionPolicy": "Retain"}})
    api.wait_for("our finalizer to go", lambda: FINALIZER not in finalizers(api))
    assert finalizers(api) == ["example.com/of-others"]
    api.patch(f"{EXPORTS}/shapes", {"metadata": {"finalizers": []}})
    assert is_gone(api)


def test_export_retaining_files_is_never_patched(api: Api) -> None:
    apply(api, policy="Retain")
    with play_kubelet(api, succeed):
        api.wait_for_reason("Succeeded")
    managers = api.get(EXPORTS, "shapes")["metadata"]["managedFields"]
    assert [entry.get("subresource") for entry in managers if "modelexport" in entry["manager"]] in ([], ["status"])
    assert finalizers(api) == []
    api.delete(EXPORTS, "shapes")
    assert is_gone(api)


def test_namespace_deletion_removes_its_exports(plane: ControlPlane, api: Api) -> None:
    publish(api)
    api.delete("/api/v1/namespaces", api.namespace)
    with play_kubelet(api, {CLEAN: [removed]}):
        api.wait_for("the namespace to go", lambda: _is_missing(api, "/api/v1/namespaces"))
    api.create("/api/v1/namespaces", {"metadata": {"name": api.namespace}})


def _is_missing(api: Api, path: str) -> bool:
    try:
        api.get(path, api.namespace)
    except ApiError as error:
        return error.status == 404
    return False


@pytest.fixture
def enclosed(api: Api) -> Iterator[str]:
    """A class with folders per namespace."""
    name = f"enclosed-{uuid.uuid4().hex[:8]}"
    storage = {"endpoint": "http://minio:9000", "bucket": "exports", "prefix": "teams/{namespace}"}
    sources = ["s3://checkpoints/{namespace}/"]
    api.create(CLASSES, make_class(name, default=False, storage=storage, sources=sources))
    yield name
    api.delete(CLASSES, name)


def order(api: Api, class_name: str, uri: str) -> None:
    body = make_export("ONNX/FP16", className=class_name)
    body["metadata"] = {"name": "shapes"}
    body["spec"]["model"]["checkpoint"]["uri"] = uri
    api.create(EXPORTS, body)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("other/best.pt", "SourceNotAllowed"),
        ("{0}/../other/best.pt", "InvalidSpec"),
        ("{0}/%2e%2e/other/best.pt", "SourceNotAllowed"),
        ("{0}//other/best.pt", "SourceNotAllowed"),
        ("{0}-2/best.pt", "SourceNotAllowed"),
    ],
)
def test_namespace_cannot_read_other_checkpoints(api: Api, enclosed: str, key: str, reason: str) -> None:
    order(api, enclosed, f"s3://checkpoints/{key.format(api.namespace)}")
    api.wait_for_reason(reason)
    ready = api.ready()
    assert "spec.model.checkpoint.uri" in ready["message"]
    assert ready["status"] == "False"
    time.sleep(0.5)
    assert api.list(JOBS) == []


def test_namespace_reads_and_writes_its_own_folders(api: Api, enclosed: str) -> None:
    order(api, enclosed, f"s3://checkpoints/{api.namespace}/best.pt")
    api.wait_for("the Job", lambda: api.list(JOBS))
    environment = api.list(JOBS)[0]["spec"]["template"]["spec"]["initContainers"][0]["env"]
    values = {entry["name"]: entry.get("value") for entry in environment}
    assert values["MODELEXPORT_SOURCES"] == f"s3://checkpoints/{api.namespace}/"
    output = json.loads(values["MODELEXPORT_REQUEST"])["output"]
    assert output.startswith(f"s3://exports/teams/{api.namespace}/shapes/onnx-fp16-")
