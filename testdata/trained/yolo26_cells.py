"""The trained YOLO26, with the measures of YOLOv8."""

from dataclasses import replace

from trained import yolov8_cells
from trained.model import MODELS

TRAINED = {"YOLO26": replace(yolov8_cells.TRAINED["YOLOv8"], source=MODELS / "weights/yolo26n-narrow.pt")}
