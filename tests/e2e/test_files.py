"""Published files on the real cluster: fetched by people without a key, and gone with their export."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from minio import Minio

from cluster.bootstrap import kubectl
from cluster.layout import KUBECONFIG, MINIO_HOST, NODE_ADDRESS, tool
from cluster.shell import wait_until
from command_line import CommandLine
from e2e.support import RESULTS, Workspace, build_export

FINALIZER = "modelexport.dev/files"


def stored(minio: Minio, prefix: str) -> set[str]:
    """Return the names of the objects below a prefix."""
    found = minio.list_objects(bucket_name=RESULTS, prefix=prefix, recursive=True)
    return {str(item.object_name).rpartition("/")[2] for item in found}


def publish(space: Workspace, **storage: str) -> str:
    """Have an export published whose files go with it, and return its class."""
    class_name = space.create_class(storage={"prefix": "teams/{namespace}", **storage})
    space.apply(build_export("model", className=class_name, deletionPolicy="Delete"))
    space.wait("mx/model", "condition=Ready")
    assert space.read("mx/model")["metadata"]["finalizers"] == [FINALIZER]
    return class_name


def test_files_are_fetched_by_a_pods_links_and_go_with_their_export(
    space: Workspace, minio: Minio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(space)
    assert stored(minio, f"teams/{space.name}/model/") == {"model-fp32.onnx", "report.json"}
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
    assert told_of_files(space) == [("Normal", "FilesRemoved", "2 files were removed")]


def told_of_files(space: Workspace) -> list[tuple[str, str, str]]:
    """The events about the files of an export that has gone; the operator tells of them a moment after it lets go."""

    def events() -> list[tuple[str, str, str]]:
        return [event for event in space.events("model") if event[1].startswith("Files")]

    wait_until("the end to be told", lambda: bool(events()))
    return events()


def open_store(space: Workspace) -> str:
    """Give the store another name, which is not there for ever, and return its endpoint."""
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


def test_files_go_from_the_store_that_has_them_whatever_the_class_says_by_now(space: Workspace, minio: Minio) -> None:
    class_name = publish(space)
    patch = json.dumps({"spec": {"storage": {"endpoint": "http://127.0.0.1:1"}}})  # where nothing ever listens
    kubectl("patch", "exportclass", class_name, "--type=merge", f"--patch={patch}")
    space.kubectl("delete", "mx/model", "--timeout=300s")
    assert stored(minio, f"teams/{space.name}/") == set()


def test_a_store_that_is_gone_does_not_keep_its_export(space: Workspace, minio: Minio) -> None:
    publish(space, endpoint=open_store(space))
    space.kubectl("delete", "endpointslice/store")
    space.kubectl("delete", "mx/model", "--timeout=420s")  # after eight minutes it would be let go anyway
    assert stored(minio, f"teams/{space.name}/") == {"model-fp32.onnx", "report.json"}
    [(kind, reason, words)] = told_of_files(space)
    assert (kind, reason) == ("Warning", "FilesRemain")
    assert "cannot be reached" in words
    assert f"s3://{RESULTS}/teams/{space.name}/model/" in words
