"""Boxes that are turned: how much they overlap, and which of them suppression keeps.

Boxes are (n, 5): centre x, centre y, width, height, and the angle in radians from the x axis to the width, towards the
y axis. One box has many such descriptions: turned by pi it is the same, and by pi / 2 with width and height exchanged.
All functions return the same for each of them.
"""

from itertools import combinations, islice

import numpy as np
import numpy.typing as npt

from modelexport_converter.boxes import Numbers, suppress

Values = npt.NDArray[np.floating]
Places = npt.NDArray[np.intp]


def suppress_anchors(
    boxes: Values, angles: Values, anchors: Places, labels: Places, *, most: float, count: int
) -> tuple[Numbers, list[int]]:
    """Return the boxes that suppression keeps, (k, 5), and their places among ``anchors``; no side is below 0.

    Args:
        boxes, angles: the outputs of a detector for one image, (1, 4, N) in pixels and (1, 1, N).
        anchors: the compared anchors, best first, (n,).
        labels: their classes, (n,).
        most: the largest likeness of two boxes of one class that are both kept: see ``likenesses``.
        count: how many boxes are kept at most.
    """
    found = np.concatenate([boxes[0][:, anchors], angles[0][:, anchors]]).T.astype(np.float64)
    found[:, 2:4] = found[:, 2:4].clip(0)
    kept = list(islice(suppress(found, labels, most, likenesses), count))
    return found[kept], kept


def corners(boxes: Numbers) -> Numbers:
    """Return the corners of boxes (n, 5) in their order along the outline: (n, 4, 2)."""
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
    return np.asarray(boxes[:, None, :2] + signs @ _sides(boxes))


def _sides(boxes: Numbers) -> Numbers:
    """Return width and height of boxes (n, 5) as vectors, (n, 2, 2)."""
    return boxes[:, 2:4, None] * _axes(boxes[:, 4])


def align_sides(expected: Numbers, found: Numbers) -> tuple[Numbers, Numbers]:
    """Return boxes (n, 5) of a model and of a file as numbers that differ as much as the boxes do: (n, 6) each.

    They are the centre and both sides as vectors, and so width and height where a box is upright. Of the descriptions
    of a found box, that nearest to the expected one counts: an angle that jumps by pi / 2, while width and height
    change places, is no error.
    """
    expected, found = expected.astype(np.float64), found.astype(np.float64)
    wanted, given = _sides(expected), _sides(found)
    exchanged = np.stack([given[:, 1], -given[:, 0]], axis=1)
    descriptions = np.stack([given, exchanged, -given, -exchanged])
    nearest = ((descriptions - wanted) ** 2).sum((2, 3)).argmin(0)
    chosen = descriptions[nearest, np.arange(len(found))]
    one, other = (
        np.concatenate([boxes[:, :2], sides.reshape(-1, 4)], axis=1)
        for boxes, sides in ((expected, wanted), (found, chosen))
    )
    return one, other


def enclose(boxes: Numbers) -> Numbers:
    """Return the upright boxes around boxes (n, 5): left, top, right, bottom, (n, 4)."""
    points = corners(boxes)
    return np.concatenate([points.min(1), points.max(1)], axis=1)


def _axes(angles: Numbers) -> Numbers:
    """Return the directions of width and height by angles (n,): (n, 2, 2)."""
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.stack([cosine, sine, -sine, cosine], axis=-1).reshape(-1, 2, 2)


def overlaps(one: Numbers, other: Numbers) -> Numbers:
    """Return the intersection over union of boxes (n, 5) and (m, 5), 0 for those without area: (n, m)."""
    reaches = [np.hypot(boxes[:, 2], boxes[:, 3]) / 2 for boxes in (one, other)]
    distances = np.hypot(*np.moveaxis(one[:, None, :2] - other[:, :2], -1, 0))
    near = np.nonzero(distances < reaches[0][:, None] + reaches[1])
    shared = np.zeros(distances.shape)
    shared[near] = _shared_areas(one[near[0]], other[near[1]])
    areas = [boxes[:, 2] * boxes[:, 3] for boxes in (one, other)]
    union = areas[0][:, None] + areas[1] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0).clip(0, 1)


def _shared_areas(one: Numbers, other: Numbers) -> Numbers:
    """Return the area that each box of ``one`` (n, 5) shares with that of ``other`` in the same place: (n,).

    In the frame of the other box, it is the integral of y along the outline of the first one over the x within the
    other's width, where y is cut at the other's height: the lower sides take away what is below. The integral is exact,
    and there is no special case for corners that meet or sides that coincide.
    """
    placed = (corners(one) - other[:, None, :2]) @ _axes(other[:, 4]).transpose(0, 2, 1)
    x, y = placed[..., 0], placed[..., 1]
    half_width, half_height = other[:, 2, None] / 2, other[:, 3, None] / 2
    begin, end = _crossings(x, half_width, np.zeros_like(x), np.ones_like(x))
    places = np.stack([begin, *_crossings(y, half_height, begin, end), end], axis=-1)
    run, rise = (np.roll(values, -1, axis=-1) - values for values in (x, y))
    cut = (y[..., None] + rise[..., None] * places).clip(-half_height[..., None], half_height[..., None])
    means = (cut[..., 1:] + cut[..., :-1]) / 2
    return np.asarray(np.abs((run[..., None] * np.diff(places, axis=-1) * means).sum((-1, -2))))


def _crossings(values: Numbers, limit: Numbers, begin: Numbers, end: Numbers) -> list[Numbers]:
    """Return where the sides of outlines, from the value of one corner to the next, pass ``-limit`` and ``limit``.

    Places are shares of a side in ascending order, cut at those from ``begin`` to ``end``.
    """
    change = np.roll(values, -1, axis=-1) - values
    places = [(passed - values) / np.where(change == 0, 1, change) for passed in (-limit, limit)]
    return [np.clip(chosen(*places), begin, end) for chosen in (np.minimum, np.maximum)]


def likenesses(one: Numbers, other: Numbers) -> Numbers:
    """Return the probabilistic intersection over union of boxes (n, 5) and (m, 5), 0 for those without area: (n, m).

    Each box is a normal distribution with the mean and covariance of its points. The likeness is 1 minus the Hellinger
    distance, from the distance of Bhattacharyya: Llerena et al., 2021, https://arxiv.org/abs/2106.06072. ultralytics
    suppresses rotated boxes by it. It takes squares of one place for equal, however they are turned.
    """
    spreads = _covariances(one)[:, None], _covariances(other)
    first, mixed, second = np.moveaxis((spreads[0] + spreads[1]) / 2, -1, 0)
    x, y = np.moveaxis(one[:, None, :2] - other[:, :2], -1, 0)
    roots = [boxes[:, 2] * boxes[:, 3] / 12 for boxes in (one, other)]
    with np.errstate(divide="ignore", invalid="ignore"):
        determinant = first * second - mixed**2
        apart = (second * x**2 - 2 * mixed * x * y + first * y**2) / determinant / 8
        distance = apart + np.log(determinant / (roots[0][:, None] * roots[1])) / 2
        found = 1 - np.sqrt(1 - np.exp(-distance.clip(0)))
    return np.asarray(np.where(np.isfinite(found), found, 0.0))


def _covariances(boxes: Numbers) -> Numbers:
    """Return the covariances of points in boxes (n, 5), by x and x, x and y, y and y: (n, 3)."""
    cosine, sine = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    width, height = boxes[:, 2:4].T ** 2 / 12
    mixed = (width - height) * cosine * sine
    return np.stack([width * cosine**2 + height * sine**2, mixed, width * sine**2 + height * cosine**2], axis=1)


def smallest_box(points: Numbers) -> Numbers:
    """Return the box of least area around points (k, 2): (5,), all 0 where all points are the same.

    One of its sides runs along a side of the convex hull (Freeman and Shapira, 1975,
    https://doi.org/10.1145/360881.360919), and so in the direction from one point to another.
    """
    best, area = np.zeros(5), np.inf
    for one, other in combinations(points, 2):
        if (length := float(np.hypot(*(other - one)))) == 0:
            continue
        along = (other - one) / length
        frame = np.stack([along, [-along[1], along[0]]])
        placed = points @ frame.T
        low, sides = placed.min(0), np.ptp(placed, axis=0)
        if sides.prod() < area:
            area = sides.prod()
            best = np.array([*((low + sides / 2) @ frame), *sides, np.arctan2(along[1], along[0])])
    return best
