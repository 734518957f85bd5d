"""Options of targets: what is refused, what identifies a file, and how they are written."""

from collections.abc import Mapping
from typing import Any

import pytest

from modelexport.api.body import export_body
from modelexport.api.fields import InvalidSpec
from modelexport.api.request import ConversionRequest
from modelexport.api.spec import ModelExport, parse_export
from modelexport.building import read_targets
from modelexport.crds.crd import build_export_crd
from modelexport.crds.strict import read_export
from modelexport.errors import BadInput
from modelexport.matrix.options import OPTIONS, Options
from modelexport.matrix.support import ARCHITECTURES, Format, Target
from modelexport.planning.plan import plan_export

PLAIN = {"format": "ONNX", "precision": "FP32"}
SERVER = {**PLAIN, "name": "server", "options": {"dynamicBatch": True, "opset": 18}}


def body(*targets: Mapping[str, Any], architecture: str = "YOLOv8") -> dict[str, Any]:
    model = {"architecture": architecture, "checkpoint": {"uri": "s3://checkpoints/a.pt"}}
    return {
        "apiVersion": "modelexport.dev/v1alpha1",
        "kind": "ModelExport",
        "metadata": {"name": "shapes"},
        "spec": {"model": model, "supportLevel": "Extended", "targets": list(targets)},
    }


def parse(*targets: Mapping[str, Any], architecture: str = "YOLOv8") -> ModelExport:
    return parse_export(body(*targets, architecture=architecture))


def requests(*targets: Mapping[str, Any]) -> tuple[ConversionRequest, ...]:
    return plan_export(parse(*targets), "s3://exports")


def test_named_target_has_its_own_folder_and_file() -> None:
    plain, server = requests(PLAIN, SERVER)
    assert plain.artifact_name == "shapes-fp32.onnx"
    assert plain.output == f"s3://exports/default/shapes/onnx-fp32-{plain.spec_hash}/"
    assert server.artifact_name == "shapes-fp32-server.onnx"
    assert server.output == f"s3://exports/default/shapes/onnx-fp32-server-{server.spec_hash}/"
    assert str(server.target) == "ONNX/FP32/server"


def test_target_without_options_keeps_its_hash() -> None:
    (plain,) = requests(PLAIN)
    assert plain.spec_hash == "a39cde409d"
    assert "options" not in plain.to_json()
    assert '"target": {"format": "ONNX", "precision": "FP32"}' in plain.to_json()
    assert requests({**PLAIN, "options": {"dynamicBatch": False}}) == (plain,)


def test_options_change_the_hash() -> None:
    hashes = {
        requests({**PLAIN, "options": options})[0].spec_hash
        for options in ({}, {"opset": 18}, {"opset": 17}, {"layout": "NHWC"}, {"dynamicBatch": True})
    }
    assert len(hashes) == 5


def test_request_and_body_keep_options() -> None:
    export = parse(PLAIN, SERVER)
    assert export_body(export)["spec"]["targets"] == [PLAIN, SERVER]
    request = plan_export(export, "s3://exports")[1]
    assert request.options == Options(dynamic_batch=True, opset=18)
    assert ConversionRequest.from_json(request.to_json()) == request


REFUSED: dict[str, tuple[Mapping[str, Any], str]] = {
    "another format": (
        {"format": "LiteRT", "precision": "FP32", "options": {"opset": 17}},
        "spec.targets[0].options.opset: is an option of ONNX only; remove it, or choose that format",
    ),
    "an unknown option": (
        {"format": "PyTorch", "precision": "FP32", "options": {"size": 1}},
        "spec.targets[0].options.size: is not known; use one of batch, preprocessing",
    ),
    "a value": (
        {**PLAIN, "options": {"layout": "NWHC"}},
        "spec.targets[0].options.layout: 'NWHC' is not known; use one of NCHW, NHWC",
    ),
    "an opset": ({**PLAIN, "options": {"opset": 12}}, "opset: 12 is not a whole number from 13 to 21"),
    "a flag": ({**PLAIN, "options": {"dynamicBatch": "yes"}}, "dynamicBatch: 'yes' is neither true nor false"),
    "two batches": ({**PLAIN, "options": {"batch": 2, "dynamicBatch": True}}, "exclude each other; remove one"),
    "boxes of a batch": ({**PLAIN, "options": {"nms": True, "batch": 2}}, "batch and nms exclude each other"),
    "several images of Vision": (
        {"format": "CoreML", "precision": "FP16", "options": {"batch": 2, "input": "Image"}},
        "batch and input Image exclude each other: Core ML takes images one at a time; remove one",
    ),
    "labels of several images": (
        {"format": "LiteRT", "precision": "FP32", "options": {"batch": 2, "labels": True, "layout": "NHWC"}},
        "batch and labels exclude each other: libraries that read labels give one image; remove one",
    ),
    "normalised images of Vision": (
        {"format": "CoreML", "precision": "FP16", "options": {"input": "Image", "preprocessing": "Outside"}},
        "input Image needs preprocessing Inside: Vision gives pixels; remove one",
    ),
    "bytes from outside": (
        {**PLAIN, "options": {"inputType": "uint8", "preprocessing": "Outside"}},
        "inputType uint8 needs preprocessing Inside",
    ),
    "8 bits before iOS16": (
        {"format": "CoreML", "precision": "INT8", "options": {"deploymentTarget": "iOS15"}},
        "options.deploymentTarget: deploymentTarget iOS15 and INT8 exclude each other: 8-bit weights need iOS16; "
        "choose iOS16, or FP16",
    ),
    "quantised values of FP16": (
        {"format": "LiteRT", "precision": "FP16", "options": {"inputType": "int8"}},
        "spec.targets[0].options.inputType: inputType int8 needs LiteRT/INT8 and spec.calibration",
    ),
    "quantised values without images": (
        {"format": "LiteRT", "precision": "INT8", "options": {"inputType": "int8"}},
        "inputType int8 needs LiteRT/INT8 and spec.calibration, whose images give the scale",
    ),
    "quantised pixels": (
        {"format": "LiteRT", "precision": "INT8", "options": {"inputType": "int8", "preprocessing": "Inside"}},
        "inputType int8 needs preprocessing Outside",
    ),
    "labels of channels first": (
        {"format": "LiteRT", "precision": "FP32", "options": {"labels": True}},
        "spec.targets[0].options.labels: labels needs layout NHWC",
    ),
    "a name": ({**PLAIN, "name": "A b"}, "spec.targets[0].name: 'A b' is not a name; use at most 20 lower-case"),
}


@pytest.mark.parametrize(("target", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_options_are_refused_with_a_way_out(target: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse(target)
    assert message in str(caught.value)


@pytest.mark.parametrize(("precision", "system"), [("FP16", "iOS15"), ("INT8", "iOS16"), ("INT8", "iOS18")])
def test_systems_that_can_run_a_precision_are_accepted(precision: str, system: str) -> None:
    target = {"format": "CoreML", "precision": precision, "options": {"deploymentTarget": system}}
    assert export_body(parse(target))["spec"]["targets"] == [target]


@pytest.mark.parametrize("architecture", ["FasterRCNN", "MobileNet", "Custom"])
def test_networks_of_one_image_refuse_batches(architecture: str) -> None:
    with pytest.raises(InvalidSpec, match=f"dynamicBatch: true is not possible for {architecture}; remove it"):
        parse({**PLAIN, "options": {"dynamicBatch": True}}, architecture=architecture)
    for fmt in Format:
        target = {"format": fmt, "precision": "FP32", "options": {"batch": 4}}
        assert parse(target).options
        with pytest.raises(InvalidSpec, match=f"batch: 4 is not possible for {architecture}; remove it"):
            parse(target, architecture=architecture)


@pytest.mark.parametrize("architecture", ["YOLOv8-CLS", "YOLOv8-SEG", "UNet", "FasterRCNN", "Custom"])
def test_only_detectors_with_anchors_have_nms(architecture: str) -> None:
    for fmt in ("ONNX", "CoreML"):
        target = {**PLAIN, "format": fmt, "options": {"nms": True}}
        assert parse(target, architecture="YOLOX").options
        with pytest.raises(InvalidSpec, match=f"nms: true is not possible for {architecture}; remove it"):
            parse(target, architecture=architecture)


@pytest.mark.parametrize("architecture", ["YOLOv8", "YOLOv8-SEG", "UNet", "FasterRCNN", "Custom"])
def test_only_networks_that_classify_are_classifiers(architecture: str) -> None:
    target = {"format": "CoreML", "precision": "FP16", "options": {"classifier": True}}
    assert parse(target, architecture="YOLOv8-CLS").options
    with pytest.raises(InvalidSpec, match=f"classifier: true is not possible for {architecture}; remove it"):
        parse(target, architecture=architecture)


@pytest.mark.parametrize(
    "architecture", [name for name, row in ARCHITECTURES.items() if not row.has_nms and name != "Custom"]
)
def test_networks_that_leave_boxes_take_any_size(architecture: str) -> None:
    target = {**PLAIN, "options": {"dynamicSize": True, "dynamicBatch": True, "layout": "NHWC", "inputType": "uint8"}}
    assert parse(target, architecture=architecture).options


def test_detector_of_any_size_suppresses_boxes_too() -> None:
    assert parse({**PLAIN, "options": {"dynamicSize": True, "nms": True}}).options


@pytest.mark.parametrize("architecture", ["FasterRCNN", "RetinaResNet", "MobileNet", "MaskRCNN", "Custom"])
def test_networks_of_one_size_refuse_dynamic_size(architecture: str) -> None:
    target = {**PLAIN, "options": {"dynamicSize": True}}
    with pytest.raises(InvalidSpec, match=f"dynamicSize: true is not possible for {architecture}; remove it"):
        parse(target, architecture=architecture)


def test_core_ml_classifies_one_image() -> None:
    target = {"format": "CoreML", "precision": "FP16", "options": {"classifier": True, "batch": 2}}
    with pytest.raises(InvalidSpec, match=r"batch and classifier exclude each other: .* one image; remove one"):
        parse(target, architecture="YOLOv8-CLS")


@pytest.mark.parametrize(("fmt", "accepted"), [("LiteRT", True), ("ONNX", False)])
def test_calibrated_litert_alone_takes_quantised_values(fmt: str, accepted: bool) -> None:
    export = body({"format": fmt, "precision": "INT8", "options": {"inputType": "int8"}})
    export["spec"]["calibration"] = {"dataset": {"uri": "s3://datasets/shapes.zip"}}
    if accepted:
        assert parse_export(export).options
    else:
        with pytest.raises(InvalidSpec, match="inputType int8 needs LiteRT/INT8"):
            parse_export(export)


def test_labels_need_classes_with_known_names() -> None:
    target = {"format": "LiteRT", "precision": "FP32", "options": {"labels": True, "layout": "NHWC"}}
    assert parse(target).options
    with pytest.raises(InvalidSpec, match="labels: true is not possible for Custom; remove it"):
        parse(target, architecture="Custom")


@pytest.mark.parametrize("fmt", ["ONNX", "LiteRT", "CoreML"])
def test_nms_of_oriented_boxes_is_refused_with_reason(fmt: str) -> None:
    target = {**PLAIN, "format": fmt, "options": {"nms": True}}
    message = "nms: true is not possible for YOLOv8-OBB, as ONNX, LiteRT and Core ML suppress upright boxes only"
    with pytest.raises(InvalidSpec, match=message):
        parse(target, architecture="YOLOv8-OBB")


@pytest.mark.parametrize(("fmt", "accepted"), [("LiteRT", True), ("ONNX", True), ("TensorFlow", False)])
def test_nms_is_for_formats_that_run_it(fmt: str, accepted: bool) -> None:
    target = {"format": fmt, "precision": "FP32", "options": {"nms": True}}
    if accepted:
        assert parse(target).options
    else:
        with pytest.raises(InvalidSpec, match="nms: is an option of ONNX"):
            parse(target)


def test_equal_targets_need_names() -> None:
    with pytest.raises(InvalidSpec, match=r"ONNX/FP32 is listed twice; give one of them another name"):
        parse(PLAIN, {**PLAIN, "options": {"opset": 18}})


def test_extended_target_with_a_name_stays_extended() -> None:
    named = body({"format": "CoreML", "precision": "FP32", "name": "vision"}, architecture="YOLOX")
    del named["spec"]["supportLevel"]
    with pytest.raises(InvalidSpec, match=r"set spec\.supportLevel: Extended"):
        plan_export(parse_export(named), "s3://exports")


def test_options_of_some_formats_have_rules_in_the_schema() -> None:
    (version,) = build_export_crd()["spec"]["versions"]
    items = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["targets"]["items"]
    assert list(items["properties"]["options"]["properties"]) == list(OPTIONS)
    texts = [rule["rule"] for rule in items["x-kubernetes-validations"]]
    rare = [name for name, option in OPTIONS.items() if not option.in_all_formats]
    assert all(any(f"self.options.{name})" in text for text in texts) for name in rare)


def test_options_that_do_not_exist_are_refused_in_files() -> None:
    with pytest.raises(InvalidSpec, match="did you mean layout"):
        read_export(body({**PLAIN, "options": {"layuot": "NHWC"}}))


def test_command_line_names_targets_and_options() -> None:
    found = read_targets(["onnx/fp32/server:dynamicbatch=true,opset=18", "LiteRT/INT8:layout=NHWC"])
    assert {str(target): str(options) for target, options in found.items()} == {
        "ONNX/FP32/server": "dynamicBatch=true,opset=18",
        "LiteRT/INT8": "layout=NHWC",
    }
    assert list(read_targets("ONNX:opset=13")) == [t for t in read_targets("ONNX") if t.format is Format.ONNX]


def test_format_alone_leaves_out_precisions_that_need_images() -> None:
    assert [str(target) for target in read_targets("onnx")] == ["ONNX/FP32", "ONNX/FP16", "ONNX/INT8"]
    assert [str(target) for target in read_targets("w8a16")] == ["LiteRT/W8A16", "ONNX/W8A16"]
    assert [str(target) for target in read_targets("W8A16/LiteRT")] == ["LiteRT/W8A16"]


WORDS = {
    "ONNX/FP32:opset": "'opset' is not an option; write opset=VALUE",
    "ONNX/FP32:opset=99": "opset: 99 is not a whole number from 13 to 21",
    "ONNX/FP32:size=1": "size: is not known; use one of batch, dynamicBatch, dynamicSize, opset",
    "ONNX/FP32/a/b": "is not a target",
    "camera": "is not a target",
    "ONNX/INT4": "is not a target",
    "ONNX/camera/FP32": "is not a target",
}


@pytest.mark.parametrize(("word", "message"), WORDS.items(), ids=WORDS)
def test_wrong_words_are_refused(word: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_targets(word)
    assert message in str(caught.value)


def test_one_target_cannot_have_two_sets_of_options() -> None:
    with pytest.raises(BadInput, match="ONNX/FP32 has two sets of options; give one a name"):
        read_targets(["ONNX/FP32:opset=13", "ONNX/FP32"])


def test_targets_sort_and_compare_with_their_names() -> None:
    server = Target(Format.ONNX, parse(PLAIN).targets[0].precision, "server")
    assert server.unnamed == parse(PLAIN).targets[0] < server
