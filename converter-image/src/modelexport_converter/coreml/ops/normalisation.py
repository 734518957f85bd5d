"""Normalisation."""

import torch
from torch import Tensor
from torch.nn import functional

from modelexport_converter.coreml.ops.kernel import KernelFunction


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, per channel of x [n, c, *d]."""
    return functional.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)


def instance_norm(x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5) -> Tensor:
    """Batch normalisation by the moments of each image and channel of x [n, c, *d]."""
    return functional.instance_norm(x, weight=gamma, bias=beta, eps=epsilon)


def layer_norm(
    x: Tensor,
    axes: list[int] | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Over any axes, by default all; gamma and beta have the sizes of these axes."""
    over = sorted(axis % x.dim() for axis in axes or range(x.dim()))
    affine = [x.shape[axis] if axis in over else 1 for axis in range(x.dim())]
    variance, mean = torch.var_mean(x, over, correction=0, keepdim=True)
    normal = (x - mean) * torch.rsqrt(variance + epsilon)
    scaled = normal if gamma is None else normal * gamma.reshape(affine)
    return scaled if beta is None else scaled + beta.reshape(affine)


def l2_norm(x: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Over the last three dimensions together: x [*, c, h, w]."""
    return x / torch.sqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon)


def local_response_norm(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + alpha / size * the sum of squares over `size` neighbouring channels) ** beta."""
    return functional.local_response_norm(x, size, alpha, beta, k)


OPS: dict[str, KernelFunction] = {
    function.__name__: function for function in (batch_norm, instance_norm, layer_norm, l2_norm, local_response_norm)
}
