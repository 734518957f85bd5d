"""Activations; all keep the shape (...) of x."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from modelexport_converter.coreml.ops.kernel import KernelFunction, one_of, unary


def leaky_relu(x: Tensor, alpha: float) -> Tensor:
    """x where x >= 0, else alpha * x."""
    return functional.leaky_relu(x, alpha)


def thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    """x where x >= alpha, else 0."""
    return torch.where(x >= alpha, x, 0)


def clamped_relu(x: Tensor, alpha: float, beta: float) -> Tensor:
    """min(beta, leaky_relu(x, alpha))."""
    return functional.leaky_relu(x, alpha).clamp(max=beta)


def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """x where x > 0, else alpha * x, with one alpha per channel, the second dimension of x (N, C, ...)."""
    return functional.prelu(x, alpha)


def elu(x: Tensor, alpha: float) -> Tensor:
    """x where x > 0, else alpha * (exp(x) - 1)."""
    return functional.elu(x, alpha)


def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """x * P(X <= x) for a standard normal X, exactly or by one of two approximations."""
    modes: dict[str, Callable[[Tensor], Tensor]] = {
        "EXACT": functional.gelu,
        "TANH_APPROXIMATION": lambda x: functional.gelu(x, approximate="tanh"),
        "SIGMOID_APPROXIMATION": lambda x: x * torch.sigmoid(1.702 * x),
    }
    return one_of(modes, mode, "mode")(x)


def sigmoid_hard(x: Tensor, alpha: float, beta: float) -> Tensor:
    """min(max(alpha * x + beta, 0), 1)."""
    return (alpha * x + beta).clamp(0, 1)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """exp(x) over its sum along the axis."""
    return torch.softmax(x, axis)


def softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """alpha * log(1 + exp(beta * x)), with one alpha and beta per channel, the second dimension of x (N, C, ...)."""
    per_channel = (-1, *[1] * (x.dim() - 2))
    return alpha.reshape(per_channel) * functional.softplus(x * beta.reshape(per_channel))


def scaled_tanh(x: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha * tanh(beta * x)."""
    return alpha * torch.tanh(beta * x)


def linear_activation(x: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha * x + beta."""
    return alpha * x + beta


OPS: dict[str, KernelFunction] = {
    "relu": unary(functional.relu),
    "relu6": unary(functional.relu6),
    "sigmoid": unary(torch.sigmoid),
    "silu": unary(functional.silu),
    "softplus": unary(functional.softplus),
    "softsign": unary(functional.softsign),
} | {
    function.__name__: function
    for function in (
        leaky_relu,
        thresholded_relu,
        clamped_relu,
        prelu,
        elu,
        gelu,
        sigmoid_hard,
        softmax,
        softplus_parametric,
        scaled_tanh,
        linear_activation,
    )
}
