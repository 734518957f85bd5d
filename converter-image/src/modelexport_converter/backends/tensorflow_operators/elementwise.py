"""Operators on each number: arithmetic, comparisons, activations, casts."""

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf
import torch
from torch.fx import Node

from modelexport_converter.backends.tensorflow_graph import TRANSLATIONS, Call, Value, dtype_of, translates
from modelexport_converter.backends.tensorflow_operators.operands import Operand, align

_UNARY: dict[str, Callable[[Any], Any]] = {
    "abs": tf.abs,
    "acos": tf.acos,
    "asin": tf.asin,
    "atan": tf.atan,
    "bitwise_not": lambda x: tf.logical_not(x) if x.dtype == tf.bool else tf.bitwise.invert(x),
    "ceil": tf.math.ceil,
    "cos": tf.cos,
    "cosh": tf.cosh,
    "erf": tf.math.erf,
    "exp": tf.exp,
    "expm1": tf.math.expm1,
    "floor": tf.floor,
    "isinf": tf.math.is_inf,
    "isnan": tf.math.is_nan,
    "log": tf.math.log,
    "log1p": tf.math.log1p,
    "logical_not": tf.logical_not,
    "neg": tf.negative,
    "reciprocal": tf.math.reciprocal,
    "relu": tf.nn.relu,
    "round": tf.round,
    "rsqrt": tf.math.rsqrt,
    "sigmoid": tf.sigmoid,
    "sign": tf.sign,
    "sin": tf.sin,
    "sinh": tf.sinh,
    "sqrt": tf.sqrt,
    "tan": tf.tan,
    "tanh": tf.tanh,
}
_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add.Tensor": tf.add,
    "add.Scalar": tf.add,
    "atan2.default": tf.atan2,
    "bitwise_and.Tensor": lambda x, y: tf.logical_and(x, y) if x.dtype == tf.bool else tf.bitwise.bitwise_and(x, y),
    "bitwise_or.Tensor": lambda x, y: tf.logical_or(x, y) if x.dtype == tf.bool else tf.bitwise.bitwise_or(x, y),
    "bitwise_xor.Tensor": lambda x, y: tf.not_equal(x, y) if x.dtype == tf.bool else tf.bitwise.bitwise_xor(x, y),
    "div.Scalar": tf.divide,
    "div.Tensor": tf.divide,
    "eq.Scalar": tf.equal,
    "eq.Tensor": tf.equal,
    "ge.Scalar": tf.greater_equal,
    "ge.Tensor": tf.greater_equal,
    "gt.Scalar": tf.greater,
    "gt.Tensor": tf.greater,
    "le.Scalar": tf.less_equal,
    "le.Tensor": tf.less_equal,
    "logical_and.default": tf.logical_and,
    "logical_or.default": tf.logical_or,
    "lt.Scalar": tf.less,
    "lt.Tensor": tf.less,
    "maximum.default": tf.maximum,
    "minimum.default": tf.minimum,
    "mul.Scalar": tf.multiply,
    "mul.Tensor": tf.multiply,
    "ne.Scalar": tf.not_equal,
    "ne.Tensor": tf.not_equal,
    "pow.Scalar": tf.pow,
    "pow.Tensor_Scalar": tf.pow,
    "pow.Tensor_Tensor": tf.pow,
    "remainder.Scalar": tf.math.floormod,
    "remainder.Tensor": tf.math.floormod,
    "sub.Scalar": tf.subtract,
    "sub.Tensor": tf.subtract,
}


def _unary(function: Callable[[Any], Any], call: Call, x: Value) -> Value:
    is_whole = x.tensor.dtype.is_integer and call.dtype.is_floating_point
    return x.with_tensor(function(tf.cast(x.tensor, dtype_of(call.dtype)) if is_whole else x.tensor))


def _binary(function: Callable[[Any, Any], Any], call: Call, x: Operand, y: Operand, alpha: float = 1) -> Value:
    """Compute in the type that torch promotes both operands to."""
    sources: list[Any] = [source.meta["val"] if isinstance(source, Node) else source for source in call.node.args[:2]]
    common = torch.result_type(*sources)
    if call.dtype.is_floating_point and not common.is_floating_point:
        common = call.dtype  # a quotient of whole numbers
    (left, right), last = align(x, y)
    left, right = (tf.cast(operand, dtype_of(common)) for operand in (left, right))
    result = function(left, right if alpha == 1 else right * tf.cast(alpha, right.dtype))
    return Value(tf.cast(result, dtype_of(call.dtype)), last)


TRANSLATIONS.update({f"{name}.default": partial(_unary, function) for name, function in _UNARY.items()})
TRANSLATIONS.update({name: partial(_binary, function) for name, function in _BINARY.items()})


@translates("div.Tensor_mode", "div.Scalar_mode")
def _divide(call: Call, x: Operand, y: Operand, rounding_mode: str | None = None) -> Value:
    if rounding_mode is None:
        return _binary(tf.divide, call, x, y)
    if rounding_mode == "floor":
        return _binary(tf.math.floordiv, call, x, y)
    return _binary(lambda a, b: tf.math.sign(a / b) * tf.floor(tf.abs(a / b)), call, x, y)


@translates("_to_copy.default")
def _cast(call: Call, x: Value, **_: Any) -> Value:
    return x.with_tensor(tf.cast(x.tensor, dtype_of(call.dtype)))


@translates("clone.default", "alias.default", "detach.default", "lift_fresh_copy.default")
def _keep(call: Call, x: Value, **_: Any) -> Value:
    return x


@translates("_assert_tensor_metadata.default")
def _assert(call: Call, *_: Any, **__: Any) -> None:
    return None


@translates("leaky_relu.default")
def _leaky_relu(call: Call, x: Value, slope: float = 0.01) -> Value:
    return x.with_tensor(tf.nn.leaky_relu(x.tensor, slope))


@translates("elu.default")
def _elu(call: Call, x: Value, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Value:
    negative = alpha * tf.math.expm1(tf.minimum(x.tensor, 0) * input_scale)
    return x.with_tensor(scale * tf.where(x.tensor > 0, x.tensor, negative))


@translates("gelu.default")
def _gelu(call: Call, x: Value, approximate: str = "none") -> Value:
    return x.with_tensor(tf.nn.gelu(x.tensor, approximate=approximate == "tanh"))


@translates("hardtanh.default", "clamp.default")
def _clamp(call: Call, x: Value, low: float | None = None, high: float | None = None, **named: float) -> Value:
    low, high = named.get("min", low), named.get("max", high)
    if low is None and high is None and "hardtanh" in str(call.node.target):
        low, high = -1, 1
    tensor = tf.cast(x.tensor, dtype_of(call.dtype))
    tensor = tensor if low is None else tf.maximum(tensor, tf.cast(low, tensor.dtype))
    return x.with_tensor(tensor if high is None else tf.minimum(tensor, tf.cast(high, tensor.dtype)))


@translates("where.self")
def _where(call: Call, condition: Operand, x: Operand, y: Operand) -> Value:
    (choice, left, right), last = align(condition, x, y)
    common = dtype_of(call.dtype)
    return Value(tf.where(choice, tf.cast(left, common), tf.cast(right, common)), last)
