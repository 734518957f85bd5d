"""YOLO11: equal to ultralytics', built from its own tree, and told apart from its relatives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from converter.refusals import refuse
from converter.test_yolov8_tree import SIZE, config, expected, network, save
from modelexport_converter.architectures.yolov8.loader import load
from modelexport_converter.architectures.yolov8.yolo11_blocks import Attention
from modelexport_converter.checkpoints.checkpoint import Checkpoint, read_checkpoint
from modelexport_converter.model import LoadedModel
from trained.cells import TRAINED, ask, load_model

YAML = "11/yolo11.yaml"
WEIGHTS = TRAINED["YOLO11"].weights
TASKS = {"-seg": "YOLO11-SEG", "-cls": "YOLO11-CLS", "-pose": "YOLO11-Pose", "-obb": "YOLO11-OBB"}
"""The other architectures, by the end of the name of ultralytics' description."""


def check_same(model: Any, path: Path, size: tuple[int, int] = SIZE, architecture: str = "YOLO11") -> LoadedModel:
    """The model of a checkpoint answers as ultralytics' own network does, as near as float32 can be.

    How much rounding is left depends on the processor, and grows with the values: mask coefficients reach 5.
    """
    loaded = load(read_checkpoint(path), ask(architecture, input_size=size))
    image = loaded.example_input()
    wanted, found = expected(model, image, architecture), loaded.module(image)
    assert len(wanted) == len(found) == len(loaded.outputs)
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(other, one, atol=1e-5 * max(1.0, float(one.abs().max())), rtol=1e-4)
    assert loaded.assumptions == ()
    return loaded


def check_trained(architecture: str, size: tuple[int, int]) -> None:
    """The trained model answers as ultralytics' own network does, and names its classes and its input size."""
    path = TRAINED[architecture].weights
    loaded = check_same(torch.load(path, weights_only=False)["model"], path, size, architecture)
    side = 128 if architecture.endswith("-CLS") else 160
    names = ("circle", "square", "triangle")
    assert (loaded.class_names, load_model(architecture).input_size) == (names, (side, side))
    assert "variant" not in loaded.metadata, "it is narrower than every published one"


def lively(found: dict[str, Any]) -> Any:
    """A network whose scores and attention depend on the image: it has the statistics of images.

    Activations are nearly linear, as after a training; else each layer amplifies the rounding of the one before.
    """
    model = network(found)
    for name in ("cv3", "one2one_cv3"):
        for branch in getattr(model.model[-1], name, ()):
            nn.init.zeros_(branch[-1].bias)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.constant_(module.bias, 2)
    with torch.no_grad():
        model.train()(torch.rand(4, 3, *SIZE))
    return model.eval()


@pytest.mark.parametrize(("scale", "heads"), [("n", 2), ("s", 4), ("m", 4), ("l", 4), ("x", 6)])
def test_every_variant_matches_ultralytics(scale: str, heads: int, tmp_path: Path) -> None:
    model = lively(config(YAML, scale=scale))
    loaded = check_same(model, save(model, tmp_path))
    assert loaded.metadata["variant"] == scale
    assert next(part.heads for part in loaded.module.modules() if isinstance(part, Attention)) == heads


@pytest.mark.parametrize("scale", ["n", "s", "m"])
@pytest.mark.parametrize(("kind", "architecture"), TASKS.items())
def test_every_task_matches_ultralytics(kind: str, architecture: str, scale: str, tmp_path: Path) -> None:
    model = lively(config(f"11/yolo11{kind}.yaml", scale=scale))
    loaded = check_same(model, save(model, tmp_path), architecture=architecture)
    assert loaded.metadata["variant"] == scale


@pytest.mark.parametrize(("kind", "architecture"), TASKS.items())
def test_fused_network_of_every_task_is_exported(kind: str, architecture: str, tmp_path: Path) -> None:
    model = lively(config(f"11/yolo11{kind}.yaml")).fuse(verbose=False)
    check_same(model, save(model, tmp_path), architecture=architecture)


def test_fresh_network_of_ultralytics_is_exported(tmp_path: Path) -> None:
    from ultralytics import YOLO

    model = YOLO("yolo11n.yaml")
    model.save(tmp_path / "fresh.pt")
    loaded = check_same(model.model, tmp_path / "fresh.pt", (160, 160))
    assert (len(loaded.class_names), loaded.metadata["variant"]) == (80, "n")


@pytest.mark.parametrize(
    ("architecture", "size"),
    [("YOLO11", (160, 160)), *((name, (96, 224)) for name in TRAINED if name.startswith("YOLO11"))],
)
def test_trained_network_matches_ultralytics(architecture: str, size: tuple[int, int]) -> None:
    check_trained(architecture, size)


@pytest.mark.parametrize(
    "values",
    [{"activation": "torch.nn.ReLU()"}, {"reg_max": 1}, {"scales": {"n": [1.0, 0.125, 512]}}],
    ids=["activation", "boxes", "scales"],
)
def test_changed_network_is_exported(values: dict[str, Any], tmp_path: Path) -> None:
    model = lively(config(YAML, **values))
    check_same(model, save(model, tmp_path))


def test_fused_network_is_exported(tmp_path: Path) -> None:
    model = lively(config(YAML)).fuse(verbose=False)
    check_same(model, save(model, tmp_path))


def without_shortcut(model: Any) -> None:
    model.model[10].m[0].add = False


def split_otherwise(model: Any) -> None:
    model.model[4].forward = model.model[4].forward_split


@pytest.mark.parametrize("change", [without_shortcut, split_otherwise])
def test_changed_block_is_exported(change: Callable[[Any], None], tmp_path: Path) -> None:
    model = lively(config(YAML, scales={"n": [0.5, 0.125, 512]}))
    change(model)
    check_same(model, save(model, tmp_path))


def other_heads(attention: Any) -> None:
    attention.num_heads = 3


def other_scale(attention: Any) -> None:
    attention.scale = 0.5


def hook(attention: Any) -> None:
    attention.register_forward_hook(doubled)


def doubled(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
    return output * 2


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (other_heads, "layer model.10.m.0.attn (Attention) has 256 channels for 3 heads of 2 x 32 and 64"),
        (other_scale, "layer model.10.m.0.attn (Attention) scales by 0.5, expected the inverse root of 32"),
        (hook, "layer model.10.m.0.attn (Attention) has a hook"),
    ],
)
def test_changed_attention_is_refused(change: Callable[[Any], None], problem: str, tmp_path: Path) -> None:
    model = network(config(YAML))
    change(model.model[10].m[0].attn)
    assert problem in refuse(save(model, tmp_path), "YOLO11", input_size=SIZE)


def test_attention_over_too_many_places_is_refused(tmp_path: Path) -> None:
    model = network(config(YAML))
    for layer in (0, 1, 3, 5, 7, 17, 20):
        model.model[layer].conv.stride = (1, 1)
    for layer in (11, 14):
        model.model[layer].scale_factor = 1.0
    message = refuse(save(model, tmp_path), "YOLO11", input_size=SIZE)
    assert "a map of the shape (1, 2, 8192, 8192), more than 1024 values per pixel" in message


@pytest.mark.parametrize("kind", ["", *TASKS])
def test_yolov8_and_yolo11_are_told_apart(kind: str, tmp_path: Path) -> None:
    yolo11 = TASKS.get(kind, "YOLO11")
    yolov8 = yolo11.replace("YOLO11", "YOLOv8")
    for asked, description, found in ((yolov8, f"11/yolo11{kind}", yolo11), (yolo11, f"v8/yolov8{kind}", yolov8)):
        path = save(network(config(f"{description}.yaml")), tmp_path)
        assert f"architecture {asked}, the checkpoint has {found}" in refuse(path, asked, input_size=SIZE)


def test_other_activation_is_refused_with_both_names() -> None:
    assert "activation ReLU, the checkpoint has SiLU;" in refuse(WEIGHTS, "YOLO11", activation="ReLU")


@pytest.mark.parametrize("architecture", [name for name in TRAINED if name.startswith("YOLO11")])
def test_weights_alone_are_refused_with_way_out(architecture: str) -> None:
    weights = Checkpoint(read_checkpoint(TRAINED[architecture].weights).tensors)
    message = refuse(weights, architecture)
    assert f"the weights alone do not tell the layers of {architecture}; give ultralytics' .pt" in message
    assert f"architecture YOLOv8, the checkpoint has {architecture}" in refuse(weights, "YOLOv8")


def test_yolo26_classifier_is_known_by_its_description(tmp_path: Path) -> None:
    """It has the very layers of YOLO11-CLS; ultralytics keeps the name of the description, in trainings too."""
    for file in ("yolo26n-cls.yaml", r"C:\\nets\\YOLO26s-cls.yaml", "/nets/yolo12/yolo26-cls-mine.yaml"):
        model = lively(config("11/yolo11-cls.yaml", yaml_file=file))
        check_same(model, path := save(model, tmp_path), architecture="YOLO26-CLS")
        assert "architecture YOLO11-CLS, the checkpoint has YOLO26-CLS" in refuse(path, "YOLO11-CLS", input_size=SIZE)


@pytest.mark.parametrize("file", ["/yolo26/yolo11s-cls.yaml", "yolo20classes.yaml", "mine.yaml", "yolov8-c3k2.yaml"])
def test_layers_decide_unless_a_later_family_is_named(file: str, tmp_path: Path) -> None:
    model = lively(config("11/yolo11-cls.yaml", yaml_file=file))
    check_same(model, save(model, tmp_path), architecture="YOLO11-CLS")
