"""Published files on the real cluster: downloaded without a key of the store, and deleted with their export."""

import hashlib
import json
import os
from contextlib import closing
from pathlib import Path

import pytest
from minio import Minio

from command_line import CommandLine
from e2e.deletions import file_events, publish, stored
from e2e.support import RESULTS, Workspace
from testcluster.bootstrap import kubectl
from testcluster.layout import KUBECONFIG, MINIO_HOST, tool

pytestmark = pytest.mark.own_cluster("a MinIO whose address a Service of the tests can take")


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


def test_files_are_deleted_from_original_store_after_update(space: Workspace, minio: Minio) -> None:
    class_name = publish(space)
    patch = json.dumps({"spec": {"storage": {"endpoint": "http://127.0.0.1:1"}}})  # where nothing ever listens
    kubectl("patch", "exportclass", class_name, "--type=merge", f"--patch={patch}")
    space.kubectl("delete", "mx/model", "--timeout=300s")
    assert stored(minio, f"teams/{space.name}/") == set()


def test_missing_store_does_not_block_deletion(begun_deletion: Workspace, minio: Minio) -> None:
    with closing(begun_deletion) as space:
        space.wait("mx/model", "delete", seconds=420)  # after eight minutes the finalizer would be removed anyway
        assert stored(minio, f"teams/{space.name}/") == {"model-fp32.onnx", "report.json", "report.html"}
        [(kind, reason, words)] = file_events(space)
        assert (kind, reason) == ("Warning", "FilesRemain")
        assert "cannot be reached" in words
        assert f"s3://{RESULTS}/teams/{space.name}/model/" in words
