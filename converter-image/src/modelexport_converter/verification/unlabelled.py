"""Compares outputs with unknown axes, channel by channel.

Channels may have different units: ultralytics joins boxes in pixels with scores in 0..1, and beside the spread of
the boxes a file without any score reaches 0.9998. So the error of each channel is divided by its own spread, the
deviation from its average over all images. The agreement of an output is 1 - the root mean square of these ratios,
each channel counting the same, and at most 1 - a quarter of the worst ratio: a channel that is lost leaves 0.75, too
little for every threshold, however many others there are. Correct INT8 files have errors up to 0.15 in their worst
channel, so the worst alone would be too strict for outputs of hundreds of channels.

- A channel that varies by less than 1/16 of its magnitude counts as if it varied by that: half precision rounds by up
  to 1/2048, which is then less than a hundredth, as FP16 requires. One that varies by less than 2**-20, for which half
  precision has 16 steps, counts as if it varied by that, or by as much as the output's strongest channel is.
- A channel within 0..1 on all images counts as scores: see ``spread_of_scores``.

The channel axis follows from the shape (a first axis of 1 is the batch) and the input size. Two axes in proportion to
the input are the rows and columns of a map.

- Three axes: the axis beside the map, in (C, H, W) and (H, W, C), or else the first.
- Two axes that are no map: the shorter one, in (84, 8400) and (8400, 84).
- Four and more axes: the last, as in (anchors, H, W, C).
- A single axis or a map is one channel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from modelexport_converter.backends import Array
from modelexport_converter.model import Output
from modelexport_converter.verification.informative_images import SAME_ANSWER, Variation

Numbers = npt.NDArray[np.float64]
_WORST = 4
"""The worst channel counts at least this part of its error, and so does an error in faint scores."""
_NEARLY_CONSTANT = 1 / 16
_RESOLVED = 2.0**-20


class ChannelSums:
    """Sums over all images for each output."""

    uninformative_reason = SAME_ANSWER

    def __init__(self, outputs: Sequence[Output], input_size: tuple[int, int]) -> None:
        self._input_size = input_size
        self._variation = Variation()
        self._sums = {output.name: _ChannelwiseSums(input_size) for output in outputs}

    def add(self, expected: Sequence[Array], found: Sequence[Array]) -> None:
        """Add one image: outputs of equal shapes."""
        self._variation.add([_by_channel(values, self._input_size) for values in expected])
        for total, one, other in zip(self._sums.values(), expected, found, strict=True):
            total.add(one, other)

    def agreements(self) -> dict[str, float]:
        """Return the agreement by output name."""
        return {name: total.agreement() for name, total in self._sums.items()}

    def has_content(self) -> bool:
        """Return ``True``: every output has content."""
        return True

    def informative_count(self) -> int:
        """Return the number of informative images."""
        return self._variation.count()

    def remark(self) -> str:
        """Name the channel that differs most, in the worst output."""
        name, total = min(self._sums.items(), key=lambda item: item[1].agreement())
        ratios = total.ratios()
        return f"channel {ratios.argmax()} of {len(ratios)} in {name} differs most, by {ratios.max():.2g} of its spread"


@dataclass
class _ChannelwiseSums:
    """Sums of one output, each an array (channels,)."""

    input_size: tuple[int, int]
    images: int = 0
    values: int = 0
    error: Numbers = field(default_factory=lambda: np.zeros(()))
    square: Numbers = field(default_factory=lambda: np.zeros(()))
    linear: Numbers = field(default_factory=lambda: np.zeros(()))
    lowest: Numbers = field(default_factory=lambda: np.zeros(()))
    highest: Numbers = field(default_factory=lambda: np.zeros(()))

    def add(self, expected: Array, found: Array) -> None:
        """Add one image: outputs of equal shape."""
        one, other = (_by_channel(values, self.input_size) for values in (expected, found))
        self.images += 1
        self.values += one.shape[1]
        self.error = self.error + ((one - other) ** 2).sum(1)
        self.square = self.square + (one**2).sum(1)
        self.linear = self.linear + one.sum(1)
        self.lowest = np.minimum(self.lowest, one.min(1))
        self.highest = np.maximum(self.highest, one.max(1))

    def ratios(self) -> Numbers:
        """Return |error| / |spread| of each channel, (channels,)."""
        return _ratios(self.error, self._spread())

    def agreement(self) -> float:
        """Return 1 - the root mean square of the channels' ratios, limited by the worst of them."""
        spread = self._spread()
        scores = (self.lowest >= 0) & (self.highest <= 1)
        counted = np.where(scores, spread_of_scores(spread, self.images), spread)
        mean = float(np.sqrt((_ratios(self.error, counted) ** 2).mean()))
        return 1 - max(mean, float(self.ratios().max()) / _WORST)

    def _spread(self) -> Numbers:
        own = self.square - self.linear**2 / self.values
        resolved = np.minimum(self.values * _RESOLVED**2, self.square.max())
        return np.asarray(np.maximum(own, np.maximum(self.square * _NEARLY_CONSTANT**2, resolved)))


def spread_of_scores(own: Numbers, images: int) -> Numbers:
    """Return the sum of squares that errors in scores are measured against, of the shape of ``own``.

    Every image counts as if it held at least one certain detection, so that images without any object do not turn tiny
    errors into large ratios; but as no more than 16 times the scores themselves, so that a file without any score has
    an error of at least a quarter.
    """
    return np.asarray(np.minimum(np.maximum(own, images), _WORST**2 * own))


def _ratios(error: Numbers, spread: Numbers) -> Numbers:
    """Return the roots of the ratios, (channels,); without any spread, 1 if there is an error and else 0."""
    return np.asarray(np.sqrt(np.divide(error, spread, out=np.sign(error), where=spread > 0)))


def _by_channel(values: Array, input_size: tuple[int, int]) -> Numbers:
    """Return one output as (channels, rest)."""
    content = values[0] if values.ndim > 1 and len(values) == 1 else values
    axis = _channel_axis(content.shape, input_size)
    numbers = content.astype(np.float64)
    return numbers.reshape(1, -1) if axis is None else np.moveaxis(numbers, axis, 0).reshape(content.shape[axis], -1)


def _channel_axis(shape: tuple[int, ...], input_size: tuple[int, int]) -> int | None:
    """Return the channel axis of a shape without batch; ``None`` for a single channel."""
    if len(shape) < 2 or (len(shape) == 2 and _is_map(shape, input_size)):
        return None
    if len(shape) == 2:
        return 0 if shape[0] <= shape[1] else 1
    if len(shape) > 3:
        return len(shape) - 1
    return 2 if _is_map(shape[:2], input_size) and not _is_map(shape[1:], input_size) else 0


def _is_map(shape: tuple[int, ...], input_size: tuple[int, int]) -> bool:
    """Return whether rows and columns have the proportion of the input, to less than a cell."""
    (rows, columns), (height, width) = shape, input_size
    return abs(rows * width - columns * height) < max(height, width)
