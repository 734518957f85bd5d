"""Decomposes operators that a format lacks into operators that it has, while an exporter traces the program.

Our own decompositions come first, then torch's. An operator without either stays, and the exporter refuses it by its
name.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

_Function = TypeVar("_Function", bound=Callable[..., Any])

_SEPARABLE = frozenset(
    f"aten::{name}"
    for name in (
        *("adaptive_avg_pool2d", "_adaptive_avg_pool2d", "upsample_bicubic2d", "_upsample_nearest_exact2d"),
        *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
    )
)
"""Resampling operators that are separable: one matrix for the rows, one for the columns."""
_DECOMPOSITIONS: dict[str, Callable[..., Any]] = {}
"""Our decompositions by operator. Each takes the operator's arguments, and assumes that all values are finite."""
_UNSUPPORTED_CALLS: dict[str, Callable[..., bool]] = {}
"""By operator, whether no format supports it for the arguments of a call."""


def _decomposes(*operators: str) -> Callable[[_Function], _Function]:
    """Register the decorated function as the decomposition of some operators."""

    def register(function: _Function) -> _Function:
        _DECOMPOSITIONS.update(dict.fromkeys(operators, function))
        return function

    return register


def _unsupported_if(*operators: str) -> Callable[[_Function], _Function]:
    """Register the decorated function as the condition under which no format supports some operators."""

    def register(function: _Function) -> _Function:
        _UNSUPPORTED_CALLS.update(dict.fromkeys(operators, function))
        return function

    return register


class DecompositionMode(TorchFunctionMode):
    """Decomposes each operator call that a format does not support, while an exporter traces the program."""

    def __init__(
        self, is_supported: Callable[[str], bool], unsupported_calls: Mapping[str, Callable[..., bool]] | None = None
    ) -> None:
        """Name the operators that the format supports.

        Args:
            is_supported: whether the format has an operator, by its name, e.g. ``aten::relu``.
            unsupported_calls: by operator, whether the format lacks it for the arguments of a call.
        """
        super().__init__()
        self._is_supported = is_supported
        self._unsupported_calls = {**_UNSUPPORTED_CALLS, **(unsupported_calls or {})}
        self._active: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call an operator, or its decomposition."""
        named = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload) or (name := func._schema.name) in self._active:
            return func(*args, **named)
        is_unsupported_call = name in self._unsupported_calls and self._unsupported_calls[name](*args, **named)
        if self._is_supported(name) and not is_unsupported_call:
            return func(*args, **named)
        if name in _SEPARABLE:
            return _resample(func, args, named)
        if (formula := _DECOMPOSITIONS.get(name)) is None:
            return _decompose(func, args, named) if func._can_decompose() else func(*args, **named)
        self._active.add(name)
        try:
            with self:
                return formula(*args, **named)
        finally:
            self._active.discard(name)


def _decompose(func: Any, args: Any, named: Any) -> Any:
    """Call torch's decomposition, without mkldnn, which would turn a recurrent layer into a single operator."""
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)  # torch.backends' own context manager warns of Intel GPUs
    try:
        return func.decompose(*args, **named)
    finally:
        torch._C._set_mkldnn_enabled(enabled)


def _resample(func: Any, args: Any, named: Any) -> torch.Tensor:
    """Resample (N, C, H, W) by two matrix products; the matrices are the resampled identity."""
    names = [argument.name for argument in func._schema.arguments]
    arguments = dict(zip(names, args, strict=False)) | named
    image: torch.Tensor = arguments.pop(names[0])
    with _untraced():
        rows, columns = (
            func(torch.eye(int(size))[None, None], **_along(arguments, axis, int(size)))[0, 0].tolist()
            for axis, size in enumerate(image.shape[-2:])
        )
    return torch.tensor(rows) @ image @ torch.tensor(columns)


def _along(arguments: Mapping[str, Any], axis: int, size: int) -> dict[str, Any]:
    """Return the arguments that resample one of two axes and keep the other, of ``size``, unchanged."""
    other = 1 - axis
    single = dict(arguments)
    for key, same in (("output_size", size), ("scale_factors", 1.0)):
        if arguments.get(key) is not None:
            single[key] = [same if index == other else value for index, value in enumerate(arguments[key])]
    scale = ("scales_h", "scales_w")[other]
    if arguments.get(scale) is not None:
        single[scale] = 1.0
    return single


@contextmanager
def _untraced() -> Iterator[None]:
    """Compute a constant of the traced program, outside of the trace."""
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        with _disable_current_modes():  # those of torch.export, whose tensors have no numbers
            yield
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]


@_decomposes("aten::slice_scatter")
def _scatter_slice(  # noqa: PLR0917 (as the operator has them)
    x: torch.Tensor, new: torch.Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> torch.Tensor:
    """Return ``x`` with a slice along ``dim`` replaced by ``new``: both concatenated, then gathered."""
    size = x.shape[dim]
    places = list(range(size))
    for source, place in enumerate(places[slice(start, end, step)]):
        places[place] = size + source
    return torch.cat([x, new.to(x.dtype)], dim).index_select(dim, torch.tensor(places))


@_decomposes("aten::select_scatter")
def _scatter_select(x: torch.Tensor, new: torch.Tensor, dim: int, index: int) -> torch.Tensor:
    """Return ``x`` with the index along ``dim`` replaced by ``new``."""
    index %= x.shape[dim]
    return _scatter_slice(x, new.unsqueeze(dim), dim, index, index + 1)


@_decomposes("aten::rot90")
def _rotate(x: torch.Tensor, k: int = 1, dims: Any = (0, 1)) -> torch.Tensor:
    """Rotate by ``k`` quarter turns in the plane of two dimensions, by flips and a transpose."""
    first, second = dims
    if k % 4 == 2:
        return x.flip(dims)
    return x.flip(second if k % 4 == 1 else first).transpose(*dims) if k % 4 else x


@_decomposes("aten::channel_shuffle")
def _shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    """``channel_shuffle``: (N, C, ...) to (N, C, ...)."""
    batch, channels, *sizes = x.shape
    return x.reshape(batch, groups, channels // groups, *sizes).transpose(1, 2).reshape(x.shape)


@_decomposes("aten::pixel_unshuffle")
def _unshuffle(x: torch.Tensor, factor: int) -> torch.Tensor:
    """``pixel_unshuffle``: (N, C, H, W) to (N, C * factor ** 2, H / factor, W / factor)."""
    batch, channels, height, width = x.shape
    cells = x.reshape(batch, channels, height // factor, factor, width // factor, factor)
    return cells.permute(0, 1, 3, 5, 2, 4).reshape(batch, -1, height // factor, width // factor)


@_decomposes("aten::logit")
def _logit(x: torch.Tensor, eps: float | None = None) -> torch.Tensor:
    """``logit``, with inputs clamped to eps..1 - eps."""
    x = x if eps is None else x.clamp(eps, 1 - eps)
    return (x / (1 - x)).log()


@_decomposes("aten::trunc")
def _truncate(x: torch.Tensor) -> torch.Tensor:
    """``trunc``."""
    return torch.where(x < 0, x.ceil(), x.floor())


@_unsupported_if("aten::adaptive_avg_pool2d", "aten::_adaptive_avg_pool2d")
def _is_uneven(image: torch.Tensor, sizes: Any) -> bool:
    """Return whether adaptive pooling has windows of different sizes."""
    return any(size % wanted for size, wanted in zip(image.shape[-2:], sizes, strict=True))


def _spread(join: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """Return a function for ``var_mean`` or ``std_mean``."""

    def both(x: torch.Tensor, *args: Any, **named: Any) -> Any:
        keep = named.get("keepdim", False)
        dims = args[0] if args and not isinstance(args[0], bool) else None
        mean = x.mean() if dims is None else x.mean(dims, keepdim=keep)
        return join(x, *args, **named), mean

    return both


@_decomposes("aten::unfold")
def _windows(x: torch.Tensor, dimension: int, size: int, step: int) -> torch.Tensor:
    """``Tensor.unfold``: gathers each window along ``dimension``, which becomes the last axis."""
    dimension %= x.dim()
    count = (x.shape[dimension] - size) // step + 1
    places = torch.tensor([start * step + place for start in range(count) for place in range(size)])
    gathered = x.index_select(dimension, places)
    gathered = gathered.reshape(*x.shape[:dimension], count, size, *x.shape[dimension + 1 :])
    return _move(gathered, dimension + 1, -1)


@_decomposes("aten::moveaxis", "aten::movedim")
def _move(x: torch.Tensor, source: Any, destination: Any) -> torch.Tensor:
    """``movedim`` as a permutation."""
    pairs = sorted(
        (new % x.dim(), old % x.dim()) for old, new in zip(*map(_listed, (source, destination)), strict=True)
    )
    order = [axis for axis in range(x.dim()) if axis not in {old for _, old in pairs}]
    for new, old in pairs:
        order.insert(new, old)
    return x.permute(order)


@_decomposes("aten::__or__", "aten::bitwise_or")
def _disjoin(a: Any, b: Any) -> torch.Tensor:
    """``|`` on bool tensors. Integer tensors keep the operator, which the exporter then names."""
    whole = a.dtype is not torch.bool or (isinstance(b, torch.Tensor) and b.dtype is not torch.bool)
    return torch.bitwise_or(a, b) if whole else torch.logical_or(a, torch.as_tensor(b))


@_decomposes("aten::pad")
def _pad(x: torch.Tensor, widths: Any, mode: str = "constant", value: float | None = None) -> torch.Tensor:
    """Pad with widths that may be negative (cropping), or circularly."""
    for place, (before, after) in enumerate(zip(widths[::2], widths[1::2], strict=True)):
        dim = x.dim() - 1 - place
        size = int(x.shape[dim])
        if mode == "circular":
            places = [index % size for index in range(-before, size + after)]
            x = x.index_select(dim, torch.tensor(places)) if before or after else x
        else:
            x = x.narrow(dim, max(-before, 0), size - max(-before, 0) - max(-after, 0))
    if mode == "circular" or max(widths) <= 0:
        return x
    return functional.pad(x, [max(width, 0) for width in widths], mode, value)


@_unsupported_if("aten::pad", "aten::constant_pad_nd")
def _is_circular_or_negative(x: torch.Tensor, widths: Any, mode: Any = "constant", value: float | None = None) -> bool:
    """Return whether padding is circular or has a negative width."""
    return bool(mode == "circular" or min(widths) < 0)


@_decomposes("aten::index_put")
def _put(x: torch.Tensor, indices: Any, values: torch.Tensor, accumulate: bool = False) -> torch.Tensor:
    """``index_put`` along one axis, with that axis moved first."""
    dim, index = len(indices) - 1, indices[-1]
    target = [*x.shape[:dim], *index.shape, *x.shape[dim + 1 :]]
    moved = values.expand(target).movedim(dim, 0)
    return x.movedim(dim, 0).index_put((index,), moved, accumulate).movedim(0, dim)


@_unsupported_if("aten::index_put")
def _indexes_later_axis(x: torch.Tensor, indices: Any, values: torch.Tensor, accumulate: bool = False) -> bool:
    """Return whether a vector indexes another axis than the first."""
    *before, index = indices
    places: tuple[int, ...] = tuple(index.shape)
    return bool(before) and all(other is None for other in before) and len(places) == 1


@_decomposes("aten::conv_transpose2d")
def _transpose_convolution(  # noqa: PLR0917 (as the operator has them)
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> torch.Tensor:
    """Convolve transposed, (N, C, H, W), without padding, then crop or extend as the paddings ask."""
    pairs = [pair if len(pair) > 1 else [*pair] * 2 for pair in map(_listed, (padding, output_padding))]
    whole = functional.conv_transpose2d(x, weight, None, stride, 0, 0, groups, dilation)
    widths = [width for before, extra in zip(*pairs, strict=True) for width in (extra - before, -before)][::-1]
    cut = _pad(whole, widths)
    return cut if bias is None else cut + bias.reshape(-1, 1, 1)


def _listed(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else [*value]


def pads_output(*args: Any) -> bool:
    """Return whether a transposed convolution has ``output_padding``."""
    return len(args) > 5 and any(_listed(args[5]))


def mixes_rows(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Return whether a matrix is multiplied from the left with every matrix of a batch."""
    return left.dim() == 2 and right.dim() > 2


def multiplies_vector(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Return whether one of two factors is a vector."""
    return min(left.dim(), right.dim()) == 1 < max(left.dim(), right.dim())


@_decomposes("aten::matmul")
def _multiply(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Multiply matrices by a linear layer, or a matrix and a vector as two matrices."""
    if left.dim() == 1:
        return (left.unsqueeze(0) @ right).squeeze(-2)
    if right.dim() == 1:
        return (left @ right.unsqueeze(1)).squeeze(-1)
    return functional.linear(right.transpose(-2, -1), left).transpose(-2, -1)


def mixes_axis(equation: str, operands: Any, **_: Any) -> bool:
    """Return whether one of two operands is a matrix that maps an axis of the other to a new one."""
    return _mixing(equation, operands) is not None


def _mixing(equation: str, operands: Any) -> tuple[int, str, str, str] | None:
    """Return the index of the matrix, the letters of the other operand, and the old and the new axis; else ``None``."""
    terms, arrow, result = equation.replace(" ", "").partition("->")
    parts = terms.split(",")
    if not arrow or len(parts) != 2 or "." in equation or len({*map(len, map(set, parts))}) == 1:
        return None
    for index, matrix in enumerate(parts):
        other = parts[1 - index]
        old, new = {*matrix} & {*other}, {*matrix} - {*other}
        if len(matrix) == 2 and len(old) == len(new) == 1 and not old & {*result} and {*other} - old | new == {*result}:
            return index, other, old.pop(), new.pop()
    return None


@_decomposes("aten::einsum")
def _einsum(equation: str, operands: Any, **_: Any) -> torch.Tensor:
    """Multiply one axis by a matrix as a linear layer, whose weights every quantiser handles."""
    mixing = _mixing(equation, operands)
    assert mixing is not None
    index, letters, old, new = mixing
    matrix, x = operands[index], operands[1 - index]
    terms, result = equation.replace(" ", "").split("->")
    weight = matrix if terms.split(",")[index] == new + old else matrix.transpose(0, 1)
    axis = letters.index(old)
    mixed = functional.linear(x.movedim(axis, -1), weight)
    found = letters.replace(old, "") + new
    return mixed.permute([found.index(letter) for letter in result])


@_decomposes("aten::col2im")
def _fold(  # noqa: PLR0917 (as the operator has them)
    x: torch.Tensor, sizes: Any, kernel: Any, dilation: Any, padding: Any, stride: Any
) -> torch.Tensor:
    """``col2im``, (N, C * kernel, L) to (N, C, H, W): a transposed convolution with one-hot kernels."""
    channels = int(x.shape[1]) // (kernel[0] * kernel[1])
    reach = [step * (size - 1) + 1 for step, size in zip(dilation, kernel, strict=True)]
    room = [size + 2 * pad - far for size, pad, far in zip(sizes, padding, reach, strict=True)]
    counts = [left // step + 1 for left, step in zip(room, stride, strict=True)]
    extra = [left % step for left, step in zip(room, stride, strict=True)]
    with _untraced():
        kernels = torch.eye(kernel[0] * kernel[1]).reshape(-1, 1, *kernel).repeat(channels, 1, 1, 1).tolist()
    ones = torch.tensor(kernels)
    patches = x.reshape(*x.shape[:2], *counts)
    return functional.conv_transpose2d(patches, ones, None, stride, padding, extra, channels, dilation)


@_decomposes("aten::median")
def _median(x: torch.Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """``median`` by sorting."""
    values, places = (x.flatten() if dim is None else x).sort(dim or 0)
    middle = (int(values.shape[dim or 0]) - 1) // 2
    if dim is None:
        return values.select(0, middle)
    chosen = (found.narrow(dim, middle, 1) for found in (values, places))
    return tuple(found if keepdim else found.squeeze(dim) for found in chosen)


@_decomposes("aten::rms_norm")
def _normalise(x: torch.Tensor, sizes: Any, weight: torch.Tensor | None = None, eps: float | None = None) -> Any:
    """``rms_norm``."""
    dims = list(range(-len(sizes), 0))
    normal = x * (x.pow(2).mean(dims, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt()
    return normal if weight is None else normal * weight


@_decomposes("aten::norm_except_dim")
def _length(weight: torch.Tensor, pow: int = 2, dim: int = 0) -> torch.Tensor:  # noqa: A002 (torch's name)
    """``norm_except_dim``."""
    dims = [axis for axis in range(weight.dim()) if axis != dim]
    return weight.abs().pow(pow).sum(dims, keepdim=True).pow(1 / pow)


@_decomposes("aten::affine_grid_generator")
def _grid(theta: torch.Tensor, size: Any, align_corners: bool) -> torch.Tensor:
    """``affine_grid_generator``: (N, 2, 3) to (N, H, W, 2)."""
    with _untraced():
        axes = [
            torch.linspace(-1, 1, count) if align_corners else (2 * torch.arange(count) + 1) / count - 1
            for count in size[2:]
        ]
        rows, columns = (axis.tolist() for axis in axes)
    x, y = torch.tensor(columns).view(1, 1, -1, 1), torch.tensor(rows).view(1, -1, 1, 1)
    factors = theta.reshape(-1, 1, 1, 2, 3)
    return factors[..., 0] * x + factors[..., 1] * y + factors[..., 2]


@_decomposes("aten::bilinear")
def _bilinear(a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``bilinear`` by a linear layer on the outer product: (..., A), (..., B) to (..., outputs)."""
    joined = (a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(-2)
    return functional.linear(joined, weight.flatten(1), bias)


_DECOMPOSITIONS |= {
    "aten::acosh": lambda x: (x + (x * x - 1).sqrt()).log(),
    "aten::asinh": lambda x: x.sign() * (x.abs() + (x * x + 1).sqrt()).log(),
    "aten::atanh": lambda x: ((1 + x) / (1 - x)).log() / 2,
    "aten::cosh": lambda x: (x.exp() + (-x).exp()) / 2,
    "aten::sinh": lambda x: (x.exp() - (-x).exp()) / 2,
    "aten::erfc": lambda x: 1 - x.erf(),
    "aten::exp2": lambda x: (x * math.log(2)).exp(),
    "aten::expm1": lambda x: x.exp() - 1,
    "aten::sgn": torch.sign,
    "aten::frac": lambda x: x - _truncate(x),
    "aten::fmod": lambda x, other: x - _truncate(x / other) * other,
    "aten::fmax": torch.maximum,  # numbers are finite here
    "aten::fmin": torch.minimum,
    "aten::hypot": lambda x, other: (x * x + other * other).sqrt(),
    "aten::isinf": lambda x: x.abs() == math.inf,
    "aten::lerp": lambda x, end, weight: x + weight * (end - x),
    "aten::celu": lambda x, alpha=1.0: x.relu() - (alpha * (1 - (x / alpha).exp())).relu(),
    "aten::hardshrink": lambda x, lambd=0.5: torch.where(x.abs() > lambd, x, torch.zeros_like(x)),
    "aten::softshrink": lambda x, lambd=0.5: (x - lambd).relu() - (-x - lambd).relu(),
    "aten::addcdiv": lambda x, a, b, *, value=1: x + value * (a / b),
    "aten::addcmul": lambda x, a, b, *, value=1: x + value * (a * b),
    "aten::addmv": lambda x, a, b, *, beta=1, alpha=1: beta * x + alpha * (a @ b[:, None])[:, 0],
    "aten::addbmm": lambda x, a, b, *, beta=1, alpha=1: beta * x + alpha * (a @ b).sum(0),
    "aten::count_nonzero": lambda x, dim=None: (x != 0).to(torch.int64).sum(*(() if dim is None else (dim,))),
    "aten::var_mean": _spread(torch.var),
    "aten::std_mean": _spread(torch.std),
    "aten::broadcast_to": lambda x, size: x.expand(size),
    "aten::constant_pad_nd": lambda x, widths, value=0: _pad(x, widths, "constant", value),
    "aten::log_sigmoid": lambda x: -functional.softplus(-x),
    "aten::nansum": lambda x, *args, **named: torch.where(x.isnan(), torch.zeros_like(x), x).sum(*args, **named),
}
