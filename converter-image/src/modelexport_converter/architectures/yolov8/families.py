"""Names the family of a network, by the classes or the package of its layers, or by the name of its description."""

import re
from collections.abc import Mapping

from modelexport.text import clean
from modelexport_converter.checkpoints.module_tree import Module
from modelexport_converter.checkpoints.state_dict import mismatch
from modelexport_converter.failures import Failure

ULTRALYTICS_REMEDY = (
    "save the model with torch.export.save as .pt2 (one of ultralytics after model.model[-1].export = True and a first "
    "call), and export that with the architecture Custom"
)

YOLO11, YOLO26 = "YOLO11", "YOLO26"
ONE_TO_ONE = "one2one_"
"""The start of the names of a one-to-one head's branches; those of the one-to-many head have no such start."""

_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "YOLOE": ("YOLOEDetect", "YOLOESegment", "YOLOESegment26", "LRPCHead"),
    "YOLO-World": ("WorldDetect", "C2fAttn", "ImagePoolingAttn", "MaxSigmoidAttnBlock"),
    "RT-DETR": ("RTDETRDecoder", "HGStem", "HGBlock", "AIFI", "RepC3"),
    "YOLOv10": ("v10Detect", "SCDown", "C2fCIB", "CIB", "PSA"),
    "YOLO12": ("A2C2f", "AAttn", "ABlock"),
    "YOLOv9": ("RepNCSPELAN4", "ELAN1", "AConv", "ADown", "SPPELAN", "CBLinear", "CBFuse", "RepCSP"),
    YOLO26: ("Segment26", "Proto26", "Pose26", "RealNVP", "OBB26"),
    YOLO11: ("C3k2", "C2PSA", "C3k", "PSABlock"),
    "YOLOv6": ("RepVGGDW", "RepConv"),
    "YOLOv5u": ("C3", "Focus", "C3TR", "SPP"),
}
"""Families by classes that only they have, in the order of the search: YOLO12 has blocks of YOLO11 too."""

_LATER = re.compile(r"yolov?(1[2-9]|[2-9]\d)[nsmlx]?(?![a-z0-9])", re.IGNORECASE)
"""The number of a family after YOLO11 in the name of a description, such as ``yolo26n-cls.yaml``."""

_PACKAGES: Mapping[str, str] = {
    "models.": "the repository YOLOv5 or YOLOv7, whose code its pickle needs",
    "super_gradients.": "YOLO-NAS, of super-gradients",
    "yolov5.": "the package yolov5, whose code its pickle needs",
    "yolov6.": "the repository YOLOv6, whose code its pickle needs",
    "yolox.": "Megvii's YOLOX",
    "mmdet.": "MMDetection",
    "mmyolo.": "MMYOLO",
    "nanodet.": "NanoDet",
    "torchvision.": "torchvision",
    "timm.": "timm",
}


def unknown_layer_failure(layer: Module, network: Module) -> Failure:
    """Return the failure for a layer of an unknown class, with the family of its network, if known."""
    family = network_family(network)
    whose = f"this is {family}" if family else "this is neither YOLOv8, YOLO11 nor YOLO26"
    return mismatch(f"{whose}: layer {layer.name} is {layer.shown_kind}, which cannot be rebuilt; {ULTRALYTICS_REMEDY}")


def foreign_module_failure(module: Module) -> Failure:
    """Return the failure for a pickled module of another package."""
    whose = next((of for start, of in _PACKAGES.items() if module.kind.startswith(start)), "")
    what = f"a {clean(module.kind, 80)}"
    origin = f", of {whose}" if whose else ", a class whose code only its author has"
    return mismatch(
        f"the checkpoint holds {what}{origin}; save it with torch.export.save as .pt2, and export that with the "
        "architecture Custom"
    )


def network_family(network: Module) -> str:
    """Return the family of a network, or an empty text for a YOLOv8."""
    classes = _class_names(network, 6)
    family = next((family for family, own in _FAMILIES.items() if classes & set(own)), "")
    return _told_from_yolo11(network) if family == YOLO11 else family


def _told_from_yolo11(network: Module) -> str:
    """Return the family of a network that has the classes of YOLO11.

    YOLO26 has them too: its detector has a one-to-one head or attention in a C3k2. Its classifier has the very layers
    of YOLO11-CLS, and only the name of its description, which ultralytics keeps, tells them apart.
    """
    layers = list(network.child("model").children()) if network.has_child("model") else []
    attends = any(layer.shown_kind == "C3k2" and "PSABlock" in _class_names(layer, 6) for layer in layers)
    if attends or (layers and has_one_to_one(layers[-1])):
        return YOLO26
    description = network.attribute("yaml")
    file = description.get("yaml_file") if isinstance(description, dict) else None
    named = _LATER.search(re.split(r"[/\\]", file)[-1]) if isinstance(file, str) else None
    return f"YOLO{named[1]}" if named else YOLO11


def has_one_to_one(head: Module) -> bool:
    """Return whether a head has branches that give each object one box; others, for training, may be beside them."""
    return any(head.has_child(f"{ONE_TO_ONE}{part}") for part in ("cv2", "cv3"))


def _class_names(module: Module, depth: int) -> set[str]:
    own = {module.kind.rpartition(".")[2]}
    return own.union(*(_class_names(child, depth - 1) for child in module.children())) if depth else own
