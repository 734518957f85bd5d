"""The main job on the real cluster: one ModelExport of the default class becomes nine verified files in MinIO."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from minio import Minio

from e2e.support import INPUTS, Body, Workspace, ask, build_export, containers_of, find_condition, workspace
from modelexport.matrix.support import Format, Precision, Target, lookup
from testcluster import installation
from testcluster.bootstrap import kubectl
from testcluster.layout import REPOSITORY
from testcluster.shell import wait_until

SUPPORTED_FORMATS = 'supported values: "LiteRT", "ONNX", "CoreML", "PyTorch", "TensorFlow", "ExecuTorch"'
TARGETS = [f"{fmt}/{precision}" for fmt in ("LiteRT", "ONNX", "CoreML") for precision in ("FP32", "FP16", "INT8")]
MODEL = {
    "architecture": "YOLOv8",
    "checkpoint": {"uri": f"s3://{INPUTS}/yolov8n.pt"},
    "parameters": {"variant": "n", "numClasses": 3, "inputSize": [96, 160]},
}
IMAGES = {"dataset": {"uri": f"s3://{INPUTS}/images.zip"}, "samples": 8}
METRICS = f"/api/v1/namespaces/{installation.SYSTEM_NAMESPACE}/pods/%s:8080/proxy/metrics"


@pytest.fixture(scope="module")
def exported(product: str, minio: Minio) -> Iterator[Workspace]:
    """A namespace in which the export ``model`` has reached its end."""
    if not minio.bucket_exists(bucket_name=installation.RESULTS):
        minio.make_bucket(bucket_name=installation.RESULTS)
    with workspace(product) as space:
        space.apply(build_export("model", *TARGETS, model=MODEL, calibration=IMAGES))
        space.wait("mx/model", "condition=Ready", seconds=1800)
        yield space


@pytest.fixture(scope="module")
def targets(exported: Workspace) -> dict[str, Body]:
    """The status of every target by its name."""
    entries = exported.read("mx/model")["status"]["targets"]
    return {f"{entry['format']}/{entry['precision']}": entry for entry in entries}


def read_object(minio: Minio, uri: str) -> bytes:
    """Return the content of a URI of the store."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    with minio.get_object(bucket_name=bucket, object_name=key) as response:
        return bytes(response.read())


def test_kubectl_shows_all_nine_targets_ready(exported: Workspace) -> None:
    header, row = exported.kubectl("get", "mx").splitlines()
    assert header.split() == ["NAME", "ARCHITECTURE", "READY", "PROGRESS", "STATUS", "AGE"]
    assert row.split()[:4] == ["model", "YOLOv8", "9/9", "Succeeded"]


def test_conditions_are_those_tools_wait_for(exported: Workspace) -> None:
    export = exported.read("mx/model")
    statuses = {kind: find_condition(export, kind)["status"] for kind in ("Ready", "Reconciling", "Stalled")}
    assert statuses == {"Ready": "True", "Reconciling": "False", "Stalled": "False"}
    assert export["status"]["observedGeneration"] == export["metadata"]["generation"]


@pytest.mark.parametrize("name", TARGETS)
def test_store_contents_match_status(targets: dict[str, Body], minio: Minio, name: str) -> None:
    artifact = targets[name]["artifact"]
    content = read_object(minio, artifact["uri"])
    assert (len(content), hashlib.sha256(content).hexdigest()) == (artifact["sizeBytes"], artifact["sha256"])


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_reports_its_verification(targets: dict[str, Body], name: str) -> None:
    verification = targets[name]["verification"]
    assert float(verification["value"]) >= float(verification["threshold"]) > 0.5
    fmt, precision = name.split("/")
    assert targets[name]["scheme"] == lookup("YOLOv8", Target(Format(fmt), Precision(precision))).recipe(
        calibrated=True
    )
    assert targets[name]["attempts"] == 1


@pytest.mark.parametrize("name", TARGETS)
def test_report_holds_everything_file_user_needs(targets: dict[str, Body], minio: Minio, name: str) -> None:
    report = json.loads(read_object(minio, targets[name]["reportURI"]))
    assert report["artifact"]["sha256"] == targets[name]["artifact"]["sha256"]
    assert report["verification"] == targets[name]["verification"]
    assert report["model"]["classNames"] == ["circle", "square", "triangle"]
    assert report["model"]["input"]["shape"] == [1, 3, 96, 160]
    assert [output["name"] for output in report["model"]["outputs"]] == ["boxes", "scores"]
    assert report["peakMemoryMiB"] < 2560
    assert set(report["seconds"]) >= {"fetch", "load", "convert", "quantise", "verify", "publish", "total"}


def test_smaller_precisions_give_smaller_files(targets: dict[str, Body]) -> None:
    sizes = {name: target["artifact"]["sizeBytes"] for name, target in targets.items()}
    for fmt in ("LiteRT", "ONNX", "CoreML"):
        assert sizes[f"{fmt}/FP16"] < 0.6 * sizes[f"{fmt}/FP32"]
        assert sizes[f"{fmt}/INT8"] < 0.4 * sizes[f"{fmt}/FP32"]


def test_pods_run_with_minimal_privileges(exported: Workspace) -> None:
    pods = exported.read_all("pods")
    assert len(pods) == 9
    for pod in pods:
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers_of(pod):
            assert "serviceaccount" not in json.dumps([spec["volumes"], container["volumeMounts"]]).lower()
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert {"memory", "ephemeral-storage"} <= set(container["resources"]["limits"])


def test_export_owns_jobs(exported: Workspace) -> None:
    uid = exported.read("mx/model")["metadata"]["uid"]
    owners = [job["metadata"]["ownerReferences"] for job in exported.read_all("jobs")]
    assert [[owner["uid"] for owner in references] for references in owners] == [[uid]] * 9


def test_events_cover_whole_export(exported: Workspace) -> None:
    # The operator sends the event a moment after it has written the status.
    wait_until("the end to be told", lambda: exported.events("model")[-1][2].startswith("9 of 9"))
    events = exported.events("model")
    assert events[0][:2] == ("Normal", "Progressing")
    assert events[-1] == ("Normal", "Succeeded", "9 of 9 targets are published")
    told = {message.partition(":")[0] for _, reason, message in events if reason == "Succeeded"}
    assert told >= set(TARGETS)
    # On a small node the Pods wait for each other, and on a busy one the kubelet may be late with a Secret.
    warnings = [(reason, message) for kind, reason, message in events if kind != "Normal"]
    assert [one for one in warnings if one[0] != "Unschedulable" and "failed to sync secret cache" not in one[1]] == []


def test_log_has_one_json_document_per_line(exported: Workspace) -> None:
    for job in exported.read_all("jobs"):
        log = exported.kubectl("logs", f"job/{job['metadata']['name']}", "--all-containers")
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        # kubectl prints the containers of a Pod in any order.
        assert [line["reason"] for line in lines if line["event"] == "finished"] == ["Succeeded"]
        assert {line["stage"] for line in lines if line["event"] == "stage"} >= {"fetch", "convert", "publish"}
        told = {(line["export"], line["job"]) for line in lines}
        assert told == {(f"{exported.name}/model", job["metadata"]["name"])}


def test_operator_log_names_every_job_and_its_result(exported: Workspace) -> None:
    log = kubectl("logs", "deployment/modelexport-operator", f"--namespace={installation.SYSTEM_NAMESPACE}")
    lines = [json.loads(line) for line in log.splitlines()]
    story = [line for line in lines if line.get("export") == f"{exported.name}/model"]
    jobs = {job["metadata"]["name"] for job in exported.read_all("jobs")}
    assert {line["job"] for line in story if line["event"] == "job created"} == jobs
    published = {(line["job"], line["target"]) for line in story if line.get("reason") == "Succeeded" and "job" in line}
    assert {job for job, _ in published} == jobs
    assert {target for _, target in published} == set(TARGETS)


def test_operator_counts_conversions(exported: Workspace) -> None:
    text = read_metrics()
    for name in TARGETS:
        fmt, precision = name.split("/")
        labels = f'fault="None",format="{fmt}",outcome="Succeeded",precision="{precision}",reason="Succeeded"'
        assert f"modelexport_conversions_total{{{labels}}} 0.0" not in text
        assert f"modelexport_conversions_total{{{labels}}}" in text
    assert 'modelexport_exports{state="Succeeded"}' in text
    assert exported.name not in text


def read_metrics() -> str:
    """Return the operator's metrics, through the API server."""
    system = f"--namespace={installation.SYSTEM_NAMESPACE}"
    [pod] = json.loads(kubectl("get", "pods", system, "--output=json"))["items"]
    return kubectl("get", "--raw", METRICS % pod["metadata"]["name"])


def variation(**model: Any) -> dict[str, Any]:
    """A spec with another model."""
    return {"model": {**MODEL, **model}}


REFUSED = {
    "an unknown format": (
        ("TensorRT/FP16",),
        {},
        SUPPORTED_FORMATS,
    ),
    "a target twice": (("ONNX/FP16", "ONNX/FP16"), {}, "a target is listed twice"),
    "a bad URI": (TARGETS[:1], variation(checkpoint={"uri": "yolov8n.pt"}), "use s3://bucket/key or https://host/path"),
    "https without a digest": (
        TARGETS[:1],
        variation(checkpoint={"uri": "https://models.example/yolov8n.pt"}),
        "an https:// URI needs the sha256 of the file; add it, or use s3://bucket/key",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_kubectl_apply_rejects_invalid_objects(space: Workspace, case: str) -> None:
    targets, spec, message = REFUSED[case]
    body = json.dumps(build_export("model", *targets, **spec))
    answer = ask("apply", "--filename=-", f"--namespace={space.name}", text=body)
    assert answer.returncode == 1
    assert message in answer.stderr


def test_immutable_fields_cannot_be_reapplied(exported: Workspace) -> None:
    body = build_export("model", *TARGETS[:8], model=MODEL, calibration=IMAGES)
    answer = ask("apply", "--filename=-", f"--namespace={exported.name}", text=json.dumps(body))
    assert answer.returncode == 1
    assert "targets is immutable; create another ModelExport" in answer.stderr


def test_example_is_accepted(product: str) -> None:
    kubectl("apply", "--dry-run=server", f"--filename={REPOSITORY / 'examples/yolov8.yaml'}")
