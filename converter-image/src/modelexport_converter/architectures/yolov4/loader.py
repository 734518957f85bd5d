"""Loads YOLOv4 and YOLOv4-tiny from the checkpoints of Tianxiaomo's pytorch-YOLOv4."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from modelexport.api.spec import Model, Parameters
from modelexport.matrix.support import ARCHITECTURES
from modelexport_converter.architectures.shared.detection import describe_detector, load_detector_program
from modelexport_converter.architectures.shared.yolo_layers import decoder_buffers, fuse
from modelexport_converter.architectures.yolov4.network import (
    EPSILON,
    SHAPES,
    Anchors,
    Network,
    Prediction,
    Tiny,
    rename,
)
from modelexport_converter.checkpoints.checkpoint import Checkpoint
from modelexport_converter.checkpoints.state_dict import (
    check_asked,
    class_names,
    fill,
    mismatch,
    own_weights,
    trained_size,
)
from modelexport_converter.model import LoadedModel

_VARIANTS: Mapping[str, tuple[type[Network], str, str]] = {
    "full": (Network, "down1.conv1.conv.weight", "head.conv18.conv.weight"),
    "tiny": (Tiny, "models.0.conv.weight", "models.29.conv.weight"),
}
"""The network of each variant, and the names of its first and last weights."""
_STEMS = ("down1.conv1.conv.0.weight", "models.0.conv1.weight")
"""Names of the first weights in a checkpoint."""


def load(checkpoint: Checkpoint, model: Model) -> LoadedModel:
    """Build the network of a checkpoint, ready for export.

    The weights are named as those of ``Yolov4`` in ``models.py``, or for the tiny variant as those of ``Darknet`` with
    ``yolov4-tiny.cfg``. Any width is accepted. Checkpoints contain neither the anchors nor the scales of the box
    centres: anchors are the published ones unless the export gives others, scales are 1 in ``Yolov4`` and 1.05 in
    ``yolov4-tiny.cfg``.

    Raises:
        Failure: with reason ``CheckpointMismatch``, naming the requested and the found value.
    """
    if checkpoint.program is not None:
        return load_detector_program(checkpoint.facts, checkpoint.program, model)
    tensors = rename(own_weights(checkpoint.tensors, *_STEMS))
    variant = _variant_of(tensors)
    check_asked("variant", model.parameters.variant, variant)
    build, first, last = _VARIANTS[variant]
    classes = len(tensors[last]) // SHAPES - 5
    check_asked("number of classes", model.parameters.num_classes, classes)
    row = ARCHITECTURES[model.architecture]
    size = model.parameters.input_size or trained_size(checkpoint.facts, row.stride) or row.default_input_size
    network = build(len(tensors[first]), classes, size, _anchors_of(model.parameters, len(build.STRIDES)))
    network.set_activation(model.parameters.activation)
    fill(network, {**tensors, **decoder_buffers(network)}, f"YOLOv4 {variant} with {classes} classes")
    fuse(network, EPSILON)
    for module in network.modules():
        if isinstance(module, Prediction):
            module.split()
    described = describe_detector(network, model, variant, size, class_names(checkpoint.facts, classes))
    return replace(
        described,
        low_precision_modules=network.LOW_PRECISION_MODULES,
        assumptions=_assumptions(network, model.parameters),
    )


def _anchors_of(parameters: Parameters, levels: int) -> Sequence[Anchors] | None:
    """Return the anchors of the export, level by level.

    Raises:
        Failure: with reason ``CheckpointMismatch``: their number fits the other variant only.
    """
    if parameters.anchors is None:
        return None
    pairs = tuple(zip(parameters.anchors[::2], parameters.anchors[1::2], strict=True))
    check_asked("numbers of anchors", len(parameters.anchors), levels * SHAPES * 2)
    return [pairs[level * SHAPES : (level + 1) * SHAPES] for level in range(levels)]


def _assumptions(network: Network, parameters: Parameters) -> tuple[str, ...]:
    """Return the settings that neither weights nor export contain."""
    numbers = ", ".join(f"{width},{height}" for level in network.ANCHORS for width, height in level)
    return (
        *(() if parameters.activation else (network.ACTIVATION,)),
        *(() if parameters.anchors else (f"anchors {numbers}",)),
        f"scale_x_y {network.SCALE:g}",
        f"normalisation epsilon {EPSILON:g}",
        "convolution strides, pooling, nearest upsampling",
        "pixels RGB, 0 to 1",
    )


def _variant_of(tensors: Mapping[str, torch.Tensor]) -> str:
    for variant, (_, *names) in _VARIANTS.items():
        if all(name in tensors for name in names):
            if len(tensors[names[1]]) % SHAPES or len(tensors[names[1]]) <= 5 * SHAPES:
                break
            return variant
    known = " or ".join(f"{first} and {last} ({variant})" for variant, (_, first, last) in _VARIANTS.items())
    message = f"the checkpoint is not one of pytorch-YOLOv4: it has no weights like {known}"
    raise mismatch(f"{message}; correct spec.model.architecture or export the network as .pt2")
