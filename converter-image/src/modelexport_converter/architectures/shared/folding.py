"""Folds batch normalisation into the preceding convolutions, so that no quantiser sees one without the other."""

from itertools import pairwise
from typing import Any

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d

from modelexport_converter.norm_statistics import attach_statistics

_NORMALISATIONS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def freeze(network: nn.Module) -> nn.Module:
    """Prepare a network for export, in place: set eval mode, freeze parameters, fold batch normalisation.

    A normalisation is folded into the convolution registered directly before it under the same parent, the order that
    torchvision and every ``Sequential`` use.

    Returns:
        The same module.
    """
    network.eval().requires_grad_(False)
    for parent in network.modules():
        names = [name for name, _ in parent.named_children()]
        for first, second in pairwise(names):
            convolution, normalisation = parent.get_submodule(first), parent.get_submodule(second)
            if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, _NORMALISATIONS):
                _fold(convolution, normalisation)
                setattr(parent, second, nn.Identity())
    return network


def _fold(convolution: nn.Conv2d, normalisation: Any) -> None:
    """Fold a normalisation: w' = w g / s, Jacob et al., "Quantization and Training of Neural Networks ...", 2018,
    section 3.2.
    """
    mean, variance = normalisation.running_mean, normalisation.running_var
    scale, shift = normalisation.weight, normalisation.bias
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, mean, variance, normalisation.eps, scale, shift
    )
    convolution.weight = nn.Parameter(weight.detach(), requires_grad=False)
    convolution.bias = nn.Parameter(bias.detach(), requires_grad=False)
    attach_statistics(convolution, normalisation)
