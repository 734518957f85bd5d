"""Translates operators of torch into TensorFlow's: a small function for each, by the signatures of ATen."""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np
import tensorflow as tf
import torch
from torch.fx import Node

from modelexport_converter.backends.tensorflow_graph import (
    TO_LAST,
    TRANSLATIONS,
    Call,
    Value,
    dtype_of,
    refusal,
    tensor_of,
    translates,
)

Operand = Value | torch.Tensor | float
Parameter = Value | torch.Tensor | None
"""A weight or a bias of a normalisation, which may have none."""
_CONVOLUTION_ORDER = (2, 3, 1, 0)
"""From torch's order of a kernel (outputs, inputs, height, width) to TensorFlow's."""

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
_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "all.dim": tf.reduce_all,
    "all.dims": tf.reduce_all,
    "amax.default": tf.reduce_max,
    "amin.default": tf.reduce_min,
    "any.dim": tf.reduce_any,
    "any.dims": tf.reduce_any,
    "mean.dim": tf.reduce_mean,
    "prod.dim_int": tf.reduce_prod,
    "sum.dim_IntList": tf.reduce_sum,
}


def _same(value: Value, tensor: Any) -> Value:
    """Return a tensor in the layout of a value."""
    return Value(tensor, value.last)


def _unary(function: Callable[[Any], Any], call: Call, x: Value) -> Value:
    is_whole = x.tensor.dtype.is_integer and call.dtype.is_floating_point
    return _same(x, function(tf.cast(x.tensor, dtype_of(call.dtype)) if is_whole else x.tensor))


def _aligned(*operands: Operand) -> tuple[list[Any], bool]:
    """Return operands in one layout, so that they broadcast as in torch; and whether channels are last."""
    values = [operand for operand in operands if isinstance(operand, Value)]
    tensors = [operand for operand in operands if isinstance(operand, Value | torch.Tensor)]
    if not any(value.last for value in values) or any(_rank(operand) > 4 for operand in tensors):
        return [tensor_of(x) if isinstance(x, Value | torch.Tensor) else x for x in operands], False
    return [_channels_last(x) if isinstance(x, Value | torch.Tensor) else x for x in operands], True


def _rank(operand: Value | torch.Tensor) -> int:
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


def _binary(function: Callable[[Any, Any], Any], call: Call, x: Operand, y: Operand, alpha: float = 1) -> Value:
    """Compute in the type that torch promotes both operands to."""
    sources: list[Any] = [source.meta["val"] if isinstance(source, Node) else source for source in call.node.args[:2]]
    common = torch.result_type(*sources)
    if call.dtype.is_floating_point and not common.is_floating_point:
        common = call.dtype  # a quotient of whole numbers
    (left, right), last = _aligned(x, y)
    left, right = (tf.cast(operand, dtype_of(common)) for operand in (left, right))
    result = function(left, right if alpha == 1 else right * tf.cast(alpha, right.dtype))
    return Value(tf.cast(result, dtype_of(call.dtype)), last)


def _reduction(
    function: Callable[..., Any], call: Call, x: Value, axes: Sequence[int] | int = (), keep: bool = False, **_: Any
) -> Value:
    chosen = [axes] if isinstance(axes, int) else list(axes or range(x.rank))
    tensor, last = (x.tensor, True) if x.last and keep else (x.first(), False)
    if function in (tf.reduce_all, tf.reduce_any):
        tensor = tf.cast(tensor, tf.bool)
    elif function in (tf.reduce_mean, tf.reduce_sum, tf.reduce_prod):
        tensor = tf.cast(tensor, dtype_of(call.dtype))
    places = [x.axis(axis) if last else axis % max(x.rank, 1) for axis in chosen]
    return Value(function(tensor, places, keepdims=keep), last)


TRANSLATIONS.update({f"{name}.default": partial(_unary, function) for name, function in _UNARY.items()})
TRANSLATIONS.update({name: partial(_binary, function) for name, function in _BINARY.items()})
TRANSLATIONS.update({name: partial(_reduction, function) for name, function in _REDUCTIONS.items()})


@translates("any.default", "all.default", "sum.default", "mean.default", "max.default", "min.default")
def _reduce_all(call: Call, x: Value, **_: Any) -> Value:
    names = {"any": "any.dims", "all": "all.dims", "sum": "sum.dim_IntList", "mean": "mean.dim"}
    names |= {"max": "amax.default", "min": "amin.default"}
    name = str(call.node.target).removeprefix("aten.").partition(".")[0]
    return _reduction(_REDUCTIONS[names[name]], call, x)


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


@translates("argmax.default", "argmin.default")
def _arg(call: Call, x: Value, axis: int | None = None, keep: bool = False) -> Value:
    function = tf.argmax if "argmax" in str(call.node.target) else tf.argmin
    tensor = x.first() if axis is not None else tf.reshape(x.first(), [-1])
    return Value(tf.reshape(function(tensor, axis or 0, output_type=tf.int64), call.shape))


@translates("max.dim", "min.dim")
def _extreme(call: Call, x: Value, axis: int, keep: bool = False) -> list[Value]:
    smallest = "min" in str(call.node.target)
    find, reduce_ = (tf.argmin, tf.reduce_min) if smallest else (tf.argmax, tf.reduce_max)
    place = tf.expand_dims(find(x.first(), axis, output_type=tf.int64), axis)
    places = place if keep else tf.squeeze(place, axis)
    return [Value(reduce_(x.first(), axis, keepdims=keep)), Value(places)]


@translates("div.Tensor_mode", "div.Scalar_mode")
def _divide(call: Call, x: Operand, y: Operand, rounding_mode: str | None = None) -> Value:
    if rounding_mode is None:
        return _binary(tf.divide, call, x, y)
    if rounding_mode == "floor":
        return _binary(tf.math.floordiv, call, x, y)
    return _binary(lambda a, b: tf.math.sign(a / b) * tf.floor(tf.abs(a / b)), call, x, y)


@translates("clone.default", "alias.default", "detach.default", "lift_fresh_copy.default")
def _keep(call: Call, x: Value, **_: Any) -> Value:
    return x


@translates("_assert_tensor_metadata.default")
def _assert(call: Call, *_: Any, **__: Any) -> None:
    return None


@translates("_to_copy.default")
def _cast(call: Call, x: Value, **_: Any) -> Value:
    return _same(x, tf.cast(x.tensor, dtype_of(call.dtype)))


@translates("leaky_relu.default")
def _leaky_relu(call: Call, x: Value, slope: float = 0.01) -> Value:
    return _same(x, tf.nn.leaky_relu(x.tensor, slope))


@translates("elu.default")
def _elu(call: Call, x: Value, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Value:
    negative = alpha * tf.math.expm1(tf.minimum(x.tensor, 0) * input_scale)
    return _same(x, scale * tf.where(x.tensor > 0, x.tensor, negative))


@translates("gelu.default")
def _gelu(call: Call, x: Value, approximate: str = "none") -> Value:
    return _same(x, tf.nn.gelu(x.tensor, approximate=approximate == "tanh"))


@translates("hardtanh.default", "clamp.default")
def _clamp(call: Call, x: Value, low: float | None = None, high: float | None = None, **named: float) -> Value:
    low, high = named.get("min", low), named.get("max", high)
    if low is None and high is None and "hardtanh" in str(call.node.target):
        low, high = -1, 1
    tensor = tf.cast(x.tensor, dtype_of(call.dtype))
    tensor = tensor if low is None else tf.maximum(tensor, tf.cast(low, tensor.dtype))
    return _same(x, tensor if high is None else tf.minimum(tensor, tf.cast(high, tensor.dtype)))


@translates("_softmax.default")
def _softmax(call: Call, x: Value, axis: int, half: bool = False) -> Value:
    return _same(x, tf.nn.softmax(x.tensor, x.axis(axis)))


@translates("_log_softmax.default")
def _log_softmax(call: Call, x: Value, axis: int, half: bool = False) -> Value:
    return _same(x, tf.nn.log_softmax(x.tensor, x.axis(axis)))


@translates("cumsum.default")
def _cumsum(call: Call, x: Value, axis: int, **_: Any) -> Value:
    return _same(x, tf.cumsum(tf.cast(x.tensor, dtype_of(call.dtype)), x.axis(axis)))


@translates("where.self")
def _where(call: Call, condition: Operand, x: Operand, y: Operand) -> Value:
    (choice, left, right), last = _aligned(condition, x, y)
    common = dtype_of(call.dtype)
    return Value(tf.where(choice, tf.cast(left, common), tf.cast(right, common)), last)


@translates("cat.default")
def _concatenate(call: Call, values: Sequence[Value | torch.Tensor], axis: int = 0) -> Value:
    values = [value for value in values if _rank(value) > 1 or 0 not in value_shape(value)]  # torch skips empty ones
    tensors, last = _aligned(*values)
    common = [tf.cast(tensor, dtype_of(call.dtype)) for tensor in tensors]
    return Value(tf.concat(common, Value(common[0], last).axis(axis)), last)


def value_shape(value: Value | torch.Tensor) -> tuple[int, ...]:
    """Return the sizes of a value or a constant, in the order in which they are stored."""
    return tuple(value.tensor.shape if isinstance(value, Value) else value.shape)


@translates("split_with_sizes.default")
def _split(call: Call, x: Value, sizes: Sequence[int], axis: int = 0) -> list[Value]:
    return [_same(x, part) for part in tf.split(x.tensor, list(sizes), x.axis(axis))]


@translates("slice.Tensor")
def _slice(
    call: Call, x: Value, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    place = x.axis(axis)
    bounds = slice(*slice(start, end, step).indices(x.tensor.shape[place]))
    return _same(x, x.tensor[(slice(None),) * place + (bounds,)])


@translates("select.int")
def _select(call: Call, x: Value, axis: int, index: int) -> Value:
    axis %= x.rank
    return Value(x.first()[(slice(None),) * axis + (index % x.first().shape[axis],)])


@translates("flip.default")
def _flip(call: Call, x: Value, axes: Sequence[int]) -> Value:
    return _same(x, tf.reverse(x.tensor, [x.axis(axis) for axis in axes]))


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
    return _same(x, tf.pad(tensor, grown, constant_values=tf.cast(number, tensor.dtype)))


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
    call: Call, added: Operand, x: Value | torch.Tensor, y: Value | torch.Tensor, beta: float = 1, alpha: float = 1
) -> Value:
    product = tf.matmul(_factor(call, 1, x, -2), _factor(call, 2, y, -1))
    return Value(alpha * product + beta * tensor_of(added))  # type: ignore[arg-type]


@translates("convolution.default")
def _convolve(
    call: Call,
    x: Value,
    kernel: Value | torch.Tensor,
    bias: Value | torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    if x.rank != 4 and not (x.rank == 3 and isinstance(kernel, torch.Tensor)):
        raise refusal(call.node, f" of {x.rank - 2} spatial axes")
    if isinstance(kernel, Value) and (groups > 1 or transposed):
        raise refusal(call.node, " in groups with a computed kernel")
    flat = x.rank == 3
    if flat:  # one axis is two, the first of size one
        x, kernel = Value(tf.expand_dims(x.first(), 2)), kernel.unsqueeze(2)  # type: ignore[union-attr]
        stride, dilation = [1, *stride], [1, *dilation]
        padding, output_padding = [0, *padding], [0, *output_padding]
    image = x.channels_last()
    if transposed:
        sizes = (padding, output_padding)
        result = _convolve_transposed(call, image, kernel, stride, *sizes, dilation, groups)  # type: ignore[arg-type]
    else:
        result = _convolve_forward(call, image, kernel, stride, padding, dilation, groups)
    if bias is not None:
        result = tf.nn.bias_add(result, tensor_of(bias))
    return Value(tf.squeeze(Value(result, last=True).first(), 2)) if flat else Value(result, last=True)


def _convolve_forward(
    call: Call,
    image: Any,
    kernel: Value | torch.Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Any:
    explicit = [[0, 0], [padding[0]] * 2, [padding[1]] * 2, [0, 0]]
    if isinstance(kernel, Value):
        weight = tf.transpose(kernel.first(), _CONVOLUTION_ORDER)
        return tf.nn.conv2d(image, weight, stride, explicit, dilations=dilation)
    channels = image.shape[3]
    if 1 < groups == channels:
        # With explicit padding TensorFlow 2.21 aborts when it optimises the graph (tensor_format.h: invalid index).
        padded = tf.pad(image, explicit) if any(padding) else image
        if stride[0] != stride[1] or (max(stride) > 1 and max(dilation) > 1):
            kernel, dilation = _dilated(kernel, dilation), (1, 1)
        kernel = kernel.reshape(channels, kernel.shape[0] // channels, *kernel.shape[2:])
        weight = call.weight(1, kernel, (2, 3, 0, 1), 2)
        if stride[0] != stride[1]:
            whole = tf.nn.depthwise_conv2d(padded, weight, [1, 1, 1, 1], "VALID", dilations=dilation)
            return whole[:, :: stride[0], :: stride[1]]
        return tf.nn.depthwise_conv2d(padded, weight, [1, *stride, 1], "VALID", dilations=dilation)
    results = []
    for index, (part, weights) in enumerate(zip(tf.split(image, groups, 3), kernel.chunk(groups), strict=True)):
        weight = call.weight(1, weights, _CONVOLUTION_ORDER, 3, f"_{index}" if groups > 1 else "")
        results.append(tf.nn.conv2d(part, weight, stride, explicit, dilations=dilation))
    return tf.concat(results, 3) if groups > 1 else results[0]


def _convolve_transposed(
    call: Call,
    image: Any,
    kernel: torch.Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Any:
    """Convolve without padding, and cut it off, as torch's output padding needs rows that TensorFlow would not give."""
    kernel = _dilated(kernel, dilation)
    high, wide = (
        (size - 1) * step + length + extra
        for size, step, length, extra in zip(image.shape[1:3], stride, kernel.shape[2:], output_padding, strict=True)
    )
    results = []
    for index, (part, weights) in enumerate(zip(tf.split(image, groups, 3), kernel.chunk(groups), strict=True)):
        weight = call.weight(1, weights, _CONVOLUTION_ORDER, 2, f"_{index}" if groups > 1 else "")
        shape = [image.shape[0], high, wide, weights.shape[1]]
        results.append(tf.nn.conv2d_transpose(part, weight, shape, stride, "VALID"))
    whole = tf.concat(results, 3) if groups > 1 else results[0]
    return whole[:, padding[0] : high - padding[0], padding[1] : wide - padding[1]]


def _dilated(kernel: torch.Tensor, dilation: Sequence[int]) -> torch.Tensor:
    """Return a kernel with zeros between its weights."""
    if max(dilation) == 1:
        return kernel
    sizes = [(size - 1) * step + 1 for size, step in zip(kernel.shape[2:], dilation, strict=True)]
    wide = kernel.new_zeros(*kernel.shape[:2], *sizes)
    wide[:, :, :: dilation[0], :: dilation[1]] = kernel
    return wide


@translates("max_pool2d_with_indices.default")
def _max_pool(
    call: Call,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    *_: Any,
) -> list[Value]:
    if x.rank != 4 or any(user.args[1] != 0 for user in call.node.users):
        raise refusal(call.node, " with its indices, or of one image without a batch")
    kernel, stride, padding, dilation = map(_pair, (kernel, stride or kernel, padding, dilation))
    image, result = x.channels_last(), call.node.meta["val"][0].shape[2:]
    widths = _widths(image.shape[1:3], result, kernel, stride, padding, dilation)
    padded = tf.pad(image, widths, constant_values=image.dtype.min) if np.any(widths) else image
    if max(dilation) == 1:
        return [Value(tf.nn.max_pool2d(padded, kernel, stride, "VALID"), last=True)]
    pooled = tf.nn.pool(padded, kernel, "MAX", padding="VALID", dilations=dilation)
    return [Value(pooled[:, :: stride[0], :: stride[1]], last=True)]


def _pair(sizes: Sequence[int]) -> tuple[int, int]:
    """Return a size for the rows and one for the columns; torch may give one for both."""
    return sizes[0], sizes[-1]


def _widths(
    sizes: Sequence[int],
    results: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int] = (1, 1),
) -> list[list[int]]:
    """Return the padding of an image with channels last, for a pooling without padding of its own."""
    rows_and_columns = []
    for size, result, length, step, before, gap in zip(sizes, results, kernel, stride, padding, dilation, strict=True):
        reach = (result - 1) * step + gap * (length - 1) + 1
        rows_and_columns.append([before, max(0, reach - size - before)])
    return [[0, 0], *rows_and_columns, [0, 0]]


@translates("avg_pool2d.default")
def _average_pool(
    call: Call,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    *options: Any,
) -> Value:
    """Average over padded windows, then correct for what torch counts in each, found on an image of ones."""
    kernel, stride, padding = map(_pair, (kernel, stride or kernel, padding))
    image, (_, _, *result) = x.channels_last(), call.shape
    widths = _widths(image.shape[1:3], result, kernel, stride, padding)
    pooled = tf.nn.avg_pool2d(tf.pad(image, widths) if np.any(widths) else image, kernel, stride, "VALID")
    ones = torch.ones(1, 1, *image.shape[1:3])
    counted = torch.ops.aten.avg_pool2d(ones, kernel, stride, padding, *options)
    padded = torch.nn.functional.pad(ones, (*widths[2], *widths[1]))
    share = counted / torch.ops.aten.avg_pool2d(padded, kernel, stride)[:, :, : result[0], : result[1]]
    is_exact = bool((share == 1).all())
    return Value(pooled if is_exact else pooled * share.permute(TO_LAST).numpy(), last=True)


@translates("avg_pool3d.default")
def _average_volumes(
    call: Call,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    *options: Any,
) -> Value:
    if any(padding) or any(options):
        raise refusal(call.node, " of padded volumes")
    volumes = tf.transpose(x.first(), [0, 2, 3, 4, 1])
    pooled = tf.nn.avg_pool3d(volumes, list(kernel), list(stride or kernel), "VALID")
    return Value(tf.transpose(pooled, [0, 4, 1, 2, 3]))


@translates("upsample_nearest2d.vec", "upsample_nearest2d.default")
def _nearest(call: Call, x: Value, *_: Any) -> Value:
    return Value(tf.raw_ops.ResizeNearestNeighbor(images=x.channels_last(), size=list(call.shape[2:])), last=True)


@translates("upsample_bilinear2d.vec", "upsample_bilinear2d.default")
def _bilinear(call: Call, x: Value, size: Any, align_corners: bool, *_: Any) -> Value:
    image, corners = x.channels_last(), {"align_corners": align_corners, "half_pixel_centers": not align_corners}
    return Value(tf.raw_ops.ResizeBilinear(images=image, size=list(call.shape[2:]), **corners), last=True)
