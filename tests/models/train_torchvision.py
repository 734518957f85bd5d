"""Trains torchvision's detectors on the synthetic shapes; writes their weights in FP16, as its own scripts do.

    python tests/models/train_torchvision.py ARCHITECTURE [--seconds SECONDS] [--output FILE]

One thread, random weights to begin with. Classes are those of ``shapes`` behind torchvision's background, class 0.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapes
import torch
from PIL import Image
from torchvision.models import detection
from torchvision.models.detection.transform import GeneralizedRCNNTransform

WEIGHTS = Path(__file__).parent / "weights"
_BATCH_NORM_MOMENTUM, _WARM_STEPS = 0.1, 100


@dataclass(frozen=True)
class Recipe:
    """How one model is trained: side of its input in pixels, pictures per step, highest learning rate, and seconds."""

    side: int
    batch: int
    rate: float
    seconds: float
    pictures: int = 4096


RECIPES = {
    "ssdlite320_mobilenet_v3_large": Recipe(160, 32, 2e-3, 3600),
    "fasterrcnn_mobilenet_v3_large_320_fpn": Recipe(160, 16, 1e-3, 3600),
    "retinanet_resnet50_fpn": Recipe(128, 8, 5e-4, 3600),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", choices=RECIPES)
    parser.add_argument("--seconds", type=float, help="how long to train")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    recipe = RECIPES[arguments.architecture]
    output = arguments.output or WEIGHTS / f"{arguments.architecture}.pt"
    model = train(arguments.architecture, recipe, arguments.seconds or recipe.seconds)
    write_checkpoint(model, recipe.side, output)


def write_checkpoint(model: torch.nn.Module, side: int, path: Path) -> None:
    """Writes the weights, and with them what they alone do not tell: the size of the input and the classes."""
    weights = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    torch.save({"model": weights, "imgsz": side, "names": list(shapes.CLASSES)}, path)


def build(architecture: str, side: int) -> Any:
    """A network with random weights for inputs (3, side, side) that are scaled to fill it."""
    torch.manual_seed(0)
    builder = getattr(detection, architecture)
    model = builder(weights=None, weights_backbone=None, num_classes=len(shapes.CLASSES) + 1)
    transform = model.transform
    model.transform = GeneralizedRCNNTransform(
        side, side, transform.image_mean, transform.image_std, fixed_size=(side, side)
    )
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # torchvision's .03 is made for 600 epochs: statistics would lag behind the weights for the whole training.
            module.momentum = _BATCH_NORM_MOMENTUM
    return model


def train(architecture: str, recipe: Recipe, seconds: float) -> torch.nn.Module:
    """AdamW with a cosine schedule over the time that is given."""
    torch.set_num_threads(1)
    model = build(architecture, recipe.side).train()
    pictures = [_prepare(picture, recipe.side) for picture in shapes.pictures("train", recipe.pictures)]
    optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), recipe.rate, weight_decay=1e-4)
    started = time.monotonic()
    for step, batch in enumerate(_batches(pictures, recipe.batch)):
        done = (time.monotonic() - started) / seconds
        if done >= 1:
            break
        for group in optimiser.param_groups:
            warm = min(1.0, (step + 1) / _WARM_STEPS)
            group["lr"] = recipe.rate * warm * (0.5 + 0.5 * math.cos(math.pi * done))
        loss = torch.stack(list(model([image for image, _ in batch], [target for _, target in batch]).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        if step % 50 == 0:
            print(f"{done * seconds:.0f} s, step {step}: loss {loss.item():.3f}", flush=True)
    return model.eval()


def _prepare(picture: shapes.Picture, side: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Pixels (3, side, side) as bytes, and torchvision's target in pixels of them."""
    height, width = picture.pixels.shape[:2]
    pixels = np.array(Image.fromarray(picture.pixels).resize((side, side), Image.Resampling.BILINEAR))
    boxes = torch.tensor([shape.box for shape in picture.shapes])
    corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1) * torch.tensor(
        [side / width, side / height] * 2
    )
    labels = torch.tensor([shape.label + 1 for shape in picture.shapes])
    return torch.from_numpy(pixels).permute(2, 0, 1), {"boxes": corners.float(), "labels": labels}


def _batches(pictures: list[Any], size: int) -> Iterator[list[Any]]:
    """Batches without end, shuffled anew in every pass, half of the pictures mirrored."""
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(len(pictures), generator=generator).tolist()
        for start in range(0, len(order) - size + 1, size):
            yield [_augment(*pictures[index], generator) for index in order[start : start + size]]


def _augment(
    pixels: torch.Tensor, target: dict[str, torch.Tensor], generator: torch.Generator
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    image, boxes = pixels.float() / 255, target["boxes"]
    if torch.rand((), generator=generator) < 0.5:
        image = image.flip(2)
        left, top, right, bottom = boxes.unbind(1)
        boxes = torch.stack([image.shape[2] - right, top, image.shape[2] - left, bottom], 1)
    return image, {"boxes": boxes, "labels": target["labels"]}


if __name__ == "__main__":
    main()
