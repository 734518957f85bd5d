"""Folds batch normalisation into the convolutions before it, so that no quantiser sees one without the other."""

from itertools import pairwise
from typing import Any

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d

from modelexport_converter.statistics import remember

_NORMALISATIONS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def freeze(network: nn.Module) -> nn.Module:
    """Prepare a network for capture: eval mode, parameters frozen, normalisation folded; the same module, changed.

    A normalisation is folded into the convolution that is registered directly before it under the same parent, which
    is how torchvision and every ``Sequential`` order them.
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
    """Jacob et al., "Quantization and Training of Neural Networks ...", 2018, section 3.2: w' = w g / s."""
    mean, variance = normalisation.running_mean, normalisation.running_var
    scale, shift = normalisation.weight, normalisation.bias
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, mean, variance, normalisation.eps, scale, shift
    )
    convolution.weight = nn.Parameter(weight.detach(), requires_grad=False)
    convolution.bias = nn.Parameter(bias.detach(), requires_grad=False)
    remember(convolution, normalisation)
