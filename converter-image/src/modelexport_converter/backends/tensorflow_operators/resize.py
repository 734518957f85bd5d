"""Upsampling."""

from typing import Any

import tensorflow as tf

from modelexport_converter.backends.tensorflow_graph import Call, Value, translates


@translates("upsample_nearest2d.vec", "upsample_nearest2d.default")
def _nearest(call: Call, x: Value, *_: Any) -> Value:
    return Value(tf.raw_ops.ResizeNearestNeighbor(images=x.channels_last(), size=list(call.shape[2:])), last=True)


@translates("upsample_bilinear2d.vec", "upsample_bilinear2d.default")
def _bilinear(call: Call, x: Value, size: Any, align_corners: bool, *_: Any) -> Value:
    image, corners = x.channels_last(), {"align_corners": align_corners, "half_pixel_centers": not align_corners}
    return Value(tf.raw_ops.ResizeBilinear(images=image, size=list(call.shape[2:]), **corners), last=True)
