"""Matches a checkpoint against the request: weights, classes, sizes and channels. All architectures use it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from modelexport.api.reasons import Reason
from modelexport.api.spec import INPUT_SIZE_LIMIT, Parameters
from modelexport.matrix.support import ARCHITECTURES
from modelexport.text import clean
from modelexport_converter.checkpoints.checkpoint import Facts
from modelexport_converter.checkpoints.network_search import AVERAGED
from modelexport_converter.failures import Failure
from modelexport_converter.model import COLOURS, Preprocessing
from modelexport_converter.programs.graph import Program

Tensors = Mapping[str, torch.Tensor]
CHANGED = "save a changed network with torch.export.save as .pt2, and export that with the architecture Custom"
"""The way out for weights of a modified network."""
Network = TypeVar("Network", bound=torch.nn.Module)


def check_asked(what: str, wanted: object, found: object) -> None:
    """Refuse a checkpoint whose value differs from that of the export; ``wanted`` of ``None`` accepts any.

    Raises:
        Failure: ``CheckpointMismatch``, naming both.
    """
    if wanted is not None and wanted != found:
        way_out = "correct spec.model or name the other checkpoint"
        raise mismatch(f"the export asks for {what} {wanted}, the checkpoint has {found}; {way_out}")


def mismatch(message: str) -> Failure:
    """Return the failure of a checkpoint that does not match the export."""
    return Failure(Reason.CHECKPOINT_MISMATCH, message)


def own_weights(tensors: Tensors, *marks: str) -> Tensors:
    """Strip the prefix of a network that is part of another module, as in Lightning: ``model.``.

    ``marks`` are suffixes of names that identify the network. Tensors with another prefix are left out and never read,
    e.g. the weights of a loss. Names stay as they are if a mark has no prefix. If two parts have the marks, the
    averaged one is the network.

    Raises:
        Failure: ``CheckpointMismatch``, naming several parts with the marks.
    """
    ends = {f".{mark}": mark for mark in marks}
    marked = {name.removesuffix(mark) for name in tensors for end, mark in ends.items() if f".{name}".endswith(end)}
    if not marked or "" in marked:
        return tensors
    averaged = sorted(prefix for prefix in marked if prefix.rstrip(".").rpartition(".")[2] in AVERAGED)
    if len(marked) > 1 and len(averaged) != 1:
        parts = [clean(prefix.rstrip("."), 60) for prefix in sorted(marked)]
        raise mismatch(
            f"the checkpoint holds {len(parts)} networks, {' and '.join(parts[:4])}; save the one that is meant alone, "
            f"e.g. the state_dict of {parts[0]}"
        )
    prefix = averaged[0] if averaged else next(iter(marked))
    return {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}


def check_program_parameters(parameters: Parameters) -> None:
    """Refuse parameters that describe a network if a ``.pt2`` archive brings its own.

    Raises:
        Failure: ``CheckpointMismatch``, naming the parameter.
    """
    for name, field in _OF_THE_NETWORK.items():
        if getattr(parameters, field) is not None:
            raise mismatch(
                f"spec.model.parameters.{name} changes nothing, as the .pt2 archive brings its own network; remove it"
            )


_OF_THE_NETWORK = {
    "activation": "activation",
    "colorOrder": "color_order",
    "pixelRange": "pixel_range",
    "anchors": "anchors",
    "alignCorners": "align_corners",
}
"""Parameters that describe the network of architectures that also accept archives, and their fields."""


def normalised(preprocessing: Preprocessing, parameters: Parameters) -> Preprocessing:
    """Return a preprocessing with the mean and standard deviation of the export.

    Raises:
        Failure: ``CheckpointMismatch``: images have another number of channels.
    """
    for name, values in (("imageMean", parameters.image_mean), ("imageStd", parameters.image_std)):
        if values is not None and len(values) != preprocessing.channels:
            images = f"images have {preprocessing.channels} ({preprocessing.colours})"
            raise mismatch(f"{name} is given for {len(values)} channels, and the {images}; give a number for each")
    return replace(
        preprocessing, mean=parameters.image_mean or preprocessing.mean, std=parameters.image_std or preprocessing.std
    )


def check_channels(channels: int) -> int:
    """Return the number of image channels of a network.

    Raises:
        Failure: ``CheckpointMismatch``: no images have so many.
    """
    if channels not in COLOURS:
        raise mismatch(
            f"the network takes images of {channels} channels; images have {_COUNTS}, so that no file of it could "
            "be verified"
        )
    return channels


_COUNTS = " or ".join(", ".join(f"{count} ({what})" for count, what in COLOURS.items()).rsplit(", ", 1))


class RequiredWeights(dict[str, torch.Tensor]):
    """The weights of a checkpoint by name; a missing name is a mismatch."""

    def __init__(self, tensors: Tensors, what: str, way_out: str) -> None:
        super().__init__(tensors)
        self.what, self.way_out = what, way_out

    def __missing__(self, name: str) -> torch.Tensor:
        raise mismatch(f"the weights do not fit {self.what}: {name} is missing; {self.way_out}")


def trained_size(facts: Facts, stride: int) -> tuple[int, int] | None:
    """Return the (height, width) of the training, rounded up to multiples of ``stride``, if the checkpoint has it."""
    side = facts.get("imgsz")
    sides = [side, side] if isinstance(side, int) else side
    if not (
        isinstance(sides, Sequence)
        and len(sides) == 2
        and all(isinstance(s, int) and 0 < s <= INPUT_SIZE_LIMIT for s in sides)
    ):
        return None
    height, width = (-(-s // stride) * stride for s in sides)
    return height, width


def class_names(facts: Facts, classes: int) -> tuple[str, ...]:
    """Return the names of the classes in their order; generated names if the checkpoint lacks some."""
    names = facts.get("names")
    ordered = [names.get(i, names.get(str(i))) for i in range(classes)] if isinstance(names, Mapping) else names
    if not isinstance(ordered, Sequence) or len(ordered) != classes or None in ordered:
        return tuple(f"class_{index}" for index in range(classes))
    return tuple(map(str, ordered))


def row_facts(architecture: str, variant: str | None) -> dict[str, str]:
    """Return the matrix's facts about a model, as metadata for the user of its file."""
    row = ARCHITECTURES[architecture]
    facts = {"architecture": row.name, "task": row.task.value, "stride": str(row.stride)}
    return {**facts, "variant": variant} if variant else facts


def fill(
    network: Network, tensors: Tensors, what: str, way_out: str = CHANGED, *, knows_earlier_names: bool = False
) -> Network:
    """Load weights into a network. Batch counters are optional, since frozen layers lack them.

    ``knows_earlier_names`` says that the network itself accepts names of its earlier versions.

    Raises:
        Failure: ``CheckpointMismatch``: the weights are not those of ``what``; the first differences are named.
    """
    own = network.state_dict()
    counters = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    others = [
        *_named("missing", [name for name in own if name not in tensors and name not in counters]),
        *_named("not of this network", [name for name in tensors if name not in own]),
    ]
    differing = [found for name in own if name in tensors and (found := _difference(name, own[name], tensors[name]))]
    failure = mismatch(f"the weights do not fit {what}: {'; '.join([*others, *differing][:4])}; {way_out}")
    if differing or (others and not knows_earlier_names):
        raise failure
    try:
        network.load_state_dict({**counters, **tensors})
    except RuntimeError as error:
        raise failure from error
    return network


def _named(problem: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        shown = ", ".join(clean(name, 100) for name in names[:3])
        yield f"{shown}{more} {'is' if len(names) == 1 else 'are'} {problem}"


def _difference(name: str, own: torch.Tensor, given: torch.Tensor) -> str | None:
    """Return how a tensor of the checkpoint differs from that of the network."""
    if own.shape != given.shape:
        return f"{name} has the shape {tuple(given.shape)} instead of {tuple(own.shape)}"
    if own.is_floating_point() != given.is_floating_point():
        return f"{name} holds numbers of {given.dtype} instead of {own.dtype}"
    return None


def program_shapes(program: Program, asked: tuple[int, int] | None) -> tuple[tuple[int, int], list[tuple[int, ...]]]:
    """Return the input size of a program that takes one image, and the shapes of its outputs.

    Raises:
        Failure: ``CheckpointMismatch``: it has other inputs, or another size than the export.
    """
    inputs = [program.shapes[value] for value in program.inputs]
    shapes = [given.sizes for given in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][0] != 1 or shapes[0][1] not in COLOURS:
        expected = f"expected one image (1, channels, height, width) of {_COUNTS} channels"
        raise unfit(f"it takes inputs of shapes {shapes}, {expected}")
    if inputs[0].dtype is not torch.float32:
        raise unfit(f"it takes {inputs[0].dtype}, expected an image of torch.float32 in 0 to 1 as example input")
    height, width = shapes[0][2:]
    check_asked("input size", asked, (height, width))
    return (height, width), [program.shapes[value].sizes for value in program.outputs]


def program_channels(program: Program) -> int:
    """Return the number of image channels of a program."""
    return program.shapes[program.inputs[0]].sizes[1]


def unfit(problem: str) -> Failure:
    """Return the failure of an archive that does not match the architecture."""
    return mismatch(f"the .pt2 archive does not fit: {problem}")
