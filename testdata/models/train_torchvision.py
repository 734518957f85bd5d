"""Trains torchvision's detectors on the synthetic shapes; writes their weights in FP16, as its own scripts do.

    python tests/models/train_torchvision.py NETWORK [--output FILE]

One thread, random weights to begin with. Classes are those of ``shapes``, behind torchvision's background, class 0,
where it counts one.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapes
import torch
from masks import label_map
from PIL import Image
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

WEIGHTS = Path(__file__).parent / "weights"
SIDE, _PICTURES = 160, 4096
_BATCH_NORM_MOMENTUM, _WARM_STEPS = 0.1, 100


@dataclass(frozen=True)
class Recipe:
    """How one model is trained: its network, pictures per step, highest learning rate, steps, and the first label."""

    build: Callable[[], Any]
    batch: int
    rate: float
    steps: int
    first: int = 1


def _ssdlite() -> Any:
    return detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=_CLASSES)


def _pyramid(first: int, extra: torch.nn.Module) -> torch.nn.Module:
    """A ResNet-50 of an eighth of the width, so that its weights are small enough to be kept, with a thin pyramid."""
    layers = range(first, 5)
    resnet = ResNet(Bottleneck, [3, 4, 6, 3], width_per_group=8)
    taken = {f"layer{layer}": str(index) for index, layer in enumerate(layers)}
    return BackboneWithFPN(resnet, taken, [128 << layer for layer in layers], _CHANNELS, extra)


def _retinanet() -> Any:
    return detection.RetinaNet(_pyramid(2, LastLevelP6P7(_CHANNELS, _CHANNELS)), _CLASSES - 1)


def _heads() -> dict[str, Any]:
    return {
        "box_head": TwoMLPHead(_CHANNELS * 49, _REGION),
        "box_predictor": FastRCNNPredictor(_REGION, _CLASSES),
        # fewer than for photographs, which have more objects and more room
        "rpn_post_nms_top_n_train": 200,
        "rpn_batch_size_per_image": 64,
        "box_batch_size_per_image": 32,
    }


def build_fasterrcnn() -> Any:
    """Faster R-CNN, which Mask R-CNN is without its branch of masks."""
    return detection.FasterRCNN(_pyramid(1, LastLevelMaxPool()), **_heads())


def _maskrcnn() -> Any:
    return detection.MaskRCNN(
        _pyramid(1, LastLevelMaxPool()),
        mask_head=MaskRCNNHeads(_CHANNELS, [_CHANNELS] * 4, 1),
        mask_predictor=MaskRCNNPredictor(_CHANNELS, _CHANNELS, _CLASSES),
        **_heads(),
    )


_CLASSES = len(shapes.CLASSES) + 1
_CHANNELS, _REGION = 48, 128
RECIPES = {
    "ssdlite320_mobilenet_v3_large": Recipe(_ssdlite, 32, 2e-3, 520),
    "retinanet": Recipe(_retinanet, 8, 1e-3, 3000, first=0),
    "maskrcnn": Recipe(_maskrcnn, 8, 1e-3, 2000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=RECIPES)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    write_checkpoint(train(arguments.network).state_dict(), arguments.output or WEIGHTS / f"{arguments.network}.pt")


def write_checkpoint(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Writes the weights, and with them what they alone do not tell: the size of the input and the classes."""
    weights = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    torch.save({"model": weights, "imgsz": SIDE, "names": list(shapes.CLASSES)}, path)


def write_without_masks(source: Path, path: Path) -> None:
    """Writes the Faster R-CNN that a checkpoint of Mask R-CNN contains."""
    tensors = torch.load(source, weights_only=True)["model"]
    write_checkpoint({name: value for name, value in tensors.items() if ".mask_" not in name}, path)


def build(build_network: Callable[[], Any], size: tuple[int, int] = (SIDE, SIDE)) -> Any:
    """A network with random weights for pictures that are scaled to fill (height, width)."""
    torch.manual_seed(0)
    model = build_network()
    made = model.transform
    model.transform = GeneralizedRCNNTransform(
        1, 1, made.image_mean, made.image_std, size_divisible=1, fixed_size=size[::-1]
    )
    return model


def train(network: str) -> torch.nn.Module:
    """AdamW, with a rate that falls as a cosine."""
    recipe = RECIPES[network]
    model = _quick_statistics(build(recipe.build)).train()
    pictures = [_prepare(picture, recipe.first) for picture in shapes.pictures("train", _PICTURES)]
    optimiser = torch.optim.AdamW(model.parameters(), recipe.rate, weight_decay=1e-4)
    batches = _batches(pictures, recipe.batch)
    for step in range(recipe.steps):
        warm = min(1.0, (step + 1) / _WARM_STEPS)
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * warm * (0.5 + 0.5 * math.cos(math.pi * step / recipe.steps))
        losses = model(*map(list, zip(*next(batches), strict=True)))
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        if step % 50 == 0:
            told = ", ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items())
            print(f"{time.process_time():.0f} s, step {step} of {recipe.steps}: {told}", flush=True)
    return model.eval()


def _quick_statistics(model: torch.nn.Module) -> torch.nn.Module:
    """Let running averages follow within tens of steps: torchvision's .03 is made for 600 epochs."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = _BATCH_NORM_MOMENTUM
    return model


Target = dict[str, torch.Tensor]


def _prepare(picture: shapes.Picture, first: int) -> tuple[torch.Tensor, Target]:
    """Pixels (3, side, side) as bytes, and torchvision's target in pixels of them."""
    height, width = picture.pixels.shape[:2]
    pixels = np.array(Image.fromarray(picture.pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    scale = np.array([SIDE / width, SIDE / height])
    outlines = [shape.outline * scale for shape in picture.shapes]
    corners = np.array([[*outline.min(axis=0), *outline.max(axis=0)] for outline in outlines])
    masks = np.stack([label_map([(0, outline.ravel().tolist())], (SIDE, SIDE)) for outline in outlines])
    target = {
        "boxes": torch.from_numpy(corners).float(),
        "labels": torch.tensor([shape.label + first for shape in picture.shapes]),
        "masks": torch.from_numpy(masks),
    }
    return torch.from_numpy(pixels).permute(2, 0, 1), target


def _batches(pictures: list[tuple[torch.Tensor, Target]], size: int) -> Iterator[list[tuple[torch.Tensor, Target]]]:
    """Batches without end, shuffled anew in every pass, half of the pictures mirrored."""
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(len(pictures), generator=generator).tolist()
        for start in range(0, len(order) - size + 1, size):
            yield [_augment(*pictures[index], generator) for index in order[start : start + size]]


def _augment(pixels: torch.Tensor, target: Target, generator: torch.Generator) -> tuple[torch.Tensor, Target]:
    image = pixels.float() / 255
    if torch.rand((), generator=generator) >= 0.5:
        return image, target
    left, top, right, bottom = target["boxes"].unbind(1)
    boxes = torch.stack([SIDE - right, top, SIDE - left, bottom], 1)
    return image.flip(2), {**target, "boxes": boxes, "masks": target["masks"].flip(2)}


if __name__ == "__main__":
    main()
