"""Decodes the raw predictions of YOLOv8's head into boxes and keypoints, in units of the input's size or in pixels.

The box distribution is that of Generalized Focal Loss, https://arxiv.org/abs/2006.04388.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from modelexport_converter.architectures.shared.yolo_layers import extent_of, map_sizes, sizes_of, split_channels
from modelexport_converter.model import SizedModule

STRIDES = (8, 16, 32)
BINS = 16
"""Bins of the distribution over the distance from an anchor to one side of its box, in cells."""


@dataclass(frozen=True)
class Places:
    """The N anchors of an input.

    Attributes:
        cells: sides of their cells in pixels, (1, 1, N).
        centres: x and y in the units of positions, (1, 2, N).
        units: what turns pixels into these units, (1, 2, 1): 1 divided by the input's width and height; ``None`` if
            positions are in pixels.
    """

    cells: torch.Tensor
    centres: torch.Tensor
    units: torch.Tensor | None


class Decoder(SizedModule):
    """Turns raw predictions of the N anchors of an input (H, W) into boxes and keypoints.

    The constants stay in float in every file, so there are as few as possible: at 640 pixels, 8400 anchors times one
    cell side and two centre coordinates are 3 % of the smallest INT8 file. They are persistent buffers, since an
    exporter stores any other tensor once per use.
    """

    def __init__(
        self,
        size: tuple[int, int],
        strides: Sequence[float] = STRIDES,
        maps: Sequence[tuple[int, int]] | None = None,
        bins: torch.Tensor | None = None,
        *,
        in_pixels: bool = False,
        direct: bool = False,
    ) -> None:
        """Build the constants.

        Args:
            size: (H, W) of the input.
            strides: sides of the maps' cells in pixels, finest map first.
            maps: (rows, columns) of the maps; default: the input's size divided by the strides.
            bins: distances of the distribution, (BINS,); ``None`` if the head predicts distances directly.
            in_pixels: whether positions stay in pixels; a box that is turned has one unit for both axes.
            direct: whether a raw keypoint is its distance from the centre of the cell, in cells, and a raw angle is in
                radians, as in YOLO26. In earlier families the double of a keypoint is the distance from the upper left
                corner, and the sigmoid of an angle is its share of the range from -pi / 4 to 3 pi / 4.
        """
        super().__init__()
        self.direct, self.in_pixels, self.strides = direct, in_pixels, tuple(strides)
        height, width = (1, 1) if in_pixels else size
        cells, centres = _grid((height, width), strides, maps or map_sizes(size, strides))
        self.register_buffer("cells", cells)
        self.register_buffer("centres", centres)
        self.register_buffer("units", None if in_pixels else torch.tensor([1 / width, 1 / height]).view(1, 2, 1))
        self.register_buffer("bins", None if bins is None else bins.view(1, 1, -1, 1))
        self.cells: torch.Tensor
        self.centres: torch.Tensor
        self.units: torch.Tensor | None
        self.bins: torch.Tensor | None

    def places(self, image: torch.Tensor, maps: Sequence[torch.Tensor]) -> Places:
        """Return the anchors of an image (1, C, H, W) with maps (1, C, h, w), finest first."""
        if not self.any_size:
            return Places(self.cells, self.centres, self.units)
        if self.in_pixels:
            return Places(*_grid((1, 1), self.strides, sizes_of(maps)), None)
        height, width = image.shape[2:]
        return Places(*_grid((height, width), self.strides, sizes_of(maps)), 1 / extent_of(image))

    def boxes(self, raw: torch.Tensor, places: Places) -> torch.Tensor:
        """(1, 4 * BINS, N) to (1, 4, N): centre x, centre y, width, height, divided by the input's width and height."""
        assert places.units is not None
        near, far = self._sides(raw, places)
        return torch.cat([places.centres + (far - near) * (places.units / 2), (near + far) * places.units], 1)

    def rotated_boxes(
        self, raw: torch.Tensor, angle: torch.Tensor, places: Places
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode boxes (1, 4 * BINS, N) and their raw angles (1, 1, N), with positions in pixels.

        The distances from an anchor to the sides of its box are along these sides: ``dist2rbox`` of ultralytics,
        https://docs.ultralytics.com/reference/utils/tal.

        Returns:
            Centre x, centre y, width, height (1, 4, N), and the angle from the x axis to the width, towards the y axis,
            in radians (1, 1, N).
        """
        turn = angle if self.direct else (angle.sigmoid() - 0.25) * math.pi
        cosine, sine = turn.cos(), turn.sin()
        near, far = self._sides(raw, places)
        offsets = (far - near) / 2
        along, across = offsets[:, :1], offsets[:, 1:]
        x, y = along * cosine - across * sine, along * sine + across * cosine
        return torch.cat([places.centres + torch.cat([x, y], 1), near + far], 1), turn

    def _sides(self, raw: torch.Tensor, places: Places) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the distances of the left and upper, and of the other sides in pixels, (1, 2, N) each."""
        if self.bins is not None:
            raw = (split_channels(raw, 4, self.bins.shape[2]).softmax(2) * self.bins).sum(2)
        sides = raw * places.cells
        return sides[:, :2], sides[:, 2:]

    def keypoints(self, raw: torch.Tensor, shape: tuple[int, int], places: Places) -> torch.Tensor:
        """(1, K * D, N) to (1, K, D, N): x, y divided by the input's width, height and, if D is 3, visibility."""
        assert places.units is not None
        points = split_channels(raw, *shape)
        distances = points[:, :, :2] if self.direct else points[:, :, :2] * 2 - 0.5
        position = distances * places.cells * places.units + places.centres
        return torch.cat([position, points[:, :, 2:].sigmoid()], 2) if shape[1] == 3 else position


def _grid(
    size: tuple[int, int], strides: Sequence[float], maps: Sequence[tuple[int, int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sides of N cells in pixels, (1, 1, N), and their centres divided by the input's width, height, (1, 2,
    N).
    """
    cells, centres = [], []
    for stride, (rows, columns) in zip(strides, maps, strict=True):
        y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
        centres.append(torch.stack([x.flatten() * (stride / size[1]), y.flatten() * (stride / size[0])]))
        cells.append(torch.full((1, rows * columns), float(stride)))
    return torch.cat(cells, 1).unsqueeze(0), torch.cat(centres, 1).unsqueeze(0)
