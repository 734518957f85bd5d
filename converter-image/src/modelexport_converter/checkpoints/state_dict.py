"""Brings together what an export asks and what its checkpoint holds; every architecture reads checkpoints by it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from modelexport.matrix import ARCHITECTURES
from modelexport.reasons import Reason
from modelexport.spec import INPUT_SIZE_LIMIT, Parameters
from modelexport.text import clean
from modelexport_converter.checkpoint import Facts
from modelexport_converter.checkpoints.choice import AVERAGED
from modelexport_converter.failures import Failure
from modelexport_converter.model import COLOURS, Preprocessing
from modelexport_converter.programs.graph import Program

Tensors = Mapping[str, torch.Tensor]
CHANGED = "save a changed network with torch.export.save as .pt2, and export that with the architecture Custom"
"""The way out for weights of a network that is not the one of its name."""
Network = TypeVar("Network", bound=torch.nn.Module)


def check_asked(what: str, wanted: object, found: object) -> None:
    """Refuse a checkpoint that has something else than the export asks for; ``None`` asks for nothing.

    Raises:
        Failure: ``CheckpointMismatch``, naming both.
    """
    if wanted is not None and wanted != found:
        way_out = "correct spec.model or name the other checkpoint"
        raise mismatch(f"the export asks for {what} {wanted}, the checkpoint has {found}; {way_out}")


def mismatch(message: str) -> Failure:
    """The failure of a checkpoint that is not what the export says."""
    return Failure(Reason.CHECKPOINT_MISMATCH, message)


def own_weights(tensors: Tensors, *marks: str) -> Tensors:
    """Take off what is before every name of a network that is a part of another module, as in Lightning: ``model.``.

    The network is told by ``marks``, of which each of its kind has at least one. What has another prefix is left out
    and never read, e.g. the weights of a loss. Names are left as they are where a mark is among them. Of two parts that
    have it, the averaged one is the network.

    Raises:
        Failure: ``CheckpointMismatch``: two parts have it, which are named.
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
    """Refuse what an export says of a network that a ``.pt2`` archive brings itself.

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
"""Parameters of networks that are taken from archives too, and their fields."""


def normalised(preprocessing: Preprocessing, parameters: Parameters) -> Preprocessing:
    """A preprocessing with the mean and the deviation that an export gives.

    Raises:
        Failure: ``CheckpointMismatch``: pictures have another number of channels.
    """
    for name, values in (("imageMean", parameters.image_mean), ("imageStd", parameters.image_std)):
        if values is not None and len(values) != preprocessing.channels:
            pictures = f"pictures have {preprocessing.channels} ({preprocessing.colours})"
            raise mismatch(f"{name} is given for {len(values)} channels, and the {pictures}; give a number for each")
    return replace(
        preprocessing, mean=parameters.image_mean or preprocessing.mean, std=parameters.image_std or preprocessing.std
    )


def check_channels(channels: int) -> int:
    """Return how many channels pictures have that a network takes.

    Raises:
        Failure: ``CheckpointMismatch``: no pictures have so many.
    """
    if channels not in COLOURS:
        raise mismatch(
            f"the network takes pictures of {channels} channels; pictures have {_COUNTS}, so that no file of it could "
            "be verified"
        )
    return channels


_COUNTS = " or ".join(", ".join(f"{count} ({what})" for count, what in COLOURS.items()).rsplit(", ", 1))


class Weights(dict[str, torch.Tensor]):
    """The weights of a checkpoint by their names; one that is asked for and is not there is a mismatch."""

    def __init__(self, tensors: Tensors, what: str, way_out: str) -> None:
        super().__init__(tensors)
        self.what, self.way_out = what, way_out

    def __missing__(self, name: str) -> torch.Tensor:
        raise mismatch(f"the weights do not fit {self.what}: {name} is missing; {self.way_out}")


def trained_size(facts: Facts, stride: int) -> tuple[int, int] | None:
    """The (height, width) that a model was trained for, rounded up to multiples of ``stride``, if it is told."""
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
    """The names of the classes in their order; made up where the checkpoint does not tell them all."""
    names = facts.get("names")
    ordered = [names.get(i, names.get(str(i))) for i in range(classes)] if isinstance(names, Mapping) else names
    if not isinstance(ordered, Sequence) or len(ordered) != classes or None in ordered:
        return tuple(f"class_{index}" for index in range(classes))
    return tuple(map(str, ordered))


def row_facts(architecture: str, variant: str | None) -> dict[str, str]:
    """What the matrix knows of a model, as metadata for the user of its file."""
    row = ARCHITECTURES[architecture]
    facts = {"architecture": row.name, "task": row.task.value, "stride": str(row.stride)}
    return {**facts, "variant": variant} if variant else facts


def fill(
    network: Network, tensors: Tensors, what: str, way_out: str = CHANGED, *, knows_earlier_names: bool = False
) -> Network:
    """Load weights into a network; counters of batches, which frozen layers do not have, are not asked for.

    ``knows_earlier_names`` says that the network itself takes names that it had in earlier versions.

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
    """What a tensor of the checkpoint has otherwise than the network."""
    if own.shape != given.shape:
        return f"{name} has the shape {tuple(given.shape)} instead of {tuple(own.shape)}"
    if own.is_floating_point() != given.is_floating_point():
        return f"{name} holds numbers of {given.dtype} instead of {own.dtype}"
    return None


def program_shapes(program: Program, asked: tuple[int, int] | None) -> tuple[tuple[int, int], list[tuple[int, ...]]]:
    """Return the input size of a program that takes one picture, and the shapes of its outputs.

    Raises:
        Failure: ``CheckpointMismatch``: it takes something else, or another size than the export asks for.
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
    """How many channels the picture has that a program takes."""
    return program.shapes[program.inputs[0]].sizes[1]


def unfit(problem: str) -> Failure:
    """The failure of an archive that is not of the architecture."""
    return mismatch(f"the .pt2 archive does not fit: {problem}")
