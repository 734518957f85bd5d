"""torchvision's detectors for the tests: the trained one, untrained ones that detect much, and what is made of them."""

import json
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision.models import detection
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from converter.yolov8_cells import CLASSES, MODELS, Outputs, ask
from modelexport.matrix import BACKENDS, Format, Scheme
from modelexport_converter.architectures.torchvision_detectors import load
from modelexport_converter.backends import Array, load_backend
from modelexport_converter.checkpoint import Checkpoint, read_checkpoint
from modelexport_converter.model import LoadedModel
from modelexport_converter.pictures import Inputs, open_archive, prepare
from models import accuracy

sys.path.insert(0, str(MODELS))
import shapes

WEIGHTS = {"MobileNet": MODELS / "weights/ssdlite320_mobilenet_v3_large.pt"}
SIZE = (160, 160)
_FOLDER = tempfile.TemporaryDirectory(prefix="detectors-")


def build(builder: str, size: tuple[int, int], classes: int = 4) -> Any:
    """A network of torchvision's own that scales pictures to (height, width), with random weights."""
    torch.manual_seed(0)
    network: Any = getattr(detection, builder)(weights=None, weights_backbone=None, num_classes=classes)
    made = network.transform
    network.transform = GeneralizedRCNNTransform(
        1, 1, made.image_mean, made.image_std, size_divisible=1, fixed_size=size[::-1]
    )
    return network


def torchvisions_own(architecture: str) -> Any:
    """The trained network in torchvision's own code."""
    network = build(WEIGHTS[architecture].stem, SIZE)
    network.load_state_dict(torch.load(WEIGHTS[architecture], weights_only=True))
    return network.eval()


def untrained(builder: str, size: tuple[int, int], classes: int = 4) -> Any:
    """A network of torchvision's own with random weights, for inputs (height, width), that detects much.

    Statistics of its normalisation are those of pictures, and what its last layers say differs from place to place.
    """
    network = build(builder, size, classes)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train().backbone(torch.cat(drawn_inputs(4, size)))
        for name, layer in network.eval().named_modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear) and re.search(_LAST_LAYERS, name):
                _spread(layer, -1 if "cls_logits" in name else 0)
        network(drawn(1, size))
    return network


_LAST_LAYERS = r"cls_logits|cls_score|bbox_pred|bbox_reg|mask_fcn_logits|(classification|regression)_head.*\.1$"


def _spread(layer: Any, mean: float) -> None:
    """Give the first values that a layer answers a standard deviation of 1 around ``mean``."""

    def scale(layer: Any, _: Any, answer: torch.Tensor) -> torch.Tensor:
        handle.remove()
        layer.bias.fill_(mean)
        layer.weight.div_(answer.std())
        return (answer - answer.mean()) / answer.std() + mean

    handle = layer.register_forward_hook(scale)


def drawn(count: int, size: tuple[int, int]) -> list[torch.Tensor]:
    """Pictures (3, height, width) of shapes, 0 to 1."""
    found = []
    for picture in shapes.pictures("val", count):
        resized = Image.fromarray(picture.pixels).resize(size[::-1], Image.Resampling.BILINEAR)
        found.append(torch.from_numpy(_pixels(resized)).to(torch.get_default_dtype()))
    return found


def _pixels(image: Image.Image) -> Array:
    from modelexport_converter.model import Preprocessing

    return prepare(image, Preprocessing("stretch"), (image.height, image.width))[0]


def drawn_inputs(count: int, size: tuple[int, int]) -> list[torch.Tensor]:
    return [(picture[None] - 0.45) / 0.25 for picture in drawn(count, size)]


@cache
def load_trained(architecture: str) -> LoadedModel:
    return load(read_checkpoint(WEIGHTS[architecture]), ask(architecture, input_size=SIZE))


def load_untrained(network: Any, architecture: str, size: tuple[int, int], **parameters: Any) -> LoadedModel:
    return load(Checkpoint(network.state_dict()), ask(architecture, input_size=size, **parameters))


def inputs(architecture: str, data: str, count: int | None = None) -> Sequence[Array]:
    """Inputs (1, 3, height, width) from ``eval`` or ``calibration`` pictures."""
    model = load_trained(architecture)
    return Inputs(open_archive(MODELS / f"data/{data}.zip", data)[:count], model.preprocessing, model.input_size)


@cache
def eval_inputs(architecture: str) -> tuple[Array, ...]:
    return tuple(inputs(architecture, "eval"))


def run_model(model: LoadedModel, image: Array) -> Outputs:
    with torch.inference_mode():
        return tuple(output.numpy() for output in model.module(torch.from_numpy(image)))


@cache
def produce(architecture: str, fmt: Format, scheme: Scheme) -> Path:
    """The file of one cell, calibrated on all the calibration pictures where its scheme needs them."""
    backend, model = load_backend(fmt), load_trained(architecture)
    path = Path(_FOLDER.name) / f"{architecture}-{scheme}{BACKENDS[fmt].suffix.removesuffix('.zip')}"
    if scheme is Scheme.FP32:
        backend.convert(model, path)
    else:
        samples = inputs(architecture, "calibration") if scheme.needs_calibration else ()
        backend.quantise(model, produce(architecture, fmt, Scheme.FP32), scheme, samples, path)
    return path


def open_cell(architecture: str, fmt: Format, scheme: Scheme) -> Callable[[Array], Outputs]:
    return load_backend(fmt).open_file(load_trained(architecture), produce(architecture, fmt, scheme))


def measure(architecture: str, answers: Sequence[Outputs]) -> float:
    """mAP50-95 of the boxes in the answers to all the evaluation pictures, in their order."""
    truth = json.loads((MODELS / "data/eval.json").read_text())
    model = load_trained(architecture)
    skipped = len(model.class_names) - len(CLASSES)
    found = {}
    for image, (boxes, scores, labels, count, *_) in zip(truth["images"], answers, strict=True):
        filled = slice(int(count.reshape(-1)[0]))
        pixels = boxes[0, filled] * ([image["width"], image["height"]] * 2)
        found[image["id"]] = accuracy.Found(
            pixels, scores[0, filled], labels[0, filled] - skipped, (), torch.zeros(len(pixels), 0, 3).numpy()
        )
    return accuracy.box_map(truth, found)


@cache
def reference(architecture: str) -> float:
    """Accuracy of the original model in FP32."""
    model = load_trained(architecture)
    return measure(architecture, [run_model(model, image) for image in eval_inputs(architecture)])
