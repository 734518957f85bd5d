"""Trains torchvision's detectors on the synthetic shapes; writes their weights in FP16, as its own scripts do.

    PYTHONPATH=testdata:examples python -m models.train_torchvision NETWORK [--output FILE]

One thread, random initial weights. Classes are those of ``shapes``, after torchvision's background, class 0, for the
networks that count one.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from models import shapes
from models.masks import label_map

WEIGHTS = Path(__file__).parent / "weights"
SIDE, _IMAGES = 160, 4096
_BATCH_NORM_MOMENTUM, _WARM_STEPS = 0.1, 100


@dataclass(frozen=True)
class TorchvisionTraining:
    """Settings of one training: network, batch size, highest learning rate, steps, and the first label."""

    build: Callable[[], Any]
    batch: int
    rate: float
    steps: int
    first: int = 1


def _pyramid(first: int, extra: torch.nn.Module) -> torch.nn.Module:
    """Return a ResNet-50 of an eighth of the width, so that its weights are small enough to commit, with a thin
    pyramid.
    """
    layers = range(first, 5)
    resnet = ResNet(Bottleneck, [3, 4, 6, 3], width_per_group=8)
    taken = {f"layer{layer}": str(index) for index, layer in enumerate(layers)}
    return BackboneWithFPN(resnet, taken, [128 << layer for layer in layers], _CHANNELS, extra)


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
    """Return a Faster R-CNN: the Mask R-CNN without its mask branch."""
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
TRAININGS = {
    "ssdlite320_mobilenet_v3_large": TorchvisionTraining(
        partial(detection.ssdlite320_mobilenet_v3_large, weights=None, weights_backbone=None, num_classes=_CLASSES),
        32,
        2e-3,
        520,
    ),
    "retinanet": TorchvisionTraining(
        lambda: detection.RetinaNet(_pyramid(2, LastLevelP6P7(_CHANNELS, _CHANNELS)), _CLASSES - 1),
        8,
        1e-3,
        3000,
        first=0,
    ),
    "maskrcnn": TorchvisionTraining(_maskrcnn, 8, 1e-3, 2000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=TRAININGS)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    write_checkpoint(train(arguments.network).state_dict(), arguments.output or WEIGHTS / f"{arguments.network}.pt")


def write_checkpoint(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write the weights with the input size and the class names, which weights do not contain."""
    weights = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    torch.save({"model": weights, "imgsz": SIDE, "names": list(shapes.CLASSES)}, path)


def write_without_masks(source: Path, path: Path) -> None:
    """Write the Faster R-CNN that a checkpoint of Mask R-CNN contains."""
    tensors = torch.load(source, weights_only=True)["model"]
    write_checkpoint({name: value for name, value in tensors.items() if ".mask_" not in name}, path)


def build(build_network: Callable[[], Any], size: tuple[int, int] = (SIDE, SIDE)) -> Any:
    """Return a network with random weights for images that are scaled to fill (H, W)."""
    torch.manual_seed(0)
    model = build_network()
    made = model.transform
    model.transform = GeneralizedRCNNTransform(
        1, 1, made.image_mean, made.image_std, size_divisible=1, fixed_size=size[::-1]
    )
    return model


def train(network: str) -> torch.nn.Module:
    """Train with AdamW, and a learning rate that falls like a cosine."""
    training = TRAININGS[network]
    model = _quick_statistics(build(training.build)).train()
    images = [_prepare(image, training.first) for image in shapes.images("train", _IMAGES)]
    optimiser = torch.optim.AdamW(model.parameters(), training.rate, weight_decay=1e-4)
    batches = _batches(images, training.batch)
    for step in range(training.steps):
        warm = min(1.0, (step + 1) / _WARM_STEPS)
        for group in optimiser.param_groups:
            group["lr"] = training.rate * warm * (0.5 + 0.5 * math.cos(math.pi * step / training.steps))
        losses = model(*map(list, zip(*next(batches), strict=True)))
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        if step % 50 == 0:
            report = ", ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items())
            print(f"{time.process_time():.0f} s, step {step} of {training.steps}: {report}", flush=True)
    return model.eval()


def _quick_statistics(model: torch.nn.Module) -> torch.nn.Module:
    """Let running averages adapt within tens of steps: torchvision's .03 is made for 600 epochs."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = _BATCH_NORM_MOMENTUM
    return model


Target = dict[str, torch.Tensor]


def _prepare(image: shapes.Scene, first: int) -> tuple[torch.Tensor, Target]:
    """Return pixels (3, side, side) as bytes, and torchvision's target in these pixels."""
    height, width = image.pixels.shape[:2]
    pixels = np.array(Image.fromarray(image.pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    scale = np.array([SIDE / width, SIDE / height])
    outlines = [shape.outline * scale for shape in image.shapes]
    corners = np.array([[*outline.min(axis=0), *outline.max(axis=0)] for outline in outlines])
    masks = np.stack([label_map([(0, outline.ravel().tolist())], (SIDE, SIDE)) for outline in outlines])
    target = {
        "boxes": torch.from_numpy(corners).float(),
        "labels": torch.tensor([shape.label + first for shape in image.shapes]),
        "masks": torch.from_numpy(masks),
    }
    return torch.from_numpy(pixels).permute(2, 0, 1), target


def _batches(images: list[tuple[torch.Tensor, Target]], size: int) -> Iterator[list[tuple[torch.Tensor, Target]]]:
    """Yield batches without end, shuffled in every epoch, half of the images mirrored."""
    generator = torch.Generator().manual_seed(0)
    while True:
        order: list[int] = torch.randperm(len(images), generator=generator).tolist()
        for start in range(0, len(order) - size + 1, size):
            yield [_augment(*images[index], generator) for index in order[start : start + size]]


def _augment(pixels: torch.Tensor, target: Target, generator: torch.Generator) -> tuple[torch.Tensor, Target]:
    image = pixels.float() / 255
    if torch.rand((), generator=generator) >= 0.5:
        return image, target
    left, top, right, bottom = target["boxes"].unbind(1)
    boxes = torch.stack([SIDE - right, top, SIDE - left, bottom], 1)
    return image.flip(2), {**target, "boxes": boxes, "masks": target["masks"].flip(2)}


if __name__ == "__main__":
    main()
