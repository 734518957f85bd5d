"""Loads U-Net (Ronneberger et al., 2015) with batch normalisation and padded convolutions, its common form today.

Weights are named as in the widely used PyTorch-UNet: ``inc``, ``down1`` to ``down4``, ``up1`` to ``up4`` and ``outc``.
The widths of the levels, the kind of upsampling, the bias of convolutions and the number of classes are read from the
checkpoint.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from modelexport.api.spec import Model
from modelexport_converter.architectures.shared.folding import freeze
from modelexport_converter.architectures.shared.segmentation import (
    RecognisedNetwork,
    assumed_normalisation,
    check_recognised,
    describe_segmenter,
    load_segmenter_program,
)
from modelexport_converter.checkpoints.checkpoint import Checkpoint
from modelexport_converter.checkpoints.state_dict import check_channels, fill, mismatch, own_weights
from modelexport_converter.model import LoadedModel, Preprocessing

DEPTH = 4
"""Number of times the image is halved; its sides must be multiples of 2 ** 4."""
_FIRST, _LAST = "inc.double_conv.0.weight", "outc.conv.weight"
_OF_ANOTHER = "segmentation_head.0.weight"
_LEVELS = (_FIRST, *(f"down{level + 1}.maxpool_conv.1.double_conv.0.weight" for level in range(DEPTH)))
_PREPROCESSING = Preprocessing("stretch")


def load(checkpoint: Checkpoint, model: Model) -> LoadedModel:
    """Build the network of a checkpoint, ready for export.

    Raises:
        Failure: with reason ``CheckpointMismatch``, naming the requested and the found value.
    """
    if checkpoint.program is not None:
        return load_segmenter_program(checkpoint, model, _PREPROCESSING)
    tensors = own_weights(checkpoint.tensors, _LAST)
    if not {*_LEVELS, _LAST} <= set(tensors):
        whose = "are those of segmentation_models_pytorch" if _OF_ANOTHER in tensors else "have other names"
        raise mismatch(
            f"the weights {whose}, and a U-Net of PyTorch-UNet has inc, down1 to down4, up1 to up4 and outc; save the "
            "model, with a softmax or sigmoid as its last layer, with torch.export.save as .pt2, for the same "
            "architecture"
        )
    found = RecognisedNetwork("UNet", len(tensors[_LAST]))
    check_recognised(found, model)
    images = _PREPROCESSING.taking(check_channels(tensors[_FIRST].shape[1]))
    widths = [len(tensors[name]) for name in _LEVELS]
    bilinear, bias = "up1.up.weight" not in tensors, "inc.double_conv.0.bias" in tensors
    kept = "mask_values" in tensors  # the pixel values of the classes in the training masks
    weights = {name: tensors[name] for name in tensors if name != "mask_values"} if kept else tensors
    # Upsampling aligns corners as in PyTorch-UNet, unless the export says otherwise.
    if not bilinear and model.parameters.align_corners is not None:
        raise mismatch("alignCorners is for bilinear upsampling, the checkpoint has transposed convolutions; remove it")
    aligned = model.parameters.align_corners is not False
    network = UNet(widths, found.classes, bilinear, bias, channels=images.channels, aligned=aligned)
    fill(network, weights, f"a U-Net of widths {widths}")
    described = describe_segmenter(freeze(network), found, checkpoint, model, images)
    assumed = bilinear and model.parameters.align_corners is None
    assumptions = (
        "activation ReLU",
        "maximum pooling 2x2",
        *(("bilinear upsampling, align_corners",) if assumed else ()),
        "normalisation epsilon 1e-05",
        *assumed_normalisation(images, model.parameters),
    )
    return replace(described, assumptions=assumptions)


class DoubleConv(nn.Module):
    """Twice a 3x3 convolution, normalisation and ReLU."""

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
        """(1, inputs, H, W) to (1, outputs, H, W)."""
        y: torch.Tensor = self.double_conv(x)
        return y


class Down(nn.Module):
    """Max pooling and two convolutions."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(inputs, outputs, outputs, bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, H, W) to (1, outputs, H / 2, W / 2)."""
        y: torch.Tensor = self.maxpool_conv(x)
        return y


class Up(nn.Module):
    """Upsampling, transposed or bilinear, joined with the map of the same size from the way down."""

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
        """(1, inputs, H / 2, W / 2) and (1, kept, H, W) to (1, outputs, H, W)."""
        y: torch.Tensor = self.conv(torch.cat([kept, self.up(x)], 1))
        return y


class Out(nn.Module):
    """The last convolution."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, H, W) to (1, classes, H, W)."""
        y: torch.Tensor = self.conv(x)
        return y


class UNet(nn.Module):
    """Maps an image (1, C, H, W) to logits (1, classes, H, W).

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
            # Interpolation keeps the channels, so the level above must have as many as the map it is joined to.
            outputs = widths[max(DEPTH - 2 - level, 0)] if bilinear else kept
            up = Up(inputs, kept, outputs, bilinear=bilinear, bias=bias, aligned=aligned)
            self.add_module(f"up{level + 1}", up)
            inputs = outputs
        self.outc = Out(inputs, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits (1, classes, H, W)."""
        maps = [self.inc(image)]
        for level in range(DEPTH):
            maps.append(self.get_submodule(f"down{level + 1}")(maps[-1]))
        x = maps.pop()
        for level in range(DEPTH):
            x = self.get_submodule(f"up{level + 1}")(x, maps.pop())
        logits: torch.Tensor = self.outc(x)
        return logits
