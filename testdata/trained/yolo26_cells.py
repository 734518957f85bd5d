"""The trained YOLO26 models, with the measures of the YOLOv8 of the same task."""

from dataclasses import replace

from trained import yolov8_cells
from trained.model import MODELS

_FILES = {"": "yolo26n", "-SEG": "yolo26n-seg", "-CLS": "yolo26n-cls", "-Pose": "yolo26n-pose"}
TRAINED = {
    f"YOLO26{task}": replace(yolov8_cells.TRAINED[f"YOLOv8{task}"], source=MODELS / f"weights/{name}-narrow.pt")
    for task, name in _FILES.items()
}
