"""The image that a file takes, from the input of the network: as pixels, with channels last, in batches."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from modelexport.api.reasons import Reason
from modelexport.api.result import Reference
from modelexport.matrix.options import InputKind
from modelexport.text import quote
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel

Array = npt.NDArray[np.float32]
Scale = tuple[float, int]
"""Scale and zero point of quantised values: ``value = (number - zero point) * scale``."""
Run = Callable[[Array], tuple[Array, ...]]
"""Runs a file on one input (1, C, H, W); returns the outputs in the order of ``LoadedModel.outputs``."""

DYNAMIC_BATCHES = (1, 3)
"""Numbers of images with which a file of a dynamic batch is verified, in turns."""
ROUNDING = 0.01
"""The largest distance of a pixel from a whole number that arithmetic in float32 explains."""


IMAGE_COLOURS: Mapping[int, str] = {1: "GRAYSCALE", 3: "RGB"}
"""The images that Core ML has, by the number of their channels."""


def check_options(model: LoadedModel) -> None:
    """Refuse options that the checkpoint rules out, which the spec cannot know.

    Raises:
        Failure: ``UnsupportedTarget``.
    """
    options, channels = model.options, model.preprocessing.channels
    refused = {"batch": options.batch, "dynamicBatch": options.dynamic_batch, "dynamicSize": options.dynamic_size}
    for name in filter(refused.get, refused) if model.reference is Reference.PROGRAM else ():
        problem = f"the option {name} is not possible for a .pt2 program, which takes one image of one size"
        raise Failure(Reason.UNSUPPORTED_TARGET, f"{problem}; remove it, or give the checkpoint of the training")
    if options.input is InputKind.IMAGE and channels not in IMAGE_COLOURS:
        problem = f"the network takes images of {channels} channels ({model.preprocessing.colours}), and Core ML has"
        message = f"{problem} images in grey and RGB only; remove the option input, or set it to Tensor"
        raise Failure(Reason.UNSUPPORTED_TARGET, message)
    counts, named = Counter(model.class_names), "classifier" if options.classifier else "nms"
    repeated = [name for name, count in counts.items() if count > 1]
    if (options.classifier or model.suppression) and repeated:
        problem = f"two classes have the name {quote(repeated[0])}, and Vision tells them apart by their names"
        raise Failure(Reason.UNSUPPORTED_TARGET, f"{problem}; remove the option {named}, or rename one")


def scale_and_bias(model: LoadedModel) -> tuple[Array, Array]:
    """Return what turns pixels of 0 to 255 into the input: ``pixel * scale + bias``, each per channel, (channels,)."""
    mean, std = (np.asarray(values, np.float64) for values in (model.preprocessing.mean, model.preprocessing.std))
    return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def scale_of_pixels(model: LoadedModel) -> Scale:
    """Return the scale at which prepared values of all pixels fit into int8."""
    factor, bias = scale_and_bias(model)
    low, high = float(bias.min()), float((255 * factor + bias).max())
    step = (high - low) / 255
    return step, round(-128 - low / step)


def to_file_input(model: LoadedModel, image: Array, scale: Scale | None = None) -> npt.NDArray[Any]:
    """Return the image that the file takes, in place of an input of the network (N, channels, height, width).

    ``scale`` is that of a file that takes quantised values.

    Raises:
        ValueError: the file takes pixels, and the input is not of any.
    """
    options, given = model.options, image
    if options.takes_pixels:
        factor, bias = (values.astype(np.float64).reshape(1, -1, 1, 1) for values in scale_and_bias(model))
        pixels = (image - bias) / factor
        whole = np.rint(pixels)
        if np.abs(pixels - whole).max(initial=0) > ROUNDING or whole.min(initial=0) < 0 or whole.max(initial=0) > 255:
            raise ValueError("the input is not of pixels from 0 to 255")
        given = whole.astype(np.float32)
    elif scale is not None:
        step, zero = np.float32(scale[0]), scale[1]
        given = (np.rint(image / step) + zero).clip(-128, 127).astype(np.float32)
    return np.ascontiguousarray(given.transpose(0, 2, 3, 1) if options.channels_last else given, model.type_in_file)


def fill_batch(model: LoadedModel, image: Array) -> Array:
    """Return an image (1, channels, height, width) as often as the file takes images at once, once for any batch."""
    return np.repeat(image, model.options.batch or 1, axis=0)


def verified_sizes(model: LoadedModel, stride: int) -> tuple[tuple[int, int], ...]:
    """Return the sizes (height, width) in which a file gets the images in turns: its own, and where it takes any size,
    one that is higher by a stride and a quarter narrower, in whole strides.

    A file that divides the positions of boxes by the width of its own size agrees by less than every threshold then.
    """
    height, width = model.input_size
    other = height + stride, max(stride, width * 3 // 4 // stride * stride)
    return (model.input_size, other) if model.options.dynamic_size else (model.input_size,)


class Batches:
    """Runs a file that takes several images at once on one image after the other.

    Each image is at another place among its predecessors, so that a file that mixes images or answers for the first
    one only does not agree with the model. Images of each size have predecessors and numbers of their own.
    """

    def __init__(self, run: Run, model: LoadedModel) -> None:
        self._run, self._sizes = run, (model.options.batch,) if model.options.batch else DYNAMIC_BATCHES
        self._before: defaultdict[tuple[int, ...], list[Array]] = defaultdict(list)
        self._counts: Counter[tuple[int, ...]] = Counter()

    def __call__(self, image: Array) -> tuple[Array, ...]:
        """Return the outputs of one image (1, channels, height, width).

        Raises:
            ValueError: an output has not one row for each image.
        """
        before = self._before[image.shape]
        turn, choice = divmod(self._counts[image.shape], len(self._sizes))
        size = self._sizes[choice]
        place = turn % size
        others = [*before, np.ascontiguousarray(image[..., ::-1])]
        images = [others[index % len(others)] for index in range(size)]
        images[place] = image
        self._counts[image.shape] += 1
        self._before[image.shape] = [image, *before][: max(self._sizes) - 1]
        outputs = self._run(np.concatenate(images))
        for output in outputs:
            if output.shape[:1] != (size,):
                raise ValueError(f"the file gives an output of shape {output.shape} for {size} images")
        return tuple(output[place : place + 1] for output in outputs)


def feed(run: Callable[[npt.NDArray[Any]], tuple[Array, ...]], model: LoadedModel, scale: Scale | None = None) -> Run:
    """Return what runs a file on inputs of the network, one image at a time; ``scale`` as for ``to_file_input``."""

    def run_images(image: Array) -> tuple[Array, ...]:
        return run(to_file_input(model, image, scale))

    return Batches(run_images, model) if model.options.takes_several else run_images
