"""Affine quantisation of activations."""

import torch
from torch import Tensor

from modelexport_converter.coreml.ops.kernel import KernelFunction
from modelexport_converter.coreml.tensors import saturate


def along(parameter: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """Reshape a vector (one number per element of `axis`) so that it broadcasts against x; a scalar stays unchanged."""
    if parameter.dim() == 0 or axis is None:
        return parameter
    return parameter.reshape([-1 if dim == axis % x.dim() else 1 for dim in range(x.dim())])


def quantize(
    input: Tensor,  # noqa: A002 - MIL's name
    scale: Tensor,
    output_dtype: str,
    zero_point: Tensor | None = None,
    axis: int | None = None,
) -> Tensor:
    """clip(round(input / scale) + zero_point), halves to even."""
    levels = torch.round(input / along(scale, input, axis))
    shifted = levels if zero_point is None else levels + along(zero_point, input, axis)
    return saturate(shifted, output_dtype)


def dequantize(
    input: Tensor,  # noqa: A002 - MIL's name
    scale: Tensor,
    zero_point: Tensor | None = None,
    axis: int | None = None,
) -> Tensor:
    """scale * (input - zero_point)."""
    shifted = input if zero_point is None else input - along(zero_point, input, axis)
    return along(scale, input, axis) * shifted


OPS: dict[str, KernelFunction] = {"quantize": quantize, "dequantize": dequantize}
