"""Published files on the real cluster: downloaded without a key of the store, and deleted with their export."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from minio import Minio

from command_line import CommandLine
from e2e.support import RESULTS, Workspace, build_export
from testcluster.bootstrap import kubectl
from testcluster.layout import KUBECONFIG, MINIO_HOST, NODE_ADDRESS, tool
from testcluster.shell import wait_until

pytestmark = pytest.mark.own_cluster("a MinIO whose address a Service of the tests can take")

FINALIZER = "modelexport.dev/files"


def stored(minio: Minio, prefix: str) -> set[str]:
    """Return the names of the objects below a prefix."""
    found = minio.list_objects(bucket_name=RESULTS, prefix=prefix, recursive=True)
    return {str(item.object_name).rpartition("/")[2] for item in found}


def publish(space: Workspace, **storage: str) -> str:
    """Publish an export whose files are deleted with it, and return its class."""
    class_name = space.create_class(storage={"prefix": "teams/{namespace}", **storage})
    space.apply(build_export("model", className=class_name, deletionPolicy="Delete"))
    space.wait("mx/model", "condition=Ready")
    assert space.read("mx/model")["metadata"]["finalizers"] == [FINALIZER]
    return class_name


def test_pod_signs_links_and_files_are_deleted_with_export(
    space: Workspace, minio: Minio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(space)
    assert stored(minio, f"teams/{space.name}/model/") == {"model-fp32.onnx", "report.json", "report.html"}
    monkeypatch.setenv("PATH", f"{Path(tool('kubectl')).parent}{os.pathsep}{os.environ['PATH']}")
    scope = ("model", f"--namespace={space.name}", f"--kubeconfig={KUBECONFIG}")
    command = CommandLine(tmp_path)
    listed = json.loads(command("get", *scope, "--output=json").stdout)
    done = command("download", *scope, f"--endpoint=http://{MINIO_HOST}", "--target=FP32/ONNX")
    assert done.returncode == 0, done.stderr
    content = (tmp_path / "model-fp32.onnx").read_bytes()
    assert hashlib.sha256(content).hexdigest() == listed[0]["artifact"]["sha256"]
    assert "modelexport-links-" not in space.kubectl("get", "pods", "--field-selector=status.phase=Running")
    space.kubectl("delete", "mx/model", "--timeout=300s")
    assert stored(minio, f"teams/{space.name}/") == set()
    assert file_events(space) == [("Normal", "FilesRemoved", "3 files were removed")]


def file_events(space: Workspace) -> list[tuple[str, str, str]]:
    """The events about the files of a deleted export; they follow a moment after its finalizer is removed."""

    def events() -> list[tuple[str, str, str]]:
        return [event for event in space.events("model") if event[1].startswith("Files")]

    wait_until("the end to be told", lambda: bool(events()))
    return events()


def open_store(space: Workspace) -> str:
    """Give the store a second Service, which can be removed, and return its endpoint."""
    spec = {"ports": [{"name": "s3", "port": 9000}]}
    labels = {"kubernetes.io/service-name": "store", "endpointslice.kubernetes.io/managed-by": "test"}
    space.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "store"}, "spec": spec},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "store", "labels": labels},
            "addressType": "IPv4",
            **spec,
            "endpoints": [{"addresses": [NODE_ADDRESS]}],
        },
    )
    return f"http://store.{space.name}.svc.cluster.local:9000"


def test_files_are_deleted_from_original_store_after_update(space: Workspace, minio: Minio) -> None:
    class_name = publish(space)
    patch = json.dumps({"spec": {"storage": {"endpoint": "http://127.0.0.1:1"}}})  # where nothing ever listens
    kubectl("patch", "exportclass", class_name, "--type=merge", f"--patch={patch}")
    space.kubectl("delete", "mx/model", "--timeout=300s")
    assert stored(minio, f"teams/{space.name}/") == set()


def test_missing_store_does_not_block_deletion(space: Workspace, minio: Minio) -> None:
    publish(space, endpoint=open_store(space))
    space.kubectl("delete", "endpointslice/store")
    space.kubectl("delete", "mx/model", "--timeout=420s")  # after eight minutes the finalizer would be removed anyway
    assert stored(minio, f"teams/{space.name}/") == {"model-fp32.onnx", "report.json", "report.html"}
    [(kind, reason, words)] = file_events(space)
    assert (kind, reason) == ("Warning", "FilesRemain")
    assert "cannot be reached" in words
    assert f"s3://{RESULTS}/teams/{space.name}/model/" in words
