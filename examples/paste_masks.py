"""Pastes the masks of a Mask R-CNN file, each relative to its box, into masks of the whole image.

Copy it into your own code: it needs numpy alone.
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


def paste_masks(masks: Array, boxes: Array, size: tuple[int, int]) -> Array:
    """Paste masks (n, 28, 28) of boxes (n, 4), from the filled rows of one image's answer, to (n, H, W).

    Args:
        masks: probabilities relative to the boxes.
        boxes: left, top, right, bottom, divided by the image's width and height.
        size: (H, W) of the image in pixels.

    Returns:
        Probabilities as from torchvision's ``paste_masks_in_image``: above 0.5 a pixel belongs to the object. As there,
            a border of one empty cell lets a mask fade out around its box.
    """
    height, width = size
    padded = np.pad(masks, ((0, 0), (1, 1), (1, 1)))
    cells = padded.shape[1]
    corners = boxes * np.array([width, height, width, height], np.float32)
    centres, halves = (corners[:, :2] + corners[:, 2:]) / 2, (corners[:, 2:] - corners[:, :2]) / 2
    reach = halves * np.float32(cells / (cells - 2))
    low, high = (centres - reach).astype(int), (centres + reach).astype(int)
    pasted = np.zeros((len(masks), height, width), np.float32)
    for index, mask in enumerate(padded):
        columns, rows = (_weights(low[index, axis], high[index, axis], size[1 - axis], cells) for axis in (0, 1))
        pasted[index] = rows @ mask @ columns.T
    return pasted


def _weights(low: int, high: int, pixels: int, cells: int) -> Array:
    """Return the linear interpolation from mask cells to image pixels along one axis: (pixels, cells)."""
    length = max(high - low + 1, 1)
    inside = np.arange(pixels) - low
    place = ((inside + 0.5) * cells / length - 0.5).clip(0, cells - 1)
    weights = np.maximum(0, 1 - abs(place[:, None] - np.arange(cells)))
    weights[(inside < 0) | (inside >= length)] = 0
    return np.asarray(weights, np.float32)
