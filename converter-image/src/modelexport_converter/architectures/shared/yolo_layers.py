"""Building blocks of the YOLO networks, with parameters named as in their published checkpoints."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from modelexport_converter.norm_statistics import attach_statistics


def mish(x: torch.Tensor) -> torch.Tensor:
    """Return x * tanh(softplus(x)), https://arxiv.org/abs/1908.08681, in operators that every format has. Keeps the
    shape (...).
    """
    return x * functional.softplus(x).tanh()


def darknet_leaky_relu(x: torch.Tensor) -> torch.Tensor:
    """Return leaky ReLU with slope 0.1, as in Darknet and as Megvii's ``lrelu``. Keeps the shape (...)."""
    return functional.leaky_relu(x, 0.1)


ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "SiLU": functional.silu,
    "ReLU": functional.relu,
    "LeakyReLU": darknet_leaky_relu,
    "Hardswish": functional.hardswish,
    "Mish": mish,
}
"""Activations by their names in ``spec.model.parameters.activation``."""


class Conv(nn.Module):
    """Convolution, batch normalisation, activation. ``fuse`` folds the normalisation into the convolution."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        activation: Callable[[torch.Tensor], torch.Tensor] = functional.silu,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        return self.activation(self.bn(self.conv(x)))

    def fuse(self, epsilon: float) -> None:
        """Fold the batch normalisation, with ``epsilon``, into the convolution. Call it in eval mode."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.bn.eps = epsilon
            self.conv = fuse_conv_bn_eval(self.conv, self.bn)
            attach_statistics(self.conv, self.bn)
            self.bn = nn.Identity()


def fuse(network: nn.Module, epsilon: float) -> nn.Module:
    """Prepare a network for export, in place: set eval mode, freeze parameters, fold batch normalisation.

    Args:
        network: modules of the type ``Conv`` are folded.
        epsilon: epsilon of batch normalisation.

    Returns:
        The same module.
    """
    network.eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, Conv):
            module.fuse(epsilon)
    return network


def set_activation(network: nn.Module, activation: str | None) -> None:
    """Give every ``Conv`` of a network an activation of ``ACTIVATIONS``; ``None`` keeps the network's own."""
    for module in network.modules():
        if isinstance(module, Conv) and activation is not None:
            module.activation = ACTIVATIONS[activation]


def decoder_buffers(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the constants of a network's decoder, which no checkpoint contains, by their names in its state dict."""
    return {name: value for name, value in network.state_dict().items() if name.startswith("decoder.")}


def upsample_2x(x: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) to (N, C, 2 H, 2 W), nearest neighbour."""
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def map_sizes(size: tuple[int, int], strides: Sequence[float]) -> list[tuple[int, int]]:
    """Return the rows and columns of the feature maps of an input (H, W), for the sides of their cells in pixels."""
    return [(int(size[0] // stride), int(size[1] // stride)) for stride in strides]


def sizes_of(maps: Iterable[torch.Tensor]) -> list[tuple[int, int]]:
    """Return the rows and columns of feature maps (N, C, rows, columns); an exporter traces them as operators."""
    return [(x.shape[2], x.shape[3]) for x in maps]


def extent_of(image: torch.Tensor) -> torch.Tensor:
    """Return width and height of images (N, C, H, W), (1, 2, 1), float32; an exporter traces them as operators."""
    return torch.cat([torch.ones(1, 1, 1) * side for side in (image.shape[3], image.shape[2])], 1)


def cell_grid(maps: Sequence[tuple[int, int]], strides: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sides of the N cells of an input in pixels, (1, 1, N), and their corners, (1, 2, N).

    Cells are sorted by map, row and column. A corner is x, y of the upper left one, divided by the input's width and
    height.

    Args:
        maps: rows and columns of the feature maps.
        strides: sides of their cells in pixels.
    """
    cells, positions = [], []
    for stride, (rows, columns) in zip(strides, maps, strict=True):
        y, x = torch.meshgrid(torch.arange(rows) / rows, torch.arange(columns) / columns, indexing="ij")
        positions.append(torch.stack([x.flatten(), y.flatten()]))
        cells.append(torch.full((1, rows * columns), float(stride)))
    return torch.cat(cells, 1).unsqueeze(0), torch.cat(positions, 1).unsqueeze(0)


def concat_predictions(maps: Sequence[torch.Tensor], channels: int, counts: Sequence[int] | None) -> torch.Tensor:
    """Concatenate the maps of one kind of prediction, ``counts`` x ``channels`` values each, to (B, channels, N).

    ``counts`` are ``None`` for images of any size.
    """
    if counts is None:
        return torch.cat([split_channels(x, channels) for x in maps], 2)
    # Sizes as numbers: flatten would leave operators in ONNX that compute them.
    return torch.cat([x.view(-1, channels, count) for x, count in zip(maps, counts, strict=True)], 2)


def split_channels(x: torch.Tensor, *shape: int) -> torch.Tensor:
    """(B, C, ...) to (B, *shape, N), where C is the product of ``shape`` and N that of the other sizes.

    For one image the batch is the number 1, which every format stores shortest; for several it stays open in ONNX.
    """
    if x.shape[0] == 1:
        return x.view(1, *shape, -1)
    return x.view(-1, *shape, math.prod(x.shape[1:]) // math.prod(shape))
