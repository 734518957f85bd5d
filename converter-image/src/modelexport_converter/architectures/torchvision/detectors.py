"""Loads RetinaNet, SSDlite, Faster R-CNN and Mask R-CNN of torchvision."""

import math
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import nn
from torchvision.models import detection, mobilenet_v3_large
from torchvision.models.detection import _utils as utils
from torchvision.models.detection import ssdlite
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from modelexport.api.spec import Model, Parameters
from modelexport.matrix.support import ARCHITECTURES
from modelexport_converter.architectures.shared.folding import freeze
from modelexport_converter.architectures.torchvision import pyramids
from modelexport_converter.architectures.torchvision.networks import MOST_CANDIDATES, RCNN, RetinaNet, SSDlite
from modelexport_converter.architectures.torchvision.pyramids import TORCHVISION_REMEDY, norm_of, pyramid_width
from modelexport_converter.checkpoints.checkpoint import Checkpoint, Facts
from modelexport_converter.checkpoints.state_dict import (
    RequiredWeights,
    Tensors,
    check_asked,
    class_names,
    fill,
    mismatch,
    normalised,
    own_weights,
    trained_size,
)
from modelexport_converter.model import LoadedModel, Output, Preprocessing

_BOXES = Output(
    "boxes",
    ("batch", "detection", "coordinate"),
    "Left, top, right, bottom, divided by the input's width and height; overlapping ones are suppressed already.",
)
_SCORES = Output("scores", ("batch", "detection"), "Probability of each detection, best first; 0 in empty slots.")
_LABELS = Output("labels", ("batch", "detection"), "Class of each detection: its place among the class names.")
_COUNT = Output(
    "count",
    ("batch",),
    "How many slots are filled, or -1 where boxes overlap in longer chains than the file resolves or, in the second "
    f"stage of an R-CNN of many classes, more than {MOST_CANDIDATES} exceed the score's threshold: then there is no "
    "answer, and all else is 0. A higher scoreThreshold avoids both; a file in ONNX has neither limit.",
)
DETECTIONS = (_BOXES, _SCORES, _LABELS, _COUNT)
"""The outputs of every detector that suppresses boxes itself."""
_MASKS = Output(
    "masks",
    ("batch", "detection", "row", "column"),
    "Probability, within the box of each detection, that a place belongs to it; stretch it to the box, cut at 0.5.",
)

Builder = Callable[[Tensors, str | None, int, Parameters], Any]


@dataclass(frozen=True)
class _Kind:
    """One architecture: its classification layer, the rows of it per class, and how to build and wrap the network."""

    classifier: str
    rows: Callable[[Tensors], int]
    wrapper: type[RetinaNet] | type[SSDlite] | type[RCNN]
    build: Builder
    background: bool = True


def load(checkpoint: Checkpoint, model: Model) -> LoadedModel:
    """Build the network of a checkpoint, ready for export.

    Values in ``model.parameters`` are checked against the checkpoint; omitted ones are read from it. Omitted thresholds
    are torchvision's. Classes are counted as in torchvision: with the background, except in RetinaNet.

    Raises:
        Failure: with reason ``CheckpointMismatch``, naming the requested and the found value.
    """
    if checkpoint.program is not None:
        remedy = "give its weights as .pt or .safetensors, or name the architecture Custom"
        raise mismatch(f"{model.architecture} is not made from a .pt2 archive; {remedy}")
    what = f"torchvision's {model.architecture}"
    own = own_weights(checkpoint.tensors, *(kind.classifier for kind in _KINDS.values()))
    tensors, parameters = RequiredWeights(own, what, TORCHVISION_REMEDY), model.parameters
    check_asked("architecture", model.architecture, _architecture_of(tensors))
    kind = _KINDS[model.architecture]
    variant = _variant_of(tensors, parameters.variant)
    check_asked("variant", parameters.variant, variant)
    classes = len(tensors[kind.classifier]) // kind.rows(tensors)
    check_asked("number of classes, counted as torchvision does,", parameters.num_classes, classes)
    detector = kind.build(tensors, variant, classes, parameters).eval()
    _state(detector, tensors, parameters)
    # torchvision sets 0 when it loads ``COCO_V1`` weights of a ResNet-50 that is not a v2.
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d) and parameters.norm_epsilon is not None:
            module.eps = parameters.norm_epsilon
    fill(detector, tensors, f"{what} with {classes} classes", TORCHVISION_REMEDY, knows_earlier_names=True)
    assumptions = _assumptions(detector, parameters)  # before its normalisation is folded
    default = _SMALL.get(variant or "", ARCHITECTURES[model.architecture].default_input_size)
    size = parameters.input_size or trained_size(checkpoint.facts, 32) or default
    mean, std = tuple(detector.transform.image_mean), tuple(detector.transform.image_std)
    return LoadedModel(
        module=freeze(kind.wrapper(detector, size)),
        input_size=size,
        outputs=(*DETECTIONS, *((_MASKS,) if model.architecture == "MaskRCNN" else ())),
        class_names=_class_names(checkpoint.facts, classes, kind.background),
        preprocessing=normalised(Preprocessing("stretch", mean, std), model.parameters),
        metadata=_metadata(model, variant, detector),
        low_precision_modules=kind.wrapper.LOW_PRECISION_MODULES,
        int8_sensitive=kind.wrapper.INT8_SENSITIVE,
        assumptions=assumptions,
    )


def _assumptions(detector: Any, parameters: Parameters) -> tuple[str, ...]:
    """Return the settings that neither weights nor export contain, as torchvision's builders set them."""
    stage = getattr(detector, "roi_heads", detector)
    generator = detector.rpn.anchor_generator if hasattr(detector, "rpn") else detector.anchor_generator
    epsilon = next((module.eps for module in detector.modules() if isinstance(module, nn.BatchNorm2d)), None)
    two_stages = () if stage is detector else _second_stage_assumptions(detector)
    given = parameters
    return (
        *_anchor_assumptions(generator, parameters),
        *(() if given.image_mean else (f"image_mean {_numbers(detector.transform.image_mean)}",)),
        *(() if given.image_std else (f"image_std {_numbers(detector.transform.image_std)}",)),
        "images stretched to the input, not scaled by min_size",
        *(() if given.detections_per_image else (f"at most {stage.detections_per_img} detections",)),
        *two_stages,
        *(() if epsilon is None or given.norm_epsilon is not None else (f"normalisation epsilon {epsilon:g}",)),
    )


def _anchor_assumptions(generator: Any, given: Parameters) -> tuple[str, ...]:
    """Return the anchors that the export does not state."""
    if isinstance(generator, DefaultBoxGenerator):
        scales, ratios = _numbers(generator.scales), _numbers(generator.aspect_ratios[0])
        return f"default boxes of scales {scales}", f"aspect ratios 1, {ratios} and inverse"
    sizes = " / ".join(_numbers(level) for level in generator.sizes)
    return (
        *(() if given.anchor_sizes else (f"anchor sizes {sizes}",)),
        *(() if given.aspect_ratios else (f"aspect ratios {_numbers(generator.aspect_ratios[0])}",)),
    )


def _second_stage_assumptions(detector: Any) -> tuple[str, ...]:
    """Return the settings of the second stage of an R-CNN."""
    heads, rpn = detector.roi_heads, detector.rpn
    regions = [heads.box_roi_pool, *([heads.mask_roi_pool] if heads.has_mask() else [])]
    sides = " and ".join(f"{pool.output_size[0]}x{pool.output_size[0]}" for pool in regions)
    return (
        f"{rpn.post_nms_top_n()} proposals of {rpn.pre_nms_top_n()}, overlap {rpn.nms_thresh:g}",
        f"regions of {sides}, {heads.box_roi_pool.sampling_ratio} samples a side",
    )


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _state(detector: Any, tensors: Tensors, parameters: Parameters) -> None:
    """Apply the settings that only the export can state; the rest stays as torchvision's builders set it.

    Raises:
        Failure: with reason ``CheckpointMismatch``: the weights are for another number of anchors.
    """
    stage = getattr(detector, "roi_heads", detector)
    stage.detections_per_img = parameters.detections_per_image or stage.detections_per_img
    owner = getattr(detector, "rpn", detector)
    if isinstance(owner.anchor_generator, AnchorGenerator):
        owner.anchor_generator = _anchors(owner.anchor_generator, parameters, _anchor_count(tensors))


def _anchors(default: AnchorGenerator, parameters: Parameters, expected: int) -> AnchorGenerator:
    """Return the anchors of the export or torchvision's; ``expected`` is their number at each place of a map."""
    sizes, levels = parameters.anchor_sizes or default.sizes, len(default.sizes)
    if len(sizes) != levels:
        problem = f"anchorSizes has {len(sizes)} levels, the network has {levels} feature maps"
        raise mismatch(f"{problem}; name the sides of each, finest first")
    ratios = (parameters.aspect_ratios,) * levels if parameters.aspect_ratios else default.aspect_ratios
    generator = AnchorGenerator(tuple(map(tuple, sizes)), ratios)
    counts = generator.num_anchors_per_location()
    if set(counts) != {expected}:
        given = ", ".join(map(str, counts))
        raise mismatch(
            f"the weights are for {expected} anchors at each place, sizes and ratios give {given} on the levels; "
            "set spec.model.parameters.anchorSizes and aspectRatios as they were in training"
        )
    return generator


def _anchor_count(tensors: Tensors) -> int:
    """Return the number of anchors at each place of a map; the box layer has four rows per anchor."""
    name = next((name for name in _DELTAS if name in tensors), _DELTAS[0])
    return max(1, len(tensors[name]) // 4)


def _architecture_of(tensors: Tensors) -> str:
    """Recognise the architecture by the names of the weights."""
    if "roi_heads.keypoint_predictor.kps_score_lowres.weight" in tensors:
        return "KeypointRCNN"
    if _MASK_LAYER in tensors:
        return "MaskRCNN"
    names = (name for name, kind in _KINDS.items() if kind.classifier in tensors)
    return next(names, "none of torchvision's detectors")


def _variant_of(tensors: Tensors, asked: str | None) -> str | None:
    """Recognise the backbone. Faster R-CNN's two on MobileNet have the same weights and differ in their settings."""
    if "backbone.features.0.0.0.weight" in tensors:
        return None
    if pyramids.has_resnet(tensors):
        return pyramids.variant_of(tensors)
    return asked if asked in _SMALL else "mobilenet_v3_large"


def _class_names(facts: Facts, classes: int, background: bool) -> tuple[str, ...]:
    """Return the class names, with the background first where the architecture counts one."""
    names = facts.get("names")
    told = len(names) if isinstance(names, Sized) else 0
    if not background or told == classes:
        return class_names(facts, classes)
    if told == classes - 1:
        return ("background", *class_names(facts, classes - 1))
    return ("background", *(f"class_{index}" for index in range(1, classes)))


def _metadata(model: Model, variant: str | None, detector: Any) -> dict[str, str]:
    stage = getattr(detector, "roi_heads", detector)
    facts = {
        "architecture": model.architecture,
        "task": ARCHITECTURES[model.architecture].task.value,
        "score_threshold": f"{stage.score_thresh:g}",
        "nms_threshold": f"{stage.nms_thresh:g}",
    }
    return {**facts, "variant": variant} if variant else facts


def _thresholds(parameters: Parameters, prefix: str = "") -> dict[str, float]:
    given = {"score_thresh": parameters.score_threshold, "nms_thresh": parameters.nms_threshold}
    return {f"{prefix}{name}": value for name, value in given.items() if value is not None}


def _build_retinanet(tensors: Tensors, _variant: str | None, classes: int, parameters: Parameters) -> Any:
    """Build RetinaNet as torchvision does.

    The v2 normalises in its head and takes the coarsest maps from the ResNet.
    """
    width, inputs = pyramid_width(tensors), tensors["backbone.fpn.extra_blocks.p6.weight"].shape[1]
    backbone = pyramids.build_pyramid(tensors, 2, LastLevelP6P7(inputs, width))
    norm = norm_of(tensors, "head.classification_head.conv.0.1")
    head = RetinaNetHead(width, _anchor_count(tensors), classes, norm)
    return detection.RetinaNet(backbone, classes, head=head, **_thresholds(parameters))


def _build_ssdlite(tensors: Tensors, _variant: str | None, classes: int, parameters: Parameters) -> Any:
    """Build SSDlite as torchvision does, which makes the full width of the last layers depend on downloaded weights."""
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    reduced = len(tensors["head.classification_head.module_list.1.0.0.weight"]) < 672
    network = mobilenet_v3_large(weights=None, norm_layer=norm, reduced_tail=reduced)
    backbone = ssdlite._mobilenet_extractor(network, 6, norm)
    anchors = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    channels = utils.retrieve_out_channels(backbone, (320, 320))
    head = ssdlite.SSDLiteHead(channels, anchors.num_anchors_per_location(), classes, norm)
    settings: dict[str, Any] = {
        "score_thresh": 0.001,
        "nms_thresh": 0.55,
        "detections_per_img": 300,
        "topk_candidates": 300,
    }
    settings |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, **_thresholds(parameters)}
    return SSD(backbone, anchors, (320, 320), classes, head=head, **settings)


def _build_rcnn(tensors: Tensors, variant: str | None, classes: int, parameters: Parameters) -> Any:
    """Build a Faster or Mask R-CNN as torchvision does."""
    thresholds = _thresholds(parameters, "box_")
    if pyramids.has_resnet(tensors):
        return _build_resnet_rcnn(tensors, classes, thresholds)
    builder = getattr(detection, f"fasterrcnn_{variant}_fpn")
    detector = builder(weights=None, weights_backbone=None, num_classes=classes, **thresholds)
    detector.rpn.head = RPNHead(detector.backbone.out_channels, _anchor_count(tensors))
    return detector


def _build_resnet_rcnn(tensors: Tensors, classes: int, thresholds: Mapping[str, float]) -> Any:
    """Build an R-CNN on a ResNet as torchvision does, v2 included, in the depths and widths of the checkpoint."""
    backbone, width = pyramids.build_pyramid(tensors, 1, LastLevelMaxPool()), pyramid_width(tensors)
    depth = len(_widths(tensors, "rpn.head.conv.?.0.weight", "rpn.head.conv.weight"))
    heads: dict[str, Any] = {
        "rpn_head": RPNHead(width, _anchor_count(tensors), depth),
        "box_head": _build_box_head(tensors, width),
        "box_roi_pool": MultiScaleRoIAlign(["0", "1", "2", "3"], _bins(tensors, width), 2),
        "box_predictor": FastRCNNPredictor(tensors[_REGIONS].shape[1], classes),
    }
    if _MASK_LAYER not in tensors:
        return detection.FasterRCNN(backbone, **heads, **thresholds)
    layers = _widths(tensors, "roi_heads.mask_head.?.0.weight", "roi_heads.mask_head.mask_fcn?.weight")
    heads["mask_head"] = MaskRCNNHeads(width, layers, 1, norm_of(tensors, "roi_heads.mask_head.0.1"))
    heads["mask_predictor"] = MaskRCNNPredictor(layers[-1], len(tensors[_MASK_BIAS]), classes)
    return detection.MaskRCNN(backbone, **heads, **thresholds)


def _build_box_head(tensors: Tensors, width: int) -> Any:
    """Build the box head: two linear layers, or as in v2 convolutions and one linear layer."""
    if _TWO_LAYERS in tensors:
        return TwoMLPHead(width * _bins(tensors, width) ** 2, len(tensors[_TWO_LAYERS]))
    convolutions = _widths(tensors, "roi_heads.box_head.?.0.weight")
    linear = _widths(tensors, "roi_heads.box_head.?.weight")
    norm = norm_of(tensors, "roi_heads.box_head.0.1")
    bins = _bins(tensors, width)
    return FastRCNNConvFCHead((width, bins, bins), convolutions, linear, norm)


def _bins(tensors: Tensors, width: int) -> int:
    """Return the places along a side of a region; the box head's first linear layer takes all of them with all
    channels.
    """
    linear = (name for name in tensors if fnmatchcase(name, "roi_heads.box_head.*.weight") and tensors[name].ndim == 2)
    name = _TWO_LAYERS if _TWO_LAYERS in tensors else next(linear, _TWO_LAYERS)
    channels = width if name == _TWO_LAYERS else _widths(tensors, "roi_heads.box_head.?.0.weight")[-1]
    return math.isqrt(tensors[name].shape[1] // channels)


def _widths(tensors: Tensors, *patterns: str) -> list[int]:
    """Return the output channels of the layers whose weights match the patterns, today's names or earlier ones."""
    found = [len(tensors[name]) for pattern in patterns for name in tensors if fnmatchcase(name, pattern)]
    if not found:
        raise mismatch(f"the checkpoint has no weights named {patterns[0]}; {TORCHVISION_REMEDY}")
    return found


_SMALL: Mapping[str, tuple[int, int]] = {"mobilenet_v3_large_320": (320, 320)}
_RETINA_CLASSES = "head.classification_head.cls_logits.weight"
_DELTAS = ("rpn.head.bbox_pred.weight", "head.regression_head.bbox_reg.weight")
"""Box layers, with four rows per anchor at a place."""
_REGIONS = "roi_heads.box_predictor.cls_score.weight"
_TWO_LAYERS = "roi_heads.box_head.fc6.weight"
_MASK_LAYER = "roi_heads.mask_predictor.mask_fcn_logits.weight"
_MASK_BIAS = "roi_heads.mask_predictor.conv5_mask.bias"
_KINDS: Mapping[str, _Kind] = {
    "RetinaResNet": _Kind(_RETINA_CLASSES, _anchor_count, RetinaNet, _build_retinanet, False),
    "MobileNet": _Kind("head.classification_head.module_list.0.1.weight", lambda _: 6, SSDlite, _build_ssdlite),
    "FasterRCNN": _Kind(_REGIONS, lambda _: 1, RCNN, _build_rcnn),
    "MaskRCNN": _Kind(_REGIONS, lambda _: 1, RCNN, _build_rcnn),
}
