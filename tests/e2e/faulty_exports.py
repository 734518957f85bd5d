"""Exports with bad input or broken surroundings, and the words with which each must fail.

A store that does not answer is asked for minutes before an export fails. All of them are applied before the first test,
and judged after the others (see ``begun`` in conftest.py).
"""

from dataclasses import dataclass, field
from typing import Any

from minio import Minio, MinioAdmin
from minio.credentials.providers import StaticProvider

from e2e.support import CLASSIFIER, INPUTS, SHARED_CPU, Body, Workspace, build_export
from testcluster.bootstrap import store_credentials
from testcluster.layout import MINIO_HOST, NODE_ADDRESS

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


def begin(space: Workspace, minio: Minio) -> None:
    """Apply all exports, and the classes and keys that they need."""
    provide_full_bucket(minio)
    space.apply(build_wrong_keys())
    classes = {name: space.create_class(name, nodePools=SHARED_CPU, **changes) for name, changes in CLASSES.items()}
    exports = (
        build_export(name, fault.target, className=classes[fault.class_name], **fault.spec)
        for name, fault in FAULTS.items()
    )
    space.apply(*exports)


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
