"""Reads the facts of a report that a program needs. Reports are untrusted, so every name is a plain word."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelexport import untrusted
from modelexport.matrix.support import Format

MOST_OUTPUTS, MOST_AXES, LARGEST, NAME_LIMIT = 1024, 32, 1 << 24, 256
RESIZES = ("letterbox", "centre_crop", "stretch")
CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Numbers of channels of an image, with Pillow's word for each."""
INPUT_TYPES = ("float32", "uint8", "int8", "image")
CLASS_LABEL, CLASS_PROBABILITIES, CONFIDENCE = "classLabel", "classLabel_probs", "confidence"
"""Outputs of the Core ML files that Vision reads: classifiers, and detectors that suppress boxes."""


@dataclass(frozen=True)
class Tensor:
    """An input or output: its name, its shape (an open axis is ``None``) and its type."""

    name: str
    shape: tuple[int | None, ...]
    type: str


@dataclass(frozen=True)
class Facts:
    """The facts of a file that a program needs.

    Attributes:
        format: the format of the file.
        file: its name.
        image: its input.
        channels_last: whether the channels are the last axis of the input.
        channels: how many there are.
        resize: how an image gets the size of the input: ``letterbox``, ``centre_crop`` or ``stretch``.
        mean: what is subtracted from the channels of a prepared image; empty if the file takes pixels of 0 to 255.
        std: what they are divided by; empty as well.
        scale: scale and zero point of an input of quantised values.
        outputs: the outputs in their order.
    """

    format: Format
    file: str
    image: Tensor
    channels_last: bool
    channels: int
    resize: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: tuple[float, int] | None
    outputs: tuple[Tensor, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        height, width = self.image.shape[1:3] if self.channels_last else self.image.shape[2:4]
        return int(height or 0), int(width or 0)

    @property
    def batch(self) -> int:
        """How many images a program gives to the file: one, if it takes any number."""
        return self.image.shape[0] or 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the input that a program gives to the file."""
        return (self.batch, *(int(size or 0) for size in self.image.shape[1:]))

    @property
    def normalises(self) -> bool:
        """Whether a prepared image has other values than pixels divided by 255."""
        return any(self.mean) or any(value != 1 for value in self.std)

    @property
    def for_vision(self) -> bool:
        """Whether Vision opens the file: it takes an image, and names classes or finds objects."""
        names = {output.name for output in self.outputs}
        return self.image.type == "image" and bool(names & {CLASS_LABEL, CONFIDENCE})


def read_facts(report: Mapping[str, Any]) -> Facts:
    """Read the facts of a report.

    Raises:
        ValueError: a fact is missing, or is not of its type.
    """
    model = untrusted.record(report.get("model"), "model")
    steps, image = (untrusted.record(model.get(key), f"model.{key}") for key in ("preprocessing", "input"))
    target = untrusted.record(untrusted.record(report.get("request"), "request").get("target"), "request.target")
    artifact = untrusted.record(report.get("artifact"), "artifact")
    axes = untrusted.items(image.get("axes"), "axes", MOST_AXES)
    channels = untrusted.whole(steps.get("channels"), "channels", 4)
    if steps.get("resize") not in RESIZES or channels not in CHANNELS or len(axes) != 4:
        raise ValueError("model.preprocessing is not one that this version knows")
    taken = _sized(_tensor(image, "model.input"), image, axes)
    if taken.shape[1:].count(None) or len(taken.shape) != 4 or taken.type not in INPUT_TYPES:
        raise ValueError("model.input.shape or its type is not that of images of one size")
    quantization = image.get("quantization")
    return Facts(
        format=Format(untrusted.word(target.get("format"), "request.target.format")),
        file=untrusted.word(untrusted.uri(artifact.get("uri"), "uri").rpartition("/")[2], "file", NAME_LIMIT),
        image=taken,
        channels_last=axes[1] == "height",
        channels=channels,
        resize=steps["resize"],
        mean=_numbers(steps, "mean", channels),
        std=_numbers(steps, "std", channels),
        scale=None if quantization is None else _scale(untrusted.record(quantization, "quantization")),
        outputs=tuple(
            _tensor(untrusted.record(value, "model.outputs"), "model.outputs")
            for value in untrusted.items(model.get("outputs"), "model.outputs", MOST_OUTPUTS)
        ),
    )


def _sized(taken: Tensor, image: Mapping[str, Any], axes: Sequence[Any]) -> Tensor:
    """Return an input of any size as one of the size for which its file was calibrated."""
    if image.get("inputSize") is None:
        return taken
    height, width = (
        untrusted.whole(side, "inputSize", LARGEST) for side in untrusted.items(image["inputSize"], "inputSize", 2)
    )
    known = {"height": height, "width": width}
    shape = (size or known.get(str(axis)) for axis, size in zip(axes, taken.shape, strict=True))
    return replace(taken, shape=tuple(shape))


def _tensor(fields: Mapping[str, Any], name: str) -> Tensor:
    shape = untrusted.items(fields.get("shape"), f"{name}.shape", MOST_AXES)
    return Tensor(
        untrusted.word(fields.get("name"), f"{name}.name", NAME_LIMIT),
        tuple(None if size is None else untrusted.whole(size, f"{name}.shape", LARGEST) for size in shape),
        untrusted.word(fields.get("type"), f"{name}.type"),
    )


def _numbers(steps: Mapping[str, Any], key: str, channels: int) -> tuple[float, ...]:
    """Read a number for each channel; none if the file takes pixels."""
    if "pixelRange" in steps:
        return ()
    values = tuple(untrusted.number(value, key, 1e6) for value in untrusted.items(steps.get(key), key, channels))
    if len(values) != channels or (key == "std" and not all(values)):
        raise ValueError(f"model.preprocessing.{key} has not a number for each channel")
    return values


def _scale(fields: Mapping[str, Any]) -> tuple[float, int]:
    zero_point = untrusted.int8(fields.get("zeroPoint"), "quantization.zeroPoint")
    return untrusted.number(fields.get("scale"), "quantization.scale", 1e6), zero_point
