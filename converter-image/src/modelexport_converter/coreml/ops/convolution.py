"""Convolutions over one, two or three spatial dimensions."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from modelexport_converter.coreml.ops.kernel import KernelFunction, one_of
from modelexport_converter.coreml.ops.padding import Pads, fill_around, pairs, spatial_pads

_CONV: dict[int, Callable[..., Tensor]] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_CONV_TRANSPOSE: dict[int, Callable[..., Tensor]] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    dilations: list[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """x [n, c_in, *d], weight [c_out, c_in / groups, *k] to [n, c_out, *d_out]."""
    rank = x.dim() - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    windows = [(size - 1) * dilation + 1 for size, dilation in zip(weight.shape[2:], dilations, strict=True)]
    pads = spatial_pads(pad_type, pad, x.shape[2:], windows, strides)
    symmetric = [before for before, after in pads if before == after]
    if len(symmetric) < rank:
        x, symmetric = fill_around(x, pads), [0] * rank
    return _CONV[rank](x, weight, bias, strides, symmetric, dilations, groups)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    pad: list[int] | None = None,
    output_shape: list[int] | None = None,
    pad_type: str = "valid",
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """x [n, c_in, *d], weight [c_in, c_out / groups, *k] to [n, c_out, *d_out].

    Computed without padding, then cropped: the adjoint of padding. An output_shape ([n, c_out, *d_out]) may exceed the
    result; nothing was convolved there, so only the bias is left.
    """
    rank = x.dim() - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    full = _CONV_TRANSPOSE[rank](x, weight, None, strides, 0, 0, groups, dilations)
    sizes = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    crops = _crops(pad_type, pad, list(full.shape[2:]), sizes)
    if output_shape:
        crops = [
            (before, size - before - wanted)
            for (before, _), size, wanted in zip(crops, full.shape[2:], output_shape[2:], strict=True)
        ]
    result = fill_around(full, [(-before, -after) for before, after in crops])
    return result if bias is None else result + bias.reshape(-1, *[1] * rank)


def _crops(pad_type: str, pad: list[int] | None, full: list[int], same: list[int]) -> Pads:
    """Return the sizes to crop before and after. `same` keeps stride times the input's size (negative: adds zeros)."""
    excess = [size - wanted for size, wanted in zip(full, same, strict=True)]
    before = [max(each, 0) // 2 for each in excess]
    pad_types = {
        "valid": [(0, 0)] * len(full),
        "custom": pairs(pad or [0] * 2 * len(full)),
        "same": [(first, each - first) for first, each in zip(before, excess, strict=True)],
    }
    return one_of(pad_types, pad_type, "pad_type")


OPS: dict[str, KernelFunction] = {"conv": conv, "conv_transpose": conv_transpose}
