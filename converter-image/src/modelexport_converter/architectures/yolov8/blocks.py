"""The blocks of YOLOv8 of any width; their layers are built elsewhere, from a table or from a pickle.

Written from the published architecture, https://docs.ultralytics.com/models/yolov8. Parts are named as in ultralytics'
checkpoints.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from modelexport_converter.architectures.shared.yolo_layers import split_channels


class Bottleneck(nn.Module):
    """Two layers, added to their input if ``shortcut`` is set."""

    def __init__(self, cv1: nn.Module, cv2: nn.Module, shortcut: bool) -> None:
        super().__init__()
        self.cv1, self.cv2 = cv1, cv2
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, H, W) to (1, outputs, H, W)."""
        y: torch.Tensor = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y


class C2f(nn.Module):
    """Cross-stage partial block: half of the channels run through bottlenecks, and every step is kept."""

    def __init__(self, cv1: nn.Module, cv2: nn.Module, blocks: Iterable[nn.Module], hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.cv1, self.cv2 = cv1, cv2
        self.m = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, H, W) to (1, outputs, H, W)."""
        steps = list(self.cv1(x).split(self.hidden, 1))
        for block in self.m:
            steps.append(block(steps[-1]))
        joined: torch.Tensor = self.cv2(torch.cat(steps, 1))
        return joined


class C2(nn.Module):
    """Cross-stage partial block of the networks with a fourth head: half of the channels run through bottlenecks."""

    def __init__(self, cv1: nn.Module, cv2: nn.Module, blocks: nn.Module, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.cv1, self.cv2, self.m = cv1, cv2, blocks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, H, W) to (1, outputs, H, W)."""
        run, kept = self.cv1(x).split(self.hidden, 1)
        joined: torch.Tensor = self.cv2(torch.cat([self.m(run), kept], 1))
        return joined


class SPPF(nn.Module):
    """Spatial pyramid pooling: repeated max pooling, three times 5x5 in the published network."""

    def __init__(
        self, cv1: nn.Module, cv2: nn.Module, pool: nn.Module, repeats: int = 3, shortcut: bool = False
    ) -> None:
        super().__init__()
        self.cv1, self.cv2 = cv1, cv2
        self.pool, self.repeats, self.shortcut = pool, repeats, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, H, W) to (1, outputs, H, W)."""
        steps = [self.cv1(x)]
        for _ in range(self.repeats):
            steps.append(self.pool(steps[-1]))
        joined: torch.Tensor = self.cv2(torch.cat(steps, 1))
        return joined + x if self.shortcut else joined


class Prototypes(nn.Module):
    """Mask prototypes from the finest feature map, at twice its size."""

    def __init__(self, cv1: nn.Module, upsample: nn.Module, cv2: nn.Module, cv3: nn.Module) -> None:
        super().__init__()
        self.cv1, self.upsample, self.cv2, self.cv3 = cv1, upsample, cv2, cv3

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps of a head, the first one (1, inputs, H, W), to (1, masks, 2 H, 2 W)."""
        masks: torch.Tensor = self.cv3(self.cv2(self.upsample(self.cv1(maps[0]))))
        return masks


class Head(nn.Module):
    """Raw predictions of N anchors: box distributions, class logits and, with ``cv4``, more channels.

    Each argument lists one branch per feature map; a branch ends in a convolution.
    """

    def __init__(self, cv2: nn.ModuleList, cv3: nn.ModuleList, cv4: nn.ModuleList | None = None) -> None:
        super().__init__()
        self.cv2, self.cv3, self.cv4 = cv2, cv3, cv4
        self.proto: nn.Module | None = None

    def forward(self, maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Maps (1, C, H, W), finest first, to one (1, channels, N) per kind of prediction."""
        branches: tuple[Any, ...] = (self.cv2, self.cv3, self.cv4)
        # Sizes as numbers: flatten would leave operators in ONNX that compute them.
        return tuple(
            torch.cat([split_channels(head(x), head[-1].out_channels) for head, x in zip(branch, maps, strict=True)], 2)
            for branch in branches
            if branch is not None
        )


class Classification(nn.Module):
    """The head of a classifier: a convolution, global average pooling, and a linear layer."""

    def __init__(self, conv: nn.Module, linear: nn.Linear) -> None:
        super().__init__()
        self.conv, self.linear = conv, linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, C, H, W) to probabilities (1, classes)."""
        probabilities: torch.Tensor = self.linear(self.conv(x).mean((2, 3))).softmax(1)
        return probabilities
