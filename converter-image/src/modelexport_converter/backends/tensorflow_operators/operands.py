"""Operands of several values in one layout."""

from typing import Any

import tensorflow as tf
import torch

from modelexport_converter.backends.tensorflow_graph import TO_LAST, Value, tensor_of

Operand = Value | torch.Tensor | float


def align(*operands: Operand) -> tuple[list[Any], bool]:
    """Return operands in one layout, so that they broadcast as in torch; and whether channels are last."""
    values = [operand for operand in operands if isinstance(operand, Value)]
    tensors = [operand for operand in operands if isinstance(operand, Value | torch.Tensor)]
    if not any(value.last for value in values) or any(rank_of(operand) > 4 for operand in tensors):
        return [tensor_of(x) if isinstance(x, Value | torch.Tensor) else x for x in operands], False
    return [_channels_last(x) if isinstance(x, Value | torch.Tensor) else x for x in operands], True


def rank_of(operand: Value | torch.Tensor) -> int:
    """Return the number of axes."""
    return operand.rank if isinstance(operand, Value) else operand.ndim


def _channels_last(operand: Value | torch.Tensor) -> Any:
    """Return an operand of up to four axes with channels last; axes of one are put before fewer."""
    if isinstance(operand, torch.Tensor):
        if operand.ndim:
            operand = operand.reshape((1,) * (4 - operand.ndim) + tuple(operand.shape)).permute(TO_LAST)
        return tf.constant(operand.numpy())
    if operand.rank in (0, 4):
        return operand.channels_last() if operand.rank else operand.tensor
    shape = [1] * (4 - operand.rank) + list(operand.tensor.shape)
    return tf.transpose(tf.reshape(operand.tensor, shape), TO_LAST)


def stored_shape(value: Value | torch.Tensor) -> tuple[int, ...]:
    """Return the sizes of a value or a constant, in the order in which they are stored."""
    return tuple(value.tensor.shape if isinstance(value, Value) else value.shape)
