"""A model as the rest of the converter sees it, whatever its architecture."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import torch

from modelexport.result import Reference
from modelexport_converter.statistics import Fit

COLOURS: Mapping[int, str] = {1: "grey", 2: "grey, alpha", 3: "RGB", 4: "RGBA"}
"""What the channels of a picture are, by their number: Pillow's modes L, LA, RGB and RGBA."""


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the input tensor (1, channels, height, width), float32; its channels are ``COLOURS``.

    A picture without alpha is opaque. ``letterbox`` scales it to fit, keeps its aspect ratio and pads every channel
    with 114 on both sides; ``centre_crop`` scales the shorter side to the input size and cuts the centre; ``stretch``
    scales height and width to the input size, each by itself. Then ``(pixel / 255 - mean) / std`` per channel.
    """

    resize: Literal["letterbox", "centre_crop", "stretch"]
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    channels: int = 3

    @property
    def colours(self) -> str:
        """What the channels are."""
        return COLOURS[self.channels]

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.channels in (2, 4)

    def taking(self, channels: int) -> Self:
        """The same for pictures of so many channels, of which other than these are not normalised."""
        if channels == self.channels:
            return self
        return replace(self, channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels)


@dataclass(frozen=True)
class Output:
    """One output tensor: its name in every format, its axes, and how to read it in a sentence or two.

    What is ``exact`` is computed in float32 in every file, from the last operators with weights on: places in a picture
    of 4096 pixels need more than the 11 bits of a half.
    """

    name: str
    axes: tuple[str, ...]
    meaning: str
    exact: bool = False


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for capture.

    ``module`` is in eval mode with frozen FP32 parameters; it maps one float32 tensor of ``input_shape`` to a
    tuple of float32 tensors in the order of ``outputs``. ``metadata`` are further facts for the user of the file, e.g.
    the stride. ``body`` names the children of ``module`` that may be computed in less than float32; where it is empty,
    there is nothing else to spare but exact outputs and what each format spares by itself. ``delicate`` says that
    activations of 8 bits need care: the last convolutions stay in float, and before them values that are rare are
    clipped. ``reference`` says where the network comes from, ``assumptions`` what of it the checkpoint does not say, a
    phrase each, e.g. ``activation SiLU``. ``warnings`` are signs that this is not the network of the checkpoint,
    ``fit`` is how well it fits its statistics of normalisation, where it has any and was compared. ``weights`` says
    where in the checkpoint the weights lie, e.g. ``ema``; it is empty for all of it.
    """

    module: torch.nn.Module
    input_size: tuple[int, int]
    outputs: tuple[Output, ...]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    metadata: Mapping[str, str] = field(default_factory=dict)
    input_name: str = "image"
    body: tuple[str, ...] = ()
    delicate: bool = False
    reference: Reference = Reference.REBUILT
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    fit: Fit | None = None
    weights: str = ""

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(1, channels, height, width)."""
        return (1, self.preprocessing.channels, *self.input_size)

    def example_input(self) -> torch.Tensor:
        """A tensor of the input's shape, from a fixed seed, in 0..1."""
        generator = torch.Generator().manual_seed(0)
        return torch.rand(self.input_shape, generator=generator)
