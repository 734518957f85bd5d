"""Makes networks that users have and nobody has trained on our pictures: published layers, weights made up.

    PYTHONPATH=tests:tests/models:examples .venv/bin/python tests/models/untrained.py ARCHITECTURE SOURCE OUTPUT

YOLOv4 has no wider form of its tiny network, and FCN and DeepLabV3 are published on other backbones than the small one
that learned in minutes. Weights are drawn at random from one seed. Each batch normalisation takes the statistics of its
layer on pictures, and the last layers are scaled and shifted until their answers spread as those of a trained network:
so no value vanishes or overflows on its way, other pictures have other answers, and the agreement of a file with such
a network says as much as with one that has learned. The accuracy of such a network says nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torchvision.models import resnet
from widen import run_command

from converter.cells import inputs
from modelexport_converter.architectures import torchvision_segmenters, yolov4_network
from modelexport_converter.backends import Array
from modelexport_converter.checkpoint import read_checkpoint
from modelexport_converter.matching import trained_size

SHIFT, SHARE = 3.0, 0.2
"""Of the normalised values before an activation, and of what a residual branch adds, in standard deviations."""
PICTURES = 8
"""On which statistics are taken; one cannot be normalised, where a layer sees a picture's average alone."""
Spread = Callable[[int], torch.Tensor]
Build = Callable[[int, tuple[int, int]], nn.Module]


@dataclass(frozen=True)
class Untrained:
    """How a network is built for so many classes and an input size, and how far its last layers' answers spread."""

    build: Build
    last: tuple[str, ...]
    spread: Spread


def _segmenter(backbone: str, head: Callable[[int, int], nn.Module]) -> Build:
    def build(classes: int, _: tuple[int, int]) -> nn.Module:
        features, channels = torchvision_segmenters.build_backbone(backbone)
        return torchvision_segmenters.Segmenter(features, head(channels, classes))

    return build


def _logits(channels: int) -> torch.Tensor:
    """Of the classes of pixels, most of which are certain."""
    return torch.full((channels,), 3.0)


def _boxes(channels: int) -> torch.Tensor:
    """Of boxes, whose width and height are powers, and of what is in them."""
    spread = torch.ones(yolov4_network.SHAPES, channels // yolov4_network.SHAPES)
    spread[:, 2:4] = 0.3
    return spread.flatten()


def _deeplab_head(channels: int, classes: int) -> nn.Module:
    return torchvision_segmenters.deeplab_head(channels, 256, classes)


NETWORKS: Mapping[str, Untrained] = {
    "YOLOv4": Untrained(
        lambda classes, size: yolov4_network.Network(yolov4_network.WIDTH, classes, size),
        ("head.conv2.conv", "head.conv10.conv", "head.conv18.conv"),
        _boxes,
    ),
    "DeepLabV3": Untrained(_segmenter("resnet50", _deeplab_head), ("classifier.4",), _logits),
    "FCN": Untrained(_segmenter("resnet50", torchvision_segmenters.fcn_head), ("classifier.4",), _logits),
}
"""Networks as published: YOLOv4 itself, and the smallest that torchvision publishes on a ResNet."""


def write_untrained(architecture: str, source: Path, path: Path) -> None:
    """Write a network for the classes and the input size of the checkpoint ``source``, with its names of classes."""
    facts = read_checkpoint(source).facts
    size = trained_size(facts, 1)
    assert size is not None
    network = make_up(
        NETWORKS[architecture], len(facts["names"]), size, list(inputs(architecture, "calibration", PICTURES))
    )
    weights = {name: value for name, value in network.state_dict().items() if not name.startswith("decoder.")}
    torch.save({"model": weights, "imgsz": facts["imgsz"], "names": facts["names"]}, path)


def make_up(row: Untrained, classes: int, size: tuple[int, int], pictures: Sequence[Array]) -> nn.Module:
    """A network that spreads its answers to ``pictures``, in eval mode."""
    torch.manual_seed(0)
    network = row.build(classes, size).train()
    _calm(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # what is seen last counts alone
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for name in row.last:
        network.get_submodule(name).register_forward_hook(_spread(row.spread))
    with torch.no_grad():
        network(torch.cat([torch.from_numpy(picture) for picture in pictures]))
    for name in row.last:
        network.get_submodule(name)._forward_hooks.clear()
    return network.eval()


def _calm(network: nn.Module) -> None:
    """Make layers nearly linear and residual branches small, as training does: else each amplifies what is wrong."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, SHIFT)
    for module in network.modules():
        last = []
        if isinstance(module, resnet.Bottleneck):
            last = [module.bn3]
        if isinstance(module, yolov4_network.Residuals):
            last = [pair[1].bn for pair in module.module_list]
        for normalisation in last:
            nn.init.constant_(normalisation.weight, SHARE)
            nn.init.zeros_(normalisation.bias)


def _spread(spread: Spread) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
    def scale(layer: nn.Module, _: tuple[torch.Tensor, ...], answers: torch.Tensor) -> None:
        deviation, mean = torch.std_mean(answers, (0, 2, 3))
        factor = spread(len(mean)) / deviation
        layer.weight *= factor[:, None, None, None]
        layer.bias.copy_((layer.bias - mean) * factor)

    return scale


if __name__ == "__main__":
    run_command(__doc__ or "", NETWORKS, write_untrained)
