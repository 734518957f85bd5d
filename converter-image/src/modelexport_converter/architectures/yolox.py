"""YOLOX for detection, from the checkpoints of Megvii's trainer."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from modelexport.matrix import ARCHITECTURES
from modelexport.spec import COLOR_ORDERS, PIXEL_RANGES, Model, Parameters
from modelexport_converter.architectures.detection import describe_detector, load_detector_program
from modelexport_converter.architectures.layers import activate, constants, fuse
from modelexport_converter.architectures.yolox_network import EPSILON, SCALES, STRIDES, Network
from modelexport_converter.checkpoint import Checkpoint
from modelexport_converter.matching import (
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
"""Input sizes of the variants that Megvii trains at another size than the rest."""


def load(checkpoint: Checkpoint, model: Model) -> LoadedModel:
    """Build the network of a checkpoint, ready for capture.

    Megvii's networks take BGR in 0..255, and legacy ones RGB in 0..1, normalised, as the export has to say. The files
    take RGB in 0..1, as those of all detectors do, normalised where that is given: order and scale are folded into the
    first convolution. Whether convolutions are depthwise is read from the weights. Pictures may be padded on both
    sides, where Megvii's loader pads right and below.

    Raises:
        Failure: with reason ``CheckpointMismatch``, naming what was asked and what was found.
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
    activate(network, model.parameters.activation)
    fill(network, {**tensors, **constants(network)}, f"YOLOX {variant} with {classes} classes")
    fuse(network, EPSILON)
    network.backbone.backbone.stem.fold(
        model.parameters.color_order or COLOR_ORDERS[0], model.parameters.pixel_range or PIXEL_RANGES[0]
    )
    described = describe_detector(network, model, variant, size, class_names(checkpoint.facts, classes))
    # Depthwise convolutions pass the coarse steps of a few far values on, where ordinary ones average over them: with
    # the ranges of all values the trained nano network loses .04 mAP.
    return replace(
        described,
        delicate=depthwise,
        preprocessing=normalised(described.preprocessing, model.parameters),
        assumptions=_assumptions(model.parameters),
    )


def _assumptions(parameters: Parameters) -> tuple[str, ...]:
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
    """Tell the variant by the width of the first layer, which differs between all of them."""
    if _STEM not in tensors or _CLASSES not in tensors:
        message = f"the checkpoint has no weights named {_STEM} and {_CLASSES}, as Megvii's YOLOX has"
        raise mismatch(f"{message}; correct spec.model.architecture or export the network as .pt2")
    width = len(tensors[_STEM])
    for variant, (_, factor) in SCALES.items():
        if width == 64 * factor:
            return variant
    found = f"the first layer has {width} channels"
    raise mismatch(f"{found}, which no variant of YOLOX has; export a changed network as .pt2")
