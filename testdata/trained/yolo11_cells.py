"""The trained YOLO11 models, with the measures of the YOLOv8 of the same task."""

from dataclasses import replace

from trained import yolov8_cells
from trained.model import MODELS

_FILES = {"": "yolo11n", "-SEG": "yolo11n-seg", "-CLS": "yolo11n-cls", "-Pose": "yolo11n-pose"}
TRAINED = {
    f"YOLO11{task}": replace(yolov8_cells.TRAINED[f"YOLOv8{task}"], source=MODELS / f"weights/{name}-narrow.pt")
    for task, name in _FILES.items()
}
