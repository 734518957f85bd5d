"""Makes the trained models as wide as those that users have, and leaves what they answer as it is.

    PYTHONPATH=tests:tests/models .venv/bin/python tests/models/widen.py ARCHITECTURE SOURCE OUTPUT

Net2WiderNet, Chen et al., 2016, https://arxiv.org/abs/1511.05641: channels are repeated, and whoever reads them divides
its weights by how often. Copies of a channel lie side by side, so that what is joined, split in halves or added fits
again, as long as it is widened alike. YOLOv8 and YOLOX nano, SSDlite and FCN have their published widths already.
"""

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torchvision.models import detection

from modelexport_converter.architectures import torchvision_segmenters, yolov4_network
from modelexport_converter.architectures.unet import UNet
from modelexport_converter.checkpoint import read_checkpoint

Tensors = Mapping[str, torch.Tensor]

_UNTRAINED = {"weights": None, "weights_backbone": None}
_FLATTENED = {"roi_heads.box_head.fc6.weight": 7 * 7}
"""Linear layers that read maps, and how many places each channel of these has."""


def _deeplab() -> nn.Module:
    backbone, channels = torchvision_segmenters.build_backbone("mobilenet_v3_small")
    return torchvision_segmenters.Segmenter(backbone, torchvision_segmenters.deeplab_head(channels, 256, 4))


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "FasterRCNN": partial(detection.fasterrcnn_resnet50_fpn, num_classes=4, **_UNTRAINED),
    "RetinaResNet": partial(detection.retinanet_resnet50_fpn, num_classes=3, **_UNTRAINED),
    "MaskRCNN": partial(detection.maskrcnn_resnet50_fpn, num_classes=4, **_UNTRAINED),
    "DeepLabV3": _deeplab,
    "UNet": lambda: UNet((64, 128, 256, 512, 1024), 4),
    "YOLOv4": lambda: yolov4_network.Tiny(32, 3, (416, 416)),
}
"""Networks in their published width, for the classes of the trained models."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", choices=NETWORKS)
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    write_widened(arguments.architecture, arguments.source, arguments.output)


def write_widened(architecture: str, source: Path, path: Path) -> None:
    """Write the checkpoint ``source`` in its published width, in FP32, with what it tells besides its weights."""
    checkpoint = read_checkpoint(source)
    widened = widen(checkpoint.tensors, NETWORKS[architecture]())
    told = {name: checkpoint.facts[name] for name in ("imgsz", "names") if name in checkpoint.facts}
    torch.save({"model": widened, **told}, path)


def widen(tensors: Tensors, network: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a thin network in the widths of ``network``, which has the same layers."""
    layers, wanted = yolov4_network.rename(tensors), network.state_dict()  # other networks' names it leaves as they are
    widened = dict(tensors)
    for name, layer in zip(tensors, layers, strict=True):
        transposed = isinstance(network.get_submodule(layer.rpartition(".")[0]), nn.ConvTranspose2d)
        reading = (0 if transposed else 1) if tensors[name].ndim > 1 else None
        for axis, size in enumerate(wanted[layer].shape):
            if size != tensors[name].shape[axis]:
                places = _FLATTENED.get(name, 1) if axis == reading else 1
                widened[name] = _repeat(widened[name], axis, size, places, divided=axis == reading)
    return widened


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
    main()
