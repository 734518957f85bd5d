"""What the networks of the YOLO family are made of, with parameters named as in their published checkpoints."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from modelexport_converter.statistics import remember


def mish(x: torch.Tensor) -> torch.Tensor:
    """The activation of https://arxiv.org/abs/1908.08681, in operators that every format has."""
    return x * functional.softplus(x).tanh()


def leaky(x: torch.Tensor) -> torch.Tensor:
    """A tenth of what is negative: the slope of Darknet, and of Megvii's ``lrelu``."""
    return functional.leaky_relu(x, 0.1)


ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "SiLU": functional.silu,
    "ReLU": functional.relu,
    "LeakyReLU": leaky,
    "Hardswish": functional.hardswish,
    "Mish": mish,
}
"""By the names that ``spec.model.parameters.activation`` has for them."""


class Conv(nn.Module):
    """Convolution, batch normalisation, activation; ``fuse`` folds the normalisation into the convolution."""

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
        """(1, inputs, height, width) to (1, outputs, height / stride, width / stride)."""
        return self.activation(self.bn(self.conv(x)))

    def fuse(self, epsilon: float) -> None:
        """Fold the batch normalisation into the convolution; for use in eval mode."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.bn.eps = epsilon
            self.conv = fuse_conv_bn_eval(self.conv, self.bn)
            remember(self.conv, self.bn)
            self.bn = nn.Identity()


def fuse(network: nn.Module, epsilon: float) -> nn.Module:
    """Prepare a network for capture: eval mode, batch normalisation with ``epsilon`` folded, parameters frozen."""
    network.eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, Conv):
            module.fuse(epsilon)
    return network


def activate(network: nn.Module, activation: str | None) -> None:
    """Let every ``Conv`` of a network have an activation of ``ACTIVATIONS``; ``None`` leaves what its builder sets."""
    for module in network.modules():
        if isinstance(module, Conv) and activation is not None:
            module.activation = ACTIVATIONS[activation]


def constants(network: nn.Module) -> dict[str, torch.Tensor]:
    """What a network's decoder knows by itself, in no checkpoint."""
    return {name: value for name, value in network.state_dict().items() if name.startswith("decoder.")}


def twice(x: torch.Tensor) -> torch.Tensor:
    """(1, channels, height, width) to twice the height and width, every pixel four times."""
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def grid(size: tuple[int, int], strides: tuple[int, ...], offset: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Sides of the N cells of an input (height, width) in pixels, (1, 1, N), and their positions, (1, 2, N).

    Cells are sorted by stride, row and column. A position is x, y of a cell's corner plus ``offset`` cells, divided by
    the input's width and height.
    """
    cells, positions = [], []
    for stride in strides:
        rows, columns = size[0] // stride, size[1] // stride
        y, x = torch.meshgrid(
            (torch.arange(rows) + offset) / rows, (torch.arange(columns) + offset) / columns, indexing="ij"
        )
        positions.append(torch.stack([x.flatten(), y.flatten()]))
        cells.append(torch.full((1, rows * columns), float(stride)))
    return torch.cat(cells, 1).unsqueeze(0), torch.cat(positions, 1).unsqueeze(0)


def join(maps: Sequence[torch.Tensor], channels: int, counts: Sequence[int]) -> torch.Tensor:
    """Maps of one kind of prediction, each of ``counts`` times ``channels`` values, to (B, channels, N)."""
    # Sizes as numbers: flatten would leave operators in ONNX that compute them.
    return torch.cat([x.view(-1, channels, count) for x, count in zip(maps, counts, strict=True)], 2)
