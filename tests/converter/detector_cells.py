"""The trained YOLOX and YOLOv4."""

from converter.trained import MODELS, Trained
from converter.yolov8_cells import measure_boxes

TRAINED = {
    "YOLOX": Trained(MODELS / "weights/yolox_nano.pth", measure_boxes()),
    "YOLOv4": Trained(MODELS / "weights/yolov4_tiny.pth", measure_boxes()),
}
