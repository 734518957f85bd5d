"""Element-wise arithmetic, comparison, logic, casts. Operands broadcast as in numpy."""

import torch
from torch import Tensor

from modelexport_converter.coreml.ops.kernel import KernelFunction, binary, one_of, unary
from modelexport_converter.coreml.tensors import DTYPE_OF_WORD, FLOATS, saturate


def inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    """1 / (x + epsilon)."""
    return torch.reciprocal(x + epsilon)


def log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    """log(x + epsilon)."""
    return torch.log(x + epsilon)


def rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    """1 / sqrt(x + epsilon)."""
    return torch.rsqrt(x + epsilon)


def threshold(x: Tensor, alpha: float) -> Tensor:
    """max(x, alpha)."""
    return x.clamp(min=alpha)


def clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    """min(max(x, alpha), beta)."""
    return x.clamp(alpha, beta)


def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a where cond is true, else b."""
    return torch.where(cond, a, b)


def cast(x: Tensor, dtype: str) -> Tensor:
    """Truncate floats towards zero to integers; values out of range saturate."""
    target = one_of(DTYPE_OF_WORD, dtype, "dtype")
    if target == "bool":
        return x != 0
    return x if target in FLOATS or x.dtype == torch.bool else saturate(x, target)


OPS: dict[str, KernelFunction] = {
    "abs": unary(torch.abs),
    "acos": unary(torch.acos),
    "asin": unary(torch.asin),
    "atan": unary(torch.atan),
    "atanh": unary(torch.atanh),
    "ceil": unary(torch.ceil),
    "cos": unary(torch.cos),
    "cosh": unary(torch.cosh),
    "erf": unary(torch.erf),
    "exp": unary(torch.exp),
    "exp2": unary(torch.exp2),
    "floor": unary(torch.floor),
    "identity": unary(lambda x: x),
    "logical_not": unary(torch.logical_not),
    "round": unary(torch.round),
    "sign": unary(torch.sign),
    "sin": unary(torch.sin),
    "sinh": unary(torch.sinh),
    "sqrt": unary(torch.sqrt),
    "square": unary(torch.square),
    "tan": unary(torch.tan),
    "tanh": unary(torch.tanh),
    "add": binary(torch.add),
    "equal": binary(torch.eq),
    "floor_div": binary(torch.floor_divide),
    "greater": binary(torch.gt),
    "greater_equal": binary(torch.ge),
    "less": binary(torch.lt),
    "less_equal": binary(torch.le),
    "logical_and": binary(torch.logical_and),
    "logical_or": binary(torch.logical_or),
    "logical_xor": binary(torch.logical_xor),
    "maximum": binary(torch.maximum),
    "minimum": binary(torch.minimum),
    "mod": binary(torch.remainder),
    "mul": binary(torch.mul),
    "not_equal": binary(torch.ne),
    "pow": binary(torch.pow),
    "real_div": binary(torch.true_divide),
    "sub": binary(torch.sub),
    "cast": cast,
    "clip": clip,
    "inverse": inverse,
    "log": log,
    "rsqrt": rsqrt,
    "select": select,
    "threshold": threshold,
}
