"""What the loaders have in common: checks against the request, facts of a checkpoint, and programs as modules."""

import re
from collections.abc import Mapping, Sequence

import torch

from modelexport.matrix import ARCHITECTURES
from modelexport.reasons import Reason
from modelexport.spec import INPUT_SIZE_LIMIT, Model
from modelexport_converter.checkpoint import Facts
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel, Output, Preprocessing

BOXES = Output(
    "boxes",
    ("batch", "coordinate", "anchor"),
    "Centre x, centre y, width, height, divided by the input's width and height.",
)
SCORES = Output(
    "scores", ("batch", "class", "anchor"), "Probability of each class, 0 to 1; suppress overlapping boxes per class."
)


def check(what: str, wanted: object, found: object) -> None:
    """Compare what the export asks for, if anything, with what the checkpoint has.

    Raises:
        Failure: ``CheckpointMismatch``, with both.
    """
    if wanted is not None and wanted != found:
        way_out = "correct spec.model or name the other checkpoint"
        raise mismatch(f"the export asks for {what} {wanted}, the checkpoint has {found}; {way_out}")


def mismatch(message: str) -> Failure:
    """The failure of a checkpoint that is not what the export says."""
    return Failure(Reason.CHECKPOINT_MISMATCH, message)


def fill(network: torch.nn.Module, tensors: Mapping[str, torch.Tensor], name: str) -> None:
    """Load all weights but the constants of the decoding, which are the network's own.

    Raises:
        Failure: ``CheckpointMismatch``, naming the first weights that do not fit the network ``name``.
    """
    constants = {key: value for key, value in network.state_dict().items() if key.startswith("decoder.")}
    try:
        network.load_state_dict({**tensors, **constants})
    except RuntimeError as error:
        first = re.sub(r"\s+", " ", str(error).partition(":")[2])[:300]
        raise mismatch(f"the weights do not fit {name}:{first}; export a changed network as .pt2") from error


def trained_size(facts: Facts, stride: int) -> tuple[int, int] | None:
    """The size (height, width) that the model was trained for, rounded up to what ``stride`` can divide."""
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
    """The names that the checkpoint gives to its classes, or numbers where it gives none that fit."""
    names = facts.get("names")
    ordered = [names.get(i, names.get(str(i))) for i in range(classes)] if isinstance(names, Mapping) else names
    if not isinstance(ordered, Sequence) or len(ordered) != classes or None in ordered:
        return tuple(f"class_{index}" for index in range(classes))
    return tuple(map(str, ordered))


def describe_detector(
    network: torch.nn.Module, model: Model, variant: str | None, size: tuple[int, int], names: tuple[str, ...]
) -> LoadedModel:
    """A network with the outputs ``boxes`` and ``scores``."""
    row = ARCHITECTURES[model.architecture]
    facts = {"architecture": model.architecture, "task": row.task.value, "stride": str(row.stride)}
    return LoadedModel(
        module=network,
        input_size=size,
        outputs=(BOXES, SCORES),
        class_names=names,
        preprocessing=Preprocessing("letterbox"),
        metadata={**facts, "variant": variant} if variant else facts,
    )


def load_detector_program(facts: Facts, program: torch.export.ExportedProgram, model: Model) -> LoadedModel:
    """Use the program of a ``.pt2`` archive as it is; its outputs must be boxes (1, 4, N) and scores (1, classes, N).

    Raises:
        Failure: ``CheckpointMismatch``, with the shapes that were found.
    """
    size, outputs = image_size(program, model), output_shapes(program)
    anchors, classes = (outputs[1][2], outputs[1][1]) if len(outputs) == 2 and len(outputs[1]) == 3 else (0, 0)
    if not classes or outputs != [(1, 4, anchors), (1, classes, anchors)]:
        raise unfit(f"it gives outputs of shapes {outputs}, expected boxes (1, 4, N) and scores (1, classes, N)")
    check("number of classes", model.parameters.num_classes, classes)
    return describe_detector(Program(program), model, model.parameters.variant, size, class_names(facts, classes))


class Program(torch.nn.Module):
    """A program as a module like any other: exporters set it to eval mode, of which a program does not want to hear."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        self.network = program.module(check_guards=False)  # shapes are static and have been checked
        self.training = False
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> "Program":
        """Stay as the program was captured."""
        return self

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the program's outputs, a single one too as a tuple."""
        outputs = self.network(image)
        return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)


def image_size(program: torch.export.ExportedProgram, model: Model) -> tuple[int, int]:
    """The (height, width) of a program's one input.

    Raises:
        Failure: ``CheckpointMismatch``; it takes no single image, or one of another size than the export asks for.
    """
    shapes = [_shape(program, name) for name in program.graph_signature.user_inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][:2] != (1, 3):
        raise unfit(f"it takes inputs of shapes {shapes}, expected one image (1, 3, height, width)")
    height, width = shapes[0][2:]
    check("input size", model.parameters.input_size, (height, width))
    return height, width


def output_shapes(program: torch.export.ExportedProgram) -> list[tuple[int, ...]]:
    """The shapes of a program's outputs; empty for what is no tensor."""
    return [_shape(program, name) for name in program.graph_signature.user_outputs]


def _shape(program: torch.export.ExportedProgram, name: object) -> tuple[int, ...]:
    node = next((node for node in program.graph.nodes if node.name == name), None)
    value = node.meta.get("val") if node is not None else None
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def unfit(problem: str) -> Failure:
    """The failure of a ``.pt2`` archive whose inputs or outputs are others."""
    return mismatch(f"the .pt2 archive does not fit: {problem}")
