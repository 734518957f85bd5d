"""Operators along axes: reductions, places of extremes, softmax, cumulative sums."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tensorflow as tf

from modelexport_converter.backends.tensorflow_graph import TRANSLATIONS, Call, Value, dtype_of, translates

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


TRANSLATIONS.update({name: partial(_reduction, function) for name, function in _REDUCTIONS.items()})


@translates("any.default", "all.default", "sum.default", "mean.default", "max.default", "min.default")
def _reduce_all(call: Call, x: Value, **_: Any) -> Value:
    names = {"any": "any.dims", "all": "all.dims", "sum": "sum.dim_IntList", "mean": "mean.dim"}
    names |= {"max": "amax.default", "min": "amin.default"}
    name = str(call.node.target).removeprefix("aten.").partition(".")[0]
    return _reduction(_REDUCTIONS[names[name]], call, x)


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


@translates("_softmax.default")
def _softmax(call: Call, x: Value, axis: int, half: bool = False) -> Value:
    return x.with_tensor(tf.nn.softmax(x.tensor, x.axis(axis)))


@translates("_log_softmax.default")
def _log_softmax(call: Call, x: Value, axis: int, half: bool = False) -> Value:
    return x.with_tensor(tf.nn.log_softmax(x.tensor, x.axis(axis)))


@translates("cumsum.default")
def _cumsum(call: Call, x: Value, axis: int, **_: Any) -> Value:
    return x.with_tensor(tf.cumsum(tf.cast(x.tensor, dtype_of(call.dtype)), x.axis(axis)))
