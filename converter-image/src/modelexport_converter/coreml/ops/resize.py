"""Resizing of the last two dimensions."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from modelexport_converter.coreml.ops.kernel import KernelFunction, one_of

Grid = Callable[[int, int], Tensor]
"""Maps the sizes of input and output to the position in the input of each output element."""


def _strict_align_corners(size: int, target: int) -> Tensor:
    return torch.arange(target) * ((size - 1) / max(target - 1, 1))


def _align_corners(size: int, target: int) -> Tensor:
    return _strict_align_corners(size, target) if target > 1 else torch.tensor([(size - 1) / 2])


def _default(size: int, target: int) -> Tensor:
    return torch.arange(target) * (size / target)


def _offset_corners(size: int, target: int) -> Tensor:
    return (torch.arange(target) + 0.5) * (max(1, size - 1) / target)


def _unalign_corners(size: int, target: int) -> Tensor:
    return (torch.arange(target) + 0.5) * (size / target) - 0.5


# MIL's documentation of `resize_bilinear`, section Notes.
_GRIDS: dict[str, Grid] = {
    "STRICT_ALIGN_CORNERS": _strict_align_corners,
    "ALIGN_CORNERS": _align_corners,
    "DEFAULT": _default,
    "OFFSET_CORNERS": _offset_corners,
    "UNALIGN_CORNERS": _unalign_corners,
}


def _bilinear(x: Tensor, height: int, width: int, sampling_mode: str) -> Tensor:
    grid = one_of(_GRIDS, sampling_mode, "sampling_mode")
    for dim, target in ((x.dim() - 2, height), (x.dim() - 1, width)):
        positions = grid(x.shape[dim], target).clamp(min=0)
        lower = positions.floor().long()
        upper = (lower + 1).clamp(max=x.shape[dim] - 1)
        weight = (positions - lower).reshape(-1, *[1] * (x.dim() - 1 - dim))
        x = torch.lerp(x.index_select(dim, lower), x.index_select(dim, upper), weight)
    return x


def _nearest(x: Tensor, height: int, width: int) -> Tensor:
    for dim, target in ((x.dim() - 2, height), (x.dim() - 1, width)):
        x = x.index_select(dim, torch.arange(target) * x.shape[dim] // target)
    return x


def _scaled(x: Tensor, height: float, width: float) -> tuple[int, int]:
    return int(x.shape[-2] * height), int(x.shape[-1] * width)


def upsample_nearest_neighbor(x: Tensor, scale_factor_height: float = 1.0, scale_factor_width: float = 1.0) -> Tensor:
    """Upsample [*, h, w] by scale factors; sizes are rounded down."""
    return _nearest(x, *_scaled(x, scale_factor_height, scale_factor_width))


def resize_nearest_neighbor(x: Tensor, target_size_height: int, target_size_width: int) -> Tensor:
    """Resize [*, h, w]; element i is taken from floor(i * size / target)."""
    return _nearest(x, target_size_height, target_size_width)


def upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1.0,
    scale_factor_width: float = 1.0,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """Upsample [*, h, w]. If rounding changes a size, the scale is the ratio of the sizes, not the given one."""
    half_pixel = not align_corners if half_pixel_centers is None else half_pixel_centers
    if align_corners and half_pixel:
        raise NotImplementedError("align_corners together with half_pixel_centers has no documented meaning")
    modes = {True: "STRICT_ALIGN_CORNERS", False: "UNALIGN_CORNERS" if half_pixel else "DEFAULT"}
    return _bilinear(x, *_scaled(x, scale_factor_height, scale_factor_width), modes[align_corners])


def resize_bilinear(
    x: Tensor, target_size_height: int = 1, target_size_width: int = 1, sampling_mode: str = "DEFAULT"
) -> Tensor:
    """Resize [*, h, w] to a size, sampled by `sampling_mode`."""
    return _bilinear(x, target_size_height, target_size_width, sampling_mode)


def resize(
    x: Tensor,
    shape: list[int],
    resized_dims: int,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """Resize to the last two entries of `shape`; 0 keeps a size.

    Nearest neighbour is documented for DEFAULT sampling only.
    """
    if resized_dims != 2:
        raise NotImplementedError(f"resized_dims is {resized_dims}, only 2 (height and width) is supported")
    height, width = (wanted or kept for wanted, kept in zip(shape[-2:], x.shape[-2:], strict=True))
    if interpolation_mode == "LINEAR":
        return _bilinear(x, height, width, sampling_mode)
    if (interpolation_mode, sampling_mode) != ("NEAREST_NEIGHBOR", "DEFAULT"):
        raise NotImplementedError(f"{interpolation_mode} with sampling_mode {sampling_mode} is not documented")
    return _nearest(x, height, width)


def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    """[n, c * r * r, h, w] to [n, c, h * r, w * r]."""
    return functional.pixel_shuffle(x, upscale_factor)


def resample(  # noqa: PLR0917 (as the op has them)
    x: Tensor,
    coordinates: Tensor,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    """[n, c, h, w] at coordinates [n, *target, 2], each (x, y) in -1 to 1."""
    if coordinates_mode != "normalized_minus_one_to_one" or padding_value:
        raise NotImplementedError(f"coordinates_mode {coordinates_mode} or padding_value {padding_value} is not known")
    mode = one_of({"bilinear": "bilinear", "nearest": "nearest"}, sampling_mode, "sampling_mode")
    padding = one_of({"constant": "zeros", "border": "border", "symmetric": "reflection"}, padding_mode, "padding_mode")
    return functional.grid_sample(x, coordinates, mode, padding, align_corners)


OPS: dict[str, KernelFunction] = {
    function.__name__: function
    for function in (
        upsample_nearest_neighbor,
        resize_nearest_neighbor,
        upsample_bilinear,
        resize_bilinear,
        resample,
        resize,
        pixel_shuffle,
    )
}
