"""What every network has in common that gives each pixel a class: its output, its sizes, and archives of it."""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional

from modelexport.matrix import ARCHITECTURES
from modelexport.result import Reference
from modelexport.spec import Model, Parameters
from modelexport_converter.checkpoint import Checkpoint
from modelexport_converter.matching import (
    check_asked,
    class_names,
    normalised,
    program_channels,
    program_shapes,
    row_facts,
    trained_size,
    unfit,
)
from modelexport_converter.model import LoadedModel, Output, Preprocessing
from modelexport_converter.programs.module import ProgramModule
from modelexport_converter.promises import check_program

PROBABILITIES = Output(
    "probabilities",
    ("batch", "class", "row", "column"),
    "Probability of each class at each pixel of the input, 0 to 1; they add up to 1, but for a single class, which has "
    "its own. The class of a pixel is that of the largest; of a single class, what is above 0.5.",
)


@dataclass(frozen=True)
class Found:
    """What a checkpoint turned out to be: its architecture, its variant where there are several, how many classes."""

    architecture: str
    classes: int
    variant: str | None = None


class Probabilities(nn.Module):
    """A network that gives logits (1, classes, h, w), brought to the size of the picture and to probabilities."""

    def __init__(self, network: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """(1, channels, height, width) to the one output (1, classes, height, width)."""
        logits = self.network(image)
        if tuple(logits.shape[2:]) != self.size:
            logits = functional.interpolate(logits, self.size, mode="bilinear", align_corners=False)
        return (logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1),)


def check_found(found: Found, model: Model) -> None:
    """Compare what an export asks with what its checkpoint is.

    Raises:
        Failure: ``CheckpointMismatch``, naming both.
    """
    check_asked("architecture", model.architecture, found.architecture)
    check_asked("variant", model.parameters.variant, found.variant)
    check_asked("number of classes", model.parameters.num_classes, found.classes)


def assumed_normalisation(preprocessing: Preprocessing, parameters: Parameters) -> tuple[str, ...]:
    """How pictures come to a network, as far as an export does not say, in a phrase or two."""
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (preprocessing.mean, preprocessing.std))
    return (
        f"pixels {preprocessing.colours}, 0 to 1",
        *(() if parameters.image_mean else (f"image_mean {mean}",)),
        *(() if parameters.image_std else (f"image_std {std}",)),
    )


def describe(
    network: nn.Module, found: Found, checkpoint: Checkpoint, model: Model, preprocessing: Preprocessing
) -> LoadedModel:
    """The model of a network that gives logits; its size is what the export, the checkpoint or the matrix says."""
    row = ARCHITECTURES[model.architecture]
    size = model.parameters.input_size or trained_size(checkpoint.facts, row.stride) or row.default_input_size
    module = Probabilities(network, size).eval()  # exporters restore the mode that they find, dropout with it
    return _describe(module, size, found, checkpoint, normalised(preprocessing, model.parameters))


def load_program(checkpoint: Checkpoint, model: Model, preprocessing: Preprocessing) -> LoadedModel:
    """The model of a ``.pt2`` archive, which must map one image to probabilities (1, classes, height, width).

    Raises:
        Failure: ``CheckpointMismatch``: its input or its output is another.
    """
    assert checkpoint.program is not None
    size, outputs = program_shapes(checkpoint.program, model.parameters.input_size)
    if len(outputs) != 1 or len(outputs[0]) != 4 or outputs[0][2:] != size:
        raise unfit(f"it gives outputs of shapes {outputs}, expected one of (1, classes, {size[0]}, {size[1]})")
    found = Found(model.architecture, outputs[0][1], model.parameters.variant)
    check_found(found, model)
    channels = program_channels(checkpoint.program)
    pictures = normalised(preprocessing.taking(channels), model.parameters)
    is_stated = model.parameters.image_mean and model.parameters.image_std
    if channels != preprocessing.channels and any(preprocessing.mean) and not is_stated:
        problem = f"it takes a picture of {channels} channels ({pictures.colours})"
        raise unfit(f"{problem}, and {model.architecture} normalises RGB; set imageMean and imageStd for each of them")
    described = _describe(ProgramModule(checkpoint.program), size, found, checkpoint, pictures)
    return check_program(replace(described, reference=Reference.PROGRAM))


def _describe(
    module: nn.Module, size: tuple[int, int], found: Found, checkpoint: Checkpoint, preprocessing: Preprocessing
) -> LoadedModel:
    return LoadedModel(
        module=module,
        input_size=size,
        outputs=(PROBABILITIES,),
        class_names=class_names(checkpoint.facts, found.classes),
        preprocessing=preprocessing,
        metadata=row_facts(found.architecture, found.variant),
    )
