"""The trained networks for oriented boxes, and their accuracy."""

from collections.abc import Sequence

from modelexport_converter.evaluation.detections import Letterbox, find_rotated
from modelexport_converter.model import LoadedModel
from models import accuracy
from trained.model import MODELS, Outputs, Trained, truth


def measure_rotated(model: LoadedModel, outputs: Sequence[Outputs]) -> dict[str, float]:
    height, width = model.input_size
    labels = truth("eval-obb")
    found = {
        image["id"]: find_rotated(Letterbox((image["width"], image["height"]), (width, height)), *output)
        for image, output in zip(labels["images"], outputs, strict=True)
    }
    return {"rotated": accuracy.rotated_map(labels, found)}


TRAINED = {
    f"{family}-OBB": Trained(MODELS / f"weights/{family.lower()}n-obb-narrow.pt", measure_rotated, "-obb")
    for family in ("YOLOv8", "YOLO11", "YOLO26")
}
