"""The YOLOv8 networks: equal to ultralytics', and strict about their checkpoints."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from converter.refusals import refuse
from modelexport_converter.architectures.yolov8.loader import load
from modelexport_converter.architectures.yolov8.network import Classifier, Network
from modelexport_converter.checkpoints.checkpoint import Checkpoint, read_checkpoint
from trained.cells import ask, eval_inputs, load_model, run_model
from trained.yolov8_cells import CLASSES, UNTOLD, WEIGHTS


def checkpoint(architecture: str = "YOLOv8", **facts: Any) -> Checkpoint:
    read = read_checkpoint(WEIGHTS[architecture])
    return replace(read, facts={**read.facts, **facts})


def bare(architecture: str = "YOLOv8", **facts: Any) -> Checkpoint:
    """Weights alone, from which the published network is rebuilt."""
    return replace(checkpoint(architecture, **facts), module=None)


def run_ultralytics(architecture: str, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The outputs of ultralytics' own module, split and divided as ours are."""
    module = torch.load(WEIGHTS[architecture], weights_only=False)["model"].float().eval()
    with torch.inference_mode():
        output = module(image)[0]
    if architecture == "YOLOv8-CLS":
        return (output,)
    rows, *prototypes = output if isinstance(output, tuple) else (output,)
    height, width = image.shape[2:]
    boxes, scores, extra = rows.split((4, len(CLASSES), rows.shape[1] - 4 - len(CLASSES)), 1)
    outputs = (boxes / torch.tensor([width, height, width, height]).view(1, 4, 1), scores)
    if architecture == "YOLOv8-SEG":
        return (*outputs, extra, *prototypes)
    if architecture == "YOLOv8-Pose":
        return (*outputs, extra.view(1, 4, 3, -1) / torch.tensor([width, height, 1.0]).view(1, 1, 3, 1))
    return outputs


@pytest.mark.parametrize("architecture", WEIGHTS)
@pytest.mark.parametrize("size", [(160, 160), (96, 224)])
def test_outputs_match_ultralytics(architecture: str, size: tuple[int, int]) -> None:
    model = load(checkpoint(architecture), ask(architecture, input_size=size))
    image = model.example_input()
    expected, found = run_ultralytics(architecture, image), model.module(image)
    assert len(found) == len(model.outputs)
    for wanted, given in zip(expected, found, strict=True):
        torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", WEIGHTS)
def test_bare_state_dict_gives_same_network(architecture: str) -> None:
    """No state dict contains the epsilon of batch normalisation; each architecture has a known one."""
    found = checkpoint(architecture)
    bare = load(Checkpoint(found.tensors, {"imgsz": 128, **UNTOLD.get(architecture, {})}), ask(architecture))
    image = bare.example_input()
    for wanted, given in zip(run_ultralytics(architecture, image), bare.module(image), strict=True):
        torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", "nsmlx")
@pytest.mark.parametrize("kind", ["", "-seg", "-cls", "-pose"])
def test_every_variant_has_ultralytics_weights(variant: str, kind: str) -> None:
    from ultralytics.nn import tasks

    with torch.device("meta"):
        layers, _ = tasks.parse_model(tasks.yaml_model_load(f"yolov8{variant}{kind}.yaml"), ch=3, verbose=False)
        ours = _build(variant, kind).state_dict()
    theirs = torch.nn.ModuleDict({"model": layers}).state_dict()
    shapes = {name: tensor.shape for name, tensor in theirs.items() if not name.endswith("dfl.conv.weight")}
    assert {name: tensor.shape for name, tensor in ours.items() if name.startswith("model.")} == shapes


def _build(variant: str, kind: str) -> torch.nn.Module:
    if kind == "-cls":
        return Classifier(variant, 1000)
    return Network(
        variant, 1 if kind == "-pose" else 80, (64, 64), kind == "-seg", (17, 3) if kind == "-pose" else None
    )


@pytest.mark.parametrize("architecture", WEIGHTS)
def test_metadata_comes_from_checkpoint(architecture: str) -> None:
    model = load_model(architecture)
    assert model.class_names == CLASSES
    assert model.input_size == ((128, 128) if architecture == "YOLOv8-CLS" else (160, 160))
    assert model.metadata["variant"] == "n"
    assert model.metadata["stride"] == "32"
    assert model.preprocessing.resize == ("centre_crop" if architecture == "YOLOv8-CLS" else "letterbox")


def test_every_output_has_documented_axes() -> None:
    sizes = {"batch": 1, "coordinate": 4, "class": 3, "anchor": 525, "mask": 32, "row": 40, "column": 40, "keypoint": 4}
    for architecture in WEIGHTS:
        outputs = run_model(architecture, eval_inputs(architecture)[0])
        for output, array in zip(load_model(architecture).outputs, outputs, strict=True):
            assert array.shape == tuple(sizes.get(axis, 3) for axis in output.axes), output.name


def test_input_size_follows_user_then_training_then_matrix() -> None:
    assert load(checkpoint(imgsz=100), ask("YOLOv8", input_size=(64, 96))).input_size == (64, 96)
    assert load(checkpoint(imgsz=100), ask("YOLOv8")).input_size == (128, 128)
    assert load(checkpoint(imgsz=[64, 100]), ask("YOLOv8")).input_size == (64, 128)
    assert load(checkpoint(imgsz=None), ask("YOLOv8")).input_size == (640, 640)


def test_other_architecture_is_refused_with_both_names() -> None:
    message = refuse(checkpoint("YOLOv8-SEG"), "YOLOv8")
    assert "architecture YOLOv8, the checkpoint has YOLOv8-SEG" in message


@pytest.mark.parametrize("other", ["yolo12n", "yolo26n-depth", "yolov5n", "yolov8n-obb"])
def test_other_ultralytics_networks_are_refused(other: str) -> None:
    from ultralytics import YOLO

    message = refuse(Checkpoint(YOLO(f"{other}.yaml").model.state_dict()), "YOLOv8")
    assert "another ultralytics network" in message or "YOLOv8-OBB" in message


def test_fused_weights_are_reported_as_such() -> None:
    fused = {
        name.replace("bn.bias", "conv.bias"): value
        for name, value in bare().tensors.items()
        if ".bn." not in name or name.endswith("bn.bias")
    }
    message = refuse(Checkpoint(fused), "YOLOv8")
    assert "of a fused network" in message
    assert "give ultralytics' .pt, fused or not" in message


def test_unrelated_weights_are_refused() -> None:
    assert "no network of ultralytics" in refuse(Checkpoint({"w": torch.ones(1)}), "YOLOv8")


def test_wrong_class_count_is_refused_with_both_numbers() -> None:
    assert "number of classes 80, the checkpoint has 3" in refuse(checkpoint(), "YOLOv8", num_classes=80)


def test_other_variant_is_refused_with_both_names() -> None:
    assert "variant s, the checkpoint has n" in refuse(checkpoint(), "YOLOv8", variant="s")


def test_changed_network_is_refused_by_mismatched_weight() -> None:
    found = bare()
    tensors = {**found.tensors, "model.4.cv1.conv.weight": torch.ones(64, 32, 1, 1)}
    assert "model.4.cv1.conv.weight" in refuse(replace(found, tensors=tensors), "YOLOv8")


def test_unknown_width_is_refused() -> None:
    found = bare()
    tensors = {**found.tensors, "model.0.conv.weight": torch.ones(24, 3, 3, 3)}
    assert "24 channels" in refuse(replace(found, tensors=tensors), "YOLOv8")


def test_keypoints_without_visibility_have_two_values() -> None:
    network = Network("n", 1, (64, 64), keypoints=(5, 2))
    found = Checkpoint(network.state_dict(), {"kpt_shape": [5, 2]})
    model = load(found, ask("YOLOv8-Pose"))
    assert model.module(torch.zeros(1, 3, 640, 640))[2].shape == (1, 5, 2, 8400)
    assert load(replace(found, facts={}), ask("YOLOv8-Pose")).module(torch.zeros(1, 3, 640, 640))[2].shape[1:3] == (
        5,
        2,
    )


def test_ambiguous_keypoint_weights_are_refused() -> None:
    found = Checkpoint(Network("n", 1, (64, 64), keypoints=(6, 2)).state_dict(), {})
    problem = refuse(found, "YOLOv8-Pose")
    assert "12 channels are 4 keypoints of x, y and visibility or 6 of x and y" in problem
    model = load(replace(found, facts={"kpt_shape": [6, 2]}), ask("YOLOv8-Pose"))
    assert model.outputs[2].name == "keypoints"


def test_whole_yolo_object_provides_names_and_size(tmp_path: Path) -> None:
    from ultralytics import YOLO

    torch.save(YOLO(str(WEIGHTS["YOLOv8"])), tmp_path / "x.pt")
    found = load(read_checkpoint(tmp_path / "x.pt"), ask("YOLOv8"))
    assert (found.class_names, found.input_size) == (CLASSES, (160, 160))


@pytest.mark.parametrize("names", [None, ["one"], {0: "one", 2: "three"}])
def test_unnamed_classes_get_numbers(names: Any) -> None:
    assert load(checkpoint(names=names), ask("YOLOv8")).class_names == ("class_0", "class_1", "class_2")


def test_safetensors_header_provides_names() -> None:
    assert load(checkpoint(names={"0": "a", "1": "b", "2": "c"}), ask("YOLOv8")).class_names == ("a", "b", "c")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "yolov8n.pt2"
    model = load(checkpoint(), ask("YOLOv8", input_size=(64, 96)))
    torch.export.save(torch.export.export(model.module, (model.example_input(),)), path)
    return path


def test_program_is_used_unchanged(program: Path) -> None:
    original = load(checkpoint(), ask("YOLOv8", input_size=(64, 96)))
    model = load(read_checkpoint(program), ask("YOLOv8"))
    assert (model.input_size, len(model.class_names)) == ((64, 96), 3)
    image = model.example_input()
    for wanted, given in zip(original.module(image), model.module(image), strict=True):
        torch.testing.assert_close(given, wanted)


def test_program_may_return_bare_tensor(tmp_path: Path) -> None:
    class Bare(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = load_model("YOLOv8-CLS").module

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.network(image)[0]

    image = torch.rand(1, 3, 128, 128)
    torch.export.save(torch.export.export(Bare().eval(), (image,)), tmp_path / "x.pt2")
    model = load(read_checkpoint(tmp_path / "x.pt2"), ask("YOLOv8-CLS"))
    torch.testing.assert_close(model.module(image), load_model("YOLOv8-CLS").module(image))


def test_program_of_other_size_is_refused(program: Path) -> None:
    assert "input size (64, 64), the checkpoint has (64, 96)" in refuse(
        read_checkpoint(program), "YOLOv8", input_size=(64, 64)
    )


def test_program_with_other_outputs_is_refused_with_expectation(program: Path) -> None:
    message = refuse(read_checkpoint(program), "YOLOv8-SEG")
    assert "prototypes (batch, mask, row, column)" in message


@pytest.mark.parametrize(
    ("architecture", "outputs"),
    [("YOLOv8", ((300, 4), (300,))), ("YOLOv8-CLS", ((1000,),)), ("YOLOv8-Pose", ((1, 4, 84), (1, 3, 84), (51,)))],
)
def test_program_output_with_too_few_axes_is_refused(
    architecture: str, outputs: tuple[tuple[int, ...], ...], tmp_path: Path
) -> None:
    class Flat(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(image.mean() * torch.ones(shape) for shape in outputs)

    torch.export.save(torch.export.export(Flat().eval(), (torch.rand(1, 3, 64, 64),)), tmp_path / "x.pt2")
    assert "it gives outputs of shapes" in refuse(read_checkpoint(tmp_path / "x.pt2"), architecture)


def test_program_without_image_input_is_refused(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.zeros(1, 3),)), tmp_path / "x.pt2")
    assert "expected one image (1, channels, height, width) of 1 (grey)" in refuse(
        read_checkpoint(tmp_path / "x.pt2"), "YOLOv8"
    )
