"""The example that pastes masks into pictures: equal to torchvision's."""

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torchvision.models.detection.roi_heads import paste_masks_in_image

EXAMPLE = Path(__file__).parents[2] / "examples/paste_masks.py"
SPEC = importlib.util.spec_from_file_location("paste_masks", EXAMPLE)
assert SPEC is not None
assert SPEC.loader is not None
example = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(example)


def test_masks_are_pasted_as_torchvision_does() -> None:
    """Among boxes that leave the picture and some of less than a pixel."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(40, 1, 28, 28, generator=generator)
    near = torch.rand(40, 2, generator=generator) * torch.tensor([90.0, 60])
    boxes = torch.cat([near, near + torch.rand(40, 2, generator=generator) ** 3 * 60], 1)
    expected = paste_masks_in_image(masks, boxes, (64, 96))[:, 0].numpy()
    divided = (boxes / torch.tensor([96, 64, 96, 64])).numpy()
    found = example.paste_masks(masks[:, 0].numpy(), divided, (64, 96))
    np.testing.assert_allclose(found, expected, atol=1e-5)
