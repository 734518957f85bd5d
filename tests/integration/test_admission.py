"""The API server itself refuses wrong objects, with a message that names the way out."""

from pathlib import Path
from typing import Any

import pytest

from testcluster.chart import load, render
from testplane.api import CLASSES, EXPORTS, Api, ApiError, Body
from testplane.control_plane import ControlPlane
from testplane.objects import make_class, make_export

SHA = "ab" * 32
STORAGE = {"endpoint": "http://minio:9000", "bucket": "exports"}
CHECKPOINT = {"uri": "s3://checkpoints/shapes/yolov8n.pt"}
CALIBRATION = {"dataset": {"uri": "s3://datasets/shapes/calib.zip"}}


def model(**changes: Any) -> dict[str, Any]:
    return {"model": {"architecture": "YOLOv8", "checkpoint": CHECKPOINT, **changes}}


def export(**spec: Any) -> Body:
    body: Body = make_export("ONNX/FP16", **spec)
    body["metadata"] = {"name": "shapes"}
    return body


def targets(*pairs: str) -> dict[str, Any]:
    return {"targets": [dict(zip(("format", "precision"), pair.split("/"), strict=True)) for pair in pairs]}


def named(*names: str) -> dict[str, Any]:
    return {"targets": [{"format": "ONNX", "precision": "FP16", "name": name} for name in names]}


def optional(pair: str, **options: Any) -> dict[str, Any]:
    return {"targets": [{**target, "options": options} for target in targets(pair)["targets"]]}


def pools(*entries: Body) -> Body:
    return {"nodePools": list(entries)}


FORMATS = ("LiteRT", "ONNX", "CoreML", "PyTorch", "TensorFlow", "ExecuTorch")
SUPPORTED_FORMATS = 'supported values: "LiteRT", "ONNX", "CoreML", "PyTorch", "TensorFlow", "ExecuTorch"'
ALL = [f"{fmt}/{precision}" for fmt in FORMATS for precision in ("FP32", "FP16", "INT8")]

ACCEPTED = {
    "the smallest": {},
    "all targets": {**targets(*ALL), "calibration": CALIBRATION, "supportLevel": "Extended"},
    "a target by two names": named("camera", "server"),
    "options": optional("ONNX/FP32", dynamicBatch=True, opset=13, layout="NHWC", inputType="uint8"),
    "boxes for Vision": optional("CoreML/FP16", input="Image", nms=True),
    "an image of Core ML": optional("CoreML/FP16", input="Image", deploymentTarget="iOS15"),
    "16-bit activations": {
        **targets("LiteRT/W8A16", "ONNX/W8A16"),
        "calibration": CALIBRATION,
        "supportLevel": "Extended",
    },
    "every field": {
        **model(parameters={"variant": "n", "numClasses": 3, "inputSize": [640, 320]}),
        "className": "standard",
        "supportLevel": "Extended",
        "calibration": {"dataset": {"uri": "s3://datasets/shapes/calib.zip", "sha256": SHA}, "samples": 32},
        "deletionPolicy": "Delete",
        "suspend": True,
        "ttlSecondsAfterFinished": 86400,
    },
    "how far to go for INT8": {
        **targets("ONNX/FP16", "ONNX/INT8"),
        "calibration": CALIBRATION,
        "quantization": {"effort": "MixedPrecision", "maxFloatLayers": 1024, "maxSizeRatio": "1.0"},
    },
    "INT8 by defaults": {**targets("LiteRT/INT8"), "calibration": CALIBRATION, "quantization": {}},
    "a backbone": model(
        architecture="DeepLabV3", parameters={"variant": "mobilenet_v3_large", "inputSize": [520, 776]}
    ),
    "a network of one variant": model(architecture="UNet", parameters={"numClasses": 1, "inputSize": [48, 64]}),
    "all that a detector's weights do not tell": model(
        architecture="FasterRCNN",
        parameters={
            "imageMean": ["0.1", "0.2", "0.3"],
            "imageStd": ["1", "1.0", "0.25"],
            "detectionsPerImage": 300,
            "anchorSizes": [[8], [16], [32], [64], [128]],
            "aspectRatios": ["0.5", "1", "2.0"],
        },
    ),
    "a legacy YOLOX": model(
        architecture="YOLOX",
        parameters={
            "activation": "ReLU",
            "colorOrder": "RGB",
            "pixelRange": "0-1",
            "imageMean": ["0.485", "0.456", "0.406"],
            "imageStd": ["0.229", "0.224", "0.225"],
        },
    ),
    "other anchors": model(architecture="YOLOv4", parameters={"activation": "LeakyReLU", "anchors": [10] * 12}),
    "corners": model(architecture="UNet", parameters={"alignCorners": False}),
    "https with a digest": model(checkpoint={"uri": "https://models.example/yolov8n.pt", "sha256": SHA}),
    "the longest URI": model(checkpoint={"uri": "s3://checkpoints/" + "x" * 1007}),
}


def quantized(**fields: Any) -> dict[str, Any]:
    return {**targets("LiteRT/INT8"), "calibration": CALIBRATION, "quantization": fields}


def extended(pair: str, **options: Any) -> dict[str, Any]:
    return {**optional(pair, **options), "calibration": CALIBRATION, "supportLevel": "Extended"}


REFUSED = {
    "16-bit activations without images": (
        {**targets("ONNX/W8A16"), "supportLevel": "Extended"},
        "needs images",
    ),
    "16-bit activations in float files": (extended("CoreML/W8A16"), "W8A16 is not possible in CoreML"),
    "16-bit activations of old operators": (
        extended("ONNX/W8A16", opset=20),
        "an opset below 21 and W8A16 exclude each other",
    ),
    "16-bit activations at level Stable": (
        {**targets("ONNX/W8A16"), "calibration": CALIBRATION},
        "supportLevel: Extended",
    ),
    "an unknown effort": (quantized(effort="Training"), 'supported values: "Auto", "Ranges", "MixedPrecision"'),
    "an effort without layers": (
        quantized(effort="MixedPrecision", maxFloatLayers=0),
        "0 leaves effort MixedPrecision nothing to do; use 1 or more, or effort: Ranges",
    ),
    "too many layers in float": (quantized(maxFloatLayers=1025), "should be less than or equal to 1024"),
    "a size above FP32": (quantized(maxSizeRatio="1.01"), "not a decimal above 0 and up to 1; write it as text"),
    "an effort without a target for it": (
        {**quantized(), **targets("CoreML/INT8", "ONNX/FP16")},
        "quantization applies to none of the targets: only LiteRT/INT8, ONNX/INT8 and ExecuTorch/INT8 can keep "
        "layers in float",
    ),
    "an effort without images": (
        {**targets("ONNX/INT8"), "quantization": {}},
        "layers are measured on images; set spec.calibration, or remove spec.quantization",
    ),
    "no targets": (targets(), "spec.targets: Invalid value: 0: spec.targets in body should have at least 1 items"),
    "a target twice": (targets("ONNX/FP16", "ONNX/FP16"), "a target is listed twice; give one of them another name"),
    "a name twice": (named("camera", "camera"), "a target is listed twice; give one of them another name"),
    "a name that is none": (named("Camera"), "spec.targets[0].name in body should match"),
    "an option of another format": (
        optional("LiteRT/FP32", opset=17),
        "opset is an option of ONNX only; remove it, or choose that format",
    ),
    "an unknown opset": (optional("ONNX/FP32", opset=22), "should be less than or equal to 21"),
    "8 bits before iOS16": (
        optional("CoreML/INT8", deploymentTarget="iOS15"),
        "deploymentTarget iOS15 and INT8 exclude each other: 8-bit weights need iOS16; choose iOS16, or FP16",
    ),
    "a batch of two kinds": (
        optional("ONNX/FP32", batch=2, dynamicBatch=True),
        "batch and dynamicBatch exclude each other; remove one",
    ),
    "any size of a network that suppresses boxes": (
        {**optional("ONNX/FP32", dynamicSize=True), **model(architecture="FasterRCNN")},
        "the option dynamicSize is not possible for FasterRCNN",
    ),
    "a batch for Vision": (
        optional("CoreML/FP16", batch=2, input="Image"),
        "batch and input Image exclude each other: Core ML takes images one at a time; remove one",
    ),
    "a batch of a network that takes one image": (
        {**optional("LiteRT/FP32", batch=2), **model(architecture="FasterRCNN")},
        "the option batch is not possible for FasterRCNN",
    ),
    "normalised bytes": (
        optional("ONNX/FP32", inputType="uint8", preprocessing="Outside"),
        "inputType uint8 needs preprocessing Inside",
    ),
    "quantised values of FP16": (
        {**optional("LiteRT/FP16", inputType="int8"), "calibration": CALIBRATION},
        "inputType int8 needs LiteRT/INT8 and spec.calibration",
    ),
    "quantised values without images": (
        optional("LiteRT/INT8", inputType="int8"),
        "inputType int8 needs LiteRT/INT8 and spec.calibration",
    ),
    "labels with channels first": (optional("LiteRT/FP32", labels=True), "labels needs layout NHWC"),
    "boxes of a classifier": (
        {**optional("ONNX/FP32", nms=True), **model(architecture="YOLOv8-CLS")},
        "the option nms is not possible for FasterRCNN, RetinaResNet, MobileNet, YOLOv8-SEG",
    ),
    "a batch of a detector with suppression": (
        {**optional("ONNX/FP32", dynamicBatch=True), **model(architecture="FasterRCNN")},
        "the option dynamicBatch is not possible for FasterRCNN",
    ),
    "an unknown format": (
        targets("TensorRT/FP16"),
        SUPPORTED_FORMATS,
    ),
    "an unknown precision": (targets("ONNX/INT4"), 'supported values: "FP32", "FP16", "INT8"'),
    "an unknown architecture": (model(architecture="YOLOv9"), 'supported values: "YOLOv8", "YOLO11"'),
    "an unknown level": ({"supportLevel": "Beta"}, 'supported values: "Stable", "Extended"'),
    "no checkpoint": ({"model": {"architecture": "YOLOv8"}}, "spec.model.checkpoint: Required value"),
    "a local file": (model(checkpoint={"uri": "file:///tmp/x.pt"}), "file:// is for local runs; upload the file"),
    "a bare path": (model(checkpoint={"uri": "yolov8n.pt"}), "use s3://bucket/key or https://host/path"),
    "a bad bucket": (model(checkpoint={"uri": "s3://Bad_Bucket/x.pt"}), "use s3://bucket/key or https://host/path"),
    "a URI that turns round": (
        model(checkpoint={"uri": "s3://checkpoints/\u202etp.a"}),
        "contains an invisible character",
    ),
    "a URI that acts on the terminal": (
        model(checkpoint={"uri": "s3://checkpoints/a\x1b[2J.pt"}),
        "contains an invisible character",
    ),
    "http": (model(checkpoint={"uri": "http://host/x.pt"}), "use s3://bucket/key or https://host/path"),
    "https without a digest": (
        model(checkpoint={"uri": "https://host/x.pt"}),
        "an https:// URI needs the sha256 of the file; add it, or use s3://bucket/key",
    ),
    "a URI without end": (model(checkpoint={"uri": "s3://checkpoints/" + "x" * 1008}), "may not be more than 1024"),
    "a digest with a prefix": (
        model(checkpoint={**CHECKPOINT, "sha256": f"sha256:{SHA}"}),
        "use 64 hexadecimal digits",
    ),
    "a digest in capitals": (model(checkpoint={**CHECKPOINT, "sha256": SHA.upper()}), "digits in lower case"),
    "another variant": (model(parameters={"variant": "xl"}), "variant must be one of n, s, m, l, x for YOLOv8"),
    "a variant of another architecture": (
        model(architecture="FCN", parameters={"variant": "n"}),
        "variant must be one of resnet50, resnet101, mobilenet_v3_large, mobilenet_v3_small for DeepLabV3, FCN",
    ),
    "a variant where there are none": (
        model(architecture="UNet", parameters={"variant": "n"}),
        "variant is not a parameter of MobileNet, UNet, Custom; remove it",
    ),
    "a threshold where files do not suppress boxes": (
        model(parameters={"scoreThreshold": "0.5"}),
        "scoreThreshold is not a parameter of YOLOv8, ",
    ),
    "an overlap where files do not suppress boxes": (
        model(parameters={"nmsThreshold": "0.5"}),
        "nmsThreshold is not a parameter of YOLOv8, ",
    ),
    "an epsilon where nothing is frozen": (
        model(parameters={"normEpsilon": "0"}),
        "normEpsilon is not a parameter of YOLOv8, ",
    ),
    "a threshold as a number": (model(parameters={"nmsThreshold": 0.5}), "must be of type string"),
    "a threshold above 1": (
        model(parameters={"scoreThreshold": "1.5"}),
        'not a decimal from 0 to 1; write it as text, for example "0.5"',
    ),
    "an activation that ultralytics has not": (model(parameters={"activation": "Tanh"}), 'Unsupported value: "Tanh"'),
    "an activation that Megvii has not": (
        model(architecture="YOLOX", parameters={"activation": "Mish"}),
        "activation must be one of SiLU, ReLU, LeakyReLU for YOLOX",
    ),
    "anchors where there are none": (
        model(parameters={"anchors": [1] * 18}),
        "anchors is not a parameter of YOLOv8, ",
    ),
    "half a level of anchors": (
        model(architecture="YOLOv4", parameters={"anchors": [1] * 14}),
        "12 or 18 widths and heights in pixels, as in a .cfg",
    ),
    "a mean of bytes": (
        model(architecture="YOLOX", parameters={"imageMean": ["0.5", "0.5", "0.5"]}),
        "imageMean is for pixels of 0 to 1; set pixelRange: 0-1",
    ),
    "a deviation of 0": (
        model(architecture="UNet", parameters={"imageStd": ["0.5", "0.5", "0"]}),
        "not a decimal in the allowed range",
    ),
    "no classes": (model(parameters={"numClasses": 0}), "should be greater than or equal to 1"),
    "a crooked size": (model(parameters={"inputSize": [640, 641]}), "inputSize is [height, width] in multiples of 32"),
    "one side only": (model(parameters={"inputSize": [640]}), "should have at least 2 items"),
    "a huge size": (model(parameters={"inputSize": [8192, 8192]}), "should be less than or equal to 4096"),
    "calibration without data": ({"calibration": {"samples": 3}}, "spec.calibration.dataset: Required value"),
    "a local data set": ({"calibration": {"dataset": {"uri": "file:///calib.zip"}}}, "file:// is for local runs"),
    "too many samples": (
        {"calibration": {"dataset": {"uri": "s3://datasets/c.zip"}, "samples": 10_001}},
        "should be less than or equal to 10000",
    ),
    "an unknown deletion policy": ({"deletionPolicy": "Archive"}, 'supported values: "Retain", "Delete"'),
    "a negative TTL": ({"ttlSecondsAfterFinished": -1}, "should be greater than or equal to 0"),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_valid_export_is_accepted(api: Api, case: str) -> None:
    api.create(f"{EXPORTS}?dryRun=All&fieldValidation=Strict", export(**ACCEPTED[case]))


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_export_is_rejected_with_remedy(api: Api, case: str) -> None:
    spec, message = REFUSED[case]
    with pytest.raises(ApiError) as refusal:
        api.create(f"{EXPORTS}?dryRun=All", export(**spec))
    assert refusal.value.status == 422
    assert message in refusal.value.message


def test_name_too_long_for_label_is_rejected(api: Api) -> None:
    body = export()
    body["metadata"]["name"] = "x" * 64
    with pytest.raises(ApiError, match="use at most 63 characters"):
        api.create(EXPORTS, body)


def test_misspelt_field_is_rejected(api: Api) -> None:
    with pytest.raises(ApiError, match=r'unknown field "spec.calibrations"'):
        api.create(f"{EXPORTS}?fieldValidation=Strict", export(calibrations={}))


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("className", {"className": "other"}),
        ("model", {"model": {"parameters": {"variant": "s"}}}),
        ("supportLevel", {"supportLevel": "Extended"}),
        ("targets", targets("ONNX/FP32")),
        ("calibration", {"calibration": {"dataset": {"uri": "s3://datasets/c.zip"}}}),
    ],
)
def test_immutable_fields_cannot_be_changed(api: Api, field: str, change: dict[str, Any]) -> None:
    api.create(EXPORTS, export())
    with pytest.raises(ApiError, match=f"{field} is immutable; create another ModelExport"):
        api.patch(f"{EXPORTS}/shapes", {"spec": change})


def test_mutable_fields_can_be_changed(api: Api) -> None:
    api.create(EXPORTS, export())
    api.patch(f"{EXPORTS}/shapes", {"spec": {"suspend": True, "ttlSecondsAfterFinished": 5}})
    api.patch(f"{EXPORTS}/shapes", {"spec": {"suspend": False, "ttlSecondsAfterFinished": None}})
    api.patch(f"{EXPORTS}/shapes", {"spec": {"deletionPolicy": "Delete"}})
    api.patch(f"{EXPORTS}/shapes", {"spec": {"deletionPolicy": "Retain"}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"storage": {"endpoint": "minio:9000", "bucket": "exports"}}, "not an S3 endpoint, for example http://minio"),
        ({"storage": {"endpoint": "http://minio:9000/path", "bucket": "exports"}}, "not an S3 endpoint"),
        ({"storage": {"endpoint": "http://minio:9000", "bucket": "No"}}, "not the name of an S3 bucket"),
        ({"converter": {}}, "spec.converter.image: Required value"),
        (
            {"converter": {"image": "c", "imagePullPolicy": "Often"}},
            'supported values: "Always", "IfNotPresent", "Never"',
        ),
        ({"converter": {"image": "c", "imagePullSecrets": [{}]}}, "imagePullSecrets[0].name: Required value"),
        ({"jobs": {"deadlineSeconds": 0}}, "should be greater than or equal to 1"),
        ({"storage": {**STORAGE, "prefix": "team/{name}"}}, "a prefix allows no braces except {namespace}"),
        ({"sources": []}, "should have at least 1 items"),
        ({"sources": ["s3://checkpoints/{namespace}"]}, "ends with a slash"),
        ({"sources": ["s3://checkpoints/{name}/"]}, "not a folder; use a URI that ends with a slash"),
        ({"sources": ["http://models.example/"]}, "not a folder; use a URI that ends with a slash"),
        ({"sources": ["https://user@models.example/"]}, "not a folder; use a URI that ends with a slash"),
        ({"allowedNamespaces": []}, "should have at least 1 items"),
        ({"allowedNamespaces": ["Team"]}, "not the name of a namespace"),
        ({"allowedNamespaces": ["team", "team"]}, "Duplicate value"),
        ({"https": {"allowedNetworks": ["10.0.0.0"]}}, "not a network, for example 10.0.0.0/8"),
        ({"https": {"allowedNetworks": ["example.com/8"]}}, "not a network, for example 10.0.0.0/8"),
        ({"sources": ["s3://checkpoints/%2e%2e/"]}, "not a folder; use a URI that ends with a slash"),
        ({"jobs": {"retries": 11}}, "should be less than or equal to 10"),
        ({"jobs": {"parallelism": 0}}, "should be greater than or equal to 1"),
        ({"jobs": {"queueName": ""}}, "should be at least 1 chars long"),
        ({"jobs": {"queueName": "q" * 64}}, "may not be more than 63"),
        ({"jobs": {"queueName": "my queue"}}, "not a name; use lower-case letters, digits, - and ."),
        ({"jobs": {"queueName": "q", "workloadPriorityClassName": "p" * 64}}, "may not be more than 63"),
        ({"jobs": {"queueName": "q", "workloadPriorityClassName": "P"}}, "not a name; use lower-case letters"),
        ({"jobs": {"workloadPriorityClassName": "soon"}}, "set queueName"),
        (pools({}), "spec.nodePools[0].name: Required value"),
        (pools({"name": "GPU"}), "not a name; use lower-case letters, digits and -"),
        (pools({"name": "a"}, {"name": "a"}), 'Duplicate value: {"name":"a"}'),
        (
            pools({"name": "a", "formats": ["TFLite"]}),
            SUPPORTED_FORMATS,
        ),
        (pools({"name": "a", "formats": ["ONNX", "ONNX"]}), 'Duplicate value: "ONNX"'),
        (pools({"name": "a", "work": ["Training"]}), 'supported values: "Conversion", "Calibration"'),
        (pools({"name": "a", "provisioned": "Later"}), 'supported values: "Static", "OnDemand"'),
        (pools({"name": "a", "resources": {"gpus": 1}}), "or a device with its domain such as nvidia.com/gpu"),
        (pools({"name": "a", "resources": {"memory": "8 GB"}}), "not a Kubernetes quantity, for example 2"),
        (pools({"name": "a", "resources": {"cpu": -1}}), "not a Kubernetes quantity"),
        (pools({"name": "a", "tolerations": [{}]}), "key is missing; or use operator Exists"),
        (
            pools({"name": "a", "tolerations": [{"key": "k", "operator": "Exists", "value": "v"}]}),
            "operator Exists compares no value",
        ),
        (pools({"name": "a", "tolerations": [{"key": "k", "effect": "Evict"}]}), 'supported values: "NoSchedule"'),
    ],
)
def test_invalid_class_is_rejected(api: Api, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError) as refusal:
        api.create(f"{CLASSES}?dryRun=All", make_class("other", **change))
    assert message in refusal.value.message


def test_class_with_every_field_is_accepted(api: Api) -> None:
    pool = {
        "name": "gpu",
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}, {"operator": "Exists"}],
        "resources": {"nvidia.com/gpu": 1, "cpu": "500m", "memory": "8Gi", "ephemeral-storage": "20Gi"},
        "formats": ["LiteRT", "ONNX", "CoreML"],
        "precisions": ["FP32", "FP16", "INT8"],
        "work": ["Conversion", "Calibration"],
        "provisioned": "OnDemand",
    }
    jobs = {"parallelism": 8, "parallelismPerNamespace": 2, "queueName": "exports", "priorityClassName": "low"}
    jobs["workloadPriorityClassName"] = "soon"
    body = make_class("other", nodePools=[pool, {"name": "rest"}], jobs=jobs)
    made = api.create(f"{CLASSES}?dryRun=All&fieldValidation=Strict", body)
    assert made["spec"]["nodePools"][1] == {"name": "rest", "provisioned": "Static"}


@pytest.mark.parametrize(
    ("path", "made"),
    [
        ("examples/yolov8.yaml", "modelexport.modelexport.dev/shapes"),
        ("examples/exportclass-pools.yaml", "exportclass.modelexport.dev/pools"),
    ],
)
def test_examples_are_accepted(plane: ControlPlane, path: str, made: str) -> None:
    file = Path(__file__).parents[2] / path
    assert made in plane.kubectl("create", "--dry-run=server", f"--filename={file}")


def test_class_can_grant_each_namespace_its_folders(api: Api) -> None:
    sources = ["s3://checkpoints/{namespace}/", "s3://{namespace}-data/", "https://models.example:8443/{namespace}/a/"]
    body = make_class("other", storage={**STORAGE, "prefix": "teams/{namespace}"}, sources=sources)
    assert api.create(f"{CLASSES}?dryRun=All&fieldValidation=Strict", body)["spec"]["sources"] == sources


def test_rendered_chart_is_accepted(plane: ControlPlane) -> None:
    storage = {"endpoint": "https://s3.example", "bucket": "exports"}
    values = {
        "replicas": 2,
        "networkPolicy": {
            "apiServerCIDRs": ["192.0.2.10/32"],
            "jobs": {"namespaces": ["default"], "to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]},
        },
        "exportClass": {"create": True, "spec": {"storage": storage, "converter": {"image": "converter"}}},
        "credentials": {"create": True, "namespaces": ["default"], "accessKeyId": "a", "secretAccessKey": "b"},
    }
    said = plane.kubectl(
        "apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", "-", text=render(values)
    )
    assert len(said.splitlines()) == len(load(render(values)))


def test_kubectl_explains_every_field(plane: ControlPlane) -> None:
    for field in (
        "modelexport.spec.calibration.samples",
        "mx.status.targets.verification",
        "exportclass.spec.nodePools.resources",
    ):
        assert "<no description>" not in plane.kubectl("explain", field)
