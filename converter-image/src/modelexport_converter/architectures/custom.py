"""Loads any model from a ``.pt2`` archive, which brings its own network."""

import torch

from modelexport.api.result import Reference
from modelexport.api.spec import Model
from modelexport_converter.checkpoints.checkpoint import Checkpoint
from modelexport_converter.checkpoints.state_dict import check_asked, mismatch, program_channels, program_shapes, unfit
from modelexport_converter.model import LoadedModel, Output, Preprocessing
from modelexport_converter.programs.module import ProgramModule
from modelexport_converter.verification.agreement import UNKNOWN


def load(checkpoint: Checkpoint, model: Model) -> LoadedModel:
    """Return the program of an archive as a model, unchanged.

    The program must map one float32 image (1, C, H, W) in 0..1, with the channels of ``model.COLOURS``, to tensors of
    at least one axis. Files return them as float32 under the names ``output_0`` and on. Images are letterboxed; a
    normalisation belongs in the program.

    Raises:
        Failure: with reason ``CheckpointMismatch``: the checkpoint is no archive, or its input or outputs do not fit.
    """
    if checkpoint.program is None:
        remedy = "save the model with torch.export.save, or name its architecture"
        raise mismatch(f"the checkpoint is no .pt2 archive, and Custom has no network of its own; {remedy}")
    check_asked("number of classes", model.parameters.num_classes, "none that can be told")
    size, shapes = program_shapes(checkpoint.program, model.parameters.input_size)
    if not shapes or not all(shapes):
        raise unfit(f"it gives outputs of shapes {shapes}, expected one tensor or more, of one axis at least each")
    return LoadedModel(
        module=_FloatOutputs(checkpoint.program),
        input_size=size,
        outputs=tuple(
            Output(f"output_{index}", (UNKNOWN,) * len(shape), f"What the program returns at position {index}.")
            for index, shape in enumerate(shapes)
        ),
        class_names=(),
        preprocessing=Preprocessing("letterbox").taking(program_channels(checkpoint.program)),
        metadata={"architecture": model.architecture},
        reference=Reference.PROGRAM,
    )


class _FloatOutputs(ProgramModule):
    """A program whose outputs are cast to float32, as every model returns them."""

    def forward(self, *images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs of the program as float32, each of any shape."""
        return tuple(output.float() for output in super().forward(*images))
