"""RoIAlign over a feature pyramid, by gathering for the formats that have no operator for it.

Mask R-CNN, https://arxiv.org/abs/1703.06870. The level follows equation 1 of Feature Pyramid Networks,
https://arxiv.org/abs/1612.03144. Sampling and borders are those of ``torchvision.ops.roi_align`` with two by two
samples per bin and ``aligned=False``.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.ops import roi_align

from modelexport_converter.architectures.torchvision.capture import is_exporting

_SAMPLES = 2
_NEIGHBOURS = 2 * _SAMPLES
"""Cells that a bin reads along one axis."""
_CANONICAL_SIDE, _CANONICAL_LEVEL = 224, 4


class RoIAlign(nn.Module):
    """Crops regions from feature maps of the given sizes (H, W) for inputs of ``input_size``.

    Samples and corners of the interpolation are gathered one after the other, which needs 50 MB at a time for 1000
    regions; all at once would need 800 MB.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], input_size: tuple[int, int], bins: int) -> None:
        super().__init__()
        # Exponents of the strides. Maps of the same stride form one level, whose first map torchvision uses.
        levels = [round(math.log2(input_size[0] / height)) for height, _ in sizes]
        self.count = levels[-1] - levels[0] + 1
        self.bins = bins
        used = sizes[: self.count]
        offsets = [0, *accumulate(height * width for height, width in used)][: self.count]
        rows = [
            (offset, height, width, 2.0**-level)
            for offset, (height, width), level in zip(offsets, used, levels[: self.count], strict=True)
        ]
        limits = [_CANONICAL_SIDE * 2 ** (level - _CANONICAL_LEVEL - 1e-6) for level in levels[1 : self.count]]
        self.register_buffer("levels", torch.tensor(rows))
        self.register_buffer("limits", torch.tensor(limits))
        self.levels: Tensor
        self.limits: Tensor

    def forward(self, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """Maps (1, C, H, W), finest first, and boxes (N, 4) in pixels to (N, C, bins, bins)."""
        if torch.onnx.is_in_onnx_export() or not is_exporting():
            return self._align_by_operator(maps, boxes)
        table = torch.cat([x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]) for x in maps[: self.count]])
        index, weight = self._neighbours(boxes)
        total = torch.zeros(())
        for neighbour in range(_NEIGHBOURS**2):
            total = total + table[index[neighbour]] * weight[neighbour]
        return (total / _SAMPLES**2).view(-1, self.bins, self.bins, table.shape[1]).permute(0, 3, 1, 2)

    def _align_by_operator(self, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """Align by the operator of torchvision and ONNX, which is twice as fast there.

        It takes the map of each region from a batch, so all maps are padded to the size of the finest. Repeating their
        borders changes nothing, as regions lie within the image.
        """
        height, width = maps[0].shape[2:]
        batch = torch.cat(
            [pad(x, (0, width - x.shape[3], 0, height - x.shape[2]), mode="replicate") for x in maps[: self.count]]
        )
        level = self._level_of(boxes)
        regions = torch.cat([level.float().unsqueeze(1), boxes * self.levels[level][:, 3:]], 1)
        aligned: Tensor = roi_align(batch, regions, self.bins, 1.0, _SAMPLES)
        return aligned

    def _level_of(self, boxes: Tensor) -> Tensor:
        """Return the index of each box's map: (N, 4) to (N,)."""
        sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
        return (sides.unsqueeze(1) >= self.limits).float().sum(1).long()

    def _neighbours(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return table rows (16, N * bins * bins) and their weights (16, N * bins * bins, 1) for boxes (N, 4)."""
        offset, height, width, scale = torch.split(self.levels[self._level_of(boxes)], 1, 1)
        corners = boxes * scale
        rows, row_weights = self._axis(corners[:, 1], corners[:, 3], height)
        columns, column_weights = self._axis(corners[:, 0], corners[:, 2], width)
        first = (offset + rows * width)[:, None, :, :, None]
        index = first + columns[None, :, :, None, :]
        weight = row_weights[:, None, :, :, None] * column_weights[None, :, :, None, :]
        return index.long().view(_NEIGHBOURS**2, -1), weight.view(_NEIGHBOURS**2, -1, 1)

    def _axis(self, low: Tensor, high: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Return cells and weights, (4, N, bins) each: two neighbours of both samples of each bin, on one axis.

        Args:
            low: lower borders of the regions, (N,).
            high: upper borders of the regions, (N,).
            cells: sizes of their maps, (N, 1).
        """
        side = (high - low).clamp(min=1) / self.bins
        places = torch.arange(self.bins) + ((torch.arange(_SAMPLES) + 0.5) / _SAMPLES).view(-1, 1, 1)
        place = low.view(-1, 1) + places * side.view(-1, 1)
        inside = (place <= cells).float()
        place = torch.minimum(place.clamp(min=0), cells - 1)
        first = place.floor()
        part = place - first
        neighbours = torch.cat([first, torch.minimum(first + 1, cells - 1)])
        return neighbours, torch.cat([(1 - part) * inside, part * inside])
