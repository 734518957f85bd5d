"""Bad input and broken surroundings on the real node: each has its reason and a message that a user can act on.

All exports of this module are applied at once, and each test looks at the end of one.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from minio import Minio, MinioAdmin
from minio.credentials.providers import StaticProvider

from e2e.support import CLASSIFIER, INPUTS, Body, Workspace, build_export, find_condition, state_of, workspace
from e2e.support_inputs import MARK, build_attack
from testcluster.bootstrap import store_credentials
from testcluster.layout import MINIO_HOST, NODE_ADDRESS

pytestmark = pytest.mark.own_cluster("a MinIO with quotas, and a port of its node on which nobody listens")

WRONG_DIGEST = "0" * 64
FULL_BUCKET = "e2e-full"
CLASSES: dict[str, dict[str, Any]] = {
    "usual": {},
    "closed": {"storage": {"endpoint": f"http://{NODE_ADDRESS}:9"}, "jobs": {"retries": 1}},
    "denied": {"storage": {"credentialsSecretName": "wrong-keys"}},
    "nowhere": {"storage": {"bucket": "e2e-nowhere"}},
    "full": {"storage": {"bucket": FULL_BUCKET}},
}


@dataclass(frozen=True)
class Fault:
    """The request, and the words with which it must fail."""

    reason: str
    words: tuple[str, ...]
    spec: dict[str, Any] = field(default_factory=dict)
    class_name: str = "usual"
    target: str = "ONNX/FP32"
    attempts: int = 1


def checkpoint(uri: str, **changes: str) -> dict[str, Any]:
    """The part of a spec that names another checkpoint."""
    model = build_export("any")["spec"]["model"]
    return {"model": {**model, "checkpoint": {"uri": uri, **changes}}}


def calibration(name: str, **changes: str) -> dict[str, Any]:
    """The part of a spec that names images."""
    return {"calibration": {"dataset": {"uri": f"s3://{INPUTS}/{name}", **changes}, "samples": 8}}


FAULTS = {
    "checkpoint-missing": Fault(
        "CheckpointNotFound",
        (f"s3://{INPUTS}/none.pt", "has no object of this name", "upload it or correct spec.model.checkpoint.uri"),
        checkpoint(f"s3://{INPUTS}/none.pt"),
    ),
    "checkpoint-truncated": Fault(
        "CheckpointUnreadable",
        ("the checkpoint (1000000 bytes) cannot be read", "probably cut while it was copied"),
        checkpoint(f"s3://{INPUTS}/truncated.pt"),
    ),
    "checkpoint-of-another-architecture": Fault(
        "CheckpointMismatch",
        ("asks for architecture YOLOv8-CLS, the checkpoint has YOLOv8", "correct spec.model or name the other"),
        checkpoint(f"s3://{INPUTS}/yolov8n.pt"),
    ),
    "checkpoint-that-attacks": Fault(
        "CheckpointUnsafe",
        ("asks for posix._exit", "nothing of it was run", "save only the model's state_dict"),
        checkpoint(f"s3://{INPUTS}/attack.pt"),
    ),
    "checkpoint-with-another-digest": Fault(
        "DigestMismatch",
        ("is not the file that spec.model.checkpoint.sha256 asks for", WRONG_DIGEST, "run sha256sum on yours"),
        checkpoint(CLASSIFIER, sha256=WRONG_DIGEST),
    ),
    "checkpoint-that-diverged": Fault(
        "WeightsNotFinite",
        ("are NaN or infinite", "use a checkpoint from before training diverged"),
        checkpoint(f"s3://{INPUTS}/nan.pt"),
    ),
    "images-missing": Fault(
        "CalibrationNotFound",
        (f"s3://{INPUTS}/none.zip", "upload it or correct spec.calibration.dataset.uri"),
        calibration("none.zip"),
        target="ONNX/INT8",
    ),
    "images-with-another-digest": Fault(
        "DigestMismatch",
        ("calibration data", WRONG_DIGEST, "run sha256sum on yours"),
        calibration("images.zip", sha256=WRONG_DIGEST),
        target="ONNX/INT8",
    ),
    "archive-without-images": Fault(
        "CalibrationInvalid",
        ("holds no image (.bmp, .jpeg, .jpg, .png, .webp)", "it holds 1 files: readme.txt"),
        calibration("no-images.zip"),
        target="ONNX/INT8",
    ),
    "archive-with-a-broken-image": Fault(
        "CalibrationInvalid",
        ("0-broken.jpg in s3://", "cannot be read as an image", "repair or remove it"),
        calibration("broken.zip"),
        target="ONNX/INT8",
    ),
    "archive-that-explodes": Fault(
        "CalibrationTooLarge",
        ("times its packed size, the limit is 200", "give fewer or smaller images"),
        calibration("bomb.zip"),
        target="ONNX/INT8",
    ),
    "store-closed": Fault(
        "StorageUnavailable",
        ("cannot be reached", "Check the endpoint of the ExportClass", "(given up after 2 attempts)"),
        class_name="closed",
        attempts=2,
    ),
    "store-denied": Fault(
        "StorageDenied",
        ("InvalidAccessKeyId", "Correct the credentials in the Secret of the ExportClass"),
        class_name="denied",
    ),
    "bucket-missing": Fault(
        "BucketNotFound",
        ("s3://e2e-nowhere/", "Create the bucket, or correct the URI or the ExportClass"),
        class_name="nowhere",
    ),
    "store-full": Fault("StorageFull", (f"s3://{FULL_BUCKET}/", "Free space in the store"), class_name="full"),
}


@pytest.fixture(scope="module")
def failed(product: str, minio: Minio) -> Iterator[Workspace]:
    """A namespace in which every export has ended."""
    provide_full_bucket(minio)
    with workspace(product) as space:
        space.apply(build_wrong_keys())
        classes = {name: space.create_class(name, **changes) for name, changes in CLASSES.items()}
        exports = (
            build_export(name, fault.target, className=classes[fault.class_name], **fault.spec)
            for name, fault in FAULTS.items()
        )
        space.apply(*exports)
        space.wait("mx", "condition=Stalled", seconds=1800)
        yield space


def provide_full_bucket(minio: Minio) -> None:
    """Create a bucket with a quota of one byte."""
    if not minio.bucket_exists(bucket_name=FULL_BUCKET):
        minio.make_bucket(bucket_name=FULL_BUCKET)
    admin = MinioAdmin(endpoint=MINIO_HOST, credentials=StaticProvider(*store_credentials()), secure=False)
    admin.bucket_quota_set(bucket=FULL_BUCKET, size=1)


def build_wrong_keys() -> Body:
    """A Secret with keys unknown to the store."""
    keys = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing-at-all"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wrong-keys"}, "stringData": keys}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_ends_with_its_reason_and_remedy(failed: Workspace, name: str) -> None:
    fault, target = FAULTS[name], failed.target(name)
    assert (target["state"], target["reason"]) == ("Failed", fault.reason)
    assert [words for words in fault.words if words not in target["message"]] == [], target["message"]
    assert "artifact" not in target


@pytest.mark.parametrize("name", FAULTS)
def test_only_transient_faults_are_retried(failed: Workspace, name: str) -> None:
    assert failed.target(name)["attempts"] == FAULTS[name].attempts


@pytest.mark.parametrize("name", FAULTS)
def test_failure_is_reported_by_conditions_and_event(failed: Workspace, name: str) -> None:
    export, target = failed.read(f"mx/{name}"), failed.target(name)
    ready, stalled = find_condition(export, "Ready"), find_condition(export, "Stalled")
    assert (ready["status"], stalled["status"], export["status"]["ready"]) == ("False", "True", "0/1")
    assert f"{FAULTS[name].target} {target['reason']}: {target['message'][:80]}" in stalled["message"]
    assert ("Warning", target["reason"]) in [event[:2] for event in failed.events(name)]


def test_failed_conversion_publishes_nothing(failed: Workspace, minio: Minio) -> None:
    published = [
        item.object_name
        for bucket in (FULL_BUCKET, "e2e-exports")
        for item in minio.list_objects(bucket_name=bucket, prefix=f"{failed.name}/", recursive=True)
    ]
    assert published == []


def test_attack_works_on_plain_unpickling(tmp_path: Path) -> None:
    (tmp_path / "attack.pt").write_bytes(build_attack())
    program = "import pickle, sys, zipfile; pickle.load(zipfile.ZipFile(sys.argv[1]).open('archive/data.pkl'))"
    victim = subprocess.run([sys.executable, "-c", program, str(tmp_path / "attack.pt")], check=False)
    assert victim.returncode == MARK


def test_attack_did_not_run_in_converter(failed: Workspace) -> None:
    selector = "--selector=modelexport.dev/export=checkpoint-that-attacks"
    [pod] = json.loads(failed.kubectl("get", "pods", selector, "--output=json"))["items"]
    ended = state_of(pod)["terminated"]
    assert (ended["exitCode"], json.loads(ended["message"])["reason"]) == (65, "CheckpointUnsafe")
