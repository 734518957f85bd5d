"""Makes networks of published architectures with synthetic weights, where no network trained on our images exists.

    PYTHONPATH=testdata:examples python -m models.untrained ARCHITECTURE SOURCE OUTPUT

YOLOv4 has no wider form of its tiny network, and FCN and DeepLabV3 are published on other backbones than the small one
that trains in minutes. Weights are drawn at random from one seed. Each batch normalisation takes the statistics of its
layer on images, and the last layers are scaled and shifted until their outputs spread like those of a trained network.
So no value vanishes or overflows, other images have other outputs, and the agreement of a file with such a network
means as much as with a trained one. The accuracy of such a network means nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import resnet

from modelexport_converter.architectures.torchvision import segmenters
from modelexport_converter.architectures.yolov4 import network as yolov4_network
from modelexport_converter.backends import Array
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.checkpoints.state_dict import trained_size
from models.widen import run_command
from trained.cells import inputs

SHIFT, SHARE = 3.0, 0.2
"""Of the normalised values before an activation, and of the output of a residual branch, in standard deviations."""
IMAGES = 8
"""Images for the statistics; a single one has none where a layer sees only an image's average."""
Spread = Callable[[int], torch.Tensor]
Build = Callable[[int, tuple[int, int]], nn.Module]


@dataclass(frozen=True)
class Untrained:
    """How to build a network for a number of classes and an input size, and how far its last layers' outputs spread."""

    build: Build
    last: tuple[str, ...]
    spread: Spread


def _segmenter(backbone: str, head: Callable[[int, int], nn.Module]) -> Build:
    def build(classes: int, _: tuple[int, int]) -> nn.Module:
        features, channels = segmenters.build_backbone(backbone)
        return segmenters.Segmenter(features, head(channels, classes))

    return build


def _logits(channels: int) -> torch.Tensor:
    """Return the spread of pixel logits, most of which are certain: (channels,)."""
    return torch.full((channels,), 3.0)


def _boxes(channels: int) -> torch.Tensor:
    """Return the spread of boxes, whose width and height are exponentials, and of their scores: (channels,)."""
    spread = torch.ones(yolov4_network.SHAPES, channels // yolov4_network.SHAPES)
    spread[:, 2:4] = 0.3
    return spread.flatten()


NETWORKS: Mapping[str, Untrained] = {
    "YOLOv4": Untrained(
        lambda classes, size: yolov4_network.Network(yolov4_network.WIDTH, classes, size),
        ("head.conv2.conv", "head.conv10.conv", "head.conv18.conv"),
        _boxes,
    ),
    "DeepLabV3": Untrained(
        _segmenter("resnet50", lambda channels, classes: segmenters.deeplab_head(channels, 256, classes)),
        ("classifier.4",),
        _logits,
    ),
    "FCN": Untrained(_segmenter("resnet50", segmenters.fcn_head), ("classifier.4",), _logits),
}
"""Networks as published: YOLOv4 itself, and the smallest that torchvision publishes on a ResNet."""


def write_untrained(architecture: str, source: Path, path: Path) -> None:
    """Write a network for the classes, the class names and the input size of the checkpoint ``source``."""
    facts = read_checkpoint(source).facts
    size = trained_size(facts, 1)
    assert size is not None
    network = make_synthetic(
        NETWORKS[architecture], len(facts["names"]), size, list(inputs(architecture, "calibration", IMAGES))
    )
    weights = {name: value for name, value in network.state_dict().items() if not name.startswith("decoder.")}
    torch.save({"model": weights, "imgsz": facts["imgsz"], "names": facts["names"]}, path)


def make_synthetic(row: Untrained, classes: int, size: tuple[int, int], images: Sequence[Array]) -> nn.Module:
    """Return a network whose outputs spread over ``images`` (1, C, H, W), in eval mode."""
    torch.manual_seed(0)
    network = row.build(classes, size).train()
    _damp(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # statistics of the last batch alone
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for name in row.last:
        network.get_submodule(name).register_forward_hook(_spread(row.spread))
    with torch.no_grad():
        network(torch.cat([torch.from_numpy(image) for image in images]))
    for name in row.last:
        network.get_submodule(name)._forward_hooks.clear()
    return network.eval()


def _damp(network: nn.Module) -> None:
    """Make layers nearly linear and residual branches small, as training does; else each layer amplifies errors."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, SHIFT)
    for module in network.modules():
        last: list[Any] = []
        if isinstance(module, resnet.Bottleneck):
            last = [module.bn3]
        if isinstance(module, yolov4_network.Residuals):
            last = [module.get_submodule(f"module_list.{index}.1.bn") for index in range(len(module.module_list))]
        for normalisation in last:
            nn.init.constant_(normalisation.weight, SHARE)
            nn.init.zeros_(normalisation.bias)


def _spread(spread: Spread) -> Callable[[Any, tuple[torch.Tensor, ...], torch.Tensor], None]:
    def scale(layer: Any, _: tuple[torch.Tensor, ...], answers: torch.Tensor) -> None:
        deviation, mean = torch.std_mean(answers, (0, 2, 3))
        factor = spread(len(mean)) / deviation
        layer.weight *= factor[:, None, None, None]
        layer.bias.copy_((layer.bias - mean) * factor)

    return scale


if __name__ == "__main__":
    run_command(__doc__ or "", NETWORKS, write_untrained)
