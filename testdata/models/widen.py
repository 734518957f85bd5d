"""Widens the trained models to their published widths, without changing their outputs.

    PYTHONPATH=testdata:examples python -m models.widen ARCHITECTURE SOURCE OUTPUT

Net2WiderNet, Chen et al., 2016, https://arxiv.org/abs/1511.05641: channels are repeated, and the layers that read them
divide their weights by the number of copies. Copies of a channel are adjacent, so that joined, split or added maps
still fit if they are widened alike; the heads of an attention are repeated as a whole. YOLOv8 and YOLOX nano and
SSDlite have their published widths already. YOLOv4, FCN and DeepLabV3 are trained as smaller networks than users have;
``untrained.py`` replaces them.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torchvision.models import detection
from ultralytics.nn.tasks import (
    BaseModel,
    ClassificationModel,
    DetectionModel,
    OBBModel,
    PoseModel,
    SegmentationModel,
)

from modelexport_converter.architectures.unet import UNet
from modelexport_converter.checkpoints.checkpoint import read_checkpoint

Tensors = Mapping[str, torch.Tensor]

_UNTRAINED = {"weights": None, "weights_backbone": None}
_FLATTENED = {"roi_heads.box_head.fc6.weight": 7 * 7}
"""Linear layers that read maps, and the number of places per channel of these."""
_BY_HEADS = {"qkv": 0, "pe": 0, "proj": 1}
"""Layers of an attention, and the axis whose channels belong to its heads."""


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "FasterRCNN": partial(detection.fasterrcnn_resnet50_fpn, num_classes=4, **_UNTRAINED),
    "RetinaResNet": partial(detection.retinanet_resnet50_fpn, num_classes=3, **_UNTRAINED),
    "MaskRCNN": partial(detection.maskrcnn_resnet50_fpn, num_classes=4, **_UNTRAINED),
    "UNet": lambda: UNet((64, 128, 256, 512, 1024), 4),
    "YOLO11": partial(DetectionModel, "yolo11n.yaml", nc=3, verbose=False),
    "YOLO26": partial(DetectionModel, "yolo26n.yaml", nc=3, verbose=False),
    "YOLO11-SEG": partial(SegmentationModel, "yolo11n-seg.yaml", nc=3, verbose=False),
    "YOLO26-SEG": partial(SegmentationModel, "yolo26n-seg.yaml", nc=3, verbose=False),
    "YOLO11-CLS": partial(ClassificationModel, "yolo11n-cls.yaml", nc=3, verbose=False),
    "YOLO26-CLS": partial(ClassificationModel, "yolo26n-cls.yaml", nc=3, verbose=False),
    "YOLOv8-OBB": partial(OBBModel, "yolov8n-obb.yaml", nc=3, verbose=False),
    "YOLO11-OBB": partial(OBBModel, "yolo11n-obb.yaml", nc=3, verbose=False),
    "YOLO26-OBB": partial(OBBModel, "yolo26n-obb.yaml", nc=3, verbose=False),
    "YOLO11-Pose": partial(PoseModel, "yolo11n-pose.yaml", nc=3, data_kpt_shape=(4, 3), verbose=False),
    "YOLO26-Pose": partial(PoseModel, "yolo26n-pose.yaml", nc=3, data_kpt_shape=(4, 3), verbose=False),
}
"""Networks in their published width, for the classes of the trained models."""


def run_command(description: str, architectures: Iterable[str], write: Callable[[str, Path, Path], None]) -> None:
    """Write a checkpoint by the command line arguments ARCHITECTURE SOURCE OUTPUT."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", choices=list(architectures))
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    write(arguments.architecture, arguments.source, arguments.output)


def write_widened(architecture: str, source: Path, path: Path) -> None:
    """Write the checkpoint ``source`` in its published width, in FP32, with its class names and input size."""
    checkpoint = read_checkpoint(source)
    network = NETWORKS[architecture]()
    widened = widen(checkpoint.tensors, network)
    facts = {name: checkpoint.facts[name] for name in ("imgsz", "names") if name in checkpoint.facts}
    if isinstance(network, BaseModel):  # its layers are read from the module
        network.load_state_dict(widened)
        network.names = facts.pop("names")
        torch.save({"model": network, **facts}, path)
    else:
        torch.save({"model": widened, **facts}, path)


def widen(tensors: Tensors, network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of a thin network in the widths of ``network``, which has the same layers."""
    wanted, widened = network.state_dict(), dict(tensors)
    for name in tensors:
        transposed = isinstance(network.get_submodule(name.rpartition(".")[0]), nn.ConvTranspose2d)
        reading = (0 if transposed else 1) if tensors[name].ndim > 1 else None
        for axis, size in enumerate(wanted[name].shape):
            if size != tensors[name].shape[axis]:
                places = _places(name, axis, tensors[name].shape[axis], reading=axis == reading)
                widened[name] = _repeat(widened[name], axis, size, places, divided=axis == reading)
    return widened


def _places(name: str, axis: int, size: int, *, reading: bool) -> int:
    """Return how many entries of an axis are repeated together; all, if they are those of the heads of an attention."""
    _, _, part = name.partition(".attn.")
    if part and _BY_HEADS[part.partition(".")[0]] == axis:
        return size
    return _FLATTENED.get(name, 1) if reading else 1


def _repeat(value: torch.Tensor, axis: int, size: int, places: int, divided: bool) -> torch.Tensor:
    """Repeat the channels of an axis, ``places`` entries each, until it has ``size``."""
    channels = value.shape[axis] // places
    sources = torch.arange(size // places) * channels // (size // places)
    repeated = value.unflatten(axis, (channels, places)).index_select(axis, sources)
    if divided:
        shares = 1 / sources.bincount()[sources]
        repeated = repeated * shares.view(-1, *[1] * (repeated.ndim - axis - 1))
    return repeated.flatten(axis, axis + 1)


if __name__ == "__main__":
    run_command(__doc__ or "", NETWORKS, write_widened)
