"""Arithmetic, comparison, logic and casts."""

from collections.abc import Callable
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - its name everywhere

from converter.coreml.building import TARGET, Case, bools, ints, normal, positive


def _unary(op: str, reference: Callable[..., Any], inputs: np.ndarray) -> list[Case]:
    build = getattr(mb, op)
    return [Case("works element by element", lambda x: build(x=x), (inputs,), lambda x: reference(x.numpy()))]


def _binary(op: str, reference: Callable[..., Any], x: np.ndarray, y: np.ndarray) -> list[Case]:
    build = getattr(mb, op)
    return [
        Case(
            "broadcasts as numpy does",
            lambda x, y: build(x=x, y=y),
            (x, y),
            lambda x, y: reference(x.numpy(), y.numpy()),
        )
    ]


_A, _B = normal(2, 3, 4), normal(3, 1, seed=1)
_TIES = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49], np.float32)
_SMALL_INTS = (ints([1, 2, 3], [3, 2, 1]), ints(2, 2, 2))
_SIGNED_INTS = (ints(7, -7, 7, -7), ints(2, 2, -2, -2))
_BITS = (bools(True, True, False, False), bools(True, False, True, False))

CASES: dict[str, list[Case]] = {
    "abs": _unary("abs", np.abs, _A),
    "acos": _unary("acos", np.arccos, _A / 10),
    "asin": _unary("asin", np.arcsin, _A / 10),
    "atan": _unary("atan", np.arctan, _A),
    "atanh": _unary("atanh", np.arctanh, _A / 10),
    "ceil": _unary("ceil", np.ceil, _TIES),
    "cos": _unary("cos", np.cos, _A),
    "cosh": _unary("cosh", np.cosh, _A),
    "erf": [
        Case(
            "is the error function at 0, 1 and -2",
            lambda x: mb.erf(x=x),
            (np.array([0, 1, -2], np.float32),),
            lambda x: np.array([0, 0.84270079, -0.99532227], np.float32),
        )
    ],
    "exp": _unary("exp", np.exp, _A),
    "exp2": _unary("exp2", np.exp2, _A),
    "floor": _unary("floor", np.floor, _TIES),
    "identity": _unary("identity", lambda x: x, _A),
    "logical_not": _unary("logical_not", np.logical_not, bools(True, False)),
    "round": [
        Case(
            "rounds halves to even",
            lambda x: mb.round(x=x),
            (_TIES,),
            lambda x: np.array([-2, -2, 0, 0, 2, 2, 0], np.float32),
        )
    ],
    "sign": _unary("sign", np.sign, np.array([-3, 0, 2], np.float32)),
    "sin": _unary("sin", np.sin, _A),
    "sinh": _unary("sinh", np.sinh, _A),
    "sqrt": _unary("sqrt", np.sqrt, positive(5)),
    "square": _unary("square", np.square, _A),
    "tan": _unary("tan", np.tan, _A / 3),
    "tanh": _unary("tanh", np.tanh, _A),
    "add": [
        *_binary("add", np.add, _A, _B),
        Case(
            "of integers stays an integer",
            lambda x, y: mb.add(x=x, y=y),
            (ints(2**24 + 1, -5), ints(2, 3)),
            lambda x, y: ints(2**24 + 3, -2),
        ),
    ],
    "equal": _binary("equal", np.equal, *_SMALL_INTS),
    "floor_div": [
        *_binary("floor_div", np.floor_divide, _A, _B),
        Case(
            "of integers rounds down, not towards zero",
            lambda x, y: mb.floor_div(x=x, y=y),
            _SIGNED_INTS,
            lambda x, y: ints(3, -4, -4, 3),
        ),
    ],
    "greater": _binary("greater", np.greater, *_SMALL_INTS),
    "greater_equal": _binary("greater_equal", np.greater_equal, *_SMALL_INTS),
    "less": _binary("less", np.less, *_SMALL_INTS),
    "less_equal": _binary("less_equal", np.less_equal, *_SMALL_INTS),
    "logical_and": _binary("logical_and", np.logical_and, *_BITS),
    "logical_or": _binary("logical_or", np.logical_or, *_BITS),
    "logical_xor": _binary("logical_xor", np.logical_xor, *_BITS),
    "maximum": _binary("maximum", np.maximum, _A, _B),
    "minimum": _binary("minimum", np.minimum, _A, _B),
    "mod": [
        Case(
            "takes the sign of the divisor",
            lambda x, y: mb.mod(x=x, y=y),
            _SIGNED_INTS,
            lambda x, y: ints(1, 1, -1, -1),
        )
    ],
    "mul": _binary("mul", np.multiply, _A, _B),
    "not_equal": _binary("not_equal", np.not_equal, *_SMALL_INTS),
    "pow": _binary("pow", np.power, positive(2, 3), np.array([2, 0.5, -1], np.float32)),
    "real_div": _binary("real_div", np.true_divide, _A, _B),
    "sub": _binary("sub", np.subtract, _A, _B),
    "cast": [
        Case(
            "to int truncates towards zero",
            lambda x: mb.cast(x=x, dtype="int32"),
            (_TIES,),
            lambda x: ints(-2, -1, 0, 0, 1, 2, 0),
        ),
        Case(
            "to int saturates what does not fit",
            lambda x: mb.cast(x=x, dtype="int32"),
            (np.array([3e9, -3e9], np.float32),),
            lambda x: ints(2147483520, -(2**31)),
        ),
        Case(
            "to uint8 saturates what does not fit",
            lambda x: mb.cast(x=x, dtype="uint8"),
            (np.array([300, -3, 7.9], np.float32),),
            lambda x: np.array([255, 0, 7], np.uint8),
            TARGET.iOS17,
        ),
        Case(
            "to bool is true for every number but zero",
            lambda x: mb.cast(x=x, dtype="bool"),
            (np.array([0, 0.3, -2], np.float32),),
            lambda x: bools(False, True, True),
        ),
        Case(
            "of bool to float gives zeros and ones",
            lambda x: mb.cast(x=x, dtype="fp32"),
            (bools(True, False),),
            lambda x: np.array([1, 0], np.float32),
        ),
        Case(
            "to fp16 rounds to fp16",
            lambda x: mb.cast(x=x, dtype="fp16"),
            (np.array([1.0004, 2049, 1e6], np.float32),),
            lambda x: np.array([1, 2048, np.inf], np.float16),
        ),
    ],
    "clip": [
        Case(
            "keeps what is between the bounds",
            lambda x: mb.clip(x=x, alpha=-0.5, beta=0.25),
            (_A,),
            lambda x: np.clip(x.numpy(), -0.5, 0.25),
        )
    ],
    "inverse": [
        Case(
            "adds epsilon first",
            lambda x: mb.inverse(x=x, epsilon=0.5),
            (positive(4),),
            lambda x: 1 / (x.numpy() + 0.5),
        )
    ],
    "log": [
        Case(
            "adds epsilon first", lambda x: mb.log(x=x, epsilon=0.5), (positive(4),), lambda x: np.log(x.numpy() + 0.5)
        )
    ],
    "rsqrt": [
        Case(
            "adds epsilon first",
            lambda x: mb.rsqrt(x=x, epsilon=0.5),
            (positive(4),),
            lambda x: 1 / np.sqrt(x.numpy() + 0.5),
        )
    ],
    "threshold": [
        Case("is a lower bound", lambda x: mb.threshold(x=x, alpha=0.2), (_A,), lambda x: np.maximum(x.numpy(), 0.2))
    ],
    "select": [
        Case(
            "broadcasts its condition",
            lambda cond, a, b: mb.select(cond=cond, a=a, b=b),
            (bools([True], [False], [True]), normal(3, 4), normal(3, 4, seed=2)),
            lambda cond, a, b: np.where(cond.numpy(), a.numpy(), b.numpy()),
        )
    ],
}
