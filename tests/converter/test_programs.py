"""Programs of ordinary networks, read as data, give the same outputs as torch's own module."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves
from torchvision import models
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

from converter.pretended_device import pretended_device
from converter.refusals import refuse_file
from modelexport.api.reasons import Reason
from modelexport_converter.architectures.unet import UNet
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.compute_device import run_network
from modelexport_converter.programs.graph import Program
from modelexport_converter.programs.module import ProgramModule

pytestmark = pytest.mark.filterwarnings("ignore:The tensor attributes .*_flat_weights")  # torch's, of LSTM and GRU
Function = Callable[["Layers", torch.Tensor], Any]
IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def read(program: torch.export.ExportedProgram, path: Path) -> Program:
    torch.export.save(program, path)
    found = read_checkpoint(path).program
    assert found is not None
    return found


class Rows(nn.Module):
    """A layer that reads the rows of an image one after the other."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, image: torch.Tensor) -> Any:
        return self.layer(image.transpose(1, 2).flatten(2))


def swin() -> nn.Module:
    """Masks are made in place, and a part of a bias is zeroed."""
    sizes: dict[str, Any] = {"patch_size": [4, 4], "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2]}
    parts = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
    return SwinTransformer(**sizes, **parts, window_size=[2, 2], num_classes=5)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "ResNet": lambda: models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5, width_per_group=64),
    "MobileNet": lambda: models.mobilenet_v3_small(num_classes=5, reduced_tail=True),
    "ShuffleNet": lambda: models.shufflenet_v2_x0_5(num_classes=5),
    "ViT": lambda: models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5),
    "Swin": swin,
    "ConvNeXt": lambda: ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=5),
    "U-Net": lambda: UNet((4, 4, 8, 8, 8), 3, bilinear=True),
    "LSTM": lambda: Rows(nn.LSTM(96, 4, num_layers=2, bidirectional=True, batch_first=True)),
    "GRU": lambda: Rows(nn.GRU(96, 4, batch_first=True)),
    "Transformer": lambda: Rows(nn.TransformerEncoder(nn.TransformerEncoderLayer(96, 2, 16, batch_first=True), 1)),
}


@pytest.mark.parametrize("core", [False, True], ids=["exported", "core"])
@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_network_matches_its_program(build: Callable[[], nn.Module], core: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    check(build().eval(), core, tmp_path)


def check(network: nn.Module, core: bool, folder: Path) -> Program:
    exported = torch.export.export(network, (IMAGE.clone(),))
    exported = exported.run_decompositions() if core else exported
    program = read(exported, folder / "x.pt2")
    with torch.inference_mode():
        wanted = exported.module(check_guards=False)(IMAGE.clone())
        module = ProgramModule(program)
        found = module(IMAGE.clone())
        with pretended_device():
            elsewhere = run_network(module, IMAGE.clone())
    for one, other in zip(found, filter(torch.is_tensor, tree_leaves(wanted)), strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(elsewhere, found)
    return program


class Layers(nn.Module):
    """Layers for a function of them and of the image."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.tied = self.conv
        self.unused = nn.Linear(2, 2)
        self.instance, self.group = nn.InstanceNorm2d(4), nn.GroupNorm(2, 4)
        self.weighted = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1))
        self.steps: torch.Tensor
        self.register_buffer("steps", torch.arange(4.0))
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


def written_views(layers: Layers, x: torch.Tensor) -> Any:
    y = layers.conv(x)
    y[:, 1:3] *= 2
    y[:, 0] += 1
    y[..., ::2].transpose(2, 3).sub_(1)
    y.view(1, 4, -1)[0].mul_(y.sum())
    y[y > 0] = 0
    y.permute(0, 2, 3, 1)[..., 1].copy_(torch.ones(()))
    y.narrow(2, -3, 2).fill_(3.0)
    y.diagonal(0, 2, 3).add_(1)
    return y


def written_later(layers: Layers, x: torch.Tensor) -> Any:
    """A view made before a write sees it, and a copy does not."""
    y = layers.conv(x)
    view, copy = y[:, :2], y.clone()
    y += 1
    view *= 3
    return view, copy, y.unsqueeze_(0).squeeze_(0), y.relu_()


def written_image(layers: Layers, x: torch.Tensor) -> Any:
    x.sub_(0.5).div_(0.25)
    return layers.conv(x)


def made(layers: Layers, x: torch.Tensor) -> Any:
    canvas = torch.zeros(1, 4, 32, 32)
    canvas[:, :3] = x
    return canvas + torch.linspace(0, 1, 32) + layers.steps[:, None, None] + torch.tensor(2.0)


def packed(layers: Layers, x: torch.Tensor) -> Any:
    with torch.no_grad():
        y = layers.conv(x)
    return {"y": y, "more": [y + 1, None, (layers.tied(x),)]}


def normalised(layers: Layers, x: torch.Tensor) -> Any:
    y = layers.conv(x)
    return layers.instance(y), layers.group(y), layers.weighted(y)


def resized(layers: Layers, x: torch.Tensor) -> Any:
    return (
        functional.interpolate(x, scale_factor=1.7, mode="bicubic"),
        functional.interpolate(x, (11, 13), mode="bilinear"),
        functional.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True),
        functional.pad(x, (1, 2, 3, 4), mode="reflect"),
        functional.grid_sample(x, x[:, :2, :4, :4].permute(0, 2, 3, 1), align_corners=False),
        functional.pixel_shuffle(layers.conv(x), 2),
    )


def chosen(layers: Layers, x: torch.Tensor) -> Any:
    return (
        *(x[:, [2, 0]], x.gather(1, x.argmax(1, True)), x.topk(2, 1)[0], x.sort(-1)[1], x.cumsum(2), x.mT @ x),
        *(
            torch.where(x > 0.5, x, 0.0),
            x.roll(2, 3),
            torch.einsum("bchw,bcxy->bhx", x, x),
            x.masked_fill(x > 1, -torch.inf),
        ),
        *(x.std(1), functional.normalize(x), functional.one_hot(x.argmax(1), 3), (x.half() + 1).float()),
    )


@pytest.mark.parametrize("core", [False, True], ids=["exported", "core"])
@pytest.mark.parametrize(
    "function", [written_views, written_later, written_image, made, packed, normalised, resized, chosen]
)
def test_function_matches_its_program(function: Function, core: bool, tmp_path: Path) -> None:
    program = check(Layers(function).eval(), core, tmp_path)
    assert not [node.operator for node in program.nodes if node.operator.partition(".")[0].endswith("_")]


def test_unused_weights_are_dropped(tmp_path: Path) -> None:
    program = read(torch.export.export(Layers(packed).eval(), (IMAGE,)), tmp_path / "x.pt2")
    assert {"unused.weight", "conv.weight", "tied.weight"} <= program.parameters
    assert [tuple(weight.shape) for weight in program.weights.values()] == [(4, 3, 3, 3), (4,)]
    assert not program.buffers


def test_values_are_released_after_last_use(tmp_path: Path) -> None:
    def long(layers: Layers, x: torch.Tensor) -> torch.Tensor:
        for _ in range(30):
            x = x + 1
        return x

    held: dict[int, torch.Tensor] = {}
    module = ProgramModule(read(torch.export.export(Layers(long).eval(), (IMAGE,)), tmp_path / "x.pt2"))
    held[module.program.inputs[0]] = IMAGE
    for step in module._steps:
        step.run(held)
        assert len(held) == 1


class Trained(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.conv, self.layer = nn.Conv2d(3, 8, 3), layer

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layer(self.conv(image))


TRAINED = {
    "batch norm": nn.BatchNorm2d(8),
    "batch norm behind dropout": nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(8)),
    "dropout": nn.Dropout(0.5),
    "dropout in place": nn.Dropout(0.5, inplace=True),
    "dropout of maps": nn.Dropout2d(0.1),
    "alpha dropout": nn.AlphaDropout(0.1),
    "instance norm with statistics": nn.InstanceNorm2d(8, track_running_stats=True),
}


@pytest.mark.parametrize("core", [False, True], ids=["exported", "core"])
@pytest.mark.parametrize("layer", TRAINED.values(), ids=TRAINED)
@pytest.mark.filterwarnings("ignore:.*training mode")
def test_program_in_training_mode_is_refused(layer: nn.Module, core: bool, tmp_path: Path) -> None:
    exported = torch.export.export(Trained(layer).train(), (IMAGE,))
    refuse_trained(exported.run_decompositions() if core else exported, tmp_path)


def test_recurrent_program_in_training_mode_is_refused(tmp_path: Path) -> None:
    layer = nn.Sequential(nn.Flatten(2), nn.LSTM(900, 4, num_layers=2, dropout=0.1))
    refuse_trained(torch.export.export(Trained(layer).train(), (IMAGE,)), tmp_path)


def refuse_trained(exported: torch.export.ExportedProgram, tmp_path: Path) -> None:
    torch.export.save(exported, tmp_path / "x.pt2")
    failure = refuse_file(tmp_path / "x.pt2")
    assert failure.reason is Reason.CHECKPOINT_MISMATCH
    assert "in training mode" in str(failure)
    assert "call model.eval() before torch.export.export" in str(failure)


def test_unknown_operator_is_reported_with_its_line(tmp_path: Path) -> None:
    class Waves(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.fft2(x).abs()

    torch.export.save(torch.export.export(Waves().eval(), (IMAGE,)), tmp_path / "x.pt2")
    failure = refuse_file(tmp_path / "x.pt2")
    assert failure.reason is Reason.CHECKPOINT_MISMATCH
    assert "aten.fft_fft2.default (test_programs.py, line" in str(failure)
    assert "in forward: return torch.fft.fft2(x).abs()) is an operator that" in str(failure)


def test_operator_location_skips_generated_code(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.mean() > 0, lambda x: x * 2, lambda x: x + 1, (x,))

    torch.export.save(torch.export.export(Branching().eval(), (IMAGE,)), tmp_path / "x.pt2")
    failure = refuse_file(tmp_path / "x.pt2")
    assert "test_programs.py, line" in str(failure)
    assert "in forward: return torch.cond(" in str(failure)


def test_stateful_program_is_refused(tmp_path: Path) -> None:
    def counting(layers: Layers, x: torch.Tensor) -> torch.Tensor:
        layers.steps.add_(1)
        return layers.conv(x) + layers.steps[:, None, None]

    torch.export.save(torch.export.export(Layers(counting).eval(), (IMAGE,)), tmp_path / "x.pt2")
    failure = refuse_file(tmp_path / "x.pt2")
    assert failure.reason is Reason.CHECKPOINT_MISMATCH
    assert "it changes steps at every call" in str(failure)


def test_autocast_program_is_refused(tmp_path: Path) -> None:
    def automatic(layers: Layers, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return layers.conv(x)

    torch.export.save(torch.export.export(Layers(automatic).eval(), (IMAGE,)), tmp_path / "x.pt2")
    failure = refuse_file(tmp_path / "x.pt2")
    assert failure.reason is Reason.CHECKPOINT_MISMATCH
    assert "export it without autocast" in str(failure)
