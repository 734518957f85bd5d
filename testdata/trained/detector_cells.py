"""torchvision's detectors for the tests: trained ones with their accuracy, and untrained ones that detect a lot."""

import re
import tempfile
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as rle
from torchvision.models import detection
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from modelexport_converter.backends import Array
from modelexport_converter.evaluation.detections import ImageDetections
from modelexport_converter.inputs.images import prepare
from modelexport_converter.model import LoadedModel, Preprocessing
from models import accuracy, shapes, train_torchvision
from paste_masks import paste_masks
from trained.model import MODELS, Outputs, Trained, truth


def measure(model: LoadedModel, answers: Sequence[Outputs]) -> dict[str, float]:
    """Mean precision of the boxes and, where there are some, of the masks, on images that were stretched."""
    skipped = len(model.class_names) - len(shapes.CLASSES)  # the background
    found = {}
    for image, (boxes, scores, labels, count, *masks) in zip(truth()["images"], answers, strict=True):
        filled = slice(int(count.reshape(-1)[0]))
        size = image["height"], image["width"]
        outlines = [_encode(paste_masks(values[0, filled], boxes[0, filled], size)) for values in masks]
        pixels, nothing = boxes[0, filled] * (size[::-1] * 2), np.zeros((len(boxes[0, filled]), 0, 3))
        found[image["id"]] = ImageDetections(
            pixels, scores[0, filled], labels[0, filled] - skipped, outlines[0] if outlines else (), nothing
        )
    measures = {"box": accuracy.box_map, "mask": accuracy.mask_map}
    return {output: measures[output](truth(), found) for output in _measured(model)}


def _measured(model: LoadedModel) -> Sequence[str]:
    return ("box", "mask") if "masks" in [output.name for output in model.outputs] else ("box",)


def _encode(masks: Array) -> list[Any]:
    """Probabilities (n, height, width) as COCO run lengths."""
    return [rle.encode(np.asfortranarray(mask > 0.5).astype(np.uint8)) for mask in masks]


_NARROW = 32
WEIGHTS = MODELS / "weights"


@cache
def _scratch() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="detectors-")


@cache
def _write_faster_rcnn() -> Path:
    path = Path(_scratch().name) / "fasterrcnn.pt"
    train_torchvision.write_without_masks(WEIGHTS / "maskrcnn.pt", path)
    return path


TRAINED = {
    "FasterRCNN": Trained(_write_faster_rcnn, measure),
    "RetinaResNet": Trained(WEIGHTS / "retinanet.pt", measure),
    "MobileNet": Trained(WEIGHTS / "ssdlite320_mobilenet_v3_large.pt", measure),
    "MaskRCNN": Trained(WEIGHTS / "maskrcnn.pt", measure),
}


def build(builder: str, size: tuple[int, int], classes: int = 4) -> Any:
    """A network of torchvision's own that stretches images to (height, width), with random weights."""
    make = partial(getattr(detection, builder), weights=None, weights_backbone=None, num_classes=classes)
    network = train_torchvision.build(make, size)
    if "rcnn_resnet" in builder:  # the width of others is not read from the weights
        _narrow(network.roi_heads, classes, torch.nn.BatchNorm2d if builder.endswith("_v2") else None)
    return network


def _narrow(heads: Any, classes: int, norm: type[torch.nn.Module] | None) -> None:
    """Replace the heads by narrow ones: at full width they compute ten times as long as all the rest."""
    if heads.has_mask():
        heads.mask_head = MaskRCNNHeads(256, (_NARROW, _NARROW), 1, norm)
        heads.mask_predictor = MaskRCNNPredictor(_NARROW, _NARROW, classes)
    if norm is None:
        heads.box_head = TwoMLPHead(256 * 7 * 7, _NARROW)
    else:
        heads.box_head = FastRCNNConvFCHead((256, 7, 7), [_NARROW] * 4, [_NARROW], norm)
    heads.box_predictor = FastRCNNPredictor(_NARROW, classes)


def torchvisions_own(architecture: str, size: tuple[int, int]) -> Any:
    """A trained network in torchvision's own code."""
    path = TRAINED[architecture].weights
    training = train_torchvision.TRAININGS.get(path.stem)
    network = train_torchvision.build(training.build if training else train_torchvision.build_fasterrcnn, size)
    network.load_state_dict(torch.load(path, weights_only=True)["model"])
    return network.eval()


def untrained(builder: str, size: tuple[int, int], classes: int = 4) -> Any:
    """A network with random weights that detects a lot."""
    return enliven(build(builder, size, classes), size)


def enliven(network: Any, size: tuple[int, int]) -> Any:
    """Make a network with random weights detect a lot.

    The normalisation of its backbone gets the statistics of real images, that of its heads random ones, and the outputs
    of its last layers vary over the image.
    """
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.momentum = None
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    with torch.no_grad():
        network.train().backbone(torch.stack([(image - 0.45) / 0.25 for image in drawn(4, size)]))
        for name, layer in network.eval().named_modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear) and re.search(_LAST_LAYERS, name):
                _spread(layer, *(-1, 1) if "cls_logits" in name else (0, 0.3 if "bbox" in name else 1))
        network(drawn(1, size))
    return network


_LAST_LAYERS = r"cls_logits|cls_score|bbox_pred|bbox_reg|mask_fcn_logits|(classification|regression)_head.*\.1$"


def _spread(layer: Any, mean: float, deviation: float) -> None:
    """Rescale a layer so that its first output values have this mean and standard deviation."""

    def scale(layer: Any, _: Any, answer: torch.Tensor) -> torch.Tensor:
        handle.remove()
        layer.bias.fill_(mean)
        layer.weight.mul_(deviation / answer.std())
        return (answer - answer.mean()) * deviation / answer.std() + mean

    handle = layer.register_forward_hook(scale)


def drawn(count: int, size: tuple[int, int]) -> list[torch.Tensor]:
    """Images (3, height, width) of shapes, 0 to 1."""
    images = (Image.fromarray(image.pixels) for image in shapes.images("val", count))
    inputs = (prepare(image, Preprocessing("stretch"), size)[0] for image in images)
    return [torch.from_numpy(pixels).to(torch.get_default_dtype()) for pixels in inputs]
