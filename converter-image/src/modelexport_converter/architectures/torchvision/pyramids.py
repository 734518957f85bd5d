"""Builds feature pyramids (Lin et al., 2017, https://arxiv.org/abs/1612.03144) on torchvision's ResNets.

Depth, width and groups of the ResNet and the width of the pyramid are read from the weights, so that a
``wide_resnet50_2`` or a pyramid of 128 channels needs no parameter.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from modelexport_converter.checkpoints.state_dict import Tensors, mismatch

TORCHVISION_REMEDY = (
    "use a network as torchvision's builders make it, or save the part before the suppression of boxes as .pt2 for the "
    "architecture Custom"
)
_BODY = "backbone.body."
_PYRAMID = "backbone.fpn.layer_blocks.0"
_GROUPS = 32
_VARIANTS: Mapping[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
"""ResNets by whether their blocks have a bottleneck, and by the number of blocks in each of the four layers."""


def has_resnet(tensors: Tensors) -> bool:
    """Return whether the weights are those of a detector on a ResNet."""
    return f"{_BODY}conv1.weight" in tensors


def variant_of(tensors: Tensors) -> str:
    """Recognise a ResNet by its depth."""
    return _VARIANTS.get((_has_bottlenecks(tensors), _blocks(tensors)), f"a ResNet with blocks {_blocks(tensors)}")


def pyramid_width(tensors: Tensors) -> int:
    """Return the channels of every map of a pyramid."""
    # Checkpoints from before torchvision 0.13 name the convolution itself.
    return len(tensors[f"{_PYRAMID}.weight" if f"{_PYRAMID}.weight" in tensors else f"{_PYRAMID}.0.weight"])


def norm_of(tensors: Tensors, layer: str) -> Callable[..., nn.Module] | None:
    """Return the normalisation of a layer, if it has one: batch norm if it has running statistics, else group norm of
    32.
    """
    if f"{layer}.weight" not in tensors:
        return None
    if f"{layer}.running_mean" in tensors:
        return nn.BatchNorm2d
    if (channels := len(tensors[f"{layer}.weight"])) % _GROUPS:
        raise mismatch(
            f"{layer} normalises {channels} channels, which is no multiple of torchvision's {_GROUPS} groups; "
            f"{TORCHVISION_REMEDY}"
        )
    return partial(nn.GroupNorm, _GROUPS)


def build_pyramid(tensors: Tensors, first: int, extra: nn.Module) -> nn.Module:
    """Build a ResNet with a pyramid over its layers from ``first``, 1 to 4; ``extra`` adds coarser maps."""
    layers = range(first, 5)
    if _has_bottlenecks(tensors):
        width, per_group = tensors[f"{_BODY}layer1.0.conv2.weight"].shape[:2]
        resnet = ResNet(Bottleneck, list(_blocks(tensors)), groups=width // per_group, width_per_group=per_group)
    else:
        resnet = ResNet(BasicBlock, list(_blocks(tensors)))
    channels = [resnet.inplanes >> (4 - layer) for layer in layers]
    taken = {f"layer{layer}": str(index) for index, layer in enumerate(layers)}
    norm = norm_of(tensors, f"{_PYRAMID}.1")
    return cast(nn.Module, BackboneWithFPN(resnet, taken, channels, pyramid_width(tensors), extra, norm))


def _has_bottlenecks(tensors: Tensors) -> bool:
    return f"{_BODY}layer1.0.conv3.weight" in tensors


def _blocks(tensors: Tensors) -> tuple[int, ...]:
    """Return the number of blocks of each layer."""
    found = [re.match(rf"{_BODY}layer(\d)\.(\d+)\.conv1\.weight", name) for name in tensors]
    places = {(match[1], int(match[2])) for match in found if match}
    return tuple(sum(layer == wanted for layer, _ in places) for wanted in "1234")
