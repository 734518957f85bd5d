"""Reshapes, joins, splits and creates tensors."""

import torch
from torch import Tensor

from modelexport_converter.coreml.ops.kernel import KernelFunction


def reshape(x: Tensor, shape: list[int]) -> Tensor:
    """-1 is inferred, 0 keeps the size of the same dimension of x (which then must have as many dimensions)."""
    if 0 in shape and len(shape) != x.dim():
        raise ValueError(f"0 in shape {shape} needs an input of the same rank, not {x.dim()}")
    return x.reshape([size or x.shape[dim] for dim, size in enumerate(shape)])


def transpose(x: Tensor, perm: list[int]) -> Tensor:
    """Dimension i of the result is dimension perm[i] of x."""
    return x.permute(perm)


def expand_dims(x: Tensor, axes: list[int]) -> Tensor:
    """Insert axes; they count in the result's dimensions."""
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: list[int] | None = None) -> Tensor:
    """Drop dimensions of size 1: the given ones, or all."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def concat(values: list[Tensor], axis: int, interleave: bool = False) -> Tensor:
    """Concatenate; interleaved, the elements along the axis alternate between the inputs."""
    if not interleave:
        return torch.cat(values, axis)
    axis %= values[0].dim()
    return torch.stack(values, axis + 1).flatten(axis, axis + 1)


def stack(values: list[Tensor], axis: int) -> Tensor:
    """Join along a new axis."""
    return torch.stack(values, axis)


def split(
    x: Tensor, axis: int, num_splits: int | None = None, split_sizes: list[int] | None = None
) -> tuple[Tensor, ...]:
    """Split into parts of equal size, or of the given sizes."""
    if split_sizes is not None:
        return torch.functional.split(x, split_sizes, axis)
    if not num_splits or x.shape[axis] % num_splits:
        raise ValueError(f"{x.shape[axis]} elements cannot be split into {num_splits} equal parts")
    return x.tensor_split(num_splits, axis)


def tile(x: Tensor, reps: list[int]) -> Tensor:
    """Repeat reps[i] times along dimension i."""
    return x.tile(reps)


def reverse(x: Tensor, axes: list[int] | None = None) -> Tensor:
    """Reverse the order along the axes, all by default."""
    return x.flip(list(range(x.dim())) if axes is None else axes)


def shape(x: Tensor) -> Tensor:
    """Return the sizes of x as an int32 vector."""
    return torch.tensor(x.shape, dtype=torch.int32)


def fill(shape: list[int], value: Tensor | None = None) -> Tensor:
    """Return a tensor of one value, by default 0."""
    return torch.zeros(shape) if value is None else value.expand(shape)


def fill_like(ref_tensor: Tensor, value: Tensor | None = None) -> Tensor:
    """Return a tensor of one value in the shape of another."""
    return fill(list(ref_tensor.shape), value)


def range_1d(end: Tensor, start: Tensor, step: Tensor) -> Tensor:
    """start, start + step... below end."""
    return torch.arange(start.item(), end.item(), step.item())


def one_hot(
    indices: Tensor, one_hot_vector_size: int, axis: int = -1, on_value: float = 1, off_value: float = 0
) -> Tensor:
    """Add a new axis at `axis` of the result."""
    axis %= indices.dim() + 1
    positions = torch.arange(one_hot_vector_size).reshape(-1, *[1] * (indices.dim() - axis))
    return torch.where(indices.unsqueeze(axis) == positions, on_value, off_value)


def band_part(x: Tensor, lower: int = -1, upper: int = -1) -> Tensor:
    """Keep `lower` and `upper` diagonals beside the main one, all if negative; zero the rest."""
    x = x if lower < 0 else x.triu(-lower)
    return x if upper < 0 else x.tril(upper)


OPS: dict[str, KernelFunction] = {
    function.__name__: function
    for function in (
        reshape,
        transpose,
        expand_dims,
        squeeze,
        concat,
        stack,
        split,
        tile,
        reverse,
        shape,
        fill,
        fill_like,
        range_1d,
        one_hot,
        band_part,
    )
}
