"""Shared by the detectors that return boxes and scores for every anchor."""

from dataclasses import replace

import torch

from modelexport.api.result import Reference
from modelexport.api.spec import Model
from modelexport_converter.checkpoints.checkpoint import Facts
from modelexport_converter.checkpoints.state_dict import (
    check_asked,
    class_names,
    program_channels,
    program_shapes,
    row_facts,
    unfit,
)
from modelexport_converter.model import LoadedModel, Output, Preprocessing
from modelexport_converter.programs.graph import Program
from modelexport_converter.programs.module import ProgramModule
from modelexport_converter.verification.output_contract import check_program

BOXES = Output(
    "boxes",
    ("batch", "coordinate", "anchor"),
    "Centre x, centre y, width, height, divided by the input's width and height.",
    keep_float32=True,
)
SCORES = Output(
    "scores", ("batch", "class", "anchor"), "Probability of each class, 0 to 1; suppress overlapping boxes per class."
)


def describe_detector(
    network: torch.nn.Module, model: Model, variant: str | None, size: tuple[int, int], names: tuple[str, ...]
) -> LoadedModel:
    """Return a network (1, C, H, W) -> boxes (1, 4, N), scores (1, classes, N) as a model."""
    return LoadedModel(
        module=network,
        input_size=size,
        outputs=(BOXES, SCORES),
        class_names=names,
        preprocessing=Preprocessing("letterbox"),
        metadata=row_facts(model.architecture, variant),
    )


def load_detector_program(facts: Facts, program: Program, model: Model) -> LoadedModel:
    """Return the program of a ``.pt2`` archive as a model, unchanged.

    Its outputs must be boxes (1, 4, N) and scores (1, classes, N).

    Raises:
        Failure: with reason ``CheckpointMismatch``, naming the shapes found.
    """
    size, outputs = program_shapes(program, model.parameters.input_size)
    anchors, classes = (outputs[1][2], outputs[1][1]) if len(outputs) == 2 and len(outputs[1]) == 3 else (0, 0)
    if not classes or outputs != [(1, 4, anchors), (1, classes, anchors)]:
        raise unfit(f"it gives outputs of shapes {outputs}, expected boxes (1, 4, N) and scores (1, classes, N)")
    check_asked("number of classes", model.parameters.num_classes, classes)
    names = class_names(facts, classes)
    described = describe_detector(ProgramModule(program), model, model.parameters.variant, size, names)
    preprocessing = described.preprocessing.taking(program_channels(program))
    return check_program(replace(described, preprocessing=preprocessing, reference=Reference.PROGRAM))
