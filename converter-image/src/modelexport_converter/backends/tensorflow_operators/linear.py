"""Products of matrices."""

from typing import Any

import tensorflow as tf
import torch

from modelexport_converter.backends.tensorflow_graph import Call, Value, tensor_of, translates


@translates("mm.default", "bmm.default")
def _product(call: Call, x: Value | torch.Tensor, y: Value | torch.Tensor, **_: Any) -> Value:
    return Value(tf.matmul(_factor(call, 0, x, -2), _factor(call, 1, y, -1)))


def _factor(call: Call, position: int, factor: Value | torch.Tensor, axis: int) -> Any:
    """Return a factor of a product; a constant one is a weight, whose outputs are at ``axis``."""
    if isinstance(factor, Value):
        return factor.first()
    return call.weight(position, factor, range(factor.ndim), axis)


@translates("addmm.default", "baddbmm.default")
def _add_product(
    call: Call,
    added: Value | torch.Tensor,
    x: Value | torch.Tensor,
    y: Value | torch.Tensor,
    beta: float = 1,
    alpha: float = 1,
) -> Value:
    product = tf.matmul(_factor(call, 1, x, -2), _factor(call, 2, y, -1))
    return Value(alpha * product + beta * tensor_of(added))
