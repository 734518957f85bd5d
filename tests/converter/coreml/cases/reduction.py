"""Reductions and sorting."""

from collections.abc import Callable
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - its name everywhere

from converter.coreml.building import TARGET, Case, ints, normal, positive

_X = normal(2, 3, 4)
_TIED = np.array([[1, 3, 3, 0], [2, 2, 2, 2]], np.float32)


def _reduce(op: str, reference: Callable[..., Any], x: np.ndarray = _X) -> list[Case]:
    build = getattr(mb, op)
    return [
        Case(
            "over two axes drops them",
            lambda x: build(x=x, axes=[0, -1], keep_dims=False),
            (x,),
            lambda x: reference(x.numpy(), axis=(0, 2)),
        ),
        Case(
            "keeps reduced dimensions when asked to",
            lambda x: build(x=x, axes=[1], keep_dims=True),
            (x,),
            lambda x: reference(x.numpy(), axis=(1,), keepdims=True),
        ),
        Case(
            "is over everything by default",
            lambda x: build(x=x, keep_dims=True),
            (x,),
            lambda x: reference(x.numpy(), axis=(0, 1, 2), keepdims=True),
        ),
    ]


CASES: dict[str, list[Case]] = {
    "reduce_l1_norm": _reduce("reduce_l1_norm", lambda x, **axes: np.abs(x).sum(**axes)),
    "reduce_l2_norm": _reduce("reduce_l2_norm", lambda x, **axes: np.sqrt(np.square(x).sum(**axes))),
    "reduce_log_sum": _reduce("reduce_log_sum", lambda x, **axes: np.log(x.sum(**axes)), positive(2, 3, 4)),
    "reduce_log_sum_exp": _reduce("reduce_log_sum_exp", lambda x, **axes: np.log(np.exp(x).sum(**axes))),
    "reduce_max": _reduce("reduce_max", np.max),
    "reduce_mean": _reduce("reduce_mean", np.mean),
    "reduce_min": _reduce("reduce_min", np.min),
    "reduce_prod": _reduce("reduce_prod", np.prod),
    "reduce_sum": _reduce("reduce_sum", np.sum),
    "reduce_sum_square": _reduce("reduce_sum_square", lambda x, **axes: np.square(x).sum(**axes)),
    "reduce_argmax": [
        Case(
            "gives the first of equal values",
            lambda x: mb.reduce_argmax(x=x, axis=1, keep_dims=False),
            (_TIED,),
            lambda x: ints(1, 0),
        ),
        Case(
            "keeps the dimension when asked to",
            lambda x: mb.reduce_argmax(x=x, axis=-2, keep_dims=True),
            (_X,),
            lambda x: np.argmax(x.numpy(), 1, keepdims=True),
        ),
    ],
    "reduce_argmin": [
        Case(
            "gives the first of equal values",
            lambda x: mb.reduce_argmin(x=x, axis=1, keep_dims=False),
            (_TIED,),
            lambda x: ints(3, 0),
        )
    ],
    "cumsum": [
        Case("adds up along its axis", lambda x: mb.cumsum(x=x, axis=1), (_X,), lambda x: np.cumsum(x.numpy(), 1)),
        Case(
            "starts at zero when exclusive",
            lambda x: mb.cumsum(x=x, exclusive=True),
            (ints(1, 2, 3),),
            lambda x: ints(0, 1, 3),
        ),
        Case(
            "runs backwards when reversed",
            lambda x: mb.cumsum(x=x, reverse=True),
            (ints(1, 2, 3),),
            lambda x: ints(6, 5, 3),
        ),
        Case(
            "starts at zero at the end when both",
            lambda x: mb.cumsum(x=x, reverse=True, exclusive=True),
            (ints(1, 2, 3),),
            lambda x: ints(5, 3, 0),
        ),
    ],
    "argsort": [
        Case(
            "is descending by default, equal values in their order",
            lambda x: mb.argsort(x=x),
            (_TIED,),
            lambda x: ints([1, 2, 0, 3], [0, 1, 2, 3]),
        ),
        Case(
            "can ascend along any axis",
            lambda x: mb.argsort(x=x, axis=0, ascending=True),
            (_X,),
            lambda x: np.argsort(x.numpy(), 0),
        ),
    ],
    "topk": [
        Case(
            "gives values and indices, equal values in their order",
            lambda x: mb.topk(x=x, k=3),
            (_TIED,),
            lambda x: [np.array([[3, 3, 1], [2, 2, 2]], np.float32), ints([1, 2, 0], [0, 1, 2])],
        ),
        Case(
            "can give the smallest along any axis",
            lambda x: mb.topk(x=x, k=1, axis=1, ascending=True),
            (_X,),
            lambda x: [np.min(x.numpy(), 1, keepdims=True), np.argmin(x.numpy(), 1, keepdims=True)],
        ),
        Case(
            "can leave the indices out",
            lambda x: mb.topk(x=x, k=2, return_indices=False),
            (_TIED,),
            lambda x: np.array([[3, 3], [2, 2]], np.float32),
            TARGET.iOS16,
        ),
        Case(
            "of integers gives integers, and uint16 indices when asked to",
            lambda x: mb.topk(x=x, k=2, output_indices_dtype="uint16"),
            (ints(5, 9, 7),),
            lambda x: [ints(9, 7), np.array([1, 2], np.uint16)],
            TARGET.iOS17,
        ),
    ],
}
