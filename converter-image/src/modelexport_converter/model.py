"""Describes a loaded model to the rest of the converter, whatever its architecture."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import torch

from modelexport.api.result import Reference
from modelexport.matrix.options import NO_OPTIONS, InputKind, InputType, Options
from modelexport.reading.facts import CLASS_LABEL, CLASS_PROBABILITIES, CONFIDENCE
from modelexport_converter.norm_statistics import Fit

COLOURS: Mapping[int, str] = {1: "grey", 2: "grey, alpha", 3: "RGB", 4: "RGBA"}
"""Names of an image's channels by their number: Pillow's modes L, LA, RGB and RGBA."""


@dataclass(frozen=True)
class Preprocessing:
    """Turns an image into the input tensor (1, channels, height, width), float32; ``COLOURS`` names its channels.

    An image without alpha is opaque. ``letterbox`` scales it to fit, keeps its aspect ratio and pads every channel
    with 114 on both sides; ``centre_crop`` scales the shorter side to the input size and cuts out the centre;
    ``stretch`` scales height and width to the input size independently. Then ``(pixel / 255 - mean) / std`` per
    channel.
    """

    resize: Literal["letterbox", "centre_crop", "stretch"]
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    channels: int = 3

    @property
    def colours(self) -> str:
        """Return the names of the channels."""
        return COLOURS[self.channels]

    @property
    def has_alpha(self) -> bool:
        """Return whether the last channel is alpha."""
        return self.channels in (2, 4)

    def taking(self, channels: int) -> Self:
        """Return the same preprocessing for another number of channels, without normalisation if the number changes."""
        if channels == self.channels:
            return self
        return replace(self, channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels)


@dataclass(frozen=True)
class Output:
    """Describes one output tensor: its name in every format, its axes, and how to read it in a sentence or two.

    If ``keep_float32``, every file computes it in float32 from the last operators with weights onwards: positions in
    an image of 4096 pixels need more than the 11 significant bits of a half.
    """

    name: str
    axes: tuple[str, ...]
    meaning: str
    keep_float32: bool = False


CLASSIFIER_OUTPUTS = (
    Output(CLASS_LABEL, (), "Name of the class of the highest probability."),
    Output(CLASS_PROBABILITIES, ("class",), "Probability of each class by its name, a dictionary; they add up to 1."),
)
"""The outputs of a Core ML classifier, by the names that coremltools gives them."""


COORDINATES = "coordinates"
IOU_THRESHOLD, CONFIDENCE_THRESHOLD = "iouThreshold", "confidenceThreshold"
DETECTOR_OUTPUTS = (
    Output(
        CONFIDENCE,
        ("detection", "class"),
        "Score of each detection, best first, in the column of its class; the other columns are 0. Columns beyond the "
        "classes stay empty: Core ML needs a multiple of 80.",
    ),
    Output(
        COORDINATES,
        ("detection", "coordinate"),
        "Centre x, centre y, width, height, divided by the input's width and height.",
    ),
)
"""The outputs of a Core ML detector that suppresses boxes, by the names that Vision reads."""


@dataclass(frozen=True)
class Suppression:
    """How a format suppresses boxes in a step of its own after the network.

    Attributes:
        score: the least score of a box.
        overlap: the largest intersection over union of two boxes of a class.
        most_detections: how many detections are compared at most, best first.
    """

    score: float
    overlap: float
    most_detections: int


class SizedModule(torch.nn.Module):
    """A part of a network that computes for one input size or, if ``any_size`` is set, for that of each image."""

    def __init__(self) -> None:
        super().__init__()
        self.any_size = False


def open_sizes(module: torch.nn.Module) -> None:
    """Let a network take images of any size."""
    for part in module.modules():
        if isinstance(part, SizedModule):
            part.any_size = True


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for capture.

    Attributes:
        module: in eval mode with frozen float32 parameters. Maps one float32 tensor of ``input_shape`` to a tuple of
            float32 tensors in the order of ``outputs``.
        metadata: further facts for the user of the file, e.g. the stride.
        low_precision_modules: the children of ``module`` that may run in less than float32. If empty, only
            ``keep_float32`` outputs and each format's own exclusions stay in float32.
        int8_sensitive: whether 8-bit activations need care: the last convolutions stay in float, and rare values before
            them are clipped.
        reference: where the network comes from.
        assumptions: facts about the network that the checkpoint does not state, a phrase each, e.g.
            ``activation SiLU``.
        warnings: signs that this is not the network of the checkpoint.
        fit: how well the network fits its normalisation statistics, if it has any and was compared.
        weights: the part of the checkpoint that holds the weights, e.g. ``ema``; empty for the whole checkpoint.
        recorded: the metrics that the checkpoint records of its own validation, by the names of its trainer.
        unsuppressed: with the option ``nms``, the detector that answers for every anchor.
        suppression: if the format suppresses boxes after the network, how; ``module`` suppresses them, too.
        options: how the file takes images, and what it contains besides the network; the module is the same.
    """

    module: torch.nn.Module
    input_size: tuple[int, int]
    outputs: tuple[Output, ...]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    metadata: Mapping[str, str] = field(default_factory=dict)
    input_name: str = "image"
    low_precision_modules: tuple[str, ...] = ()
    int8_sensitive: bool = False
    reference: Reference = Reference.REBUILT
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    fit: Fit | None = None
    weights: str = ""
    recorded: Mapping[str, Any] = field(default_factory=dict)
    unsuppressed: "LoadedModel | None" = None
    suppression: Suppression | None = None
    options: Options = NO_OPTIONS

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Return (1, channels, height, width)."""
        return (1, self.preprocessing.channels, *self.input_size)

    def shape_in_file(self, *, channels_last: bool) -> tuple[int, int, int, int]:
        """Return the shape of the image that a file takes: with channels last or, as the module, first.

        An axis of any size is 0, as in the files.
        """
        _, channels, height, width = self.input_shape
        if self.options.dynamic_size:
            height, width = 0, 0
        batch = 0 if self.options.dynamic_batch else self.options.batch or 1
        return (batch, height, width, channels) if channels_last else (batch, channels, height, width)

    @property
    def open_axes(self) -> frozenset[str]:
        """Return the axes of input and outputs that have any size in a file."""
        images = {"batch"} if self.options.dynamic_batch else set[str]()
        places = {"height", "width", "row", "column", "anchor"} if self.options.dynamic_size else set()
        return frozenset(images | places)

    @property
    def type_in_file(self) -> str:
        """Return the type of the image that a file takes, by its name in numpy."""
        return str(self.options.input_type or InputType.FLOAT32)

    @property
    def kind_in_file(self) -> str:
        """Return the type of the image in words for the user of the file: Core ML has images besides numbers."""
        return "image" if self.options.input is InputKind.IMAGE else self.type_in_file

    @property
    def outputs_in_file(self) -> tuple[Output, ...]:
        """Return the outputs as the user of the file finds them; ``outputs`` are read from them."""
        if self.suppression:
            return DETECTOR_OUTPUTS
        return CLASSIFIER_OUTPUTS if self.options.classifier else self.outputs

    def captured_input(self) -> torch.Tensor:
        """Return the input with which a format captures the network: as many images as its file takes.

        For a batch of any size these are two, as one would be broadcast.
        """
        return self.example_input(2 if self.options.dynamic_batch else self.options.batch or 1)

    def example_input(self, batch: int = 1) -> torch.Tensor:
        """Return a tensor of ``input_shape``, or of several images, with values in 0..1 from a fixed seed."""
        generator = torch.Generator().manual_seed(0)
        return torch.rand((batch, *self.input_shape[1:]), generator=generator)
