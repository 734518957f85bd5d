"""The trained networks for semantic segmentation, and their accuracy."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from modelexport_converter.model import LoadedModel
from models.masks import Classes, ConfusionMatrix, label_map
from trained.model import MODELS, Outputs, Trained, truth

CLASSES = ("background", "circle", "square", "triangle")


def measure(model: LoadedModel, outputs: Sequence[Outputs]) -> dict[str, float]:
    """Mean IoU at the size of the images, into which the class maps are stretched back."""
    outlines: dict[int, list[tuple[int, list[float]]]] = {}
    for entry in truth()["annotations"]:
        outlines.setdefault(entry["image_id"], []).append((entry["category_id"], entry["segmentation"][0]))
    confusion = ConfusionMatrix(len(model.class_names))
    for image, (probabilities,) in zip(truth()["images"], outputs, strict=True):
        size = (image["height"], image["width"])
        confusion.add(label_map(outlines[image["id"]], size), _stretch(probabilities[0].argmax(0), size))
    return {"mIoU": confusion.mean_iou()}


def _stretch(classes: np.ndarray, size: tuple[int, int]) -> Classes:
    image = Image.fromarray(classes.astype(np.uint8))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.NEAREST))


TRAINED = {
    "DeepLabV3": Trained(MODELS / "weights/deeplabv3.pt", measure),
    "FCN": Trained(MODELS / "weights/fcn.pt", measure),
    "UNet": Trained(MODELS / "weights/unet.pt", measure),
}
