"""The network of YOLOX, with parameters named as in Megvii's checkpoints.

Written from the paper, https://arxiv.org/abs/2107.08430, and from the layers and names of
https://github.com/Megvii-BaseDetection/YOLOX (Apache-2.0). Unlike the original, the outputs stay separate tensors,
positions are divided by the input's size, and images are RGB in 0..1.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from modelexport_converter.architectures.shared.yolo_layers import (
    Conv,
    cell_grid,
    concat_predictions,
    extent_of,
    map_sizes,
    sizes_of,
    upsample_2x,
)
from modelexport_converter.model import SizedModule
from modelexport_converter.norm_statistics import copy_statistics

STRIDES = (8, 16, 32)
EPSILON = 1e-3
"""Epsilon of batch normalisation, as Megvii's experiments set it."""

# Depth and width of each variant; Megvii's nano has depthwise convolutions, too.
SCALES = {
    "nano": (0.33, 0.25),
    "tiny": (0.33, 0.375),
    "s": (0.33, 0.50),
    "m": (0.67, 0.75),
    "l": (1.00, 1.00),
    "x": (1.33, 1.25),
}


class Focus(nn.Module):
    """A convolution on the four pixel grids of an image; ``fold`` makes it a single convolution on the image itself."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = Conv(12, outputs, 3)
        self.folded = False

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(1, 3, H, W) to (1, outputs, H / 2, W / 2). Before ``fold``, pixels are as in training."""
        corners = [image[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        features: torch.Tensor = self.conv(image if self.folded else torch.cat(corners, 1))
        return features

    def fold(self, color_order: str = "BGR", pixel_range: str = "0-255") -> None:
        """Take RGB in 0..1, by one 6x6 convolution of stride 2. Call it after ``fuse``.

        A 3x3 kernel on pixels regrouped by row and column equals a 6x6 kernel on the original pixels.

        Args:
            color_order: order of the channels in training.
            pixel_range: range of the pixels in training.
        """
        split = self.conv.conv
        taps = split.weight.view(-1, 2, 2, 3, 3, 3)  # output, column, row, colour, y, x
        kernel = taps.permute(0, 3, 4, 2, 5, 1).reshape(-1, 3, 6, 6)
        whole = nn.Conv2d(3, split.out_channels, 6, 2, 2).requires_grad_(False)
        kernel = kernel.flip(1) if color_order == "BGR" else kernel
        whole.weight.copy_(kernel * 255 if pixel_range == "0-255" else kernel)
        whole.bias = split.bias
        copy_statistics(whole, split)
        self.conv.conv, self.folded = whole, True


def _conv(inputs: int, outputs: int, stride: int, depthwise: bool) -> nn.Module:
    """Return a 3x3 convolution or, if ``depthwise``, one per channel followed by a 1x1 convolution."""
    if not depthwise:
        return Conv(inputs, outputs, 3, stride)
    pair: dict[str, nn.Module] = {
        "dconv": Conv(inputs, inputs, 3, stride, groups=inputs),
        "pconv": Conv(inputs, outputs),
    }
    return _Named(pair)


class _Named(nn.Sequential):
    """Sequential layers under their names in a checkpoint."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


class Bottleneck(nn.Module):
    """A 1x1 and a 3x3 convolution, added to their input if ``shortcut`` is set."""

    def __init__(self, channels: int, shortcut: bool, depthwise: bool) -> None:
        super().__init__()
        self.conv1 = Conv(channels, channels)
        self.conv2 = _conv(channels, channels, 1, depthwise)
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape (1, C, H, W)."""
        y: torch.Tensor = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class CSP(nn.Module):
    """Cross-stage partial block: half of the channels run through bottlenecks."""

    def __init__(self, inputs: int, outputs: int, depth: int, shortcut: bool, depthwise: bool) -> None:
        super().__init__()
        hidden = outputs // 2
        self.conv1 = Conv(inputs, hidden)
        self.conv2 = Conv(inputs, hidden)
        self.conv3 = Conv(2 * hidden, outputs)
        self.m = nn.Sequential(*(Bottleneck(hidden, shortcut, depthwise) for _ in range(depth)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, H, W) to (1, outputs, H, W)."""
        joined: torch.Tensor = self.conv3(torch.cat([self.m(self.conv1(x)), self.conv2(x)], 1))
        return joined


class SPP(nn.Module):
    """Spatial pyramid pooling: max pooling over 5, 9 and 13 pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv(channels, channels // 2)
        self.conv2 = Conv(channels * 2, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape (1, C, H, W)."""
        x = self.conv1(x)
        pooled = [functional.max_pool2d(x, side, 1, side // 2) for side in (5, 9, 13)]
        joined: torch.Tensor = self.conv2(torch.cat([x, *pooled], 1))
        return joined


class Backbone(nn.Module):
    """Feature maps of an image at strides 8, 16 and 32."""

    def __init__(self, channels: Sequence[int], depth: int, depthwise: bool) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = channels
        self.stem = Focus(c1)
        self.dark2 = nn.Sequential(_conv(c1, c2, 2, depthwise), CSP(c2, c2, depth, True, depthwise))
        self.dark3 = nn.Sequential(_conv(c2, c3, 2, depthwise), CSP(c3, c3, 3 * depth, True, depthwise))
        self.dark4 = nn.Sequential(_conv(c3, c4, 2, depthwise), CSP(c4, c4, 3 * depth, True, depthwise))
        self.dark5 = nn.Sequential(_conv(c4, c5, 2, depthwise), SPP(c5), CSP(c5, c5, depth, False, depthwise))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(1, 3, H, W) to three maps (1, C, h, w), finest first."""
        p3 = self.dark3(self.dark2(self.stem(image)))
        p4 = self.dark4(p3)
        return p3, p4, self.dark5(p4)


class Pyramid(nn.Module):
    """Backbone and path aggregation."""

    def __init__(self, channels: Sequence[int], depth: int, depthwise: bool) -> None:
        super().__init__()
        c3, c4, c5 = channels[2:]
        self.backbone = Backbone(channels, depth, depthwise)
        self.lateral_conv0 = Conv(c5, c4)
        self.C3_p4 = CSP(2 * c4, c4, depth, False, depthwise)
        self.reduce_conv1 = Conv(c4, c3)
        self.C3_p3 = CSP(2 * c3, c3, depth, False, depthwise)
        self.bu_conv2 = _conv(c3, c3, 2, depthwise)
        self.C3_n3 = CSP(2 * c3, c4, depth, False, depthwise)
        self.bu_conv1 = _conv(c4, c4, 2, depthwise)
        self.C3_n4 = CSP(2 * c4, c5, depth, False, depthwise)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(1, 3, H, W) to three maps (1, C, h, w), finest first."""
        p3, p4, p5 = self.backbone(image)
        lateral = self.lateral_conv0(p5)
        reduced = self.reduce_conv1(self.C3_p4(torch.cat([upsample_2x(lateral), p4], 1)))
        n3 = self.C3_p3(torch.cat([upsample_2x(reduced), p3], 1))
        n4 = self.C3_n3(torch.cat([self.bu_conv2(n3), reduced], 1))
        return n3, n4, self.C3_n4(torch.cat([self.bu_conv1(n4), lateral], 1))


class Head(nn.Module):
    """Raw predictions for every cell, boxes, objectness and classes, from separate branches."""

    def __init__(self, channels: Sequence[int], classes: int, depthwise: bool) -> None:
        super().__init__()
        hidden = channels[0]
        self.stems = nn.ModuleList(Conv(c, hidden) for c in channels)
        self.cls_convs, self.reg_convs = (
            nn.ModuleList(nn.Sequential(*(_conv(hidden, hidden, 1, depthwise) for _ in range(2))) for _ in channels)
            for _ in range(2)
        )
        self.cls_preds, self.reg_preds, self.obj_preds = (
            nn.ModuleList(nn.Conv2d(hidden, outputs, 1) for _ in channels) for outputs in (classes, 4, 1)
        )

    def forward(self, maps: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], ...]:
        """Maps (1, C, h, w), finest first, to lists of boxes (1, 4, h, w), objectness (1, 1, h, w), classes (1,
        classes, h, w).
        """
        stems = [stem(x) for stem, x in zip(self.stems, maps, strict=True)]
        boxes = [branch(x) for branch, x in zip(self.reg_convs, stems, strict=True)]
        kinds = [branch(x) for branch, x in zip(self.cls_convs, stems, strict=True)]
        return tuple(
            [layer(x) for layer, x in zip(layers, branch, strict=True)]
            for layers, branch in ((self.reg_preds, boxes), (self.obj_preds, boxes), (self.cls_preds, kinds))
        )


class Network(nn.Module):
    """Maps an image (1, 3, H, W) to boxes (1, 4, N) and scores (1, classes, N).

    Pixels are as in training, usually BGR in 0..255, until ``backbone.backbone.stem.fold``.
    """

    def __init__(self, variant: str, classes: int, size: tuple[int, int], depthwise: bool | None = None) -> None:
        super().__init__()
        depth, width = SCALES[variant]
        channels = [int(width * c) for c in (64, 128, 256, 512, 1024)]
        depthwise = variant == "nano" if depthwise is None else depthwise
        self.backbone = Pyramid(channels, round(3 * depth), depthwise)
        self.head = Head(channels[2:], classes, depthwise)
        self.decoder = Decoder(size)
        self.classes = classes

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return boxes (1, 4, N), and the scores (1, classes, N): objectness times class probability."""
        boxes, objects, classes = self.predict(image)
        return boxes, objects.sigmoid() * classes.sigmoid()

    def predict(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return boxes (B, 4, N) and the logits of objectness (B, 1, N) and classes (B, classes, N)."""
        boxes, objects, classes = self.head(self.backbone(image))
        counts = self.decoder.counts
        return (
            self.decoder(concat_predictions(boxes, 4, counts), *self.decoder.places(image, boxes)),
            concat_predictions(objects, 1, counts),
            concat_predictions(classes, self.classes, counts),
        )


class Decoder(SizedModule):
    """Turns raw boxes of the N cells of an input (H, W) into boxes.

    The constants stay in float in every file. They are persistent buffers, since an exporter stores any other tensor
    once per use.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        cells, corners = cell_grid(map_sizes(size, STRIDES), STRIDES)
        self.register_buffer("cells", cells / torch.tensor([size[1], size[0]]).view(1, 2, 1))
        self.register_buffer("corners", corners)
        self.cells: torch.Tensor
        self.corners: torch.Tensor
        self._counts = [rows * columns for rows, columns in map_sizes(size, STRIDES)]

    @property
    def counts(self) -> list[int] | None:
        """The cells of each map; ``None`` for images of any size."""
        return None if self.any_size else self._counts

    def places(self, image: torch.Tensor, maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return sides and upper left corners of the cells, divided by the input's width and height, (1, 2, N) each.

        Args:
            image: (B, 3, H, W).
            maps: predictions (B, C, h, w), finest first.
        """
        if not self.any_size:
            return self.cells, self.corners
        cells, corners = cell_grid(sizes_of(maps), STRIDES)
        return cells / extent_of(image), corners

    def forward(self, raw: torch.Tensor, cells: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
        """Decode raw boxes (B, 4, N) of cells of ``places``.

        Returns:
            Centre x, centre y, width, height, divided by the input's width and height, (B, 4, N).
        """
        return torch.cat([raw[:, :2] * cells + corners, raw[:, 2:].exp() * cells], 1)
