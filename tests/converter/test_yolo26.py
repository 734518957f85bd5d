"""YOLO26: the one-to-one head of ultralytics' networks, equal to it, and told apart from its relatives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from converter.refusals import refuse
from converter.test_yolo11 import check_same, check_trained, lively
from converter.test_yolov8_tree import SIZE, config, network, save
from modelexport_converter.architectures.yolov8.loader import load
from modelexport_converter.checkpoints.checkpoint import Checkpoint, read_checkpoint
from modelexport_converter.evaluation import detections
from trained.cells import TRAINED, answers, ask, eval_inputs, load_model, measure, reference

YAML = "26/yolo26.yaml"
WEIGHTS = TRAINED["YOLO26"].weights
TASKS = {"-seg": "YOLO26-SEG", "-cls": "YOLO26-CLS", "-pose": "YOLO26-Pose", "-obb": "YOLO26-OBB"}
"""The other architectures, by the end of the name of ultralytics' description."""
WITH_BOXES = {"": "YOLO26", **{kind: name for kind, name in TASKS.items() if kind != "-cls"}}
MOST_GAINED_BY_SUPPRESSION = 0.01
"""mAP50-95 that suppression may add to a detector that needs none."""


@pytest.mark.parametrize("scale", ["n", "s", "m", "l", "x"])
def test_every_variant_matches_ultralytics(scale: str, tmp_path: Path) -> None:
    model = lively(config(YAML, scale=scale))
    loaded = check_same(model, save(model, tmp_path), architecture="YOLO26")
    assert loaded.metadata["variant"] == scale


@pytest.mark.parametrize("scale", ["n", "s", "m"])
def test_fused_network_is_exported(scale: str, tmp_path: Path) -> None:
    model = lively(config(YAML, scale=scale))
    model.end2end = True
    model.fuse(verbose=False)
    check_same(model, save(model, tmp_path), architecture="YOLO26")


@pytest.mark.parametrize("scale", ["n", "s", "m"])
@pytest.mark.parametrize(("kind", "architecture"), TASKS.items())
def test_every_task_matches_ultralytics(kind: str, architecture: str, scale: str, tmp_path: Path) -> None:
    model = lively(described(kind, scale=scale))
    loaded = check_same(model, save(model, tmp_path), architecture=architecture)
    assert loaded.metadata["variant"] == scale


def described(kind: str, **values: Any) -> dict[str, Any]:
    """The description of a task, with its name, by which alone a classifier is known."""
    return config(f"26/yolo26{kind}.yaml", yaml_file=f"yolo26n{kind}.yaml", **values)


@pytest.mark.parametrize("scale", ["n", "s"])
@pytest.mark.parametrize(("kind", "architecture"), TASKS.items())
def test_fused_network_of_every_task_is_exported(kind: str, architecture: str, scale: str, tmp_path: Path) -> None:
    model = lively(described(kind, scale=scale))
    model.end2end = True
    model.fuse(verbose=False)
    check_same(model, save(model, tmp_path), architecture=architecture)


def test_angles_beyond_a_turn_stay_as_they_are(tmp_path: Path) -> None:
    model = lively(described("-obb"))
    for branch in model.model[-1].one2one_cv4:
        nn.init.constant_(branch[-1].bias, 10)
    loaded = check_same(model, save(model, tmp_path), architecture="YOLO26-OBB")
    assert float(loaded.module(loaded.example_input())[2].min()) > 2 * np.pi


@pytest.mark.parametrize(("kind", "classes"), [*((kind, 80) for kind in WITH_BOXES), ("-cls", 1000)])
def test_fresh_network_of_ultralytics_is_exported(kind: str, classes: int, tmp_path: Path) -> None:
    from ultralytics import YOLO

    YOLO(f"yolo26n{kind}.yaml").save(path := tmp_path / "fresh.pt")
    saved = torch.load(path, weights_only=False)["model"]  # in FP16
    loaded = check_same(saved, path, (160, 160), TASKS.get(kind, "YOLO26"))
    assert (len(loaded.class_names), loaded.metadata["variant"]) == (classes, "n")


@pytest.mark.parametrize(
    ("architecture", "size"),
    [("YOLO26", (160, 160)), *((name, (96, 224)) for name in TRAINED if name.startswith("YOLO26"))],
)
def test_trained_network_matches_ultralytics(architecture: str, size: tuple[int, int]) -> None:
    check_trained(architecture, size)


def test_best_scores_are_the_answers_of_ultralytics() -> None:
    """The end-to-end answer (1, 300, 6) is a choice from the outputs: corners in pixels, score, class, best first."""
    model = torch.load(WEIGHTS, weights_only=False)["model"].float().eval()
    model.end2end = True
    for image in eval_inputs("YOLO26")[:8]:
        with torch.inference_mode():
            (wanted,) = model(torch.from_numpy(image))[0]
            boxes, scores = load_model("YOLO26").module(torch.from_numpy(image))
        best, place = scores[0].T.flatten().topk(20)
        anchors, labels = place // 3, place % 3
        centre, half = boxes[0, :2, anchors], boxes[0, 2:, anchors] / 2
        corners = torch.cat([centre - half, centre + half]).T * 160
        found = torch.cat([corners, best[:, None], labels[:, None]], 1)
        sure = best > 0.01  # the order of scores that are equal but for rounding is open
        torch.testing.assert_close(found[sure], wanted[:20][sure], atol=1e-3, rtol=1e-4)


def test_suppression_hardly_changes_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = {name: boxes_of(reference(name)) for name in (*WITH_BOXES.values(), "YOLO11")}
    monkeypatch.setattr(detections, "MOST_OVERLAP", 1.0)
    gained = {name: value - boxes_of(measure(name, answers(name))) for name, value in usual.items()}
    assert gained.pop("YOLO11") > 10 * MOST_GAINED_BY_SUPPRESSION
    assert max(map(abs, gained.values())) < MOST_GAINED_BY_SUPPRESSION


def boxes_of(measured: dict[str, float]) -> float:
    return measured["box" if "box" in measured else "rotated"]


@pytest.mark.parametrize("chosen", [True, False])
def test_chosen_head_of_checkpoint_does_not_matter(chosen: bool, tmp_path: Path) -> None:
    """A validation with other settings stores another choice; the file has the one-to-one head of either."""
    model = lively(config(YAML))
    model.end2end = chosen
    check_same(model, save(model, tmp_path), architecture="YOLO26")


@pytest.mark.parametrize(("kind", "architecture"), WITH_BOXES.items())
def test_what_only_training_needs_is_left_out(kind: str, architecture: str, tmp_path: Path) -> None:
    """ultralytics leaves out the same when it fuses: the other head, and further outputs of the loss."""
    model = network(described(kind))
    loaded = load(read_checkpoint(save(model, tmp_path)), ask(architecture, input_size=SIZE))
    model.end2end = True
    wanted = sum(value.numel() for value in model.fuse(verbose=False).parameters())
    assert sum(value.numel() for value in loaded.module.parameters()) == wanted


def fuse(model: Any) -> Any:
    """As ultralytics does unless ``nms=False`` chooses the one-to-one head, which it removes."""
    model.end2end = False
    return model.fuse(verbose=False)


@pytest.mark.parametrize(
    "make",
    [lambda kind: network(described(kind, end2end=False)), lambda kind: fuse(network(described(kind)))],
    ids=["untrained", "fused"],
)
@pytest.mark.parametrize(("kind", "architecture"), WITH_BOXES.items())
def test_network_without_one_to_one_head_is_refused(
    kind: str, architecture: str, make: Callable[[str], Any], tmp_path: Path
) -> None:
    message = refuse(save(make(kind), tmp_path), architecture, input_size=SIZE)
    assert "has no one-to-one head, which fuse() removes" in message
    assert "give the checkpoint of a training with it, not fused" in message
    assert "architecture Custom" in message


def lacks_branches(head: Any) -> None:
    head.one2one_cv2 = None


def lacks_coefficients(head: Any) -> None:
    head.one2one_cv4 = None


def gives_fewer_coefficients(head: Any) -> None:
    head.nm = 16


def refines_no_map(head: Any) -> None:
    head.proto.feat_refine = None


def refines_fewer_maps(head: Any) -> None:
    del head.proto.feat_refine[1]


def refines_by_one_layer(head: Any) -> None:
    head.proto.feat_refine = head.proto.feat_refine[0]


def lacks_keypoints(head: Any) -> None:
    head.one2one_cv4_kpts = None


def gives_fewer_keypoints(head: Any) -> None:
    head.kpt_shape = [16, 3]


def ends_in_one_layer(head: Any) -> None:
    head.one2one_cv4_kpts = head.one2one_cv4_kpts[0]


def decodes_keypoints_otherwise(head: Any) -> None:
    head.kpts_decode = print


def ends_in_other_channels(head: Any) -> None:
    head.one2one_cv3[1][2] = nn.Conv2d(head.one2one_cv3[1][2].in_channels, 5, 1)


def gives_corners(head: Any) -> None:
    head.xyxy = True


def hook(head: Any) -> None:
    head.one2one_cv3.register_forward_hook(print)


@pytest.mark.parametrize(
    ("kind", "change", "problem"),
    [
        ("", lacks_branches, "layer model.23 (Detect) has no part one2one_cv2"),
        ("", ends_in_other_channels, "has a branch in one2one_cv3 that does not end in 3 channels"),
        ("", gives_corners, "gives boxes as corners"),
        ("", hook, "layer model.23.one2one_cv3 (ModuleList) has a hook"),
        ("-seg", lacks_coefficients, "layer model.23 (Segment26) has no part one2one_cv4"),
        ("-seg", gives_fewer_coefficients, "has a branch in one2one_cv4 that does not end in 16 channels"),
        ("-seg", refines_no_map, "layer model.23.proto (Proto26) has no part feat_refine"),
        ("-seg", refines_by_one_layer, "layer model.23.proto (Proto26) has no list of layers for its coarser maps"),
        ("-seg", refines_fewer_maps, "the layers of the checkpoint do not fit to each other"),
        ("-obb", lacks_coefficients, "layer model.23 (OBB26) has no part one2one_cv4"),
        ("-pose", lacks_keypoints, "layer model.23 (Pose26) has no part one2one_cv4_kpts"),
        ("-pose", gives_fewer_keypoints, "has a branch in one2one_cv4_kpts that does not end in 48 channels"),
        ("-pose", ends_in_one_layer, "has not 3 branches in one2one_cv4_kpts"),
        ("-pose", decodes_keypoints_otherwise, "layer model.23 (Pose26) has a method kpts_decode of its own"),
    ],
)
def test_changed_head_is_refused(kind: str, change: Callable[[Any], None], problem: str, tmp_path: Path) -> None:
    model = network(described(kind))
    change(model.model[-1])
    assert problem in refuse(save(model, tmp_path), WITH_BOXES[kind], input_size=SIZE)


@pytest.mark.parametrize("kind", WITH_BOXES)
def test_yolo11_and_yolo26_are_told_apart(kind: str, tmp_path: Path) -> None:
    yolo26 = WITH_BOXES[kind]
    yolo11 = yolo26.replace("YOLO26", "YOLO11")
    for asked, family, found in ((yolo11, "26/yolo26", yolo26), (yolo26, "11/yolo11", yolo11)):
        for values in ({}, {"end2end": False}):
            path = save(network(config(f"{family}{kind}.yaml", **values)), tmp_path)
            assert f"architecture {asked}, the checkpoint has {found}" in refuse(path, asked, input_size=SIZE)


def test_one_to_one_head_of_yolov8_is_refused(tmp_path: Path) -> None:
    path = save(network(config("v8/yolov8.yaml", end2end=True)), tmp_path)
    for asked in ("YOLOv8", "YOLO26"):
        assert "layer model.22 is Detect, which cannot be rebuilt" in refuse(path, asked, input_size=SIZE)


@pytest.mark.parametrize(
    ("task", "kind", "named"),
    [
        ("depth", "Depth", "this is YOLO26: layer model.23 is Depth"),
        ("sem", "SemanticSegmentation", "this is YOLO26: layer model.17 is SemanticSegment"),
    ],
)
def test_other_tasks_are_refused_by_name(task: str, kind: str, named: str, tmp_path: Path) -> None:
    from ultralytics.nn import tasks

    model = getattr(tasks, f"{kind}Model")(
        config(f"26/yolo26-{task}.yaml", yaml_file=f"yolo26n-{task}.yaml"), verbose=False
    )
    message = refuse(save(model, tmp_path), "YOLO26", input_size=SIZE)
    assert named in message
    assert "architecture Custom" in message


@pytest.mark.parametrize("architecture", TASKS.values())
def test_weights_of_other_tasks_are_refused(architecture: str) -> None:
    weights = Checkpoint(read_checkpoint(TRAINED[architecture].weights).tensors)
    message = refuse(weights, architecture)
    assert f"the weights alone do not tell the layers of {architecture}; give ultralytics' .pt" in message
    assert "architecture YOLO26, the checkpoint has " in refuse(weights, "YOLO26")


@pytest.mark.parametrize(("kind", "architecture"), WITH_BOXES.items())
def test_weights_alone_are_refused_with_way_out(kind: str, architecture: str) -> None:
    fused = network(described(kind))
    fused.end2end = True
    fused.fuse(verbose=False)
    for weights in (read_checkpoint(TRAINED[architecture].weights).tensors, fused.state_dict()):
        message = refuse(Checkpoint(weights), architecture)
        assert f"the weights alone do not tell the layers of {architecture}; give ultralytics' .pt" in message
        assert f"architecture YOLO11, the checkpoint has {architecture}" in refuse(Checkpoint(weights), "YOLO11")


def test_file_says_that_no_suppression_is_needed() -> None:
    for architecture in WITH_BOXES.values():
        assert "no suppression is needed" in load_model(architecture).outputs[1].meaning
    assert "suppress overlapping boxes" in load_model("YOLO11").outputs[1].meaning
    assert np.shape(answers("YOLO26")[0][0]) == (1, 4, 525)
