"""YOLOv8 for detection, segmentation, classification and keypoints."""

import re
from collections.abc import Mapping, Sequence

import torch

from modelexport.matrix import ARCHITECTURES, Task
from modelexport.reasons import Reason
from modelexport.spec import INPUT_SIZE_LIMIT, Model
from modelexport_converter.architectures.yolov8_decoder import STRIDES
from modelexport_converter.architectures.yolov8_network import MASKS, SCALES, Classifier, Network, fuse
from modelexport_converter.checkpoint import EPSILON, Checkpoint, Facts
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel, Output, Preprocessing

Tensors = Mapping[str, torch.Tensor]

_BOXES = Output(
    "boxes",
    ("batch", "coordinate", "anchor"),
    "Centre x, centre y, width, height, divided by the input's width and height.",
)
_SCORES = Output(
    "scores", ("batch", "class", "anchor"), "Probability of each class, 0 to 1; suppress overlapping boxes per class."
)
_COEFFICIENTS = Output(
    "mask_coefficients",
    ("batch", "mask", "anchor"),
    "Mask of an anchor: the sum of coefficients times prototypes, above 0, cut at its box.",
)
_PROTOTYPES = Output(
    "prototypes", ("batch", "mask", "row", "column"), "Masks to be combined, at a quarter of the input's size."
)
_KEYPOINTS = Output(
    "keypoints",
    ("batch", "keypoint", "component", "anchor"),
    "x and y divided by the input's width and height and, where there are three components, visibility from 0 to 1.",
)
_PROBABILITIES = Output("probabilities", ("batch", "class"), "Probability of each class; they add up to 1.")

_OUTPUTS = {
    Task.DETECTION: (_BOXES, _SCORES),
    Task.SEGMENTATION: (_BOXES, _SCORES, _COEFFICIENTS, _PROTOTYPES),
    Task.KEYPOINTS: (_BOXES, _SCORES, _KEYPOINTS),
    Task.CLASSIFICATION: (_PROBABILITIES,),
}
_STEM, _CLASSES, _CLASSIFIER = "model.0.conv.weight", "model.22.cv3.0.2.weight", "model.9.linear.weight"
_EXTRAS = "model.22.cv4.0.2.weight"


def load(checkpoint: Checkpoint, model: Model) -> LoadedModel:
    """Build the network of a checkpoint, ready for capture.

    What ``model.parameters`` gives is checked against the checkpoint; what it omits is read from it. A ``.pt2`` archive
    is used as it is: it must map one image (1, 3, height, width) to the outputs of the architecture, separate and in
    their order.

    Raises:
        Failure: with reason ``CheckpointMismatch``, naming what was asked and what was found.
    """
    if checkpoint.program is not None:
        return _load_program(checkpoint, checkpoint.program, model)
    tensors = checkpoint.tensors
    _check("architecture", model.architecture, _architecture_of(tensors))
    variant = _variant_of(tensors)
    _check("variant", model.parameters.variant, variant)
    classes = len(tensors[_CLASSIFIER if _task(model) is Task.CLASSIFICATION else _CLASSES])
    _check("number of classes", model.parameters.num_classes, classes)
    size = (
        model.parameters.input_size
        or _trained_size(checkpoint.facts)
        or ARCHITECTURES[model.architecture].default_input_size
    )
    network = _build(checkpoint, _task(model), variant, classes, size)
    return _describe(network, model, variant, size, _class_names(checkpoint.facts, classes))


def _task(model: Model) -> Task:
    return ARCHITECTURES[model.architecture].task


def _check(what: str, wanted: object, found: object) -> None:
    if wanted is not None and wanted != found:
        way_out = "correct spec.model or name the other checkpoint"
        message = f"the export asks for {what} {wanted}, the checkpoint has {found}; {way_out}"
        raise Failure(Reason.CHECKPOINT_MISMATCH, message)


def _architecture_of(tensors: Tensors) -> str:
    """Tell the architecture by the names and shapes of the weights."""
    if _STEM not in tensors:
        return "none of ultralytics' networks"
    if _CLASSIFIER in tensors:
        return "YOLOv8-CLS"
    if _CLASSES not in tensors or "model.22.cv3.0.0.conv.weight" not in tensors:
        return "another ultralytics network (its last layer is not that of YOLOv8)"
    if "model.22.proto.cv1.conv.weight" in tensors:
        return "YOLOv8-SEG"
    if _EXTRAS not in tensors:
        return "YOLOv8"
    return "YOLOv8-OBB" if len(tensors[_EXTRAS]) == 1 else "YOLOv8-Pose"


def _variant_of(tensors: Tensors) -> str:
    """Tell the variant by the width of the first layer, which differs between all of them."""
    width = len(tensors[_STEM])
    for variant, (_, factor, _) in SCALES.items():
        if width == 64 * factor:
            return variant
    message = f"the first layer has {width} channels, which no variant of YOLOv8 has; export a changed network as .pt2"
    raise Failure(Reason.CHECKPOINT_MISMATCH, message)


def _trained_size(facts: Facts) -> tuple[int, int] | None:
    """The size that the model was trained for, rounded up to what its strides can divide."""
    side, most = facts.get("imgsz"), STRIDES[-1]
    sides = [side, side] if isinstance(side, int) else side
    if not (
        isinstance(sides, Sequence)
        and len(sides) == 2
        and all(isinstance(s, int) and 0 < s <= INPUT_SIZE_LIMIT for s in sides)
    ):
        return None
    height, width = (-(-s // most) * most for s in sides)
    return height, width


def _class_names(facts: Facts, classes: int) -> tuple[str, ...]:
    names = facts.get("names")
    ordered = [names.get(i, names.get(str(i))) for i in range(classes)] if isinstance(names, Mapping) else names
    if not isinstance(ordered, Sequence) or len(ordered) != classes or None in ordered:
        return tuple(f"class_{index}" for index in range(classes))
    return tuple(map(str, ordered))


def _build(checkpoint: Checkpoint, task: Task, variant: str, classes: int, size: tuple[int, int]) -> torch.nn.Module:
    network: torch.nn.Module
    if task is Task.CLASSIFICATION:
        network = Classifier(variant, classes)
    else:
        keypoints = _keypoint_shape(checkpoint) if task is Task.KEYPOINTS else None
        network = Network(variant, classes, size, task is Task.SEGMENTATION, keypoints)
    # The box distribution's bins are constants that ultralytics stores as a weight.
    tensors = {name: value for name, value in checkpoint.tensors.items() if name != "model.22.dfl.conv.weight"}
    constants = {name: value for name, value in network.state_dict().items() if name.startswith("decoder.")}
    try:
        network.load_state_dict({**tensors, **constants})
    except RuntimeError as error:
        first = re.sub(r"\s+", " ", str(error).partition(":")[2])[:300]
        message = (
            f"the weights do not fit YOLOv8 {variant} with {classes} classes:{first}; export a changed network as .pt2"
        )
        raise Failure(Reason.CHECKPOINT_MISMATCH, message) from error
    return fuse(network, _epsilon(checkpoint.facts, task))


def _epsilon(facts: Facts, task: Task) -> float:
    """Of batch normalisation; where the checkpoint does not say, ultralytics' number: torch's own for classifiers."""
    found = facts.get(EPSILON)
    return found if isinstance(found, float) and found > 0 else 1e-5 if task is Task.CLASSIFICATION else 1e-3


def _keypoint_shape(checkpoint: Checkpoint) -> tuple[int, int]:
    """Keypoints and components; where the checkpoint does not say, three components if that divides."""
    channels, shape = len(checkpoint.tensors[_EXTRAS]), checkpoint.facts.get("kpt_shape")
    if isinstance(shape, Sequence) and len(shape) == 2 and shape[0] * shape[1] == channels:
        return shape[0], shape[1]
    components = 3 if channels % 3 == 0 else 2
    return channels // components, components


def _describe(
    network: torch.nn.Module, model: Model, variant: str | None, size: tuple[int, int], names: tuple[str, ...]
) -> LoadedModel:
    classifier = _task(model) is Task.CLASSIFICATION
    facts = {"architecture": model.architecture, "task": _task(model).value, "stride": str(STRIDES[-1])}
    return LoadedModel(
        module=network,
        input_size=size,
        outputs=_OUTPUTS[_task(model)],
        class_names=names,
        preprocessing=Preprocessing("centre_crop" if classifier else "letterbox"),
        metadata={**facts, "variant": variant} if variant else facts,
    )


def _load_program(checkpoint: Checkpoint, program: torch.export.ExportedProgram, model: Model) -> LoadedModel:
    shapes = [_shape(program, name) for name in program.graph_signature.user_inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][:2] != (1, 3):
        raise _unfit(f"it takes inputs of shapes {shapes}, expected one image (1, 3, height, width)")
    size = shapes[0][2:]
    _check("input size", model.parameters.input_size, size)
    outputs = [_shape(program, name) for name in program.graph_signature.user_outputs]
    classes = _check_outputs(outputs, _task(model), size)
    _check("number of classes", model.parameters.num_classes, classes)
    return _describe(_Program(program), model, model.parameters.variant, size, _class_names(checkpoint.facts, classes))


class _Program(torch.nn.Module):
    """A program as a module like any other: exporters set it to eval mode, of which a program does not want to hear."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        self.network = program.module(check_guards=False)  # shapes are static and have been checked
        self.training = False
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> "_Program":
        """Stay as the program was captured."""
        return self

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the program's outputs, a single one too as a tuple."""
        outputs = self.network(image)
        return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)


def _shape(program: torch.export.ExportedProgram, name: object) -> tuple[int, ...]:
    node = next((node for node in program.graph.nodes if node.name == name), None)
    value = node.meta.get("val") if node is not None else None
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def _check_outputs(found: list[tuple[int, ...]], task: Task, size: tuple[int, int]) -> int:
    """Check an archive's output shapes against the task's and return the number of classes."""
    anchors = sum((size[0] // stride) * (size[1] // stride) for stride in STRIDES)
    classes = (
        found[0 if task is Task.CLASSIFICATION else 1][1] if len(found) == len(_OUTPUTS[task]) and all(found) else 0
    )
    detected: list[tuple[int, ...]] = [(1, 4, anchors), (1, classes, anchors)]
    expected: dict[Task, list[tuple[int, ...]]] = {
        Task.CLASSIFICATION: [(1, classes)],
        Task.DETECTION: detected,
        Task.SEGMENTATION: [*detected, (1, MASKS, anchors), (1, MASKS, size[0] // 4, size[1] // 4)],
        Task.KEYPOINTS: [*detected, found[-1] if len(found[-1]) == 4 and found[-1][::3] == (1, anchors) else ()],
    }
    if not classes or found != expected[task]:
        names = ", ".join(f"{output.name} ({', '.join(output.axes)})" for output in _OUTPUTS[task])
        raise _unfit(f"it gives outputs of shapes {found}, expected with {anchors} anchors: {names}")
    return classes


def _unfit(problem: str) -> Failure:
    return Failure(Reason.CHECKPOINT_MISMATCH, f"the .pt2 archive does not fit: {problem}")
