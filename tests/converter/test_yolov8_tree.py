"""Modified YOLOv8 networks: exported unchanged, or refused with the name of the unknown layer."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from converter.refusals import refuse
from modelexport.api.result import Reference
from modelexport_converter.architectures.yolov8.loader import load
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel
from trained.cells import ask

SIZE = (64, 128)
KINDS = {"": "YOLOv8", "-seg": "YOLOv8-SEG", "-cls": "YOLOv8-CLS", "-pose": "YOLOv8-Pose", "-obb": "YOLOv8-OBB"}
Config = dict[str, Any]


def config(name: str = "v8/yolov8.yaml", **values: Any) -> Config:
    import ultralytics

    text = (Path(ultralytics.__file__).parent / "cfg/models" / name).read_text(encoding="utf-8")
    return {**yaml.safe_load(text), "scale": "n", "nc": 3, **values}


def network(found: Config, channels: int = 3) -> Any:
    """One of ultralytics' networks, with weights and statistics as after a training."""
    from ultralytics.nn import tasks

    kind = {"Segment": "Segmentation", "Pose": "Pose", "Classify": "Classification", "OBB": "OBB"}
    torch.manual_seed(0)
    last = found["head"][-1][2].removesuffix("26")
    model = getattr(tasks, f"{kind.get(last, 'Detection')}Model")(found, ch=channels, verbose=False)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.7, 1.3, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
    return model.eval()


def save(model: Any, folder: Path) -> Path:
    torch.save({"model": model, "train_args": {"imgsz": 64}}, folder / "best.pt")
    return folder / "best.pt"


def expected(model: Any, image: torch.Tensor, architecture: str) -> tuple[torch.Tensor, ...]:
    """The outputs of ultralytics' own module in eval mode, split and divided as ours are."""
    copied = copy.deepcopy(model).float().eval()
    with torch.inference_mode():
        output, raw = copied(image)
        if architecture.endswith("-CLS"):
            return (output,)
        rows, *prototypes = output if isinstance(output, tuple) else (output,)
        if architecture.startswith("YOLO26"):
            rows = one_to_one_rows(copied.model[-1], raw["one2one"])
    height, width = image.shape[2:]
    classes = model.model[-1].nc
    boxes, scores, extra = rows.split((4, classes, rows.shape[1] - 4 - classes), 1)
    if architecture.endswith("-OBB"):
        return boxes, scores, extra
    outputs = (boxes / torch.tensor([width, height, width, height]).view(1, 4, 1), scores)
    if architecture.endswith("-SEG"):
        return (*outputs, extra, *prototypes)
    if architecture.endswith("-Pose"):
        shape = model.model[-1].kpt_shape
        scale = torch.tensor([width, height, 1.0][: shape[1]]).view(1, 1, shape[1], 1)
        return (*outputs, extra.view(1, *shape, -1) / scale)
    return outputs


def one_to_one_rows(head: Any, raw: dict[str, torch.Tensor]) -> torch.Tensor:
    """The answers (1, 4 + classes + further ones, N) of a one-to-one head, before ultralytics chooses the best.

    Boxes have centre and size. The head has run: it keeps the anchors of the image.
    """
    from ultralytics.utils.tal import dist2bbox

    if not hasattr(head, "ne"):  # boxes that are turned have no corners
        head.decode_bboxes = lambda boxes, anchors, _angle: dist2bbox(boxes, anchors, dim=1)
    return head._inference(raw)


def check_same(model: Any, folder: Path, architecture: str = "YOLOv8", size: tuple[int, int] = SIZE) -> LoadedModel:
    """The model of a checkpoint answers as ultralytics' own network does."""
    loaded = load(read_checkpoint(save(model, folder)), ask(architecture, input_size=size))
    image = loaded.example_input()
    wanted, found = expected(model, image, architecture), loaded.module(image)
    assert len(wanted) == len(found) == len(loaded.outputs)
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)
    assert loaded.reference is Reference.CHECKPOINT
    assert loaded.assumptions == ()
    return loaded


def without_shortcuts(found: Config) -> None:
    for layer in (2, 4, 6, 8):
        found["backbone"][layer][3][1] = False


def with_shortcuts_in_the_head(found: Config) -> None:
    for layer in (2, 5, 8, 11):
        found["head"][layer][3] = [found["head"][layer][3][0], True]


def with_bilinear_upsampling(found: Config) -> None:
    found["head"][0][3] = [None, 2, "bilinear"]


def with_another_stride(found: Config) -> None:
    found["backbone"][0][3] = [64, 3, 1]


def with_pooling_of_3(found: Config) -> None:
    found["backbone"][9][3] = [1024, 3]


def with_grouped_and_dilated_convolutions(found: Config) -> None:
    found["backbone"][1][3] = [128, 3, 2, None, 4]
    found["backbone"][3][3] = [256, 3, 2, None, 1, 2]


def with_a_depthwise_layer_and_pooling(found: Config) -> None:
    found["backbone"][1] = [-1, 1, "nn.MaxPool2d", [2, 2]]
    found["backbone"][5][2] = "DWConv"


def of_other_depth(found: Config) -> None:
    found["scales"] = {"n": [0.9, 0.4, 300]}


CHANGES = [
    without_shortcuts,
    with_shortcuts_in_the_head,
    with_bilinear_upsampling,
    with_another_stride,
    with_pooling_of_3,
    with_grouped_and_dilated_convolutions,
    with_a_depthwise_layer_and_pooling,
    of_other_depth,
]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_graph_is_exported(change: Callable[[Config], None], tmp_path: Path) -> None:
    found = config()
    change(found)
    check_same(network(found), tmp_path)


@pytest.mark.parametrize(
    "activation",
    [
        *("ReLU()", "ReLU6()", "LeakyReLU(0.1)", "Identity()", "Hardswish()", "Mish()", "GELU()", "ELU(0.5)"),
        *("Sigmoid()", "Tanh()", "Softplus()", "Hardtanh()", "PReLU()", "GELU('tanh')", "CELU(0.3)"),
    ],
)
def test_activation_of_checkpoint_is_exported(activation: str, tmp_path: Path) -> None:
    check_same(network(config(activation=f"torch.nn.{activation}")), tmp_path)


@pytest.mark.parametrize(("kind", "architecture"), KINDS.items())
def test_every_task_of_narrow_network_is_exported(kind: str, architecture: str, tmp_path: Path) -> None:
    found = config(f"v8/yolov8{kind}.yaml", scales={"n": [0.33, 0.125, 512]})
    check_same(network(found), tmp_path, architecture)


@pytest.mark.parametrize(("kind", "architecture"), KINDS.items())
def test_fused_network_is_exported(kind: str, architecture: str, tmp_path: Path) -> None:
    check_same(network(config(f"v8/yolov8{kind}.yaml")).fuse(verbose=False), tmp_path, architecture)


@pytest.mark.parametrize(
    ("name", "strides", "architecture"),
    [
        ("v8/yolov8-p2.yaml", "32", "YOLOv8"),
        ("v8/yolov8-p6.yaml", "64", "YOLOv8"),
        ("v8/yolov8-seg-p6.yaml", "64", "YOLOv8-SEG"),
        ("v8/yolov8-pose-p6.yaml", "64", "YOLOv8-Pose"),
    ],
)
def test_other_heads_are_exported(name: str, strides: str, architecture: str, tmp_path: Path) -> None:
    assert check_same(network(config(name)), tmp_path, architecture).metadata["stride"] == strides


@pytest.mark.parametrize("shape", [[5, 2], [6, 2], [1, 3], [17, 3]])
def test_keypoint_shape_comes_from_network(shape: list[int], tmp_path: Path) -> None:
    found = config("v8/yolov8-pose.yaml", kpt_shape=shape)
    assert (
        list(check_same(network(found), tmp_path, "YOLOv8-Pose").module(torch.zeros(1, 3, *SIZE))[2].shape)[1:3]
        == shape
    )


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_channel_count_comes_from_network(channels: int, tmp_path: Path) -> None:
    loaded = check_same(network(config(), channels=channels), tmp_path)
    assert loaded.input_shape == (1, channels, *SIZE)


@pytest.mark.parametrize("reg_max", [1, 8])
def test_other_box_distribution_is_exported(reg_max: int, tmp_path: Path) -> None:
    check_same(network(config(reg_max=reg_max)), tmp_path)


def test_head_of_later_release_is_exported(tmp_path: Path) -> None:
    """Its branches for classes have depthwise convolutions."""
    from ultralytics.nn.modules.head import Detect

    model = network(config())
    head = Detect(3, ch=[layer[0].conv.in_channels for layer in model.model[-1].cv2]).eval()
    head.stride, head.f, head.i, head.type = (getattr(model.model[-1], name) for name in ("stride", "f", "i", "type"))
    model.model[-1] = head
    check_same(model, tmp_path)


def test_batch_norm_epsilons_are_kept_per_layer(tmp_path: Path) -> None:
    model = network(config())
    model.model[0].bn.eps, model.model[4].cv1.bn.eps = 0.3, 1e-5
    check_same(model, tmp_path)


def test_half_precision_weights_load_as_float(tmp_path: Path) -> None:
    check_same(network(config()).half(), tmp_path)


def test_shared_weights_stay_shared(tmp_path: Path) -> None:
    model = network(config())
    model.model[2].m[0].cv2 = model.model[2].m[0].cv1
    check_same(model, tmp_path)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("12/yolo12.yaml", "this is YOLO12: layer model.6 is A2C2f"),
        ("12/yolo12-cls.yaml", "this is YOLO12: layer model.6 is A2C2f"),
        ("v5/yolov5.yaml", "this is YOLOv5u: layer model.2 is C3"),
        ("v9/yolov9t.yaml", "this is YOLOv9: layer model.2 is ELAN1"),
        ("v10/yolov10n.yaml", "this is YOLOv10: layer model.5 is SCDown"),
        ("v8/yolov8-world.yaml", "this is YOLO-World: layer model.12 is C2fAttn"),
        ("v8/yolov8-rtdetr.yaml", "this is RT-DETR: layer model.22 is RTDETRDecoder"),
        ("v8/yolov8-ghost.yaml", "this is neither YOLOv8, YOLO11 nor YOLO26: layer model.1 is GhostConv"),
    ],
)
def test_third_party_networks_are_named(name: str, family: str, tmp_path: Path) -> None:
    from ultralytics.nn import tasks

    kind = {"world": "World", "rtdetr": "RTDETRDetection"}
    kind["cls"] = "Classification"
    suffix = name.rpartition("-")[2].removesuffix(".yaml")
    model = getattr(tasks, f"{kind.get(suffix, 'Detection')}Model")(config(name, nc=80), ch=3, verbose=False)
    message = refuse(save(model, tmp_path), "YOLOv8", input_size=SIZE)
    assert family in message
    assert "architecture Custom" in message


def hook(model: Any) -> None:
    model.model[3].register_forward_hook(doubled)


def doubled(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
    return output * 2


def pre_hook(model: Any) -> None:
    model.model[4].m[0].cv1.conv.register_forward_pre_hook(halved)


def halved(_: nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    return (arguments[0] / 2,)


def weight_norm(model: Any) -> None:
    nn.utils.parametrizations.weight_norm(model.model[0].conv)


def method(model: Any) -> None:
    model.model[0].forward = model.model[1].forward


def unknown_activation(model: Any) -> None:
    model.model[0].act = nn.RReLU()


def no_statistics(model: Any) -> None:
    model.model[0].bn = nn.BatchNorm2d(16, track_running_stats=False)


def corners(model: Any) -> None:
    model.model[-1].xyxy = True


def no_strides(model: Any) -> None:
    model.model[-1].stride = torch.zeros(3)


def not_kept(model: Any) -> None:
    model.save = [index for index in model.save if index != 6]


def endless_map(model: Any) -> None:
    for layer in (10, 13):
        model.model[layer].scale_factor = 8.0
    model.model[0].conv.stride = model.model[1].conv.stride = model.model[3].conv.stride = (1, 1)
    model.model[0].conv.padding = (64, 64)


def changed_attribute(model: Any) -> None:
    model.model[1].conv.in_channels = 1 << 19


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (hook, "layer model.3 (Conv) has a hook"),
        (pre_hook, "layer model.4.m.0.cv1.conv (Conv2d) has a hook"),
        (method, "layer model.0 (Conv) has a method forward of its own"),
        (unknown_activation, "layer model.0.act is RReLU"),
        (no_statistics, "layer model.0.bn (BatchNorm2d) has no running statistics"),
        (corners, "layer model.22 (Detect) gives boxes as corners"),
        (no_strides, "layer model.22 (Detect) has the strides (0.0, 0.0, 0.0)"),
        (not_kept, "takes its input from a layer that is not before it, or whose output is not kept"),
        (endless_map, "more than 1024 values per pixel"),
        (changed_attribute, "has a weight of shape (32, 16, 3, 3)"),
    ],
)
def test_unknown_layer_is_refused_by_name(change: Callable[[nn.Module], None], problem: str, tmp_path: Path) -> None:
    model = network(config())
    change(model)
    assert problem in refuse(save(model, tmp_path), "YOLOv8", input_size=SIZE)


def test_impossible_channel_count_is_refused(tmp_path: Path) -> None:
    assert "images of 5 channels; images have 1 (grey)" in refuse(
        save(network(config(), 5), tmp_path), "YOLOv8", input_size=SIZE
    )


def test_size_not_divisible_by_strides_is_refused(tmp_path: Path) -> None:
    path = save(network(config("v8/yolov8-p6.yaml")), tmp_path)
    with pytest.raises(Failure, match="multiples of 64"):
        load(read_checkpoint(path), ask("YOLOv8", input_size=(96, 96)))


def test_pickled_network_of_other_package_is_named(tmp_path: Path) -> None:
    assert "torch.nn.modules.container.Sequential" in refuse(
        save(nn.Sequential(nn.Conv2d(3, 3, 3)), tmp_path), "YOLOv8", input_size=SIZE
    )
