"""Keeps the images on which the answers of a file differ most from those of the model, for people to look at.

A sample holds a small JPEG of the input and the answers of both sides as numbers; what draws it is in the command line.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from modelexport_converter.backends import Array
from modelexport_converter.model import Preprocessing

MOST = 6
"""Samples of a report."""
MOST_ANSWERS = 40
"""Answers of a sample, of each side."""
GRID = 64
"""Rows and columns of the cells in which masks are stored."""
_LONGEST, _QUALITY = 320, 70


@dataclass(frozen=True)
class Answer:
    """One answer to an image: a detection, a class, or the pixels of a class.

    Attributes:
        label: place among the class names.
        score: probability, or the share of pixels.
        same: the other side gives this answer too, or it is a class below the best one of its side.
        box: left, top, right, bottom in pixels of the input, or empty.
        keypoints: x, y, x, y, ... of the visible keypoints in pixels of the input.
        runs: row, first column and length of each run of cells, of GRID x GRID cells.
        corners: x, y, x, y, ... of the corners of a rotated box in pixels of the input.
    """

    label: int
    score: float
    same: bool
    box: Sequence[float] = ()
    keypoints: Sequence[float] = ()
    runs: Sequence[int] = ()
    corners: Sequence[float] = ()


@dataclass(frozen=True)
class Difference:
    """How much the answers to an image differ, 0 to 1, and a function that returns those of model and file."""

    amount: float
    describe: Callable[[], tuple[Sequence[Answer], Sequence[Answer]]]


@dataclass
class Samples:
    """The samples of one comparison, the largest differences first; of equal ones, those of earlier images."""

    preprocessing: Preprocessing
    images: Sequence[Array]
    kept: list["_Kept"] = field(default_factory=list)

    def add(self, index: int, difference: Difference) -> None:
        """Consider an image by its index."""
        if len(self.kept) < MOST or difference.amount > self.kept[-1].amount:
            kept = _Kept(index, difference.amount, *difference.describe())
            self.kept = sorted([*self.kept, kept], key=lambda one: -one.amount)[:MOST]

    def to_list(self) -> list[Mapping[str, Any]]:
        """Return the samples as plain data; their images are read once more, since most were not kept to the end."""
        return [
            {
                **self._draw(self.images[one.index]),
                "difference": round(one.amount, 4),
                "model": [asdict(answer) for answer in one.model[:MOST_ANSWERS]],
                "file": [asdict(answer) for answer in one.file[:MOST_ANSWERS]],
            }
            for one in self.kept
        ]

    def _draw(self, image: Array) -> dict[str, Any]:
        """Return a small JPEG of an input of shape (1, channels, height, width), and the input's height and width."""
        mean, std = (np.array(values)[:, None, None] for values in (self.preprocessing.mean, self.preprocessing.std))
        pixels = ((image[0] * std + mean) * 255).round().clip(0, 255).astype(np.uint8)
        colours = pixels[: 3 if len(pixels) > 2 else 1]  # grey may have alpha
        drawn = Image.fromarray(np.moveaxis(colours, 0, -1) if len(colours) > 1 else colours[0])
        drawn.thumbnail((_LONGEST, _LONGEST))
        buffer = io.BytesIO()
        drawn.save(buffer, "JPEG", quality=_QUALITY)
        return {"image": base64.b64encode(buffer.getvalue()).decode(), "size": [int(side) for side in image.shape[2:]]}


@dataclass(frozen=True)
class _Kept:
    """An image by its index, how much the answers to it differ, and the answers of model and file."""

    index: int
    amount: float
    model: Sequence[Answer]
    file: Sequence[Answer]


def runs_of(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Return a mask (height, width) as runs of GRID x GRID cells: row, first column, length, for each run."""
    places = [((np.arange(GRID) + 0.5) * side / GRID).astype(int) for side in mask.shape]
    cells = np.pad(mask[np.ix_(*places)], ((0, 0), (1, 1))).astype(np.int8)
    rows, begins = np.nonzero(np.diff(cells, axis=1) == 1)
    _, ends = np.nonzero(np.diff(cells, axis=1) == -1)
    return [int(value) for run in zip(rows, begins, ends - begins, strict=True) for value in run]
