"""Boxes as corners left, top, right, bottom: how much they overlap, and which of them suppression keeps."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


def overlaps(one: Numbers, other: Numbers) -> Numbers:
    """Return the intersection over union of boxes (n, 4) and (m, 4), 0 for those without area: (n, m)."""
    sides = np.minimum(one[:, None, 2:], other[:, 2:]) - np.maximum(one[:, None, :2], other[:, :2])
    shared = sides.clip(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def suppress(
    boxes: Numbers,
    labels: npt.NDArray[np.intp],
    most: float,
    measure: Callable[[Numbers, Numbers], Numbers] = overlaps,
) -> Iterator[int]:
    """Yield the places of the boxes that overlap no kept box of their class by more than ``most``.

    Takes boxes, best first, and their classes (n,). ``measure`` returns the overlaps of some boxes with others.
    torchvision has the same for upright boxes, and imports torch._dynamo for it: a second of processor time.
    """
    left = np.arange(len(boxes))
    while left.size:
        best, others = left[0], left[1:]
        yield int(best)
        shares = measure(boxes[best][None], boxes[others])[0]
        left = others[(shares <= most) | (labels[others] != labels[best])]
