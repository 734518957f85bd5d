"""The trained YOLOX."""

from converter.trained import MODELS, Trained
from converter.yolov8_cells import measure_boxes

TRAINED = {"YOLOX": Trained(MODELS / "weights/yolox_nano.pth", measure_boxes())}
