"""Operators that cut, join, pad and reorder tensors."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import torch

from modelexport_converter.backends.tensorflow_graph import Call, Value, dtype_of, translates
from modelexport_converter.backends.tensorflow_operators.operands import align, rank_of, stored_shape


@translates("cat.default")
def _concatenate(call: Call, values: Sequence[Value | torch.Tensor], axis: int = 0) -> Value:
    values = [value for value in values if rank_of(value) > 1 or 0 not in stored_shape(value)]  # torch skips empty ones
    tensors, last = align(*values)
    common = [tf.cast(tensor, dtype_of(call.dtype)) for tensor in tensors]
    return Value(tf.concat(common, Value(common[0], last).axis(axis)), last)


@translates("split_with_sizes.default")
def _split(call: Call, x: Value, sizes: Sequence[int], axis: int = 0) -> list[Value]:
    return [x.with_tensor(part) for part in tf.split(x.tensor, list(sizes), x.axis(axis))]


@translates("slice.Tensor")
def _slice(
    call: Call, x: Value, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    place = x.axis(axis)
    bounds = slice(*slice(start, end, step).indices(x.tensor.shape[place]))
    return x.with_tensor(x.tensor[(slice(None),) * place + (bounds,)])


@translates("select.int")
def _select(call: Call, x: Value, axis: int, index: int) -> Value:
    axis %= x.rank
    return Value(x.first()[(slice(None),) * axis + (index % x.first().shape[axis],)])


@translates("flip.default")
def _flip(call: Call, x: Value, axes: Sequence[int]) -> Value:
    return x.with_tensor(tf.reverse(x.tensor, [x.axis(axis) for axis in axes]))


@translates("view.default", "_unsafe_view.default", "reshape.default", "unsqueeze.default", "squeeze.dim")
@translates("squeeze.dims", "squeeze.default")
def _reshape(call: Call, x: Value, *_: Any) -> Value:
    return Value(tf.reshape(x.first(), call.shape))


@translates("permute.default")
def _permute(call: Call, x: Value, axes: Sequence[int]) -> Value:
    order = [axis % x.rank for axis in axes]
    # Where each of the result's axes is, so that one transposition does for both.
    return Value(tf.transpose(x.tensor, [x.axis(axis) for axis in order]))


@translates("expand.default")
def _expand(call: Call, x: Value, *_: Any, **__: Any) -> Value:
    return Value(tf.broadcast_to(x.first(), call.shape))


@translates("repeat.default")
def _repeat(call: Call, x: Value, counts: Sequence[int]) -> Value:
    shape = [1] * (len(counts) - x.rank) + list(x.first().shape)
    return Value(tf.tile(tf.reshape(x.first(), shape), list(counts)))


@translates("full_like.default")
def _full_like(call: Call, x: Value, number: float, **_: Any) -> Value:
    return Value(tf.fill(call.shape, tf.cast(number, dtype_of(call.dtype))))


@translates("constant_pad_nd.default")
def _pad(call: Call, x: Value, widths: Sequence[int], number: float = 0) -> Value:
    pairs = [(0, 0)] * x.rank
    for index in range(len(widths) // 2):
        pairs[x.axis(-1 - index)] = widths[2 * index], widths[2 * index + 1]
    tensor = x.tensor
    for place, pair in enumerate(pairs):  # a negative width cuts
        cut = slice(max(0, -pair[0]), tensor.shape[place] - max(0, -pair[1]))
        tensor = tensor[(slice(None),) * place + (cut,)]
    grown = [[max(0, before), max(0, after)] for before, after in pairs]
    return x.with_tensor(tf.pad(tensor, grown, constant_values=tf.cast(number, tensor.dtype)))
