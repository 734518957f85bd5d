"""The labels of images, whatever files they come from. Pure.

Coordinates are pixels of the image, x to the right and y downwards; masks are run lengths as pycocotools encodes them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelexport.api.reasons import Reason
from modelexport.api.spec import LabelKind
from modelexport_converter.failures import Failure
from modelexport_converter.inputs.images import ImageFile

Numbers = npt.NDArray[np.float64]
ClassMap = npt.NDArray[np.uint8]
"""The class of every pixel (height, width); ``VOID`` for pixels that do not count."""
Size = tuple[int, int]
"""Width and height of an image in pixels."""
RunLengths = Mapping[str, Any]
VOID = 255


@dataclass(frozen=True)
class LabelledObject:
    """One object: its class, its box (left, top, right, bottom) and what else is labelled.

    ``keypoints`` are (K, 3): x, y and visibility, 0 for a keypoint that is not labelled. A ``crowd`` stands for many
    objects, and detections within it do not count. A ``rotated`` box is (5,), as in ``rotated_boxes``; ``box`` is the
    upright one around it.
    """

    label: int
    box: tuple[float, float, float, float]
    area: float
    mask: RunLengths | None = None
    keypoints: Numbers | None = None
    crowd: bool = False
    rotated: Numbers | None = None


Objects = tuple[LabelledObject, ...]
Truth = Objects | int | Callable[[], ClassMap]
"""The labels of an image: its objects, its class, or a function that reads the class of every pixel."""


@dataclass(frozen=True)
class LabelledImage:
    """An image and a function that reads its labels for its size.

    The function raises a ``Failure`` if the labels are invalid.
    """

    file: ImageFile
    read_truth: Callable[[Size], Truth]


@dataclass(frozen=True)
class LabelledSet:
    """The labelled images of a data set.

    Attributes:
        kind: how the labels are stored.
        classes: names of the classes by their index in the labels; empty if the labels have none.
        images: all of them, in any order.
        remarks: what the user should know about the labels.
        sigmas: the constants of each keypoint's similarity (COCO's ``kpt_oks_sigmas``), if the labels have them.
    """

    kind: LabelKind
    classes: tuple[str, ...]
    images: tuple[LabelledImage, ...]
    remarks: tuple[str, ...] = ()
    sigmas: tuple[float, ...] = ()


def invalid(message: str) -> Failure:
    """Return the failure for labels that cannot be used."""
    return Failure(Reason.EVALUATION_INVALID, message)
