"""Measures how much the outputs of a model react to noise in each of its tensors.

Rounding a tensor to 8 bits adds noise ``e`` to it, and ``g e`` to a sum of the outputs, where ``g`` is the gradient of
that sum. If every output value enters the sum with a random sign, the average of ``(g e)**2`` is the squared error of
all outputs together. One backward pass per image through the eager network gives ``g`` for every tensor, without
labels.

A file's tensors are found in the network by their minimum and maximum on most images, which calibration measures
anyway. This needs no names, and holds for every format, for rebuilt networks and for programs. The network does not
compute all tensors of a file, as some lie inside a decomposed operator; and proposals, which are chosen by their
scores, pass no gradient to these. Such tensors have no weights.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from modelexport.logs import announce
from modelexport_converter.backends import Array
from modelexport_converter.backends.activation_ranges import (
    BINS,
    Budget,
    Extremes,
    Numbers,
    Provide,
    Weights,
    activation_range,
)
from modelexport_converter.backends.measurement import Measurement, find_tensors, has_extremes, start_weights
from modelexport_converter.model import LoadedModel, Output

IMAGES = 64
"""Images whose gradients are measured, at most: each takes about as long as three forward passes.

A value that only other images show counts for nothing, and is cut off. With 16 of 64 images a YOLOv4 agreed by .54.
"""
MOST_BYTES = 2**31
"""Results of a network on one image, in bytes, that are kept for its gradients."""
HEADROOM = 2.0
"""Ranges of 16 bits relative to the values on the calibration images."""
NOISY = 1e-3
"""The squared error of the outputs of one image, relative to their spread, from which each is measured alone.

It is an error of 3 %. Trained networks in LiteRT have .0022 (YOLOX nano), .0003 (FCN, YOLOv8) and .0002 (SSDlite).
"""
FEW = 16
"""Images on which each output is measured alone: its noise is compared between layers, and chooses no range."""
UNKNOWN = "unknown"
_RECTIFIERS = {"clamp", "clip", "hardtanh", "relu", "relu6"}
_PIECE = 1 << 16
"""Values that are sorted into bins at once: they and their bins stay in the cache of a processor."""
_Key = tuple[int, float, float]
"""The number of a result of a network, and the range of a tensor that it may be."""
_ABOUT_AVERAGE = 0.25
"""Squares about the average, as a part of those about zero, of positions in an image."""
_LEAST_DOUBT = 1e-3
"""The least distance of a detection's score from 1 that its odds are computed with."""


def plan_ranges(
    model: LoadedModel,
    samples: Sequence[Array],
    extremes: Mapping[str, Extremes],
    bits: int = 8,
    provide: Provide | None = None,
) -> Budget:
    """Choose the range of each tensor of a file: in 8 bits that of the least noise, where it is known.

    In 16 bits a range covers twice what any image reached. It has 256 times the steps, so that no value has to be cut
    off for the others, nor one of an image to come: calibrated on 8 images, a YOLOv4 agreed by .85 without.

    Takes the arguments of ``measure_weights``, and the bits of activations.
    """
    if bits > 8:
        ends = {name: np.array(found).T for name, found in extremes.items()}
        return Budget(
            {
                name: (HEADROOM * min(0.0, lows.min().item()), HEADROOM * max(0.0, highs.max().item()))
                for name, (lows, highs) in ends.items()
            },
            {},
        )
    measured = measure_weights(model, samples, extremes, provide)
    best = {name: weights.best_range() for name, weights in measured.items()}
    ranges = {
        name: best[name][:2] if name in best else activation_range(found, model.int8_sensitive)
        for name, found in extremes.items()
    }
    return Budget(ranges, {name: noise for name, (_, _, noise) in best.items()})


def measure_weights(
    model: LoadedModel, samples: Sequence[Array], extremes: Mapping[str, Extremes], provide: Provide | None = None
) -> dict[str, Weights]:
    """Return the weights of the values of each tensor of a file that the network computes as well.

    There are none if the network cannot be differentiated, or its results exceed ``MOST_BYTES``.

    Args:
        model: the eager network.
        samples: calibration inputs (1, C, H, W).
        extremes: minimum and maximum of each tensor of the file on each sample, in the order of computation.
        provide: provides the measurement for the first of several files of this network and these samples.
    """
    names, limits = list(extremes), _limits(extremes, len(samples))
    found = start_weights(limits)
    if provide is None:
        _measure(model, samples, found, limits)
    else:
        path, made = provide(lambda path: _measure(model, samples, found, limits).write(path))
        shared = not made and Measurement.read(path).add_to(found, limits)
        if not made and not shared:
            _measure(model, samples, found, limits)
        announce("measured gradients", made=not shared)
    return {
        name: weights
        for name, weights in zip(names, found, strict=True)
        if weights.squares.any() and np.isfinite(weights.squares).all()
    }


def measure_outputs(
    model: LoadedModel,
    samples: Sequence[Array],
    extremes: Mapping[str, Extremes],
    budget: Budget,
    rounded: Iterable[str],
) -> dict[str, dict[str, float]]:
    """Return the noise of each tensor in each output alone, by the output's name, on the first images.

    There is none if the tensors in 8 bits have less noise than ``NOISY``, or an output has no known meaning: nothing
    is known then of what its error costs.

    Takes the arguments of ``measure_weights``, the budget of all outputs together, and the tensors in 8 bits.
    """
    outputs = (model.unsuppressed or model).outputs
    noise = sum(budget.noise.get(name, 0.0) for name in rounded) / max(1, min(IMAGES, len(samples)))
    if noise < NOISY or any(UNKNOWN in output.axes for output in outputs):
        return {}
    few = samples[:FEW]
    limits, by_output = _limits(extremes, len(samples))[:, : len(few)], dict[str, dict[str, float]]()
    for output in outputs:
        found = start_weights(limits)
        _measure(model, few, found, limits, output.name)
        named = zip(extremes, found, strict=True)
        by_output[output.name] = {
            name: weights.rounding(budget.ranges[name][1] - budget.ranges[name][0])
            for name, weights in named
            if np.isfinite(weights.squares).all()
        }
    announce("measured outputs", noise=f"{noise:.6f}")
    return by_output


def _limits(extremes: Mapping[str, Extremes], images: int) -> Numbers:
    """Return the extremes of each tensor on each image, (tensors, images, 2)."""
    limits = np.array(list(extremes.values())).reshape(len(extremes), images, 2)
    limits[~np.isfinite(limits).all((1, 2))] = np.nan  # masks, which then equal nothing
    return limits


def _measure(
    model: LoadedModel, samples: Sequence[Array], found: Sequence[Weights], limits: Numbers, only: str = ""
) -> Measurement:
    """Add the squared gradients of the first images to the weights of tensors of extremes (tensors, images, 2).

    They are those of all outputs, or of ``only`` one.
    """
    signs, images = torch.Generator().manual_seed(0), dict[int, list[int]]()
    # Results are told apart by their number, so images on which the network calls as many functions belong together.
    seen, sums = defaultdict[int, list[Numbers]](list), defaultdict[int, dict[_Key, Weights]](dict)
    try:
        for index in range(min(IMAGES, len(samples))):
            taps = _Taps(found, limits[:, index])
            _add_image(model, samples[index], taps, signs, only)
            count = len(taps.seen)
            images.setdefault(count, []).append(index)
            seen[count].append(np.array(taps.seen).reshape(-1, 2))
            for key, weights in taps.sums.items():
                sums[count].setdefault(key, Weights(weights.low, weights.high)).squares += weights.squares
    except RuntimeError as error:
        announce("ranges cover all values", why=f"the network has no gradients: {error}")
        return Measurement.of_nothing(np.zeros((0, 0, 2)))
    measurements = [_collect(found, limits[:, images[n]], np.array(seen[n]), sums[n]) for n in images]
    for measurement, chosen in zip(measurements, images.values(), strict=True):
        measurement.add_to(found, limits[:, chosen])
    if len(measurements) == 1:
        return measurements[0]
    return Measurement.of_nothing(measurements[0].seen[:1] if measurements else np.zeros((0, 0, 2)))


def _collect(found: Sequence[Weights], limits: Numbers, seen: Numbers, sums: Mapping[_Key, Weights]) -> Measurement:
    """Return the measurement of images (images, results, 2) on which the network calls the same functions."""
    places = find_tensors(limits, seen)
    squares = np.zeros((len(places), BINS))
    for result in np.flatnonzero(places >= 0):
        tensor = found[places[result]]
        squares[result] = sums[result.item(), tensor.low, tensor.high].squares
    return Measurement(seen, places >= 0, squares)


def _add_image(model: LoadedModel, sample: Array, taps: "_Taps", signs: torch.Generator, only: str) -> None:
    """Add the squared gradients of one image to the weights.

    Raises:
        RuntimeError: an operator has no derivative or has lost what it needs for it, or the results are too large.
    """
    # Of the boxes that suppression leaves, background has no gradient, and its scores would be cut off.
    network = model.unsuppressed or model
    image = torch.from_numpy(sample).requires_grad_()
    with taps:
        taps.see(image)
        outputs = network.module(image.clone())
    total = _random_sum(outputs, network.outputs, signs, only)
    if total.requires_grad:
        torch.autograd.backward(total)


class _Taps(TorchFunctionMode):
    """Adds up the squared gradients of those results of torch's functions that may be tensors of a file.

    ``seen`` has the extremes of all results, and ``sums`` the weights of a result by its number and by the range of a
    tensor that it may be: only all images together tell which one it is.
    """

    def __init__(self, found: Sequence[Weights], limits: Numbers) -> None:
        super().__init__()
        self.seen: list[tuple[float, ...]] = []
        self.sums: dict[_Key, Weights] = {}
        self._found, self._limits = found, limits
        self._values: dict[int, _Values] = {}
        self._bytes = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function and look at its results."""
        if args and id(args[0]) in self._values and _overwrites(func, kwargs or {}):
            self._values[id(args[0])].settle()
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else (result,):
            if isinstance(tensor, Tensor) and tensor.requires_grad and tensor.numel():
                self.see(tensor)
        return result

    def see(self, tensor: Tensor) -> None:
        """Let a result take part if tensors of the file have its extremes."""
        values = tensor.detach()
        if not tensor._is_view():
            self._bytes += values.nbytes
        if self._bytes > MOST_BYTES:
            raise RuntimeError(f"its results on one image exceed {MOST_BYTES >> 20} MiB")
        number, extremes = len(self.seen), tuple(value.item() for value in _flatten(values, values).aminmax())
        self.seen.append(extremes)
        (near,) = has_extremes(self._limits, np.array([extremes]))
        ranges = {(self._found[place].low, self._found[place].high) for place in np.flatnonzero(near).tolist()}
        self.sums |= (sums := {(number, low, high): Weights(low, high) for low, high in ranges})
        if sums:
            self._values[id(tensor)] = tapped = _Values(list(sums.values()), values)
            tensor.register_hook(tapped.add_squares)  # type: ignore[no-untyped-call]  # torch has no types for it


def _overwrites(func: Any, kwargs: Mapping[str, Any]) -> bool:
    """Return whether a function overwrites its first argument, and not only to cut it, as a ReLU does.

    A quantiser joins a ReLU to the operator before, so that no file has the values before it.
    """
    name = str(getattr(func, "__name__", "")).partition(".")[0]
    inplace = name.startswith("__i") or (name.endswith("_") and not name.endswith("__")) or kwargs.get("inplace", False)
    return bool(inplace) and name.strip("_") not in _RECTIFIERS


class _Values:
    """The values of a tensor on one image, which are kept until their gradients come back."""

    def __init__(self, weights: Sequence[Weights], values: Tensor) -> None:
        self._weights, self._values, self._version = weights, values, values._version
        self._settled: list[list[Tensor]] | None = None

    def settle(self) -> None:
        """Keep the bins of the values, before a later operator overwrites them."""
        if self._is_current():
            self._settled = list(self._bins())

    def add_squares(self, gradient: Tensor | None) -> None:
        """Add squared gradients to the bins of the values; nothing if a ReLU has overwritten these.

        torch passes no gradient for a part of a tensor that nothing reads, while another part is read.
        """
        if gradient is None or (self._settled is None and not self._is_current()):
            return
        bins = self._bins() if self._settled is None else self._settled
        for some, part in zip(bins, torch.split(_flatten(gradient, self._values), _PIECE), strict=True):
            squares = part.square()
            for weights, places in zip(self._weights, some, strict=True):
                sums = torch.bincount(places, squares, minlength=BINS)
                weights.squares += sums[:BINS].double().numpy()

    def _is_current(self) -> bool:
        return self._values._version == self._version

    def _bins(self) -> Iterator[list[Tensor]]:
        """Yield bins of some values at once, by each of the weights.

        Zero has one beyond: its 8-bit number is exact, so it adds no noise. Comparing takes longer than all else here,
        and most activations are nowhere zero.
        """
        for values in torch.split(_flatten(self._values, self._values), _PIECE):
            beyond = 0 if values.abs().min() else (values == 0).short() * BINS
            scales = [BINS / max(weights.high - weights.low, 1e-30) for weights in self._weights]
            yield [
                values.sub(weights.low).mul_(scale).clamp_(0, BINS - 1).short() + beyond
                for weights, scale in zip(self._weights, scales, strict=True)
            ]


def _flatten(tensor: Tensor, like: Tensor) -> Tensor:
    """Return the values of a tensor in the order in which ``like``, of the same shape, has its own in memory.

    A convolution of oneDNN has the channels last there. To copy its result into the order of its axes takes longer than
    the convolution, and torch looks for the extremes of such a result twenty times as long.
    """
    return tensor.permute(sorted(range(like.ndim), key=like.stride, reverse=True)).flatten()


def _random_sum(
    outputs: Sequence[Tensor], described: Sequence[Output], signs: torch.Generator, only: str = ""
) -> Tensor:
    """Return the sum of all output values, or of ``only`` one's, with random signs, each output divided by its spread.

    As agreement does, it weights anchors and detections by the model's confidence in them.
    """
    confidence = _confidence(outputs, described)
    total = torch.zeros(())
    for values, output in zip(outputs, described, strict=True):
        if values.requires_grad and values.numel() and only in ("", output.name):
            random = torch.randint(0, 2, values.shape, generator=signs) * 2 - 1
            total = total + (values * _factors(values.detach(), output, confidence) * random).sum()
    return total


def _confidence(outputs: Sequence[Tensor], described: Sequence[Output]) -> Tensor | None:
    """Return the score of each anchor or detection, (anchors,) or (detections,), if the model has any."""
    for values, output in zip(outputs, described, strict=True):
        if {"class", "anchor"} <= set(output.axes):
            return values.detach().amax(1).flatten()
        if output.name == "scores":
            return values.detach().flatten()
    return None


def _factors(values: Tensor, output: Output, confidence: Tensor | None) -> Tensor:
    """Return the factors of the values of an output, broadcast to its shape.

    The spread is that of one image about zero, since a single object has none about its average. The error of a
    detection's score is that of its log-odds, times the slope of the logistic function at 0, a quarter: suppression and
    mean precision read the order of scores, in which .99 and .999 are as far apart as .9 and .99. Their difference as
    probabilities is so small that ranges cut both to one score, and a worse box could suppress a better one.
    """
    if UNKNOWN in output.axes:
        # The values of one channel have the same unit.
        channel = 1 + int(np.argmin(values.shape[1:])) if values.ndim == 3 else min(1, values.ndim - 1)
        positions = tuple(axis for axis in range(values.ndim) if axis != channel)
        return 1 / values.square().sum(positions, keepdim=True).sqrt().clamp_min(1e-6)
    if "class" in output.axes or output.name == "scores":
        spread = values.square().sum().clamp_min(1).sqrt()
        slope = 4 * (1 - values).clamp_min(_LEAST_DOUBT) if "detection" in output.axes else torch.ones(())
        return 1 / (spread * slope)
    shape = [-1 if axis in ("anchor", "detection") else 1 for axis in output.axes]
    weights = torch.ones(()) if confidence is None or -1 not in shape else confidence.reshape(shape)
    square = (weights * values.square()).sum() * _ABOUT_AVERAGE / weights.sum().clamp(1e-6, 1)
    return (weights / square.clamp_min(1e-12)).sqrt()
