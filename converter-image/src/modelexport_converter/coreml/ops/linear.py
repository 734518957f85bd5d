"""Matrix products."""

import torch
from torch import Tensor
from torch.nn import functional

from modelexport_converter.coreml.ops.kernel import KernelFunction


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias; x [*, c_in], weight [c_out, c_in]."""
    return functional.linear(x, weight, bias)


def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Batched, broadcasts as in numpy: [*, n, k] and [*, k, m] to [*, n, m]; transposition has no effect on vectors."""
    x = x.transpose(-1, -2) if transpose_x and x.dim() > 1 else x
    y = y.transpose(-1, -2) if transpose_y and y.dim() > 1 else y
    if x.dim() > 2 and y.dim() > 2 and y.shape[-1] == 1:
        # A row times a matrix: the other way round torch takes 15 times as long for three matrices of 1000 x 1000.
        return (y.mT @ x.mT).mT
    return torch.matmul(x, y)


def einsum(values: list[Tensor], equation: str) -> Tensor:
    """Einstein summation, in torch's notation."""
    return torch.einsum(equation, *values)


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """query [*, n, e], key [*, m, e], value [*, m, v].

    A bool mask keeps true positions, a float mask is added to the logits.
    """
    return functional.scaled_dot_product_attention(query, key, value, attn_mask)


OPS: dict[str, KernelFunction] = {
    function.__name__: function for function in (linear, matmul, einsum, scaled_dot_product_attention)
}
