"""Operators that sort, and that take elements by their places."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import tensorflow as tf
import torch

from modelexport_converter.backends.tensorflow_graph import Call, Value, dtype_of, refusal, tensor_of, translates


@translates("topk.default")
def _top(call: Call, x: Value, count: int, axis: int = -1, largest: bool = True, ordered: bool = True) -> list[Value]:
    order = [*(other for other in range(x.rank) if other != axis % x.rank), axis % x.rank]
    back = [order.index(place) for place in range(x.rank)]
    tensor = tf.transpose(x.first(), order)
    values, places = tf.math.top_k(tensor if largest else -tensor, count)
    found = (values if largest else -values, tf.cast(places, tf.int64))
    return [Value(tf.transpose(part, back)) for part in found]


@translates("sort.default")
def _sort(call: Call, x: Value, axis: int = -1, descending: bool = False) -> list[Value]:
    tensor, direction = x.first(), "DESCENDING" if descending else "ASCENDING"
    places = tf.argsort(tensor, axis, direction, stable=True)
    return [Value(tf.sort(tensor, axis, direction)), Value(tf.cast(places, tf.int64))]


def _from_zero(index: Value | torch.Tensor, size: int) -> Any:
    """Return indices as int64, those that count from the end as those that count from the start."""
    found = tf.cast(tensor_of(index), tf.int64)
    return tf.where(found < 0, found + size, found)


@translates("index.Tensor")
def _index(call: Call, x: Value | torch.Tensor, indices: Sequence[Value | torch.Tensor | None]) -> Value:
    tensor = tensor_of(x)
    places = [axis for axis, index in enumerate(indices) if index is not None]
    found = [_from_zero(index, tensor.shape[axis]) for axis, index in enumerate(indices) if index is not None]
    given = [index for index in indices if index is not None]
    types = {index.tensor.dtype if isinstance(index, Value) else dtype_of(index.dtype) for index in given}
    if types & {tf.bool, tf.uint8}:
        raise refusal(call.node, " with a mask, whose result has a size that depends on the image")
    others = [axis for axis in range(len(tensor.shape)) if axis not in places]
    leading = tf.transpose(tensor, [*places, *others])
    shape = reduce(tf.broadcast_static_shape, (index.shape for index in found))
    gathered = tf.gather_nd(leading, tf.stack([tf.broadcast_to(index, shape) for index in found], -1))
    if places != list(range(places[0], places[0] + len(places))):
        return Value(gathered)  # torch puts the indexed axes first where they are apart
    rank, before = len(shape), len([axis for axis in others if axis < places[0]])
    order = [*range(rank, rank + before), *range(rank), *range(rank + before, rank + len(others))]
    return Value(tf.transpose(gathered, order))


@translates("gather.default")
def _gather(call: Call, x: Value | torch.Tensor, axis: int, index: Value | torch.Tensor, **_: Any) -> Value:
    tensor = tensor_of(x)
    places, axis = _from_zero(index, tensor.shape[axis]), axis % max(len(tensor.shape), 1)
    grids = np.meshgrid(*(np.arange(size) for size in places.shape), indexing="ij")
    parts = [places if other == axis else tf.constant(grid, tf.int64) for other, grid in enumerate(grids)]
    return Value(tf.gather_nd(tensor, tf.stack(parts, -1)))


@translates("index_select.default")
def _index_select(call: Call, x: Value | torch.Tensor, axis: int, index: Value | torch.Tensor) -> Value:
    return Value(tf.gather(tensor_of(x), tf.cast(tensor_of(index), tf.int64), axis=axis))


@translates("embedding.default")
def _embedding(call: Call, table: Value | torch.Tensor, index: Value, *_: Any) -> Value:
    return Value(tf.gather(tensor_of(table), index.first()))
