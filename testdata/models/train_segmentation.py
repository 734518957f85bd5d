"""Trains the networks for semantic segmentation on synthetic shapes; writes FP16 state dicts.

    PYTHONPATH=testdata:examples python -m models.train_segmentation [unet|deeplabv3|fcn|all]

All start with random weights. One thread, no accelerator.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from modelexport_converter.architectures.torchvision import segmenters
from modelexport_converter.architectures.unet import UNet
from models import shapes
from models.masks import label_map

WEIGHTS = Path(__file__).parent / "weights"
NAMES = ("background", *shapes.CLASSES)
_TRAINING_COUNT = 1600
_RATE, _DECAY = 3e-3, 1e-3
_BRIGHTNESS = 0.2
# About the inverse of the share of background, circles, squares and triangles; else the U-Net left out triangles.
_CLASS_WEIGHTS = (0.2, 1.0, 1.5, 3.0)

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SegmenterTraining:
    """Settings of one training: network, input (H, W), epochs, batch size, and mean and deviation of the pixels."""

    build: Callable[[], nn.Module]
    size: tuple[int, int]
    epochs: int
    batch: int = 16
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    deviation: tuple[float, ...] = (0.229, 0.224, 0.225)


def _deeplab() -> nn.Module:
    backbone, channels = segmenters.build_backbone("mobilenet_v3_small")
    return segmenters.Segmenter(backbone, segmenters.deeplab_head(channels, 64, len(NAMES)))


def _fcn() -> nn.Module:
    backbone, channels = segmenters.build_backbone("mobilenet_v3_small")
    return segmenters.Segmenter(backbone, segmenters.fcn_head(channels, len(NAMES)))


TRAININGS = {
    "unet": SegmenterTraining(
        lambda: UNet((8, 16, 32, 64, 128), len(NAMES)), (128, 128), 5, mean=(0, 0, 0), deviation=(1, 1, 1)
    ),
    "deeplabv3": SegmenterTraining(_deeplab, (160, 160), 6, batch=8),
    # not square, so that height and width cannot change places
    "fcn": SegmenterTraining(_fcn, (160, 192), 6, batch=8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=[*TRAININGS, "all"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in TRAININGS if arguments.model == "all" else [arguments.model]:
        started = time.monotonic()
        checkpoint = train(name)
        print(f"{checkpoint}: trained in {time.monotonic() - started:.0f} s")


def train(name: str) -> Path:
    """Train one model; return its checkpoint, which is replaced after every epoch and always complete."""
    torch.manual_seed(0)
    training, random = TRAININGS[name], np.random.default_rng(0)
    images, labels = _draw(training.size)
    # channels last: faster on a CPU
    network = _quick_statistics(training.build()).train().to(memory_format=torch.channels_last)
    steps = training.epochs * (len(images) // training.batch)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps, pct_start=0.1)
    for epoch in range(training.epochs):
        order, losses = random.permutation(len(images)), []
        for start in range(0, len(order) - training.batch + 1, training.batch):
            chosen = np.sort(order[start : start + training.batch])
            losses.append(_step(network, optimiser, *_augment(images[chosen], labels[chosen], training, random)))
            schedule.step()
        write_checkpoint(network, training, WEIGHTS / f"{name}.pt")
        print(f"{name}: pass {epoch + 1} of {training.epochs}, loss {np.mean(losses):.4f}", flush=True)
    return WEIGHTS / f"{name}.pt"


def _draw(size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    """Return training images (n, H, W, 3), stretched to the input's size, and their classes (n, H, W)."""
    height, width = size
    images = np.empty((_TRAINING_COUNT, height, width, 3), np.uint8)
    labels = np.empty((_TRAINING_COUNT, height, width), np.uint8)
    for index, image in enumerate(shapes.images("train", _TRAINING_COUNT)):
        resized = Image.fromarray(image.pixels).resize((width, height), Image.Resampling.BILINEAR)
        scale = np.array([width, height]) / image.pixels.shape[1::-1]
        outlines = [(shape.label, (shape.outline * scale).ravel().tolist()) for shape in image.shapes]
        images[index], labels[index] = np.asarray(resized), label_map(outlines, size)
    return images, labels


def _quick_statistics(network: nn.Module) -> nn.Module:
    """Let running averages adapt within tens of steps: MobileNetV3's momentum is made for a hundred times as many."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return network


def _augment(
    images: Pixels, labels: Pixels, training: SegmenterTraining, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror every other batch and change its brightness; return the input (B, 3, H, W) and the classes (B, H, W)."""
    if random.random() < 0.5:
        images, labels = images[:, :, ::-1], labels[:, :, ::-1]
    light = 1 + random.uniform(-_BRIGHTNESS, _BRIGHTNESS, (len(images), 1, 1, 1))
    pixels = (images * light / 255).clip(0, 1)
    scaled = ((pixels - training.mean) / training.deviation).astype(np.float32).transpose(0, 3, 1, 2)
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


def write_checkpoint(network: nn.Module, training: SegmenterTraining, checkpoint: Path) -> None:
    """Write the weights, class names and input size, without information about the machine."""
    halved = {
        name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()
    }
    checkpoint.parent.mkdir(exist_ok=True)
    partial = checkpoint.with_suffix(".partial")
    torch.save({"state_dict": halved, "names": list(NAMES), "imgsz": list(training.size)}, partial)
    partial.replace(checkpoint)


if __name__ == "__main__":
    main()
