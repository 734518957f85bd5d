"""The networks of YOLOv4: the full one with CSPDarknet53, and YOLOv4-tiny.

Written from the paper, https://arxiv.org/abs/2004.10934, and from the layers, names and numbers of
https://github.com/Tianxiaomo/pytorch-YOLOv4 (Apache-2.0): ``models.py`` for the full network, ``cfg/yolov4-tiny.cfg``
as ``tool/darknet2pytorch.py`` reads it for the tiny one. Layers are named as in a checkpoint after ``rename``.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from modelexport_converter.architectures.shared.yolo_layers import (
    Conv,
    cell_grid,
    concat_predictions,
    darknet_leaky_relu,
    extent_of,
    map_sizes,
    mish,
    set_activation,
    sizes_of,
    upsample_2x,
)
from modelexport_converter.model import SizedModule

WIDTH = 32
"""Channels of the first layer, as published; the widths of all others are multiples of it."""
EPSILON = 1e-5
"""Epsilon of batch normalisation, torch's default."""
SHAPES = 3
"""Anchors per cell."""

Anchors = tuple[tuple[int, int], ...]


def rename(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint under the names of the networks here.

    ``down1.conv1.conv.0.weight`` and ``models.0.conv1.weight`` both end in ``.conv.weight``; older checkpoints write
    ``neek`` for ``neck``.
    """
    renamed = {}
    for old, value in tensors.items():
        name = re.sub(r"^neek\.", "neck.", old)
        name = re.sub(r"\.conv\.([01])\.(\w+)$", lambda found: f".{('conv', 'bn')[int(found[1])]}.{found[2]}", name)
        renamed[re.sub(r"^(models\.\d+\.(?:conv|bn))\d+\.", r"\1.", name)] = value
    return renamed


def _mish(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> Conv:
    return Conv(inputs, outputs, kernel, stride, activation=mish)


def _leaky(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> Conv:
    return Conv(inputs, outputs, kernel, stride, activation=darknet_leaky_relu)


def _numbered(first: int, layer: Callable[..., Conv], *shapes: tuple[int, ...]) -> dict[str, nn.Module]:
    """Return layers of the given inputs, outputs, kernel and stride, named ``conv<first>`` and on."""
    return {f"conv{first + index}": layer(*shape) for index, shape in enumerate(shapes)}


def _run(layers: Any, numbers: range, x: torch.Tensor) -> torch.Tensor:
    """Run numbered layers one after the other: (B, C, H, W) to the output of the last."""
    for number in numbers:
        x = layers[f"conv{number}"](x)
    return x


class Prediction(nn.Module):
    """The last convolution of a scale; ``split`` divides it into one each for centres, sizes, objectness and classes.

    Their ranges differ by a factor of ten: one quantisation scale for centres and sizes cost a trained model .03
    mAP50-95.
    """

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, SHAPES * (5 + classes), 1)
        self.sizes = [SHAPES * channels for channels in (2, 2, 1, classes)]
        self.parts = nn.ModuleList()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, inputs, H, W) to centres and sizes (B, 2 * 3, H, W) each, objectness (B, 3, H, W), classes (B, 3 *
        classes, H, W).

        Channels are sorted by value, then by anchor.
        """
        return tuple(part(x) for part in self.parts) if self.parts else self._divide(self.conv(x), 1)

    def split(self) -> None:
        """Replace the convolution by four. Call it in eval mode."""
        for weight, bias in zip(self._divide(self.conv.weight, 0), self._divide(self.conv.bias, 0), strict=True):
            part = nn.Conv2d(self.conv.in_channels, len(weight), 1)
            part.weight, part.bias = (nn.Parameter(value.clone(), requires_grad=False) for value in (weight, bias))
            self.parts.append(part)
        del self.conv

    def _divide(self, values: Any, axis: int) -> tuple[torch.Tensor, ...]:
        """Split channels along ``axis`` by value; checkpoints sort them by anchor first."""
        before, after = values.shape[:axis], values.shape[axis + 1 :]
        by_anchor = values.reshape(*before, SHAPES, -1, *after)
        return torch.split(by_anchor.transpose(axis, axis + 1).reshape(values.shape), self.sizes, axis)


class Down(nn.ModuleDict):
    """A cross-stage partial stage of the backbone at half the resolution."""

    def __init__(self, inputs: int, blocks: int) -> None:
        half, outputs = inputs, 2 * inputs
        super().__init__(
            {
                **_numbered(1, _mish, (inputs, outputs, 3, 2), (outputs, half), (outputs, half)),
                "resblock": Residuals(half, blocks),
                **_numbered(4, _mish, (half, half), (outputs, outputs)),
            }
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, 2 * inputs, H / 2, W / 2)."""
        x = self["conv1"](x)
        deep = self["conv4"](self["resblock"](self["conv3"](x)))
        joined: torch.Tensor = self["conv5"](torch.cat([deep, self["conv2"](x)], 1))
        return joined


class Residuals(nn.Module):
    """Pairs of convolutions 1x1 and 3x3, each added to its input."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.module_list = nn.ModuleList(
            nn.Sequential(_mish(channels, channels), _mish(channels, channels, 3)) for _ in range(blocks)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape (B, C, H, W)."""
        for pair in self.module_list:
            x = x + pair(x)
        return x


class First(nn.ModuleDict):
    """The first stage, whose branches keep all channels."""

    def __init__(self, width: int) -> None:
        w, d = width, 2 * width
        shapes = ((3, w, 3), (w, d, 3, 2), (d, d), (d, d), (d, w), (w, d, 3), (d, d), (2 * d, d))
        super().__init__(_numbered(1, _mish, *shapes))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) to (B, 2 * width, H / 2, W / 2)."""
        x = _run(self, range(1, 3), image)
        kept = self["conv4"](x)
        deep = self["conv7"](kept + _run(self, range(5, 7), kept))
        joined: torch.Tensor = self["conv8"](torch.cat([deep, self["conv3"](x)], 1))
        return joined


class Neck(nn.ModuleDict):
    """Spatial pyramid pooling and the top-down path of the path aggregation."""

    def __init__(self, width: int) -> None:
        a, b, c, d = (width * factor for factor in (4, 8, 16, 32))
        pooling = ((d, c), (c, d, 3), (d, c), (4 * c, c), (c, d, 3), (d, c))
        middle = ((c, b), (c, b), (c, b), (b, c, 3), (c, b), (b, c, 3), (c, b))
        fine = ((b, a), (b, a), (b, a), (a, b, 3), (b, a), (a, b, 3), (b, a))
        super().__init__(_numbered(1, _leaky, *pooling, *middle, *fine))

    def forward(self, p3: torch.Tensor, p4: torch.Tensor, p5: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Maps of the backbone (B, C, H, W), finest first, to three maps (B, C / 2, H, W)."""
        x = _run(self, range(1, 4), p5)
        pooled = [functional.max_pool2d(x, side, 1, side // 2) for side in (13, 9, 5)]
        n5 = _run(self, range(4, 7), torch.cat([*pooled, x], 1))
        up = upsample_2x(self["conv7"](n5))
        n4 = _run(self, range(9, 14), torch.cat([self["conv8"](p4), up], 1))
        up = upsample_2x(self["conv14"](n4))
        return _run(self, range(16, 21), torch.cat([self["conv15"](p3), up], 1)), n4, n5


class Head(nn.ModuleDict):
    """The bottom-up path of the path aggregation, and the predictions of its three scales."""

    def __init__(self, width: int, classes: int) -> None:
        a, b, c, d = (width * factor for factor in (4, 8, 16, 32))
        middle = ((c, b), (b, c, 3), (c, b), (b, c, 3), (c, b), (b, c, 3))
        coarse = ((d, c), (c, d, 3), (d, c), (c, d, 3), (d, c), (c, d, 3))
        super().__init__(
            {
                **_numbered(1, _leaky, (a, b, 3)),
                "conv2": Prediction(b, classes),
                **_numbered(3, _leaky, (a, b, 3, 2), *middle),
                "conv10": Prediction(c, classes),
                **_numbered(11, _leaky, (b, c, 3, 2), *coarse),
                "conv18": Prediction(d, classes),
            }
        )

    def forward(self, n3: torch.Tensor, n4: torch.Tensor, n5: torch.Tensor) -> Sequence[tuple[torch.Tensor, ...]]:
        """Maps (B, C, H, W), finest first, to the outputs of ``Prediction`` for each."""
        m4 = _run(self, range(4, 9), torch.cat([self["conv3"](n3), n4], 1))
        m5 = _run(self, range(12, 17), torch.cat([self["conv11"](m4), n5], 1))
        fine, middle, coarse = self["conv1"](n3), self["conv9"](m4), self["conv17"](m5)
        return self["conv2"](fine), self["conv10"](middle), self["conv18"](coarse)


class Network(nn.Module):
    """Maps an image (1, 3, H, W) to boxes (1, 4, N) and scores (1, classes, N)."""

    STRIDES: tuple[int, ...] = (8, 16, 32)
    ANCHORS: tuple[Anchors, ...] = (
        ((12, 16), (19, 36), (40, 28)),
        ((36, 75), (76, 55), (72, 146)),
        ((142, 110), (192, 243), (459, 401)),
    )
    SCALE = 1.0
    ACTIVATION = "activation Mish in the backbone, LeakyReLU 0.1 after it"
    BACKBONE: tuple[str, ...] = tuple(f"down{number}" for number in range(1, 6))
    LOW_PRECISION_MODULES: tuple[str, ...] = (*BACKBONE, "neck", "head")
    """Mish between the convolutions needs more than 8 bits, so only these modules are quantised."""

    def __init__(
        self, width: int, classes: int, size: tuple[int, int], anchors: Sequence[Anchors] | None = None
    ) -> None:
        super().__init__()
        self.classes = classes
        self.decoder = Decoder(size, self.STRIDES, anchors or self.ANCHORS, self.SCALE)
        self.build(width, classes)

    def set_activation(self, activation: str | None) -> None:
        """Give the backbone another activation, unless it is ``None``."""
        for name in self.BACKBONE:
            set_activation(self.get_submodule(name), activation)

    def build(self, width: int, classes: int) -> None:
        """Create the layers."""
        self.down1 = First(width)
        self.down2, self.down3 = Down(2 * width, 2), Down(4 * width, 8)
        self.down4, self.down5 = Down(8 * width, 8), Down(16 * width, 4)
        self.neck = Neck(width)
        self.head = Head(width, classes)

    def scales(self, image: torch.Tensor) -> Sequence[tuple[torch.Tensor, ...]]:
        """Image (B, 3, H, W) to the outputs of ``Prediction`` for each scale, finest first."""
        p3 = self.down3(self.down2(self.down1(image)))
        p4 = self.down4(p3)
        predicted: Sequence[tuple[torch.Tensor, ...]] = self.head(*self.neck(p3, p4, self.down5(p4)))
        return predicted

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return boxes (1, 4, N), and the scores (1, classes, N): objectness times class probability."""
        boxes, objects, classes = self.predict(image)
        return boxes, objects.sigmoid() * classes.sigmoid()

    def predict(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return boxes (B, 4, N) and the logits of objectness (B, 1, N) and classes (B, classes, N)."""
        kinds = list(zip(*self.scales(image), strict=True))
        centres, sizes, objects, classes = (
            concat_predictions(maps, channels, self.decoder.counts)
            for maps, channels in zip(kinds, (2, 2, 1, self.classes), strict=True)
        )
        return self.decoder(centres, sizes, self.decoder.places(image, kinds[0])), objects, classes


class Tiny(Network):
    """YOLOv4-tiny; layers are named by their numbers in ``yolov4-tiny.cfg``."""

    STRIDES = (16, 32)
    ANCHORS = (((23, 27), (37, 58), (81, 82)), ((81, 82), (135, 169), (344, 319)))
    SCALE = 1.05
    ACTIVATION = "activation LeakyReLU 0.1"
    BACKBONE = ("models",)
    LOW_PRECISION_MODULES = ()

    def build(self, width: int, classes: int) -> None:
        """Create the layers."""
        w2, w4, w8, w16 = (width * factor for factor in (2, 4, 8, 16))
        layers: dict[int, nn.Module] = {0: _leaky(3, width, 3, 2), 1: _leaky(width, w2, 3, 2)}
        for first, channels in ((2, w2), (10, w4), (18, w8)):
            half = channels // 2
            layers[first] = _leaky(channels, channels, 3)
            layers[first + 2], layers[first + 3] = _leaky(half, half, 3), _leaky(half, half, 3)
            layers[first + 5] = _leaky(channels, channels)
        layers |= {26: _leaky(w16, w16, 3), 27: _leaky(w16, w8), 28: _leaky(w8, w16, 3), 29: Prediction(w16, classes)}
        layers |= {32: _leaky(w8, w4), 35: _leaky(w4 + w8, w8, 3), 36: Prediction(w8, classes)}
        self.models = nn.ModuleDict({str(number): layer for number, layer in layers.items()})

    def scales(self, image: torch.Tensor) -> Sequence[tuple[torch.Tensor, ...]]:
        """Image (B, 3, H, W) to the outputs of ``Prediction`` for each scale, finest first."""
        layer = self.models
        x = layer["1"](layer["0"](image))
        for first in (2, 10, 18):
            x, kept = self._stage(first, x)
        common = layer["27"](layer["26"](x))
        fine = layer["35"](torch.cat([upsample_2x(layer["32"](common)), kept], 1))
        return layer["36"](fine), layer["29"](layer["28"](common))

    def _stage(self, first: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run a cross-stage partial stage: (B, C, H, W) to (B, 2 C, H / 2, W / 2) and its last layer's (B, C, H, W)."""
        layers: Any = self.models
        start, inner, outer, last = (layers[str(first + offset)] for offset in (0, 2, 3, 5))
        x = start(x)
        # A number: half of the tensor's own size would add operators to the file that compute it.
        deep = inner(x[:, -inner.conv.in_channels :])
        kept = last(torch.cat([outer(deep), deep], 1))
        return functional.max_pool2d(torch.cat([x, kept], 1), 2), kept


@dataclass(frozen=True)
class Places:
    """The N anchors of an input, divided by its width and height, (1, 2, N) each.

    Attributes:
        cells: how far the centre of a box may move.
        corners: the upper left ends of these ranges.
        anchors: width and height of the anchors.
    """

    cells: torch.Tensor
    corners: torch.Tensor
    anchors: torch.Tensor


class Decoder(SizedModule):
    """Turns raw boxes of an input (H, W) into boxes, one for each anchor of each cell.

    Boxes are sorted by stride, anchor, row and column. ``scale`` limits how far a box's centre may leave its cell, the
    paper's elimination of grid sensitivity. The constants stay in float in every file. They are persistent buffers,
    since an exporter stores any other tensor once per use.
    """

    def __init__(self, size: tuple[int, int], strides: Sequence[int], anchors: Sequence[Anchors], scale: float) -> None:
        super().__init__()
        self._strides, self._shapes, self._scale = strides, anchors, scale
        maps = map_sizes(size, strides)
        places = self._place(maps, torch.tensor([size[1], size[0]]).view(1, 2, 1))
        self.register_buffer("cells", places.cells)
        self.register_buffer("corners", places.corners)
        self.register_buffer("anchors", places.anchors)
        self.cells: torch.Tensor
        self.corners: torch.Tensor
        self.anchors: torch.Tensor
        self._counts = [SHAPES * rows * columns for rows, columns in maps]

    @property
    def counts(self) -> list[int] | None:
        """The boxes of each map; ``None`` for images of any size."""
        return None if self.any_size else self._counts

    def places(self, image: torch.Tensor, maps: Sequence[torch.Tensor]) -> Places:
        """Return the anchors of images (B, 3, H, W) with maps (B, C, h, w), finest first."""
        if not self.any_size:
            return Places(self.cells, self.corners, self.anchors)
        return self._place(sizes_of(maps), extent_of(image))

    def _place(self, maps: Sequence[tuple[int, int]], extent: torch.Tensor) -> Places:
        """Return the anchors of maps of so many rows and columns, for an input of width and height (1, 2, 1)."""
        cells, corners, anchors = [], [], []
        for stride, shapes, size in zip(self._strides, self._shapes, maps, strict=True):
            side, corner = cell_grid([size], (stride,))
            cells.append((side / extent).repeat(1, 1, SHAPES))
            corners.append(corner.repeat(1, 1, SHAPES))
            relative = torch.tensor(shapes).T.unsqueeze(0) / extent
            anchors.append(relative.unsqueeze(3).expand(-1, -1, -1, corner.shape[2]).flatten(2))
        joined = torch.cat(cells, 2)
        return Places(
            joined * self._scale,
            torch.cat(corners, 2) - joined * ((self._scale - 1) / 2),
            torch.cat(anchors, 2),
        )

    def forward(self, centres: torch.Tensor, sizes: torch.Tensor, places: Places) -> torch.Tensor:
        """(B, 2, N) each to (B, 4, N): centre x, y, width, height, divided by the input's width and height."""
        return torch.cat([centres.sigmoid() * places.cells + places.corners, sizes.exp() * places.anchors], 1)
