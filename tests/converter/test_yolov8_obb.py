"""Oriented boxes of YOLOv8: equal to ultralytics', from a tree or from weights, and told apart from the other tasks."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from converter.refusals import refuse
from converter.test_yolo11 import check_same, check_trained, lively
from converter.test_yolo26 import gives_corners
from converter.test_yolov8_tree import SIZE, config, expected, network, save
from modelexport.api.result import Reference
from modelexport_converter import rotated_boxes
from modelexport_converter.architectures.yolov8.loader import load
from modelexport_converter.backends import Array
from modelexport_converter.checkpoints.checkpoint import Checkpoint, read_checkpoint
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel
from modelexport_converter.verification.agreement import compare
from modelexport_converter.verification.answers import read_detections
from trained.cells import TRAINED, ask, eval_inputs, load_model, recall, run_model
from trained.model import Outputs

NAME, YAML = "YOLOv8-OBB", "v8/yolov8-obb.yaml"
UNLIMITED = "YOLO26-OBB"
"""The architecture whose angles are raw numbers."""
IMAGES = 16


@pytest.mark.parametrize("scale", ["n", "s", "m", "l", "x"])
def test_every_variant_matches_ultralytics(scale: str, tmp_path: Path) -> None:
    model = lively(config(YAML, scale=scale))
    loaded = check_same(model, save(model, tmp_path), architecture=NAME)
    assert loaded.metadata["variant"] == scale
    assert [output.name for output in loaded.outputs] == ["boxes", "scores", "angles"]


@pytest.mark.parametrize("scale", ["n", "s", "m", "l", "x"])
def test_weights_alone_give_the_same_network(scale: str, tmp_path: Path) -> None:
    model = lively(config(YAML, scale=scale))
    bare = load(Checkpoint(model.state_dict(), {"imgsz": 64}), ask(NAME, input_size=SIZE))
    image = bare.example_input()
    for wanted, found in zip(expected(model, image, NAME), bare.module(image), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5 * max(1.0, float(wanted.abs().max())), rtol=1e-4)
    assert (bare.metadata["variant"], bare.reference) == (scale, Reference.REBUILT)


@pytest.mark.parametrize(
    "values",
    [{"activation": "torch.nn.ReLU()"}, {"reg_max": 1}, {"scales": {"n": [1.0, 0.125, 512]}}],
    ids=["activation", "boxes", "scales"],
)
def test_changed_network_is_exported(values: dict[str, Any], tmp_path: Path) -> None:
    model = lively(config(YAML, **values))
    check_same(model, save(model, tmp_path), architecture=NAME)


def test_fused_network_is_exported(tmp_path: Path) -> None:
    model = lively(config(YAML)).fuse(verbose=False)
    check_same(model, save(model, tmp_path), architecture=NAME)


def test_fresh_network_of_ultralytics_is_exported(tmp_path: Path) -> None:
    from ultralytics import YOLO

    model = YOLO("yolov8n-obb.yaml")
    model.save(tmp_path / "fresh.pt")
    loaded = check_same(model.model, tmp_path / "fresh.pt", (160, 160), NAME)
    assert (len(loaded.class_names), loaded.metadata["variant"]) == (80, "n")


@pytest.mark.parametrize("size", [(160, 160), (96, 224)])
def test_trained_network_matches_ultralytics(size: tuple[int, int]) -> None:
    check_trained(NAME, size)


def two_angles(head: Any) -> None:
    for branch in head.cv4:
        branch[2] = nn.Conv2d(branch[2].in_channels, 2, 1)


def decodes_otherwise(head: Any) -> None:
    head.decode_bboxes = print


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (two_angles, "has a branch in cv4 that does not end in 1 channels"),
        (gives_corners, "gives boxes as corners"),
        (decodes_otherwise, "has a method decode_bboxes of its own"),
    ],
)
def test_changed_head_is_refused(change: Callable[[Any], None], problem: str, tmp_path: Path) -> None:
    model = network(config(YAML))
    change(model.model[-1])
    assert problem in refuse(save(model, tmp_path), NAME, input_size=SIZE)


@pytest.mark.parametrize(("kind", "other"), [("", "YOLOv8"), ("-pose", "YOLOv8-Pose"), ("-seg", "YOLOv8-SEG")])
def test_tasks_of_yolov8_are_told_apart(kind: str, other: str, tmp_path: Path) -> None:
    for asked, description, found in ((other, YAML, NAME), (NAME, f"v8/yolov8{kind}.yaml", other)):
        model = network(config(description))
        for given in (save(model, tmp_path), Checkpoint(model.state_dict())):
            assert f"architecture {asked}, the checkpoint has {found}" in refuse(given, asked, input_size=SIZE)


def test_one_to_one_head_is_refused(tmp_path: Path) -> None:
    path = save(network(config(YAML, end2end=True)), tmp_path)
    assert "layer model.22 is OBB, which cannot be rebuilt" in refuse(path, NAME, input_size=SIZE)


def test_answers_are_those_of_ultralytics_prediction() -> None:
    """After suppression at the same overlap, ultralytics' own program shows the same boxes."""
    from ultralytics.utils.nms import non_max_suppression

    model = load_model(NAME)
    for image in eval_inputs(NAME)[:IMAGES]:
        outputs = run_model(NAME, image)
        rows = torch.from_numpy(np.concatenate(outputs, 1))
        (wanted,) = non_max_suppression(rows, 0.25, 0.5, nc=3, rotated=True)
        found = read_detections(model.outputs, model.input_size, outputs)
        assert found.rotated is not None
        theirs = wanted[:, [0, 1, 2, 3, 6]].double().numpy()
        assert found.labels.tolist() == wanted[:, 5].tolist()
        np.testing.assert_allclose(found.rotated, theirs, rtol=1e-5, atol=1e-4)


def otherwise_described(architecture: str, rounds: float) -> Callable[[Array], Outputs]:
    def run(image: Array) -> Outputs:
        boxes, scores, angles = run_model(architecture, image)
        exchanged = np.arange(boxes.shape[2]) % 3 == 0
        turned = np.where(exchanged, angles + np.float32(math.pi / 2), angles - np.float32(2 * math.pi * rounds))
        return np.where(exchanged, boxes[:, [0, 1, 3, 2]], boxes), scores, turned

    return run


@pytest.mark.parametrize(("architecture", "rounds"), [(NAME, 0.5), (UNLIMITED, 0.5), (UNLIMITED, 8)])
def test_other_descriptions_of_boxes_are_no_difference(architecture: str, rounds: float) -> None:
    """An angle that jumps where the box stays is no error: width and height change places, or it goes around."""
    run, images = otherwise_described(architecture, rounds), eval_inputs(architecture)[:IMAGES]
    found = compare(recall(architecture), run, images, least_fidelity=0.9)
    assert found.agreements.keys() == {"boxes", "scores"}
    assert found.value > 0.99999
    assert found.fidelity is not None
    assert (found.fidelity.value, found.fidelity.iou) == ("1.0000", "1.0000")


def turned_by(degrees: float) -> Callable[[Array], Outputs]:
    def run(image: Array) -> Outputs:
        boxes, scores, angles = run_model(NAME, image)
        return boxes, scores, angles + np.float32(math.radians(degrees))

    return run


def upright(image: Array) -> Outputs:
    boxes, scores, angles = run_model(NAME, image)
    return boxes, scores, np.zeros_like(angles)


@pytest.mark.parametrize(
    ("wrong", "most", "iou"),
    [(turned_by(1), 0.999, 1.0), (turned_by(5), 0.98, 0.95), (turned_by(45), 0.85, 0.7), (upright, 0.85, 0.8)],
    ids=["one degree", "five degrees", "an eighth", "upright"],
)
def test_turned_boxes_are_found_to_be_wrong(wrong: Callable[[Array], Outputs], most: float, iou: float) -> None:
    found = compare(recall(NAME), wrong, eval_inputs(NAME)[:IMAGES], least_fidelity=0.9)
    assert found.agreements["boxes"] < most
    assert found.agreements["scores"] > 0.99999
    assert found.fidelity is not None
    assert float(found.fidelity.iou or 0) < iou


def load_program(architecture: str, folder: Path, change: Callable[..., Any]) -> LoadedModel:
    """The trained model as a program whose outputs are changed."""
    model = load_model(architecture)

    class Changed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model.module

        def forward(self, image: torch.Tensor) -> Any:
            return change(*self.network(image))

    program = torch.export.export(Changed().eval(), (model.example_input(),))
    torch.export.save(program, folder / "x.pt2")
    return load(read_checkpoint(folder / "x.pt2"), ask(architecture))


def in_degrees(boxes: torch.Tensor, scores: torch.Tensor, angles: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return boxes, scores, angles * 180 / math.pi


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda boxes, scores, angles: (boxes / 160, scores, angles),
            "which are not pixels; multiply them by the input",
        ),
        (in_degrees, "which are not radians; multiply them by pi"),
        (lambda boxes, scores, angles: (boxes, scores.logit(), angles), "which are not probabilities"),
        (lambda boxes, scores, angles: (boxes, scores), "expected with 525 anchors: boxes (batch, coordinate, anchor)"),
    ],
    ids=["fractions", "degrees", "logits", "no angles"],
)
def test_program_with_other_outputs_is_refused(change: Callable[..., Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        load_program(NAME, tmp_path, change)
    assert problem in str(caught.value)


def test_angles_without_limits_are_told_from_degrees(tmp_path: Path) -> None:
    """On noise, which no training shows, raw angles of YOLO26 go beyond every turn."""
    loaded = load_program(UNLIMITED, tmp_path, lambda *outputs: outputs)
    assert float(loaded.module(loaded.example_input())[2].abs().max()) > 2 * math.pi
    with pytest.raises(Failure) as caught:
        load_program(UNLIMITED, tmp_path, in_degrees)
    assert "which are not radians; multiply them by pi" in str(caught.value)


def test_program_with_same_outputs_is_exported(tmp_path: Path) -> None:
    model = load_model(NAME)
    loaded = load_program(NAME, tmp_path, lambda *outputs: outputs)
    image = model.example_input()
    for one, other in zip(model.module(image), loaded.module(image), strict=True):
        torch.testing.assert_close(one, other)
    assert replace(loaded.outputs[2], meaning="") == replace(model.outputs[2], meaning="")


def test_detections_have_upright_boxes_around_them() -> None:
    model = load_model(NAME)
    found = read_detections(model.outputs, model.input_size, run_model(NAME, eval_inputs(NAME)[0]))
    assert found.rotated is not None
    assert len(found.scores) > 0
    points = rotated_boxes.corners(found.rotated)
    assert np.allclose(found.boxes, np.concatenate([points.min(1), points.max(1)], axis=1))
    assert TRAINED[NAME].images == "-obb"
