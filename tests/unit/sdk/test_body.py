"""The body of a ModelExport that is built in Python."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelexport.api.body import export_body
from modelexport.api.spec import DataRef, Evaluation, Model, ModelExport, Parameters, parse_export
from modelexport.matrix.support import TARGETS

ROOT = Path(__file__).parents[3]
EXPORTS = [
    body
    for path in (ROOT / "examples").glob("*.yaml")
    for body in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    if body["kind"] == "ModelExport"
]
SMALL = ModelExport("a", "team", Model("YOLOv8", DataRef("s3://abc/a.pt")), TARGETS[:1])
STATED: dict[str, dict[str, Any]] = {
    "YOLOv8": {"variant": "n", "num_classes": 3, "input_size": (320, 640), "activation": "ReLU"},
    "FasterRCNN": {
        "score_threshold": 0.05,
        "nms_threshold": 0.5,
        "norm_epsilon": 0.00001,
        "image_mean": (0.485, 0.456, 0.406),
        "image_std": (0.229, 0.224, 1.0),
        "detections_per_image": 7,
        "anchor_sizes": ((32,), (64, 80)),
        "aspect_ratios": (0.5, 2.0),
    },
    "YOLOX": {"color_order": "RGB", "pixel_range": "0-1"},
    "YOLOv4": {"anchors": tuple(range(1, 13))},
    "UNet": {"align_corners": False},
}


@pytest.mark.parametrize("body", EXPORTS, ids=lambda body: str(body["metadata"]["name"]))
def test_export_of_an_example_is_written_as_it_was_read(body: dict[str, Any]) -> None:
    export = parse_export(body)
    assert parse_export(export_body(export)) == export


@pytest.mark.parametrize("architecture", STATED)
def test_every_parameter_is_written_as_it_is_read(architecture: str) -> None:
    stated = Parameters(**STATED[architecture])
    export = replace(SMALL, model=Model(architecture, DataRef("s3://abc/a.pt", "0" * 64), stated))
    assert parse_export(export_body(export)) == export


def test_drops_of_targets_are_written_beside_them() -> None:
    evaluation = Evaluation(DataRef("s3://abc/val.zip"))
    export = replace(SMALL, targets=TARGETS[:2], evaluation=evaluation, max_drops={TARGETS[1]: 0.002})
    targets = export_body(export)["spec"]["targets"]
    assert [target.get("maxDrop") for target in targets] == [None, "0.002"]
    assert parse_export(export_body(export)) == export


def test_the_cases_state_every_parameter() -> None:
    assert {name for stated in STATED.values() for name in stated} == {field.name for field in fields(Parameters)}


def test_default_fields_are_left_out() -> None:
    assert export_body(SMALL) == {
        "apiVersion": "modelexport.dev/v1alpha1",
        "kind": "ModelExport",
        "metadata": {"name": "a", "namespace": "team"},
        "spec": {
            "model": {"architecture": "YOLOv8", "checkpoint": {"uri": "s3://abc/a.pt"}},
            "targets": [{"format": "LiteRT", "precision": "FP32"}],
        },
    }
