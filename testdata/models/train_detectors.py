"""Trains the test detectors that no package trains, on synthetic shapes; writes their weights in FP16.

    PYTHONPATH=testdata:examples python -m models.train_detectors [yolox|yolov4]

YOLOX nano uses the layer names of Megvii, a YOLOv4-tiny of half the width those of pytorch-YOLOv4's Darknet. Both are
trained by the assignment and the loss of YOLOX, https://arxiv.org/abs/2107.08430. One thread, no accelerator.
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
import torch
from PIL import Image
from torch.nn import functional

from modelexport_converter.architectures.yolov4 import network as yolov4_network
from modelexport_converter.architectures.yolox import network as yolox_network
from modelexport_converter.inputs.images import letterbox
from models import shapes

WEIGHTS = Path(__file__).parent / "weights"
SIDE = 160
CLASSES = len(shapes.CLASSES)
_TRAINING_COUNT, _BATCH = 1600, 16
_MOST_SHAPES = 4
_LEARNING_RATE, _WEIGHT_DECAY = 2e-3, 5e-4
_IOU_COST, _IOU_WEIGHT, _FORBIDDEN = 3.0, 5.0, 1e5
_RARE = -math.log(99)
"""Initial logit: nearly all cells predict nothing."""
_CANDIDATES = 10
"""The predictions whose overlaps with an object determine how many of them are assigned to it."""


@dataclass(frozen=True)
class DetectorTraining:
    """Settings of one training: epochs, the reach of a cell, and the conversion of RGB bytes to the input.

    Cells predict an object whose centre is at most ``reach`` cells from theirs, along both axes.
    """

    file: str
    epochs: int
    reach: float
    see: Callable[[torch.Tensor], torch.Tensor]


TRAININGS = {
    "yolox": DetectorTraining("yolox_nano.pth", 16, 1.5, lambda images: images.flip(1)),
    "yolov4": DetectorTraining("yolov4_tiny.pth", 20, 0.5, lambda images: images / 255),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=TRAININGS)
    model = parser.parse_args().model
    torch.set_num_threads(1)
    torch.manual_seed(0)
    started = time.monotonic()
    train(build(model), model)
    print(f"{TRAININGS[model].file}: trained in {time.monotonic() - started:.0f} s")


def build(model: str) -> Any:
    return build_yolox() if model == "yolox" else build_yolov4()


def build_yolox() -> Any:
    network = yolox_network.Network("nano", CLASSES, (SIDE, SIDE))
    for layer in (*network.head.cls_preds, *network.head.obj_preds):
        torch.nn.init.constant_(layer.bias, _RARE)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = yolox_network.EPSILON
    return network


def build_yolov4() -> Any:
    network = yolov4_network.Tiny(yolov4_network.WIDTH // 2, CLASSES, (SIDE, SIDE))
    for number in ("29", "36"):
        bias = network.get_parameter(f"models.{number}.conv.bias")
        with torch.no_grad():
            bias.view(yolov4_network.SHAPES, -1)[:, 4:] = _RARE
    return network


def train(network: Any, model: str) -> None:
    """Train, and write the weights after every epoch."""
    training = TRAININGS[model]
    pixels, truth = draw_examples()
    network.to(memory_format=torch.channels_last)  # a third faster on a CPU
    optimizer = torch.optim.AdamW(network.parameters(), _LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    steps = training.epochs * (len(pixels) // _BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
    for epoch in range(training.epochs):
        total = 0.0
        for images, objects in _batches(pixels, truth):
            optimizer.zero_grad()
            loss = measure_loss(network, training.see(images), objects, training.reach)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 10)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / (len(pixels) // _BATCH):.3f}", flush=True)
        write_checkpoint(network, model)


def _rate(progress: float) -> float:
    """Return the learning rate factor: rises for a twentieth of the training, then falls to a fiftieth as a cosine."""
    return min(progress * 20, 0.51 + 0.49 * math.cos(math.pi * progress)) + 1e-3


def draw_examples() -> tuple[torch.Tensor, torch.Tensor]:
    """Return pixels (count, 3, SIDE, SIDE) in RGB as bytes, and objects (count, 4, 5).

    Objects are boxes in the format of the networks, and the class, -1 if there is no object.
    """
    pixels, objects = zip(*map(_prepare, shapes.images("train", _TRAINING_COUNT)), strict=True)
    return torch.stack(pixels), torch.stack(objects)


def _prepare(image: shapes.Scene) -> tuple[torch.Tensor, torch.Tensor]:
    boxed = np.array(letterbox(Image.fromarray(image.pixels), (SIDE, SIDE)))
    height, width = image.pixels.shape[:2]
    most = max(height, width)
    objects = torch.full((_MOST_SHAPES, 5), -1.0)
    for row, shape in enumerate(image.shapes):
        left, top, across, down = shape.box
        x, y = left + (most - width + across) / 2, top + (most - height + down) / 2
        objects[row] = torch.tensor([x / most, y / most, across / most, down / most, shape.label])
    return torch.from_numpy(boxed).permute(2, 0, 1), objects


def _batches(pixels: torch.Tensor, truth: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield all examples in random order, half of them mirrored, zoomed and shifted."""
    for chosen in torch.randperm(len(pixels)).split(_BATCH):
        if len(chosen) == _BATCH:
            yield _move(pixels[chosen].float(), truth[chosen])


def _move(images: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror, zoom by up to a fifth and shift by up to a tenth, each image (B, 3, H, W) with its own values."""
    zoom = 1 + 0.2 * (2 * torch.rand(_BATCH, 1) - 1)
    mirror = torch.where(torch.rand(_BATCH, 1) < 0.5, -1.0, 1.0)
    shift = 0.2 * (2 * torch.rand(_BATCH, 2) - 1)
    scale = torch.cat([mirror * zoom, zoom], 1)  # of what is seen in the new image
    placing = torch.cat([torch.diag_embed(scale), shift[..., None]], 2)
    field = functional.affine_grid(placing, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images - 114, field, align_corners=False) + 114
    centres = ((2 * truth[..., :2] - 1 - shift[:, None]) / scale[:, None] + 1) / 2
    extents = truth[..., 2:4] / zoom[:, None]
    low, high = (centres - extents / 2).clamp(0, 1), (centres + extents / 2).clamp(0, 1)
    kept = truth[..., 4].where((high - low).prod(2) > 0.3 * extents.prod(2), -1.0)
    return moved.contiguous(memory_format=torch.channels_last), torch.cat(
        [(low + high) / 2, high - low, kept[..., None]], 2
    )


def measure_loss(network: Any, images: torch.Tensor, truth: torch.Tensor, reach: float) -> torch.Tensor:
    """Return the loss of YOLOX for images (B, 3, H, W) and objects (B, 4, 5) from ``draw_examples``."""
    boxes, objects, classes = network.predict(images)
    with torch.no_grad():
        likely = (objects.sigmoid() * classes.sigmoid()).sqrt().clamp(1e-6, 1 - 1e-6)
        given = assign(network.decoder, boxes, likely, truth, reach)  # (B, 4, N)
    image, row, cell = given.nonzero(as_tuple=True)
    overlap = _overlap(boxes[image, :, cell], truth[image, row, :4])
    wanted = functional.one_hot(truth[image, row, 4].long(), CLASSES) * overlap.detach()[:, None]
    taken = given.any(1, keepdim=True).float()
    total = (
        _IOU_WEIGHT * (1 - overlap**2).sum()
        + functional.binary_cross_entropy_with_logits(objects, taken, reduction="sum")
        + functional.binary_cross_entropy_with_logits(classes[image, :, cell], wanted, reduction="sum")
    )
    return total / max(1, len(image))


def assign(decoder: Any, boxes: torch.Tensor, likely: torch.Tensor, truth: torch.Tensor, reach: float) -> torch.Tensor:
    """Return which of the N predictions belong to which object, (B, 4, N): SimOTA, section 2.1 of the paper."""
    centres = decoder.corners + decoder.cells / 2
    away = (centres - truth[:, :, :2, None]).abs() / decoder.cells  # (B, 4, 2, N)
    near = (away <= reach).all(2) & (truth[..., 4:] >= 0)
    overlap = _overlap(boxes.transpose(1, 2)[:, None], truth[:, :, None, :4])  # (B, 4, N)
    label = functional.one_hot(truth[..., 4].long().clamp(0), CLASSES).float()
    unlike = -(label @ likely.log() + (1 - label) @ (1 - likely).log())
    cost = unlike - _IOU_COST * (overlap + 1e-8).log() + _FORBIDDEN * ~near
    counts = (overlap * near).topk(_CANDIDATES, 2).values.sum(2).int().clamp(1)
    given = (cost.argsort(2).argsort(2) < counts[..., None]) & near
    best = functional.one_hot(cost.argmin(1), truth.shape[1]).transpose(1, 2).bool()
    return given & (best | (given.sum(1, keepdim=True) < 2))


def _overlap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return intersection over union of boxes (..., 4) given as centre and size: (...)."""
    low = torch.maximum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    high = torch.minimum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    shared = (high - low).clamp(0).prod(-1)
    return shared / (a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - shared + 1e-9)


def write_checkpoint(network: Any, model: str) -> None:
    """Write the weights as the model's own trainer does, without information about the machine."""
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
        if not name.startswith("decoder.")
    }
    checkpoint = WEIGHTS / TRAININGS[model].file
    partial = checkpoint.with_suffix(".partial")
    weights = tensors if model == "yolox" else name_as_darknet(tensors)
    torch.save({"model": weights, "names": list(shapes.CLASSES), "imgsz": SIDE}, partial)
    partial.replace(checkpoint)


def name_as_darknet(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Number the convolutions in their order, as pytorch-YOLOv4 does: ``models.1.conv2.weight``."""
    layers = sorted({int(name.split(".")[1]) for name in tensors})
    numbers = {str(layer): index + 1 for index, layer in enumerate(layers)}
    parts = [(name.split(".", 3), value) for name, value in tensors.items()]
    return {f"models.{layer}.{kind}{numbers[layer]}.{rest}": value for (_, layer, kind, rest), value in parts}


if __name__ == "__main__":
    main()
