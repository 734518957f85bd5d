"""From the raw predictions of YOLOv8's head to boxes and keypoints, in units of the input's size.

The box distribution is that of Generalized Focal Loss, https://arxiv.org/abs/2006.04388.
"""

import torch
from torch import nn

from modelexport_converter.architectures.layers import grid

STRIDES = (8, 16, 32)
BINS = 16
"""Values of the distribution over the distance from an anchor to one side of its box, in cells."""


class Decoder(nn.Module):
    """Turns raw predictions of the N anchors of an input (height, width) into boxes and keypoints.

    Its constants are in float in every file, so there are no more than needed: at 640 pixels, 8400 anchors times one
    side of a cell and two coordinates of a centre are 3 % of the smallest INT8 file. They are persistent buffers, since
    an exporter stores any other tensor once per use.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        cells, centres = grid(size, STRIDES, 0.5)
        self.register_buffer("cells", cells)
        self.register_buffer("centres", centres)
        self.register_buffer("units", torch.tensor([1 / size[1], 1 / size[0]]).view(1, 2, 1))
        self.register_buffer("bins", torch.arange(BINS, dtype=torch.float32).view(1, 1, BINS, 1))
        self.cells: torch.Tensor
        self.centres: torch.Tensor
        self.units: torch.Tensor
        self.bins: torch.Tensor

    def boxes(self, raw: torch.Tensor) -> torch.Tensor:
        """(1, 4 * BINS, N) to (1, 4, N): centre x, centre y, width, height, divided by the input's width and height."""
        sides = (raw.view(1, 4, BINS, -1).softmax(2) * self.bins).sum(2) * self.cells
        near, far = sides[:, :2], sides[:, 2:]
        return torch.cat([self.centres + (far - near) * (self.units / 2), (near + far) * self.units], 1)

    def keypoints(self, raw: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        """(1, K * D, N) to (1, K, D, N): x, y divided by the input's width, height and, where D is 3, visibility."""
        points = raw.view(1, *shape, -1)
        position = (points[:, :, :2] * 2 - 0.5) * self.cells * self.units + self.centres
        return torch.cat([position, points[:, :, 2:].sigmoid()], 2) if shape[1] == 3 else position
