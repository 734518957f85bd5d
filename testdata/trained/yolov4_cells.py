"""The trained YOLOv4."""

from converter.trained import MODELS, Trained
from converter.yolov8_cells import measure_boxes

TRAINED = {"YOLOv4": Trained(MODELS / "weights/yolov4_tiny.pth", measure_boxes())}
