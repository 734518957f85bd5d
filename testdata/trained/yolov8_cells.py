"""The trained YOLOv8 models, and their accuracy."""

from collections.abc import Callable, Sequence

from modelexport_converter.evaluation.detections import Letterbox, find
from modelexport_converter.model import LoadedModel
from models import accuracy
from trained.model import MODELS, Outputs, Trained, truth

CLASSES = ("circle", "square", "triangle")


def measure_top1(_: LoadedModel, outputs: Sequence[Outputs]) -> dict[str, float]:
    return {"top-1": accuracy.top1([output[0] for output in outputs], truth("eval-cls")["labels"].values())}


def measure_boxes(
    *extras: str, **measures: Callable[..., float]
) -> Callable[[LoadedModel, Sequence[Outputs]], dict[str, float]]:
    """Mean precision of the boxes and, by name, of masks or keypoints; ``extras`` name the outputs after the scores."""

    def measure(model: LoadedModel, outputs: Sequence[Outputs]) -> dict[str, float]:
        height, width = model.input_size
        found = {}
        for image, output in zip(truth()["images"], outputs, strict=True):
            letterbox = Letterbox((image["width"], image["height"]), (width, height))
            rest = dict(zip(extras, output[2:], strict=True))
            found[image["id"]] = find(letterbox, *output[:2], **rest)
        return {name: compute(truth(), found) for name, compute in {"box": accuracy.box_map, **measures}.items()}

    return measure


TRAINED = {
    "YOLOv8": Trained(MODELS / "weights/yolov8n.pt", measure_boxes()),
    "YOLOv8-SEG": Trained(
        MODELS / "weights/yolov8n-seg.pt", measure_boxes("coefficients", "prototypes", mask=accuracy.mask_map)
    ),
    "YOLOv8-CLS": Trained(MODELS / "weights/yolov8n-cls.pt", measure_top1, "-cls"),
    "YOLOv8-Pose": Trained(
        MODELS / "weights/yolov8n-pose.pt", measure_boxes("keypoints", keypoint=accuracy.keypoint_map)
    ),
}
UNTOLD = {"YOLOv8-Pose": {"kpt_shape": [4, 3]}}
"""What no weights tell: twelve channels are four keypoints of three numbers or six of two."""
WEIGHTS = {name: trained.weights for name, trained in TRAINED.items()}
