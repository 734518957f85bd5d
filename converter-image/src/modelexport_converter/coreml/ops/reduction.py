"""Reductions over some axes (all by default), and cumulative sums."""

from collections.abc import Callable

import torch
from torch import Tensor

from modelexport_converter.coreml.ops.kernel import KernelFunction


def _reduce(function: Callable[[Tensor, list[int], bool], Tensor]) -> KernelFunction:
    def reduce(x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
        return function(x, axes or list(range(x.dim())), keep_dims)

    return reduce


def _product(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    """Multiply along one axis at a time, as torch does, from the last on, so that dropped axes do not shift others."""
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep_dims)
    return x


def reduce_argmax(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    """Index of the first largest element."""
    return x.argmax(axis, keepdim=keep_dims)


def reduce_argmin(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    """Index of the first smallest element."""
    return x.argmin(axis, keepdim=keep_dims)


def cumsum(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Running sum; an exclusive one starts at 0, a reverse one at the end."""
    ordered = x.flip(axis) if reverse else x
    total = ordered.cumsum(axis) - ordered if exclusive else ordered.cumsum(axis)
    return total.flip(axis) if reverse else total


OPS: dict[str, KernelFunction] = {
    "reduce_l1_norm": _reduce(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "reduce_l2_norm": _reduce(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
    "reduce_log_sum": _reduce(lambda x, axes, keep: x.sum(axes, keep).log()),
    "reduce_log_sum_exp": _reduce(torch.logsumexp),
    "reduce_max": _reduce(torch.amax),
    "reduce_mean": _reduce(lambda x, axes, keep: x.mean(axes, keep)),
    "reduce_min": _reduce(torch.amin),
    "reduce_prod": _reduce(_product),
    "reduce_sum": _reduce(lambda x, axes, keep: x.sum(axes, keep)),
    "reduce_sum_square": _reduce(lambda x, axes, keep: x.square().sum(axes, keep)),
    "reduce_argmax": reduce_argmax,
    "reduce_argmin": reduce_argmin,
    "cumsum": cumsum,
}
