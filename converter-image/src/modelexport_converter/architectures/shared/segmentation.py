"""Shared by the networks for semantic segmentation: the output, the input size, and ``.pt2`` archives."""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional

from modelexport.api.result import Reference
from modelexport.api.spec import Model, Parameters
from modelexport.matrix.support import ARCHITECTURES
from modelexport_converter.checkpoints.checkpoint import Checkpoint
from modelexport_converter.checkpoints.state_dict import (
    check_asked,
    class_names,
    normalised,
    program_channels,
    program_shapes,
    row_facts,
    trained_size,
    unfit,
)
from modelexport_converter.model import LoadedModel, Output, Preprocessing, SizedModule
from modelexport_converter.programs.module import ProgramModule
from modelexport_converter.verification.output_contract import check_program

PROBABILITIES = Output(
    "probabilities",
    ("batch", "class", "row", "column"),
    "Probability of each class at each pixel of the input, 0 to 1; they add up to 1, but for a single class, which has "
    "its own. The class of a pixel is that of the largest; of a single class, what is above 0.5.",
)


@dataclass(frozen=True)
class RecognisedNetwork:
    """The network found in a checkpoint: its architecture, number of classes and, where there are several, variant."""

    architecture: str
    classes: int
    variant: str | None = None


class Probabilities(SizedModule):
    """Wraps a network that returns logits (1, classes, h, w): resizes them to the image, and returns probabilities."""

    def __init__(self, network: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """(1, C, H, W) to the one output (1, classes, H, W)."""
        logits = self.network(image)
        size = image.shape[2:] if self.any_size else self.size
        if tuple(logits.shape[2:]) != tuple(size):
            logits = functional.interpolate(logits, size, mode="bilinear", align_corners=False)
        return (logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1),)


def check_recognised(found: RecognisedNetwork, model: Model) -> None:
    """Compare the requested network with the recognised one.

    Raises:
        Failure: with reason ``CheckpointMismatch``, naming both.
    """
    check_asked("architecture", model.architecture, found.architecture)
    check_asked("variant", model.parameters.variant, found.variant)
    check_asked("number of classes", model.parameters.num_classes, found.classes)


def assumed_normalisation(preprocessing: Preprocessing, parameters: Parameters) -> tuple[str, ...]:
    """Return the assumptions about pixel values, mean and std that an export does not state, as short phrases."""
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (preprocessing.mean, preprocessing.std))
    return (
        f"pixels {preprocessing.colours}, 0 to 1",
        *(() if parameters.image_mean else (f"image_mean {mean}",)),
        *(() if parameters.image_std else (f"image_std {std}",)),
    )


def describe_segmenter(
    network: nn.Module, found: RecognisedNetwork, checkpoint: Checkpoint, model: Model, preprocessing: Preprocessing
) -> LoadedModel:
    """Return a network that outputs logits as a model.

    The input size is the one of the export, else of the checkpoint, else of the support matrix.
    """
    row = ARCHITECTURES[model.architecture]
    size = model.parameters.input_size or trained_size(checkpoint.facts, row.stride) or row.default_input_size
    module = Probabilities(network, size).eval()  # exporters restore the mode that they find, dropout with it
    return _loaded_model(module, size, found, checkpoint, normalised(preprocessing, model.parameters))


def load_segmenter_program(checkpoint: Checkpoint, model: Model, preprocessing: Preprocessing) -> LoadedModel:
    """Return the program of a ``.pt2`` archive as a model; it must map an image to probabilities (1, classes, H, W).

    Raises:
        Failure: with reason ``CheckpointMismatch``: its input or output has another shape.
    """
    assert checkpoint.program is not None
    size, outputs = program_shapes(checkpoint.program, model.parameters.input_size)
    if len(outputs) != 1 or len(outputs[0]) != 4 or outputs[0][2:] != size:
        raise unfit(f"it gives outputs of shapes {outputs}, expected one of (1, classes, {size[0]}, {size[1]})")
    found = RecognisedNetwork(model.architecture, outputs[0][1], model.parameters.variant)
    check_recognised(found, model)
    channels = program_channels(checkpoint.program)
    images = normalised(preprocessing.taking(channels), model.parameters)
    is_stated = model.parameters.image_mean and model.parameters.image_std
    if channels != preprocessing.channels and any(preprocessing.mean) and not is_stated:
        problem = f"it takes an image of {channels} channels ({images.colours})"
        raise unfit(f"{problem}, and {model.architecture} normalises RGB; set imageMean and imageStd for each of them")
    described = _loaded_model(ProgramModule(checkpoint.program), size, found, checkpoint, images)
    return check_program(replace(described, reference=Reference.PROGRAM))


def _loaded_model(
    module: nn.Module,
    size: tuple[int, int],
    found: RecognisedNetwork,
    checkpoint: Checkpoint,
    preprocessing: Preprocessing,
) -> LoadedModel:
    return LoadedModel(
        module=module,
        input_size=size,
        outputs=(PROBABILITIES,),
        class_names=class_names(checkpoint.facts, found.classes),
        preprocessing=preprocessing,
        metadata=row_facts(found.architecture, found.variant),
    )
