"""The networks of YOLOv8, with parameters named as in ultralytics' checkpoints.

Written from the published architecture: https://docs.ultralytics.com/models/yolov8 (layer table, scales). Unlike the
original, the outputs stay separate tensors, since a shared quantisation scale for boxes and scores would lose the
scores, and positions are divided by the input's size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from modelexport_converter.architectures.shared.yolo_layers import Conv, upsample_2x
from modelexport_converter.architectures.yolov8.blocks import SPPF, Bottleneck, C2f, Classification, Head, Prototypes
from modelexport_converter.architectures.yolov8.decoder import BINS, Decoder

MASKS = 32
"""Mask prototypes, and mask coefficients per anchor."""

# Depth, width and most channels of each variant; classifiers all have 1024 channels at most.
SCALES = {
    "n": (0.33, 0.25, 1024),
    "s": (0.33, 0.50, 1024),
    "m": (0.67, 0.75, 768),
    "l": (1.00, 1.00, 512),
    "x": (1.00, 1.25, 512),
}


def _c2f(inputs: int, outputs: int, depth: int, shortcut: bool = False) -> C2f:
    hidden = outputs // 2
    blocks = [Bottleneck(Conv(hidden, hidden, 3), Conv(hidden, hidden, 3), shortcut) for _ in range(depth)]
    return C2f(Conv(inputs, 2 * hidden), Conv((2 + depth) * hidden, outputs), blocks, hidden)


def _head(channels: Sequence[int], classes: int, extras: int) -> Head:
    """Return the head of the published networks, with ``extras`` more channels per anchor."""
    first = channels[0]
    return Head(
        _branches(channels, max(16, first // 4, 4 * BINS), 4 * BINS),
        _branches(channels, max(first, min(classes, 100)), classes),
        _branches(channels, max(first // 4, extras), extras) if extras else None,
    )


def _branches(channels: Sequence[int], hidden: int, outputs: int) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Sequential(Conv(c, hidden, 3), Conv(hidden, hidden, 3), nn.Conv2d(hidden, outputs, 1)) for c in channels
    )


class Network(nn.Module):
    """Detector; with ``masks`` also a segmenter, with ``keypoints`` (K, D) also a pose estimator.

    Maps an image (1, C, H, W) to boxes (1, 4, N), scores (1, classes, N) and, depending on the task, mask coefficients
    (1, 32, N) with prototypes (1, 32, H / 4, W / 4), keypoints (1, K, D, N), or angles (1, 1, N) if ``oriented``.
    """

    def __init__(
        self,
        variant: str,
        classes: int,
        size: tuple[int, int],
        masks: bool = False,
        keypoints: tuple[int, int] | None = None,
        *,
        oriented: bool = False,
        channels: int = 3,
    ) -> None:
        super().__init__()
        depth, width, most = SCALES[variant]
        c1, c2, c3, c4, c5 = (_channels(c, width, most) for c in (64, 128, 256, 512, 1024))
        short, long = round(3 * depth), round(6 * depth)
        extras = MASKS if masks else keypoints[0] * keypoints[1] if keypoints else int(oriented)
        head = _head((c3, c4, c5), classes, extras)
        if masks:
            hidden = _channels(256, width, most)
            widened = nn.ConvTranspose2d(hidden, hidden, 2, 2)
            head.proto = Prototypes(Conv(c3, hidden, 3), widened, Conv(hidden, hidden, 3), Conv(hidden, MASKS))
        # Numbers are the layers of the published table; those without parameters (upsampling, joining) are in forward.
        layers = {
            **_backbone((channels, c1, c2, c3, c4, c5), short, long),
            "9": SPPF(Conv(c5, c5 // 2), Conv(c5 * 2, c5), nn.MaxPool2d(5, 1, 2)),
            "12": _c2f(c4 + c5, c4, short),
            "15": _c2f(c3 + c4, c3, short),
            "16": Conv(c3, c3, 3, 2),
            "18": _c2f(c3 + c4, c4, short),
            "19": Conv(c4, c4, 3, 2),
            "21": _c2f(c4 + c5, c5, short),
            "22": head,
        }
        self.model = nn.ModuleDict(layers)
        self.decoder = Decoder(size, bins=torch.arange(BINS, dtype=torch.float32), in_pixels=oriented)
        self.masks = masks
        self.keypoints = keypoints
        self.oriented = oriented

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs listed at the class."""
        maps = self._features(image)
        head: Any = self.model["22"]
        boxes, scores, *extra = head(maps)
        places = self.decoder.places(image, maps)
        if self.oriented:
            boxes, angles = self.decoder.rotated_boxes(boxes, extra[0], places)
            return boxes, scores.sigmoid(), angles
        outputs = (self.decoder.boxes(boxes, places), scores.sigmoid())
        if self.masks:
            return (*outputs, extra[0], head.proto(maps))
        if self.keypoints:
            return (*outputs, self.decoder.keypoints(extra[0], self.keypoints, places))
        return outputs

    def _features(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(1, C, H, W) to maps at strides 8, 16 and 32."""
        layer = self.model
        p3 = _run(layer, range(5), image)
        p4 = _run(layer, range(5, 7), p3)
        p5 = _run(layer, range(7, 10), p4)
        n4 = layer["12"](torch.cat([upsample_2x(p5), p4], 1))
        n3 = layer["15"](torch.cat([upsample_2x(n4), p3], 1))
        m4 = layer["18"](torch.cat([layer["16"](n3), n4], 1))
        m5 = layer["21"](torch.cat([layer["19"](m4), p5], 1))
        return n3, m4, m5


class Classifier(nn.Module):
    """Maps an image (1, C, H, W) to probabilities (1, classes)."""

    FEATURES = 1280

    def __init__(self, variant: str, classes: int, channels: int = 3) -> None:
        super().__init__()
        depth, width, _ = SCALES[variant]
        widths = (channels, *(_channels(c, width, 1024) for c in (64, 128, 256, 512, 1024)))
        layers = _backbone(widths, round(3 * depth), round(6 * depth))
        head = Classification(Conv(widths[-1], self.FEATURES), nn.Linear(self.FEATURES, classes))
        self.model = nn.ModuleDict({**layers, "9": head})

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """Return the probabilities (1, classes), the only output."""
        return (_run(self.model, range(10), image),)


def _backbone(channels: Sequence[int], short: int, long: int) -> dict[str, nn.Module]:
    """Return the layers shared with classifiers; ``channels`` are those of the image and of each stage's output."""
    c0, c1, c2, c3, c4, c5 = channels
    return {
        "0": Conv(c0, c1, 3, 2),
        "1": Conv(c1, c2, 3, 2),
        "2": _c2f(c2, c2, short, shortcut=True),
        "3": Conv(c2, c3, 3, 2),
        "4": _c2f(c3, c3, long, shortcut=True),
        "5": Conv(c3, c4, 3, 2),
        "6": _c2f(c4, c4, long, shortcut=True),
        "7": Conv(c4, c5, 3, 2),
        "8": _c2f(c5, c5, short, shortcut=True),
    }


def _channels(channels: int, width: float, most: int) -> int:
    """Return channels scaled to a variant, as a multiple of 8."""
    return -(-int(min(channels, most) * width) // 8) * 8


def _run(layers: nn.ModuleDict, numbers: range, x: torch.Tensor) -> torch.Tensor:
    """Run numbered layers one after the other: (1, C, H, W) to the output of the last."""
    for number in numbers:
        x = layers[str(number)](x)
    return x
