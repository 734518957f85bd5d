"""Loads YOLOX from the checkpoints of Megvii's trainer."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from modelexport.api.spec import COLOR_ORDERS, PIXEL_RANGES, Model, Parameters
from modelexport.matrix.support import ARCHITECTURES
from modelexport_converter.architectures.shared.detection import describe_detector, load_detector_program
from modelexport_converter.architectures.shared.yolo_layers import decoder_buffers, fuse, set_activation
from modelexport_converter.architectures.yolox.network import EPSILON, SCALES, STRIDES, Network
from modelexport_converter.checkpoints.checkpoint import Checkpoint
from modelexport_converter.checkpoints.state_dict import (
    check_asked,
    class_names,
    fill,
    mismatch,
    normalised,
    own_weights,
    trained_size,
)
from modelexport_converter.model import LoadedModel

_STEM, _CLASSES = "backbone.backbone.stem.conv.conv.weight", "head.cls_preds.0.weight"
_DEPTHWISE = "backbone.backbone.dark2.0.dconv.conv.weight"
_SMALL = {"nano": (416, 416), "tiny": (416, 416)}
"""Input sizes of the variants that Megvii trains at another size than the others."""


def load(checkpoint: Checkpoint, model: Model) -> LoadedModel:
    """Build the network of a checkpoint, ready for export.

    Megvii's networks take BGR in 0..255; legacy ones take normalised RGB in 0..1, which the export must state. Files
    take RGB in 0..1 as those of all detectors, normalised if the export states it: order and scale are folded into the
    first convolution. Depthwise convolutions are recognised by the weights. Images may be padded on both sides, while
    Megvii's loader pads right and below.

    Raises:
        Failure: with reason ``CheckpointMismatch``, naming the requested and the found value.
    """
    if checkpoint.program is not None:
        return load_detector_program(checkpoint.facts, checkpoint.program, model)
    tensors = own_weights(checkpoint.tensors, _STEM)
    variant = _variant_of(tensors)
    check_asked("variant", model.parameters.variant, variant)
    classes = len(tensors[_CLASSES])
    check_asked("number of classes", model.parameters.num_classes, classes)
    default = _SMALL.get(variant, ARCHITECTURES[model.architecture].default_input_size)
    size = model.parameters.input_size or trained_size(checkpoint.facts, STRIDES[-1]) or default
    depthwise = _DEPTHWISE in tensors
    network = Network(variant, classes, size, depthwise)
    set_activation(network, model.parameters.activation)
    fill(network, {**tensors, **decoder_buffers(network)}, f"YOLOX {variant} with {classes} classes")
    fuse(network, EPSILON)
    network.backbone.backbone.stem.fold(
        model.parameters.color_order or COLOR_ORDERS[0], model.parameters.pixel_range or PIXEL_RANGES[0]
    )
    described = describe_detector(network, model, variant, size, class_names(checkpoint.facts, classes))
    # Depthwise convolutions pass on the coarse steps that a few outliers cause; ordinary ones average over them. With
    # min-max ranges the trained nano network loses .04 mAP.
    return replace(
        described,
        int8_sensitive=depthwise,
        preprocessing=normalised(described.preprocessing, model.parameters),
        assumptions=_assumptions(model.parameters),
    )


def _assumptions(parameters: Parameters) -> tuple[str, ...]:
    """Return the settings that neither weights nor export contain."""
    return (
        *(() if parameters.activation else ("activation SiLU",)),
        *(() if parameters.color_order else ("pixels BGR",)),
        *(() if parameters.pixel_range else ("pixels of 0 to 255",)),
        "convolution strides, padding and shortcuts of YOLOX",
        "pooling 5, 9, 13",
        "nearest upsampling",
        f"normalisation epsilon {EPSILON:g}",
    )


def _variant_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """Recognise the variant by the width of the first layer, which differs between all of them."""
    if _STEM not in tensors or _CLASSES not in tensors:
        message = f"the checkpoint has no weights named {_STEM} and {_CLASSES}, as Megvii's YOLOX has"
        raise mismatch(f"{message}; correct spec.model.architecture or export the network as .pt2")
    width = len(tensors[_STEM])
    for variant, (_, factor) in SCALES.items():
        if width == 64 * factor:
            return variant
    found = f"the first layer has {width} channels"
    raise mismatch(f"{found}, which no variant of YOLOX has; export a changed network as .pt2")
