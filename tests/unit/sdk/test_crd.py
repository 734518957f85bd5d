from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from modelexport.api.spec import STATED_PARAMETERS
from modelexport.crds import crd
from modelexport.matrix import support
from modelexport.matrix.support import TARGETS, Format, Target
from testplane.objects import make_target


def schema_of(definition: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field
        yield from fields(field, f"{path}.{name}")
    for child in ("items", "additionalProperties"):
        if child in schema:
            yield f"{path}[]", schema[child]
            yield from fields(schema[child], f"{path}[]")


ALL_FIELDS = [
    (path, field)
    for build in (crd.build_export_crd, crd.build_class_crd)
    for path, field in fields(schema_of(build()))
    if path not in (".apiVersion", ".kind", ".metadata")
]


@pytest.mark.parametrize(("path", "field"), ALL_FIELDS)
def test_every_field_is_documented_and_bounded(path: str, field: dict[str, Any]) -> None:
    assert field.get("description") or path.endswith("[]")
    if field.get("x-kubernetes-int-or-string"):
        assert field["maxLength"]
        return
    if field["type"] == "string":
        assert field.get("maxLength") or field.get("enum") or field.get("format") == "date-time"
    if field["type"] == "array":
        assert field["maxItems"]
    if "additionalProperties" in field:
        assert field["maxProperties"]


def test_crd_offers_exactly_matrix() -> None:
    spec = schema_of(crd.build_export_crd())["properties"]["spec"]["properties"]
    assert spec["model"]["properties"]["architecture"]["enum"] == list(support.ARCHITECTURES)
    target = spec["targets"]["items"]["properties"]
    offered = [Target(fmt, precision) for fmt in target["format"]["enum"] for precision in target["precision"]["enum"]]
    refused = [rule["rule"] for rule in spec["targets"]["items"]["x-kubernetes-validations"]]
    pairs = {other: f"self.format != '{other.format}' || self.precision != '{other.precision}'" for other in offered}
    assert [other for other in offered if pairs[other] not in refused] == list(TARGETS)
    assert spec["targets"]["maxItems"] >= len(TARGETS)


def rules(field: str = "") -> list[dict[str, Any]]:
    spec = schema_of(crd.build_export_crd())["properties"]["spec"]
    return [rule for rule in spec["x-kubernetes-validations"] if rule.get("fieldPath", "").startswith(field)]


def test_matrix_without_extended_cells_has_no_rule_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(support.ARCHITECTURES["YOLOv8"], extended=frozenset())
    monkeypatch.setattr("modelexport.crds.model_export.ARCHITECTURES", {"YOLOv8": row})
    assert not any("supportLevel: Extended" in rule["message"] for rule in rules(".targets"))


def test_extended_cell_rule_names_stable_cells_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    extended = frozenset(target for target in TARGETS if target.format is Format.COREML) | {make_target("ONNX/FP16")}
    row = replace(support.ARCHITECTURES["YOLOv8"], extended=extended)
    monkeypatch.setattr("modelexport.crds.model_export.ARCHITECTURES", {"YOLOv8": row})
    rule = next(rule for rule in rules(".targets") if "supportLevel: Extended" in rule["message"])
    assert rule["rule"].startswith("self.supportLevel == 'Extended' || self.model.architecture != 'YOLOv8' || ")
    assert "'CoreML/FP32'" in rule["rule"]
    assert rule["message"] == (
        "ONNX/FP16, CoreML are not in the stable matrix for YOLOv8 (stable: LiteRT, ONNX/FP32, ONNX/INT8, ONNX/W8A16, "
        "PyTorch, TensorFlow, ExecuTorch); "
        "set spec.supportLevel: Extended"
    )


def parameter_rules(parameter: str, *rows: support.Architecture) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modelexport.crds.model_export.ARCHITECTURES", {row.name: row for row in rows})
        model = schema_of(crd.build_export_crd())["properties"]["spec"]["properties"]["model"]
    found = [rule for rule in model["x-kubernetes-validations"] if rule["fieldPath"] == f".parameters.{parameter}"]
    return [f"{rule['rule']}: {rule['message']}" for rule in found]


YOLO = support.ARCHITECTURES["YOLOv8"]
BARE = replace(YOLO, name="Bare", variants=())
BACKBONES = ("resnet50", "mobilenet_v3_large")
DETECTOR = replace(YOLO, name="Detector", variants=BACKBONES, has_nms=True, has_frozen_norm=True)


def test_variants_come_from_matrix_and_are_refused_elsewhere() -> None:
    bare, yolo, detector = sorted(parameter_rules("variant", YOLO, BARE, DETECTOR), key=len)
    assert bare.endswith("in []: variant is not a parameter of Bare; remove it")
    assert yolo.endswith("variant must be one of n, s, m, l, x for YOLOv8")
    assert "self.parameters.variant in ['resnet50', 'mobilenet_v3_large']" in detector
    assert detector.endswith("variant must be one of resnet50, mobilenet_v3_large for Detector")


def test_activations_come_from_matrix_and_are_refused_elsewhere() -> None:
    bare, yolo = sorted(parameter_rules("activation", YOLO, replace(BARE, activations=())), key=len)
    assert bare.endswith("in []: activation is not a parameter of Bare; remove it")
    assert "self.parameters.activation in ['SiLU', 'ReLU', 'LeakyReLU', 'Hardswish', 'Mish']" in yolo
    assert yolo.endswith("activation must be one of SiLU, ReLU, LeakyReLU, Hardswish, Mish for YOLOv8")


@pytest.mark.parametrize("parameter", [name for name in STATED_PARAMETERS if name != "activation"])
def test_parameter_is_refused_where_unused(parameter: str) -> None:
    taker = replace(DETECTOR, takes=frozenset({parameter}))
    (rule,) = parameter_rules(parameter, YOLO, BARE, taker)
    assert rule.endswith(f"|| false: {parameter} is not a parameter of YOLOv8, Bare; remove it")
    assert parameter_rules(parameter, taker) == []


def test_mean_is_for_pixels_from_0_to_1() -> None:
    row = replace(DETECTOR, takes=frozenset({"imageMean", "pixelRange"}))
    (rule,) = parameter_rules("imageMean", row)
    assert "has(self.parameters.pixelRange) && self.parameters.pixelRange == '0-1'" in rule
    assert rule.endswith("imageMean is for pixels of 0 to 1; set pixelRange: 0-1")


@pytest.mark.parametrize("parameter", ["scoreThreshold", "nmsThreshold", "normEpsilon"])
def test_thresholds_and_epsilons_are_refused_where_unused(parameter: str) -> None:
    (rule,) = parameter_rules(parameter, YOLO, BARE, DETECTOR)
    assert rule.startswith("!(self.architecture in ['YOLOv8', 'Bare']) || ")
    assert rule.endswith(f"|| false: {parameter} is not a parameter of YOLOv8, Bare; remove it")
    assert parameter_rules(parameter, DETECTOR) == []
