"""The trained YOLOv4."""

from trained.model import MODELS, Trained
from trained.yolov8_cells import measure_boxes

TRAINED = {"YOLOv4": Trained(MODELS / "weights/yolov4_tiny.pth", measure_boxes())}
