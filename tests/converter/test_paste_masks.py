"""The example that pastes masks into images: equal to torchvision's."""

import numpy as np
import torch
from torchvision.models.detection.roi_heads import paste_masks_in_image

from paste_masks import paste_masks


def test_masks_are_pasted_as_in_torchvision() -> None:
    """Some of the boxes leave the image, and some are smaller than a pixel."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(40, 1, 28, 28, generator=generator)
    near = torch.rand(40, 2, generator=generator) * torch.tensor([90.0, 60])
    boxes = torch.cat([near, near + torch.rand(40, 2, generator=generator) ** 3 * 60], 1)
    expected = paste_masks_in_image(masks, boxes, (64, 96))[:, 0].numpy()
    divided = (boxes / torch.tensor([96, 64, 96, 64])).numpy()
    found = paste_masks(masks[:, 0].numpy(), divided, (64, 96))
    np.testing.assert_allclose(found, expected, atol=1e-5)
