"""Pooling over one, two or three spatial dimensions."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from modelexport_converter.coreml.ops.kernel import KernelFunction
from modelexport_converter.coreml.ops.padding import Pads, fill_around, spatial_pads

_MAX: dict[int, Callable[..., Tensor]] = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MEAN: dict[int, Callable[..., Tensor]] = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def max_pool(
    x: Tensor,
    kernel_sizes: list[int],
    pad_type: str,
    *,
    strides: list[int] | None = None,
    pad: list[int] | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """x [n, c, *d] to [n, c, *d_out]; padding never wins."""
    strides = strides or [1] * len(kernel_sizes)
    pads = spatial_pads(pad_type, pad, x.shape[2:], kernel_sizes, strides)
    overhang = _overhang(x.shape[2:], kernel_sizes, strides, pads) if ceil_mode else pads
    return _MAX[len(kernel_sizes)](fill_around(x, overhang, -torch.inf), kernel_sizes, strides)


def avg_pool(
    x: Tensor,
    kernel_sizes: list[int],
    pad_type: str,
    *,
    strides: list[int] | None = None,
    pad: list[int] | None = None,
    ceil_mode: bool = False,
    exclude_padding_from_average: bool = False,
) -> Tensor:
    """x [n, c, *d] to [n, c, *d_out]. In ceil_mode, as in torch, a window over the border averages its inner part."""
    strides = strides or [1] * len(kernel_sizes)
    pads = spatial_pads(pad_type, pad, x.shape[2:], kernel_sizes, strides)
    counted = fill_around(torch.ones(x.shape[2:]), pads, 0.0 if exclude_padding_from_average else 1.0)
    padded = fill_around(x, pads)
    if ceil_mode:
        overhang = _overhang(x.shape[2:], kernel_sizes, strides, pads)
        rest = [(0, after - known) for (_, after), (_, known) in zip(overhang, pads, strict=True)]
        counted, padded = fill_around(counted, rest), fill_around(padded, rest)
    mean = _MEAN[len(kernel_sizes)]
    return mean(padded, kernel_sizes, strides) / mean(counted[None, None], kernel_sizes, strides)


def _overhang(sizes: Sequence[int], windows: list[int], strides: list[int], pads: Pads) -> Pads:
    """Return the padding with which floor mode gives ceil mode's result: the last window may exceed the border.

    A last window that would start in the padding after the input is dropped (MIL's documentation of `avg_pool`).
    """
    reached = []
    for size, window, stride, (before, after) in zip(sizes, windows, strides, pads, strict=True):
        last = -(-(size + before + after - window) // stride)
        if last * stride >= size + before and (before or after):
            last -= 1
        reached.append((before, max(after, last * stride + window - size - before)))
    return reached


OPS: dict[str, KernelFunction] = {"max_pool": max_pool, "avg_pool": avg_pool}
