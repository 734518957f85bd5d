"""Semantic segmentation networks: equal to torchvision's and to the paper's, strict about their checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import mobilenetv3, segmentation
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FrozenBatchNorm2d

from converter.refusals import refuse
from modelexport_converter.architectures.shared.folding import freeze
from modelexport_converter.architectures.unet import UNet
from modelexport_converter.checkpoints.checkpoint import Checkpoint, read_checkpoint
from modelexport_converter.failures import Failure
from trained.cells import TRAINED, ask, load, load_model, run_model
from trained.semantic_cells import CLASSES

SEMANTIC = ("DeepLabV3", "FCN", "UNet")
SIZE = (64, 96)

Tensors = Mapping[str, torch.Tensor]


def of_torchvision(name: str, aux: bool = False, **options: Any) -> nn.Module:
    """One of torchvision's networks of four classes, with statistics as after some training."""
    torch.manual_seed(0)
    network: nn.Module = getattr(segmentation, name)(
        weights=None, weights_backbone=None, num_classes=4, aux_loss=aux, **options
    )
    return warmed(network)


def warmed(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            module.momentum = None
    network.train()
    with torch.inference_mode():
        network(torch.rand(4, 3, *SIZE, generator=torch.Generator().manual_seed(1)))
    return network.eval()


def check_equal(architecture: str, network: nn.Module, tensors: Tensors | None = None) -> None:
    """Compare as probabilities with a network that returns logits, or torchvision's dict of them."""
    model = load(Checkpoint(tensors or network.state_dict()), ask(architecture, input_size=SIZE))
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        logits = network(image)
        logits = logits["out"] if isinstance(logits, dict) else logits
        (found,) = model.module(image)
    expected = logits.softmax(1) if logits.shape[1] > 1 else logits.sigmoid()
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large", "fcn_resnet50", "fcn_resnet101"],
)
def test_torchvision_network_gives_same_probabilities(name: str) -> None:
    check_equal("DeepLabV3" if name.startswith("deeplab") else "FCN", of_torchvision(name))


@pytest.mark.parametrize("name", ["deeplabv3_mobilenet_v3_large", "fcn_resnet50"])
def test_auxiliary_head_is_ignored(name: str) -> None:
    network = of_torchvision(name, aux=True)
    assert any(key.startswith("aux_classifier.") for key in network.state_dict())
    check_equal("DeepLabV3" if name.startswith("deeplab") else "FCN", network)


@pytest.mark.parametrize("large", [True, False])
def test_fcn_accepts_mobilenet_backbone(large: bool) -> None:
    build = mobilenetv3.mobilenet_v3_large if large else mobilenetv3.mobilenet_v3_small
    features = build(weights=None, dilated=True).features
    backbone = IntermediateLayerGetter(features, {str(len(features) - 1): "out"})
    network = segmentation.FCN(backbone, segmentation.fcn.FCNHead(features[-1].out_channels, 4))
    check_equal("FCN", warmed(network))


def test_frozen_batch_norm_loads() -> None:
    network = of_torchvision("fcn_resnet50")
    tensors = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    check_equal("FCN", network, tensors)


def test_frozen_batch_norm_is_folded() -> None:
    torch.manual_seed(0)
    normalisation = FrozenBatchNorm2d(4)
    for value in (normalisation.weight, normalisation.bias, normalisation.running_mean, normalisation.running_var):
        nn.init.uniform_(value, 0.5, 1.5)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), normalisation, nn.ReLU()).eval()
    image = torch.rand(1, 3, 8, 8)
    expected = network(image)
    torch.testing.assert_close(freeze(network)(image), expected)
    assert isinstance(network[1], nn.Identity)


class Plain(nn.Module):
    """The U-Net of the paper with batch normalisation, computed step by step from the weights of a state dict."""

    def __init__(self, weights: Tensors) -> None:
        super().__init__()
        self.weights = dict(weights)
        self.aligned = True

    def convolve(self, x: torch.Tensor, name: str) -> torch.Tensor:
        for index in (0, 3):
            layer, norm = f"{name}.double_conv.{index}", f"{name}.double_conv.{index + 1}"
            x = functional.conv2d(x, self.weights[f"{layer}.weight"], self.weights.get(f"{layer}.bias"), padding=1)
            mean, var, weight, bias = (
                self.weights.get(f"{norm}.{part}") for part in ("running_mean", "running_var", "weight", "bias")
            )
            x = functional.batch_norm(x, mean, var, weight, bias)
            x = functional.relu(x)
        return x

    def raise_up(self, x: torch.Tensor, level: int) -> torch.Tensor:
        name = f"up{level}.up"
        if f"{name}.weight" in self.weights:
            return functional.conv_transpose2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 2)
        return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=self.aligned)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        kept = [self.convolve(image, "inc")]
        for level in range(1, 5):
            kept.append(self.convolve(functional.max_pool2d(kept[-1], 2), f"down{level}.maxpool_conv.1"))
        x = kept.pop()
        for level in range(1, 5):
            x = self.convolve(torch.cat([kept.pop(), self.raise_up(x, level)], 1), f"up{level}.conv")
        return functional.conv2d(x, self.weights["outc.conv.weight"], self.weights["outc.conv.bias"])


@pytest.mark.parametrize("bilinear", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("classes", [1, 3])
def test_unet_variants_match_published_probabilities(bilinear: bool, bias: bool, classes: int) -> None:
    torch.manual_seed(0)
    weights = warmed(UNet((4, 8, 16, 32, 32 if bilinear else 64), classes, bilinear, bias)).state_dict()
    check_equal("UNet", Plain(weights), weights)


def test_unet_has_published_parameter_count() -> None:
    def count(network: nn.Module) -> int:
        return sum(weight.numel() for weight in network.parameters())

    assert count(UNet((64, 128, 256, 512, 1024), 1)) == 31_037_633
    assert count(UNet((64, 128, 256, 512, 512), 1, bilinear=True)) == 17_262_977


@pytest.mark.parametrize("architecture", SEMANTIC)
def test_names_size_and_variant_come_from_checkpoint(architecture: str) -> None:
    model = load_model(architecture)
    assert model.class_names == CLASSES
    assert list(model.input_size) == read_checkpoint(TRAINED[architecture].weights).facts["imgsz"]
    assert model.metadata.get("variant") == (None if architecture == "UNet" else "mobilenet_v3_small")
    assert model.preprocessing.resize == "stretch"


@pytest.mark.parametrize("architecture", SEMANTIC)
def test_wrong_class_count_is_refused_with_both_numbers(architecture: str) -> None:
    tensors = read_checkpoint(TRAINED[architecture].weights).tensors
    assert "asks for number of classes 21, the checkpoint has 4; correct" in refuse(
        tensors, architecture, num_classes=21
    )
    load(Checkpoint(tensors), ask(architecture, num_classes=4))


@pytest.mark.parametrize("architecture", SEMANTIC)
@pytest.mark.parametrize("other", SEMANTIC)
def test_other_architecture_is_refused_by_name(architecture: str, other: str) -> None:
    if architecture != other:
        message = refuse(read_checkpoint(TRAINED[other].weights).tensors, architecture)
        if architecture == "UNet":
            assert "the weights have other names, and a U-Net of PyTorch-UNet has inc, down1 to down4" in message
        else:
            assert f"the export asks for architecture {architecture}, the checkpoint has " in message
            assert other == "UNet" or f"the checkpoint has {other};" in message


def test_other_backbone_is_refused_with_both_names() -> None:
    message = refuse(read_checkpoint(TRAINED["FCN"].weights).tensors, "FCN", variant="resnet50")
    assert "asks for variant resnet50, the checkpoint has mobilenet_v3_small" in message


@pytest.mark.parametrize("architecture", SEMANTIC)
def test_weights_of_wrong_shape_are_named(architecture: str) -> None:
    tensors = dict(read_checkpoint(TRAINED[architecture].weights).tensors)
    name = [name for name, value in tensors.items() if value.ndim == 4][3]
    tensors[name] = tensors[name][:-1]
    message = refuse(tensors, architecture)
    assert "do not fit" in message
    assert name in message


@pytest.mark.parametrize("architecture", SEMANTIC)
def test_every_pixel_has_probability_per_class(architecture: str) -> None:
    height, width = load_model(architecture).input_size
    (probabilities,) = run_model(architecture, torch.rand(1, 3, height, width).numpy())
    assert probabilities.shape == (1, 4, height, width)
    torch.testing.assert_close(torch.from_numpy(probabilities).sum(1), torch.ones(1, height, width))
    assert probabilities.min() >= 0


def save(network: torch.nn.Module, image: torch.Tensor, folder: Path) -> Checkpoint:
    torch.export.save(torch.export.export(network.eval(), (image,)), folder / "x.pt2")
    return read_checkpoint(folder / "x.pt2")


@pytest.mark.parametrize("architecture", SEMANTIC)
def test_matching_program_is_accepted_and_other_refused(architecture: str, tmp_path: Path) -> None:
    tensors = read_checkpoint(TRAINED[architecture].weights).tensors
    original = load(Checkpoint(tensors), ask(architecture, input_size=SIZE))
    model = load(save(original.module, original.example_input(), tmp_path), ask(architecture))
    assert model.input_size == SIZE
    torch.testing.assert_close(
        model.module(original.example_input())[0], original.module(original.example_input())[0], rtol=1e-4, atol=1e-5
    )
    logits = save(original.module.get_submodule("network"), original.example_input(), tmp_path)
    if architecture == "UNet":
        with pytest.raises(Failure, match="number of classes 3, the checkpoint has 4"):
            load(logits, ask(architecture, num_classes=3))
    else:
        with pytest.raises(Failure, match=r"the \.pt2 archive does not fit: it gives outputs of shapes"):
            load(logits, ask(architecture))
