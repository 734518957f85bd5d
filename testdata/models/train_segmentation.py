"""Trains the networks that give every pixel a class on synthetic shapes; writes FP16 state dicts.

    python tests/models/train_segmentation.py [unet|deeplabv3|fcn|all]

All begin with random weights. One thread, no accelerator.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapes
import torch
from masks import label_map
from PIL import Image
from torch import nn
from torch.nn import functional

from modelexport_converter.architectures import torchvision_segmenters
from modelexport_converter.architectures.unet import UNet

WEIGHTS = Path(__file__).parent / "weights"
NAMES = ("background", *shapes.CLASSES)
_TRAINING_COUNT = 1600
_RATE, _DECAY = 3e-3, 1e-3
_BRIGHTNESS = 0.2
# About the inverse of the share of background, circles, squares and triangles; else the U-Net left out triangles.
_CLASS_WEIGHTS = (0.2, 1.0, 1.5, 3.0)

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Recipe:
    """How one model is trained: its network, its input (height, width), passes over the data, pictures per step, and
    mean and deviation of the pixels that it is given."""

    build: Callable[[], nn.Module]
    size: tuple[int, int]
    epochs: int
    batch: int = 16
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    deviation: tuple[float, ...] = (0.229, 0.224, 0.225)


def _deeplab() -> nn.Module:
    backbone, channels = torchvision_segmenters.build_backbone("mobilenet_v3_small")
    return torchvision_segmenters.Segmenter(backbone, torchvision_segmenters.deeplab_head(channels, 64, len(NAMES)))


def _fcn() -> nn.Module:
    backbone, channels = torchvision_segmenters.build_backbone("mobilenet_v3_small")
    return torchvision_segmenters.Segmenter(backbone, torchvision_segmenters.fcn_head(channels, len(NAMES)))


RECIPES = {
    "unet": Recipe(lambda: UNet((8, 16, 32, 64, 128), len(NAMES)), (128, 128), 5, mean=(0, 0, 0), deviation=(1, 1, 1)),
    "deeplabv3": Recipe(_deeplab, (160, 160), 6, batch=8),
    # not square, so that height and width cannot change places
    "fcn": Recipe(_fcn, (160, 192), 6, batch=8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=[*RECIPES, "all"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in RECIPES if arguments.model == "all" else [arguments.model]:
        started = time.monotonic()
        checkpoint = train(name)
        print(f"{checkpoint}: trained in {time.monotonic() - started:.0f} s")


def train(name: str) -> Path:
    """Trains one model and returns its checkpoint, which is replaced after every epoch and complete at any moment."""
    torch.manual_seed(0)
    recipe, random = RECIPES[name], np.random.default_rng(0)
    pictures, labels = _draw(recipe.size)
    # channels last: faster on a CPU
    network = _quick_statistics(recipe.build()).train().to(memory_format=torch.channels_last)
    steps = recipe.epochs * (len(pictures) // recipe.batch)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps, pct_start=0.1)
    for epoch in range(recipe.epochs):
        order, losses = random.permutation(len(pictures)), []
        for start in range(0, len(order) - recipe.batch + 1, recipe.batch):
            chosen = np.sort(order[start : start + recipe.batch])
            losses.append(_step(network, optimiser, *_augment(pictures[chosen], labels[chosen], recipe, random)))
            schedule.step()
        write_checkpoint(network, recipe, WEIGHTS / f"{name}.pt")
        print(f"{name}: pass {epoch + 1} of {recipe.epochs}, loss {np.mean(losses):.4f}", flush=True)
    return WEIGHTS / f"{name}.pt"


def _draw(size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    """Training pictures (n, height, width, 3), stretched to the input's size, and their classes (n, height, width)."""
    height, width = size
    pictures = np.empty((_TRAINING_COUNT, height, width, 3), np.uint8)
    labels = np.empty((_TRAINING_COUNT, height, width), np.uint8)
    for index, picture in enumerate(shapes.pictures("train", _TRAINING_COUNT)):
        resized = Image.fromarray(picture.pixels).resize((width, height), Image.Resampling.BILINEAR)
        scale = np.array([width, height]) / picture.pixels.shape[1::-1]
        outlines = [(shape.label, (shape.outline * scale).ravel().tolist()) for shape in picture.shapes]
        pictures[index], labels[index] = np.asarray(resized), label_map(outlines, size)
    return pictures, labels


def _quick_statistics(network: nn.Module) -> nn.Module:
    """Let running averages follow within tens of steps: those of MobileNetV3 are made for a hundred times as many."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return network


def _augment(
    pictures: Pixels, labels: Pixels, recipe: Recipe, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror half of the steps and change the brightness; the result is the input of the network and its answer."""
    if random.random() < 0.5:
        pictures, labels = pictures[:, :, ::-1], labels[:, :, ::-1]
    light = 1 + random.uniform(-_BRIGHTNESS, _BRIGHTNESS, (len(pictures), 1, 1, 1))
    pixels = (pictures * light / 255).clip(0, 1)
    scaled = ((pixels - recipe.mean) / recipe.deviation).astype(np.float32).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(scaled)), torch.from_numpy(labels.astype(np.int64))


def _step(network: nn.Module, optimiser: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> float:
    logits = network(images.to(memory_format=torch.channels_last))
    size = (labels.shape[1], labels.shape[2])
    logits = functional.interpolate(logits, size, mode="bilinear")
    loss = functional.cross_entropy(logits, labels, torch.tensor(_CLASS_WEIGHTS))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return float(loss.detach())


def write_checkpoint(network: nn.Module, recipe: Recipe, checkpoint: Path) -> None:
    """Writes the weights with what else a user of them has to know, and nothing of the machine that made them."""
    halved = {
        name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()
    }
    checkpoint.parent.mkdir(exist_ok=True)
    partial = checkpoint.with_suffix(".partial")
    torch.save({"state_dict": halved, "names": list(NAMES), "imgsz": list(recipe.size)}, partial)
    partial.replace(checkpoint)


if __name__ == "__main__":
    main()
