"""``modelexport.Client`` and its async twin against a real API server, the operator and a real store."""

import asyncio
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import modelexport
from integration.api import EXPORTS, PODS, Api, Body
from integration.control_plane import OPERATOR_TOKEN, ControlPlane, write_kubeconfig
from integration.kubelet import End, play_kubelet, refuse, run, succeed
from modelexport import names
from modelexport.client import client as module
from modelexport.client.kubernetes_api import KubernetesApi
from modelexport_operator.jobs.conversion_job import output_of
from s3_servers import ACCESS_KEY, MINIO, SECRET_KEY, S3Server, serve
from testcluster.layout import tool
from unit.operator.objects import result_text

pytestmark = pytest.mark.usefixtures("operator")

CONTENT = b"a verified file" * 1000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serve(MINIO, tmp_path_factory.mktemp("store") / "data") as server:
        server.client.make_bucket("exports")
        yield server


@pytest.fixture
def client(
    plane: ControlPlane, api: Api, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[modelexport.Client]:
    """A client of the namespace of a test, which holds the keys of the store."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.1)
    endpoint = f"http://{server.address}"
    with modelexport.Client(namespace=api.namespace, kubeconfig=plane.kubeconfig, endpoint=endpoint) as client:
        yield client


def build(*targets: str, name: str = "shapes", **fields: Any) -> modelexport.ModelExport:
    return modelexport.export(
        name, architecture="YOLOv8", checkpoint="s3://checkpoints/shapes/yolov8n.pt", to=targets, **fields
    )


def publish(server: S3Server, digest: str = hashlib.sha256(CONTENT).hexdigest()) -> End:
    """Let a Pod put its file and its report into the store; the file may be another than its digest says."""

    def end(api: Api, pod: Body) -> None:
        job: Any = {"spec": {"template": pod}}
        folder = output_of(job)
        artifact = {"uri": f"{folder}shapes-fp16.onnx", "sha256": digest, "size_bytes": len(CONTENT)}
        report = json.dumps({"artifact": {"sha256": digest}, "schemaVersion": 2}).encode()
        for name, content in (("shapes-fp16.onnx", CONTENT), (names.REPORT_FILE, report)):
            key = f"{folder}{name}".removeprefix("s3://exports/")
            server.client.put_object("exports", key, io.BytesIO(content), len(content))
        succeed(api, pod, result_text(artifact=artifact))

    return end


def test_export_is_submitted_awaited_and_downloaded(
    client: modelexport.Client, api: Api, server: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted = client.submit(build("ONNX/FP16"))
    assert (submitted.name, submitted.namespace, submitted.finished) == ("shapes", api.namespace, False)
    with play_kubelet(api, publish(server)):
        status = client.wait(submitted, timeout=120)
    assert (status.ready, status.reason, [one.name for one in client.list()]) == (True, "Succeeded", ["shapes"])
    assert "ONNX/FP16      Succeeded\n" in capsys.readouterr().err
    (path,) = client.download("shapes", output=tmp_path).values()
    assert path == tmp_path / "shapes-fp16.onnx"
    assert path.read_bytes() == CONTENT
    assert client.download(status, "onnx/fp16", tmp_path) == {"ONNX/FP16": path}
    assert client.report(status, "ONNX/FP16")["schemaVersion"] == 2
    client.delete(status)
    with pytest.raises(modelexport.ClusterError, match='"shapes" not found') as gone:
        client.wait("shapes", timeout=5)
    assert gone.value.status == 404


def test_file_with_another_digest_is_discarded(
    client: modelexport.Client, api: Api, server: S3Server, tmp_path: Path
) -> None:
    client.submit(build("ONNX/FP16"))
    with play_kubelet(api, publish(server, "ab" * 32)):
        client.wait("shapes", timeout=120)
    with pytest.raises(modelexport.TransferError, match="does not have the published SHA-256"):
        client.download("shapes", output=tmp_path)
    assert not list(tmp_path.iterdir())


async def test_exports_are_awaited_together_in_an_event_loop(
    client: modelexport.Client, api: Api, server: S3Server, plane: ControlPlane, tmp_path: Path
) -> None:
    endpoint = f"http://{server.address}"
    connected = modelexport.AsyncClient.connect(namespace=api.namespace, kubeconfig=plane.kubeconfig, endpoint=endpoint)
    async with await connected as twin:
        first, second = await asyncio.gather(
            twin.submit(build("ONNX/FP16")), twin.submit(build("LiteRT/FP32", name="b"))
        )
        with play_kubelet(api, publish(server)):
            ended = await asyncio.gather(*(twin.wait(one, timeout=120) for one in (first, second)))
        assert [one.ready for one in ended] == [True, True]
        assert {one.name for one in await twin.list()} == {"shapes", "b"}
        (path,) = (await twin.download("shapes", output=tmp_path)).values()
        assert path.read_bytes() == CONTENT
        assert (await twin.report("shapes", "ONNX/FP16"))["schemaVersion"] == 2
        assert (await twin.status("b")).target("litert/fp32").artifact
        await twin.delete("b")
        assert twin.namespace == api.namespace


def test_failed_export_raises_reason_and_way_out(client: modelexport.Client, api: Api) -> None:
    client.submit(build("ONNX/FP16", "ONNX/FP32"))
    ends: dict[str, list[End]] = {"ONNX/FP16": [succeed], "ONNX/FP32": [refuse("cosine 0.91 is below 0.95")]}
    with play_kubelet(api, ends), pytest.raises(modelexport.ExportFailed) as failed:
        client.wait("shapes", timeout=120, progress=False)
    assert failed.value.reason is modelexport.Reason.VERIFICATION_FAILED
    words = "ONNX/FP32: VerificationFailed: cosine 0.91 is below 0.95; Use a higher precision or better calibration"
    assert words in str(failed.value)
    assert client.wait("shapes", check=False).failed
    with pytest.raises(modelexport.BadInput, match=r"ONNX/FP32 is not published: Failed \(VerificationFailed\)"):
        client.download("shapes", "ONNX/FP32")


def test_equal_export_is_submitted_once(client: modelexport.Client) -> None:
    first = client.submit(build("ONNX/FP16"))
    assert client.submit(build("ONNX/FP16")).uid == first.uid
    with pytest.raises(modelexport.BadInput, match="shapes exists with another spec; use another name") as refused:
        client.submit(build("ONNX/FP32"))
    assert refused.value.field == "metadata.name"


def test_what_the_server_refuses_names_the_field(client: modelexport.Client, api: Api) -> None:
    local = modelexport.export("a", architecture="YOLOv8", checkpoint="file:///a.pt", to=["ONNX/FP16"])
    with pytest.raises(modelexport.ClusterError, match="ModelExport") as refused:
        client.submit(local)
    assert (refused.value.status, refused.value.field) == (422, "spec.model.checkpoint.uri")
    with pytest.raises(modelexport.BadInput, match=r"use Client\(namespace='elsewhere'\)"):
        client.submit(build("ONNX/FP16", namespace="elsewhere"))
    with pytest.raises(modelexport.BadInput, match=r"spec.targets\[0\].format: 'TFLite' is not known") as bad:
        client.submit({**EXPORT, "spec": {**EXPORT["spec"], "targets": [{"format": "TFLite", "precision": "FP16"}]}})
    assert bad.value.field == "spec.targets[0].format"
    assert api.list(EXPORTS) == []
    assert client.submit(EXPORT).name == "a"
    assert api.get(EXPORTS, "a")["metadata"]["labels"] == {"team": "vision"}


EXPORT: dict[str, Any] = {
    "apiVersion": "modelexport.dev/v1alpha1",
    "kind": "ModelExport",
    "metadata": {"name": "a", "labels": {"team": "vision"}},
    "spec": {
        "model": {"architecture": "YOLOv8", "checkpoint": {"uri": "s3://checkpoints/a.pt"}},
        "targets": [{"format": "ONNX", "precision": "FP16"}],
    },
}


def test_waiting_ends_when_it_cannot_succeed(client: modelexport.Client, api: Api) -> None:
    client.submit(build("ONNX/FP16"))
    with play_kubelet(api, run), pytest.raises(modelexport.ModelExportError, match="has not ended within 1 s"):
        client.wait("shapes", timeout=1)
    api.patch(f"{EXPORTS}/shapes", {"spec": {"suspend": True}})
    with pytest.raises(modelexport.ModelExportError, match=r"is suspended; set spec\.suspend to false"):
        client.wait("shapes", timeout=60)


def test_missing_right_is_reported(plane: ControlPlane, api: Api, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    write_kubeconfig(kubeconfig, plane.address, plane.certificate, OPERATOR_TOKEN)
    client = modelexport.Client(namespace=api.namespace, kubeconfig=kubeconfig)
    with client, pytest.raises(modelexport.ClusterError, match="cannot create resource") as refused:
        client.submit(build("ONNX/FP16"))
    assert refused.value.status == 403


def test_unreachable_server_is_named(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    write_kubeconfig(kubeconfig, "https://127.0.0.1:1")
    with modelexport.Client(kubeconfig=kubeconfig, context="test") as client:
        assert client.namespace == "default"
        with pytest.raises(modelexport.ClusterError, match=r"https://127\.0\.0\.1:1 does not answer: ") as refused:
            client.status("shapes")
    assert refused.value.can_pass
    with pytest.raises(modelexport.BadInput, match="no cluster is configured: "):
        modelexport.Client(kubeconfig=kubeconfig, context="other")


def test_pods_are_created_read_and_deleted(plane: ControlPlane, api: Api) -> None:
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "a", "image": "a", "securityContext": security}
    restricted = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"containers": [container], "securityContext": restricted, "restartPolicy": "Never"}
    cluster = KubernetesApi.connect(str(plane.kubeconfig), None, api.namespace)
    cluster.create_pod({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec})
    assert cluster.read_pod("a")["status"]["phase"] == "Pending"
    assert cluster.read_log("a", 100) == "", "there is no kubelet to run it"
    cluster.delete_pod("a")
    cluster.delete_pod("a")
    assert api.list(PODS) == []
    assert cluster.list_jobs("a=b") == []
    cluster.close()


def test_kubectl_runs_the_program_as_its_plugin(
    client: modelexport.Client, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.submit(build("ONNX/FP16"))
    folders = [str(Path(sys.executable).parent), str(Path(tool("kubectl")).parent)]
    monkeypatch.setenv("PATH", ":".join([*folders, "/usr/bin", "/bin"]))
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))

    def plugin(*arguments: str) -> str:
        command = [tool("kubectl"), "modelexport", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert isinstance(json.loads(plugin("get", "shapes", "--namespace", client.namespace, "-o", "json")), list)
    assert "usage: kubectl modelexport " in plugin("--help")
