"""Trains the detectors of the tests that no package trains, on synthetic shapes; writes their weights in FP16.

    python tests/models/train_detectors.py [yolox|yolov4]

YOLOX nano gets the names of Megvii's layers, a half as wide YOLOv4-tiny those of pytorch-YOLOv4's Darknet. Both are
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
import shapes
import torch
from PIL import Image
from torch.nn import functional

from modelexport_converter.architectures import yolov4_network, yolox_network
from modelexport_converter.pictures import letterbox

WEIGHTS = Path(__file__).parent / "weights"
SIDE = 160
CLASSES = len(shapes.CLASSES)
_TRAINING_COUNT, _BATCH = 1600, 16
_MOST_SHAPES = 4
_LEARNING_RATE, _WEIGHT_DECAY = 2e-3, 5e-4
_IOU_COST, _IOU_WEIGHT, _FORBIDDEN = 3.0, 5.0, 1e5
_RARE = -math.log(99)
"""A logit to begin with: nearly all cells see nothing."""
_CANDIDATES = 10
"""The predictions whose overlaps with an object say how many of them are given to it."""


@dataclass(frozen=True)
class Recipe:
    """How one detector is trained: passes over the data, the reach of a cell, and how it sees RGB bytes.

    Cells predict an object whose centre is ``reach`` cells away from theirs at most, along both axes.
    """

    file: str
    epochs: int
    reach: float
    see: Callable[[torch.Tensor], torch.Tensor]


RECIPES = {
    "yolox": Recipe("yolox_nano.pth", 16, 1.5, lambda images: images.flip(1)),
    "yolov4": Recipe("yolov4_tiny.pth", 20, 0.5, lambda images: images / 255),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=RECIPES)
    model = parser.parse_args().model
    torch.set_num_threads(1)
    torch.manual_seed(0)
    started = time.monotonic()
    train(build(model), model)
    print(f"{RECIPES[model].file}: trained in {time.monotonic() - started:.0f} s")


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
        bias = network.models[number].conv.bias
        with torch.no_grad():
            bias.view(yolov4_network.SHAPES, -1)[:, 4:] = _RARE
    return network


def train(network: Any, model: str) -> None:
    """Trains, and writes the weights after every epoch."""
    recipe = RECIPES[model]
    pixels, truth = draw_examples()
    network.to(memory_format=torch.channels_last)  # a third faster on a CPU
    optimizer = torch.optim.AdamW(network.parameters(), _LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    steps = recipe.epochs * (len(pixels) // _BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
    for epoch in range(recipe.epochs):
        total = 0.0
        for images, objects in _batches(pixels, truth):
            optimizer.zero_grad()
            loss = measure_loss(network, recipe.see(images), objects, recipe.reach)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 10)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / (len(pixels) // _BATCH):.3f}", flush=True)
        write_checkpoint(network, model)


def _rate(progress: float) -> float:
    """Rises for a twentieth of the training and falls to a fiftieth like a cosine."""
    return min(progress * 20, 0.51 + 0.49 * math.cos(math.pi * progress)) + 1e-3


def draw_examples() -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels (count, 3, SIDE, SIDE) in RGB as bytes, and objects (count, 4, 5): boxes as the networks give them, and
    the class, -1 where there is no object."""
    pixels, objects = zip(*map(_prepare, shapes.pictures("train", _TRAINING_COUNT)), strict=True)
    return torch.stack(pixels), torch.stack(objects)


def _prepare(picture: shapes.Picture) -> tuple[torch.Tensor, torch.Tensor]:
    boxed = np.array(letterbox(Image.fromarray(picture.pixels), (SIDE, SIDE)))
    height, width = picture.pixels.shape[:2]
    most = max(height, width)
    objects = torch.full((_MOST_SHAPES, 5), -1.0)
    for row, shape in enumerate(picture.shapes):
        left, top, across, down = shape.box
        x, y = left + (most - width + across) / 2, top + (most - height + down) / 2
        objects[row] = torch.tensor([x / most, y / most, across / most, down / most, shape.label])
    return torch.from_numpy(boxed).permute(2, 0, 1), objects


def _batches(pixels: torch.Tensor, truth: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """All examples in random order, half of them mirrored, zoomed and shifted."""
    for chosen in torch.randperm(len(pixels)).split(_BATCH):
        if len(chosen) == _BATCH:
            yield _move(pixels[chosen].float(), truth[chosen])


def _move(images: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror, zoom by up to a fifth and shift by up to a tenth, each picture in its own way."""
    zoom = 1 + 0.2 * (2 * torch.rand(_BATCH, 1) - 1)
    mirror = torch.where(torch.rand(_BATCH, 1) < 0.5, -1.0, 1.0)
    shift = 0.2 * (2 * torch.rand(_BATCH, 2) - 1)
    scale = torch.cat([mirror * zoom, zoom], 1)  # of what is seen in the new picture
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
    """Loss of YOLOX for images and objects (B, 4, 5) as ``draw_examples`` gives them."""
    boxes, objects, classes = network.predict(images)
    with torch.no_grad():
        likely = (objects.sigmoid() * classes.sigmoid()).sqrt().clamp(1e-6, 1 - 1e-6)
        given = assign(network.decoder, boxes, likely, truth, reach)  # (B, 4, N)
    picture, row, cell = given.nonzero(as_tuple=True)
    overlap = _overlap(boxes[picture, :, cell], truth[picture, row, :4])
    wanted = functional.one_hot(truth[picture, row, 4].long(), CLASSES) * overlap.detach()[:, None]
    taken = given.any(1, keepdim=True).float()
    total = (
        _IOU_WEIGHT * (1 - overlap**2).sum()
        + functional.binary_cross_entropy_with_logits(objects, taken, reduction="sum")
        + functional.binary_cross_entropy_with_logits(classes[picture, :, cell], wanted, reduction="sum")
    )
    return total / max(1, len(picture))


def assign(decoder: Any, boxes: torch.Tensor, likely: torch.Tensor, truth: torch.Tensor, reach: float) -> torch.Tensor:
    """Which of the N predictions belong to which object, (B, 4, N): SimOTA, section 2.1 of the paper."""
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
    """Intersection over union of boxes (..., 4) given as centre and size."""
    low = torch.maximum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    high = torch.minimum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    shared = (high - low).clamp(0).prod(-1)
    return shared / (a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - shared + 1e-9)


def write_checkpoint(network: Any, model: str) -> None:
    """Writes the weights as the model's own trainer does, without anything of the machine that made them."""
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
        if not name.startswith("decoder.")
    }
    checkpoint = WEIGHTS / RECIPES[model].file
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
