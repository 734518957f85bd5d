"""Padding and cropping: the ops, and the functions shared by convolution and pooling."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from modelexport_converter.coreml.ops.kernel import KernelFunction, one_of

Pads = list[tuple[int, int]]
"""Elements before and after, for each spatial dimension."""


def pairs(flat: Sequence[int]) -> Pads:
    """Split MIL's flat list: before and after the first dimension, before and after the second..."""
    return list(zip(flat[::2], flat[1::2], strict=True))


def spatial_pads(
    pad_type: str, pad: list[int] | None, sizes: Sequence[int], windows: list[int], strides: list[int]
) -> Pads:
    """Return the padding of a convolution or pooling; `windows` are kernel sizes with dilation included.

    `same` keeps ceil(size / stride) outputs, as in TensorFlow, with the odd element after; `same_lower` puts it before.
    (MIL's documentation of `conv` ignores the stride here; coremltools' inferred shapes do not.)
    """
    totals = [
        max(0, (-(-size // stride) - 1) * stride + window - size)
        for size, window, stride in zip(sizes, windows, strides, strict=True)
    ]
    pad_types = {
        "valid": [(0, 0)] * len(windows),
        "custom": pairs(pad or [0] * 2 * len(windows)),
        "same": [(total // 2, total - total // 2) for total in totals],
        "same_lower": [(total - total // 2, total // 2) for total in totals],
    }
    return one_of(pad_types, pad_type, "pad_type")


def fill_around(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """Pad the last len(pads) dimensions with a value; negative widths crop."""
    if not any(before or after for before, after in pads):
        return x
    return functional.pad(x, [amount for pair in reversed(pads) for amount in pair], value=value)


def pad(x: Tensor, pad: list[int], mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """Pad the last len(pad) / 2 dimensions: with a value, mirrored without the edge, or with the edge's value."""
    if mode == "constant":
        return fill_around(x, pairs(pad), constant_val)
    mirror = one_of({"reflect": _reflect, "replicate": _replicate}, mode, "mode")
    first = x.dim() - len(pad) // 2
    for dim, (before, after) in enumerate(pairs(pad), start=first):
        size = x.shape[dim]
        x = x.index_select(dim, mirror(torch.arange(-before, size + after), size - 1))
    return x


def _reflect(positions: Tensor, last: int) -> Tensor:
    return last - (last - positions.abs()).abs()


def _replicate(positions: Tensor, last: int) -> Tensor:
    return positions.clamp(0, last)


def crop(x: Tensor, crop_height: list[int], crop_width: list[int]) -> Tensor:
    """Crop elements before and after, in the last two dimensions."""
    return fill_around(x, [(-before, -after) for before, after in (crop_height, crop_width)])


OPS: dict[str, KernelFunction] = {"pad": pad, "crop": crop}
