"""Feature pyramids (Lin et al., 2017, https://arxiv.org/abs/1612.03144) on torchvision's ResNets.

Depth, width and groups of the ResNet and the width of the pyramid are read from the weights, so that a
``wide_resnet50_2`` or a pyramid of 128 channels needs no parameter.
"""

import re
from collections.abc import Mapping
from typing import cast

from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from modelexport_converter.matching import Tensors

_BODY = "backbone.body."
_WIDTH = "backbone.fpn.layer_blocks.0.0.weight"
_VARIANTS: Mapping[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
"""By whether blocks have a bottleneck, and how many of them each of the four layers has."""


def has_resnet(tensors: Tensors) -> bool:
    """Whether the weights are those of a detector on a ResNet."""
    return f"{_BODY}conv1.weight" in tensors


def variant_of(tensors: Tensors) -> str:
    """Tell a ResNet by its depth."""
    return _VARIANTS.get((_has_bottlenecks(tensors), _blocks(tensors)), f"a ResNet with blocks {_blocks(tensors)}")


def pyramid_width(tensors: Tensors) -> int:
    """Channels of every map of a pyramid."""
    return len(tensors[_WIDTH])


def build_pyramid(tensors: Tensors, first: int, extra: nn.Module) -> nn.Module:
    """Build a ResNet with a pyramid over its layers from ``first``, 1 to 4; ``extra`` makes coarser maps."""
    layers = range(first, 5)
    resnet = _build_resnet(tensors)
    channels = [resnet.inplanes >> (4 - layer) for layer in layers]
    taken = {f"layer{layer}": str(index) for index, layer in enumerate(layers)}
    return cast(nn.Module, BackboneWithFPN(resnet, taken, channels, pyramid_width(tensors), extra))


def _build_resnet(tensors: Tensors) -> ResNet:
    if not _has_bottlenecks(tensors):
        return ResNet(BasicBlock, list(_blocks(tensors)))
    width, per_group = tensors[f"{_BODY}layer1.0.conv2.weight"].shape[:2]
    return ResNet(Bottleneck, list(_blocks(tensors)), groups=width // per_group, width_per_group=per_group)


def _has_bottlenecks(tensors: Tensors) -> bool:
    return f"{_BODY}layer1.0.conv3.weight" in tensors


def _blocks(tensors: Tensors) -> tuple[int, ...]:
    """How many blocks each layer has."""
    found = [re.match(rf"{_BODY}layer(\d)\.(\d+)\.conv1\.weight", name) for name in tensors]
    places = {(match[1], int(match[2])) for match in found if match}
    return tuple(sum(layer == wanted for layer, _ in places) for wanted in "1234")
