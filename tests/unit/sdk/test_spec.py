"""Parsing of the API objects: accepted values, and the message of each refusal."""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from command_line import model_export
from modelexport.api.fields import InvalidSpec
from modelexport.api.node_pools import NodePool, Provisioned, TaintEffect, Toleration, TolerationOperator, Work
from modelexport.api.spec import Calibration, DataRef, Parameters, Sharing, parse_class, parse_export
from modelexport.matrix.support import ARCHITECTURES, Format, Precision, SupportLevel, Target

SHA256 = "0123456789abcdef" * 4


def full_export() -> dict[str, Any]:
    body = model_export(
        "shapes",
        "LiteRT/INT8",
        "ONNX/FP16",
        className="gpu",
        supportLevel="Extended",
        calibration={"dataset": {"uri": "s3://datasets/a.zip", "sha256": SHA256}, "samples": 7},
        suspend=True,
        ttlSecondsAfterFinished=60,
    )
    body["metadata"] |= {"namespace": "team", "uid": "u", "generation": 3}
    body["spec"]["model"]["parameters"] = {"variant": "n", "numClasses": 3, "inputSize": [320, 640]}
    return body


def full_class() -> dict[str, Any]:
    return {
        "apiVersion": "modelexport.dev/v1alpha1",
        "kind": "ExportClass",
        "metadata": {"name": "default", "annotations": {"modelexport.dev/is-default-class": "true"}},
        "spec": {
            "storage": {"endpoint": "http://minio:9000/", "bucket": "exports", "prefix": "/team/", "region": "eu"},
            "converter": {
                "image": "converter:1",
                "imagePullPolicy": "Always",
                "imagePullSecrets": [{"name": "registry"}, {"name": "mirror"}],
                "nodeSelector": {"a": "b"},
            },
            "nodePools": [
                {
                    "name": "gpu",
                    "nodeSelector": {"pool": "gpu"},
                    "tolerations": [
                        {"key": "gpu", "value": "yes", "effect": "NoSchedule"},
                        {"operator": "Exists"},
                    ],
                    "resources": {"nvidia.com/gpu": 1, "memory": "8Gi"},
                    "formats": ["ONNX"],
                    "precisions": ["INT8"],
                    "work": ["Calibration"],
                    "provisioned": "OnDemand",
                },
                {"name": "rest"},
            ],
            "jobs": {
                "deadlineSeconds": 60,
                "retries": 0,
                "parallelism": 8,
                "parallelismPerNamespace": 2,
                "queueName": "exports",
                "workloadPriorityClassName": "soon",
                "priorityClassName": "low",
            },
        },
    }


def changed(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy in which the field of a dotted path has another value."""
    copied = copy.deepcopy(body)
    *parents, last = path.split(".")
    holder = copied
    for key in parents:
        holder = holder[key]
    holder[last] = value
    return copied


def test_every_export_field_is_parsed() -> None:
    export = parse_export(full_export())
    assert (export.name, export.namespace, export.uid, export.generation) == ("shapes", "team", "u", 3)
    assert export.model.parameters == Parameters("n", 3, (320, 640))
    assert export.targets == (Target(Format.LITERT, Precision.INT8), Target(Format.ONNX, Precision.FP16))
    assert export.calibration == Calibration(DataRef("s3://datasets/a.zip", SHA256), 7)
    assert (export.class_name, export.support_level) == ("gpu", SupportLevel.EXTENDED)
    assert (export.suspend, export.ttl_seconds_after_finished) == (True, 60)


def test_absent_export_field_has_default() -> None:
    export = parse_export(model_export())
    assert (export.namespace, export.class_name, export.calibration, export.suspend) == ("default", None, None, False)
    assert (export.support_level, export.model.parameters) == (SupportLevel.STABLE, Parameters())


def test_every_class_field_is_parsed() -> None:
    found = parse_class(full_class())
    assert (found.storage.endpoint, found.storage.prefix, found.storage.region) == ("http://minio:9000", "team", "eu")
    assert (found.limits.deadline_seconds, found.limits.retries, found.is_default) == (60, 0, True)
    assert (found.image, found.image_pull_policy, found.node_selector) == ("converter:1", "Always", {"a": "b"})
    assert found.image_pull_secrets == ("registry", "mirror")
    secrets = {**full_class()["spec"]["storage"], "credentialsSecretName": "keys", "caSecretName": "ca"}
    storage = parse_class(changed(full_class(), "spec.storage", secrets)).storage
    assert (storage.credentials_secret, storage.ca_secret) == ("keys", "ca")
    assert found.sharing == Sharing(8, 2, "exports", "soon", "low")


def test_every_node_pool_field_is_parsed() -> None:
    gpu, rest = parse_class(full_class()).node_pools
    assert gpu == NodePool(
        name="gpu",
        node_selector={"pool": "gpu"},
        tolerations=(
            Toleration("gpu", value="yes", effect=TaintEffect.NO_SCHEDULE),
            Toleration(operator=TolerationOperator.EXISTS),
        ),
        resources={"nvidia.com/gpu": "1", "memory": "8Gi"},
        formats=(Format.ONNX,),
        precisions=(Precision.INT8,),
        work=(Work.CALIBRATION,),
        provisioned=Provisioned.ON_DEMAND,
    )
    assert rest == NodePool("rest")


def test_absent_class_field_has_default() -> None:
    bare = changed(changed(full_class(), "spec.jobs", None), "metadata.annotations", {"team": "vision"})
    bare = changed(bare, "spec.nodePools", None)
    found = parse_class(changed(bare, "spec.converter", {"image": "converter:1"}))
    assert (found.limits.deadline_seconds, found.limits.retries, found.is_default) == (3600, 3, False)
    assert (found.image_pull_policy, found.image_pull_secrets, found.node_selector) == ("IfNotPresent", (), {})
    assert (found.node_pools, found.sharing) == ((), Sharing())


REFUSED_POOLS = [
    ("gpu", ": 'gpu' is not a node pool, for example {name: gpu, "),
    ({}, ".name: is missing"),
    *(
        ({"name": "a", **fields}, f".{message}")
        for fields, message in (
            ({"nodeSelector": {"gpu": True}}, "nodeSelector.gpu: True is not a string; quote the value"),
            (
                {"formats": ["TFLite"]},
                "formats[0]: 'TFLite' is not known; use one of LiteRT, ONNX, CoreML, PyTorch, TensorFlow, ExecuTorch",
            ),
            ({"work": ["Training"]}, "work[0]: 'Training' is not known; use one of Conversion, Calibration"),
            ({"provisioned": "Later"}, "provisioned: 'Later' is not known; use one of Static, OnDemand"),
            ({"resources": {"gpus": 1}}, "resources.gpus: is not known; use one of cpu, memory, ephemeral-storage"),
            ({"resources": {"memory": "8 GB"}}, "resources.memory: '8 GB' is not a Kubernetes quantity; use"),
            ({"resources": {"a/gpu": "500m"}}, "resources.a/gpu: '500m' is not a whole number of devices"),
            ({"tolerations": ["gpu"]}, "tolerations[0]: 'gpu' is not a toleration"),
            ({"tolerations": [{}]}, "tolerations[0].key: is missing; only operator Exists tolerates every key"),
            (
                {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
                "tolerations[0].value: operator Exists compares no value; remove it",
            ),
            ({"tolerations": [{"key": "a", "effect": "No"}]}, "tolerations[0].effect: 'No' is not known"),
        )
    ),
]
REFUSED: list[tuple[str, Any, str]] = [
    ("apiVersion", "modelexport.dev/v2", "apiVersion, kind: found modelexport.dev/v2 ModelExport"),
    ("metadata.name", "../../etc", "metadata.name: '../../etc' is not a name; use lower-case"),
    ("metadata.name", "A", "metadata.name: 'A' is not a name"),
    ("metadata.name", "a-", "metadata.name: 'a-' is not a name"),
    ("metadata.name", "shapes\n", "is not a name"),
    ("metadata.name", "a" * 254, "is not a name"),
    ("metadata.namespace", "a/b", "metadata.namespace: 'a/b' is not a name"),
    ("metadata.uid", 7, "metadata.uid: 7 is not a string"),
    ("metadata.generation", "3", "metadata.generation: '3' is not a whole number from 0 to"),
    ("spec.targets", "ONNX", "spec.targets: add at least one target"),
    ("spec.model.architecture", "VGG", "spec.model.architecture: 'VGG' is not supported; use one of YOLOv8, "),
    ("spec.model.checkpoint", None, "spec.model.checkpoint: is missing"),
    ("spec.model.checkpoint.uri", "s3://b/a.pt", "spec.model.checkpoint.uri: 's3://b/a.pt' is not a supported URI"),
    ("spec.model.checkpoint.uri", "http://host/a.pt", "is not a supported URI"),
    ("spec.model.checkpoint.uri", "file://host/a.pt", "is not a supported URI"),
    ("spec.model.checkpoint.uri", "s3://bucket/a\n", "is not a supported URI"),
    ("spec.model.checkpoint.uri", "s3://bucket/" + "a" * 1013, " has 1025 characters, the limit is 1024; use a"),
    ("spec.model.checkpoint.uri", "/data/best.pt", "or https://host/path; in a local run use file:///data/best.pt"),
    ("spec.calibration.dataset.uri", "../calib/", "'../calib/' is not a supported URI; use s3://bucket/key or"),
    ("spec.calibration.dataset.uri", "../calib/", "; in a local run use file:// with an absolute path"),
    ("spec.model.checkpoint.uri", "s3://bucket/a/", "is a folder; use the URI of the checkpoint file"),
    ("spec.model.checkpoint.uri", "https://host/a", "spec.model.checkpoint.sha256: an https:// URI needs the SHA-256"),
    ("spec.model.checkpoint.sha256", "ABC", "spec.model.checkpoint.sha256: 'ABC' is not a SHA-256; use 64"),
    ("spec.model.checkpoint.sha256", SHA256 + "0", "is not a SHA-256"),
    ("spec.model.checkpoint.sha256", int("1" * 64), "a number of more than 40 digits is not a SHA-256"),
    ("spec.model.checkpoint.sha256", SHA256 + "\n", "is not a SHA-256"),
    ("spec.model.parameters.variant", "", "'' is not a variant of YOLOv8"),
    (
        "spec.model.parameters.variant",
        "q",
        "spec.model.parameters.variant: 'q' is not a variant of YOLOv8; use one of n, s",
    ),
    ("spec.model.parameters.numClasses", 0, "spec.model.parameters.numClasses: 0 is not a whole number from 1 to"),
    ("spec.model.parameters.numClasses", True, "True is not a whole number"),
    ("spec.model.parameters.inputSize", [640], "spec.model.parameters.inputSize: [640] is not [height, width]"),
    ("spec.model.parameters.inputSize", [640, 100], "[640, 100] must be multiples of 32 between 32 and 4096"),
    ("spec.model.parameters.inputSize", [640, 4128], "[640, 4128] must be multiples of 32 between 32 and 4096"),
    ("spec.model.parameters.inputSize", [0, 640], "[0, 640] must be multiples of 32 between 32 and 4096"),
    ("spec.model.parameters.numClasses", 100_001, "100001 is not a whole number from 1 to 100000"),
    ("spec.supportLevel", "All", "spec.supportLevel: 'All' is not known; use one of Stable, Extended"),
    ("spec.targets", [], "spec.targets: add at least one target, for example {format: ONNX, precision: FP16}"),
    ("spec.targets", ["ONNX"], "spec.targets[0]: 'ONNX' is not a target"),
    ("spec.targets", [{"format": "ONNX", "precision": "INT4"}], "spec.targets[0].precision: 'INT4' is not known"),
    ("spec.targets", [{"format": "ONNX", "precision": "FP16"}] * 2, "spec.targets[1]: ONNX/FP16 is listed twice"),
    ("spec.calibration.samples", 0, "spec.calibration.samples: 0 is not a whole number from 1 to 10000"),
    ("spec.calibration.dataset.uri", "s3://datasets/a/", "spec.calibration.dataset.sha256: a folder has no SHA-256"),
    ("spec.suspend", "no", "spec.suspend: 'no' is neither true nor false"),
    ("spec.ttlSecondsAfterFinished", -1, "spec.ttlSecondsAfterFinished: -1 is not a whole number from 0"),
]


@pytest.mark.parametrize(("path", "value", "message"), REFUSED)
def test_invalid_export_value_is_refused_by_field(path: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_export(changed(full_export(), path, value))
    assert message in str(caught.value)


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> None:
    """An architecture of one variant whose files contain NMS, with frozen layers."""
    row = replace(ARCHITECTURES["YOLOv8"], has_nms=True, has_frozen_norm=True, variants=())
    monkeypatch.setattr("modelexport.api.spec.ARCHITECTURES", {"YOLOv8": row})


def with_parameters(**parameters: Any) -> Parameters:
    return parse_export(changed(full_export(), "spec.model.parameters", parameters)).model.parameters


@pytest.mark.usefixtures("detector")
@pytest.mark.parametrize(("text", "number"), [("0", 0.0), ("0.05", 0.05), ("1", 1.0), ("1.0", 1.0)])
def test_thresholds_and_epsilons_are_decimal_strings(text: str, number: float) -> None:
    assert with_parameters(scoreThreshold=text, nmsThreshold=text, normEpsilon=text) == Parameters(
        score_threshold=number, nms_threshold=number, norm_epsilon=number
    )


@pytest.mark.usefixtures("detector")
@pytest.mark.parametrize("value", [0.5, 1, True, "", "1.5", "-0.1", ".5", "1.", "5e-1", "0.5\n", "nan"])
@pytest.mark.parametrize("parameter", ["scoreThreshold", "nmsThreshold", "normEpsilon"])
def test_value_outside_0_to_1_is_refused_with_example(parameter: str, value: object) -> None:
    with pytest.raises(InvalidSpec) as caught:
        with_parameters(**{parameter: value})
    message = f'{value!r} is not a decimal from 0 to 1; write it as text, for example "0.5"'
    assert str(caught.value) == f"spec.model.parameters.{parameter}: {message}"


def stated(architecture: str, **parameters: Any) -> Parameters:
    model = {"architecture": architecture, "checkpoint": {"uri": "s3://checkpoints/a.pt"}, "parameters": parameters}
    return parse_export(changed(full_export(), "spec.model", model)).model.parameters


STATED = [
    ("YOLOv8", {"activation": "ReLU"}, Parameters(activation="ReLU")),
    ("YOLOX", {"colorOrder": "RGB", "pixelRange": "0-1"}, Parameters(color_order="RGB", pixel_range="0-1")),
    (
        "YOLOX",
        {"pixelRange": "0-1", "imageMean": ["0", "0.5", "1"], "imageStd": ["0.25", "1", "1.0"]},
        Parameters(pixel_range="0-1", image_mean=(0.0, 0.5, 1.0), image_std=(0.25, 1.0, 1.0)),
    ),
    ("YOLOv4", {"anchors": [*range(1, 13)]}, Parameters(anchors=tuple(range(1, 13)))),
    ("UNet", {"alignCorners": False}, Parameters(align_corners=False)),
    ("MobileNet", {"detectionsPerImage": 1}, Parameters(detections_per_image=1)),
    (
        "FasterRCNN",
        {"anchorSizes": [[8, 16], [32]], "aspectRatios": ["0.5", "1", "12.25"]},
        Parameters(anchor_sizes=((8, 16), (32,)), aspect_ratios=(0.5, 1.0, 12.25)),
    ),
]


@pytest.mark.parametrize(("architecture", "given", "expected"), STATED)
def test_parameters_absent_from_weights_can_be_given(
    architecture: str, given: dict[str, Any], expected: Parameters
) -> None:
    assert stated(architecture, **given) == expected


MISSTATED = [
    ("YOLOv8", "activation", "Swish", "'Swish' is not known; use one of SiLU, ReLU, LeakyReLU, Hardswish, Mish"),
    ("YOLOX", "activation", "Mish", "'Mish' is not known; use one of SiLU, ReLU, LeakyReLU"),
    ("YOLOX", "activation", ["ReLU"], "['ReLU'] is not known"),
    ("YOLOX", "colorOrder", "rgb", "'rgb' is not known; use one of BGR, RGB"),
    ("YOLOX", "pixelRange", "0-100", "'0-100' is not known; use one of 0-255, 0-1"),
    ("YOLOX", "imageMean", ["0", "0", "0"], "is for pixels of 0 to 1; set pixelRange: 0-1"),
    ("YOLOX", "imageStd", ["1", "1", "1"], "is for pixels of 0 to 1; set pixelRange: 0-1"),
    ("UNet", "imageMean", [0.5, 0.5, 0.5], 'is not a list of 1 to 4 decimals as text, for example "0.485"'),
    ("UNet", "imageMean", ["0.5"] * 5, "is not a list of 1 to 4 decimals as text"),
    ("UNet", "imageMean", ["0.5", "0.5", "123.7"], "is not a list of 1 to 4 decimals as text"),
    ("UNet", "imageMean", "0.5", "'0.5' is not a list of 1 to 4 decimals as text"),
    ("UNet", "imageStd", ["0.5", "0.5", "0.0"], 'is not a list of 1 to 4 decimals as text, for example "0.229"'),
    ("UNet", "imageStd", ["0.5", "0.5", "nan"], "is not a list of 1 to 4 decimals as text"),
    ("UNet", "alignCorners", "no", "'no' is neither true nor false"),
    ("FCN", "alignCorners", True, "is not a parameter of FCN; remove it"),
    ("MaskRCNN", "detectionsPerImage", 0, "0 is not a whole number from 1 to 1000"),
    ("MaskRCNN", "detectionsPerImage", True, "True is not a whole number from 1 to 1000"),
    ("MaskRCNN", "anchorSizes", [32, 64], "is not a list of sides in pixels for each level, for example [[32], [64]]"),
    ("MaskRCNN", "anchorSizes", [[32.5]], "is not a list of sides in pixels for each level"),
    ("MaskRCNN", "anchorSizes", [[0]], "is not a list of sides in pixels for each level"),
    ("MaskRCNN", "anchorSizes", [[]], "is not a list of sides in pixels for each level"),
    ("MaskRCNN", "anchorSizes", [[1]] * 9, "is not a list of sides in pixels for each level"),
    ("MaskRCNN", "aspectRatios", ["0"], 'is not a list of 1 to 8 decimals as text, for example "0.5"'),
    ("MaskRCNN", "aspectRatios", [], "[] is not a list of 1 to 8 decimals as text"),
    ("MaskRCNN", "aspectRatios", [["1"]], "is not a list of 1 to 8 decimals as text"),
    ("MobileNet", "anchorSizes", [[32]], "is not a parameter of MobileNet; remove it"),
    ("YOLOv4", "anchors", [1] * 14, "is not a list of 12 or 18 widths and heights in pixels, as in a .cfg"),
    ("YOLOv4", "anchors", ["1"] * 12, "is not a list of 12 or 18 widths and heights in pixels, as in a .cfg"),
    ("YOLOv8", "anchors", [1] * 18, "is not a parameter of YOLOv8; remove it"),
    ("Custom", "activation", "ReLU", "is not a parameter of Custom; remove it"),
]


@pytest.mark.parametrize(("architecture", "name", "value", "message"), MISSTATED)
def test_invalid_parameter_is_refused_by_field(architecture: str, name: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        stated(architecture, **{name: value})
    assert str(caught.value).startswith(f"spec.model.parameters.{name}: ")
    assert message in str(caught.value)


@pytest.mark.usefixtures("detector")
def test_variant_is_refused_for_architecture_without_variants() -> None:
    with pytest.raises(InvalidSpec, match=r"^spec.model.parameters.variant: is not a parameter of YOLOv8; remove it$"):
        with_parameters(variant="n")


@pytest.mark.parametrize("parameter", ["scoreThreshold", "nmsThreshold", "normEpsilon"])
def test_unused_threshold_or_epsilon_is_refused(parameter: str) -> None:
    with pytest.raises(InvalidSpec, match=rf"^spec.model.parameters.{parameter}: is not a parameter of YOLOv8; remove"):
        with_parameters(**{parameter: "0.5"})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "a" * 253),
        ("metadata.name", "a"),
        ("spec.model.checkpoint.uri", "s3://bucket/" + "a" * 1012),
        ("spec.model.checkpoint.uri", "file:///a.pt"),
        ("spec.model.parameters.inputSize", [32, 4096]),
        ("spec.model.parameters.numClasses", 1),
        ("spec.model.parameters.numClasses", 100_000),
        ("spec.calibration.samples", 1),
        ("spec.calibration.samples", 10_000),
        ("spec.ttlSecondsAfterFinished", 0),
    ],
)
def test_boundary_value_is_accepted(path: str, value: Any) -> None:
    parse_export(changed(full_export(), path, value))


def test_sample_count_defaults_to_64() -> None:
    found = parse_export(changed(full_export(), "spec.calibration.samples", None)).calibration
    assert found is not None
    assert found.samples == 64


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("spec.storage.endpoint", "http://minio:9000/path", "is not an S3 endpoint"),
        ("spec.storage.endpoint", "http://minio:9000\n", "is not an S3 endpoint"),
        ("spec.jobs.deadlineSeconds", 604_801, "604801 is not a whole number from 1 to 604800"),
        ("spec.storage.endpoint", "minio:9000", "spec.storage.endpoint: 'minio:9000' is not an S3 endpoint"),
        ("spec.storage.bucket", "", "spec.storage.bucket: '' is not a string"),
        ("spec.storage.bucket", "a/../b", "spec.storage.bucket: 'a/../b' is not the name of an S3 bucket"),
        ("spec.storage.bucket", "a\u200bb", "is not the name of an S3 bucket"),
        ("spec.converter.imagePullPolicy", "Never!", "imagePullPolicy: 'Never!' is not known; use one of Always, If"),
        ("spec.converter.nodeSelector", ["gpu"], "spec.converter.nodeSelector: ['gpu'] is not an object"),
        ("spec.converter.nodeSelector", {"gpu": True}, "nodeSelector.gpu: True is not a string; quote the value"),
        ("spec.converter.image", None, "spec.converter.image: is missing"),
        ("spec.converter.imagePullSecrets", "registry", "imagePullSecrets: 'registry' is not a list"),
        ("spec.converter.imagePullSecrets", ["registry"], "imagePullSecrets[0]: 'registry' is not a reference to a"),
        ("spec.converter.imagePullSecrets", [{}], "spec.converter.imagePullSecrets[0].name: is missing"),
        ("spec.jobs.retries", 11, "spec.jobs.retries: 11 is not a whole number from 0 to 10"),
        ("spec.jobs", [], "spec.jobs: [] is not an object"),
        ("spec.jobs.parallelism", 0, "spec.jobs.parallelism: 0 is not a whole number from 1 to 100000"),
        ("spec.jobs.queueName", 3, "spec.jobs.queueName: 3 is not a string"),
        (
            "spec.jobs.queueName",
            None,
            "spec.jobs.workloadPriorityClassName: a WorkloadPriorityClass needs a Kueue queue",
        ),
        ("spec.nodePools", "gpu", "spec.nodePools: 'gpu' is not a list"),
        ("spec.nodePools", [{"name": "a"}, {"name": "a"}], "spec.nodePools[1].name: 'a' is the name of two pools"),
        *(("spec.nodePools", [pool], f"spec.nodePools[0]{message}") for pool, message in REFUSED_POOLS),
    ],
)
def test_invalid_class_value_is_refused_by_field(path: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_class(changed(full_class(), path, value))
    assert message in str(caught.value)


def paths_of(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inner:
        yield from paths_of(value, (*path, key))


@pytest.mark.parametrize("parse", [parse_export, parse_class])
def test_wrong_type_anywhere_raises_only_invalid_spec(parse: Any) -> None:
    body = full_export() if parse is parse_export else full_class()
    values: list[Any] = [None, 1, -1, 1.5, "", "x", [], [1], [[]], {}, {"a": 1}, {1: 2}, True]
    for path in paths_of(body):
        for value in values:
            holder = {"body": copy.deepcopy(body)}
            target: Any = holder
            for key in ("body", *path)[:-1]:
                target = target[key]
            target[("body", *path)[-1]] = value
            with contextlib.suppress(InvalidSpec):
                parse(holder["body"])


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize(
    "value", [nested(100_000), 10**5000, [{}] * 100_000, "\x1b" * 100_000], ids=["deep", "digits", "items", "escapes"]
)
@pytest.mark.parametrize("parse", [parse_export, parse_class])
def test_no_value_is_too_large_to_be_refused(parse: Any, value: Any) -> None:
    body = full_export() if parse is parse_export else full_class()
    for *parents, last in [*paths_of(body)][1:]:
        copied = copy.deepcopy(body)
        holder: Any = copied
        for key in parents:
            holder = holder[key]
        holder[last] = value
        with contextlib.suppress(InvalidSpec):
            parse(copied)


def test_class_keeps_folders_and_export_keeps_policy() -> None:
    body = changed(full_class(), "spec.sources", ["s3://checkpoints/{namespace}/", "https://models.example/"])
    found = parse_class(changed(body, "spec.storage.prefix", "/teams/{namespace}/"))
    assert found.sources == ("s3://checkpoints/{namespace}/", "https://models.example/")
    assert found.storage.prefix == "teams/{namespace}"
    assert parse_class(full_class()).sources == ()
    assert parse_export(full_export()).deletion_policy == "Retain"
    assert parse_export(changed(full_export(), "spec.deletionPolicy", "Delete")).deletion_policy == "Delete"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("spec.storage.prefix", "team/{name}", "no braces except {namespace}"),
        ("spec.storage.prefix", "a/../b", "write it without '..'"),
        ("spec.storage.prefix", "a/%2e%2e", "write it without '..'"),
        ("spec.sources", [], "is not a list of 1 to 32 folders"),
        ("spec.sources", "s3://a/", "is not a list of 1 to 32 folders"),
        ("spec.sources", ["s3://checkpoints/{namespace}"], "ends with a slash"),
        ("spec.sources", ["s3://checkpoints/../other/"], "ends with a slash"),
        ("spec.sources", ["s3://checkpoints//"], "ends with a slash"),
        ("spec.sources", ["file:///data/"], "is not a folder; use a URI that ends with a slash"),
        ("spec.sources", [7], "is not a folder"),
    ],
)
def test_invalid_folder_is_refused(path: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        parse_class(changed(full_class(), path, value))
    assert words in str(refusal.value)
