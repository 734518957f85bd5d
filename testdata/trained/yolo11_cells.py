"""The trained YOLO11."""

from trained.model import MODELS, Trained
from trained.yolov8_cells import measure_boxes

TRAINED = {"YOLO11": Trained(MODELS / "weights/yolo11n-narrow.pt", measure_boxes())}
