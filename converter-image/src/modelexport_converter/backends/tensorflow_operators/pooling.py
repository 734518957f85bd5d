"""Maximum and average over windows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import torch

from modelexport_converter.backends.tensorflow_graph import TO_LAST, Call, Value, refusal, translates


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
