"""Resizing: the grids that MIL documents, and torch where torch has the same one."""

from collections.abc import Callable
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - its name everywhere
from torch import Tensor
from torch.nn import functional

from converter.coreml.building import TARGET, Case, normal, ramp

_X = normal(2, 3, 4, 5)
_LINE = np.array([[[[0, 1]]]], np.float32)


def _documented(mode: str, size: int, *grid: float) -> Case:
    """MIL's documentation gives the grid points of an input of two elements with the values 0 and 1."""
    return Case(
        f"with {mode} has the documented grid for {size} elements",
        lambda x: mb.resize_bilinear(x=x, target_size_height=1, target_size_width=size, sampling_mode=mode),
        (_LINE,),
        lambda x: np.array(grid, np.float32).reshape(1, 1, 1, size),
    )


def _interpolated(x: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    return functional.interpolate(x, (height, width), mode="bilinear", align_corners=align_corners)


def _resize_linear(x: Any) -> Any:
    return mb.resize(x=x, shape=[0, 9], resized_dims=np.uint32(2), sampling_mode="STRICT_ALIGN_CORNERS")


def _resize_nearest(x: Any) -> Any:
    return mb.resize(x=x, shape=[8, 10], resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR")


def _repeat(height: int, width: int) -> Callable[[Tensor], np.ndarray]:
    return lambda x: x.numpy().repeat(height, 2).repeat(width, 3)


def _resampled(says: str, expected: tuple[float, ...], **options: Any) -> Case:
    """Of rows (0, 1) and (2, 3): the corners top left, top right and bottom right, and the centre, as (x, y)."""
    given = {"sampling_mode": "bilinear", "padding_mode": "constant", "padding_value": 0.0, "align_corners": True}
    corners = np.array([[[[-1, -1], [1, -1], [1, 1], [0, 0]]]], np.float32)
    return Case(
        says,
        lambda x, at: mb.resample(
            x=x, coordinates=at, coordinates_mode="normalized_minus_one_to_one", **{**given, **options}
        ),
        (ramp(1, 1, 2, 2), corners[:, :, : len(expected)]),
        lambda x, at: np.array(expected, np.float32).reshape(1, 1, 1, -1),
    )


CASES: dict[str, list[Case]] = {
    "resample": [
        _resampled("takes (x, y) and ends at the centres of the corners", (0, 1, 3, 1.5)),
        _resampled("ends at the edges without aligned corners", (0, 0.25, 0.75, 1.5), align_corners=False),
        _resampled("repeats the border", (0, 1, 3, 1.5), align_corners=False, padding_mode="border"),
        _resampled("takes the nearest", (0, 1, 3), sampling_mode="nearest"),
    ],
    "upsample_nearest_neighbor": [
        Case(
            "repeats rows and columns",
            lambda x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=3),
            (_X,),
            _repeat(2, 3),
        ),
        Case(
            "rounds a fractional size down",
            lambda x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=1.0, scale_factor_width=1.5),
            (ramp(1, 1, 1, 5),),
            lambda x: np.array([[[[0, 0, 1, 2, 2, 3, 4]]]], np.float32),
        ),
    ],
    "resize_nearest_neighbor": [
        Case(
            "takes from floor(i * size / target)",
            lambda x: mb.resize_nearest_neighbor(x=x, target_size_height=7, target_size_width=3),
            (_X,),
            lambda x: functional.interpolate(x, (7, 3), mode="nearest"),
        )
    ],
    "upsample_bilinear": [
        Case(
            "aligns corners by default",
            lambda x: mb.upsample_bilinear(x=x, scale_factor_height=2, scale_factor_width=3),
            (_X,),
            lambda x: _interpolated(x, 8, 15, True),
        ),
        Case(
            "without aligned corners has half-pixel centres",
            lambda x: mb.upsample_bilinear(
                x=x, scale_factor_height=2, scale_factor_width=2, align_corners=False, half_pixel_centers=True
            ),
            (_X,),
            lambda x: _interpolated(x, 8, 10, False),
        ),
        Case(
            "has half-pixel centres when it is not said",
            lambda x: mb.upsample_bilinear(x=x, scale_factor_height=3, scale_factor_width=2, align_corners=False),
            (_X,),
            lambda x: _interpolated(x, 12, 10, False),
            TARGET.iOS15,
        ),
        Case(
            "takes the scale of the sizes when they were rounded",
            lambda x: mb.upsample_bilinear(
                x=x, scale_factor_height=1.3, scale_factor_width=1.7, align_corners=False, half_pixel_centers=True
            ),
            (_X,),
            lambda x: _interpolated(x, 5, 8, False),
        ),
        Case(
            "without half-pixel centres starts at the corner",
            lambda x: mb.upsample_bilinear(
                x=x, scale_factor_height=1, scale_factor_width=2, align_corners=False, half_pixel_centers=False
            ),
            (_LINE,),
            lambda x: np.array([[[[0, 0.5, 1, 1]]]], np.float32),
        ),
    ],
    "resize_bilinear": [
        _documented("STRICT_ALIGN_CORNERS", 5, 0, 0.25, 0.5, 0.75, 1),
        _documented("ALIGN_CORNERS", 6, 0, 0.2, 0.4, 0.6, 0.8, 1),
        _documented("ALIGN_CORNERS", 1, 0.5),
        _documented("STRICT_ALIGN_CORNERS", 1, 0),
        _documented("DEFAULT", 5, 0, 0.4, 0.8, 1, 1),
        _documented("OFFSET_CORNERS", 5, 0.1, 0.3, 0.5, 0.7, 0.9),
        _documented("UNALIGN_CORNERS", 5, 0, 0.1, 0.5, 0.9, 1),
        Case(
            "makes smaller, too",
            lambda x: mb.resize_bilinear(
                x=x, target_size_height=3, target_size_width=2, sampling_mode="UNALIGN_CORNERS"
            ),
            (_X,),
            lambda x: _interpolated(x, 3, 2, False),
        ),
    ],
    "resize": [
        Case("keeps a size of 0", _resize_linear, (_X,), lambda x: _interpolated(x, 4, 9, True), TARGET.iOS17),
        Case("has nearest neighbour", _resize_nearest, (_X,), _repeat(2, 2), TARGET.iOS17),
    ],
    "pixel_shuffle": [
        Case(
            "spreads channels over squares",
            lambda x: mb.pixel_shuffle(x=x, upscale_factor=2),
            (ramp(1, 4, 1, 2),),
            lambda x: np.array([[[[0, 2, 1, 3], [4, 6, 5, 7]]]], np.float32),
        )
    ],
}
