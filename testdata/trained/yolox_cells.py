"""The trained YOLOX."""

from trained.model import MODELS, Trained
from trained.yolov8_cells import measure_boxes

TRAINED = {"YOLOX": Trained(MODELS / "weights/yolox_nano.pth", measure_boxes())}
