"""Slices and gathers. Negative indices count from the end, as opsets before iOS17 allow."""

import torch
from torch import Tensor

from modelexport_converter.coreml.ops.kernel import KernelFunction


def slice_by_index(
    x: Tensor,
    begin: list[int],
    end: list[int],
    *,
    stride: list[int] | None = None,
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Tensor:
    """numpy's x[begin:end:stride, ...]; a masked bound stays open, a squeezed dimension is indexed at `begin`."""
    none = [False] * x.dim()
    squeeze = squeeze_mask or none
    for dim in reversed(range(x.dim())):
        if squeeze[dim]:
            x = x.select(dim, begin[dim])
            continue
        start = None if (begin_mask or none)[dim] else begin[dim]
        stop = None if (end_mask or none)[dim] else end[dim]
        places = range(x.shape[dim])[start : stop : stride[dim] if stride else 1]
        if places.step == 1:
            x = x.narrow(dim, places.start if places else 0, len(places))
        else:
            x = x.index_select(dim, torch.tensor(places, dtype=torch.int64))
    return x


def slice_by_size(x: Tensor, begin: list[int], size: list[int]) -> Tensor:
    """`size` elements from `begin` on; -1 takes all the rest."""
    for dim, (start, count) in enumerate(zip(begin, size, strict=True)):
        first = start % x.shape[dim]
        x = x.narrow(dim, first, x.shape[dim] - first if count == -1 else count)
    return x


def gather(x: Tensor, indices: Tensor, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """Shape x[:axis] + indices[batch_dims:] + x[axis + 1:]; an index out of range is always an error."""
    axis %= x.dim()
    if batch_dims:
        parts = [gather(part, index, axis - 1, batch_dims - 1) for part, index in zip(x, indices, strict=True)]
        return torch.stack(parts)
    taken = x.index_select(axis, _from_start(indices, x.shape[axis]).flatten())
    return taken.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


def gather_along_axis(x: Tensor, indices: Tensor, axis: int = 0, validate_indices: bool = False) -> Tensor:
    """x[..., indices[..., i, ...], ...] along the axis; x and indices have the same rank."""
    return x.gather(axis, _from_start(indices, x.shape[axis]))


def gather_nd(x: Tensor, indices: Tensor, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """The last dimension of `indices` holds positions in the first dimensions of x."""
    if batch_dims:
        return torch.stack([gather_nd(part, index, batch_dims - 1) for part, index in zip(x, indices, strict=True)])
    return x[tuple(indices.long().unbind(-1))]


def _from_start(indices: Tensor, size: int) -> Tensor:
    return torch.where(indices < 0, indices + size, indices).long()


OPS: dict[str, KernelFunction] = {
    function.__name__: function for function in (slice_by_index, slice_by_size, gather, gather_along_axis, gather_nd)
}
