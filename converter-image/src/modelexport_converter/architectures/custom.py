"""Any model as a ``.pt2`` archive, which brings its own network."""

import torch

from modelexport.result import Reference
from modelexport.spec import Model
from modelexport_converter.checkpoint import Checkpoint
from modelexport_converter.matching import check_asked, mismatch, program_channels, program_shapes, unfit
from modelexport_converter.model import LoadedModel, Output, Preprocessing
from modelexport_converter.programs.module import ProgramModule
from modelexport_converter.verify import UNKNOWN


def load(checkpoint: Checkpoint, model: Model) -> LoadedModel:
    """Use the program of an archive as it is.

    It must map one float32 image (1, channels, height, width) in 0..1, of the channels in ``model.COLOURS``, to tensors
    of at least one axis, which the files give as float32 under the names ``output_0`` and on. Pictures are letterboxed;
    a normalisation belongs into the program.

    Raises:
        Failure: with reason ``CheckpointMismatch``: it is no archive, or its input or outputs are others.
    """
    if checkpoint.program is None:
        way_out = "save the model with torch.export.save, or name its architecture"
        raise mismatch(f"the checkpoint is no .pt2 archive, and Custom has no network of its own; {way_out}")
    check_asked("number of classes", model.parameters.num_classes, "none that can be told")
    size, shapes = program_shapes(checkpoint.program, model.parameters.input_size)
    if not shapes or not all(shapes):
        raise unfit(f"it gives outputs of shapes {shapes}, expected one tensor or more, of one axis at least each")
    return LoadedModel(
        module=_FloatOutputs(checkpoint.program),
        input_size=size,
        outputs=tuple(_describe(index, shape) for index, shape in enumerate(shapes)),
        class_names=(),
        preprocessing=Preprocessing("letterbox").taking(program_channels(checkpoint.program)),
        metadata={"architecture": model.architecture},
        reference=Reference.PROGRAM,
    )


def _describe(index: int, shape: tuple[int, ...]) -> Output:
    return Output(f"output_{index}", (UNKNOWN,) * len(shape), f"What the program returns at position {index}.")


class _FloatOutputs(ProgramModule):
    """A program whose outputs are float32, as those of every model here."""

    def forward(self, *images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the program's outputs."""
        return tuple(output.float() for output in super().forward(*images))
