"""U-Net (Ronneberger et al., 2015) with batch normalisation and padded convolutions, as it is used today.

Weights are named as in the widely used PyTorch-UNet: ``inc``, ``down1`` to ``down4``, ``up1`` to ``up4`` and ``outc``.
How wide each level is, whether the way up interpolates or has weights of its own, whether convolutions have a bias, and
how many classes there are, is read from the checkpoint.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from modelexport.spec import Model, Parameters
from modelexport_converter.checkpoint import Checkpoint
from modelexport_converter.folding import freeze
from modelexport_converter.matching import Tensors, check_channels, fill, mismatch, own_weights
from modelexport_converter.model import LoadedModel, Preprocessing
from modelexport_converter.semantic import Found, assumed_normalisation, check_found, describe, load_program

DEPTH = 4
"""How often the picture is halved; its sides must be multiples of 2 ** 4."""
_FIRST, _LAST = "inc.double_conv.0.weight", "outc.conv.weight"
_OF_ANOTHER = "segmentation_head.0.weight"
_LEVELS = (_FIRST, *(f"down{level + 1}.maxpool_conv.1.double_conv.0.weight" for level in range(DEPTH)))
_PREPROCESSING = Preprocessing("stretch")


def load(checkpoint: Checkpoint, model: Model) -> LoadedModel:
    """Build the network of a checkpoint, ready for capture.

    Raises:
        Failure: with reason ``CheckpointMismatch``, naming what was asked and what was found.
    """
    if checkpoint.program is not None:
        return load_program(checkpoint, model, _PREPROCESSING)
    tensors = own_weights(checkpoint.tensors, _LAST)
    found = _recognise(tensors)
    check_found(found, model)
    pictures = _PREPROCESSING.taking(check_channels(tensors[_FIRST].shape[1]))
    widths = [len(tensors[name]) for name in _LEVELS]
    bilinear, bias = "up1.up.weight" not in tensors, "inc.double_conv.0.bias" in tensors
    kept = "mask_values" in tensors  # what the classes are in the pictures of the training
    weights = {name: tensors[name] for name in tensors if name != "mask_values"} if kept else tensors
    aligned = _aligns_corners(bilinear, model.parameters)
    network = UNet(widths, found.classes, bilinear, bias, channels=pictures.channels, aligned=aligned)
    fill(network, weights, f"a U-Net of widths {widths}")
    described = describe(freeze(network), found, checkpoint, model, pictures)
    return replace(described, assumptions=_assumptions(bilinear, pictures, model.parameters))


def _aligns_corners(bilinear: bool, parameters: Parameters) -> bool:
    """Whether upsampling aligns corners: as PyTorch-UNet's does unless an export says otherwise.

    Raises:
        Failure: ``CheckpointMismatch``: it says so of a network that has weights of its own there.
    """
    if not bilinear and parameters.align_corners is not None:
        raise mismatch("alignCorners is for bilinear upsampling, the checkpoint has transposed convolutions; remove it")
    return parameters.align_corners is not False


def _assumptions(bilinear: bool, pictures: Preprocessing, parameters: Parameters) -> tuple[str, ...]:
    assumed = bilinear and parameters.align_corners is None
    return (
        "activation ReLU",
        "maximum pooling 2x2",
        *(("bilinear upsampling, align_corners",) if assumed else ()),
        "normalisation epsilon 1e-05",
        *assumed_normalisation(pictures, parameters),
    )


def _recognise(tensors: Tensors) -> Found:
    if not {*_LEVELS, _LAST} <= set(tensors):
        whose = "are those of segmentation_models_pytorch" if _OF_ANOTHER in tensors else "have other names"
        raise mismatch(
            f"the weights {whose}, and a U-Net of PyTorch-UNet has inc, down1 to down4, up1 to up4 and outc; save the "
            "model, with a softmax or sigmoid as its last layer, with torch.export.save as .pt2, for the same "
            "architecture"
        )
    return Found("UNet", len(tensors[_LAST]))


class DoubleConv(nn.Module):
    """Twice a 3x3 convolution, normalisation and ReLU; keeps height and width."""

    def __init__(self, inputs: int, middle: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(inputs, middle, 3, padding=1, bias=bias),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, outputs, 3, padding=1, bias=bias),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, height, width) to (1, outputs, height, width)."""
        y: torch.Tensor = self.double_conv(x)
        return y


class Down(nn.Module):
    """Half the height and width."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(inputs, outputs, outputs, bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, height, width) to (1, outputs, height / 2, width / 2)."""
        y: torch.Tensor = self.maxpool_conv(x)
        return y


class Up(nn.Module):
    """Twice the height and width, by learned weights or bilinear, and joined with what the way down kept."""

    def __init__(self, inputs: int, kept: int, outputs: int, *, bilinear: bool, bias: bool, aligned: bool) -> None:
        super().__init__()
        self.up: nn.Module
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=aligned)
            self.conv = DoubleConv(inputs + kept, (inputs + kept) // 2, outputs, bias)
        else:
            self.up = nn.ConvTranspose2d(inputs, inputs // 2, 2, stride=2)
            self.conv = DoubleConv(inputs // 2 + kept, outputs, outputs, bias)

    def forward(self, x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """(1, inputs, height / 2, width / 2) and (1, kept, height, width) to (1, outputs, height, width)."""
        y: torch.Tensor = self.conv(torch.cat([kept, self.up(x)], 1))
        return y


class Out(nn.Module):
    """The last convolution."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, height, width) to (1, classes, height, width)."""
        y: torch.Tensor = self.conv(x)
        return y


class UNet(nn.Module):
    """Maps an image (1, channels, height, width) to logits (1, classes, height, width).

    ``widths`` are the channels of the five levels, finest first, e.g. 64, 128, 256, 512, 1024.
    """

    def __init__(
        self,
        widths: Sequence[int],
        classes: int,
        bilinear: bool = False,
        bias: bool = False,
        *,
        channels: int = 3,
        aligned: bool = True,
    ) -> None:
        super().__init__()
        self.inc = DoubleConv(channels, widths[0], widths[0], bias)
        for level in range(DEPTH):
            self.add_module(f"down{level + 1}", Down(widths[level], widths[level + 1], bias))
        inputs = widths[-1]
        for level in range(DEPTH):
            kept = widths[DEPTH - 1 - level]
            # Interpolation keeps the channels, so that the level above has to arrive with as many as it is joined to.
            outputs = widths[max(DEPTH - 2 - level, 0)] if bilinear else kept
            up = Up(inputs, kept, outputs, bilinear=bilinear, bias=bias, aligned=aligned)
            self.add_module(f"up{level + 1}", up)
            inputs = outputs
        self.outc = Out(inputs, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        maps = [self.inc(image)]
        for level in range(DEPTH):
            maps.append(self.get_submodule(f"down{level + 1}")(maps[-1]))
        x = maps.pop()
        for level in range(DEPTH):
            x = self.get_submodule(f"up{level + 1}")(x, maps.pop())
        logits: torch.Tensor = self.outc(x)
        return logits
