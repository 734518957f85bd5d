"""The Pod that signs links, as it is made from a Job of the export."""

from typing import Any

from modelexport.cli.links import signing_pod
from unit.operator.objects import build_all, make_class, make_export


def build_signing_pod(**converter: Any) -> dict[str, Any]:
    export = make_export("ONNX/FP16")
    export_class = make_class(converter={"image": "c:1", **converter})
    job = build_all(export, export_class)["ONNX/FP16"]
    return signing_pod(export, job, ["s3://exports/a"], "http://minio:9000")


def test_the_pod_that_signs_pulls_its_image_with_the_secrets_of_the_class() -> None:
    pod = build_signing_pod(imagePullSecrets=[{"name": "registry"}])
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
