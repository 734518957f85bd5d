"""Loads YOLOv8, YOLO11 and YOLO26 for detection, segmentation, classification, keypoints and oriented boxes."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from modelexport.api.result import Reference
from modelexport.api.spec import Model
from modelexport.matrix.support import ARCHITECTURES, Task
from modelexport_converter.architectures.shared.detection import BOXES, SCORES
from modelexport_converter.architectures.shared.yolo_layers import decoder_buffers, fuse, set_activation
from modelexport_converter.architectures.yolov8.decoder import STRIDES
from modelexport_converter.architectures.yolov8.families import ONE_TO_ONE, ULTRALYTICS_REMEDY, YOLO11, YOLO26
from modelexport_converter.architectures.yolov8.network import MASKS, SCALES, Classifier, Network
from modelexport_converter.architectures.yolov8.tree import LayerTree, build
from modelexport_converter.architectures.yolov8.yolo11_blocks import VARIANTS
from modelexport_converter.checkpoints.checkpoint import Checkpoint, Facts
from modelexport_converter.checkpoints.state_dict import (
    Tensors,
    check_asked,
    check_channels,
    class_names,
    fill,
    mismatch,
    own_weights,
    program_channels,
    program_shapes,
    row_facts,
    trained_size,
    unfit,
)
from modelexport_converter.model import LoadedModel, Output, Preprocessing
from modelexport_converter.programs.graph import Program
from modelexport_converter.programs.module import ProgramModule
from modelexport_converter.verification.output_contract import check_program

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
    keep_float32=True,
)
_ROTATED_BOXES = Output(
    "boxes",
    ("batch", "coordinate", "anchor"),
    "Centre x, centre y, width, height in pixels of the input, before the box is turned by its angle about its centre.",
    keep_float32=True,
)
_ANGLES = Output(
    "angles",
    ("batch", "angle", "anchor"),
    "Angle of each box in radians, from the x axis to its width, clockwise as y points down. A box turned by pi is the "
    "same, and so is one turned by pi / 2 with width and height exchanged.",
    keep_float32=True,
)
_ONE_TO_ONE_SCORES = replace(
    SCORES, meaning="Probability of each class, 0 to 1; one anchor answers for an object: no suppression is needed."
)
_PROBABILITIES = Output("probabilities", ("batch", "class"), "Probability of each class; they add up to 1.")

_OUTPUTS = {
    Task.DETECTION: (BOXES, SCORES),
    Task.INSTANCE_SEGMENTATION: (BOXES, SCORES, _COEFFICIENTS, _PROTOTYPES),
    Task.KEYPOINTS: (BOXES, SCORES, _KEYPOINTS),
    Task.ORIENTED_DETECTION: (_ROTATED_BOXES, SCORES, _ANGLES),
    Task.CLASSIFICATION: (_PROBABILITIES,),
}
_SUFFIXES = {
    Task.DETECTION: "",
    Task.INSTANCE_SEGMENTATION: "-SEG",
    Task.KEYPOINTS: "-Pose",
    Task.ORIENTED_DETECTION: "-OBB",
    Task.CLASSIFICATION: "-CLS",
}
"""What follows the family in the name of an architecture."""
_ACTIVATIONS = "torch.nn.modules.activation"
_STEM, _CLASSES, _CLASSIFIER = "model.0.conv.weight", "model.22.cv3.0.2.weight", "model.9.linear.weight"
_EXTRAS = "model.22.cv4.0.2.weight"
_ATTENTION, _CLASSIFIER_ATTENTION = (f"model.{layer}.m.0.attn.qkv.conv.weight" for layer in (10, 9))
_YOLO11_CLASSIFIER, _YOLO11_EXTRAS = "model.10.linear.weight", "model.23.cv4.0.2.weight"
_YOLO11_HEADS = {
    frozenset({"cv2", "cv3", "dfl"}): Task.DETECTION,
    frozenset({"cv2", "cv3", "dfl", "cv4", "proto"}): Task.INSTANCE_SEGMENTATION,
    frozenset({"cv2", "cv3", "dfl", "cv4"}): Task.KEYPOINTS,
}
"""The tasks of YOLO11 by the parts of its last layer, which the weights name."""
_CLASSIFIERS_ALIKE = {family + _SUFFIXES[Task.CLASSIFICATION] for family in (YOLO11, YOLO26)}
"""Architectures with the same layers, so that weights alone tell neither from the other."""
_YOLO26_HEADS = {
    frozenset({"cv2", "cv3"}): Task.DETECTION,
    frozenset({"cv2", "cv3", "cv4", "proto"}): Task.INSTANCE_SEGMENTATION,
    frozenset({"cv2", "cv3", "cv4", "cv4_kpts"}): Task.KEYPOINTS,
    frozenset({"cv2", "cv3", "cv4"}): Task.ORIENTED_DETECTION,
}
"""The tasks of YOLO26 likewise, where each part of the one-to-one head counts as that of the other head."""
_FOR_LOSS = {"cv4_sigma", "flow_model"}
"""Parts of its head for keypoints that only the loss reads."""
_FOLDED, _NORMALISATION = "model.0.conv.bias", "model.0.bn.weight"


def load(checkpoint: Checkpoint, model: Model) -> LoadedModel:
    """Build the network of a checkpoint, ready for export.

    Values in ``model.parameters`` are checked against the checkpoint; omitted ones are read from it. A pickled network
    is built layer by layer from its pickle. Weights alone fill the published network. A ``.pt2`` archive is used
    unchanged: it must map one image (1, C, H, W) to the outputs of the architecture, separate and in their order.

    Raises:
        Failure: with reason ``CheckpointMismatch``, naming the requested and the found value.
    """
    if checkpoint.program is not None:
        return _load_program(checkpoint, checkpoint.program, model)
    if checkpoint.module is not None:
        return _load_tree(checkpoint, LayerTree.read(checkpoint.module), model)
    return _rebuild(checkpoint, model)


def _load_tree(checkpoint: Checkpoint, tree: LayerTree, model: Model) -> LoadedModel:
    """Build the network that a pickled module describes."""
    found = tree.family + _SUFFIXES[tree.task]
    if found not in ARCHITECTURES:
        raise mismatch(f"this is {found}; {ULTRALYTICS_REMEDY}")
    check_asked("architecture", model.architecture, found)
    variant = _variant_of_tree(tree)
    check_asked("variant", model.parameters.variant, variant or "none of them")
    check_asked("number of classes", model.parameters.num_classes, tree.classes)
    channels = check_channels(tree.channels)
    stride = math.ceil(max(tree.strides, default=STRIDES[-1]))
    size = _size(checkpoint.facts, model, stride)
    network = build(tree, size)
    acts = {type(module).__name__ for module in network.modules() if type(module).__module__ == _ACTIVATIONS}
    check_asked("activation", model.parameters.activation, " and ".join(sorted(acts - {"Softmax"})) or "none")
    described = _describe(network, model, variant, size, class_names(checkpoint.facts, tree.classes))
    return replace(
        described,
        preprocessing=described.preprocessing.taking(channels),
        metadata={**described.metadata, "stride": str(stride)},
        reference=Reference.CHECKPOINT,
    )


def _rebuild(checkpoint: Checkpoint, model: Model) -> LoadedModel:
    """Build the published network for a checkpoint that holds weights only."""
    tensors = own_weights(checkpoint.tensors, _STEM)
    checkpoint = replace(checkpoint, tensors=tensors)
    if (found := _architecture_of(tensors)) not in ARCHITECTURES:
        raise mismatch(f"the weights are those of {found}; {ULTRALYTICS_REMEDY}")
    if {found, model.architecture} != _CLASSIFIERS_ALIKE:
        check_asked("architecture", model.architecture, found)
    if found.startswith((YOLO11, YOLO26)):
        problem = f"the weights alone do not tell the layers of {model.architecture}"
        raise mismatch(f"{problem}; give ultralytics' .pt, which does")
    variant = _variant_of(width := len(tensors[_STEM]))
    if variant is None:
        problem = f"the first layer has {width} channels, which no variant of YOLOv8 has"
        raise mismatch(f"{problem}; give ultralytics' .pt, which says what the other layers are")
    check_asked("variant", model.parameters.variant, variant)
    if _FOLDED in tensors and _NORMALISATION not in tensors:
        raise mismatch(
            "the weights are those of a fused network, whose normalisation model.fuse() has folded into its "
            "convolutions; give ultralytics' .pt, fused or not, or the state_dict of the model before it was fused"
        )
    task = _task(model)
    classes = len(tensors[_CLASSIFIER if task is Task.CLASSIFICATION else _CLASSES])
    check_asked("number of classes", model.parameters.num_classes, classes)
    size = _size(checkpoint.facts, model, STRIDES[-1])
    network = _build(checkpoint, task, variant, classes, size)
    set_activation(network, model.parameters.activation)
    described = _describe(network, model, variant, size, class_names(checkpoint.facts, classes))
    images = described.preprocessing.taking(tensors[_STEM].shape[1])
    assumptions = _assumptions(model, images)
    return replace(described, preprocessing=images, reference=Reference.REBUILT, assumptions=assumptions)


def _size(facts: Facts, model: Model, stride: int) -> tuple[int, int]:
    """Return the input size of the export, else of the training, else of the support matrix."""
    default = ARCHITECTURES[model.architecture].default_input_size
    return model.parameters.input_size or trained_size(facts, stride) or default


def _task(model: Model) -> Task:
    return ARCHITECTURES[model.architecture].task


def _architecture_of(tensors: Tensors) -> str:
    """Recognise the architecture by the names and shapes of the weights."""
    if _STEM not in tensors:
        return "no network of ultralytics"
    if _CLASSIFIER in tensors:
        return "YOLOv8-CLS"
    if _CLASSES not in tensors or "model.22.cv3.0.0.conv.weight" not in tensors:
        return _yolo11_of(tensors) or "another ultralytics network (its last layer is not that of YOLOv8)"
    if "model.22.proto.cv1.conv.weight" in tensors:
        return "YOLOv8-SEG"
    if _EXTRAS not in tensors:
        return "YOLOv8"
    return "YOLOv8-OBB" if len(tensors[_EXTRAS]) == 1 else "YOLOv8-Pose"


def _yolo11_of(tensors: Tensors) -> str:
    """Recognise YOLO11 or YOLO26 and the task by the names of the weights; an empty text for others."""
    if _CLASSIFIER_ATTENTION in tensors and _YOLO11_CLASSIFIER in tensors:
        return YOLO11 + _SUFFIXES[Task.CLASSIFICATION]
    if _ATTENTION not in tensors:
        return ""
    head = frozenset(name.split(".")[2] for name in tensors if name.startswith("model.23."))
    one_to_one = any(name.startswith(ONE_TO_ONE) for name in head)
    parts = frozenset(name.removeprefix(ONE_TO_ONE) for name in head) - _FOR_LOSS
    family, task = (YOLO26, _YOLO26_HEADS.get(parts)) if one_to_one else (YOLO11, _YOLO11_HEADS.get(head))
    if task is Task.KEYPOINTS and _YOLO11_EXTRAS in tensors and len(tensors[_YOLO11_EXTRAS]) == 1:
        return "YOLO11-OBB"
    return "" if task is None else family + _SUFFIXES[task]


def _variant_of_tree(tree: LayerTree) -> str | None:
    """Recognise the variant by the width of the first layer and, after YOLOv8, by the depth too: m is as wide as l."""
    first = tree.layers[0]
    if not first.has_child("conv"):
        return None
    width = first.child("conv").integer("out_channels", 1)
    return VARIANTS.get((width, tree.repeats)) if tree.family in (YOLO11, YOLO26) else _variant_of(width)


def _variant_of(width: int) -> str | None:
    """Recognise the variant by the width of the first layer, which differs between all of them."""
    return next((variant for variant, (_, factor, _) in SCALES.items() if width == 64 * factor), None)


def _build(checkpoint: Checkpoint, task: Task, variant: str, classes: int, size: tuple[int, int]) -> torch.nn.Module:
    network: torch.nn.Module
    channels = check_channels(checkpoint.tensors[_STEM].shape[1])
    if task is Task.CLASSIFICATION:
        network = Classifier(variant, classes, channels)
    else:
        keypoints = _keypoint_shape(checkpoint) if task is Task.KEYPOINTS else None
        masks, oriented = task is Task.INSTANCE_SEGMENTATION, task is Task.ORIENTED_DETECTION
        network = Network(variant, classes, size, masks, keypoints, oriented=oriented, channels=channels)
    # The box distribution's bins are constants that ultralytics stores as a weight.
    tensors = {name: value for name, value in checkpoint.tensors.items() if name != "model.22.dfl.conv.weight"}
    fill(network, {**tensors, **decoder_buffers(network)}, f"YOLOv8 {variant} with {classes} classes")
    return fuse(network, _epsilon(task))


def _epsilon(task: Task) -> float:
    """Return the epsilon of batch normalisation: ultralytics' value; for classifiers, torch's default."""
    return 1e-5 if task is Task.CLASSIFICATION else 1e-3


def _assumptions(model: Model, images: Preprocessing) -> tuple[str, ...]:
    """Return the settings of a network that its weights do not contain."""
    task = _task(model)
    return (
        *(() if model.parameters.activation else ("activation SiLU",)),
        "convolution strides, padding and shortcuts of YOLOv8",
        *(("pooling 5x5 in the SPPF", "nearest upsampling") if task is not Task.CLASSIFICATION else ()),
        f"normalisation epsilon {_epsilon(task):g}",
        f"pixels {images.colours}, 0 to 1",
    )


def _keypoint_shape(checkpoint: Checkpoint) -> tuple[int, int]:
    """Return the number of keypoints and of components; if not in the checkpoint, three or two components, by
    divisibility.

    Raises:
        Failure: with reason ``CheckpointMismatch``: both divide the channels.
    """
    channels, shape = len(checkpoint.tensors[_EXTRAS]), checkpoint.facts.get("kpt_shape")
    if isinstance(shape, Sequence) and len(shape) == 2 and shape[0] * shape[1] == channels:
        return shape[0], shape[1]
    if channels % 6 == 0:
        raise mismatch(
            f"the weights do not tell whether their {channels} channels are {channels // 3} keypoints of x, y and "
            f"visibility or {channels // 2} of x and y; give ultralytics' .pt, or put kpt_shape, [{channels // 3}, 3] "
            f"or [{channels // 2}, 2], into the same dict, or into the metadata of the .safetensors"
        )
    components = 3 if channels % 3 == 0 else 2
    return channels // components, components


def _describe(
    network: torch.nn.Module, model: Model, variant: str | None, size: tuple[int, int], names: tuple[str, ...]
) -> LoadedModel:
    classifier = _task(model) is Task.CLASSIFICATION
    outputs = _OUTPUTS[_task(model)]
    if model.architecture.startswith(YOLO26):
        outputs = tuple(_ONE_TO_ONE_SCORES if output is SCORES else output for output in outputs)
    return LoadedModel(
        module=network,
        input_size=size,
        outputs=outputs,
        class_names=names,
        preprocessing=Preprocessing("centre_crop" if classifier else "letterbox"),
        metadata=row_facts(model.architecture, variant),
    )


def _load_program(checkpoint: Checkpoint, program: Program, model: Model) -> LoadedModel:
    size, outputs = program_shapes(program, model.parameters.input_size)
    classes = _check_outputs(outputs, _task(model), size)
    check_asked("number of classes", model.parameters.num_classes, classes)
    names = class_names(checkpoint.facts, classes)
    described = _describe(ProgramModule(program), model, model.parameters.variant, size, names)
    preprocessing = described.preprocessing.taking(program_channels(program))
    return check_program(replace(described, preprocessing=preprocessing, reference=Reference.PROGRAM))


def _check_outputs(found: list[tuple[int, ...]], task: Task, size: tuple[int, int]) -> int:
    """Check the output shapes of an archive against those of the task, and return the number of classes."""
    anchors = sum((size[0] // stride) * (size[1] // stride) for stride in STRIDES)
    has_rank = len(found) == len(_OUTPUTS[task]) and all(len(shape) > 1 for shape in found)
    classes = found[0 if task is Task.CLASSIFICATION else 1][1] if has_rank else 0
    last = found[-1] if has_rank else ()
    detected: list[tuple[int, ...]] = [(1, 4, anchors), (1, classes, anchors)]
    expected: dict[Task, list[tuple[int, ...]]] = {
        Task.CLASSIFICATION: [(1, classes)],
        Task.DETECTION: detected,
        Task.INSTANCE_SEGMENTATION: [*detected, (1, MASKS, anchors), (1, MASKS, size[0] // 4, size[1] // 4)],
        Task.KEYPOINTS: [*detected, last if len(last) == 4 and last[::3] == (1, anchors) else ()],
        Task.ORIENTED_DETECTION: [*detected, (1, 1, anchors)],
    }
    if not classes or found != expected[task]:
        names = ", ".join(f"{output.name} ({', '.join(output.axes)})" for output in _OUTPUTS[task])
        raise unfit(f"it gives outputs of shapes {found}, expected with {anchors} anchors: {names}")
    return classes
