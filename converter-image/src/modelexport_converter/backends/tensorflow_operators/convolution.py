"""Convolutions, transposed ones as well."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import torch

from modelexport_converter.backends.tensorflow_graph import Call, Value, refusal, tensor_of, translates

_CONVOLUTION_ORDER = (2, 3, 1, 0)
"""From torch's order of a kernel (outputs, inputs, height, width) to TensorFlow's."""


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
        assert isinstance(kernel, torch.Tensor)
        x, kernel = Value(tf.expand_dims(x.first(), 2)), kernel.unsqueeze(2)
        stride, dilation = [1, *stride], [1, *dilation]
        padding, output_padding = [0, *padding], [0, *output_padding]
    image = x.channels_last()
    if transposed:
        assert isinstance(kernel, torch.Tensor)
        result = _convolve_transposed(call, image, kernel, stride, padding, output_padding, dilation, groups)
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
