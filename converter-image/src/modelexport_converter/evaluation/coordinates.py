"""Checks boxes, outlines and run lengths of untrusted labels, and turns them into pycocotools' run lengths.

pycocotools works in C without checks of its own: it takes memory in proportion to coordinates, and reads beyond the end
of a truncated text. So coordinates are limited to the image, and compressed run lengths are unpacked here.
"""

import warnings
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
from pycocotools import mask as rle

from modelexport.text import quote
from modelexport_converter.evaluation.truth import RunLengths, Size, invalid

SLACK = 0.01
"""Boxes and outlines may exceed the image by this share of it, and by a pixel: labels are rounded. They are cut."""
POINTS_LIMIT = 100_000
"""Corners of all outlines of an object."""
RUNS_LIMIT = 1 << 22
LARGEST = 1e300
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
_CHARACTER_BITS, _FIRST_CHARACTER, _CONTINUES, _NEGATIVE = 5, 48, 0x20, 0x10
_MOST_BITS = 40


def is_finite(value: Any) -> TypeGuard[int | float]:
    """Return whether a value of JSON or YAML is a number that a float holds; integers of JSON have any length."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def numbers(value: Any, where: str, least: int, most: int) -> list[float]:
    """Read a list of finite numbers."""
    if not isinstance(value, list) or not least <= len(value) <= most or not all(map(is_finite, value)):
        raise invalid(f"{where}: {quote(value)[:80]} is not a list of {least} to {most} finite numbers")
    return [float(one) for one in value]


def cut_box(box: Sequence[float], size: Size, where: str) -> Box | None:
    """Return a box (left, top, right, bottom) cut at the image; ``None`` if nothing of it is left.

    Raises:
        Failure: it lies outside the image by more than ``SLACK``.
    """
    points = cut_points(box, size, where, "box")
    left, top, right, bottom = points
    return (left, top, right, bottom) if right > left and bottom > top else None


def cut_points(points: Sequence[float], size: Size, where: str, what: str) -> list[float]:
    """Return points x, y, x, y, ... cut at the image.

    Raises:
        Failure: one lies outside the image by more than ``SLACK``.
    """
    for place, value in enumerate(points):
        side = size[place % 2]
        slack = max(1.0, SLACK * side)
        if not -slack <= value <= side + slack:
            shown = ", ".join(f"{number:g}" for number in points[:4])
            raise invalid(
                f"{where} has a {what} outside the image of {size[0]} x {size[1]} pixels ({shown}"
                f"{', ...' if len(points) > 4 else ''}); give labels of these images, in pixels of their size"
            )
    return [min(max(value, 0.0), float(size[place % 2])) for place, value in enumerate(points)]


def outline_mask(outlines: Sequence[Sequence[float]], size: Size, where: str) -> RunLengths:
    """Return the mask of an object from its outlines, each x, y, x, y, ...

    Raises:
        Failure: an outline has fewer than three corners, or is outside the image.
    """
    if sum(map(len, outlines)) > 2 * POINTS_LIMIT:
        raise invalid(f"{where} has outlines of more than {POINTS_LIMIT:,} corners; simplify them")
    if not outlines or any(len(outline) < 6 or len(outline) % 2 for outline in outlines):
        raise invalid(f"{where} has an outline that is no list of x and y of three corners or more")
    cut = [cut_points(outline, size, where, "mask") for outline in outlines]
    merged: RunLengths = rle.merge(rle.frPyObjects(cut, size[1], size[0]))
    return merged


def run_length_mask(value: Any, size: Size, where: str) -> RunLengths:
    """Return the mask of an object from COCO's run lengths, compressed or not.

    Raises:
        Failure: they are not those of the image.
    """
    width, height = size
    if not isinstance(value, dict) or value.get("size") != [height, width]:
        raise invalid(f"{where} has no mask of {width} x {height} pixels; {_RUN_LENGTHS}")
    counts = value.get("counts")
    runs = _decompress(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or len(runs) > RUNS_LIMIT or not all(type(run) is int and run >= 0 for run in runs):
        raise invalid(f"{where} has counts that are no run lengths; {_RUN_LENGTHS}")
    if sum(runs) != width * height:
        raise invalid(f"{where} has run lengths of {sum(runs):,} pixels, not of {width} x {height}; {_RUN_LENGTHS}")
    packed: RunLengths = rle.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return packed


_RUN_LENGTHS = "write them as pycocotools does, for the size of the image"


def _decompress(text: str) -> list[int] | None:
    """Return the run lengths of COCO's compressed text, or ``None`` if it is not one.

    Each number is written in groups of 5 bits, the lowest first, in characters from ``0`` on; a sixth bit says that it
    goes on. From the third on, a number is the difference to the last but one.
    """
    runs: list[int] = []
    value = bits = 0
    for character in text:
        code = ord(character) - _FIRST_CHARACTER
        if not 0 <= code < 2 * _CONTINUES or bits > _MOST_BITS or len(runs) > RUNS_LIMIT:
            return None
        value |= (code & (_CONTINUES - 1)) << bits
        bits += _CHARACTER_BITS
        if code & _CONTINUES:
            continue
        if code & _NEGATIVE:
            value -= 1 << bits
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = bits = 0
    return None if bits else runs


def mask_pixels(mask: RunLengths) -> npt.NDArray[np.bool_]:
    """Return the pixels of a mask (height, width)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools is compiled for numpy 1
        return np.asarray(rle.decode(mask), bool)


def polygon_box(points: Sequence[float]) -> Box:
    """Return the box of points x, y, x, y, ..."""
    across, down = np.asarray(points[::2]), np.asarray(points[1::2])
    return float(across.min()), float(down.min()), float(across.max()), float(down.max())
