"""Normalisation of layers, groups and instances."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import torch

from modelexport_converter.backends.tensorflow_graph import Call, Value, tensor_of, translates

Parameter = Value | torch.Tensor | None
"""A weight or a bias of a normalisation, which may have none."""


@translates("native_layer_norm.default")
def _layer_norm(
    call: Call,
    x: Value,
    shape: Sequence[int],
    weight: Parameter,
    bias: Parameter,
    eps: float,
) -> list[Value]:
    axes = list(range(x.rank - len(shape), x.rank))
    return _scale_and_shift(_standardise(x.first(), axes, eps), weight, bias, shape)


@translates("native_group_norm.default")
def _group_norm(
    call: Call,
    x: Value,
    weight: Parameter,
    bias: Parameter,
    batch: int,
    channels: int,
    _size: int,
    groups: int,
    eps: float,
) -> list[Value]:
    tensor = x.first()
    grouped, mean, factor = _standardise(tf.reshape(tensor, [batch, groups, -1]), [2], eps)
    normal = tf.reshape(grouped, tensor.shape), mean, factor
    return _scale_and_shift(normal, weight, bias, [channels] + [1] * (x.rank - 2))


@translates("_native_batch_norm_legit.no_stats")
def _instance_norm(
    call: Call,
    x: Value,
    weight: Parameter,
    bias: Parameter,
    _training: bool,
    _momentum: float,
    eps: float,
) -> list[Value]:
    axes = [axis for axis in range(x.rank) if axis != 1]
    return _scale_and_shift(_standardise(x.first(), axes, eps), weight, bias, [-1] + [1] * (x.rank - 2))


def _standardise(tensor: Any, axes: Sequence[int], eps: float) -> tuple[Any, Any, Any]:
    """Return a tensor with mean 0 and variance 1 over some axes, the mean, and the factor."""
    mean, variance = tf.nn.moments(tensor, axes, keepdims=True)
    factor = tf.math.rsqrt(variance + eps)
    return (tensor - mean) * factor, mean, factor


def _scale_and_shift(
    normal: tuple[Any, Any, Any],
    weight: Parameter,
    bias: Parameter,
    shape: Sequence[int],
) -> list[Value]:
    """Return the three results of a normalisation, the first with a weight and a bias of a shape."""
    result, mean, factor = normal
    if weight is not None:
        result = result * tf.reshape(tensor_of(weight), list(shape))
    if bias is not None:
        result = result + tf.reshape(tensor_of(bias), list(shape))
    return [Value(result), Value(mean), Value(factor)]
