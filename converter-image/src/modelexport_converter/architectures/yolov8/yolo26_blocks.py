"""The block of YOLO26 that no earlier family has; ``ultralytics_layers`` builds it from a pickle.

Written from the published architecture, https://docs.ultralytics.com/models/yolo26. Parts are named as in ultralytics'
checkpoints.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from modelexport_converter.architectures.shared.yolo_layers import upsample_2x


class FusedPrototypes(nn.Module):
    """Mask prototypes from all feature maps, at twice the size of the finest.

    Each coarser map gets the channels of the finest one and is added to it, enlarged to its size by nearest neighbours.
    """

    def __init__(self, refine: Iterable[nn.Module], fuse: nn.Module, prototypes: nn.Module) -> None:
        super().__init__()
        self.feat_refine, self.feat_fuse, self.prototypes = nn.ModuleList(refine), fuse, prototypes

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps (1, C, H, W), each half as large as the one before, to (1, masks, 2 H, 2 W) of the first."""
        finest, *coarser = maps
        refined = [finest, *(refine(x) for refine, x in zip(self.feat_refine, coarser, strict=True))]
        joined = refined.pop()
        while refined:  # twice by 2 is by 4: the sum is that of maps enlarged at once
            joined = refined.pop() + upsample_2x(joined)
        masks: torch.Tensor = self.prototypes([self.feat_fuse(joined)])
        return masks
